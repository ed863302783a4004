"""Causal convolution with kernels that are linear mixtures, never formed in time.

If kernel[o, i, j] = sum_h mix[o, i, h] basis[h, j], then its spectrum is the same
mixture of the spectra of the basis (chapter 3, eq. 3.22). So h signals are transformed
instead of c_out c_in, and the kernels' spectrum exists only for a tile of frequencies
at a time, in the cache, where it is multiplied at once.

A complex number is a pair of real rows here, so that all products are real matrix
products. With K = (K_re; K_im) of (2 c_out, c_in), X = (X_re, X_im) of (c_in, 2 b), and
G = ((G_re, G_im); (G_im, -G_re)) of (2 c_out, 2 b), a frequency needs

    forward  K X, whose four blocks make y_re and y_im,
    backward K^T G for the gradient in x, and G X^T for the gradient in K.

On a GPU spectral_product.cu mixes and multiplies in one kernel, complex as they are.
"""

import torch
from torch import Tensor

from ckutils.checks import check_float, check_same
from ckutils.cuda import by_spectra, spectral
from ckutils.fftconv import causal_conv
from ckutils.fftplan import fft_length

# How many bytes of kernel spectrum a tile holds: about a core's second-level cache.
_TILE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}


def mixed_causal_conv(x: Tensor, basis: Tensor, mix: Tensor) -> Tensor:
    """`causal_conv` of x with kernel[o, i, j] = sum_h mix[o, i, h] basis[h, j].

    Chapter 3, eq. (3.22).

    Args:
        x: (b, c_in, t), float32 or float64, on any device.
        basis: (h, k), like x; basis[..., 0] at the present sample.
        mix: (c_out, c_in, h), like x.
    Returns (b, c_out, t), like x; differentiable any number of times (gradients of
        gradients form the kernel).
    Raises ValueError for another shape, dtype or device.
    Cost: h + b (c_in + c_out) FFTs of n >= t + k - 1, and n c_out c_in (h + 2 b) real
        products and sums; memory a few times x, and one tile; on a GPU with CuPy no
        tile either, by spectral_product.cu. Accuracy as `causal_conv` by FFT.

    >>> x, basis = torch.tensor([[[1.0, 0.0, 2.0]]]), torch.eye(3)
    >>> mixed_causal_conv(x, basis, torch.tensor([[[3.0, 2.0, 1.0]]])).round()
    tensor([[[3., 2., 7.]]])
    """
    check_float(x=x, basis=basis, mix=mix)
    check_same(x=x, basis=basis, mix=mix)
    _check_shapes(x, basis, mix)
    return _Mixed.apply(x, basis[:, : x.shape[-1]], mix)


def mixed_causal_conv_ref(x: Tensor, basis: Tensor, mix: Tensor) -> Tensor:
    """`mixed_causal_conv` with its kernel formed in time."""
    return causal_conv(x, mix @ basis, method="fft")


def _check_shapes(x: Tensor, basis: Tensor, mix: Tensor) -> None:
    for name, value, axes in (("x", x, 3), ("basis", basis, 2), ("mix", mix, 3)):
        if value.ndim != axes or 0 in value.shape:
            raise ValueError(
                f"{name} must have {axes} axes, none of them empty, got shape "
                f"{tuple(value.shape)}"
            )
    want = (x.shape[1], basis.shape[0])
    if mix.shape[1:] != want:
        raise ValueError(
            f"mix must be (c_out, c_in, h) with (c_in, h) = {want}, got shape "
            f"{tuple(mix.shape)}"
        )


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, basis, mix):
        ctx.save_for_backward(x, basis, mix)
        if spectral.has_kernels(x):
            h_hat = by_spectra.basis_spectra(basis, x.shape[-1])
            return by_spectra.convolve_mixed(x, h_hat, mix)
        return _forward(x, basis_spectrum(basis, x.shape[-1]), mix)

    @staticmethod
    def backward(ctx, g):
        if not torch.is_grad_enabled():
            on_gpu = spectral.has_kernels(g)
            backward = by_spectra.mixed_gradients if on_gpu else _backward
            return backward(g, *ctx.saved_tensors, ctx.needs_input_grad)
        # a gradient of this gradient was asked for: take the definition's graph
        inputs = [v for v in ctx.saved_tensors if v.requires_grad]
        y = mixed_causal_conv_ref(*ctx.saved_tensors)
        grads = iter(torch.autograd.grad(y, inputs, g, create_graph=True))
        return tuple(
            next(grads) if v.requires_grad else None for v in ctx.saved_tensors
        )


def basis_spectrum(basis: Tensor, t: int) -> Tensor:
    """(f, 2, h), real and imaginary parts, for signals of t samples."""
    h_hat = torch.fft.rfft(basis, fft_length(t + basis.shape[-1] - 1))
    return torch.view_as_real(h_hat).permute(1, 2, 0).contiguous()


def kernel_spectrum(h_hat: Tensor, mix: Tensor) -> Tensor:
    """(f, 2 c_out, c_in), real parts above imaginary ones; the real product (3.22)."""
    c_out, c_in, h = mix.shape
    k_hat = h_hat.reshape(-1, h) @ mix.reshape(-1, h).T  # (2 f, c_out c_in)
    return k_hat.view(-1, 2 * c_out, c_in)


