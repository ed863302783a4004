"""Each row of book/conventions.md, asserted under its id against the libraries."""

import ast
import importlib.util
import inspect
import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ckutils.arithmetic import pool_output_size, resolve_padding
from ckutils.convolution import conv, conv_transpose, correlate2d, im2col, pad

os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax = pytest.importorskip("jax")
signal = pytest.importorskip("scipy.signal")
ndimage = pytest.importorskip("scipy.ndimage")
nnx = pytest.importorskip("flax.nnx")
jnp, lax = jax.numpy, jax.lax

PAGE = Path(__file__).resolve().parent.parent / "book" / "conventions.md"
ROWS = {}

X, W = np.array([1, 2, 3, 4, 5], np.float32), np.array([1, 10, 100], np.float32)
AS_WRITTEN, TURNED = [321, 432, 543], [123, 234, 345]
TX, TW = torch.from_numpy(X)[None, None], torch.from_numpy(W)[None, None]


def row(identity):
    """Register the assertion of one row of the page."""

    def register(function):
        assert identity not in ROWS, f"{identity} is asserted twice"
        ROWS[identity] = function
        return function

    return register


def refuses(kind, message=None):
    return pytest.raises(kind, match=message)


def nnx_conv(c_in, c_out, kernel_size, strides=1, **knobs):
    return nnx.Conv(c_in, c_out, kernel_size, strides, rngs=nnx.Rngs(0), **knobs)


def ones_conv(kernel_size, **knobs):
    """nnx.Conv of one channel with weights 1, 10, 100 on its one axis."""
    layer = nnx_conv(1, 1, kernel_size, use_bias=False, **knobs)
    layer.kernel[...] = 10.0 ** jnp.arange(layer.kernel[...].size)[:, None, None]
    return lambda x: np.asarray(layer(jnp.asarray(x, "float32")[:, None])[:, 0])


def shape(function, *sizes):
    """Output shape without computing it."""
    return jax.eval_shape(
        function, *(jax.ShapeDtypeStruct(s, "float32") for s in sizes)
    ).shape


def lax_conv(x, w, strides=(1,), padding="VALID", **knobs):
    return lax.conv_general_dilated(x, w, strides, padding, **knobs)


# Layout --------------------------------------------------------------------------


@row("CV-01")
def signal_layout():
    assert F.conv2d(torch.ones(2, 3, 5, 6), torch.ones(4, 3, 1, 1)).shape[1] == 4
    assert (
        shape(lambda x, w: lax_conv(x, w, (1, 1)), (2, 3, 5, 6), (4, 3, 1, 1))[1] == 4
    )
    assert shape(nnx_conv(3, 4, (1, 1)), (2, 5, 6, 3)) == (2, 5, 6, 4)
    assert conv(torch.ones(7, 2, 3, 5, 6), torch.ones(4, 3, 1, 1)).shape[2] == 4


@row("CV-02")
def weight_layout():
    assert torch.nn.Conv2d(4, 6, (2, 3), groups=2).weight.shape == (6, 2, 2, 3)
    layer = nnx_conv(4, 6, (2, 3), feature_group_count=2)
    assert layer.kernel[...].shape == (2, 3, 2, 6)
    grouped = shape(
        lambda x, w: lax_conv(x, w, (1, 1), feature_group_count=2),
        (1, 4, 5, 5), (6, 2, 2, 3),
    )  # fmt: skip
    assert grouped == (1, 6, 4, 3)
    assert conv(torch.ones(4, 5, 5), torch.ones(6, 2, 2, 3), groups=2).shape == (
        6,
        4,
        3,
    )


@row("CV-03")
def batch_axes():
    w = torch.ones(1, 1, 3)
    assert F.conv1d(torch.ones(1, 5), w).shape == (1, 3)
    with refuses(RuntimeError, "Expected 2D"):
        F.conv1d(torch.ones(2, 2, 1, 5), w)
    for wrong in ((1, 5), (2, 2, 1, 5)):
        with refuses(TypeError, "ndim"):
            shape(lax_conv, wrong, (1, 1, 3))
    layer = nnx_conv(1, 1, 3)
    assert [shape(layer, (*b, 5, 1))[:-2] for b in ((), (2,), (2, 4))] == [
        (),
        (2,),
        (2, 4),
    ]
    assert [conv(torch.ones(*b, 1, 5), w).shape[:-2] for b in ((), (2, 4))] == [
        (),
        (2, 4),
    ]


