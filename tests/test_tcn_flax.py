"""The temporal network against the published flax listing, repaired.

The listing lacks its indentation, has rngs=None as a default with which no layer can be
made, and ends before its usage example. Here it is indented and rngs is required. Its
structure is kept: one dropout object a block, used twice, nnx.List and nnx.Sequential,
channels last.
"""

import numpy as np
import pytest
import torch

from ckutils.blocks import TCN, CausalConv1d

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")


class FlaxBlock(nnx.Module):
    def __init__(self, fed, width, kernel_size, dilation, dropout, rngs):
        knobs = {"kernel_dilation": dilation, "padding": "CAUSAL", "rngs": rngs}
        self.conv1 = nnx.Conv(fed, width, kernel_size, **knobs)
        self.conv2 = nnx.Conv(width, width, kernel_size, **knobs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        differ = fed != width
        self.downsample = nnx.Conv(fed, width, 1, rngs=rngs) if differ else None

    def __call__(self, x):
        y = self.dropout(nnx.relu(self.conv1(x)))
        y = self.dropout(nnx.relu(self.conv2(y)))
        return nnx.relu(y + (x if self.downsample is None else self.downsample(x)))


class FlaxTCN(nnx.Module):
    def __init__(self, fed, channels, out, kernel_size=2, dropout=0.2, *, rngs):
        widths = [fed, *channels]
        self.blocks = nnx.List(
            FlaxBlock(widths[i], widths[i + 1], kernel_size, 2**i, dropout, rngs)
            for i in range(len(channels))
        )
        self.decoder = nnx.Conv(widths[-1], out, kernel_size=1, rngs=rngs)

    def __call__(self, x):
        return self.decoder(nnx.Sequential(*self.blocks)(x))


def copy_weights(model: TCN, twin: FlaxTCN):
    """flax keeps (kernel, in, out), torch (out, in, kernel)."""

    def copy(layer, conv):
        kernel = layer.weight.detach().permute(2, 1, 0).numpy()
        conv.kernel[...] = jax.numpy.asarray(kernel)
        conv.bias[...] = jax.numpy.asarray(layer.bias.detach().numpy())

    *levels, last = model
    for level, block in zip(levels, twin.blocks, strict=True):
        first, second = (m for m in level.main if isinstance(m, CausalConv1d))
        copy(first, block.conv1)
        copy(second, block.conv2)
        if block.downsample is not None:
            copy(level.shortcut[0], block.downsample)
    copy(last, twin.decoder)


@pytest.mark.parametrize(
    ("channels", "kernel", "out"),
    [([5, 5, 7], 2, 1), ([4], 3, 6), ([3, 3, 3, 3], 4, 2)],
)
def test_tcn_equals_the_repaired_flax_listing(channels, kernel, out):
    torch.manual_seed(1)
    model = TCN(3, channels, out, kernel).eval()
    twin = FlaxTCN(3, channels, out, kernel, rngs=nnx.Rngs(0))
    copy_weights(model, twin)
    twin.eval()
    x = torch.randn(2, 3, 40)
    got = model(x).detach().mT.numpy()
    want = np.asarray(twin(jax.numpy.asarray(x.mT.numpy())))
    assert want.shape == (2, 40, out)
    # sums of at most kernel * 7 products of size near 1, 2 a level, in float32
    tol = 2 * len(channels) * kernel * 7 * np.finfo(np.float32).eps * 4
    np.testing.assert_allclose(got, want, rtol=0, atol=tol)


def test_the_listing_needs_rngs_and_draws_a_new_mask_each_use():
    with pytest.raises(AttributeError, match="params"):
        FlaxTCN(3, [4], 1, rngs=None)
    with pytest.raises(ValueError, match="no `rngs` argument was provided to Dropout"):
        nnx.Dropout(0.5, rngs=None)(jax.numpy.ones(4))
    dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    ones = jax.numpy.ones(64)
    assert not (dropout(ones) == dropout(ones)).all()
    twin = FlaxTCN(3, [4], 1, rngs=nnx.Rngs(0))
    x = jax.numpy.ones((2, 30, 3))
    assert not (twin(x) == twin(x)).all()
    twin.eval()
    assert (twin(x) == twin(x)).all()
