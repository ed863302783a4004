"""correlate2d.cu on a CPU, and on a GPU where there is one; its operator; the CPU.

The cases are the same on both devices. On a CPU each kernel's own text runs in three
orders of its threads; the planted mistakes at the end show what these checks see.
"""

import contextlib

import numpy as np
import pytest
import torch
from scipy import signal
from torch.autograd import gradcheck, gradgradcheck

from ckutils import banded
from ckutils.convolution import correlate2d
from ckutils.correlation import correlate2d_route
from ckutils.cuda import EmulatedModule, KernelError, read_source
from ckutils.cuda import correlate2d as cuda
from ckutils.cuda.correlate2d import correlate2d_op, plan, run_kernel
from ckutils.cuda.standin import cupy_on_cpu

KERNELS = ("correlate2d_naive", "correlate2d", "correlate2d_split")
ORDERS = ("index", "reverse", 3)
# (H, W), (h, k): size 1, primes, rectangles, more than one block across and down, whole
# and cut pieces across (k > 16), chunks with a rest (11 rows of 11 taps), k > W
SIZES = {
    "one pixel": ((1, 1), (1, 1)),
    "one tap": ((3, 5), (1, 1)),
    "a row": ((1, 150), (1, 4)),
    "a column": ((67, 1), (5, 1)),
    "two blocks each way": ((37, 131), (3, 5)),
    "chunks with a rest": ((41, 23), (11, 11)),
    "cut pieces": ((7, 40), (3, 19)),
    "as large as the image": ((13, 17), (13, 17)),
    "larger than the image": ((5, 7), (6, 17)),
    "more taps than threads": ((3, 305), (2, 300)),
}
MODES = ("valid", "same", "full")
TYPES = (torch.float32, torch.float64)


def draw(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed + 31 * shape[0] + shape[-1])
    return torch.randn(shape, generator=generator, dtype=dtype)


def where(size, kernel_size, mode):
    """top, left, rows, columns; None where "valid" is empty."""
    (H, W), (h, k) = size, kernel_size
    return {
        "valid": (0, 0, H - h + 1, W - k + 1) if h <= H and k <= W else None,
        "same": (h - 1 - h // 2, k - 1 - k // 2, H, W),
        "full": (h - 1, k - 1, H + h - 1, W + k - 1),
    }[mode]


def direct(x, w, top, left, rows, columns):
    """Tap by tap, in float64: the formula's two sums."""
    x, w = x.double().cpu(), w.double().cpu()
    (H, W), (h, k) = x.shape, w.shape
    y = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        for a in range(max(0, top - i), min(h, H + top - i)):
            for b in range(k):
                start, stop = max(0, left - b), min(columns, W + left - b)
                if start < stop:
                    seen = x[i + a - top, start + b - left : stop + b - left]
                    y[i, start:stop] += w[a, b] * seen
    return y


def assert_right(got, x, w, *place):
    """A sum of n terms errs by at most n eps times the sum of their sizes."""
    want, size = direct(x, w, *place), direct(x.abs(), w.abs(), *place)
    tol = (w.numel() + 2) * torch.finfo(got.dtype).eps * size
    error = (got.cpu().double() - want).abs().nan_to_num(torch.inf)
    at = int((error - tol).argmax())
    assert bool((error <= tol).all()), (
        f"{got.flatten()[at]} for {want.flatten()[at]} at {at} of {tuple(got.shape)}, "
        f"image {tuple(x.shape)}, kernel {tuple(w.shape)}, {place}"
    )


def on_gpu():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return "cuda"


# Each kernel is its formula -----------------------------------------------------------


def check_kernel(kernel, name, mode, dtype, device, **how):
    size, kernel_size = SIZES[name]
    place = where(size, kernel_size, mode)
    if place is None:
        return
    x = draw(*size, dtype=dtype).to(device)
    w = draw(*kernel_size, dtype=dtype, seed=1).to(device)
    assert_right(run_kernel(x, w, *place, kernel=kernel, **how), x, w, *place)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SIZES)
