"""Chapter 3, kernels that a network computes: six checks and what they expect."""

import math
from collections.abc import Callable

import torch

from ckutils.exercises.chapter1 import SUM, _normal, _row
from ckutils.exercises.engine import Case, verify

# 3.1 -----------------------------------------------------------------------------


def check_new_rate(f: Callable) -> None:
    """f(horizon, rate, new_rate) -> (lags, factor) of a kernel at another rate.

    Chapter 3, exercise 3.1, 5 minutes. A layer was trained at `rate` samples a second
    with `horizon` lags, 0 to horizon - 1. At `new_rate` its kernel has `lags` lags that
    reach no further back in seconds (an int), and its sum is multiplied by `factor`,
    eq. (3.33), a float.
    """
    cases = (
        Case((51, 100, 100), (51, 1.0), "The same rate changes nothing.", 1e-12),
        Case((51, 100, 250), (126, 0.4), "50 steps of 10 ms are 125 of 4 ms.", 1e-12),
        Case((51, 100, 50), (26, 2.0), "Fewer terms, each with a longer step.", 1e-12),
        Case((52, 100, 50), (26, 2.0), "25.5 steps: the half one lies beyond.", 1e-12),
        Case((1, 8000, 16000), (1, 0.5), "Lag 0 alone stays alone.", 1e-12),
        Case((8, 10, 3), (3, 10 / 3), "7 steps of 1/10 s are 2.1 of 1/3 s.", 1e-12),
    )
    verify("3.1", f, "horizon rate new_rate", cases)


# 3.2 -----------------------------------------------------------------------------


def _overlaps(n: int, signal: int, taps: int) -> int:
    """Outputs below `signal` onto which some product wraps, counted."""
    wrapped = {
        (t + j) % n for t in range(signal) for j in range(taps) if t + j >= n
    }  # fmt: skip
    return sum(place < signal for place in wrapped)


def check_wrapped_outputs(f: Callable) -> None:
    """f(n, signal, taps) -> how many causal outputs a short FFT spoils.

    Chapter 3, exercise 3.2, 10 minutes. A signal and a kernel of that many entries are
    multiplied as spectra of length n, with n at least as large as both. How many of the
    first `signal` outputs differ from the causal convolution (3.5)?
    """
    rows = (
        (5, 3, 3, "n = L + K - 1, eq. (3.17): nothing wraps."),
        (4, 3, 3, "The full convolution has 5 entries; one of them wraps."),
        (1000, 1000, 300, "1299 entries on 1000 places."),
        (2048, 1000, 300, "Longer than needed is not better than right."),
        (100, 64, 100, "The kernel may be longer than the signal."),
    )
    cases = [Case(row[:3], _overlaps(*row[:3]), row[3]) for row in rows]
    verify("3.2", f, "n signal taps", cases)


# 3.3 -----------------------------------------------------------------------------


