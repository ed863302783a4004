"""CKConv, its kernel network included, forward and a training step (chapter 3)."""

import torch

from benchmarks.causal import published
from benchmarks.timing import Case
from ckutils.ckconv import CKConv

SIZES = {
    "cpu": (
        ((8, 30, 784), "3"),
        ((8, 30, 1000), "3"),
        ((4, 30, 4000), "2.5"),
        ((4, 30, 16000), "2.5"),
        ((8, 100, 784), "7.5"),
        ((2, 100, 4000), "4"),
    ),
    "cuda": (((32, 30, 784), ""), ((32, 30, 16000), "")),
    "quick": (((2, 3, 50), ""),),
}


def cases(device: str, *, quick: bool = False):
    for (b, c, t), goal in SIZES["quick" if quick else device]:
        torch.manual_seed(0)
        layer = CKConv(c, c).to(device)
        theirs = published_layer(layer)
        x = torch.randn(b, c, t, device=device)
        goal = f"at least {goal} times the published formulation" if goal else ""
        for operation, wrap in (("CKConv", forward), ("CKConv, training step", step)):
            yield Case(
                operation,
                f"({b}, {c}, {t})",
                "float32",
                wrap(layer, x),
                {"published formulation": wrap(theirs, x)},
                flops=2 * t * 33 * 32 + 2 * 33 * c * c * 2 * t + 8 * b * c * c * t,
                bytes=4 * 2 * b * c * t,
                goal=goal if wrap is forward else "",
            )


def published_layer(layer: CKConv):
    """The same layer with all its kernels formed in time."""

    def run(x):
        t = x.shape[-1]
        positions = torch.linspace(1, -1, t, device=x.device)[:, None]
        values = layer.kernel_net(positions)  # (t, c_out c_in)
        kernel = values.T.reshape(layer.out_channels, layer.in_channels, t)
        return published(x, kernel) + layer.bias[:, None]

    run.parameters = layer.parameters
    return run


def forward(layer, x):
    return torch.no_grad()(lambda: layer(x))


def step(layer, x):
    """Forward, backward, and the gradient of the first weight as the answer."""
    parameters = list(layer.parameters())

    @torch.enable_grad()
    def run():
        return torch.autograd.grad(layer(x).square().sum(), parameters)[0]

    return run
