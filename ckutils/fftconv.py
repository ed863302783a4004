"""Long causal convolution: direct, by FFT, by overlap-add, and the rule that picks.

All of it serves one trilinear form (chapter 3, eq. 3.12),

    T(g, k, x) = sum over b, o, i, t, j of g[b, o, t] k[o, i, j] x[b, i, t - j].

Its gradient in g is the causal convolution of x with k; the gradients in x and in k are
what a backward pass needs. So the backward pass of each is made of the other two, and
derivatives of every order follow. Signals are (b, c, t), kernels (c_out, c_in, k) with
k[..., 0] at the present sample.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ckutils.checks import check_choice, check_float, check_int, check_same

METHODS = ("auto", "direct", "fft", "overlap_add")

# Spectra of kernels are formed group by group and multiplied tile by tile, so that they
# stay in a CPU's cache instead of passing through memory; a GPU gets few large calls.
_GROUP_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}
_TILE_BYTES = {"cpu": 1 << 18, "cuda": 1 << 28}

# Nanoseconds an operation takes on one core of a 2024 x86 server, float32. Only their
# ratios matter; `benchmarks/fftconv.py` fits them and prints what the rule costs.
_COST = {
    "call": 6e4,  # an FFT convolution, whatever its size
    "tile": 8e3,  # one frequency tile
    "fft": 0.11,  # a sample and a doubling of the length
    "move": 1.4,  # a complex number transposed
    "product": 0.22,  # a complex multiplication and addition
    "direct_call": 1.5e4,
    "direct": 0.035,  # a real one, in torch's direct convolution
}


# Public functions ----------------------------------------------------------------


def causal_conv(x: Tensor, kernel: Tensor, *, method: str = "auto") -> Tensor:
    """y[b, o, t] = sum over i and j <= t of kernel[o, i, j] x[b, i, t - j].

    Chapter 3, eq. (3.5). Source: the convolution theorem; overlap-add after Stockham
    (1966). x is 0 before its start; a kernel longer than the signal is cropped.

    Args:
        x: (b, c_in, t), float32 or float64, on any device.
        kernel: (c_out, c_in, k), like x; kernel[..., 0] weighs the present sample.
        method: "direct" sums, and is exactly causal; "fft" transforms the whole signal;
            "overlap_add" transforms it in blocks; "auto" takes what a count of
            operations says is fastest.
    Returns (b, c_out, t), like x; differentiable any number of times.
    Raises ValueError for another shape, dtype, device or method.
    Accuracy: an FFT errs by about eps log2(n) |x| |kernel| at every t, whatever y[t]
        is: a quiet tail after a loud start keeps few digits. Overlap-add has that bound
        block by block, a direct sum term by term.
    Cost: b c_out c_in t k, or c_out c_in + b (c_in + c_out) FFTs of an even n >= t + k
        - 1 and b c_out c_in n/2 products, in b c t memory and a few MB.

    >>> x = torch.tensor([[[1.0, 0.0, 2.0]]])
    >>> causal_conv(x, torch.tensor([[[3.0, 2.0, 1.0]]])).round()
    tensor([[[3., 2., 7.]]])
    """
    _check(x, kernel, method, kernel_axes=3)
    (c_out, c_in, _), b, t = kernel.shape, x.shape[0], x.shape[-1]
    if x.shape[1] != c_in:
        raise ValueError(
            f"kernel must have the {x.shape[1]} input channels of x, got shape "
            f"{tuple(kernel.shape)}"
        )
    kernel = kernel[..., :t]
    block = _plan(b, c_in, c_out, t, kernel.shape[-1], method)
    if block is None:
        return functional.conv1d(_late(x, kernel), kernel.flip(-1))
    return _Convolve.apply(x, kernel, block)


def causal_conv_depthwise(x: Tensor, kernel: Tensor, *, method: str = "auto") -> Tensor:
    """y[b, c, t] = sum over j <= t of kernel[c, j] x[b, c, t - j]: a kernel a channel.

    Chapter 3, eq. (3.6).

    Args:
        x: (b, c, t), float32 or float64, on any device.
        kernel: (c, k), like x; kernel[..., 0] weighs the present sample.
        method: as in `causal_conv`.
    Returns (b, c, t), like x; differentiable any number of times.
    Raises ValueError for another shape, dtype, device or method.
    Cost: b c t k, or (2 b + 1) c FFTs; accuracy as `causal_conv`.

    >>> x = torch.tensor([[[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]]])
    >>> causal_conv_depthwise(x, torch.tensor([[3.0, 2.0], [1.0, -1.0]])).round()
    tensor([[[3., 2., 6.],
             [1., 0., 0.]]])
    """
    _check(x, kernel, method, kernel_axes=2)
    if x.shape[1] != kernel.shape[0]:
        raise ValueError(
            f"kernel must have the {x.shape[1]} channels of x, got shape "
            f"{tuple(kernel.shape)}"
        )
    (b, c, t), kernel = x.shape, kernel[:, : x.shape[-1]]
    block = _plan(b, c, 1, t, kernel.shape[-1], method, depthwise=True)
    if block is None:
        taps = kernel.flip(-1)[:, None]
        return functional.conv1d(_late(x, kernel), taps, groups=c)
    n = fft_length(block + kernel.shape[-1] - 1)
    rows = _blocks(x, block)  # (b, p, c, block)
    y_hat = torch.fft.rfft(rows, n) * torch.fft.rfft(kernel, n)
    return _overlap_add(torch.fft.irfft(y_hat, n), block, t)


def causal_conv_ref(x: Tensor, kernel: Tensor) -> Tensor:
    """`causal_conv` letter by letter, eq. (3.5): one loop over t, one over j."""
    y = x.new_zeros(x.shape[0], kernel.shape[0], x.shape[-1])
    for t in range(x.shape[-1]):
        for j in range(min(t + 1, kernel.shape[-1])):
            y[..., t] += x[..., t - j] @ kernel[..., j].T
    return y


@cache
def fft_length(least: int) -> int:
    """The smallest even n >= least whose prime factors are 2, 3, 5 and 7.

    Chapter 3, eq. (3.8). FFT libraries are fast at these, and `irfft` is right without
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


