"""Products of spectra as operators of torch, and the launches of spectral_product.cu.

`torch.ops.ckutils.spectral_product` is the product that a convolution needs between its
transforms, `torch.ops.ckutils.factorised_spectral_product` the same with kernels that
are mixtures (chapter 3, eqs. 3.9 and 3.22). On a CPU torch computes them, on a GPU the
kernels do, if CuPy is there to launch them. Both know their gradients, of every order,
and what `torch.compile` asks for.

`launch_product` and `launch_mixed_product` run a kernel wherever the tensors are: on a
GPU, or, on a CPU, the same text in the emulator.
"""

import importlib.util
import math

import torch
from torch import Tensor

from ckutils.checks import check_same
from ckutils.cuda import launcher
from ckutils.cuda.launcher import kernel_module

# As in spectral_product.cu: frequencies and warps of a block, and what a block makes.
LANES, WARPS = 32, 8
TILE_P, TILE_Q = 16, 16
TILE_SIGNALS, TILE_OUTPUTS = 32, 8
NAIVE_THREADS = 128
TYPES = {
    torch.complex64: {"REAL": "float", "COMPLEX": "float2"},
    torch.complex128: {"REAL": "double", "COMPLEX": "double2"},
}
CUPY = importlib.util.find_spec("cupy") is not None
# How many bytes of a kernel's gradient spectrum the backward pass holds at a time.
_TILE_BYTES = 1 << 26


def has_kernels(x: Tensor) -> bool:
    """Whether a kernel is launched for x: on a GPU, if CuPy is there to do it.

    All chapters. Also while ckutils.cuda.standin puts a CPU in the place of both.
    """
    return (x.is_cuda and CUPY) or launcher._standin is not None


# The dense product -----------------------------------------------------------------


@torch.library.custom_op("ckutils::spectral_product", mutates_args=())
def spectral_product(a: Tensor, b: Tensor, conjugate: bool) -> Tensor:
    """y[p, q, f] = sum_s a[p, s, f] b[q, s, f], or with conj(b[q, s, f]).

    Chapter 3, eqs. (3.5) and (3.16), frequency by frequency.

    Args:
        a: (p, s, f), complex64 or complex128, on any device.
        b: (q, s, f), like a.
        conjugate: take b's conjugate.
    Returns (p, q, f), contiguous; differentiable any number of times.
    Raises ValueError for other shapes or dtypes. Cost: 8 p q s f real operations. On a
        GPU a and b pass through memory once and nothing else does; tensors whose first
        two axes are exchanged, and contiguous ones, are read where they are.
    """
    if has_kernels(a):
        return launch_product(a, b, conjugate)
    _check_product(a, b)
    b = b.conj() if conjugate else b
    return torch.einsum("psf,qsf->pqf", a, b).contiguous()


@spectral_product.register_fake
def _(a, b, conjugate):
    return a.new_empty(a.shape[0], b.shape[0], a.shape[2])


def _save_product(ctx, inputs, output):
    a, b, ctx.conjugate = inputs
    ctx.save_for_backward(a, b)


def _product_gradients(ctx, grad):
    a, b = ctx.saved_tensors
    need_a, need_b, _ = ctx.needs_input_grad
    a_grad = b_grad = None
    if need_a:
        a_grad = spectral_product(grad, b.transpose(0, 1), not ctx.conjugate)
    if need_b and ctx.conjugate:  # conj(sum_p grad conj(a))
        b_grad = spectral_product(a.transpose(0, 1), grad.transpose(0, 1), True)
        b_grad = b_grad.transpose(0, 1)
    elif need_b:
        b_grad = spectral_product(grad.transpose(0, 1), a.transpose(0, 1), True)
    return a_grad, b_grad, None


spectral_product.register_autograd(_product_gradients, setup_context=_save_product)


