"""Counts from a table of integers against modules, torch's counter and a loop."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ckutils import blocks
from ckutils.arithmetic import (
    Cost,
    conv_weights,
    count_cost,
    count_macs,
    count_parameters,
    network_cost,
)
from ckutils.block_rows import BLOCKS
from ckutils.training import count_weights


def conv(axes=2, **options):
    return blocks.CONV[axes](**options)


def tcn(in_channels, channels, out_channels, **options):
    return blocks.TCN(in_channels, channels, out_channels, **options)


MODULES = {
    "conv": conv,
    "linear": nn.Linear,
    "pool": nn.MaxPool2d,
    "spatially_separable": blocks.SpatiallySeparable,
    "depthwise_separable": blocks.DepthwiseSeparable,
    "pointwise_grouped": blocks.PointwiseGrouped,
    "shuffle_unit": blocks.ShuffleUnit,
    "flattened": blocks.Flattened,
    "inception": blocks.Inception,
    "residual": blocks.Residual,
    "highway": blocks.Highway,
    "temporal_block": blocks.TemporalBlock,
    "tcn": tcn,
}

IN_OUT = {"in_channels": 6, "out_channels": 4}
# (block, size, options)
CASES = [
    ("conv", (9, 8), IN_OUT | {"kernel_size": 3}),
    ("conv", (9, 8), IN_OUT | {"kernel_size": (3, 2), "stride": (2, 1), "groups": 2}),
    ("conv", (9, 8), IN_OUT | {"kernel_size": 3, "padding": (2, 0), "bias": False}),
    ("conv", (9,), IN_OUT | {"kernel_size": 3, "dilation": 3, "axes": 1}),
    ("conv", (5, 4, 6), IN_OUT | {"kernel_size": 2, "axes": 3}),
    ("linear", (), {"in_features": 7, "out_features": 3}),
    ("linear", (), {"in_features": 7, "out_features": 3, "bias": False}),
    ("pool", (9, 8), {"kernel_size": 2}),
    ("pool", (9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("spatially_separable", (9, 8), IN_OUT | {"kernel_size": 3}),
    ("spatially_separable", (9, 8), IN_OUT | {
        "kernel_size": (3, 5), "mid_channels": 3, "stride": 2, "padding": (1, 2),
        "bias": False}),
    ("depthwise_separable", (9, 8), IN_OUT | {"kernel_size": 3}),
    ("depthwise_separable", (9, 8), IN_OUT | {
        "kernel_size": (3, 2), "multiplier": 2, "stride": 2, "padding": 1,
        "dilation": 2, "bias": False}),
    ("depthwise_separable", (20,), IN_OUT | {"kernel_size": 5, "axes": 1}),
    ("pointwise_grouped", (9, 8), IN_OUT | {"groups": 2}),
    ("pointwise_grouped", (9, 8), IN_OUT | {"groups": 1, "bias": False}),
    ("shuffle_unit", (9, 8), {"channels": 16, "groups": 2}),
    ("shuffle_unit", (9, 8), {"channels": 24, "groups": 3, "stride": 2,
                              "kernel_size": 5, "bottleneck": 2}),
    ("flattened", (9, 8), IN_OUT | {"kernel_size": (3, 5), "padding": (1, 2)}),
    ("flattened", (9, 8), IN_OUT | {"kernel_size": 3, "bias": False}),
    ("inception", (9, 8), {"in_channels": 6, "widths": (5, 2, 4, 3, 6, 7)}),
    ("inception", (9, 8), {"in_channels": 6, "widths": (5, 2, 4, 3, 6, 7),
                           "reduce": False}),
    ("residual", (9, 8), IN_OUT),
    ("residual", (9, 8), IN_OUT | {"stride": 2, "order": "pre", "kernel_size": 5}),
    ("residual", (9, 8), {"in_channels": 4, "out_channels": 4, "norm": "none"}),
    ("residual", (9,), {"in_channels": 4, "out_channels": 4, "stride": 2, "axes": 1}),
    ("highway", (9, 8), {"channels": 4}),
    ("highway", (9,), {"channels": 4, "kernel_size": 5, "axes": 1}),
    ("temporal_block", 11, IN_OUT | {"kernel_size": 3, "dilation": 2}),
    ("temporal_block", 11, {"in_channels": 4, "out_channels": 4, "norm": "step"}),
    ("tcn", 11, {"in_channels": 3, "channels": [5, 5, 7], "out_channels": 2}),
    ("tcn", 11, {"in_channels": 5, "channels": [5], "out_channels": 2,
                 "kernel_size": 4, "norm": "batch"}),
]  # fmt: skip


def module_of(block, options):
    """The module that a row of BLOCKS describes."""
    return MODULES[block](**options)


def shape_of(block, size, options):
    channels = options.get("in_channels", options.get("channels", 4))
    space = (size,) if isinstance(size, int) else size
    return (1, options["in_features"]) if block == "linear" else (1, channels, *space)


def traced(model, shape):
    """Multiply-adds by torch's counter, values of the convolutions, output size."""
    values = []
    for layer in model.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            layer.register_forward_hook(lambda _, __, y: values.append(y[0].numel()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = model.eval()(torch.zeros(shape))
    flops = counter.get_total_flops()
    assert flops % 2 == 0  # torch counts a multiplication and an addition as two
    return flops // 2, sum(values), tuple(y.shape[2:])


def test_every_block_has_a_case():
    assert {block for block, _, _ in CASES} == set(BLOCKS) == set(MODULES)


@pytest.mark.parametrize(("block", "size", "options"), CASES)
def test_the_table_counts_what_the_module_does(block, size, options):
    model = module_of(block, options)
    cost = count_cost(block, size, **options)
    assert count_parameters(block, **options) == count_weights(model)
    got = cost.macs, cost.activations, cost.output_size
    assert got == traced(model, shape_of(block, size, options))
    assert cost.parameters == count_weights(model)
    assert count_macs(block, size, **options) == cost.macs


@pytest.mark.parametrize(("block", "size", "options"), CASES)
def test_the_table_lists_the_modules_convolutions(block, size, options):
    if block in ("linear", "pool"):
        return
    convs = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    model = module_of(block, options)
    want = [
        (m.kernel_size, m.stride, m.dilation, m.groups, m.in_channels, m.out_channels)
        for m in model.modules()
        if isinstance(m, convs)
    ]
    got = [
        (r.kernel_size, r.stride, r.dilation, r.groups, r.in_channels, r.out_channels)
        for branch in BLOCKS[block](**options)
        for r in branch
    ]
    assert sorted(got) == sorted(want)


def test_one_layer_by_hand():
    # 5x5 over 3 channels into 4: 5 * 5 * 3 * 4 + 4; at 4x4 positions 300 products each
    options = {"in_channels": 3, "out_channels": 4, "kernel_size": 5}
    assert count_parameters("conv", **options) == 304
    assert count_cost("conv", (8, 8), **options) == Cost(304, 16 * 300, 64, (4, 4))
    assert conv_weights(6, 4, (2, 3), groups=2, bias=False) == 2 * 3 * 6 * 4 // 2


def test_a_loop_that_counts_its_own_products():
    """Walk every output value and count one for each weight that it meets."""
    count, n, k, s, p, channels = 0, 7, 3, 2, 1, 2
    for _out in range(3):
        for top in range(0, n + 2 * p - k + 1, s):
            for left in range(0, n + 2 * p - k + 1, s):
                for _ in range(channels):
                    count += sum(1 for i in range(top, top + k)
                                 for j in range(left, left + k))  # fmt: skip
    options = {"in_channels": 2, "out_channels": 3, "kernel_size": 3}
    assert count_macs("conv", (7, 7), **options, stride=2, padding=1) == count


def test_depthwise_separable_over_dense_is_one_over_width_plus_one_over_area():
    options = {"in_channels": 64, "out_channels": 128, "kernel_size": 3, "padding": 1}
    cheap = count_macs("depthwise_separable", (14, 14), **options)
    dense = count_macs("conv", (14, 14), **options)
    assert cheap * 128 * 9 == dense * (128 + 9)  # 1/128 + 1/9


def test_the_published_inception_module():
    # arXiv:1409.4842, table 1, row inception (3a): 28 x 28 x 256, 159 K parameters,
    # 128 M operations. The formula gives 163 696, the weights alone 163 328.
    cost = count_cost("inception", (28, 28), in_channels=192,
                      widths=blocks.INCEPTION_3A)  # fmt: skip
    assert cost.parameters == 163_696
    assert cost.macs == 128_049_152
    assert cost.output_size == (28, 28)


LENET = [
    ("conv", {"in_channels": 1, "out_channels": 6, "kernel_size": 5, "padding": 2}),
    ("pool", {"kernel_size": 2}),
    ("residual", {"in_channels": 6, "out_channels": 12, "stride": 2}),
    ("depthwise_separable", {"in_channels": 12, "out_channels": 16, "kernel_size": 3}),
    ("linear", {"in_features": 16 * 5 * 5, "out_features": 10}),
]


def test_a_network_is_the_sum_of_its_blocks():
    parts = [module_of(block, options) for block, options in LENET]
    model = nn.Sequential(*parts[:-1], nn.Flatten(), parts[-1])
    cost = network_cost(LENET, (28, 28))
    macs, activations, _ = traced(model, (1, 1, 28, 28))
    assert cost[:3] == (count_weights(model), macs, activations)
    assert cost.output_size == ()


@pytest.mark.parametrize(
    ("message", "block", "size", "options"),
    [
        ("block must be one of 'conv', .*, got 'convo'", "convo", 3, {}),
        ("kernel_size must be an integer >= 1, got 0", "conv", (3, 3),
         IN_OUT | {"kernel_size": 0}),
        ("in_channels must be an integer >= 1, got 0", "conv", (3, 3),
         {"in_channels": 0, "out_channels": 1, "kernel_size": 1}),
        ("out_channels must be an integer >= 1, got 0", "conv", (3, 3),
         {"in_channels": 1, "out_channels": 0, "kernel_size": 1}),
        ("in_channels must be a multiple of groups=4, got 6", "conv", (3, 3),
         IN_OUT | {"kernel_size": 1, "groups": 4}),
        ("out_channels must be a multiple of groups=3, got 4", "conv", (3, 3),
         IN_OUT | {"kernel_size": 1, "groups": 3}),
        (r"size\[1\] must be an integer >= 1, got 0", "conv", (3, 0),
         IN_OUT | {"kernel_size": 1}),
        (r"size must have 2 axes for 'conv', got \(3,\)", "conv", 3,
         IN_OUT | {"kernel_size": 1}),
        ("kernel spans 5", "conv", (3, 3), IN_OUT | {"kernel_size": 5}),
        ("kernel_size must be an integer >= 1", "highway", (3, 3),
         {"channels": 2, "kernel_size": 0}),
        ("kernel_size must be odd to keep the size, got 4", "residual", (3, 3),
         IN_OUT | {"kernel_size": 4}),
        ("order must be one of 'post', 'pre'", "residual", (3, 3),
         IN_OUT | {"order": 1}),
        ("norm must be one of 'batch', 'none'", "residual", (3, 3),
         IN_OUT | {"norm": 1}),
        ("norm must be one of 'none', 'step'", "tcn", 3,
         {"in_channels": 1, "channels": [2], "out_channels": 1, "norm": "layer"}),
        ("channels must name at least one level", "tcn", 3,
         {"in_channels": 1, "channels": [], "out_channels": 1}),
        (r"channels must be a multiple of groups \* bottleneck = 8, got 12",
         "shuffle_unit", (3, 3), {"channels": 12, "groups": 2}),
        ("stride must be one of 1, 2, got 3", "shuffle_unit", (3, 3),
         {"channels": 8, "groups": 2, "stride": 3}),
        ("widths must hold 6 widths", "inception", (3, 3),
         {"in_channels": 3, "widths": (1, 2)}),
        ("widths must hold 6 widths, got 5", "inception", (3, 3),
         {"in_channels": 3, "widths": 5}),
        ("bias must be True or False, got None", "conv", (3, 3),
         IN_OUT | {"kernel_size": 3, "bias": None}),
        ("axes must be an integer >= 1, got 2.0", "residual", (3, 3),
         IN_OUT | {"axes": 2.0}),
        ("axes must be an integer >= 1, got True", "conv", 3,
         IN_OUT | {"kernel_size": 3, "axes": True}),
        ("axes must be an integer >= 1, got '2'", "pool", 3,
         {"kernel_size": 3, "axes": "2"}),
        ("in_features must be an integer >= 1, got 0", "linear", (),
         {"in_features": 0, "out_features": 3}),
        ("out_features must be an integer >= 1, got 1.5", "linear", (),
         {"in_features": 2, "out_features": 1.5}),
        (r"size\[0\] must be an integer >= 1, got 3.5", "tcn", 3.5,
         {"in_channels": 1, "channels": [1], "out_channels": 1}),
    ],
)  # fmt: skip
def test_errors(message, block, size, options):
    with pytest.raises(ValueError, match=message):
        count_macs(block, size, **options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="kernel"):
        count_parameters("conv", in_channels=1, out_channels=1, kernel=3)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("kernel_size must be an integer >= 1", {"kernel_size": (3, 0)}),
        ("groups must be an integer >= 1", {"kernel_size": 3, "groups": 0}),
        ("in_channels must be a multiple", {"kernel_size": 3, "groups": 5}),
        ("bias must be True or False, got 2", {"kernel_size": 3, "bias": 2}),
    ],
)
def test_conv_weights_errors(message, options):
    with pytest.raises(ValueError, match=message):
        conv_weights(6, 4, **options)


def test_counts_are_integers():
    cost = count_cost("residual", (8, 8), in_channels=2, out_channels=4, stride=2)
    assert all(type(value) is int for value in cost[:3])
    assert math.prod(cost.output_size) == 16
