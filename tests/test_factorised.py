"""Convolution with mixed kernels against the same with its kernel formed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckutils import factorised
from ckutils.checks import agree
from ckutils.factorised import mixed_causal_conv, mixed_causal_conv_ref


def drawn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def test_two_basis_functions_by_hand():
    x = torch.tensor([[[1.0, 10.0, 100.0]]])
    basis = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    mix = torch.tensor([[[1.0, 1.0]], [[0.0, 3.0]]])  # kernels (1, 2, 3) and (0, 3, 6)
    want = [[[1.0, 12.0, 123.0], [0.0, 3.0, 36.0]]]
    agree("by hand", mixed_causal_conv(x, basis, mix), want, tol=1e-3)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    b=st.integers(1, 3), c_in=st.integers(1, 4), c_out=st.integers(1, 4),
    t=st.integers(1, 60), k=st.integers(1, 70), h=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_it_is_the_convolution_with_the_kernel_formed(b, c_in, c_out, t, k, h, seed):
    x, basis = drawn(b, c_in, t, seed=seed), drawn(h, k, seed=seed + 1)
    mix, g = drawn(c_out, c_in, h, seed=seed + 2), drawn(b, c_out, t, seed=seed + 3)
    results = []
    for function in (mixed_causal_conv, mixed_causal_conv_ref):
        inputs = [v.clone().requires_grad_() for v in (x, basis, mix)]
        y = function(*inputs)
        results.append([y.detach(), *torch.autograd.grad(y, inputs, g)])
    for name, got, want in zip(("y", "x", "basis", "mix"), *results, strict=True):
        size = max(1.0, float(want.abs().max()))
        agree(f"{name} {b=} {c_in=} {c_out=} {t=} {k=} {h=}", got, want, 1e-12 * size)


def test_float32_at_the_size_of_a_layer():
    x, basis = drawn(4, 30, 784).float(), drawn(33, 784).float()
    mix, g = drawn(30, 30, 33).float() / 30, drawn(4, 30, 784).float()
    results = []
    for function in (mixed_causal_conv, mixed_causal_conv_ref):
        inputs = [v.clone().requires_grad_() for v in (x, basis, mix)]
        y = function(*inputs)
        results.append([y.detach(), *torch.autograd.grad(y, inputs, g)])
    for name, got, want in zip(("y", "x", "basis", "mix"), *results, strict=True):
        agree(name, got, want, tol=1e-5 * float(want.abs().max()))


def test_inputs_are_read_and_differentiated_as_they_lie():
    plain = drawn(1, 2, 9), drawn(4, 5), drawn(3, 2, 4)
    lying = [v.transpose(0, 1).contiguous().transpose(0, 1) for v in plain]
    assert not any(v.is_contiguous() for v in lying[1:])
    results = []
    for inputs in (plain, lying):
        inputs = [v.detach().requires_grad_() for v in inputs]
        y = mixed_causal_conv(*inputs)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), inputs)])
    for name, got, want in zip(("y", "x", "basis", "mix"), *results, strict=True):
        agree(name, got, want, tol=1e-11)


@pytest.mark.parametrize("tile_bytes", [1 << 20, 300])
def test_gradients_of_first_and_second_order(tile_bytes, monkeypatch):
    monkeypatch.setitem(factorised._TILE_BYTES, "cpu", tile_bytes)
    inputs = [drawn(1, 2, 13), drawn(3, 5), drawn(2, 2, 3)]
    inputs = [v.requires_grad_() for v in inputs]
    assert torch.autograd.gradcheck(mixed_causal_conv, inputs)
    assert torch.autograd.gradgradcheck(mixed_causal_conv, inputs)


def test_gradients_only_where_they_are_asked_for():
    for asked in range(3):
        inputs = [drawn(2, 3, 7), drawn(4, 5), drawn(2, 3, 4)]
        inputs[asked].requires_grad_()
        assert torch.autograd.gradcheck(mixed_causal_conv, inputs)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 2), (3, 4), (1, 2, 3)), r"x must have 3 axes, none of them empty.*1, 2"),
        (((1, 2, 4), (4,), (1, 2, 3)), "basis must have 2 axes"),
        (((1, 2, 4), (3, 4), (1, 2)), "mix must have 3 axes"),
        (((1, 2, 4), (3, 4), (1, 2, 5)), r"\(c_in, h\) = \(2, 3\), got shape \(1, 2"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        mixed_causal_conv(*(torch.ones(shape) for shape in shapes))
    with pytest.raises(ValueError, match="basis must have the dtype and device of x"):
        mixed_causal_conv(
            torch.ones(1, 1, 1), torch.ones(1, 1).double(), torch.ones(1, 1, 1)
        )
