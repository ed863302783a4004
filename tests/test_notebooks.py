"""The notebook policy, and strict nbval over every chapter.

nbval executes a notebook and compares every text output with the stored one. `check_*`
functions hold the policy; the canaries at the end show that each of them can fail.
"""

import ast
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from jupytext.compare import NotebookDifference, compare_notebooks

from tools import notebooks as house

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_LINES, MAX_BYTES = 20, 1_500_000
# What Colab and GitHub show as raw text: MyST directives, roles and targets.
MYST = re.compile(
    r"^\s*(?:```|~~~|:::)\s*\{[\w:-]+\}"  # directive
    r"|\{[\w:+-]+\}`"  # role
    r"|^\([\w:-]+\)=\s*$"  # target
    r"|^\s*%\s"  # comment
    r"|\{\{|\}\}(?!\$|\w|[,^_\\}])",  # substitution
    re.M,
)


# The policy ----------------------------------------------------------------------


def check_pair(path: Path) -> None:
    """The .py and the .ipynb hold the same notebook, outputs apart."""
    ours, theirs = nbformat.read(path, 4), jupytext.read(path.with_suffix(".py"))
    for notebook in (ours, theirs):
        notebook.metadata.pop("jupytext", None)
        notebook.metadata.pop("language_info", None)
    compare_notebooks(theirs, ours, fmt="ipynb", allow_expected_differences=False)


def check_executed(path: Path) -> None:
    """Every code cell was executed, in order, without an error; some print."""
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    assert counts == list(range(1, len(code) + 1)), f"execution counts {counts}"
    kinds = [o.output_type for cell in code for o in cell.outputs]
    assert "error" not in kinds, "a stored output is an error"
    for cell in code:
        prints = re.search(r"^(?:\s*print|agree|_?check_\w+)\(", cell.source, re.M)
        assert cell.outputs or not prints, f"no stored output: {cell.source[:60]!r}"


def check_first_cell(path: Path) -> None:
    """The first code cell is byte for byte the one in tools/notebooks.py."""
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert code[0].source == house.first_cell()
    assert code[0].metadata["tags"] == house.FIRST_TAGS


def check_metadata(path: Path) -> None:
    """Kernel, GPU and language are as in tools/notebooks.py, and nothing else."""
    assert dict(nbformat.read(path, 4).metadata) == house.METADATA


