"""Correlation of two matrices, for arrays of NumPy, torch or CuPy."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from ckutils.checks import check_choice, check_same

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
    Returns an array of the same library, dtype and device.
    Raises ValueError for other axes, for mixed or boolean dtypes, and for "valid" if
        each is the larger one on one axis.

    >>> correlate2d(torch.arange(6).reshape(2, 3), torch.tensor([[1, 0], [0, -1]]))
    tensor([[-4, -4]])
    """
    check_choice(MODES, mode=mode)
    x, w = _tensor(image, "image"), _tensor(kernel, "kernel")
    check_same(image=x, kernel=w)
    if _library(image) != _library(kernel):
        raise ValueError(
            f"kernel must come from the library of image, {_library(image)}, "
            f"got {_library(kernel)}"
        )
    (H, W), (h, w_) = x.shape, w.shape
    if mode == "valid" and (h > H or w_ > W):
        if h < H or w_ < W:
            raise ValueError(
                f"kernel must not exceed the image on one axis only where mode is "
                f"'valid', got {(h, w_)} and {(H, W)}"
            )
        # <image shifted, kernel> = conj <kernel shifted back, image>
        y = _correlate2d(w, x, (0, 0)).flip(0, 1).conj().resolve_conj()
    elif mode == "valid":
        y = _correlate2d(x, w, (0, 0))
    else:
        y = _correlate2d(x, w, (h - 1, w_ - 1))
    if mode == "same":
        y = y[h // 2 : h // 2 + H, w_ // 2 : w_ // 2 + W]
    return _back(y, image)


def _correlate2d(x: Tensor, w: Tensor, padding) -> Tensor:
    if x.is_floating_point() or x.is_complex():
        return F.conv2d(x[None, None], w.conj().resolve_conj()[None, None],
                        padding=padding)[0, 0]  # fmt: skip
    (p, q), (h, w_) = padding, w.shape
    x = F.pad(x, (q, q, p, p))
    rows, columns = x.shape[0] - h + 1, x.shape[1] - w_ + 1
    taps = itertools.product(range(h), range(w_))
    return sum(w[a, b] * x[a : a + rows, b : b + columns] for a, b in taps)


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
    return torch.from_dlpack(array.copy(order="C"))


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
