"""Blocks against the one kernel they equal, against NumPy, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ckutils import blocks
from ckutils.blocks import (
    INCEPTION_3A,
    DepthwiseSeparable,
    Flattened,
    Highway,
    Inception,
    PointwiseGrouped,
    Residual,
    ShuffleUnit,
    SpatiallySeparable,
    block_diagonal,
    channel_shuffle,
    grouped_conv_ref,
    kernel_rank,
    separate,
)

EPS = torch.finfo(torch.float64).eps


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded(build, seed=0):
    """A module with its own weights, in float64, biases included."""
    torch.manual_seed(seed)
    return build().double()


def close(got, want, terms):
    """|got - want| within the rounding of a sum of that many products near 1."""
    torch.testing.assert_close(got, want, rtol=0, atol=32 * terms * EPS)


# Which kernels separate ----------------------------------------------------------

RANKS = {
    "box": ([[1, 1, 1]] * 3, 1),
    "binomial": ([[1, 2, 1], [2, 4, 2], [1, 2, 1]], 1),
    "sobel": ([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], 1),
    "laplace": ([[0, 1, 0], [1, -4, 1], [0, 1, 0]], 2),
    "identity": (np.eye(5), 5),
    "zero": (np.zeros((2, 3)), 0),
}


@pytest.mark.parametrize("name", RANKS)
def test_rank_of_known_kernels(name):
    kernel, rank = RANKS[name]
    assert kernel_rank(kernel) == rank == np.linalg.matrix_rank(np.asarray(kernel))


def test_rank_in_float32_and_with_a_tolerance():
    noisy = torch.outer(draw(5).float(), draw(7, seed=1).float())
    assert kernel_rank(noisy) == 1
    noisy = noisy + 1e-3 * draw(5, 7, seed=2).float()
    assert kernel_rank(noisy) == 5
    assert kernel_rank(noisy, tol=0.1) == 1
    assert kernel_rank(1e-20 * np.eye(3)) == 3  # the rank does not depend on the scale
    assert kernel_rank(1e20 * torch.outer(draw(4), draw(4, seed=3))) == 1


@settings(deadline=None, derandomize=True, max_examples=40)
@given(h=st.integers(1, 6), w=st.integers(1, 6), seed=st.integers(0, 99))
def test_separate_is_the_best_product(h, w, seed):
    kernel = draw(h, w, seed=seed)
    column, row, error = separate(kernel)
    left, values, right = np.linalg.svd(kernel.numpy(), full_matrices=False)
    best = values[0] * np.outer(left[:, 0], right[0])
    close(torch.outer(column, row), torch.from_numpy(best), h * w)
    want = np.linalg.norm(values[1:]) / np.linalg.norm(values)
    assert error == pytest.approx(want, abs=64 * EPS)
    assert float(column.norm()) == pytest.approx(float(row.norm()))
    rival = torch.outer(draw(h, seed=seed + 1), draw(w, seed=seed + 2))
    assert (kernel - rival).norm() >= error * kernel.norm() - 64 * EPS


def test_a_zero_kernel_separates_without_error():
    column, row, error = separate(np.zeros((2, 3)))
    assert (float(column.abs().sum()), float(row.abs().sum()), error) == (0, 0, 0)


@pytest.mark.parametrize("function", [kernel_rank, separate])
@pytest.mark.parametrize("kernel", [[1.0, 2.0], np.zeros((0, 3)), np.zeros((1, 1, 1))])
def test_a_kernel_has_two_axes(function, kernel):
    with pytest.raises(ValueError, match=r"kernel must be \(h, w\), got shape"):
        function(kernel)


def test_a_tolerance_is_not_negative():
    with pytest.raises(ValueError, match="tol must be a number >= 0, got -1"):
        kernel_rank(np.eye(2), tol=-1)


@pytest.mark.parametrize("function", [kernel_rank, separate])
def test_a_kernel_that_is_complex_or_not_finite_is_refused(function):
    # its real part is of rank 1, the whole of rank 2
    turned = torch.tensor([[1, 1], [1, 1]]) + 1j * torch.eye(2)
    for kernel in (turned, turned.numpy()):
        with pytest.raises(ValueError, match="kernel must be real, got torch"):
            function(kernel)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="kernel must be finite, got NaN or"):
            function([[1.0, value], [0.0, 1.0]])


# Groups --------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups_are_split_convolve_concatenate_and_block_diagonal(groups):
    x, weight = draw(2, 6, 7, 5), draw(12, 6 // groups, 3, 2, seed=1)
    want = functional.conv2d(x, weight, groups=groups)
    close(grouped_conv_ref(x, weight, groups=groups), want, 36)
    close(functional.conv2d(x, block_diagonal(weight, groups=groups)), want, 36)


def test_groups_by_hand():
    x = torch.tensor([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1, 1)
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    assert grouped_conv_ref(x, weight, groups=2).flatten().tolist() == [21.0, 4300.0]


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_shuffle_deals_and_the_other_deal_undoes_it(groups):
    x = draw(2, 12, 3, 4)
    dealt = channel_shuffle(x, groups)
    assert torch.equal(dealt, torch.nn.ChannelShuffle(groups)(x))
    assert torch.equal(channel_shuffle(dealt, 12 // groups), x)


def reads(model, channels):
    """(out, in): which input channels each output channel depends on."""
    x = torch.ones(1, channels, 1, 1, dtype=torch.float64, requires_grad=True)
    rows = [torch.autograd.grad(y, x, retain_graph=True)[0] for y in model(x).flatten()]
    return torch.stack(rows).flatten(1) != 0


def test_two_grouped_layers_mix_only_if_shuffled():
    def two(shuffle):
        return seeded(
            lambda: torch.nn.Sequential(
                PointwiseGrouped(9, 9, 3, shuffle=shuffle), PointwiseGrouped(9, 9, 3)
            )
        )

    blocks_only = torch.kron(torch.eye(3), torch.ones(3, 3)) > 0
    assert torch.equal(reads(two(False), 9), blocks_only)
    assert reads(two(True), 9).all()


def test_groups_errors():
    x = torch.zeros(1, 6, 3, 3)
    with pytest.raises(ValueError, match="in_channels must be a multiple of groups=4"):
        grouped_conv_ref(x, torch.zeros(4, 1, 1, 1), groups=4)
    with pytest.raises(ValueError, match="out_channels must be a multiple of groups=3"):
        grouped_conv_ref(x, torch.zeros(4, 2, 1, 1), groups=3)
    with pytest.raises(ValueError, match="out_channels must be a multiple of groups=3"):
        block_diagonal(torch.zeros(4, 2), groups=3)
    with pytest.raises(ValueError, match="groups must be an integer >= 1, got 0"):
        block_diagonal(torch.zeros(4, 2), groups=0)
    with pytest.raises(ValueError, match="channels must be a multiple of groups=4"):
        channel_shuffle(x, 4)
    with pytest.raises(ValueError, match="in_channels must be a multiple of groups=4"):
        PointwiseGrouped(6, 4, 4)


def test_shuffle_unit_is_its_formula():
    unit = seeded(lambda: ShuffleUnit(8, 2)).eval()
    x = draw(2, 8, 6, 5)
    squeeze, _, _, _, depthwise, _, expand, _ = unit.main
    scale = (1 + 1e-5) ** -0.5  # fresh batch normalisation in evaluation mode
    y = grouped_conv_ref(x, squeeze.weight, groups=2) * scale
    y = channel_shuffle(y.relu(), 2)
    padded = functional.pad(y, (1, 1, 1, 1))
    y = grouped_conv_ref(padded, depthwise.weight, groups=2) * scale
    y = grouped_conv_ref(y, expand.weight, groups=2) * scale
    close(unit(x), (x + y).relu(), 64)
    half = seeded(lambda: ShuffleUnit(8, 2, stride=2)).eval()
    got = half(x)
    assert got.shape == (2, 16, 3, 3)
    close(got[:, :8], functional.avg_pool2d(x, 3, 2, 1).relu(), 9)
    close(got[:, 8:], half.main(x).relu(), 1)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("groups must be an integer >= 1, got 0", {"groups": 0}),
        ("stride must be one of 1, 2, got 3", {"stride": 3}),
        ("kernel_size must be odd to keep the size, got 4", {"kernel_size": 4}),
        (r"channels must be a multiple of groups \* bottleneck = 12", {"groups": 3}),
    ],
)
def test_shuffle_unit_errors(message, options):
    with pytest.raises(ValueError, match=message):
        ShuffleUnit(**({"channels": 8, "groups": 2} | options))


# Convolutions in factors ---------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": (1, 2), "stride": (2, 1)},
        {"mid_channels": 5, "padding": 3, "stride": 2},
        {"bias": False},
    ],
)
def test_columns_then_rows_are_one_kernel(options):
    layer = seeded(lambda: SpatiallySeparable(3, 4, (3, 5), **options))
    x = draw(2, 3, 9, 10)
    plain = {key: options[key] for key in ("padding", "stride") if key in options}
    want = functional.conv2d(x, layer.dense(), layer[1].bias, **plain)
    close(layer(x), want, 75)


def test_one_channel_is_an_outer_product():
    layer = seeded(lambda: SpatiallySeparable(1, 1, 3))
    column, row = layer[0].weight.flatten(), layer[1].weight.flatten()
    close(layer.dense()[0, 0], torch.outer(column, row), 1)
    assert kernel_rank(layer.dense()[0, 0].detach()) == 1


def test_middle_channels_bound_the_rank():
    for mid, rank in ((1, 1), (2, 2), (3, 3), (9, 3)):
        layer = seeded(lambda mid=mid: SpatiallySeparable(1, 1, 3, mid_channels=mid))
        assert kernel_rank(layer.dense()[0, 0].detach()) == rank


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        (1, {}),
        (2, {"padding": (2, 1), "stride": 2, "dilation": (1, 2)}),
        (2, {"multiplier": 3, "bias": False}),
        (3, {"padding": 1}),
    ],
)
def test_depthwise_separable_is_one_kernel(axes, options):
    layer = seeded(lambda: DepthwiseSeparable(3, 4, 3, axes=axes, **options))
    x = draw(2, 3, *(7, 6, 5)[:axes])
    keys = "padding", "stride", "dilation"
    plain = {key: options[key] for key in keys if key in options}
    conv = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    close(layer(x), conv(x, layer.dense(), layer[1].bias, **plain), 243)


def test_flattened_is_one_kernel_of_three_vectors():
    layer = seeded(lambda: Flattened(3, 4, (3, 5), padding=(1, 2)))
    x, dense = draw(2, 3, 7, 8), layer.dense()
    close(layer(x), functional.conv2d(x, dense, layer[2].bias, padding=(1, 2)), 45)
    for one in dense.detach():  # each unfolding of each filter has rank 1
        assert kernel_rank(one.flatten(1)) == 1
        assert kernel_rank(one.transpose(0, 1).flatten(1)) == 1


@pytest.mark.parametrize(
    ("message", "build"),
    [
        ("mid_channels must be an integer >= 1, got 0",
         lambda: SpatiallySeparable(1, 1, 3, mid_channels=0)),
        ("kernel_size must be an int or a tuple of 2 ints",
         lambda: SpatiallySeparable(1, 1, (3, 3, 3))),
        ("padding must be an integer >= 0",
         lambda: SpatiallySeparable(1, 1, 3, padding=-1)),
        ("multiplier must be an integer >= 1",
         lambda: DepthwiseSeparable(1, 1, 3, multiplier=0)),
        ("axes must be one of 1, 2, 3, got 4",
         lambda: DepthwiseSeparable(1, 1, 3, axes=4)),
        ("stride must be an integer >= 1",
         lambda: DepthwiseSeparable(1, 1, 3, stride=0)),
        ("out_channels must be an integer >= 1", lambda: Flattened(1, 0, 3)),
        ("kernel_size must be an integer >= 1", lambda: Flattened(1, 1, (3, 0))),
        ("widths must hold 6 widths", lambda: Inception(2, (1, 2))),
        ("five must be an integer >= 1, got 0",
         lambda: Inception(2, (1, 1, 1, 1, 0, 1))),
        ("order must be one of 'post', 'pre'", lambda: Residual(1, 1, order="mid")),
        ("norm must be one of 'batch', 'none'", lambda: Residual(1, 1, norm="layer")),
        ("kernel_size must be odd", lambda: Residual(1, 1, kernel_size=2)),
        ("stride must be an integer >= 1", lambda: Residual(1, 1, stride=0)),
        ("axes must be one of", lambda: Residual(1, 1, axes=0)),
        ("channels must be an integer >= 1", lambda: Highway(0)),
        ("kernel_size must be odd", lambda: Highway(1, kernel_size=4)),
        ("axes must be one of", lambda: Highway(1, axes=5)),
    ],
)  # fmt: skip
def test_errors(message, build):
    with pytest.raises(ValueError, match=message):
        build()


# Width and depth -----------------------------------------------------------------


def test_inception_branches_by_hand():
    layer = seeded(lambda: Inception(3, (2, 4, 5, 6, 7, 8)))
    x = draw(2, 3, 6, 5)
    (one, _), (_, _, three, _), (_, _, five, _), (_, project, _) = layer.branches
    y = layer(x)
    assert y.shape == (2, 2 + 5 + 7 + 8, 6, 5)
    close(y[:, :2], functional.conv2d(x, one.weight, one.bias).relu(), 3)
    pooled = functional.max_pool2d(x, 3, 1, 1)
    want = functional.conv2d(pooled, project.weight, project.bias).relu()
    close(y[:, 14:], want, 3)
    assert (three.kernel_size, five.kernel_size) == ((3, 3), (5, 5))
    naive = seeded(lambda: Inception(3, (2, 4, 5, 6, 7, 8), reduce=False))(x)
    assert naive.shape == (2, 2 + 5 + 7 + 3, 6, 5)
    assert torch.equal(naive[:, 14:], pooled)


def test_the_published_widths_add_up():
    w = INCEPTION_3A
    assert w.one + w.three + w.five + w.pool == 256


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_zero_residual_is_the_identity_up_to_the_last_relu(order):
    block = seeded(lambda: Residual(3, 3, order=order, norm="none"))
    with torch.no_grad():
        for parameter in block.main.parameters():
            parameter.zero_()
    x = draw(2, 3, 5, 6)
    assert torch.equal(block(x), x.relu() if order == "post" else x)


def test_residual_orders_by_their_formula():
    x = draw(2, 3, 6, 6)
    for order, after in (("post", True), ("pre", False)):
        block = seeded(lambda order=order: Residual(3, 4, order=order, norm="none"))
        convs = [m for m in block.main if isinstance(m, torch.nn.Conv2d)]
        y = x if after else x.relu()
        y = functional.conv2d(y, convs[0].weight, convs[0].bias, padding=1).relu()
        y = functional.conv2d(y, convs[1].weight, convs[1].bias, padding=1)
        y = y + functional.conv2d(x, block.shortcut.weight)
        close(block(x), y.relu() if after else y, 64)


def test_residual_normalises_where_it_should():
    kinds = {
        "post": ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"],
        "pre": ["BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"],
    }
    for order, want in kinds.items():
        block = Residual(3, 4, order=order)
        assert [type(m).__name__ for m in block.main] == want
        assert block.main[-2 if order == "post" else -1].bias is None
        widths = [m.num_features for m in block.main if hasattr(m, "num_features")]
        assert widths == ([4, 4] if order == "post" else [3, 4])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_shortcuts_are_free_unless_shapes_differ(axes):
    assert isinstance(Residual(4, 4, axes=axes).shortcut, torch.nn.Identity)
    assert Residual(4, 4, stride=2, axes=axes).shortcut.weight.numel() == 16
    x = torch.zeros(2, 4, *(5,) * axes)
    assert Residual(4, 6, stride=2, axes=axes)(x).shape == (2, 6, *(3,) * axes)


def test_a_highway_with_a_closed_gate_is_the_identity_and_open_its_transform():
    layer = seeded(lambda: Highway(3))
    x = draw(2, 3, 5, 6)
    transform = layer.transform(x).relu()
    with torch.no_grad():
        layer.gate.weight.zero_()
        for bias, want in ((-1e4, x), (1e4, transform), (0.0, (x + transform) / 2)):
            layer.gate.bias.fill_(bias)
            close(layer(x), want, 1)


def test_the_gate_depends_on_the_data_and_starts_at_its_bias():
    layer = seeded(lambda: Highway(3, gate_bias=-3.0, axes=1))
    assert layer.gate.bias.tolist() == [-3.0] * 3
    gates = torch.sigmoid(layer.gate(draw(2, 3, 9)))
    assert not torch.equal(gates[0], gates[1])


BUILT = {
    "separable": lambda: SpatiallySeparable(2, 2, 3),
    "depthwise": lambda: DepthwiseSeparable(2, 2, 3),
    "flattened": lambda: Flattened(2, 2, 3),
    "pointwise": lambda: PointwiseGrouped(2, 2, 2, shuffle=True),
    "shuffle": lambda: ShuffleUnit(2, 1, bottleneck=2),
    "inception": lambda: Inception(2, (1, 1, 1, 1, 1, 1)),
    "residual": lambda: Residual(2, 2, norm="none"),
    "highway": lambda: Highway(2),
}


@pytest.mark.parametrize("name", BUILT)
def test_dtypes_are_kept_and_gradients_are_right(name):
    single = BUILT[name]()
    assert single(torch.zeros(2, 2, 4, 4)).dtype == torch.float32
    model = seeded(BUILT[name]).eval()
    x = draw(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(model, (x,))


def test_the_causal_blocks_are_offered_here_too():
    assert blocks.TCN.__module__ == "ckutils.temporal"
