"""The emulator: bugs it must see, right kernels it must not accuse, the cache."""

import functools
import re
import shutil
import subprocess
import sys
import threading

import cuda_bugs
import cuda_right
import numpy as np
import pytest
import torch

from ckutils.cuda import EmulatedModule, KernelError, build, emulator, sanitizers
from ckutils.cuda.sanitizers import sanitize

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="the emulator needs g++, which is not installed"
)
SCHEDULES = ("index", "reverse", 1, 2)
TWICE = """
extern "C" __global__ void twice(const REAL* x, REAL* y, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2 * x[i];
}
"""


@functools.cache
def module(source: str, sanitizer: str | None = None, bug: bool = False):
    constants = {"BUG": 1} if bug else {}
    return EmulatedModule(source, constants=constants, sanitizer=sanitizer)


def run(kernels: EmulatedModule, name: str, case, n: int, schedule="index"):
    x, y = np.arange(n, dtype=np.float32), np.zeros(n, np.float32)
    shared = {"shared_bytes": case.shared_bytes, "schedule": schedule}
    kernels.launch(name, case.grid, case.block, [x, y, n], **shared)
    return y


# What the modes catch --------------------------------------------------------------


def caught(name: str, bug: bool) -> tuple[str, list]:
    """The modes that raise the alarm, and the outputs in all schedules."""
    case, kernel = cuda_bugs.BUGS[name], cuda_bugs.KERNELS[name]
    modes, outputs = [], []
    try:
        kernels = module(cuda_bugs.SOURCE, None, bug)
        outputs = [run(kernels, kernel, case, 64, how) for how in SCHEDULES]
    except KernelError:
        modes.append("error")
    same = all(np.array_equal(y, outputs[0]) for y in outputs)  # not so if NaN
    if outputs and not same:
        modes.append("values")
    for sanitizer in ("address", "thread"):
        try:
            run(module(cuda_bugs.SOURCE, sanitizer, bug), kernel, case, 64)
        except KernelError:
            modes.append(sanitizer)
    return " ".join(modes), outputs


@pytest.mark.parametrize("name", cuda_bugs.BUGS)
def test_a_planted_bug_is_caught_and_its_right_twin_is_not(name):
    assert caught(name, bug=True)[0] == cuda_bugs.BUGS[name].caught
    alarms, outputs = caught(name, bug=False)
    assert alarms == ""
    want = cuda_bugs.BUGS[name].want(np.arange(64, dtype=np.float32))
    assert np.array_equal(outputs[0], want)


def test_no_mode_can_be_spared():
    alone = {bug.caught for bug in cuda_bugs.BUGS.values()}
    assert {"values", "address", "thread"} <= alone
    assert len(cuda_bugs.BUGS) >= 24


@pytest.mark.parametrize("name", cuda_right.RIGHT)
def test_a_right_kernel_raises_no_alarm(name):
    case, kernel = cuda_right.RIGHT[name], cuda_right.KERNELS[name]
    want = case.want(np.arange(case.n, dtype=np.float32))
    kernels = module(cuda_right.SOURCE)
    for schedule in SCHEDULES:
        assert np.array_equal(run(kernels, kernel, case, case.n, schedule), want)
    for sanitizer in ("address", "thread"):
        kernels = module(cuda_right.SOURCE, sanitizer)
        assert np.array_equal(run(kernels, kernel, case, case.n), want)


def test_the_switch_without_assembly_does_the_same(monkeypatch):
    """What other processors than x86-64 use."""
    monkeypatch.setattr(build, "COMMON", (*build.COMMON, "-DCK_UCONTEXT"))
    kernels = EmulatedModule(cuda_right.SOURCE)
    for name, case in cuda_right.RIGHT.items():
        want = case.want(np.arange(case.n, dtype=np.float32))
        got = run(kernels, cuda_right.KERNELS[name], case, case.n, 3)
        assert np.array_equal(got, want), name


