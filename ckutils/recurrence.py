"""The linear recurrence four ways, and the linear recurrent unit.

h(t) = W h(t-1) + U x(t) is a causal convolution with the kernel U, WU, W^2 U, ...; a
diagonal W makes it n separate scalar recurrences, which `ckutils.scan` solves.
"""

import math

import torch
from torch import Tensor, nn

from ckutils.checks import check_float, check_int, check_ndim, check_number, check_same
from ckutils.exponentials import (
    Exponentials,
    bilinear,
    exponentials_at,
    fit_exponentials,
    zero_order_hold,
)
from ckutils.fftconv import causal_conv
from ckutils.scan import (
    geometric_spectrum,
    linear_recurrence,
    linear_recurrence_ref,
    linear_recurrence_route,
    powers,
)

__all__ = [
    "Exponentials",
    "LinearRecurrentUnit",
    "bilinear",
    "exponentials_at",
    "fit_exponentials",
    "geometric_spectrum",
    "linear_recurrence",
    "linear_recurrence_ref",
    "linear_recurrence_route",
    "lru_conv",
    "lru_kernel",
    "lru_loop",
    "powers",
    "zero_order_hold",
]

# A dense transition matrix -------------------------------------------------------


def lru_loop(W: Tensor, U: Tensor, x: Tensor, h0: Tensor | None = None) -> Tensor:
    """h(t) = W h(t-1) + U x(t), step by step.

    Chapter 4, eq. (4.1).

    Args:
        W: (n, n), float32 or float64.
        U: (n, c), like W.
        x: (b, c, t), like W; index 0 is the first step.
        h0: (b, n), the state h(-1) before the first step, or None for zeros.
    Returns h (b, n, t).
    Raises ValueError for shapes, dtypes or devices that do not fit.
    Cost: b t (n^2 + n c) products in t steps that wait for one another.

    >>> W, U = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    >>> lru_loop(W, U, torch.tensor([[[1.0, 1, 1]]]), h0=torch.tensor([[3.0]]))
    tensor([[[ 7., 15., 31.]]])
    """
    _check_lru(W, U, x, h0)
    h = x.new_zeros(x.shape[0], len(W)) if h0 is None else h0
    states = []
    for t in range(x.shape[-1]):
        h = h @ W.T + x[..., t] @ U.T  # (b, n)
        states.append(h)
    return torch.stack(states, dim=-1)


def lru_kernel(W: Tensor, U: Tensor, length: int) -> Tensor:
    """psi(tau) = W^tau U for tau = 0, ..., length - 1.

    Chapter 4, eq. (4.3). Doubling: W^m times the first m taps gives the next m.

    Args:
        W: (n, n), float32 or float64.
        U: (n, c), like W.
        length: taps, >= 1.
    Returns (n, c, length); index 0 is lag 0, so psi[..., 0] = U.
    Raises ValueError for shapes, dtypes or devices that do not fit.
    Cost: n^2 c length + n^3 log2(length) products in log2(length) steps. The powers
        W^m come from squaring, whose relative error grows like m eps.

    >>> lru_kernel(torch.tensor([[2.0]]), torch.tensor([[3.0]]), 4)
    tensor([[[ 3.,  6., 12., 24.]]])
    """
    _check_matrices(W, U)
    check_int(1, length=length)
    n, c = U.shape
    taps, power = U.unsqueeze(-1), W  # (n, c, m), W^m
    while taps.shape[-1] < length:
        later = (power @ taps.reshape(n, -1)).view(n, c, -1)
        taps, power = torch.cat([taps, later], dim=-1), power @ power
    return taps[..., :length]


def lru_conv(W: Tensor, U: Tensor, x: Tensor, h0: Tensor | None = None) -> Tensor:
    """h(t) = sum_tau psi(tau) x(t - tau) + W^{t+1} h(-1): `lru_loop` as a convolution.

    Chapter 4, eq. (4.4).

    Args and returns: as `lru_loop`.
    Raises ValueError for shapes, dtypes or devices that do not fit.
    Accuracy: that of the FFT, an absolute bound: eps log2(t) |psi| |x| at every t.
        Cost: O(b n c t + (b c + n c + b n) t log t); the kernel takes n c t numbers.

    >>> W, U = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    >>> x, h0 = torch.tensor([[[1.0, 1, 1]]]), torch.tensor([[3.0]])
    >>> lru_conv(W, U, x, h0).round()
    tensor([[[ 7., 15., 31.]]])
    """
    _check_lru(W, U, x, h0)
    length = x.shape[-1]
    h = causal_conv(x, lru_kernel(W, U, length))
    if h0 is not None:
        h = h + lru_kernel(W, W @ h0.T, length).transpose(0, 1)  # (b, n, t)
    return h


