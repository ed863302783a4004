"""The scalar linear recurrence h_t = a_t h_{t-1} + b_t: a loop, a scan, an FFT.

Time is the last axis and all others are batch axes. The three methods compute the same
numbers up to rounding; what differs is how many operations must wait for another.
"""

import cmath
import math

import torch
from torch import Tensor
from torch.compiler import is_compiling

from ckutils.checks import check_choice, check_int
from ckutils.cuda.linear_recurrence import recurrence_op
from ckutils.cuda.spectral import has_kernels
from ckutils.fftconv import fft_length

__all__ = [
    "geometric_spectrum",
    "linear_recurrence",
    "linear_recurrence_ref",
    "linear_recurrence_route",
    "powers",
]

_BLOCK = 32  # steps that follow one another in a block; the blocks run side by side
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
_REAL = {**{real: real for real in _COMPLEX}, **{v: k for k, v in _COMPLEX.items()}}


def linear_recurrence(
    a: Tensor, b: Tensor, *, initial: Tensor | None = None, method: str = "auto"
) -> Tensor:
    """h_t = a_t h_{t-1} + b_t for t = 0, 1, ..., with h_{-1} = `initial`.

    Chapter 4, eq. (4.5). Source: Blelloch (1990), "Prefix sums and their applications",
    section 1.4.

    Args:
        a: coefficients (..., t), or (..., 1) (or a 0-axis tensor) when they do not
            change in time; float32, float64, complex64 or complex128.
        b: inputs (..., t), any t, of a's precision; index 0 is the first step. If one
            of `a`, `b`, `initial` is complex, all are taken as complex.
        initial: the state before the first step (...,), or None for zeros. The batch
            axes of all three broadcast.
        method: "loop" is the definition and serves any coefficients; "scan" runs blocks
            side by side and forms products of coefficients, which must stay in range;
            "fft" convolves with a^t and needs constant coefficients with |a| <= 1;
            "cuda" is the scan as one GPU kernel; "auto" is that on a GPU with CuPy,
            else the scan: `linear_recurrence_route` says which.
    Returns h (..., t). All methods are differentiable in `a`, `b` and `initial`, any
        number of times; the scan's reverse pass is again a scan and stores only h.
        Where |a| > 1, products of many coefficients may overflow although no state
        does. "scan" and "cuda" then give NaN or infinities, from there to the row's
        end; "auto" sees it in the last state and takes the loop instead, but on a GPU,
        where a look at it would wait for the kernel. A product that underflows counts
        as 0, also where later ones would raise it again.
    Raises ValueError for shapes, dtypes or devices that do not fit, or "fft" with
        coefficients that change or grow, or "cuda" without a GPU.
    Accuracy: loop and scan |error| <= about 2 t eps max|h| for |a| <= 1 (nothing is
        divided); fft about eps log2(t) |b| |a^t| at every t, so a quiet tail after a
        loud start keeps few digits. Cost: loop t steps one after the other; scan about
        3 t products in some 32 log32(t) steps; fft three transforms of length 2 t.

    >>> a, b = torch.tensor([5.0, 2, 2, 0]), torch.tensor([1.0, 1, 1, 1])
    >>> linear_recurrence(a, b)
    tensor([1., 3., 7., 1.])
    >>> linear_recurrence(a[:1], b, initial=torch.tensor(2.0))
    tensor([  11.,   56.,  281., 1406.])
    """
    check_choice(("auto", *_METHODS), method=method)
    a, b, initial = _prepare(a, b, initial)
    if b.numel() == 0:
        return b.clone()
    way = _method(b, method)
    h = _METHODS[way](a, b, initial)
    if method == "auto" and way == "scan" and _overflowed(h):
        h = _loop(a, b, initial)
    return h


def _overflowed(h: Tensor) -> bool:
    """Whether a scan's product or state overflowed: infinity and NaN stay to the end.

    For inf times anything is inf or NaN. So a look at the last states is enough, at
    their sum even, and costs little beside the scan; compiled code goes without.
    """
    skip = h.is_meta or is_compiling()
    return not (skip or cmath.isfinite(h.detach()[..., -1].sum().item()))


