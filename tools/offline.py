"""Sphinx extension of the book: what the site needs to be read on a plane.

The site carries its own MathJax: this copies the parts of MathJax 3 that the book uses
out of the wheel of `sphinx-mathjax-offline` (24 MB): the TeX to CommonHTML bundle,
its fonts and the TeX extensions that it loads on demand, together 2 MB.
It also leaves out a script that would ask the network, mends what keeps a reader
without a mouse or with a slow line away, and shows docstrings as written.
"""

import re
from importlib.metadata import files
from io import BytesIO
from pathlib import Path

import sections  # beside this file, which Sphinx loads by its folder
from docutils.nodes import make_id
from PIL import Image
from sphinx.errors import ExtensionError
from sphinx.util.fileutil import copy_asset

PARTS = {
    "tex-chtml.js": "",
    "output/chtml/fonts": "output/chtml/fonts",
    "input/tex/extensions": "input/tex/extensions",
}


def mathjax_folder() -> Path:
    for file in files("sphinx-mathjax-offline") or ():
        if file.name == "tex-chtml.js":
            return Path(file.locate()).parent
    raise ExtensionError("sphinx-mathjax-offline is installed without tex-chtml.js")


def copy_mathjax(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        target = Path(app.outdir) / "_static" / "mathjax"
        for part, place in PARTS.items():
            copy_asset(str(mathjax_folder() / part), str(target / place))


SIDEBAR = '<div id="pst-primary-sidebar" '
MENDED = (  # pattern, what stands there instead
    # the sidebar, with logo and search, is a landmark for screen readers
    (SIDEBAR + "(?!role)", SIDEBAR + 'role="complementary" aria-label="Book" '),
    # a table that scrolls can be reached by the keyboard
    ("<table (?!tabindex)", '<table tabindex="0" '),
    # a role that browsers have given up
    ('role="doc-biblioentry"', 'role="listitem"'),
    # a blank in code has no colour; without its tags a chapter is a tenth lighter
    (r'<span class="w">([^<]*)</span>', r"\1"),
)


def mend(app, exception) -> None:
    """Mend every page where the theme is less than accessible, or heavy."""
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            old = text = page.read_text(encoding="utf-8")
            for pattern, better in MENDED:
                text = re.sub(pattern, better, text)
            if text != old:
                page.write_text(text, encoding="utf-8")


def slim(app, exception) -> None:
    """Write every figure again, without loss, in as few bytes as Pillow can."""
    if exception is None and app.builder.format == "html":
        for path in (Path(app.outdir) / "_images").glob("*.png"):
            with Image.open(path) as picture:
                plain = picture.convert("RGBA")
            if plain.getchannel("A").getextrema() == (255, 255):
                plain = plain.convert("RGB")
                if plain.getcolors(256):  # few colours: exact with a palette
                    plain = plain.quantize(256, dither=Image.Dither.NONE)
            packed = BytesIO()
            plain.save(packed, "PNG", optimize=True)
            if packed.tell() < path.stat().st_size:
                path.write_bytes(packed.getvalue())


def drop_thebe(app, page, template, context, doctree) -> None:
    """Leave out thebe, which jupyter-book loads: it runs cells on a remote server, and
    its settings are written twice, which is an error in the browser's console."""
    context["script_files"] = [
        script
        for script in context.get("script_files", ())
        if "thebe" not in f"{getattr(script, 'filename', '')} {script.attributes}"
    ]


def derived_in(docstring: str) -> str | None:
    """A link to the section with the first equation that a docstring names."""
    pages = sections.chapters()
    for number in re.findall(r"(?<!\w)\((\d\.\d+)\)", docstring):
        if page := pages.get(number[0]):
            heading = sections.with_equation(page, number)
            target = f"../{page}.html#{make_id(heading)}"
            section = sections.number(page, heading)
            return f"Derived in `section {section} <{target}>`__."
    if (chapter := re.search(r"Chapter (\d)", docstring)) and chapter[1] in pages:
        target = f"../{pages[chapter[1]]}.html"
        return f"Used in `chapter {chapter[1]} <{target}>`__."
    return None


def as_written(app, what, name, obj, options, lines: list[str]) -> None:
    """Show a docstring as it stands (its columns and stars are not reStructuredText),
    and link the section where the book derives the thing."""
    if lines:
        link = derived_in("\n".join(lines))
        lines[:] = [".. code-block:: none", "", *(f"   {line}" for line in lines), ""]
        lines += [link, ""] if link else []


def setup(app):
    app.connect("autodoc-process-docstring", as_written)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", mend)
    app.connect("build-finished", slim)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
