"""Sections of the book: headings, their anchors on the built pages, links to them.

Pages are named as in _toc.yml, without ending. The anchor of a heading is what MyST
makes of it (`myst_heading_anchors` in _config.yml) and, by the same rule, GitHub.
"""

import re
from functools import cache
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent


def chapters() -> dict[str, str]:
    """Chapter number -> page, for the chapters that exist."""
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    return {path.name[1]: f"notebooks/{path.stem}" for path in paths}


def cells(page: str) -> list:
    """The cells of a chapter; a Markdown page is one cell."""
    notebook = ROOT / f"{page}.ipynb"
    path = notebook if notebook.is_file() else ROOT / f"{page}.md"
    return _cells(path, path.stat().st_mtime_ns)


@cache
def _cells(path: Path, _changed: int) -> list:
    if path.suffix == ".ipynb":
        return nbformat.read(path, 4).cells
    return [nbformat.v4.new_markdown_cell(path.read_text(encoding="utf-8"))]


def outline(page: str) -> list[tuple[int, str, int]]:
    """(level, heading, index of its cell) of each heading of a page, in order."""
    found = []
    for index, cell in enumerate(cells(page)):
        if cell.cell_type == "markdown":
            text = re.sub(r"^```.*?^```", "", cell.source, flags=re.M | re.S)
            for marks, heading in re.findall(r"^(#{1,4}) +(.+?) *$", text, re.M):
                found.append((len(marks), heading, index))
    return found


def headings(page: str) -> list[str]:
    return [heading for _, heading, _ in outline(page)]


def number(page: str, heading: str) -> str:
    """The number of the section that a heading belongs to; without one, the heading."""
    last = ""
    for level, title, _ in outline(page):
        if level == 2:
            first = title.split()[0]
            last = first if first[0].isdigit() else ""
        if title == heading:
            return last or heading
    raise ValueError(f"{page} has no heading {heading!r}")


def with_equation(page: str, number: str) -> str:
    """The innermost heading above the equation with this number."""
    heading = ""
    for cell in cells(page):
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if found := re.match(r"#{1,4} +(.+?) *$", line):
                    heading = found[1]
                if f"\\tag{{{number}}}" in line:
                    return heading
    raise ValueError(f"{page} has no equation ({number})")


def within(page: str, heading: str) -> tuple[str, list]:
    """The text of a section and its code cells, subsections included."""
    entries = outline(page)
    place = [entry[1] for entry in entries].index(heading)
    level, _, first = entries[place]
    later = [entry for entry in entries[place + 1 :] if entry[0] <= level]
    end, last = (later[0][1], later[0][2]) if later else (None, len(cells(page)) - 1)
    chosen = cells(page)[first : last + 1]
    text = "\n\n".join(c.source for c in chosen if c.cell_type == "markdown")
    text = text[text.index(f"# {heading}") :]
    if end:
        text = text[: text.index(f"# {end}")].rstrip("# \n")
    return text, [cell for cell in chosen if cell.cell_type == "code"]


def anchor(heading: str) -> str:
    """What MyST and GitHub make of a heading: letters, digits and hyphens.

    >>> anchor("1.7 ★ Pad left, or `pad` both?")
    '17--pad-left-or-pad-both'
    """
    plain = re.sub(r"\$[^$]*\$", "", heading)  # formulas do not count
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def link(page: str, heading: str, text: str | None = None) -> str:
    """A Markdown link from a page in book/ to a section; the heading is its text."""
    ending = ".ipynb" if page.startswith("notebooks/") else ".md"
    target = f"../{page}{ending}".replace("../book/", "")
    shown = (text or heading).replace("|", "\\|")
    return f"[{shown}]({target}#{anchor(heading)})"
