"""The files around the book: pins, extras, workflows, Makefile, README, publishing."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import nbformat
import pytest
import yaml
from jupytext import TextFileContentsManager
from packaging.requirements import Requirement

from tools import notebooks, publish

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, **options)


# Installing ------------------------------------------------------------------------


def test_requirements_pin_exactly_and_end_in_the_package():
    text = (ROOT / "requirements.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[-1] == "-e ."
    for line in lines[:-1]:
        (pin,) = Requirement(line).specifier
        assert pin.operator == "==" and "*" not in pin.version, line


def test_the_package_has_lower_bounds_only_and_torch_is_an_extra():
    project = SETTINGS["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["torch"], *extras["gpu"]]:
        (bound,) = Requirement(line).specifier
        assert bound.operator == ">=", line
    names = {Requirement(line).name for line in project["dependencies"]}
    assert names == {"numpy", "matplotlib"}
    assert [r for r in requires("ckutils") if "torch" in r and "extra" not in r] == []


def test_importing_the_package_loads_little_beside_torch():
    """What costs time is what is imported; a clock would make this test flaky."""
    code = (
        "import sys, torch; before = set(sys.modules); import ckutils; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    loaded = run(sys.executable, "-c", code, cwd=ROOT).stdout.split()
    assert "ckutils" in loaded
    heavy = {"matplotlib", "scipy", "cupy", "jax", "flax", "pandas", "IPython", "PIL"}
    assert heavy & set(loaded) == set()
    assert "torch" not in loaded


def test_the_wheel_carries_the_data(tmp_path):
    """A hosted notebook installs the package alone, without dependencies."""
    source = tmp_path / "source"
    for part in ("ckutils", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        (source / part).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, source / part)
    built = run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
        "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source),
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("ckutils-*.whl")
    listed = run(sys.executable, "-m", "zipfile", "-l", str(wheel)).stdout
    data = ROOT / "ckutils" / "datasets" / "data"
    pages = ROOT / "ckutils" / "widgets" / "static"
    cuda = ROOT / "ckutils" / "cuda"
    kernels = [*cuda.glob("*.cu"), *(cuda / "host").iterdir()]
    assert len(kernels) > 8
    modules = (ROOT / "ckutils").rglob("*.py")
    for file in [*data.rglob("*"), *pages.iterdir(), *kernels, *modules]:
        if file.is_file():
            assert str(file.relative_to(ROOT)) in listed


# Make ------------------------------------------------------------------------------


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.M)
    listed = re.findall(r"^(\S+) -", run("make", "help", cwd=ROOT).stdout, re.M)
    assert sorted(listed) == sorted(phony.split())
    assert {".venv", "book", "test", "notebooks", "publish"} <= set(listed)


def test_make_refuses_an_unsupported_python():
    old = run("make", "PYTHON=false", "REQUIREMENTS=README.md", ".venv", cwd=ROOT)
    assert old.returncode != 0
    assert "not Python 3.11 to 3.13" in old.stdout + old.stderr


def test_ci_is_strict_and_calls_the_readmes_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    assert script.rstrip().splitlines()[-1] == "make test"
    readme = (ROOT / "README.md").read_text()
    assert "\nmake book " in readme and "\nmake test " in readme


def test_jupyterlab_saves_a_chapter_into_both_files(tmp_path):
    """What `make lab` does when a reader adds a cell and saves."""
    name = sorted((ROOT / "notebooks").glob("*.ipynb"))[0].stem
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for ending in (".py", ".ipynb"):
        shutil.copy(ROOT / "notebooks" / (name + ending), tmp_path / "notebooks")
    manager = TextFileContentsManager()
    manager.root_dir = str(tmp_path)
    model = manager.get(f"notebooks/{name}.ipynb")
    cell = nbformat.v4.new_markdown_cell("marmalade", id="added")
    model["content"]["cells"].append(cell)
    manager.save(model, f"notebooks/{name}.ipynb")
    text = (tmp_path / "notebooks" / f"{name}.py").read_text()
    assert "marmalade" in text and 'tags=["hide-input"' in text


# Workflows -------------------------------------------------------------------------


def test_workflows_are_valid():
    schema = ("--builtin-schema", "vendor.github-workflows")
    done = run(sys.executable, "-m", "check_jsonschema", *schema, *map(str, WORKFLOWS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.stem for path in WORKFLOWS] == ["ci", "pages", "weekly"]


def zizmor(folder: Path) -> subprocess.CompletedProcess:
    tool = Path(sys.executable).with_name("zizmor")
    return run(str(tool), "--offline", "--no-progress", "--no-config", str(folder))


def test_workflows_have_no_security_finding(tmp_path):
    assert zizmor(ROOT / ".github" / "workflows").returncode == 0
    bad = (WORKFLOWS[0]).read_text()
    bad = re.sub(r"@[0-9a-f]{40} # v[\d.]+", "@main", bad)
    (tmp_path / "ci.yml").write_text(bad)
    assert zizmor(tmp_path).returncode != 0, "zizmor does not see an unpinned action"


def test_workflows_call_make_and_nothing_else():
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                assert step.get("run", "make ").startswith("make "), step


def test_ci_covers_the_supported_pythons():
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    versions = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13"]


def test_the_newest_set_names_what_the_pins_name():
    def names(path):
        lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
        return {
            Requirement(x).name.replace("_", "-").lower()
            for x in lines
            if x[:1] not in "-"
        }

    direct = (ROOT / "requirements.txt").read_text().split("# what those need")[0]
    pinned = ROOT / ".cache" / "direct.txt"
    pinned.parent.mkdir(exist_ok=True)
    pinned.write_text(direct)
    newest = names(ROOT / ".github" / "requirements" / "newest.txt")
    # the theme is pinned for its looks; in the newest set jupyter-book picks it
    assert newest == names(pinned) - {"sphinx-book-theme"}


# Papers ----------------------------------------------------------------------------


def test_citation_has_what_a_citation_needs():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    for key in ("cff-version", "message", "title", "authors", "license", "version"):
        assert citation[key]
    assert citation["version"] == SETTINGS["project"]["version"]
    assert citation["license"] == SETTINGS["project"]["license"]


def test_every_data_file_has_its_licence():
    folder = ROOT / "ckutils" / "datasets" / "data"
    text = (folder / "LICENSES.md").read_text()
    for file in folder.rglob("*"):
        if file.suffix == ".npz":
            assert f"## {file.name}" in text
        if file.suffix == ".png":
            assert f"`{file.stem}`" in text


def test_no_file_names_this_machine():
    """A path of somebody's machine in a page or an output helps nobody."""
    path = re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|work)/[\w.]")
    for pattern in (
        "*.md",
        "book/*.md",
        "notebooks/*",
        "ckutils/**/*.py",
        ".github/**/*.yml",
    ):
        for file in ROOT.glob(pattern):
            found = path.search(file.read_text())
            assert not found, f"{file.name}: {found.group()}"


