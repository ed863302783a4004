"""Count what is verified, and write it into the landing page.

Counts are rounded down to two digits, so that a page stays true while the book grows;
`tests/test_site.py` counts again. The date is that of the counting.
"""

import ast
import datetime
import re
from collections import Counter
from pathlib import Path

from tools import claims, questions, sections

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "book" / "intro.md"
MARKS = "<!-- counted by tools/verified.py -->\n", "<!-- end -->\n"


def printed(cell) -> list[str]:
    """The lines that nbval compares: none where a cell is tagged."""
    if "nbval-ignore-output" in cell.metadata.get("tags", []):
        return []
    streams = [o.text for o in cell.get("outputs", []) if o.output_type == "stream"]
    return "".join(streams).splitlines()


def counts() -> dict[str, int]:
    """What the repository holds, counted."""
    pages = sections.chapters().values()
    code = [c for page in pages for c in sections.cells(page) if c.cell_type == "code"]
    lines = [line for cell in code for line in printed(cell)]
    tests = [
        node.name
        for file in (ROOT / "tests").glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    verdicts = Counter(row["verdict"] for row in claims.rows())
    return {
        "cells": len(code),
        "lines": len(lines),
        "verdicts": sum(line.rstrip().endswith(": True") for line in lines),
        "figures": sum("image" in c.metadata.get("mystnb", {}) for c in code),
        "tests": len(tests),
        "claims": sum(verdicts.values()) - verdicts[""],
        "corrected": verdicts["corrected"] + verdicts["does not hold"],
        "questions": len(questions.table()["question"]),
    }


def floor(count: int) -> int:
    """Rounded down to two digits; small numbers and the closed lists stay exact."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit


def stated(date: datetime.date | None = None) -> str:
    """The paragraph of the landing page."""
    date = date or datetime.date.today()
    count = counts()
    told = {key: f"{floor(value):,}" for key, value in count.items()}
    return (
        f"Counted on {date.day} {date:%B %Y}: **{told['cells']} cells** and more run,\n"
        f"and each of **{told['lines']} printed lines** and more is compared with the\n"
        f"one on the page on every change. Of these, {told['verdicts']} are verdicts\n"
        f"`True`; {told['figures']} figures have a digest of what they show.\n"
        f"**{told['tests']} test functions** and more hold the package to its\n"
        f"definitions, to torch, JAX, flax and SciPy, and the site to what it\n"
        f"promises. **{count['claims']} statements** of the sources have a verdict,\n"
        f"of which {count['corrected']} do not stand as written, and "
        f"**{count['questions']} questions** of\nreaders an answer.\n"
    )


def split(text: str) -> tuple[str, str, str]:
    """The page before, between and behind the marks."""
    head, _, rest = text.partition(MARKS[0])
    middle, _, tail = rest.partition(MARKS[1])
    return head, middle, tail


def numbers(text: str) -> list[int]:
    """The counts in a paragraph, in order, its date left out."""
    found = re.findall(r"(?<![\w.])\d[\d,]*", text.partition(":")[2])
    return [int(one.replace(",", "")) for one in found]


def main() -> None:
    head, _, tail = split(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(head + MARKS[0] + stated() + MARKS[1] + tail, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
