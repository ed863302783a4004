"""What published listings of convolutional kernel networks compute, and what not.

The arithmetic of each listing is written out here in our own words; the verdicts stand
in chapter 5, section 5.14.
"""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.peers import cython_loops
from ckutils.checks import agree
from ckutils.ckn import CKN, CKNLayer
from ckutils.convolution import correlate2d, im2col

FLOAT64 = torch.float64


def published_rows(images, k):
    """Windows over batch and channels at once, reshaped to rows."""
    b, c = images.shape[:2]
    view = np.lib.stride_tricks.sliding_window_view(images, (b, c, k, k))
    return view.reshape(-1, c * k * k)


def numbered(b, c, h, w):
    """Images whose pixels say where they are."""
    return np.arange(b * c * h * w, dtype=float).reshape(b, c, h, w)


@pytest.mark.parametrize("b, c, h, w, k", [(1, 1, 4, 5, 2), (3, 2, 5, 4, 3)])
def test_published_patches_are_the_right_rows_in_another_order(b, c, h, w, k):
    images = numbered(b, c, h, w)
    got = published_rows(images, k)
    want = im2col(torch.from_numpy(images), k).mT.reshape(-1, c * k * k).numpy()
    assert sorted(map(tuple, got)) == sorted(map(tuple, want))
    assert np.array_equal(got, want) == (b == 1)
    # place by place, and within a place image by image
    by_place = want.reshape(b, -1, c * k * k).swapaxes(0, 1).reshape(got.shape)
    agree("place by place", got, by_place, tol=0)


@pytest.mark.parametrize("b, places", [(100, 10), (1000, 1), (3000, 1)])
def test_published_sampler_sees_only_the_corner(b, places):
    images = np.broadcast_to(numbered(1, 1, 8, 8), (b, 1, 8, 8))
    rows = published_rows(images, 3)[:1000]
    corners = set(rows[:, 0])  # the pixel at the top left of each patch
    assert len(corners) == places and max(corners) < 16  # the first two rows of places


def published_layer(layer, maps, anchors, eps=1e-6):
    """Norms by a box, clipped twice; convolve, divide, kappa, multiply."""
    box = maps.new_ones(1, layer.in_channels, *layer.kernel_size)
    norms = F.conv2d(maps**2, box, padding=layer.padding).clamp(min=eps).sqrt()
    filters = anchors.unflatten(1, (-1, *layer.kernel_size))
    products = F.conv2d(maps, filters, padding=layer.padding)
    return norms * layer.kernel(products / norms.clamp(min=eps))


def test_published_layer_needs_unit_anchors_and_patches_that_are_not_faint():
    torch.manual_seed(0)
    layer = CKNLayer(2, 4, 3, padding=1).double()
    maps, unit = torch.rand(2, 2, 6, 5, dtype=FLOAT64), layer.unit_anchors()
    with torch.no_grad():
        want = layer.kernel_map(maps)
        agree("ordinary", published_layer(layer, maps, unit), want, tol=1e-12)
        longer = published_layer(layer, maps, 2 * unit)
        assert (longer - want).abs().max() > 0.1 * want.abs().max()
        faint = published_layer(layer, 1e-5 * maps, unit) / 1e-5
        assert (faint - want).abs().max() > 0.1 * want.abs().max()
        assert published_layer(layer, 0 * maps, unit).abs().max() > 0
        agree("ours, faint", layer.kernel_map(1e-5 * maps) / 1e-5, want, tol=1e-10)


def test_published_product_is_a_1x1_convolution():
    maps, matrix = torch.randn(3, 4, 5, 6), torch.randn(4, 4)
    tiled = torch.bmm(matrix.repeat(3, 1, 1), maps.reshape(3, 4, -1))
    got = tiled.reshape(3, 4, 5, 6)
    agree("1 x 1", got, F.conv2d(maps, matrix[:, :, None, None]), tol=1e-5)
    agree("broadcast", got, (matrix @ maps.flatten(2)).view(3, 4, 5, 6), tol=1e-5)
    wide = torch.bmm(torch.randn(7, 4).repeat(3, 1, 1), maps.reshape(3, 4, -1))
    with pytest.raises(RuntimeError, match="invalid for input"):
        wide.reshape(3, 4, 5, 6)  # the listing's last line


