"""conv, conv_transpose, im2col, correlate2d: against loops, torch, JAX, flax, SciPy."""

import itertools
import math
import os
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from ckutils.arithmetic import (
    conv_input_sizes,
    conv_output_size,
    conv_transpose_output_size,
    resolve_padding,
)
from ckutils.convolution import (
    col2im,
    conv,
    conv_ref,
    conv_transpose,
    conv_transpose_ref,
    correlate2d,
    im2col,
    pad,
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
EPS = torch.finfo(torch.float64).eps
QUICK = settings(deadline=None, derandomize=True, max_examples=120)
GRID = list(
    itertools.product(range(1, 13), range(1, 6), range(1, 5), range(4), (1, 2, 3))
)


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed + 31 * sum(shape) + len(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype)


def whole(*shape, seed=0):
    """Small integers: sums of their products are exact in float64."""
    generator = torch.Generator().manual_seed(seed + 31 * sum(shape) + len(shape))
    return torch.randint(-5, 6, shape, generator=generator).double()


def assert_close(got, want, tol, context=""):
    """|got - want| <= tol with equal shapes and dtypes; NaN never passes."""
    assert got.shape == want.shape, f"{tuple(got.shape)} {tuple(want.shape)} {context}"
    assert got.dtype == want.dtype, f"{got.dtype} {want.dtype} {context}"
    if got.numel():
        error = float((got - want).abs().nan_to_num(math.inf).max())
        assert error <= tol, f"off by {error:.2e} > {tol:.2e} {context}"


def bound(x, weight, eps=EPS):
    """A sum of n products is off by at most n eps max|x| max|w| n (either order)."""
    terms = max(weight[0].numel(), weight[:, 0].numel())
    return 4 * terms * terms * eps * float(x.abs().max() * weight.abs().max())


# By hand -------------------------------------------------------------------------


def test_numbers_worked_by_hand():
    x = torch.tensor([[1.0, 2, 3, 4, 5]])
    w = torch.tensor([[[1.0, 10, 100]]])
    assert conv(x, w).tolist() == [[321, 432, 543]]
    assert conv(x, w, flip=True).tolist() == [[123, 234, 345]]
    assert conv(x, w, stride=2).tolist() == [[321, 543]]
    assert conv(x, w, padding=1).tolist() == [[210, 321, 432, 543, 54]]
    assert conv(x, w, padding=((2, 0),)).tolist() == [[100, 210, 321, 432, 543]]
    assert conv(x, w, padding="causal", dilation=2).shape == (1, 5)
    assert conv(x, w, dilation=2).tolist() == [[531]]
    assert conv(x, w, padding="circular").tolist() == [[215, 321, 432, 543, 154]]
    assert conv(x, w, padding="reflect").tolist() == [[212, 321, 432, 543, 454]]
    assert conv(x[:, :3], w, input_dilation=2).tolist() == [[201, 20, 302]]
    assert conv(x, w, torch.tensor([7.0]), stride=2).tolist() == [[328, 550]]


def test_an_impulse_returns_the_kernel_turned_round():
    impulse = torch.zeros(1, 5, 5)
    impulse[0, 2, 2] = 1
    w = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert torch.equal(conv(impulse, w), w[0].flip(1, 2))
    assert torch.equal(conv(impulse, w, flip=True), w[0])


# The grid ------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
def test_values_and_gradients_are_torchs_on_the_grid(groups):
    for n, k, s, p, d in GRID:
        if n + 2 * p < d * (k - 1) + 1:
            continue
        knobs = {"stride": s, "padding": p, "dilation": d, "groups": groups}
        inputs = [whole(2, 4, n), whole(2, 4 // groups, k), whole(2)]
        for tensor in inputs:
            tensor.requires_grad_()
        y, want = conv(*inputs, **knobs), F.conv1d(*inputs, **knobs)
        assert torch.equal(y, want), f"{n=} {k=} {knobs}"
        back = whole(*y.shape, seed=1)
        grads = torch.autograd.grad(y, inputs, back)
        wants = torch.autograd.grad(want, inputs, back)
        assert all(map(torch.equal, grads, wants)), f"{n=} {k=} {knobs}"


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_values_and_gradients_are_torchs_on_the_grid(groups):
    for n, k, s, p, d in GRID:
        for a in range(max(s, d)):
            if (n - 1) * s + d * (k - 1) + 1 - 2 * p + a < 1:
                continue
            knobs = {"stride": s, "padding": p, "dilation": d, "groups": groups}
            knobs["output_padding"] = a
            inputs = [whole(2, 4, n), whole(4, 2 // groups, k), whole(2)]
            for tensor in inputs:
                tensor.requires_grad_()
            x = conv_transpose(*inputs, **knobs)
            want = F.conv_transpose1d(*inputs, **knobs)
            assert torch.equal(x, want), f"{n=} {k=} {knobs}"
            back = whole(*x.shape, seed=1)
            grads = torch.autograd.grad(x, inputs, back)
            wants = torch.autograd.grad(want, inputs, back)
            assert all(map(torch.equal, grads, wants)), f"{n=} {k=} {knobs}"


# Random cases against the definition ---------------------------------------------


@st.composite
def cases(draw_, transposed=False):
    """(input shape, weight shape, knobs) with 1 to 4 axes, small enough for loops."""
    axes = draw_(st.integers(1, 4))
    most = {1: 9, 2: 5, 3: 3, 4: 2}[axes]

    def per(low, high):
        return tuple(draw_(st.integers(low, high)) for _ in range(axes))

    knobs = {
        "stride": per(1, 3),
        "dilation": per(1, 2),
        "groups": draw_(st.sampled_from([1, 1, 2])),
        "padding": tuple(zip(per(0, 2), per(0, 2), strict=True)),
    }
    if draw_(st.booleans()):
        knobs["padding"] = draw_(st.sampled_from(["valid", "causal", 0, 1, 2]))
    if transposed:
        knobs["output_padding"] = tuple(
            draw_(st.integers(0, max(s, d) - 1))
            for s, d in zip(knobs["stride"], knobs["dilation"], strict=True)
        )
    else:
        knobs["input_dilation"] = draw_(st.sampled_from([1, per(1, 3)]))
        knobs["flip"] = draw_(st.booleans())
        if knobs["input_dilation"] == 1 and draw_(st.booleans()):
            knobs["padding"] = draw_(st.sampled_from(["same", "circular", "reflect"]))
    batch = draw_(st.sampled_from([(), (2,), (1, 2)]))
    g, kernel = knobs["groups"], per(1, 3)
    channels = 2 * g if transposed else g
    return (*batch, channels, *per(1, most)), (2 * g, 1, *kernel), knobs


@given(case=cases(), seed=st.integers(0, 99), bias=st.booleans())
@QUICK
def test_conv_is_its_definition(case, seed, bias):
    shape, weight_shape, knobs = case
    x, w = whole(*shape, seed=seed), whole(*weight_shape, seed=seed + 1)
    b = whole(w.shape[0], seed=seed + 2) if bias else None
    sized = {k: v for k, v in knobs.items() if k not in ("groups", "flip")}
    axes = w.dim() - 2
    try:
        size = conv_output_size(shape[-axes:], tuple(w.shape[2:]), **sized)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)[:20]):
            conv(x, w, b, **knobs)
        return
    y = conv(x, w, b, **knobs)
    assert y.shape == (*shape[: -axes - 1], w.shape[0], *size)
    assert torch.equal(y, conv_ref(x, w, b, **knobs))
    assert torch.equal(conv(x.float(), w.float(), b if b is None else b.float(),
                            **knobs), y.float())  # fmt: skip


@given(case=cases(transposed=True), seed=st.integers(0, 99), bias=st.booleans())
@QUICK
def test_conv_transpose_is_its_definition(case, seed, bias):
    shape, weight_shape, knobs = case
    y, w = whole(*shape, seed=seed), whole(*weight_shape, seed=seed + 1)
    b = whole(w.shape[1] * knobs["groups"], seed=seed + 2) if bias else None
    sized = {k: v for k, v in knobs.items() if k != "groups"}
    axes = w.dim() - 2
    try:
        size = conv_transpose_output_size(shape[-axes:], tuple(w.shape[2:]), **sized)
    except ValueError:
        with pytest.raises(ValueError, match="padding must leave an output"):
            conv_transpose(y, w, b, **knobs)
        return
    x = conv_transpose(y, w, b, **knobs)
    assert x.shape == (*shape[: -axes - 1], w.shape[1] * knobs["groups"], *size)
    assert torch.equal(x, conv_transpose_ref(y, w, b, **knobs))


def test_an_equal_crop_at_both_ends_is_made():
    # the span is 1 and the padding (1, 2): -1 at the start, and -2 + 1 at the end
    y, one = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.ones(1, 1, 1)
    knobs = {"padding": ((1, 2),), "output_padding": 1, "dilation": 2}
    assert conv_transpose(y, one, **knobs).tolist() == [[[2, 3]]]
    # the same without a batch axis, in two axes, in groups
    y, w = whole(6, 2, 4), whole(6, 1, 2, 2)
    knobs = {"padding": ((0, 2), (2, 2)), "output_padding": (2, 0),
             "dilation": (3, 1), "stride": (1, 1), "groups": 3}  # fmt: skip
    for batch in (y, y.expand(2, 3, *y.shape)):
        x = conv_transpose(batch, w, **knobs)
        assert torch.equal(x, conv_transpose_ref(batch, w, **knobs))


@st.composite
def crops(draw_):
    """(input shape, weight shape, knobs) of a transposed convolution that crops."""
    axes = draw_(st.integers(1, 3))

    def per(low, high):
        return tuple(draw_(st.integers(low, high)) for _ in range(axes))

    knobs = {"stride": per(1, 2), "dilation": per(1, 3)}
    bound = zip(knobs["stride"], knobs["dilation"], strict=True)
    knobs["output_padding"] = tuple(
        draw_(st.integers(0, max(pair) - 1)) for pair in bound
    )
    # beyond the kernel's span by as much at both ends, the added entries included
    more, kernel = per(0, 3), per(1, 2)
    spans = [d * (k - 1) for d, k in zip(knobs["dilation"], kernel, strict=True)]
    knobs["padding"] = tuple(
        (span + m, span + m + a)
        for span, m, a in zip(spans, more, knobs["output_padding"], strict=True)
    )
    batch = draw_(st.sampled_from([(), (2,), (1, 2)]))
    return (*batch, 2, *per(1, {1: 9, 2: 6, 3: 4}[axes])), (2, 1, *kernel), knobs


@given(case=crops(), seed=st.integers(0, 99))
@QUICK
def test_a_padding_beyond_the_span_crops(case, seed):
    shape, weight_shape, knobs = case
    y, w = whole(*shape, seed=seed), whole(*weight_shape, seed=seed + 1)
    axes = w.dim() - 2
    try:
        conv_transpose_output_size(shape[-axes:], tuple(w.shape[2:]), **knobs)
    except ValueError:
        assume(False)
    assert torch.equal(conv_transpose(y, w, **knobs), conv_transpose_ref(y, w, **knobs))


@given(case=cases(), seed=st.integers(0, 99))
@QUICK
def test_adjoint_identity(case, seed):
    # <conv(x, w), y> = <x, conv_transpose(y, w)> at every input size of the output
    shape, weight_shape, knobs = case
    knobs = {k: v for k, v in knobs.items() if k not in ("flip", "input_dilation")}
    assume(knobs["padding"] not in ("same", "circular", "reflect"))
    w, axes = draw(*weight_shape, seed=seed), len(weight_shape) - 2
    sized = {k: v for k, v in knobs.items() if k != "groups"}
    kernel = tuple(weight_shape[2:])
    ranges = conv_input_sizes((2,) * axes, kernel, **sized)
    assume(all(map(len, ranges)))
    pads = resolve_padding(knobs["padding"], kernel, dilation=knobs["dilation"])
    first = [
        s + d * (k - 1) + 1 - sum(pair)
        for s, d, k, pair in zip(
            knobs["stride"], knobs["dilation"], kernel, pads, strict=True
        )
    ]
    for size in itertools.islice(itertools.product(*ranges), 6):
        x = draw(*shape[: -axes - 1], shape[-axes - 1], *size, seed=seed)
        y = conv(x, w, **knobs)
        z = draw(*y.shape, seed=seed + 3)
        extra = tuple(n - m for n, m in zip(size, first, strict=True))
        back = conv_transpose(z, w, output_padding=extra, **knobs)
        assert back.shape == x.shape
        left, right = float((y * z).sum()), float((x * back).sum())
        scale = float(x.norm() * back.norm() + y.norm() * z.norm())
        assert abs(left - right) <= 1e-12 * max(scale, 1.0)


def test_every_output_padding_is_the_adjoint_at_its_size():
    # and the entries that it adds are computed: they are the gradient there
    w = draw(2, 3, 5)
    for a in range(3):
        x = draw(3, 9 + a, seed=a).requires_grad_()
        y = conv(x, w, stride=3, padding=1)
        assert y.shape == (2, 3)
        z = draw(2, 3, seed=a)
        back = conv_transpose(z, w, stride=3, padding=1, output_padding=a)
        (grad,) = torch.autograd.grad(y, x, z)
        assert back.shape == x.shape
        assert_close(back, grad, bound(z, w))


def test_batch_axes_and_an_empty_batch():
    w = draw(4, 3, 3, 2)
    for batch in ((), (0,), (5,), (2, 0), (2, 1, 3)):
        x = draw(*batch, 3, 6, 5)
        y = conv(x, w, stride=2, padding="causal")
        assert y.shape == (*batch, 4, 3, 3)
        flat = conv(x.reshape(-1, 3, 6, 5), w, stride=2, padding="causal") if all(
            batch) else y  # fmt: skip
        assert torch.equal(y, flat.reshape(y.shape))
        assert conv_transpose(y, w, stride=2).shape == (*batch, 3, 7, 6)
    x = draw(0, 1, 3, 3, 3, 3).requires_grad_()
    conv(x, draw(2, 1, 2, 2, 2, 2)).sum().backward()
    assert x.grad.shape == x.shape


def test_views_are_read_as_they_lie_and_nothing_is_written():
    x, w = draw(6, 5, 3, 2).permute(3, 2, 1, 0), draw(2, 3, 2, 3).transpose(2, 3)
    kept = x.clone(), w.clone()
    y = conv(x, w, padding=((0, 1), (2, 0)), flip=True)
    want = conv(kept[0].contiguous(), kept[1].contiguous(),
                padding=((0, 1), (2, 0)), flip=True)  # fmt: skip
    assert_close(y, want, bound(x, w))
    assert torch.equal(x, kept[0])
    assert torch.equal(w, kept[1])


def test_dtypes_are_kept():
    for dtype, axes in itertools.product((torch.float32, torch.float64), (1, 2, 3, 4)):
        x, w = torch.ones(1, *(3,) * axes, dtype=dtype), torch.ones(2, 1, *(2,) * axes)
        w, b = w.to(dtype), torch.ones(2, dtype=dtype)
        for padding in ("same", "circular", "reflect", "causal", 1):
            assert conv(x, w, b, padding=padding).dtype == dtype
        assert conv(x, w, b, input_dilation=2).dtype == dtype
        assert conv_transpose(x.expand(2, *x.shape[1:]), w, stride=2).dtype == dtype


# Gradients of every path ---------------------------------------------------------

PATHS = [
    ((1, 2, 6), (2, 2, 3), {"padding": 1, "stride": 2}),
    ((1, 2, 6), (2, 1, 3), {"padding": "causal", "dilation": 2, "groups": 2}),
    ((2, 5), (1, 2, 3), {"padding": "circular", "flip": True}),
    ((1, 2, 5), (1, 2, 4), {"padding": "reflect", "stride": 2}),
    ((1, 1, 4), (2, 1, 3), {"padding": ((5, 1),), "input_dilation": 3}),
    ((1, 1, 4), (2, 1, 3), {"padding": 1, "input_dilation": 2, "stride": 2}),
    ((1, 4, 3), (1, 1, 2, 2), {"padding": "same", "stride": (2, 1)}),
    (
        (1, 3, 2, 3, 2),
        (2, 1, 2, 1, 2, 2),
        {"padding": ((1, 0), (0, 0), (0, 1), (0, 0))},
    ),
]


@pytest.mark.parametrize(("shape", "weight_shape", "knobs"), PATHS)
def test_conv_gradients(shape, weight_shape, knobs):
    inputs = draw(*shape), draw(*weight_shape), draw(weight_shape[0])
    for tensor in inputs:
        tensor.requires_grad_()
    assert gradcheck(lambda *args: conv(*args, **knobs), inputs)
    assert gradgradcheck(lambda *args: conv(*args, **knobs), inputs)


TRANSPOSED_PATHS = [
    ((2, 3), (2, 1, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((1, 2, 3), (2, 1, 2), {"padding": ((1, 0),), "dilation": 2, "groups": 2}),
    ((2, 2, 2), (2, 1, 2, 3), {"stride": (2, 1), "padding": ((0, 1), (2, 0))}),
    ((1, 2, 2, 2, 1), (1, 2, 1, 2, 2, 2), {"stride": (2, 1, 1, 1), "padding": "valid"}),
]


@pytest.mark.parametrize(("shape", "weight_shape", "knobs"), TRANSPOSED_PATHS)
def test_conv_transpose_gradients(shape, weight_shape, knobs):
    groups = knobs.get("groups", 1)
    inputs = draw(*shape), draw(*weight_shape), draw(weight_shape[1] * groups)
    for tensor in inputs:
        tensor.requires_grad_()
    assert gradcheck(lambda *args: conv_transpose(*args, **knobs), inputs)
    assert gradgradcheck(lambda *args: conv_transpose(*args, **knobs), inputs)


def test_im2col_and_col2im_gradients():
    x = draw(2, 4, 5).requires_grad_()
    knobs = {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}
    columns = im2col(x, (3, 2), **knobs)
    assert gradcheck(lambda x: im2col(x, (3, 2), **knobs), x)
    assert gradgradcheck(lambda x: im2col(x, (3, 2), **knobs), x)
    columns = columns.detach().requires_grad_()
    assert gradcheck(lambda c: col2im(c, (4, 5), (3, 2), **knobs), columns)
    assert gradgradcheck(lambda c: col2im(c, (4, 5), (3, 2), **knobs), columns)
    wrapped = draw(1, 3).requires_grad_()
    for mode in ("circular", "reflect"):
        assert gradcheck(lambda x, mode=mode: pad(x, [(4, 5)], mode), wrapped)


# JAX and flax --------------------------------------------------------------------


@pytest.fixture
def jax64():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


JAX_CASES = [
    (1, {"input_dilation": 2}),
    (1, {"input_dilation": 3, "stride": 2, "padding": ((2, 0),)}),
    (1, {"input_dilation": 2, "dilation": 2, "padding": ((7, 5),)}),
    (2, {"input_dilation": (2, 1), "stride": (1, 2), "padding": ((1, 0), (0, 2))}),
    (2, {"input_dilation": (2, 3), "dilation": (2, 1), "groups": 2}),
    (3, {"input_dilation": (1, 2, 2), "padding": ((0, 1), (1, 1), (2, 0))}),
    (4, {"padding": ((1, 0), (0, 1), (1, 1), (0, 0))}),
    (4, {"stride": (1, 2, 1, 2), "dilation": (1, 1, 2, 1), "groups": 2}),
    (4, {"input_dilation": (2, 1, 2, 1), "padding": ((1, 1),) * 4}),
    (5, {"stride": (2, 1, 1, 1, 1)}),
    *[(1, {"padding": name, "stride": s, "dilation": d})
      for name in ("same", "valid") for s in (1, 2, 3) for d in (1, 2)],
    (2, {"padding": "same", "stride": (2, 3), "dilation": (1, 2)}),
    (4, {"padding": "same", "stride": (2, 1, 1, 2)}),
]  # fmt: skip


@pytest.mark.parametrize(("axes", "knobs"), JAX_CASES)
def test_conv_is_jaxs_conv_general_dilated(jax64, axes, knobs):
    def per(name):
        value = knobs.get(name, 1)
        return (value,) * axes if isinstance(value, int) else value

    groups, padding = knobs.get("groups", 1), knobs.get("padding", ((0, 0),) * axes)
    x = whole(
        2, 2, *{1: (9,), 2: (6, 5), 3: (4, 3, 5)}.get(axes, (3, 4, 3, 4, 2)[:axes])
    )
    w = whole(4, 2 // groups, *(3, 2, 2, 1, 2)[:axes])
    spread = (
        {"lhs_dilation": per("input_dilation")} if "input_dilation" in knobs else {}
    )
    want = jax64.lax.conv_general_dilated(
        x.numpy(), w.numpy(), per("stride"),
        padding.upper() if isinstance(padding, str) else padding,
        rhs_dilation=per("dilation"), feature_group_count=groups, **spread,
    )  # fmt: skip
    got = conv(x, w, **knobs)
    assert got.numpy().dtype == want.dtype == np.float64
    assert np.array_equal(got.numpy(), np.asarray(want))


def flax_conv(jax, x, w, kernel_size, **knobs):
    """flax's nnx.Conv with our weight, on our layout (one batch axis)."""
    from flax import nnx

    numpy = jax.numpy
    layer = nnx.Conv(
        x.shape[1], w.shape[0], kernel_size, use_bias=False, param_dtype=numpy.float64,
        kernel_init=zeros, rngs=nnx.Rngs(0), **knobs,
    )  # fmt: skip
    layer.kernel[...] = numpy.asarray(w.movedim((0, 1), (-1, -2)).numpy())
    y = layer(numpy.asarray(x.movedim(1, -1).numpy()))
    return torch.from_numpy(np.asarray(y).copy()).movedim(-1, 1)


@pytest.mark.parametrize("name", ["same", "valid", "causal", "circular", "reflect"])
@pytest.mark.parametrize(
    ("axes", "kernel", "stride", "dilation"),
    [(1, (4,), 1, 1), (1, (3,), 2, 2), (1, (2,), 3, 1), (2, (3, 4), (2, 1), (1, 2))],
)
def test_string_paddings_are_flaxs(jax64, name, axes, kernel, stride, dilation):
    pytest.importorskip("flax")
    if name == "causal" and axes > 1:
        return  # flax has causal padding for one axis only, see CP-27
    x, w = whole(2, 3, *(9, 8)[:axes]), whole(4, 3, *kernel)
    want = flax_conv(
        jax64, x, w, kernel, padding=name.upper(), strides=stride,
        kernel_dilation=dilation,
    )  # fmt: skip
    got = conv(x, w, padding=name, stride=stride, dilation=dilation)
    assert torch.equal(got, want)


def test_circular_wraps_as_often_as_flax_does(jax64):
    pytest.importorskip("flax")
    x, w = whole(1, 1, 2), whole(1, 1, 9)
    want = flax_conv(jax64, x, w, (9,), padding="CIRCULAR")
    assert torch.equal(conv(x, w, padding="circular"), want)
    # flax reflects again and again; conv refuses, and pad does it
    want = flax_conv(jax64, x, w, (9,), padding="REFLECT")
    assert torch.equal(conv(pad(x, [(4, 4)], "reflect"), w), want)
    with pytest.raises(ValueError, match="at most size - 1 = 1 entries"):
        conv(x, w, padding="reflect")


def test_flax_nnx_conv_with_four_axes_and_input_dilation(jax64):
    pytest.importorskip("flax")
    x, w = whole(1, 2, 3, 2, 3, 2), whole(3, 2, 2, 2, 2, 2)  # CP-10
    want = flax_conv(jax64, x, w, (2, 2, 2, 2), padding=[(1, 1)] * 4)
    assert torch.equal(conv(x, w, padding=1), want)
    x, w = whole(1, 5, 24), whole(6, 5, 7)
    want = flax_conv(jax64, x, w, 7, padding=[(0, 0)], input_dilation=2)
    assert torch.equal(conv(x, w, input_dilation=2), want)


# What the flax notes state (claims CP-08 to CP-27) -------------------------------


@pytest.fixture
def nnx():
    pytest.importorskip("jax")
    return pytest.importorskip("flax.nnx")


def shape_of(nnx, shape, *args, **knobs):
    """The output shape of nnx.Conv, without computing the output."""
    import jax

    layer = nnx.Conv(*args, rngs=nnx.Rngs(0), kernel_init=zeros, **knobs)
    return jax.eval_shape(layer, jax.ShapeDtypeStruct(shape, "float32")).shape


def zeros(key, shape, dtype, **_):
    """An initialiser that draws nothing, which is what takes flax its time."""
    import jax

    return jax.numpy.zeros(shape, dtype)


def test_cp_08_three_positional_arguments_are_not_all(nnx):
    import inspect

    parameters = inspect.signature(nnx.Conv.__init__).parameters
    required = [p.name for p in parameters.values() if p.default is p.empty]
    assert required == ["self", "in_features", "out_features", "kernel_size", "rngs"]
    with pytest.raises(TypeError, match="required keyword-only argument: 'rngs'"):
        nnx.Conv(3, 4, 3)


def test_cp_11_three_shapes_and_which_kernel_sizes(nnx):
    for kernel_size in (3, (3,), (3, 3), (5, 5), [3, 3]):
        for batch in ((), (1,), (1, 1)):
            shape = shape_of(nnx, (*batch, 32, 32, 3), 3, 4, kernel_size)
            assert shape == (*batch, 32, 32, 4)
    # an int is one spatial axis: the 32 rows are a batch, and do not meet
    assert nnx.Conv(3, 4, 3, rngs=nnx.Rngs(0)).kernel[...].shape == (3, 3, 4)
    with pytest.raises(ValueError, match="broadcast"):
        shape_of(nnx, (32, 32, 3), 3, 4, (3, 3, 3))
    # ours say the same with channels first, without a batch too
    x = torch.ones(3, 32, 32)
    assert conv(x, torch.ones(4, 3, 3, 3), padding="same").shape == (4, 32, 32)


def test_cp_12_same_is_the_default_and_keeps_sizes_at_stride_one(nnx):
    import inspect

    assert inspect.signature(nnx.Conv.__init__).parameters["padding"].default == "SAME"
    assert shape_of(nnx, (10, 3), 3, 4, 4) == (10, 4)
    assert shape_of(nnx, (10, 3), 3, 4, 4, 3) == (4, 4)  # ceil(10 / 3)


def test_cp_13_a_wrong_channel_count_is_refused(nnx):
    with pytest.raises(ValueError, match="feature dimension size"):
        shape_of(nnx, (10, 5), 3, 4, 3)


def test_cp_15_20_22_worked_shapes(nnx):
    assert shape_of(nnx, (128, 100, 3), 3, 4, 5, padding="valid") == (128, 96, 4)
    knobs = {"kernel_size": 7, "padding": "valid", "kernel_dilation": 2}
    assert shape_of(nnx, (224, 5), 5, 6, **knobs) == (212, 6)
    knobs = {"kernel_size": 7, "padding": [(0, 0)], "input_dilation": 2}
    assert shape_of(nnx, (224, 5), 5, 6, **knobs) == (441, 6)
    # CP-15: the first axis, 128, is a batch, the second is space
    x, w = torch.ones(128, 3, 100), torch.ones(4, 3, 5)
    assert conv(x, w, padding="valid").shape == (128, 4, 96)
    x, w = torch.ones(5, 224), torch.ones(6, 5, 7)
    assert conv(x, w, padding="valid", dilation=2).shape == (6, 212)
    assert conv(x, w, padding=[(0, 0)], input_dilation=2).shape == (6, 441)


def test_cp_16_ints_and_pairs(nnx, jax64):
    x, w = whole(1, 2, 7, 6), whole(3, 2, 3, 3)
    for padding in ([1, 2], [(1, 0), 2], [(0, 2), (1, 1)]):
        want = flax_conv(jax64, x, w, (3, 3), padding=padding)
        assert torch.equal(conv(x, w, padding=padding), want)


def test_cp_23_no_string_goes_with_an_input_dilation(nnx):
    for name in ("SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT", "same", "valid"):
        with pytest.raises(ValueError, match="String padding is not implemented"):
            shape_of(nnx, (24, 5), 5, 6, 7, input_dilation=2, padding=name)


def test_cp_25_the_first_listing_lacks_its_layer():
    pytest.importorskip("jax")
    with pytest.raises(NameError, match="'layer' is not defined"):
        exec("import jax.numpy as jnp\nlayer(jnp.ones((32, 32, 3))).shape", {})


def test_cp_27_causal_is_a_pair_on_one_axis(nnx, jax64):
    for k, d in ((2, 1), (3, 2), (4, 5)):
        x, w = whole(1, 2, 11), whole(3, 2, k)
        knobs = {"kernel_dilation": d}
        want = flax_conv(jax64, x, w, k, padding="CAUSAL", **knobs)
        pair = flax_conv(jax64, x, w, k, padding=[(d * (k - 1), 0)], **knobs)
        assert torch.equal(want, pair)
        assert torch.equal(conv(x, w, padding="causal", dilation=d), want)
        assert torch.equal(conv(x, w, padding=((d * (k - 1), 0),), dilation=d), want)
    with pytest.raises(ValueError, match="only implemented for 1D"):
        shape_of(nnx, (9, 9, 3), 3, 4, (3, 3), padding="CAUSAL")


# Padding by a map of indices -----------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    sides=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=3,
                   max_size=3),
    mode=st.sampled_from(["zeros", "circular", "reflect"]),
)  # fmt: skip
@QUICK
def test_pad_is_numpys_any_number_of_times(shape, sides, mode):
    x = torch.arange(1, math.prod(shape) + 1).reshape(shape)
    pairs = sides[: len(shape)]
    name = {"zeros": "constant", "circular": "wrap", "reflect": "reflect"}[mode]
    assert np.array_equal(pad(x, pairs, mode).numpy(), np.pad(x.numpy(), pairs, name))


def test_pad_takes_the_last_axes():
    x = torch.tensor([[1, 2], [3, 4]])
    assert pad(x, [1]).tolist() == [[0, 1, 2, 0], [0, 3, 4, 0]]
    assert pad(x, [(1, 0), 0]).tolist() == [[0, 0], [1, 2], [3, 4]]
    assert pad(x, [(2, 1)], "circular").tolist() == [[1, 2, 1, 2, 1], [3, 4, 3, 4, 3]]


def test_circular_conv_is_the_circulant_matrix_and_the_fft():
    x, w = draw(1, 7), draw(1, 1, 4)
    y = conv(x, w, padding="circular")[0]
    circulant = torch.zeros(7, 7, dtype=torch.float64)
    for t, j in itertools.product(range(7), range(4)):
        circulant[t, (t + j - 1) % 7] += w[0, 0, j]
    assert_close(y, circulant @ x[0], bound(x, w))
    kernel = torch.zeros(7, dtype=torch.float64)
    kernel[[(1 - j) % 7 for j in range(4)]] = w[0, 0]
    product = torch.fft.irfft(torch.fft.rfft(x[0]) * torch.fft.rfft(kernel), 7)
    assert_close(y, product, 10 * bound(x, w))


# Columns -------------------------------------------------------------------------


@given(
    n=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    k=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    s=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    p=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    d=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
@QUICK
def test_columns_are_torchs_unfold_and_fold(n, k, s, p, d):
    knobs = {"stride": s, "padding": p, "dilation": d}
    x = whole(2, 3, *n)
    try:
        want = F.unfold(x, k, **knobs)
    except RuntimeError:
        with pytest.raises(ValueError, match="kernel_size must fit"):
            im2col(x, k, **knobs)
        return
    columns = im2col(x, k, **knobs)
    assert torch.equal(columns, want)
    back = whole(*columns.shape, seed=1)
    assert torch.equal(col2im(back, n, k, **knobs), F.fold(back, n, k, **knobs))
    # adjoint, exactly: integers
    assert (columns * back).sum() == (x * col2im(back, n, k, **knobs)).sum()


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", [0, 1, "same", "causal", "circular", "reflect"])
def test_conv_is_a_matrix_product_of_columns(axes, padding):
    x, w = whole(2, 3, *(4, 3, 4, 3)[:axes]), whole(2, 3, *(3, 2, 2, 1)[:axes])
    kernel = tuple(w.shape[2:])
    columns = im2col(x, kernel, stride=2, padding=padding)
    y = conv(x, w, stride=2, padding=padding)
    assert torch.equal((w.flatten(1) @ columns).reshape(y.shape), y)


def test_columns_without_a_batch_and_with_two():
    x = whole(2, 4, 3, 7)
    assert torch.equal(im2col(x, (3,))[1, 2], im2col(x[1, 2], 3))
    assert im2col(x, 3).shape == (2, 36, 5)  # an int: all axes behind (batch, channels)
    assert im2col(x[0], (3, 3)).shape == (36, 5)
    assert col2im(im2col(x[0], (3, 3)), (3, 7), 3).shape == (4, 3, 7)


@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)])
def test_columns_of_an_empty_batch(batch):
    columns = im2col(torch.zeros(*batch, 3, 6, 5), (3, 2))
    assert columns.shape == (*batch, 18, 16)
    assert col2im(columns, (6, 5), (3, 2)).shape == (*batch, 3, 6, 5)
    assert col2im(torch.zeros(0, 2, 3), 4, 2).shape == (0, 1, 4)


def test_dividing_by_the_overlap_restores_the_signal():
    x = draw(2, 6, 7)
    knobs = {"stride": (2, 1), "padding": 1}
    again = col2im(im2col(x, (3, 2), **knobs), (6, 7), (3, 2), **knobs)
    overlap = col2im(
        im2col(torch.ones_like(x), (3, 2), **knobs), (6, 7), (3, 2), **knobs
    )
    assert not torch.allclose(again, x)
    assert_close(again / overlap, x, 8 * EPS * float(x.abs().max()))


# correlate2d ---------------------------------------------------------------------


SHAPES = [
    ((5, 7), (3, 3)),
    ((5, 7), (2, 4)),
    ((1, 6), (1, 3)),
    ((4, 4), (4, 4)),
    ((6, 5), (1, 1)),
    ((3, 3), (5, 6)),
    ((2, 8), (5, 3)),
    ((8, 3), (3, 4)),
    ((1, 1), (2, 3)),
]


def array(size, dtype):
    """Small whole numbers: sums of their products are exact in every dtype."""
    generator = np.random.default_rng(5 + sum(size))
    values = generator.integers(0, 9, size).astype(dtype)
    if np.iscomplexobj(values):
        values += 1j * generator.integers(0, 9, size)
    return values


@pytest.mark.parametrize(("size", "kernel_size"), SHAPES)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "complex64", "complex128", "int64", "int32", "uint8"],
)
def test_correlate2d_is_scipys(size, kernel_size, mode, dtype):
    signal = pytest.importorskip("scipy.signal")
    image, kernel = array(size, dtype), array(kernel_size, dtype)
    try:
        want = signal.correlate2d(image, kernel, mode)
    except ValueError:
        with pytest.raises(ValueError, match="must not exceed the image on one axis"):
            correlate2d(image, kernel, mode)
        return
    if mode == "valid" and kernel.shape > image.shape:
        want = want.conj()  # see test_scipy_conjugates_the_wrong_operand
    got = correlate2d(image, kernel, mode)
    assert isinstance(got, np.ndarray)
    assert got.dtype == want.dtype == dtype
    assert np.array_equal(got, want)
    got = correlate2d(torch.from_numpy(image), torch.from_numpy(kernel), mode)
    assert isinstance(got, torch.Tensor)
    assert np.array_equal(got.numpy(), want)


