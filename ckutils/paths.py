"""Which of its ways an operation took, for whoever asks.

A function that picks a method by the device, the dtype or a count of operations notes
here what it picked; a reader who wants to know looks over its shoulder.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["paths_taken"]

_HAS_CUPY = importlib.util.find_spec("cupy") is not None
_listeners: list[list[tuple[str, str]]] = []


@contextlib.contextmanager
def paths_taken() -> Iterator[list[tuple[str, str]]]:
    """Within the block, note (operation, path) of all that picks its own path.

    All chapters. Forward and backward passes of the whole process are noted, in the
    order in which they run; what `torch.compile` has compiled itself is not.

    >>> from ckutils.recurrence import linear_recurrence
    >>> with paths_taken() as taken:
    ...     h = linear_recurrence(torch.tensor([2.0]), torch.tensor([1.0, 1.0]))
    >>> taken
    [('linear_recurrence', 'scan')]
    """
    taken: list[tuple[str, str]] = []
    _listeners.append(taken)
    try:
        yield taken
    finally:
        _listeners[:] = [other for other in _listeners if other is not taken]


def took(operation: str, path: str) -> None:
    """Tell all who listen. All chapters."""
    if torch.compiler.is_compiling():
        return
    for taken in _listeners:
        taken.append((operation, path))


def on_kernels(x: Tensor) -> bool:
    """Whether the book's compiled kernels serve x: a GPU, and CuPy to launch them.

    All chapters.
    """
    return x.is_cuda and _HAS_CUPY
