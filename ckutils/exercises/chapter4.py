"""Chapter 4, the linear recurrent unit: six checks and what they expect."""

import cmath
import math
from collections.abc import Callable

import torch

from ckutils.exercises.chapter1 import SUM, _normal, _row
from ckutils.exercises.engine import Case, verify

# 4.1 -----------------------------------------------------------------------------


def check_memory_parameter(f: Callable) -> None:
    """f(half_life) -> the nu of (4.18) that halves a state in so many steps.

    Chapter 4, exercise 4.1, 5 minutes. A float; |lambda|^half_life = 1/2 with
    |lambda| = exp(-e^nu).
    """
    rows = (
        (1, "exp(-e^nu) = 1/2 after one step."),
        (100, "A hundred steps multiply |lambda| by itself a hundred times."),
        (10_000, "Near the circle nu is about -log(half-life), so negative."),
        (0.5, "Half a step is allowed: it is a formula."),
    )
    cases = [Case((t,), math.log(math.log(2) / t), hint, 1e-12) for t, hint in rows]
    verify("4.1", f, "half_life", cases)


# 4.2 -----------------------------------------------------------------------------


def check_ring(f: Callable) -> None:
    """f(u, v, r_min, r_max, max_phase) -> the start (4.19) on a ring.

    Chapter 4, exercise 4.2, 10 minutes. u and v are float64 tensors (n,) of uniform
    numbers in [0, 1]; the result is complex128 (n,), uniform by area between the two
    radii, with phases from 0 to max_phase.
    """
    ends, middle = _row(0, 1), _row(0.5)
    rows = (
        ((ends, 0 * ends, 0.5, 0.9, 1.0), [0.5, 0.9], "u = 0 and 1 are the two radii."),
        (
            (middle, 0 * middle, 0.0, 1.0, 1.0),
            [math.sqrt(0.5)],
            "Half of the disc's area lies within the radius 0.707, not 0.5.",
        ),
        (
            (middle, 0 * middle, 0.6, 0.8, 1.0),
            [math.sqrt(0.5)],
            "The square of the modulus is uniform: (0.36 + 0.64) / 2.",
        ),
        (
            (_row(1, 1), _row(0.5, 1), 0.2, 1.0, math.pi),
            [1j, -1],
            "v is a share of max_phase, counted from the positive real axis.",
        ),
    )
    cases = [
        Case(args, torch.tensor(want, dtype=torch.complex128), hint, 1e-12)
        for args, want, hint in rows
    ]
    verify("4.2", f, "u v r_min r_max max_phase", cases)


# 4.3 -----------------------------------------------------------------------------


def _second_kernel(result, a: float) -> torch.Tensor:
    """The second state's answer to a 1 at time 0, step by step."""
    W, U = result
    if tuple(W.shape) != (2, 2) or tuple(U.shape) != (2,):
        raise ValueError(f"W, U must be (2, 2), (2,), got {W.shape}, {U.shape}")
    state, seen = U, []
    for _ in range(30):
        seen.append(state[1])
        state = W @ state
    return torch.stack(seen)


def check_two_averages(f: Callable) -> None:
    """f(a) -> W, U of two exponential averages in a row, as one recurrence (4.1).

    Chapter 4, exercise 4.3, 20 minutes. u_t = a u_(t-1) + (1 - a) x_t and
    v_t = a v_(t-1) + (1 - a) u_t; the state is h = (u, v). W (2, 2) and U (2,) are
    float64 tensors; h(t) = W h(t-1) + U x(t) with no u_t on the right.
    """
    rows = (
        (0.5, "v_t contains u_t, which contains x_t: v answers at lag 0 already."),
        (0.8, "Put u_t into the second equation, all of it."),
        (0.0, "Nothing is remembered: v_t = x_t."),
    )
    lags = torch.arange(30, dtype=torch.float64)
    cases = [
        Case(
            (a,), (1 - a) ** 2 * (lags + 1) * a**lags, hint, 1e-12, _second_kernel,
            "the kernel of v",
        )
        for a, hint in rows
    ]  # fmt: skip
    verify("4.3", f, "a", cases)


# 4.4 -----------------------------------------------------------------------------


def _gain(rate: complex, step: float) -> complex:
    """(e^z - 1) / rate by its series, which has no quotient; |z| of a few at most."""
    z, term, total = rate * step, 1.0, 0.0
    for k in range(1, 60):
        total, term = total + term, term * z / (k + 1)
    return step * total


def check_hold(f: Callable) -> None:
    """f(rate, step) -> (a, g) of the zero-order hold (4.24), to full precision.

    Chapter 4, exercise 4.4, 20 minutes. rate is a float or complex number, 0 and tiny
    ones included, step a float; a and g are numbers, right to 1e-15.
    """
    rows = (
        (-2.0, 0.5, "By hand in 4.7: e^-1 = 0.368 and 0.316."),
        (-0.1 + 3j, 0.25, "Rates come in complex pairs; the formula is the same."),
        (0.0, 0.5, "At rate 0 the hold only adds: a = 1, g = step."),
        (-1e-9, 1e-3, "e^z - 1 loses its digits near z = 0; there is a function."),
        (1e-8j, 0.1, "The same for a small imaginary rate."),
    )
    cases = []
    for rate, step, hint in rows:
        want = complex(cmath.exp(rate * step)), complex(_gain(rate, step))
        cases.append(Case((rate, step), want, hint, 1e-15))
    verify("4.4", f, "rate step", cases)


