"""Correlation of two real matrices as one operator of torch: GPU kernels, or a CPU.

    y[i, j] = sum_ab w[a, b] x[i + a - top, j + b - left]

is closed under differentiation: the gradient in x is this again with w turned by half a
turn, the gradient in w is this with y's gradient in the place of w. So one operator and
its three kernels (`correlate2d.cu`) serve derivatives of every order.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ckutils import banded
from ckutils.checks import check_float, check_same
from ckutils.cuda.launcher import kernel_module
from ckutils.cuda.limits import STATIC_SHARED
from ckutils.cuda.spectral import has_kernels

REALS = {torch.float32: "float", torch.float64: "double"}
_ROWS, _WARPS, _ACROSS = 8, 4, 128  # of correlate2d.cu: a block's outputs
_TALL = _ROWS * _WARPS


class Launch(NamedTuple):
    """How one of the kernels is launched; `parts` sums are left to add."""

    kernel: str
    constants: Mapping[str, object]
    grid: tuple[int, ...]
    block: tuple[int, ...]
    parts: int = 1


def plan(kernel_size, output_size, dtype, kernel: str = "auto") -> Launch:
    """Which kernel, which constants, which grid: integers only.

    Chapter 1, eq. (1.4). Args: sizes of the kernel (KH, KW) and of the output (OH, OW),
    float32 or float64, and the name of a kernel to take that one.

    >>> plan((10, 10), (4991, 4991), torch.float32).grid
    (6084,)
    >>> plan((4991, 4991), (10, 10), torch.float32)[::2]  # the gradient in w
    ('correlate2d_split', (20, 51))
    """
    (kh, kw), (rows, columns) = kernel_size, output_size
    if kernel == "auto":
        many = rows * columns >= kh * kw
        kernel = "correlate2d" if many else "correlate2d_split"
    return _PLANS[kernel](kh, kw, rows, columns, {"REAL": REALS[dtype]})


def _naive(kh, kw, rows, columns, real) -> Launch:
    return Launch("correlate2d_naive", real, (-(-rows * columns // 256),), (256,))


def _split(kh, kw, rows, columns, real) -> Launch:
    """Parts of the taps, so many that some 1024 blocks have work."""
    groups = rows * -(-columns // 8)
    step = -(-kh // max(1, min(kh, 1024 // groups)))
    parts = -(-kh // step)
    return Launch("correlate2d_split", real, (groups, parts), (256,), parts)


def _tiled(kh, kw, rows, columns, real) -> Launch:
    """Pieces of the kernel of equal size, as large as a tile's shared memory allows.

    A thread then keeps the taps of CHUNK rows in registers, up to 64 of them in float
    and 32 in double, which takes two registers a number.
    """
    size = {"float": 4, "double": 8}[real["REAL"]]
    pw = _even(kw, 16)
    row = 4 * (31 + (pw + 6) // 4)  # of the tile
    most = (STATIC_SHARED // size - (_TALL - 1) * row) // (row + pw)
    ph = _even(kh, most)
    chunk = _even(ph, max(1, 256 // size // pw))
    constants = {**real, "KH": kh, "KW": kw, "PH": ph, "PW": pw, "CHUNK": chunk}
    blocks = -(-rows // _TALL) * -(-columns // _ACROSS)
    return Launch("correlate2d", constants, (blocks,), (32, _WARPS))


def _even(size: int, most: int) -> int:
    """The size of the parts, at most `most`, if `size` is cut as evenly as possible."""
    return -(-size // -(-size // most))


_PLANS = {
    "correlate2d_naive": _naive,
    "correlate2d": _tiled,
    "correlate2d_split": _split,
}


def run_kernel(x, w, top, left, rows, columns, *, kernel="auto", **how) -> Tensor:
    """y (rows, columns) by one of the kernels, on x's device: a GPU or the emulator.

    Chapter 1, eq. (1.4). `how` goes to the launch, as schedule="reverse".
    """
    x, w = x.contiguous(), w.contiguous()
    launch = plan(w.shape, (rows, columns), x.dtype, kernel)
    module = kernel_module("correlate2d", x.device.type, **launch.constants)
    sizes, place = (*x.shape, *w.shape, rows, columns), (top, left)
    if launch.kernel == "correlate2d":  # the kernel's size is compiled into it
        sizes = (*x.shape, rows, columns)
    if launch.kernel == "correlate2d_split":
        place = (top, left, -(-w.shape[0] // launch.parts))
    y = x.new_empty(launch.parts, rows, columns)
    args = (x, w, y, *sizes, *place)
    module.launch(launch.kernel, launch.grid, launch.block, args, **how)
    return y[0] if launch.parts == 1 else y.sum(0)


# The operator ----------------------------------------------------------------------


@torch.library.custom_op("ckutils::correlate2d", mutates_args=())
def correlate2d_op(
    x: Tensor, w: Tensor, top: int, left: int, rows: int, columns: int
) -> Tensor:
    """y[i, j] = sum_ab w[a, b] x[i + a - top, j + b - left], x = 0 outside.

    Chapter 1, eq. (1.4).

    Args:
        x: (H, W), w: (KH, KW), both float32 or both float64, on one device.
        top, left: rows and columns of zeros in front of x; rows, columns: of y.
    Returns (rows, columns), contiguous; differentiable any number of times.
    """
    check_float(x=x, w=w)
    check_same(x=x, w=w)
    if has_kernels(x):
        return run_kernel(x, w, top, left, rows, columns)
    return banded.correlate(x, w, top, left, rows, columns)


@correlate2d_op.register_fake
def _(x, w, top, left, rows, columns):
    return x.new_empty(rows, columns)


def _save(ctx, inputs, output) -> None:
    x, w, ctx.top, ctx.left, _, _ = inputs
    ctx.save_for_backward(x, w)


def _gradients(ctx, g: Tensor):
    x, w = ctx.saved_tensors
    (h, k), top, left = w.shape, ctx.top, ctx.left
    grad_x = grad_w = None
    if ctx.needs_input_grad[0]:
        turned = w.flip(0, 1)
        grad_x = correlate2d_op(g, turned, h - 1 - top, k - 1 - left, *x.shape)
    if ctx.needs_input_grad[1]:
        grad_w = correlate2d_op(x, g, top, left, h, k)
    return grad_x, grad_w, None, None, None, None


correlate2d_op.register_autograd(_gradients, setup_context=_save)


@correlate2d_op.register_vmap
def _(info, in_dims, x, w, *rest):
    """One by one: images of a batch share no work."""
    pairs = zip(*_batches(info.batch_size, in_dims, x, w), strict=True)
    return torch.stack([correlate2d_op(*pair, *rest) for pair in pairs]), 0


def _batches(size: int, in_dims, *tensors):
    """Each tensor with its batch axis in front, repeated where it has none."""
    for axis, tensor in zip(in_dims, tensors, strict=False):
        first = tensor.unsqueeze(0) if axis is None else tensor.movedim(axis, 0)
        yield first.expand(size, *first.shape[1:])
