"""Chapter 2, dilation and Kronecker products: six checks and what they expect."""

from collections.abc import Callable
from functools import reduce
from itertools import product

import torch

from ckutils.exercises.chapter1 import SUM, _normal, _row
from ckutils.exercises.engine import Case, verify

# 2.1 -----------------------------------------------------------------------------


def _offsets(kernel_sizes: list, dilations: list) -> set:
    """Every offset that some path reaches, followed one path at a time."""
    steps = zip(kernel_sizes, dilations, strict=True)
    return {sum(path) for path in product(*(range(0, k * d, d) for k, d in steps))}


def check_span(f: Callable) -> None:
    """f(kernel_sizes, dilations) -> (width, full): the field of a cascade on one axis.

    Chapter 2, exercise 2.1, 5 minutes. width is the size of the composite kernel (2.3),
    an int; full is True if it has no hole, a bool. The dilations come in any order.
    """
    rows = (
        ([5], [3], "One layer: its taps are d apart."),
        ([3, 3], [1, 3], "The second dilation is the size of the first: full."),
        ([3, 3], [1, 4], "Size 3 below, dilation 4 above: something is missed."),
        ([5, 5, 5], [1, 4, 16], "Add up d (k - 1), then 1."),
        ([3, 3, 3], [2, 2, 2], "A common factor 2 never meets the odd offsets."),
        ([3, 3, 3], [4, 1, 2], "Sort by dilation before you compare."),
        ([2, 1, 2], [1, 9, 2], "A layer of one tap has no gap, at any dilation."),
    )
    cases = []
    for sizes, dilations, hint in rows:
        reached = _offsets(sizes, dilations)
        width = max(reached) + 1
        cases.append(Case((sizes, dilations), (width, len(reached) == width), hint))
    verify("2.1", f, "kernel_sizes dilations", cases)


# 2.2 -----------------------------------------------------------------------------


def check_cascade_dilations(f: Callable) -> None:
    """f(kernel_sizes) -> the dilations that make the cascade a Kronecker product.

    Chapter 2, exercise 2.2, 5 minutes. Eq. (2.8): the first layer, kernel_sizes[0], has
    dilation 1. A list of ints, one a layer.
    """
    cases = (
        Case(([3],), (1,), "One layer is not dilated."),
        Case(([3, 3, 3],), (1, 3, 9), "Equal sizes: their powers."),
        Case(([4, 3, 2],), (1, 4, 12), "Unequal sizes: the product of those below."),
        Case(([2, 3, 4],), (1, 2, 6), "Only the sizes below count, not the layer's."),
        Case(([5, 1, 2],), (1, 5, 5), "A layer of one tap multiplies by 1."),
    )
    verify("2.2", f, "kernel_sizes", cases)


# 2.3 -----------------------------------------------------------------------------


def _paths(kernels: list, dilations: list) -> torch.Tensor:
    """Eq. (2.7), one path at a time; kernels (k,) or (c_out, c_in, k)."""
    taps = [(w[:, None, None] if w.ndim == 1 else w.movedim(-1, 0)) for w in kernels]
    width = 1 + sum(d * (len(w) - 1) for w, d in zip(taps, dilations, strict=True))
    total = [0] * width
    for path in product(*(range(len(w)) for w in taps)):
        place = sum(d * j for d, j in zip(dilations, path, strict=True))
        matrices = [w[j] for w, j in zip(taps, path, strict=True)]
        total[place] = total[place] + reduce(lambda first, then: then @ first, matrices)
    whole = torch.stack([torch.zeros_like(total[0]) + value for value in total], -1)
    return whole[0, 0] if kernels[0].ndim == 1 else whole


