"""causal_conv against libraries, apart from benchmarks/causal.py.

Libraries change the memory that a process holds, and with it the time of a formulation
that makes large tensors; so that one is measured without them.
"""

import torch

from benchmarks.causal import dense_cases, late
from benchmarks.peers import library
from ckutils.fftplan import fft_length


class _Everywhere(dict):
    """The same goal at every size."""

    def get(self, key, default=""):
        return "at least 4 times fft-conv-pytorch"


def cases(device: str, *, quick: bool = False):
    goals = _Everywhere() if device == "cpu" and not quick else {}
    yield from dense_cases(device, peers, quick=quick, goals=goals)


def peers(x, kernel) -> dict:
    shifted, taps, ways = late(x), kernel.flip(-1), {}
    if x.shape[-1] <= 1000:
        ways["torch conv1d"] = lambda: torch.nn.functional.conv1d(shifted, taps)
    if peer := library("fft_conv_pytorch"):
        ways["fft-conv-pytorch"] = lambda: peer.fft_conv(late(x), taps)
    if (jax := library("jax")) and not x.is_cuda:
        ways["jax fft, einsum"] = in_jax(jax, x, kernel)
    return ways


def in_jax(jax, x, kernel):
    n, t = fft_length(2 * x.shape[-1] - 1), x.shape[-1]
    numpy = jax.numpy

    @jax.jit
    def run(x, kernel):
        product = numpy.einsum(
            "bif,oif->bof", numpy.fft.rfft(x, n), numpy.fft.rfft(kernel, n)
        )
        return numpy.fft.irfft(product, n)[..., :t]

    x, kernel = numpy.asarray(x.numpy()), numpy.asarray(kernel.numpy())
    return lambda: torch.from_dlpack(run(x, kernel))
