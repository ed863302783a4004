"""Windows as columns of a matrix, and columns added back to their windows."""

import itertools
import math

import torch

from ckutils.arithmetic import Size, output_sizes, resolve_spans
from ckutils.checks import check_ndim, per_axis
from ckutils.padding import extend


def im2col(
    x: torch.Tensor,
    kernel_size: Size,
    *,
    stride: Size = 1,
    padding=0,
    dilation: Size = 1,
) -> torch.Tensor:
    """Every window of x as a column: conv is then weight.flatten(1) @ columns.

    Chapter 1, eq. (1.21).

    Args:
        x: (*batch, c, *space), any dtype and device.
        kernel_size: a tuple says how many axes are spatial; an int stands for the same
            on all axes behind (batch, channels), or on the one axis of a (c, t) signal.
        stride, padding, dilation: as in `conv`.
    Returns (*batch, c * k_1 * ... * k_n, positions), channels first, then the taps,
        the last axis fastest, as torch's unfold has it in two axes; differentiable.
    Cost: k_1 * ... * k_n / (s_1 * ... * s_n) times the memory of x.

    >>> im2col(torch.arange(4.0)[None], 2)
    tensor([[0., 1., 2.],
            [1., 2., 3.]])
    """
    axes = len(kernel_size) if isinstance(kernel_size, tuple | list) else x.dim() - 2
    axes = max(axes, 1)
    check_ndim(axes + 1, x=x)
    kernel, strides, dilations = per_axis(
        1, axes, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = resolve_spans(padding, spans, strides, x.shape[-axes:])
    out = output_sizes(x.shape[-axes:], spans, strides, pads)
    mode = padding if padding in ("circular", "reflect") else "zeros"
    windows, lead = extend(x, pads, mode), x.dim() - axes
    for axis, (span, s, d) in enumerate(zip(spans, strides, dilations, strict=True)):
        windows = windows.unfold(lead + axis, span, s)[..., ::d]
    # (*batch, c, *out, *kernel) -> (*batch, c, *kernel, *out)
    order = [*range(lead), *range(lead + axes, lead + 2 * axes)]
    windows = windows.permute(*order, *range(lead, lead + axes))
    rows = x.shape[lead - 1] * math.prod(kernel)
    return windows.reshape(*x.shape[: lead - 1], rows, math.prod(out))


def col2im(
    columns: torch.Tensor,
    size: Size,
    kernel_size: Size,
    *,
    stride: Size = 1,
    padding=0,
    dilation: Size = 1,
) -> torch.Tensor:
    """Add every column back to the window it was read from: the adjoint of `im2col`.

    Chapter 1, eq. (1.22). Where windows overlap their entries add up, so this does not
    undo `im2col`; dividing by col2im(im2col(ones)) does, where every entry is read.

    Args:
        columns: (*batch, c * k_1 * ... * k_n, positions), any dtype and device.
        size: of the signal, an int or a tuple with one entry a spatial axis.
        kernel_size, stride, dilation: as in `im2col`; padding: numbers, "valid",
            "same" or "causal".
    Returns (*batch, c, *size); differentiable.
    Raises ValueError if the columns do not have the rows or positions of these knobs.

    >>> col2im(torch.ones(2, 3), 4, 2)
    tensor([[1., 2., 2., 1.]])
    """
    axes = next((len(v) for v in (size, kernel_size) if isinstance(v, tuple | list)), 1)
    sizes, kernel, strides, dilations = per_axis(
        1, axes, size=size, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    if isinstance(padding, str) and padding in ("circular", "reflect"):
        raise ValueError(
            f"padding must be zeros in col2im: numbers, 'valid', 'same' or 'causal', "
            f"got {padding!r}"
        )
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = resolve_spans(padding, spans, strides, sizes)
    out = output_sizes(sizes, spans, strides, pads)
    _check_columns(columns, math.prod(kernel), math.prod(out), out)
    channels = columns.shape[-2] // math.prod(kernel)  # a -1 fails on an empty batch
    taps = columns.reshape(*columns.shape[:-2], channels, *kernel, *out)
    padded = [n + lo + hi for n, (lo, hi) in zip(sizes, pads, strict=True)]
    x = columns.new_zeros(*taps.shape[: -2 * axes], *padded)
    for j in itertools.product(*map(range, kernel)):
        knobs = zip(j, out, strides, dilations, strict=True)
        at = [slice(i * d, i * d + (m - 1) * s + 1, s) for i, m, s, d in knobs]
        x[(..., *at)] += taps[(..., *j, *(slice(None),) * axes)]
    inside = [slice(lo, lo + n) for n, (lo, _) in zip(sizes, pads, strict=True)]
    return x[(..., *inside)]


def _check_columns(columns: torch.Tensor, taps: int, positions: int, out) -> None:
    check_ndim(2, columns=columns)
    if columns.shape[-2] % taps or columns.shape[-1] != positions:
        raise ValueError(
            f"columns must have a multiple of {taps} rows and {positions} positions "
            f"(an output of {tuple(out)}), got shape {tuple(columns.shape)}"
        )
