"""Beyond the ends of a signal: zeros, the torus, or mirrors; any amount, any axes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ckutils.arithmetic import Pairs, resolve_padding
from ckutils.checks import check_choice, check_ndim

PAD_MODES = ("zeros", "circular", "reflect")


def pad(x: Tensor, padding, mode: str = "zeros") -> Tensor:
    """Extend the last axes of x: by zeros, round the torus, or between two mirrors.

    Chapter 1, eq. (1.12) and (1.13). Beyond its n entries the signal is read at

        circular   i mod n                     period n
        reflect    |((i + m) mod 2m) - m|      m = n - 1, period 2m, edges not repeated

    so any amount is allowed: round the torus twice, mirrored again and again, as
    `numpy.pad` does with modes "wrap" and "reflect". One entry reflects into itself.

    Args:
        x: (..., *space), any dtype and device. padding: one pair (lo, hi), or one int,
            for each padded axis, the last of x last.
        mode: "zeros", "circular" or "reflect".
    Returns x with each axis longer by lo + hi; differentiable.

    >>> pad(torch.tensor([1, 2, 3]), [(2, 6)], "reflect")
    tensor([3, 2, 1, 2, 3, 2, 1, 2, 3, 2, 1])
    """
    check_choice(PAD_MODES, mode=mode)
    if not isinstance(padding, tuple | list) or len(padding) == 0:
        raise ValueError(f"padding must hold a pair (lo, hi) an axis, got {padding!r}")
    check_ndim(len(padding), x=x)
    kernel = (1,) * len(padding)
    entry = padding[0] if len(padding) == 1 else None
    pairs = resolve_padding(padding if entry is None else (entry,), kernel)
    if mode != "zeros" and 0 in x.shape[-len(pairs) :]:
        raise ValueError(f"x must not be empty where mode is {mode!r}, got {x.shape}")
    return extend(x, pairs, mode)


def extend(x: Tensor, pairs: Pairs, mode: str) -> Tensor:
    """`pad` of checked pairs; with zeros a negative entry crops."""
    if mode == "zeros":
        sides = [side for pair in reversed(pairs) for side in pair]
        if min(sides) >= 0:
            return F.pad(x, sides)
        # grow before the crop, which may be longer than the signal itself
        x = F.pad(x, [max(side, 0) for side in sides])
        return F.pad(x, [min(side, 0) for side in sides])
    for axis, (lo, hi) in enumerate(pairs, start=x.dim() - len(pairs)):
        if lo or hi:
            at = torch.arange(-lo, x.shape[axis] + hi, device=x.device)
            x = x.index_select(axis, _source(at, x.shape[axis], mode))
    return x


def _source(at: Tensor, n: int, mode: str) -> Tensor:
    """Which entry of the n stands at position `at` of the extended signal."""
    if mode == "circular":
        return at % n
    m = max(n - 1, 1)
    return ((at + m) % (2 * m) - m).abs() if n > 1 else torch.zeros_like(at)
