"""Checks shared by chapters, tests and package: verdicts, digests, argument rules."""

import inspect
import math
import textwrap
from numbers import Integral, Real

import numpy as np
import torch

# Verdicts ------------------------------------------------------------------------


def agree(name: str, got, want, tol: float) -> None:
    """Print `name: True` if |got - want| <= tol everywhere; else raise and say where.

    All chapters. Shapes must be equal, nothing is broadcast. NaN never agrees, not even
    with NaN; two infinities of one sign do.

    Args:
        name: what is compared; stands in the verdict and in the error.
        got, want: tensors, arrays or numbers of one shape, compared in float64 (or
            complex128).
        tol: an absolute bound, >= 0.
    Raises AssertionError with both values and the place of the largest difference,
        ValueError if `tol` is not a number >= 0.

    >>> agree("half", [0.5], [1 / 2], tol=0)
    half: True
    """
    if not isinstance(tol, Real) or not tol >= 0:
        raise ValueError(f"tol must be a number >= 0, got {tol!r}")
    got, want = _wide(got), _wide(want)
    if got.shape != want.shape:
        raise AssertionError(f"{name}: got shape {got.shape}, want {want.shape}")
    # inf - inf is NaN, so equal infinities are settled before the subtraction
    error = np.where(got == want, 0.0, np.inf)
    finite = np.isfinite(got) & np.isfinite(want)
    error[finite] = np.abs(got[finite] - want[finite])
    if error.size and error.max() > tol:
        at = np.unravel_index(int(error.argmax()), error.shape)
        raise AssertionError(
            f"{name}: got {got[at]:.7g}, want {want[at]:.7g}, tol {tol:.1e}, "
            f"at index {tuple(int(i) for i in at)} of shape {got.shape}"
        )
    print(f"{name}: True")


def digest(**arrays) -> str:
    """One line a named array: shape, mean, largest value and where it stands.

    All chapters. It is printed below each figure, because nbval compares text and no
    pixels. Values are rounded to three digits of the largest magnitude, so that CPU and
    GPU print the same; booleans print the fraction that is true.

    Args:
        arrays: real tensors, arrays or numbers; NaN stands for "missing" and is
            counted.
    Raises ValueError if an array is complex or no array is given.

    >>> print(digest(y=[1.0, 4.0, 7.0]))
    y (3,): mean 4, max 7 at 2
    """
    if not arrays:
        raise ValueError("arrays must hold at least one named array, got none")
    return "\n".join(_digest(name, value) for name, value in arrays.items())


def _digest(name: str, value) -> str:
    value = _numpy(value)
    if np.iscomplexobj(value):
        raise ValueError(f"{name} must be real, got dtype {value.dtype}")
    head = f"{name} {value.shape}:"
    if value.size == 0:
        return f"{head} empty"
    if value.dtype == bool:
        return f"{head} {value.mean():.3f} true"
    value = value.astype(np.float64)
    missing = int(np.isnan(value).sum())
    if missing == value.size:
        return f"{head} all missing"
    finite = value[np.isfinite(value)]
    scale = float(np.abs(finite).max()) if finite.size else 0.0
    at = np.unravel_index(int(np.nanargmax(value)), value.shape)
    place = "" if value.ndim == 0 else f" at {_place(at)}"
    tail = f", {missing} missing" if missing else ""
    mean, top = _round(np.nanmean(value), scale), _round(value[at], scale)
    return f"{head} mean {mean}, max {top}{place}{tail}"


def _place(at) -> str:
    return str(int(at[0])) if len(at) == 1 else str(tuple(int(i) for i in at))


def _round(number: float, scale: float) -> str:
    """`number` to three digits of `scale`, so that rounding noise prints as 0."""
    if not math.isfinite(number) or scale == 0:
        return f"{number:g}"
    unit = 10.0 ** (math.floor(math.log10(scale)) - 2)
    return f"{round(number / unit) * unit + 0.0:.4g}"


def _numpy(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().resolve_neg().cpu()
        value = value.float() if value.dtype == torch.bfloat16 else value
        return value.numpy()
    if hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):
        return value.get()  # CuPy
    return np.asarray(value)


def _wide(value) -> np.ndarray:
    value = _numpy(value)
    return value.astype(np.complex128 if np.iscomplexobj(value) else np.float64)


# Rules for arguments -------------------------------------------------------------


def check_int(least: int, /, **values) -> None:
    """Raise ValueError unless each named value is an integer >= least."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def check_number(low: float, high: float = math.inf, /, **values) -> None:
    """Raise ValueError unless each named value is a real number in [low, high]."""
    rule = f"in [{low:g}, {high:g}]" if high < math.inf else f">= {low:g}"
    for name, value in values.items():
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not low <= value <= high or not math.isfinite(value):
            raise ValueError(f"{name} must be a number {rule}, got {value!r}")


def check_choice(choices, /, **values) -> None:
    """Raise ValueError unless each named value is one of `choices`."""
    for name, value in values.items():
        if value not in tuple(choices):
            listed = ", ".join(repr(choice) for choice in choices)
            raise ValueError(f"{name} must be one of {listed}, got {value!r}")


def check_float(**tensors) -> None:
    """Raise ValueError unless each named value is a float32 or float64 tensor."""
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name} must be a torch tensor, got {type(value)}")
        if value.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} must be float32 or float64, got {value.dtype}")


def check_same(**tensors) -> None:
    """Raise ValueError unless all tensors share one dtype and one device."""
    (first, head), *rest = tensors.items()
    for name, value in rest:
        if value.dtype != head.dtype or value.device != head.device:
            raise ValueError(
                f"{name} must have the dtype and device of {first}, {head.dtype} on "
                f"{head.device}, got {value.dtype} on {value.device}"
            )


def check_ndim(least: int, /, **tensors) -> None:
    """Raise ValueError unless each named tensor has at least `least` axes."""
    for name, value in tensors.items():
        if value.ndim < least:
            raise ValueError(
                f"{name} must have at least {least} axes, got shape "
                f"{tuple(value.shape)}"
            )


def per_axis(least: int, axes: int, /, **values) -> tuple[tuple[int, ...], ...]:
    """Each named int, or tuple of `axes` ints >= least, as a tuple of `axes` ints.

    >>> per_axis(1, 2, stride=2, dilation=(1, 3))
    ((2, 2), (1, 3))
    """
    tuples = []
    for name, value in values.items():
        if type(value) is int and value >= least:  # an early way out: most calls
            tuples.append((value,) * axes)
            continue
        entries = (value,) * axes if isinstance(value, Integral) else value
        if not isinstance(entries, tuple | list) or len(entries) != axes:
            raise ValueError(
                f"{name} must be an int or a tuple of {axes} ints, got {value!r}"
            )
        for entry in entries:
            check_int(least, **{name: entry})
        tuples.append(tuple(int(entry) for entry in entries))
    return tuple(tuples)


# What a chapter shows of itself --------------------------------------------------


def source(function) -> None:
    """Print the source of a function without its docstring, as the chapters show it."""
    text = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    if function.__doc__:
        head, _, rest = text.partition('"""')
        text = head.rstrip() + rest.partition('"""')[2]
    print(text.rstrip())


def describe_runtime() -> str:
    """One line: the device, the versions, and what runs smaller without a GPU."""
    versions = f"torch {torch.__version__}, NumPy {np.__version__}"
    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name()}; {versions}; full sizes"
    return f"CPU, {torch.get_num_threads()} threads; {versions}; smaller GPU sections"
