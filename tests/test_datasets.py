"""The shipped data is what it says it is, and a damaged file is refused."""

import matplotlib.image
import numpy as np
import pytest
import torch

from ckutils.datasets import (
    fashion_mnist_small,
    photo,
    shipped,
    spoken_digits,
    vital_signs,
)


@pytest.mark.parametrize("name", shipped.PHOTOS)
def test_photos(name):
    image = photo(name)
    colour = name in ("astronaut", "chelsea", "coffee")
    assert image.shape == ((3, 256, 256) if colour else (256, 256))
    assert image.dtype == torch.float32
    assert 0 <= image.min() < 0.3 and 0.7 < image.max() <= 1
    assert image.is_contiguous()


def test_a_photo_keeps_rows_and_channels():
    """Against a second reader of the same file."""
    from PIL import Image

    path = shipped._folder() / "photos" / "astronaut.png"
    pixels = np.asarray(Image.open(str(path)))
    assert torch.equal((photo("astronaut") * 255).round().byte()[:, 10, 20],
                       torch.tensor(pixels[10, 20]))  # fmt: skip


def test_an_unknown_photo_is_refused():
    with pytest.raises(
        ValueError, match=r"name must be one of 'astronaut', .*, got 'x'"
    ):
        photo("x")


def test_fashion_mnist_is_stratified_and_lossless():
    data = fashion_mnist_small()
    assert data.train_images.shape == (5000, 1, 28, 28)
    assert data.test_images.shape == (1000, 1, 28, 28)
    assert data.train_labels.bincount().tolist() == [500] * 10
    assert data.test_labels.bincount().tolist() == [100] * 10
    levels = data.train_images * 255
    assert torch.equal(levels, levels.round()) and levels.max() == 255


def test_no_test_image_is_a_training_image():
    data = fashion_mnist_small()
    train = {image.numpy().tobytes() for image in data.train_images}
    shared = sum(image.numpy().tobytes() in train for image in data.test_images)
    assert shared == 0


def test_spoken_digits_invert_the_mu_law():
    clips = spoken_digits()
    assert len(clips.waveforms) == 1000 and clips.rate == 8000
    assert clips.labels.bincount().tolist() == [100] * 10
    wave = torch.cat(clips.waveforms).double()
    assert wave.abs().max() <= 1 + 1e-6
    # the forward law must give the stored codes back
    with (shipped._folder() / "spoken_digits_1k_8khz_mulaw.npz").open("rb") as file:
        codes = torch.from_numpy(np.load(file)["samples"]).double()
    law = wave.sign() * torch.log1p(255 * wave.abs()) / np.log(256)
    assert torch.equal(((law + 1) * 127.5).round(), codes)


def test_vital_signs_are_plausible_where_measured():
    stays = vital_signs()
    assert len(stays.values) == len(stays.hours) == len(stays.sepsis) == 5864
    for values, hours, sepsis in zip(*stays[:3], strict=True):
        assert len(values) == len(hours) == len(sepsis)
        assert bool((hours.diff() > 0).all())
    every = torch.cat(stays.values)
    medians = dict(
        zip(stays.names, every.nanmedian(dim=0).values.tolist(), strict=True)
    )
    low = {"HR": 60, "O2Sat": 90, "Temp": 36, "SBP": 100, "MAP": 60, "Resp": 12}
    high = {"HR": 110, "O2Sat": 100, "Temp": 38, "SBP": 140, "MAP": 100, "Resp": 25}
    for name, median in medians.items():
        assert low[name] <= median <= high[name], name
    septic = sum(bool(s.any()) for s in stays.sepsis)
    assert septic == 2932


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The loaders read from an empty folder instead of the shipped one."""
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(shipped, "_folder", lambda: tmp_path)
    return tmp_path


def test_a_missing_array_is_refused(folder):
    np.savez(folder / "fashion_mnist_5k1k.npz", x_train=np.zeros(1))
    with pytest.raises(ValueError, match="must hold x_train, y_train"):
        fashion_mnist_small()


def test_a_wrong_shape_is_refused(folder):
    zeros = np.zeros((2, 28, 28), np.uint8)
    np.savez(
        folder / "fashion_mnist_5k1k.npz",
        x_train=zeros, y_train=zeros, x_test=zeros, y_test=zeros,
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"train must be uint8 of shape \(5000, 28, 28\)"
    ):
        fashion_mnist_small()


def test_a_label_out_of_range_is_refused(folder):
    np.savez(
        folder / "spoken_digits_1k_8khz_mulaw.npz", samples=np.zeros(1000, np.uint8),
        lengths=np.ones(1000, np.int32), labels=np.full(1000, 10, np.uint8),
    )  # fmt: skip
    with pytest.raises(ValueError, match="labels must be <= 9, got 10"):
        spoken_digits()


def test_a_length_of_zero_is_refused(folder):
    np.savez(
        folder / "spoken_digits_1k_8khz_mulaw.npz", samples=np.zeros(0, np.uint8),
        lengths=np.zeros(1000, np.int32), labels=np.zeros(1000, np.uint8),
    )  # fmt: skip
    with pytest.raises(ValueError, match="lengths must be >= 1, got 0"):
        spoken_digits()


def test_other_channels_are_refused(folder):
    np.savez(
        folder / "sepsis_vitals_5864.npz", lengths=np.ones(5864, np.int32),
        values=np.zeros((5864, 6), np.float16), hours=np.ones(5864, np.int16),
        sepsis=np.zeros(5864, np.uint8), channels=np.array(["a"] * 6),
    )  # fmt: skip
    with pytest.raises(ValueError, match="channels must be"):
        vital_signs()


def test_a_photo_of_another_size_is_refused(folder):
    matplotlib.image.imsave(folder / "photos" / "camera.png", np.zeros((8, 8)))
    with pytest.raises(ValueError, match="must be 256 by 256"):
        photo("camera")
