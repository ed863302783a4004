"""The recurrence four ways, sums of exponentials, and the linear recurrent unit."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import signal, stats
from torch.autograd import gradcheck, gradgradcheck

from ckutils import scan
from ckutils.ckconv import CKConv
from ckutils.recurrence import (
    LinearRecurrentUnit,
    bilinear,
    exponentials_at,
    fit_exponentials,
    geometric_spectrum,
    linear_recurrence,
    linear_recurrence_ref,
    linear_recurrence_route,
    lru_conv,
    lru_kernel,
    lru_loop,
    powers,
    zero_order_hold,
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
QUICK = settings(deadline=None, derandomize=True, max_examples=60)
LENGTHS = (1, 2, 31, 32, 33, 1023, 1024, 8000, 16323, 33753)
SEEDS = (3407, 4, 42, 57)
RANGES = ((0.4, 1.0), (0.99, 1.0))


def draw(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed + 31 * sum(shape) + len(shape))
    return torch.randn(shape, generator=generator, dtype=dtype)


def assert_within(got, want, tol, context=""):
    """|got - want| <= tol in every entry; NaN never passes."""
    assert got.shape == want.shape, f"{tuple(got.shape)} {tuple(want.shape)} {context}"
    if got.numel():
        error = (got - want).abs().nan_to_num(math.inf)
        tol = torch.as_tensor(tol, dtype=error.dtype)
        at = int((error / tol.clamp_min(1e-300)).argmax())
        worst, allowed = error.flatten()[at], tol.expand_as(error).flatten()[at]
        assert bool((error <= tol).all()), f"{worst:.2e} > {allowed:.2e} {context}"


def hard_data(length, complex_values):
    """(seed, range, t) in double: coefficients of |a| in both ranges, and inputs."""
    a, b = [], []
    for seed in SEEDS:
        g = torch.Generator().manual_seed(seed)
        dtype = torch.complex128 if complex_values else torch.float64
        for low, high in RANGES:
            size = low + (high - low) * torch.rand(length, generator=g).double()
            turn = 2 * math.pi * torch.rand(length, generator=g).double()
            sign = torch.where(turn < math.pi, 1.0, -1.0).double()
            a.append(torch.polar(size, turn) if complex_values else size * sign)
            b.append(torch.randn(length, generator=g, dtype=dtype))
    shape = (len(SEEDS), len(RANGES), length)
    return torch.stack(a).view(shape), torch.stack(b).view(shape)


def loop(a, b, start=None):
    """h_t = a_t h_{t-1} + b_t in NumPy, double: the oracle of the long sequences."""
    a, b = np.moveaxis(a.numpy(), -1, 0), np.moveaxis(b.numpy(), -1, 0)
    h, states = 0 if start is None else start.numpy(), np.empty_like(b)
    for t in range(len(b)):
        h = states[t] = (a[t] if len(a) > 1 else a[0]) * h + b[t]
    return torch.from_numpy(np.moveaxis(states, 0, -1))


def rounding_bound(a, b, eps):
    """A term with lag d passes at most 2 d + 8 roundings, in a loop and in the scan.

    So |error_t| <= eps sum_d (2 d + 8) |a_t ... a_{t-d+1}| |b_{t-d}|, to first order.
    Both sums are recurrences: H of |a|, |b|, and G_t = |a_t| (G_{t-1} + H_{t-1}). A
    factor 4 covers a complex product, whose rounding is sqrt(5) eps, and the oracle.
    """
    a, b = a.abs().double().expand_as(b), b.abs().double()
    H = loop(a, b)
    before = torch.cat([torch.zeros_like(H[..., :1]), H[..., :-1]], dim=-1)
    return 4 * eps * (2 * loop(a, a * before) + 8 * H)


def narrow(x):
    return x.to(torch.complex64 if x.is_complex() else torch.float32)


# The recurrence: by hand, and every method against the float64 loop --------------


@pytest.mark.parametrize("method", ["auto", "loop", "scan"])
def test_numbers_worked_by_hand(method):
    a, b = torch.tensor([9.0, 2, 0, -1]), torch.tensor([1.0, 1, 5, 2])
    got = linear_recurrence(a, b, method=method)
    assert got.tolist() == [1, 3, 5, -3]
    start = torch.tensor(10.0)
    assert linear_recurrence(a, b, initial=start, method=method).tolist() == [
        91, 183, 5, -3,
    ]  # fmt: skip
    i = torch.tensor([1j])
    ones = torch.ones(5, dtype=torch.complex64)
    got = linear_recurrence(i, ones, method=method)
    assert got.tolist() == [1, 1 + 1j, 1j, 0, 1]


@pytest.mark.parametrize("complex_values", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_scan_and_its_gradients_are_the_float64_loop(length, complex_values):
    a, b = hard_data(length, complex_values)
    start = draw(*a.shape[:-1], seed=1).to(b.dtype)
    arrived = draw(*a.shape, seed=2).to(b.dtype)
    units = unit_bounds(a, b, start, arrived)
    for cast, eps in ((torch.clone, 2.0**-52), (narrow, 2.0**-23)):
        # the oracle sees the rounded inputs too: what is tested is the arithmetic
        seen = [cast(x).requires_grad_() for x in (a, b, start)]
        h = linear_recurrence(*seen[:2], initial=seen[2], method="scan")
        grads = torch.autograd.grad(h, seen, cast(arrived))
        wide = [cast(x).to(b.dtype) for x in (a, b, start, arrived)]
        want, tols = adjoint_loop(*wide, *units, eps)
        assert h.dtype == seen[1].dtype
        for what, got in zip(want, (h, *grads), strict=True):
            context = f"{what} {length=} {complex_values=} {eps=}"
            assert_within(got.detach().to(b.dtype), want[what], tols[what], context)


def unit_bounds(a, b, start, arrived):
    """Bounds of h and of the reversed sum, to be multiplied by eps."""
    first = b.abs()
    first[..., 0] += (a[..., 0] * start).abs()
    late = rounding_bound(shifted(a), arrived.flip(-1), 1.0).flip(-1)
    return rounding_bound(a, first, 1.0), late


def shifted(a):
    """a_{t+1}, from the end: what the reverse pass multiplies by."""
    return torch.cat([a[..., 1:], torch.zeros_like(a[..., :1])], dim=-1).flip(-1)


def adjoint_loop(a, b, start, arrived, h_unit, late_unit, eps):
    """h and the gradients in a, b, start by two loops in double, and their bounds.

    l_t = g_t + conj(a_{t+1}) l_{t+1} runs from the end. The gradient in a_t is the
    product l_t conj(h_{t-1}), so its bound joins those of the two sums.
    """
    h = loop(a, b, start)
    late = loop(shifted(a).conj().resolve_conj(), arrived.flip(-1)).flip(-1)
    before = torch.cat([start.unsqueeze(-1), h[..., :-1]], dim=-1)
    want = {"h": h, "a": late * before.conj(), "b": late}
    want["start"] = late[..., 0] * a[..., 0].conj()
    h_tol, late_tol = eps * h_unit, eps * late_unit
    before_tol = torch.cat([torch.zeros_like(h_tol[..., :1]), h_tol[..., :-1]], dim=-1)
    late, before = late.abs(), before.abs()
    a_tol = late_tol * (before + before_tol) + late * (before_tol + 4 * eps * before)
    start_tol = late_tol[..., 0] + 4 * eps * late[..., 0]
    return want, {"h": h_tol, "a": a_tol, "b": late_tol, "start": start_tol}


def test_the_oracle_of_the_gradients_is_autograd_through_the_loop():
    a, b = hard_data(200, True)
    start, arrived = draw(4, 2).to(b.dtype), draw(4, 2, 200).to(b.dtype)
    inputs = [x.clone().requires_grad_() for x in (a, b, start)]
    h = linear_recurrence_ref(*inputs[:2], initial=inputs[2])
    grads = torch.autograd.grad(h, inputs, arrived)
    units = unit_bounds(a, b, start, arrived)
    want, _ = adjoint_loop(a, b, start, arrived, *units, 2.0**-52)
    for got, what in zip((h, *grads), want, strict=True):
        assert_within(got.detach(), want[what], 1e-10, what)


@pytest.mark.parametrize("length", LENGTHS)
def test_fft_and_scan_are_the_loop_for_constant_coefficients(length):
    for complex_values in (False, True):
        a, b = hard_data(length, complex_values)
        a = a[..., :1]
        start = draw(*a.shape[:-1], seed=1).to(b.dtype)
        for cast, eps in ((torch.clone, 2.0**-52), (narrow, 2.0**-23)):
            a_, b_, start_ = cast(a), cast(b), cast(start)
            wide = [x.to(b.dtype) for x in (a_, b_, start_)]
            want = loop(*wide)
            got = linear_recurrence(a_, b_, initial=start_, method="scan").to(b.dtype)
            first = b.abs()
            first[..., 0] += (a[..., 0] * start).abs()
            tol = rounding_bound(a.expand_as(b), first, eps)
            assert_within(got, want, tol, f"scan {length=} {eps=}")
            got = linear_recurrence(a_, b_, initial=start_, method="fft").to(b.dtype)
            table = powers(a[..., 0].abs(), length).norm(dim=-1)
            size = table * b.norm(dim=-1) + start.abs()
            # the powers themselves, built in double: a relative error of t eps
            tol = 4 * eps * (math.log2(length) + 4) * size + length * 2.0**-50 * size
            assert_within(got, want, tol[..., None], f"fft {length=} {eps=}")


@pytest.mark.parametrize("complex_values", [False, True])
@pytest.mark.parametrize("length", [1, 2, 33, 1024, 8000])
def test_gradients_of_the_fft_are_those_of_the_loop(length, complex_values):
    a, b = hard_data(length, complex_values)
    start, arrived = draw(4, 2, seed=1).to(b.dtype), draw(4, 2, length).to(b.dtype)
    seen = [x.clone().requires_grad_() for x in (a[..., :1], b, start)]
    h = linear_recurrence(*seen[:2], initial=seen[2], method="fft")
    grads = torch.autograd.grad(h, seen, arrived)
    a = a[..., :1].expand_as(b)
    none = torch.zeros_like(b.real)  # its bounds are not used here
    want, _ = adjoint_loop(a, b, start, arrived, none, none, 1.0)
    sums = {
        "a": want["a"].sum(-1, keepdim=True),
        "b": want["b"],
        "start": want["start"],
    }
    table = powers(a[..., 0].abs(), length)
    size = float((table.norm(dim=-1) * (b.norm(dim=-1) + 1)).max())
    size *= float(arrived.norm(dim=-1).max())
    # each gradient is a sum of at most t products of two sums of that size
    for got, what in zip(grads, sums, strict=True):
        assert_within(got, sums[what], 2.0**-48 * length * size, f"{what} {length=}")


def test_the_loop_in_single_precision_keeps_the_same_bound():
    for complex_values in (False, True):
        a, b = (narrow(x) for x in hard_data(1023, complex_values))
        wide = torch.complex128 if complex_values else torch.float64
        got = linear_recurrence(a, b, method="loop").to(wide)
        tol = rounding_bound(a.to(wide), b.to(wide), 2.0**-23)
        assert_within(got, loop(a.to(wide), b.to(wide)), tol)


def test_views_are_read_as_what_they_show():
    a = 0.3 * draw(40, 3, dtype=torch.complex128)
    b = draw(6, 40, dtype=torch.complex128)
    views = a.mT.conj(), b[::2].flip(-1)
    assert views[0].is_conj() and not views[0].is_contiguous()
    plain = [x.resolve_conj().contiguous() for x in views]
    assert_within(linear_recurrence(*views), linear_recurrence_ref(*plain), 1e-13)
    one = b[:1, :1].expand(3, 40)  # a stride of 0
    want = linear_recurrence_ref(plain[0], one.clone())
    assert_within(linear_recurrence(plain[0], one), want, 1e-13)


@QUICK
@example(t=33, batch=(2,), shared=True, constant=False, dtype=torch.float64, seed=0)
@given(
    t=st.integers(0, 130),
    batch=st.sampled_from([(), (1,), (3,), (2, 3), (0,)]),
    shared=st.booleans(),
    constant=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.complex128]),
    seed=st.integers(0, 2**20),
)
def test_any_length_any_batch(t, batch, shared, constant, dtype, seed):
    a_batch = (1,) * len(batch) if shared else batch
    a = 0.7 * draw(*a_batch, 1 if constant else t, seed=seed, dtype=dtype)
    b = draw(*batch, t, seed=seed + 1, dtype=dtype)
    start = draw(*batch, seed=seed + 2, dtype=dtype)
    got = linear_recurrence(a, b, initial=start)
    want = b if t == 0 else linear_recurrence_ref(a, b, initial=start)
    first = torch.cat([b[..., :1].abs() + (a[..., :1] * start[..., None]).abs(),
                       b[..., 1:].abs()], dim=-1)  # fmt: skip
    full = a.expand(*a.shape[:-1], t)
    tol = rounding_bound(full, first, 2.0**-52) if t else 0.0
    assert_within(got, want, tol)
    assert got.shape == (*batch, t) and got.dtype == dtype


def test_batch_axes_broadcast_both_ways():
    a, b, start = draw(3, 1, 40), draw(4, 40), draw(2, 1, 1)
    a = a.tanh()
    got = linear_recurrence(a, b, initial=start)
    full = [x.expand(2, 3, 4, 40) for x in (a, b)]
    want = linear_recurrence_ref(*full, initial=start.expand(2, 3, 4))
    assert_within(got, want, 1e-12)
    scalar = linear_recurrence(torch.tensor(0.5, dtype=torch.float64), b)
    assert_within(scalar, linear_recurrence_ref(torch.full_like(b, 0.5), b), 1e-12)


def test_a_real_input_meets_a_complex_coefficient():
    a, b = (
        torch.polar(torch.ones(1), torch.tensor([0.1])),
        draw(50, dtype=torch.float32),
    )
    got = linear_recurrence(a, b)
    assert got.dtype == torch.complex64
    assert_within(got, linear_recurrence_ref(a, b), 1e-4)
    b.requires_grad_()
    linear_recurrence(a, b).abs().sum().backward()
    assert b.grad.dtype == torch.float32 and bool(b.grad.abs().sum() > 0)


def test_inputs_are_left_as_they_were():
    a, b = draw(3, 32), draw(3, 32)
    keep = a.clone(), b.clone()
    linear_recurrence(a, b)
    linear_recurrence(a[:, :1], b[:, :1])
    assert torch.equal(a, keep[0]) and torch.equal(b, keep[1])


def test_other_libraries_agree():
    jax = pytest.importorskip("jax")
    a, b = hard_data(1000, False)
    combine = lambda left, right: (  # noqa: E731
        left[0] * right[0],
        left[1] * right[0] + right[1],
    )
    jax.config.update("jax_enable_x64", True)
    pair = tuple(jax.numpy.asarray(x.numpy()) for x in (a, b))
    want = jax.lax.associative_scan(combine, pair, axis=-1)[1]
    tol = rounding_bound(a, b, 2.0**-52)
    assert_within(linear_recurrence(a, b), torch.tensor(np.array(want)), tol)
    want = signal.lfilter([1.0], [1.0, -0.9], b.numpy(), axis=-1)
    got = linear_recurrence(torch.tensor([0.9], dtype=torch.float64), b)
    assert_within(got, torch.tensor(want), 1e-11)


# Gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("method", ["loop", "scan", "fft"])
@pytest.mark.parametrize("length", [1, 5, 9])
def test_first_and_second_derivatives(method, dtype, length, monkeypatch):
    monkeypatch.setattr(scan, "_BLOCK", 2)  # four levels of blocks at length 9
    a = 0.3 * draw(2, 1 if method == "fft" else length, dtype=dtype)
    b, start = draw(2, length, dtype=dtype), draw(2, dtype=dtype)
    inputs = [x.requires_grad_() for x in (a, b, start)]
    f = lambda a, b, s: linear_recurrence(a, b, initial=s, method=method)  # noqa: E731
    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)


def test_derivatives_of_a_constant_coefficient_and_across_blocks():
    a = torch.tensor([[0.9], [-0.5]], dtype=torch.float64, requires_grad=True)
    b = draw(2, 40).requires_grad_()
    assert gradcheck(linear_recurrence, (a, b))
    assert gradgradcheck(linear_recurrence, (a[:1], b[:1, :35]))
    varying = (0.3 * draw(1, 40)).requires_grad_()
    assert gradcheck(linear_recurrence, (varying, b))


def test_the_gradient_of_lambda_has_a_closed_form():
    """d h_T / d lam = sum_s s lam^(s-1) x_{T-s}; torch's gradient is its conjugate."""
    lam = torch.polar(torch.tensor(0.95), torch.tensor(0.3)).to(torch.complex128)
    x, t = draw(200, dtype=torch.complex128), torch.arange(200)
    lam.requires_grad_()
    last = linear_recurrence(lam.reshape(1), x)[-1]
    (grad,) = torch.autograd.grad(last.real, lam)
    closed = (t * lam.detach() ** (t - 1).clamp_min(0) * x.flip(0)).sum()
    assert_within(grad, closed.conj(), 1e-11)


