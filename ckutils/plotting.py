"""One figure style for the whole book: colour-blind safe, legible on light and dark.

Figures keep an opaque, nearly white ground with dark ink, so that they read the same on
a light page, on a dark page and in print. Sizes and dpi are fixed: a figure `wide` by
`high` inches always has the same number of pixels.
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

from ckutils.checks import _numpy

# Okabe and Ito's palette (2008, "Color Universal Design"), its yellow left out (too
# faint on white), ordered so that neighbours differ in lightness too.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "black": "#000000",
}
SEQUENTIAL, DIVERGING = "cividis", "PuOr"  # both survive colour blindness
DPI, WIDTH = 100, 7.2  # 720 pixels: the text column of the built page

STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.figsize": (WIDTH, 2.8),
    "figure.facecolor": "#fdfdfd",
    "savefig.facecolor": "#fdfdfd",
    "figure.constrained_layout.use": True,
    "axes.facecolor": "#fdfdfd",
    "axes.prop_cycle": cycler(color=list(COLOURS.values())),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same everywhere
}


def use_style() -> None:
    """Set the book's figure style for the rest of the session.

    In a notebook it also stops the inline backend from cropping figures, which would
    make their size depend on their labels.
    """
    mpl.rcParams.update(STYLE)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # outside a notebook there is no inline backend to set
        return
    if "inline" in mpl.get_backend().lower():
        set_matplotlib_formats("png", bbox_inches=None)


def images(pictures: dict, *, columns: int = 4, limits=None, cmap=None):
    """Draw named images in a grid, without ticks; returns the figure.

    Args:
        pictures: title -> (h, w) or (h, w, 3) array or tensor.
        columns: images a row.
        limits: (low, high) of the grey or colour scale shared by all; None scales each
            image by itself.
        cmap: a matplotlib colour map for (h, w) images; None is grey.
    Raises ValueError if `pictures` is empty or `columns` is below 1.
    """
    if not pictures:
        raise ValueError("pictures must name at least one image, got none")
    if columns < 1:
        raise ValueError(f"columns must be >= 1, got {columns}")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    side = WIDTH / columns
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * (side + 0.25)), squeeze=False
    )
    low, high = limits or (None, None)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=False):
        ax.imshow(_numpy(picture), cmap=cmap or "gray", vmin=low, vmax=high)
        ax.set_title(title)
    return figure


def heatmap(ax, values, *, numbers=None, cmap=None, limits=None, label=None):
    """Draw a small matrix on `ax` with its numbers written in the cells.

    Args:
        values: (h, w) array or tensor.
        numbers: a format such as ".0f" for the cell texts; None writes none.
        label: if given, a colour bar with this label is drawn.
    Returns the image that matplotlib drew.
    """
    values = _numpy(values)
    low, high = limits or (values.min(), values.max())
    picture = ax.imshow(values, cmap=cmap or SEQUENTIAL, vmin=low, vmax=high)
    ax.grid(False)
    if numbers is not None:
        for (i, j), value in np.ndenumerate(values):
            red, green, blue, _ = picture.cmap(picture.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ax.text(
                j, i, format(value, numbers), ha="center", va="center", fontsize=8,
                color="white" if dark else "black",
            )  # fmt: skip
    if label is not None:
        ax.figure.colorbar(picture, ax=ax, label=label)
    return picture
