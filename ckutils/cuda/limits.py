"""The sizes that every NVIDIA GPU allows, checked before a launch on any device."""

from collections.abc import Sequence
from numbers import Integral

MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_BLOCK = (1024, 1024, 64)
MAX_THREADS = 1024
STATIC_SHARED = 48 * 1024
# What a kernel may ask for in all, once it has opted in: 227 KiB on sm_90 and sm_100,
# 163 on sm_80, 99 on sm_86 and sm_89, 64 on sm_75.
DYNAMIC_SHARED = 227 * 1024


def check_launch(
    kernel: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    shared_bytes: int,
    shared_limit: int = DYNAMIC_SHARED,
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and block as triples, if a GPU would accept the launch.

    All chapters. Raises ValueError naming the kernel, the rule and the value.

    >>> check_launch("k", 3, (8, 4), 0)
    ((3, 1, 1), (8, 4, 1))
    """
    grid = _triple(kernel, "grid", grid, MAX_GRID)
    block = _triple(kernel, "block", block, MAX_BLOCK)
    threads = block[0] * block[1] * block[2]
    if threads > MAX_THREADS:
        raise ValueError(
            f"{kernel}: block must have at most {MAX_THREADS} threads, got {block}, "
            f"which has {threads}"
        )
    if not isinstance(shared_bytes, Integral) or not 0 <= shared_bytes <= shared_limit:
        raise ValueError(
            f"{kernel}: shared_bytes must be an integer in [0, {shared_limit}], "
            f"got {shared_bytes!r}"
        )
    return grid, block


def _triple(kernel: str, name: str, size, most: Sequence[int]) -> tuple[int, int, int]:
    entries = tuple(size) if isinstance(size, Sequence) else (size,)
    if not 1 <= len(entries) <= 3 or not all(isinstance(e, Integral) for e in entries):
        raise ValueError(f"{kernel}: {name} must be one to three integers, got {size}")
    entries = tuple(int(entry) for entry in entries) + (1,) * (3 - len(entries))
    for axis, entry, high in zip("xyz", entries, most, strict=True):
        if not 1 <= entry <= high:
            raise ValueError(
                f"{kernel}: {name}.{axis} must be in [1, {high}], got {entry}"
            )
    return entries
