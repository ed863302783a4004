"""Sums of exponentials as kernels: sampled, fitted, and summed at irregular times.

A kernel psi(s) = Re sum_k c_k exp(r_k s) is what a recurrence can make. Sampled with a
step it becomes weights c_k a_k^t; summed over samples at any times it needs one pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ckutils.checks import check_float, check_int, check_ndim, check_number, check_same
from ckutils.scan import _check_precision, linear_recurrence, powers


class Exponentials(NamedTuple):
    """kernel[t] = Re sum_k weights[k] poles[k]^t; both (terms,), complex128."""

    poles: Tensor
    weights: Tensor

    def kernel(self, length: int) -> Tensor:
        """(length,), float64."""
        return (self.weights @ powers(self.poles, length)).real


def fit_exponentials(
    kernel: Tensor, terms: int, *, stable: bool = True
) -> Exponentials:
    """kernel[t] ~ Re sum_k c_k a_k^t, |a_k| <= 1, by the shifts of a Hankel matrix.

    Chapter 4, eq. (4.12). The rows of H[i, j] = kernel[i + j] span a space in which a
    shift by one step is a small matrix; its eigenvalues are the poles. The weights then
    solve a linear least-squares problem. Source: Roy and Kailath (1989), "ESPRIT",
    IEEE Trans. Acoust. Speech Signal Process. 37(7).

    Args:
        kernel: (length,), float32 or float64; index 0 is lag 0.
        terms: how many complex exponentials, 1 <= terms <= length / 2 - 1.
        stable: move poles outside the unit circle onto it. Otherwise they stay, and the
            sum may grow beyond the fitted lags: of no use to a recurrence that runs on.
    Returns Exponentials. A real kernel needs two terms for each oscillation. Exact up
        to rounding if the kernel is such a sum of decaying exponentials; otherwise a
        good fit, not the best one, and worse again once terms exceed the numerical rank
        of H. A kernel that grows in places has no good stable fit.
    Raises ValueError for other shapes, dtypes or counts, or a kernel that is not
        finite. Cost: a singular value decomposition of a (length / 2, length / 2)
        matrix.

    >>> fit_exponentials(torch.tensor([4.0, 2, 1, 0.5, 0.25, 0.125]), 1).poles.real
    tensor([0.5000], dtype=torch.float64)
    """
    check_float(kernel=kernel)
    check_int(1, terms=terms)
    if kernel.ndim != 1:
        raise ValueError(f"kernel must have 1 axis, got shape {tuple(kernel.shape)}")
    if terms > len(kernel) // 2 - 1:
        raise ValueError(
            f"terms must be <= length / 2 - 1 = {len(kernel) // 2 - 1}, got {terms}"
        )
    if not bool(kernel.isfinite().all()):
        raise ValueError("kernel must be finite, got NaN or an infinity")
    values = kernel.double()
    hankel = values.unfold(0, len(values) // 2, 1)  # H[i, j] = kernel[i + j]
    frame = torch.linalg.svd(hankel.T, full_matrices=False).U[:, :terms]
    shift = torch.linalg.pinv(frame[:-1]) @ frame[1:]  # (terms, terms)
    poles = torch.linalg.eigvals(shift)
    if stable:
        poles = poles / poles.abs().clamp_min(1)
    table = powers(poles, len(values)).T  # (length, terms)
    # near-equal poles make the columns nearly dependent; what lies below is noise
    inverse = torch.linalg.pinv(table, rtol=1e-13)
    return Exponentials(poles, inverse @ values.to(table.dtype))


# From continuous to discrete time ------------------------------------------------


def zero_order_hold(rates: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """x' = r x + u, with u constant over each step: x_t = a x_{t-1} + g u_t, exactly.

    Chapter 4, eq. (4.24): a = exp(r step), g = (exp(r step) - 1) / r, which is `step`
    at r = 0. expm1 keeps g's digits for a short step, and a series those of its slope,
    which is step^2 / 2 at r = 0.

    Args:
        rates: (...,), real or complex; decay for a negative real part.
        step: > 0, in the unit of time of 1 / rates.
    Returns a and g, like `rates`.

    >>> zero_order_hold(torch.tensor([0.0]), 2.0)
    (tensor([1.]), tensor([2.]))
    """
    _check_step(step)
    z = rates * step
    return torch.exp(z), _hold_gain(z) * step


def _hold_gain(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z, for small z by 1 + z/2 (1 + z/3 (1 + z/4 (...))).

    The slope of the quotient is a difference divided by z: some eps / |z| of it is
    noise, and at z = 0 it is not defined. Within 1/64 the terms after z^7/8! are below
    rounding, in the slope too.
    """
    small = z.abs() < 1 / 64
    near, far = torch.where(small, z, 0), torch.where(small, 1, z)
    series = torch.ones_like(z)
    for k in range(8, 1, -1):
        series = 1 + near * series / k
    return torch.where(small, series, torch.expm1(far) / far)