def _forward(x: Tensor, h_hat: Tensor, mix: Tensor) -> Tensor:
    def tile(f):
        return kernel_spectrum(h_hat[f], mix)

    return multiply_spectra(x, tile, h_hat.shape[0], mix.shape[0])


def multiply_spectra(x: Tensor, k_tile, f: int, c_out: int) -> Tensor:
    """The convolution of x (b, c_in, t) with a kernel whose spectrum comes in tiles.

    k_tile(slice) returns (f, 2 c_out, c_in) for a slice of the f frequencies.
    """
    (b, c_in, t), n = x.shape, 2 * (f - 1)
    x_hat = torch.fft.rfft(x, n)
    y_hat = x_hat.new_empty(b, c_out, f)
    y_parts = torch.view_as_real(y_hat).permute(2, 3, 1, 0)  # (f, 2, c_out, b)
    for tile in _tiles(f, c_out * c_in, x):
        y = torch.bmm(k_tile(tile), _columns(x_hat, tile))  # (f, 2 c_out, 2 b)
        y = y.view(-1, 2, c_out, 2, b)
        torch.sub(y[:, 0, :, 0], y[:, 1, :, 1], out=y_parts[tile, 0])
        torch.add(y[:, 0, :, 1], y[:, 1, :, 0], out=y_parts[tile, 1])
    del x_hat
    return torch.fft.irfft(y_hat, n)[..., :t]


def _backward(g, x, basis, mix, needs) -> tuple:
    (c_out, c_in, h), k, t = mix.shape, basis.shape[-1], x.shape[-1]
    need_x, need_basis, need_mix = needs
    h_hat = basis_spectrum(basis, t)
    f = h_hat.shape[0]
    n = 2 * (f - 1)
    x_hat, g_hat = torch.fft.rfft(x, n), torch.fft.rfft(g, n)
    x_grad = torch.empty_like(x_hat) if need_x else None
    basis_grad = torch.empty_like(h_hat) if need_basis else None
    # of its own, since zeros_like would lie as mix does, and a view may not be allowed
    mix_grad = mix.new_zeros(c_out * c_in, h) if need_mix else None
    for tile in _tiles(f, c_out * c_in, x):
        g_rows = _rows(g_hat, tile)  # (f, 2 c_out, 2 b)
        if need_x:
            k_hat = kernel_spectrum(h_hat[tile], mix)
            part = torch.bmm(k_hat.mT, g_rows).view(-1, c_in, 2, g.shape[0])
            torch.view_as_real(x_grad).permute(2, 1, 3, 0)[tile] = part
        if need_basis or need_mix:
            k_grad = torch.bmm(g_rows, _columns(x_hat, tile).mT).view(-1, c_out * c_in)
        if need_basis:
            basis_grad[tile] = (k_grad @ mix.reshape(-1, h)).view(-1, 2, h)
        if need_mix:
            weighed = _parseval(h_hat[tile], tile.start, n)
            mix_grad.addmm_(k_grad.T, weighed.view(-1, h))
    return (
        torch.fft.irfft(x_grad, n)[..., :t] if need_x else None,
        _to_time(basis_grad, n)[:, :k] if need_basis else None,
        mix_grad.view(mix.shape) if need_mix else None,
    )


def _columns(x_hat: Tensor, tile: slice) -> Tensor:
    """X of the header: (f, c_in, 2 b)."""
    parts = torch.view_as_real(x_hat[..., tile]).permute(2, 1, 3, 0)
    return parts.flatten(2).contiguous()


def _rows(g_hat: Tensor, tile: slice) -> Tensor:
    """G of the header: (f, 2 c_out, 2 b)."""
    parts = torch.view_as_real(g_hat[..., tile]).permute(2, 1, 3, 0)  # (f, c_out, 2, b)
    turned = torch.stack([parts[:, :, 1], -parts[:, :, 0]], dim=2)
    return torch.stack([parts, turned], dim=1).flatten(1, 2).flatten(2)


def _parseval(h_hat: Tensor, start: int, n: int) -> Tensor:
    """Half a spectrum weighed so that products with it sum as products in time do.

    Every frequency stands for itself and its mirror image, but 0 and n/2 for one.
    """
    weighed = h_hat * (2 / n)
    if start == 0:
        weighed[0] /= 2
    if start + h_hat.shape[0] == n // 2 + 1:
        weighed[-1] /= 2
    return weighed


def _to_time(h_hat: Tensor, n: int) -> Tensor:
    """(f, 2, h) -> (h, n)."""
    return torch.fft.irfft(torch.complex(h_hat[:, 0].T, h_hat[:, 1].T), n)


def _tiles(f: int, pairs: int, like: Tensor) -> list[slice]:
    room = _TILE_BYTES.get(like.device.type, 1 << 28)
    size = max(8, room // (2 * pairs * like.element_size()))
    return [slice(start, min(start + size, f)) for start in range(0, f, size)]
