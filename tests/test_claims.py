"""Every statement of the sources has a verdict, every verdict something behind it."""

import ast
from pathlib import Path

import pytest

from tools import claims

ROOT = Path(__file__).resolve().parent.parent
ROWS = claims.rows()
# how many statements were taken down from each source, before any verdict
TAKEN = {"CP": 32, "GD": 43, "KR": 30, "CK": 55, "CN": 46}


def decided() -> list[dict]:
    """The rows of the chapters that exist."""
    return [row for row in ROWS if row["chapter"] in claims.chapters()]


def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


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
        assert row["section"] in claims.headings(claims.chapters()[row["chapter"]])
    for name in filter(None, row["test"].split("; ")):
        file, _, test = name.partition("::")
        assert test in functions_of(ROOT / file), f"no test {name}"
        assert test.startswith("test_"), f"pytest does not run {name}"


def test_the_page_is_what_the_table_says():
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page()


def test_the_page_names_every_decided_row():
    text = claims.PAGE.read_text(encoding="utf-8")
    assert all(f"| {row['id']} |" in text for row in decided())
