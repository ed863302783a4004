"""Chapter 1, convolution arithmetic: six checks and what they expect."""

from collections.abc import Callable

import torch
from torch.nn import functional

from ckutils.exercises.engine import Case, verify

# Sums of fewer than 1000 products of numbers below 10 round by less than this in
# float64 (1000 * 10 * 10 * 1.1e-16); a wrong tap changes far more.
SUM = 1e-10


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def _row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# 1.1 -----------------------------------------------------------------------------


def check_same_lower(f: Callable) -> None:
    """f(size, kernel_size, stride, dilation) -> (lo, hi): JAX's "SAME_LOWER".

    Chapter 1, exercise 1.1, 5 minutes. As many zeros in front (lo) and behind (hi) as
    give ceil(size / stride) outputs, no more than needed and never fewer than none;
    the odd one stands in front.
    """
    cases = (
        Case((5, 3, 1, 1), (1, 1), "k - 1 zeros at stride 1, half on either side."),
        Case((8, 4, 1, 1), (2, 1), "Three zeros: the odd one belongs in front."),
        Case((6, 3, 2, 1), (1, 0), "Three windows, two apart, span 7 entries of 6."),
        Case((7, 3, 2, 1), (1, 1), "Sizes round up: seven entries give four outputs."),
        Case((10, 3, 2, 2), (2, 1), "At dilation 2, three taps span five entries."),
        Case((9, 2, 3, 1), (0, 0), "These windows span 8 of 9: nothing is cut off."),
        Case((4, 9, 1, 1), (4, 4), "A kernel may be longer than the signal."),
    )
    verify("1.1", f, "size kernel_size stride dilation", cases)


# 1.2 -----------------------------------------------------------------------------


def check_wrap_kernel(f: Callable) -> None:
    """f(w, n) -> the n taps that act on a circle of n entries as the kernel w does.

    Chapter 1, exercise 1.2, 10 minutes. w is a float64 tensor (k,), shorter or longer
    than n: sum_j w[j] x[(t + j) mod n] must not change, for every x of n entries.
    """
    cases = (
        Case((_row(1, 2, 3), 3), _row(1, 2, 3), "As long as the circle: unchanged."),
        Case((_row(1, 2, 3), 5), _row(1, 2, 3, 0, 0), "The other taps are zero."),
        Case((_row(1, 2, 3), 2), _row(4, 2), "Tap 2 reads the same entry as tap 0."),
        Case((_row(1, 2, 3, 4), 1), _row(10), "There is one entry, read by all taps."),
        Case(
            (_row(1, 2, 4, 8, 16, 32, 64), 3),
            _row(1 + 8 + 64, 2 + 16, 4 + 32),
            "A long kernel goes round more than once.",
        ),
    )
    verify("1.2", f, "w n", cases)


# 1.3 -----------------------------------------------------------------------------


def _windows(size: int, kernel_size: int, stride: int, padding: int) -> int:
    """How many windows fit: their starts, counted."""
    return len(range(-padding, size + padding - kernel_size + 1, stride))


def _leads_to(outputs: int, layers: list, size: int) -> bool:
    for layer in layers:
        size = _windows(size, *layer)
        if size == 0:
            return False
    return size == outputs


def check_predecessors(f: Callable) -> None:
    """f(outputs, layers) -> all input sizes that give `outputs`, rising.

    Chapter 1, exercise 1.3, 20 minutes. layers is a list of (kernel_size, stride,
    padding) in the order in which they are applied, padding on both sides; sizes of
    signals, those between the layers too, are at least 1. A list of ints, maybe empty.
    """
    rows = (
        (4, [(3, 1, 0)], "Without a stride there is one size, (1.15) with s = 1."),
        (4, [(3, 2, 1)], "Two inputs differ by the entry that the floor cuts off."),
        (7, [(3, 2, 1)] * 3, "Each size has two predecessors: eight in all."),
        (3, [(5, 1, 0), (2, 4, 0)], "Go back from the last layer to the first."),
        (2, [(3, 3, 2)], "Formula (1.15) starts at 2 here."),
        (1, [(3, 2, 2)], "Formula (1.15) also returns sizes below 1."),
        (1, [(2, 1, 1)], "No signal gives this: the list is empty."),
        (2, [(2, 1, 0), (4, 3, 3)], "A size between two layers may not be 0 either."),
    )
    cases = [
        Case(
            (outputs, layers),
            tuple(n for n in range(1, 100) if _leads_to(outputs, layers, n)),
            hint,
        )
        for outputs, layers, hint in rows
    ]
    verify("1.3", f, "outputs layers", cases)


# 1.4 -----------------------------------------------------------------------------


def _nearest_even(w: torch.Tensor, stride: int) -> torch.Tensor:
    """The projection onto A v = 1 by the pseudo-inverse; row r of A adds up phase r."""
    rows, columns = torch.meshgrid(*map(torch.arange, w.shape), indexing="ij")
    phase = (rows % stride * stride + columns % stride).flatten()
    sums = (torch.arange(stride**2)[:, None] == phase).to(w.dtype)
    step = torch.linalg.pinv(sums) @ (1 - sums @ w.flatten())
    return w + step.reshape(w.shape)


