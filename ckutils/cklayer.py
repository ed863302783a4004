"""CKConv: a causal convolution whose kernel a network computes.

`ckutils.ckconv` offers it too. Signals are (b, c, t). A kernel is a function of the
lag: lag 0, the present sample, stands at position +1 and lag horizon - 1 at position
-1, as in the released code.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ckutils import factorised
from ckutils.checks import (
    check_choice,
    check_float,
    check_int,
    check_number,
    check_same,
)
from ckutils.cuda import by_spectra, spectral
from ckutils.fftconv import METHODS, causal_conv, causal_conv_route
from ckutils.kernel_nets import Mlp, RandomFourierNet, Siren

# What a net does with these: readout(features(positions)), and nothing else.
_FACTORISED_FORWARDS = (Mlp.forward, RandomFourierNet.forward, Siren.forward)


class CKConv(nn.Module):
    """y[o, t] = bias[o] + sum over i and tau <= t of psi[o, i](tau) x[i, t - tau].

    Chapter 3, eq. (3.21). Source: Romero et al. (2021), arXiv:2102.02611, eq. (14).

    Args:
        in_channels, out_channels: sizes >= 1.
        kernel_net: positions (..., 1) in [-1, 1] -> (..., out_channels * in_channels);
            None is a Siren of two layers of 32 sines. `ckutils.kernel_nets` has more.
            Signals have the dtype and device of its first real parameter.
        omega_0: of that Siren; not used beside a `kernel_net`.
        horizon: over how many samples, at the training rate, the kernel reaches; it is
            0 beyond. None: the length of the first signal.
        bias: learn an offset an output channel.
        method: "factorised" convolves by the spectra of the network's last hidden layer
            wherever there are fewer hidden units than kernels and the network is surely
            readout(features(positions)) with a linear readout: a Siren, Mlp or
            RandomFourierNet, or a class whose `forward` is that of one of them, without
            hooks. Else, and where it does not apply, a method of `causal_conv`.
        kernel_dropout: the probability with which each kernel value is dropped in
            training; above 0 the kernel is formed.
    Input (b, in_channels, t), output (b, out_channels, t). Raises ValueError for sizes
        below 1, another method, a network that is no module or gives another number of
        values, or a signal of another shape, dtype or device.
    Cost: see `factorised.mixed_causal_conv`. In evaluation mode without gradients the
        kernel's spectrum is kept from call to call, until a parameter or buffer of the
        network changes. torch counts no change through `.data`, and an attribute that
        is no tensor, as omega_0, counts none either: call eval() after such a change.

    >>> layer = CKConv(2, 3)
    >>> layer(torch.zeros(1, 2, 50)).shape, layer.horizon, layer.kernel(50).shape
    (torch.Size([1, 3, 50]), 50, torch.Size([3, 2, 50]))
    """

    # A spectrum above this many bytes is not kept; that of its hidden units is.
    cache_bytes = 1 << 26

    def __init__(
        self, in_channels: int, out_channels: int, *,
        kernel_net: nn.Module | None = None, omega_0: float = 30.0,
        horizon: int | None = None, bias: bool = True, method: str = "factorised",
        kernel_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        check_int(1, in_channels=in_channels, out_channels=out_channels)
        check_int(1, horizon=1 if horizon is None else horizon)
        check_choice(("factorised", *METHODS), method=method)
        check_number(0, 1, kernel_dropout=kernel_dropout)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.horizon, self.method = horizon, method
        self.kernel_dropout = kernel_dropout
        pairs = in_channels * out_channels
        if kernel_net is None:
            kernel_net = Siren(1, pairs, omega_0=omega_0)
        _check_net(kernel_net, pairs)
        self.kernel_net = kernel_net
        # dtype and device of a network without parameters; it goes where the layer goes
        self.register_buffer("_here", torch.empty(0), persistent=False)
        bound = in_channels**-0.5
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self._cache = (None, None)

    def kernel(self, length: int, *, resolution: float = 1.0) -> Tensor:
        """psi at lags 0, 1/resolution, 2/resolution, ...: (c_out, c_in, length).

        Chapter 3, eq. (3.15). The values of a function: no factor depends on the
        resolution. They are 0 beyond the horizon, which is set if it was None.

        Args:
            length: how many lags.
            resolution: samples per sample at the training rate.
        Raises ValueError for a length below 1 or a resolution <= 0.
        """
        check_int(1, length=length)
        reach = self._reach(length, resolution)
        values = self._values(self._positions(self._lags(reach, resolution)))
        values = self._as_kernel(values)
        return functional.pad(values, (0, length - reach))

    def forward(self, x: Tensor, *, resolution: float = 1.0) -> Tensor:
        """The convolution of a signal sampled `resolution` times as densely as before.

        Chapter 3, eq. (3.33): the sum is multiplied by the step 1/resolution.
        """
        self._check_signal("t", x=x)
        reach = self._reach(x.shape[-1], resolution)
        if not self._is_factorised():
            kernel = self.kernel(reach, resolution=resolution) / resolution
            kernel = functional.dropout(kernel, self.kernel_dropout, self.training)
            method = "auto" if self.method == "factorised" else self.method
            y = causal_conv(x, kernel, method=method)
        elif self.training or torch.is_grad_enabled():
            y = factorised.mixed_causal_conv(x, *self._mixture(reach, resolution))
        else:
            y = self._from_cache(x, reach, resolution)
        return y if self.bias is None else y + self.bias[:, None]

    def route(self, x: Tensor, *, resolution: float = 1.0) -> str:
        """The way that forward() takes with this signal, in this mode.

        "factorised", with " by spectral_product.cu" behind it where that kernel mixes
        and multiplies, or what `causal_conv_route` says of the kernel that is formed.
        """
        self._check_signal("t", x=x)
        if self._is_factorised():
            kernels = " by spectral_product.cu" if spectral.has_kernels(x) else ""
            return f"factorised{kernels}"
        length = x.shape[-1]
        reach = length if self.horizon is None else self._reach(length, resolution)
        kernel = x.new_empty(1).expand(self.out_channels, self.in_channels, reach)
        method = "auto" if self.method == "factorised" else self.method
        return causal_conv_route(x, kernel, method=method)

    def at(
        self, times: Tensor, values: Tensor, query_times: Tensor, *,
        weights: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """y[o](q) = bias[o] + sum over t_j <= q of w_j psi[o](q - t_j) x(t_j).

        Chapter 3, eq. (3.29): irregular samples at their true times, in units of the
        training step. On times 0, 1, 2, ... with weights 1 it is forward().

        Args:
            times: (n,) or (b, n), n >= 1, in any order, float or integer.
            values: (b, c_in, n), of the layer's dtype.
            query_times: (q,) or (b, q), like times.
            weights: (n,) or (b, n); a sample of weight 0 counts as absent, whatever
                its value. None is 1; 1/density makes the sum estimate an integral.
        Returns (b, c_out, q). Raises ValueError for shapes, dtypes or devices that do
            not fit, or if the horizon is not set.
        Cost: q n (hidden c_in) products and sums; no kernel matrix is formed.
        """
        if self.horizon is None:
            raise ValueError("horizon must be set before irregular times, got None")
        self._check_signal("n", values=values)
        times, query_times, weights = _check_samples(
            times, values, query_times, weights
        )
        values = torch.where(weights[:, None] == 0, 0, values * weights[:, None])
        step = max(1, (1 << 22) // (values.shape[-1] * 33))  # queries: a few MB of lags
        parts = [
            self._at(part[..., None] - times[:, None], values)
            for part in query_times.split(step, dim=-1)
        ]
        y = torch.cat(parts, dim=-1)
        return y if self.bias is None else y + self.bias[:, None]

    def _at(self, lags: Tensor, values: Tensor) -> Tensor:
        """The sum of `at` for lags (b or 1, q, n), values (b, c_in, n)."""
        seen = ((lags >= 0) & (lags <= self.horizon - 1))[..., None]
        positions = self._positions(lags)
        if not _is_readout_of_features(self.kernel_net):
            kernel = self._values(positions).where(seen, 0)  # (b, q, n, c_out c_in)
            kernel = kernel.unflatten(-1, (self.out_channels, self.in_channels))
            return torch.einsum("bqnoi,bin->boq", _expand(kernel, values), values)
        basis = _with_one(self.kernel_net.features(positions)).where(seen, 0)
        moments = torch.einsum("bqnh,bin->bqih", _expand(basis, values), values)
        return torch.einsum("bqih,oih->boq", moments, self._mix())

    def initial_state(self, batch: int) -> Tensor:
        """What it remembers before the first sample: no samples, (b, c_in, 0)."""
        check_int(1, batch=batch)
        if self.horizon is None:
            raise ValueError("horizon must be set before streaming, got None")
        return self._like().new_zeros(batch, self.in_channels, 0)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of the next chunk (b, c_in, n), and the state after it.

        Concatenated over any cut into chunks they are forward() of the whole signal, up
        to rounding. The state holds up to horizon - 1 past samples.
        """
        seen = torch.cat([state, x], dim=-1)
        y = self(seen)[..., state.shape[-1] :]
        keep = min(self.horizon - 1, seen.shape[-1])
        return y, seen[..., seen.shape[-1] - keep :]

    # From lags to kernels ----------------------------------------------------------

    def _reach(self, length: int, resolution: float) -> int:
        """How many of `length` lags lie within the horizon, which is set if None."""
        check_number(1e-6, resolution=resolution)
        if self.horizon is None:
            self.horizon = math.ceil((length - 1) / resolution - 1e-9) + 1
        return min(length, math.floor((self.horizon - 1) * resolution + 1e-9) + 1)

    def _lags(self, length: int, resolution: float) -> Tensor:
        device = self._like().device
        return torch.arange(length, dtype=torch.float64, device=device) / resolution

    def _positions(self, lags: Tensor) -> Tensor:
        """Lag tau at 1 - 2 tau/(horizon - 1), with a last axis of 1; eq. (3.15)."""
        positions = 1 - lags * (2 / max(1, self.horizon - 1))
        return positions[..., None].to(self._like().dtype)

    def _like(self) -> Tensor:
        """A tensor of the layer's dtype and device."""
        weights = self.kernel_net.parameters()
        return next((p for p in weights if p.is_floating_point()), self._here)

    def _values(self, positions: Tensor) -> Tensor:
        """The network's (..., c_out c_in) at positions (..., 1)."""
        values = self.kernel_net(positions)
        want = (*positions.shape[:-1], self.out_channels * self.in_channels)
        if values.shape != want:
            raise ValueError(
                f"kernel_net must map positions {tuple(positions.shape)} to values "
                f"{want}, got shape {tuple(values.shape)}"
            )
        return values

    def _as_kernel(self, values: Tensor) -> Tensor:
        """(t, c_out c_in) -> (c_out, c_in, t)."""
        return values.T.unflatten(0, (self.out_channels, self.in_channels))

    # The factorised route ----------------------------------------------------------

    def _is_factorised(self) -> bool:
        net = self.kernel_net
        dropped = self.training and self.kernel_dropout > 0
        if self.method != "factorised" or dropped or not _is_readout_of_features(net):
            return False
        return net.readout.in_features < self.in_channels * self.out_channels

    def _mix(self) -> Tensor:
        """The readout's weights and biases, or zeros, as (c_out, c_in, h + 1)."""
        weight, bias = self.kernel_net.readout.weight, self.kernel_net.readout.bias
        bias = torch.zeros_like(weight[:, 0]) if bias is None else bias
        mix = torch.cat([weight, bias[:, None]], dim=1)
        return mix.unflatten(0, (self.out_channels, self.in_channels))

    def _mixture(self, reach: int, resolution: float) -> tuple[Tensor, Tensor]:
        """basis (h + 1, reach), the last row ones, over the resolution; and mix."""
        positions = self._positions(self._lags(reach, resolution))
        basis = _with_one(self.kernel_net.features(positions)).T
        return basis / resolution, self._mix()

    def _state(self) -> list[Tensor]:
        """The network's parameters and buffers, in one walk, as each call needs it."""
        modules = self.kernel_net.modules()
        named = [group for m in modules for group in (m._parameters, m._buffers)]
        return [v for group in named for v in group.values() if v is not None]

    def _from_cache(self, x: Tensor, reach: int, resolution: float) -> Tensor:
        state, on_gpu = self._state(), spectral.has_kernels(x)
        if any(value.is_inference() for value in state):  # torch counts no changes
            return factorised.mixed_causal_conv(x, *self._mixture(reach, resolution))
        versions = [(v.data_ptr(), v._version, v.dtype) for v in state]
        key = (reach, x.shape[-1], resolution, self.horizon, on_gpu, versions)
        if self._cache[0] != key:
            spectra = self._spectra(x.shape[-1], reach, resolution, on_gpu)
            # the tensors are held: freed, they could leave their address to others
            self._cache = key, spectra, [value.detach() for value in state]
        if on_gpu:
            return by_spectra.convolve_mixed(x, *self._cache[1])
        h_hat, mix, k_hat = self._cache[1]

        def tile(f):
            if k_hat is None:
                return factorised.kernel_spectrum(h_hat[f], mix)
            return k_hat[f]

        return factorised.multiply_spectra(x, tile, h_hat.shape[0], self.out_channels)

    def _spectra(self, t: int, reach: int, resolution: float, on_gpu: bool) -> tuple:
        """Of the hidden units, the mix, and if it is small that of the kernel."""
        basis, mix = self._mixture(reach, resolution)
        if on_gpu:
            return by_spectra.basis_spectra(basis, t), mix
        h_hat, k_hat = factorised.basis_spectrum(basis, t), None
        if h_hat[..., 0].numel() * mix[..., 0].nbytes <= self.cache_bytes:
            k_hat = factorised.kernel_spectrum(h_hat, mix)
        return h_hat, mix, k_hat

    def train(self, mode: bool = True):
        self._cache = (None, None)
        return super().train(mode)

    def get_extra_state(self):
        return self.horizon

    def set_extra_state(self, state):
        self.horizon = state

    def _check_signal(self, axis: str, **named: Tensor) -> None:
        """That the one tensor is (b, in_channels, axis), not empty, of our dtype."""
        ((name, x),) = named.items()
        check_float(**named)
        if x.ndim != 3 or x.shape[1] != self.in_channels or 0 in x.shape:
            raise ValueError(
                f"{name} must be (b, {self.in_channels}, {axis}), none of them 0, got "
                f"shape {tuple(x.shape)}"
            )
        check_same(kernel_net=self._like(), **named)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, horizon={self.horizon}, "
            f"method={self.method!r}"
        )


