"""What people build from convolutions: cheaper layers, wider ones, deeper ones.

Each block is a small module; `ckutils.block_rows` lists the same blocks as data, and
the counts of `ckutils.arithmetic` follow from that. Images are (b, c, h, w).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ckutils.block_rows import check_bottleneck, check_odd
from ckutils.checks import check_choice, check_int

# the factored and the causal layers are offered here too
from ckutils.factored import (  # noqa: F401
    CONV,
    DepthwiseSeparable,
    Flattened,
    PointwiseGrouped,
    SpatiallySeparable,
    block_diagonal,
    channel_shuffle,
    grouped_conv_ref,
    kernel_rank,
    separate,
)
from ckutils.temporal import (  # noqa: F401
    TCN,
    CausalConv1d,
    CausalSequential,
    StepNorm,
    TemporalBlock,
)

NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class ShuffleUnit(nn.Module):
    """Bottleneck of grouped 1x1, shuffle, depthwise, grouped 1x1, with a shortcut.

    Chapter 1, section 1.21; source: ShuffleNet, arXiv:1707.01083, figure 2. With
    stride 2 the shortcut is averaged over 3x3 and concatenated instead of added.

    Args:
        channels: of the input; a multiple of groups times bottleneck.
        groups: of both 1x1 convolutions.
        kernel_size: odd, of the depthwise convolution. stride: 1 or 2.
        bottleneck: how many times narrower the middle is.
    Input (b, channels, h, w); output the same with stride 1, and (b, 2 channels,
        ceil(h / 2), ceil(w / 2)) with stride 2. Raises ValueError for other options.

    >>> ShuffleUnit(8, 2, stride=2)(torch.zeros(2, 8, 7, 7)).shape
    torch.Size([2, 16, 4, 4])
    """

    def __init__(
        self, channels: int, groups: int, *, kernel_size: int = 3, stride: int = 1,
        bottleneck: int = 4,
    ):  # fmt: skip
        super().__init__()
        check_bottleneck(channels, groups, bottleneck)
        check_choice((1, 2), stride=stride)
        check_odd(kernel_size)
        mid, padding = channels // bottleneck, kernel_size // 2
        self.main = nn.Sequential(
            nn.Conv2d(channels, mid, 1, groups=groups, bias=False),
            nn.BatchNorm2d(mid), nn.ReLU(), nn.ChannelShuffle(groups),
            nn.Conv2d(mid, mid, kernel_size, stride, padding, groups=mid, bias=False),
            nn.BatchNorm2d(mid),
            nn.Conv2d(mid, channels, 1, groups=groups, bias=False),
            nn.BatchNorm2d(channels),
        )  # fmt: skip
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is None:
            return functional.relu(self.main(x) + x)
        return functional.relu(torch.cat([self.pool(x), self.main(x)], dim=1))


class InceptionWidths(NamedTuple):
    """Output channels of an Inception module's convolutions."""

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pool: int


# Table 1 of arXiv:1409.4842; the module reads 192 channels at 28 x 28.
INCEPTION_3A = InceptionWidths(64, 96, 128, 16, 32, 32)