@row("CV-04")
def spatial_axes():
    assert hasattr(F, "conv3d")
    assert not hasattr(F, "conv4d")
    assert shape(nnx_conv(1, 2, (2,) * 4), (3, 3, 3, 3, 1)) == (3, 3, 3, 3, 2)
    assert (
        signal.correlate(np.ones((3,) * 4), np.ones((2,) * 4), "valid").shape
        == (2,) * 4
    )
    with refuses(ValueError, "2-D"):
        signal.correlate2d(np.ones((3, 3, 3)), np.ones((2, 2, 2)))
    assert conv(torch.ones(1, *(3,) * 5), torch.ones(1, 1, *(2,) * 5)).shape == (
        1,
        *(2,) * 5,
    )


@row("CV-05")
def rows_before_columns():
    image = np.zeros((3, 5), np.float32)
    image[2, 4] = 1  # last row, last column
    tall = np.array([[1.0], [10.0]], np.float32)  # looks one row down
    for y in (
        F.conv2d(
            torch.from_numpy(image)[None, None], torch.from_numpy(tall)[None, None]
        ),
        lax_conv(image[None, None], tall[None, None], (1, 1)),
        signal.correlate2d(image, tall, "valid"),
        conv(torch.from_numpy(image)[None], torch.from_numpy(tall)[None, None]),
    ):
        assert np.asarray(y).reshape(2, 5)[1, 4] == 10


# Which way the kernel points -----------------------------------------------------


@row("CV-06")
def flipped():
    assert F.conv1d(TX, TW).flatten().tolist() == AS_WRITTEN
    assert lax_conv(X[None, None], W[None, None]).flatten().tolist() == AS_WRITTEN
    assert ones_conv(3, padding="VALID")(X).tolist() == AS_WRITTEN
    assert np.correlate(X, W).tolist() == AS_WRITTEN
    assert signal.correlate(X, W, "valid").tolist() == AS_WRITTEN
    assert np.convolve(X, W, "valid").tolist() == TURNED
    assert signal.convolve2d(X[None], W[None], "valid")[0].tolist() == TURNED
    assert conv(TX, TW).flatten().tolist() == AS_WRITTEN
    assert conv(TX, TW, flip=True).flatten().tolist() == TURNED


@row("CV-07")
def conjugated():
    x, w = np.array([[1 + 0j, 2j]]), np.array([[1j]])
    plain, conjugate = [1j, -2], [-1j, 2]
    y = F.conv2d(torch.from_numpy(x)[None, None], torch.from_numpy(w)[None, None])
    assert y.flatten().tolist() == plain
    y = lax_conv(
        x[None, None].astype("complex64"), w[None, None].astype("complex64"), (1, 1)
    )
    assert y.flatten().tolist() == plain
    assert signal.correlate2d(x, w).flatten().tolist() == conjugate
    assert np.correlate(x[0], w[0]).tolist() == conjugate
    assert signal.convolve2d(x, w).flatten().tolist() == plain
    assert correlate2d(x, w).flatten().tolist() == conjugate
    with refuses(ValueError, "x must be float32 or float64"):
        conv(torch.from_numpy(x), torch.from_numpy(w)[None])


@row("CV-08")
def symmetric_arguments():
    assert np.convolve(X, W).tolist() == np.convolve(W, X).tolist()
    assert signal.convolve(X, W).tolist() == signal.convolve(W, X).tolist()
    assert np.correlate(X, W, "full").tolist() != np.correlate(W, X, "full").tolist()
    assert list(inspect.signature(conv).parameters)[:2] == ["x", "weight"]


# Stride and dilation -------------------------------------------------------------


def names(function):
    return list(inspect.signature(function).parameters)


@row("CV-09")
def stride_names():
    assert "stride" in names(torch.nn.Conv1d)
    assert "window_strides" in names(lax.conv_general_dilated)
    assert "strides" in names(nnx.Conv.__init__)
    assert "stride" in names(conv)
    assert not {"stride", "strides", "dilation"} & set(names(signal.correlate2d))


@row("CV-10")
def dilation_names():
    assert "dilation" in names(torch.nn.Conv1d)
    assert "rhs_dilation" in names(lax.conv_general_dilated)
    assert "kernel_dilation" in names(nnx.Conv.__init__)
    assert "dilation" in names(conv)


