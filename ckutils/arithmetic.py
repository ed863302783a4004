"""Integers only: sizes and padding of a convolution, and what a layer sees and costs.

A size is an int (one spatial axis) or a tuple with one entry an axis; an int beside a
tuple counts for every axis. Letters: n size, k kernel size, s stride, d dilation,
e input dilation, lo and hi the padding in front of and behind the signal.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from ckutils.block_rows import BLOCKS, Convolution
from ckutils.checks import check_choice, check_int, per_axis
from ckutils.receptive import (  # noqa: F401 - offered here too
    ReceptiveField,
    receptive_field,
    receptive_set,
)

Size = int | tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

# Sizes and padding ---------------------------------------------------------------

PADDINGS = ("valid", "same", "causal", "circular", "reflect")
_SIZED = ("same", "circular", "reflect")  # these ask where the signal ends


def dilated_size(size: Size, dilation: Size) -> Size:
    """Length with dilation - 1 zeros between neighbours: n + (n - 1)(d - 1).

    Chapter 1, eq. (1.9). Equal to (n - 1) d + 1: the steps grow by d, not the length.

    Args:
        size: number of entries an axis, >= 1. dilation: steps between them, >= 1.
    Returns an int for ints, a tuple if either is one. Raises ValueError for others.

    >>> dilated_size(3, 2), dilated_size((3, 5), (1, 4))
    (5, (3, 17))
    """
    axes = _count_axes(size=size, dilation=dilation)
    sizes, steps = per_axis(1, axes or 1, size=size, dilation=dilation)
    spans = (d * (n - 1) + 1 for n, d in zip(sizes, steps, strict=True))
    return _like(axes, spans)


def resolve_padding(
    padding,
    kernel_size: Size,
    *,
    stride: Size = 1,
    dilation: Size = 1,
    size: Size | None = None,
) -> Pairs:
    """The padding as numbers: one pair (lo, hi) an axis.

    Chapter 1, eq. (1.11) to (1.14). With K = d (k - 1) + 1, the span of the kernel:

        int, or an int an axis   lo = hi = that number
        (lo, hi) an axis         as given; on one axis a bare (lo, hi) will do
        "valid"                  0, 0
        "same"                   ceil(n/s) outputs as TensorFlow and JAX pad for them:
                                 lo + hi = max((ceil(n/s) - 1) s + K - n, 0), the odd
                                 one behind; needs `size` where a stride exceeds 1
        "causal"                 K - 1, 0 on every axis: no output reads ahead
        "circular", "reflect"    (K - 1) // 2, K // 2, read from the signal itself

    Args:
        padding: one of these. kernel_size: its length counts the axes, an int is one.
        size: of the input; with it "reflect" is checked against its limit n - 1.
    Returns a tuple of pairs. Raises ValueError for other paddings, if "same" has a
        stride but no size, if "reflect" would need more than n - 1 entries.

    >>> resolve_padding("same", 3, stride=2, size=224)
    ((0, 1),)
    >>> resolve_padding(((1, 0), 2), (3, 3))
    ((1, 0), (2, 2))
    """
    axes = _count_axes(kernel_size=kernel_size, size=size) or 1
    kernels, strides, dilations = per_axis(
        1, axes, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    (sizes,) = per_axis(1, axes, size=size) if size is not None else (None,)
    spans = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    return resolve_spans(padding, spans, strides, sizes)


def resolve_spans(padding, spans, strides, sizes) -> Pairs:
    """`resolve_padding` of checked tuples: spans are dilated kernel sizes."""
    if type(padding) is int and padding >= 0:  # the commonest case, and the cheapest
        return ((padding, padding),) * len(spans)
    if not isinstance(padding, str):
        return _numbers(padding, len(spans))
    check_choice(PADDINGS, padding=padding)
    if padding == "valid":
        return ((0, 0),) * len(spans)
    if padding == "causal":
        return tuple((span - 1, 0) for span in spans)
    if padding == "same" and max(strides) > 1:
        return _same(spans, strides, sizes)
    pads = tuple(((span - 1) // 2, span // 2) for span in spans)
    if padding == "reflect" and sizes is not None:
        _check_reflect(pads, sizes)
    return pads


def _same(spans, strides, sizes) -> Pairs:
    if sizes is None:
        raise ValueError(
            f"padding='same' needs the input's size where a stride exceeds 1, "
            f"got stride {strides} without size"
        )
    pads = []
    for span, step, n in zip(spans, strides, sizes, strict=True):
        total = max((-(-n // step) - 1) * step + span - n, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def _check_reflect(pads, sizes) -> None:
    for (lo, hi), n in zip(pads, sizes, strict=True):
        if max(lo, hi) > n - 1:
            raise ValueError(
                f"padding='reflect' reaches at most size - 1 = {n - 1} entries beyond "
                f"an edge, because the mirror image of {n} entries has no more, but "
                f"this kernel needs {max(lo, hi)}; ckutils.convolution.pad reflects "
                "again and again, as NumPy does"
            )


def _numbers(padding, axes: int) -> Pairs:
    """An int, ints or pairs, one an axis, as pairs; on one axis a bare pair too."""
    entries = (padding,) * axes if not isinstance(padding, tuple | list) else padding
    if axes == 1 and len(entries) == 2:
        entries = (tuple(entries),)
    if len(entries) != axes:
        raise ValueError(
            f"padding must be an int, one of {', '.join(map(repr, PADDINGS))}, or hold "
            f"an int or a pair (lo, hi) for each of {axes} axes, got {padding!r}"
        )
    pairs = []
    for entry in entries:
        pair = entry if isinstance(entry, tuple | list) else (entry, entry)
        if len(pair) != 2:
            raise ValueError(f"padding must hold pairs (lo, hi), got {entry!r}")
        check_int(0, **{"padding": pair[0]})
        check_int(0, **{"padding": pair[1]})
        pairs.append((int(pair[0]), int(pair[1])))
    return tuple(pairs)


def conv_output_size(
    size: Size,
    kernel_size: Size,
    *,
    stride: Size = 1,
    padding=0,
    dilation: Size = 1,
    input_dilation: Size = 1,
) -> Size:
    """Length of a convolution: floor((N + lo + hi - K) / s) + 1.

    Chapter 1, eq. (1.10), with N = e (n - 1) + 1 and K = d (k - 1) + 1. The numerator
    is the last place where the kernel may start; the floor counts the whole strides.

    Args:
        size, kernel_size, stride, dilation, input_dilation: >= 1.
        padding: as in `resolve_padding`. It extends the dilated input; with an input
            dilation only numbers, "valid" and "causal" say how.
    Returns an int for ints, a tuple if size or kernel_size is one.
    Raises ValueError if the kernel spans more than the padded input.
    Source: Dumoulin and Visin, arXiv:1603.07285, relationships 1 to 6 and 15.

    >>> conv_output_size(224, 7, stride=2, padding=3)
    112
    >>> conv_output_size((224, 100), 7, padding="valid", dilation=(2, 1))
    (212, 94)
    """
    axes = _count_axes(size=size, kernel_size=kernel_size)
    sizes, kernels, strides, dilations, spread = per_axis(
        1, axes or 1, size=size, kernel_size=kernel_size, stride=stride,
        dilation=dilation, input_dilation=input_dilation,
    )  # fmt: skip
    check_spread(padding, spread)
    sizes = [e * (n - 1) + 1 for n, e in zip(sizes, spread, strict=True)]
    spans = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    pads = resolve_spans(padding, spans, strides, sizes)
    return _like(axes, output_sizes(sizes, spans, strides, pads))


def output_sizes(sizes, spans, strides, pads) -> list[int]:
    """Eq. (1.10) of checked tuples; raises ValueError where the kernel does not fit."""
    out = []
    for n, span, step, (lo, hi) in zip(sizes, spans, strides, pads, strict=True):
        room = n + lo + hi
        if span > room:
            raise ValueError(
                f"kernel_size must fit into the padded input, but the kernel spans "
                f"{span} and the input has {room} (size {n}, padding {lo} + {hi})"
            )
        out.append((room - span) // step + 1)
    return out


def check_spread(padding, spread) -> None:
    """Raise ValueError for a padding that an input dilation leaves undefined."""
    if max(spread) > 1 and isinstance(padding, str) and padding in _SIZED:
        raise ValueError(
            f"padding must be numbers, 'valid' or 'causal' where input_dilation "
            f"exceeds 1, got {padding!r} with input_dilation {tuple(spread)}: the gaps "
            "between the entries do not say what lies beyond the last one"
        )


def conv_input_sizes(
    output_size: Size,
    kernel_size: Size,
    *,
    stride: Size = 1,
    padding=0,
    dilation: Size = 1,
    input_dilation: Size = 1,
) -> range | tuple[range, ...]:
    """All input sizes that give this output size: the inverse of `conv_output_size`.

    Chapter 1, eq. (1.15): N = (m - 1) s + K - lo - hi + a with a = 0, ..., s - 1. With
    e = 1 they are s neighbours (fewer where some would be below 1), one for each output
    padding a of the transposed convolution; no other size gives m.

    Args:
        output_size: m >= 1. The others: as in `conv_output_size`.
    Returns a `range`, empty if no size >= 1 fits; a tuple of ranges for tuples.
    Raises ValueError for the same arguments as `conv_output_size`.

    >>> conv_input_sizes(112, 7, stride=2, padding=3)
    range(223, 225)
    """
    axes = _count_axes(output_size=output_size, kernel_size=kernel_size)
    outs, kernels, strides, dilations, spread = per_axis(
        1, axes or 1, output_size=output_size, kernel_size=kernel_size, stride=stride,
        dilation=dilation, input_dilation=input_dilation,
    )  # fmt: skip
    check_spread(padding, spread)
    spans = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    # ceil(n/s) outputs under "same" are what a total padding of K - 1 gives
    pads = resolve_spans(padding, spans, (1,) * len(spans), None)
    ranges = []
    for m, span, s, e, (lo, hi) in zip(outs, spans, strides, spread, pads, strict=True):
        first = (m - 1) * s + span - lo - hi
        # reflection needs a signal longer than what it adds
        least = max(first, max(lo, hi) + 1 if padding == "reflect" else 1)
        most = first + s - 1
        ranges.append(range(-(-(least - 1) // e) + 1, (most - 1) // e + 2))
    return _like(axes, ranges)


def conv_transpose_output_size(
    size: Size,
    kernel_size: Size,
    *,
    stride: Size = 1,
    padding=0,
    output_padding: Size = 0,
    dilation: Size = 1,
) -> Size:
    """Length of a transposed convolution: (n - 1) s + d (k - 1) + 1 - lo - hi + a.

    Chapter 1, eq. (1.16): the input size of the convolution that it transposes.

    Args:
        size, kernel_size, stride, dilation: >= 1, those of the convolution, whose
            output has this size. padding: numbers, "valid" or "causal".
        output_padding: a. Each a < s is another input size with this same output size
            (eq. 1.15). torch allows a < max(s, d), and so does this; a >= s is the
            length of an input whose convolution has more outputs than there are.
    Returns an int for ints, a tuple if size or kernel_size is one.
    Raises ValueError if a >= max(s, d), or if the length would be below 1.
    Source: Dumoulin and Visin, arXiv:1603.07285, relationships 8 to 14.

    >>> conv_transpose_output_size(112, 7, stride=2, padding=3, output_padding=1)
    224
    """
    axes = _count_axes(size=size, kernel_size=kernel_size)
    sizes, kernels, strides, dilations = per_axis(
        1, axes or 1, size=size, kernel_size=kernel_size, stride=stride,
        dilation=dilation,
    )  # fmt: skip
    (extra,) = per_axis(0, axes or 1, output_padding=output_padding)
    spans = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    pads = transposed_padding(padding, spans)
    check_output_padding(extra, strides, dilations)
    return _like(axes, transposed_sizes(sizes, spans, strides, pads, extra))


def transposed_sizes(sizes, spans, strides, pads, extra) -> list[int]:
    """Eq. (1.16) of checked tuples; raises ValueError where nothing would be left."""
    out = []
    knobs = zip(sizes, spans, strides, pads, extra, strict=True)
    for n, span, step, (lo, hi), a in knobs:
        length = (n - 1) * step + span - lo - hi + a
        if length < 1:
            raise ValueError(
                f"padding must leave an output, but {lo} + {hi} of "
                f"{(n - 1) * step + span + a} entries are cut off"
            )
        out.append(length)
    return out


def transposed_padding(padding, spans) -> Pairs:
    """The padding of the convolution to transpose, which must not depend on a size."""
    if isinstance(padding, str) and padding in _SIZED:
        raise ValueError(
            f"padding must be numbers, 'valid' or 'causal' in a transposed "
            f"convolution, got {padding!r}: what it stands for depends on the size "
            "that is asked for"
        )
    return resolve_spans(padding, spans, (1,) * len(spans), None)


def check_output_padding(extra, strides, dilations) -> None:
    """Raise ValueError unless each output padding is below its stride or dilation."""
    for a, s, d in zip(extra, strides, dilations, strict=True):
        if a >= max(s, d):
            raise ValueError(
                f"output_padding must be below the stride or the dilation, "
                f"got {a} with stride {s} and dilation {d}"
            )


def pool_output_size(
    size: Size,
    kernel_size: Size,
    *,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
) -> Size:
    """Length of a pooling: floor or ceil of (n + 2 p - k) / s, plus 1.

    Chapter 1, eq. (1.17). With ceil_mode a last window may hang over the end, but it
    must start inside the signal or its left padding, (m - 1) s < n + p, or it goes.

    Args:
        size, kernel_size: >= 1. stride: None means kernel_size. padding: p, on both
            sides, at most half the kernel, so that no window sees padding alone.
    Returns an int for ints, a tuple if size or kernel_size is one.
    Raises ValueError if p exceeds k / 2 or no window fits.

    >>> pool_output_size(7, 2), pool_output_size(7, 2, ceil_mode=True)
    (3, 4)
    """
    axes = _count_axes(size=size, kernel_size=kernel_size)
    if not isinstance(ceil_mode, bool):
        raise ValueError(f"ceil_mode must be True or False, got {ceil_mode!r}")
    stride = kernel_size if stride is None else stride
    sizes, kernels, strides = per_axis(
        1, axes or 1, size=size, kernel_size=kernel_size, stride=stride
    )
    (pads,) = per_axis(0, axes or 1, padding=padding)
    windows = zip(sizes, kernels, strides, pads, strict=True)
    return _like(axes, (_windows(*one, ceil_mode) for one in windows))


def _windows(n: int, k: int, s: int, p: int, ceil_mode: bool) -> int:
    if 2 * p > k:
        raise ValueError(f"padding must be at most kernel_size / 2 = {k / 2}, got {p}")
    room = n + 2 * p - k
    count = (room + (s - 1) * ceil_mode) // s + 1
    if ceil_mode and (count - 1) * s >= n + p:
        count -= 1
    if count < 1:
        raise ValueError(
            f"kernel_size must fit into the padded input, but the window has {k} and "
            f"the input {n + 2 * p} (size {n}, padding {p} + {p})"
        )
    return count


def _count_axes(**sizes) -> int | None:
    """The common length of those that are tuples; None if all are ints."""
    lengths = {k: len(v) for k, v in sizes.items() if isinstance(v, tuple | list)}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        listed = ", ".join(f"{name}={sizes[name]!r}" for name in lengths)
        raise ValueError(f"tuples must have one entry a spatial axis, got {listed}")
    return next(iter(lengths.values()), None)


def _like(axes: int | None, values):
    """A tuple if tuples came in, the single value if ints did."""
    values = tuple(values)
    return values[0] if axes is None else values


# Parameters, multiply-adds, memory -----------------------------------------------
#
# The blocks are rows of a table (ckutils/block_rows.py); everything here counts on it.


class Cost(NamedTuple):
    """What one sample costs: integers, and the size of the block's output.

    parameters: weights, biases and normalisation scales and shifts.
    macs: multiplications with an addition; those with padded zeros are counted, as
        every library does. One is two floating-point operations.
    activations: output values of all convolutions; times 4 bytes in float32.
    """

    parameters: int
    macs: int
    activations: int
    output_size: tuple[int, ...]


def conv_weights(
    in_channels: int, out_channels: int, kernel_size, *, groups: int = 1, bias=True
) -> int:
    """Parameters of one convolution: prod(kernel) C_in C_out / groups (+ C_out).

    Chapter 1, eq. (1.35).

    Args:
        in_channels, out_channels: multiples of `groups`.
        kernel_size: one int an axis; an int is one axis.
        groups: each output channel reads in_channels / groups input channels.
        bias: whether there is one number more an output channel.
    Raises ValueError for a count below 1 or channels that `groups` does not divide.

    >>> conv_weights(3, 64, (7, 7))
    9472
    """
    kernel = kernel_size if isinstance(kernel_size, tuple | list) else (kernel_size,)
    check_int(1, in_channels=in_channels, out_channels=out_channels, groups=groups)
    for entry in kernel:
        check_int(1, kernel_size=entry)
    if bias not in (True, False):
        raise ValueError(f"bias must be True or False, got {bias!r}")
    both = {"in_channels": in_channels, "out_channels": out_channels}
    for name, channels in both.items():
        if channels % groups:
            raise ValueError(f"{name} must be a multiple of {groups=}, got {channels}")
    return (
        math.prod(kernel) * in_channels * out_channels // groups + bias * out_channels
    )


def count_parameters(block: str, **options) -> int:
    """How many trainable numbers a block holds, from its options alone.

    Chapter 1, eq. (1.35). Equal to the sum of numel() over the module of the same
    options in `ckutils.blocks`.

    Args:
        block: a name in `BLOCKS`: "conv", "linear", "depthwise_separable", "tcn", ...
        options: what the block's constructor takes and its counts depend on; `axes`
            (default 2) says how many axes an int kernel_size has.
    Returns the count.
    Raises ValueError for an unknown block or an option out of range, TypeError for an
        option that the block does not have.

    >>> count_parameters("conv", in_channels=3, out_channels=4, kernel_size=5)
    304
    >>> count_parameters(
    ...     "depthwise_separable", in_channels=3, out_channels=4, kernel_size=5)
    91
    """
    return sum(_parameters(row) for branch in _rows(block, options) for row in branch)


def count_macs(block: str, size, **options) -> int:
    """How many multiply-adds a block needs for one sample with `size` positions.

    Chapter 1, eq. (1.36): an output value of a convolution costs prod(kernel) C_in /
    groups. A library that counts floating-point operations reports twice as many.

    Args:
        block, options: as for `count_parameters`.
        size: of the input, an int or one int an axis; () for "linear".
    Returns the count. Raises as `count_parameters`, and ValueError for a kernel that is
        larger than the padded input.

    >>> count_macs("conv", (8, 8), in_channels=3, out_channels=4, kernel_size=5)
    4800
    """
    return count_cost(block, size, **options).macs


def count_cost(block: str, size, **options) -> Cost:
    """Parameters, multiply-adds, activations and output size of a block.

    Chapter 1, eq. (1.35) to (1.37). Arguments and errors: `count_macs`.

    >>> count_cost("residual", (8, 8), in_channels=2, out_channels=4, stride=2)
    Cost(parameters=240, macs=3584, activations=192, output_size=(4, 4))
    """
    size = tuple(size) if isinstance(size, tuple | list) else (size,)
    check_int(1, **{f"size[{axis}]": length for axis, length in enumerate(size)})
    parameters = macs = activations = 0
    output = size
    for branch in _rows(block, options):
        here = size
        for row in branch:
            if len(row.kernel_size) != len(size):
                raise ValueError(
                    f"size must have {len(row.kernel_size)} axes for {block!r}, got "
                    f"{size}"
                )
            here = _row_output(row, here)
            values = 0 if row.pool else math.prod(here) * row.out_channels
            parameters += _parameters(row)
            activations += values
            macs += values * math.prod(row.kernel_size) * row.in_channels // row.groups
        output = here if branch else output
    return Cost(parameters, macs, activations, output)


def network_cost(layers: Iterable[tuple[str, dict]], size) -> Cost:
    """The cost of blocks in a chain, each fed with the output size of the one before.

    Chapter 1, eq. (1.37).

    Args:
        layers: (block, options) each; "linear" after the last spatial block sees a flat
            vector and ends the spatial axes.
        size: of the network's input.
    Returns the summed Cost with the last output size. Raises as `count_macs`.

    >>> layers = [("conv", dict(in_channels=1, out_channels=2, kernel_size=3)),
    ...           ("pool", dict(kernel_size=2)),
    ...           ("linear", dict(in_features=18, out_features=5))]
    >>> network_cost(layers, (8, 8))
    Cost(parameters=115, macs=738, activations=77, output_size=())
    """
    size = tuple(size) if isinstance(size, tuple | list) else (size,)
    total = [0, 0, 0]
    for block, options in layers:
        cost = count_cost(block, () if block == "linear" else size, **options)
        total = [a + b for a, b in zip(total, cost[:3], strict=True)]
        size = cost.output_size
    return Cost(*total, size)


def _parameters(row: Convolution) -> int:
    if row.pool:
        return 0
    weights = conv_weights(
        row.in_channels, row.out_channels, row.kernel_size,
        groups=row.groups, bias=row.bias,
    )  # fmt: skip
    return weights + 2 * sum(row.norms)  # a scale and a shift a channel


def _row_output(row: Convolution, size: tuple[int, ...]) -> tuple[int, ...]:
    """Output size of one row; the zeros of `extra` count as part of the input."""
    knobs = zip(size, row.kernel_size, row.stride, row.extra, row.dilation, strict=True)
    return tuple(
        conv_output_size(length + extra, kernel, stride=stride, dilation=dilation)
        for length, kernel, stride, extra, dilation in knobs
    )


def _rows(block: str, options: dict) -> list[list[Convolution]]:
    check_choice(BLOCKS, block=block)
    return BLOCKS[block](**options)
