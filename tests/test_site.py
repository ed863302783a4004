"""The pages around the chapters: landing page, notation, references, API links."""

import importlib
import inspect
import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from pybtex.database import parse_file

from tools import five_ways, notation, sections, verified

ROOT = Path(__file__).resolve().parent.parent


# The figure of the landing page ----------------------------------------------------


@pytest.fixture(scope="module")
def found() -> dict:
    return json.loads(five_ways.DATA.read_text())


def test_the_five_sources_learn_again_what_the_figure_shows(found):
    torch.set_num_threads(1)
    again = five_ways.learn_all()
    assert list(again) == list(found) and len(found) == 5
    for name, one in found.items():
        assert again[name]["numbers"] == one["numbers"]
        # rounding differs from CPU to CPU, and 800 steps carry it along
        assert abs(again[name]["error"] - one["error"]) < 0.03
        error = np.subtract(again[name]["kernel"], one["kernel"])
        assert np.abs(error).max() < 0.1, name


@pytest.mark.parametrize(("columns", "size"), [(5, (210, 720)), (2, (630, 360))])
def test_the_figure_is_drawn_from_its_numbers(found, tmp_path, columns, size):
    figure = five_ways.draw(found, columns)
    figure.savefig(tmp_path / "again.png")
    plt.close(figure)
    files = five_ways.PICTURES[columns], tmp_path / "again.png"
    old, new = (plt.imread(p) for p in files)
    assert old.shape == new.shape == (*size, 4)
    assert np.abs(old - new).mean() < 0.01


def test_another_kernel_is_another_figure(found, tmp_path):
    other = {name: one | {"kernel": [0.5] * 64} for name, one in found.items()}
    figure = five_ways.draw(other)
    figure.savefig(tmp_path / "other.png")
    plt.close(figure)
    old, new = (plt.imread(p) for p in (five_ways.PICTURES[5], tmp_path / "other.png"))
    assert np.abs(old - new).mean() > 0.01


def test_the_landing_page_shows_it_and_says_what_it_shows(found):
    text = (ROOT / "book" / "intro.md").read_text()
    for picture in five_ways.PICTURES.values():
        assert f"```{{image}} _static/{picture.name}" in text
    alternatives = re.findall(r":alt: (.*)", text)
    assert len(alternatives) == 2
    for alt, one in product(alternatives, found.values()):
        assert f"{100 * one['error']:.0f}" in alt
    for page in sections.chapters().values():
        assert f"](../{page}.ipynb)" in text


def test_the_counts_on_the_landing_page_are_true():
    """Rounded down when written; it may have grown since, by a third at most."""
    _, text, _ = verified.split(verified.PAGE.read_text())
    assert re.match(r"Counted on \d+ [A-Z][a-z]+ 20\d\d: ", text)
    said, now = verified.numbers(text), verified.counts()
    keys = ("cells", "lines", "verdicts", "figures", "tests", "claims", "corrected",
            "questions")  # fmt: skip
    assert len(said) == len(keys)
    for number, key in zip(said, keys, strict=True):
        assert 0.75 * now[key] <= number <= now[key], key


def test_a_count_is_rounded_down_to_two_digits():
    counts = (7, 60, 99, 100, 1234, 567)
    assert [verified.floor(c) for c in counts] == [7, 60, 99, 100, 1200, 560]
    assert verified.numbers("On 3 May 2026: **1,400 lines** and `x` 12.") == [1400, 12]


# Notation --------------------------------------------------------------------------


def exists(code: str) -> bool:
    """Whether "module.name.parameter" or "module.Class.attribute" is in ckutils."""
    module, name, *inner = code.split(".")
    thing = getattr(importlib.import_module(f"ckutils.{module}"), name, None)
    for part in inner:
        if hasattr(thing, part):
            thing = getattr(thing, part)
        elif inspect.isclass(thing) and re.search(
            rf"self\.{part}\b", inspect.getsource(thing)
        ):
            return True
        else:
            return callable(thing) and part in inspect.signature(thing).parameters
    return thing is not None