def test_both_compositions():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 9, 9)
    first, second = torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(3, 4, 2)
    net = torch.nn.Sequential(
        first, torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        second, torch.nn.ReLU(), torch.nn.MaxPool2d(2),
    )  # fmt: skip
    by_hand = x
    for w in (first, second):  # gamma(sigma(W x))
        by_hand = F.max_pool2d(F.relu(F.conv2d(by_hand, w.weight, w.bias)), 2)
    agree("CNN", net(x), by_hand, tol=1e-5)
    ckn = CKN([CKNLayer(1, 3, 3, subsampling=2), CKNLayer(3, 4, 2)]).double()
    maps = x.double()
    for layer in ckn.layers:  # gamma(A sigma(W P x)): eq. (5.17)
        kernel = layer.kernel_size
        size = [n - k + 1 for n, k in zip(maps.shape[2:], kernel, strict=True)]
        rows = im2col(maps, layer.kernel_size)  # P
        norms = rows.norm(dim=1, keepdim=True)
        mapped = norms * layer.kernel(layer.unit_anchors() @ (rows / norms))
        maps = layer.pool((layer.whitening() @ mapped).unflatten(2, size))
    agree("CKN", ckn.maps(x.double())[-1], maps, tol=1e-9)


def test_torch_correlates_without_conjugating():
    draw = np.random.default_rng(0)
    g, h = (draw.standard_normal((2, n)) for n in (3, 6))
    g, h = g[0] + 1j * g[1], h[0] + 1j * h[1]
    got = F.conv1d(torch.from_numpy(h)[None, None], torch.from_numpy(g)[None, None])
    agree("conv1d", got[0, 0], np.correlate(h, g.conj(), "valid"), tol=1e-12)
    loops = [sum(g[m].conj() * h[n + m] for m in range(3)) for n in range(4)]
    agree("eq. (5.23)", np.correlate(h, g, "valid"), loops, tol=1e-12)
    swapped = np.correlate(g, h, "full")[::-1].conj()
    agree("swapped", swapped, np.correlate(h, g, "full"), tol=1e-12)
    agree("convolution commutes", np.convolve(g, h), np.convolve(h, g), tol=1e-12)


def test_learned_filters_are_flips_of_each_other():
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((12, 12)), draw.standard_normal(100)
    rows = im2col(torch.from_numpy(x)[None, None], 3)[0].T.numpy()
    correlating = np.linalg.lstsq(rows, y, rcond=None)[0]
    convolving = np.linalg.lstsq(rows[:, ::-1], y, rcond=None)[0]
    agree("flipped", convolving, correlating[::-1], tol=1e-12)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_jax_correlates_as_scipy(mode):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    scipy_signal = pytest.importorskip("scipy.signal", reason="SciPy is not installed")
    from jax.scipy.signal import correlate2d as jax_correlate2d

    draw = np.random.default_rng(0)
    x, w = draw.standard_normal((11, 7)), draw.standard_normal((3, 4))
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        got = np.asarray(jax_correlate2d(x, w, mode))
    finally:
        jax.config.update("jax_enable_x64", before)
    agree(mode, got, scipy_signal.correlate2d(x, w, mode), tol=1e-12)


