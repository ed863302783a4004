"""linear_recurrence with coefficients of their own at every step (chapter 4)."""

import torch
from torch._higher_order_ops.associative_scan import associative_scan

from benchmarks.peers import library
from benchmarks.timing import Case
from ckutils.recurrence import linear_recurrence

SIZES = {
    "cpu": (((32, 16384), torch.float32), ((8, 64, 1024), torch.complex64)),
    "cuda": (
        ((64, 256, 1024), torch.complex64),
        ((8, 1536, 1024), torch.float32),
        ((8, 1536, 8192), torch.float32),
    ),
    "quick": (((2, 64), torch.float32),),
}
GOALS = {
    (64, 256, 1024): "at least 80 % of copy bandwidth",
    (8, 1536, 1024): "not slower than accelerated-scan",
    (8, 1536, 8192): "not slower than accelerated-scan",
}


def cases(device: str, *, quick: bool = False):
    for shape, dtype in SIZES["quick" if quick else device]:
        a = (0.4 + 0.6 * torch.rand(shape, device=device)).to(dtype)
        b = torch.randn(shape, dtype=dtype, device=device)
        yield Case(
            "linear_recurrence",
            str(shape),
            str(dtype).removeprefix("torch."),
            lambda a=a, b=b: linear_recurrence(a, b),
            peers(a, b),
            flops=(8 if dtype.is_complex else 2) * a.numel(),
            bytes=3 * a.numel() * a.element_size(),
            goal=GOALS.get(shape, ""),
        )


def peers(a, b) -> dict:
    ways = {
        "a loop over time": lambda: linear_recurrence(a, b, method="loop"),
        "torch associative_scan": lambda: torch_scan(a, b),
    }
    if a.is_cuda:
        ways["ckutils, torch alone"] = lambda: linear_recurrence(a, b, method="scan")
        if (peer := library("accelerated_scan.warp")) and not a.is_complex():
            ways["accelerated-scan"] = lambda: peer.scan(a, b)
    elif jax := library("jax"):
        ways["jax associative_scan"] = jax_scan(jax, a, b)
    return ways


def compose(left, right):
    """First left, then right: the maps h -> a h + b form a monoid."""
    return left[0] * right[0], left[1] * right[0] + right[1]


def torch_scan(a, b):
    mode = "pointwise" if a.is_cuda and not a.is_complex() else "generic"
    return associative_scan(compose, (a, b), a.ndim - 1, combine_mode=mode)[1]


def jax_scan(jax, a, b):
    run = jax.jit(lambda a, b: jax.lax.associative_scan(compose, (a, b), axis=-1)[1])
    a, b = (jax.numpy.asarray(v.numpy()) for v in (a, b))
    return lambda: torch.from_dlpack(run(a, b))
