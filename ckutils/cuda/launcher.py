"""Launch the kernels of a .cu file on a GPU, on torch's stream, through CuPy.

CuPy compiles the text and passes on what it is given; what is given is checked here,
against the signature in the text. Outputs are allocated by the caller, with torch.
"""

import contextlib
import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ckutils.checks import check_choice
from ckutils.cuda.emulator import NO_CONSTANTS, EmulatedModule
from ckutils.cuda.limits import STATIC_SHARED, check_launch
from ckutils.cuda.signature import (
    address_of,
    check_arguments,
    device_of,
    parse_signatures,
)

FOLDER = Path(__file__).parent
# What a launch needs of CuPy and torch: None stands for the real ones, imported when
# needed; ckutils.cuda.standin puts a CPU in their place.
_standin = None


def _cupy():
    if _standin is not None:
        return _standin
    import torch  # noqa: F401  before CuPy, so that both find torch's CUDA libraries

    try:
        import cupy
    except ImportError as missing:
        raise RuntimeError(
            "the GPU kernels are launched by CuPy, which is not installed: "
            "pip install cupy-cuda12x or cupy-cuda13x, as fits the driver"
        ) from missing
    return cupy


def _torch_cuda():
    if _standin is not None:
        return _standin.torch_cuda
    import torch

    return torch.cuda


def kernel_files() -> tuple[str, ...]:
    """The names of the book's .cu files, without their ending. All chapters."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.cu")))


def read_source(stem: str) -> str:
    """The text of a .cu file of the book. All chapters.

    Raises ValueError if there is no such file.
    """
    check_choice(kernel_files(), stem=stem)
    return (FOLDER / f"{stem}.cu").read_text()


@functools.cache
def _emulated(stem: str, constants: tuple) -> EmulatedModule:
    source = read_source(stem)
    return EmulatedModule(source, constants=dict(constants), name=f"{stem}.cu")


@functools.cache
def _launched(stem: str, constants: tuple) -> "CudaModule":
    return CudaModule(stem, constants=dict(constants))


def kernel_module(stem: str, device_type: str, **constants):
    """The kernels of one .cu file for a device: one `launch` for CPU and GPU.

    All chapters. Each is made once for a set of constants.

    Args:
        stem: the file, as "correlate2d".
        device_type: "cuda" for the GPU, "cpu" for the emulator.
        constants: macros, as REAL="float".
    """
    check_choice(("cpu", "cuda"), device_type=device_type)
    make = _emulated if device_type == "cpu" and _standin is None else _launched
    return make(stem, tuple(sorted(constants.items())))


class CudaModule:
    """The kernels of one .cu text on a GPU.

    All chapters.

    Args:
        source: the name of one of the book's files, as "correlate2d", or a text.
        constants: macros, as {"REAL": "float", "BLOCK": 128}.
    """

    def __init__(self, source: str, *, constants: Mapping[str, object] = NO_CONSTANTS):
        self.source = source if "__global__" in source else read_source(source)
        self.options = (
            "-std=c++17",
            *(f"-D{name}={value}" for name, value in constants.items()),
        )
        self.signatures = parse_signatures(self.source, constants)
        self._functions: dict[tuple[str, int], object] = {}
        self._modules: dict[int, object] = {}
        self._lock = threading.Lock()

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the kernels, in the order of the file."""
        return tuple(self.signatures)

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence,
        *,
        shared_bytes: int = 0,
    ) -> None:
        """Start one kernel on torch's current stream; does not wait for it.

        Args:
            name: the kernel. grid, block: one to three integers.
            args: CUDA tensors for pointers, numbers for the rest.
            shared_bytes: dynamic shared memory of a block.
        Raises ValueError for what a launch must not be given, RuntimeError without
            CuPy.
        """
        check_choice(self.kernels, name=name)
        signature = self.signatures[name]
        cupy, torch_cuda = _cupy(), _torch_cuda()
        device_type = getattr(cupy, "device_type", "cuda")
        values = check_arguments(name, signature, args, device_type)
        grid, block = check_launch(name, grid, block, shared_bytes)
        packed = tuple(
            np.uint64(address_of(value)) if parameter.pointer else value
            for parameter, value in zip(signature, values, strict=True)
        )
        with torch_cuda.device(_index(signature, values)):
            index = torch_cuda.current_device()
            with cupy.cuda.Device(index), _stream(cupy, torch_cuda.current_stream()):
                function = self._function(cupy, name, index, shared_bytes)
                function(grid, block, packed, shared_mem=shared_bytes)

    def _function(self, cupy, name: str, index: int, shared_bytes: int):
        """Compiled at the first call on a device; CuPy keeps the binary on disk."""
        with self._lock:
            if (name, index) not in self._functions:
                if index not in self._modules:
                    self._modules[index] = cupy.RawModule(
                        code=self.source, options=self.options
                    )
                function = self._modules[index].get_function(name)
                self._functions[name, index] = function
            function = self._functions[name, index]
            if shared_bytes > max(
                STATIC_SHARED, function.max_dynamic_shared_size_bytes
            ):
                function.max_dynamic_shared_size_bytes = shared_bytes
        return function


def _index(signature: Sequence, values: Sequence) -> int | None:
    """The device that holds the arguments; None, the current one, without arrays."""
    for parameter, value in zip(signature, values, strict=True):
        if parameter.pointer:
            _, _, index = device_of(value).partition(":")
            return int(index) if index else None
    return None


def _stream(cupy, stream) -> contextlib.AbstractContextManager:
    """torch's stream as CuPy's; older versions of either know only its address."""
    if hasattr(cupy.cuda.Stream, "from_external") and hasattr(
        stream, "__cuda_stream__"
    ):
        return cupy.cuda.Stream.from_external(stream)
    return cupy.cuda.ExternalStream(stream.cuda_stream)
