"""Which way a long convolution should go: FFT lengths, blocks, and what each costs.

Integers and prices only, no tensors.
"""

import math
from functools import cache

from ckutils.checks import check_int

# Nanoseconds on one core of a 2024 x86 server, float32: only their ratios matter, and
# float64 multiplies them alike. Fitted to the timings that `benchmarks/auto.py`
# takes, which prints how far the rule stays from the best method.
_COST = {
    "fft_call": 6.0e4,  # an FFT convolution, whatever its size
    "add_call": 1.0e4,  # more, in blocks
    "transform": 0.16,  # a sample and a doubling of the FFT's length
    "beyond_cache": 0.88,  # a sample of an FFT longer than 2^14
    "memory": 1.8,  # a sample, where more than 2^22 of them are held at once
    "product": 0.10,  # a complex product and sum
    "add": 0.52,  # a sample overlapped and added
    "direct_call": 1.8e4,  # oneDNN, which torch takes for batches and large inputs
    "direct": 0.0075,  # a real product and sum there, of 16 output channels at a time,
    "direct_long": 0.019,  # with more than 640 taps an output,
    "direct_pair": 0.020,  # and a sample of a pair of channels
    "columns_call": 8.6e3,  # else it copies the input k times and multiplies matrices
    "column": 0.12,  # a number copied in the cache,
    "column_fresh": 0.25,  # in pages that may be fresh, from 2^17 numbers on,
    "column_beyond": 1.8,  # and one beyond the cache, about 2^21 numbers
    "column_product": 0.0125,
    "depthwise_call": 1.2e5,  # oneDNN with a group a channel, again 16 at a time
    "depthwise": 0.023,
    "depthwise_sample": 0.3,
}


@cache
def fft_length(least: int) -> int:
    """The smallest even n >= least whose prime factors are 2, 3, 5 and 7.

    Chapter 3, eq. (3.18). FFT libraries are fast at these, and `irfft` is right without
    a second thought at even ones.

    >>> fft_length(1567), fft_length(11), fft_length(1)
    (1568, 12, 2)
    """
    check_int(1, least=least)
    n = least + least % 2
    while not _is_smooth(n):
        n += 2
    return n


def _is_smooth(n: int) -> bool:
    for prime in (2, 3, 5, 7):
        while n % prime == 0:
            n //= prime
    return n == 1


@cache
def plan(b, c_in, c_out, t, k, method, single=True, depthwise=False) -> int | None:
    """How many samples an FFT takes at a time: t for "fft", None for a direct sum.

    Chapter 3, Section 3.11. Sizes as in `fftconv.causal_conv`; `single` is float32.
    """
    if method in ("direct", "fft"):
        return {"direct": None, "fft": t}[method]
    blocks = {
        block: _fft_cost(b, c_in, c_out, t, k, block, depthwise)
        for block in _block_lengths(t, k)
    }
    if method == "overlap_add" and len(blocks) > 1:
        del blocks[t]
    best = min(blocks, key=blocks.get)
    if depthwise:
        each = _COST["depthwise"] * k + _COST["depthwise_sample"]
        direct = _COST["depthwise_call"] + each * b * max(c_in, 16) * t
    else:
        direct = _direct_cost(b, c_in, c_out, t, k, single)
    return None if method == "auto" and direct < blocks[best] else best


def _block_lengths(t: int, k: int) -> list[int]:
    """Block lengths worth a look: those that fill an FFT of 2^m or 3 2^m, and t."""
    lengths = (m << e for e in range(5, 40) for m in (2, 3))
    return [n - k + 1 for n in lengths if 2 * k <= n < t + k - 1] + [t]


def _fft_cost(b, c_in, c_out, t, k, block, depthwise) -> float:
    """Nanoseconds of an FFT convolution in blocks, by the table above."""
    n, rows, pairs = fft_length(block + k - 1), b * -(-t // block), c_in * c_out
    late = c_in if depthwise else c_out
    samples = (pairs + rows * (c_in + late)) * n
    cost = _COST["fft_call"] + _COST["transform"] * samples * math.log2(n)
    cost += _COST["product"] * pairs * rows * n / 2
    if n > 1 << 14:
        cost += _COST["beyond_cache"] * samples
    if samples > 1 << 22:
        cost += _COST["memory"] * samples
    if block < t:
        cost += _COST["add_call"] + _COST["add"] * rows * late * n * (1 + depthwise)
    return cost


def _direct_cost(b, c_in, c_out, t, k, single) -> float:
    """Nanoseconds of torch's convolution, by the rule with which it picks its code."""
    if single and (b > 1 or c_in * (t + k - 1) > 20480):
        each = _COST["direct" if c_in * k <= 640 else "direct_long"] * k
        each += _COST["direct_pair"]
        return _COST["direct_call"] + each * b * c_in * max(c_out, 16) * t
    columns = b * c_in * t * k
    each = _COST["column_product"] * c_out
    if columns <= 1 << 17:
        each += _COST["column"]
    else:
        each += _COST["column_fresh" if columns <= 1 << 21 else "column_beyond"]
    return _COST["columns_call"] + each * columns
