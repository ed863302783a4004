"""Dot-product kernels, the inverse square root with its gradient, Nystrom features.

Chapter 5, sections 5.2, 5.3 and 5.7. Letters: d numbers a patch, n patches, p anchors.
Anchors are unit rows (p, d).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ckutils.checks import (
    check_choice,
    check_float,
    check_int,
    check_number,
    check_same,
)

# Dot-product kernels: kappa(<y, y'>) of unit vectors, kappa(1) = 1 ----------------


def exponential_kernel(u: Tensor, beta: float | Tensor) -> Tensor:
    """kappa(u) = exp(beta (u - 1)): the Gaussian kernel of unit vectors.

    Chapter 5, eq. (5.8). On the sphere |y - y'|^2 = 2 - 2 u, so that this is
    exp(-beta/2 |y - y'|^2): a Gaussian with sigma^2 = 1 / beta. Source: Mairal 2016.

    Args:
        u: inner products of unit vectors, any shape, float32 or float64.
        beta: > 0; a tensor makes it learnable, may be stretched along the axes of u,
            and its values are not checked.
    Returns a tensor like u. Raises ValueError for other types, a beta <= 0 or one whose
        shape does not fit u.

    >>> exponential_kernel(torch.tensor([1.0]), 4.0)
    tensor([1.])
    """
    check_float(u=u)
    if isinstance(beta, Tensor):
        sizes = zip(reversed(beta.shape), reversed(u.shape), strict=False)
        if beta.ndim > u.ndim or any(n not in (1, most) for n, most in sizes):
            raise ValueError(
                f"beta must fit the shape of u, {tuple(u.shape)}, got shape "
                f"{tuple(beta.shape)}"
            )
        beta = beta.to(u.dtype)
    else:
        check_number(0, beta=beta)
        if beta == 0:
            raise ValueError(f"beta must be > 0, got {beta!r}")
    return (u - 1).mul_(beta).exp_()  # in place: one new array instead of three


def polynomial_kernel(u: Tensor, degree: int, *, offset: float = 0.0) -> Tensor:
    """kappa(u) = ((u + offset) / (1 + offset))^degree.

    Chapter 5, eq. (5.9). Offset 0 keeps the monomials of one degree, a positive one all
    up to it; a negative one has a negative Taylor coefficient and is refused.

    Args:
        u: inner products of unit vectors, any shape, float32 or float64.
        degree: >= 1. offset: >= 0.
    Returns a tensor like u. Raises ValueError outside of these ranges.

    >>> polynomial_kernel(torch.tensor([1.0, 3.0]), 2, offset=1.0)
    tensor([1., 4.])
    """
    check_float(u=u)
    check_int(1, degree=degree)
    check_number(0, offset=offset)
    return ((u + offset) / (1 + offset)) ** degree


def arc_cosine_kernel(u: Tensor) -> Tensor:
    """kappa(u) = (sqrt(1 - u^2) + u (pi - arccos u)) / pi: infinitely many ReLUs.

    Chapter 5, eq. (5.10). kappa(1) = 1, kappa(0) = 1/pi, kappa(-1) = 0. The slope is
    1 - arccos(u)/pi, finite at both ends, where autograd would subtract infinities.
    Source: Cho and Saul 2009, degree 1.

    Args:
        u: inner products of unit vectors, any shape, float32 or float64; rounding may
            have carried them beyond [-1, 1], they are put back.
    Returns a tensor like u. Raises ValueError for other types.

    >>> arc_cosine_kernel(torch.tensor([-1.0, 1.0])).round()
    tensor([0., 1.])
    """
    check_float(u=u)
    return _ArcCosine.apply(u)


class _ArcCosine(torch.autograd.Function):
    """Eq. (5.10) with its slope written out."""

    @staticmethod
    def forward(ctx, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        u = u.clamp(-1, 1)
        return ((1 - u * u).sqrt() + u * (math.pi - u.acos())) / math.pi

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return grad * (1 - u.clamp(-1, 1).acos() / math.pi)


# The inverse square root and its gradient -----------------------------------------


def inverse_sqrt(gram: Tensor, eps: float = 1e-3, *, method: str = "eigh") -> Tensor:
    """(gram + eps I)^(-1/2) of a symmetric positive semi-definite matrix.

    Chapter 5, eqs. (5.13) and (5.20). Both methods have the exact gradient, equal
    eigenvalues included, to any order.

    Args:
        gram: (..., p, p), float32 or float64; its symmetric part is used.
        eps: ridge, added before the root. With 0 (method "eigh" only), eigenvalues
            below p eps(dtype) lambda_max count as 0 and the root is taken on the range
            alone; the gradient then needs a gram of full rank.
        method: "eigh", or "newton_schulz": coupled iteration, matrix products only.
    Returns (..., p, p) like gram. Raises ValueError for a matrix that is not square, a
        negative eps, an unknown method, or eps = 0 with "newton_schulz".
    Accuracy: p x p is small beside the images, so both methods compute in float64 and
        round once. Cost: eigh about 9 p^3; Newton-Schulz 6 p^3 a step, and about
        2.5 log10(p / eps) + 5 steps.

    >>> inverse_sqrt(torch.tensor([[3.0, 0.0], [0.0, 15.0]]), 1.0)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    check_float(gram=gram)
    check_number(0, eps=eps)
    check_choice(SOLVERS, method=method)
    if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2]:
        raise ValueError(f"gram must be square, got shape {tuple(gram.shape)}")
    if eps == 0 and method == "newton_schulz":
        raise ValueError(f"eps must be > 0 for newton_schulz, got {eps!r}")
    if gram.numel() == 0:  # no entry, hence no largest one to scale by
        return gram.clone()
    wide = gram.double()
    eye = torch.eye(gram.shape[-1], dtype=wide.dtype, device=gram.device)
    ridged = (wide + wide.mT) / 2 + eps * eye
    # what rounding leaves of a zero eigenvalue has the size that gram's own dtype gives
    noise = gram.shape[-1] * torch.finfo(gram.dtype).eps if eps == 0 else 0.0
    return _InverseSqrt.apply(ridged, SOLVERS[method], noise).to(gram.dtype)


