"""Explorers: one self-contained page a chapter, for a notebook, the book, a browser.

Each is written by hand as `static/NAME.html` and shares `common.css` and `common.js`;
opened from disk there, it works too. What it shows is computed in the browser, by a
function that the tests compare with the package case by case.
"""

import html
import re
from dataclasses import dataclass
from importlib.resources import files

from ckutils.checks import check_choice

# name: (chapter, what it is, height in pixels until the page has measured itself)
PAGES = {
    "convolution": (1, "convolution arithmetic, every knob", 750),
    "cascade": (2, "dilated cascades and Kronecker products", 900),
    "siren": (3, "the kernel of a SIREN and its spectrum", 850),
    "recurrence": (4, "eigenvalues of a recurrence, its kernel and gradients", 1080),
    "nystrom": (5, "Nystrom's approximation with anchors on the circle", 870),
}
EXPLORERS = tuple(PAGES)
_PARTS = {
    r'<link rel="stylesheet" href="([\w.]+)">': "<style>\n{}</style>",
    r'<script src="([\w.]+)"></script>': "<script>\n{}</script>",
}


def explorer_html(name: str) -> str:
    """The page of an explorer as one text of HTML that asks for no other file.

    All chapters. At most 60 kB; it follows the reader's light or dark setting.

    Args:
        name: one of `EXPLORERS`.
    Returns a whole document. Raises ValueError for another name.

    >>> explorer_html("siren").count("<h1>")
    1
    """
    check_choice(EXPLORERS, name=name)
    page = _read(f"{name}.html")
    for pattern, frame in _PARTS.items():
        page = re.sub(pattern, lambda m, f=frame: f.format(_read(m[1])), page)
    return page


def explorer(name: str) -> "Explorer":
    """The explorer of a chapter, as something a notebook shows.

    All chapters. It runs in the reader's browser: no kernel, no network, no widget
    extension, in Jupyter, on Colab and on the built page alike.

    Args:
        name: one of `EXPLORERS`, in the order of the chapters.
    Returns an `Explorer`. Raises ValueError for another name.

    >>> explorer("nystrom")
    Explorer of chapter 5: Nystrom's approximation with anchors on the circle
    """
    check_choice(EXPLORERS, name=name)
    return Explorer(name)


@dataclass(frozen=True, repr=False)
class Explorer:
    """A page in a frame of its own, so that styles and ids do not meet the page around.

    All chapters. Where a viewer strips frames, as GitHub's does, the line below the
    frame remains and says what is missing.
    """

    name: str

    def __repr__(self) -> str:
        chapter, title, _ = PAGES[self.name]
        return f"Explorer of chapter {chapter}: {title}"

    def frame(self) -> str:
        """The page inside an <iframe>, which grows to the height of its content."""
        page = html.escape(explorer_html(self.name))
        return (
            f'<iframe class="explorer" title="{self}" srcdoc="{page}" width="100%" '
            f'height="{PAGES[self.name][2]}" style="border:0;width:100%"></iframe>'
        )

    def _repr_html_(self) -> str:
        return (
            f"{self.frame()}\n<p><small>{self}. It runs in your browser, without a "
            "kernel. No picture above? This viewer removes frames: run the cell in "
            "Jupyter or Colab, or open the built book.</small></p>"
        )


def _read(file: str) -> str:
    return (files(__package__) / "static" / file).read_text(encoding="utf-8")