def check_listed(path: Path) -> None:
    """The chapter stands in _toc.yml."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    assert f"notebooks/{path.stem}" in files


def check_markdown(path: Path) -> None:
    """Only Markdown that Colab, GitHub and Jupyter render: $$ on lines of their own,
    and not in a quotation, whose > Jupyter would print inside the formula."""
    for text in markdown(path):
        found = MYST.search(text)
        assert not found, f"shown as raw text elsewhere: {found.group()!r}"
        inline = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
        for line in inline.splitlines():
            alone = line.strip() == "$$"
            assert "$$" not in line or alone, f"$$ not alone: {line!r}"


def check_equations(path: Path) -> None:
    """Tags (c.1), (c.2), ... in the order of the page; each (c.n) mentioned has one."""
    chapter = int(path.name[:2])
    text = "\n".join(c.source for c in nbformat.read(path, 4).cells)
    tags = re.findall(rf"\\tag\{{({chapter}\.\d+)\}}", text)
    in_order = [f"{chapter}.{n + 1}" for n in range(len(tags))]
    assert tags == in_order, f"equations in the order {tags}"
    for block in re.findall(r"^\$\$\n(.*?)^\$\$", text, re.M | re.S):
        # Sphinx wraps lines that are broken by two backslashes in a split environment,
        # where no tag may stand: write \\cr in matrices
        assert not ("\\\\" in block and "\\tag" in block), f"broken line: {block!r}"
    mentioned = set(re.findall(rf"\(({chapter}\.\d+)\)", text))
    assert mentioned <= set(tags), f"no tag for {sorted(mentioned - set(tags))}"


def check_cells(path: Path) -> None:
    """No code cell above 20 lines, the first one apart; no `expr;`."""
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    for cell in code[1:]:
        lines = cell.source.splitlines()
        assert len(lines) <= MAX_LINES, f"{len(lines)} lines: {lines[0]!r}"
        assert not cell.source.rstrip().endswith(";"), f"ends in ;: {lines[-1]!r}"


def check_figures(path: Path) -> None:
    """Every cell that draws has alt text, and a digest printed below the figure."""
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    for cell, following in zip(code, [*code[1:], None], strict=True):
        if not draws(cell):
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert len(alt) >= 20, f"no alt text: {cell.source[:60]!r}"
        kinds = [is_image(output) for output in cell.outputs]
        printed = False in kinds[kinds.index(True) :] and "digest(" in cell.source
        later = following is not None and "digest(" in following.source
        assert printed or later, f"no digest below: {cell.source[:60]!r}"


def check_imports(path: Path) -> None:
    """What a cell imports is in Python, or comes with the package and torch.

    A chapter that was copied alone into an empty folder must run there.
    """
    known = {"ckutils", "IPython", "matplotlib", "numpy", "torch"}
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            else:
                continue
            others = names - known - sys.stdlib_module_names
            assert not others, f"imports {others}: {cell.source[:60]!r}"


def check_size(path: Path) -> None:
    """At most 1.5 MB, so that it loads on a slow line."""
    assert path.stat().st_size <= MAX_BYTES, f"{path.stat().st_size} bytes"


POLICY = (
    check_pair, check_executed, check_first_cell, check_metadata, check_listed,
    check_markdown, check_equations, check_cells, check_figures, check_imports,
    check_size,
)  # fmt: skip


def markdown(path: Path) -> list[str]:
    return [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"]


def is_image(output) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def draws(cell) -> bool:
    return any(is_image(output) for output in cell.outputs)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
@pytest.mark.parametrize("check", POLICY, ids=lambda c: c.__name__)
def test_policy(check, path):
    check(path)


def test_every_chapter_has_both_files():
    sources = sorted((ROOT / "notebooks").glob("*.py"))
    assert CHAPTERS, "there is no notebook at all"
    assert [p.stem for p in sources] == [p.stem for p in CHAPTERS]


# nbval ---------------------------------------------------------------------------


def nbval(path: Path) -> subprocess.CompletedProcess:
    """Strict nbval over one notebook in a process of its own."""
    command = [
        sys.executable, "-m", "pytest", "--nbval", "--nbval-cell-timeout=300",
        "--rootdir", str(path.parent), "-c", os.devnull, "-p", "no:cacheprovider",
        "-q", "--color=no", str(path),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, cwd=path.parent)


def inputs(path: Path) -> str:
    """One hash of all that decides a notebook's outputs."""
    digest = hashlib.sha256(sys.version.encode())
    for installed in sorted(Path(sys.prefix).glob("installed.*")):
        digest.update(f"{installed.name} {installed.stat().st_mtime_ns}".encode())
    for file in [path, *sorted((ROOT / "ckutils").rglob("*"))]:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_number_is_reproduced(path):
    """Strict nbval. On a developer's machine, not in CI, a notebook that passed with
    exactly these inputs is not run again; `make clean` forgets."""
    passed = ROOT / ".cache" / "nbval" / f"{path.stem}.sha256"
    now = inputs(path)
    if not os.environ.get("CI") and passed.is_file() and passed.read_text() == now:
        print(f"{path.stem}: nothing has changed since it passed")
        return
    run = nbval(path)
    assert run.returncode == 0, run.stdout[-6000:]
    passed.parent.mkdir(parents=True, exist_ok=True)
    passed.write_text(now)


# Canaries ------------------------------------------------------------------------


CANARY = r"""# %% [markdown]
# # Canary
#
# $$
# y = 7 \tag{9.1}
# $$
#
# See (9.1).

# %%
print(3 + 4)
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small good chapter, executed once."""
    path = tmp_path_factory.mktemp("good") / "09_canary.py"
    path.write_text(CANARY)
    house.write_first_cell(path)
    return house.execute(path)


@pytest.fixture
def canary(good, tmp_path):
    """(notebook, save): a copy of the good chapter to spoil, and its way to disk."""
    path = tmp_path / good.name
    path.with_suffix(".py").write_text(good.with_suffix(".py").read_text())
    notebook = nbformat.read(good, 4)

    def save():
        path.write_text(nbformat.writes(notebook))
        return path

    return notebook, save


