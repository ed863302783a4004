"""spectral_product.cu in the emulator, on a GPU if there is one, and as operators."""

from contextlib import nullcontext

import pytest
import torch
from kernel_cases import (
    DEVICES,
    is_caught,
    outputs_start_as_nan,  # noqa: F401  a fixture of all tests here
    plant,
    ways,
)

from benchmarks import spectra
from benchmarks.timing import check_agreement
from ckutils import factorised, fftconv
from ckutils.checks import agree
from ckutils.ckconv import CKConv
from ckutils.cuda import by_spectra, spectral
from ckutils.cuda.spectral import (
    factorised_spectral_product,
    launch_mixed_product,
    launch_product,
    spectral_product,
)
from ckutils.cuda.standin import cupy_on_cpu

DENSE = ("spectral_product_naive", "spectral_product")
MIXED = ("factorised_spectral_product_naive", "factorised_spectral_product")
# (p, q, s, f): one of each; less than a tile; a prime more than one; exactly one
DENSE_SIZES = ((1, 1, 1, 1), (2, 3, 5, 7), (17, 19, 3, 37), (16, 16, 1, 32))
# (b, o, c, u, f), in the same order; then units that do not fit in one staging
MIXED_SIZES = ((1, 1, 1, 1, 1), (2, 3, 5, 7, 11), (37, 11, 5, 13, 37),
               (32, 8, 4, 40, 32), (3, 5, 3, 83, 5))  # fmt: skip


def drawn(*shape, seed=0, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=dtype.to_complex())
    if not dtype.is_complex:
        values = values.real.contiguous()
    return values.to(dtype=dtype, device=device)


def complexes(*shape, seed=0, device="cpu"):
    return drawn(*shape, seed=seed, dtype=torch.complex128, device=device)


def dense_bound(a, b) -> float:
    """A sum of s complex products, each of two real ones: (s + 2) eps sum |a| |b|."""
    eps = torch.finfo(a.dtype).eps
    total = torch.einsum("psf,qsf->pqf", a.abs(), b.abs()).max()
    return 2 * (a.shape[1] + 2) * eps * float(total)


def mixed_bound(x, h, mix) -> float:
    """The same over c and, inside of it, over u."""
    eps = torch.finfo(x.dtype).eps
    k = torch.einsum("ocu,uf->ocf", mix.abs(), h.abs())
    total = torch.einsum("bcf,ocf->bof", x.abs(), k).max()
    return 2 * (mix.shape[1] + mix.shape[2] + 3) * eps * float(total)


# Numbers worked by hand --------------------------------------------------------------


@pytest.mark.parametrize("kernel", DENSE)
def test_one_frequency_by_hand(kernel):
    a = torch.tensor([[[1 + 2j], [1j]]])  # (1, 2, 1)
    b = torch.tensor([[[3 - 1j], [2 + 0j]]])
    # (1 + 2i)(3 - i) + 2i = 5 + 7i; conjugated (1 + 2i)(3 + i) + 2i = 1 + 9i
    assert launch_product(a, b, False, kernel=kernel).item() == 5 + 7j
    assert launch_product(a, b, True, kernel=kernel).item() == 1 + 9j


@pytest.mark.parametrize("kernel", MIXED)
def test_one_mixture_by_hand(kernel):
    x, h = torch.tensor([[[1 + 2j]]]), torch.tensor([[1 + 0j], [1j]])
    mix = torch.tensor([[[3.0, -1.0]]])  # k = 3 - i
    assert launch_mixed_product(x, h, mix, False, kernel=kernel).item() == 5 + 5j
    assert launch_mixed_product(x, h, mix, True, kernel=kernel).item() == 1 + 7j