def _check_net(net, pairs: int) -> None:
    if not isinstance(net, nn.Module):
        raise ValueError(f"kernel_net must be a torch module or None, got {net!r}")
    if _is_readout_of_features(net) and net.readout.out_features != pairs:
        raise ValueError(
            f"kernel_net must give out_channels * in_channels = {pairs} values, got "
            f"{net.readout.out_features}"
        )


def _is_readout_of_features(net: nn.Module) -> bool:
    """Whether net(p) is surely net.readout(net.features(p)), the readout linear.

    A forward of its own, or a hook, may do more with what the readout gives.
    """
    readout = getattr(net, "readout", None)
    return (
        getattr(net.forward, "__func__", None) in _FACTORISED_FORWARDS
        and isinstance(readout, nn.Linear)
        and type(readout).forward is nn.Linear.forward
        and not any(m._forward_hooks or m._forward_pre_hooks for m in (net, readout))
    )


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def _expand(kernel: Tensor, values: Tensor) -> Tensor:
    return kernel.expand(values.shape[0], *kernel.shape[1:])


def _check_samples(times, values, query_times, weights) -> tuple:
    """times (1 or b, n) and query_times (1 or b, q) in double, weights (1 or b, n)."""
    (b, _, n), rows = values.shape, []
    if weights is None:
        weights = values.new_ones(n)
    named = {"times": times, "query_times": query_times, "weights": weights}
    for name, row in named.items():
        if not isinstance(row, Tensor) or row.is_complex():
            got = row.dtype if isinstance(row, Tensor) else type(row)
            raise ValueError(f"{name} must be a tensor of real numbers, got {got}")
        if row.device != values.device:
            raise ValueError(
                f"{name} must be on {values.device}, as values is, got {row.device}"
            )
        row = row[None] if row.ndim == 1 else row
        fits = row.ndim == 2 and row.shape[0] in (1, b)
        if not fits or (name != "query_times" and row.shape[1] != n):
            raise ValueError(
                f"{name} must be one row, or one for each of the {b} samples, of "
                f"{'q' if name == 'query_times' else n} numbers, got shape "
                f"{tuple(row.shape)}"
            )
        rows.append(row)
    times, query_times, weights = rows
    return times.double(), query_times.double(), weights.to(values.dtype)
