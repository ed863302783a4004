"""Draw the figure of the landing page: one kernel, learned from five sources.

Spoken digits pass a system (a resonance and its echo) and come out with some hiss.
Five models of the system's kernel, one a chapter, learn it from that one recording, by
the same loss and the same loop. `main` writes the numbers to book/_data/five_ways.json
and draws book/_static/five_ways.png from them, and for narrow screens
five_ways_narrow.png; tests/test_site.py does all of it again.
"""

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from ckutils.checks import check_int
from ckutils.ckn import exponential_kernel, nystrom_features
from ckutils.datasets import spoken_digits
from ckutils.fftconv import causal_conv
from ckutils.kernel_nets import Siren
from ckutils.kronecker import kronecker_kernel
from ckutils.plotting import COLOURS, WIDTH, use_style
from ckutils.recurrence import LinearRecurrentUnit

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "book" / "_data" / "five_ways.json"
STATIC = ROOT / "book" / "_static"
PICTURES = {5: STATIC / "five_ways.png", 2: STATIC / "five_ways_narrow.png"}
LAGS = 64


# The five sources: each a module that gives the kernel's values, (LAGS,) -----------


class FreeWeights(nn.Module):
    """Chapter 1: every value is a number of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(LAGS))

    def forward(self) -> Tensor:
        return self.weight


class Products(nn.Module):
    """Chapter 2: a sum of three products of two 8-tap kernels."""

    def __init__(self):
        super().__init__()
        self.small = nn.Parameter(torch.randn(3, 2, 8) / 2)

    def forward(self) -> Tensor:
        return sum(kronecker_kernel(list(pair)) for pair in self.small)


class Network(nn.Module):
    """Chapter 3: a SIREN, asked for lag after lag."""

    def __init__(self):
        super().__init__()
        self.net = Siren(1, 1, hidden_features=8, omega_0=12.0, weight_norm=False)

    def forward(self) -> Tensor:
        return self.net(torch.linspace(1, -1, LAGS)[:, None])[:, 0]


class Recurrence(nn.Module):
    """Chapter 4: the impulse response of a linear recurrence with four states."""

    def __init__(self):
        super().__init__()
        self.unit = LinearRecurrentUnit(1, 4, 1, r_min=0.8, r_max=0.99, max_phase=1.0)

    def forward(self) -> Tensor:
        return self.unit.kernel(LAGS)[0, 0]


class Anchors(nn.Module):
    """Chapter 5: a function in an RKHS, through its Nystrom features at 16 anchors."""

    def __init__(self):
        super().__init__()
        angle = math.pi * torch.linspace(0, 1, LAGS)
        circle = torch.stack([angle.cos(), angle.sin()], 1)  # a lag is a direction
        anchors = circle[:: LAGS // 16]
        kernel = lambda u: exponential_kernel(u, 100.0)  # noqa: E731
        features = nystrom_features(circle, anchors, kernel, 1e-6)
        self.register_buffer("features", features)  # (LAGS, 16)
        self.weight = nn.Parameter(torch.zeros(features.shape[1]))

    def forward(self) -> Tensor:
        return self.features @ self.weight


SOURCES = {
    "1  free weights": FreeWeights,
    "2  Kronecker products": Products,
    "3  a small network": Network,
    "4  a linear recurrence": Recurrence,
    "5  a kernel space": Anchors,
}


# Learning --------------------------------------------------------------------------


def truth() -> Tensor:
    """The system's kernel: a resonance that fades, and its fainter echo 32 lags on."""
    lag = torch.arange(LAGS)
    ring = torch.exp(-lag / 9) * torch.cos(0.55 * lag)
    return ring + 0.5 * nn.functional.pad(ring, (32, 0))[:LAGS]


def recording() -> tuple[Tensor, Tensor]:
    """Four spoken digits and what the system makes of them, hiss added; (1, 1, t)."""
    wave = torch.cat([one[:1024] for one in spoken_digits().waveforms[:4]])
    x = (wave / wave.std())[None, None]
    y = causal_conv(x, truth()[None, None])
    hiss = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return x, y + 0.1 * y.std() * hiss


def learn(source: nn.Module, steps: int = 800) -> Tensor:
    """The kernel that the source learns from the recording, (LAGS,)."""
    check_int(1, steps=steps)
    (x, y), adam = recording(), torch.optim.Adam(source.parameters(), lr=3e-2)
    cool = torch.optim.lr_scheduler.LambdaLR(adam, lambda done: 1 - done / steps)
    for _ in range(steps):
        loss = (causal_conv(x, source()[None, None]) - y).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        cool.step()
    return source().detach()


def learn_all() -> dict:
    """Every source's kernel, how many numbers it learned, and how far off it is."""
    want, found = truth(), {}
    for name, make in SOURCES.items():
        torch.manual_seed(0)
        source = make()
        kernel = learn(source)
        found[name] = {
            "kernel": [round(value, 3) for value in kernel.tolist()],
            "numbers": sum(
                p.numel() * (1 + p.is_complex()) for p in source.parameters()
            ),
            "error": round(float((kernel - want).norm() / want.norm()), 2),
        }
    return found


# Drawing ---------------------------------------------------------------------------


def draw(found: dict, columns: int = 5):
    """Five panels, the true kernel in grey in each; returns the figure."""
    use_style()
    rows = -(-len(found) // columns)
    size = (WIDTH if columns == 5 else WIDTH / 2, 2.1 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    colours = ("blue", "vermilion", "green", "purple", "black")
    for ax in axes.flat[len(found) :]:
        ax.remove()
    for ax, (name, one), colour in zip(axes.flat, found.items(), colours, strict=False):
        ax.fill_between(range(LAGS), truth(), step="mid", color="#c9c9c9", lw=0)
        ax.plot(one["kernel"], drawstyle="steps-mid", color=COLOURS[colour], lw=1.2)
        ax.set_title(name, fontsize=8)
        told = f"{one['numbers']} numbers, {100 * one['error']:.0f} % off"
        ax.set_xlabel(f"lag\n{told}", fontsize=7.5)
        ax.set_xticks([0, 32, 63])
    for ax in axes[:, 0]:
        ax.set_ylabel("kernel")
    return figure


def main() -> None:
    torch.set_num_threads(1)
    found = learn_all()
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()]
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for columns, picture in PICTURES.items():
        draw(found, columns).savefig(picture)
    for name, one in found.items():
        print(f"{name:24} {one['numbers']:4} numbers, error {one['error']}")


if __name__ == "__main__":
    main()