def test_a_report_tells_kind_and_line():
    source = 'extern "C" __global__ void k(float* x) {\n    x[threadIdx.x + 1] = 1;\n}'
    x = np.zeros(4, np.float32)
    report = sanitize(source, "k", 1, 4, [x], sanitizer="address")
    assert (report.clean, report.kind, report.line) == (
        False,
        "heap-buffer-overflow",
        2,
    )
    assert str(report) == "heap-buffer-overflow, line 2"
    race = sanitize(source.replace("+ 1", "/ 2"), "k", 1, 4, [x], sanitizer="thread")
    assert (race.kind, race.line) == ("data race", 2)
    assert "Write of size 4" in race.text
    good = source.replace(" + 1", "")
    assert str(sanitize(good, "k", 1, 4, [x], sanitizer="thread")) == "clean"
    assert np.array_equal(x, np.ones(4))
    waits = good.replace("{", "{ if (threadIdx.x > 1) __syncthreads();")
    report = sanitize(waits, "k", 1, 4, [x], sanitizer="address")
    assert report.line == 1 and "reached by 2 of 4 threads" in report.kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if (threadIdx.x) __syncthreads();", "line 1: __syncthreads is reached by 3 "),
        ("x[threadIdx.x] = 1 / (n - 4);", "integer division by zero"),
        ("assert(n == 3);", r"line 1: assert\(n == 3\) failed \(thread \(0, 0, 0\)"),
        (
            "float a[65536]; for (int i = 0; i < 65536; ++i) a[i] = x[i % n];"
            " x[0] = a[(int)x[1]];",
            "stack of a thread overflows",
        ),
        ("*(int*)nullptr = 1;", "null pointer"),
        ("x[0] = __shfl_sync(1u << threadIdx.x, 1.0f, 0, 3);", "width of a shuffle"),
        ("x[0] = __shfl_sync(1u << threadIdx.x, 1.0f, 9);", "its mask does not name"),
    ],
)
def test_a_message_says_what_and_where(body, message):
    source = f'extern "C" __global__ void k(float* x, int n) {{ {body} }}'
    with pytest.raises(KernelError, match=message):
        EmulatedModule(source).launch("k", 1, 4, [np.zeros(4, np.float32), 4])


# Schedules -------------------------------------------------------------------------


def test_a_schedule_is_an_order_of_threads_and_blocks():
    source = """
extern "C" __global__ void order(int* count, int* place)
{
    place[atomicAdd(count, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}"""

    def order(schedule):
        count, place = np.zeros(1, np.int32), np.zeros(64, np.int32)
        module(source).launch("order", 4, 16, [count, place], schedule=schedule)
        return place.tolist()

    ascending = list(range(64))
    assert order("index") == ascending
    assert order("reverse") == ascending[::-1]
    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == ascending and order(0) not in (
        ascending,
        ascending[::-1],
    )
    blocks = [place // 16 for place in order(5)]
    assert blocks != sorted(blocks)


def test_launches_from_two_python_threads_do_not_mix():
    kernels = EmulatedModule(TWICE, constants={"REAL": "float"})
    x = np.arange(5000, dtype=np.float32)
    outputs = [np.zeros_like(x) for _ in range(4)]
    workers = [
        threading.Thread(target=kernels.launch, args=("twice", 20, 256, [x, y, 5000]))
        for y in outputs
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(y, 2 * x) for y in outputs)


# Arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("guard", [0, 256])
def test_tensors_and_complex_numbers_go_in_and_out(guard):
    source = """
extern "C" __global__ void rotate(const float2* z, float2* w, double2 by, bool twice)
{
    const float2 v = z[threadIdx.x];
    const float s = twice ? 2 : 1;
    w[threadIdx.x] = make_float2(s * (float)(v.x * by.x - v.y * by.y),
                                 s * (float)(v.x * by.y + v.y * by.x));
}"""
    z = torch.complex(torch.arange(6.0), torch.ones(6))
    w = torch.zeros_like(z)
    module(source).launch("rotate", 1, 6, [z, w, 1j, True], guard=guard)
    assert torch.equal(w, 2j * z)


def test_an_array_keeps_its_distance_from_256_bytes():
    """A part of a tensor may start where four floats cannot be read at once."""
    source = """
extern "C" __global__ void first(const float* x, float* y)
{
    *y = ((const float4*)x)->x;
}"""
    x, y = torch.arange(16.0), torch.zeros(1)
    for sanitizer in (None, "address"):
        kernels = module(source, sanitizer)
        kernels.launch("first", 1, 1, [x[4:], y])
        assert y == 4
        with pytest.raises(KernelError, match="misaligned address"):
            kernels.launch("first", 1, 1, [x[1:], y])


def test_shared_memory_has_a_limit_that_can_be_set():
    source = """
extern "C" __global__ void k(float* x)
{
    __shared__ float fixed[4096];
    extern __shared__ float s[];
    fixed[0] = s[0] = *x;
}"""
    x = np.zeros(1, np.float32)
    small = EmulatedModule(source, shared_limit=64 * 1024)
    small.launch("k", 1, 1, [x], shared_bytes=48 * 1024)
    with pytest.raises(KernelError, match="65552 bytes of shared memory in all; 65536"):
        small.launch("k", 1, 1, [x], shared_bytes=48 * 1024 + 16)
    with pytest.raises(ValueError, match=r"shared_bytes must be .* \[0, 65536\]"):
        small.launch("k", 1, 1, [x], shared_bytes=65537)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "thrice"}, "name must be one of 'twice', got 'thrice'"),
        ({"schedule": "random"}, "schedule must be one of 'index', 'reverse'"),
        ({"schedule": -2}, "schedule must be an integer >= 0, got -2"),
        ({"guard": -1}, "guard must be an integer >= 0"),
        ({"block": 1025}, r"block.x must be in \[1, 1024\], got 1025"),
    ],
)
def test_what_a_launch_must_not_be_given(changes, message):
    kernels = EmulatedModule(TWICE, constants={"REAL": "float"})
    x = np.zeros(8, np.float32)
    given = {"name": "twice", "grid": 1, "block": 8, "args": [x, x.copy(), 8]}
    with pytest.raises(ValueError, match=message):
        kernels.launch(**(given | changes))


