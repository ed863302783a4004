"""CKConv, its block and its network: definition, causality, streams, real times."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ckutils.checks import agree
from ckutils.ckconv import CKCNN, CKBlock, CKConv
from ckutils.fftconv import METHODS, causal_conv
from ckutils.kernel_nets import GaussianMask, Mlp, RandomFourierNet, Siren
from ckutils.training import count_weights


def drawn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def built(make, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return make().to(dtype)


class Ramp(torch.nn.Module):
    """psi = the position itself, for every kernel; no readout, so never factorised."""

    def __init__(self, kernels):
        super().__init__()
        self.size = torch.nn.Parameter(torch.ones(kernels))

    def forward(self, positions):
        return positions * self.size


# The kernel ----------------------------------------------------------------------


def test_a_ramp_kernel_by_hand():
    layer = CKConv(1, 1, kernel_net=Ramp(1), horizon=5, bias=False)
    # lags 0 to 4 stand at 1, 1/2, 0, -1/2, -1; lags beyond the horizon have no weight
    want = [[[1.0, 0.5, 0.0, -0.5, -1.0, 0.0, 0.0]]]
    agree("positions", layer.kernel(7).detach(), want, tol=1e-7)
    x = torch.tensor([[[1.0, 0.0, 2.0, 0.0, 0.0, 0.0]]])
    want = [[[1.0, 0.5, 2.0, 0.5, -1.0, -1.0]]]
    agree("by hand", layer(x).detach(), want, tol=1e-6)


def test_the_horizon_is_the_length_of_the_first_signal_and_then_stays():
    layer = built(lambda: CKConv(1, 2))
    layer(drawn(1, 1, 50))
    kernel = layer.kernel(50)
    layer(drawn(1, 1, 80))
    assert layer.horizon == 50
    agree("same", layer.kernel(80)[..., :50].detach(), kernel.detach(), tol=0)
    assert (layer.kernel(80)[..., 50:] == 0).all()
    again = built(lambda: CKConv(1, 2), seed=1)
    again.load_state_dict(layer.state_dict())
    assert again.horizon == 50
    x = drawn(1, 1, 60)
    agree("loaded", again(x).detach(), layer(x).detach(), tol=0)


@pytest.mark.parametrize("s", [1, 2, 3, 4, 6])
def test_a_coarser_kernel_is_the_finer_one_at_the_common_lags(s):
    fine = built(lambda: CKConv(2, 3))
    coarse = copy.deepcopy(fine)
    length = 60 + 1
    want = fine.kernel(length)[..., ::s]
    got = coarse.kernel(60 // s + 1, resolution=1 / s)
    assert coarse.horizon == fine.horizon == length
    agree(f"{s=}", got.detach(), want.detach(), tol=1e-12)
    assert fine.kernel(2 * length, resolution=2.0)[..., 2 * 60 + 1 :].eq(0).all()


NETS = {
    "siren": lambda kernels: Siren(1, kernels, hidden_features=8),
    "fourier": lambda kernels: RandomFourierNet(1, kernels, hidden_features=8),
    "relu": lambda kernels: Mlp(1, kernels, hidden_features=8),
    "masked": lambda kernels: GaussianMask(Siren(1, kernels, hidden_features=8)),
    "ramp": Ramp,
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", ["factorised", *METHODS])
@pytest.mark.parametrize("horizon", [None, 5, 31, 100])
def test_forward_is_the_definition_in_both_modes(name, method, horizon):
    layer = built(
        lambda: CKConv(
            3, 4, kernel_net=NETS[name](12), horizon=horizon, method=method
        )
    )  # fmt: skip
    x = drawn(2, 3, 31)
    reach = min(31, layer.horizon or 31)
    kernel = layer.kernel(31)
    want = torch.zeros(2, 4, 31, dtype=torch.float64)
    for t in range(31):
        for tau in range(min(t + 1, reach)):
            want[..., t] += x[..., t - tau] @ kernel[..., tau].T
    want = (want + layer.bias[:, None]).detach()
    agree("training", layer(x).detach(), want, tol=1e-12 * 100)
    layer.eval()
    with torch.no_grad():
        agree("evaluation", layer(x), want, tol=1e-12 * 100)
        agree("once more, from the cache", layer(x), want, tol=1e-12 * 100)


@pytest.mark.parametrize(
    ("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)]
)
def test_factorised_and_formed_kernels_give_one_layer_and_one_gradient(dtype, tol):
    layer = built(lambda: CKConv(30, 30), dtype=dtype)
    formed = copy.deepcopy(layer)
    formed.method = "fft"
    assert layer._is_factorised() and not formed._is_factorised()
    x, g = drawn(4, 30, 783, dtype=dtype), drawn(4, 30, 783, seed=1, dtype=dtype)
    results = []
    for module in (layer, formed):
        x_in = x.clone().requires_grad_()
        y = module(x_in)
        y.backward(g)
        grads = {name: p.grad for name, p in module.named_parameters()}
        results.append({"y": y.detach(), "x": x_in.grad, **grads})
    lengths = "kernel_net.hidden.0.parametrizations.weight.original0"
    for name, want in results[1].items():
        # rows of one weight have no direction to learn: their gradient is rounding,
        # measured against that of their lengths
        alike = lengths if name == lengths[:-1] + "1" else name
        size = float(results[1][alike].abs().max())
        agree(name, results[0][name], want, tol=tol * size)


def test_the_cache_follows_the_weights_the_length_and_the_mode():
    layer = built(lambda: CKConv(6, 6))
    x = drawn(1, 6, 40)
    layer(x)
    layer.eval()
    with torch.no_grad():
        before = layer(x)
        held = layer._cache[1]
        assert layer(x) is not None and layer._cache[1] is held
        layer.kernel_net.readout.bias.add_(1.0)
        want = causal_conv(x, layer.kernel(40)) + layer.bias[:, None]
        agree("new weights", layer(x), want, tol=1e-11)
        assert not torch.allclose(want, before)
        agree("shorter", layer(x[..., :25]), want[..., :25], tol=1e-11)
        layer.cache_bytes = 0
        agree("not kept", layer(x), want, tol=1e-11)
        assert layer._cache[1][2] is None
    assert layer.train()._cache == (None, None)


def test_the_cache_follows_the_buffers_of_the_network():
    net = built(lambda: RandomFourierNet(1, 120))
    layer = built(lambda: CKConv(3, 40, kernel_net=net, horizon=20)).eval()
    assert layer._is_factorised()
    x = drawn(2, 3, 20)

    def fresh():
        return causal_conv(x, layer.kernel(20)) + layer.bias[:, None]

    with torch.no_grad():
        before = layer(x)
        net.waves.mul_(3)
        agree("changed in place", layer(x), fresh(), tol=1e-10)
        assert not torch.allclose(layer(x), before)
        net.waves = net.waves + 1
        agree("replaced", layer(x), fresh(), tol=1e-10)
        # the allocator must not hand out the address by which the cache knows it
        address, net.waves = net.waves.data_ptr(), None
        others = [torch.ones(1, 16, dtype=torch.float64) for _ in range(2000)]
        assert address not in {other.data_ptr() for other in others}


def test_a_layer_made_in_inference_mode_runs():
    with torch.inference_mode():
        layer = built(lambda: CKConv(6, 6, horizon=20)).eval()
        x = drawn(1, 6, 40)
        want = causal_conv(x, layer.kernel(40)) + layer.bias[:, None]
        agree("first", layer(x), want, tol=1e-11)
        layer.kernel_net.readout.bias.add_(1.0)
        want = causal_conv(x, layer.kernel(40)) + layer.bias[:, None]
        agree("and with other weights", layer(x), want, tol=1e-11)
    with torch.no_grad():
        agree("outside", layer(x.clone()), want, tol=1e-11)


# Networks that are not, or not only, a readout of features -----------------------


class Windowed(Siren):
    """A forward of its own: a window on what the readout gives."""

    def forward(self, positions):
        return super().forward(positions) * torch.exp(-((positions - 1) ** 2))


class Bare(torch.nn.Module):
    """Features, and no readout."""

    def __init__(self, kernels):
        super().__init__()
        self.linear = torch.nn.Linear(1, kernels)

    def features(self, positions):
        return self.linear(positions)

    def forward(self, positions):
        return torch.sin(self.features(positions))


class Scaled(torch.nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Joined(torch.nn.Module):
    """A class that says by its forward that it is a readout of features."""

    forward = Siren.forward

    def __init__(self, kernels):
        super().__init__()
        self.linear = torch.nn.Linear(1, 5)
        self.readout = torch.nn.Linear(5, kernels, bias=False)

    def features(self, positions):
        return torch.tanh(self.linear(positions))


def with_readout(net, readout):
    net.readout = readout
    return net


def hooked(net):
    net.register_forward_hook(lambda net, args, values: 2 * values)
    return net


def overridden(net):
    net.forward = lambda positions: 3 * net.readout(net.features(positions))
    return net


OTHER_NETS = {
    "windowed": (lambda n: Windowed(1, n), False),
    "bare": (Bare, False),
    "another readout": (lambda n: with_readout(Mlp(1, n), Scaled(32, n)), False),
    "a hook": (lambda n: hooked(Siren(1, n)), False),
    "one object's forward": (lambda n: overridden(Siren(1, n)), False),
    "joined, without a bias": (Joined, True),
    "no bias": (
        lambda n: with_readout(Siren(1, n), torch.nn.Linear(32, n, bias=False)), True
    ),
    "siren": (lambda n: Siren(1, n), True),
    "fourier": (lambda n: RandomFourierNet(1, n), True),
    "mlp": (lambda n: Mlp(1, n), True),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_NETS)
def test_only_a_sure_readout_is_factorised_and_all_give_their_kernel(name):
    make, factorised = OTHER_NETS[name]
    layer = built(lambda: CKConv(3, 40, kernel_net=make(120), horizon=9))
    x, times = drawn(1, 3, 9), torch.arange(9)
    assert layer._is_factorised() == factorised
    want = causal_conv(x, layer.kernel(9)) + layer.bias[:, None]
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            agree("forward", layer.train(mode)(x).detach(), want.detach(), tol=1e-10)
    agree("at", layer.at(times, x, times).detach(), want.detach(), tol=1e-10)


class Fixed(torch.nn.Module):
    """psi = the position, for every kernel, and nothing to learn."""

    def __init__(self, kernels):
        super().__init__()
        self.kernels = kernels

    def forward(self, positions):
        return positions.expand(*positions.shape[:-1], self.kernels)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_without_parameters_takes_the_layers_dtype(bias, dtype):
    make = lambda: CKConv(1, 2, kernel_net=Fixed(2), horizon=5, bias=bias)  # noqa: E731
    layer = built(make, dtype=dtype)
    assert list(layer.state_dict()) == ["bias"] * bias + ["_extra_state"]
    x = torch.tensor([[[1.0, 0, 2, 0, 0, 0]]], dtype=dtype)
    row = torch.tensor([1.0, 0.5, 2.0, 0.5, -1.0, -1.0], dtype=dtype)
    want = row.repeat(1, 2, 1) + (layer.bias[:, None] if bias else 0)
    y = layer(x)
    assert y.dtype == dtype
    agree("by hand", y.detach(), want.detach(), tol=1e-6)
    times = torch.arange(6)
    agree("at", layer.at(times, x, times).detach(), want.detach(), tol=1e-6)
    part, state = layer.step(x[..., :2], layer.initial_state(1))
    rest, _ = layer.step(x[..., 2:], state)
    agree("streamed", torch.cat([part, rest], -1).detach(), want.detach(), tol=1e-6)


def test_a_refused_signal_sets_no_horizon():
    for mode in (True, False):
        layer = CKConv(30, 30).train(mode)
        with torch.set_grad_enabled(mode), pytest.raises(ValueError, match="x must"):
            layer(torch.zeros(1, 30, 7).double())
        assert layer.horizon is None
    layer(torch.zeros(1, 30, 9))
    assert layer.horizon == 9


def test_kernel_dropout_drops_kernel_values_in_training_only():
    layer = built(lambda: CKConv(3, 4, kernel_dropout=0.5))
    x = drawn(1, 3, 30)
    first, second = layer(x), layer(x)
    assert not torch.allclose(first, second)
    layer.eval()
    want = causal_conv(x, layer.kernel(30)) + layer.bias[:, None]
    agree("evaluation", layer(x).detach(), want.detach(), tol=1e-11)


# Memory --------------------------------------------------------------------------


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside held at one time."""

    def __init__(self, *inputs):
        super().__init__()
        self.known = {v.untyped_storage()._cdata for v in inputs}
        self.live, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            storage = value.untyped_storage() if torch.is_tensor(value) else None
            if storage is not None and storage._cdata not in self.known:
                entry = StorageWeakRef(storage), storage.nbytes()
                self.live[storage._cdata] = entry
        self.live = {k: v for k, v in self.live.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def published(x, layer):
    """The published formulation: all kernels, all spectra, a broadcast product."""
    t, n = x.shape[-1], 2 * x.shape[-1]
    values = layer.kernel_net(torch.linspace(1, -1, t)[:, None])
    kernel = values.T.reshape(layer.out_channels, layer.in_channels, t)
    product = torch.fft.rfft(x, n)[:, None] * torch.fft.rfft(kernel, n)
    y = torch.fft.irfft(product.sum(dim=2), n)[..., :t]
    return y + layer.bias[:, None]


@pytest.mark.parametrize("training", [True, False])
def test_the_layer_peaks_at_a_tenth_of_the_published_formulation(training):
    layer = built(lambda: CKConv(30, 30, horizon=16000), dtype=torch.float32)
    layer.train(training)
    x, peaks = torch.ones(4, 30, 16000), []
    for function in (layer, lambda x: published(x, layer)):
        with PeakMemory(x, *layer.parameters()) as memory, torch.no_grad():
            function(x)
        peaks.append(memory.peak - x.nbytes)  # less the output
    assert peaks[0] <= peaks[1] / 10, peaks
    assert peaks[1] > 6e8  # the product alone holds 4 * 900 * 16001 complex numbers


# Resolution ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["factorised", "direct"])
def test_at_another_rate_the_sum_is_multiplied_by_the_step(method):
    layer = built(lambda: CKConv(6, 6, bias=False, method=method, horizon=40))
    x = drawn(1, 6, 79)
    want = causal_conv(x, layer.kernel(79, resolution=2.0)) / 2
    agree("twice as dense", layer(x, resolution=2.0).detach(), want.detach(), tol=1e-11)


# Irregular times -----------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_on_a_regular_grid_at_is_forward(name):
    layer = built(lambda: CKConv(3, 4, kernel_net=NETS[name](12), horizon=20))
    x, times = drawn(2, 3, 31), torch.arange(31)
    want = layer(x).detach()
    agree("one row", layer.at(times, x, times).detach(), want, tol=1e-11)
    rows = times.expand(2, 31)
    got = layer.at(rows, x, rows.flip(-1), weights=torch.ones(2, 31)).detach()
    agree("a row a sample", got.flip(-1), want, tol=1e-11)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(n=st.integers(2, 30), q=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_the_order_does_not_matter_and_dropping_is_masking(n, q, seed):
    layer = built(lambda: CKConv(2, 3, horizon=12), seed=seed)
    times, values = drawn(n, seed=seed).abs() * 10, drawn(2, 2, n, seed=seed + 1)
    query, weights = drawn(q, seed=seed + 2).abs() * 10, drawn(n, seed=seed + 3) ** 2
    want = layer.at(times, values, query, weights=weights).detach()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    got = layer.at(times[order], values[..., order], query, weights=weights[order])
    agree("any order", got.detach(), want, tol=1e-10)
    keep = torch.arange(n) % 3 > 0
    masked = values.masked_fill(~keep, math.nan)
    got = layer.at(times, masked, query, weights=weights * keep)
    want = layer.at(times[keep], values[..., keep], query, weights=weights[keep])
    agree("masked", got.detach(), want.detach(), tol=1e-10)


def test_at_is_its_double_loop_and_a_long_query_is_cut():
    layer = built(lambda: CKConv(2, 3, horizon=7, bias=False))
    times, values = torch.tensor([0.5, 3.25, 3.3]).double(), drawn(1, 2, 3)
    query = torch.linspace(0, 12, 25).double()
    want = torch.zeros(1, 3, 25).double()
    for q, t_q in enumerate(query):
        for j, t_j in enumerate(times):
            lag = float(t_q - t_j)
            if 0 <= lag <= 6:
                position = torch.tensor([[1 - 2 * lag / 6]], dtype=torch.float64)
                psi = layer.kernel_net(position).view(3, 2)
                want[0, :, q] += (psi @ values[0, :, j]).detach()
    agree("double loop", layer.at(times, values, query).detach(), want, tol=1e-12)
    many = query.repeat(2000)  # more lags than fit one part
    got = layer.at(times, values, many).detach()
    agree("in parts", got, want.repeat(1, 1, 2000), tol=1e-12)


# The network ---------------------------------------------------------------------


def test_the_published_parameter_counts():
    counts = [count_weights(CKCNN(c, 10)) for c in (1, 3, 20)]
    assert counts == [98_286, 100_386, 118_236]
    # by hand, from eq. (3.26): the kernel networks' sines, readouts, and the rest
    sines = (32 + 32 + 32) + (32 * 32 + 32 + 32)
    for c, count in zip((1, 3, 20), counts, strict=True):
        readouts = (32 + 1 + 1) * (30 * c + 3 * 30 * 30)
        rest = 4 * 30 + 4 * 60 + (30 * c + 30) + (30 * 10 + 10)
        assert count == 4 * sines + readouts + rest


def gradient_of_one_step(net, x, t):
    x = x.clone().requires_grad_()
    net(x)[..., t].sum().backward()
    return x.grad


def test_the_network_is_exactly_causal_with_direct_sums():
    net = built(lambda: CKCNN(2, 3, channels=6, head="all", method="direct"))
    x = drawn(1, 2, 40)
    net(x)
    for t in (0, 13, 38):
        grad = gradient_of_one_step(net, x, t)
        assert (grad[..., t + 1 :] == 0).all()
        assert (grad[..., t] != 0).all()


def test_by_fft_the_network_sees_the_future_by_rounding_only():
    for dtype in (torch.float32, torch.float64):
        net = built(lambda: CKCNN(2, 3, channels=6, head="all"), dtype=dtype)
        x = drawn(1, 2, 40, dtype=dtype)
        net(x)
        grad = gradient_of_one_step(net, x, 13)
        bound = 1000 * torch.finfo(dtype).eps * float(grad.abs().max())
        assert float(grad[..., 14:].abs().max()) <= bound


def test_the_released_norm_sees_the_future_and_the_norm_a_step_does_not():
    sizes = {}
    for norm in ("step", "released"):
        block = built(lambda n=norm: CKBlock(2, 6, norm=n))
        block.conv1.method = block.conv2.method = "direct"
        x = drawn(1, 2, 40)
        block(x)
        sizes[norm] = float(gradient_of_one_step(block, x, 13)[..., 14:].abs().max())
    assert sizes["step"] == 0 and sizes["released"] > 1e-3


@settings(deadline=None, max_examples=10, derandomize=True)
@given(
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    horizon=st.integers(1, 60), head=st.sampled_from(["last", "all"]),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_chunks_of_any_size_are_one_pass(cuts, horizon, head, seed):
    net = built(lambda: CKCNN(2, 3, channels=6, head=head, horizon=horizon), seed=seed)
    net.eval()
    x = drawn(2, 2, sum(cuts), seed=seed)
    state, parts = net.initial_state(2), []
    for chunk in x.split(cuts, dim=-1):
        y, state = net.step(chunk, state)
        parts.append(y)
    got = parts[-1] if head == "last" else torch.cat(parts, dim=-1)
    agree(f"{cuts=} {horizon=}", got.detach(), net(x).detach(), tol=1e-9)
    assert state[0].first.shape[-1] == min(horizon - 1, sum(cuts))


def test_the_heads_read_the_last_step_and_all_steps():
    every = built(lambda: CKCNN(1, 5, channels=4, head="all"))
    last = built(lambda: CKCNN(1, 5, channels=4, head="last"))
    x = drawn(2, 1, 20)
    assert every(x).shape == (2, 5, 20)
    agree("last", last(x).detach(), every(x)[..., -1].detach(), tol=1e-12)


def test_the_resolution_reaches_every_convolution():
    net = built(lambda: CKCNN(1, 3, channels=4, blocks=2, horizon=12, head="all"))
    x = drawn(2, 1, 25)
    want = x
    for block in net.blocks:
        y = block.conv1(want, resolution=2.0)
        y = block.conv2(block.norm1(y).clamp(min=0), resolution=2.0)
        y = block.norm2(y).clamp(min=0)
        want = (block.shortcut(want) + y).clamp(min=0)
    want = torch.einsum("oc,bct->bot", net.linear.weight, want)
    want = want + net.linear.bias[:, None]
    agree("by hand", net(x, resolution=2.0).detach(), want.detach(), tol=1e-10)


def test_dropout_and_the_shortcut():
    block = built(lambda: CKBlock(3, 3, dropout=1.0))
    block.norm2.weight.data.zero_()
    block.norm2.bias.data.zero_()  # both branches off: only the shortcut remains
    x = drawn(2, 3, 10)
    agree("identity", block(x).detach(), x.clamp(min=0), tol=0)
    assert isinstance(CKBlock(2, 3).shortcut, torch.nn.Conv1d)


def test_a_network_of_other_kernels():
    net = built(lambda: CKCNN(1, 2, channels=4, kernel_net=NETS["fourier"]))
    assert isinstance(net.blocks[0].conv1.kernel_net, RandomFourierNet)
    assert net(drawn(2, 1, 20)).shape == (2, 2)


# What is refused -----------------------------------------------------------------

ROW = torch.zeros(4)
THREE = CKConv(3, 4, horizon=20)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CKConv(0, 1), "in_channels must be an integer >= 1, got 0"),
        (lambda: CKConv(1, 1, horizon=0), "horizon must be an integer >= 1, got 0"),
        (lambda: CKConv(1, 1, method="best"), "method must be one of 'factorised'"),
        (lambda: CKConv(1, 1, kernel_dropout=2), r"kernel_dropout .* \[0, 1\], got 2"),
        (lambda: CKConv(1, 1).kernel(0), "length must be an integer >= 1, got 0"),
        (lambda: CKConv(1, 1).kernel(3, resolution=0), "resolution must be a number"),
        (lambda: CKConv(2, 1)(torch.zeros(1, 1, 4)), r"x must be \(b, 2, t\)"),
        (lambda: CKConv(1, 1)(torch.zeros(1, 1, 4).half()), "x must be float32 or flo"),
        (lambda: CKConv(1, 1).initial_state(1), "horizon must be set before streaming"),
        (lambda: CKConv(1, 1).at(ROW, ROW[None, None], ROW), "horizon must be set bef"),
        (lambda: CKConv(1, 1, horizon=9).at(ROW, ROW, ROW), r"values must be \(b, 1,"),
        (
            lambda: CKConv(1, 1, horizon=9).at(ROW[:3], ROW[None, None], ROW),
            "times must be one row, or one for each of the 1 samples, of 4 numbers",
        ),
        (lambda: CKConv(1, 1, kernel_net=3), "kernel_net must be a torch module"),
        (
            lambda: CKConv(3, 4, kernel_net=Siren(1, 11)),
            r"kernel_net must give out_channels \* in_channels = 12 values, got 11",
        ),
        (
            lambda: CKConv(3, 4, kernel_net=Ramp(11))(torch.zeros(1, 3, 5)),
            r"kernel_net must map positions \(5, 1\) to values \(5, 12\), got shape",
        ),
        (
            lambda: CKConv(1, 1)(torch.zeros(1, 1, 4).double()),
            "x must have the dtype and device of kernel_net, torch.float32 on cpu, got",
        ),
        (lambda: THREE.at(ROW, torch.zeros(2, 1, 4), ROW), r"\(b, 3, n\), none of the"),
        (lambda: THREE.at(ROW, torch.zeros(2, 2, 4), ROW), r"got shape \(2, 2, 4\)"),
        (lambda: THREE.at(ROW[:0], torch.zeros(2, 3, 0), ROW), "values must be .* non"),
        (
            lambda: THREE.at(ROW, torch.zeros(2, 3, 4).double(), ROW),
            "values must have the dtype and device of kernel_net, torch.float32 on cpu",
        ),
        (
            lambda: THREE.at([0, 1, 2, 3], torch.zeros(2, 3, 4), ROW),
            "times must be a tensor of real numbers, got <class 'list'>",
        ),
        (
            lambda: THREE.at(ROW, torch.zeros(2, 3, 4), 1.5),
            "query_times must be a tensor of real numbers, got <class 'float'>",
        ),
        (
            lambda: THREE.at(ROW, torch.zeros(2, 3, 4), ROW, weights=1j * ROW),
            "weights must be a tensor of real numbers, got torch.complex64",
        ),
        (
            lambda: THREE.at(ROW.to("meta"), torch.zeros(2, 3, 4), ROW),
            "times must be on cpu, as values is, got meta",
        ),
        (lambda: CKBlock(1, 1, norm="layer"), "norm must be one of 'step', 'released'"),
        (lambda: CKBlock(1, 1, dropout=-1), r"dropout must be a number in \[0, 1\]"),
        (
            lambda: CKBlock(1, 1, norm="released", horizon=5).initial_state(1),
            "norm must be 'step' to run chunk by chunk, got 'released'",
        ),
        (lambda: CKCNN(1, 1, head="mean"), "head must be one of 'last', 'all'"),
        (lambda: CKCNN(1, 1, blocks=0), "blocks must be an integer >= 1, got 0"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
