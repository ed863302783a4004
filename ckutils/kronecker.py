"""Dilated kernels as Kronecker products, cascades as one kernel, and the way back.

Which axes are space? `dilation` says it. An int dilates a bare kernel (*k) of one to
three axes along all of them, and a layer's weight (C_out, C_in, *k) of four or more
axes along its *k. A tuple has one entry for each spatial axis and settles every case;
the axes before them are carried along. The weight (C_out, C_in, k) of a 1-D layer needs
the tuple (d,), because its three axes look like those of a bare 3-D kernel.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from numbers import Integral

import torch
from torch import Tensor

from ckutils.checks import check_float, check_int, check_ndim, check_same, per_axis
from ckutils.convolution import conv_transpose

# Dilation ------------------------------------------------------------------------


def dilate_kernel(kernel: Tensor, dilation: int | Sequence[int]) -> Tensor:
    """The kernel with d - 1 zeros between taps: K (x) E_d without its trailing zeros.

    Chapter 2, eq. (2.5). Correlating with it is correlating with `kernel` at dilation
    d; as K (x) E_d has size dk and ends in d - 1 zeros, it is trimmed to d(k - 1) + 1.
    Source: Yu and Koltun 2016, eq. 2, and Huszar 2016 for the Kronecker form.

    Args:
        kernel: (*k) or (C_out, C_in, *k), float32 or float64; index 0 keeps its place.
        dilation: d >= 1, 1 leaves the kernel as it is; an int, or a tuple with one
            entry for each trailing spatial axis (see the head of this module).
    Returns the kernel like `kernel`, each spatial axis of size d(k - 1) + 1.
    Raises ValueError if the kernel is empty or `dilation` is no integer >= 1.

    >>> dilate_kernel(torch.tensor([1.0, 2.0, 3.0]), 2)
    tensor([1., 0., 2., 0., 3.])
    """
    _check_kernels([kernel])
    return _dilate(kernel, _spatial_dilation(kernel, dilation))


def _dilate(kernel: Tensor, dilation: tuple[int, ...]) -> Tensor:
    lead = kernel.ndim - len(dilation)
    spread = [
        d * (k - 1) + 1 for d, k in zip(dilation, kernel.shape[lead:], strict=True)
    ]
    dilated = kernel.new_zeros(*kernel.shape[:lead], *spread)
    dilated[(..., *(slice(None, None, d) for d in dilation))] = kernel
    return dilated


# Products and cascades -----------------------------------------------------------


def kronecker_kernel(kernels: Sequence[Tensor]) -> Tensor:
    """K_L (x) ... (x) K_1 (x) K_0: the kernel of an exponentially dilated cascade.

    Chapter 2, eq. (2.9). `kernels[0]` is applied first, with dilation 1, and is the
    rightmost factor; `kernels[l]` has along each axis the product of the sizes of
    those before it as dilation (a^l if all are a wide). Source: Huszar 2016.

    Args:
        kernels: L + 1 tensors (*k), all axes spatial, equally many; sizes may differ.
    Returns one kernel; along each axis its size is the product of theirs.
    Raises ValueError if there is none, one is empty, or axes, dtypes or devices differ.

    >>> kronecker_kernel([torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0])])
    tensor([ 1.,  2., 10., 20.])
    """
    _check_kernels(kernels)
    # torch.kron reads its operands with view, which permuted ones may not allow
    product, *rest = (kernel.contiguous() for kernel in kernels)
    for kernel in rest:
        product = torch.kron(kernel, product)
    return product


def compose_kernels(
    kernels: Sequence[Tensor], dilations: Sequence[int | Sequence[int]]
) -> Tensor:
    """The one kernel that does what a cascade of dilated correlations does.

    C[m] = sum of K_L[j_L] ... K_1[j_1] K_0[j_0] over d_L j_L + ... + d_0 j_0 = m
    (matrix products over channels), chapter 2, eq. (2.7). It is the full convolution
    of the dilated kernels; none is flipped, because offsets of correlations add. It
    holds where no layer pads; chapter 2 computes the strip in which padding differs.

    Args:
        kernels: in the order of application, all (*k) or all (C_out, C_in, *k).
        dilations: one entry a kernel, each as in `dilate_kernel`.
    Returns (*m) or (C_out of the last, C_in of the first, *m) with
        m = 1 + sum of d(k - 1).
    Raises ValueError if lengths, axes, channels, dtypes or devices do not fit.
    Cost: one transposed convolution of the composite so far a layer.

    >>> compose_kernels([torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0])], [1, 1])
    tensor([1., 3., 2.])
    """
    _check_kernels(kernels)
    if not isinstance(dilations, Sequence) or len(dilations) != len(kernels):
        raise ValueError(
            f"dilations must have one entry a kernel, {len(kernels)}, got {dilations!r}"
        )
    steps = [_spatial_dilation(k, d) for k, d in zip(kernels, dilations, strict=True)]
    axes = {len(step) for step in steps}
    if len(axes) > 1:
        raise ValueError(f"dilations must agree on the spatial axes, got {dilations!r}")
    bare = kernels[0].ndim == axes.pop()
    weights = [kernel[None, None] for kernel in kernels] if bare else list(kernels)
    _check_chain(weights, steps)
    composite = _compose(weights, steps)
    return composite[0, 0] if bare else composite


def _compose(weights: list[Tensor], steps: list[tuple[int, ...]]) -> Tensor:
    composite = _dilate(weights[0], steps[0]).transpose(0, 1)  # (c_in, c_0, *m)
    for weight, step in zip(weights[1:], steps[1:], strict=True):
        # the input channels of the whole cascade travel as the batch
        composite = conv_transpose(composite, weight.transpose(0, 1), dilation=step)
    return composite.transpose(0, 1)  # (c_out, c_in, *m)


def compose_kernels_ref(kernels, dilations):
    """compose_kernels for bare kernels, tap by tap: eq. (2.7) as it is written."""
    composite = dilate_kernel(kernels[0], dilations[0])
    for kernel, d in zip(kernels[1:], dilations[1:], strict=True):
        room = [
            m + d * (k - 1) for m, k in zip(composite.shape, kernel.shape, strict=True)
        ]
        longer = composite.new_zeros(room)
        for tap in torch.cartesian_prod(*map(torch.arange, kernel.shape)).tolist():
            tap = tap if isinstance(tap, list) else [tap]
            at = tuple(
                slice(d * j, d * j + m)
                for j, m in zip(tap, composite.shape, strict=True)
            )
            longer[at] += kernel[tuple(tap)] * composite
        composite = longer
    return composite


# Approximation -------------------------------------------------------------------


def rearrange_blocks(kernel: Tensor, shape: Sequence[int]) -> Tensor:
    """Van Loan's rearrangement: row i is the i-th block of the kernel, flattened.

    Chapter 2, eq. (2.14). `shape` counts the blocks along each axis, in A (x) B the
    shape of A. The rearrangement of A (x) B is vec(A) vec(B)^T, so the rank of this
    matrix is the smallest number of Kronecker products that sum to the kernel.
    Source: Van Loan and Pitsianis 1993.

    Args:
        kernel: (..., *n), each n a multiple of the entry of `shape`.
    Returns (..., prod(shape), prod(n) / prod(shape)).
    Raises ValueError if `shape` does not divide the trailing axes of `kernel`.

    >>> rearrange_blocks(torch.arange(4.0), (2,))
    tensor([[0., 1.],
            [2., 3.]])
    """
    check_float(kernel=kernel)
    shape, inner = _blocks(kernel, shape)
    lead, axes = kernel.shape[: kernel.ndim - len(shape)], len(shape)
    split = [size for pair in zip(shape, inner, strict=True) for size in pair]
    blocks = kernel.reshape(*lead, *split)  # (..., p1, q1, p2, q2, ...)
    first = len(lead)
    order = [*range(first), *range(first, first + 2 * axes, 2)]
    order += range(first + 1, first + 2 * axes, 2)
    return blocks.permute(order).reshape(*lead, prod(shape), prod(inner))


def nearest_kronecker(
    kernel: Tensor, shape: Sequence[int], rank: int = 1
) -> tuple[Tensor, Tensor]:
    """The `rank` pairs whose sum of left[r] (x) right[r] is nearest to the kernel.

    Chapter 2, eq. (2.15): the rearranged kernel cut after `rank` singular values. No
    other sum of `rank` such products is nearer in the sum of squares, and the squared
    error is the sum of the squares of the values cut off.
    Source: Van Loan and Pitsianis 1993.

    Args:
        kernel: (..., *n), float32 or float64; leading axes are a batch.
        shape: the shape of the LEFT factor, the coarse one, one entry an axis; it
            divides n, and the right factor has shape n / shape.
        rank: number of pairs, at most min(prod(shape), prod(n / shape)).
    Returns left (..., rank, *shape) and right (..., rank, *(n / shape)), strongest pair
        first, the two of a pair equally long, the largest entry of left[r] positive.
    Raises ValueError if `shape` does not divide n, `rank` is out of range, or the
        kernel is not finite.
    Gradients: exact (first derivatives) for whatever depends on the sum of the pairs,
        also where singular values are equal, which torch's own rule turns into NaN.
        With rank = 1 also for each factor. Only a tie across the cut has no gradient,
        as there the nearest sum jumps; its terms are then left out.

    >>> left, right = nearest_kronecker(torch.tensor([4.0, 2.0, 8.0, 4.0]), (2,))
    >>> torch.kron(left[0], right[0]).round()
    tensor([4., 2., 8., 4.])
    """
    matrix = rearrange_blocks(kernel, shape)
    shape, inner = _blocks(kernel, shape)
    left, right = _truncate(matrix, rank)
    lead = matrix.shape[:-2]
    return left.reshape(*lead, rank, *shape), right.reshape(*lead, rank, *inner)


def low_rank(kernel: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The columns and rows whose sum of column[r] row[r]^T is nearest to the kernel.

    Chapter 2, eq. (2.16): the singular value decomposition cut after `rank` values
    (Eckart and Young 1936). Rank 1 is a separable filter.

    Args:
        kernel: (..., h, w), float32 or float64; leading axes are a batch.
        rank: from 1 to min(h, w).
    Returns column (..., rank, h) and row (..., rank, w), strongest first, signs,
        lengths and gradients as in `nearest_kronecker`.
    Raises ValueError if the kernel has fewer than two axes or is not finite, or `rank`
        is out of range.

    >>> column, row = low_rank(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), 1)
    >>> (column[0][:, None] * row[0]).round()
    tensor([[1., 2.],
            [2., 4.]])
    """
    check_float(kernel=kernel)
    check_ndim(2, kernel=kernel)
    return _truncate(kernel, rank)


