"""Every statement of the sources has a verdict, every verdict something behind it."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tools import claims, sections

ROOT = Path(__file__).resolve().parent.parent
ROWS = claims.rows()
SURPRISES = claims.surprises()
# how many statements were taken down from each source, before any verdict
TAKEN = {"CP": 32, "GD": 43, "KR": 30, "CK": 55, "CN": 46}


def decided() -> list[dict]:
    """The rows of the chapters that exist."""
    return [row for row in ROWS if row["chapter"] in sections.chapters()]


@cache
def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def named_tests() -> set[str]:
    """Every test that a verdict or a surprise names."""
    cells = [row["test"] for row in ROWS] + [entry["test"] for entry in SURPRISES]
    return {name for cell in cells for name in cell.split("; ") if name}


@cache
def collected() -> set[str]:
    """What pytest would run of the files that the verdicts name, without parameters."""
    files = sorted({name.partition("::")[0] for name in named_tests()})
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p",
         "no:cacheprovider", *files],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:]
    return {line.partition("[")[0] for line in run.stdout.splitlines() if "::" in line}


def test_no_statement_was_lost():
    ids = [row["id"] for row in ROWS]
    assert len(ids) == len(set(ids))
    for prefix, count in TAKEN.items():
        assert sum(i.startswith(prefix) for i in ids) == count
    assert all(row["source"] in claims.SOURCES for row in ROWS)


@pytest.mark.parametrize("row", decided(), ids=lambda row: row["id"])
def test_a_verdict_has_something_behind_it(row):
    assert row["verdict"] in claims.VERDICTS
    assert row["section"] or row["test"], "neither a section nor a test decides it"
    if row["verdict"] != "holds":
        assert row["correction"], "what is true instead, or why it cannot be decided?"
    if row["section"]:
        page = sections.chapters()[row["chapter"]]
        assert sections.headings(page).count(row["section"]) == 1
    for name in filter(None, row["test"].split("; ")):
        file, _, test = name.partition("::")
        assert test in functions_of(ROOT / file), f"no test {name}"


def test_every_named_test_runs():
    """pytest itself collects it: no typing error, no name that it passes over."""
    assert named_tests() - collected() == set()
    assert "tests/test_claims.py::functions_of" not in collected()


# The first screen ------------------------------------------------------------------


def test_the_first_screen_comes_first_and_holds_programs_and_notes():
    text = claims.PAGE.read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles[0] == "## What surprised us most"
    assert len(SURPRISES) >= 12
    assert 0 < sum(not entry["ids"] for entry in SURPRISES) < len(SURPRISES)


@pytest.mark.parametrize("entry", SURPRISES, ids=lambda entry: entry["said"][:40])
def test_a_surprise_is_shown_by_cells_that_run(entry):
    verdicts = {row["id"]: row["verdict"] for row in ROWS}
    for claim in entry["ids"]:
        assert verdicts[claim] in ("corrected", "does not hold")
    assert sections.headings(entry["page"]).count(entry["section"]) == 1
    _, cells = sections.within(entry["page"], entry["section"])
    ran = any(cell.outputs for cell in cells)
    assert ran or entry["test"], "neither an executed cell nor a test"


# The page --------------------------------------------------------------------------


def test_the_page_is_what_the_table_says():
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page()


def test_the_page_names_every_decided_row():
    text = claims.PAGE.read_text(encoding="utf-8")
    assert all(f"| {row['id']} |" in text for row in decided())


def test_every_section_is_linked_by_its_anchor():
    """That the built page has the anchor is what tests/test_book.py checks."""
    text = claims.PAGE.read_text(encoding="utf-8")
    for row in decided():
        if row["section"]:
            page = sections.chapters()[row["chapter"]]
            assert f"](../{page}.ipynb#{sections.anchor(row['section'])})" in text