def last(notebook):
    return notebook.cells[-1]


def test_a_good_canary_passes_all_but_the_toc(canary):
    _, save = canary
    path = save()
    for check in POLICY:
        if check is not check_listed:
            check(path)
    assert nbval(path).returncode == 0


def test_a_wrong_stored_number_is_red(canary):
    notebook, save = canary
    assert last(notebook).outputs[0].text == "7\n"
    last(notebook).outputs[0].text = "8\n"
    run = nbval(save())
    assert run.returncode == 1
    assert "1 failed" in run.stdout


def test_a_cell_that_raises_is_red(canary):
    notebook, save = canary
    last(notebook).source = "raise ValueError('planted')"
    last(notebook).outputs = []
    assert nbval(save()).returncode == 1


def test_stripped_outputs_are_red(canary):
    notebook, save = canary
    last(notebook).update(outputs=[], execution_count=None)
    with pytest.raises(AssertionError, match="execution counts"):
        check_executed(save())


def test_an_output_stripped_under_a_kept_count_is_red(canary):
    notebook, save = canary
    last(notebook).outputs = []
    with pytest.raises(AssertionError, match="no stored output"):
        check_executed(save())


def test_a_stored_error_is_red(canary):
    notebook, save = canary
    error = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    last(notebook).outputs = [error]
    with pytest.raises(AssertionError, match="error"):
        check_executed(save())


def test_an_unlisted_chapter_is_red(canary):
    _, save = canary
    with pytest.raises(AssertionError):
        check_listed(save())


def test_a_pair_that_differs_is_red(canary):
    notebook, save = canary
    last(notebook).source = "print(3 + 5)"
    with pytest.raises(NotebookDifference):
        check_pair(save())


def test_a_changed_first_cell_is_red(canary):
    notebook, save = canary
    code = [c for c in notebook.cells if c.cell_type == "code"]
    code[0].source += "\n"
    with pytest.raises(AssertionError):
        check_first_cell(save())


def test_other_metadata_is_red(canary):
    notebook, save = canary
    del notebook.metadata["accelerator"]
    with pytest.raises(AssertionError):
        check_metadata(save())


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("```{note}\nx\n```", check_markdown),
        (":::{figure} x.png\n:::", check_markdown),
        ("see {cite}`key`", check_markdown),
        ("(target)=\n# T", check_markdown),
        ("$$ y = 1 $$", check_markdown),
        ("> $$\n> y = 1\n> $$", check_markdown),
        ("see (9.2)", check_equations),
        ("$$\ny \\tag{9.1}\n$$", check_equations),
        ("$$\na \\\\ b \\tag{9.2}\n$$", check_equations),
        ("$$\ny \\tag{9.3}\n$$", check_equations),
    ],
)
def test_bad_markdown_is_red(canary, text, check):
    notebook, save = canary
    notebook.cells.append(nbformat.v4.new_markdown_cell(text))
    with pytest.raises(AssertionError):
        check(save())


@pytest.mark.parametrize("line", ["import scipy.signal", "from jax import numpy"])
def test_an_import_beyond_the_package_is_red(canary, line):
    notebook, save = canary
    last(notebook).source = line
    with pytest.raises(AssertionError, match="imports"):
        check_imports(save())


def test_a_long_cell_is_red(canary):
    notebook, save = canary
    last(notebook).source = "x = 1\n" * 21
    with pytest.raises(AssertionError, match="21 lines"):
        check_cells(save())


def test_a_figure_without_alt_text_or_digest_is_red(canary):
    notebook, save = canary
    figure = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})
    last(notebook).outputs.append(figure)
    with pytest.raises(AssertionError, match="alt text"):
        check_figures(save())
    alt = "A line that rises from one to four."
    last(notebook).metadata["mystnb"] = {"image": {"alt": alt}}
    with pytest.raises(AssertionError, match="digest"):
        check_figures(save())


def test_a_large_file_is_red(canary):
    notebook, save = canary
    last(notebook).outputs[0].text = "7" * MAX_BYTES
    with pytest.raises(AssertionError, match="bytes"):
        check_size(save())
