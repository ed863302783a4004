"""N-dimensional convolution with every knob, its adjoint, and its matrix form.

All of it is cross-correlation, as in every deep-learning library; `flip=True` turns the
kernel round and gives the mathematician's convolution. Shapes: signals (*batch, c_in,
*space), weights (c_out, c_in/groups, *kernel), with any number of batch axes and of
spatial axes; the weight says how many are spatial. Knobs are an int or an int an axis.
"""

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import functional as F

from ckutils.arithmetic import (
    Size,
    check_output_padding,
    check_spread,
    output_sizes,
    resolve_padding,
    resolve_spans,
    transposed_padding,
    transposed_sizes,
)
from ckutils.checks import check_float, check_int, check_ndim, check_same, per_axis
from ckutils.columns import col2im, im2col
from ckutils.correlation import correlate2d, correlate2d_route
from ckutils.padding import extend, pad

__all__ = [
    "col2im",
    "conv",
    "conv_ref",
    "conv_transpose",
    "conv_transpose_ref",
    "correlate2d",
    "correlate2d_route",
    "im2col",
    "pad",
]

_CONV = (None, F.conv1d, F.conv2d, F.conv3d)
_CONV_TRANSPOSE = (None, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)

# Convolution ---------------------------------------------------------------------


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding=0,
    dilation: Size = 1,
    input_dilation: Size = 1,
    groups: int = 1,
    flip: bool = False,
) -> Tensor:
    """y[o, t] = bias[o] + sum over c, j of weight[o, c, j] x[c, s t + d j - lo].

    Chapter 1, eq. (1.8), with t and j one index an axis, and x read by the padding
    beyond its ends. `flip` reads weight[o, c, k - 1 - j] instead.

    Args:
        x: (*batch, c_in, *space), float32 or float64, on any device; any number of
            batch axes, none included.
        weight: (c_out, c_in/groups, *kernel), like x; 1, 2, 3, 4 or more axes.
        bias: (c_out,), like x, or None.
        stride, dilation, input_dilation: >= 1, an int or an int an axis. The input
            dilation puts e - 1 zeros between neighbours, before any padding.
        padding: numbers or a name, see `arithmetic.resolve_padding`; with an input
            dilation only numbers, "valid" and "causal" have a meaning.
        groups: divides both channel counts; group i of x meets group i of weight.
    Returns (*batch, c_out, *output), like x; see `conv_output_size`.
    Raises ValueError naming the argument for shapes, dtypes or knobs that do not fit.
    Cost: torch's own; up to 3 axes symmetric zeros are never copied. Each axis beyond
        the third multiplies the calls by its kernel size, and keeps the memory.

    >>> x, kernel = torch.arange(1.0, 6)[None], torch.tensor([[[1.0, 0.0, -1.0]]])
    >>> conv(x, kernel)
    tensor([[-2., -2., -2.]])
    >>> conv(x, kernel, padding="same", flip=True)
    tensor([[ 2.,  2.,  2.,  2., -4.]])
    """
    axes = _check_operands(x, weight, bias, "x")
    _check_channels(x.shape[-axes - 1], weight, groups)
    # numbers only, and not 1.0 or True, which would find the plan of 1
    ints = (
        type(stride) is type(padding) is type(dilation) is type(input_dilation) is int
    )
    plan = _known_plan if ints and not is_compiling() else _plan
    strides, pads, dilations, spread, out = plan(
        weight.shape[2:], x.shape[-axes:], stride, padding, dilation, input_dilation
    )
    batch = x.shape[: -axes - 1]
    if len(batch) != 1:
        x = x.reshape(math.prod(batch), *x.shape[-axes - 1 :])
    if flip:
        weight = weight.flip(tuple(range(2, weight.dim())))
    if padding in ("circular", "reflect"):
        x, pads = extend(x, pads, padding), ((0, 0),) * axes
    y = _conv(x, weight, bias, strides, pads, dilations, spread, groups)
    return y if len(batch) == 1 else y.reshape(*batch, weight.shape[0], *out)


