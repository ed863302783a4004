"""Chapter 5, convolutional kernel networks: six checks and what they expect."""

import math
from collections.abc import Callable

import numpy as np
import torch

from ckutils.exercises.chapter1 import SUM, _normal, _row
from ckutils.exercises.engine import Case, verify


def _array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _unit_rows(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    z = _array(rows, columns, seed=seed)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


# 5.1 -----------------------------------------------------------------------------


def check_patch_kernel(f: Callable) -> None:
    """f(x, y, beta) -> the kernel of two patches: (5.5) with the exponential (5.7).

    Chapter 5, exercise 5.1, 5 minutes. x and y are float64 tensors (d,), beta a float;
    a float comes out, 0 if a patch is zero.
    """
    x, across = _row(3, 4), _row(-4, 3)
    cases = (
        Case((x, x, 2.0), 25.0, "kappa(1) = 1, so K(x, x) = |x|^2.", 1e-12),
        Case(
            (x, across, 1.0), 25 / math.e, "At a right angle kappa is e^-beta.", 1e-12
        ),
        Case((x, -x, 0.5), 25 / math.e, "Opposite patches have u = -1.", 1e-12),
        Case(
            (x, 2 * x, 2.0), 50.0, "Contrast multiplies: kappa sees angles only.", 1e-12
        ),
        Case((x, 0 * x, 1.0), 0.0, "A zero patch has no angle: 0 / 0 is NaN.", 1e-12),
    )
    verify("5.1", f, "x y beta", cases)


# 5.2 -----------------------------------------------------------------------------


def _gram(features, x, weights) -> torch.Tensor:
    if features.ndim != 2 or len(features) != len(x):
        raise ValueError(f"one row of features a point, got {tuple(features.shape)}")
    return features @ features.T


def check_power_features(f: Callable) -> None:
    """f(x, weights) -> finite features whose inner products are sum_j b_j <x, y>^j.

    Chapter 5, exercise 5.2, 20 minutes. x is a float64 tensor (n, d), weights the list
    b_0, b_1, ... of numbers >= 0, eq. (5.6); the result is (n, any).
    """
    x = _normal(5, 3)
    rows = (
        ([0.0, 1.0], "The first power is the inner product itself."),
        ([4.0, 0.0], "A constant is a coordinate too; its square is b_0."),
        ([0.0, 0.0, 1.0], "All products of two coordinates, as in 5.1."),
        ([0.5, 2.0, 3.0], "A product of features takes b_j twice: give each its root."),
        ([1.0, 1.0, 0.5, 1 / 6], "The third power: products of three coordinates."),
    )
    cases = [
        Case(
            (x, weights),
            sum(b * (x @ x.T) ** j for j, b in enumerate(weights)),
            hint,
            SUM,
            _gram,
            "the inner products",
        )
        for weights, hint in rows
    ]
    verify("5.2", f, "x weights", cases)


# 5.3 -----------------------------------------------------------------------------


def _windows(images: np.ndarray, k: int) -> np.ndarray:
    """Image by image, place by place, as one would by hand."""
    n, _, height, width = images.shape
    return np.stack(
        [
            images[i, :, row : row + k, column : column + k].ravel()
            for i in range(n)
            for row in range(height - k + 1)
            for column in range(width - k + 1)
        ]
    )


def check_image_order(f: Callable) -> None:
    """f(images, k) -> all k by k patches as rows, image by image.

    Chapter 5, exercise 5.3, 20 minutes. images is a NumPy array (n, c, h, w); the rows
    go through image 0 first, its places from left to right and top to bottom; a row is
    a patch of c k k entries, channel by channel. The dtype is kept.
    """
    two = np.stack([np.arange(9), 100 + np.arange(9)]).reshape(2, 1, 3, 3)
    rows = (
        (two[:1], 2, "One image, one channel: four patches of four."),
        (two, 2, "The first four rows all belong to image 0."),
        (np.arange(2 * 12).reshape(1, 2, 3, 4), 2, "A row holds all its channels."),
        (np.arange(3 * 40).reshape(3, 2, 4, 5) * 0.5, 3, "Images need not be square."),
        (two, 1, "Patches of one pixel."),
    )
    cases = [Case(row[:2], _windows(*row[:2]), row[2]) for row in rows]
    verify("5.3", f, "images k", cases)


# 5.4 -----------------------------------------------------------------------------


def _root_by_inverses(matrix: np.ndarray) -> np.ndarray:
    """matrix^(-1/2) by the iteration of Denman and Beavers: inverses and means only."""
    y, z = matrix, np.eye(len(matrix))
    for _ in range(60):
        y, z = (y + np.linalg.inv(z)) / 2, (z + np.linalg.inv(y)) / 2
    return z


def _nystrom(x, anchors, beta: float, eps: float) -> np.ndarray:
    root = _root_by_inverses(
        np.exp(beta * (anchors @ anchors.T - 1)) + eps * np.eye(len(anchors))
    )
    rows = []
    for patch in x:
        norm = math.sqrt(patch @ patch)
        near = np.exp(beta * (anchors @ patch / norm - 1)) if norm else 0 * root[0]
        rows.append(norm * root @ near)
    return np.stack(rows)


def check_nystrom(f: Callable) -> None:
    """f(x, anchors, beta, eps) -> the Nystrom features (5.12) of the rows of x.

    Chapter 5, exercise 5.4, an hour. NumPy, float64: x (n, d) of any norms, anchors
    (p, d) with unit rows, the exponential kernel (5.7), eps the ridge of (5.13). The
    result is (n, p).
    """
    z, x = np.array([[1.0, 0]]), np.array([[2.0, 0], [0, 3]])
    loose = 1e-8  # the condition number, about 1e4 here, times the rounding of a root
    cases = [
        Case(
            (x, z, 1.0, 0.0),
            np.array([[2], [3 / math.e]]),
            "By hand in 5.3: the norm, and e^-1 of it at a right angle.",
            SUM,
        ),
        Case(
            (x[:1], z, 1.0, 3.0),
            np.array([[1.0]]),
            "The ridge stands inside of the root: 2 / sqrt(1 + 3).",
            SUM,
        ),
        Case(
            (0 * x, z, 1.0, 0.1), np.zeros((2, 1)), "A zero patch has no features.", SUM
        ),
    ]
    for args, hint in (
        (
            (_array(6, 4), _unit_rows(3, 4, seed=1), 2.0, 0.01),
            "The root mixes the anchors: it is a matrix, and symmetric.",
        ),
        (
            (_array(3, 4), np.repeat(_unit_rows(2, 4, seed=2), 2, axis=0), 1.0, 0.1),
            "Repeated anchors: a zero eigenvalue, which the ridge lifts.",
        ),
    ):
        cases.append(Case(args, _nystrom(*args), hint, loose))
    verify("5.4", f, "x anchors beta eps", cases)


# 5.5 -----------------------------------------------------------------------------


def _sylvester(root: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """(5.20) as one linear system of n^2 equations; root is A^(1/2)."""
    inverse, eye = torch.linalg.inv(root), torch.eye(len(root)).double()
    system = torch.kron(root, eye) + torch.kron(eye, root)
    right = -(inverse @ gradient @ inverse).flatten()
    return torch.linalg.solve(system, right).reshape(root.shape)


def check_inverse_sqrt_gradient(f: Callable) -> None:
    """f(a, gradient) -> the gradient in A of a loss of A^(-1/2).

    Chapter 5, exercise 5.5, an hour. `a` is a symmetric positive definite float64
    tensor (n, n), `gradient` the symmetric gradient that arrives at A^(-1/2). Without
    autograd, and right where eigenvalues coincide or nearly do.
    """
    swap = torch.tensor([[0, 1], [1, 0]]).double()
    full = _normal(3, 3, seed=1) + _normal(3, 3, seed=1).T
    turn = torch.linalg.qr(_normal(3, 3, seed=2))[0]
    cases = [
        Case(
            (torch.diag(_row(1, 4, 4)), torch.eye(3).double()),
            torch.diag(_row(-1 / 2, -1 / 16, -1 / 16)),
            "On the diagonal the slope is -1/2 lambda^(-3/2).",
            SUM,
        ),
        Case(
            (torch.diag(_row(1, 4)), swap),
            -swap / 6,
            "By hand in 5.7: the factor off the diagonal is -1/6.",
            SUM,
        ),
        Case(
            (4 * torch.eye(3).double(), full),
            -full / 16,
            "All eigenvalues equal: a difference quotient is 0 / 0.",
            SUM,
        ),
    ]
    for values, hint in (
        (_row(1, 2, 3), "Go into the eigenbasis, multiply there, and come back."),
        (_row(1, 1 + 1e-9, 2), "Nearly equal: a difference loses nine digits."),
    ):
        root = turn * values @ turn.T
        root = (root + root.T) / 2
        cases.append(Case((root @ root, full), _sylvester(root, full), hint, SUM))
    verify("5.5", f, "a gradient", cases)


# 5.6 -----------------------------------------------------------------------------


def _layer(maps, anchors, k, beta, eps, padding, s) -> np.ndarray:
    """(5.14) and (5.15), place by place."""
    padded = np.pad(maps, [(0, 0), (0, 0), (padding,) * 2, (padding,) * 2])
    rows = _nystrom(_windows(padded, k), anchors, beta, eps)
    height, width = (size - k + 1 for size in padded.shape[2:])
    grid = rows.reshape(len(maps), height, width, -1)
    if s == 1:
        return np.moveaxis(grid, 3, 1)
    taps = np.exp(-(np.arange(-s, s + 1.0) ** 2) / s**2)
    taps /= taps.sum()
    pooled = np.zeros((len(maps), len(anchors), -(-height // s), -(-width // s)))
    for (i, j), (a, b) in (
        (at, tap)
        for at in np.ndindex(*pooled.shape[2:])
        for tap in np.ndindex(2 * s + 1, 2 * s + 1)
    ):
        y, x = s * i + a - s, s * j + b - s
        if 0 <= y < height and 0 <= x < width:
            pooled[:, :, i, j] += taps[a] * taps[b] * grid[:, y, x]
    return pooled


def _encode(images, layers) -> np.ndarray:
    for layer in layers:
        images = _layer(images, *layer)
    return images


def check_encode(f: Callable) -> None:
    """f(images, layers) -> the maps of a convolutional kernel network, in NumPy.

    Chapter 5, exercise 5.6, an evening. images (n, c, h, w), float64; layers is a list
    of (anchors, k, beta, eps, padding, s): unit anchors (p, c k k) for k by k patches,
    channel by channel as in 5.3; the exponential kernel and its ridge, as in 5.4;
    `padding` zeros on each side before the patches are cut; pooling (5.15) with zeros
    outside, at every s-th place from place 0 on, and none at all if s = 1. The result
    is (n, p, h', w').
    """
    images, black = _array(2, 1, 5, 6), np.zeros((1, 1, 4, 4))
    dot = np.pad(np.ones((1, 1, 1, 1)), [(0, 0), (0, 0), (2, 2), (2, 2)])
    one, few = np.ones((1, 1)), _unit_rows(3, 4, seed=1)
    next_ones = _unit_rows(4, 3 * 9, seed=2)
    rows = (
        (black, [(few, 2, 1.0, 0.01, 0, 1)], "A black image has black maps, not NaN."),
        (
            dot,
            [(one, 1, 1.0, 0.0, 0, 1)],
            "One pixel, one anchor, s = 1: no pooling, the pixel comes out.",
        ),
        (
            dot,
            [(one, 1, 1.0, 0.0, 0, 2)],
            "One pixel, s = 2: every second tap of the filter (5.15), which sums to 1.",
        ),
        (
            np.ones((1, 1, 5, 5)),
            [(one, 1, 1.0, 0.0, 0, 2)],
            "The pooling filter: 2 s + 1 taps, zeros outside, first centre at 0.",
        ),
        (images, [(few, 2, 2.0, 0.1, 0, 1)], "Patches of 2 by 2, kernel and root."),
        (images, [(few, 2, 2.0, 0.1, 1, 2)], "Padding comes before the patches."),
        (
            images,
            [(few, 2, 2.0, 0.1, 1, 2), (next_ones, 3, 1.0, 0.05, 1, 2)],
            "The second layer's patches hold all maps, channel by channel.",
        ),
    )
    cases = [Case(row[:2], _encode(*row[:2]), row[2], 1e-8) for row in rows]
    verify("5.6", f, "images layers", cases)
