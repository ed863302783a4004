"""The products between the transforms: spectral_product.cu (chapter 3).

On a CPU these operators are torch's own products, so there are no rows; on a GPU they
show the kernels alone, beside the naive ones, and `causal_conv` without them.
"""

import contextlib

import torch

from benchmarks.timing import Case
from ckutils.cuda import spectral
from ckutils.fftconv import causal_conv

# signals, output and input channels, frequencies
SIZES = {
    "cpu": (),
    "cuda": ((32, 30, 30, 785), (32, 30, 30, 16001)),
    "quick": ((2, 3, 4, 5),),
}
UNITS = 33


def cases(device: str, *, quick: bool = False):
    for b, o, c, f in SIZES["quick" if quick else device]:
        x, k = drawn(b, c, f, device=device), drawn(o, c, f, device=device)
        yield Case(
            "spectral_product",
            f"({b}, {o}, {c}, {f})",
            "complex64",
            lambda x=x, k=k: spectral.spectral_product(x, k, False),
            dense_peers(x, k),
            flops=8 * b * o * c * f,
            bytes=8 * f * (b * c + o * c + b * o),
        )
        h, mix = drawn(UNITS, f, device=device), torch.randn(o, c, UNITS, device=device)
        yield Case(
            "factorised_spectral_product",
            f"({b}, {o}, {c}, {f}), {UNITS} units",
            "complex64",
            lambda g=(x, h, mix): spectral.factorised_spectral_product(*g, False),
            mixed_peers(x, h, mix),
            flops=8 * b * o * c * f + 4 * UNITS * o * c * f,
            bytes=8 * f * (b * c + b * o + UNITS) + 4 * o * c * UNITS,
        )
        if spectral.has_kernels(x):
            yield beside_torch(b, o, c, f - 1, device)


def drawn(*shape, device):
    return torch.randn(*shape, dtype=torch.complex64, device=device)


def broadcast(x, k):
    """The published product: (b, o, c, f) in memory, then its sum."""
    return (x.unsqueeze(1) * k.unsqueeze(0)).sum(2)


def dense_peers(x, k) -> dict:
    ways = {
        "broadcast product, sum": lambda: broadcast(x, k),
        "torch einsum": lambda: torch.einsum("bcf,ocf->bof", x, k),
    }
    if spectral.has_kernels(x):
        kernel = "spectral_product_naive"
        ways["naive kernel"] = lambda: spectral.launch_product(x, k, kernel=kernel)
    return ways


def mixed_peers(x, h, mix) -> dict:
    def formed(product):
        return lambda: product(x, spectral.mix_spectra(h, mix))

    ways = {
        "kernels formed, broadcast product": formed(broadcast),
        "kernels formed, torch einsum": formed(
            lambda x, k: torch.einsum("bcf,ocf->bof", x, k)
        ),
    }
    if spectral.has_kernels(x):
        kernel = "factorised_spectral_product_naive"
        ways["naive kernel"] = lambda: spectral.launch_mixed_product(
            x, h, mix, kernel=kernel
        )
    return ways


def beside_torch(b, o, c, t, device) -> Case:
    """`causal_conv` on a GPU, with its kernel and by matrix products in torch."""
    x = torch.randn(b, c, t, device=device)
    kernel = torch.randn(o, c, t, device=device) / t

    def in_torch():
        with without_kernels():
            return causal_conv(x, kernel, method="fft")

    return Case(
        "causal_conv by spectral_product.cu",
        f"({b}, {c}, {t})",
        "float32",
        lambda: causal_conv(x, kernel, method="fft"),
        {"a matrix product a frequency, torch": in_torch},
        flops=8 * b * o * c * (t + 1),
        bytes=4 * t * (b * c + b * o + o * c),
    )


@contextlib.contextmanager
def without_kernels():
    before, spectral.CUPY = spectral.CUPY, False
    try:
        yield
    finally:
        spectral.CUPY = before