@row("CV-11")
def dilation_counts_steps():
    want = [531]  # 1 * x[0] + 10 * x[2] + 100 * x[4]
    assert F.conv1d(TX, TW, dilation=2).flatten().tolist() == want
    y = lax_conv(X[None, None], W[None, None], rhs_dilation=(2,))
    assert y.flatten().tolist() == want
    assert ones_conv(3, padding="VALID", kernel_dilation=2)(X).tolist() == want
    assert conv(TX, TW, dilation=2).flatten().tolist() == want
    assert F.conv1d(TX, TW, dilation=1).flatten().tolist() == AS_WRITTEN
    assert conv(TX, TW, dilation=1).flatten().tolist() == AS_WRITTEN


@row("CV-12")
def input_dilation_names():
    assert "lhs_dilation" in names(lax.conv_general_dilated)
    assert "input_dilation" in names(nnx.Conv.__init__)
    assert "input_dilation" in names(conv)
    assert not any("input_dilation" in name for name in names(torch.nn.Conv1d))
    want = [201, 20, 302]
    pairs = {"padding": [(0, 0)], "lhs_dilation": (2,)}
    assert (
        lax_conv(X[None, None, :3], W[None, None], **pairs).flatten().tolist() == want
    )
    assert conv(TX[..., :3], TW, input_dilation=2).flatten().tolist() == want
    # torch: the transposed convolution with the kernel turned round, cropped
    y = F.conv_transpose1d(TX[..., :3], TW.flip(-1), stride=2, padding=2)
    assert y.flatten().tolist() == want


@row("CV-13")
def input_dilation_with_names():
    for name in ("SAME", "VALID", "CAUSAL", "CIRCULAR", "REFLECT"):
        with refuses(ValueError, "String padding is not implemented"):
            shape(nnx_conv(1, 1, 3, padding=name, input_dilation=2), (9, 1))
    assert conv(TX, TW, padding="valid", input_dilation=2).shape[-1] == 7
    assert conv(TX, TW, padding="causal", input_dilation=2).shape[-1] == 9
    for name in ("same", "circular", "reflect"):
        with refuses(ValueError, "where input_dilation exceeds 1"):
            conv(TX, TW, padding=name, input_dilation=2)


# Padding -------------------------------------------------------------------------


@row("CV-14")
def padding_numbers():
    image, w = torch.ones(1, 1, 5, 5), torch.ones(1, 1, 3, 3)
    assert F.conv2d(image, w, padding=(1, 0)).shape[2:] == (5, 3)
    with refuses((RuntimeError, TypeError)):
        F.conv2d(image, w, padding=((1, 0), (0, 1)))
    with refuses(ValueError, "sequence of"):
        lax_conv(X[None, None], W[None, None], padding=1)
    assert shape(nnx_conv(1, 1, (3, 3), padding=[1, (0, 1)]), (5, 5, 1))[:2] == (5, 4)
    assert conv(image, w, padding=[1, (0, 1)]).shape[2:] == (5, 4)
    assert conv(image, w, padding=(1, 0)).shape[2:] == (5, 3)
    assert conv(image, w, padding=1).shape[2:] == (5, 5)


@row("CV-15")
def negative_padding():
    with refuses(RuntimeError, "negative padding"):
        F.conv1d(TX, TW, padding=-1)
    y = lax_conv(X[None, None], W[None, None], padding=[(-1, 0)])
    assert y.flatten().tolist() == AS_WRITTEN[1:]
    with refuses(ValueError, "padding must be an integer >= 0"):
        conv(TX, TW, padding=((-1, 0),))


@row("CV-16")
def spelling():
    with refuses(RuntimeError, "Invalid padding string"):
        F.conv1d(TX, TW, padding="SAME")
    assert shape(nnx_conv(1, 1, 3, padding="same"), (9, 1)) == (9, 1)
    for name in ("causal", "circular", "reflect"):
        assert shape(nnx_conv(1, 1, 3, padding=name.upper()), (9, 1)) == (9, 1)
        with refuses(RuntimeError, "Unrecognized padding"):
            shape(nnx_conv(1, 1, 3, padding=name), (9, 1))
    with refuses(ValueError):
        signal.correlate2d(X[None], W[None], "SAME")
    with refuses(ValueError, "padding must be one of"):
        conv(TX, TW, padding="SAME")


