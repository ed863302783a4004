"""Write book/claims.md from book/_data/claims.csv: what the sources say, our verdicts.

The CSV is the one place where a verdict stands; `tests/test_claims.py` checks that each
verdict names a test or a section that exists, and that the page is what this writes.
"""

import csv
from collections import Counter
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "book" / "_data" / "claims.csv"
PAGE = ROOT / "book" / "claims.md"
VERDICTS = (
    "holds", "holds if", "corrected", "does not hold", "not decidable here",
)  # fmt: skip
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


def chapters() -> dict[str, Path]:
    """Chapter number -> notebook, for the chapters that exist."""
    folder = ROOT / "notebooks"
    return {path.name[1]: path for path in sorted(folder.glob("[0-9]*.ipynb"))}


def headings(path: Path) -> list[str]:
    """Every heading of a notebook, without the marks."""
    cells = nbformat.read(path, 4).cells
    lines = [
        line
        for c in cells
        if c.cell_type == "markdown"
        for line in c.source.splitlines()
    ]
    return [line.lstrip("#").strip() for line in lines if line.startswith("#")]


def cell(text: str) -> str:
    """Text that is safe inside a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("*", "\\*")


def where(row: dict) -> str:
    """The section that shows it and the test that decides it."""
    parts = []
    notebook = chapters().get(row["chapter"])
    if row["section"] and notebook:
        parts.append(f"[{cell(row['section'])}](../notebooks/{notebook.name})")
    if row["test"]:
        parts.append(f"`{row['test'].removeprefix('tests/')}`")
    return "; ".join(parts)


def page() -> str:
    decided = [row for row in rows() if row["verdict"]]
    count = Counter(row["verdict"] for row in decided)
    told = ", ".join(f"{count[v]} {v}" for v in VERDICTS if count[v])
    wrong = [r for r in decided if r["verdict"] in ("corrected", "does not hold")]
    lines = [
        "# What the sources say, and whether it holds",
        "",
        "The book grew out of five sets of notes that other people published. Each",
        "statement in them was taken down and tested. "
        f"Of {len(decided)} decided so far: {told}.",
        "",
        "The statements are given in our words. A verdict is about the statement, not",
        "about its author: most notes are right nearly everywhere, and we have learned",
        "from all of them.",
        "",
        "## What does not stand as written",
        "",
        "| | statement | what is true | shown |",
        "|---|---|---|---|",
    ]
    for row in wrong:
        lines.append(
            f"| {row['id']} | {cell(row['statement'])} | {cell(row['correction'])} "
            f"| {where(row)} |"
        )
    for source, title in SOURCES.items():
        part = [row for row in decided if row["source"] == source]
        if not part:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            "| | statement | verdict | shown |",
            "|---|---|---|---|",
        ]
        for row in part:
            verdict = f"**{row['verdict']}**"
            if row["correction"]:
                verdict += f": {cell(row['correction'])}"
            lines.append(
                f"| {row['id']} | {cell(row['statement'])} | {verdict} | {where(row)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