def test_scipy_conjugates_the_wrong_operand_of_a_larger_complex_kernel():
    # SciPy 1.17 exchanges image and kernel, and then conjugates the image: its "valid"
    # is not part of its own "full". Ours is.
    signal = pytest.importorskip("scipy.signal")
    image, kernel = array((2, 3), "complex128"), array((4, 5), "complex128")
    full = signal.correlate2d(image, kernel, "full")
    assert np.array_equal(correlate2d(image, kernel, "full"), full)
    ours = correlate2d(image, kernel, "valid")
    assert np.array_equal(ours, full[1:4, 2:5])
    assert np.array_equal(signal.correlate2d(image, kernel, "valid"), ours.conj())
    assert np.abs(ours.imag).max() > 0


def test_correlate2d_real_values_and_convolve2d():
    signal = pytest.importorskip("scipy.signal")
    image, kernel = draw(9, 8), draw(3, 5, seed=1)
    flipped = kernel.flip(0, 1)
    for mode in ("full", "same", "valid"):
        want = torch.from_numpy(signal.correlate2d(image, kernel, mode))
        assert_close(correlate2d(image, kernel, mode), want, bound(image, kernel[None]))
        want = torch.from_numpy(signal.convolve2d(image, kernel, mode))
        assert_close(
            correlate2d(image, flipped, mode), want, bound(image, kernel[None])
        )
    want = conv(image[None], kernel[None, None])[0]
    assert torch.equal(correlate2d(image, kernel), want)


