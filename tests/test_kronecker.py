"""Chapter 2: dilated kernels, Kronecker products, cascades and the nearest product."""

from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ckutils.convolution import conv
from ckutils.kronecker import (
    compose_kernels,
    compose_kernels_ref,
    dilate_kernel,
    kronecker_kernel,
    low_rank,
    nearest_kronecker,
    rearrange_blocks,
)

TORCH = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CASES = settings(deadline=None, derandomize=True, max_examples=30)
SEEDS = st.integers(0, 2**31)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def close(got, want, tol=1e-12):
    """Equal to tol, relative to the largest value; shapes must be the same."""
    assert got.shape == want.shape, f"got {tuple(got.shape)}, want {tuple(want.shape)}"
    assert got.dtype == want.dtype, f"got {got.dtype}, want {want.dtype}"
    error, scale = float((got - want).abs().max()), max(1.0, float(want.abs().max()))
    assert error <= tol * scale, f"off by {error:.2e} where values reach {scale:.2e}"


def summed(left, right):
    """The sum of left[r] (x) right[r], by NumPy's Kronecker product."""
    pairs = zip(left.detach().numpy(), right.detach().numpy(), strict=True)
    return torch.from_numpy(sum(np.kron(a, b) for a, b in pairs))


# Dilation ------------------------------------------------------------------------


def test_dilate_kernel_by_hand():
    kernel = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    want = torch.tensor([[1.0, 0, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]])
    assert torch.equal(dilate_kernel(kernel, 3), want)
    assert torch.equal(dilate_kernel(kernel, (3, 1)), want[:, [0, 3]])
    assert torch.equal(dilate_kernel(kernel, 1), kernel)


def test_one_entry_of_dilation_is_one_trailing_axis():
    kernel = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    want = torch.tensor([[1.0, 0, 2], [3, 0, 4]])
    assert torch.equal(dilate_kernel(kernel, (2,)), want)


@pytest.mark.parametrize(
    ("size", "dilation"), [((3, 3), 1), ((3, 3), 2), ((2, 3), 3), ((1, 5), 4)]
)
def test_dilated_kernel_is_dilated_convolution(size, dilation):
    kernel, x = draw(*size, seed=1), draw(2, 1, 17, 23, seed=2)
    dense = dilate_kernel(kernel, dilation)
    assert dense.shape == tuple(dilation * (k - 1) + 1 for k in size)
    got = conv(x, dense[None, None])
    close(got, conv(x, kernel[None, None], dilation=dilation))
    close(got, F.conv2d(x, kernel[None, None], dilation=dilation))


@CASES
@given(
    data=st.data(), axes=st.integers(1, 3), channels=st.tuples(*[st.integers(1, 3)] * 2)
)
def test_dilated_weight_is_dilated_convolution(data, axes, channels):
    size = data.draw(st.tuples(*[st.integers(1, 4)] * axes))
    dilation = data.draw(st.tuples(*[st.integers(1, 4)] * axes))
    space = [
        d * (k - 1) + 1 + data.draw(st.integers(0, 4))
        for d, k in zip(dilation, size, strict=True)
    ]
    weight, x = draw(*channels, *size, seed=3), draw(1, channels[1], *space, seed=4)
    dense = dilate_kernel(weight, dilation)
    close(conv(x, dense), conv(x, weight, dilation=dilation))
    close(conv(x, dense), TORCH[axes](x, weight, dilation=dilation))


def test_int_dilation_spares_the_channels_of_a_weight():
    assert dilate_kernel(draw(4, 5, 3, 3), 2).shape == (4, 5, 5, 5)
    assert dilate_kernel(draw(4, 5, 2, 3, 3), 3).shape == (4, 5, 4, 7, 7)
    assert dilate_kernel(draw(2, 2, 2), 2).shape == (3, 3, 3)
    assert dilate_kernel(draw(4, 5, 3), (2,)).shape == (4, 5, 5)


