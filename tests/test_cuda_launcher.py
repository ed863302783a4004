"""Signatures, checks before a launch, the launcher on a stand-in and on a GPU."""

import importlib.util
import shutil
import subprocess
import sys
from types import SimpleNamespace

import cuda_right
import numpy as np
import pytest
import torch

from ckutils.cuda import (
    CudaModule,
    EmulatedModule,
    Parameter,
    check_arguments,
    kernel_files,
    kernel_module,
    parse_signatures,
    read_source,
)
from ckutils.cuda.limits import DYNAMIC_SHARED, check_launch
from ckutils.cuda.standin import cupy_on_cpu
from tools import compute_sanitizer

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not installed"
)
SCALE = """
extern "C" __global__ void scale(const REAL* __restrict__ x, REAL* y, REAL by, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = by * x[i];
}"""


# Signatures ------------------------------------------------------------------------


def test_a_signature_is_read_from_the_text():
    text = """
// extern "C" __global__ void gone(int n) {}
/* extern "C" __global__ void
   gone_too(int n) {} */
#define COUNT unsigned
typedef long long wide;
using Number = float2;
extern "C" __global__ void __launch_bounds__(256)
first(
    const Number* __restrict__ z,   // with a comment, and a comma
    double *const y, COUNT n, wide offset,
    unsigned char flag)
{ const char* url = "http://not.a.comment"; }
extern "C" __global__ __launch_bounds__((32), sizeof(int)) void second() {}
"""
    assert parse_signatures(text) == {
        "first": (
            Parameter("z", "float2", pointer=True, const=True),
            Parameter("y", "double", pointer=True, const=False),
            Parameter("n", "unsigned int", pointer=False, const=False),
            Parameter("offset", "long long", pointer=False, const=False),
            Parameter("flag", "unsigned char", pointer=False, const=False),
        ),
        "second": (),
    }


def test_constants_come_before_what_the_text_defines():
    text = "#ifndef REAL\n#define REAL float\n#endif\n" + SCALE
    assert parse_signatures(text)["scale"][0].ctype == "float"
    assert parse_signatures(text, {"REAL": "double"})["scale"][2].ctype == "double"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__global__ void k(int n) {}", 'k must be declared extern "C"'),
        ('extern "C" __global__ void k(half* x) {}', "the type of x must be one of"),
        ('extern "C" __global__ void k(float** x) {}', "got 'float..* x'"),
        ('extern "C" __global__ void k(long n) {}', "the type of n must be one of"),
        (SCALE, "scale: the type of x must be one of .* got 'const REAL"),
    ],
)
def test_a_signature_that_cannot_be_called(text, message):
    with pytest.raises(ValueError, match=message):
        parse_signatures(text)


# Arguments -------------------------------------------------------------------------

x, y, n = torch.arange(6.0), torch.zeros(6), 6
fixed = np.zeros(6, np.float32)
fixed.flags.writeable = False


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([x, y, 1.0], r"scale takes 4 arguments \(x, y, by, n\), got 3"),
        ([x, y, 1.0, n, n], "scale takes 4 arguments .* got 5"),
        (
            [x.double(), y, 1.0, n],
            r"scale: x must have dtype float32 \(float\*\), got ",
        ),
        ([x, y.to(torch.complex64), 1.0, n], "y must have dtype float32 .* complex64"),
        ([x.half(), y, 1.0, n], "got float16"),
        ([x.view(2, 3).T, y, 1.0, n], r"x must be contiguous, .* strides \(1, 3\)"),
        ([x[::2], y, 1.0, n], r"contiguous, got shape \(3,\) with strides \(2,\)"),
        ([x, torch.zeros(1).expand(6), 1.0, n], r"y must be contiguous, .*\(0,\)"),
        ([np.zeros((6, 2), "f4")[:, 0], y, 1.0, n], r"x must be .* strides \(2,\)"),
        ([x, fixed, 1.0, n], "y is written, but the array is read-only"),
        ([x, x, 1.0, n], "y and x share memory, but one of them is written"),
        ([x[1:], x[:5], 1.0, n], "share memory"),
        ([x, y.to("meta"), 1.0, n], "y must be on cpu, got meta"),
        ([3.0, y, 1.0, n], "x must be an array of float32, got 3.0"),
        ([np.float32(3), y, 1.0, n], "x must be an array of float32"),
        ([x, y, "1", n], r"by must be a real number \(float\), got '1'"),
        ([x, y, 1j, n], "by must be a real number"),
        ([x, y, True, n], "by must be a real number"),
        ([x, y, torch.tensor(1.0), n], "by must be a real number"),
        ([x, y, 1e39, n], r"by must fit in a float, got 1e\+39"),
        ([x, y, 1.0, 6.0], r"n must be an integer \(int\), got 6.0"),
        ([x, y, 1.0, True], "n must be an integer"),
        ([x, y, 1.0, 2**31], r"n must be in \[-2147483648, 2147483647\] \(int\), got "),
    ],
)
def test_a_wrong_argument_is_named(args, message):
    signature = parse_signatures(SCALE, {"REAL": "float"})["scale"]
    with pytest.raises(ValueError, match=message):
        check_arguments("scale", signature, args, "cpu")