def test_torch_descends_and_jax_returns_the_conjugate():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    x = draw(20, dtype=torch.complex128)
    lam = torch.tensor(0.7 + 0.5j, dtype=torch.complex128, requires_grad=True)
    loss = (linear_recurrence(lam.reshape(1), x)[-1] - 1).abs() ** 2
    (ours,) = torch.autograd.grad(loss, lam)

    def other(lam):
        h = 0
        for value in x.numpy():
            h = lam * h + value
        return jax.numpy.abs(h - 1) ** 2

    theirs = jax.grad(other)(complex(lam.detach()))
    want = torch.tensor(complex(theirs).conjugate(), dtype=torch.complex128)
    assert_within(ours, want, 1e-9)


def test_the_reverse_pass_stores_the_states_and_no_loop():
    a = torch.rand(4, 5000).requires_grad_()
    h = linear_recurrence(a, torch.ones(4, 5000))
    saved = h.grad_fn.saved_tensors
    assert sum(x.numel() for x in saved) == 2 * 4 * 5000 + 4  # a, h, initial
    assert h.grad_fn.name() == "_ScanBackward"


# Powers and spectra --------------------------------------------------------------


@QUICK
@given(length=st.integers(1, 300), size=st.floats(0, 1), turn=st.floats(0, 6.3))
def test_powers_are_powers(length, size, turn):
    a = torch.polar(torch.tensor(size), torch.tensor(turn)).to(torch.complex128)
    want = torch.stack([a**k for k in range(length)])
    assert_within(powers(a, length), want, 8 * length * 2.0**-52)


