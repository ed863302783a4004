"""Kernel networks: their start, weight normalisation, and what each computes."""

import math

import pytest
import torch
from torch.nn.utils import parametrizations

from ckutils.checks import agree
from ckutils.kernel_nets import GaussianMask, Mlp, RandomFourierNet, Siren

NETS = {
    "siren": lambda **sizes: Siren(2, 3, **sizes),
    "relu": lambda **sizes: Mlp(2, 3, activation="relu", **sizes),
    "leaky_relu": lambda **sizes: Mlp(2, 3, activation="leaky_relu", **sizes),
    "swish": lambda **sizes: Mlp(2, 3, activation="swish", **sizes),
    "fourier": lambda **sizes: RandomFourierNet(2, 3, **sizes),
}


def built(make, seed=0):
    torch.manual_seed(seed)
    return make()


# What they compute ---------------------------------------------------------------


def test_a_siren_by_hand():
    net = Siren(1, 1, hidden_features=1, hidden_layers=1, omega_0=2.0)
    for layer, weight, bias in ((net.hidden[0], 3.0, 0.5), (net.readout, 10.0, -1.0)):
        layer.weight = torch.tensor([[weight]])
        torch.nn.init.constant_(layer.bias, bias)
    # 10 sin(2 (3 x + 1/2)) - 1: omega_0 multiplies the bias too
    x = torch.tensor([[0.0], [0.25]])
    want = torch.tensor([[10 * math.sin(1.0) - 1], [10 * math.sin(2.5) - 1]])
    agree("by hand", net(x).detach(), want, tol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_a_network_is_its_layers_written_out(name):
    net = built(lambda: NETS[name](hidden_features=6, hidden_layers=3)).double()
    x = torch.rand(4, 5, 2, dtype=torch.float64)
    activation = {
        "siren": lambda h: torch.sin(30 * h),
        "relu": lambda h: h.clamp(min=0),
        "leaky_relu": lambda h: torch.maximum(h, 0.1 * h),
        "swish": lambda h: h / (1 + torch.exp(-h)),
        "fourier": lambda h: h.clamp(min=0),
    }[name]
    h = x
    if name == "fourier":
        angle = 2 * math.pi * torch.einsum("...d,dj->...j", x, net.waves)
        h = torch.cat([angle.cos(), angle.sin()], dim=-1)
    for layer in net.hidden:
        h = activation(torch.einsum("...i,oi->...o", h, layer.weight) + layer.bias)
    want = torch.einsum("...i,oi->...o", h, net.readout.weight) + net.readout.bias
    assert len(net.hidden) == (2 if name == "fourier" else 3)
    agree(name, net(x).detach(), want.detach(), tol=1e-12)
    agree("features", net.features(x).detach(), h.detach(), tol=1e-12)


def test_a_gaussian_mask_by_hand():
    net = GaussianMask(lambda x: 2 + 0 * x, centre=1.0, width=0.5)
    got = net(torch.tensor([[1.0], [0.5], [0.0]])).detach()
    agree("window", got, [[2.0], [2 * math.exp(-0.5)], [2 * math.exp(-2)]], tol=1e-6)


# How a SIREN starts --------------------------------------------------------------


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("omega_0", [1.0, 30.0, 300.0])
def test_the_siren_bounds_hold_after_the_first_forward(omega_0, weight_norm):
    net = built(lambda: Siren(1, 900, omega_0=omega_0, weight_norm=weight_norm))
    net(torch.linspace(-1, 1, 100)[:, None])
    bound = math.sqrt(6 / 32) / omega_0
    for layer in (net.hidden[1], net.readout):
        largest = float(layer.weight.detach().abs().max())
        assert 0.99 * bound < largest <= bound * (1 + 1e-6)
    assert 0.9 < float(net.hidden[0].weight.detach().abs().max()) <= 1 + 1e-6
    assert float(net.hidden[1].bias.detach().abs().max()) <= math.pi / omega_0
    assert (net.readout.bias == 0).all()


def test_as_published_weight_norm_keeps_torchs_own_start():
    net = built(lambda: Siren(1, 900, init="as-published"))
    net(torch.zeros(1, 1))
    largest = float(net.hidden[1].weight.detach().abs().max())
    assert 0.17 < largest <= 32**-0.5 + 1e-6  # 0.177, not 0.0144
    assert 0.9 < float(net.hidden[1].bias.detach().abs().max()) <= 1
    assert 0.9 < float(net.readout.bias.detach().abs().max()) <= 1
    net = built(lambda: Siren(1, 900, init="as-published", weight_norm=False))
    assert float(net.hidden[1].weight.detach().abs().max()) <= math.sqrt(6 / 32) / 30


def test_as_published_is_what_the_order_of_the_released_code_gives():
    torch.manual_seed(0)
    layer = parametrizations.weight_norm(torch.nn.Linear(32, 32))
    start = layer.weight.detach().clone()
    with torch.no_grad():  # writes into a tensor that the next access computes anew
        layer.weight.uniform_(-0.0144, 0.0144)
    agree("discarded", layer.weight.detach(), start, tol=0)


def spreads(net, positions, biases=True):
    """Standard deviation of omega_0 W h in each layer of sines, biases apart."""
    h, out = positions, []
    for layer in net.hidden:
        z = net.omega_0 * h @ layer.weight.T
        out.append(float(z.std(dim=0, correction=0).square().mean().sqrt()))
        h = torch.sin(z + net.omega_0 * layer.bias * biases)
    return out


@pytest.mark.parametrize("biases", [True, False])
def test_pre_activations_have_spread_one_in_the_second_layer(biases):
    x = torch.linspace(-1, 1, 1000)[:, None]
    nets = [built(lambda: Siren(1, 1), seed) for seed in range(20)]
    mean = sum(spreads(net, x, biases)[1] for net in nets) / 20
    assert abs(mean - 1) < 0.1


def test_phases_keep_the_spread_at_one_in_every_later_layer():
    x = torch.linspace(-1, 1, 1000)[:, None]
    rows = []
    for seed in range(20):
        net = built(lambda: Siren(1, 1, hidden_layers=6, hidden_features=64), seed)
        h, sizes = x, []
        for layer in net.hidden:
            z = net.omega_0 * h @ layer.weight.T
            sizes.append(float(z.std()))  # over positions and units
            h = torch.sin(z + net.omega_0 * layer.bias)
        rows.append(sizes)
    mean = torch.tensor(rows).mean(dim=0)
    assert (mean[1:] - 1).abs().max() < 0.1, mean


@pytest.mark.parametrize("name", NETS)
def test_weight_norm_changes_the_parameters_and_not_the_function(name):
    plain = built(lambda: NETS[name](weight_norm=False))
    normed = built(lambda: NETS[name](weight_norm=True))
    x = torch.rand(50, 2)
    agree(name, normed(x).detach(), plain(x).detach(), tol=1e-5)
    count = [sum(p.numel() for p in net.parameters()) for net in (plain, normed)]
    rows = sum(layer.out_features for layer in [*plain.hidden, plain.readout])
    assert count[1] - count[0] == rows


# What is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Siren(0, 1), "in_features must be an integer >= 1, got 0"),
        (lambda: Siren(1, 1, hidden_layers=0), "hidden_layers must be an integer >= 1"),
        (lambda: Siren(1, 1, omega_0=0), "omega_0 must be a number"),
        (lambda: Siren(1, 1, init="paper"), "init must be one of 'siren', 'as-publ"),
        (lambda: Mlp(1, 1, activation="tanh"), "activation must be one of 'relu'"),
        (lambda: RandomFourierNet(1, 1, hidden_features=7), "must be even, got 7"),
        (lambda: RandomFourierNet(1, 1, bandwidth=0), "bandwidth must be a number"),
        (lambda: GaussianMask(Mlp(1, 1), width=0), "width must be a number"),
    ],
)
def test_what_is_refused_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
