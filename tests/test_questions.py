"""The 60 questions: all there, each answered, each linked to cells that show it."""

import pytest

from tools import questions, sections

DATA = questions.table()
ROWS = DATA["question"]
SHOWN = [row for row in ROWS if row["section"]]
STARRED = {1, 3, 4, 7, 8, 9, 11, 26, 47, 54}


def number(row: dict) -> str:
    return f"q{row['id']}"


def draws(cell) -> bool:
    kinds = [kind for out in cell.get("outputs", []) for kind in out.get("data", {})]
    return any(kind.startswith("image/") for kind in kinds)


def test_all_sixty_are_there_and_none_twice():
    assert [row["id"] for row in ROWS] == list(range(1, 61))
    assert len({row["question"] for row in ROWS}) == 60
    assert len({row["topic"] for row in ROWS}) == 60
    assert {row["id"] for row in ROWS if row["starred"]} == STARRED


@pytest.mark.parametrize("row", ROWS, ids=number)
def test_a_question_has_a_symptom_an_answer_and_its_threads(row):
    assert row["symptoms"] and set(row["symptoms"]) <= set(DATA["symptoms"])
    sentences = row["answer"].count(". ") + row["answer"].count(": ") + 1
    assert 40 <= len(row["answer"]) <= 420 and sentences <= 5
    assert row["answer"].endswith(".")
    assert row["threads"] and all("](https://" in t for t in row["threads"])


def test_every_question_has_its_section():
    assert [row["id"] for row in ROWS if not row["section"]] == []


def test_every_symptom_leads_somewhere():
    for symptom in DATA["symptoms"]:
        assert any(symptom in row["symptoms"] for row in ROWS), symptom


@pytest.mark.parametrize("row", SHOWN, ids=number)
def test_a_question_is_shown_by_cells_that_ran(row):
    assert sections.headings(row["page"]).count(row["section"]) == 1
    if row["page"].startswith("notebooks/"):
        _, cells = sections.within(row["page"], row["section"])
        assert any(cell.outputs for cell in cells), "no executed cell there"


@pytest.mark.parametrize("row", SHOWN, ids=number)
def test_the_section_names_a_thread_of_the_question(row):
    """A reader who comes from the thread recognises it."""
    text, _ = sections.within(row["page"], row["section"])
    addresses = [t.rpartition("(")[2].rstrip(")") for t in row["threads"]]
    assert any(address in text for address in addresses)


@pytest.mark.parametrize("row", [r for r in ROWS if r["starred"]], ids=number)
def test_a_starred_question_has_a_section_of_its_own_and_a_figure(row):
    levels = {title: level for level, title, _ in sections.outline(row["page"])}
    assert levels[row["section"]] == 2 and "★" in row["section"]
    others = [r["id"] for r in ROWS if r["section"] == row["section"]]
    assert others == [row["id"]]
    _, cells = sections.within(row["page"], row["section"])
    assert any(draws(cell) for cell in cells)


# The page --------------------------------------------------------------------------


def test_the_page_is_what_the_table_says():
    assert questions.PAGE.read_text(encoding="utf-8") == questions.page()


def test_the_page_has_an_index_of_symptoms_on_top_and_every_question_below():
    text = questions.page()
    index, *parts = text.split("\n## ")[1:]
    assert index.startswith("By symptom")
    assert len(parts) == len(questions.PARTS)
    for row in ROWS:
        assert f"](#q{row['id']})" in index
        assert text.count(f"(q{row['id']})=") == 1
        assert row["question"] in text


@pytest.mark.parametrize("row", SHOWN, ids=number)
def test_every_section_is_linked_by_its_anchor(row):
    """That the built page has the anchor is what tests/test_book.py checks."""
    assert f"#{sections.anchor(row['section'])})" in questions.page()


# Sections --------------------------------------------------------------------------


def test_a_section_ends_where_the_next_of_its_level_begins():
    page = "notebooks/01_convolution_arithmetic"
    text, cells = sections.within(page, "1.9 Pooling")
    assert text.startswith("# 1.9 Pooling") and "adjoint" not in text
    assert any("pool_output_size" in cell.source for cell in cells)
    assert not any("def scatter" in cell.source for cell in cells)
    assert sections.number(page, "1.9 Pooling") == "1.9"
    text, cells = sections.within("book/how_to_run", "Questions about running it")
    assert "### Colab refuses me a GPU" in text and cells == []


def test_an_anchor_has_letters_digits_and_hyphens():
    assert sections.anchor("1.7 ★ Pad `left`, or both?") == "17--pad-left-or-both"
    assert sections.anchor("2.3 It is $K \\otimes E$") == "23-it-is-"
