"""causal_conv: kernels as long as the signal, as in a CKConv layer (chapter 3)."""

import math

import torch

from benchmarks.peers import library
from benchmarks.timing import Case
from ckutils.fftconv import causal_conv, causal_conv_depthwise
from ckutils.fftplan import fft_length

SIZES = {
    "cpu": ((8, 30, 784), (8, 30, 1000), (4, 30, 4000), (4, 30, 16000)),
    "cuda": ((32, 30, 784), (32, 30, 4000), (32, 30, 16000)),
    "quick": ((2, 3, 50),),
}
DEPTHWISE = {
    "cpu": ((4, 64, 4096),),
    "cuda": ((16, 768, 4096), (16, 768, 16384)),
    "quick": ((2, 3, 50),),
}
GOALS = {
    (8, 30, 784): "at least 6 times the published formulation",
    (8, 30, 1000): "at least 6 times the published formulation",
    (4, 30, 4000): "at least 2.7 times the published formulation",
    (4, 30, 16000): "at least 1.7 times the published formulation",
    (32, 30, 16000): "at least 4 times the published formulation",
}


def cases(device: str, *, quick: bool = False):
    yield from dense_cases(device, peers, quick=quick)
    for b, c, t in DEPTHWISE["quick" if quick else device]:
        x = torch.randn(b, c, t, device=device)
        kernel = torch.randn(c, t, device=device) / t
        n = fft_length(2 * t - 1)
        yield Case(
            "causal_conv_depthwise",
            f"({b}, {c}, {t})",
            "float32",
            lambda x=x, kernel=kernel: causal_conv_depthwise(x, kernel),
            depthwise_peers(x, kernel),
            flops=(c + 2 * b * c) * 2.5 * n * math.log2(n) + 8 * b * c * (n // 2 + 1),
            bytes=4 * t * (2 * b * c + c),
        )


def dense_cases(device: str, peers, *, quick: bool = False, goals=GOALS):
    """causal_conv at every size, against what `peers(x, kernel)` returns."""
    for b, c, t in SIZES["quick" if quick else device]:
        x = torch.randn(b, c, t, device=device)
        kernel = torch.randn(c, c, t, device=device) / t
        n = fft_length(2 * t - 1)
        transforms = (c * c + 2 * b * c) * 2.5 * n * math.log2(n)
        yield Case(
            "causal_conv",
            f"({b}, {c}, {t})",
            "float32",
            lambda x=x, kernel=kernel: causal_conv(x, kernel),
            peers(x, kernel),
            flops=transforms + 8 * b * c * c * (n // 2 + 1),
            bytes=4 * t * (2 * b * c + c * c),
            goal=goals.get((b, c, t), ""),
        )


def published(x, kernel):
    """Zeros to twice the length, every spectrum, a broadcast product, its sum.

    The released code's product (b, c_out, c_in, f); its inverse transform lacks the
    length, which is given here, so that the comparison is one of speed alone.
    """
    n = 2 * x.shape[-1]
    product = torch.fft.rfft(x, n).unsqueeze(1) * torch.fft.rfft(kernel, n).unsqueeze(0)
    return torch.fft.irfft(product.sum(dim=2), n)[..., : x.shape[-1]]


def peers(x, kernel) -> dict:
    return {"published formulation": lambda: published(x, kernel)}


def late(x):
    """x behind as many zeros as the kernel's past needs."""
    return torch.nn.functional.pad(x, (x.shape[-1] - 1, 0))


def depthwise_peers(x, kernel) -> dict:
    n, t = 2 * x.shape[-1], x.shape[-1]

    def in_torch():
        y_hat = torch.fft.rfft(x, n) * torch.fft.rfft(kernel, n)
        return torch.fft.irfft(y_hat, n)[..., :t]

    ways = {"torch.fft, twice the length": in_torch}
    if x.is_cuda and (flash := library("flashfftconv")):
        module = flash.FlashFFTConv(n, dtype=torch.float16).to(x.device)
        half = x.half()  # agrees to half precision only, so the tolerance refuses it
        ways["FlashFFTConv, half precision"] = lambda: module(half, kernel).float()
    if (signal := library("scipy.signal")) and not x.is_cuda:
        a, b = x.numpy(), kernel.numpy()[None]
        ways["scipy fftconvolve"] = lambda: signal.fftconvolve(a, b, axes=-1)[..., :t]
    return ways