def test_a_kernel_is_its_formula_in_every_order(kernel, name):
    for mode, order in zip(MODES, ORDERS, strict=True):
        check_kernel(kernel, name, mode, torch.float32, "cpu", schedule=order)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_its_formula_in_double(kernel):
    for order in ORDERS:
        check_kernel(kernel, "cut pieces", "full", torch.float64, "cpu", schedule=order)
    check_kernel(kernel, "two blocks each way", "same", torch.float64, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_is_its_formula_on_a_gpu(kernel, dtype):
    device = on_gpu()
    for name in SIZES:
        for mode in MODES:
            check_kernel(kernel, name, mode, dtype, device)


def test_small_integers_are_exact():
    x = torch.arange(12.0).reshape(3, 4)
    w = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    for kernel in KERNELS:
        y = run_kernel(x, w, 0, 0, 2, 3, kernel=kernel)
        assert y.tolist() == [[-5, -5, -5], [-5, -5, -5]]


def test_a_pixel_that_is_infinite_spoils_only_its_outputs():
    """Cut pieces are not filled up with zeros, which times infinity would be NaN."""
    x, w = torch.ones(4, 60), torch.ones(1, 17)
    x[2, 30] = torch.inf
    for kernel in KERNELS:
        y = run_kernel(x, w, 0, 0, 4, 44, kernel=kernel)
        assert not y.isnan().any()
        assert y.isinf().sum() == 17 and bool(y[2, 14:31].isinf().all())


# The plan -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
def test_every_plan_fits_its_shared_memory(dtype):
    size = dtype.itemsize
    for h in (1, 2, 3, 5, 7, 10, 13, 16, 17, 31, 64, 101, 500):
        for k in (1, 2, 3, 7, 10, 16, 17, 31, 33, 64, 500):
            c = plan((h, k), (1000, 1000), dtype, "correlate2d").constants
            pitch = 31 + (c["PW"] + 6) // 4
            tile = (31 + c["PH"]) * 4 * pitch * size
            assert tile + c["PH"] * c["PW"] * size <= 48 * 1024, c
            assert c["CHUNK"] * c["PW"] <= 64 and c["CHUNK"] <= c["PH"] <= h
            assert c["PW"] <= min(k, 16)


def test_few_outputs_of_many_taps_are_split_over_many_blocks():
    assert plan((10, 10), (4991, 4991), torch.float32).kernel == "correlate2d"
    split = plan((4991, 4991), (10, 10), torch.float32)
    assert split.kernel == "correlate2d_split"
    assert split.grid[0] * split.grid[1] >= 1000
    for rows in (1, 2, 7, 600, 2000):
        made = plan((rows, 5), (2, 9), torch.float32, "correlate2d_split")
        step = -(-rows // made.parts)
        assert made.grid == (4, made.parts)
        assert (made.parts - 1) * step < rows <= made.parts * step


# The operator -------------------------------------------------------------------------


def test_the_kernels_gradients_are_right_to_every_order():
    """gradcheck moves each entry: in double, through the kernels' own text."""
    x, w = draw(4, 6).requires_grad_(), draw(2, 3, seed=1).requires_grad_()
    for mode in MODES:
        place = where(x.shape, w.shape, mode)
        with cupy_on_cpu() as cupy:
            assert gradcheck(lambda x, w, p=place: correlate2d_op(x, w, *p), (x, w))
        names = {name for name, *_ in cupy.launches}
        assert names == {"correlate2d", "correlate2d_split"}
    place = where(x.shape, w.shape, "valid")
    assert gradgradcheck(lambda x, w: correlate2d_op(x, w, *place), (x, w))


def test_the_operator_keeps_torchs_rules():
    x, w = draw(5, 6).requires_grad_(), draw(2, 3, seed=1).requires_grad_()
    torch.library.opcheck(correlate2d_op, (x, w, 1, 1, 5, 6))
    with cupy_on_cpu():
        torch.library.opcheck(correlate2d_op, (x, w, 1, 1, 5, 6))


def test_the_operator_refuses_what_it_cannot_take():
    x = draw(5, 6)
    with pytest.raises(ValueError, match="w must have the dtype and device of x"):
        correlate2d_op(x, x.float(), 0, 0, 1, 1)
    with pytest.raises(ValueError, match="x must be float32 or float64"):
        correlate2d_op(x.long(), x.long(), 0, 0, 1, 1)


def test_the_operator_compiles_whole():
    x, w = draw(150, 140).requires_grad_(), draw(6, 7, seed=1).requires_grad_()

    def loss(x, w):
        return correlate2d(x, w, "same").sin().sum()

    want = torch.autograd.grad(loss(x, w), (x, w))
    assert correlate2d_route(x, w, "same") == "banded"
    for context in (contextlib.nullcontext, cupy_on_cpu):
        torch._dynamo.reset()
        quick = torch.compile(loss, fullgraph=True, backend="aot_eager")
        with context():
            got = torch.autograd.grad(quick(x, w), (x, w))
        for mine, other in zip(got, want, strict=True):
            assert torch.allclose(mine, other, rtol=0, atol=1e-9)


def test_the_operator_runs_over_batches():
    x, w = draw(3, 8, 9), draw(2, 3, seed=1)
    got = torch.vmap(lambda x: correlate2d_op(x, w, 0, 0, 7, 7))(x)
    for mine, image in zip(got, x, strict=True):
        assert_right(mine, image, w, 0, 0, 7, 7)


# The public function ------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SIZES)
def test_the_function_is_scipys_by_the_kernel(name, mode):
    """The way of a GPU, whole: NumPy in and out, and the launcher in between."""
    size, kernel_size = SIZES[name]
    x, w = draw(*size).numpy(), draw(*kernel_size, seed=1).numpy()
    if mode == "valid" and name == "larger than the image":
        x = x[:5, :7]
    with cupy_on_cpu() as cupy:
        assert correlate2d_route(x, w, mode) == "correlate2d.cu"
        got = correlate2d(x, w, mode)
    assert {launch[0] for launch in cupy.launches} <= set(KERNELS) and cupy.launches
    scale = np.abs(signal.correlate2d(abs(x), abs(w), mode)).max()
    want = signal.correlate2d(x, w, mode)
    assert np.abs(got - want).max() <= 2 * w.size * np.finfo(x.dtype).eps * scale


def test_strided_images_are_read_right():
    wide = draw(9, 40)
    w = draw(3, 3, seed=1)
    with cupy_on_cpu():
        for x in (wide[:, ::2], wide.T, wide[2:7, 3:20], wide.flip(0)):
            place = where(x.shape, w.shape, "same")
            assert_right(correlate2d(x, w, "same"), x, w, *place)
            assert_right(correlate2d(x, w.T, "same"), x, w.T, *place)


def test_the_route_says_what_runs():
    image, kernel = torch.ones(600, 600), torch.ones(10, 10)
    assert correlate2d_route(image, kernel) == "banded"
    assert correlate2d_route(image.numpy(), kernel.numpy(), "full") == "banded"
    assert correlate2d_route(image[:9, :9], kernel[:2, :2]) == "conv2d"
    assert correlate2d_route(image.cfloat(), kernel.cfloat()) == "conv2d"
    assert correlate2d_route(image.half(), kernel.half()) == "conv2d"
    assert correlate2d_route(image.int(), kernel.int()) == "by taps"
    with cupy_on_cpu():
        assert correlate2d_route(image, kernel) == "correlate2d.cu"
        assert correlate2d_route(image.int(), kernel.int()) == "by taps"
    with pytest.raises(ValueError, match="mode must be one of"):
        correlate2d_route(image, kernel, "whole")


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_the_function_on_a_gpu_is_the_one_on_a_cpu(mode):
    device = on_gpu()
    import cupy

    x, w = draw(300, 211), draw(7, 10, seed=1)
    want = correlate2d(x, w, mode)
    assert correlate2d_route(x.to(device), w.to(device)) == "correlate2d.cu"
    got = correlate2d(x.to(device), w.to(device), mode)
    assert torch.allclose(got.cpu(), want, rtol=0, atol=1e-11)
    theirs = correlate2d(cupy.asarray(x.numpy()), cupy.asarray(w.numpy()), mode)
    assert np.abs(theirs.get() - want.numpy()).max() < 1e-11
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):  # after work that is still on its way there
        late = x.to(device).repeat(2, 2)[:300, :211] * 1.0
        got = correlate2d(late, w.to(device), mode)
    side.synchronize()
    assert torch.allclose(got.cpu(), want, rtol=0, atol=1e-11)
    turned = x.T.contiguous().to(device).T
    got = correlate2d(turned, w.to(device), mode)
    assert torch.allclose(got.cpu(), want, rtol=0, atol=1e-11)


@pytest.mark.gpu
def test_the_operator_compiles_and_differentiates_on_a_gpu():
    device = on_gpu()
    x = draw(40, 50).to(device).requires_grad_()
    w = draw(6, 7, seed=1).to(device).requires_grad_()
    torch.library.opcheck(correlate2d_op, (x, w, 1, 1, 40, 50))
    assert gradcheck(lambda x, w: correlate2d(x, w), (x[:6, :7], w[:2, :3]))
    quick = torch.compile(lambda x, w: correlate2d(x, w).sin().sum(), fullgraph=True)
    want = torch.autograd.grad(correlate2d(x, w).sin().sum(), (x, w))
    for got, other in zip(torch.autograd.grad(quick(x, w), (x, w)), want, strict=True):
        assert torch.allclose(got, other)


# The CPU's way ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", SIZES)
def test_banded_products_are_the_formula(name, dtype):
    size, kernel_size = SIZES[name]
    x, w = draw(*size, dtype=dtype), draw(*kernel_size, dtype=dtype, seed=1)
    for mode in MODES:
        place = where(size, kernel_size, mode)
        if place is None:
            continue
        assert_right(banded.correlate(x, w, *place), x, w, *place)
        top, left, rows, columns = place
        for way, cut in ((banded._few_taps, rows), (banded._few_outputs, len(w))):
            spare = -cut % banded._STRIP
            taller = banded.padded(x, w, top, left, rows + spare, columns)
            assert_right(way(taller, w, rows, columns), x, w, *place)


def test_a_place_may_crop_the_image():
    """As the gradient in x of a padding that is wider than the kernel."""
    x, w = draw(9, 8), draw(2, 3, seed=1)
    for place in ((-2, -1, 4, 3), (3, 4, 11, 2), (-5, 6, 3, 13)):
        assert_right(banded.correlate(x, w, *place), x, w, *place)
        for kernel in KERNELS:
            assert_right(run_kernel(x, w, *place, kernel=kernel), x, w, *place)


# Mistakes -----------------------------------------------------------------------------

FULL = ((7, 40), (3, 19), "full")  # two pieces across, two blocks across
EDGE = ((37, 131), (3, 5), "valid")
LONG = ((3, 305), (2, 300), "valid")
SMALL = ((6, 12), (5, 9), "valid")  # few blocks: ThreadSanitizer is slow
# the kernel, a size where it shows, the text, and what stands there by mistake
BUGS = {
    "no barrier in front of the sums": (
        "correlate2d", FULL,
        "__syncthreads();               // the tile and", "// the tile and",
    ),
    "no barrier behind the sums": (
        "correlate2d", FULL,
        "__syncthreads();               // everyone", "// everyone",
    ),
    "a warp's outputs are read too early": (
        "correlate2d", EDGE, "__syncwarp();", "",
    ),
    "the tile is a quad too narrow": (
        "correlate2d", EDGE, "(31 + QUADS)", "(30 + QUADS)",
    ),
    "outputs beyond the right edge": (
        "correlate2d", EDGE, "(j + n + lane < OW)", "(j + n + lane <= OW)",
    ),
    "outputs below the last row": (
        "correlate2d", EDGE, "(i + r < OH)", "true",
    ),
    "a pixel beyond the right edge": (
        "correlate2d", FULL, "(unsigned)j < (unsigned)W", "(unsigned)j <= (unsigned)W",
    ),
    "rows as long as columns": (
        "correlate2d_naive", EDGE, "x[(long long)i * W + j]", "x[(long long)i * H + j]",
    ),
    "the kernel is flipped": (
        "correlate2d", EDGE,
        "w[(long long)(a + n / PW) * KW + b + n % PW]", "w[KH * KW - 1 - n]",
    ),
    "a cut piece is taken for a whole one": (
        "correlate2d", FULL, "wide = b + PW <= KW", "wide = true",
    ),
    "a chunk's rest is left out": (
        "correlate2d", ((41, 23), (11, 11), "same"),
        "chunk<rows % CHUNK, columns>", "chunk<0, columns>",
    ),
    "a row of outputs too many": (
        "correlate2d", EDGE, "r - a >= ROWS", "r - a > ROWS",
    ),
    "a part runs on into the next": (
        "correlate2d_split", ((20, 17), (18, 15), "valid"),
        "min(kh, (p + 1) * step)", "kh",
    ),
    "the last step of a warp's sum is missing": (
        "correlate2d_split", LONG, "d > 0; d /= 2", "d > 1; d /= 2",
    ),
    "no barrier in front of the warps' sums": (
        "correlate2d_split", LONG,
        "__syncthreads();                       // the sums", "// the sums",
    ),
    "a carry from column to row is late": (
        "correlate2d_split", LONG, "if (b >= kw)", "if (b > kw)",
    ),
}  # fmt: skip


def use(monkeypatch, change=lambda text: text, sanitizer=None):
    """Let run_kernel run a changed text, or under a sanitizer."""

    def module(stem, device_type, **constants):
        text = change(read_source(stem))
        return EmulatedModule(text, constants=constants, sanitizer=sanitizer)

    monkeypatch.setattr(cuda, "kernel_module", module)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_mistake_is_found(name, monkeypatch):
    kernel, (size, kernel_size, mode), old, new = BUGS[name]
    assert read_source("correlate2d").count(old) == 1
    x, w = draw(*size, dtype=torch.float32), draw(*kernel_size, dtype=torch.float32)
    place = where(size, kernel_size, mode)
    use(monkeypatch, lambda text: text.replace(old, new))
    with pytest.raises((AssertionError, KernelError)):
        for order in ORDERS:
            how = {"schedule": order, "guard": 1 << 16}  # for what runs far beyond
            assert_right(run_kernel(x, w, *place, kernel=kernel, **how), x, w, *place)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_the_sanitizers_find_nothing(kernel, sanitizer, monkeypatch):
    use(monkeypatch, sanitizer=sanitizer)
    size, kernel_size, mode = SMALL if kernel == "correlate2d_split" else FULL
    x, w = draw(*size, dtype=torch.float32), draw(*kernel_size, dtype=torch.float32)
    place = where(size, kernel_size, mode)
    assert_right(run_kernel(x, w, *place, kernel=kernel), x, w, *place)


def test_the_thread_sanitizer_sees_a_barrier_that_luck_would_hide(monkeypatch):
    _, _, old, new = BUGS["no barrier behind the sums"]
    use(monkeypatch, lambda text: text.replace(old, new), sanitizer="thread")
    size, kernel_size, mode = FULL
    x, w = draw(*size, dtype=torch.float32), draw(*kernel_size, dtype=torch.float32)
    with pytest.raises(KernelError, match="data race"):
        run_kernel(x, w, *where(size, kernel_size, mode), kernel="correlate2d")
