"""The blocks of chapter 1 as data: which convolutions they are made of.

A block is a list of branches, each a chain of rows that starts at the block's input.
What is no convolution, pooling or normalisation (sums, activations, gates, shuffles)
has no row: it has no parameters and no multiply-adds. `ckutils.blocks` holds the
modules of the same names and options, `ckutils.arithmetic` counts on these rows.
"""

from typing import NamedTuple

from ckutils.checks import check_choice, check_int, per_axis


class Convolution(NamedTuple):
    """A row of a block: one convolution, or a pooling, which only changes the size.

    extra: zeros added, both sides together.
    norms: channels of the normalisations around it.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    extra: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    bias: bool = True
    norms: tuple[int, ...] = ()
    pool: bool = False


def check_odd(kernel_size: int) -> None:
    """Raise ValueError unless padding kernel_size // 2 on both sides keeps the size."""
    check_int(1, kernel_size=kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd to keep the size, got {kernel_size}")


def check_bottleneck(channels: int, groups: int, bottleneck: int) -> None:
    """Raise ValueError unless the narrow middle of a shuffle unit divides in groups."""
    check_int(1, channels=channels, groups=groups, bottleneck=bottleneck)
    if channels % (groups * bottleneck):
        raise ValueError(
            f"channels must be a multiple of groups * bottleneck = "
            f"{groups * bottleneck}, got {channels}"
        )


def check_levels(channels) -> None:
    """Raise ValueError unless `channels` lists at least one level's width."""
    if not isinstance(channels, tuple | list) or not channels:
        raise ValueError(
            f"channels must name at least one level's width, got {channels!r}"
        )


def _conv(
    in_channels, out_channels, kernel_size, *, stride=1, padding=0, dilation=1,
    groups=1, bias=True, norms=(), axes=2, extra=None,
):  # fmt: skip
    check_int(1, axes=axes)
    kernel_size, stride, dilation = per_axis(
        1, axes, kernel_size=kernel_size, stride=stride, dilation=dilation
    )
    (padding,) = per_axis(0, axes, padding=padding)
    extra = tuple(2 * p for p in padding) if extra is None else extra
    return Convolution(
        in_channels, out_channels, kernel_size, stride, extra, dilation, groups, bias,
        norms,
    )  # fmt: skip


def _pool(kernel_size, *, stride=None, padding=0, axes=2):
    stride = kernel_size if stride is None else stride
    row = _conv(1, 1, kernel_size, stride=stride, padding=padding, axes=axes)
    return row._replace(pool=True)


def _linear(in_features, out_features, *, bias=True):
    check_int(1, in_features=in_features, out_features=out_features)
    return Convolution(in_features, out_features, (), (), (), (), 1, bias)


def _spatially_separable(
    in_channels, out_channels, kernel_size, *, mid_channels=None, stride=1, padding=0,
    bias=True,
):  # fmt: skip
    (h, w), (down, right) = per_axis(1, 2, kernel_size=kernel_size, stride=stride)
    ((top, left),) = per_axis(0, 2, padding=padding)
    mid = out_channels if mid_channels is None else mid_channels
    return [[
        _conv(in_channels, mid, (h, 1), stride=(down, 1), padding=(top, 0),
              bias=False),
        _conv(mid, out_channels, (1, w), stride=(1, right), padding=(0, left),
              bias=bias),
    ]]  # fmt: skip


def _depthwise_separable(
    in_channels, out_channels, kernel_size, *, multiplier=1, bias=True, axes=2, **knobs
):
    mid = in_channels * multiplier
    depthwise = _conv(
        in_channels,
        mid,
        kernel_size,
        groups=in_channels,
        bias=False,
        axes=axes,
        **knobs,
    )
    return [[depthwise, _conv(mid, out_channels, 1, bias=bias, axes=axes)]]


def _flattened(in_channels, out_channels, kernel_size, *, padding=0, bias=True):
    c = out_channels
    ((h, w),) = per_axis(1, 2, kernel_size=kernel_size)
    ((top, left),) = per_axis(0, 2, padding=padding)
    return [[
        _conv(in_channels, c, 1, bias=False),
        _conv(c, c, (h, 1), padding=(top, 0), groups=c, bias=False),
        _conv(c, c, (1, w), padding=(0, left), groups=c, bias=bias),
    ]]  # fmt: skip


def _shuffle_unit(channels, groups, *, kernel_size=3, stride=1, bottleneck=4):
    check_bottleneck(channels, groups, bottleneck)
    check_odd(kernel_size)
    check_choice((1, 2), stride=stride)
    mid, padding = channels // bottleneck, kernel_size // 2
    plain = {"bias": False}
    return [[
        _conv(channels, mid, 1, groups=groups, norms=(mid,), **plain),
        _conv(mid, mid, kernel_size, stride=stride, padding=padding, groups=mid,
              norms=(mid,), **plain),
        _conv(mid, channels, 1, groups=groups, norms=(channels,), **plain),
    ]]  # fmt: skip


def _inception(in_channels, widths, *, reduce=True):
    if not isinstance(widths, tuple | list) or len(widths) != 6:
        raise ValueError(f"widths must hold 6 widths, got {widths!r}")
    one, reduce3, three, reduce5, five, pool = widths
    if not reduce:
        return [
            [_conv(in_channels, one, 1)],
            [_conv(in_channels, three, 3, padding=1)],
            [_conv(in_channels, five, 5, padding=2)],
        ]
    return [
        [_conv(in_channels, one, 1)],
        [_conv(in_channels, reduce3, 1), _conv(reduce3, three, 3, padding=1)],
        [_conv(in_channels, reduce5, 1), _conv(reduce5, five, 5, padding=2)],
        [_conv(in_channels, pool, 1)],  # after a pooling that keeps the size
    ]


def _residual(
    in_channels, out_channels, *, kernel_size=3, stride=1, order="post", norm="batch",
    axes=2,
):  # fmt: skip
    check_odd(kernel_size)
    check_choice(("post", "pre"), order=order)
    check_choice(("batch", "none"), norm=norm)
    first = in_channels if order == "pre" else out_channels
    normed, same = norm != "none", {"padding": kernel_size // 2, "axes": axes}
    same["bias"] = not normed
    main = [
        _conv(in_channels, out_channels, kernel_size, stride=stride,
              norms=(first,) * normed, **same),
        _conv(out_channels, out_channels, kernel_size, norms=(out_channels,) * normed,
              **same),
    ]  # fmt: skip
    if in_channels == out_channels and stride == 1:
        return [main]
    return [main, [_conv(in_channels, out_channels, 1, stride=stride, bias=False,
                         axes=axes)]]  # fmt: skip


def _highway(channels, *, kernel_size=3, axes=2):
    check_odd(kernel_size)
    row = _conv(channels, channels, kernel_size, padding=kernel_size // 2, axes=axes)
    return [[row], [row]]  # the transform and its gate


def _temporal_block(
    in_channels, out_channels, *, kernel_size=2, dilation=1, norm="none"
):
    check_int(1, kernel_size=kernel_size, dilation=dilation)
    check_choice(("none", "step", "batch", "group"), norm=norm)
    knobs = {"dilation": dilation, "extra": (dilation * (kernel_size - 1),), "axes": 1}
    knobs["norms"] = (out_channels,) * (norm != "none")
    main = [
        _conv(in_channels, out_channels, kernel_size, **knobs),
        _conv(out_channels, out_channels, kernel_size, **knobs),
    ]
    if in_channels == out_channels:
        return [main]
    return [main, [_conv(in_channels, out_channels, 1, axes=1)]]


def _tcn(in_channels, channels, out_channels, *, kernel_size=2, norm="none"):
    check_levels(channels)
    rows, fed = [], in_channels
    for level, width in enumerate(channels):
        rows += _temporal_block(
            fed, width, kernel_size=kernel_size, dilation=2**level, norm=norm
        )
        fed = width
    # every row keeps the length, so the chains may stand side by side
    return [*rows, [_conv(fed, out_channels, 1, axes=1)]]


def _one(row):
    return lambda *args, **options: [[row(*args, **options)]]


BLOCKS = {
    "conv": _one(_conv),
    "pool": _one(_pool),
    "linear": _one(_linear),
    "spatially_separable": _spatially_separable,
    "depthwise_separable": _depthwise_separable,
    "pointwise_grouped": lambda in_channels, out_channels, groups, **options: [
        [_conv(in_channels, out_channels, 1, groups=groups, **options)]
    ],
    "shuffle_unit": _shuffle_unit,
    "flattened": _flattened,
    "inception": _inception,
    "residual": _residual,
    "highway": _highway,
    "temporal_block": _temporal_block,
    "tcn": _tcn,
}
