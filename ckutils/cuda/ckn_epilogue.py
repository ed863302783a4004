"""What a CKN layer does behind its matrix product, as one operator of torch.

`torch.ops.ckutils.ckn_layer` takes the patches' inner products with the anchors and the
maps themselves, and gives |P| kappa(Z P / |P|) (chapter 5, eq. 5.14). On a CPU torch
computes it; on a GPU, if CuPy is there, `ckn_layer.cu` does, which reads each product
once and writes each value once. Its gradient is an operator too.

`launch_layer` and `launch_gradients` run the kernels wherever the tensors are: on a
GPU, or, on a CPU, the same text in the emulator.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ckutils.checks import check_choice, check_float, check_same
from ckutils.cuda.launcher import kernel_module
from ckutils.cuda.spectral import has_kernels
from ckutils.nystrom import (
    arc_cosine_kernel,
    exponential_kernel,
    guarded_sqrt,
    polynomial_kernel,
)

# As in ckn_layer.cu: the pixels of a block.
TILE_H, TILE_W = 8, 32
THREADS = 256
REALS = {torch.float32: "float", torch.float64: "double"}


class Row(NamedTuple):
    """kappa(u, beta) and its slopes in u and in beta; `number` in ckn_layer.cu."""

    number: int
    kappa: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    by_beta: Callable[[Tensor, Tensor], Tensor]


def _arc_cosine_slope(u: Tensor, beta: Tensor) -> Tensor:
    return 1 - u.clamp(-1, 1).acos() / math.pi


ROWS = {
    "exponential": Row(
        0,
        exponential_kernel,
        lambda u, beta: beta * exponential_kernel(u, beta),
        lambda u, beta: (u - 1) * exponential_kernel(u, beta),
    ),
    "arc_cosine": Row(
        1,
        lambda u, beta: arc_cosine_kernel(u),
        _arc_cosine_slope,
        lambda u, beta: torch.zeros_like(u),
    ),
    "polynomial": Row(
        2,
        lambda u, beta: polynomial_kernel(u, 2, offset=1.0),
        lambda u, beta: (u + 1) / 2,
        lambda u, beta: torch.zeros_like(u),
    ),
}

# Forward ---------------------------------------------------------------------------


@torch.library.custom_op("ckutils::ckn_layer", mutates_args=())
def ckn_layer(
    products: Tensor,
    maps: Tensor,
    beta: Tensor,
    kernel_size: Sequence[int],
    padding: Sequence[int],
    kappa: str,
) -> tuple[Tensor, Tensor]:
    """y = n kappa(products / n), and n, the norm of the patch of maps at each pixel.

    Chapter 5, eq. (5.14).

    Args:
        products: (b, p, i, j), float32 or float64, on any device: conv2d of the maps
            with unit anchors.
        maps: (b, c, h, w), like products.
        beta: one number, like products; only "exponential" looks at it.
        kernel_size, padding: two ints each, of the convolution.
        kappa: a name in ROWS.
    Returns y (b, p, i, j) and n (b, i, j), contiguous. Where n = 0, y and all
        gradients are 0. Differentiable any number of times.
    Raises ValueError for other shapes, dtypes or names.
    Cost: on a GPU products read and y written once, and the maps.
    """
    if has_kernels(products):
        return launch_layer(products, maps, beta, kernel_size, padding, kappa)
    _check(products, maps, beta, kernel_size, padding, kappa)
    y, norms = _layer(products, maps, beta, kernel_size, padding, kappa)
    return y.contiguous(), norms.contiguous()


@ckn_layer.register_fake
def _(products, maps, beta, kernel_size, padding, kappa):
    b, _, i, j = products.shape
    return products.new_empty(products.shape), products.new_empty(b, i, j)


def _layer(products, maps, beta, kernel_size, padding, kappa) -> tuple[Tensor, Tensor]:
    """The formula, in torch."""
    box = maps.new_ones(1, 1, *kernel_size)
    squares = maps.square().sum(1, keepdim=True)
    n = guarded_sqrt(F.conv2d(squares, box, padding=tuple(padding)))  # (b, 1, i, j)
    u = products / torch.where(n > 0, n, 1)
    return n * ROWS[kappa].kappa(u, beta), n.squeeze(1)


def launch_layer(
    products: Tensor, maps: Tensor, beta: Tensor, kernel_size: Sequence[int],
    padding: Sequence[int], kappa: str, *, kernel: str = "ckn_layer", **how,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`ckn_layer` by a kernel of ckn_layer.cu; `how` goes to its launch.

    Chapter 5. On a CPU in the emulator. `kernel` may be "ckn_layer_naive".
    """
    _check(products, maps, beta, kernel_size, padding, kappa)
    products, maps = products.contiguous(), maps.contiguous()
    (b, p, i, j), (_, c, h, w) = products.shape, maps.shape
    y, norms = torch.empty_like(products), products.new_empty(b, i, j)
    args = [products, maps, beta.reshape(1), y, norms, b, c, h, w, p, i, j]
    args += [*kernel_size, *padding, torch.finfo(maps.dtype).tiny]
    grid, block, room = _tiled(kernel, y, kernel_size)
    module = _module(products, kappa)
    module.launch(kernel, grid, block, args, shared_bytes=room, **how)
    return y, norms


# Backward --------------------------------------------------------------------------