def _plan(kernel, space, stride, padding, dilation, input_dilation):
    """The knobs as tuples, the padding as numbers, and the output size."""
    strides, dilations, spread = per_axis(
        1, len(kernel), stride=stride, dilation=dilation, input_dilation=input_dilation
    )
    check_spread(padding, spread)
    sizes = [e * (n - 1) + 1 for n, e in zip(space, spread, strict=True)]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = resolve_spans(padding, spans, strides, sizes)
    out = output_sizes(sizes, spans, strides, pads)
    return strides, pads, dilations, spread, out


# A layer is called with the same few shapes again and again, and working them out costs
# as much as the whole of torch's call on a tiny image.
_known_plan = lru_cache(maxsize=4096)(_plan)


def _conv(x, weight, bias, strides, pads, dilations, spread, groups) -> Tensor:
    """`conv` of (b, c, *space), padded with zeros by pairs."""
    axes = len(strides)
    if max(spread) > 1:
        if axes <= 3 and max(strides) == 1:
            return _conv_spread(x, weight, bias, pads, dilations, spread, groups)
        x = _spread(x, spread)
    if axes > 3:
        y = _conv_slices(extend(x, pads, "zeros"), weight, strides, dilations, groups)
        return y if bias is None else y + bias.view(-1, *(1,) * axes)
    # torch pads symmetrically without a copy, so only the excess is copied; it cannot
    # crop, as conv_transpose asks for where its padding exceeds the kernel's span
    sides = [max(min(pair), 0) for pair in pads]
    if any(lo != hi or lo < 0 for lo, hi in pads):
        excess = [(lo - p, hi - p) for (lo, hi), p in zip(pads, sides, strict=True)]
        x = extend(x, excess, "zeros")
    return _CONV[axes](x, weight, bias, strides, sides, dilations, groups)


def _conv_slices(x, weight, strides, dilations, groups) -> Tensor:
    """A convolution over n axes: for each tap of the first, one over n - 1 axes.

    The first axis becomes part of the batch, so that one call serves all its positions.
    """
    if len(strides) == 3:
        return F.conv3d(x, weight, None, strides, 0, dilations, groups)
    (s, *strides), (d, *dilations) = strides, dilations
    b, n, k = x.shape[0], x.shape[2], weight.shape[2]
    m = (n - d * (k - 1) - 1) // s + 1
    rows, y = x.movedim(2, 1), 0  # (b, n, c, *rest)
    for j in range(k):
        part = rows[:, j * d : j * d + (m - 1) * s + 1 : s]  # (b, m, c, *rest)
        part = part.reshape(b * m, *part.shape[2:])
        y = y + _conv_slices(part, weight[:, :, j], strides, dilations, groups)
    return y.reshape(b, m, *y.shape[1:]).movedim(1, 2)  # (b, c_out, m, *rest)


def _spread(x: Tensor, spread) -> Tensor:
    """e - 1 zeros between neighbours of each spatial axis: length e (n - 1) + 1."""
    sizes = [e * (n - 1) + 1 for n, e in zip(x.shape[2:], spread, strict=True)]
    y = x.new_zeros(*x.shape[:2], *sizes)
    y[(..., *(slice(None, None, e) for e in spread))] = x
    return y


def _conv_spread(x, weight, bias, pads, dilations, spread, groups) -> Tensor:
    """A convolution of a dilated input at stride 1 as a transposed one, eq. (1.20).

    It skips the products with the inserted zeros. Padding less than K - 1 crops the
    result, padding more appends zeros to it first.
    """
    kernel = weight.shape[2:]
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    y = _CONV_TRANSPOSE[len(spread)](
        x, _swap(weight, groups), None, spread, 0, 0, groups, dilations
    )
    keep = [(lo - K + 1, hi - K + 1) for (lo, hi), K in zip(pads, spans, strict=True)]
    y = extend(y, keep, "zeros")
    return y if bias is None else y + bias.view(-1, *(1,) * len(spread))


def _swap(weight: Tensor, groups: int) -> Tensor:
    """Turn the kernel round and swap its channels: (g o, c, *k) -> (g c, o, *k)."""
    parts = weight.flip(tuple(range(2, weight.dim()))).unflatten(0, (groups, -1))
    return parts.transpose(1, 2).flatten(0, 1)