# Publishing ------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A copy of the files that carry the address, with the tools pointed at it."""
    for name in ("pyproject.toml", "_config.yml", "README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    for module in (publish, notebooks):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "notebooks")
    return tmp_path


def addresses(folder: Path) -> set[str]:
    """Every repository address in the files that carry one."""
    text = [
        re.search(r'^  url: "(.*)"$', (folder / "_config.yml").read_text(), re.M)[1],
        re.search(
            r'^repository-code: "(.*)"$', (folder / "CITATION.cff").read_text(), re.M
        )[1],
    ]
    for file in sorted((folder / "notebooks").glob("*.ipynb")):
        code = [c for c in nbformat.read(file, 4).cells if c.cell_type == "code"]
        text.append(re.search(r'REPOSITORY, TAG = "(.*?)"', code[0].source)[1])
        text.append(
            re.search(
                r'REPOSITORY, TAG = "(.*?)"', file.with_suffix(".py").read_text()
            )[1]
        )
    return {t.removeprefix("https://github.com/") for t in text}


def test_all_files_agree_on_the_address():
    assert addresses(ROOT) == {publish.repository()}


def test_publish_writes_the_address_everywhere(clone, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["publish.py", "someone/kernels"])
    publish.main()
    assert publish.repository() == "someone/kernels"
    assert addresses(clone) == {"someone/kernels"}
    assert "github.com/someone/kernels/actions" in (clone / "README.md").read_text()
    config = yaml.safe_load((clone / "_config.yml").read_text())
    assert config["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    publish.main()  # again: the same
    assert addresses(clone) == {"someone/kernels"}


@pytest.mark.parametrize("name", ["", "kernels", "a/b/c", "a b/c"])
def test_publish_refuses_what_is_no_address(clone, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["publish.py", name])
    with pytest.raises(SystemExit, match="owner/name"):
        publish.main()