# Every kernel is its definition in double --------------------------------------------


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("kernel", DENSE)
@pytest.mark.parametrize("device", DEVICES)
def test_the_dense_product_at_every_size(device, kernel, dtype):
    for how in ways(device):
        for p, q, s, f in DENSE_SIZES:
            a = complexes(p, s, f, device=device).to(dtype)
            b = complexes(q, s, f, seed=1, device=device).to(dtype)
            for conjugate in (False, True):
                wide = b.to(torch.complex128)
                wide = wide.conj() if conjugate else wide
                want = torch.einsum("psf,qsf->pqf", a.to(torch.complex128), wide)
                got = launch_product(a, b, conjugate, kernel=kernel, **how)
                name = f"{kernel} {(p, q, s, f)} {conjugate=} {how}"
                agree(name, got, want, tol=dense_bound(a, b))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("kernel", MIXED)
@pytest.mark.parametrize("device", DEVICES)
def test_the_factorised_product_at_every_size(device, kernel, dtype):
    for how in ways(device):
        for b, o, c, u, f in MIXED_SIZES:
            x = complexes(b, c, f, device=device).to(dtype)
            h = complexes(u, f, seed=1, device=device).to(dtype)
            mix = drawn(o, c, u, seed=2, device=device).to(x.real.dtype)
            wide_x, wide_h = x.to(torch.complex128), h.to(torch.complex128)
            k = torch.einsum("ocu,uf->ocf", mix.to(torch.complex128), wide_h)
            for conjugate in (False, True):
                wide = k.conj() if conjugate else k
                want = torch.einsum("bcf,ocf->bof", wide_x, wide)
                got = launch_mixed_product(x, h, mix, conjugate, kernel=kernel, **how)
                name = f"{kernel} {(b, o, c, u, f)} {conjugate=} {how}"
                agree(name, got, want, tol=mixed_bound(x, h, mix))


@pytest.mark.parametrize("device", DEVICES)
def test_exchanged_axes_are_read_where_they_are_and_others_are_copied(device):
    launches = ways(device)
    a, b = complexes(5, 3, 7, device=device), complexes(3, 4, 7, seed=1, device=device)
    turned, _, _ = spectral._as_rows(b.transpose(0, 1))
    assert turned.data_ptr() == b.data_ptr()
    wide = complexes(5, 3, 14, device=device)[..., ::2]
    mix = drawn(3, 2, 6, device=device).transpose(0, 1)  # (o, c, u) = (2, 3, 6)
    h = complexes(7, 6, device=device).T
    for how in launches:
        got = launch_product(a, b.transpose(0, 1), True, **how)
        want = launch_product(a, b.transpose(0, 1).contiguous(), True)
        agree(f"exchanged {how}", got, want, tol=0)
        got = launch_product(wide.conj(), a, False, **how)
        want = launch_product(wide.conj().resolve_conj().contiguous(), a, False)
        agree(f"strided, lazily conjugate {how}", got, want, tol=0)
        got = launch_mixed_product(wide, h, mix, False, **how)
        want = launch_mixed_product(
            wide.contiguous(), h.contiguous(), mix.contiguous(), False
        )
        agree(f"mixture {how}", got, want, tol=0)


@pytest.mark.gpu
def test_a_launch_waits_for_the_stream_that_it_is_on():
    ways("cuda")
    a = complexes(8, 8, 4001, device="cuda")
    want = launch_product(a, a, True)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late = a * 1  # there only after the pause
        got = launch_product(late, late, True)
    stream.synchronize()
    agree("side stream", got, want, tol=0)


# Gradients ---------------------------------------------------------------------------


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_the_kernels_themselves(device, conjugate):
    ways(device)
    a, b = complexes(2, 2, 3, device=device), complexes(3, 2, 3, device=device)
    x, h = complexes(2, 3, 2, device=device), complexes(2, 2, device=device)
    mix = drawn(2, 3, 2, device=device)
    dense = [v.requires_grad_() for v in (a, b)]
    mixed = [v.requires_grad_() for v in (x, h, mix)]
    with cupy_on_cpu() if device == "cpu" else nullcontext() as cupy:
        assert torch.autograd.gradcheck(
            lambda *v: spectral_product(*v, conjugate), dense
        )
        assert torch.autograd.gradcheck(
            lambda *v: factorised_spectral_product(*v, conjugate), mixed
        )
    if cupy is not None:
        assert {name for name, *_ in cupy.launches} == {DENSE[1], MIXED[1]}