def _check_matrices(W: Tensor, U: Tensor) -> None:
    check_float(W=W, U=U)
    check_same(W=W, U=U)
    if W.ndim != 2 or W.shape[0] != W.shape[1]:
        raise ValueError(f"W must be a square matrix, got shape {tuple(W.shape)}")
    if U.ndim != 2 or len(U) != len(W):
        raise ValueError(f"U must be ({len(W)}, c) as W says, got {tuple(U.shape)}")


def _check_lru(W: Tensor, U: Tensor, x: Tensor, h0: Tensor | None) -> None:
    _check_matrices(W, U)
    check_float(x=x)
    check_same(W=W, x=x)
    if x.ndim != 3 or x.shape[1] != U.shape[1] or x.shape[2] == 0:
        raise ValueError(
            f"x must be (b, {U.shape[1]}, t) as U says, with t >= 1, got shape "
            f"{tuple(x.shape)}"
        )
    if h0 is not None:
        check_float(h0=h0)
        check_same(W=W, h0=h0)
        if h0.shape != (x.shape[0], len(W)):
            raise ValueError(
                f"h0 must be {(x.shape[0], len(W))}, (b, n), got {tuple(h0.shape)}"
            )


# The linear recurrent unit -------------------------------------------------------


class LinearRecurrentUnit(nn.Module):
    """h_t = lam h_{t-1} + gamma B x_t, y_t = Re(C h_t) + D x_t, lam complex, diagonal.

    Chapter 4, eqs. (4.18) to (4.22). Source: Orvieto et al. (2023), "Resurrecting
    recurrent neural networks for long sequences", sections 3.2 to 3.4.

    lam = exp(-e^nu_log + i e^theta_log) has |lam| < 1 whatever the parameters are.
    At the start |lam|^2 is uniform on [r_min^2, r_max^2], which is uniform by area on
    the ring, and the phase is uniform on [0, max_phase]. gamma = sqrt(1 - |lam|^2), set
    once and then learned, keeps |h| near |B x| for white inputs.

    Args:
        in_features, state_features, out_features: c_in, n, c_out, >= 1.
        r_min, r_max: 0 <= r_min < r_max <= 1.
        max_phase: in (0, 2 pi]; a small one starts with slow oscillations only.
    Raises ValueError for values out of these ranges.

    >>> unit = LinearRecurrentUnit(2, 8, 3, r_min=0.9, r_max=0.99)
    >>> unit(torch.zeros(5, 2, 100)).shape, unit.kernel(7).shape
    (torch.Size([5, 3, 100]), torch.Size([3, 2, 7]))
    """

    def __init__(
        self,
        in_features: int,
        state_features: int,
        out_features: int,
        *,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
    ):
        super().__init__()
        check_int(
            1,
            in_features=in_features,
            state_features=state_features,
            out_features=out_features,
        )
        check_number(0, 1, r_min=r_min, r_max=r_max)
        check_number(0, 2 * math.pi, max_phase=max_phase)
        if r_min >= r_max or max_phase == 0:
            raise ValueError(
                "r_min must be below r_max, and max_phase above 0, got "
                f"{r_min=}, {r_max=}, {max_phase=}"
            )
        c_in, n, c_out = in_features, state_features, out_features
        nu, theta = _ring(n, r_min, r_max, max_phase)
        self.nu_log = _parameter(nu.log())  # (n,)
        self.theta_log = _parameter(theta.log())  # (n,)
        self.gamma_log = _parameter(_gain(nu).log())  # (n,)
        # Pairs of reals as storage: .double() and .to(dtype) drop or skip imaginary
        # parts, and Adam must see them as two numbers. States are complex tensors.
        self.B_pair = _parameter(torch.randn(n, c_in, 2) / math.sqrt(2 * c_in))
        self.C_pair = _parameter(torch.randn(c_out, n, 2) / math.sqrt(n))
        self.D = _parameter(torch.randn(c_out, c_in) / math.sqrt(c_in))

    @property
    def lam(self) -> Tensor:
        """The eigenvalues (n,), complex; eq. (4.18)."""
        return torch.exp(torch.complex(-self.nu_log.exp(), self.theta_log.exp()))

    @property
    def B(self) -> Tensor:
        """(n, c_in), complex."""
        return torch.view_as_complex(self.B_pair)

    @property
    def C(self) -> Tensor:
        """(c_out, n), complex."""
        return torch.view_as_complex(self.C_pair)

    def forward(self, x: Tensor, initial: Tensor | None = None) -> Tensor:
        """x (*batch, c_in, t), initial (*batch, n) complex -> y (*batch, c_out, t)."""
        return self.readout(self.states(x, initial), x)

    def states(self, x: Tensor, initial: Tensor | None = None) -> Tensor:
        """h (*batch, n, t), complex; its last step is the `initial` of a next chunk."""
        check_ndim(2, x=x)
        check_same(D=self.D, x=x)
        self._check_features(x.shape[-2], x)
        driven = self._driven() @ x.to(self.B.dtype)  # (*batch, n, t)
        return linear_recurrence(self.lam[:, None], driven, initial=initial)

    def readout(self, h: Tensor, x: Tensor) -> Tensor:
        """y = Re(C h) + D x, with features on the last axis but one."""
        return (self.C @ h).real + self.D @ x

    def initial_state(self, batch: int) -> Tensor:
        """Zeros (batch, n), complex: what it remembers before the first sample."""
        check_int(1, batch=batch)
        return self.B.new_zeros(batch, self.B.shape[0])

    def step(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One sample x (*batch, c_in) and the state before it (*batch, n), or None.

        Returns y (*batch, c_out) and the new state: constant memory, whatever came.
        """
        check_ndim(1, x=x)
        check_same(D=self.D, x=x)
        self._check_features(x.shape[-1], x)
        driven = x.to(self.B.dtype) @ self._driven().T  # (*batch, n)
        h = driven if h is None else self.lam * h + driven
        return (h @ self.C.T).real + x @ self.D.T, h

    def kernel(self, length: int) -> Tensor:
        """The convolution that this unit is from a zero state: (c_out, c_in, length).

        kernel[..., t] = Re(C diag(gamma lam^t) B), and D besides at lag 0; eq. (4.22).
        """
        check_int(1, length=length)
        taps = powers(self.lam, length)  # (n, length)
        kernel = torch.einsum("on,nt,ni->oit", self.C, taps, self._driven()).real
        return torch.cat([kernel[..., :1] + self.D[..., None], kernel[..., 1:]], dim=-1)

    def extra_repr(self) -> str:
        (n, c_in), c_out = self.B.shape, len(self.D)
        return f"in_features={c_in}, state_features={n}, out_features={c_out}"

    def _driven(self) -> Tensor:
        return self.gamma_log.exp()[:, None] * self.B  # (n, c_in)

    def _check_features(self, features: int, x: Tensor) -> None:
        if features != self.D.shape[1]:
            raise ValueError(
                f"x must have {self.D.shape[1]} features, got shape {tuple(x.shape)}"
            )


def _parameter(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(torch.get_default_dtype()))


def _ring(n: int, r_min: float, r_max: float, max_phase: float):
    """-log |lam| and the phase, (n,) each in double; eq. (4.19)."""
    # drawn inside (0, 1): at its ends |lam| would be r_min = 0 or r_max = 1 exactly
    area, turn = torch.rand(2, n, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    nu = -0.5 * torch.log(area * (r_max**2 - r_min**2) + r_min**2)
    return nu, max_phase * turn


def _gain(nu: Tensor) -> Tensor:
    """sqrt(1 - |lam|^2) for |lam| = exp(-nu), eq. (4.20); expm1 keeps digits."""
    return torch.sqrt(-torch.expm1(-2 * nu))
