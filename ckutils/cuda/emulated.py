"""A switch: within it, operations on a CPU run the text of their CUDA kernels."""

import contextlib
from collections.abc import Iterator

_depth = 0


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """Within the block, the custom operators run their kernels in the emulator.

    All chapters. So gradients, `torch.library.opcheck` and `torch.compile` meet the
    very text that a GPU runs. Needs g++; some 10^4 to 10^6 outputs a second.
    """
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def is_emulated() -> bool:
    """Whether a block of `emulated` is open. All chapters."""
    return _depth > 0