def _truncate(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left (..., rank, p), right (..., rank, q), nearest sum of left[r] right[r]^T."""
    check_int(1, rank=rank)
    if rank > min(matrix.shape[-2:]):
        raise ValueError(f"rank must be <= {min(matrix.shape[-2:])}, got {rank}")
    if not bool(matrix.isfinite().all()):
        raise ValueError("kernel must be finite, got NaN or an infinity")
    with torch.no_grad():
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        top = u[..., :rank].gather(-2, u[..., :rank].abs().argmax(-2, keepdim=True))
        sign = torch.ones_like(s)
        sign[..., :rank] = torch.where(top < 0, -1, 1).squeeze(-2)
        u, v = u * sign.unsqueeze(-2), vt.mT * sign.unsqueeze(-2)
    if matrix.requires_grad and torch.is_grad_enabled():
        left, right = _attach_gradient(matrix, u, s, v, rank)
    else:
        root = s[..., None, :rank].sqrt()
        left, right = u[..., :rank] * root, v[..., :rank] * root
    return left.mT, right.mT


def _attach_gradient(matrix, u, s, v, rank):
    """The factors as functions of the matrix, linear around it; u, s, v are constants.

    With x = u^T M v (diagonal now), a change dx moves the kept part by dx inside the
    kept block and, between a kept i and a dropped j, by
        du[j, i] = (s_i x_ji + s_j x_ij) / (s_i^2 - s_j^2), and for dv the same with
    x_ij and x_ji exchanged. Nothing divides by a gap inside the block or outside it.
    """
    keep, noise = s[..., :rank], torch.finfo(s.dtype).eps * max(matrix.shape[-2:])
    floor = noise * s[..., :1]
    root = keep.unsqueeze(-2).sqrt()  # (..., 1, r)
    per_root = torch.where(keep > floor, keep, torch.inf).rsqrt().unsqueeze(-2)
    mv, mu = (
        matrix @ v[..., :rank],
        matrix.mT @ u[..., :rank],
    )  # (..., p, r), (..., q, r)
    x, y = u.mT @ mv, v.mT @ mu  # x_ji and x_ij, (..., n, r)
    inside = (x[..., :rank, :] - torch.diag_embed(keep)) * per_root / 2
    inside_v = (y[..., :rank, :] - torch.diag_embed(keep)) * per_root / 2
    drop = s[..., rank:].unsqueeze(-1)  # (..., n - r, 1)
    gap = keep.unsqueeze(-2) ** 2 - drop**2
    gap = torch.where(gap > floor.unsqueeze(-1) * keep.unsqueeze(-2), gap, torch.inf)
    xd, yd = x[..., rank:, :], y[..., rank:, :]
    out = (keep.unsqueeze(-2) * xd + drop * yd) / gap * root
    out_v = (keep.unsqueeze(-2) * yd + drop * xd) / gap * root
    left = u[..., :rank] * root + u @ torch.cat([inside, out], -2)
    right = v[..., :rank] * root + v @ torch.cat([inside_v, out_v], -2)
    # what leaves the span of the thin u or v: there the other singular value is 0
    return left + (mv - u @ x) * per_root, right + (mu - v @ y) * per_root


# Rules for arguments -------------------------------------------------------------


def _check_kernels(kernels) -> None:
    if not isinstance(kernels, list | tuple) or not kernels:
        raise ValueError(f"kernels must be a list of at least one, got {kernels!r}")
    named = {f"kernels[{i}]": kernel for i, kernel in enumerate(kernels)}
    if len(kernels) == 1:
        named = {"kernel": kernels[0]}
    check_float(**named)
    check_ndim(1, **named)
    check_same(**named)
    for name, kernel in named.items():
        if kernel.numel() == 0:
            raise ValueError(f"{name} must not be empty, got {tuple(kernel.shape)}")
        if kernel.ndim != kernels[0].ndim:
            raise ValueError(
                f"{name} must have {kernels[0].ndim} axes, as the first kernel has, "
                f"got shape {tuple(kernel.shape)}"
            )


def _spatial_dilation(kernel: Tensor, dilation) -> tuple[int, ...]:
    if isinstance(dilation, Integral):
        axes = kernel.ndim if kernel.ndim <= 3 else kernel.ndim - 2
    elif isinstance(dilation, tuple | list) and 1 <= len(dilation) <= kernel.ndim:
        axes = len(dilation)
    else:
        raise ValueError(
            f"dilation must be an int or a tuple of 1 to {kernel.ndim} ints, got "
            f"{dilation!r}"
        )
    (steps,) = per_axis(1, axes, dilation=dilation)
    return steps


def _check_chain(weights: list[Tensor], steps: list[tuple[int, ...]]) -> None:
    if weights[0].ndim != len(steps[0]) + 2:
        raise ValueError(
            "kernels must be (*k) or (C_out, C_in, *k) with one entry of dilation for "
            f"each axis of *k, got shape {tuple(weights[0].shape)} and {steps[0]}"
        )
    for i, (lower, upper) in enumerate(pairwise(weights)):
        if upper.shape[1] != lower.shape[0]:
            raise ValueError(
                f"kernels[{i + 1}] must take the {lower.shape[0]} channels that "
                f"kernels[{i}] gives, got shape {tuple(upper.shape)}"
            )


def _blocks(kernel: Tensor, shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of the left and of the right factor."""
    axes = len(shape) if isinstance(shape, tuple | list | torch.Size) else 0
    sizes = tuple(kernel.shape[kernel.ndim - axes :]) if axes <= kernel.ndim else ()
    rule = f"shape must be ints that divide the last axes of {tuple(kernel.shape)}"
    if axes == 0 or not sizes:
        raise ValueError(f"{rule}, got {shape!r}")
    (shape,) = per_axis(1, axes, shape=tuple(shape))
    if any(n % p or n == 0 for n, p in zip(sizes, shape, strict=True)):
        raise ValueError(f"{rule}, got {shape!r}")
    return shape, tuple(n // p for n, p in zip(sizes, shape, strict=True))
