"""Receptive fields: by hand, against gradients of real networks, against each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ckutils.arithmetic import ReceptiveField, receptive_field, receptive_set
from ckutils.blocks import (
    INCEPTION_3A,
    TCN,
    CausalConv1d,
    DepthwiseSeparable,
    Highway,
    Inception,
    Residual,
    SpatiallySeparable,
    TemporalBlock,
)

LAYERS = st.lists(
    st.tuples(*[st.integers(1, high) for high in (4, 3, 4)], st.integers(0, 3)),
    min_size=1, max_size=4,
)  # fmt: skip


def seen_inputs(model, shape, at):
    """Where the gradient of all channels of one output position is not zero.

    Positive weights cannot cancel, so a zero means that there is no path.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_().clamp_(min=0.1)
    x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    y = model.double().eval()(x)
    y[(0, slice(None), *at)].sum().backward()
    return x.grad[0].sum(0) != 0


def test_one_layer_by_hand():
    assert receptive_field([(3, 2, 2, 1)]) == ReceptiveField(5, 2, -1)
    assert receptive_field([]) == ReceptiveField(1, 1, 0)


def test_the_stem_of_a_residual_network_by_hand():
    # 7x7 stride 2 padding 3, then 3x3 pooling stride 2 padding 1: 7 + 2 * 2 = 11
    field = receptive_field([(7, 2, 1, 3), (3, 2, 1, 1)])
    assert field == ReceptiveField(size=11, jump=4, start=-5)


@pytest.mark.parametrize("kernel", [2, 3, 7])
@pytest.mark.parametrize("levels", [1, 3, 6])
@pytest.mark.parametrize("stacks", [1, 2, 3])
def test_a_temporal_network_has_two_convolutions_a_level(kernel, levels, stacks):
    one = [(kernel, 1, 2**i) for i in range(levels) for _ in range(2)]
    want = 1 + 2 * (kernel - 1) * (2**levels - 1) * stacks
    assert receptive_field(one * stacks).size == want


@settings(deadline=None, derandomize=True, max_examples=60)
@given(layers=LAYERS)
def test_the_field_is_where_gradients_are(layers):
    model = nn.Sequential(
        *(nn.Conv1d(1, 1, k, s, p, d, bias=False) for k, s, d, p in layers)
    )
    field = receptive_field(layers)
    j = 1 + max(0, -field.start)  # its field lies past the padding
    length = field.start + j * field.jump + field.size + 3
    seen = seen_inputs(model, (1, 1, length), (j,)).nonzero().flatten().tolist()
    offset = j * field.jump
    assert seen == [offset + i for i in receptive_set(layers)], layers
    assert seen[0] == field.start + offset, layers
    assert seen[-1] - seen[0] + 1 == field.size, layers


@settings(deadline=None, derandomize=True, max_examples=60)
@given(first=LAYERS, second=LAYERS)
def test_fields_compose(first, second):
    a, b, both = (receptive_field(part) for part in (first, second, first + second))
    assert both.size == a.size + (b.size - 1) * a.jump
    assert both.jump == a.jump * b.jump
    assert both.start == a.start + b.start * a.jump


def test_two_axes_are_two_chains():
    rows, columns = [(3, 2, 1, 1), (5, 1, 2, 0)], [(1, 1, 1, 0), (7, 3, 2, 3)]
    both = [tuple(zip(*pair, strict=True)) for pair in zip(rows, columns, strict=True)]
    got = receptive_field(both)
    want = zip(receptive_field(rows), receptive_field(columns), strict=True)
    assert tuple(got) == tuple(want)
    assert receptive_field([(3, 1, 1), ((3, 5), 2, 1)]).size == (5, 7)


