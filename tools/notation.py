"""Write book/notation.md from book/_data/notation.csv: the letters of all chapters."""

import csv
from pathlib import Path

from tools import sections

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "book" / "_data" / "notation.csv"
PAGE = ROOT / "book" / "notation.md"
TOP = """\
# Notation

The letters of all chapters, in the order in which they appear: what each means, its
shape or range, its name in `ckutils`, and what the field calls it. Sizes are on one
axis; an operation on several axes has one of each an axis. Time is the last axis,
channels stand before space. In chapters 3 and 4, index 0 of a kernel in time is the
present; a layer of torch (1, 2) has the present last.

Some letters have several meanings, as in the literature; the chapter decides. $K$ is a
span (1), a kernel of a cascade (2), a kernel's length (3), a Gram matrix (5). $a$ is an
output padding (1), a kernel size (2), the coefficient of a recurrence (4). $p$ is a
padding (1) and the number of anchors (5). $s$ is a stride (1) and the size of a
composite (2). $\\psi$ is a kernel in time (3, 4) and the features of a patch (5).
$\\varepsilon$ is the rounding unit (1, 3, 4) and a ridge (5). $g$ is a number of groups
or a gradient (1), $m$ an output size or a period (1); $r$ and $w$ have several, too.
"""


def rows() -> list[dict]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page() -> str:
    pages = sections.chapters()
    lines = [
        TOP,
        "| letter | meaning | shape or range | in code | the field's word | chapter |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for row in rows():
        code = f"`{row['code']}`" if row["code"] else ""
        place = pages[row["chapter"]], row["section"]
        link = sections.link(*place, sections.number(*place))
        cells = [row["symbol"], row["meaning"], row["shape"], code, row["word"], link]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