def linear_recurrence_ref(
    a: Tensor, b: Tensor, *, initial: Tensor | None = None
) -> Tensor:
    """`linear_recurrence`, letter by letter: the oracle of all other methods.

    >>> linear_recurrence_ref(torch.tensor([2.0]), torch.tensor([1.0, 1, 1]))
    tensor([1., 3., 7.])
    """
    a, b, initial = _prepare(a, b, initial)
    return _loop(a, b, initial) if b.shape[-1] else b.clone()


def _prepare(a: Tensor, b: Tensor, initial: Tensor | None):
    """One dtype; b (*batch, t) and initial (*batch,) at full shape, a broadcastable."""
    named = {"a": a, "b": b} | ({} if initial is None else {"initial": initial})
    _check_precision("b", **named)
    if b.ndim == 0:
        raise ValueError("b must have at least 1 axis, time, got shape ()")
    a = a.reshape(1) if a.ndim == 0 else a
    if a.shape[-1] not in (1, b.shape[-1]):
        raise ValueError(
            f"a must have 1 or {b.shape[-1]} entries in time, as b has, got shape "
            f"{tuple(a.shape)} for b {tuple(b.shape)}"
        )
    batch = _batch(a, b, initial)
    complex_any = any(value.is_complex() for value in named.values())
    dtype = _COMPLEX[_REAL[b.dtype]] if complex_any else b.dtype
    b = b.to(dtype).expand(*batch, b.shape[-1])
    start = b.new_zeros(batch) if initial is None else initial.to(dtype).expand(batch)
    a = a.reshape(*(1,) * (b.ndim - a.ndim), *a.shape)
    return a.to(dtype), b, start


def _check_precision(like: str, /, **named) -> None:
    """Raise ValueError unless all are real or complex, of `like`'s precision."""
    for name, value in named.items():
        if not isinstance(value, Tensor) or value.dtype not in _REAL:
            got = value.dtype if isinstance(value, Tensor) else type(value)
            raise ValueError(
                f"{name} must be a float32, float64, complex64 or complex128 tensor, "
                f"got {got}"
            )
    head = named[like]
    for name, value in named.items():
        if _REAL[value.dtype] != _REAL[head.dtype] or value.device != head.device:
            raise ValueError(
                f"{name} must have the precision and device of {like}, {head.dtype} on "
                f"{head.device}, got {value.dtype} on {value.device}"
            )


def _batch(a: Tensor, b: Tensor, initial: Tensor | None):
    shapes = [a.shape[:-1], b.shape[:-1]]
    shapes += [] if initial is None else [initial.shape]
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        listed = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(
            f"the batch axes of a, b and initial must broadcast, got {listed}"
        ) from None


# The loop ------------------------------------------------------------------------


