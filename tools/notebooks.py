"""Execute chapters: notebooks/NN_slug.py (edited by people) -> NN_slug.ipynb (built).

    python tools/notebooks.py             every chapter whose .py is newer in content
    python tools/notebooks.py 01 03       these chapters, always
    python tools/notebooks.py --all       every chapter, always
    python tools/notebooks.py --cells     only write the common first cell into each .py

The first code cell is the same in every chapter and is written here, nowhere else. The
notebook that results has its outputs and no time stamps, so that executing twice gives
the same file.
"""

import argparse
import os
import sys
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
# A waiting thread gives its core to others: spinning made a chapter eight times slower
# on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
METADATA = {
    "accelerator": "GPU",  # Colab then opens the chapter with a GPU
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
# Which metadata the .py keeps; without this header jupytext drops the cells' tags.
FILTERS = {
    "cell_metadata_filter": "tags,mystnb,-all",
    "notebook_metadata_filter": "accelerator,colab,kernelspec,-all",
}
FIRST_TAGS = ["hide-input", "nbval-ignore-output"]
FIRST_CELL = """\
# The first cell of every chapter: find ckutils, or install it and change nothing else.
import importlib.util
import subprocess
import sys

REPOSITORY, TAG = "{repository}", "v{version}"  # written by `make publish`
if importlib.util.find_spec("ckutils") is None:
    if not REPOSITORY:
        raise SystemExit(
            "ckutils is missing. In a clone of the book, run `make .venv` and use the "
            "kernel in .venv; or, beside the clone, `pip install --no-deps ./CLONE`."
        )
    source = f"ckutils @ git+https://github.com/{{REPOSITORY}}@{{TAG}}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", source]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{{done.stderr}}No network? Install by hand: {{source}}")
from ckutils.checks import describe_runtime

print(describe_runtime())"""


def first_cell() -> str:
    """The common first cell, with the address that stands in pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return FIRST_CELL.format(
        repository=settings["tool"]["book"]["repository"],
        version=settings["project"]["version"],
    )


def write_first_cell(path: Path) -> None:
    """Put header and common first cell into a chapter's .py, in place of older ones."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(METADATA | {"jupytext": FILTERS})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cell = nbformat.v4.new_code_cell(first_cell(), metadata={"tags": FIRST_TAGS})
    if code and "# The first cell of every chapter" in code[0].source:
        notebook.cells[notebook.cells.index(code[0])] = cell
    else:
        notebook.cells.insert(1, cell)  # below the title and the results
    text = jupytext.writes(notebook, fmt="py:percent")
    if text != path.read_text():
        path.write_text(text)


def execute(path: Path) -> Path:
    """Run a chapter's .py in a fresh kernel and write the notebook beside it."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"  # random ids would change at every run
    NotebookClient(
        notebook,
        timeout=600,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    target = path.with_suffix(".ipynb")
    nbformat.validate(notebook)
    target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return target


def joined(outputs: list) -> list:
    """The outputs with neighbouring pieces of one stream put together.

    A print may arrive in pieces. nbclient can join them, but moves what stands below a
    figure above it.
    """
    whole = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            whole.append(output)
    return whole


def is_current(path: Path) -> bool:
    """Whether the notebook beside a chapter's .py holds the same cells."""
    target = path.with_suffix(".ipynb")
    if not target.exists():
        return False
    ours, theirs = jupytext.read(path).cells, nbformat.read(target, 4).cells
    return [c.source for c in ours] == [c.source for c in theirs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="number or name, such as 01")
    parser.add_argument("--all", action="store_true", help="execute every chapter")
    parser.add_argument("--cells", action="store_true", help="only the first cells")
    options = parser.parse_args()
    paths = sorted(FOLDER.glob("[0-9]*.py"))
    chosen = [p for p in paths if any(p.name.startswith(c) for c in options.chapters)]
    if options.chapters and not chosen:
        sys.exit(f"no chapter starts with {options.chapters}; there are {paths}")
    for path in chosen or paths:
        write_first_cell(path)
        if options.cells:
            continue
        if chosen or options.all or not is_current(path):
            print(f"executing {path.relative_to(ROOT)}", flush=True)
            size = execute(path).stat().st_size
            print(f"  wrote {path.stem}.ipynb, {size / 1e6:.2f} MB", flush=True)
        else:
            print(f"{path.relative_to(ROOT)} is current", flush=True)


if __name__ == "__main__":
    main()