BLOCKS = {
    "depthwise": (DepthwiseSeparable(2, 3, 3, stride=2, padding=2, dilation=2),
                  [(3, 2, 2, 2)]),
    "separable": (SpatiallySeparable(2, 3, (3, 5), padding=(1, 2)),
                  [((3, 5), 1, 1, (1, 2))]),
    "inception": (Inception(2, INCEPTION_3A), [(5, 1, 1, 2)]),
    "residual": (Residual(2, 3, stride=2), [(3, 2, 1, 1), (3, 1, 1, 1)]),
    "highway": (Highway(2), [(3, 1, 1, 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block(name):
    model, layers = BLOCKS[name]
    field = receptive_field(
        [((k), s, d, p) for k, s, d, p in [*layers, ((1, 1), 1, 1, 0)]]
    )
    at = (5, 6)
    if name == "inception":  # its maximum passes one input only: hide it
        model.branches = model.branches[:3]
    seen = seen_inputs(model, (1, 2, 24, 24), at)
    for axis in range(2):
        line = seen.any(dim=1 - axis).nonzero().flatten()
        first = field.start[axis] + at[axis] * field.jump[axis]
        assert int(line[0]) == first
        assert int(line[-1]) == first + field.size[axis] - 1


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("channels", [[4], [4, 4, 4], [3, 5, 5]])
def test_every_temporal_network(kernel, channels):
    model = TCN(2, channels, 3, kernel)
    layers = [
        (kernel, 1, 2**i, (kernel - 1) * 2**i)
        for i in range(len(channels))
        for _ in range(2)
    ]
    field = receptive_field(layers)
    at = field.size + 3
    seen = seen_inputs(model, (1, 2, at + 9), (at,)).nonzero().flatten().tolist()
    assert seen == [at + i for i in receptive_set(layers)]
    assert (seen[0], seen[-1]) == (at + field.start, at)
    assert field.size == model.reach + 1


def test_stacks_of_one_convolution_a_block():
    # the other convention of the threads: one dilated convolution a level, two stacks
    model = nn.Sequential(
        *(CausalConv1d(1, 1, 3, dilation=d) for d in (1, 2, 4) * 2)
    )  # fmt: skip
    seen = seen_inputs(model, (1, 1, 60), (50,)).nonzero().flatten()
    assert int(seen[-1] - seen[0]) + 1 == 1 + 2 * 2 * 7
    assert int(seen[-1]) == 50


def test_holes_are_left_out():
    assert receptive_set([(2, 1, 1), (2, 1, 4)]) == (0, 1, 4, 5)
    assert receptive_field([(2, 1, 1), (2, 1, 4)]).size == 6
    model = TemporalBlock(1, 1, 2, 3)
    seen = seen_inputs(model, (1, 1, 20), (15,)).nonzero().flatten().tolist()
    assert seen == [9, 12, 15]


@pytest.mark.parametrize(
    ("message", "layers"),
    [
        (r"layers\[1\] must be \(kernel, stride, dilation\)", [(3, 1, 1), (3, 1)]),
        (r"layers\[0\] must be \(kernel", [3]),
        (r"layers\[0\].kernel must be an integer >= 1, got 0", [(0, 1, 1)]),
        (r"layers\[0\].kernel must be an int or one int an axis", [((), 1, 1)]),
        (r"layers\[1\].padding must be .* got \[\]", [(3, 1, 1), (3, 1, 1, [])]),
        (r"layers\[0\].stride must be an integer >= 1, got 0", [(3, 0, 1)]),
        (r"layers\[0\].dilation must be an integer >= 1, got 0", [((3, 3), 1, (1, 0))]),
        (r"layers\[0\].padding must be an integer >= 0, got -1", [(3, 1, 1, -1)]),
        (r"layers must agree in their number of axes", [((3, 3), 1, (1, 1, 1))]),
    ],
)
def test_errors(message, layers):
    with pytest.raises(ValueError, match=message):
        receptive_field(layers)


def test_the_exact_set_is_for_one_axis():
    with pytest.raises(ValueError, match=r"layers\[0\] must hold ints only"):
        receptive_set([((3, 3), 1, 1)])