def launch_product(
    a: Tensor, b: Tensor, conjugate: bool = False, *,
    kernel: str = "spectral_product", **how,
) -> Tensor:  # fmt: skip
    """`spectral_product` by a kernel of spectral_product.cu; `how` goes to its launch.

    Chapter 3. On a CPU in the emulator. `kernel` may be "spectral_product_naive".
    """
    _check_product(a, b)
    (p, s, f), q = a.shape, b.shape[0]
    (a, *a_strides), (b, *b_strides) = _as_rows(a), _as_rows(b)
    y = a.new_empty(p, q, f)
    tiles = math.ceil(p / TILE_P) * math.ceil(q / TILE_Q)
    grid, block = _shape(kernel, y, tiles)
    args = [a, b, y, p, q, s, f, *a_strides, *b_strides, int(conjugate)]
    module = kernel_module("spectral_product", a.device.type, **TYPES[a.dtype])
    module.launch(kernel, grid, block, args, **how)
    return y


# The factorised product --------------------------------------------------------------


@torch.library.custom_op("ckutils::factorised_spectral_product", mutates_args=())
def factorised_spectral_product(
    x: Tensor, h: Tensor, mix: Tensor, conjugate: bool
) -> Tensor:
    """y[b, o, f] = sum_c x[b, c, f] k[o, c, f] with k = mix h, u being summed.

    Chapter 3, eq. (3.22).

    Args:
        x: spectra of signals (b, c, f), complex64 or complex128, on any device.
        h: spectra of what is mixed (u, f), like x.
        mix: (o, c, u), real, of x's precision.
        conjugate: take k's conjugate.
    Returns (b, o, f), contiguous; differentiable any number of times.
    Raises ValueError for other shapes or dtypes. Cost: 8 b o c f real operations to
        multiply and 4 u o c f to mix; on a GPU k is never in memory.
    """
    if has_kernels(x):
        return launch_mixed_product(x, h, mix, conjugate)
    _check_mixed(x, h, mix)
    return spectral_product(x, mix_spectra(h, mix), conjugate)


@factorised_spectral_product.register_fake
def _(x, h, mix, conjugate):
    return x.new_empty(x.shape[0], mix.shape[0], x.shape[2])


def _save_mixed(ctx, inputs, output):
    x, h, mix, ctx.conjugate = inputs
    ctx.save_for_backward(x, h, mix)


def _mixed_gradients(ctx, grad):
    x, h, mix = ctx.saved_tensors
    x_grad = h_grad = mix_grad = None
    if ctx.needs_input_grad[0]:
        turned = mix.transpose(0, 1)
        x_grad = factorised_spectral_product(grad, h, turned, not ctx.conjugate)
    if any(ctx.needs_input_grad[1:3]):
        h_grad, mix_grad = mixture_gradients(grad, x, h, mix, ctx.conjugate)
    return x_grad, h_grad, mix_grad, None


factorised_spectral_product.register_autograd(
    _mixed_gradients, setup_context=_save_mixed
)


def mix_spectra(h: Tensor, mix: Tensor) -> Tensor:
    """k[o, c, f] = sum_u mix[o, c, u] h[u, f], as one real product. Chapter 3."""
    parts = torch.view_as_real(h.resolve_conj()).flatten(1)  # (u, 2 f)
    k = mix.flatten(0, 1) @ parts  # (o c, 2 f)
    return torch.view_as_complex(k.unflatten(1, (-1, 2))).unflatten(0, mix.shape[:2])


