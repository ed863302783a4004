"""Loaders of the shipped files: each validates what it reads before handing it out."""

from importlib.resources import files
from typing import NamedTuple

import matplotlib.image
import numpy as np
import torch
from torch import Tensor

from ckutils.checks import check_choice

PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel")
FASHION_NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
VITAL_NAMES = ("HR", "O2Sat", "Temp", "SBP", "MAP", "Resp")


class ImageSplit(NamedTuple):
    """Images (n, 1, 28, 28) float32 in [0, 1] and labels (n,) int64, train and test."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class Clips(NamedTuple):
    """Waveforms (n,) of float32 tensors (t,) in [-1, 1], labels (n,) int64, rate."""

    waveforms: tuple[Tensor, ...]
    labels: Tensor
    rate: int


class Stays(NamedTuple):
    """Hospital stays: values[i] (t_i, 6) float32 with NaN where nothing was measured,
    hours[i] (t_i,) int64 and sepsis[i] (t_i,) bool, column names in `names`."""

    values: tuple[Tensor, ...]
    hours: tuple[Tensor, ...]
    sepsis: tuple[Tensor, ...]
    names: tuple[str, ...]


def photo(name: str) -> Tensor:
    """One photograph, (256, 256) grey or (3, 256, 256) colour, float32 in [0, 1].

    Args:
        name: one of `PHOTOS`; astronaut, chelsea and coffee are in colour.
    Raises ValueError if the name is unknown or the file is not 256 by 256.
    Source: centre crops from scikit-image's test images; CC0 and public domain, see
        LICENSES.md beside the files.

    >>> photo("camera").shape
    torch.Size([256, 256])
    """
    check_choice(PHOTOS, name=name)
    with (_folder() / "photos" / f"{name}.png").open("rb") as file:
        pixels = matplotlib.image.imread(file, format="png")  # (h, w) or (h, w, 3)
    if pixels.shape[:2] != (256, 256):
        raise ValueError(f"photo {name!r} must be 256 by 256, got {pixels.shape}")
    image = torch.from_numpy(pixels.astype(np.float32))
    return image if image.ndim == 2 else image.permute(2, 0, 1).contiguous()


def fashion_mnist_small() -> ImageSplit:
    """5,000 training and 1,000 test images of Fashion-MNIST, stratified, lossless.

    Raises ValueError if the file does not hold what it should.
    Source: Xiao, Rasul and Vollgraf, arXiv:1708.07747; MIT licence.

    >>> fashion_mnist_small().test_images.shape
    torch.Size([1000, 1, 28, 28])
    """
    data = _read("fashion_mnist_5k1k.npz", "x_train", "y_train", "x_test", "y_test")
    for part, count in (("train", 5000), ("test", 1000)):
        _require(part, data[f"x_{part}"], (count, 28, 28), np.uint8)
        _require(part, data[f"y_{part}"], (count,), np.uint8, high=9)
    images = [
        torch.from_numpy(data[f"x_{part}"]).float()[:, None] / 255
        for part in ("train", "test")
    ]
    labels = [torch.from_numpy(data[f"y_{part}"]).long() for part in ("train", "test")]
    return ImageSplit(images[0], labels[0], images[1], labels[1])


def spoken_digits() -> Clips:
    """1,000 spoken digits as raw waveforms at 8 kHz, 100 a digit.

    Stored with mu-law companding, x = sign(v) ((1 + mu)^|v| - 1)/mu, mu = 255. No
    speaker ids are stored, so a random split puts one speaker on both sides: accuracies
    are those of known speakers.
    Raises ValueError if the file does not hold what it should.
    Source: Free Spoken Digit Dataset; CC BY-SA 4.0, see LICENSES.md beside the file.

    >>> len(spoken_digits().waveforms)
    1000
    """
    data = _read("spoken_digits_1k_8khz_mulaw.npz", "samples", "lengths", "labels")
    lengths = data["lengths"]
    _require("lengths", lengths, (1000,), np.int32, low=1)
    _require("labels", data["labels"], (1000,), np.uint8, high=9)
    _require("samples", data["samples"], (int(lengths.sum()),), np.uint8)
    code = torch.from_numpy(data["samples"]).float() / 127.5 - 1
    wave = code.sign() * torch.expm1(code.abs() * np.log(256.0)) / 255
    return Clips(
        tuple(wave.split(lengths.tolist())),
        torch.from_numpy(data["labels"]).long(),
        8000,
    )


def vital_signs() -> Stays:
    """Hourly vital signs of 5,864 hospital stays, half of them with sepsis.

    Raises ValueError if the file does not hold what it should.
    Source: PhysioNet/Computing in Cardiology Challenge 2019, Reyna et al.,
        doi:10.1097/CCM.0000000000004145; CC BY 4.0.

    >>> vital_signs().names
    ('HR', 'O2Sat', 'Temp', 'SBP', 'MAP', 'Resp')
    """
    data = _read(
        "sepsis_vitals_5864.npz", "values", "hours", "sepsis", "lengths", "channels"
    )
    lengths, total = data["lengths"], len(data["hours"])
    _require("lengths", lengths, (5864,), np.int32, low=1)
    _require("values", data["values"], (int(lengths.sum()), 6), np.float16)
    _require("hours", data["hours"], (total,), np.int16, low=1)
    _require("sepsis", data["sepsis"], (total,), np.uint8, high=1)
    if tuple(data["channels"]) != VITAL_NAMES:
        raise ValueError(f"channels must be {VITAL_NAMES}, got {data['channels']}")
    parts = lengths.tolist()
    return Stays(
        torch.from_numpy(data["values"].astype(np.float32)).split(parts),
        torch.from_numpy(data["hours"].astype(np.int64)).split(parts),
        torch.from_numpy(data["sepsis"].astype(bool)).split(parts),
        VITAL_NAMES,
    )


def _folder():
    return files("ckutils.datasets") / "data"


def _read(name: str, *keys: str) -> dict[str, np.ndarray]:
    """The named arrays of a shipped .npz file, never unpickled."""
    with (
        (_folder() / name).open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        missing = [key for key in keys if key not in data.files]
        if missing:
            raise ValueError(f"{name} must hold {', '.join(keys)}; missing {missing}")
        return {key: data[key] for key in keys}


def _require(name, array, shape, dtype, *, low=None, high=None) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
    if low is not None and array.min() < low:
        raise ValueError(f"{name} must be >= {low}, got {array.min()}")
    if high is not None and array.max() > high:
        raise ValueError(f"{name} must be <= {high}, got {array.max()}")
