"""Write book/claims.md from book/_data/claims.csv: what the sources say, our verdicts.

The CSV is the one place where a verdict stands, `surprises.toml` beside it the order of
the first screen; `tests/test_claims.py` checks that each verdict names a test or a
section that exists, and that the page is what this writes.
"""

import csv
import tomllib
from collections import Counter
from pathlib import Path

from tools import sections

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "book" / "_data" / "claims.csv"
SURPRISES = ROOT / "book" / "_data" / "surprises.toml"
PAGE = ROOT / "book" / "claims.md"
VERDICTS = {  # as a row says it, as the page counts it
    "holds": "hold",
    "holds if": "hold under a condition",
    "corrected": "are corrected",
    "does not hold": "do not hold",
    "not decidable here": "cannot be decided here",
}
SOURCES = {
    "conv-parameters": "A guide to convolution parameters in neural nets",
    "conv-deeper": "Go deeper in convolutions: a peek",
    "kronecker-notes": "Dilated convolutions and Kronecker factored convolutions",
    "ckconv-notes": "Notes on CKConv and linear recurrent units",
    "ckn-notes": "Notes on convolutional kernel networks",
}


def rows() -> list[dict]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def surprises() -> list[dict]:
    return tomllib.loads(SURPRISES.read_text(encoding="utf-8"))["surprise"]


def cell(text: str) -> str:
    """Text that is safe inside a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("*", "\\*")


def where(page: str | None, section: str, test: str) -> str:
    """The section that shows it and the test that decides it."""
    parts = [sections.link(page, section, cell(section))] if section and page else []
    if test:
        parts.append(f"`{test.removeprefix('tests/')}`")
    return "; ".join(parts)


def shown(row: dict) -> str:
    return where(sections.chapters().get(row["chapter"]), row["section"], row["test"])


def first_screen() -> list[str]:
    """The curated list: what surprised us most, notes and programs together."""
    lines = [
        "## What surprised us most",
        "",
        "| no. | what is said or done | what is true | shown |",
        "|---|---|---|---|",
    ]
    for number, entry in enumerate(surprises(), start=1):
        ids = f" ({', '.join(entry['ids'])})" if entry["ids"] else ""
        number_there = sections.number(entry["page"], entry["section"])
        place = sections.link(entry["page"], entry["section"], number_there)
        said, true = (entry[key].replace("|", "\\|") for key in ("said", "true"))
        lines.append(f"| {number} | {said}{ids} | {true} | {place} |")
    return lines


def page() -> str:
    decided = [row for row in rows() if row["verdict"]]
    count = Counter(row["verdict"] for row in decided)
    told = ", ".join(f"{count[v]} {told}" for v, told in VERDICTS.items() if count[v])
    wrong = [r for r in decided if r["verdict"] in ("corrected", "does not hold")]
    lines = [
        "# What the sources say, and whether it holds",
        "",
        "The book grew out of five sets of notes that other people published. Each",
        "statement in them was taken down and tested: "
        f"of {len(decided)}, {told}. A verdict",
        "is about the statement, not about its author: most notes are right nearly",
        "everywhere, and we have learned from all of them. First, what the notes *and*",
        "the public implementations get wrong, most surprising first.",
        "",
        *first_screen(),
        "",
        "## What does not stand as written",
        "",
        "Every statement of the notes that had to be corrected, or that does not hold,",
        "in our words.",
        "",
        "| id | statement | what is true | shown |",
        "|---|---|---|---|",
    ]
    for row in wrong:
        lines.append(
            f"| {row['id']} | {cell(row['statement'])} | {cell(row['correction'])} "
            f"| {shown(row)} |"
        )
    for source, title in SOURCES.items():
        part = [row for row in decided if row["source"] == source]
        if not part:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            "| id | statement | verdict | shown |",
            "|---|---|---|---|",
        ]
        for row in part:
            verdict = f"**{row['verdict']}**"
            if row["correction"]:
                verdict += f": {cell(row['correction'])}"
            lines.append(
                f"| {row['id']} | {cell(row['statement'])} | {verdict} | {shown(row)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