def test_convolve2d_of_an_even_kernel_keeps_one_entry_earlier():
    signal = pytest.importorskip("scipy.signal")
    image, kernel = whole(6, 5).numpy(), whole(2, 4, seed=1).numpy()
    ours = correlate2d(image, kernel[::-1, ::-1], "full")
    want = signal.convolve2d(image, kernel, "same")
    assert np.array_equal(ours[0:6, 1:6], want)  # from (h - 1) // 2
    assert np.array_equal(
        correlate2d(image, kernel[::-1, ::-1], "same"), ours[1:7, 2:7]
    )


def test_correlate2d_reads_flipped_views_and_integers_wrap():
    image, kernel = whole(5, 6).numpy(), whole(2, 3, seed=1).numpy()
    want = correlate2d(image[::-1, ::-1].copy(), kernel.T.copy())
    assert np.array_equal(correlate2d(image[::-1, ::-1], kernel.T), want)
    image.flags.writeable = False
    assert np.array_equal(correlate2d(image[::-1, ::-1], kernel.T), want)
    wrapped = correlate2d(np.full((1, 1), 200, np.uint8), np.full((1, 1), 2, np.uint8))
    assert wrapped.tolist() == [[144]]  # 400 mod 256


def test_correlate2d_takes_classes_derived_from_an_array():
    parameter = torch.nn.Parameter(whole(2, 2))
    image = whole(4, 5)
    got = correlate2d(image, parameter)
    assert torch.equal(got, conv(image[None], parameter[None, None])[0])
    assert got.requires_grad