@pytest.mark.parametrize("size", [(3,), (2, 3), (2, 2, 3)])
def test_dilated_kernel_is_a_kronecker_product_trimmed(size):
    """KR-06, KR-07: E is d wide with one 1 at its first entry; d - 1 zeros trail."""
    for d in (1, 2, 3, 4):
        corner = np.zeros((d,) * len(size))
        corner[(0,) * len(size)] = 1
        full = np.kron(draw(*size).numpy(), corner)
        trimmed = full[tuple(slice(0, d * (k - 1) + 1) for k in size)]
        assert np.array_equal(dilate_kernel(draw(*size), d).numpy(), trimmed)
        assert np.count_nonzero(full) == np.count_nonzero(trimmed)


def test_the_gradient_of_a_dilated_kernel_is_read_at_its_taps():
    kernel, outer = draw(3, 2).requires_grad_(), draw(7, 4, seed=5)
    (dilate_kernel(kernel, 3) * outer).sum().backward()
    assert torch.equal(kernel.grad, outer[::3, ::3])
    weight = draw(2, 3, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: dilate_kernel(w, (2, 1)), (weight,))


# Products and cascades -----------------------------------------------------------


def test_kronecker_kernel_by_hand():
    first, second = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [10.0]])
    want = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    assert torch.equal(kronecker_kernel([first, second]), want)
    got = kronecker_kernel([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 10.0])])
    assert torch.equal(got, torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 30.0]))


def test_permuted_kernels_are_welcome():
    kernel, other = draw(2, 3, 4), draw(4, 2, 3, seed=1).permute(1, 2, 0)
    close(kronecker_kernel([other, kernel]), torch.kron(kernel, other.contiguous()))
    close(
        compose_kernels([other, kernel], [1, (2, 3, 4)]),
        torch.kron(kernel, other.contiguous()),
    )
    turned = kernel.permute(2, 0, 1)
    close(summed(*nearest_kronecker(turned, (2, 2, 1), 4)), turned)


@pytest.mark.parametrize("a", [2, 3, 4])
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("axes", [1, 2])
def test_cascade_is_one_convolution_with_the_kronecker_kernel(a, layers, axes):
    """KR-08: layer l dilated by a^l; `layers` counts them, and L counts from 0."""
    layers = layers if a ** (axes * layers) <= 5000 else 3
    kernels = [draw(*(a,) * axes, seed=seed) for seed in range(layers)]
    x = draw(1, 1, *(a**layers + 3,) * axes, seed=9)
    cascade = x
    for layer, kernel in enumerate(kernels):
        cascade = TORCH[axes](cascade, kernel[None, None], dilation=a**layer)
    close(conv(x, kronecker_kernel(kernels)[None, None]), cascade)
    steps = [a**layer for layer in range(layers)]
    close(compose_kernels(kernels, steps), kronecker_kernel(kernels))


def test_cascade_of_five_kernels_at_full_depth():
    """KR-09: L = 4 as the source counts, five kernels, in one dimension for a = 4."""
    kernels = [draw(4, seed=seed) for seed in range(5)]
    cascade = x = draw(1, 1, 4**5 + 7, seed=9)
    for layer, kernel in enumerate(kernels):
        cascade = conv(cascade, kernel[None, None], dilation=4**layer)
    close(conv(x, kronecker_kernel(kernels)[None, None]), cascade)


def test_the_wrong_order_is_another_kernel():
    kernels = [draw(3, 3, seed=seed) for seed in range(2)]
    cascade = compose_kernels(kernels, [1, 3])
    assert (kronecker_kernel(kernels[::-1]) - cascade).abs().max() > 0.1
    close(
        compose_kernels(kernels[::-1], [3, 1]), cascade
    )  # layers commute, factors not