def _check(x: Tensor, kernel: Tensor, method: str, *, kernel_axes: int) -> None:
    check_float(x=x, kernel=kernel)
    check_same(x=x, kernel=kernel)
    check_choice(METHODS, method=method)
    for name, value, axes in (("x", x, 3), ("kernel", kernel, kernel_axes)):
        if value.ndim != axes or 0 in value.shape:
            raise ValueError(
                f"{name} must have {axes} axes, none of them empty, got shape "
                f"{tuple(value.shape)}"
            )


# Which method --------------------------------------------------------------------


@cache
def _plan(b, c_in, c_out, t, k, method, depthwise=False) -> int | None:
    """How many samples an FFT takes at a time: t for "fft", None for a direct sum."""
    pairs = c_in * c_out
    blocks = {s: _fft_cost(b, c_in, c_out, t, k, s, depthwise) for s in _sizes(t, k)}
    best = min(blocks, key=blocks.get)
    if method == "auto":
        direct = _COST["direct_call"] + _COST["direct"] * b * pairs * t * k
        return None if direct < blocks[best] else best
    return {"direct": None, "fft": t, "overlap_add": best}[method]


def _sizes(t: int, k: int) -> list[int]:
    """Block lengths worth a look: those that fill an FFT of 2^m or 3 2^m, and t."""
    lengths = (m << e for e in range(5, 40) for m in (2, 3))
    return [n - k + 1 for n in lengths if 2 * k <= n < t + k - 1] + [t]