class _InverseSqrt(torch.autograd.Function):
    """S = A^(-1/2). From S A S = I: dS R + R dS = -S dA S with R = A S = A^(1/2)."""

    @staticmethod
    def forward(ctx, matrix: Tensor, solver, noise: float) -> Tensor:
        inverse_root, ctx.lyapunov = solver(matrix, noise)
        ctx.save_for_backward(matrix, inverse_root)
        return inverse_root

    @staticmethod
    def backward(ctx, grad: Tensor):
        matrix, inverse_root = ctx.saved_tensors
        solution = _Lyapunov.apply(matrix @ inverse_root, grad, ctx.lyapunov)
        return -inverse_root @ solution @ inverse_root, None, None


class _Lyapunov(torch.autograd.Function):
    """The X with R X + X R = G; its own adjoint, hence differentiable to any order."""

    @staticmethod
    def forward(ctx, root: Tensor, right: Tensor, solve: Callable) -> Tensor:
        solution = solve(right)
        ctx.solve = solve
        ctx.save_for_backward(root, solution)
        return solution

    @staticmethod
    def backward(ctx, grad: Tensor):
        root, solution = ctx.saved_tensors
        right = _Lyapunov.apply(root, grad, ctx.solve)
        return -(right @ solution.mT + solution.mT @ right), right, None


def _spectral(matrix: Tensor, noise: float):
    """matrix^(-1/2), and the solver of R X + X R = G for its root R, by eigh."""
    values, vectors = torch.linalg.eigh(matrix)  # (..., p), (..., p, p)
    kept = values > noise * values[..., -1:].clamp_min(0)
    root = torch.where(kept, values, 0).sqrt()
    inverse = torch.where(kept, values, torch.inf).rsqrt()
    sums = root.unsqueeze(-1) + root.unsqueeze(-2)  # never a difference: equal is fine
    sums = torch.where(sums > 0, sums, torch.inf)

    def lyapunov(right: Tensor) -> Tensor:
        return vectors @ ((vectors.mT @ right @ vectors) / sums) @ vectors.mT

    return (vectors * inverse.unsqueeze(-2)) @ vectors.mT, lyapunov


