"""The full sets of images: read from a folder, or fetched once and kept in a cache.

Nothing here runs code from a data file: the formats are IDX, raw bytes, PNG and JSON.
"""

import gzip
import json
import math
import struct
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from torch import Tensor

from ckutils.checks import check_choice
from ckutils.datasets.fetching import fetch
from ckutils.datasets.shipped import ImageSplit

IDX = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format, (n, ...) uint8; .gz is unpacked.

    Format: two zero bytes, 8 for unsigned bytes, the number of axes, then each length
    as a big-endian int, then the bytes.
    Raises ValueError if the header is another or the length does not fit.
    """
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    zeros, kind, axes = struct.unpack(">HBB", raw[:4])
    if zeros != 0 or kind != 8:
        raise ValueError(f"{path}: not an IDX file of bytes, header {raw[:4]!r}")
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
    if data.size != math.prod(shape):
        raise ValueError(f"{path}: {data.size} bytes for the shape {shape}")
    return data.reshape(shape).copy()


def read_idx_split(folder: Path) -> ImageSplit:
    """The four IDX files of MNIST or Fashion-MNIST, packed or not, as tensors.

    Returns images (n, 1, h, w) float32 in [0, 1], labels (n,) int64.
    Raises ValueError if a file is missing or images and labels do not match.
    """
    parts = [read_idx(_find(folder, name)) for name in IDX]
    for images, labels in (parts[:2], parts[2:]):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{folder}: labels {labels.shape} do not fit {images.shape}"
            )
    return ImageSplit(
        _images(parts[0][:, None]), _labels(parts[1]),
        _images(parts[2][:, None]), _labels(parts[3]),
    )  # fmt: skip


def read_cifar10(folder: Path) -> ImageSplit:
    """CIFAR-10 from its binary batches, or from one PNG a batch with labels in JSON.

    Binary: `data_batch_1.bin` ... and `test_batch.bin`, a label and 3,072 bytes (c, h,
    w) a record. PNG: one image a row, (h, w, c) along it, with `train_lables.json` and
    `test_lables.json` (so spelled).
    Returns images (n, 3, 32, 32) float32 in [0, 1], labels (n,) int64.
    """
    folder = Path(folder)
    if list(folder.rglob("test_batch.bin")):
        names = [f"data_batch_{k}.bin" for k in range(1, 6)], ["test_batch.bin"]
        parts = [_cifar_binary(folder, group) for group in names]
    else:
        names = [f"data_batch_{k}.png" for k in range(1, 6)], ["test_batch.png"]
        words = "train_lables.json", "test_lables.json"
        parts = [
            _cifar_png(folder, group, word)
            for group, word in zip(names, words, strict=True)
        ]
    (x, y), (x_test, y_test) = parts
    return ImageSplit(_images(x), _labels(y), _images(x_test), _labels(y_test))


def _cifar_binary(folder: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    raw = [np.fromfile(_find(folder, name), np.uint8) for name in names]
    for name, part in zip(names, raw, strict=True):
        if part.size % 3073:
            raise ValueError(f"{name}: {part.size} bytes are no records of 3073")
    records = np.concatenate(raw).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _cifar_png(folder: Path, names: list[str], labels: str):
    rows = []
    for name in names:
        with _find(folder, name).open("rb") as file:
            pixels = matplotlib.image.imread(file, format="png")  # (n, 1024, 3 or 4)
        if pixels.shape[1] != 1024 or pixels.shape[2] < 3:
            raise ValueError(f"{name}: {pixels.shape} is no image of 32 x 32 a row")
        rows.append(np.rint(pixels[..., :3] * 255).astype(np.uint8))
    images = np.concatenate(rows).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    classes = np.array(json.loads(_find(folder, labels).read_text()))
    if classes.shape != images.shape[:1]:
        raise ValueError(f"{labels}: {classes.shape} labels for {len(images)} images")
    return images, classes


def _find(folder: Path, name: str) -> Path:
    """The file of that name below the folder, or the same with .gz."""
    for pattern in (name, f"{name}.gz"):
        found = sorted(Path(folder).rglob(pattern))
        if found:
            return found[0]
    raise ValueError(f"folder must hold {name}, and {folder} does not")


def _images(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255


def _labels(labels: np.ndarray) -> Tensor:
    labels = torch.from_numpy(np.asarray(labels).astype(np.int64))
    if labels.min() < 0 or labels.max() > 9:
        raise ValueError(f"labels must be 0 to 9, got up to {int(labels.max())}")
    return labels


IMAGE_SETS = {
    "mnist": read_idx_split,
    "fashion-mnist": read_idx_split,
    "cifar-10": read_cifar10,
}


def fetch_images(
    name: str, *, folder: Path | None = None, base_url: str | None = None
) -> ImageSplit:
    """MNIST, Fashion-MNIST or CIFAR-10, whole: from a folder, or fetched and kept.

    Args:
        name: "mnist" | "fashion-mnist" | "cifar-10".
        folder: holds the files, packed or not; nothing is fetched.
        base_url: where to fetch instead of the set's own address.
    Returns images (n, c, h, w) float32 in [0, 1] and labels (n,) int64, twice.
    Raises ValueError for another name, a missing file, a digest that does not fit.
    """
    check_choice(IMAGE_SETS, name=name)
    if folder is None:
        folder = fetch(name, base_url=base_url)
    return IMAGE_SETS[name](Path(folder))
