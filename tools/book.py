"""Build the book strictly into _build/html and print the file to open.

Any warning is an error (-W), every reference must resolve (-n), and every page of
_toc.yml must exist afterwards. The build starts from an empty folder, unless nothing
that it reads has changed since the last good one: then there is nothing to do.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
STAMP = ROOT / "_build" / "inputs.sha256"
# jupyter-book 1 has no __main__; its script in .venv/bin breaks when a clone is moved.
CLI = "from jupyter_book.cli.main import main; main()"
INPUTS = (
    "_config.yml", "_toc.yml", "requirements.txt", "book/**/*", "notebooks/*.ipynb",
    "ckutils/**/*.py", "ckutils/**/*.cu", "ckutils/widgets/static/*", "tools/book.py",
    "tools/explorers.py", "tools/offline.py",
)  # fmt: skip


def pages() -> list[str]:
    """Every document that _toc.yml names, without ending."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    parts = [part["chapters"] for part in toc["parts"]]
    return [toc["root"], *(chapter["file"] for part in parts for chapter in part)]


def fingerprint() -> str:
    """One hash of all that the build reads, and of the Python that builds."""
    digest = hashlib.sha256(sys.version.encode())
    for pattern in INPUTS:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
                digest.update(path.read_bytes())
    return digest.hexdigest()


def missing_pages() -> list[str]:
    return [page for page in pages() if not (HTML / f"{page}.html").is_file()]


def build() -> None:
    shutil.rmtree(ROOT / "_build", ignore_errors=True)
    command = [sys.executable, "-c", CLI, "build", ".", "-W", "-n", "--all"]
    run = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if run.returncode:
        sys.exit(f"{run.stdout}\nthe book was not built")
    STAMP.write_text(fingerprint())


def main() -> None:
    if STAMP.is_file() and STAMP.read_text() == fingerprint() and not missing_pages():
        print("nothing that the book reads has changed since it was built")
    else:
        build()
    if missing := missing_pages():
        sys.exit(f"the build left out {', '.join(missing)}")
    print(f"open {HTML / 'index.html'}")


if __name__ == "__main__":
    main()
