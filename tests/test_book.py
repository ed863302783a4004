"""The built book: strict, complete, self-contained, and legible in a real browser."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from tools import book as builder

ROOT = Path(__file__).resolve().parent.parent


def build(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(folder / "tools" / "book.py")]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def html() -> Path:
    run = build(ROOT)
    assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]
    assert run.stdout.splitlines()[-1].startswith("open ")
    return ROOT / "_build" / "html"


def test_every_page_of_the_toc_is_built(html):
    assert builder.pages()
    assert builder.missing_pages() == []


def test_a_second_build_has_nothing_to_do(html):
    assert "nothing that the book reads has changed" in build(ROOT).stdout


# A broken book must not build ------------------------------------------------------


@pytest.fixture
def small_book(tmp_path):
    """A copy of the book's frame with one page, to be broken; spaces in its path."""
    folder = tmp_path / "a book"
    for part in ("tools", "book/_static"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "_config.yml", folder)
    (folder / "book" / "references.bib").write_text("")
    (folder / "book" / "intro.md").write_text("# Intro\n\nText.\n")
    (folder / "book" / "other.md").write_text("# Other\n\n$x$\n")
    (folder / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nparts:\n"
        "  - caption: Start\n    chapters:\n      - file: book/other\n"
    )
    return folder


def test_a_small_good_book_builds_in_a_path_with_spaces(small_book):
    run = build(small_book)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (small_book / "_build/html/book/other.html").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[x](missing.md)", "missing"),
        ("{ref}`nowhere`", "nowhere"),
        ("# Other\n\n#### Skipped", "H1 to H4"),
    ],
)
def test_a_warning_fails_the_build(small_book, text, message):
    (small_book / "book" / "other.md").write_text(f"# Other\n\n{text}\n")
    run = build(small_book)
    assert run.returncode != 0
    assert message in run.stdout + run.stderr


def test_a_missing_page_fails_the_build(small_book):
    (small_book / "book" / "other.md").unlink()
    assert build(small_book).returncode != 0


def test_a_changed_page_is_built_again(small_book):
    assert build(small_book).returncode == 0
    (small_book / "book" / "other.md").write_text("# Other\n\nmarmalade\n")
    assert build(small_book).returncode == 0
    assert "marmalade" in (small_book / "_build/html/book/other.html").read_text()


def test_a_published_notebook_has_its_colab_button(small_book):
    """The theme's own options must not push out those that jupyter-book derives."""
    name = sorted((ROOT / "notebooks").glob("*.ipynb"))[0].name
    (small_book / "notebooks").mkdir()
    notebook = nbformat.read(ROOT / "notebooks" / name, 4)
    notebook.cells = notebook.cells[:1]  # its links lead to pages that are not here
    nbformat.write(notebook, small_book / "notebooks" / name)
    toc = small_book / "_toc.yml"
    page = f"notebooks/{name.removesuffix('.ipynb')}"
    toc.write_text(toc.read_text() + f"      - file: {page}\n")
    config = small_book / "_config.yml"
    text = config.read_text().replace('url: ""', 'url: "https://github.com/a/b"', 1)
    colab = "https://colab.research.google.com"
    config.write_text(text.replace('colab_url: ""', f'colab_url: "{colab}"'))
    assert build(small_book).returncode == 0
    built = (small_book / "_build/html" / f"{page}.html").read_text()
    assert f"{colab}/github/a/b/blob/main/notebooks/{name}" in built


# Links -----------------------------------------------------------------------------


