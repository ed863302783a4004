"""Walks a table of cases over a reader's function and says where it first differs."""

import copy
from collections.abc import Callable, Sequence
from numbers import Integral, Number
from typing import Any, NamedTuple

import numpy as np
import torch

MANY = 12  # an array with more entries is described by its shape, not written out


class Case(NamedTuple):
    """One row: the arguments, what must come out, and a hint for who gets it wrong.

    Without `judge`, the result itself is compared with `want`. With it, the value of
    judge(result, *args) is, called `what` in messages: for tasks that more than one
    result solves.
    """

    args: tuple
    want: Any
    hint: str
    tol: float = 0.0
    judge: Callable | None = None
    what: str = "the result"


def verify(exercise: str, function: Callable, names: str, cases: Sequence) -> None:
    """Print `exercise N: all n cases agree`, or raise at the first that does not.

    All chapters. Arguments are copied for each call, so nothing that the function does
    to them reaches the comparison. Shapes and dtypes must be those expected, NaN never
    agrees, an integer is not a bool, and a list may stand for a tuple.

    Args:
        exercise: its number, such as "2.4".
        function: what the reader wrote.
        names: the parameters in order, separated by spaces.
        cases: rows of `Case`.
    Raises AssertionError with the exercise, the case, its arguments, what was expected,
        what came, and a hint; ValueError if `function` is no function.

    >>> verify("0.1", lambda n: 2 * n, "n", [Case((3,), 6, "Twice.")])
    exercise 0.1: all 1 cases agree
    """
    if not callable(function):
        raise ValueError(f"f must be a function, got {function!r}")
    for number, case in enumerate(cases, 1):
        error, cause = _try(function, case)
        if error:
            pairs = zip(names.split(), case.args, strict=True)
            listed = ", ".join(f"{name}={describe(value)}" for name, value in pairs)
            raise AssertionError(
                f"exercise {exercise}, case {number} of {len(cases)}: f({listed})\n"
                f"  {error}\n  hint: {case.hint}"
            ) from cause
    print(f"exercise {exercise}: all {len(cases)} cases agree")


def _try(function, case: Case) -> tuple[str, Exception | None]:
    """What is wrong with one case, "" if nothing, and the exception behind it."""
    try:
        got = function(*copy.deepcopy(case.args))
    except Exception as cause:
        return f"raised {type(cause).__name__}: {cause}", cause
    if got is None:
        return "the function returned None: is there a `return`?", None
    if case.judge is None:
        return compare(case.what, got, case.want, case.tol), None
    try:
        got = case.judge(got, *case.args)
    except Exception as cause:
        told = f"{type(cause).__name__}: {cause}"
        return f"the result, {describe(got)}, cannot be used. {told}", cause
    return compare(case.what, got, case.want, case.tol), None


# Comparing -----------------------------------------------------------------------


def compare(what: str, got, want, tol: float) -> str:
    """Where `got` first differs from `want`, in words; "" if nowhere."""
    if isinstance(want, torch.Tensor | np.ndarray):
        return _compare_arrays(what, got, want, tol)
    if isinstance(want, tuple):
        return _compare_rows(what, got, want, tol)
    if isinstance(got, torch.Tensor | np.ndarray) and got.ndim == 0:
        got = got.item()
    exact = isinstance(want, bool | str | Integral)
    kind = _kind(want) if exact else Number
    if not isinstance(got, kind) or (isinstance(got, bool) and kind is not bool):
        return f"{what}: expected {describe(want)}, got {describe(got)}"
    if exact:
        return "" if got == want else f"{what}: expected {want!r}, got {got!r}"
    if got == want or abs(got - want) <= tol:  # both False for NaN
        return ""
    return f"{what}: expected {want:.8g} within {tol:.1e}, got {got:.8g}"


def _kind(want) -> type:
    return next(kind for kind in (bool, str, Integral) if isinstance(want, kind))


def _compare_rows(what: str, got, want: tuple, tol: float) -> str:
    if not isinstance(got, tuple | list):
        return f"{what}: expected {describe(want)}, got {describe(got)}"
    if len(got) != len(want):
        return f"{what}: expected {len(want)} values, got {len(got)}: {describe(got)}"
    if all(isinstance(value, int | str) for value in want):  # short rows at once
        wrong = any(compare("", *pair, tol) for pair in zip(got, want, strict=True))
        told = f"{what}: expected {describe(want)}, got {describe(got)}"
        return told if wrong else ""
    pairs = enumerate(zip(got, want, strict=True))
    errors = (compare(f"{what}, part {i}", *pair, tol) for i, pair in pairs)
    return next(filter(None, errors), "")


def _compare_arrays(what: str, got, want, tol: float) -> str:
    kind = torch.Tensor if isinstance(want, torch.Tensor) else np.ndarray
    if not isinstance(got, kind):
        name = "torch tensor" if kind is torch.Tensor else "NumPy array"
        return f"{what}: expected a {name}, got {describe(got)}"
    if tuple(got.shape) != tuple(want.shape):
        return f"{what}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}"
    if got.dtype != want.dtype:
        return f"{what}: expected {want.dtype}, got {got.dtype}"
    ours, theirs = _numpy(want), _numpy(got)
    with np.errstate(invalid="ignore"):
        error = np.where(ours == theirs, 0.0, np.abs(ours - theirs))
    error = np.where(np.isnan(error), np.inf, error)
    if not error.size or error.max() <= tol:
        return ""
    if want.ndim and error.size <= MANY:
        return f"{what}: expected {describe(want)}, got {describe(got)}"
    at = np.unravel_index(int(error.argmax()), error.shape)
    place = f" at {tuple(map(int, at))}" if at else ""
    return f"{what}{place}: expected {ours[at]:.6g}, got {theirs[at]:.6g}"


# Describing ----------------------------------------------------------------------


def describe(value) -> str:
    """A value as one short line: small arrays written out, large ones by shape."""
    if isinstance(value, torch.Tensor | np.ndarray):
        array = _numpy(value)
        if array.size <= MANY:
            return np.array2string(
                array, separator=", ", precision=4, suppress_small=True
            ).replace("\n", "")
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        return f"<{array.dtype} {kind} of shape {array.shape}>"
    if isinstance(value, tuple | list):
        inner = ", ".join(map(describe, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if callable(value):
        return getattr(value, "__doc__", None) or getattr(value, "__name__", "function")
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _numpy(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().resolve_conj().cpu().numpy()
    return value
