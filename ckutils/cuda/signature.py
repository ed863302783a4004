"""What a CUDA kernel takes, read from its own text, and the check before a launch.

CuPy passes on whatever it is given: a Python float arrives as a double, a float64 array
in a `float*` is garbage, a strided array is only a pointer. So the text of the kernel
says what is right, and a wrong argument is a ValueError, not a wrong number.
"""

import re
from collections.abc import Mapping, Sequence
from numbers import Complex, Integral, Real
from typing import NamedTuple

import numpy as np


class Parameter(NamedTuple):
    """One parameter of a kernel, macros resolved: `const REAL* x` may be float."""

    name: str
    ctype: str
    pointer: bool
    const: bool


# The dtype of the arrays behind a pointer, and of a scalar, by C type.
DTYPES = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "float2": np.dtype(np.complex64),
    "double2": np.dtype(np.complex128),
    "int": np.dtype(np.int32),
    "unsigned int": np.dtype(np.uint32),
    "long long": np.dtype(np.int64),
    "unsigned long long": np.dtype(np.uint64),
    "short": np.dtype(np.int16),
    "signed char": np.dtype(np.int8),
    "unsigned char": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
ALIASES = {
    "unsigned": "unsigned int",
    "size_t": "unsigned long long",
    "int32_t": "int",
    "uint32_t": "unsigned int",
    "int64_t": "long long",
    "uint64_t": "unsigned long long",
    "int8_t": "signed char",
    "uint8_t": "unsigned char",
}

_COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S
)
_BOUNDS = r"(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?"
_KERNEL = re.compile(
    rf"(?P<linkage>extern\s*\"C\"\s*)?__global__\s+{_BOUNDS}void\s+{_BOUNDS}"
    r"(?P<name>\w+)\s*\((?P<list>[^)]*)\)"
)
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+([^\n]+?)[ \t]*$", re.M)
_ALIAS = re.compile(r"\busing\s+(\w+)\s*=\s*([\w ]+?)\s*;")
_TYPEDEF = re.compile(r"\btypedef\s+([\w ]+?)\s+(\w+)\s*;")


def without_comments(source: str) -> str:
    """The text with comments blanked; every line keeps its number."""

    def blank(match: re.Match) -> str:
        text = match.group()
        if not text.startswith("/"):
            return text  # a string keeps its slashes
        return re.sub(r"[^\n]", " ", text)

    return _COMMENT_OR_STRING.sub(blank, source)


def parse_signatures(
    source: str, constants: Mapping[str, object] | None = None
) -> dict[str, tuple[Parameter, ...]]:
    """The parameters of each `extern "C" __global__` kernel in the text of a .cu file.

    All chapters. A macro in a type, such as REAL, is resolved from `constants`, else
    from a `#define`, `using` or `typedef` of the file.

    Raises ValueError for a kernel without extern "C" (its name would be mangled) and
    for a type that no array or scalar can fill.

    >>> text = 'extern "C" __global__ void twice(const REAL* x, REAL* y, int n) {}'
    >>> [p.ctype for p in parse_signatures(text, {"REAL": "double"})["twice"]]
    ['double', 'double', 'int']
    """
    text = without_comments(source)
    names = _named_types(text) | {k: str(v) for k, v in (constants or {}).items()}
    signatures = {}
    for match in _KERNEL.finditer(text):
        kernel = match["name"]
        if match["linkage"] is None:
            raise ValueError(f'{kernel} must be declared extern "C" __global__')
        entries = [entry.strip() for entry in match["list"].split(",") if entry.strip()]
        signatures[kernel] = tuple(_parameter(kernel, e, names) for e in entries)
    return signatures


def _named_types(text: str) -> dict[str, str]:
    """What the file itself calls a type; the first definition of a name counts."""
    found = [
        *_DEFINE.findall(text),
        *_ALIAS.findall(text),
        *((new, old) for old, new in _TYPEDEF.findall(text)),
    ]
    return dict(reversed(found))


def _parameter(kernel: str, entry: str, names: Mapping[str, str]) -> Parameter:
    """`const` in front of the star is the array's, behind it the pointer's own."""
    left, star, right = entry.partition("*")
    if not star:
        left, _, right = " ".join(entry.split()).rpartition(" ")
    words = left.replace("__restrict__", " ").split()
    name = re.sub(r"\b(?:const|__restrict__)\b", " ", right).strip()
    ctype = _resolve(" ".join(word for word in words if word != "const"), names)
    if ctype not in DTYPES or not name.isidentifier():
        raise ValueError(
            f"{kernel}: the type of {name} must be one of {', '.join(DTYPES)} or a "
            f"pointer to one, got {entry!r}"
        )
    return Parameter(name, ctype, bool(star), "const" in words)


def _resolve(ctype: str, names: Mapping[str, str]) -> str:
    seen = set()
    while ctype in names and ctype not in seen:
        seen.add(ctype)
        ctype = names[ctype].strip()
    return ALIASES.get(ctype, ctype)


# The check before a launch ---------------------------------------------------------


def check_arguments(
    kernel: str, signature: Sequence[Parameter], args: Sequence, device_type: str
) -> tuple:
    """`args` as the kernel takes them: arrays unchanged, scalars in the C type.

    All chapters.

    Args:
        kernel: its name, for the message.
        signature: its parameters, from parse_signatures.
        args: NumPy arrays, torch tensors or CuPy arrays for pointers, numbers else.
        device_type: "cpu" or "cuda", where the arrays must be.
    Returns a tuple: arrays as given, scalars as NumPy scalars of the parameter's type.

    Raises ValueError naming kernel, argument, rule and value: for a wrong count, dtype,
    device, layout or number, for an output that cannot be written, and for an output
    that shares memory with another argument.
    """
    if len(args) != len(signature):
        names = ", ".join(parameter.name for parameter in signature)
        raise ValueError(
            f"{kernel} takes {len(signature)} arguments ({names}), got {len(args)}"
        )
    pairs = list(zip(signature, args, strict=True))
    checked = tuple(
        _checked_array(kernel, parameter, value, device_type)
        if parameter.pointer
        else _checked_scalar(kernel, parameter, value)
        for parameter, value in pairs
    )
    _check_one_device(kernel, pairs)
    _check_no_overlap(kernel, pairs)
    return checked


