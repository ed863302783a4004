"""Causal convolution: four methods against the sum, its bounds, and its gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckutils import fftconv
from ckutils.checks import agree
from ckutils.fftconv import causal_conv, causal_conv_depthwise, causal_conv_ref
from ckutils.fftplan import fft_length, plan

LENGTHS = (1, 2, 3, 8, 9, 11, 16, 17, 49, 50, 161, 182, 257, 783, 784, 1023, 1024)
FFTS = ("fft", "overlap_add")
EPS = torch.finfo(torch.float32).eps


def drawn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def bound(x, kernel) -> float:
    """eps log2(n) |x| |kernel|, the norms over channels and time of one sample."""
    n = fft_length(x.shape[-1] + min(kernel.shape[-1], x.shape[-1]) - 1)
    size = float(x.norm(dim=(1, 2)).max() * kernel.norm(dim=(1, 2)).max())
    return torch.finfo(x.dtype).eps * max(1.0, math.log2(n)) * size


# Numbers worked by hand ----------------------------------------------------------


@pytest.mark.parametrize("method", fftconv.METHODS)
def test_two_channels_by_hand(method):
    x = torch.tensor([[[1.0, 0.0, 2.0], [1.0, 1.0, 1.0]]])
    kernel = torch.tensor([[[3.0, 2.0], [1.0, -1.0]]])
    # channel 0: 3, 2, 6; channel 1: 1, 0, 0
    got = causal_conv(x, kernel, method=method)
    agree("by hand", got, [[[4.0, 2.0, 6.0]]], tol=4 * EPS * 10)


@pytest.mark.parametrize("method", fftconv.METHODS)
def test_an_impulse_returns_the_kernel_and_a_late_one_returns_it_late(method):
    kernel = drawn(3, 2, 40)
    x = torch.zeros(2, 2, 101, dtype=torch.float64)
    x[0, 0, 0] = x[1, 1, 60] = 1
    y = causal_conv(x, kernel, method=method)
    agree("kernel", y[0, :, :40], kernel[:, 0], tol=1e-13)
    agree("late", y[1, :, 60:100], kernel[:, 1], tol=1e-13)
    agree("before", y[1, :, :60], torch.zeros(3, 60), tol=1e-13)


def test_the_fft_length_is_the_smallest_even_7_smooth_one():
    smooth = {
        2**a * 3**b * 5**c * 7**d
        for a, b, c, d in itertools.product(range(1, 13), range(8), range(6), range(5))
    }
    for least in range(1, 3000):
        assert fft_length(least) == min(n for n in smooth if n >= least), least
    with pytest.raises(ValueError, match="least must be an integer >= 1, got 0"):
        fft_length(0)


# The definition ------------------------------------------------------------------


@pytest.mark.parametrize("method", fftconv.METHODS)
@pytest.mark.parametrize("t", LENGTHS)
def test_every_method_is_the_direct_sum_at_every_length(t, method):
    for k in sorted({1, max(1, t // 3), max(1, t - 1), t, t + 1, 2 * t + 3}):
        x, kernel = drawn(2, 2, t, seed=t), drawn(3, 2, k, seed=k)
        want = np.zeros((2, 3, t))
        for b, o, i in itertools.product(range(2), range(3), range(2)):
            want[b, o] += np.convolve(x[b, i].numpy(), kernel[o, i].numpy())[:t]
        got = causal_conv(x, kernel, method=method)
        agree(f"float64 {t=} {k=} {method}", got, want, tol=1e-12 * math.sqrt(t * 4))
        got = causal_conv(x.float(), kernel.float(), method=method)
        room = bound(x.float(), kernel[..., :t].float())
        agree(f"float32 {t=} {k=} {method}", got, want, tol=room + EPS)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    t=st.integers(1, 70), k=st.integers(1, 90), b=st.integers(1, 3),
    c_in=st.integers(1, 4), c_out=st.integers(1, 4),
    method=st.sampled_from(fftconv.METHODS), seed=st.integers(0, 2**31),
)  # fmt: skip
@example(t=9, k=9, b=1, c_in=1, c_out=1, method="fft", seed=0)  # t + k - 1 is odd
def test_it_is_its_loop(t, k, b, c_in, c_out, method, seed):
    x, kernel = drawn(b, c_in, t, seed=seed), drawn(c_out, c_in, k, seed=seed + 1)
    got = causal_conv(x, kernel, method=method)
    agree(f"{t=} {k=} {method}", got, causal_conv_ref(x, kernel), tol=1e-12)
    square = drawn(c_in, k, seed=seed + 2)
    deep = causal_conv_depthwise(x, square, method=method)
    want = causal_conv_ref(x, torch.diag_embed(square.T).movedim(0, -1))
    agree(f"depthwise {t=} {k=} {method}", deep, want, tol=1e-12)


@pytest.mark.parametrize("k", [1, 7, 100, 500])
def test_overlap_add_in_every_block_length_is_one_transform(k):
    x, kernel = drawn(2, 3, 601), drawn(2, 3, k)
    want = causal_conv(x, kernel, method="direct")
    for block in (1, 5, 64, 99, 100, 101, 300, 600, 601):
        got = fftconv._convolve(x, kernel, block)
        agree(f"{block=} {k=}", got, want, tol=1e-11)


def test_channels_beyond_the_cache_are_taken_in_groups(monkeypatch):
    x, kernel = drawn(2, 3, 60), drawn(7, 3, 60)
    want, lags = fftconv._convolve(x, kernel, 60), fftconv._lags(x @ x.mT @ x, x, 9, 60)
    monkeypatch.setitem(fftconv._GROUP_BYTES, "cpu", 8000)
    assert fftconv._groups(7, 3, 120, x) == [slice(0, 4), slice(3, 7)]
    agree("groups", fftconv._convolve(x, kernel, 60), want, tol=1e-12)
    agree("lags", fftconv._lags(x @ x.mT @ x, x, 9, 60), lags, tol=1e-9)


@pytest.mark.parametrize("c_out", [1, 5, 6, 7, 12, 13, 29, 100])
def test_groups_have_one_size_and_cover_all_channels(monkeypatch, c_out):
    monkeypatch.setitem(fftconv._GROUP_BYTES, "cpu", 1)
    groups = fftconv._groups(c_out, 2, 10, drawn(1))
    assert {some.stop - some.start for some in groups} == {groups[0].stop}
    assert groups[0].stop <= 6 and len(groups) == -(-c_out // 6)
    assert {o for some in groups for o in range(c_out)[some]} == set(range(c_out))


# Causality -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 50])
def test_the_direct_sum_is_exactly_causal(k):
    x, kernel = drawn(1, 2, 50, dtype=torch.float32), drawn(2, 2, k).float()
    for t in (0, 7, 48):
        x_t = x.clone().requires_grad_()
        causal_conv(x_t, kernel, method="direct")[..., t].sum().backward()
        assert (x_t.grad[..., t + 1 :] == 0).all()
        assert (x_t.grad[..., t] != 0).all()


@pytest.mark.parametrize("method", FFTS)
def test_by_fft_the_future_weighs_no_more_than_rounding(method):
    x, kernel = drawn(1, 2, 50, dtype=torch.float32), drawn(2, 2, 20).float()
    x.requires_grad_()
    causal_conv(x, kernel, method=method)[..., 7].sum().backward()
    assert float(x.grad[..., 8:].abs().max()) <= 2 * bound(torch.ones(1, 1, 1), kernel)


# Accuracy ------------------------------------------------------------------------


@pytest.mark.parametrize("k", [50, 4000])
def test_a_loud_start_costs_the_fft_its_tail_and_overlap_add_restores_it(k):
    x, fade = drawn(1, 1, 4000), torch.exp(-torch.arange(k) / 20.0)
    kernel = drawn(1, 1, k) * fade
    x[..., :10] *= 1e4
    want = causal_conv(x, kernel, method="direct")
    got = {m: causal_conv(x.float(), kernel.float(), method=m) for m in FFTS}
    errors = {m: (y.double() - want)[..., 2000:].abs().max() for m, y in got.items()}
    quiet = bound(x[..., 1000:].float(), kernel.float())
    assert errors["fft"] <= bound(x.float(), kernel.float())
    assert errors["overlap_add"] <= quiet
    assert errors["fft"] > 20 * errors["overlap_add"]


# Gradients -----------------------------------------------------------------------


@pytest.mark.parametrize("method", fftconv.METHODS)
@pytest.mark.parametrize(("t", "k"), [(7, 3), (6, 6), (5, 9), (40, 3)])
def test_gradients_of_first_and_second_order(t, k, method):
    x, kernel = drawn(2, 2, t).requires_grad_(), drawn(3, 2, k).requires_grad_()

    def dense(x, kernel):
        return causal_conv(x, kernel, method=method)

    assert torch.autograd.gradcheck(dense, (x, kernel))
    if t < 10:
        assert torch.autograd.gradgradcheck(dense, (x, kernel))
    deep = drawn(2, k).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, kernel: causal_conv_depthwise(x, kernel, method=method), (x, deep)
    )


@pytest.mark.parametrize("block", [4, 9, 23])
def test_both_backward_functions_close_in_every_block_length(block):
    x, kernel = drawn(2, 2, 23).requires_grad_(), drawn(3, 2, 5).requires_grad_()
    g = drawn(2, 3, 23).requires_grad_()
    convolve = lambda x, kernel: fftconv._Convolve.apply(x, kernel, block)  # noqa: E731
    lags = lambda g, x: fftconv._Lags.apply(g, x, 5, block)  # noqa: E731
    assert torch.autograd.gradcheck(convolve, (x, kernel))
    assert torch.autograd.gradgradcheck(convolve, (x, kernel))
    assert torch.autograd.gradcheck(lags, (g, x))
    form = [(convolve(x, kernel) * g).sum(), (lags(g, x) * kernel).sum()]
    agree("one trilinear form", form[0].detach(), form[1].detach(), tol=1e-11)


# The rule that picks -------------------------------------------------------------


def test_the_rule_takes_direct_for_short_kernels_and_ffts_for_long_ones():
    assert plan(8, 30, 30, 784, 3, "auto") is None
    assert plan(8, 30, 30, 784, 784, "auto") == 784
    assert plan(1, 1, 1, 100_000, 500, "auto") < 10_000
    assert plan(1, 1, 1, 100_000, 500, "fft") == 100_000
    assert plan(1, 1, 1, 5, 5, "direct") is None


# What is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "kernel", "message"),
    [
        (torch.ones(1, 2, 3).half(), torch.ones(1, 2, 3), "x must be float32 or float"),
        (torch.ones(1, 2, 3), torch.ones(1, 2, 3).double(), "kernel must have the dty"),
        (torch.ones(2, 3), torch.ones(1, 2, 3), r"x must have 3 axes.*\(2, 3\)"),
        (torch.ones(1, 2, 3), torch.ones(2, 3), r"kernel must have 3 axes.*\(2, 3\)"),
        (torch.ones(1, 2, 3), torch.ones(1, 2, 0), "kernel must have 3 axes, none of"),
        (torch.ones(1, 2, 3), torch.ones(1, 3, 3), "must have the 2 input channels"),
    ],
)
def test_operands_that_do_not_fit_are_named(x, kernel, message):
    with pytest.raises(ValueError, match=message):
        causal_conv(x, kernel)


def test_depthwise_refuses_other_channels_and_both_an_unknown_method():
    with pytest.raises(ValueError, match="kernel must have the 2 channels of x"):
        causal_conv_depthwise(torch.ones(1, 2, 3), torch.ones(3, 3))
    for call in (causal_conv, causal_conv_depthwise):
        with pytest.raises(ValueError, match="method must be one of 'auto'"):
            call(torch.ones(1, 2, 3), torch.ones(2, 2, 3), method="conv")
