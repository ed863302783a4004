"""Write the repository's address everywhere: python tools/publish.py owner/name

It stands in pyproject.toml ([tool.book] repository) and nowhere else; the first cell of
every chapter, _config.yml, README.md and CITATION.cff are derived from it here. Stored
outputs stay as they are: the first cell prints no address.
"""

import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tools import notebooks  # noqa: E402

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
README_START = "<!-- written by make publish -->"
README_END = "<!-- end -->"


def repository() -> str:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return settings["tool"]["book"]["repository"]


def replace(path: Path, pattern: str, new: str) -> None:
    """Replace the one match of `pattern`; more or fewer than one is an error."""
    text, count = re.subn(pattern, lambda _: new, path.read_text(), flags=re.M | re.S)
    if count != 1:
        raise SystemExit(f"{path.name}: {count} places match {pattern!r}, need 1")
    path.write_text(text)


def badges(name: str) -> str:
    """The README's badges; CI, the book and Colab need the address."""
    shield = "https://img.shields.io/badge"
    always = (
        f"![code: BSD 3-clause]({shield}/code-BSD_3--clause-0072B2) "
        f"![Python 3.11 to 3.13]({shield}/Python-3.11_to_3.13-0072B2) "
        f"![every number: checked]({shield}/every_number-checked-009E73)"
    )
    if not name:
        return always
    hub = f"https://github.com/{name}"
    owner, project = name.split("/")
    chapter = "notebooks/01_convolution_arithmetic.ipynb"
    colab = f"https://colab.research.google.com/github/{name}/blob/main/{chapter}"
    return "\n".join(
        [
            always,
            f"[![ci]({hub}/actions/workflows/ci.yml/badge.svg)]({hub}/actions)",
            f"[![book]({shield}/read-the_book-0072B2)]"
            f"(https://{owner}.github.io/{project}/)",
            "[![Open in Colab](https://colab.research.google.com/assets/"
            f"colab-badge.svg)]({colab})",
        ]
    )


def derive(name: str) -> None:
    """Write the address into every file that is derived from it."""
    url = f"https://github.com/{name}" if name else ""
    replace(ROOT / "_config.yml", r'^  url: ".*?"$', f'  url: "{url}"')
    button = f'  colab_url: "{"https://colab.research.google.com" if name else ""}"'
    replace(ROOT / "_config.yml", r'^  colab_url: ".*?"$', button)
    replace(
        ROOT / "README.md",
        rf"{README_START}.*?{README_END}",
        f"{README_START}\n{badges(name)}\n{README_END}",
    )
    replace(
        ROOT / "CITATION.cff", r'^repository-code: ".*?"$', f'repository-code: "{url}"'
    )
    for path in sorted(notebooks.FOLDER.glob("[0-9]*.py")):
        notebooks.write_first_cell(path)
        target = path.with_suffix(".ipynb")
        notebook = nbformat.read(target, 4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        code[0].source = notebooks.first_cell()
        target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if not NAME.fullmatch(name):
        raise SystemExit("say the repository: make publish REPO=owner/name")
    new = f'repository = "{name}"'
    replace(ROOT / "pyproject.toml", r'^repository = "[^"]*"$', new)
    derive(name)
    print(f"the book's address is {name}; commit what `git status` shows")


if __name__ == "__main__":
    main()