@pytest.mark.parametrize("conjugate", [False, True])
def test_gradients_of_the_second_order(conjugate):
    a, b = complexes(1, 2, 2).requires_grad_(), complexes(2, 2, 2).requires_grad_()
    mix = drawn(2, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda a, b: spectral_product(a, b, conjugate), (a, b)
    )
    assert torch.autograd.gradgradcheck(
        lambda a, b, mix: factorised_spectral_product(a, b[0], mix, conjugate),
        (a, b, mix),
    )


def test_the_gradient_of_a_mixture_comes_in_tiles_of_frequencies(monkeypatch):
    g, x, h = complexes(2, 3, 70), complexes(2, 4, 70, seed=1), complexes(5, 70, seed=2)
    mix = drawn(3, 4, 5)
    for conjugate in (False, True):
        want = spectral.mixture_gradients(g, x, h, mix, conjugate)
        with monkeypatch.context() as patch:
            patch.setattr(spectral, "_TILE_BYTES", 1)  # 32 frequencies at a time
            got = spectral.mixture_gradients(g, x, h, mix, conjugate)
        agree("in h", got[0], want[0], tol=1e-13)
        agree("in mix", got[1], want[1], tol=1e-12)


# Planted errors ----------------------------------------------------------------------

TOP = "__syncthreads();           // every warp is done with mixture and kernel"
STAGED = "__syncthreads();           // the mixture is complete"
MADE = "__syncthreads();               // the kernels of all 8 outputs are there"
SUMS = "    COMPLEX sum[SIGNALS][OUTPUTS] = {};"
PLANTED = {
    # name: kernel, sanitizer, what stands in the text, what it becomes
    "a conjugate forgotten": (DENSE[1], None, "            b.y *= sign;\n", ""),
    "a conjugate forgotten, naive": (DENSE[0], None, "if (conjugate) b.y = -b.y;", ""),
    "the product's sign": (DENSE[1], None, "sum.x -= x.y * k.y", "sum.x += x.y * k.y"),
    "a stride exchanged": (
        DENSE[1], None, "P - 1) * a_p + s * a_s", "P - 1) * a_s + s * a_p",
    ),
    "a tile counted with the other's width": (
        DENSE[1], None, "tile / tiles_q * TILE_P", "tile / tiles_p * TILE_P",
    ),
    "a store beyond the edge": (
        DENSE[1], "address", "i < ROWS && p0 + i < P; ++i", "i < ROWS; ++i",
    ),
    "a read beyond the edge": (
        DENSE[1], "address", "A[min(p0 + i, P - 1) * a_p", "A[(p0 + i) * a_p",
    ),
    "no barrier behind the staging": (MIXED[1], None, STAGED, ""),
    "no barrier behind the kernels": (MIXED[1], None, MADE, ""),
    "no barrier before the next staging": (MIXED[1], "thread", TOP, ""),
    "threads that leave before a barrier": (
        MIXED[1], None, SUMS, SUMS + " if (f >= F) return;",
    ),
    "a conjugate forgotten, factorised": (
        MIXED[1], None, "conjugate ? -k[c].y : k[c].y", "k[c].y",
    ),
    "a mixture that is not padded with zeros": (
        MIXED[1], "address", "const bool inside = o < O && c < C && u0 + u < U;",
        "const bool inside = o < O && u0 + u < U;",
    ),
    "units after the first 40 dropped": (
        MIXED[1], None, "u0 < U; u0 += UNITS", "u0 < 1; u0 += UNITS",
    ),
}  # fmt: skip


