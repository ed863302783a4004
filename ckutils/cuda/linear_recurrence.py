"""h_t = a_t h_{t-1} + b_t as operators of torch: GPU kernels, or a CPU.

The gradients in a, b and the initial state come from one pass of the recurrence in the
other direction, which is an operator too, so derivatives of every order follow.
`a` is (a_rows, T) or (a_rows, 1); row r of b (rows, T) takes row r % a_rows of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ckutils.cuda.launcher import kernel_module
from ckutils.cuda.spectral import has_kernels

NUMBERS = {
    torch.float32: {"NUMBER": "float", "REAL": "float"},
    torch.float64: {"NUMBER": "double", "REAL": "double"},
    torch.complex64: {"NUMBER": "float2", "REAL": "float", "COMPLEX": 1},
    torch.complex128: {"NUMBER": "double2", "REAL": "double", "COMPLEX": 1},
}
_THREADS = 256  # the most of a block


class Launch(NamedTuple):
    grid: tuple[int, ...]
    block: tuple[int, ...]


def plan(rows: int, T: int, dtype, kernel: str = "linear_recurrence") -> Launch:
    """Grid and block: integers only. Chapter 4, eq. (4.5).

    Rows of up to 256 packs of 16 bytes are one tile; longer ones are cut evenly. Short
    rows share a block.

    >>> plan(16384, 1024, torch.complex64)  # two tiles of 512 steps
    Launch(grid=(16384,), block=(256, 1))
    >>> plan(16384, 100, torch.float32)
    Launch(grid=(2048,), block=(32, 8))
    """
    if kernel == "linear_recurrence_naive":
        return Launch((-(-rows // 64),), (64,))
    vec = 16 // dtype.itemsize
    packs = -(-T // vec) if T % vec == 0 else -(-(T + vec - 1) // vec)
    tiles = -(-packs // _THREADS)
    threads = -(-packs // tiles // 32) * 32
    together = min(_THREADS // threads, rows)
    return Launch((-(-rows // together),), (threads, together))


def run_kernel(
    a, b, initial, reverse=False, *, kernel="linear_recurrence", **how
) -> Tensor:
    """h (rows, T) by one of the forward kernels, on b's device: a GPU or the emulator.

    Chapter 4, eq. (4.5). `how` goes to the launch, as schedule="reverse".
    """
    h = b.new_empty(b.shape)
    _launch(kernel, (a, b, initial), (h,), reverse, how)
    return h


def run_backward(a, h, initial, g, reverse=False, **how) -> tuple[Tensor, Tensor]:
    """(ga, s): the gradients in a, at full size, and in b by the backward kernel.

    Chapter 4, eq. (4.5).
    """
    ga, s = h.new_empty(h.shape), h.new_empty(h.shape)
    inputs = a, h, initial, g
    _launch("linear_recurrence_backward", inputs, (ga, s), reverse, how)
    return ga, s


def _launch(kernel: str, inputs, outputs, reverse: bool, how) -> None:
    inputs = tuple(_ready(tensor) for tensor in inputs)
    (rows, T), dtype, (a_rows, a_T) = outputs[0].shape, inputs[0].dtype, inputs[0].shape
    module = kernel_module("linear_recurrence", inputs[0].device.type, **NUMBERS[dtype])
    args = (*inputs, *outputs, rows, T, a_rows, a_T, int(reverse))
    module.launch(kernel, *plan(rows, T, dtype, kernel), args, **how)


def _ready(x: Tensor) -> Tensor:
    """As the kernels take it: contiguous, true values, and aligned to 16 bytes."""
    x = x.contiguous().resolve_conj().resolve_neg()
    return x if x.data_ptr() % 16 == 0 else x.clone()


# The operators ---------------------------------------------------------------------


@torch.library.custom_op("ckutils::linear_recurrence", mutates_args=())
def recurrence_op(a: Tensor, b: Tensor, initial: Tensor, reverse: bool) -> Tensor:
    """h_t = a_t h_{t-1} + b_t from h_{-1} = initial; from the end if `reverse`.

    Chapter 4, eq. (4.5).

    Args:
        a: (a_rows, T) or (a_rows, 1), a_rows a divisor of b's rows; float32, float64,
            complex64 or complex128.
        b: (rows, T), initial: (rows,), both like a.
    Returns h (rows, T), contiguous; differentiable any number of times.
    """
    if has_kernels(b):
        return run_kernel(a, b, initial, reverse)
    from ckutils.scan import _blocked_scan  # which has this module's operators

    a, b = (x.flip(-1) if reverse else x for x in (_full(a, b), b))
    h = _blocked_scan(a, b, initial)
    # compiled code relies on what register_fake promises: contiguous, at every T
    return (h.flip(-1) if reverse else h).contiguous()


@recurrence_op.register_fake
def _(a, b, initial, reverse):
    return b.new_empty(b.shape)


@torch.library.custom_op("ckutils::linear_recurrence_backward", mutates_args=())
def backward_op(
    a: Tensor, h: Tensor, initial: Tensor, g: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """s_t = g_t + conj(a_{t+1}) s_{t+1} and s_t conj(h_{t-1}), the latter first."""
    if has_kernels(h):
        return run_backward(a, h, initial, g, reverse)
    # not .conj(): below torch.compile its lazy bit is lost
    ahead = torch.conj_physical(_next(_full(a, h), 0, reverse))
    s = recurrence_op(ahead, g, torch.zeros_like(initial), not reverse)
    return s * torch.conj_physical(_previous(h, initial, reverse)), s


@backward_op.register_fake
def _(a, h, initial, g, reverse):
    return h.new_empty(h.shape), h.new_empty(h.shape)


def _save(ctx, inputs, output) -> None:
    a, _, initial, ctx.reverse = inputs
    ctx.save_for_backward(a, initial, output)


def _gradients(ctx, g: Tensor):
    a, initial, h = ctx.saved_tensors
    ga, s = backward_op(a, h, initial, g, ctx.reverse)
    start = slice(-1, None) if ctx.reverse else slice(0, 1)
    at_start = (_full(a, h)[:, start].conj() * s[:, start]).squeeze(-1)
    return _reduced(ga, a), s, at_start, None


recurrence_op.register_autograd(_gradients, setup_context=_save)


def _save_backward(ctx, inputs, output) -> None:
    a, h, initial, _, ctx.reverse = inputs
    ctx.save_for_backward(a, h, initial, output[1])


def _gradients_of_backward(ctx, G_ga: Tensor, G_s: Tensor):
    """With s linear in g: its adjoint is the recurrence itself, v, on G_s + G_ga h."""
    a, h, initial, s = ctx.saved_tensors
    before = _previous(h, initial, ctx.reverse)
    zeros = torch.zeros_like(initial)
    v = recurrence_op(a, G_s + G_ga * before, zeros, ctx.reverse)
    grad_a = _previous(v, zeros, ctx.reverse).conj() * s
    grad_before = G_ga.conj() * s
    grad_h = _next(grad_before, 0, ctx.reverse)
    grad_initial = grad_before[:, -1 if ctx.reverse else 0]
    return _reduced(grad_a, a), grad_h, grad_initial, v, None


backward_op.register_autograd(_gradients_of_backward, setup_context=_save_backward)


@recurrence_op.register_vmap
def _(info, in_dims, a, b, initial, reverse):
    """The batch becomes rows."""
    sized = []
    for axis, x in zip(in_dims, (a, b, initial), strict=False):
        x = x.unsqueeze(0) if axis is None else x.movedim(axis, 0)
        sized.append(x.expand(info.batch_size, *x.shape[1:]))
    a, b, initial = sized
    a = a.repeat(1, b.shape[1] // a.shape[1], 1)
    h = recurrence_op(a.flatten(0, 1), b.flatten(0, 1), initial.flatten(), reverse)
    return h.unflatten(0, (info.batch_size, -1)), 0


# Shapes and shifts -----------------------------------------------------------------


def _full(a: Tensor, like: Tensor) -> Tensor:
    """a for each row and step of `like` (rows, T)."""
    rows, T = like.shape
    return a.expand(-1, T).repeat(rows // a.shape[0], 1)


def _reduced(grad: Tensor, a: Tensor) -> Tensor:
    """The sum of a full gradient over the rows and steps that share an entry of a."""
    grad = grad.unflatten(0, (-1, a.shape[0])).sum(0)
    return grad.sum(-1, keepdim=True) if a.shape[1] == 1 else grad


def _previous(x: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """x one step before, in the order of the recurrence; `first` at its start."""
    first = first.unsqueeze(-1)
    return torch.cat([x[:, 1:], first] if reverse else [first, x[:, :-1]], dim=-1)


def _next(x: Tensor, last, reverse: bool) -> Tensor:
    """x one step after; `last` at the end."""
    pad = torch.full_like(x[:, :1], last)
    return torch.cat([pad, x[:, :-1]] if reverse else [x[:, 1:], pad], dim=-1)