@pytest.mark.parametrize("row", notation.rows(), ids=lambda row: row["symbol"])
def test_a_symbol_has_a_place_and_its_name_in_the_code_exists(row):
    assert row["meaning"]
    assert sections.headings(sections.chapters()[row["chapter"]]).count(row["section"])
    assert not row["code"] or exists(row["code"])


def test_a_name_that_is_not_there_is_seen():
    assert exists("convolution.conv.stride")
    assert exists("recurrence.LinearRecurrentUnit.nu_log")
    assert not exists("convolution.conv.hop")
    assert not exists("convolution.convolve")
    assert not exists("recurrence.LinearRecurrentUnit.forget")


def test_every_chapter_has_symbols_and_the_page_is_what_the_table_says():
    assert {row["chapter"] for row in notation.rows()} == set(sections.chapters())
    assert notation.PAGE.read_text() == notation.page()


# References ------------------------------------------------------------------------

BIBLIOGRAPHY = parse_file(str(ROOT / "book" / "references.bib"))
# proceedings and a report that have neither a DOI nor an arXiv number: their own page
OWN_PAGE = {
    "blelloch1990prefix", "cho2009kernel", "rahimi2007random", "williams2000using",
}  # fmt: skip


def cited() -> set[str]:
    """arXiv numbers and DOIs that chapters, pages or docstrings name, lower case."""
    files = [*ROOT.glob("notebooks/*.py"), *ROOT.glob("book/*.md")]
    files += ROOT.glob("ckutils/**/*.py")
    text = "\n".join(file.read_text() for file in files).lower()
    numbers = set(re.findall(r"arxiv(?:\.org/abs/|:)(\d{4}\.\d{4,5})", text))
    return numbers | {
        doi.rstrip(".,;)")
        for doi in re.findall(r"(?:doi\.org/|doi:)(10\.[^\s)\]\"',;]+)", text)
    }


@pytest.mark.parametrize("key", BIBLIOGRAPHY.entries)
def test_a_reference_leads_somewhere(key):
    fields = BIBLIOGRAPHY.entries[key].fields
    if key in OWN_PAGE:
        assert fields["url"].startswith("http")
    else:
        assert "doi" in fields or re.fullmatch(r"\d{4}\.\d{4,5}", fields["eprint"])
    assert fields["title"] and fields["year"] and BIBLIOGRAPHY.entries[key].persons


def test_every_paper_that_is_cited_is_in_the_bibliography():
    fields = [entry.fields for entry in BIBLIOGRAPHY.entries.values()]
    known = {f["doi"].lower() for f in fields if "doi" in f}
    known |= {f["eprint"] for f in fields if "eprint" in f}
    assert len(cited()) > 40
    assert cited() - known == set()


# The API reference, chapter by chapter ---------------------------------------------


def api_parts() -> dict[str, list[str]]:
    """Chapter number -> the names that its part of the API reference lists."""
    text = (ROOT / "book" / "api.md").read_text()
    parts = [p for p in text.split("\n## ") if p.startswith("Chapter ")]
    names = r"auto(?:function|class):: (ckutils\.\S+)"
    return {part[len("Chapter ")]: re.findall(names, part) for part in parts}


def test_each_chapter_and_its_part_of_the_api_lead_to_each_other():
    parts = re.findall(r"^## (Chapter \d.*)$", (ROOT / "book/api.md").read_text(), re.M)
    assert len(parts) == len(sections.chapters())
    for part in parts:
        page = sections.chapters()[part.split()[1].rstrip(":")]
        text = (ROOT / f"{page}.py").read_text()
        assert f"](../book/api.md#{sections.anchor(part)})" in text


def test_each_entry_of_the_api_names_an_equation_or_a_chapter():
    """From these the built page's links are made (tools/offline.py)."""
    for chapter, names in api_parts().items():
        assert names
        for name in names:
            module, _, last = name.rpartition(".")
            doc = inspect.getdoc(getattr(importlib.import_module(module), last))
            assert re.search(rf"\({chapter}\.\d+\)|Chapter \d", doc), name