def test_mixed_sizes_dilate_by_the_product_of_those_below():
    kernels = [draw(2, 3), draw(3, 2, seed=1), draw(1, 4, seed=2)]
    steps = [(1, 1), (2, 3), (6, 6)]
    close(compose_kernels(kernels, steps), kronecker_kernel(kernels))


@CASES
@given(data=st.data(), axes=st.integers(1, 3), seed=SEEDS)
def test_any_cascade_is_one_convolution(data, axes, seed):
    depth = data.draw(st.integers(1, 3))
    widths = [data.draw(st.integers(1, 3)) for _ in range(depth + 1)]
    largest = 4 if axes < 3 else 2
    sizes = [
        data.draw(st.tuples(*[st.integers(1, largest)] * axes)) for _ in range(depth)
    ]
    steps = [
        data.draw(st.tuples(*[st.integers(1, largest)] * axes)) for _ in range(depth)
    ]
    weights = [
        draw(widths[i + 1], widths[i], *size, seed=seed + i)
        for i, size in enumerate(sizes)
    ]
    field = [
        1
        + sum(
            step[axis] * (size[axis] - 1)
            for step, size in zip(steps, sizes, strict=True)
        )
        for axis in range(axes)
    ]
    x = draw(2, widths[0], *(size + 2 for size in field), seed=seed + 7)
    cascade = x
    for weight, step in zip(weights, steps, strict=True):
        cascade = TORCH[axes](cascade, weight, dilation=step)
    composite = compose_kernels(weights, steps)
    assert composite.shape == (widths[-1], widths[0], *field)
    close(conv(x, composite), cascade)


@CASES
@given(data=st.data(), axes=st.integers(1, 3), seed=SEEDS)
def test_compose_kernels_is_its_definition(data, axes, seed):
    depth = data.draw(st.integers(1, 4 if axes < 3 else 2))
    kernels = [
        draw(*data.draw(st.tuples(*[st.integers(1, 3)] * axes)), seed=seed + i)
        for i in range(depth)
    ]
    steps = [data.draw(st.integers(1, 3)) for _ in range(depth)]
    close(compose_kernels(kernels, steps), compose_kernels_ref(kernels, steps))


def test_compose_kernels_keeps_gradients():
    kernels = [draw(2, 2, 2, 2).requires_grad_(), draw(1, 2, 3, 2).requires_grad_()]
    check = torch.autograd.gradcheck
    assert check(lambda *k: compose_kernels(k, [1, (2, 3)]), tuple(kernels))
    bare = [draw(2, 2).requires_grad_(), draw(3, 2).requires_grad_()]
    assert check(lambda *k: kronecker_kernel(k), tuple(bare))


def test_channels_add_one_kronecker_product_each():
    """KR-14: the composite is a sum over channel paths, so its rank is their number."""
    for hidden in range(1, 12):
        below, above = draw(hidden, 1, 3, 3, seed=1), draw(1, hidden, 3, 3, seed=2)
        composite = compose_kernels([below, above], [1, 3])[0, 0]
        want = sum(torch.kron(above[0, c], below[c, 0]) for c in range(hidden))
        close(composite, want)
        rank = torch.linalg.matrix_rank(rearrange_blocks(composite, (3, 3)))
        assert rank == min(hidden, 9)