def check_composite(f: Callable) -> None:
    """f(kernels, dilations) -> the one kernel equal to the cascade, on one axis.

    Chapter 2, exercise 2.3, 20 minutes. kernels is a list of float64 tensors (k,);
    kernels[0] is applied first. Correlations without padding, eq. (2.7).
    """
    a, b = _row(1, 2), _row(1, 10)
    cases = [
        Case(([a], [1]), a, "One layer is its own composite."),
        Case(([a], [3]), _row(1, 0, 0, 2), "One layer, spread by its dilation."),
        Case(([a, b], [1, 2]), _row(1, 2, 10, 20), "The worked example of 2.4."),
        Case(([a, b], [1, 1]), _row(1, 12, 20), "Two paths lead to offset 1: add."),
        Case(([a, b], [2, 1]), _row(1, 10, 2, 20), "Now the first layer is dilated."),
        Case(([a, b], [1, 3]), _row(1, 2, 0, 10, 20), "No path leads to offset 2."),
    ]
    three = ([_normal(3), _normal(4, seed=1), _normal(2, seed=2)], [1, 2, 5])
    hint = "Offsets add: full convolution of the dilated kernels, none flipped."
    cases.append(Case(three, _paths(*three), hint, SUM))
    verify("2.3", f, "kernels dilations", cases)


# 2.4 -----------------------------------------------------------------------------


def _kron_gradient(gradient, left, right) -> tuple:
    left, right = left.clone().requires_grad_(), right.clone().requires_grad_()
    return torch.autograd.grad(torch.kron(left, right), (left, right), gradient)


def check_kron_gradient(f: Callable) -> None:
    """f(gradient, left, right) -> the gradients in left and in right.

    Chapter 2, exercise 2.4, 20 minutes. For a loss of kron(left, right) whose gradient
    in the product is `gradient`; without autograd. left (a, b) and right (c, d) are
    float64 matrices, gradient is (a c, b d). Eq. (2.6) is the case right = E_d.
    """
    left, right = _row(1, 2)[None], _row(1, 10)[None]
    first, ones = _row(1, 0, 0, 0)[None], _row(1, 1, 1, 1)[None]
    spike = torch.zeros(2, 2).double()
    spike[0, 0] = 1
    picked = torch.arange(16.0).reshape(4, 4).double()
    cases = [
        Case(
            (first, left, right),
            (_row(1, 0)[None], _row(1, 0)[None]),
            "Entry 0 of the product is left[0] right[0].",
        ),
        Case(
            (ones, left, right),
            (_row(11, 11)[None], _row(3, 3)[None]),
            "Each left entry meets all of right, and the other way round.",
        ),
        Case(
            (picked, torch.eye(2).double(), spike),
            (
                torch.tensor([[0, 2], [8, 10.0]]).double(),
                torch.tensor([[10, 12], [18, 20.0]]).double(),
            ),
            "With right = E_2, (2.6): only every second entry of the gradient counts.",
        ),
    ]
    for shapes, hint in (
        (
            ((2, 2), (2, 2)),
            "Entry (a, b) of a block belongs to right, which block to left.",
        ),
        (((2, 3), (4, 2)), "Rows come in blocks of 4, columns in blocks of 2."),
    ):
        left, right = _normal(*shapes[0]), _normal(*shapes[1], seed=1)
        arrived = _normal(*torch.kron(left, right).shape, seed=2)
        args = (arrived, left, right)
        cases.append(Case(args, _kron_gradient(*args), hint, SUM))
    verify("2.4", f, "gradient left right", cases)


# 2.5 -----------------------------------------------------------------------------