def test_powers_of_complex64_stay_on_the_circle():
    lam = torch.polar(torch.tensor(1.0), torch.tensor(0.1))
    n = 100_001
    want = powers(lam.to(torch.complex128), n)
    assert float((powers(lam, n) - want).abs().max()) < 1e-7
    naive = torch.exp(torch.arange(n) * lam.log())  # the angle n log(lam) in float32
    assert float((naive - want).abs().max()) > 1e-4


@QUICK
@example(length=64, n_fft=64, size=1.0, turn=0.0)
@example(length=5, n_fft=8, size=0.0, turn=0.0)
@given(
    length=st.integers(1, 80),
    n_fft=st.integers(80, 200),
    size=st.floats(0, 1),
    turn=st.floats(0, 6.3),
)
def test_the_closed_spectrum_is_the_fft_of_the_powers(length, n_fft, size, turn):
    a = torch.polar(torch.tensor(size), torch.tensor(turn)).to(torch.complex128)
    want = torch.fft.fft(powers(a, length), n_fft)
    got = geometric_spectrum(a, length, n_fft)
    assert_within(got, want, 64 * length * 2.0**-52)


def test_the_closed_spectrum_keeps_its_digits_next_to_the_pole():
    """A real a has a spectrum that is its own mirror image, small angles included."""
    a, n = torch.tensor(1 - 1e-7, dtype=torch.float64), 1_000_000
    spectrum = geometric_spectrum(a, 300_000, n)
    first, mirrored = spectrum[1:1000], spectrum[-999:].flip(0).conj()
    assert float(((first - mirrored) / first).abs().max()) < 1e-10
    signs = geometric_spectrum(torch.tensor(-1.0), 6, 8)
    assert_within(signs, torch.fft.fft(powers(torch.tensor(-1.0), 6), 8), 1e-6)
    assert complex(signs[4]) == 6


