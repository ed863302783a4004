"""Networks that are functions: positions in R^d -> the values of kernels there.

Each is `readout(features(positions))` with a linear readout. Because the readout is
linear it commutes with everything linear in the positions' axis, the Fourier transform
above all; `ckutils.factorised` lives on that.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from ckutils.checks import check_choice, check_int, check_number


def _siren_start(fan_in: int, omega_0: float, first: bool, normed: bool):
    """Bounds of the uniform weights and biases: eq. (3.11), and phases all round."""
    weight = 1 / fan_in if first else math.sqrt(6 / fan_in) / omega_0
    return weight, math.pi / omega_0


def _published_start(fan_in: int, omega_0: float, first: bool, normed: bool):
    """What the released code starts from: with weight normalisation, torch's own.

    It attaches weight normalisation first, whose v then overwrites the weights that are
    drawn next; the biases, which are not normalised, do come from (-1, 1).
    """
    if normed:
        return fan_in**-0.5, 1.0
    return (1.0 if first else math.sqrt(6 / fan_in) / omega_0), 1.0


INITS = {"siren": _siren_start, "as-published": _published_start}
ACTIVATIONS = {
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.1),
    "swish": functional.silu,
}


class Siren(nn.Module):
    """h <- sin(omega_0 (W h + b)), layer by layer, then a linear readout.

    Chapter 3, eq. (3.9). Source: Sitzmann et al. (2020), arXiv:2006.09661; as kernels,
    Romero et al. (2021), arXiv:2102.02611. omega_0 multiplies the bias too.

    Args:
        in_features, out_features, hidden_features, hidden_layers: sizes >= 1;
            `hidden_layers` counts the layers of sines.
        omega_0: > 0, not learned; how fast the function may oscillate.
        weight_norm: learn direction and length of each row of weights by themselves.
        init: "siren" draws weights within 1/in_features in the first layer and within
            sqrt(6/n)/omega_0 later, biases within pi/omega_0 (a phase anywhere on the
            circle; 0 in the readout), and sets weight normalisation to agree.
            "as-published" is what the released CKConv code starts from.
    Input (..., in_features), output (..., out_features). Raises ValueError for sizes
        below 1, omega_0 <= 0 or another init.

    >>> Siren(1, 900)(torch.zeros(784, 1)).shape
    torch.Size([784, 900])
    """

    def __init__(
        self, in_features: int, out_features: int, *, hidden_features: int = 32,
        hidden_layers: int = 2, omega_0: float = 30.0, weight_norm: bool = True,
        init: str = "siren",
    ):  # fmt: skip
        super().__init__()
        check_number(1e-6, omega_0=omega_0)
        check_choice(INITS, init=init)
        self.omega_0 = float(omega_0)
        *hidden, readout = _linears(
            in_features, out_features, hidden_features, hidden_layers
        )
        for number, layer in enumerate([*hidden, readout]):
            weight, bias = INITS[init](
                layer.in_features, omega_0, number == 0, weight_norm
            )
            nn.init.uniform_(layer.weight, -weight, weight)
            nn.init.uniform_(layer.bias, -bias, bias)
        if init == "siren":
            nn.init.zeros_(readout.bias)
        # attached last, weight normalisation takes its start from the weights above
        self.hidden = nn.ModuleList(_normed(hidden, weight_norm))
        (self.readout,) = _normed([readout], weight_norm)

    def features(self, positions: Tensor) -> Tensor:
        """The last layer of sines (..., hidden_features) at positions (..., d)."""
        h = positions
        for layer in self.hidden:
            h = torch.sin(self.omega_0 * layer(h))
        return h

    def forward(self, positions: Tensor) -> Tensor:
        return self.readout(self.features(positions))


class Mlp(nn.Module):
    """h <- activation(W h + b), layer by layer, then a linear readout.

    Chapter 3, eq. (3.8). Starts as torch's linear layers do.

    Args:
        in_features, out_features, hidden_features, hidden_layers: sizes >= 1.
        activation: "relu", "leaky_relu" (slope 0.1) or "swish".
        weight_norm: as in `Siren`.
    Input (..., in_features), output (..., out_features). Raises ValueError for sizes
        below 1 or another activation.

    >>> Mlp(2, 3, activation="swish")(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, in_features: int, out_features: int, *, hidden_features: int = 32,
        hidden_layers: int = 2, activation: str = "relu", weight_norm: bool = True,
    ):  # fmt: skip
        super().__init__()
        check_choice(ACTIVATIONS, activation=activation)
        self.activation = activation
        *hidden, readout = _linears(
            in_features, out_features, hidden_features, hidden_layers
        )
        self.hidden = nn.ModuleList(_normed(hidden, weight_norm))
        (self.readout,) = _normed([readout], weight_norm)

    def features(self, positions: Tensor) -> Tensor:
        """The last hidden layer (..., hidden_features) at positions (..., d)."""
        h = positions
        for layer in self.hidden:
            h = ACTIVATIONS[self.activation](layer(h))
        return h

    def forward(self, positions: Tensor) -> Tensor:
        return self.readout(self.features(positions))