def planted_run(kernel):
    """A function that launches a small case, and what it should give."""
    if kernel in DENSE:
        a, b = complexes(9, 2, 3), complexes(17, 2, 3, seed=1)
        want = spectral_product(a, b, True)
        return lambda **how: [launch_product(a, b, True, kernel=kernel, **how)], [want]
    x, h, mix = complexes(2, 6, 3), complexes(41, 3, seed=1), drawn(3, 6, 41)
    want = factorised_spectral_product(x, h, mix, True)

    def run(**how):
        return [launch_mixed_product(x, h, mix, True, kernel=kernel, **how)]

    return run, [want]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_caught(name, monkeypatch):
    kernel, sanitizer, old, new = PLANTED[name]
    run, want = planted_run(kernel)
    assert not is_caught(run, want, 1e-11, None), "the kernel itself must pass"
    plant(monkeypatch, spectral, old, new, sanitizer)
    assert is_caught(run, want, 1e-11, sanitizer)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_no_sanitizer_finds_anything(sanitizer, monkeypatch):
    plant(monkeypatch, spectral, "#define LANES 32 ", "#define LANES 32 ", sanitizer)
    for kernel in (DENSE[1], MIXED[1]):
        run, want = planted_run(kernel)
        assert not is_caught(run, want, 1e-11, sanitizer), kernel


# As operators of torch ---------------------------------------------------------------


def test_the_operators_are_registered_as_torch_demands():
    a, b = complexes(2, 3, 5).requires_grad_(), complexes(4, 3, 5).requires_grad_()
    torch.library.opcheck(spectral_product, (a, b, True))
    h, mix = complexes(6, 5).requires_grad_(), drawn(4, 3, 6).requires_grad_()
    torch.library.opcheck(factorised_spectral_product, (a, h, mix, True))


def test_they_compile_in_one_graph_with_their_gradients():
    def both(a, b, mix):
        y = spectral_product(2 * a, b, True)
        z = factorised_spectral_product(a, b[0, :2], mix, False)
        return torch.view_as_real(y).sum() + torch.view_as_real(z).square().sum()

    inputs = [complexes(2, 3, 5), complexes(4, 3, 5, seed=1), drawn(6, 3, 2)]
    results = []
    for function in (torch.compile(both, fullgraph=True, backend="aot_eager"), both):
        leaves = [v.clone().requires_grad_() for v in inputs]
        results.append(torch.autograd.grad(function(*leaves), leaves))
    for i, (got, want) in enumerate(zip(*results, strict=True)):
        agree(f"gradient {i}", got, want, tol=1e-12)


# The functions of chapter 3 take the kernels -----------------------------------------


def outputs_and_gradients(function, inputs):
    leaves = [v.clone().requires_grad_() for v in inputs]
    y = function(*leaves)
    return y.detach(), *torch.autograd.grad((y * y.detach()).sum(), leaves)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["fft", "overlap_add"])