def _loop(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    states = []
    # unbind, not b[..., t]: the gradient of T slices would be T arrays of length T
    a = a.expand(*a.shape[:-1], b.shape[-1])
    for a_t, b_t in zip(a.unbind(-1), b.unbind(-1), strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states, dim=-1)


# The scan ------------------------------------------------------------------------


def _blocked_scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """h of (..., t) in three moves: inside all blocks, between them, and together.

    From its block's start s a state is h_j = p_j s + q_j, with q the recurrence from
    zero and p the product of the coefficients so far. The starts are themselves a
    recurrence, of t / 32 steps, and are found in the same way.
    """
    t = b.shape[-1]
    p, q = _blocks(a, t), _blocks(b, t)  # (32, ..., t / 32)
    rows_p, rows_q = p.unbind(), q.unbind()
    for j in range(1, len(rows_q)):
        rows_q[j].addcmul_(rows_p[j], rows_q[j - 1])  # rows_p[j] is still a_j here
        rows_p[j].mul_(rows_p[j - 1])
    starts = start.unsqueeze(-1)  # (..., 1)
    if q.shape[-1] > 1:
        ends = _blocked_scan(rows_p[-1], rows_q[-1], start)
        starts = torch.cat([starts, ends[..., :-1]], dim=-1)  # (..., t / 32)
    for p_j, q_j in zip(rows_p, rows_q, strict=True):
        q_j.addcmul_(p_j, starts)  # row by row: p_j and q_j may still be in the cache
    return _unblocked(q, p)[..., :t]


def _blocks(x: Tensor, t: int) -> Tensor:
    """(..., t) as (steps, ..., blocks), a fresh copy; zeros fill the last block.

    Neighbours in memory then run side by side, so each step is one pass over a row.
    """
    steps = min(t, _BLOCK)
    if x.shape[-1] < t:  # a constant coefficient: the same in all blocks
        return x.expand(*x.shape[:-1], steps).movedim(-1, 0).unsqueeze(-1).clone()
    blocks = -(-t // steps)
    if blocks * steps > t:
        x = torch.nn.functional.pad(x, (0, blocks * steps - t))
    rows = x.new_empty(steps, *x.shape[:-1], blocks)
    # as matrices, because copy_ transposes a matrix tile by tile
    rows.view(steps, -1).copy_(x.reshape(-1, steps).t())
    return rows


def _unblocked(h: Tensor, spent: Tensor) -> Tensor:
    """(steps, ..., blocks) as (..., steps * blocks), in `spent`'s memory if it fits.

    A fresh buffer would cost as much as the scan: the system clears its pages first.
    """
    steps, *batch, blocks = h.shape
    out = spent if spent.shape == h.shape else torch.empty_like(h)
    out.view(-1, steps).copy_(h.view(steps, -1).t())
    return out.view(*batch, blocks * steps)


class _Scan(torch.autograd.Function):
    """The scan and its reverse pass, which is a scan that runs from the end.

    With g_t the gradient that arrives at h_t, the whole gradient at h_t is
    l_t = g_t + conj(a_{t+1}) l_{t+1}; a_t then gets l_t conj(h_{t-1}).
    """

    @staticmethod
    def forward(a, b, initial):
        return _blocked_scan(a, b, initial)

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, _, initial = inputs
        ctx.save_for_backward(a, initial, output)

    @staticmethod
    def backward(ctx, grad):
        a, initial, h = ctx.saved_tensors
        # a_{t+1} at step t; what the last step gets here multiplies the zero beyond it
        ahead = a.conj().roll(-1, -1)
        late = linear_recurrence(ahead.flip(-1), grad.flip(-1)).flip(-1)
        grad_a = grad_initial = None
        if ctx.needs_input_grad[0]:
            before = torch.cat([initial.unsqueeze(-1), h[..., :-1]], dim=-1)
            grad_a = (late * before.conj()).sum_to_size(a.shape)
        if ctx.needs_input_grad[2]:
            grad_initial = late[..., 0] * a[..., 0].conj()
        return grad_a, late, grad_initial


# The FFT -------------------------------------------------------------------------


def powers(a: Tensor, length: int) -> Tensor:
    """a^0, a^1, ..., a^(length - 1) along a new last axis.

    Chapter 4, eq. (4.6). Doubling: the first n powers times a^n are the next n. Built
    in double precision and rounded once, because squaring doubles a relative error:
    in complex64 the modulus of a^n is off by about n eps.

    Args:
        a: (...,), real or complex.
        length: how many, >= 1.
    Returns (..., length), like a.

    >>> powers(torch.tensor([2.0, -1.0]), 4)
    tensor([[ 1.,  2.,  4.,  8.],
            [ 1., -1.,  1., -1.]])
    """
    check_int(1, length=length)
    step = a.to(torch.complex128 if a.is_complex() else torch.float64).unsqueeze(-1)
    table = torch.ones_like(step)
    while table.shape[-1] < length:
        table = torch.cat([table, table * step], dim=-1)
        step = step * step
    return table[..., :length].to(a.dtype)


def geometric_spectrum(a: Tensor, length: int, n_fft: int) -> Tensor:
    """The DFT of a^0, ..., a^(length - 1), 0, ..., 0 in closed form, without an FFT.

    Chapter 4, eq. (4.7): with w = exp(-2 pi i f / n_fft), the sum of (a w)^t is
    (1 - (a w)^length) / (1 - a w) = expm1(length z) / expm1(z), z = log(a w). Near
    a w = 1 the first form loses digits and the second does not; z = 0 gives `length`.

    Args:
        a: (...,), real or complex, |a| <= 1.
        length: terms of the sum, 1 <= length <= n_fft.
        n_fft: points of the transform.
    Returns (..., n_fft), complex128.
    Raises ValueError for counts below 1 or more terms than points.

    >>> geometric_spectrum(torch.tensor(1.0), 4, 4).real.round().abs()
    tensor([4., 0., 0., 0.], dtype=torch.float64)
    """
    check_int(1, length=length, n_fft=n_fft)
    if length > n_fft:
        raise ValueError(f"length must be <= n_fft = {n_fft}, got {length}")
    a = a.to(torch.complex128).unsqueeze(-1)
    # signed, in [-1/2, 1/2): a small angle keeps its digits on both sides of 0
    turns = torch.fft.fftfreq(n_fft, dtype=torch.float64, device=a.device)
    # one rounding of log a stays one rounding; a = 0 would give NaN further down
    size = a.abs().clamp_min(torch.finfo(torch.float64).tiny).log()
    angle = a.angle() - 2 * math.pi * turns
    angle = angle - 2 * math.pi * (angle / (2 * math.pi)).round()
    z = torch.complex(size.expand_as(angle), angle)
    top, low = torch.expm1(length * z), torch.expm1(z)
    pole = low == 0
    return torch.where(pole, length, top / torch.where(pole, 1, low))


def _by_fft(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """sum_s a^s b_{t-s} + a^{t+1} h_{-1}."""
    t = b.shape[-1]
    if a.shape[-1] != 1 and t > 1:
        raise ValueError(
            "method 'fft' needs coefficients that do not change, a (..., 1), got shape "
            f"{tuple(a.shape)}"
        )
    if bool((a.abs() > 1 + 4 * torch.finfo(a.dtype).eps).any()):
        raise ValueError(
            f"method 'fft' needs |a| <= 1, got {float(a.abs().max())}: beyond 1 its "
            "absolute error swamps the early states"
        )
    n_fft = fft_length(2 * t - 1)  # nothing wraps around
    table = powers(a[..., 0], t + 1)  # (..., t + 1)
    fft, ifft = _FFT[b.is_complex()]
    spectrum = fft(table[..., :t], n_fft) * fft(b, n_fft)
    return ifft(spectrum, n_fft)[..., :t] + table[..., 1:] * initial.unsqueeze(-1)


_FFT = {False: (torch.fft.rfft, torch.fft.irfft), True: (torch.fft.fft, torch.fft.ifft)}

# Which method --------------------------------------------------------------------


def linear_recurrence_route(
    a: Tensor, b: Tensor, *, initial: Tensor | None = None, method: str = "auto"
) -> str:
    """The way that `linear_recurrence` takes with these arguments.

    Chapter 4, section 4.9: "loop", "scan", "fft", or "linear_recurrence.cu", the scan
    as one GPU kernel. With "auto" a scan whose products overflow is followed by the
    loop; nothing is computed here to foresee it. Args and raises: as
    `linear_recurrence`.

    >>> linear_recurrence_route(torch.tensor([2.0]), torch.tensor([1.0, 1.0]))
    'scan'
    """
    check_choice(("auto", *_METHODS), method=method)
    _, b, _ = _prepare(a, b, initial)
    return {"cuda": "linear_recurrence.cu"}.get(_method(b, method), _method(b, method))


def _method(b: Tensor, method: str) -> str:
    if method == "auto":
        return "cuda" if has_kernels(b) else "scan"
    return method


def _on_cuda(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    if not (b.is_cuda or has_kernels(b)):
        raise ValueError(
            f"method 'cuda' needs tensors on a GPU, got b on {b.device}; within "
            "ckutils.cuda.standin.cupy_on_cpu() the kernel's text runs on a CPU"
        )
    rows = b.numel() // b.shape[-1]
    if any(size == 1 for size in a.shape[:-1]):
        a = _without_repeats(a, b)
    h = recurrence_op(
        a.reshape(-1, a.shape[-1]), b.reshape(rows, -1), initial.reshape(rows), False
    )
    return h.view(b.shape)


def _without_repeats(a: Tensor, b: Tensor) -> Tensor:
    """a with the batch axes of b but for leading ones, which the kernel repeats."""
    while a.ndim > 1 and a.shape[0] == 1:
        a = a[0]
    batch = b.shape[b.ndim - a.ndim : -1]
    return a.expand(*batch, a.shape[-1])


_METHODS = {"loop": _loop, "scan": _Scan.apply, "fft": _by_fft, "cuda": _on_cuda}
