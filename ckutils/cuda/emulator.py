"""Run the text of a .cu file on a CPU, and see what a GPU would not say.

Each CUDA thread is a fibre: threads of a block take turns at barriers, warp operations
and pauses, in an order that can be chosen, so a kernel that relies on luck gives other
numbers in another order. What is never written reads as NaN, what is outside an
argument is guarded, and a barrier that not all threads reach is an error.

What this cannot show: time, occupancy, tensor cores, asynchronous copies, the order in
which blocks see each other's writes, and the rounding of a GPU's own functions.
"""

import ctypes
import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ckutils.checks import check_choice, check_int
from ckutils.cuda.build import build
from ckutils.cuda.limits import DYNAMIC_SHARED, MAX_THREADS, check_launch
from ckutils.cuda.signature import DTYPES, check_arguments, parse_signatures
from ckutils.cuda.translation import translate

SANITIZERS = (None, "address", "thread")
NO_CONSTANTS = MappingProxyType({})
_ONE_AT_A_TIME = threading.Lock()  # the scheduler's state is global


class KernelError(RuntimeError):
    """A kernel did what no GPU promises to do well; the message says what and where."""


class EmulatedModule:
    """The kernels of one .cu text, compiled by g++ and run on this CPU.

    All chapters.

    Args:
        source: the text of the file.
        constants: macros, as {"REAL": "float", "BLOCK": 128}.
        sanitizer: None runs in this process and checks bounds of arrays with a known
            size, alignment, integer overflow, canaries, barriers; "address" adds every
            access outside an argument or a shared array, "thread" every data race. Both
            run as programs of their own, 2 to 20 times slower.
        shared_limit: bytes of shared memory that a block may use in all.
        name: stands in messages.
    Raises RuntimeError if there is no g++ or it does not accept the text, ValueError
        for a signature that cannot be called.
    """

    def __init__(
        self,
        source: str,
        *,
        constants: Mapping[str, object] = NO_CONSTANTS,
        sanitizer: str | None = None,
        shared_limit: int = DYNAMIC_SHARED,
        name: str = "kernel.cu",
    ):
        check_choice(SANITIZERS, sanitizer=sanitizer)
        self.signatures = parse_signatures(source, constants)
        self.sanitizer = sanitizer
        self.shared_limit = shared_limit
        self.switches = 0  # how often the last launch changed from thread to thread
        code = translate(source, self.signatures, name)
        self._built = build(code, constants=constants, sanitizer=sanitizer)

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
        schedule: str | int = "index",
        guard: int = 256,
    ) -> None:
        """Run one kernel; arrays behind pointers that are not const are written.

        Args:
            name: the kernel. grid, block: one to three integers.
            args: NumPy arrays or CPU tensors for pointers, numbers for the rest.
            shared_bytes: dynamic shared memory of a block.
            schedule: threads and blocks in the order of their "index", in "reverse", or
                shuffled anew in each round with an integer as seed.
            guard: bytes around each array that must stay untouched; 0 passes the arrays
                themselves.
        Raises ValueError for what a launch must not be given, KernelError for what the
            kernel did wrong.
        """
        check_choice(self.kernels, name=name)
        check_int(0, guard=guard)
        values = check_arguments(name, self.signatures[name], args, "cpu")
        grid, block = check_launch(name, grid, block, shared_bytes, self.shared_limit)
        order = _schedule(schedule)
        arguments = [
            _array(parameter.name, parameter.const, value, guard)
            if parameter.pointer
            else _Argument(parameter.name, np.array(value).tobytes())
            for parameter, value in zip(self.signatures[name], values, strict=True)
        ]
        sizes = (grid, block, shared_bytes, self.shared_limit, order)
        run = self._run_program if self.sanitizer else self._run_here
        run(name, sizes, arguments)
        for argument in arguments:
            argument.finish(name)

    def launch_packed(
        self, name: str, grid, block, packed: Sequence[bytes], shared_bytes: int
    ) -> None:
        """Run one kernel with the raw bytes of its arguments, as a driver takes them.

        All chapters. Nothing is checked but their sizes; addresses are used as given.
        """
        for parameter, value in zip(self.signatures[name], packed, strict=True):
            want = 8 if parameter.pointer else DTYPES[parameter.ctype].itemsize
            if len(value) != want:
                raise ValueError(
                    f"{name}: {parameter.name} must have {want} bytes, got {len(value)}"
                )
        grid, block = check_launch(name, grid, block, shared_bytes, self.shared_limit)
        sizes = (grid, block, shared_bytes, self.shared_limit, 0)
        arguments = [_Argument("", value) for value in packed]
        self._run_here(name, sizes, arguments)

    def _run_here(self, name: str, sizes: tuple, arguments: Sequence) -> None:
        with _ONE_AT_A_TIME:
            index, packed = self.kernels.index(name), [a.packed() for a in arguments]
            error, self.switches = _run(_library(self._built), index, sizes, packed)
        if error:
            raise KernelError(f"{name}: {error}")

    def _run_program(self, name: str, sizes: tuple, arguments: Sequence) -> None:
        from ckutils.cuda.sanitizers import run_program

        index = self.kernels.index(name)
        self.switches = run_program(
            self._built, self.sanitizer, name, index, sizes, arguments
        )