class Page(HTMLParser):
    """The links, sources and ids of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.ids.add(value)


def broken_links(html: Path) -> list[str]:
    """Links inside the site that lead nowhere, as "page -> link"."""
    # below _static lie templates of the theme, not pages
    paths = [p for p in html.rglob("*.html") if "_static" not in p.parts]
    pages = {path: Page(path) for path in paths}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            target = target.resolve()
            anchor = unquote(parts.fragment)
            lost = not target.exists()
            if not lost and anchor and target in pages:
                lost = anchor not in pages[target].ids
            if lost:
                broken.append(f"{path.relative_to(html)} -> {link}")
    return broken


def test_no_internal_link_is_dead(html):
    assert broken_links(html.resolve()) == []


def test_the_link_check_sees_a_dead_link_and_a_dead_anchor(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html">b</a><a href="#no">c</a>')
    assert broken_links(tmp_path) == ["a.html -> b.html", "a.html -> #no"]


# In a real browser -----------------------------------------------------------------


class Visit:
    """One page opened from disk, every request to the outside refused and noted."""

    def __init__(self, browser, path: Path, width: int):
        self.outside, self.errors = [], []
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.route("**/*", self._answer)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._listen)
        self.page.goto(path.as_uri())
        self.page.wait_for_function(
            "() => !window.MathJax || !MathJax.startup "
            "|| MathJax.startup.promise.then(() => true)"
        )
        self.page.wait_for_load_state("networkidle")

    def _answer(self, route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def _listen(self, message):
        if message.type == "error":
            self.errors.append(message.text)

    def ask(self, script: str):
        return self.page.evaluate(script)


@pytest.fixture(params=builder.pages())
def visit(request, html, browser):
    visit = Visit(browser, html / f"{request.param}.html", 1280)
    yield visit
    visit.page.close()


def test_a_page_reads_without_a_network(visit):
    assert visit.outside == [], "asks for something outside"
    assert visit.errors == [], "errors in the console"
    # formulas: all typeset, none left as TeX and none with an error inside
    assert (
        visit.ask("document.querySelectorAll('.math:not(:has(mjx-container))').length")
        == 0
    )
    assert visit.ask("document.querySelectorAll('mjx-merror').length") == 0
    # figures: all loaded, all with alt text
    images = visit.ask(
        "[...document.images].filter(i => i.offsetParent !== null)"
        ".map(i => [i.src, i.naturalWidth, i.alt])"
    )
    assert [src for src, width, _ in images if width == 0] == [], "figures not loaded"
    assert [src for src, _, alt in images if not alt.strip()] == [], "no alt text"
    # one header, one search box
    boxes = visit.ask(
        "[...document.querySelectorAll('.search-button-field, .search-button__button')]"
        ".filter(e => e.offsetParent !== null).length"
    )
    assert boxes == 1


def test_chapters_show_formulas_and_every_figure(html, browser):
    for path in sorted((html / "notebooks").glob("*.html")):
        source = (ROOT / "notebooks" / f"{path.stem}.ipynb").read_text()
        pictures = len(re.findall(r'"image/(?:png|svg\+xml)":', source))
        visit = Visit(browser, path, 1280)
        assert visit.ask("document.querySelectorAll('mjx-container').length") > 0
        shown = "document.querySelectorAll('.cell_output img, .cell_output svg').length"
        assert visit.ask(shown) >= pictures
        visit.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_does_not_scroll_sideways(html, browser, scheme):
    for name in builder.pages():
        visit = Visit(browser, html / f"{name}.html", 360)
        visit.page.emulate_media(color_scheme=scheme)
        wide = visit.ask("document.documentElement.scrollWidth")
        visit.page.close()
        assert wide <= 360, f"{name} is {wide} pixels wide on a screen of 360"


# Everybody reads: axe -----------------------------------------------------------------

# Formulas have MathJax's own reader and thousands of nodes; the first few blocks of
# code have all its colours. Without the others axe takes seconds and not minutes.
THIN = """() => {
  for (const formula of document.querySelectorAll('mjx-container')) formula.remove();
  const code = [...document.querySelectorAll('div.highlight pre')].slice(4);
  for (const block of code) block.textContent = 'code';
}"""
# preload would ask for style sheets by XMLHttpRequest, which a page on disk may not
AXE = """async () => (
  await axe.run(document, {preload: false, resultTypes: ['violations']})
).violations.map(v => [v.id, v.help, v.nodes.length, v.nodes[0].html.slice(0, 160)])"""


def violations(page) -> list:
    """What axe-core finds: contrast, order of headings, alt text, landmarks, names."""
    package = pytest.importorskip("axe_playwright_python")
    page.evaluate(THIN)
    page.add_script_tag(path=str(Path(package.__file__).parent / "axe.min.js"))
    return page.evaluate(AXE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", builder.pages())
def test_axe_finds_nothing(html, browser, name, scheme):
    size = {"width": 1280, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page.goto((html / f"{name}.html").as_uri())
    page.add_style_tag(content="* { transition: none !important; }")  # no half colours
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert violations(page) == []
    page.close()


def test_axe_sees_what_it_must(tmp_path, browser):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html lang='en'><title>t</title><main><h1>a</h1><h3>b</h3>"
        "<p style='color:#aaa;background:#fff'>faint</p><img src='x.png'></main>"
    )
    page = browser.new_page()
    page.goto(bad.as_uri())
    found = {violation[0] for violation in violations(page)}
    assert {"heading-order", "color-contrast", "image-alt"} <= found
    page.close()


# Paper and weight --------------------------------------------------------------------


def test_a_page_prints_its_text_black_on_white_with_nothing_folded(html, browser):
    path = html / "notebooks" / "01_convolution_arithmetic.html"
    page = browser.new_page(color_scheme="dark")
    page.goto(path.as_uri())
    shown = "document.querySelector('details.hide > summary ~ *').checkVisibility()"
    assert page.evaluate(shown) is False
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(shown) is True
    hidden = (
        "['.bd-sidebar-primary', '.bd-header-article', '.prev-next-area']"
        ".map(s => document.querySelector(s))"
        ".filter(e => e && e.offsetParent !== null).length"
    )
    assert page.evaluate(hidden) == 0
    colour = "e => getComputedStyle(document.querySelector(e)).color"
    for part in ("article p", ".highlight span"):
        shade = max(map(int, re.findall(r"\d+", page.evaluate(colour, part))[:3]))
        assert shade < 100, f"{part} is too light for paper: {shade}"
    page.close()


def weight(html: Path, name: str) -> int:
    """Bytes of a page with the figures of its own; the theme is shared by all."""
    path = html / f"{name}.html"
    own = [link for link in Page(path).links if "_images/" in link]
    figures = {(path.parent / unquote(link)).resolve() for link in own}
    return path.stat().st_size + sum(file.stat().st_size for file in figures)


@pytest.mark.parametrize("name", builder.pages())
def test_a_page_is_light(html, name):
    assert weight(html, name) < 1_500_000


def test_the_weight_of_a_page_counts_its_figures(tmp_path):
    (tmp_path / "_images").mkdir()
    (tmp_path / "_images" / "a.png").write_bytes(b"0" * 1000)
    (tmp_path / "a.html").write_text("<img src='_images/a.png'>" * 2)
    assert weight(tmp_path, "a") == 1000 + 2 * 25


def test_every_entry_of_the_api_leads_to_its_chapter(html):
    parts = (ROOT / "book" / "api.md").read_text().split("\n## ")
    listed = "".join(part for part in parts if part.startswith("Chapter "))
    names = re.findall(r"auto(?:function|class):: (ckutils\.\S+)", listed)
    text = (html / "book" / "api.html").read_text(encoding="utf-8")
    text = text[: text.index('<section id="cuda">')]  # behind the last chapter's part
    starts = sorted(place for n in names if (place := text.find(f'id="{n}"')) > 0)
    assert len(starts) > 50
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        entry = text[start:end]
        assert 'href="../notebooks/' in entry, entry[:80]


def test_the_search_finds_a_term_of_chapter_1(html, browser):
    page = browser.new_page()
    page.goto((html / "search.html").as_uri() + "?q=output_padding")
    page.wait_for_selector("#search-results li", timeout=20_000)
    assert "convolution_arithmetic" in page.inner_html("#search-results")
    page.close()


def test_the_browser_check_sees_what_it_must(tmp_path, browser):
    page = tmp_path / "bad.html"
    page.write_text(
        "<img src='none.png' alt=''><script src='https://example.org/x.js'></script>"
        "<script>console.error('planted')</script>"
    )
    visit = Visit(browser, page, 400)
    assert visit.outside == ["https://example.org/x.js"]
    assert any("planted" in error for error in visit.errors)
    assert visit.ask("document.images[0].naturalWidth") == 0
    visit.page.close()