class Inception(nn.Module):
    """1x1, 3x3, 5x5 and a 3x3 maximum side by side, concatenated.

    Chapter 1, section 1.24; source: C. Szegedy et al., arXiv:1409.4842, figure 2. Each
    convolution is followed by ReLU.

    Args:
        in_channels: of the input.
        widths: the six widths of `InceptionWidths`.
        reduce: 1x1 convolutions before the 3x3 and 5x5 and after the maximum; without
            them (the naive form) the maximum passes all its channels on.
    Input (b, in_channels, h, w), output (b, one + three + five + pool, h, w), with
        in_channels for pool if not `reduce`. Raises ValueError for a width below 1.

    >>> Inception(192, INCEPTION_3A)(torch.zeros(1, 192, 4, 4)).shape
    torch.Size([1, 256, 4, 4])
    """

    def __init__(self, in_channels: int, widths, *, reduce: bool = True):
        super().__init__()
        if len(widths) != 6:
            raise ValueError(f"widths must hold 6 widths, got {widths!r}")
        w = InceptionWidths(*widths)
        check_int(1, in_channels=in_channels, **w._asdict())
        pool = nn.MaxPool2d(3, 1, 1)

        def conv(fed, channels, kernel_size):
            padding = kernel_size // 2
            return nn.Conv2d(fed, channels, kernel_size, padding=padding), nn.ReLU()

        def path(fed, squeezed, channels, kernel_size):
            squeeze = conv(fed, squeezed, 1) if reduce else ()
            return *squeeze, *conv(squeezed if reduce else fed, channels, kernel_size)

        c = in_channels
        self.branches = nn.ModuleList([
            nn.Sequential(*conv(c, w.one, 1)),
            nn.Sequential(*path(c, w.reduce3, w.three, 3)),
            nn.Sequential(*path(c, w.reduce5, w.five, 5)),
            nn.Sequential(pool, *(conv(c, w.pool, 1) if reduce else ())),
        ])  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Residual(nn.Module):
    """y = F(x) + x, F two convolutions; the shortcut is 1x1 where the shapes differ.

    Chapter 1, eq. (1.48). Sources: K. He et al., arXiv:1512.03385 ("post": activation
    after the sum) and arXiv:1603.05027 ("pre": before each convolution, so that the
    sum itself is the output).

    Args:
        in_channels, out_channels: ints. stride: of the first convolution and of the
            shortcut.
        kernel_size: odd. order: "post" or "pre".
        norm: "batch" or "none"; without it the convolutions have biases.
        axes: 1, 2 or 3 spatial axes.
    Input (b, in_channels, *space), output (b, out_channels, *ceil(space / stride)).
        Raises ValueError for other options.

    >>> Residual(4, 8, stride=2)(torch.zeros(2, 4, 7, 7)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 3,
        stride: int = 1, order: str = "post", norm: str = "batch", axes: int = 2,
    ):  # fmt: skip
        super().__init__()
        check_choice(CONV, axes=axes)
        check_int(1, in_channels=in_channels, out_channels=out_channels, stride=stride)
        check_odd(kernel_size)
        check_choice(("post", "pre"), order=order)
        check_choice(("batch", "none"), norm=norm)
        self.after = order == "post"
        self.main = nn.Sequential()
        for fed, step in ((in_channels, stride), (out_channels, 1)):
            conv = CONV[axes](
                fed, out_channels, kernel_size, step, kernel_size // 2,
                bias=norm == "none",
            )  # fmt: skip
            channels = out_channels if self.after else fed
            normalise = NORM[axes](channels) if norm == "batch" else nn.Identity()
            parts = [conv, normalise, nn.ReLU()]
            self.main.extend(parts if self.after else [normalise, nn.ReLU(), conv])
        if self.after:
            del self.main[-1]  # the second ReLU comes after the sum
        same = in_channels == out_channels and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else CONV[axes](in_channels, out_channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(x) + self.shortcut(x)
        return functional.relu(y) if self.after else y


class Highway(nn.Module):
    """y = H(x) T(x) + x (1 - T(x)): a gate T in (0, 1) mixes H(x) with x itself.

    Chapter 1, eq. (1.49). H is a convolution with ReLU, T one with a sigmoid. Source:
    R. K. Srivastava, K. Greff, J. Schmidhuber, arXiv:1505.00387.

    Args:
        channels: of input and output. kernel_size: odd.
        gate_bias: where T's bias starts; negative values start near y = x.
        axes: 1, 2 or 3 spatial axes.
    Input and output (b, channels, *space). Raises ValueError for other options.

    >>> Highway(4)(torch.zeros(1, 4, 5, 5)).shape
    torch.Size([1, 4, 5, 5])
    """

    def __init__(
        self, channels: int, *, kernel_size: int = 3, gate_bias: float = -2.0,
        axes: int = 2,
    ):  # fmt: skip
        super().__init__()
        check_choice(CONV, axes=axes)
        check_int(1, channels=channels)
        check_odd(kernel_size)
        padding = kernel_size // 2
        self.transform = CONV[axes](channels, channels, kernel_size, padding=padding)
        self.gate = CONV[axes](channels, channels, kernel_size, padding=padding)
        nn.init.constant_(self.gate.bias, gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return functional.relu(self.transform(x)) * gate + x * (1 - gate)