class RandomFourierNet(nn.Module):
    """h = (cos 2 pi B x, sin 2 pi B x) with a fixed random B, then ReLU layers.

    Chapter 3, eq. (3.10). Source: Tancik et al. (2020), arXiv:2006.10739.

    Args:
        in_features, out_features: sizes >= 1.
        hidden_features: an even size: half cosines, half sines.
        hidden_layers: >= 1; the first is the fixed one.
        bandwidth: > 0, the standard deviation of B, in cycles a unit of position.
        weight_norm: as in `Siren`.
    Input (..., in_features), output (..., out_features). Raises ValueError for sizes
        below 1, an odd hidden size, or a bandwidth <= 0.

    >>> RandomFourierNet(1, 4)(torch.zeros(5, 1)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self, in_features: int, out_features: int, *, hidden_features: int = 32,
        hidden_layers: int = 2, bandwidth: float = 10.0, weight_norm: bool = True,
    ):  # fmt: skip
        super().__init__()
        check_number(1e-6, bandwidth=bandwidth)
        layers = _linears(in_features, out_features, hidden_features, hidden_layers)
        if hidden_features % 2:
            raise ValueError(f"hidden_features must be even, got {hidden_features}")
        waves = torch.randn(in_features, hidden_features // 2) * bandwidth
        self.register_buffer("waves", waves)
        self.hidden = nn.ModuleList(_normed(layers[1:-1], weight_norm))
        (self.readout,) = _normed(layers[-1:], weight_norm)

    def features(self, positions: Tensor) -> Tensor:
        """The last hidden layer (..., hidden_features) at positions (..., d)."""
        angle = 2 * math.pi * (positions @ self.waves)
        h = torch.cat([angle.cos(), angle.sin()], dim=-1)
        for layer in self.hidden:
            h = functional.relu(layer(h))
        return h

    def forward(self, positions: Tensor) -> Tensor:
        return self.readout(self.features(positions))


class GaussianMask(nn.Module):
    """net(x) times exp(-|x - centre|^2 / (2 width^2)), a window that is learned.

    Chapter 3, eq. (3.34). Source: Romero et al. (2022), arXiv:2110.08059.

    Args:
        net: positions (..., d) -> values (..., out_features).
        centre: where it is 1; a kernel's lag 0 stands at +1.
        width: > 0, its standard deviation in units of position.
    Input (..., d), output (..., out_features). Raises ValueError for a width <= 0.

    >>> GaussianMask(nn.Identity())(torch.ones(1, 1)).item()
    1.0
    """

    def __init__(self, net: nn.Module, *, centre: float = 1.0, width: float = 1.0):
        super().__init__()
        check_number(1e-6, width=width)
        self.net = net
        self.centre = nn.Parameter(torch.tensor(float(centre)))
        self.log_width = nn.Parameter(torch.tensor(math.log(width)))

    def forward(self, positions: Tensor) -> Tensor:
        steps = (positions - self.centre) / self.log_width.exp()
        window = torch.exp(-(steps**2).sum(dim=-1, keepdim=True) / 2)
        return window * self.net(positions)


def _linears(in_features, out_features, hidden_features, hidden_layers) -> list:
    """The linear layers in -> hidden -> ... -> hidden -> out."""
    check_int(
        1, in_features=in_features, out_features=out_features,
        hidden_features=hidden_features, hidden_layers=hidden_layers,
    )  # fmt: skip
    sizes = [in_features, *[hidden_features] * hidden_layers, out_features]
    return [nn.Linear(*pair) for pair in pairwise(sizes)]


def _normed(layers: list, weight_norm: bool) -> list:
    return [parametrizations.weight_norm(m) if weight_norm else m for m in layers]