def _schedule(schedule: str | int) -> int:
    """As the runtime numbers them: 0, -1, or a seed above 0."""
    named = {"index": 0, "reverse": -1}
    if isinstance(schedule, str):
        check_choice((*named, "an integer seed"), schedule=schedule)
        return named[schedule]
    check_int(0, schedule=schedule)
    return int(schedule) + 1


# Arguments -------------------------------------------------------------------------


class _Argument(NamedTuple):
    """The bytes of a number, or a guarded copy of an array."""

    name: str
    value: bytes = b""
    array: np.ndarray | None = None  # the caller's bytes
    inside: np.ndarray | None = None  # the bytes that the kernel sees
    guarded: np.ndarray | None = None  # the same with what lies around them
    const: bool = True
    offset: int = 0  # of the array from a multiple of 256

    def packed(self) -> bytes:
        if self.array is None:
            return self.value
        return self.inside.ctypes.data.to_bytes(8, "little")

    def finish(self, kernel: str) -> None:
        """Look at the guards, and hand back what the kernel wrote."""
        if self.array is None or self.inside is self.array:
            return
        start = self.inside.ctypes.data - self.guarded.ctypes.data
        end = start + self.inside.size
        for place, guard in (
            ("in front of", self.guarded[:start]),
            ("behind", self.guarded[end:]),
        ):
            if not (guard == 0xFF).all():
                raise KernelError(f"{kernel}: memory {place} {self.name} was written")
        if not self.const:
            self.array[:] = self.inside
        elif not np.array_equal(self.array, self.inside):
            raise KernelError(f"{kernel}: {self.name} is const, but was written")


def _array(name: str, const: bool, value, guard: int) -> _Argument:
    array = value if isinstance(value, np.ndarray) else value.detach().numpy()
    data = array.reshape(-1).view(np.uint8)
    offset = (data.ctypes.data - _storage(value)) % 256
    if guard == 0:
        return _Argument(name, array=data, inside=data, const=const, offset=offset)
    guarded = np.full(data.size + 2 * guard + 256, 0xFF, np.uint8)
    start = guard + (offset - guarded.ctypes.data - guard) % 256
    inside = guarded[start : start + data.size]
    inside[:] = data
    return _Argument(name, b"", data, inside, guarded, const, offset)


def _storage(value) -> int:
    """Where the memory starts that the array is a part of; a GPU aligns it to 256."""
    if not isinstance(value, np.ndarray):
        return value.untyped_storage().data_ptr()
    while isinstance(value.base, np.ndarray):
        value = value.base
    return value.ctypes.data


# The compiled library --------------------------------------------------------------


class _Launch(ctypes.Structure):
    """CkLaunch of host/ck_runtime.h."""

    _fields_ = (
        ("call", ctypes.c_void_p),
        ("args", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_size_t),
        ("shared_limit", ctypes.c_size_t),
        ("schedule", ctypes.c_longlong),
        ("stacks", ctypes.c_void_p),
        ("stack_count", ctypes.c_size_t),
    )


class _Kernel(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("call", ctypes.c_void_p))


@functools.cache
def _library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.ck_launch.restype = ctypes.c_char_p
    library.ck_make_stacks.restype = ctypes.c_void_p
    library.ck_make_stacks.argtypes = (ctypes.c_size_t,)
    return library


_stacks = None  # for the threads of a block, whichever kernel they run


def _run(
    library: ctypes.CDLL, index: int, sizes: tuple, packed: Sequence[bytes]
) -> tuple[str | None, int]:
    """The runtime's error, if any, and the number of switches between threads."""
    global _stacks
    _stacks = _stacks or library.ck_make_stacks(MAX_THREADS)
    table = ctypes.cast(library.ck_kernels, ctypes.POINTER(_Kernel))
    values = [ctypes.create_string_buffer(value, len(value)) for value in packed]
    places = [ctypes.cast(value, ctypes.c_void_p).value for value in values]
    args = (ctypes.c_void_p * len(places))(*places)
    grid, block, shared_bytes, shared_limit, order = sizes
    wanted = _Launch(
        call=table[index].call,
        args=args,
        grid=grid,
        block=block,
        shared_bytes=shared_bytes,
        shared_limit=shared_limit,
        schedule=order,
        stacks=_stacks,
        stack_count=MAX_THREADS,
    )
    switches = ctypes.c_ulonglong()
    error = library.ck_launch(ctypes.byref(wanted), ctypes.byref(switches))
    return (error.decode() if error else None), switches.value
