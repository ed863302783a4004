"""Convolutions of chapter 3 on a GPU: transforms by torch around spectral_product.cu.

Signals are rows (b, c, t), already cut into blocks where they are; n is the even length
of the transforms. What is held beside the spectra of the signals is bounded: kernels
are taken a group of output channels at a time, and transforms that torch would surround
with copies as large as the spectra go a few rows at a time.
"""

import torch
from torch import Tensor

from ckutils.cuda.spectral import (
    TILE_Q,
    factorised_spectral_product,
    mixture_gradients,
    spectral_product,
)
from ckutils.fftplan import fft_length

_GROUP_BYTES, _PIECE_BYTES = 1 << 26, 1 << 25


def convolve(rows: Tensor, kernel: Tensor, n: int, keep: int) -> Tensor:
    """The first `keep` samples of the convolution, circular over n, of each row.

    Chapter 3, eq. (3.16). rows (b, c_in, t), kernel (c_out, c_in, k): (b, c_out, keep).
    """
    c_out, c_in, _ = kernel.shape
    x_hat = torch.fft.rfft(rows, n)
    y = rows.new_empty(rows.shape[0], c_out, keep)
    for some in _groups(c_out, c_in, n, rows):
        k_hat = _spectra(kernel[some], n, x_hat)
        y_hat = spectral_product(x_hat, k_hat, False)
        del k_hat
        _into_signals(y_hat, y[:, some], n, norm="forward")
    return y


def lags(late: Tensor, rows: Tensor, n: int, k: int) -> Tensor:
    """How rows of one signal go with those of another at each lag j < k.

    Chapter 3, eq. (3.20): the gradient in a kernel. late (b, c_out, t'), rows (b, c_in,
    t): (c_out, c_in, k).
    """
    c_out, c_in = late.shape[1], rows.shape[1]
    x_hat = torch.fft.rfft(rows, n).transpose(0, 1)  # (c_in, b, f)
    g_hat = torch.fft.rfft(late, n).transpose(0, 1)  # (c_out, b, f)
    kernel = rows.new_empty(c_out, c_in, k)
    for some in _groups(c_out, c_in, n, rows):
        k_hat = spectral_product(g_hat[some], x_hat, True)  # (o, c_in, f)
        _into_signals(k_hat, kernel[some], n)
    return kernel


# Kernels that are mixtures -----------------------------------------------------------


def basis_spectra(basis: Tensor, t: int) -> Tensor:
    """rfft / n of (h, k), (h, f), for signals of t samples. Chapter 3, eq. (3.22)."""
    n = fft_length(t + basis.shape[-1] - 1)
    return torch.fft.rfft(basis / n, n)


def convolve_mixed(x: Tensor, h_hat: Tensor, mix: Tensor) -> Tensor:
    """The convolution of x with kernels of spectra mix times h_hat, over n.

    Chapter 3, eq. (3.22). x (b, c_in, t), h_hat (h, f) of `basis_spectra`, mix (c_out,
    c_in, h): (b, c_out, t). The kernels' spectra are made where they are multiplied
    and are never in memory.
    """
    n = 2 * (h_hat.shape[1] - 1)
    y_hat = factorised_spectral_product(torch.fft.rfft(x, n), h_hat, mix, False)
    y = x.new_empty(x.shape[0], mix.shape[0], x.shape[-1])
    _into_signals(y_hat, y, n, norm="forward")
    return y


def mixed_gradients(g: Tensor, x: Tensor, basis: Tensor, mix: Tensor, needs) -> tuple:
    """Of the convolution with mix @ basis, in x, basis and mix, where `needs` says so.

    Chapter 3. g is the gradient (b, c_out, t) in its output.
    """
    need_x, need_basis, need_mix = needs
    h_hat = basis_spectra(basis, x.shape[-1])
    n = 2 * (h_hat.shape[1] - 1)
    g_hat, x_grad, basis_grad, mix_grad = torch.fft.rfft(g, n), None, None, None
    if need_x:
        x_hat = factorised_spectral_product(g_hat, h_hat, mix.transpose(0, 1), True)
        x_grad = torch.empty_like(x)
        _into_signals(x_hat, x_grad, n, norm="forward")
    if need_basis or need_mix:
        weighed = 2 * h_hat  # each frequency and its mirror image,
        weighed[:, 0] /= 2  # but 0 and n/2, which have none
        weighed[:, -1] /= 2
        x_hat = torch.fft.rfft(x, n)
        h_grad, mix_grad = mixture_gradients(g_hat, x_hat, weighed, mix)
        basis_grad = torch.fft.irfft(h_grad, n)[:, : basis.shape[-1]]
    return x_grad, basis_grad, mix_grad


# Transforms in pieces ----------------------------------------------------------------


def _spectra(kernel: Tensor, n: int, like: Tensor) -> Tensor:
    """rfft / n of each kernel, (o, c_in, f); the 1/n costs no pass of its own here."""
    k_hat = like.new_empty(*kernel.shape[:2], n // 2 + 1)
    for some in _in_pieces(k_hat):
        torch.fft.rfft(kernel[some], n, norm="forward", out=k_hat[some])
    return k_hat


def _into_signals(y_hat: Tensor, y: Tensor, n: int, norm: str = "backward") -> None:
    """Write irfft of (b, c, f), as far as y (b, c, t) reaches, into y."""
    for some in _in_pieces(y_hat):
        y[some] = torch.fft.irfft(y_hat[some], n, norm=norm)[..., : y.shape[-1]]


def _in_pieces(spectrum: Tensor) -> list[slice]:
    """A few entries of the first axis at a time, as many as have the room."""
    size = max(1, _PIECE_BYTES // (spectrum[0].numel() * spectrum.element_size()))
    return [slice(i, i + size) for i in range(0, spectrum.shape[0], size)]


def _groups(c_out: int, c_in: int, n: int, like: Tensor) -> list[slice]:
    """Output channels, as many as have the room, in whole tiles of the kernel."""
    size = _GROUP_BYTES // (c_in * (n + 2) * like.element_size())
    size = max(TILE_Q, size // TILE_Q * TILE_Q)
    return [slice(o, min(o + size, c_out)) for o in range(0, c_out, size)]