# The CUDA listing's index arithmetic, one call a thread, as C++. `wrong` uses the index
# along the width as a row; the corrected kernel uses it as a column.
KERNEL = """
extern "C" void thread(int fixed, int i, int j, float* y, const float* x,
                       const float* k, int W, int H, int w, int h)
{
    if (i >= W - w + 1 || j >= H - h + 1) return;
    float sum = 0.0f;
    for (int a = 0; a < w; ++a)
        for (int b = 0; b < h; ++b)
            sum += fixed ? k[b * w + a] * x[(j + b) * W + i + a]
                         : k[a * w + b] * x[(i + a) * W + j + b];
    y[fixed ? j * (W - w + 1) + i : i * (H - h + 1) + j] = sum;
}
extern "C" void launch(int fixed, float* y, const float* x, const float* k,
                       int W, int H, int w, int h)
{
    const int gx = (W - w + 1 + 15) / 16, gy = (H - h + 1 + 15) / 16;
    for (int bx = 0; bx < gx; ++bx) for (int by = 0; by < gy; ++by)
        for (int tx = 0; tx < 16; ++tx) for (int ty = 0; ty < 16; ++ty)
            thread(fixed, bx * 16 + tx, by * 16 + ty, y, x, k, W, H, w, h);
}
"""


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine")
    library = tmp_path_factory.mktemp("listing") / "listing.so"
    build = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)]
    subprocess.run(build, input=KERNEL.encode(), check=True)
    call = ctypes.CDLL(str(library)).launch

    def run(image, kernel, fixed):
        (H, W), (h, w) = image.shape, kernel.shape
        beyond = np.full(10_000, np.nan)  # what a read outside finds
        x, k = (
            np.concatenate([a.ravel(), beyond]).astype(np.float32)
            for a in (image, kernel)
        )
        y = np.full((H - h + 1, W - w + 1), np.nan, np.float32)
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (y, x, k)]
        call(int(fixed), *pointers, W, H, w, h)
        return y

    return run


SHAPES = [((9, 9), (3, 3)), ((6, 11), (3, 3)), ((11, 6), (3, 3)), ((9, 9), (2, 4)),
          ((9, 9), (4, 2)), ((40, 33), (5, 3))]  # fmt: skip


@pytest.mark.parametrize("size, taps", SHAPES)
def test_the_cuda_listing_compiled_is_wrong_for_rectangles(launch, size, taps):
    draw = np.random.default_rng(0)
    x = draw.integers(-9, 9, size).astype(np.float32)  # small integers: exact
    w = draw.integers(-9, 9, taps).astype(np.float32)
    want = correlate2d(x, w)
    agree(f"corrected, {size} {taps}", launch(x, w, fixed=True), want, tol=0)
    square = size[0] == size[1] and taps[0] == taps[1]
    assert np.array_equal(launch(x, w, fixed=False), want) == square


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 5), (33, 48)])
def test_the_launch_covers_every_output_once(size):
    out_h, out_w = size
    grid_x, grid_y = (out_w + 15) // 16, (out_h + 15) // 16
    threads = [
        (bx * 16 + tx, by * 16 + ty)
        for bx in range(grid_x)
        for by in range(grid_y)
        for tx in range(16)
        for ty in range(16)
    ]
    kept = [(i, j) for i, j in threads if i < out_w and j < out_h]
    assert sorted(kept) == [(i, j) for i in range(out_w) for j in range(out_h)]


def test_the_four_loops_are_the_valid_correlation():
    draw = np.random.default_rng(0)
    for size, taps in SHAPES[:5]:
        x, w = draw.standard_normal(size), draw.standard_normal(taps)
        out = np.zeros([n - k + 1 for n, k in zip(size, taps, strict=True)])
        for i, j in np.ndindex(out.shape):
            for m, n in np.ndindex(taps):
                out[i, j] += x[i + m, j + n] * w[m, n]
        agree(f"{size} {taps}", out, correlate2d(x, w), tol=1e-12)
    # a kernel larger than the image: n - k + 1 is 0, then negative
    assert np.zeros([2 - 3 + 1] * 2).size == 0
    with pytest.raises(ValueError, match="negative dimensions"):
        np.zeros([2 - 4 + 1] * 2)


def test_four_loops_compiled_by_cython_are_the_valid_correlation():
    loops = cython_loops()
    if loops is None:
        pytest.skip("Cython is not installed")
    draw = np.random.default_rng(0)
    for size, taps in (((9, 9), (3, 3)), ((6, 11), (2, 4)), ((11, 6), (4, 2))):
        image, kernel = draw.standard_normal(size), draw.standard_normal(taps)
        want = correlate2d(image, kernel)
        agree(f"{size}, {taps}", loops.correlate2d(image, kernel), want, tol=1e-12)
        single = loops.correlate2d(image.astype("f4"), kernel.astype("f4"))
        assert single.dtype == np.float32
        agree(f"{size}, {taps}, float32", single, want, tol=1e-5)
