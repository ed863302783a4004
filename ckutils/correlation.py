"""Correlation of two matrices, for arrays of NumPy, torch or CuPy."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from ckutils import banded
from ckutils.checks import check_choice, check_same
from ckutils.cuda.correlate2d import correlate2d_op
from ckutils.cuda.spectral import has_kernels

MODES = ("full", "same", "valid")
LIBRARIES = ("numpy", "torch", "cupy")
DTYPES = (
    "float16", "float32", "float64", "complex64", "complex128",
    "int8", "int16", "int32", "int64", "uint8",
)  # fmt: skip


def correlate2d(image, kernel, mode: str = "valid"):
    """y[i, j] = sum over a, b of image[i + a, j + b] conj(kernel[a, b]).

    Chapter 1, eq. (1.4). As scipy.signal.correlate2d with zeros outside the image: the
    kernel is not flipped, and is conjugated if complex. convolve2d is this with the
    kernel flipped on both axes and not conjugated, except that for an even kernel
    "same" keeps one entry earlier there.

    Args:
        image: (H, W), kernel: (h, w): NumPy arrays, torch tensors or CuPy arrays, both
            of one library, device and dtype: floats, complex numbers, or integers
            (uint8 or signed), which stay integers and wrap as theirs do.
        mode: "full" every overlap, (H + h - 1, W + w - 1); "same" as the image,
            starting h // 2, w // 2 into the full result; "valid" only whole overlaps,
            (H - h + 1, W - w + 1), or (h - H + 1, w - W + 1) if the kernel is larger:
            always a part of "full", where SciPy conjugates a complex one once more.
    Returns an array of the same library, dtype and device; differentiable for torch.
    Cost: H W h w products: by correlate2d.cu on a GPU, by products with banded matrices
        on a CPU, which rounds differently; `correlate2d_route` says which.
    Raises ValueError for other axes, for mixed or boolean dtypes, and for "valid" if
        each is the larger one on one axis.

    >>> correlate2d(torch.arange(6).reshape(2, 3), torch.tensor([[1, 0], [0, -1]]))
    tensor([[-4, -4]])
    """
    x, w, where, turned = _prepare(image, kernel, mode)
    y = _CORES[_route(x, w, where)](x, w, *where)
    if turned:  # <image shifted, kernel> = conj <kernel shifted back, image>
        y = y.flip(0, 1).conj().resolve_conj()
    return _back(y, image)


def correlate2d_route(image, kernel, mode: str = "valid") -> str:
    """The way that `correlate2d` takes with these arguments.

    Chapter 1, eq. (1.4). "correlate2d.cu" is the book's kernel, for real numbers on a
    GPU with CuPy; "banded" are products with banded matrices, for many real numbers on
    a CPU; "conv2d" is torch's; integers go "by taps", one product of images a tap.

    Args and raises: as `correlate2d`.

    >>> correlate2d_route(torch.ones(9, 9), torch.ones(3, 3))
    'conv2d'
    """
    x, w, where, _ = _prepare(image, kernel, mode)
    return _route(x, w, where)


def _prepare(image, kernel, mode: str):
    """Tensors, (top, left, rows, columns) of eq. (1.4), and whether they are swapped.

    y[i, j] sums image[i + a - top, j + b - left] conj(kernel[a, b]).
    """
    check_choice(MODES, mode=mode)
    x, w = _tensor(image, "image"), _tensor(kernel, "kernel")
    check_same(image=x, kernel=w)
    if _library(image) != _library(kernel):
        raise ValueError(
            f"kernel must come from the library of image, {_library(image)}, "
            f"got {_library(kernel)}"
        )
    (H, W), (h, k) = x.shape, w.shape
    if mode == "full":
        return x, w, (h - 1, k - 1, H + h - 1, W + k - 1), False
    if mode == "same":
        return x, w, (h - 1 - h // 2, k - 1 - k // 2, H, W), False
    if h <= H and k <= W:
        return x, w, (0, 0, H - h + 1, W - k + 1), False
    if h < H or k < W:
        raise ValueError(
            f"kernel must not exceed the image on one axis only where mode is "
            f"'valid', got {(h, k)} and {(H, W)}"
        )
    return w, x, (0, 0, h - H + 1, k - W + 1), True


# The ways --------------------------------------------------------------------------


def _route(x: Tensor, w: Tensor, where) -> str:
    if not (x.is_floating_point() or x.is_complex()):
        return "by taps"
    if x.dtype not in (torch.float32, torch.float64):
        return "conv2d"
    if has_kernels(x):
        return "correlate2d.cu"
    products = w.numel() * where[2] * where[3]
    large = x.device.type == "cpu" and banded.worthwhile(products)
    return "banded" if large else "conv2d"


def _conv2d(x: Tensor, w: Tensor, *where) -> Tensor:
    x, w = banded.padded(x, w, *where), w.conj().resolve_conj()
    return F.conv2d(x[None, None], w[None, None])[0, 0]


def _by_taps(x: Tensor, w: Tensor, *where) -> Tensor:
    """torch convolves no integers; these wrap as theirs do."""
    x, (rows, columns) = banded.padded(x, w, *where), where[2:]
    taps = itertools.product(range(w.shape[0]), range(w.shape[1]))
    return sum(w[a, b] * x[a : a + rows, b : b + columns] for a, b in taps)


_CORES = {
    "correlate2d.cu": correlate2d_op,
    "banded": correlate2d_op,
    "conv2d": _conv2d,
    "by taps": _by_taps,
}

# Arrays of three libraries ---------------------------------------------------------


def _tensor(array, name: str) -> Tensor:
    """An array of NumPy, torch or CuPy with two axes as a tensor on its device."""
    if _library(array) is None:
        raise ValueError(
            f"{name} must be an array of NumPy, torch or CuPy, got {type(array)}"
        )
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must have two axes and be not empty, got {tuple(array.shape)}"
        )
    if str(array.dtype).removeprefix("torch.") not in DTYPES:
        raise ValueError(
            f"{name} must hold numbers, one of {', '.join(DTYPES)}, got {array.dtype}"
        )
    if isinstance(array, Tensor):
        return array
    # copies lose negative strides, which torch does not have, and read-only flags
    plain = array.flags.c_contiguous and getattr(array.flags, "writeable", True)
    return torch.from_dlpack(array if plain else array.copy(order="C"))


def _library(array) -> str | None:
    """The library that an array, or the class it derives from, belongs to."""
    roots = (kind.__module__.partition(".")[0] for kind in type(array).__mro__)
    return next((root for root in roots if root in LIBRARIES), None)


def _back(y: Tensor, like):
    """y as an array of the library of `like`."""
    if isinstance(like, Tensor):
        return y
    if _library(like) == "numpy":
        return y.contiguous().numpy()
    import cupy

    return cupy.from_dlpack(y.contiguous())
