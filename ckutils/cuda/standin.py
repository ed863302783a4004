"""A CPU in the place of CuPy and torch.cuda, so that the launcher runs without a GPU.

It has the part of their interfaces that the launcher uses, and is as blunt as a driver:
a kernel gets the bytes of its arguments and takes addresses as they are.
"""

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from ckutils.cuda import launcher
from ckutils.cuda.emulator import EmulatedModule


class _Function:
    """What RawModule.get_function returns: called with grid, block and arguments."""

    def __init__(self, log: list, module: EmulatedModule, name: str):
        self._log, self._module, self._name = log, module, name
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(self, grid, block, args: Sequence, *, shared_mem: int = 0) -> None:
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._log.append((self._name, grid, block, shared_mem))
        packed = [_bytes(value) for value in args]
        self._module.launch_packed(self._name, grid, block, packed, shared_mem)


def _bytes(value) -> bytes:
    """As CuPy passes a number: Python's own types are 8 bytes or 16."""
    return np.asarray(value).tobytes()


class StandIn:
    """Plays `cupy`, and `torch.cuda` under the name torch_cuda. All chapters.

    `launches` lists what was started: name, grid, block and dynamic shared memory;
    `streams` the streams it was started on; `compiled` the texts that were compiled.
    """

    device_type = "cpu"

    def __init__(self):
        self.launches, self.streams, self.compiled = [], [], []
        self.stream = SimpleNamespace(cuda_stream=7, __cuda_stream__=lambda: (0, 7))
        self.torch_cuda = SimpleNamespace(
            device=contextlib.nullcontext,
            current_device=lambda: 0,
            current_stream=lambda: self.stream,
        )
        self.cuda = SimpleNamespace(
            Device=contextlib.nullcontext,
            Stream=SimpleNamespace(from_external=self._on_stream),
            ExternalStream=self._on_stream,
        )

    @contextlib.contextmanager
    def _on_stream(self, stream) -> Iterator[None]:
        self.streams.append(stream)
        yield

    def RawModule(self, *, code: str, options: Sequence[str]):
        """The emulator behind CuPy's interface."""
        defined = [option[2:] for option in options if option.startswith("-D")]
        constants = dict(text.split("=", 1) for text in defined)
        module = EmulatedModule(code, constants=constants)
        self.compiled.append((code, tuple(options)))
        return SimpleNamespace(
            get_function=lambda name: _Function(self.launches, module, name)
        )


@contextlib.contextmanager
def cupy_on_cpu() -> Iterator[StandIn]:
    """Within the block, the launcher runs CPU tensors through the emulator.

    All chapters. `kernel_module(stem, "cpu")` then gives a CudaModule, so a whole
    operation takes the way that it takes on a GPU.
    """
    before = launcher._standin
    launcher._standin = StandIn()
    launcher._launched.cache_clear()
    try:
        yield launcher._standin
    finally:
        launcher._standin = before
        launcher._launched.cache_clear()