def check_even_kernel(f: Callable) -> None:
    """f(w, stride) -> the kernel nearest to w that makes no checkerboard.

    Chapter 1, exercise 1.4, 20 minutes. w is a float64 tensor (h, w), h and w at least
    `stride`. Nearest in the sum of squares among those whose stride * stride polyphase
    sums (1.24), taken on both axes, are all 1.
    """
    bilinear = torch.outer(_row(0.5, 1, 0.5), _row(0.5, 1, 0.5))
    cases = [
        Case((torch.zeros(2, 2).double(), 2), torch.ones(2, 2).double(), "One a tap."),
        Case((bilinear, 2), bilinear, "Its sums are 1 already: nothing to do.", SUM),
        Case(
            (torch.ones(3, 3).double(), 2),
            torch.tensor(
                [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
            ).double(),
            "The corners share one sum of four taps, the middle stands alone.",
            SUM,
        ),
        *(
            Case((w, s), _nearest_even(w, s), hint, SUM)
            for w, s, hint in (
                (_normal(3, 3), 1, "At stride 1 all taps belong to one sum."),
                (_normal(4, 4, seed=1), 2, "To be nearest, move taps of a sum alike."),
                (_normal(5, 4, seed=2), 3, "Sums have different numbers of taps."),
            )
        ),
    ]
    verify("1.4", f, "w stride", cases)


# 1.5 -----------------------------------------------------------------------------


def _adjoint(y, w, stride: int, padding: int, output_padding: int) -> torch.Tensor:
    """The matrix of the convolution, entry by entry (1.23), transposed."""
    size = (len(y) - 1) * stride + len(w) - 2 * padding + output_padding
    matrix = torch.zeros(len(y), size, dtype=torch.float64)
    for t in range(len(y)):
        for j in range(len(w)):
            if 0 <= stride * t + j - padding < size:
                matrix[t, stride * t + j - padding] += w[j]
    return matrix.T @ y


def check_scatter(f: Callable) -> None:
    """f(y, w, stride, padding, output_padding) -> the transposed convolution.

    Chapter 1, exercise 1.5, an hour. Eq. (1.18) on one axis with one channel, at
    dilation 1: y (n,) and w (k,) are float64 tensors, the result has the length (1.16).
    """
    y, w = _row(1, 10), _row(1, 2, 3)
    by_hand = (
        (y, w, 2, 0, 0, _row(1, 2, 13, 20, 30), "Where two kernels meet, they add."),
        (_row(1, 10, 100), _row(1, 2), 1, 0, 0, _row(1, 12, 120, 200), "Stride 1."),
        (y, _row(1, 2), 3, 0, 0, _row(1, 2, 0, 10, 20), "No tap reaches entry 2."),
        (y, w, 2, 1, 0, _row(2, 13, 20), "Padding crops the scatter on both sides."),
        (y, w, 2, 1, 1, _row(2, 13, 20, 30), "The added entry is computed, not zero."),
        (y, w, 2, 0, 1, _row(1, 2, 13, 20, 30, 0), "This added entry no tap reaches."),
    )
    cases = [Case(row[:5], *row[5:]) for row in by_hand]
    long = (_normal(9), _normal(7, seed=1), 3, 2, 2)
    hint = "Input t starts at s t - p of the output, also where that lies outside."
    cases.append(Case(long, _adjoint(*long), hint, SUM))
    verify("1.5", f, "y w stride padding output_padding", cases)


# 1.6 -----------------------------------------------------------------------------


def _by_autograd(x, w, g, stride, padding, dilation, groups) -> tuple:
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    bias = torch.zeros(len(w), dtype=w.dtype, requires_grad=True)
    y = functional.conv2d(x, w, bias, stride, padding, dilation, groups)
    return torch.autograd.grad(y, (x, w, bias), g)


def check_conv2d_backward(f: Callable) -> None:
    """f(x, w, g, stride, padding, dilation, groups) -> gradients in x, w and the bias.

    Chapter 1, exercise 1.6, an evening. By hand: without autograd, and without a
    convolution of torch. g (b, c_out, h', w') is the gradient that arrives at the
    output of a 2-axis convolution of x (b, c_in, h, w) with w (c_out, c_in / groups,
    k1, k2); all are float64; stride, padding and dilation are pairs of ints. Returns
    tensors shaped as x, as w, and (c_out,).
    """
    plain = ((1, 1), (0, 0), (1, 1), 1)
    rows = (
        (
            plain,
            (5, 6),
            "Eq. (1.26) and (1.27); and the bias is added to every output.",
        ),
        (((1, 1), (2, 1), (1, 1), 1), (5, 6), "What fell on the padding is cut off."),
        (((2, 3), (0, 0), (1, 1), 1), (7, 8), "Tap (i, j) reads every s-th entry."),
        (((2, 2), (1, 1), (1, 1), 1), (8, 8), "No window reads the last row: zeros."),
        (((1, 1), (1, 1), (2, 3), 1), (7, 9), "Taps are d apart, windows s."),
        (((1, 1), (1, 0), (1, 1), 2), (5, 6), "Slices of x meet their own slice of g."),
        (((3, 2), (2, 1), (2, 1), 2), (9, 8), "All knobs at once."),
    )
    cases = []
    for knobs, size, hint in rows:
        x, w = _normal(2, 4, *size), _normal(6, 4 // knobs[-1], 3, 2, seed=1)
        shape = functional.conv2d(x, w, None, *knobs).shape
        args = (x, w, _normal(*shape, seed=2), *knobs)
        cases.append(Case(args, _by_autograd(*args), hint, SUM))
    verify("1.6", f, "x w g stride padding dilation groups", cases)
