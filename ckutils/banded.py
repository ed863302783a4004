"""Correlation of two real matrices on a CPU, as products with banded matrices.

The image is cut into strips: 16 rows of outputs need 16 + h - 1 rows of pixels. For
each column b of the kernel, the strips shifted by b are multiplied by a 16 x (16 + h -
1) matrix whose row r holds w[0, b], ..., w[h - 1, b] from place r on. Most of its
entries are zeros, (16 + h - 1) / h products instead of one. But a product of matrices
runs near the processor's peak, and torch's convolution of one channel does not, least
in float64.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_STRIP = 16  # rows of outputs: more multiply zeros, fewer do not fill a product
_GROUP = 4  # strips at a time, which stay in the cache through all columns
# Products from which that is faster than torch's convolution: the calls cost 50 us
_WORTHWHILE = 1 << 19


def worthwhile(products: int) -> bool:
    """Whether so many products take longer in torch's own convolution. Chapter 1."""
    return products > _WORTHWHILE


def correlate(
    x: Tensor, w: Tensor, top: int, left: int, rows: int, columns: int
) -> Tensor:
    """y[i, j] = sum_ab w[a, b] x[i + a - top, j + b - left], x = 0 outside.

    Chapter 1, eq. (1.4). x (H, W) and w (h, k), float32 or float64, on a CPU; returns
    (rows, columns).
    """
    few = rows * columns < w.numel()
    spare = -(len(w) if few else rows) % _STRIP  # rows that fill the last strip
    x = padded(x, w, top, left, rows + spare, columns)
    return (_few_outputs if few else _few_taps)(x, w, rows, columns)


def padded(
    x: Tensor, w: Tensor, top: int, left: int, rows: int, columns: int
) -> Tensor:
    """The part of x, with zeros around it, whose "valid" correlation with w is y.

    Chapter 1.
    """
    (H, W), (h, k) = x.shape, w.shape
    bottom, right = rows + h - 1 - top - H, columns + k - 1 - left - W
    pad = (left, right, top, bottom)
    return F.pad(x, pad) if any(pad) else x  # a negative pad crops


def _few_taps(x: Tensor, w: Tensor, rows: int, columns: int) -> Tensor:
    h, k = w.shape
    strips = _strips(x, _STRIP + h - 1)  # (n, 16 + h - 1, W)
    band = w.new_zeros(k, _STRIP, _STRIP + h - 1)
    for r in range(_STRIP):
        band[:, r, r : r + h] = w.T
    if x.dtype == torch.float32:  # where oneDNN has all these products as one call
        return F.conv1d(strips, band.permute(1, 2, 0)).view(-1, columns)[:rows]
    y = x.new_empty(len(strips), _STRIP, columns)
    for n in range(0, len(strips), _GROUP):
        some, out = strips[n : n + _GROUP], y[n : n + _GROUP]
        bands = band[:, None].expand(-1, len(some), -1, -1)
        torch.bmm(bands[0], some[..., :columns], out=out)
        for b in range(1, k):
            out.baddbmm_(bands[b], some[..., b : b + columns])
    return y.view(-1, columns)[:rows]


def _few_outputs(x: Tensor, w: Tensor, rows: int, columns: int) -> Tensor:
    """The same sums as products of strips of x with strips of w."""
    h, k = w.shape
    w = F.pad(w, (0, 0, 0, -h % _STRIP)).unflatten(0, (-1, _STRIP))  # (n, 16, k)
    strips = _strips(x, _STRIP + rows - 1)  # (n, 16 + rows - 1, W)
    y = x.new_empty(rows, columns)
    for b in range(columns):
        # entry (p, r) holds all products of image row p and kernel row r of a strip
        pairs = x.new_zeros(_STRIP + rows - 1, _STRIP)
        for strip, taps in zip(strips, w, strict=True):
            pairs.addmm_(strip[:, b : b + k], taps.T)
        y[:, b] = sum(pairs[r : r + rows, r] for r in range(_STRIP))
    return y


def _strips(x: Tensor, height: int) -> Tensor:
    """(n, height, W): rows 0 ... height - 1, 16 ... 16 + height - 1, and so on."""
    return x.unfold(0, height, _STRIP).transpose(1, 2)
