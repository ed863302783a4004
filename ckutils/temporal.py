"""Causal convolution in time: whole signals, and the same signal chunk by chunk.

`ckutils.blocks` offers these names too. Signals are (b, c, t), time last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ckutils.block_rows import check_levels
from ckutils.checks import check_choice, check_int, check_number


class StreamState(NamedTuple):
    """What a causal convolution remembers between two chunks.

    buffer: (b, c_in, n), the inputs that coming outputs still need, oldest first.
    skip: how many coming inputs no output needs (a stride beyond the kernel's span).
    """

    buffer: Tensor
    skip: int


class CausalConv1d(nn.Conv1d):
    """y[j] = bias + sum_i weight[i] x[s j - d (k - 1 - i)], x being 0 before its start.

    Chapter 1, eq. (1.52). weight[k - 1] multiplies the present sample, as in torch;
    output j belongs to time s j, so t inputs give ceil(t / s) outputs.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias: as for
            nn.Conv1d, ints.
    Input (b, c_in, t), output (b, c_out, ceil(t / s)). Raises ValueError for a count
        below 1 or channels that `groups` does not divide.

    >>> CausalConv1d(2, 3, 5, stride=2, dilation=4)(torch.zeros(1, 2, 7)).shape
    torch.Size([1, 3, 4])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *,
        stride: int = 1, dilation: int = 1, groups: int = 1, bias: bool = True,
    ):  # fmt: skip
        check_int(
            1, in_channels=in_channels, out_channels=out_channels,
            kernel_size=kernel_size, stride=stride, dilation=dilation, groups=groups,
        )  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, dilation=dilation,
            groups=groups, bias=bias,
        )  # fmt: skip
        self.reach = dilation * (kernel_size - 1)  # steps into the past

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (self.reach, 0)))

    def initial_state(self, batch: int) -> StreamState:
        """The state before the first sample: `reach` zeros, nothing to skip."""
        check_int(1, batch=batch)
        zeros = self.weight.new_zeros(batch, self.in_channels, self.reach)
        return StreamState(zeros, 0)

    def step(self, x: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
        """The outputs that a chunk completes, and the state after it.

        Concatenated over any cut into chunks they are forward() of the whole signal,
        up to rounding (a library may sum another length in another order).

        Args:
            x: the next chunk (b, c_in, n), n >= 0.
            state: from `initial_state` or the step before; not changed.
        Returns (b, c_out, m), m >= 0, and the new state.
        """
        _check_chunk(x, state.buffer)
        # buffer[0] is the first input of the next output, unless inputs are to skip
        buffer = torch.cat([state.buffer, x[..., state.skip :]], dim=-1)
        skip = max(0, state.skip - x.shape[-1])
        (stride,) = self.stride
        count = max(0, (buffer.shape[-1] - self.reach - 1) // stride + 1)
        if count == 0:  # torch refuses a convolution without outputs
            empty = x.new_zeros(x.shape[0], self.out_channels, 0)
            return empty, StreamState(buffer, skip)
        used = count * stride
        skip += max(0, used - buffer.shape[-1])
        return super().forward(buffer), StreamState(buffer[..., used:], skip)


def _check_chunk(x: Tensor, buffer: Tensor) -> None:
    if x.ndim != 3 or x.shape[:2] != buffer.shape[:2]:
        raise ValueError(
            f"x must be (b, c, n) with (b, c) = {tuple(buffer.shape[:2])} as in the "
            f"state, got {tuple(x.shape)}"
        )


class StepNorm(nn.LayerNorm):
    """Normalise the channels of each time step by themselves; sees no other step.

    Chapter 1, eq. (1.54). (b, c, t) -> (b, c, t), a scale and a shift a channel.

    >>> StepNorm(2)(torch.tensor([[[1., 5.], [3., 1.]]])).round()
    tensor([[[-1.,  1.],
             [ 1., -1.]]], grad_fn=<RoundBackward0>)
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


NORMS = {
    "none": lambda channels: nn.Identity(),
    "step": StepNorm,  # over the channels of one step
    "batch": nn.BatchNorm1d,  # over batch and time; in evaluation a fixed scale
    "group": lambda channels: nn.GroupNorm(1, channels),  # over channels and time
}

POINTWISE = nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.Identity


class CausalSequential(nn.Sequential):
    """Modules in a chain that can also run chunk by chunk.

    Chapter 1, eq. (1.55). A member streams if it has `initial_state` and `step`
    (CausalConv1d, TemporalBlock, TCN, a chain of these) or treats every step by itself
    (activations, dropout, StepNorm, batch normalisation in evaluation mode, a module
    of your own that says so with an attribute `pointwise = True`).

    >>> net = CausalSequential(CausalConv1d(1, 1, 2, stride=2), nn.ReLU())
    >>> y, state = net.step(torch.zeros(1, 1, 3), net.initial_state(1))
    >>> y.shape, net.step(torch.zeros(1, 1, 1), state)[0].shape
    (torch.Size([1, 1, 2]), torch.Size([1, 1, 0]))
    """

    def initial_state(self, batch: int) -> tuple:
        """The states of all members before the first sample; None for pointwise ones.

        Raises ValueError for a member that mixes time steps without carrying a state.
        """
        for member in self:
            _check_streams(member)
        return tuple(
            member.initial_state(batch) if hasattr(member, "step") else None
            for member in self
        )

    def step(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """The outputs that the chunk x (b, c, n) completes, and the states after it."""
        after = []
        for member, before in zip(self, state, strict=True):
            if before is None:
                _check_streams(member)  # batch norm may have been put to training
                x, now = member(x), None
            else:
                x, now = member.step(x, before)
            after.append(now)
        return x, tuple(after)


def _check_streams(member: nn.Module) -> None:
    fixed = isinstance(member, nn.BatchNorm1d) and not member.training
    alone = isinstance(member, (*POINTWISE, StepNorm))
    alone = alone or getattr(member, "pointwise", False)
    if not (fixed or alone or hasattr(member, "step")):
        raise ValueError(
            f"{type(member).__name__} cannot stream: it mixes time steps"
            + (" in training mode" if isinstance(member, nn.BatchNorm1d) else "")
        )


class TemporalBlock(nn.Module):
    """y = relu(F(x) + x), F = (causal convolution, norm, relu, dropout) twice.

    Chapter 1, eq. (1.53). x passes a 1x1 convolution if the channels differ. Source:
    S. Bai, J. Z. Kolter, V. Koltun, arXiv:1803.01271, figure 1; there the
    convolutions carry weight normalisation, another parametrisation of these layers.

    Args:
        in_channels, out_channels, kernel_size, dilation: ints >= 1.
        dropout: probability in [0, 1] of each value to become 0, in training.
        norm: "none", "step", "batch" or "group"; "group" reads the future, and so does
            "batch" in training.
    Input (b, in_channels, t), output (b, out_channels, t). Raises ValueError for a
        count below 1, a probability outside [0, 1], an unknown norm.

    >>> TemporalBlock(2, 3)(torch.zeros(1, 2, 7)).shape
    torch.Size([1, 3, 7])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 2,
        dilation: int = 1, dropout: float = 0.2, *, norm: str = "none",
    ):  # fmt: skip
        super().__init__()
        check_number(0, 1, dropout=dropout)
        check_choice(NORMS, norm=norm)
        self.main = CausalSequential()
        for fed in (in_channels, out_channels):
            self.main.extend([
                CausalConv1d(fed, out_channels, kernel_size, dilation=dilation),
                NORMS[norm](out_channels), nn.ReLU(), nn.Dropout(dropout),
            ])  # fmt: skip
        same = in_channels == out_channels
        self.shortcut = CausalSequential(
            nn.Identity() if same else CausalConv1d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.main(x) + self.shortcut(x))

    def initial_state(self, batch: int) -> tuple:
        """The states of both paths; ValueError if the normalisation cannot stream."""
        return self.main.initial_state(batch), self.shortcut.initial_state(batch)

    def step(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """The outputs of the chunk x (b, c, n), and the states after it."""
        main, after_main = self.main.step(x, state[0])
        shortcut, after_shortcut = self.shortcut.step(x, state[1])
        return functional.relu(main + shortcut), (after_main, after_shortcut)


class TCN(CausalSequential):
    """Temporal blocks with dilations 1, 2, 4, ..., then a 1x1 convolution.

    Chapter 1, eq. (1.53). Output t depends on inputs t - reach, ..., t with
    reach = 2 (kernel_size - 1) (2^levels - 1), eq. (1.34), given a causal norm.

    Args:
        in_channels: channels of the signal.
        channels: one width a level; the level i has dilation 2^i.
        out_channels: of the last 1x1 convolution.
        kernel_size, dropout, norm: of every block.
    Input (b, in_channels, t), output (b, out_channels, t). Raises ValueError if
        `channels` is empty or as TemporalBlock does.

    >>> model = TCN(3, [8, 8, 8], 10)
    >>> model(torch.zeros(2, 3, 50)).shape, model.reach
    (torch.Size([2, 10, 50]), 14)
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], out_channels: int,
        kernel_size: int = 2, dropout: float = 0.2, *, norm: str = "none",
    ):  # fmt: skip
        check_levels(channels)
        widths = [in_channels, *channels]
        super().__init__(
            *(
                TemporalBlock(fed, width, kernel_size, 2**level, dropout, norm=norm)
                for level, (fed, width) in enumerate(
                    zip(widths, channels, strict=False)
                )
            ),
            CausalConv1d(widths[-1], out_channels, 1),
        )
        self.reach = 2 * (kernel_size - 1) * (2 ** len(channels) - 1)
