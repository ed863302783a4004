"""Explorers as pages: keyboard, themes, contrast, narrow screens, frames, motion."""

import itertools
import re
from pathlib import Path

import nbformat
import pytest

from ckutils.widgets import EXPLORERS, explorer, explorer_html

CHAPTERS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


class Opened:
    """An explorer in a browser; any request and any error on the console is noted."""

    def __init__(self, browser, text, **options):
        self.page = browser.new_page(**options)
        self.bad = []
        self.page.on("pageerror", lambda error: self.bad.append(str(error)))
        self.page.on("console", lambda m: self.bad.append(m.text))
        self.page.on("request", lambda r: self.bad.append(r.url))
        self.page.set_content(text)

    def ask(self, script):
        return self.page.evaluate(script)


@pytest.fixture
def open_page(browser):
    opened = []

    def open_page(text, **options):
        opened.append(Opened(browser, text, **options))
        return opened[-1]

    yield open_page
    for one in opened:
        one.page.close()
        assert one.bad == []


def screen(width, scheme="light", **options):
    size = {"width": width, "height": 900}
    return {"viewport": size, "color_scheme": scheme, **options}


# What everybody can read ------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLORERS)
@pytest.mark.parametrize(("width", "scheme"), [(780, "light"), (328, "dark")])
def test_axe_finds_nothing_and_nothing_is_too_wide(name, width, scheme, open_page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    one = open_page(explorer_html(name), **screen(width, scheme))
    found = axe.run(one.page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []
    # in every preset, too
    for at in range(one.page.locator("#presets button").count()):
        one.page.locator("#presets button").nth(at).click()
        wide = one.ask("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels after preset {at}"


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)", by WCAG 2."""
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_and_white_is_21():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_pair_of_colours_has_enough_contrast(scheme, open_page):
    """axe does not judge text in a drawing; this judges every pair that is in use."""
    one = open_page(explorer_html("convolution"), **screen(700, scheme))

    def colour(name):
        return one.ask(
            f"(() => {{ document.body.style.outlineColor = 'var(--{name})';"
            "return getComputedStyle(document.body).outlineColor; })()"
        )

    for text, ground in itertools.product(
        ("ink", "faint"), ("ground", "panel", "wash", "glow")
    ):
        if (text, ground) not in {("faint", "wash"), ("faint", "glow")}:
            ratio = contrast(colour(text), colour(ground))
            assert ratio >= 4.5, f"{text} on {ground}: {ratio:.1f}"
    for line in ("edge", "blue", "orange", "green"):
        ratio = contrast(colour(line), colour("ground"))
        assert ratio >= 3, f"{line}: {ratio:.1f}"


# Keyboard and pointer ---------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_tab_key_reaches_every_control_and_shows_it(name, open_page):
    one = open_page(explorer_html(name), **screen(700))
    wanted = one.ask(
        "[...document.querySelectorAll("
        "'button, input, select, summary, [role=slider], .scroll')]"
        ".filter(e => !e.disabled && e.checkVisibility()).length"
    )
    script = """() => {
      const e = document.activeElement, ring = e.querySelector?.('.hit') ?? e;
      const style = getComputedStyle(ring);
      const wide = parseFloat(ring === e ? style.outlineWidth : style.strokeWidth);
      const seen = ring === e ? style.outlineStyle !== 'none' : style.stroke !== 'none';
      e.dataset.met = '1';
      return [e.tagName, seen && wide >= 2];
    }"""
    for _ in range(wanted):
        one.page.keyboard.press("Tab")
        tag, ring = one.page.evaluate(script)
        assert tag != "BODY" and ring, f"no visible focus on {tag}"
    assert one.ask("document.querySelectorAll('[data-met]').length") == wanted


def test_every_knob_obeys_the_arrow_keys(open_page):
    for name in EXPLORERS:
        one = open_page(explorer_html(name), **screen(700))
        for knob in one.ask(
            "[...document.querySelectorAll('#knobs input:enabled, #knobs select')]"
            ".map(e => e.id)"
        ):
            before = one.ask("JSON.stringify(explorer.state)")
            one.page.locator(f"#{knob}").focus()
            top = one.ask(f"find('{knob}').value === find('{knob}').max")
            one.page.keyboard.press("ArrowLeft" if top else "ArrowDown")
            if one.ask("JSON.stringify(explorer.state)") == before:
                one.page.keyboard.press("ArrowUp")
            assert one.ask("JSON.stringify(explorer.state)") != before, knob


def test_an_eigenvalue_moves_by_keys_and_by_the_pointer(open_page):
    one = open_page(explorer_html("recurrence"), **screen(700))
    first = one.page.get_by_role("slider", name="Eigenvalue 1")
    first.focus()
    one.page.keyboard.press("ArrowLeft")
    one.page.keyboard.press("Shift+ArrowUp")
    assert one.ask("explorer.state.modes[0]") == pytest.approx([0.89, 0.45])
    assert first.evaluate("e => e === document.activeElement")
    assert "0.89 ± 0.45 i" in first.get_attribute("aria-valuetext")
    for _ in range(
        5
    ):  # down to the real axis, where the pair is one state, and no more
        one.page.keyboard.press("Shift+ArrowDown")
    assert one.ask("explorer.state.modes[0]") == pytest.approx([0.89, 0])
    for _ in range(4):
        one.page.keyboard.press("Shift+ArrowRight")
    assert one.ask("explorer.state.modes[0]") == pytest.approx([1.05, 0])

    plane = one.page.locator("#plane svg").bounding_box()
    centre = [plane["x"] + plane["width"] / 2, plane["y"] + plane["height"] / 2]
    unit = plane["width"] / 2 / 1.13
    first.hover()
    one.page.mouse.down()
    one.page.mouse.move(centre[0] + 0.5 * unit, centre[1] - 0.3 * unit, steps=3)
    one.page.mouse.up()
    one.page.mouse.move(centre[0], centre[1])  # let go: it stays
    assert one.ask("explorer.state.modes[0]") == pytest.approx([0.5, 0.3], abs=0.02)
    first.hover()
    one.page.mouse.down()
    one.page.mouse.move(centre[0] + 0.71 * unit, centre[1] - 0.71 * unit)
    one.page.mouse.up()
    assert one.ask("Math.hypot(...explorer.state.modes[0])") == pytest.approx(
        1, abs=1e-12
    )


def test_an_anchor_moves_by_keys_and_by_the_pointer(open_page):
    one = open_page(explorer_html("nystrom"), **screen(700))
    first = one.page.get_by_role("slider", name="Anchor 1")
    first.focus()
    for key in ("Shift+ArrowDown", "Shift+ArrowLeft", "ArrowLeft"):
        one.page.keyboard.press(key)
    assert one.ask("explorer.state.anchors[0]") == 359
    assert first.get_attribute("aria-valuetext") == "359 degrees"
    circle = one.page.locator("#circle svg").bounding_box()
    first.hover()
    one.page.mouse.down()
    x, y = circle["x"] + circle["width"] / 2, circle["y"] + circle["height"] / 2
    one.page.mouse.move(x, y + 100)
    one.page.mouse.up()
    assert one.ask("explorer.state.anchors[0]") == pytest.approx(270, abs=1)
    one.page.get_by_role("button", name="+ anchor in the worst place").press("Enter")
    assert one.ask("explorer.state.anchors.length") == 4
    one.page.get_by_role("button", name="Reset").press("Enter")
    assert one.ask("explorer.state.anchors") == [20, 80, 150]


def test_layers_are_edited_as_text_and_a_wrong_one_changes_nothing(open_page):
    one = open_page(explorer_html("cascade"), **screen(700))
    taps = one.page.get_by_label("Taps of layer 1")
    taps.fill("1, −2.5 4")
    assert one.ask("explorer.state.layers[1].taps") == [1, -2.5, 4]
    for wrong in ("", "1, x", "1 2 3 4 5 6 7"):
        taps.fill(wrong)
        assert taps.get_attribute("aria-invalid") == "true"
        assert one.ask("explorer.state.layers[1].taps") == [1, -2.5, 4]
    one.page.get_by_label("Dilation of layer 2").fill("9")
    assert one.ask("explorer.state.layers[2].dilation") == 9
    one.page.get_by_role("button", name="+ layer").click()
    assert one.ask("explorer.state.layers.length") == 4
    one.page.get_by_label("follow one weight").select_option("3,2")
    one.page.get_by_role("button", name="− layer").click()
    assert one.ask("explorer.state.follow") == "none"  # that weight is gone


# Motion -----------------------------------------------------------------------------


def test_the_animation_plays_pauses_and_steps(open_page):
    one = open_page("", **screen(700))
    one.page.clock.install()
    one.page.set_content(explorer_html("convolution"))
    one.page.clock.run_for(5000)
    assert one.ask("explorer.state.step") == 5, "it must not start by itself"
    one.page.get_by_role("button", name="Play").click()
    one.page.clock.run_for(1500)
    assert one.ask("explorer.state.step") == 7
    one.page.get_by_role("button", name="Pause").click()
    one.page.clock.run_for(5000)
    assert one.ask("explorer.state.step") == 7
    for _ in range(3):
        one.page.get_by_role("button", name="One step on").click()
    assert one.ask("explorer.state.step") == 1  # round again after 9
    assert "y[0, 0] = " in one.page.inner_text("#terms")


def test_the_sum_that_is_written_out_is_the_entry_of_the_output(open_page):
    one = open_page(explorer_html("convolution"), **screen(700))
    for step in range(1, 10):
        one.ask(f"explorer.set({{ step: {step} }})")
        words = one.page.inner_text("#terms").replace("−", "-")
        products = re.findall(r"(-?\d+)·(-?\d+)", words)
        total = int(words.split("=")[-1])
        assert sum(int(a) * int(b) for a, b in products) == total
        want = one.ask("explorer.compute(explorer.state).output.flat()")[step - 1]
        assert total == want


def test_where_less_motion_is_asked_for_nothing_plays(open_page):
    one = open_page(
        explorer_html("convolution"), **screen(700, reduced_motion="reduce")
    )
    assert one.page.get_by_role("button", name="Play").is_disabled()
    assert one.page.get_by_text("asks for less motion").is_visible()
    one.page.get_by_role("button", name="One step on").click()
    assert one.ask("explorer.state.step") == 6


# In a page --------------------------------------------------------------------------

GROUND = (
    "getComputedStyle(document.querySelector('iframe').contentDocument.body)"
    ".backgroundColor"
)


@pytest.mark.parametrize(
    ("said", "dark", "light"),
    [
        ("documentElement.dataset.theme = '{}'", "dark", "light"),  # the book
        ("documentElement.setAttribute('theme', '{}')", "dark", "light"),  # Colab
        ("body.dataset.jpThemeLight = '{}'", "false", "true"),  # JupyterLab
        ("body.className = '{}'", "vscode-dark", "vscode-light"),
    ],
)
def test_a_frame_follows_the_page_around_it(said, dark, light, open_page):
    text = f"<!doctype html><body>{explorer('siren')._repr_html_()}"
    one = open_page(text, **screen(700, "light"))
    one.page.wait_for_function(
        "document.querySelector('iframe').contentWindow.explorer"
    )
    one.page.evaluate(f"document.{said.format(dark)}")
    one.page.wait_for_function(f"{GROUND} === 'rgb(18, 18, 18)'")
    one.page.evaluate(f"document.{said.format(light)}")
    one.page.wait_for_function(f"{GROUND} === 'rgb(255, 255, 255)'")


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_frame_is_as_tall_as_its_content(name, open_page):
    one = open_page(
        f"<!doctype html><body>{explorer(name)._repr_html_()}", **screen(360)
    )
    one.page.wait_for_function(
        "document.querySelector('iframe').contentWindow.explorer"
    )
    one.page.wait_for_function(
        "(() => { const f = document.querySelector('iframe'), d = f.contentDocument;"
        "return d.documentElement.scrollHeight <= f.offsetHeight"
        " && f.offsetHeight < d.body.offsetHeight + 10; })()"
    )
    assert one.ask("document.documentElement.scrollWidth") <= 360


def test_a_strange_page_around_does_no_harm(open_page):
    frame = (
        explorer("siren")
        .frame()
        .replace("<iframe ", '<iframe sandbox="allow-scripts" ')
    )
    one = open_page(f"<!doctype html><body>{frame}", **screen(700))
    (inner,) = one.page.main_frame.child_frames
    inner.wait_for_selector("#kernel svg")


# The chapters -----------------------------------------------------------------------


def shown_in(path):
    """(name, stored HTML, printed text) of the cell that shows an explorer."""
    for cell in nbformat.read(path, 4).cells:
        call = re.search(r'explorer\("(\w+)"\)', cell.source)
        if cell.cell_type == "code" and call:
            frames = [o.data["text/html"] for o in cell.outputs if "data" in o]
            printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
            return call[1], frames[0], printed
    raise AssertionError(f"{path.stem} shows no explorer")


def numbers(words):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", words)]


@pytest.mark.parametrize(("path", "name"), list(zip(CHAPTERS, EXPLORERS, strict=True)))
def test_the_grid_that_a_chapter_prints_is_what_its_explorer_shows(
    path, name, open_page
):
    """Question 60: numbers that ckutils printed, read off the page without a kernel."""
    shown, frame, printed = shown_in(path)
    assert shown == name
    assert frame == explorer(name)._repr_html_(), (
        "make notebooks shows the new explorer"
    )
    one = open_page(explorer_html(name), **screen(700))
    rows = one.ask(
        "[...document.querySelectorAll('#numbers tbody tr')]"
        ".map(r => [...r.children].map(c => c.textContent).join(' '))"
    )
    table = {row[0]: row for row in (numbers(r.replace("−", "-")) for r in rows)}
    grid = [row for row in map(numbers, printed.splitlines()) if row]
    assert len(grid) >= 3
    for row in grid:
        assert row == table[row[0]]
