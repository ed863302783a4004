"""CKConv, the block that is made of two of them, and the network made of blocks.

Signals are (b, c, t), and all of it is causal: output t depends on inputs up to t.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from ckutils.blocks import StepNorm
from ckutils.checks import check_choice, check_int, check_number
from ckutils.cklayer import CKConv

__all__ = ["CKCNN", "NORMS", "BlockState", "CKBlock", "CKConv"]

NORMS = {
    "step": StepNorm,  # over the channels of one time step
    "released": lambda channels: nn.GroupNorm(1, channels),  # over channels and time
}


class BlockState(NamedTuple):
    """The pasts of a block's two convolutions."""

    first: Tensor
    second: Tensor


class CKBlock(nn.Module):
    """y = relu(s(x) + relu(N2 C2 d(relu(N1 C1 x)))) with C1, C2 CKConvs, d dropout.

    Chapter 3, eq. (3.24). Source: Romero et al. (2021), figure 3. s is the identity, or
    a pointwise linear map where the channels change.

    Args:
        in_channels, out_channels: sizes >= 1.
        omega_0, horizon, method: of both CKConvs.
        kernel_net: number of kernels -> network, for both; None is a Siren.
        dropout: probability d drops a value with.
        norm: "step" normalises the channels of each time step. "released" normalises
            over channels and time, as the released code does: it sees the future.
    Input (b, in_channels, t), output (b, out_channels, t). Raises ValueError for
        another norm, and what CKConv raises.

    >>> import torch
    >>> CKBlock(1, 4)(torch.zeros(2, 1, 9)).shape
    torch.Size([2, 4, 9])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, omega_0: float = 30.0,
        horizon: int | None = None, dropout: float = 0.0, norm: str = "step",
        kernel_net: Callable[[int], nn.Module] | None = None,
        method: str = "factorised",
    ):  # fmt: skip
        super().__init__()
        check_choice(NORMS, norm=norm)
        check_number(0, 1, dropout=dropout)
        self.norm = norm

        def ckconv(c_in: int) -> CKConv:
            net = kernel_net and kernel_net(c_in * out_channels)
            return CKConv(
                c_in, out_channels, kernel_net=net, omega_0=omega_0, horizon=horizon,
                method=method,
            )  # fmt: skip

        self.conv1, self.conv2 = ckconv(in_channels), ckconv(out_channels)
        self.norm1, self.norm2 = NORMS[norm](out_channels), NORMS[norm](out_channels)
        self.dropout = nn.Dropout(dropout)
        same = in_channels == out_channels
        self.shortcut = (
            nn.Identity() if same else nn.Conv1d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, *, resolution: float = 1.0) -> Tensor:
        h = self._between(self.conv1(x, resolution=resolution))
        return self._after(x, self.conv2(h, resolution=resolution))

    def _between(self, y: Tensor) -> Tensor:
        return self.dropout(functional.relu(self.norm1(y)))

    def _after(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + functional.relu(self.norm2(y)))

    def initial_state(self, batch: int) -> BlockState:
        """The state before the first sample; the norm must not look at other steps."""
        if self.norm != "step":
            raise ValueError(
                f"norm must be 'step' to run chunk by chunk, got {self.norm!r}, which "
                f"needs the whole signal"
            )
        return BlockState(
            self.conv1.initial_state(batch), self.conv2.initial_state(batch)
        )

    def step(self, x: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """The outputs of the next chunk (b, c_in, n), and the state after it."""
        y, first = self.conv1.step(x, state.first)
        y, second = self.conv2.step(self._between(y), state.second)
        return self._after(x, y), BlockState(first, second)


class CKCNN(nn.Module):
    """CKBlocks in a row and a linear head: a causal network with any horizon.

    Chapter 3, eq. (3.25). Source: Romero et al. (2021), arXiv:2102.02611. The published
    networks are CKCNN(1, 10), CKCNN(3, 10) and CKCNN(20, 10).

    Args:
        in_channels, out_channels, channels, blocks: sizes >= 1.
        omega_0, horizon, dropout, norm, kernel_net, method: see CKBlock.
        head: "last" maps the features of the last time step, "all" those of each.
    Input (b, in_channels, t), output (b, out_channels) or (b, out_channels, t). Raises
        ValueError for sizes below 1, another head, and what CKBlock raises.

    >>> from ckutils.training import count_weights
    >>> [count_weights(CKCNN(c, 10)) for c in (1, 3, 20)]
    [98286, 100386, 118236]
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, channels: int = 30,
        blocks: int = 2, omega_0: float = 30.0, dropout: float = 0.0,
        head: str = "last", horizon: int | None = None, norm: str = "step",
        kernel_net: Callable[[int], nn.Module] | None = None,
        method: str = "factorised",
    ):  # fmt: skip
        super().__init__()
        check_int(1, out_channels=out_channels, channels=channels, blocks=blocks)
        check_choice(("last", "all"), head=head)
        sizes = [in_channels, *[channels] * blocks]
        self.blocks = nn.ModuleList(
            CKBlock(
                *pair, omega_0=omega_0, horizon=horizon, dropout=dropout, norm=norm,
                kernel_net=kernel_net, method=method,
            )
            for pair in pairwise(sizes)
        )  # fmt: skip
        self.head = head
        self.linear = nn.Linear(channels, out_channels)

    def forward(self, x: Tensor, *, resolution: float = 1.0) -> Tensor:
        for block in self.blocks:
            x = block(x, resolution=resolution)
        return self._read(x)

    def _read(self, x: Tensor) -> Tensor:
        if self.head == "last":
            return self.linear(x[..., -1])
        return self.linear(x.mT).mT

    def initial_state(self, batch: int) -> tuple[BlockState, ...]:
        """The states of all blocks before the first sample."""
        return tuple(block.initial_state(batch) for block in self.blocks)

    def step(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple[BlockState, ...]]:
        """The output after the next chunk (b, c_in, n), n >= 1, and the state there."""
        after = []
        for block, before in zip(self.blocks, state, strict=True):
            x, now = block.step(x, before)
            after.append(now)
        return self._read(x), tuple(after)