def _causal(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Eq. (3.5) for one channel, letter by letter."""
    y = torch.zeros_like(x)
    for t in range(len(x)):
        for j in range(min(t, len(kernel) - 1) + 1):
            y[t] += kernel[j] * x[t - j]
    return y


def check_causal_fft(f: Callable) -> None:
    """f(x, kernel) -> the causal convolution of x (t,) with kernel (k,), by FFT.

    Chapter 3, exercise 3.3, 20 minutes. float64 tensors of any two lengths; the result
    is (t,). kernel[0] weighs the present sample.
    """
    rows = (
        (4, 1, "One tap is a factor."),
        (4, 2, "Too short a transform wraps the end onto the beginning."),
        (3, 3, "n = 5 is odd: irfft has to be told n."),
        (8, 2, "n = 9 is odd: irfft has to be told n."),
        (3, 7, "A kernel longer than the signal: the rest of it meets nothing yet."),
        (1, 1, "One sample, one tap."),
        (97, 31, "Lengths need not be powers of two."),
    )
    hint = "By hand in 3.8; n = 5 is odd, and irfft has to be told."
    cases = [Case((_row(1, 0, 2), _row(3, 2, 1)), _row(3, 2, 7), hint, SUM)]
    for t, k, hint in rows:
        x, kernel = _normal(t, seed=t), _normal(k, seed=100 + k)
        cases.append(Case((x, kernel), _causal(x, kernel), hint, SUM))
    verify("3.3", f, "x kernel", cases)


# 3.4 -----------------------------------------------------------------------------


def _weight_norm_gradient(v, g, gradient) -> tuple:
    v, g = v.clone().requires_grad_(), g.clone().requires_grad_()
    weight = g * v / v.norm(dim=1, keepdim=True)
    return torch.autograd.grad(weight, (v, g), gradient)


def check_weight_norm_gradient(f: Callable) -> None:
    """f(v, g, gradient) -> gradients in v and g of the normalised weight (3.12).

    Chapter 3, exercise 3.4, 20 minutes. Row by row w = g v / |v|, with v (rows, n) and
    g (rows, 1); `gradient` (rows, n) is the one in w. float64, without autograd.
    """
    v, g, along = _row(3, 4)[None], _row(10)[None], _row(6, 8)[None]
    cases = [
        Case(
            (v, g, along),
            (_row(0, 0)[None], _row(10)[None]),
            "Along v only the length changes: nothing is left for v.",
            SUM,
        ),
        Case(
            (v, g, _row(-4, 3)[None]),
            (_row(-8, 6)[None], _row(0)[None]),
            "Across v only the direction changes, g / |v| times as fast.",
            SUM,
        ),
    ]
    args = (_normal(3, 5), _normal(3, 1, seed=1), _normal(3, 5, seed=2))
    hint = "Each row has its own length, and its own part across v."
    cases.append(Case(args, _weight_norm_gradient(*args), hint, SUM))
    verify("3.4", f, "v g gradient", cases)


# 3.5 -----------------------------------------------------------------------------


def _decay(lags: torch.Tensor) -> torch.Tensor:
    """psi(lag) = exp(-lag)"""
    return torch.exp(-lags)[..., None, None]


def _root(lags: torch.Tensor) -> torch.Tensor:
    """psi(lag) = sqrt(lag)"""
    return torch.sqrt(lags)[..., None, None]


def _mixed(lags: torch.Tensor) -> torch.Tensor:
    """psi(lag)[o, i] = cos((2 o + i + 1) lag), o < 3, i < 2"""
    rates = torch.arange(1.0, 7).reshape(3, 2).to(lags)
    return torch.cos(rates * lags[..., None, None])


def _irregular(times, values, queries, weights, kernel) -> torch.Tensor:
    """Eq. (3.29), letter by letter."""
    columns = []
    for q in queries:
        y = torch.zeros(kernel(times[:1] * 0).shape[-2], dtype=values.dtype)
        for j, t in enumerate(times):
            if t <= q:
                y = y + weights[j] * kernel(q - t) @ values[:, j]
        columns.append(y)
    return torch.stack(columns, dim=1)


def check_irregular(f: Callable) -> None:
    """f(times, values, queries, weights, kernel) -> a CKConv at true times (3.29).

    Chapter 3, exercise 3.5, an hour. times (n,) in any order, values (c_in, n), queries
    (q,), weights (n,), all float64. kernel(lags) maps lags of any shape to kernel
    values (*lags.shape, c_out, c_in). The result is (c_out, q); there is no bias.
    """
    ones = torch.ones(3).double()
    cases = [
        Case(
            (_row(0, 1), _row(1, 1)[None], _row(1), _row(1, 1), _decay),
            _row(1 + math.exp(-1))[None],
            "The sample at the query's own time counts, at lag 0.",
            SUM,
        ),
        Case(
            (_row(0, 2), _row(1, 5)[None], _row(1), _row(1, 1), _decay),
            _row(math.exp(-1))[None],
            "A sample after the query has not happened yet.",
            SUM,
        ),
        Case(
            (_row(0, 2, 4), _row(1, 1, 1)[None], _row(4, 1), ones, _root),
            _row(2 + math.sqrt(2), 1)[None],
            "The root of a negative lag is NaN, and 0 times NaN is NaN.",
            SUM,
        ),
        Case(
            (_row(0, 1), _row(4, 1)[None], _row(1), _row(0.5, 0), _root),
            _row(2)[None],
            "Each sample has its weight.",
            SUM,
        ),
    ]
    for times, hint in (
        (_normal(9).cumsum(0), "Samples come in any order."),
        (torch.arange(9.0).double(), "On a grid it is the ordinary causal sum."),
    ):
        args = (times, _normal(2, 9, seed=1), _row(0.5, -1, 3, 8), _normal(9, seed=2))
        cases.append(Case((*args, _mixed), _irregular(*args, _mixed), hint, SUM))
    verify("3.5", f, "times values queries weights kernel", cases)


# 3.6 -----------------------------------------------------------------------------


def _streamed(f: Callable) -> Callable:
    """Two streams of one kernel at a time, chunk by chunk; what the first returns."""

    def run(kernel, n_fft, signal, sizes):
        first, second = f(kernel, n_fft), f(kernel, n_fft)
        if not (callable(first) and callable(second)):
            raise TypeError("overlap_save must return a function, push")
        parts = []
        for chunk in signal.split(sizes):
            parts.append(first(chunk))
            second(-chunk)  # must not disturb the first
            if parts[-1] is None or len(parts[-1]) != len(chunk):
                raise ValueError(f"push must return {len(chunk)} outputs for as many")
        return torch.cat(parts)

    return run


def check_stream(f: Callable) -> None:
    """f(kernel, n_fft) -> push, where push(chunk) returns the outputs of that chunk.

    Chapter 3, exercise 3.6, an evening. Overlap-save: the causal convolution (3.5) of a
    signal that arrives in chunks of any sizes, 0 included, with what was pushed before
    as its past and zeros before that. Every transform has n_fft entries, n_fft at least
    the length of the kernel (k,). float64. Each call of f starts a stream of its own.
    """
    rows = (
        (3, 8, [6], "One chunk of n_fft - (k - 1) samples: one transform."),
        (3, 8, [6, 6], "The second chunk needs the last k - 1 samples of the first."),
        (3, 8, [20], "A long chunk takes several transforms."),
        (4, 9, [10, 7], "n_fft may be odd."),
        (5, 16, [1, 2, 1, 1, 9], "A chunk shorter than k - 1 adds to the past."),
        (4, 8, [5, 0, 5], "An empty chunk has no outputs and changes nothing."),
        (1, 4, [3, 9], "A kernel of one tap has no past: beware of x[-0:]."),
        (6, 6, [4, 8], "With n_fft = k each transform gives one output."),
    )
    cases = []
    for k, n_fft, sizes, hint in rows:
        kernel, signal = _normal(k, seed=k), _normal(sum(sizes), seed=50)
        args = (kernel, n_fft, signal, sizes)
        cases.append(Case(args, _causal(signal, kernel), hint, SUM))
    verify("3.6", _streamed(f), "kernel n_fft signal sizes", cases)