def _newton_schulz(matrix: Tensor, noise: float):
    """The same two by Newton-Schulz: y -> (matrix/c)^(1/2), z -> (matrix/c)^(-1/2)."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    scale = _eigenvalue_bound(matrix)  # then all eigenvalues of y lie in (0, 1]
    y, z = matrix / scale, eye.expand_as(matrix)
    stop = _Stop()
    while (step := stop(z @ y)) is not None:
        y, z = y @ step, step @ z
    root = y * scale.sqrt()
    return z / scale.sqrt(), partial(_lyapunov_by_products, root)


def _lyapunov_by_products(root: Tensor, right: Tensor) -> Tensor:
    """X from sign([[R, G], [0, -R]]) = [[I, 2 X], [0, -I]], again by Newton-Schulz."""
    scale = _eigenvalue_bound(root)
    e, q = root / scale, right / scale
    stop = _Stop()
    while (step := stop(e @ e)) is not None:
        q = q @ step + e @ (q @ e - e @ q) / 2
        e = e @ step
    return q / 2


def _eigenvalue_bound(matrix: Tensor) -> Tensor:
    """A number (..., 1, 1) that no eigenvalue exceeds: row sums or Frobenius."""
    rows = matrix.abs().sum(-1).amax(-1)
    norm = matrix.square().sum((-2, -1)).sqrt()
    return torch.minimum(rows, norm)[..., None, None]


class _Stop:
    """(3 I - product) / 2; None once product = I to rounding, or comes no nearer."""

    def __init__(self, most: int = 100):
        self.left, self.last = most, math.inf

    def __call__(self, product: Tensor) -> Tensor | None:
        eye = torch.eye(product.shape[-1], dtype=product.dtype, device=product.device)
        gap = float((product - eye).abs().amax())
        self.left -= 1
        # far from I the gap may stay near 1 for many steps; near I it falls to rounding
        if gap < 1e-15 or (gap < 0.5 and gap >= self.last) or self.left < 0:
            return None
        self.last = gap
        return (3 * eye - product) / 2


SOLVERS = {"eigh": _spectral, "newton_schulz": _newton_schulz}

# Nystrom features -----------------------------------------------------------------


def nystrom_features(
    x: Tensor, anchors: Tensor, kernel: Callable[[Tensor], Tensor], eps: float = 0.0
) -> Tensor:
    """psi(x) = |x| (kappa(Z Z^T) + eps I)^(-1/2) kappa(Z x / |x|), Z the unit anchors.

    Chapter 5, eq. (5.12). <psi(x), psi(x')> is the kernel |x| |x'| kappa(cos) after the
    projection onto the span of the anchors: exact if x or x' is one and eps = 0.

    Args:
        x: (n, d), float32 or float64; psi(0) = 0.
        anchors: (p, d), like x; rows are normalised, zero rows contribute nothing.
        kernel: kappa, a callable of the inner product.
        eps: ridge inside the root. With 0 the root is taken on the range of the Gram
            matrix, so that repeated anchors do no harm.
    Returns (n, p) like x. Raises ValueError for other shapes, mixed dtypes or devices.
    Accuracy: computed in float64 and rounded once, because 1 / sqrt(lambda_min)
        multiplies every earlier rounding.

    >>> x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    >>> psi = nystrom_features(x, x, lambda u: u)
    >>> (psi @ psi.T).round()
    tensor([[25.,  8.],
            [ 8.,  4.]])
    """
    check_float(x=x, anchors=anchors)
    check_same(x=x, anchors=anchors)
    check_number(0, eps=eps)
    if x.ndim != 2 or anchors.ndim != 2 or x.shape[1] != anchors.shape[1]:
        raise ValueError(
            "x and anchors must be (n, d) and (p, d), got shapes "
            f"{tuple(x.shape)} and {tuple(anchors.shape)}"
        )
    norms, unit = polar(x.double())
    lengths, directions = polar(anchors.double())
    present = (lengths > 0).to(unit.dtype).mT  # (1, p): a zero row spans nothing
    gram = kernel(directions @ directions.mT) * present * present.mT  # (p, p)
    cross = norms * kernel(unit @ directions.mT) * present  # (n, p)
    return (cross @ inverse_sqrt(gram, eps)).to(x.dtype)


def polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (n, 1) and unit rows (n, d); a zero row stays 0, with gradient 0."""
    norm = guarded_sqrt(x.square().sum(-1, keepdim=True))
    return norm, x / torch.where(norm > 0, norm, 1)


def guarded_sqrt(square: Tensor) -> Tensor:
    """sqrt with slope 0 instead of infinity at 0."""
    positive = square > torch.finfo(square.dtype).tiny
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)