def check_merge_layers(f: Callable) -> None:
    """f(weights, biases, dilations) -> the (weight, bias) of one equal layer.

    Chapter 2, exercise 2.5, an hour. A linear network on one axis, without padding:
    weights[l] is (c_out, c_in, k), biases[l] is (c_out,), all float64; layer 0 comes
    first. The merged layer has dilation 1.
    """
    a, b = _row(1, 2)[None, None], _row(1, 10)[None, None]
    none, some = [_row(0), _row(0)], [_row(3), _row(5)]
    weight = _row(1, 12, 20)[None, None]
    swap = torch.tensor([[[0.0], [1]], [[1], [0]]]).double()  # exchanges two channels
    double = torch.tensor([[[2.0], [0]], [[0], [1]]]).double()  # doubles channel 0
    both = torch.tensor([[[0.0], [1]], [[2], [0]]]).double()
    cases = [
        Case(([a, b], none, [1, 1]), (weight, _row(0)), "Exercise 2.3, with channels."),
        Case(
            ([a, b], some, [1, 1]),
            (weight, _row(38)),
            "The first bias is a constant signal, which layer 1 multiplies by 1 + 10.",
        ),
        Case(
            ([double, swap], [_row(1, 2), _row(0, 0)], [1, 1]),
            (both, _row(2, 1)),
            "Matrices do not commute: the later layer stands on the left.",
        ),
    ]
    deep = [_normal(3, 2, 3), _normal(4, 3, 2, seed=1), _normal(2, 4, 3, seed=2)]
    rest = [_normal(3, seed=3), _normal(4, seed=4), _normal(2, seed=5)]
    for dilations, hint in (
        ([1, 3, 6], "Three layers: a bias passes through all layers above its own."),
        ([2, 1, 4], "The first layer may be dilated too."),
    ):
        bias = rest[0]
        for layer, add in zip(deep[1:], rest[1:], strict=True):
            bias = layer.sum(-1) @ bias + add
        args = (deep, rest, dilations)
        cases.append(Case(args, (_paths(deep, dilations), bias), hint, SUM))
    verify("2.5", f, "weights biases dilations", cases)


# 2.6 -----------------------------------------------------------------------------


def _distance(factors, matrix, shapes) -> float:
    if [tuple(a.shape) for a in factors] != [tuple(shape) for shape in shapes]:
        raise ValueError(f"the factors' shapes must be {shapes}")
    return float((matrix - reduce(torch.kron, list(factors))).norm())


def _least_distance(matrix, first, second) -> float:
    """Theorem 2.5 for two factors: what the largest singular value leaves."""
    (a, b), (c, d) = first, second
    rows = [matrix[i * c : (i + 1) * c, j * d : (j + 1) * d].flatten()
            for i in range(a) for j in range(b)]  # fmt: skip
    return float(torch.linalg.svdvals(torch.stack(rows))[1:].norm())


def check_nearest_factors(f: Callable) -> None:
    """f(matrix, shapes) -> factors whose Kronecker product is near to the matrix.

    Chapter 2, exercise 2.6, an evening. One float64 factor a shape, in the order
    matrix = factors[0] kron factors[1] kron ...; two factors must reach the nearest
    product (2.15), and more of them must recover a product from its noisy copy.
    """
    two, three = [(2, 3), (3, 2)], [(2, 2), (3, 1), (2, 3)]
    edge = torch.tensor([[1.0, -1], [-1, 1]]).double()
    rows = [
        ([(2, 2), (2, 2)], 0.0, "A product of two: one step of each factor finds it."),
        (two, 0.0, "Blocks may be rectangles: rows and columns split differently."),
        (three, 0.0, "Three factors: fix all but one, and solve for that one."),
        (three, 0.1, "A noisy product: go round until nothing changes any more."),
        ([(2, 2)] * 4, 0.05, "Any number of factors."),
    ]
    cases = []
    for shapes, noise, hint in rows:
        truth = reduce(torch.kron, [_normal(*s, seed=i) for i, s in enumerate(shapes)])
        added = noise * _normal(*truth.shape, seed=9)
        # the product that was hidden is as near as the noise is large
        bound = max(float(added.norm()), 1e-8)
        told = {"judge": _distance, "what": "distance to the matrix", "hint": hint}
        cases.append(Case((truth + added, shapes), 0.0, tol=bound, **told))
    told |= {"hint": "Start elsewhere: all ones are orthogonal to these factors."}
    edges = (torch.kron(edge, edge), [(2, 2), (2, 2)])
    cases.append(Case(edges, 0.0, tol=1e-8, **told))
    told |= {"hint": "No product: the largest singular value of (2.14) says how near."}
    matrix = _normal(6, 6, seed=7)
    bound = 1.001 * _least_distance(matrix, *two)
    cases.append(Case((matrix, two), 0.0, tol=bound, **told))
    verify("2.6", f, "matrix shapes", cases)
