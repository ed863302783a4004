"""Convolutions and layers of chapter 3 against the formulation that was published.

    python benchmarks/ckconv.py [--threads 2] [--rounds 9]

Prints how many times faster ours is, in one run, the two called in turn: the ratio of
medians, and the smallest and largest ratio of neighbouring calls. `fft-conv-pytorch` is
a row of its own where it is installed.
"""

import argparse
import importlib.util
import statistics
import time

import torch

from ckutils.ckconv import CKConv
from ckutils.fftconv import causal_conv

CONVOLUTIONS = ((8, 30, 784), (8, 30, 1000), (4, 30, 4000), (4, 30, 16000))
LAYERS = (*CONVOLUTIONS, (8, 100, 784), (2, 100, 4000))


def published(x, kernel):
    """Zeros to twice the length, every spectrum, a broadcast product, its sum.

    The released code's product (b, c_out, c_in, f); its inverse transform lacks the
    length, which is given here, so that the comparison is one of speed alone.
    """
    n = 2 * x.shape[-1]
    product = torch.fft.rfft(x, n).unsqueeze(1) * torch.fft.rfft(kernel, n).unsqueeze(0)
    return torch.fft.irfft(product.sum(dim=2), n)[..., : x.shape[-1]]


def published_layer(layer: CKConv):
    """The same layer with all its kernels formed in time."""

    def forward(x):
        t = x.shape[-1]
        values = layer.kernel_net(torch.linspace(1, -1, t)[:, None])  # (t, c_out c_in)
        kernel = values.T.reshape(layer.out_channels, layer.in_channels, t)
        return published(x, kernel) + layer.bias[:, None]

    return forward


def installed_peer():
    """fft_conv of fft-conv-pytorch as a causal convolution, or None."""
    if importlib.util.find_spec("fft_conv_pytorch") is None:
        return None
    from fft_conv_pytorch import fft_conv

    return lambda x, kernel: fft_conv(
        torch.nn.functional.pad(x, (kernel.shape[-1] - 1, 0)), kernel.flip(-1)
    )


def compare(name: str, theirs, ours, rounds: int) -> None:
    """Time two functions in turn; print the ratio of medians and the extremes."""
    theirs(), ours()
    pairs = []
    for _ in range(rounds):
        times = []
        for function in (theirs, ours):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        pairs.append(times)
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    print(
        f"{name}: {slow / fast:.1f} times faster ({slow * 1e3:.1f} / {fast * 1e3:.1f} "
        f"ms; {ratios[0]:.1f} to {ratios[-1]:.1f})",
        flush=True,
    )


def check(name: str, got, want) -> None:
    error = float((got - want).abs().max() / want.abs().max())
    if not error < 1e-5:
        raise AssertionError(f"{name}: results differ by {error:.1e}")


def step(function, layer, x):
    def run():
        layer.zero_grad()
        function(x).square().mean().backward()

    return run


@torch.no_grad()
def compare_convolutions(x, kernel, rounds: int) -> None:
    peers = {"published": published, "fft-conv-pytorch": installed_peer()}
    for peer, theirs in peers.items():
        name = f"causal_conv {tuple(x.shape)}, {peer}"
        if theirs is None:
            print(f"{name}: not installed")
            continue
        check(name, causal_conv(x, kernel), theirs(x, kernel))
        pair = (lambda f=theirs: f(x, kernel)), (lambda: causal_conv(x, kernel))
        compare(name, *pair, rounds)


def compare_layers(x, layer: CKConv, rounds: int) -> None:
    name, theirs = f"CKConv {tuple(x.shape)}", published_layer(layer)
    with torch.no_grad():
        check(name, layer(x), theirs(x))
        compare(name, lambda: theirs(x), lambda: layer(x), rounds)
        layer.eval()
        compare(f"{name}, spectrum kept", lambda: theirs(x), lambda: layer(x), rounds)
    layer.train()
    steps = step(theirs, layer, x), step(layer, layer, x)
    compare(f"{name}, a training step", *steps, max(3, rounds // 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} threads; sizes (b, c, t)")
    for b, c, t in CONVOLUTIONS:
        x, kernel = torch.randn(b, c, t), torch.randn(c, c, t)
        compare_convolutions(x, kernel, options.rounds)
    for b, c, t in LAYERS:
        compare_layers(torch.randn(b, c, t), CKConv(c, c), options.rounds)


if __name__ == "__main__":
    main()
