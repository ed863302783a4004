"""ckn_layer.cu in the emulator, on a GPU if there is one, and as an operator."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import (
    DEVICES,
    is_caught,
    outputs_start_as_nan,  # noqa: F401  a fixture of all tests here
    plant,
    ways,
)

from benchmarks import ckn_epilogue as benchmark
from benchmarks.timing import check_agreement
from ckutils.checks import agree
from ckutils.ckn import CKNLayer, polynomial_kernel
from ckutils.cuda import ckn_epilogue
from ckutils.cuda.ckn_epilogue import (
    ROWS,
    ckn_layer,
    ckn_layer_grad,
    launch_gradients,
    launch_layer,
)
from ckutils.cuda.standin import cupy_on_cpu

LAYERS, RATES = (
    ("ckn_layer_naive", "ckn_layer"),
    ("ckn_norm_grad_naive", "ckn_norm_grad"),
)
# (b, c, h, w), p, kernel_size, padding: one of each; a rectangle in a rectangle, with
# blanks; primes beyond a tile on both axes; more padding than kernel
SIZES = (
    ((1, 1, 1, 1), 1, (1, 1), (0, 0)),
    ((2, 3, 11, 37), 5, (3, 2), (1, 0)),
    ((1, 2, 17, 67), 3, (5, 7), (2, 3)),
    ((2, 1, 3, 2), 2, (2, 1), (2, 1)),
)  # fmt: skip


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def case(shape, p, kernel_size, padding, device="cpu", dtype=torch.float64):
    """Products, maps with a blank half, beta; kernel_size and padding behind them."""
    maps = drawn(*shape)
    if shape[2] > 1:
        maps[0, :, : shape[2] // 2] = 0
    anchors = F.normalize(drawn(p, shape[1] * math.prod(kernel_size), seed=1))
    filters = anchors.unflatten(1, (-1, *kernel_size))
    products = F.conv2d(maps, filters, padding=padding)
    values = products, maps, torch.tensor(2.5)
    values = [v.to(device=device, dtype=dtype) for v in values]
    return *values, kernel_size, padding


def definition(products, maps, beta, kernel_size, padding, kappa):
    """From the patches themselves, in double: eq. (5.14) and nothing else."""
    products, maps, beta = (v.double().cpu() for v in (products, maps, beta))
    patches = F.unfold(maps, kernel_size, padding=padding)  # (b, c k k', i j)
    n = patches.norm(dim=1).unflatten(1, products.shape[2:])  # (b, i, j)
    blank = (n == 0)[:, None]
    values = ROWS[kappa].kappa(products / n[:, None].where(~blank, 1), beta)
    return (n[:, None] * values).where(~blank, 0), n


# Numbers worked by hand --------------------------------------------------------------


@pytest.mark.parametrize("kernel", LAYERS)
def test_two_patches_by_hand(kernel):
    maps = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])  # one of norm 5, one blank
    products = torch.tensor([[[[5.0, 0.0]], [[-5.0, 0.0]]]])  # along, against
    given = products, maps, torch.tensor(1.0), (1, 1), (0, 0)
    y, norms = launch_layer(*given, "polynomial", kernel=kernel)
    assert norms.tolist() == [[[5.0, 0.0]]]
    assert y.tolist() == [[[[5.0, 0.0]], [[0.0, 0.0]]]]  # kappa 1 and 0; blank stays 0


# Every kernel is its definition in double --------------------------------------------


@pytest.mark.parametrize("kappa", ROWS)
@pytest.mark.parametrize("kernel", LAYERS)
@pytest.mark.parametrize("device", DEVICES)
def test_the_layer_at_every_size(device, kernel, kappa):
    for how in ways(device):
        for size in SIZES:
            given = case(*size, device=device)
            want = definition(*given, kappa)
            got = launch_layer(*given, kappa, kernel=kernel, **how)
            # arccos is flat to sqrt(eps) at its ends, which only single channels reach
            tol = 1e-7 if kappa == "arc_cosine" else 1e-13
            for name, mine, theirs in zip(("y", "n"), got, want, strict=True):
                agree(f"{kernel} {kappa} {size} {name} {how}", mine, theirs, tol=tol)


@pytest.mark.parametrize("kernel", LAYERS)
@pytest.mark.parametrize("device", DEVICES)
def test_the_layer_in_single_precision(device, kernel):
    eps = torch.finfo(torch.float32).eps
    for how in ways(device):
        for size in SIZES:
            given = case(*size, device=device, dtype=torch.float32)
            want = definition(*given, "exponential")
            got = launch_layer(*given, "exponential", kernel=kernel, **how)
            # n and u to d eps each; kappa has slope at most beta = 2.5
            d = size[0][1] * math.prod(size[2])
            tol = (d + 4) * 4 * eps * float(want[1].max())
            for name, mine, theirs in zip(("y", "n"), got, want, strict=True):
                agree(f"{kernel} {size} {name} {how}", mine, theirs, tol=tol)


@pytest.mark.parametrize("kappa", ROWS)
@pytest.mark.parametrize("kernel", RATES)
@pytest.mark.parametrize("device", DEVICES)
def test_the_gradients_at_every_size(device, kernel, kappa):
    for how in ways(device):
        for size in SIZES:
            products, maps, *rest = case(*size, device="cpu")
            # away from cos = 1, where the arc-cosine's slope has a slope without bound
            leaves = [v.requires_grad_() for v in (products / 2, maps, rest[0])]
            y, norms = ckn_epilogue._layer(*leaves, *rest[1:], kappa)
            grads = drawn(*y.shape, seed=3), drawn(*norms.shape, seed=4)
            want = torch.autograd.grad((y, norms), leaves, grads, allow_unused=True)
            given = *grads, *leaves[:2], norms, leaves[2]
            given = [v.detach().to(device) for v in given]
            got = launch_gradients(*given, *rest[1:], kappa, kernel=kernel, **how)
            names = "products", "maps", "beta"
            for name, mine, theirs in zip(names, got, want, strict=True):
                theirs = torch.zeros_like(mine) if theirs is None else theirs
                tol = 1e-13 * max(1, float(theirs.abs().max()))
                agree(f"{kernel} {kappa} {size} {name} {how}", mine, theirs, tol=tol)


@pytest.mark.parametrize("device", DEVICES)
def test_arguments_that_are_not_contiguous_are_copied(device):
    launches = ways(device)
    products, maps, *rest = case(*SIZES[1], device=device)
    last = products.contiguous(memory_format=torch.channels_last)
    for how in launches:
        got = launch_layer(last, maps.mT.contiguous().mT, *rest, "exponential", **how)
        want = launch_layer(products, maps, *rest, "exponential")
        agree("y", got[0], want[0], tol=0)
        assert got[0].is_contiguous()


@pytest.mark.gpu
def test_a_launch_waits_for_the_stream_that_it_is_on():
    ways("cuda")
    products, maps, *rest = case((8, 3, 65, 67), 16, (3, 3), (1, 1), device="cuda")
    want, _ = launch_layer(products, maps, *rest, "exponential")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = products * 1, maps * 1  # there only after the pause
        got, _ = launch_layer(*late, *rest, "exponential")
    stream.synchronize()
    agree("side stream", got, want, tol=0)


# Gradients of the kernels themselves -------------------------------------------------


@pytest.mark.parametrize("kappa", ROWS)
@pytest.mark.parametrize("device", DEVICES)
def test_the_kernels_pass_gradcheck_and_the_formula_its_second_order(device, kappa):
    ways(device)
    products, maps = drawn(1, 2, 3, 3), 3 + drawn(1, 1, 2, 3, seed=1)  # |u| < 1
    leaves = products, maps, drawn(1).exp()
    leaves = [v.to(device).requires_grad_() for v in leaves]

    def layer(*leaves):
        return ckn_layer(*leaves, (2, 3), (1, 1), kappa)

    with cupy_on_cpu() if device == "cpu" else nullcontext() as cupy:
        assert torch.autograd.gradcheck(layer, leaves)
    if cupy is not None:
        names = {name for name, *_ in cupy.launches}
        assert names == {"ckn_layer", "ckn_layer_grad", "ckn_norm_grad"}
    assert torch.autograd.gradgradcheck(layer, leaves)


@pytest.mark.parametrize("kappa", ROWS)
@pytest.mark.parametrize("kernel", RATES)
def test_a_blank_patch_has_no_gradient(kernel, kappa):
    products, maps, *rest = case((2, 3, 6, 7), 4, (3, 3), (1, 1))
    maps[0] = 0
    y, norms = launch_layer(products * (norms_of(maps) > 0), maps, *rest, kappa)
    ones = torch.ones_like(y), torch.ones_like(norms)
    given = *ones, products, maps, norms, rest[0], *rest[1:]
    found = launch_gradients(*given, kappa, kernel=kernel)
    for grad in found:
        assert torch.isfinite(grad).all()
    assert not y[0].any() and not found[0][0].any() and not found[1][0].any()


def norms_of(maps):
    return F.avg_pool2d(maps.square().sum(1, keepdim=True), 3, 1, 1)


# Planted errors ----------------------------------------------------------------------

READ = (
    "__syncthreads();                    // a pixel needs what other threads have read"
)
SUMMED = (
    "__syncthreads();                    // a patch needs what other threads have sum"
)
PLANTED = {
    # name: kernel, sanitizer, what stands in the text, what it becomes
    "no barrier behind the squares": ("ckn_layer", None, SUMMED + "med", ""),
    "no barrier, seen as a race": ("ckn_layer", "thread", SUMMED + "med", ""),
    "the norm of a blank patch": (
        "ckn_layer", None, "inverse = n > 0 ? 1 / n : 1;", "inverse = 1 / n;",
    ),
    "a rim of rows too short": (
        "ckn_layer", None, "j0 - w_pad, TILE_H + h - 1, pitch);",
        "j0 - w_pad, TILE_H, pitch);",
    ),
    "a pitch without the rim": (
        "ckn_layer", None, "box_sum(squares + threadIdx.y * pitch",
        "box_sum(squares + threadIdx.y * TILE_W",
    ),
    "padding of the wrong axis": (
        "ckn_layer", None, "C, H, W, i0 - h_pad,", "C, H, W, i0 - w_pad,",
    ),
    "an anchor's stride": (
        "ckn_layer", None, "    V += b * P * size + t;", "    V += b * size + t;",
    ),
    "a barrier that some do not reach": (
        "ckn_layer", None, "    sum_squares(maps + ", "    if (j >= W_out) return;"
        " sum_squares(maps + ",
    ),
    "pixels beyond the edge": (
        "ckn_layer", "address", "if (i >= H_out || j >= W_out) return;\n    const REAL "
        "sum", "const REAL sum",
    ),
    "a blank patch with a gradient": (
        "ckn_layer_grad", None, "n > 0 ? g * kappa_slope : 0", "g * kappa_slope",
    ),
    "the norm's part of the slope": (
        "ckn_layer_grad", None, "kappa(u, *beta) - u * kappa_slope", "kappa(u, *beta)",
    ),
    "no barrier behind the rates": ("ckn_norm_grad", None, READ, ""),
    "the window on the wrong side": (
        "ckn_norm_grad", None, "j0 + w_pad - w + 1 + k", "j0 - w_pad + k",
    ),
}  # fmt: skip


def planted_run(kernel, images=2):
    """A function that launches a small case, and what it should give."""
    given = case((images, 2, 9, 34), 2, (3, 2), (1, 0))
    want = definition(*given, "exponential")
    if kernel == "ckn_layer":
        return partial(launch_layer, *given, "exponential"), want
    products, maps, *rest = given
    grads = torch.ones_like(want[0]), torch.zeros_like(want[1])
    given = *grads, products + 0.1, maps, want[1], *rest, "exponential"
    return partial(launch_gradients, *given), ckn_layer_grad(*given)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_caught(name, monkeypatch):
    kernel, sanitizer, old, new = PLANTED[name]
    run, want = planted_run(kernel)
    assert not is_caught(run, want, 1e-10, None), "the kernel itself must pass"
    plant(monkeypatch, ckn_epilogue, old, new, sanitizer)
    assert is_caught(run, want, 1e-10, sanitizer)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_no_sanitizer_finds_anything(sanitizer, monkeypatch):
    same = "#define TILE_W 32"
    plant(monkeypatch, ckn_epilogue, same, same, sanitizer)
    for kernel in ("ckn_layer", "ckn_norm_grad"):
        run, want = planted_run(kernel, images=1)
        assert not is_caught(run, want, 1e-10, sanitizer), kernel


# As an operator of torch -------------------------------------------------------------


def test_the_operators_are_registered_as_torch_demands():
    products, maps, beta, *rest = case((2, 3, 5, 4), 2, (3, 3), (1, 1))
    leaves = [v.requires_grad_() for v in (products, maps, beta)]
    torch.library.opcheck(ckn_layer, (*leaves, *rest, "exponential"))
    y, norms = ckn_layer(*leaves, *rest, "exponential")
    values = [torch.ones_like(y), torch.ones_like(norms), products, maps, norms, beta]
    values = [v.detach() for v in values]
    torch.library.opcheck(ckn_layer_grad, (*values, *rest, "exponential"))


def test_it_compiles_in_one_graph_with_its_gradient():
    products, maps, beta, *rest = case((2, 3, 5, 4), 2, (3, 3), (1, 1))

    def loss(products, maps, beta):
        y, _ = ckn_layer(2 * products, maps, beta, *rest, "exponential")
        return y.square().sum()

    results = []
    for function in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        leaves = [v.clone().requires_grad_() for v in (products, maps, beta)]
        results.append(torch.autograd.grad(function(*leaves), leaves))
    for i, (got, want) in enumerate(zip(*results, strict=True)):
        agree(f"gradient {i}", got, want, tol=1e-12 * float(want.abs().max()))


# The layer of chapter 5 takes the kernel ---------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kappa", ROWS)
def test_a_ckn_layer_by_its_kernel(device, kappa):
    ways(device)
    torch.manual_seed(0)
    layer = CKNLayer(2, 3, 3, kernel=kappa, subsampling=2, padding=1).double()
    maps = drawn(2, 2, 9, 11)
    maps[0, :, 3:] = 0
    assert layer.route(maps) == "torch"
    want = run_layer(layer, maps)
    layer, maps = layer.to(device), maps.to(device)
    if device == "cuda":
        assert layer.route(maps) == "ckn_layer.cu"
        got = run_layer(layer, maps)
    else:
        with cupy_on_cpu() as cupy:
            assert layer.route(maps) == "ckn_layer.cu"
            got = run_layer(layer, maps)
        assert len(cupy.launches) == 3
    for i, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        agree(f"{kappa} {i}", mine, theirs, tol=1e-12)


def run_layer(layer, maps):
    """The output, and the gradients in the maps and in every parameter."""
    maps = maps.clone().requires_grad_()
    y = layer(maps)
    return y.detach(), *torch.autograd.grad(y.sin().sum(), [maps, *layer.parameters()])


def test_a_kernel_that_is_not_in_the_table_stays_with_torch():
    square = partial(polynomial_kernel, degree=2, offset=1.0)
    others = (
        partial(polynomial_kernel, degree=3, offset=1.0),
        partial(polynomial_kernel, degree=2),
        lambda u: u,
    )
    maps = torch.ones(1, 1, 2, 2)
    with cupy_on_cpu():
        assert CKNLayer(1, 1, 1, kernel=square).route(maps) == "ckn_layer.cu"
        for kernel in others:
            assert CKNLayer(1, 1, 1, kernel=kernel).route(maps) == "torch"


def test_the_benchmark_of_the_kernels_runs_as_on_a_gpu():
    with cupy_on_cpu() as cupy:
        cases = list(benchmark.cases("cpu", quick=True))
        for case in cases:
            for name, way in case.peers.items():
                check_agreement(name, way, case)
    assert len(cases) == 2
    assert {"ckn_layer_naive", "ckn_norm_grad"} <= {name for name, *_ in cupy.launches}


# What is refused ---------------------------------------------------------------------


@pytest.mark.parametrize("call", [launch_layer, ckn_layer])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kappa": "linear"}, "kappa must be one of 'exponential', 'arc_cosine'"),
        ({"maps": torch.ones(1, 1, 2, 2).half()}, "maps must be float32 or float64"),
        ({"maps": torch.ones(1, 1, 2, 2).double()}, "maps must have the dtype and dev"),
        ({"maps": torch.ones(1, 2, 2)}, "must have 4 axes, none of them empty, got"),
        ({"beta": torch.ones(2)}, r"beta must be one number, got shape \(2,\)"),
        ({"padding": (1, 0)}, r"\(b, i, j\) = \(1, 4, 2\), got shape \(1, 3, 2, 2\)"),
    ],
)
def test_what_does_not_fit_is_named(call, changed, message):
    given = {
        "products": torch.ones(1, 3, 2, 2), "maps": torch.ones(1, 1, 2, 2),
        "beta": torch.ones(()), "kernel_size": (1, 1), "padding": (0, 0),
        "kappa": "exponential",
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        call(**(given | changed))
