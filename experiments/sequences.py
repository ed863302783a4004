"""Rivals on sequences (b, c, t) of about equal size, and the two tests of memory."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckutils.blocks import TCN, StepNorm
from ckutils.ckconv import CKCNN
from ckutils.kernel_nets import Siren
from ckutils.recurrence import LinearRecurrentUnit

# Data ------------------------------------------------------------------------------


def copy_memory(count: int, wait: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ten symbols of eight, `wait` empty steps, a request: one-hot in, classes out.

    Chapter 3, section 3.14. Returns x (count, 10, wait + 20), y (count, wait + 20).
    """
    draw = torch.Generator().manual_seed(seed)
    symbols = torch.randint(1, 9, (count, 10), generator=draw)
    x = torch.zeros(count, wait + 20, dtype=torch.long)
    y = torch.zeros_like(x)
    x[:, :10], x[:, wait + 9], y[:, -10:] = symbols, 9, symbols
    return F.one_hot(x, 10).float().mT.contiguous(), y


def adding(count: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers in [0, 1) and two marks, one in each half; the answer is their sum.

    Chapter 3, section 3.14. Returns x (count, 2, length), y (count, 1).
    """
    draw = torch.Generator().manual_seed(seed)
    x, rows = torch.rand(count, 2, length, generator=draw), torch.arange(count)
    x[:, 1] = 0
    first = torch.randint(0, length // 2, (count,), generator=draw)
    second = torch.randint(length // 2, length, (count,), generator=draw)
    x[rows, 1, first] = x[rows, 1, second] = 1
    return x, (x[:, 0] * x[:, 1]).sum(1, keepdim=True)


def recalled(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 100) -> float:
    """The fraction of the ten symbols that come back."""
    right = [
        (model(part)[..., -10:].argmax(1) == wanted[:, -10:]).double().mean(1)
        for part, wanted in zip(x.split(batch_size), y.split(batch_size), strict=True)
    ]
    return float(torch.cat(right).mean())


def squared_error(
    model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 100
) -> float:
    errors = [
        (model(part) - wanted).double().square()
        for part, wanted in zip(x.split(batch_size), y.split(batch_size), strict=True)
    ]
    return float(torch.cat(errors).mean())


# Rivals ----------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A GRU with a linear head on its last step, or on every step."""

    def __init__(self, c_in: int, c_out: int, size: int, head: str):
        super().__init__()
        self.gru = nn.GRU(c_in, size, batch_first=True)
        self.scores, self.head = nn.Linear(size, c_out), head

    def forward(self, x: Tensor) -> Tensor:
        return _read(self.gru(x.mT)[0].mT, self.scores, self.head)


class Convolved(nn.Module):
    """A TCN, read at its last step or at every step."""

    def __init__(self, c_in: int, c_out: int, size: int, head: str, levels: int):
        super().__init__()
        self.tcn, self.head = TCN(c_in, [size] * levels, c_out, 7, 0.0), head

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn(x)
        return y[..., -1] if self.head == "last" else y


class LinearRecurrent(nn.Module):
    """Two residual blocks of norm, linear recurrent unit and gelu; a linear head.

    Chapter 4, section 4.6. The moduli start between 1 - 1/reach and 1 - 0.01/reach.
    """

    def __init__(self, c_in: int, c_out: int, size: int, head: str, reach: int):
        super().__init__()
        self.lift = nn.Conv1d(c_in, size, 1)
        ring = {"r_min": 1 - 1 / reach, "r_max": 1 - 0.01 / reach}
        self.blocks = nn.ModuleList(
            nn.Sequential(
                StepNorm(size), LinearRecurrentUnit(size, 2 * size, size, **ring),
                nn.GELU(), nn.Conv1d(size, size, 1),
            )
            for _ in range(2)
        )  # fmt: skip
        self.scores, self.head = nn.Linear(size, c_out), head

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for block in self.blocks:
            x = x + block(x)
        return _read(x, self.scores, self.head)


def _read(x: Tensor, scores: nn.Linear, head: str) -> Tensor:
    return scores(x[..., -1]) if head == "last" else scores(x.mT).mT


def siren_start(init: str, omega_0: float):
    """`kernel_net` of a CKBlock: the number of kernels -> a Siren with that start."""
    return lambda kernels: Siren(1, kernels, omega_0=omega_0, init=init)


def ckcnn(c_in, c_out, size, head, omega_0, init="siren", **options) -> CKCNN:
    net = siren_start(init, omega_0)
    return CKCNN(c_in, c_out, channels=size, head=head, kernel_net=net, **options)