def _fft_cost(b, c_in, c_out, t, k, block, depthwise) -> float:
    """Nanoseconds of an FFT convolution in blocks, by the table above."""
    n, rows, pairs = fft_length(block + k - 1), b * -(-t // block), c_in * c_out
    transforms = pairs + rows * c_in + rows * (c_in if depthwise else c_out)
    cost = _COST["call"] + _COST["fft"] * transforms * n * math.log2(n)
    cost += _COST["product"] * pairs * rows * n / 2
    if not depthwise:
        cost += _COST["move"] * transforms * n / 2
        cost += _COST["tile"] * max(1, pairs * n * 4 / _TILE_BYTES["cpu"])
    return cost


# The trilinear form and its three gradients --------------------------------------


class _Convolve(torch.autograd.Function):
    """dT/dg: the causal convolution of x with the kernel, in blocks of x."""

    @staticmethod
    def forward(ctx, x, kernel, block):
        ctx.save_for_backward(x, kernel)
        ctx.block = block
        return _convolve(x, kernel, block)

    @staticmethod
    def backward(ctx, g):
        x, kernel = ctx.saved_tensors
        need_x, need_kernel, _ = ctx.needs_input_grad
        return (
            _correlate(g, kernel, ctx.block) if need_x else None,
            _Lags.apply(g, x, kernel.shape[-1], ctx.block) if need_kernel else None,
            None,
        )


class _Lags(torch.autograd.Function):
    """dT/dk: how g at t goes with x at t - j, for each lag j < k."""

    @staticmethod
    def forward(ctx, g, x, k, block):
        ctx.save_for_backward(g, x)
        ctx.block = block
        return _lags(g, x, k, block)

    @staticmethod
    def backward(ctx, kernel):
        g, x = ctx.saved_tensors
        need_g, need_x, _, _ = ctx.needs_input_grad
        return (
            _Convolve.apply(x, kernel, ctx.block) if need_g else None,
            _correlate(g, kernel, ctx.block) if need_x else None,
            None,
            None,
        )


def _correlate(g: Tensor, kernel: Tensor, block: int) -> Tensor:
    """dT/dx: a causal convolution in reversed time with the channels exchanged."""
    return _Convolve.apply(g.flip(-1), kernel.transpose(0, 1), block).flip(-1)


def _convolve(x: Tensor, kernel: Tensor, block: int) -> Tensor:
    (b, _, t), (c_out, c_in, k) = x.shape, kernel.shape
    n = fft_length(block + k - 1)
    rows = _blocks(x, block).flatten(0, 1)  # (b p, c_in, block)
    x_hat = torch.fft.rfft(rows, n).permute(2, 1, 0).contiguous()  # (f, c_in, b p)
    y_hat = x_hat.new_empty(n // 2 + 1, c_out, rows.shape[0])
    for some in _groups(c_out, c_in, n, x):
        k_hat = torch.fft.rfft(kernel[some], n)  # (o, c_in, f)
        for f in _tiles(k_hat):
            # bmm copies strided factors too, but three times slower than contiguous()
            taps = k_hat[..., f].permute(2, 0, 1).contiguous()  # (f, o, c_in)
            y_hat[f, some] = torch.bmm(taps, x_hat[f])
    y = torch.fft.irfft(y_hat.permute(2, 1, 0), n)  # (b p, c_out, n)
    return _overlap_add(y.unflatten(0, (b, -1)), block, t)


def _lags(g: Tensor, x: Tensor, k: int, block: int) -> Tensor:
    c_out, c_in, t = g.shape[1], x.shape[1], x.shape[-1]
    n = fft_length(block + k - 1)
    rows = _blocks(x, block).flatten(0, 1)  # (b p, c_in, block)
    count = -(-t // block)
    late = functional.pad(g, (0, count * block + k - 1 - t))
    late = late.unfold(-1, block + k - 1, block).transpose(1, 2)  # (b, p, c_out, ...)
    x_hat = torch.fft.rfft(rows, n).permute(2, 0, 1).conj().resolve_conj().contiguous()
    g_hat = torch.fft.rfft(late.flatten(0, 1), n).permute(2, 1, 0).contiguous()
    kernel = g.new_empty(c_out, c_in, k)
    for some in _groups(c_out, c_in, n, x):
        k_hat = x_hat.new_empty(some.stop - some.start, c_in, n // 2 + 1)
        for f in _tiles(k_hat):
            taps = torch.bmm(g_hat[f, some].contiguous(), x_hat[f])  # (f, o, c_in)
            k_hat[..., f] = taps.permute(1, 2, 0)
        kernel[some] = torch.fft.irfft(k_hat, n)[..., :k]
    return kernel


def _groups(c_out: int, c_in: int, n: int, like: Tensor) -> list[slice]:
    """Output channels, as many at a time as their spectra fit the cache."""
    room = _GROUP_BYTES.get(like.device.type, 1 << 28)
    size = max(1, room // (c_in * (n + 2) * like.element_size()))
    return [slice(o, min(o + size, c_out)) for o in range(0, c_out, size)]


def _tiles(k_hat: Tensor) -> list[slice]:
    """Frequencies of (o, c_in, f), as many at a time as their kernels fit the cache."""
    room = _TILE_BYTES.get(k_hat.device.type, 1 << 28)
    size = max(8, room // (k_hat[..., 0].numel() * k_hat.element_size()))
    return [slice(f, f + size) for f in range(0, k_hat.shape[-1], size)]


def _blocks(x: Tensor, block: int) -> Tensor:
    """(b, c, t) cut into (b, p, c, block), the last block filled with zeros."""
    short = -x.shape[-1] % block
    x = functional.pad(x, (0, short)) if short else x
    return x.unflatten(-1, (-1, block)).transpose(1, 2)


def _overlap_add(y: Tensor, block: int, t: int) -> Tensor:
    """Add outputs (b, p, c, n), block p starting at p * block; the first t samples."""
    b, p, c, n = y.shape
    if p == 1:
        return y[:, 0, :, :t]
    pieces = -(-n // block)
    y = functional.pad(y, (0, pieces * block - n)).unflatten(-1, (pieces, block))
    total = y.new_zeros(b, c, p, block)
    for late in range(min(pieces, p)):  # piece `late` of block q lands in q + late
        total[:, :, late:] += y[:, : p - late, :, late].transpose(1, 2)
    return total.flatten(2)[..., :t]


def _late(x: Tensor, kernel: Tensor) -> Tensor:
    """x behind the zeros that a kernel's past needs."""
    return functional.pad(x, (kernel.shape[-1] - 1, 0))