# A dense transition matrix -------------------------------------------------------


def test_dense_recurrence_by_hand():
    W, U = torch.tensor([[1.0, 1], [0, 2]]), torch.tensor([[1.0], [1]])
    x, h0 = torch.tensor([[[1.0, 0, 3]]]), torch.tensor([[5.0, -1]])
    want = torch.tensor([[[5.0, 4, 5], [-1, -2, -1]]])
    assert torch.equal(lru_loop(W, U, x, h0), want)
    assert lru_kernel(W, U, 3).tolist() == [[[1, 2, 4]], [[1, 2, 4]]]
    assert_within(lru_conv(W, U, x, h0), want, 1e-5)


@QUICK
@given(
    t=st.integers(1, 70), n=st.integers(1, 5), c=st.integers(1, 3),
    b=st.integers(1, 3), radius=st.sampled_from([0.5, 1.0]), start=st.booleans(),
)  # fmt: skip
def test_dense_convolution_is_the_loop(t, n, c, b, radius, start):
    W = torch.linalg.qr(draw(n, n, seed=t))[0] * radius  # |W^k| = radius^k
    U, x = draw(n, c, seed=1), draw(b, c, t, seed=2)
    h0 = draw(b, n, seed=3) if start else None
    size = float(U.norm() * x.norm()) + (0 if h0 is None else float(h0.norm()))
    tol = 64 * 2.0**-52 * (t + 4) * size
    assert_within(lru_conv(W, U, x, h0), lru_loop(W, U, x, h0), tol)
    taps = torch.stack([torch.linalg.matrix_power(W, k) @ U for k in range(t)], dim=-1)
    assert_within(lru_kernel(W, U, t), taps, 16 * t * 2.0**-52 * float(U.norm()))


def test_a_diagonal_matrix_is_a_scalar_recurrence():
    a, x = torch.rand(4, dtype=torch.float64), draw(2, 4, 50)
    dense = lru_loop(torch.diag(a), torch.eye(4, dtype=torch.float64), x)
    assert_within(linear_recurrence(a[:, None], x), dense, 1e-12)


def test_kernels_are_exponentials_times_polynomials_or_end():
    """Jordan block at 0.9: C(t, 2) 0.9^(t-2); at 0: any three values, then nothing."""
    t = torch.arange(30, dtype=torch.float64)
    last = torch.tensor([[0.0], [0], [1]], dtype=torch.float64)
    chain = torch.diag(torch.ones(2, dtype=torch.float64), 1)
    W = 0.9 * torch.eye(3, dtype=torch.float64) + chain
    want = t * (t - 1) / 2 * 0.9 ** (t - 2)
    assert_within(lru_kernel(W, last, 30)[0, 0], want, 1e-12)
    two = fit_exponentials(want, 2).kernel(30)  # no sum of two exponentials
    assert float((two - want).norm()) > 0.02 * float(want.norm())
    any_values = torch.tensor([7.0, -2, 5], dtype=torch.float64)
    ended = (any_values.flip(0) @ lru_kernel(chain, last, 30)[:, 0]).tolist()
    assert ended == [7, -2, 5] + [0] * 27


def test_powers_fade_by_the_largest_modulus_once_transients_are_over():
    """|W^T| against T: it is not the distance of an eigenvalue from 1 that decides."""
    turn = [[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]]

    def norm(rows, k):
        W = torch.tensor(rows, dtype=torch.float64)
        return float(torch.linalg.matrix_norm(torch.linalg.matrix_power(W, k), 2))

    assert abs(norm([[-1.0]], 501) - 1) < 1e-12 and abs(norm(turn, 500) - 1) < 1e-11
    assert norm([[1.0, 1], [0, 1]], 500) > 500  # every eigenvalue is 1
    assert norm([[0.9]], 500) < 1e-22 and norm([[-1.02]], 500) > 1e4
    non_normal = [[0.9, 4], [0, 0.8]]
    assert (
        max(norm(non_normal, k) for k in range(20)) > 10 > 1e-6 > norm(non_normal, 200)
    )


# Sums of exponentials ------------------------------------------------------------