def conv_ref(
    x, weight, bias=None, *, stride=1, padding=0, dilation=1, input_dilation=1,
    groups=1, flip=False,
) -> Tensor:  # fmt: skip
    """`conv` letter by letter, eq. (1.8): a loop an index, in float64."""
    x, w = x.double(), weight.double()
    axes, (c_out, depth, *kernel) = w.dim() - 2, w.shape
    s, d, e = (v if isinstance(v, tuple) else (v,) * axes
               for v in (stride, dilation, input_dilation))  # fmt: skip
    space = [e[a] * (n - 1) + 1 for a, n in enumerate(x.shape[-axes:])]
    pads = resolve_padding(padding, tuple(kernel), stride=s, dilation=d,
                           size=tuple(space))  # fmt: skip
    out = [(n + sum(p) - d[a] * (kernel[a] - 1) - 1) // s[a] + 1
           for a, (n, p) in enumerate(zip(space, pads, strict=True))]  # fmt: skip
    y = torch.zeros(*x.shape[: -axes - 1], c_out, *out, dtype=torch.float64)
    for o, *t in itertools.product(range(c_out), *map(range, out)):
        if bias is not None:
            y[(..., o, *t)] += bias[o].double()
        for c, *j in itertools.product(range(depth), *map(range, kernel)):
            at = [s[a] * t[a] + d[a] * j[a] - pads[a][0] for a in range(axes)]
            at = [_read(i, n, e[a], padding)
                  for a, (i, n) in enumerate(zip(at, space, strict=True))]  # fmt: skip
            tap = [k - 1 - i for i, k in zip(j, kernel, strict=True)] if flip else j
            if None not in at:
                channel = o // (c_out // groups) * depth + c
                y[(..., o, *t)] += w[(o, c, *tap)] * x[(..., channel, *at)]
    return y


def _read(i: int, n: int, e: int, padding) -> int | None:
    """The entry at position i of a signal of n positions, e apart; None reads zero."""
    if padding == "circular":
        i = i % n
    if padding == "reflect":
        i = -i if i < 0 else i
        i = 2 * (n - 1) - i if i >= n else i
    return i // e if 0 <= i < n and i % e == 0 else None


# Its adjoint ---------------------------------------------------------------------