def test_a_lazy_conjugate_is_refused():
    signature = parse_signatures(SCALE, {"REAL": "float2"})["scale"]
    z = torch.ones(6, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"x must hold its values.*resolve_conj"):
        check_arguments("scale", signature, [z.conj(), z, 1.0, n], "cpu")


def test_arrays_of_two_devices_are_refused():
    signature = parse_signatures(SCALE, {"REAL": "float"})["scale"]
    here, there = (Elsewhere(f"cuda:{index}") for index in range(2))
    with pytest.raises(ValueError, match="y must be on the device of x, cuda:0, got "):
        check_arguments("scale", signature, [here, there, 1.0, n], "cuda")
    with pytest.raises(ValueError, match="x must be on cuda, got cpu"):
        check_arguments("scale", signature, [x, y, 1.0, n], "cuda")


class Elsewhere:
    """What a CUDA tensor answers to the checks."""

    def __init__(self, device):
        self.device, self.dtype, self.shape = device, torch.float32, (6,)

    def is_contiguous(self):
        return True

    def data_ptr(self):
        return 4096 * id(self)


@pytest.mark.parametrize(
    ("ctype", "value", "bits"),
    [
        ("int", np.int64(-3), np.int32(-3)),
        ("unsigned", 2**32 - 1, np.uint32(2**32 - 1)),
        ("long long", 2**62, np.int64(2**62)),
        ("float", 0.1, np.float32(0.1)),
        ("float", 3, np.float32(3)),
        ("float", float("inf"), np.float32("inf")),
        ("double", np.float32(0.5), np.float64(0.5)),
        ("float2", 1 + 2j, np.complex64(1 + 2j)),
        ("double2", 1.5, np.complex128(1.5)),
        ("bool", True, np.bool_(True)),
    ],
)
def test_a_number_gets_the_bits_of_the_parameters_type(ctype, value, bits):
    text = f'extern "C" __global__ void k({ctype} value) {{}}'
    (got,) = check_arguments("k", parse_signatures(text)["k"], [value], "cpu")
    assert type(got) is type(bits) and got == bits


def test_inputs_may_share_memory():
    text = 'extern "C" __global__ void k(const float* a, const float* b, float* c) {}'
    signature = parse_signatures(text)["k"]
    check_arguments("k", signature, [x, x, y], "cpu")
    check_arguments("k", signature, [x[:0], x, y], "cpu")  # nothing to share
    with pytest.raises(ValueError, match="c and b share"):
        check_arguments("k", signature, [y[:2], x, x[3:]], "cpu")


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((1, 65536), 32, 0, r"k: grid.y must be in \[1, 65535\], got 65536"),
        ((1, 1, 65536), 32, 0, "grid.z must be in"),
        (2**31, 32, 0, "grid.x must be in"),
        (0, 32, 0, r"grid.x must be in \[1, 2147483647\], got 0"),
        (1, (32, 33), 0, r"at most 1024 threads, got \(32, 33, 1\), which has 1056"),
        (1, (1, 1, 65), 0, r"block.z must be in \[1, 64\]"),
        ((1, 1, 1, 1), 32, 0, "grid must be one to three integers"),
        (1.0, 32, 0, "grid must be one to three integers, got 1.0"),
        (1, (), 0, r"block must be one to three integers, got \(\)"),
        (1, 32, -4, "shared_bytes must be an integer in"),
        (1, 32, DYNAMIC_SHARED + 1, r"in \[0, 232448\], got 232449"),
    ],
)
def test_a_launch_that_no_gpu_accepts(grid, block, shared, message):
    with pytest.raises(ValueError, match=message):
        check_launch("k", grid, block, shared)