def _checked_array(kernel: str, parameter: Parameter, value, device_type: str):
    want = DTYPES[parameter.ctype]
    name = f"{kernel}: {parameter.name}"
    if not hasattr(value, "dtype") or not hasattr(value, "shape") or _is_number(value):
        raise ValueError(f"{name} must be an array of {want}, got {value!r}")
    got = str(value.dtype).removeprefix("torch.")
    if got != want.name:
        raise ValueError(
            f"{name} must have dtype {want.name} ({parameter.ctype}*), got {got}"
        )
    if device_of(value).partition(":")[0] != device_type:
        raise ValueError(f"{name} must be on {device_type}, got {device_of(value)}")
    if not _is_contiguous(value):
        raise ValueError(
            f"{name} must be contiguous, got shape {tuple(value.shape)} with "
            f"strides {_strides(value)}"
        )
    if _is_lazy(value):
        raise ValueError(
            f"{name} must hold its values, got a lazy conjugate or negative: "
            f"call .resolve_conj().resolve_neg() first"
        )
    if not parameter.const and not _is_writable(value):
        raise ValueError(f"{name} is written, but the array is read-only")
    return value


def _is_number(value) -> bool:
    return isinstance(value, np.generic)


def device_of(value) -> str:
    """ "cpu", or "cuda:0" and so on, for arrays of NumPy, torch and CuPy.

    All chapters.
    """
    if isinstance(value, np.ndarray):
        return "cpu"
    if type(value).__module__.partition(".")[0] == "cupy":
        return f"cuda:{value.device.id}"
    return str(value.device)


def _is_contiguous(value) -> bool:
    if hasattr(value, "is_contiguous"):
        return value.is_contiguous()
    return value.flags.c_contiguous


def _strides(value) -> tuple[int, ...]:
    """In elements, as torch counts."""
    if callable(getattr(value, "stride", None)):
        return tuple(value.stride())
    return tuple(step // value.itemsize for step in value.strides)


def _is_lazy(value) -> bool:
    return hasattr(value, "is_conj") and (value.is_conj() or value.is_neg())


def _is_writable(value) -> bool:
    return not isinstance(value, np.ndarray) or value.flags.writeable


def _checked_scalar(kernel: str, parameter: Parameter, value):
    dtype = DTYPES[parameter.ctype]
    kind, rule = {
        "i": (Integral, "an integer"),
        "u": (Integral, "an integer"),
        "f": (Real, "a real number"),
        "c": (Complex, "a number"),
        "b": ((bool, np.bool_), "a bool"),
    }[dtype.kind]
    is_bool = isinstance(value, bool | np.bool_)
    if not isinstance(value, kind) or (is_bool and dtype.kind != "b"):
        raise ValueError(
            f"{kernel}: {parameter.name} must be {rule} ({parameter.ctype}), "
            f"got {value!r}"
        )
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        if not low <= value <= high:
            raise ValueError(
                f"{kernel}: {parameter.name} must be in [{low}, {high}] "
                f"({parameter.ctype}), got {value}"
            )
    with np.errstate(over="ignore"):
        converted = dtype.type(value)
    if np.isfinite(value) and not np.isfinite(converted):
        raise ValueError(
            f"{kernel}: {parameter.name} must fit in a {parameter.ctype}, got {value}"
        )
    return converted


def _check_one_device(kernel: str, pairs: Sequence[tuple[Parameter, object]]) -> None:
    arrays = [(p.name, device_of(value)) for p, value in pairs if p.pointer]
    for name, device in arrays[1:]:
        if device != arrays[0][1]:
            raise ValueError(
                f"{kernel}: {name} must be on the device of {arrays[0][0]}, "
                f"{arrays[0][1]}, got {device}"
            )


def _check_no_overlap(kernel: str, pairs: Sequence[tuple[Parameter, object]]) -> None:
    """An output that shares memory with another argument makes the order of threads
    visible, and `__restrict__` promises that it does not happen."""
    spans = [(p, *_span(value)) for p, value in pairs if p.pointer]
    spans = sorted((s for s in spans if s[1] < s[2]), key=lambda s: s[1])
    reach = None  # the argument that extends furthest so far, and the same for outputs
    reach_output = None
    for entry in spans:
        parameter, start, end = entry
        other = reach_output if parameter.const else reach
        if other is not None and start < other[2]:
            raise ValueError(
                f"{kernel}: {parameter.name} and {other[0].name} share memory, but "
                f"one of them is written"
            )
        if reach is None or end > reach[2]:
            reach = entry
        if not parameter.const and (reach_output is None or end > reach_output[2]):
            reach_output = entry


def _span(value) -> tuple[int, int]:
    start = address_of(value)
    return start, start + nbytes_of(value)


def address_of(value) -> int:
    """Where the first element stands. All chapters."""
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return value.data_ptr() if hasattr(value, "data_ptr") else value.data.ptr


def nbytes_of(value) -> int:
    """Bytes that a contiguous array takes. All chapters."""
    return int(np.prod(value.shape, dtype=np.int64)) * value.dtype.itemsize
