"""Every kernel through NVIDIA's compiler, for four generations of GPUs: no spills."""

import functools
import json
from pathlib import Path

import cuda_bugs
import cuda_right
import pytest

from ckutils.cuda import compile as compiling
from ckutils.cuda import kernel_files, parse_signatures, read_source, variants
from ckutils.cuda.compile import ARCHITECTURES, Usage, compile_report
from tools import kernels

ROOT = Path(__file__).resolve().parent.parent
AVAILABLE = compiling.available_compilers()
WORKS = 'extern "C" __global__ void k(float* x) { x[threadIdx.x] *= 2; }'
needs_nvrtc = pytest.mark.skipif(
    "nvrtc" not in AVAILABLE, reason="needs the wheel nvidia-cuda-nvrtc-cu12"
)
any_compiler = pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(name not in AVAILABLE, reason=f"needs {name}"),
        )
        for name in compiling.COMPILERS
    ],
)


@functools.cache
def needs():
    return variants.needs()


@needs_nvrtc
@pytest.mark.parametrize("file", kernel_files())
def test_no_kernel_spills(file):
    rows = [row for row in needs() if row.file == file]
    (constants,) = variants.VARIANTS[file][:1]
    assert {r.kernel for r in rows} == set(
        parse_signatures(read_source(file), constants)
    )
    for row in rows:
        assert tuple(u.architecture for u in row.usages) == ARCHITECTURES
        for usage in row.usages:
            assert usage.spills == 0, f"{row.kernel} with {row.constants}: {usage}"
            assert 0 < usage.registers <= 255 and usage.shared <= 48 * 1024


def test_every_kernel_file_has_its_variants(monkeypatch):
    assert set(variants.VARIANTS) == set(kernel_files())
    monkeypatch.delitem(variants.VARIANTS, "correlate2d")
    with pytest.raises(ValueError, match="VARIANTS must have a row for correlate2d"):
        variants.needs()


@needs_nvrtc
def test_a_variant_that_changes_nothing_has_no_row_of_its_own():
    keys = [(row.kernel, row.usages) for row in needs()]
    assert len(keys) == len(set(keys))
    naive = [row for row in needs() if row.kernel == "correlate2d_naive"]
    assert len(naive) == 2  # float and double, whatever the size


@needs_nvrtc
def test_what_the_emulator_takes_for_cuda_is_cuda():
    """Each kernel that tests the emulator is one for the real compiler too."""
    for source in (cuda_right.SOURCE, cuda_bugs.SOURCE):
        found = {u.kernel for u in compile_report(source, (75, 100))}
        assert found == set(parse_signatures(source))


# The report ------------------------------------------------------------------------


@any_compiler
def test_a_report_has_the_numbers_of_a_known_kernel(compiler):
    source = """
extern "C" __global__ void __launch_bounds__(1024) crowded(float* x)
{
    __shared__ float s[100];
    float v[200];
    for (int i = 0; i < 200; ++i) v[i] = x[i * 1024 + threadIdx.x];
    s[threadIdx.x % 100] = v[0];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 200; ++i)
        #pragma unroll
        for (int j = 0; j < 200; j += 7) v[i] = v[i] * v[j] + s[j % 100];
    for (int i = 0; i < 200; ++i) x[i * 1024 + threadIdx.x] = v[i];
}"""
    (report,) = compile_report(source, (80,), compiler=compiler)
    assert (report.kernel, report.architecture) == ("crowded", 80)
    assert report.registers == 64  # 65536 registers for 1024 threads
    assert report.spills > 0 and report.shared == 400 and report.compiler == compiler
    easy = compile_report(WORKS, (75, 90), {"REAL": "float"}, compiler=compiler)
    assert [(u.architecture, u.spills, u.stack, u.shared) for u in easy] == [
        (75, 0, 0, 0),
        (90, 0, 0, 0),
    ]


@any_compiler
def test_what_does_not_compile_is_told_in_the_compilers_words(compiler):
    with pytest.raises(RuntimeError, match=r'does not accept.*\n.*"two" is undefined'):
        compile_report(WORKS.replace("2", "two"), (80,), compiler=compiler)


def test_an_unknown_or_missing_compiler(monkeypatch):
    with pytest.raises(ValueError, match="compiler must be one of 'nvrtc', 'nvcc'"):
        compile_report(WORKS, compiler="clang")
    monkeypatch.setattr(compiling, "available_compilers", lambda: ())
    with pytest.raises(RuntimeError, match="nvrtc is not installed: NVRTC comes with"):
        compile_report(WORKS)


# The table -------------------------------------------------------------------------


def test_the_table_shows_the_worst_of_all_architectures():
    usages = (Usage("k", 75, 40, 0, 0, 128, "nvrtc"), Usage("k", 90, 32, 8, 0, 64, ""))
    text = variants.table([variants.Need("file", "k", "REAL=float", usages)])
    assert text.splitlines() == [
        "| kernel | constants | sm_75 | sm_90 | shared bytes | spilled bytes |",
        "|---|---|--:|--:|--:|--:|",
        "| `k` | REAL=float | 40 | 32 | 128 | 8 |",
    ]


@needs_nvrtc
def test_the_stored_table_is_what_the_compiler_says():
    stored = json.loads(kernels.FILE.read_text())
    if stored["compiler"] != compiling.nvrtc_version():
        pytest.skip(f"{kernels.FILE.name} is from {stored['compiler']}")
    fresh = json.loads(json.dumps(kernels.record(needs())))
    assert stored == fresh, "a kernel has changed: run python -m tools.kernels"