@pytest.mark.parametrize("group_bytes", [1 << 26, 1])
def test_causal_conv_by_its_kernel(device, method, group_bytes, monkeypatch):
    ways(device)
    monkeypatch.setattr(by_spectra, "_GROUP_BYTES", group_bytes)
    monkeypatch.setattr(by_spectra, "_PIECE_BYTES", group_bytes)
    inputs = drawn(2, 3, 101), drawn(18, 3, 29, seed=1)

    def function(x, kernel):
        return fftconv.causal_conv(x, kernel, method=method)

    want = outputs_and_gradients(function, inputs)
    inputs = [v.to(device) for v in inputs]
    if device == "cuda":
        got = outputs_and_gradients(function, inputs)
        assert fftconv.causal_conv_route(*inputs, method=method).endswith(".cu")
    else:
        with cupy_on_cpu() as cupy:
            got = outputs_and_gradients(function, inputs)
            route = fftconv.causal_conv_route(*inputs, method=method)
        assert route == f"{method} by spectral_product.cu"
        assert {name for name, *_ in cupy.launches} == {"spectral_product"}
    for name, mine, theirs in zip(("y", "x", "kernel"), got, want, strict=True):
        agree(name, mine, theirs, tol=1e-12 * float(theirs.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
def test_a_ckconv_layer_by_its_kernel(device):
    ways(device)
    torch.manual_seed(0)
    layer, x = CKConv(6, 7).double(), drawn(2, 6, 41)
    layer(x)
    assert layer.route(x) == "factorised"

    def of_weights(x, *weights):
        names = [name for name, _ in layer.named_parameters()]
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, given, (x,))

    inputs = [x, *(p.detach() for p in layer.parameters())]
    want = outputs_and_gradients(of_weights, inputs)
    with cupy_on_cpu() if device == "cpu" else torch.device("cuda"):
        inputs, layer = [v.to(device) for v in inputs], layer.to(device)
        assert layer.route(inputs[0]) == "factorised by spectral_product.cu"
        got = outputs_and_gradients(of_weights, inputs)
        layer.eval()
        with torch.no_grad():  # the spectra of the hidden units are kept
            kept = [layer(inputs[0]) for _ in range(2)]
    for i, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        agree(f"{i}", mine, theirs, tol=1e-12 * max(1, float(theirs.abs().max())))
    for y in kept:
        agree("kept", y, want[0], tol=1e-12)


def test_mixed_causal_conv_asks_for_no_gradient_that_is_not_needed():
    for asked in range(3):
        inputs = [drawn(2, 3, 7), drawn(4, 5), drawn(2, 3, 4)]
        inputs[asked].requires_grad_()
        with cupy_on_cpu():
            assert torch.autograd.gradcheck(factorised.mixed_causal_conv, inputs)


def test_the_route_is_told_for_every_method():
    x, kernel = torch.ones(1, 1, 100_000), torch.ones(1, 1, 500)
    for method in ("direct", "fft", "overlap_add"):
        assert fftconv.causal_conv_route(x, kernel, method=method) == method
    assert fftconv.causal_conv_route(x, kernel) == "overlap_add"
    assert fftconv.causal_conv_route(x, kernel[..., :3]) == "direct"
    assert fftconv.causal_conv_route(x[..., :700], torch.ones(1, 1, 700)) == "fft"
    with pytest.raises(ValueError, match="method must be one of"):
        fftconv.causal_conv_route(x, kernel, method="conv")
    signal = torch.ones(8, 2, 300)
    assert CKConv(2, 2, horizon=300).route(signal) == "fft"  # 33 units, 4 kernels
    assert CKConv(2, 2, horizon=3).route(signal) == "direct"
    assert CKConv(2, 2, method="direct").route(signal) == "direct"


def test_the_benchmark_of_the_kernels_runs_as_on_a_gpu():
    with cupy_on_cpu() as cupy:
        cases = list(spectra.cases("cpu", quick=True))
        for case in cases:
            for name, way in case.peers.items():
                check_agreement(name, way, case)
    assert len(cases) == 3
    assert {"spectral_product_naive", "factorised_spectral_product_naive"} <= {
        name for name, *_ in cupy.launches
    }


# What is refused ---------------------------------------------------------------------


@pytest.mark.parametrize("call", [launch_product, spectral_product])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(1, 2, 3), complexes(1, 2, 3), "a must be complex64 or complex128"),
        (complexes(1, 2, 3), complexes(1, 2, 3).to(torch.complex64), "dtype and dev"),
        (complexes(2, 3), complexes(1, 2, 3), r"a must have 3 axes.*\(2, 3\)"),
        (complexes(1, 2, 3), complexes(0, 2, 3), "b must have 3 axes, none of them e"),
        (complexes(1, 2, 3), complexes(1, 2, 4), r"\(s, f\) = \(2, 3\), got.*1, 2, 4"),
    ],
)
def test_operands_of_the_product_that_do_not_fit_are_named(call, a, b, message):
    with pytest.raises(ValueError, match=message):
        call(a, b, False)


@pytest.mark.parametrize("call", [launch_mixed_product, factorised_spectral_product])
@pytest.mark.parametrize(
    ("h", "mix", "message"),
    [
        (complexes(5, 4), drawn(1, 2, 5), "h must have the 3 frequencies of x"),
        (complexes(5, 3), drawn(1, 2, 4), r"\(c, u\) = \(2, 5\), got shape \(1, 2, 4"),
        (complexes(5, 3), drawn(1, 2, 5).float(), "mix must have the dtype and device"),
        (complexes(1, 5, 3), drawn(1, 2, 5), "h must have 2 axes"),
    ],
)
def test_operands_of_a_mixture_that_do_not_fit_are_named(call, h, mix, message):
    with pytest.raises(ValueError, match=message):
        call(complexes(1, 2, 3), h, mix, False)
