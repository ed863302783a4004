"""Ask NVIDIA's compiler what a kernel needs: registers, spills, stack, shared memory.

Neither a GPU nor a driver is needed. NVRTC, the compiler as a library, comes as a wheel
of 88 MB (nvidia-cuda-nvrtc-cu12); nvcc comes with the CUDA toolkit. Where both are at
hand both are asked.
"""

import ctypes
import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ckutils.checks import check_choice
from ckutils.cuda.emulator import NO_CONSTANTS

ARCHITECTURES = (75, 80, 90, 100)  # T4, A100, H100 and H200, B200
COMPILERS = ("nvrtc", "nvcc")


class Usage(NamedTuple):
    """What one kernel needs on one architecture; bytes are per thread, or per block."""

    kernel: str
    architecture: int
    registers: int
    spills: int  # bytes of registers that went to memory and came back
    stack: int  # bytes of local memory a thread
    shared: int  # bytes of static shared memory a block
    compiler: str


def available_compilers() -> tuple[str, ...]:
    """Which of "nvrtc" and "nvcc" are at hand. All chapters."""
    found = {"nvrtc": _nvrtc_library() is not None, "nvcc": shutil.which("nvcc")}
    return tuple(name for name in COMPILERS if found[name])


def compile_report(
    source: str,
    architectures: Sequence[int] = ARCHITECTURES,
    constants: Mapping[str, object] = NO_CONSTANTS,
    *,
    compiler: str = "nvrtc",
) -> tuple[Usage, ...]:
    """Compile a .cu text for each architecture; one row a kernel and architecture.

    All chapters.

    Args:
        source: the text of the file.
        architectures: compute capabilities, 75 for sm_75.
        constants: macros, as {"REAL": "float"}.
        compiler: "nvrtc" or "nvcc".
    Raises RuntimeError with the compiler's words if it does not accept the text, and if
        there is no such compiler.
    """
    check_choice(COMPILERS, compiler=compiler)
    if compiler not in available_compilers():
        raise RuntimeError(
            f"{compiler} is not installed: NVRTC comes with pip install "
            f"nvidia-cuda-nvrtc-cu12, nvcc with the CUDA toolkit"
        )
    ask = {"nvrtc": _ask_nvrtc, "nvcc": _ask_nvcc}[compiler]
    define = [f"-D{name}={value}" for name, value in constants.items()]
    rows = []
    for architecture in architectures:
        flags = ["-std=c++17", *define, f"-arch=sm_{architecture}"]
        rows += _usage(ask(source, flags), architecture, compiler)
    return tuple(rows)


# The assembler's report ------------------------------------------------------------

_ENTRY = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<target>\w+)'"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.S,
)


def _usage(log: str, architecture: int, compiler: str) -> list[Usage]:
    rows = []
    for match in _ENTRY.finditer(log):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        rows.append(
            Usage(
                kernel=match["kernel"],
                architecture=architecture,
                registers=int(match["registers"]),
                spills=int(match["stores"]) + int(match["loads"]),
                stack=int(match["stack"]),
                shared=int(shared[1]) if shared else 0,
                compiler=compiler,
            )
        )
    return rows


# nvcc ------------------------------------------------------------------------------


def _ask_nvcc(source: str, flags: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cu"
        file.write_text(source)
        output = ["-cubin", "-o", str(file.with_suffix(".cubin"))]
        command = ["nvcc", *flags, "-Xptxas", "-v", *output, str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc does not accept the kernel:\n{done.stderr.strip()}")
    return done.stderr + done.stdout


# NVRTC -----------------------------------------------------------------------------


@functools.cache
def _nvrtc_library() -> Path | None:
    """The library in one of the wheels nvidia-cuda-nvrtc, -cu12 and so on."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else ()
    found = [f for d in folders for f in Path(d).glob("*/lib/libnvrtc.so.[0-9]*")]
    return max(found, default=None)


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    path = _nvrtc_library()
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def nvrtc_version() -> str:
    """As "NVRTC 12.8"; empty where there is none. All chapters."""
    if _nvrtc_library() is None:
        return ""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return f"NVRTC {major.value}.{minor.value}"


def _call(name: str, *arguments) -> None:
    library = _nvrtc()
    status = getattr(library, name)(*arguments)
    if status:
        text = library.nvrtcGetErrorString(status).decode()
        raise RuntimeError(f"{name}: {text}")


def _ask_nvrtc(source: str, flags: Sequence[str]) -> str:
    program = ctypes.c_void_p()
    _call(
        "nvrtcCreateProgram",
        ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None,
    )  # fmt: skip
    options = [flag.encode() for flag in (*flags, "--ptxas-options=-v")]
    try:
        packed = (ctypes.c_char_p * len(options))(*options)
        _call("nvrtcCompileProgram", program, len(options), packed)
    except RuntimeError as error:
        raise RuntimeError(
            f"NVRTC does not accept the kernel:\n{_log(program)}"
        ) from error
    else:
        return _log(program)
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _call("nvrtcGetProgramLog", program, text)
    return text.value.decode()
