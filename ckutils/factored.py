"""Cheaper convolutions: kernels in factors, channels in groups.

`ckutils.blocks` offers these names too. Images are (b, c, h, w).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ckutils.checks import check_choice, check_int, check_number, per_axis

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

# Which kernels separate ----------------------------------------------------------


def kernel_rank(kernel, *, tol: float | None = None) -> int:
    """Rank of a kernel (h, w): how many column-times-row products add up to it.

    Chapter 1, eq. (1.41). Rank 1 is a spatially separable kernel, rank 0 is zero.

    Args:
        kernel: (h, w), real, anything torch.as_tensor takes.
        tol: singular values up to tol times the largest count as 0; None is
            max(h, w) eps of float64 (or of float32, if that is what `kernel` is).
    Returns the rank. Raises ValueError if `kernel` has not two axes, is complex or not
        finite, or `tol` is negative.

    >>> kernel_rank([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    1
    >>> kernel_rank([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    2
    """
    values, eps = _singular_values(kernel)
    tol = max(torch.as_tensor(kernel).shape) * eps if tol is None else tol
    check_number(0, tol=tol)
    return int((values > tol * values[0]).sum())


def separate(kernel) -> tuple[Tensor, Tensor, float]:
    """The column and row whose product is nearest to a kernel, and how near.

    Chapter 1, eq. (1.41). The nearest in the Frobenius norm is the first term of the
    singular value decomposition (Eckart and Young, 1936).

    Args:
        kernel: (h, w), real, anything torch.as_tensor takes.
    Returns column (h,) and row (w,), of equal length (norm), float64 unless `kernel` is
        float32, and |kernel - column row| / |kernel|, 0 for a zero kernel.
    Raises ValueError if `kernel` has not two axes, is complex or not finite.

    >>> column, row, error = separate([[1, 2], [3, 6]])
    >>> torch.outer(column, row).round(), round(error, 6)
    (tensor([[1., 2.],
            [3., 6.]], dtype=torch.float64), 0.0)
    """
    kernel = _matrix(kernel)
    left, values, right = torch.linalg.svd(kernel, full_matrices=False)
    column, row = left[:, 0] * values[0].sqrt(), right[0] * values[0].sqrt()
    rest = values[1:].norm() / values.norm() if values[0] > 0 else values[0]
    return column, row, float(rest)


def _singular_values(kernel) -> tuple[Tensor, float]:
    kernel = _matrix(kernel)
    return torch.linalg.svdvals(kernel), torch.finfo(kernel.dtype).eps


def _matrix(kernel) -> Tensor:
    kernel = torch.as_tensor(kernel)
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ValueError(f"kernel must be (h, w), got shape {tuple(kernel.shape)}")
    if kernel.is_complex():
        raise ValueError(f"kernel must be real, got {kernel.dtype}")
    if not bool(kernel.isfinite().all()):
        raise ValueError("kernel must be finite, got NaN or an infinity")
    return kernel if kernel.dtype == torch.float32 else kernel.double()


# Groups --------------------------------------------------------------------------


def grouped_conv_ref(x: Tensor, weight: Tensor, *, groups: int) -> Tensor:
    """Grouped convolution as it is defined: split, convolve, concatenate.

    Chapter 1, eq. (1.42). Group i maps the i-th of `groups` equal slices of the input
    channels to the i-th slice of the output channels.

    Args:
        x: (b, c_in, h, w).
        weight: (c_out, c_in / groups, kh, kw): a kernel meets only its own slice.
        groups: divides c_in and c_out.
    Returns (b, c_out, h - kh + 1, w - kw + 1). Raises ValueError if groups divides not.

    >>> x = torch.tensor([1., 10.]).reshape(1, 2, 1, 1)
    >>> grouped_conv_ref(x, torch.ones(4, 1, 1, 1), groups=2).flatten()
    tensor([ 1.,  1., 10., 10.])
    """
    check_groups(groups, in_channels=x.shape[1], out_channels=weight.shape[0])
    parts = zip(x.chunk(groups, dim=1), weight.chunk(groups), strict=True)
    return torch.cat([functional.conv2d(part, w) for part, w in parts], dim=1)


def block_diagonal(weight: Tensor, *, groups: int) -> Tensor:
    """The dense weight that does what a grouped one does; zeros off the blocks.

    Chapter 1, eq. (1.43).

    Args:
        weight: (c_out, c_in / groups, *kernel), any dtype.
        groups: divides c_out.
    Returns (c_out, c_in, *kernel). Raises ValueError if groups does not divide c_out.

    >>> block_diagonal(torch.tensor([[1, 2], [3, 4]]), groups=2)
    tensor([[1, 2, 0, 0],
            [0, 0, 3, 4]])
    """
    check_int(1, groups=groups)
    check_groups(groups, out_channels=weight.shape[0])
    rows, depth = weight.shape[0] // groups, weight.shape[1]
    dense = weight.new_zeros(weight.shape[0], depth * groups, *weight.shape[2:])
    for i, block in enumerate(weight.split(rows)):
        dense[i * rows : (i + 1) * rows, i * depth : (i + 1) * depth] = block
    return dense


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels like cards: channel (i, j) of (groups, c / groups) to (j, i).

    Chapter 1, eq. (1.44). Source: X. Zhang et al., ShuffleNet, arXiv:1707.01083,
    figure 1. Dealing with c / groups afterwards puts them back.

    Args:
        x: (b, c, *space). groups: divides c.
    Returns (b, c, *space). Raises ValueError if it does not.

    >>> channel_shuffle(torch.arange(6).reshape(1, 6), groups=2)
    tensor([[0, 3, 1, 4, 2, 5]])
    """
    check_groups(groups, channels=x.shape[1])
    # (b, c, ...) -> (b, g, c/g, ...) -> (b, c/g, g, ...) -> (b, c, ...)
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def check_groups(groups: int, **channels: int) -> None:
    """Raise ValueError unless `groups` divides each named number of channels."""
    check_int(1, groups=groups, **channels)
    for name, count in channels.items():
        if count % groups:
            raise ValueError(f"{name} must be a multiple of {groups=}, got {count}")


class PointwiseGrouped(nn.Sequential):
    """A 1x1 convolution in groups, then a channel shuffle if asked for.

    Chapter 1, eq. (1.42) and (1.44). Source: ShuffleNet, as `channel_shuffle`.

    Args:
        in_channels, out_channels: multiples of `groups`.
        shuffle: deal the output channels over the groups of the next layer.
        bias: whether the convolution has one.
    Input (b, in_channels, h, w), output (b, out_channels, h, w). Raises ValueError if
        `groups` does not divide the channels.

    >>> PointwiseGrouped(6, 4, 2)(torch.zeros(1, 6, 5, 5)).shape
    torch.Size([1, 4, 5, 5])
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, *,
        shuffle: bool = False, bias: bool = True,
    ):  # fmt: skip
        check_groups(groups, in_channels=in_channels, out_channels=out_channels)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=bias)
        )
        if shuffle:
            self.append(nn.ChannelShuffle(groups))


# Convolutions in factors ---------------------------------------------------------


class SpatiallySeparable(nn.Sequential):
    """A convolution by columns (kh, 1), then one by rows (1, kw), nothing between.

    Chapter 1, eq. (1.40). With one channel it is exactly a kernel of rank 1; through
    m middle channels each dense kernel is a sum of m column-row products.

    Args:
        in_channels, out_channels: ints.
        kernel_size, stride, padding: an int or (rows, columns).
        mid_channels: between the two; None is out_channels.
        bias: of the second convolution.
    Input (b, in_channels, h, w). `dense()` is the equal single kernel. Raises
        ValueError for a count below 1.

    >>> SpatiallySeparable(3, 4, (3, 5))(torch.zeros(1, 3, 9, 9)).shape
    torch.Size([1, 4, 7, 5])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, *,
        mid_channels: int | None = None, stride=1, padding=0, bias: bool = True,
    ):  # fmt: skip
        mid = out_channels if mid_channels is None else mid_channels
        check_int(
            1, in_channels=in_channels, out_channels=out_channels, mid_channels=mid
        )
        (h, w), (down, right) = per_axis(1, 2, kernel_size=kernel_size, stride=stride)
        ((top, left),) = per_axis(0, 2, padding=padding)
        # a bias between the two would meet the padding of the second: none there
        super().__init__(
            nn.Conv2d(in_channels, mid, (h, 1), (down, 1), (top, 0), bias=False),
            nn.Conv2d(mid, out_channels, (1, w), (1, right), (0, left), bias=bias),
        )

    def dense(self) -> Tensor:
        """The kernel (c_out, c_in, kh, kw) of the one convolution that is equal."""
        column, row = self[0].weight[..., 0], self[1].weight[..., 0, :]
        return torch.einsum("omw,mih->oihw", row, column)


class DepthwiseSeparable(nn.Sequential):
    """Each channel by its own kernel, then 1x1 across the channels; no activation.

    Chapter 1, eq. (1.45). MobileNet (arXiv:1704.04861) puts normalisation and ReLU
    after each of the two; Xception (arXiv:1610.02357) has none between them, and
    Inception's idea in its extreme form has the 1x1 first.

    Args:
        in_channels, out_channels: ints.
        kernel_size, stride, padding, dilation: an int or one int an axis.
        multiplier: kernels an input channel. bias: of the 1x1 convolution.
        axes: 1, 2 or 3 spatial axes.
    Input (b, in_channels, *space). `dense()` is the equal single kernel. Raises
        ValueError for a count below 1 or other axes.

    >>> DepthwiseSeparable(3, 8, 3, padding=1)(torch.zeros(1, 3, 9, 9)).shape
    torch.Size([1, 8, 9, 9])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, *, stride=1, padding=0,
        dilation=1, multiplier: int = 1, bias: bool = True, axes: int = 2,
    ):  # fmt: skip
        check_choice(CONV, axes=axes)
        check_int(
            1, in_channels=in_channels, out_channels=out_channels, multiplier=multiplier
        )
        kernel_size, stride, dilation = per_axis(
            1, axes, kernel_size=kernel_size, stride=stride, dilation=dilation
        )
        (padding,) = per_axis(0, axes, padding=padding)
        mid = in_channels * multiplier
        super().__init__(
            CONV[axes](
                in_channels, mid, kernel_size, stride, padding, dilation,
                groups=in_channels, bias=False,
            ),
            CONV[axes](mid, out_channels, 1, bias=bias),
        )  # fmt: skip

    def dense(self) -> Tensor:
        """The kernel (c_out, c_in, *kernel) of the one convolution that is equal."""
        depthwise, pointwise = self[0].weight, self[1].weight.flatten(1)
        per_input = depthwise.unflatten(0, (self[0].in_channels, -1))[:, :, 0]
        mix = pointwise.unflatten(1, per_input.shape[:2])
        return torch.einsum("oim,im...->oi...", mix, per_input)


class Flattened(nn.Sequential):
    """A filter as an outer product of three vectors: channels, rows, columns.

    Chapter 1, eq. (1.46). Source: J. Jin, A. Dundar, E. Culurciello, "Flattened
    convolutional neural networks for feedforward acceleration", arXiv:1412.5474.

    Args:
        in_channels, out_channels: ints.
        kernel_size, padding: an int or (rows, columns).
        bias: of the last of the three.
    Input (b, in_channels, h, w). `dense()` is the equal single kernel: each of its
        filters has rank 1 in every direction. Raises ValueError for a count below 1.

    >>> Flattened(3, 4, 3, padding=1)(torch.zeros(1, 3, 9, 9)).shape
    torch.Size([1, 4, 9, 9])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, *, padding=0,
        bias: bool = True,
    ):  # fmt: skip
        check_int(1, in_channels=in_channels, out_channels=out_channels)
        ((h, w),) = per_axis(1, 2, kernel_size=kernel_size)
        ((top, left),) = per_axis(0, 2, padding=padding)
        c = out_channels
        super().__init__(
            nn.Conv2d(in_channels, c, 1, bias=False),
            nn.Conv2d(c, c, (h, 1), padding=(top, 0), groups=c, bias=False),
            nn.Conv2d(c, c, (1, w), padding=(0, left), groups=c, bias=bias),
        )

    def dense(self) -> Tensor:
        """The kernel (c_out, c_in, kh, kw) of the one convolution that is equal."""
        across, down, right = (layer.weight.flatten(1) for layer in self)
        return torch.einsum("oi,oh,ow->oihw", across, down, right)
