"""Causal networks: against flax, against gradients, and chunk by chunk."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ckutils.temporal import (
    TCN,
    CausalConv1d,
    CausalSequential,
    StepNorm,
    TemporalBlock,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded(build, seed=0):
    torch.manual_seed(seed)
    return build().double().eval()


def future(model, x):
    """The largest |d y[t] / d x[s]| over all s > t; all channels and batch entries."""
    x = x.clone().requires_grad_()
    y, worst = model(x), 0.0
    weights = draw(*y.shape[:2], seed=7)  # channels summed alike could cancel
    for t in range(y.shape[-1]):
        value = (weights * y[..., t]).sum()
        (slope,) = torch.autograd.grad(value, x, retain_graph=True)
        worst = max(worst, float(slope[..., t + 1 :].abs().sum()))
    return worst


# One convolution -----------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    t=st.integers(1, 20), k=st.integers(1, 5), s=st.integers(1, 4), d=st.integers(1, 4)
)
def test_causal_convolution_is_its_formula(t, k, s, d):
    layer = seeded(lambda: CausalConv1d(2, 3, k, stride=s, dilation=d))
    x, weight = draw(1, 2, t), layer.weight.detach()
    y = layer(x)
    assert y.shape == (1, 3, -(-t // s))
    for j in range(y.shape[-1]):
        want = layer.bias.detach().clone()
        for i in range(k):
            at = s * j - d * (k - 1 - i)
            if at >= 0:
                want += weight[..., i] @ x[0, :, at]
        torch.testing.assert_close(y[0, :, j].detach(), want, rtol=0, atol=1e-14 * k)


def test_causal_convolution_by_hand():
    layer = CausalConv1d(1, 1, 2, dilation=2, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([10.0, 1.0])
    got = layer(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    assert got.tolist() == [[[1.0, 2.0, 13.0, 24.0]]]  # x[t] + 10 x[t - 2]


@pytest.mark.parametrize("name", ["kernel_size", "stride", "dilation", "groups"])
def test_counts_start_at_one(name):
    options = {"in_channels": 2, "out_channels": 2, "kernel_size": 2} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got 0"):
        CausalConv1d(**options)


# Chunk by chunk ------------------------------------------------------------------


def in_chunks(model, x, cuts):
    state, parts = model.initial_state(x.shape[0]), []
    for part in x.tensor_split(cuts, dim=-1):
        y, state = model.step(part, state)
        parts.append(y)
    return torch.cat(parts, dim=-1)


CHAINS = {
    "conv": lambda: CausalConv1d(2, 3, 3, dilation=2),
    "stride 3": lambda: CausalConv1d(2, 3, 2, stride=3),
    "stride beyond the kernel": lambda: CausalConv1d(2, 3, 1, stride=4),
    "grouped": lambda: CausalConv1d(2, 4, 3, groups=2, bias=False),
    "strides in a chain": lambda: CausalSequential(
        CausalConv1d(2, 4, 3, stride=2), nn.ReLU(), CausalConv1d(4, 4, 4, stride=3),
        nn.Tanh(), CausalConv1d(4, 2, 2, dilation=2),
    ),
    "tcn": lambda: TCN(2, [4, 4, 3], 5, 3),
    "tcn, norm a step": lambda: TCN(2, [4, 3], 5, norm="step"),
    "tcn, batch norm in evaluation": lambda: TCN(2, [4, 3], 5, norm="batch"),
    "stride, then a tcn": lambda: CausalSequential(
        CausalConv1d(2, 3, 4, stride=2), TCN(3, [4, 4], 2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
@settings(deadline=None, derandomize=True, max_examples=12)
@given(data=st.data())
def test_any_chunks_give_the_whole(name, data):
    t = data.draw(st.integers(1, 40))
    cuts = sorted(data.draw(st.lists(st.integers(0, t), max_size=8)))  # empty ones too
    model, x = seeded(CHAINS[name]), draw(2, 2, t)
    with torch.no_grad():
        got, want = in_chunks(model, x, cuts), model(x)
    torch.testing.assert_close(
        got, want, rtol=0, atol=1e-12, msg=f"{name} {t=} {cuts=}"
    )


def test_one_sample_at_a_time():
    model, x = seeded(CHAINS["strides in a chain"]), draw(1, 2, 31)
    with torch.no_grad():
        got = in_chunks(model, x, list(range(1, 31)))
        torch.testing.assert_close(got, model(x), rtol=0, atol=1e-12)


def test_a_step_does_not_change_the_state_it_was_given():
    model = seeded(CHAINS["tcn"])
    state = model.initial_state(1)
    first = model.step(draw(1, 2, 5), state)[0]
    again = model.step(draw(1, 2, 5), state)[0]
    assert torch.equal(first, again)


def test_state_follows_dtype_and_batch():
    state = CausalConv1d(2, 3, 4, dilation=3).double().initial_state(5)
    assert state.buffer.shape == (5, 2, 9) and state.buffer.dtype == torch.float64


def test_what_cannot_stream_says_so():
    for norm, message in (
        ("group", "GroupNorm cannot stream: it mixes time steps"),
        ("batch", "BatchNorm1d cannot stream: it mixes time steps in training mode"),
    ):
        model = TCN(2, [3], 2, norm=norm).train()
        with pytest.raises(ValueError, match=message):
            model.initial_state(1)
    with pytest.raises(ValueError, match="MaxPool1d cannot stream"):
        CausalSequential(nn.MaxPool1d(2)).initial_state(1)
    model = TCN(2, [3], 2, norm="batch").eval()
    state = model.initial_state(1)
    with pytest.raises(ValueError, match="in training mode"):
        model.train().step(torch.zeros(1, 2, 4), state)


def test_a_module_may_say_that_it_is_pointwise():
    class Square(nn.Module):
        pointwise = True

        def forward(self, x):
            return x**2

    class Cumulative(nn.Module):
        def forward(self, x):
            return x.cumsum(-1)

    model = seeded(lambda: CausalSequential(CausalConv1d(2, 3, 4, stride=2), Square()))
    x = draw(1, 2, 15)
    with torch.no_grad():
        got = in_chunks(model, x, [1, 6, 13])
        torch.testing.assert_close(got, model(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="Cumulative cannot stream"):
        CausalSequential(Cumulative()).initial_state(1)


def test_chunks_must_fit_the_state():
    layer = CausalConv1d(2, 3, 4)
    state = layer.initial_state(1)
    for shape in ((1, 3, 4), (2, 2, 4), (2, 4)):
        with pytest.raises(ValueError, match=r"x must be \(b, c, n\) with \(b, c\)"):
            layer.step(torch.zeros(shape), state)
    with pytest.raises(ValueError, match="batch must be an integer >= 1, got 0"):
        layer.initial_state(0)


# The network ---------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("channels", [[3], [3, 3, 4]])
def test_tcn_is_causal_and_keeps_the_length(kernel, channels):
    model = seeded(lambda: TCN(2, channels, 5, kernel))
    x = draw(2, 2, 13)
    assert model(x).shape == (2, 5, 13)
    assert future(model, x) == 0


@pytest.mark.parametrize(
    ("norm", "training", "sees_future"),
    [
        ("none", True, False),
        ("step", True, False),
        ("batch", True, True),
        ("batch", False, False),
        ("group", True, True),
        ("group", False, True),
    ],
)
def test_which_norm_sees_the_future(norm, training, sees_future):
    model = seeded(lambda: TCN(2, [4, 4], 2, dropout=0.0, norm=norm)).train(training)
    seen = future(model, draw(2, 2, 12))
    assert (seen > 1e-6) if sees_future else (seen == 0)


def test_step_norm_is_layer_norm_over_channels():
    norm, x = seeded(lambda: StepNorm(4)), draw(2, 4, 6)
    mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
    want = (x - mean) / (var + 1e-5).sqrt()
    torch.testing.assert_close(norm(x).detach(), want, rtol=0, atol=1e-13)


def test_levels_and_shortcuts():
    model = TCN(3, [5, 5, 7], 2, 4)
    *levels, last = model
    convs = [[m for m in level.main if isinstance(m, CausalConv1d)] for level in levels]
    assert [[m.dilation for m in pair] for pair in convs] == [
        [(2**i,)] * 2 for i in range(3)
    ]
    kinds = [type(level.shortcut[0]).__name__ for level in levels]
    assert kinds == ["CausalConv1d", "Identity", "CausalConv1d"]
    assert levels[0].shortcut[0].weight.shape == (5, 3, 1)
    assert last.weight.shape == (2, 7, 1)
    assert model.reach == 2 * 3 * 7


def test_dropout_draws_anew_at_each_place():
    block = TemporalBlock(1, 200, 1, dropout=0.5).train()
    places = [m for m in block.main if isinstance(m, nn.Dropout)]
    assert len(places) == 2
    masks = [(m(torch.ones(200)) == 0) for m in places]
    assert not torch.equal(*masks)
    assert torch.equal(block.eval()(torch.ones(1, 1, 4)), block(torch.ones(1, 1, 4)))


@pytest.mark.parametrize(
    ("message", "build"),
    [
        ("channels must name at least one level's width", lambda: TCN(2, [], 3)),
        ("channels must name at least one", lambda: TCN(2, 4, 3)),
        ("out_channels must be an integer >= 1, got 0", lambda: TCN(2, [0], 3)),
        (r"dropout must be a number in \[0, 1\]", lambda: TCN(2, [2], 3, dropout=2.0)),
        ("norm must be one of 'none', 'step'", lambda: TCN(2, [2], 3, norm="layer")),
        ("dilation must be an integer >= 1", lambda: TemporalBlock(2, 2, 2, 0)),
    ],
)
def test_errors(message, build):
    with pytest.raises(ValueError, match=message):
        build()
