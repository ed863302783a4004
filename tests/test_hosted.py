"""A chapter copied alone into an empty folder, on a machine without the book.

The book is published into a local git repository; git is told to take it for the one on
the network. The environment has torch, NumPy and matplotlib, and no ckutils.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
NAME = "someone/convolution-kernels"
LEFT_BEHIND = (".venv", ".git", "_build", ".*cache", ".hypothesis", "*.egg-info")
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")


def run(*command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(part) for part in command], text=True, capture_output=True, **options
    )
    return done


def must(*command, **options) -> str:
    done = run(*command, **options)
    assert done.returncode == 0, (
        f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    )
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """`make publish`, commit and tag, in a copy of the book that no network holds."""
    hub = tmp_path_factory.mktemp("hub")
    book = hub / f"{NAME}.git"
    shutil.copytree(ROOT, book, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    must(sys.executable, "tools/publish.py", NAME, cwd=book)
    git = ("git", "-c", "user.name=A", "-c", "user.email=a@b.invalid")
    for step in (
        ("init", "--quiet", "--initial-branch", "main"),
        ("add", "."),
        ("commit", "--quiet", "--message", "Publish"),
        ("tag", "v0.1.0"),
    ):
        must(*git, *step, cwd=book)
    return hub


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """A Python with this environment's packages but ckutils.

    It sees them through a path file; a path file over there, which is how an editable
    ckutils is found, is not read again. NumPy's version is hidden behind an old one, so
    that pip would replace it if it were asked to look at dependencies.
    """
    environment = tmp_path_factory.mktemp("bare")
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "uninstall", "--yes", "--quiet", "setuptools")  # too old
    get_site = "import site; print(site.getsitepackages()[0])"
    site = Path(must(python, "-c", get_site).strip())
    (site / "host.pth").write_text(sysconfig.get_path("purelib") + "\n")
    old = site / "numpy-0.0.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n"
    )
    (old / "RECORD").write_text("")
    (old / "INSTALLER").write_text("pip\n")
    return python


@pytest.fixture
def machine(tmp_path, bare_python, published):
    """An empty folder, a Python without ckutils, and the variables to run it with."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    variables = inherited | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{published}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "PIP_NO_BUILD_ISOLATION": "false",  # pip's way to say: build with what is here
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    run(bare_python, "-m", "pip", "uninstall", "--yes", "ckutils", env=variables)
    return tmp_path, bare_python, variables


def first_cell(book: Path, name: str) -> str:
    notebook = nbformat.read(book / "notebooks" / name, 4)
    return next(cell.source for cell in notebook.cells if cell.cell_type == "code")


def packages(python: Path, variables: dict) -> set[str]:
    listed = must(python, "-m", "pip", "list", "--format", "freeze", env=variables)
    return set(listed.split())


def test_the_first_cell_installs_ckutils_and_changes_nothing_else(machine, published):
    """Question 56: a hosted machine's torch, NumPy and CuPy stay as they are."""
    folder, python, variables = machine
    missing = run(python, "-c", "import ckutils", cwd=folder, env=variables)
    assert "No module named 'ckutils'" in missing.stderr
    before = {p for p in packages(python, variables) if not p.startswith("ckutils")}
    cell = first_cell(published / f"{NAME}.git", CHAPTERS[0].name)
    printed = must(python, "-c", cell, cwd=folder, env=variables)
    assert "torch" in printed
    after = packages(python, variables)
    assert "numpy==0.0.1" in before and before == {
        p for p in after if not p.startswith("ckutils")
    }
    where = must(
        python,
        "-c",
        "import ckutils; print(ckutils.__file__)",
        cwd=folder,
        env=variables,
    )
    assert Path(where.strip()).is_relative_to(python.parent.parent)


def test_a_chapter_alone_in_an_empty_folder_prints_what_the_book_prints(
    machine, published
):
    folder, python, variables = machine
    for chapter in CHAPTERS if os.environ.get("CKUTILS_ALL_ALONE") else CHAPTERS[3:4]:
        alone = published / f"{NAME}.git" / "notebooks" / chapter.name
        shutil.copy(alone, folder)
        must(
            python, "-m", "pytest", "--nbval", "--nbval-current-env", "-p",
            "no:cacheprovider", "--quiet", chapter.name, cwd=folder, env=variables,
        )  # fmt: skip
    assert [path.name for path in folder.glob("*.py")] == []


def test_without_a_network_the_first_cell_says_what_to_do(machine, published):
    folder, python, variables = machine
    variables["GIT_CONFIG_KEY_0"] = f"url.file://{folder}/nowhere/.insteadOf"
    cell = first_cell(published / f"{NAME}.git", CHAPTERS[0].name)
    done = run(python, "-c", cell, cwd=folder, env=variables)
    wanted = f"ckutils @ git+https://github.com/{NAME}@v0.1.0"
    assert done.returncode and f"No network? Install by hand: {wanted}" in (done.stderr)


def test_before_publication_the_first_cell_says_what_to_do(machine):
    folder, python, variables = machine
    cell = first_cell(ROOT, CHAPTERS[0].name)
    if 'REPOSITORY, TAG = ""' not in cell:
        pytest.skip("this copy of the book is published")
    done = run(python, "-c", cell, cwd=folder, env=variables)
    assert (
        done.returncode and "ckutils is missing. In a clone of the book" in done.stderr
    )