def test_a_sum_of_exponentials_is_found_again():
    poles = torch.tensor([0.9, -0.5, 0.8 + 0.3j, 0.8 - 0.3j], dtype=torch.complex128)
    weights = torch.tensor([1.0, 2, 1 - 1j, 1 + 1j], dtype=torch.complex128)
    kernel = (weights @ powers(poles, 60)).real
    fit = fit_exponentials(kernel, 4)
    assert_within(fit.kernel(60), kernel, 1e-10)
    nearest = (fit.poles[:, None] - poles).abs().min(dim=0).values
    assert_within(nearest, torch.zeros(4, dtype=torch.float64), 1e-9)


def test_more_terms_fit_better_and_never_grow():
    t = torch.arange(200, dtype=torch.float64)
    boxcar = (t < 80).double()
    errors = [
        (fit_exponentials(boxcar, n).kernel(200) - boxcar).norm() for n in (2, 40)
    ]
    assert errors[1] < 0.5 * errors[0]
    fit = fit_exponentials(1.01**t, 1)
    assert float(fit.poles.abs().max()) <= 1 + 1e-12
    free = fit_exponentials(1.01**t, 1, stable=False)
    assert_within(free.kernel(200), 1.01**t, 1e-10)


def test_zero_order_hold_and_bilinear_against_scipy():
    for rate in (-2.0, -1e-9, 0.0):
        for step in (0.5, 1e-4):
            system = (
                np.array([[rate]]),
                np.ones((1, 1)),
                np.ones((1, 1)),
                np.zeros((1, 1)),
            )
            a, b, *_ = signal.cont2discrete(system, step, method="zoh")
            got = zero_order_hold(torch.tensor(rate, dtype=torch.float64), step)
            assert_within(torch.stack(got), torch.tensor([a[0, 0], b[0, 0]]), 1e-14)
            a, b, c, d, _ = signal.cont2discrete(system, step, method="bilinear")
            got = bilinear(torch.tensor(rate, dtype=torch.float64), step)
            # scipy's state is another one; the impulse response is the same
            mine = [got[1] / 2, got[1] / 2 * (1 + got[0])]
            theirs = [d[0, 0], (c @ b)[0, 0]]
            assert_within(torch.stack(mine), torch.tensor(theirs), 1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
def test_the_holds_gain_has_its_digits_and_its_slope_near_rest(dtype):
    """g / step = sum of z^k / (k + 1)!, dg/dr / step^2 = sum (k + 1) z^k / (k + 2)!."""
    near = [0, 1e-30, -1e-9, 1e-7, -1e-5, 1e-3, -0.015, 0.016, -0.1, 0.9]
    rates = torch.tensor(near, dtype=dtype)
    rates = (rates * (0.6 + 0.8j) if dtype.is_complex else rates).requires_grad_()
    step, eps = 0.5, torch.finfo(dtype).eps
    _, g = zero_order_hold(rates, step)
    (slope,) = torch.autograd.grad(g.real.sum(), rates)
    z = rates.detach() * step
    gain = sum(z**k / math.factorial(k + 1) for k in range(16))
    want = sum((k + 1) * z**k / math.factorial(k + 2) for k in range(16))
    assert_within(g.detach(), step * gain, 4 * eps)
    # beyond 1/64 the quotient's slope has noise of some eps / |z|
    assert_within(slope.conj(), step**2 * want, 200 * eps)
    assert slope[0] == step**2 / 2
    if dtype == torch.float64:
        assert gradgradcheck(lambda r: zero_order_hold(r, step)[1], rates)


def test_zero_order_hold_is_exact_for_a_held_input():
    """x' = r x + u from 0 with u = 1 has x(t) = (exp(r t) - 1) / r."""
    rate = torch.tensor(-0.3 + 2j, dtype=torch.complex128)
    for step in (0.1, 0.05):
        a, g = zero_order_hold(rate, step)
        n = round(4 / step)
        h = linear_recurrence(a.reshape(1), g * torch.ones(n, dtype=a.dtype))
        assert_within(h[-1], torch.expm1(rate * 4) / rate, 1e-13)


def irregular(n, q, c_in=2, c_out=3, k=4, batch=()):
    gaps = torch.rand(*batch, n, generator=torch.Generator().manual_seed(n)).double()
    times = gaps.cumsum(-1)
    values = draw(*batch, c_in, n)
    queries = times[..., -1:] * 1.2 * torch.rand(*batch, q).double() - 0.5
    rates = torch.complex(-draw(k, seed=1).abs(), 3 * draw(k, seed=2))
    coefficients = draw(c_out, c_in, k, dtype=torch.complex128)
    return times, values, queries, rates, coefficients


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("n", [1, 2, 57])
def test_irregular_scan_is_the_double_sum(n, batch):
    torch.manual_seed(0)
    times, values, queries, rates, coefficients = irregular(n, 40, batch=batch)
    weights = torch.rand(*batch, n, dtype=torch.float64)
    queries[..., 0] = times[..., 0]  # a query at a sample sees that sample
    lag = queries[..., :, None] - times[..., None, :]  # (..., q, n)
    bases = torch.exp(rates[:, None, None] * lag.clamp_min(0).unsqueeze(-3))
    psi = torch.einsum("oik,...kqn->...oiqn", coefficients, bases).real
    psi = psi * (lag >= 0)[..., None, None, :, :]
    want = torch.einsum("...oiqn,...in->...oq", psi, values * weights.unsqueeze(-2))
    got = exponentials_at(
        times, values, queries, rates=rates, coefficients=coefficients, weights=weights
    )
    assert_within(got, want, 1e-11)
    plain = exponentials_at(
        times, values, queries, rates=rates, coefficients=coefficients
    )
    ones = exponentials_at(
        times, values, queries, rates=rates, coefficients=coefficients,
        weights=torch.ones_like(weights),
    )  # fmt: skip
    assert torch.equal(plain, ones)


class ExponentialNet(torch.nn.Module):
    """Position 1 - 2 s / (horizon - 1) -> Re sum_k C_oik exp(r_k s), (o, i) flat."""

    def __init__(self, rates, coefficients, horizon):
        super().__init__()
        self.reach = torch.nn.Parameter(torch.tensor((horizon - 1) / 2).double())
        self.rates, self.coefficients = rates, coefficients.flatten(0, 1)

    def forward(self, positions):
        lags = (1 - positions) * self.reach
        return (torch.exp(lags * self.rates) @ self.coefficients.T).real


def test_irregular_scan_is_ckconv_with_the_same_kernel():
    times, values, queries, rates, coefficients = irregular(200, 90, batch=(2,))
    weights = torch.rand(2, 200, dtype=torch.float64)
    net = ExponentialNet(rates, coefficients, 1000)
    layer = CKConv(2, 3, kernel_net=net, horizon=1000, bias=False)
    named = {"rates": rates, "coefficients": coefficients}
    for t, q, w in ((times, queries, weights), (times[0], queries[0], weights[0])):
        got = exponentials_at(t, values, q, weights=w, **named)
        with torch.no_grad():
            assert_within(got, layer.at(t, values, q, weights=w), 1e-10)


def test_irregular_scan_takes_one_row_of_times_for_all():
    times, values, queries, rates, coefficients = irregular(30, 9, batch=(2, 3))
    weights, named = torch.rand(30).double(), {"rates": rates}
    named["coefficients"] = coefficients
    row, query = times[0, 0], queries[0, 0]
    got = exponentials_at(row, values, query, weights=weights, **named)
    rows, queries, named["weights"] = (
        x.expand(2, 3, -1) for x in (row, query, weights)
    )
    assert_within(got, exponentials_at(rows, values, queries, **named), 1e-12)


IRREGULAR = {
    "times": torch.arange(5.0), "values": torch.ones(2, 5),
    "query_times": torch.ones(4), "rates": -torch.ones(3),
    "coefficients": torch.ones(4, 2, 3),
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"coefficients must be \(c_out, 2, 3\), got shape \(4, 1, 3\)",
         {"coefficients": torch.ones(4, 1, 3)}),
        (r"coefficients must be \(c_out, 2, 3\), got shape \(4, 2, 1\)",
         {"coefficients": torch.ones(4, 2, 1)}),
        (r"coefficients must be \(c_out, 2, 3\), got shape \(4, 2, 2\)",
         {"coefficients": torch.ones(4, 2, 2)}),
        (r"coefficients must be \(c_out, 2, 3\), got shape \(2, 3\)",
         {"coefficients": torch.ones(2, 3)}),
        (r"rates must be \(k,\), k >= 1, got shape \(1, 3\)",
         {"rates": -torch.ones(1, 3)}),
        (r"rates must be \(k,\), k >= 1, got shape \(0,\)", {"rates": -torch.ones(0)}),
        (r"weights must be \(5,\), .*, got shape \(1,\)", {"weights": torch.ones(1)}),
        (r"weights must be \(5,\).*, got shape \(3,\)", {"weights": torch.ones(3)}),
        (r"weights must be .*, got shape \(\)", {"weights": torch.tensor(1.0)}),
        (r"times must be \(5,\), or \(6, 5\) as values has leading axes \(6,\), got",
         {"values": torch.ones(6, 2, 5), "times": torch.ones(1, 5)}),
        (r"query_times must have the leading axes of times, \(6,\), got shape \(4,\)",
         {"values": torch.ones(6, 2, 5), "times": torch.ones(6, 5)}),
        (r"query_times must have the leading axes of times, \(\), got shape \(6, 4\)",
         {"query_times": torch.ones(6, 4)}),
        ("query_times must have at least 1 axes", {"query_times": torch.tensor(1.0)}),
        ("values must have the dtype and device of times, torch.float32 on cpu",
         {"values": torch.ones(2, 5).double()}),
        ("query_times must have the dtype", {"query_times": torch.ones(4).double()}),
        ("weights must have the dtype", {"weights": torch.ones(5).double()}),
        ("rates must have the precision and device of times, torch.float32 on cpu, "
         "got torch.complex128 on cpu", {"rates": torch.ones(3).to(torch.complex128)}),
        ("coefficients must have the precision", {"coefficients": torch.ones(4, 2, 3)
         .double()}),
        ("rates must be a float32, .* tensor, got <class 'list'>", {"rates": [-1.0]}),
        ("coefficients must be .* got <class 'float'>", {"coefficients": 1.0}),
        (r"rates must have no real part > 0, got 0.5",
         {"rates": torch.full((3,), 0.5)}),
        (r"rates must have no real part > 0, got nan",
         {"rates": torch.full((3,), math.nan)}),
        (r"times must ascend, got a step of nan", {"times": torch.tensor(
            [0.0, 1.0, math.nan, 3.0, 4.0])}),
        (r"times must ascend, got a step of nan",
         {"times": torch.full((5,), math.nan)}),
        (r"times must ascend, got a step of -1.0", {"times": torch.tensor(
            [0.0, 2.0, 1.0, 3.0, 4.0])}),
        ("times must have at least 1 axes", {"times": torch.tensor(0.0)}),
    ],
)  # fmt: skip
def test_irregular_scan_refuses_what_would_be_broadcast(message, change):
    assert exponentials_at(**IRREGULAR).shape == (4, 4)
    with pytest.raises(ValueError, match=message):
        exponentials_at(**(IRREGULAR | change))