def conv_transpose(
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size = 1,
    padding=0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """x[c, s t + d j - lo] += weight[o, c, j] y[o, t]: the adjoint of `conv`.

    Chapter 1, eq. (1.18). With the same weight and knobs,
    <conv(x, weight), y> = <x, conv_transpose(y, weight)>, so this is also the gradient
    of `conv` with respect to its input.

    Args:
        y: (*batch, c_out, *space), float32 or float64: the output side of the conv.
        weight: (c_out, c_in/groups, *kernel), like y, the weight of the conv. torch
            and others read the same numbers as (in, out/groups, *kernel).
        bias: (c_in,), like y, or None; added to every entry.
        stride, dilation, groups: those of the conv.
        padding: of the conv: an int, ints or pairs an axis, "valid" or "causal". It
            crops the result.
        output_padding: which of the input sizes with this output size is meant: a < s
            entries more at the end, computed like all others. torch's bound is kept,
            a < max(s, d).
    Returns (*batch, c_in, *output), like y; see `conv_transpose_output_size`.
    Raises ValueError naming the argument for shapes, dtypes or knobs that do not fit.

    >>> y, kernel = torch.tensor([[1.0, 10.0]]), torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> conv_transpose(y, kernel, stride=2)
    tensor([[ 1.,  2., 13., 20., 30.]])
    """
    axes = _check_operands(y, weight, None, "y")
    channels = _check_transposed_channels(y.shape[-axes - 1], weight, bias, groups)
    kernel, space = weight.shape[2:], y.shape[-axes:]
    strides, dilations = per_axis(1, axes, stride=stride, dilation=dilation)
    (extra,) = per_axis(0, axes, output_padding=output_padding)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = transposed_padding(padding, spans)
    check_output_padding(extra, strides, dilations)
    out = transposed_sizes(space, spans, strides, pads, extra)
    batch = y.shape[: -axes - 1]
    if len(batch) != 1:
        y = y.reshape(math.prod(batch), *y.shape[-axes - 1 :])
    if axes <= 3 and all(lo == hi for lo, hi in pads):
        sides = [lo for lo, _ in pads]
        x = _CONV_TRANSPOSE[axes](
            y, weight, bias, strides, sides, extra, groups, dilations
        )
    else:
        x = _conv_transpose(y, weight, strides, pads, extra, dilations, groups)
        x = x if bias is None else x + bias.view(-1, *(1,) * axes)
    return x if len(batch) == 1 else x.reshape(*batch, channels, *out)


def _conv_transpose(y, weight, strides, pads, extra, dilations, groups) -> Tensor:
    """Any pairs, any number of axes: a convolution of the dilated input, eq. (1.20)."""
    knobs = zip(weight.shape[2:], dilations, pads, extra, strict=True)
    pads = [(d * (k - 1) - lo, d * (k - 1) - hi + a) for k, d, (lo, hi), a in knobs]
    ones = (1,) * len(pads)
    return _conv(y, _swap(weight, groups), None, ones, pads, dilations, strides, groups)


def conv_transpose_ref(
    y, weight, bias=None, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1
) -> Tensor:
    """`conv_transpose` letter by letter, eq. (1.18): scatter, in float64."""
    y, w = y.double(), weight.double()
    axes, (c_out, depth, *kernel) = w.dim() - 2, w.shape
    s, d, a = (v if isinstance(v, tuple) else (v,) * axes
               for v in (stride, dilation, output_padding))  # fmt: skip
    pads = resolve_padding(padding, tuple(kernel), dilation=d)
    out = [(n - 1) * s[i] + d[i] * (kernel[i] - 1) + 1 - sum(pads[i]) + a[i]
           for i, n in enumerate(y.shape[-axes:])]  # fmt: skip
    x = torch.zeros(*y.shape[: -axes - 1], depth * groups, *out, dtype=torch.float64)
    for o, *t in itertools.product(range(c_out), *map(range, y.shape[-axes:])):
        for c, *j in itertools.product(range(depth), *map(range, kernel)):
            at = [s[i] * t[i] + d[i] * j[i] - pads[i][0] for i in range(axes)]
            if all(0 <= i < n for i, n in zip(at, out, strict=True)):
                channel = o // (c_out // groups) * depth + c
                x[(..., channel, *at)] += w[(o, c, *j)] * y[(..., o, *t)]
    return x if bias is None else x + bias.double().view(-1, *(1,) * axes)


# The door ------------------------------------------------------------------------


def _check_operands(x, weight, bias, name: str) -> int:
    """Float tensors of one dtype and device, and the number of spatial axes."""
    operands = {name: x, "weight": weight}
    if bias is not None:
        operands["bias"] = bias
    check_float(**operands)
    check_same(**operands)
    check_ndim(3, weight=weight)
    if 0 in weight.shape:
        raise ValueError(f"weight must not be empty, got shape {tuple(weight.shape)}")
    axes = weight.dim() - 2
    if x.dim() <= axes:
        raise ValueError(
            f"{name} must have channels and {axes} spatial axes, as weight of shape "
            f"{tuple(weight.shape)} has, got shape {tuple(x.shape)}"
        )
    if 0 in x.shape[-axes:]:
        raise ValueError(
            f"{name} must have no empty spatial axis, got shape {tuple(x.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}"
        )
    return axes


def _check_channels(channels: int, weight: Tensor, groups: int) -> None:
    check_int(1, groups=groups)
    if weight.shape[0] % groups:
        raise ValueError(
            f"groups must divide the {weight.shape[0]} output channels of weight, "
            f"got {groups}"
        )
    if channels != weight.shape[1] * groups:
        raise ValueError(
            f"x must have {weight.shape[1] * groups} channels, groups times those of "
            f"weight ({groups} * {weight.shape[1]}), got {channels}"
        )


def _check_transposed_channels(channels: int, weight, bias, groups: int) -> int:
    check_int(1, groups=groups)
    if weight.shape[0] % groups:
        raise ValueError(
            f"groups must divide the {weight.shape[0]} channels of weight's first "
            f"axis, got {groups}"
        )
    if channels != weight.shape[0]:
        raise ValueError(
            f"y must have the {weight.shape[0]} channels of weight's first axis, "
            f"got {channels}"
        )
    if bias is not None:
        check_float(bias=bias)
        check_same(weight=weight, bias=bias)
        if bias.shape != (weight.shape[1] * groups,):
            raise ValueError(
                f"bias must have shape ({weight.shape[1] * groups},), "
                f"got {tuple(bias.shape)}"
            )
    return weight.shape[1] * groups
