"""Sphinx extension of the book: what the site needs to be read on a plane.

The site carries its own MathJax: this copies the parts of MathJax 3 that the book uses
out of the wheel of `sphinx-mathjax-offline` (24 MB): the TeX to CommonHTML bundle,
its fonts and the TeX extensions that it loads on demand, together 2 MB.
It also leaves out a script that would ask the network, names the sidebar for screen
readers, and shows docstrings as written.
"""

import re
from importlib.metadata import files
from pathlib import Path

import sections  # beside this file, which Sphinx loads by its folder
from docutils.nodes import make_id
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


def name_sidebar(app, exception) -> None:
    """Make the sidebar, logo and search included, a landmark for screen readers."""
    if exception is None and app.builder.format == "html":
        plain = '<div id="pst-primary-sidebar" '
        named = f'{plain}role="complementary" aria-label="Book" '
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            if plain in text and named not in text:
                page.write_text(text.replace(plain, named), encoding="utf-8")


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
    app.connect("build-finished", name_sidebar)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
