"""Correlation of two real matrices on a CPU, as products with banded matrices.

Row strips of the image are stacked: 8 rows of outputs need 8 + h - 1 rows of pixels. For
each column b of the kernel, the strip shifted by b is multiplied by the 8 x (8 + h - 1)
matrix whose row r holds w[0, b], ..., w[h - 1, b] from place r on. Most of it is zeros,
(8 + h - 1) / h products instead of one, but a matrix product runs near the peak of
the processor, where torch's convolution of one channel does not come close, and least of
all in float64.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_STRIP = 8  # rows of outputs: more multiply zeros, fewer do not fill a product
_GROUP = 8  # strips at a time: they stay in the cache through all columns


def correlate(x: Tensor, w: Tensor, top: int, left: int, rows: int, columns: int):
    """y[i, j] = sum_ab w[a, b] x[i + a - top, j + b - left], x = 0 outside.

    Chapter 1, eq. (1.4); the private core of `correlate2d` on a CPU, and of its
    gradients, which are this again with other sizes.

    Returns y (rows, columns) and the name of the way taken.
    """
    (H, W), (h, k) = x.shape, w.shape
    bottom, right = rows + h - 1 - top - H, columns + k - 1 - left - W
    x = F.pad(x, (left, right, top, bottom))  # a negative pad crops
    if h * k * rows * columns <= _FEW[x.dtype]:
        return F.conv2d(x[None, None], w[None, None])[0, 0], "conv2d"
    if rows * columns < h * k:
        return _few_outputs(x, w, rows, columns), "banded products, transposed"
    return _few_taps(x, w, rows, columns), "banded products"


# Products below which the calls cost more than the sums
_FEW = {torch.float32: 1 << 17, torch.float64: 1 << 13}


def _few_taps(x: Tensor, w: Tensor, rows: int, columns: int) -> Tensor:
    h, k = w.shape
    strips = _strips(x, h, rows)  # (n, 8 + h - 1, W)
    band = w.new_zeros(k, _STRIP, _STRIP + h - 1)
    for r in range(_STRIP):
        band[:, r, r : r + h] = w.T
    y = x.new_empty(len(strips), _STRIP, columns)
    for n in range(0, len(strips), _GROUP):
        some, out = strips[n : n + _GROUP], y[n : n + _GROUP]
        bands = band[:, None].expand(-1, len(some), -1, -1)
        torch.bmm(bands[0], some[..., :columns], out=out)
        for b in range(1, k):
            out.baddbmm_(bands[b], some[..., b : b + columns])
    return y.view(-1, columns)[:rows]


def _few_outputs(x: Tensor, w: Tensor, rows: int, columns: int) -> Tensor:
    """The same sums with x's strips on the other side: strips of w, and of rows."""
    h, k = w.shape
    short = -h % _STRIP
    w = F.pad(w, (0, 0, 0, short)).unflatten(0, (-1, _STRIP))  # (n, 8, k)
    strips = _strips(x, rows, h)  # (n, 8 + rows - 1, W)
    y = x.new_empty(rows, columns)
    for b in range(columns):
        # entry (p, r) holds all products of image row p and kernel row r of a strip
        pairs = x.new_zeros(_STRIP + rows - 1, _STRIP)
        for strip, taps in zip(strips, w, strict=True):
            pairs.addmm_(strip[:, b : b + k], taps.T)
        y[:, b] = sum(pairs[r : r + rows, r] for r in range(_STRIP))
    return y


def _strips(x: Tensor, h: int, rows: int) -> Tensor:
    """(n, 8 + h - 1, W): the rows that each 8 of `rows` rows of outputs need."""
    short = -rows % _STRIP
    x = F.pad(x, (0, 0, 0, short)) if short else x
    return x.unfold(0, _STRIP + h - 1, _STRIP).transpose(1, 2)