# Source ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("__shared__ float s[4];\n" + TWICE, ValueError, "line 1: __shared__ must "),
        (TWICE.replace("2 *", "two *"), RuntimeError, r"kernel.cu:5:.*two"),
        (TWICE.replace("2 *", "__hip_clock() *"), RuntimeError, "__hip_clock"),
        (
            TWICE.replace("2 * x[i]", "__shfl_sync(~0u, make_float2(1, 2), 0).x"),
            RuntimeError,
            "a shuffle moves a number of 4 or 8 bytes",
        ),
    ],
)
def test_a_text_that_is_no_kernel(source, error, message):
    with pytest.raises(error, match=message):
        EmulatedModule(source, constants={"REAL": "float"})


def test_an_unknown_sanitizer_is_refused():
    with pytest.raises(ValueError, match="sanitizer must be one of None, 'address'"):
        EmulatedModule(TWICE, constants={"REAL": "float"}, sanitizer="memory")


# Building --------------------------------------------------------------------------


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"no-such-compiler, .* install g\+\+"):
        EmulatedModule(TWICE, constants={"REAL": "float"})


def test_what_was_compiled_is_not_compiled_again(monkeypatch):
    for constants in ({"REAL": "float"}, {"REAL": "double"}):
        EmulatedModule(TWICE, constants=constants)

    def compile_again(command):
        raise AssertionError(f"compiled again: {command}")

    monkeypatch.setattr(build, "_compile", compile_again)
    EmulatedModule(TWICE, constants={"REAL": "double"})
    with pytest.raises(AssertionError, match="compiled again"):
        EmulatedModule(TWICE, constants={"REAL": "int"})


BUILD = """
import sys
from ckutils.cuda import EmulatedModule
EmulatedModule(sys.argv[1], constants={"REAL": "float"})
"""


def test_processes_that_build_the_same_do_not_disturb_each_other(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # not forked: other tests have left threads in this process
    made = [subprocess.Popen([sys.executable, "-c", BUILD, TWICE]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in made] == [0, 0, 0]
    kept = sorted(path.suffix for path in (tmp_path / "ckutils").iterdir())
    assert kept == [".cpp", ".o", ".o", ".o", ".so"]


def test_the_cache_moves_where_it_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / "ckutils"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert re.match(r"ckutils-\d+$", build.cache_folder().name)
    monkeypatch.setattr(build, "_temporary", lambda: tmp_path / "file" / "x")
    with pytest.raises(RuntimeError, match="set XDG_CACHE_HOME"):
        build.cache_folder()


# Sanitizers that cannot run --------------------------------------------------------


def test_tsan_says_what_to_do_about_the_address_space(monkeypatch):
    text = "FATAL: ThreadSanitizer: unexpected memory mapping 0x1-0x2"
    commands = []

    def fake(command, **_):
        commands.append(command[0])
        return subprocess.CompletedProcess(command, 66, "", text)

    kernels = EmulatedModule(
        TWICE, constants={"REAL": "float"}, sanitizer="thread"
    )  # built before
    monkeypatch.setattr(sanitizers.subprocess, "run", fake)
    x = np.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match=r"vm\.mmap_rnd_bits=28"):
        kernels.launch("twice", 1, 4, [x, x.copy(), 4])
    assert commands[-1] == "setarch" or shutil.which("setarch") is None


def test_a_program_that_dies_without_a_finding_is_an_error(monkeypatch):
    kernels = EmulatedModule(TWICE, constants={"REAL": "float"}, sanitizer="address")
    done = subprocess.CompletedProcess([], 5, "", "out of luck")
    monkeypatch.setattr(sanitizers.subprocess, "run", lambda *_, **__: done)
    x = np.zeros(4, np.float32)
    with pytest.raises(RuntimeError, match="status 5:\nout of luck"):
        kernels.launch("twice", 1, 4, [x, x.copy(), 4])


def test_a_driver_would_not_know_a_wrong_size():
    kernels = EmulatedModule(TWICE, constants={"REAL": "float"})
    packed = [bytes(8), bytes(8), bytes(8)]  # n as eight bytes, as a Python int goes
    with pytest.raises(ValueError, match="twice: n must have 4 bytes, got 8"):
        kernels.launch_packed("twice", 1, 1, packed, 0)


def test_without_memory_for_stacks_there_is_an_error(monkeypatch):
    monkeypatch.setattr(emulator, "_stacks", 1)
    monkeypatch.setattr(emulator, "MAX_THREADS", 2)
    kernels = EmulatedModule(TWICE, constants={"REAL": "float"})
    x = np.zeros(4, np.float32)
    with pytest.raises(KernelError, match="no memory for the stacks of 4 threads"):
        kernels.launch("twice", 1, 4, [x, x.copy(), 4])