# The launcher, with a CPU in CuPy's place ------------------------------------------


@needs_compiler
def test_the_launcher_runs_on_the_stand_in():
    with cupy_on_cpu() as cupy:
        module = CudaModule(SCALE, constants={"REAL": "double"})
        a, b = torch.arange(6.0).double(), torch.zeros(6).double()
        for by in (0.1, 2):
            module.launch("scale", 2, 4, [a, b, by, 6])
            assert torch.equal(b, by * a)
    assert cupy.launches == [("scale", (2, 1, 1), (4, 1, 1), 0)] * 2
    assert cupy.streams == [cupy.stream] * 2
    assert [options for _, options in cupy.compiled] == [
        ("-std=c++17", "-DREAL=double")
    ]
    assert module.kernels == ("scale",)


@needs_compiler
def test_the_launcher_checks_before_it_launches():
    with cupy_on_cpu() as cupy:
        module = CudaModule(SCALE, constants={"REAL": "float"})
        for change, message in (
            ({"args": [x, y, 1.0, 6.0]}, "n must be an integer"),
            ({"name": "shrink"}, "name must be one of 'scale'"),
            ({"grid": 0}, "grid.x must be in"),
        ):
            given = {"name": "scale", "grid": 1, "block": 8, "args": [x, y, 1.0, 6]}
            with pytest.raises(ValueError, match=message):
                module.launch(**(given | change))
    assert cupy.launches == []


@needs_compiler
def test_the_stand_in_is_as_blunt_as_a_driver():
    """What the launcher protects from: eight bytes of a Python float for a float."""
    with cupy_on_cpu() as cupy:
        scale = cupy.RawModule(code=SCALE, options=("-DREAL=float",)).get_function(
            "scale"
        )
        packed = np.uint64(x.data_ptr()), np.uint64(y.data_ptr()), 1.0, np.int32(6)
        with pytest.raises(ValueError, match="by must have 4 bytes, got 8"):
            scale((1,), (8,), packed)
        big = cupy.RawModule(code=SCALE, options=("-DREAL=float",)).get_function(
            "scale"
        )
        with pytest.raises(RuntimeError, match="INVALID_VALUE"):
            big((1,), (8,), packed, shared_mem=49153)


@needs_compiler
@pytest.mark.parametrize("name", cuda_right.RIGHT)
def test_every_right_kernel_goes_through_the_launcher(name):
    with cupy_on_cpu():
        check_right(CudaModule(cuda_right.SOURCE), name, "cpu")


def check_right(module, name: str, device: str) -> None:
    case = cuda_right.RIGHT[name]
    a = torch.arange(case.n, dtype=torch.float32, device=device)
    b = torch.zeros_like(a)
    shared = {"shared_bytes": case.shared_bytes}
    args = [a, b, case.n]
    module.launch(cuda_right.KERNELS[name], case.grid, case.block, args, **shared)
    assert np.array_equal(b.cpu().numpy(), case.want(a.cpu().numpy()))


@needs_compiler
def test_more_shared_memory_is_asked_for_once():
    source = 'extern "C" __global__ void k(float* v) { extern __shared__ float s[]; }'
    with cupy_on_cpu():
        module = CudaModule(source)
        for wanted in (60000, 50000, 100):
            module.launch("k", 1, 1, [y], shared_bytes=wanted)
        (function,) = module._functions.values()
        assert function.max_dynamic_shared_size_bytes == 60000


@needs_compiler
def test_older_versions_know_a_stream_by_its_address():
    with cupy_on_cpu() as cupy:
        module = CudaModule(SCALE, constants={"REAL": "float"})
        del cupy.cuda.Stream.from_external  # CuPy 13
        module.launch("scale", 1, 8, [x, y, 2.0, 6])
        cupy.stream = SimpleNamespace(cuda_stream=9)  # torch 2.9
        module.launch("scale", 1, 8, [x, y, 2.0, 6])
    assert cupy.streams == [7, 9]