def mixture_gradients(
    grad: Tensor, x: Tensor, h: Tensor, mix: Tensor, conjugate: bool = False
) -> tuple[Tensor, Tensor]:
    """Of the factorised product, in h and in mix, a tile of frequencies at a time.

    Chapter 3. grad (b, o, f), x (b, c, f), h (u, f), mix (o, c, u): h's is (u, f),
    mix's (o, c, u). The gradient in k, (o, c, f), exists for one tile only.
    """
    weights, h_grads, mix_grad = mix.flatten(0, 1), [], 0
    h = h.resolve_conj()
    size = max(LANES, _TILE_BYTES // (weights.shape[0] * x.element_size()))
    for start in range(0, x.shape[2], size):
        f = slice(start, start + size)
        late, early = grad[..., f].transpose(0, 1), x[..., f].transpose(0, 1)
        k_grad = spectral_product(late, early, True)  # (o, c, f)
        k_grad = k_grad.conj().resolve_conj() if conjugate else k_grad
        parts = torch.view_as_real(k_grad).flatten(2).flatten(0, 1)  # (o c, 2 f)
        h_grads.append((weights.mT @ parts).unflatten(1, (-1, 2)))
        mix_grad = mix_grad + parts @ torch.view_as_real(h[:, f]).flatten(1).mT
    h_grad = torch.view_as_complex(torch.cat(h_grads, dim=1))
    return h_grad, mix_grad.view_as(mix)


def launch_mixed_product(
    x: Tensor, h: Tensor, mix: Tensor, conjugate: bool = False, *,
    kernel: str = "factorised_spectral_product", **how,
) -> Tensor:  # fmt: skip
    """`factorised_spectral_product` by a kernel of spectral_product.cu.

    Chapter 3. As `launch_product`.
    """
    _check_mixed(x, h, mix)
    (b, c, f), (o, _, u) = x.shape, mix.shape
    x, h = (v.resolve_conj().resolve_neg().contiguous() for v in (x, h))
    mix, *mix_strides = _as_rows(mix)
    y = x.new_empty(b, o, f)
    tiles = math.ceil(b / TILE_SIGNALS) * math.ceil(o / TILE_OUTPUTS)
    grid, block = _shape(kernel, y, tiles)
    args = [x, h, mix, y, b, o, c, u, f, *mix_strides, int(conjugate)]
    module = kernel_module("spectral_product", x.device.type, **TYPES[x.dtype])
    module.launch(kernel, grid, block, args, **how)
    return y


# What both need ----------------------------------------------------------------------


def _shape(kernel: str, y: Tensor, tiles: int) -> tuple:
    """Grid and block: a thread an output, or blocks of frequencies and outputs."""
    if kernel.endswith("_naive"):
        return (math.ceil(y.numel() / NAIVE_THREADS),), (NAIVE_THREADS,)
    return (math.ceil(y.shape[2] / LANES) * tiles,), (LANES, WARPS)


def _as_rows(a: Tensor) -> tuple[Tensor, int, int]:
    """A contiguous tensor with the numbers of `a`, and the strides of its first axes.

    If only these two are exchanged, it is the same memory; else it may be a copy.
    """
    a = a.resolve_conj().resolve_neg()
    turned = a.transpose(0, 1)
    if turned.is_contiguous() and not a.is_contiguous():
        return turned, turned.stride(1), turned.stride(0)
    a = a.contiguous()
    return a, a.stride(0), a.stride(1)


def _check_product(a: Tensor, b: Tensor) -> None:
    _check_complex(a=a, b=b)
    check_same(a=a, b=b)
    _check_axes(3, a=a, b=b)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"b must be (q, s, f) with (s, f) = {tuple(a.shape[1:])}, got shape "
            f"{tuple(b.shape)}"
        )


def _check_mixed(x: Tensor, h: Tensor, mix: Tensor) -> None:
    _check_complex(x=x, h=h)
    check_same(x=x, h=h)
    check_same(**{"x's real part": x.real, "mix": mix})
    _check_axes(3, x=x, mix=mix)
    _check_axes(2, h=h)
    if h.shape[1] != x.shape[2]:
        raise ValueError(
            f"h must have the {x.shape[2]} frequencies of x, got shape {tuple(h.shape)}"
        )
    want = (x.shape[1], h.shape[0])
    if mix.shape[1:] != want:
        raise ValueError(
            f"mix must be (o, c, u) with (c, u) = {want}, got shape {tuple(mix.shape)}"
        )


def _check_complex(**tensors) -> None:
    for name, value in tensors.items():
        if value.dtype not in TYPES:
            raise ValueError(
                f"{name} must be complex64 or complex128, got {value.dtype}"
            )


def _check_axes(axes: int, **tensors) -> None:
    for name, value in tensors.items():
        if value.ndim != axes or 0 in value.shape:
            raise ValueError(
                f"{name} must have {axes} axes, none of them empty, got shape "
                f"{tuple(value.shape)}"
            )