@pytest.mark.parametrize(("d", "rank"), [(1, 4), (2, 4), (3, 1), (4, 1)])
def test_the_kronecker_rank_of_two_layers(d, rank):
    """KR-20: padded to whole blocks of d, one layer of 3 x 3 over another. The kernel
    below is 3 wide, so each of its axes spills into ceil(3 / d) neighbouring blocks."""
    kernels = [draw(3, 3, seed=1), draw(3, 3, seed=2)]
    composite = compose_kernels(kernels, [1, d])
    block = d if d > 1 else 2
    whole = -(-composite.shape[0] // block) * block
    padded = F.pad(composite, (0, whole - composite.shape[0]) * 2)
    blocks = rearrange_blocks(padded, (whole // block,) * 2)
    assert torch.linalg.matrix_rank(blocks) == rank


@CASES
@given(
    layers=st.lists(
        st.tuples(st.integers(2, 4), st.integers(1, 9)), max_size=4, min_size=1
    )
)
def test_holes_are_predicted_by_sorting_the_dilations(layers):
    """Chapter 2, section 2.5: none exactly if each d is at most the size below it."""
    layers = sorted(layers, key=lambda layer: layer[1])
    sizes = [1 + sum(d * (k - 1) for k, d in layers[:i]) for i in range(len(layers))]
    predicted = all(d <= s for (_, d), s in zip(layers, sizes, strict=True))
    kernels = [torch.ones(k, dtype=torch.float64) for k, _ in layers]
    paths = compose_kernels(kernels, [d for _, d in layers])
    assert predicted == bool((paths > 0).all())


def test_the_parameters_of_three_kernels_leave_25_degrees_of_freedom():
    """KR-05, KR-16: 27 numbers, two scales cancel; rank one at 27 x 27 takes 54 - 1."""
    kernels = tuple(draw(3, 3, seed=seed) for seed in range(3))
    jacobian = torch.autograd.functional.jacobian(
        lambda *k: kronecker_kernel(k).flatten(), kernels
    )
    assert _rank(jacobian) == 25
    outer = torch.autograd.functional.jacobian(
        lambda column, row: torch.outer(column, row).flatten(),
        (draw(27, seed=1), draw(27, seed=2)),
    )
    assert _rank(outer) == 53


def _rank(jacobian):
    return int(torch.linalg.matrix_rank(torch.cat([j.flatten(1) for j in jacobian], 1)))


def test_a_dilated_circular_stack_is_equivariant_and_a_padded_one_is_not():
    """KR-22, KR-26, KR-27: exact on a torus; with zeros the border breaks it."""
    x, weight = draw(1, 1, 12, 12), draw(1, 1, 3, 3, seed=1)

    def stack(x, mode):
        for d in (1, 2, 4):
            x = F.conv2d(F.pad(x, (d,) * 4, mode=mode), weight, dilation=d)
        return x

    shifted = x.roll((3, 5), (2, 3))
    torus = stack(x, "circular").roll((3, 5), (2, 3))
    close(stack(shifted, "circular"), torus)
    gap = (stack(shifted, "constant") - stack(x, "constant").roll((3, 5), (2, 3))).abs()
    assert gap.max() > 0.1


# Approximation -------------------------------------------------------------------


def test_rearrangement_of_a_product_is_an_outer_product():
    for p, q in [((3,), (2,)), ((2, 3), (3, 2)), ((2, 1, 3), (1, 2, 2))]:
        left, right = draw(*p), draw(*q, seed=1)
        blocks = rearrange_blocks(torch.kron(left, right), p)
        close(blocks, torch.outer(left.flatten(), right.flatten()))


@CASES
@given(data=st.data(), axes=st.integers(1, 3), seed=SEEDS)
def test_the_nearest_sum_misses_the_tail_of_the_singular_values(data, axes, seed):
    shape = data.draw(st.tuples(*[st.integers(1, 3)] * axes))
    inner = data.draw(st.tuples(*[st.integers(1, 3)] * axes))
    kernel = draw(*(p * q for p, q in zip(shape, inner, strict=True)), seed=seed)
    values = torch.linalg.svdvals(rearrange_blocks(kernel, shape))
    for rank in range(1, min(prod(shape), prod(inner)) + 1):
        left, right = nearest_kronecker(kernel, shape, rank)
        assert left.shape == (rank, *shape) and right.shape == (rank, *inner)
        error = (kernel - summed(left, right)).norm()
        assert abs(error - values[rank:].norm()) <= 1e-10
        close(left.flatten(1).norm(dim=1), right.flatten(1).norm(dim=1))
        assert all(row[row.abs().argmax()] > 0 for row in left.flatten(1))


def test_nearest_kronecker_is_exact_on_products():
    for layers in (2, 3):
        kernel = kronecker_kernel([draw(3, 3, seed=seed) for seed in range(layers)])
        for shape in [(3, 3), (3 ** (layers - 1),) * 2]:
            close(summed(*nearest_kronecker(kernel, shape)), kernel)


def test_no_random_perturbation_is_nearer():
    kernel = draw(6, 9, seed=3)
    left, right = nearest_kronecker(kernel, (2, 3), rank=2)
    best = float((kernel - summed(left, right)).norm())
    for trial in range(1000):
        scale = 10.0 ** -(trial % 5)
        near_left = left + scale * draw(*left.shape, seed=2 * trial)
        near_right = right + scale * draw(*right.shape, seed=2 * trial + 1)
        error = float((kernel - summed(near_left, near_right)).norm())
        assert error >= best - 1e-12, f"{trial=}: {error} below {best}"


def test_leading_axes_are_a_batch():
    kernels = draw(4, 5, 6, 6)
    left, right = nearest_kronecker(kernels, (2, 3), rank=2)
    assert left.shape == (4, 5, 2, 2, 3) and right.shape == (4, 5, 2, 3, 2)
    column, row = low_rank(kernels, 3)
    for i, j in [(0, 0), (3, 4)]:
        alone = nearest_kronecker(kernels[i, j], (2, 3), rank=2)
        close(summed(left[i, j], right[i, j]), summed(*alone), tol=1e-10)
        u, s, v = np.linalg.svd(kernels[i, j].numpy())
        want = torch.from_numpy((u[:, :3] * s[:3]) @ v[:3])
        close(column[i, j].T @ row[i, j], want, tol=1e-10)


def test_low_rank_by_hand_and_as_two_convolutions():
    """KR-15: a rank-one filter is a column filter after a row filter."""
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    column, row = low_rank(sobel, 1)
    close(torch.outer(column[0], row[0]), sobel, tol=1e-6)
    kernel, x = draw(5, 4), draw(1, 1, 12, 11, seed=1)
    for rank in (1, 2, 4):
        column, row = low_rank(kernel, rank)
        both = sum(
            conv(conv(x, r[None, None, None]), c[None, None, :, None])
            for c, r in zip(column, row, strict=True)
        )
        close(conv(x, (column.T @ row)[None, None]), both)
    close(column.T @ row, kernel)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_gradient_of_the_nearest_sum(rank):
    kernel = draw(4, 9, seed=rank).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: _sum(k, (2, 3), rank), (kernel,))
    if rank == 1:  # then each factor has its own gradient
        factors = lambda k: nearest_kronecker(k, (2, 3))  # noqa: E731
        assert torch.autograd.gradcheck(factors, (kernel,))


def test_the_gradient_survives_equal_singular_values():
    u, v = (torch.linalg.qr(draw(n, n, seed=n))[0][:, :4] for n in (4, 6))
    kernel = (u * torch.tensor([2.0, 2, 0.5, 0.5]).double()) @ v.T
    kernel.requires_grad_()
    cut = lambda k: torch.einsum("ra,rb->ab", *low_rank(k, 2))  # noqa: E731
    assert torch.autograd.gradcheck(cut, (kernel,))
    product = torch.kron(draw(2, 3), draw(2, 2, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: _sum(k, (2, 3), 1), (product,))
    for awkward, rank in [(product, 2), (torch.zeros_like(product), 1)]:
        awkward = awkward.detach().requires_grad_()
        _sum(awkward, (2, 3), rank).square().sum().backward()
        assert awkward.grad.isfinite().all()


def _sum(kernel, shape, rank):
    left, right = nearest_kronecker(kernel, shape, rank)
    return torch.einsum("rab,rcd->acbd", left, right).reshape(kernel.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_are_kept(dtype):
    kernel = draw(6, 6, dtype=dtype)
    assert dilate_kernel(kernel, 2).dtype == dtype
    assert kronecker_kernel([kernel, kernel]).dtype == dtype
    assert compose_kernels([kernel, kernel], [1, 2]).dtype == dtype
    factors = (*nearest_kronecker(kernel, (2, 2)), *low_rank(kernel, 2))
    assert all(factor.dtype == dtype for factor in factors)


# Errors --------------------------------------------------------------------------

K = torch.ones(3, 3)
ERRORS = [
    (lambda: dilate_kernel(K, 0), r"dilation must be an integer >= 1, got 0"),
    (lambda: dilate_kernel(K, 1.5), r"dilation must be an int or a tuple .* got 1.5"),
    (lambda: dilate_kernel(K, (1, 2, 3)), r"a tuple of 1 to 2 ints, got \(1, 2, 3\)"),
    (lambda: dilate_kernel(K, (2, 0)), r"dilation must be an integer >= 1, got 0"),
    (lambda: dilate_kernel(K.int(), 2), r"kernel must be float32 or float64"),
    (lambda: dilate_kernel(K[0, 0], 2), r"kernel must have at least 1 axes"),
    (lambda: dilate_kernel(K[:0], 2), r"kernel must not be empty, got \(0, 3\)"),
    (lambda: kronecker_kernel([]), r"kernels must be a list of at least one, got \[\]"),
    (lambda: kronecker_kernel(K), r"kernels must be a list of at least one"),
    (lambda: kronecker_kernel([K, K[0]]), r"kernels\[1\] must have 2 axes"),
    (lambda: kronecker_kernel([K, K.double()]), r"kernels\[1\] must have the dtype"),
    (lambda: compose_kernels([K, K], [1]), r"one entry a kernel, 2, got \[1\]"),
    (lambda: compose_kernels([K[0]], 2), "dilations must have one entry a kernel, 1,"),
    (
        lambda: compose_kernels([K, K], [1, (2,)]),
        r"dilations must agree on the spatial axes",
    ),
    (lambda: compose_kernels([K], [(2,)]), r"\(\*k\) or \(C_out, C_in, \*k\) with"),
    (
        lambda: compose_kernels(
            [torch.ones(4, 1, 3, 3), torch.ones(2, 3, 3, 3)], [1, 2]
        ),
        r"kernels\[1\] must take the 4 channels that kernels\[0\] gives",
    ),
    (lambda: rearrange_blocks(K, (2, 3)), r"divide the last axes of \(3, 3\), got \(2"),
    (lambda: rearrange_blocks(K, 3), r"shape must be ints that divide"),
    (lambda: rearrange_blocks(K, (3, 3, 3)), r"shape must be ints that divide"),
    (lambda: rearrange_blocks(K, ()), r"shape must be ints that divide"),
    (lambda: rearrange_blocks(K, (0, 3)), r"shape must be an integer >= 1, got 0"),
    (lambda: rearrange_blocks(K.int(), (3, 3)), r"kernel must be float32 or float64"),
    (lambda: nearest_kronecker(K, (3, 3), 2), r"rank must be <= 1, got 2"),
    (lambda: nearest_kronecker(K, (3, 1), 0), r"rank must be an integer >= 1, got 0"),
    (lambda: low_rank(K, 4), r"rank must be <= 3, got 4"),
    (lambda: low_rank(K[0], 1), r"kernel must have at least 2 axes"),
    (lambda: low_rank(K.int(), 1), r"kernel must be float32 or float64"),
    (lambda: low_rank(K * torch.nan, 1), "kernel must be finite, got NaN or an"),
    (lambda: low_rank(K / 0, 1), "kernel must be finite, got NaN or an"),
    (lambda: nearest_kronecker(K * torch.nan, (3, 1)), "kernel must be finite, got"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors_name_argument_rule_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