def test_rates_on_the_imaginary_axis_up_to_rounding_are_taken():
    poles = torch.tensor([1j, 0.6 + 0.8j], dtype=torch.complex128)
    rates = torch.log(poles * (1 + 4e-16)) / 1e-3
    assert float(rates.real.max()) > 0
    t, v = torch.arange(1000).double() * 1e-3, draw(1, 1000)
    named = {"rates": rates, "coefficients": torch.ones(1, 1, 2).double()}
    exact = named | {"rates": torch.complex(0 * rates.real, rates.imag)}
    got, want = (exponentials_at(t, v, t, **k) for k in (named, exact))
    assert_within(got, want, 1e-8)


def test_irregular_scan_on_a_regular_grid_is_the_convolution():
    t = torch.arange(30, dtype=torch.float64)
    x, rates = draw(1, 30), torch.tensor([-0.1], dtype=torch.float64)
    got = exponentials_at(t, x, t, rates=rates, coefficients=torch.ones(1, 1, 1))
    assert_within(got, linear_recurrence(torch.exp(rates), x), 1e-12)


# The linear recurrent unit -------------------------------------------------------


def unit(seed=0, **ring):
    torch.manual_seed(seed)
    ring = {"r_min": 0.5, "r_max": 0.99} | ring
    return LinearRecurrentUnit(3, 16, 2, **ring)