@needs_compiler
def test_one_call_gives_the_emulator_or_the_launcher():
    stem = kernel_files()[0]
    assert "__global__" in read_source(stem)
    constants = {"REAL": "float", "NUMBER": "float"}
    here = kernel_module(stem, "cpu", **constants)
    assert isinstance(here, EmulatedModule)
    assert kernel_module(stem, "cpu", **constants) is here
    with cupy_on_cpu():
        there = kernel_module(stem, "cpu", **constants)
        assert isinstance(there, CudaModule) and there.kernels == here.kernels
    assert kernel_module(stem, "cpu", **constants) is here
    with pytest.raises(ValueError, match="device_type must be one of 'cpu', 'cuda'"):
        kernel_module(stem, "tpu")


def test_a_file_that_does_not_exist():
    with pytest.raises(ValueError, match=r"stem must be one of .*'correlate2d'.* got"):
        read_source("correlate3d")


def test_without_cupy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    module = CudaModule(SCALE, constants={"REAL": "float"})
    with pytest.raises(RuntimeError, match=r"launched by CuPy, .* pip install cupy-"):
        module.launch("scale", 1, 8, [x, y, 2.0, 6])


def test_importing_the_package_needs_neither_cupy_nor_a_compiler():
    code = (
        "import sys, os; os.environ['PATH'] = ''; sys.modules['cupy'] = None\n"
        "import ckutils, ckutils.cuda.compile, ckutils.cuda.standin"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# compute-sanitizer -----------------------------------------------------------------


def test_compute_sanitizer_runs_both_tools_and_passes_on_a_finding(
    tmp_path, monkeypatch
):
    """A script that notes its arguments in the place of NVIDIA's tool."""
    fake, log = tmp_path / "compute-sanitizer", tmp_path / "log"
    fake.write_text(f'#!/bin/sh\necho "$PYTORCH_NO_CUDA_MEMORY_CACHING $*" >> {log}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compute_sanitizer.main() == 0
    lines = log.read_text().splitlines()
    for tool, line in zip(("memcheck", "racecheck"), lines, strict=True):
        assert line.startswith(f"1 --tool {tool} --error-exitcode 9 ")
        assert "-m pytest -m gpu" in line
    fake.write_text("#!/bin/sh\nexit 9\n")
    assert compute_sanitizer.main() == 9


def test_without_a_gpu_or_the_tool_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute_sanitizer.main() == 0
    assert "skipped: no GPU" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compute_sanitizer.main() == 0
    assert "skipped: compute-sanitizer, a part" in capsys.readouterr().out


# On a GPU --------------------------------------------------------------------------

HAS_GPU = torch.cuda.is_available() and importlib.util.find_spec("cupy") is not None
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU and CuPy"),
]


def on_gpu(function):
    for mark in gpu:
        function = mark(function)
    return function


@on_gpu
@pytest.mark.parametrize("name", cuda_right.RIGHT)
def test_a_gpu_agrees_with_the_emulator(name):
    check_right(CudaModule(cuda_right.SOURCE), name, "cuda")


@on_gpu
def test_a_launch_waits_for_torch_on_any_stream():
    """What torch queued on the stream before is done before the kernel starts."""
    module = CudaModule(SCALE, constants={"REAL": "float"})
    for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            a = torch.zeros(1 << 24, device="cuda")
            b = torch.empty_like(a)
            for _ in range(50):
                a += 1
            module.launch("scale", (1 << 24) // 256, 256, [a, b, 2.0, 1 << 24])
            total = b.sum()
        stream.synchronize()
        assert total == 100 * (1 << 24)


@on_gpu
def test_the_launcher_refuses_on_a_gpu_what_it_refuses_here():
    module = CudaModule(SCALE, constants={"REAL": "float"})
    a, b = x.cuda(), y.cuda()
    for args, message in (
        ([x, b, 1.0, 6], "x must be on cuda, got cpu"),
        ([a[::2], b, 1.0, 3], "x must be contiguous"),
        ([a, a, 1.0, 6], "share memory"),
        ([a.double(), b, 1.0, 6], "x must have dtype float32"),
        ([a, b, 1.0, 2**31], "n must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            module.launch("scale", 1, 8, args)