@torch.library.custom_op("ckutils::ckn_layer_grad", mutates_args=())
def ckn_layer_grad(
    grad: Tensor,
    norms_grad: Tensor,
    products: Tensor,
    maps: Tensor,
    norms: Tensor,
    beta: Tensor,
    kernel_size: Sequence[int],
    padding: Sequence[int],
    kappa: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `ckn_layer` in products, maps and beta, from those in y and n.

    Chapter 5. Shapes as there; `norms` is the n that it returned.
    """
    if has_kernels(products):
        given = grad, norms_grad, products, maps, norms, beta
        return launch_gradients(*given, kernel_size, padding, kappa)
    row, n = ROWS[kappa], norms.unsqueeze(1)
    seen = n > 0
    u = products / torch.where(seen, n, 1)
    slope = row.slope(u, beta)
    products_grad = torch.where(seen, grad * slope, 0)
    rate = (grad * (row.kappa(u, beta) - u * slope)).sum(1, keepdim=True)
    rate = (rate + norms_grad.unsqueeze(1)) / n
    rate = torch.where(seen, rate, 0)  # in n, over n
    box = maps.new_ones(1, 1, *kernel_size)
    maps_grad = maps * F.conv_transpose2d(rate, box, padding=tuple(padding))
    beta_grad = (grad * n * row.by_beta(u, beta)).sum().reshape(beta.shape)
    return products_grad.contiguous(), maps_grad.contiguous(), beta_grad


@ckn_layer_grad.register_fake
def _(grad, norms_grad, products, maps, norms, beta, kernel_size, padding, kappa):
    return (
        products.new_empty(products.shape),
        maps.new_empty(maps.shape),
        beta.new_empty(beta.shape),
    )


def launch_gradients(
    grad: Tensor, norms_grad: Tensor, products: Tensor, maps: Tensor, norms: Tensor,
    beta: Tensor, kernel_size: Sequence[int], padding: Sequence[int], kappa: str, *,
    kernel: str = "ckn_norm_grad", **how,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`ckn_layer_grad` by the kernels of ckn_layer.cu; `how` goes to their launches.

    Chapter 5. As `launch_layer`. `kernel` may be "ckn_norm_grad_naive".
    """
    _check(products, maps, beta, kernel_size, padding, kappa)
    grad, products, maps = (v.contiguous() for v in (grad, products, maps))
    (b, p, i, j), (_, c, h, w) = products.shape, maps.shape
    products_grad, maps_grad = torch.empty_like(products), torch.empty_like(maps)
    rate, beta_rate = torch.empty_like(norms), torch.empty_like(norms)
    args = [grad, products, norms, beta.reshape(1), products_grad, rate, beta_rate]
    module = _module(products, kappa)
    grid = (math.ceil(norms.numel() / THREADS),)
    module.launch("ckn_layer_grad", grid, (THREADS,), [*args, b, p, i * j], **how)
    rate += torch.where(norms > 0, norms_grad / norms, 0)
    args = [maps, rate, maps_grad, b, c, h, w, i, j, *kernel_size, *padding]
    grid, block, room = _tiled(kernel, maps, kernel_size)
    module.launch(kernel, grid, block, args, shared_bytes=room, **how)
    return products_grad, maps_grad, beta_rate.sum().reshape(beta.shape)


def _save(ctx, inputs, output):
    products, maps, beta, ctx.kernel_size, ctx.padding, ctx.kappa = inputs
    ctx.save_for_backward(products, maps, beta, output[1])


def _gradients(ctx, grad, norms_grad):
    products, maps, beta, norms = ctx.saved_tensors
    how = ctx.kernel_size, ctx.padding, ctx.kappa
    if not torch.is_grad_enabled():
        inputs = grad, norms_grad, products, maps, norms, beta
        return (*ckn_layer_grad(*inputs, *how), None, None, None)
    # a gradient of this gradient was asked for: take the formula's graph
    inputs = products, maps, beta
    asked = [v for v in inputs if v.requires_grad]
    outputs = _layer(*inputs, *how)
    grads = torch.autograd.grad(
        outputs, asked, (grad, norms_grad), create_graph=True, allow_unused=True
    )
    found = iter(grads)
    return (*(next(found) if v.requires_grad else None for v in inputs), *(None,) * 3)


ckn_layer.register_autograd(_gradients, setup_context=_save)

# What both need --------------------------------------------------------------------


def _module(like: Tensor, kappa: str):
    constants = {"REAL": REALS[like.dtype], "KAPPA": ROWS[kappa].number}
    return kernel_module("ckn_layer", like.device.type, **constants)


def _tiled(kernel: str, like: Tensor, kernel_size: Sequence[int]) -> tuple:
    """Grid, block and bytes of shared memory for a kernel with a thread a pixel."""
    if kernel.endswith("_naive"):
        return (math.ceil(like.numel() / THREADS),), (THREADS,), 0
    b, _, i, j = like.shape
    h, w = kernel_size
    room = (TILE_H + h - 1) * (TILE_W + w - 1) * like.element_size()
    grid = (b, math.ceil(i / TILE_H), math.ceil(j / TILE_W))
    return grid, (TILE_W, TILE_H), room


def _check(products, maps, beta, kernel_size, padding, kappa) -> None:
    check_choice(ROWS, kappa=kappa)
    check_float(products=products, maps=maps, beta=beta)
    check_same(products=products, maps=maps, beta=beta)
    if beta.numel() != 1:
        raise ValueError(f"beta must be one number, got shape {tuple(beta.shape)}")
    if products.ndim != 4 or maps.ndim != 4 or 0 in (*products.shape, *maps.shape):
        raise ValueError(
            "products and maps must have 4 axes, none of them empty, got shapes "
            f"{tuple(products.shape)} and {tuple(maps.shape)}"
        )
    sizes = zip(maps.shape[2:], kernel_size, padding, strict=True)
    want = (maps.shape[0], *(n + 2 * p - k + 1 for n, k, p in sizes))
    got = (products.shape[0], *products.shape[2:])
    if got != want:
        raise ValueError(
            f"products must be (b, p, i, j) with (b, i, j) = {want}, got shape "
            f"{tuple(products.shape)}"
        )