def test_streaming_is_the_parallel_output():
    for module, eps in ((unit(), 1e-6), (unit().double(), 1e-13)):
        x = draw(4, 3, 300, dtype=module.D.dtype)
        want, h, got = module(x), module.initial_state(4), []
        assert torch.equal(module.step(x[..., 0])[0], module.step(x[..., 0], h)[0])
        for t in range(300):
            y, h = module.step(x[..., t], h)
            got.append(y)
        tol = eps * float(want.detach().abs().max())  # 1e-6 of the largest output
        assert_within(torch.stack(got, -1), want, tol)
        states = module.states(x)
        assert states.is_complex() and states.shape == (4, 16, 300)
        tail = module(x[..., 120:], initial=states[..., 119])
        assert_within(tail, want[..., 120:], tol)


def test_the_unit_is_a_convolution_with_its_kernel():
    module, x = unit().double(), draw(2, 3, 150)
    want = convolve(x, module.kernel(150))
    assert_within(module(x), want, 1e-11)
    impulse = torch.zeros(1, 3, 5, dtype=torch.float64)
    impulse[0, 1, 0] = 1
    assert_within(module(impulse)[0], module.kernel(5)[:, 1], 1e-13)


def convolve(x, kernel):
    y = torch.zeros(x.shape[0], kernel.shape[0], x.shape[-1], dtype=x.dtype)
    for t in range(x.shape[-1]):
        for j in range(t + 1):
            y[..., t] += x[..., t - j] @ kernel[..., j].T
    return y


@pytest.mark.parametrize("seed", SEEDS)
def test_eigenvalues_start_uniform_on_the_ring(seed):
    torch.manual_seed(seed)
    ring = LinearRecurrentUnit(
        1, 20_000, 1, r_min=0.4, r_max=0.9, max_phase=1.5
    ).double()
    lam = ring.lam.detach()
    area = (lam.abs() ** 2 - 0.4**2) / (0.9**2 - 0.4**2)
    assert stats.kstest(area.numpy(), "uniform").pvalue > 0.01
    assert stats.kstest((lam.angle() / 1.5).numpy(), "uniform").pvalue > 0.01
    # the modulus itself is not uniform: more area lies further out
    radius = (lam.abs() - 0.4) / 0.5
    assert stats.kstest(radius.numpy(), "uniform").pvalue < 1e-6
    gamma = ring.gamma_log.detach().exp()
    assert_within(gamma, (1 - lam.abs() ** 2).sqrt(), 1e-6)


def test_the_state_has_the_variance_of_the_formula():
    """E|h|^2 = log((1-r_min^2)/(1-r_max^2)) / (r_max^2-r_min^2) E|Bx|^2, no gamma."""
    torch.manual_seed(42)
    low, high = 0.5, 0.95
    module = LinearRecurrentUnit(4, 4096, 1, r_min=low, r_max=high).double()
    with torch.no_grad():
        module.gamma_log.zero_()
        x = draw(2, 4, 700)
        driven = module.B @ x.to(torch.complex128)
        h = module.states(x)[..., 300:]  # 0.95^300 = 2e-7: the start is forgotten
    # B's entries have variance 1 / c_in, so that white noise of size 1 stays at 1
    assert abs(float(driven.abs().square().mean()) - 1) < 0.05
    ratio = float(h.abs().square().mean() / driven.abs().square().mean())
    want = math.log((1 - low**2) / (1 - high**2)) / (high**2 - low**2)
    assert abs(ratio / want - 1) < 0.03


def test_gamma_keeps_its_digits_next_to_the_circle():
    nu = torch.tensor([1e-7], dtype=torch.float32)
    want = math.sqrt(-math.expm1(-2e-7))
    assert abs(float(scan_gain(nu)) / want - 1) < 1e-6
    naive = float((1 - torch.exp(-nu) ** 2).sqrt())
    assert abs(naive / want - 1) > 0.05


def scan_gain(nu):
    from ckutils.recurrence import _gain

    return _gain(nu)


def test_unit_gradients_and_precision():
    module = LinearRecurrentUnit(2, 3, 2, r_min=0.3, r_max=0.8).double()
    names, values = zip(*module.named_parameters(), strict=True)
    x = draw(1, 2, 10)

    def run(*values):
        pairs = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, pairs, (x,))

    assert gradcheck(run, tuple(v.detach().requires_grad_() for v in values))
    assert module(x).dtype == torch.float64
    assert module.states(x).dtype == torch.complex128
    assert "state_features=3" in repr(module)


def test_it_stays_stable_wherever_the_parameters_go():
    module = unit()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(0.5 * draw(*value.shape, dtype=value.dtype))
    assert bool((module.lam.abs() < 1).all())


# Products of coefficients that overflow ------------------------------------------


def test_states_are_finite_where_products_of_coefficients_are_not():
    a, b = torch.full((100,), 4.0), torch.zeros(100)
    b[-1] = 1.0
    assert linear_recurrence(a, b).tolist() == b.tolist()
    assert linear_recurrence(a[:1], b).tolist() == b.tolist()
    assert linear_recurrence(a[:1].to(torch.complex64), b)[-1] == 1
    tiny = torch.tensor(1e-30)
    last = linear_recurrence(a, 0 * b, initial=tiny)[-1]
    assert float(last) == pytest.approx(1e-30 * 2.0**200, rel=1e-6)
    # growth while the state is 0, and decay afterwards
    a, b = torch.tensor([2.0**20] * 8 + [0.5] * 60), torch.zeros(68)
    b[10:] = 1.0
    assert linear_recurrence(a, b)[[9, 12, 40, 67]].tolist() == [0, 1.75, 2, 2]
    assert linear_recurrence_route(a, b) == "scan"  # tried first, the loop mends it