@row("CV-17")
def same_at_stride_one():
    w = torch.tensor([[[1.0, 10]]])  # an even kernel: the odd entry stands behind
    want = [21, 32, 43, 54, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a copy
        assert F.conv1d(TX, w, padding="same").flatten().tolist() == want
    y = lax_conv(X[None, None], w.numpy(), padding="SAME")
    assert y.flatten().tolist() == want
    assert conv(TX, w, padding="same").flatten().tolist() == want


@row("CV-18")
def same_at_stride_two():
    with refuses(RuntimeError, "not supported for strided"):
        F.conv1d(TX, TW, stride=2, padding="same")
    x = np.arange(1, 7, dtype=np.float32)
    want = lax_conv(x[None, None], W[None, None], (2,), "SAME").flatten().tolist()
    assert want == [321, 543, 65]  # three of six, and the zero stands behind
    y = conv(torch.from_numpy(x)[None], TW, stride=2, padding="same")
    assert y.flatten().tolist() == want


@row("CV-19")
def same_lower():
    assert [tuple(p) for p in lax.padtype_to_pads((6,), (3,), (2,), "SAME_LOWER")] == [
        (1, 0)
    ]
    assert resolve_padding("same", 3, stride=2, size=6) == ((0, 1),)
    with refuses(RuntimeError):
        F.conv1d(TX, TW, padding="same_lower")
    x = np.arange(1, 7, dtype=np.float32)
    want = lax_conv(x[None, None], W[None, None], (2,), "SAME_LOWER").flatten().tolist()
    y = conv(torch.from_numpy(x)[None], TW, stride=2, padding=((1, 0),))
    assert y.flatten().tolist() == want


@row("CV-20")
def causal():
    want = [100, 200, 310, 420, 531]  # dilation 2: four zeros in front
    got = ones_conv(3, padding="CAUSAL", kernel_dilation=2)(X)
    assert got.tolist() == want
    assert conv(TX, TW, padding="causal", dilation=2).flatten().tolist() == want
    with refuses(ValueError, "only implemented for 1D"):
        shape(nnx_conv(1, 1, (3, 3), padding="CAUSAL"), (5, 5, 1))
    assert (
        conv(torch.ones(1, 5, 5), torch.ones(1, 1, 3, 3), padding="causal")[0, 0, 0]
        == 1
    )
    with refuses(RuntimeError, "Invalid padding string"):
        F.conv1d(TX, TW, padding="causal")


@row("CV-21")
def torus():
    want = [215, 321, 432, 543, 154]
    layer = torch.nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
    layer.weight.data = TW
    assert layer(TX).flatten().tolist() == want
    with refuses(RuntimeError, "more than once"):
        F.pad(TX, (6, 0), mode="circular")
    assert ones_conv(3, padding="CIRCULAR")(X).tolist() == want
    assert conv(TX, TW, padding="circular").flatten().tolist() == want
    y = signal.correlate2d(X[None], W[None], "same", boundary="wrap")
    assert y[0].tolist() == want
    # an even kernel: (K - 1) // 2 in front, K // 2 behind; and more than once round
    for size in (4, 13):
        got = ones_conv(size, padding="CIRCULAR")(X / 64)
        w = 10.0 ** torch.arange(size)[None, None]
        ours = conv(TX.double() / 64, w.double(), padding="circular").flatten().numpy()
        assert np.allclose(got, ours, rtol=1e-5)
        wrapped = np.pad(X.astype(float) / 64, ((size - 1) // 2, size // 2), "wrap")
        assert np.allclose(np.correlate(wrapped, w.flatten().numpy()), ours)


@row("CV-22")
def mirror_on_the_last_entry():
    assert F.pad(TX[..., :3], (2, 2), "reflect").flatten().tolist() == [
        3,
        2,
        1,
        2,
        3,
        2,
        1,
    ]
    with refuses(RuntimeError, "less than"):
        F.pad(TX[..., :3], (3, 0), "reflect")
    twice = [2, 1, 2, 3, 2, 1, 2, 3]
    assert np.pad(X[:3], (5, 0), "reflect").tolist() == twice
    assert jnp.pad(X[:3], (5, 0), "reflect").tolist() == twice
    assert pad(TX[..., :3], [(5, 0)], "reflect").flatten().tolist() == twice
    with refuses(ValueError, "at most size - 1 = 2"):
        conv(TX[..., :3], torch.ones(1, 1, 7), padding="reflect")
    assert ones_conv(7, padding="REFLECT")(X[:3]).shape == (3,)
    one_left = np.array([1, 0, 0])
    assert ndimage.correlate1d(X, one_left, mode="mirror").tolist() == [2, 1, 2, 3, 4]
    assert np.pad(X, (1, 0), "reflect")[:5].tolist() == [2, 1, 2, 3, 4]


@row("CV-23")
def mirror_behind_the_last_entry():
    with refuses((NotImplementedError, RuntimeError, ValueError)):
        F.pad(TX, (1, 1), "symmetric")
    assert np.pad(X, (1, 0), "symmetric")[:5].tolist() == [1, 1, 2, 3, 4]
    assert jnp.pad(X, (1, 0), "symmetric")[:5].tolist() == [1, 1, 2, 3, 4]
    one_left = np.array([1, 0, 0])
    assert ndimage.correlate1d(X, one_left, mode="reflect").tolist() == [1, 1, 2, 3, 4]
    assert inspect.signature(ndimage.correlate).parameters["mode"].default == "reflect"
    y = signal.correlate2d(X[None], one_left[None], "same", boundary="symm")
    assert y[0].tolist() == [1, 1, 2, 3, 4]


@row("CV-24")
def order_of_pairs():
    x = torch.ones(2, 3)
    assert F.pad(x, (1, 0, 0, 0)).shape == (2, 4)
    assert np.pad(x.numpy(), ((1, 0), (0, 0))).shape == (3, 3)
    assert jnp.pad(x.numpy(), ((1, 0), (0, 0))).shape == (3, 3)
    assert pad(x, ((1, 0), (0, 0))).shape == (3, 3)


# Groups --------------------------------------------------------------------------


@row("CV-25")
def group_names():
    assert "groups" in names(torch.nn.Conv1d)
    assert "feature_group_count" in names(lax.conv_general_dilated)
    assert "feature_group_count" in names(nnx.Conv.__init__)
    assert "groups" in names(conv)


@row("CV-26")
def groups_in_order():
    x = torch.arange(1.0, 5)[None, :, None]  # channels 1, 2, 3, 4
    w = torch.tensor([[1.0, 10]] * 2)[:, :, None]  # (2, 2, 1)
    assert F.conv1d(x, w, groups=2).flatten().tolist() == [21, 43]
    y = lax_conv(x.numpy(), w.numpy(), feature_group_count=2)
    assert y.flatten().tolist() == [21, 43]
    assert conv(x, w, groups=2).flatten().tolist() == [21, 43]


# Transposed ----------------------------------------------------------------------

Y2, W3 = torch.tensor([[[1.0, 10]]]), torch.tensor([[[1.0, 2, 3]]])
ADJOINT, STRAIGHT = [1, 2, 13, 20, 30], [3, 2, 31, 20, 10]


def lax_transpose(padding, stride=2, y=None, w=None, **knobs):
    y, w = Y2.numpy() if y is None else y, W3.numpy() if w is None else w
    knobs.setdefault("dimension_numbers", ("NCH", "OIH", "NCH"))
    return lax.conv_transpose(y, w, (stride,), padding, **knobs).flatten().tolist()


@row("CV-27")
def transposed_kernel():
    assert F.conv_transpose1d(Y2, W3, stride=2).flatten().tolist() == ADJOINT
    assert lax_transpose("VALID") == STRAIGHT
    assert lax_transpose("VALID", transpose_kernel=True) == ADJOINT
    assert conv_transpose(Y2, W3, stride=2).flatten().tolist() == ADJOINT


@row("CV-28")
def transposed_weight():
    layer = torch.nn.ConvTranspose1d(4, 6, 3, groups=2)
    assert (
        layer.weight.shape
        == torch.nn.Conv1d(6, 4, 3, groups=2).weight.shape
        == (4, 3, 3)
    )
    for turned, want in ((False, (3, 4, 6)), (True, (3, 6, 4))):
        layer = nnx.ConvTranspose(4, 6, (3,), transpose_kernel=turned, rngs=nnx.Rngs(0))
        assert layer.kernel[...].shape == want
    assert conv_transpose(torch.ones(4, 5), torch.ones(4, 3, 3), groups=2).shape == (
        6,
        7,
    )


@row("CV-29")
def transposed_padding():
    want = ADJOINT[1:-1]  # p = 1 crops; in lax it is K - 1 - p = 1 as well
    assert F.conv_transpose1d(Y2, W3, stride=2, padding=1).flatten().tolist() == want
    assert lax_transpose([(1, 1)], transpose_kernel=True) == want
    assert lax_transpose([(2, 2)], transpose_kernel=True) == ADJOINT  # p = 0
    assert lax_transpose([(0, 0)], transpose_kernel=True) == ADJOINT[2:-2]  # p = 2
    assert conv_transpose(Y2, W3, stride=2, padding=1).flatten().tolist() == want
    y = conv_transpose(Y2, W3, stride=2, padding=((2, 0),))
    assert y.flatten().tolist() == ADJOINT[2:]


@row("CV-30")
def transposed_names():
    for n, k, s in ((4, 3, 2), (4, 2, 3), (5, 5, 2), (5, 4, 4)):
        y, w = np.ones((1, 1, n), "float32"), np.ones((1, 1, k), "float32")
        assert len(lax_transpose("VALID", s, y, w)) == n * s + max(k - s, 0)
        assert len(lax_transpose("SAME", s, y, w)) == n * s
    parameters = inspect.signature(nnx.ConvTranspose.__init__).parameters
    assert parameters["padding"].default == "SAME"
    with refuses((RuntimeError, TypeError)):
        F.conv_transpose1d(Y2, W3, padding="valid")
    assert (
        conv_transpose(Y2, W3, stride=2, padding="valid").flatten().tolist() == ADJOINT
    )
    y = conv_transpose(Y2, W3, stride=2, padding="causal")
    assert y.flatten().tolist() == ADJOINT[2:]


@row("CV-31")
def which_input_size():
    for stride, dilation in ((1, 3), (3, 1), (2, 2)):
        knobs = {"stride": stride, "dilation": dilation}
        for a in range(max(stride, dilation)):
            want = F.conv_transpose1d(Y2, W3, output_padding=a, **knobs)
            assert torch.equal(conv_transpose(Y2, W3, output_padding=a, **knobs), want)
        for function, kind in (
            (F.conv_transpose1d, RuntimeError),
            (conv_transpose, ValueError),
        ):
            with refuses(kind, "output.padding must be"):
                function(Y2, W3, output_padding=max(stride, dilation), **knobs)
    assert "output_padding" not in names(lax.conv_transpose)
    y = F.conv_transpose1d(Y2, W3, stride=2, padding=1, output_padding=1)
    assert lax_transpose([(1, 2)], transpose_kernel=True) == y.flatten().tolist()


@row("CV-32")
def order_of_arguments():
    # positional: ..., output_padding, groups, dilation against ..., dilation, groups
    x, w = torch.ones(1, 2, 5), torch.ones(2, 1, 2)
    assert F.conv_transpose1d(x, w, None, 1, 0, 0, 2, 1).shape == (1, 2, 6)
    assert F.conv1d(x, w, None, 1, 0, 1, 2).shape == (1, 2, 4)
    for function in (conv, conv_transpose):
        kinds = {
            p.kind for p in list(inspect.signature(function).parameters.values())[3:]
        }
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}


# Modes ---------------------------------------------------------------------------


def default_mode(function):
    return inspect.signature(function).parameters["mode"].default


@row("CV-33")
def default_modes():
    assert default_mode(signal.correlate2d) == default_mode(signal.convolve2d) == "full"
    assert default_mode(jax.scipy.signal.correlate2d) == "full"
    # NumPy hides the signatures of its dispatchers in some versions: by size, then
    assert len(np.convolve(X, W)) == 7
    assert len(np.correlate(X, W)) == 3
    assert default_mode(correlate2d) == "valid"


@row("CV-34")
def size_of_same():
    a, b = X[:2], W
    assert len(signal.correlate(a, b, "same")) == 2
    assert signal.correlate2d(a[None], b[None], "same").shape == (1, 2)
    assert len(np.correlate(a, b, "same")) == len(np.convolve(a, b, "same")) == 3
    assert jax.scipy.signal.correlate2d(a[None], b[None], "same").shape == (1, 2)
    assert correlate2d(a[None], b[None], "same").shape == (1, 2)


@row("CV-35")
def same_of_an_even_kernel():
    generator = np.random.default_rng(0)
    image, kernel = (
        generator.integers(0, 9, s).astype("float32") for s in ((6, 7), (2, 4))
    )
    full = signal.correlate2d(image, kernel, "full")
    for function in (signal.correlate2d, jax.scipy.signal.correlate2d, correlate2d):
        assert np.array_equal(function(image, kernel, "same"), full[1:7, 2:9])
    full = signal.convolve2d(image, kernel, "full")
    assert np.array_equal(signal.convolve2d(image, kernel, "same"), full[0:6, 1:8])


@row("CV-36")
def valid_with_a_larger_kernel():
    with refuses(RuntimeError, "Kernel size can't be greater"):
        F.conv1d(TW, TX)
    image, kernel = np.array([[1, 2j], [3, 4]]), np.arange(9).reshape(3, 3) * (1 + 1j)
    full = signal.correlate2d(image, kernel, "full")
    assert np.array_equal(
        signal.correlate2d(image, kernel, "valid"), full[1:3, 1:3].conj()
    )
    assert np.array_equal(correlate2d(image, kernel, "valid"), full[1:3, 1:3])
    real = signal.correlate2d(image.real, kernel.real, "full")[1:3, 1:3]
    for function in (signal.correlate2d, jax.scipy.signal.correlate2d, correlate2d):
        assert np.array_equal(function(image.real, kernel.real, "valid"), real)
        with refuses(ValueError):
            function(np.ones((2, 5)), np.ones((3, 3)), "valid")


@row("CV-37")
def beyond_the_edge():
    defaults = inspect.signature(signal.correlate2d).parameters
    assert (defaults["boundary"].default, defaults["fillvalue"].default) == ("fill", 0)
    want = [[210, 321, 432, 543, 54]]
    assert signal.correlate2d(X[None], W[None], "same").tolist() == want
    assert correlate2d(X[None], W[None], "same").tolist() == want
    assert F.conv1d(TX, TW, padding=1)[0].tolist() == want
    y = lax_conv(X[None, None], W[None, None], padding=[(1, 1)])
    assert y[0].tolist() == want


# Types ---------------------------------------------------------------------------


@row("CV-38")
def mixed_types():
    with refuses(RuntimeError, "expected scalar type|should be the same"):
        F.conv1d(TX, TW.double())
    with refuses(TypeError, "same dtypes"):
        lax_conv(jnp.asarray(X)[None, None], jnp.asarray(W, jnp.bfloat16)[None, None])
    assert nnx_conv(1, 1, 3)(jnp.ones((5, 1), jnp.bfloat16)).dtype == "float32"
    assert signal.correlate2d(X[None], W[None].astype("float64")).dtype == "float64"
    with refuses(ValueError, "weight must have the dtype"):
        conv(TX, TW.double())


@row("CV-39")
def double_precision():
    x, w = X[None, None].astype("float64"), W[None, None].astype("float64")
    with jax.enable_x64(False):
        assert lax_conv(jnp.asarray(x), jnp.asarray(w)).dtype == "float32"
    with jax.enable_x64(True):
        assert lax_conv(jnp.asarray(x), jnp.asarray(w)).dtype == "float64"
    assert F.conv1d(TX.double(), TW.double()).dtype == torch.float64
    assert signal.correlate2d(x[0], w[0]).dtype == "float64"
    assert conv(TX.double(), TW.double()).dtype == torch.float64
    assert conv(TX, TW).dtype == torch.float32


@row("CV-40")
def integers():
    x, w = np.full((1, 1), 200, np.uint8), np.full((1, 1), 2, np.uint8)
    assert signal.correlate2d(x, w).tolist() == [[144]]
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    assert F.conv2d(tx[None, None], tw[None, None]).flatten().tolist() == [144]
    assert (
        lax_conv(X[None, None].astype("int32"), W[None, None].astype("int32")).dtype
        == "int32"
    )
    assert correlate2d(x, w).tolist() == [[144]]
    with refuses(ValueError, "float32 or float64"):
        conv(tx[None], tw[None, None])


@row("CV-41")
def half_and_bool():
    assert F.conv1d(TX.half(), TW.half()).dtype == torch.float16
    assert (
        lax_conv(X[None, None].astype("float16"), W[None, None].astype("float16")).dtype
        == "float16"
    )
    for dtype in ("float16", "bool"):
        with refuses(ValueError, "not available for this type"):
            signal.correlate2d(np.ones((3, 3), dtype), np.ones((2, 2), dtype))
    for dtype in (torch.float16, torch.bool):
        with refuses(ValueError, "float32 or float64"):
            conv(TX.to(dtype), TW.to(dtype))
    assert (
        correlate2d(np.ones((3, 3), "float16"), np.ones((2, 2), "float16")).dtype
        == "float16"
    )
    with refuses(ValueError, "must hold numbers"):
        correlate2d(np.ones((3, 3), bool), np.ones((2, 2), bool))


# Windows and pooling -------------------------------------------------------------


@row("CV-42")
def windows_as_columns():
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    columns = im2col(x, (2, 3))
    assert torch.equal(columns, F.unfold(x, (2, 3)))
    patches = lax.conv_general_dilated_patches(x.numpy(), (2, 3), (1, 1), "VALID")
    assert np.array_equal(np.asarray(patches).reshape(1, 12, 4), columns.numpy())
    windows = np.lib.stride_tricks.sliding_window_view(x.numpy(), (2, 3), axis=(2, 3))
    assert windows.shape == (1, 2, 2, 2, 2, 3)  # (n, c, positions, window)
    moved = windows.transpose(0, 1, 4, 5, 2, 3).reshape(1, 12, 4)
    assert np.array_equal(moved, columns.numpy())


@row("CV-43")
def an_int_window():
    assert F.unfold(torch.ones(1, 1, 4, 4), 2).shape == (1, 4, 9)
    assert nnx_conv(1, 1, 3).kernel[...].shape == (3, 1, 1)
    assert im2col(torch.ones(1, 1, 4, 4), 2).shape == (1, 4, 9)
    assert im2col(torch.ones(1, 4), 2).shape == (2, 3)


@row("CV-44")
def pooling_stride():
    assert F.max_pool1d(torch.ones(1, 1, 6), 2).shape[-1] == 3
    assert nnx.max_pool(jnp.ones((1, 6, 1)), (2,)).shape[1] == 5
    assert pool_output_size(6, 2) == 3


@row("CV-45")
def padding_in_a_mean():
    assert F.avg_pool1d(torch.ones(1, 1, 4), 2, 2, 1).flatten().tolist() == [
        0.5,
        1,
        0.5,
    ]
    y = nnx.avg_pool(jnp.ones((1, 4, 1)), (2,), (2,), [(1, 1)])
    assert y.flatten().tolist() == [0.5, 1, 0.5]
    import ckutils.convolution

    assert not hasattr(ckutils.convolution, "avg_pool")


@row("CV-46")
def ceil_mode():
    for n, p in ((7, 0), (3, 1), (4, 1)):
        want = F.max_pool1d(torch.ones(1, 1, n), 2, 2, p, ceil_mode=True).shape[-1]
        assert pool_output_size(n, 2, padding=p, ceil_mode=True) == want
    assert "ceil_mode" not in names(nnx.max_pool)


# CuPy: read, not run -------------------------------------------------------------


def cupy_defaults(file, function):
    """Defaults of a function in CuPy's source; importing it would need CUDA."""
    package = importlib.util.find_spec(file.partition("/")[0])
    if package is None:
        pytest.skip("CuPy is not installed")
    path = Path(package.origin).parent.parent / file
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            values = [ast.literal_eval(value) for value in node.args.defaults]
            arguments = [argument.arg for argument in node.args.args]
            return dict(
                zip(arguments[len(arguments) - len(values) :], values, strict=True)
            )
    raise AssertionError(f"{function} is no longer in {file}")


@row("CV-47")
def cupy_correlate2d():
    for name in ("correlate2d", "convolve2d"):
        want = inspect.signature(getattr(signal, name)).parameters.values()
        want = {p.name: p.default for p in want if p.default is not p.empty}
        assert cupy_defaults("cupyx/scipy/signal/_signaltools.py", name) == want


@row("CV-48")
def cupy_correlate():
    assert cupy_defaults("cupy/_math/misc.py", "convolve") == {"mode": "full"}
    assert cupy_defaults("cupy/_statistics/correlation.py", "correlate") == {
        "mode": "valid"
    }


@row("CV-49")
def cupy_ndimage():
    defaults = cupy_defaults("cupyx/scipy/ndimage/_filters.py", "correlate")
    assert defaults["mode"] == "reflect"


# The page and the tests ----------------------------------------------------------


@pytest.mark.parametrize("identity", sorted(ROWS))
def test_row(identity):
    ROWS[identity]()


def test_every_row_of_the_page_is_asserted_and_the_other_way_round():
    on_the_page = re.findall(r"^\| (CV-\d\d) \|", PAGE.read_text(), re.M)
    assert len(on_the_page) == len(set(on_the_page)), "an id stands twice"
    assert sorted(on_the_page) == sorted(ROWS)


def test_the_page_names_the_versions_that_are_pinned():
    pins = (PAGE.parent.parent / "requirements.txt").read_text()
    for name in ("torch", "jax", "flax", "scipy"):
        short = re.search(rf"^{name}==(\d+\.\d+)", pins, re.M | re.I).group(1)
        assert f"{name} {short}" in PAGE.read_text().lower()