# 4.5 -----------------------------------------------------------------------------


def _reverse(a, b, g) -> tuple:
    """torch differentiates the loop (4.5)."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    h, states = torch.zeros_like(b[0]), []
    for t in range(len(b)):
        h = a[t] * h + b[t]
        states.append(h)
    loss = (g.conj() * torch.stack(states)).real.sum()
    return torch.autograd.grad(loss, (a, b))


def _states(a, b) -> torch.Tensor:
    h, states = torch.zeros_like(b[0]), []
    for t in range(len(b)):
        h = a[t] * h + b[t]
        states.append(h)
    return torch.stack(states)


def check_reverse_pass(f: Callable) -> None:
    """f(a, h, g) -> the gradients in a and b of h_t = a_t h_(t-1) + b_t.

    Chapter 4, exercise 4.5, an hour. a, the states h and the gradient g that arrives at
    each state are (T,), all float64 or all complex128; h_(-1) = 0. Complex gradients as
    torch and 4.5 have them: the direction of steepest ascent. Without autograd.
    """
    cases = [
        Case(
            (_row(5, 2, 3), _row(1, 3, 10), _row(0, 0, 1)),
            (_row(0, 3, 3), _row(6, 3, 1)),
            "From h_2 back to h_1 leads a_2 = 3, and on to h_0 leads a_1 = 2.",
        ),
        Case(
            (_row(5, 2, 3), _row(1, 3, 10), _row(1, 10, 100)),
            (_row(0, 310, 300), _row(621, 310, 100)),
            "What arrives at a step adds to what comes from later steps.",
        ),
        Case((_row(7), _row(2), _row(1)), (_row(0), _row(1)), "One step: h_(-1) = 0."),
    ]
    real = (_normal(40).tanh(), _normal(40, seed=1), _normal(40, seed=2))
    turned = tuple(torch.complex(x, x.roll(7)) / 2 for x in real)
    for (a, b, g), hint in (
        (real, "The coefficient of step t multiplies the state before it."),
        (turned, "With complex numbers each factor stands conjugated, see (4.16)."),
    ):
        cases.append(Case((a, _states(a, b), g), _reverse(a, b, g), hint, SUM))
    verify("4.5", f, "a h g", cases)


# 4.6 -----------------------------------------------------------------------------


class _Word:
    """A text, and how many combinations had to wait for one another to make it."""

    def __init__(self, text: str, depth: int = 0):
        self.text, self.depth = text, depth

    def __repr__(self):
        return self.text


def _scanned(f: Callable) -> Callable:
    """The prefixes that f makes of letters; an error if it takes too much for them."""

    def run(items: str) -> tuple:
        calls = 0

        def combine(earlier: _Word, later: _Word) -> _Word:
            nonlocal calls
            calls += 1
            depth = 1 + max(earlier.depth, later.depth)
            return _Word(earlier.text + later.text, depth)

        words = list(f(combine, [_Word(letter) for letter in items]))
        texts = tuple(word.text for word in words)
        n, depth = len(items), max((word.depth for word in words), default=0)
        if texts == tuple(items[: i + 1] for i in range(n)):
            deepest = 2 * math.ceil(math.log2(max(n, 1)))
            if calls > 2 * n:
                raise ValueError(f"{calls} combinations of {n} items, above {2 * n}")
            if depth > deepest:
                raise ValueError(f"{depth} combinations in a row, above {deepest}")
        return texts

    return run


def check_prefix_scan(f: Callable) -> None:
    """f(combine, items) -> all prefixes of items, in parallel and with little work.

    Chapter 4, exercise 4.6, an evening. combine(earlier, later) is associative and need
    not commute; items is a list of n things, n >= 0. The result is the list items[0],
    combine(items[0], items[1]), and so on. At most 2 n combinations, and no chain of
    more than 2 ceil(log2 n) that wait for one another. Here combine joins words.
    """
    rows = (
        ("a", "One item is its own prefix."),
        ("ab", "combine takes the earlier item first."),
        ("abc", "Item 2 comes behind the prefix of the first pair."),
        ("abcd", "Neighbours first; the prefixes of the pairs are half of all."),
        ("abcdefgh", "A loop waits n - 1 times; doubling combines n log2 n times."),
        (
            "abcdefghijklmnop",
            "The pairs are a problem of half the size: solve it the same way.",
        ),
        ("abcde", "An odd item at the end has no partner."),
        ("abcdefghijklm", "The halves may be odd too."),
        ("", "No items have no prefixes."),
    )
    cases = [
        Case((text,), tuple(text[: i + 1] for i in range(len(text))), hint)
        for text, hint in rows
    ]
    verify("4.6", _scanned(f), "items", cases)