@pytest.mark.parametrize("at", [0, 40])
def test_gradients_are_finite_where_products_of_coefficients_are_not(at):
    results = []
    for method in ("auto", "loop"):
        a, b, start = torch.full((1, 100), 4.0), torch.zeros(2, 100), torch.zeros(2)
        b[:, -1] = 1.0
        inputs = [value.requires_grad_() for value in (a, b, start)]
        h = linear_recurrence(a, b, initial=start, method=method)
        results.append(torch.autograd.grad(h[:, at].sum(), inputs))
    for got, want in zip(*results, strict=True):
        assert torch.allclose(got, want, rtol=1e-5, atol=0)
    assert results[0][1][0, 0] == 4.0**at


@given(
    runs=st.lists(
        st.tuples(
            st.sampled_from([0, 0.5, 1, 2**60, 2**200]), st.integers(0, 3),
            st.integers(1, 40),
        ),
        min_size=1, max_size=6,
    ),
    start=st.sampled_from([0, 1e-200, 1.0]),
)  # fmt: skip
@settings(deadline=None, max_examples=200, derandomize=True)
def test_auto_is_the_loop_whatever_grows(runs, start):
    """No state is negative, so nothing cancels and the relative error is a few eps."""
    steps = [(a, b if n % 3 else 0) for a, b, length in runs for n in range(length)]
    a, b = torch.tensor(steps, dtype=torch.float64).T
    start = torch.tensor(start, dtype=torch.float64)
    want = linear_recurrence(a, b, initial=start, method="loop")
    got = linear_recurrence(a, b, initial=start)
    assert torch.allclose(got, want, rtol=1e-13, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_the_definition_takes_an_empty_signal(shape):
    a, b = torch.ones(1), torch.ones(shape)
    for initial in (None, torch.ones(shape[:-1])):
        h = linear_recurrence_ref(a, b, initial=initial)
        assert h.shape == shape and h.dtype == b.dtype
    assert linear_recurrence_ref(a.to(torch.complex64), b).dtype == torch.complex64


# What is refused -----------------------------------------------------------------

X = torch.zeros(1, 1, 3)
EYE, COLUMN = torch.eye(2), torch.zeros(2, 1)
REFUSED = {
    "a must be a float32": lambda: linear_recurrence([1.0], torch.ones(3)),
    "b must be a float32.*int64": lambda: linear_recurrence(
        torch.ones(3), torch.ones(3, dtype=torch.int64)
    ),
    "a must have the precision and device of b": lambda: linear_recurrence(
        torch.ones(3).double(), torch.ones(3)
    ),
    "b must have at least 1 axis": lambda: linear_recurrence(
        torch.ones(3), torch.tensor(1.0)
    ),
    "a must have 1 or 3 entries": lambda: linear_recurrence(
        torch.ones(2), torch.ones(3)
    ),
    "batch axes of a, b and initial must broadcast": lambda: linear_recurrence(
        torch.ones(2, 3), torch.ones(4, 3)
    ),
    "method must be one of": lambda: linear_recurrence(
        torch.ones(3), torch.ones(3), method="magic"
    ),
    "coefficients that do not change": lambda: linear_recurrence(
        torch.ones(3), torch.ones(3), method="fft"
    ),
    r"needs \|a\| <= 1, got 1.5": lambda: linear_recurrence(
        torch.tensor([1.5]), torch.ones(3), method="fft"
    ),
    "length must be an integer >= 1": lambda: powers(torch.ones(1), 0),
    "length must be <= n_fft = 4, got 5": lambda: geometric_spectrum(
        torch.ones(1), 5, 4
    ),
    "W must be a square matrix": lambda: lru_kernel(torch.ones(2, 3), COLUMN, 4),
    r"U must be \(2, c\)": lambda: lru_kernel(EYE, torch.ones(3, 1), 4),
    "U must have the dtype": lambda: lru_kernel(EYE, COLUMN.double(), 4),
    r"x must be \(b, 1, t\)": lambda: lru_loop(EYE, COLUMN, torch.zeros(1, 2, 3)),
    "h0 must be": lambda: lru_conv(EYE, COLUMN, X, h0=torch.zeros(2, 2)),
    "h0 must be float32 or float64": lambda: lru_loop(
        EYE, COLUMN, X, h0=torch.zeros(1, 2, dtype=torch.complex64)
    ),
    "kernel must have 1 axis": lambda: fit_exponentials(torch.ones(2, 8), 1),
    "kernel must be finite": lambda: fit_exponentials(torch.full((8,), math.nan), 1),
    "kernel must be finite, got NaN or an inf": lambda: fit_exponentials(
        torch.full((8,), math.inf), 1
    ),
    "terms must be <= length / 2 - 1 = 3, got 4": lambda: fit_exponentials(
        torch.ones(8), 4
    ),
    "step must be > 0": lambda: zero_order_hold(torch.ones(1), 0.0),
    "step must be a number": lambda: bilinear(torch.ones(1), -1.0),
    "times must ascend": lambda: exponentials_at(
        torch.tensor([1.0, 0.0]), torch.ones(1, 2), torch.ones(1),
        rates=-torch.ones(1), coefficients=torch.ones(1, 1, 1),
    ),
    r"values must be \(..., c_in, 2\)": lambda: exponentials_at(
        torch.tensor([0.0, 1.0]), torch.ones(1, 3), torch.ones(1),
        rates=-torch.ones(1), coefficients=torch.ones(1, 1, 1),
    ),
    "r_min must be below r_max": lambda: unit(r_min=0.5, r_max=0.5),
    r"r_max must be a number in \[0, 1\]": lambda: unit(r_max=1.5),
    "max_phase must be a number": lambda: unit(max_phase=7.0),
    "max_phase above 0": lambda: unit(max_phase=0.0),
    "state_features must be an integer": lambda: LinearRecurrentUnit(1, 0, 1),
    "batch must be an integer >= 1": lambda: unit().initial_state(0),
    "x must have 3 features": lambda: unit()(torch.zeros(1, 2, 5)),
    "x must have at least 2 axes": lambda: unit()(torch.zeros(3)),
    "x must have the dtype": lambda: unit().step(torch.zeros(3).double()),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_a_bad_value_is_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_the_kernel_without_a_gpu_is_refused_and_never_picked():
    a, b = torch.ones(3), torch.ones(3)
    with pytest.raises(ValueError, match="'cuda' needs tensors on a GPU, got b on cpu"):
        linear_recurrence(a, b, method="cuda")
    assert linear_recurrence(a, b, method="auto").tolist() == [1, 2, 3]
