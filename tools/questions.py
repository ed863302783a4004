"""Write book/questions.md from book/_data/questions.toml: what readers really asked.

The TOML file is the one place where an answer stands. `tests/test_questions.py` checks
that all 60 are there, that each links to a section that exists and shows something, and
that the page is what this writes.
"""

import tomllib
from pathlib import Path

from tools import sections

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "book" / "_data" / "questions.toml"
PAGE = ROOT / "book" / "questions.md"
PARTS = {
    "1": "Chapter 1. Convolution arithmetic",
    "2": "Chapter 2. Dilation and Kronecker products",
    "3": "Chapter 3. Continuous kernels, SIREN, FFT",
    "4": "Chapter 4. Recurrence as convolution",
    "5": "Chapter 5. Convolutional kernel networks and GPU code",
    "run": "Running the book",
}
TOP = """\
# Find your question

Sixty questions that people asked about these subjects in public, on the trackers of
libraries and in forums, collected up to November 2026. Each is answered in a sentence
or two, with a link to the section where the answer is *executed*, and to where it was
asked. A star marks the ten that were asked most.

## By symptom
"""


def table() -> dict:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def by_symptom(data: dict) -> list[str]:
    """One row a symptom: its questions, by their short names."""
    lines = ["| what you see | look at |", "|---|---|"]
    for key, symptom in data["symptoms"].items():
        names = [
            f"[{row['topic']}](#q{row['id']})"
            for row in data["question"]
            if key in row["symptoms"]
        ]
        lines.append(f"| **{symptom}** | {', '.join(names)} |")
    return lines


def entry(row: dict) -> list[str]:
    star = "★ " if row["starred"] else ""
    shown = [sections.link(row["page"], row["section"])] if row["section"] else []
    where = f"*Shown:* {shown[0]}. " if shown else ""
    return [
        f"(q{row['id']})=",
        f"**{row['id']}. {star}{row['question']}** {row['answer']}",
        "",
        f"{where}*Asked:* {', '.join(row['threads'])}.",
        "",
    ]


def page() -> str:
    data = table()
    lines = [TOP, *by_symptom(data), ""]
    for part, title in PARTS.items():
        lines += [f"## {title}", ""]
        for row in data["question"]:
            if row["chapter"] == part:
                lines += entry(row)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