def test_correlate2d_has_gradients():
    inputs = draw(4, 5).requires_grad_(), draw(2, 3).requires_grad_()
    assert gradcheck(lambda *args: correlate2d(*args, "same"), inputs)
    inputs = draw(2, 3).requires_grad_(), draw(4, 5).requires_grad_()
    assert gradcheck(lambda *args: correlate2d(*args, "valid"), inputs)


def test_correlate2d_hands_foreign_arrays_back_to_their_library(monkeypatch):
    # CuPy needs a GPU. The protocol that its arrays share is played by NumPy here: what
    # is tested is that ckutils reads by DLPack and gives back through cupy.from_dlpack.
    class Array(np.ndarray):
        pass

    Array.__module__ = "cupy"
    cupy = types.ModuleType("cupy")
    cupy.from_dlpack = lambda tensor: np.from_dlpack(tensor).view(Array)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    image, kernel = whole(4, 5).numpy().view(Array), whole(2, 2).numpy().view(Array)
    got = correlate2d(image, kernel)
    assert type(got) is Array
    assert np.array_equal(got, correlate2d(np.asarray(image), np.asarray(kernel)))


# Errors --------------------------------------------------------------------------

X, W = torch.ones(1, 2, 6), torch.ones(4, 2, 3)
IMAGE = torch.ones(4, 4)
ERRORS = [
    (lambda: conv(X.int(), W), "x must be float32 or float64, got torch.int32"),
    (lambda: conv(X.half(), W), "x must be float32 or float64, got torch.float16"),
    (lambda: conv([1.0], W), "x must be a torch tensor, got <class 'list'>"),
    (lambda: conv(X, W.double()), "weight must have the dtype and device of x"),
    (lambda: conv(X, W, torch.ones(4).double()), "bias must have the dtype and device"),
    (lambda: conv(X, W, torch.ones(3)), r"bias must have shape \(4,\), got \(3,\)"),
    (lambda: conv(X, W[0]), r"weight must have at least 3 axes, got shape \(2, 3\)"),
    (lambda: conv(X, W[:, :, :0]), r"weight must not be empty, got shape \(4, 2, 0\)"),
    (lambda: conv(X[0, 0], W), r"x must have channels and 1 spatial axes, as weight"),
    (lambda: conv(X[..., :0], W, padding=2), "no empty spatial axis, got shape"),
    (lambda: conv(X[..., :0], W, input_dilation=2), "x must have no empty spatial"),
    (lambda: conv_transpose(X[..., :0], W[:2]), "y must have no empty spatial ax"),
    (lambda: conv(X[:, :1], W), r"x must have 2 channels, groups times those of weigh"),
    (lambda: conv(X, W, groups=2), r"x must have 4 channels, groups times those of"),
    (lambda: conv(X, W, groups=3), "groups must divide the 4 output channels of weigh"),
    (lambda: conv(X, W, groups=0), "groups must be an integer >= 1, got 0"),
    (lambda: conv(X, W, groups=True), "groups must be an integer >= 1, got True"),
    (lambda: conv(X, W, stride=0), "stride must be an integer >= 1, got 0"),
    (lambda: conv(X, W, stride=1.0), "stride must be an int or a tuple of 1 ints"),
    (lambda: conv(X, W, stride=(1, 1)), "stride must be an int or a tuple of 1 ints"),
    (lambda: conv(X, W, dilation=True), "dilation must be an integer >= 1, got True"),
    (lambda: conv(X, W, input_dilation=-2), "input_dilation must be an integer >= 1"),
    (lambda: conv(X, W, padding=-1), "padding must be an integer >= 0, got -1"),
    (lambda: conv(X, W, padding=0.5), "padding must be an integer >= 0, got 0.5"),
    (lambda: conv(X, W, padding=True), "padding must be an integer >= 0, got True"),
    (lambda: conv(X, W, padding=(1, 2, 3)), r"for each of 1 axes, got \(1, 2, 3\)"),
    (lambda: conv(X, W, padding="mirror"), "padding must be one of 'valid', 'same'"),
    (lambda: conv(X, W, padding="same", input_dilation=2), "where input_dilation exc"),
    (lambda: conv(X, W, dilation=3), "kernel spans 7 and the input has 6"),
    (lambda: conv(X[..., :2], W.repeat(1, 1, 2), padding="reflect"), "size - 1 = 1 en"),
    (lambda: conv_transpose(X, W), "y must have the 4 channels of weight's first axis"),
    (lambda: conv_transpose(X.int(), W), "y must be float32 or float64, got torch.int"),
    (lambda: conv_transpose(X, W[:2], groups=3), "groups must divide the 2 channels o"),
    (lambda: conv_transpose(X, W[:2], torch.ones(3)), r"bias must have shape \(2,\)"),
    (lambda: conv_transpose(X, W[:2], stride=2, output_padding=2), "output_padding mu"),
    (lambda: conv_transpose(X, W[:2], padding="same"), "in a transposed convolution"),
    (lambda: conv_transpose(X, W[:2], padding=5), "padding must leave an output, but"),
    (lambda: im2col(X, (7,)), "the kernel spans 7 and the input has 6"),
    (lambda: im2col(X, (2, 2, 2)), r"x must have at least 4 axes, got shape \(1, 2, 6"),
    (lambda: col2im(X, 6, 4), "columns must have a multiple of 4 rows and 3 positions"),
    (lambda: col2im(X, 6, 2), r"columns must have a multiple of 2 rows and 5 position"),
    (lambda: col2im(X, 6, 1, padding="circular"), "padding must be zeros in col2im"),
    (lambda: pad(X, [(1, 1)], "wrap"), "mode must be one of 'zeros', 'circular'"),
    (lambda: pad(X, 1), r"padding must hold a pair \(lo, hi\) an axis, got 1"),
    (lambda: pad(X, [(0, -1)]), "padding must be an integer >= 0, got -1"),
    (lambda: pad(X[..., :0], [1], "circular"), "x must not be empty where mode is"),
    (lambda: correlate2d(IMAGE, IMAGE, "wrap"), "mode must be one of 'full', 'same'"),
    (lambda: correlate2d(IMAGE, IMAGE.double()), "kernel must have the dtype and devi"),
    (lambda: correlate2d(IMAGE, IMAGE.numpy()), "kernel must come from the library of"),
    (lambda: correlate2d(IMAGE[0], IMAGE), r"image must have two axes and be not empt"),
    (lambda: correlate2d(IMAGE, IMAGE[:0]), r"kernel must have two axes and be not"),
    (lambda: correlate2d(IMAGE > 0, IMAGE > 0), "image must hold numbers, one of flo"),
    (lambda: correlate2d([[1.0]], IMAGE), "image must be an array of NumPy, torch or"),
    (lambda: correlate2d(IMAGE.numpy().astype("uint16"), IMAGE), "got uint16"),
    (lambda: correlate2d(np.array([["a"]]), IMAGE), "image must hold numbers, one of"),
    (lambda: correlate2d(torch.ones(2, 5), torch.ones(3, 3)), "on one axis only where"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors_name_the_argument_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
