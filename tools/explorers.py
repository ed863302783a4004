"""Sphinx extension of the book: the directive `explorer`, and each explorer by itself.

    ```{explorer} convolution
    ```

shows the frame that a notebook shows, with a link to the explorer as a page of its own,
_static/explorers/NAME.html, which fills the window.
"""

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive


class ExplorerDirective(Directive):
    required_arguments = 1

    def run(self):
        from ckutils.widgets import explorer

        document = self.state.document.settings.env.docname
        up = "../" * document.count("/")
        name = self.arguments[0]
        link = (
            f'<p><a href="{up}_static/explorers/{name}.html">The same in a window of '
            "its own</a></p>"
        )
        return [nodes.raw("", explorer(name).frame() + link, format="html")]


def write_pages(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        from ckutils.widgets import EXPLORERS, explorer_html

        folder = Path(app.outdir) / "_static" / "explorers"
        folder.mkdir(parents=True, exist_ok=True)
        for name in EXPLORERS:
            page = folder / f"{name}.html"
            page.write_text(explorer_html(name), encoding="utf-8")


def setup(app):
    app.add_directive("explorer", ExplorerDirective)
    app.connect("build-finished", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
