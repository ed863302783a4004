"""The figure style: fixed size, colours that differ for every reader, clear errors."""

import io
import itertools

import matplotlib as mpl
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ckutils import plotting

mpl.use("Agg")
# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "none": np.eye(3),
}  # fmt: skip


def linear(colour: str) -> np.ndarray:
    rgb = np.array(mpl.colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of a linear sRGB colour."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                       [0.0193, 0.1192, 0.9505]])  # fmt: skip
    xyz = to_xyz @ rgb.clip(0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_stay_apart_for_every_reader(kind):
    seen = {
        name: lab(np.array(BLINDNESS[kind]) @ linear(colour))
        for name, colour in plotting.COLOURS.items()
    }
    for (a, first), (b, second) in itertools.combinations(seen.items(), 2):
        assert np.linalg.norm(first - second) > 10, f"{a} and {b} look alike"


def test_a_figure_has_a_fixed_number_of_pixels():
    with mpl.rc_context():
        plotting.use_style()
        for label in ("x", "a label that is much longer\nand has two lines"):
            figure, ax = plt.subplots()
            ax.set_xlabel(label)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            plt.close(figure)
            buffer.seek(0)
            assert matplotlib.image.imread(buffer).shape[:2] == (280, 720)


def test_text_has_contrast_on_the_ground():
    """WCAG AA: 4.5 to 1 between ink and ground, whatever the page behind it."""
    ground = linear(plotting.STYLE["figure.facecolor"]) @ [0.2126, 0.7152, 0.0722]
    assert (ground + 0.05) / (0 + 0.05) > 4.5
    assert len(plotting.STYLE["figure.facecolor"]) == 7, "opaque: no alpha"


def test_images_draws_what_it_is_given():
    pictures = {f"number {i}": np.full((4, 4), i) for i in range(5)}
    figure = plotting.images(pictures, columns=3, limits=(0, 4))
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == list(pictures)
    assert [float(ax.images[0].get_array().mean()) for ax in shown] == [0, 1, 2, 3, 4]
    plt.close(figure)


def test_tensors_that_learn_are_drawn_too():
    learned = torch.nn.Parameter(torch.arange(4.0).reshape(2, 2))
    figure = plotting.images({"weights": learned})
    assert figure.axes[0].images[0].get_array().tolist() == [[0, 1], [2, 3]]
    plt.close(figure)
    figure, ax = plt.subplots()
    drawn = plotting.heatmap(ax, learned, numbers=".0f")
    assert drawn.get_array().tolist() == [[0, 1], [2, 3]]
    plt.close(figure)


def test_images_refuses_nothing_and_no_columns():
    with pytest.raises(ValueError, match="pictures must name at least one image"):
        plotting.images({})
    with pytest.raises(ValueError, match="columns must be >= 1, got 0"):
        plotting.images({"a": np.zeros((2, 2))}, columns=0)


def test_heatmap_writes_legible_numbers():
    figure, ax = plt.subplots()
    plotting.heatmap(ax, [[0, 1], [2, 3]], numbers=".0f", label="count")
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2", "3"]
    assert [text.get_color() for text in ax.texts] == [
        "white",
        "white",
        "black",
        "black",
    ]
    plt.close(figure)
