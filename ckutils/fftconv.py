"""Long causal convolution: direct, by FFT, by overlap-add, and the rule that picks.

All of it serves one trilinear form (chapter 3, eq. 3.12),

    T(g, k, x) = sum over b, o, i, t, j of g[b, o, t] k[o, i, j] x[b, i, t - j].

Its gradient in g is the causal convolution of x with k; the gradients in x and in k are
what a backward pass needs. So the backward pass of each is made of the other two, and
derivatives of every order follow. Signals are (b, c, t), kernels (c_out, c_in, k) with
k[..., 0] at the present sample.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ckutils.checks import check_choice, check_float, check_same
from ckutils.cuda import by_spectra, spectral
from ckutils.fftplan import fft_length, plan

METHODS = ("auto", "direct", "fft", "overlap_add")

# Spectra of kernels are formed and multiplied group by group, so that they stay in a
# CPU's cache instead of passing through memory; a GPU gets few large calls.
_GROUP_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}

# Public functions ----------------------------------------------------------------


def causal_conv(x: Tensor, kernel: Tensor, *, method: str = "auto") -> Tensor:
    """y[b, o, t] = sum over i and j <= t of kernel[o, i, j] x[b, i, t - j].

    Chapter 3, eq. (3.5). Source: the convolution theorem; overlap-add after Stockham
    (1966). x is 0 before its start; a kernel longer than the signal is cropped.

    Args:
        x: (b, c_in, t), float32 or float64, on any device.
        kernel: (c_out, c_in, k), like x; kernel[..., 0] weighs the present sample.
        method: "direct" sums, and is exactly causal; "fft" transforms the whole signal;
            "overlap_add" transforms signal and kernel in pieces; "auto" takes what a
            count of operations says is fastest: a sum, or FFTs of blocks of x.
    Returns (b, c_out, t), like x; differentiable any number of times.
    Raises ValueError for another shape, dtype, device or method.
    Accuracy: an FFT errs by about eps log2(n) |x| |kernel| at every t, whatever y[t]
        is: a quiet tail after a loud start keeps few digits. Overlap-add has that bound
        block by block, a direct sum term by term.
    Cost: b c_out c_in t k, or c_out c_in + b (c_in + c_out) FFTs of an even n >= t + k
        - 1 and b c_out c_in n/2 products, in b c t memory and a few MB. On a GPU the
        spectra are multiplied by spectral_product.cu; `causal_conv_route` says so.

    >>> x = torch.tensor([[[1.0, 0.0, 2.0]]])
    >>> causal_conv(x, torch.tensor([[[3.0, 2.0, 1.0]]])).round()
    tensor([[[3., 2., 7.]]])
    """
    _check_dense(x, kernel, method)
    kernel = kernel[..., : x.shape[-1]]
    if method == "overlap_add":
        return _pieces(x, kernel)
    block = _block(x, kernel, method)
    if block is None:
        return functional.conv1d(_late(x, kernel), kernel.flip(-1))
    return _Convolve.apply(x, kernel, block)


def causal_conv_route(x: Tensor, kernel: Tensor, *, method: str = "auto") -> str:
    """The way that `causal_conv` takes with these arguments.

    Chapter 3, section 3.11.

    Args and raises: as `causal_conv`.
    Returns "direct", "fft" (one transform of the whole signal) or "overlap_add" (in
        blocks); with " by spectral_product.cu" behind it where that kernel multiplies
        the spectra, and nothing where torch does.

    >>> causal_conv_route(torch.ones(1, 1, 3), torch.ones(1, 1, 2))
    'direct'
    """
    _check_dense(x, kernel, method)
    way, kernel = method, kernel[..., : x.shape[-1]]
    if method == "auto":
        block = _block(x, kernel, method)
        way = {None: "direct", x.shape[-1]: "fft"}.get(block, "overlap_add")
    if way != "direct" and spectral.has_kernels(x):
        return f"{way} by spectral_product.cu"
    return way


def _check_dense(x: Tensor, kernel: Tensor, method: str) -> None:
    _check(x, kernel, method, kernel_axes=3)
    if x.shape[1] != kernel.shape[1]:
        raise ValueError(
            f"kernel must have the {x.shape[1]} input channels of x, got shape "
            f"{tuple(kernel.shape)}"
        )


def _block(x: Tensor, kernel: Tensor, method: str) -> int | None:
    (c_out, c_in, k), b, t = kernel.shape, x.shape[0], x.shape[-1]
    return plan(b, c_in, c_out, t, k, method, x.dtype == torch.float32)


def _pieces(x: Tensor, kernel: Tensor) -> Tensor:
    """The convolution as a sum over pieces of the kernel, each in blocks of x.

    Cutting both keeps an error where its cause is: a loud block of x spoils what a loud
    piece of the kernel makes of it, and nothing else.
    """
    (c_out, c_in, k), (b, _, t) = kernel.shape, x.shape
    size, y = min(k, max(32, t // 8)), 0
    for lag in range(0, k, size):
        piece, late = kernel[..., lag : lag + size], t - lag
        block = plan(b, c_in, c_out, late, piece.shape[-1], "overlap_add")
        part = _Convolve.apply(x[..., :late], piece, block)
        y = y + functional.pad(part, (lag, 0))
    return y


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
    block = plan(b, c, 1, t, kernel.shape[-1], method, depthwise=True)
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
    if spectral.has_kernels(x):
        y = by_spectra.convolve(rows, kernel, n, t if block == t else n)
        return _overlap_add(y.unflatten(0, (b, -1)), block, t)
    x_hat = torch.fft.rfft(rows, n).permute(2, 1, 0).contiguous()  # (f, c_in, b p)
    y_hat = x_hat.new_empty(n // 2 + 1, c_out, rows.shape[0])
    groups = _groups(c_out, c_in, n, x)
    room = _Room(groups[0].stop, c_in, n, rows.shape[0], x_hat)
    for some in groups:
        room.taps[..., :k] = kernel[some]  # zero from lag k on
        torch.fft.rfft(room.taps, n, out=room.spectra)  # (o, c_in, f)
        room.turned.copy_(room.spectra.permute(2, 0, 1))  # (f, o, c_in)
        y_hat[:, some] = torch.bmm(room.turned, x_hat, out=room.product)
    y = torch.fft.irfft(y_hat.permute(2, 1, 0), n)  # (b p, c_out, n)
    return _overlap_add(y.unflatten(0, (b, -1)), block, t)


class _Room:
    """Where each group of output channels does its work: the same pages every time.

    Fresh memory for each group would be cheap to ask for and dear to touch: at 8
    signals of 30 channels and 784 samples the pages took a fifth of the time.
    """

    def __init__(self, size: int, c_in: int, n: int, rows: int, like: Tensor):
        f = n // 2 + 1
        self.taps = like.real.new_zeros(size, c_in, n)
        self.spectra = like.new_empty(size, c_in, f)
        self.turned = like.new_empty(f, size, c_in)
        self.product = like.new_empty(f, size, rows)


def _lags(g: Tensor, x: Tensor, k: int, block: int) -> Tensor:
    c_out, c_in = g.shape[1], x.shape[1]
    n = fft_length(block + k - 1)
    rows = _blocks(x, block).flatten(0, 1)  # (b p, c_in, block)
    late = _late_blocks(g, k, block)  # (b p, c_out, block + k - 1)
    if spectral.has_kernels(x):
        return by_spectra.lags(late, rows, n, k)
    x_hat = torch.fft.rfft(rows, n).permute(2, 0, 1).conj().resolve_conj().contiguous()
    g_hat = torch.fft.rfft(late, n).permute(2, 1, 0).contiguous()
    kernel = g.new_empty(c_out, c_in, k)
    for some in _groups(c_out, c_in, n, x):
        taps = torch.bmm(g_hat[:, some].contiguous(), x_hat)  # (f, o, c_in)
        kernel[some] = torch.fft.irfft(taps.permute(1, 2, 0), n)[..., :k]
    return kernel


def _groups(c_out: int, c_in: int, n: int, like: Tensor) -> list[slice]:
    """Output channels, as many at a time as their spectra fit the cache.

    All groups have the same size; the last steps back over the one before it.
    """
    room = _GROUP_BYTES.get(like.device.type, 1 << 28)
    most = max(6, room // (c_in * (n + 2) * like.element_size()))
    size = -(-c_out // -(-c_out // most))
    return [slice(o, o + size) for o in range(0, c_out - size, size)] + [
        slice(c_out - size, c_out)
    ]


def _blocks(x: Tensor, block: int) -> Tensor:
    """(b, c, t) cut into (b, p, c, block), the last block filled with zeros."""
    short = -x.shape[-1] % block
    x = functional.pad(x, (0, short)) if short else x
    return x.unflatten(-1, (-1, block)).transpose(1, 2)


def _late_blocks(g: Tensor, k: int, block: int) -> Tensor:
    """(b, c, t) as (b p, c, block + k - 1): each block and what its kernel reaches."""
    fill = -g.shape[-1] % block + k - 1
    late = functional.pad(g, (0, fill)).unfold(-1, block + k - 1, block)
    return late.transpose(1, 2).flatten(0, 1)


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