def bilinear(rates: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """The trapezoidal rule for x' = r x + u: x_t = a x_{t-1} + g (u_t + u_{t-1}) / 2.

    Chapter 4, eq. (4.25): a = (1 + z) / (1 - z), g = step / (1 - z), z = r step / 2.
    The left half-plane goes into the unit disc, whatever the step; error O(step^2).

    Args:
        rates, step: as in `zero_order_hold`.
    Returns a and g, like `rates`.

    >>> bilinear(torch.tensor([-2.0]), 0.5)
    (tensor([0.3333]), tensor([0.3333]))
    """
    _check_step(step)
    z = rates * (step / 2)
    return (1 + z) / (1 - z), step / (1 - z)


def _check_step(step: float) -> None:
    check_number(0, step=step)
    if step == 0:
        raise ValueError(f"step must be > 0, got {step!r}")


# Irregular times -----------------------------------------------------------------


def exponentials_at(
    times: Tensor,
    values: Tensor,
    query_times: Tensor,
    *,
    rates: Tensor,
    coefficients: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """y_o(q) = sum over t_j <= q and i of psi_oi(q - t_j) w_j v_i(t_j), in one pass.

    Chapter 4, eq. (4.26), with psi_oi(s) = Re sum_k C_oik exp(r_k s). One recurrence a
    rate carries the sum from sample to sample: h_j = exp(r (t_j - t_{j-1})) h_{j-1} +
    w_j v_j; between samples it only decays.

    Args:
        times: (..., n), or (n,) for all, float32 or float64, ascending along the last
            axis.
        values: (..., c_in, n), like times.
        query_times: (..., q), like times, in any order; leading axes as times has them.
        rates: (k,), real or complex of that precision, real part <= 0 up to rounding,
            in 1 / unit of `times`.
        coefficients: (c_out, c_in, k), real or complex, of no higher precision.
        weights: (..., n), or (n,) for all, like times: the quadrature weights of the
            samples; None is all ones.
    Returns (..., c_out, q), like `times`.
    Raises ValueError for shapes, dtypes or devices that do not fit, times that descend
        or are NaN, or rates that grow.
    Cost: O(k c_in (n + q)) operations and memory, where the double sum needs n q.

    >>> t, v = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([[1.0, 2.0, 4.0]])
    >>> exponentials_at(t, v, torch.tensor([2.5, 3.0]), rates=torch.zeros(1),
    ...                 coefficients=torch.ones(1, 1, 1))
    tensor([[3., 7.]])
    """
    _check_samples(times, values, query_times, weights)
    _check_exponentials(times, values, rates, coefficients)
    steps = torch.diff(times, dim=-1, prepend=times[..., :1]).unsqueeze(-2)
    if weights is not None:
        values = values * weights.unsqueeze(-2)
    decay = torch.exp(rates.unsqueeze(-1) * steps).unsqueeze(-3)  # (..., 1, k, n)
    h = linear_recurrence(decay, values.unsqueeze(-2))  # (..., c_in, k, n)
    last = torch.searchsorted(times.contiguous(), query_times.contiguous(), right=True)
    seen = last > 0  # (..., q): a query before all samples sees none
    last = (last - 1).clamp_min(0)
    since = torch.where(seen, query_times - times.gather(-1, last), 0).unsqueeze(-2)
    fade = torch.exp(rates.unsqueeze(-1) * since) * seen.unsqueeze(-2)  # (..., k, q)
    at = last[..., None, None, :].expand(*h.shape[:-1], last.shape[-1])
    state = h.gather(-1, at) * fade.unsqueeze(-3)  # (..., c_in, k, q)
    dtype = torch.promote_types(state.dtype, coefficients.dtype)
    y = torch.einsum("oik,...ikq->...oq", coefficients.to(dtype), state.to(dtype))
    return y.real if y.is_complex() else y


def _check_samples(times, values, query_times, weights) -> None:
    named = {"times": times, "values": values, "query_times": query_times}
    named |= {} if weights is None else {"weights": weights}
    check_float(**named)
    check_same(**named)
    check_ndim(1, times=times, query_times=query_times)
    n = times.shape[-1]
    if n == 0 or values.ndim < 2 or values.shape[-1] != n:
        raise ValueError(
            f"values must be (..., c_in, {n}) for times {tuple(times.shape)} with at "
            f"least one sample, got shape {tuple(values.shape)}"
        )
    lead = tuple(values.shape[:-2])
    for name in named.keys() & {"times", "weights"}:
        shape = tuple(named[name].shape)
        if shape not in ((n,), (*lead, n)):
            raise ValueError(
                f"{name} must be {(n,)}, or {(*lead, n)} as values has leading axes "
                f"{lead}, got shape {shape}"
            )
    if query_times.shape[:-1] != times.shape[:-1]:
        raise ValueError(
            f"query_times must have the leading axes of times, "
            f"{tuple(times.shape[:-1])}, got shape {tuple(query_times.shape)}"
        )
    steps = torch.diff(times, dim=-1, prepend=times[..., :1])
    if not bool((steps >= 0).all()):  # NaN neither ascends nor descends
        raise ValueError(f"times must ascend, got a step of {float(steps.min())}")


def _check_exponentials(times, values, rates, coefficients) -> None:
    if isinstance(coefficients, Tensor):  # a lower precision is converted exactly
        wide = torch.promote_types(coefficients.dtype, times.dtype)
        coefficients = coefficients.to(wide)
    _check_precision("times", times=times, rates=rates, coefficients=coefficients)
    if rates.ndim != 1 or len(rates) == 0:
        raise ValueError(f"rates must be (k,), k >= 1, got shape {tuple(rates.shape)}")
    want = (values.shape[-2], len(rates))
    if coefficients.ndim != 3 or coefficients.shape[1:] != want:
        raise ValueError(
            f"coefficients must be (c_out, {want[0]}, {want[1]}), got shape "
            f"{tuple(coefficients.shape)}"
        )
    # a rate may be the logarithm of a pole on the unit circle, rounded: what counts is
    # that nothing grows visibly from the first sample to the last
    fastest = rates.detach().real.max()
    growth = fastest * (times[..., -1] - times[..., 0]).detach()
    if not bool((growth <= torch.finfo(times.dtype).eps ** 0.5).all()):
        raise ValueError(f"rates must have no real part > 0, got {float(fastest)}")
