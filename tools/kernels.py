"""What each CUDA kernel needs on four generations of GPUs, for the performance page.

`python -m tools.kernels` compiles all of them with NVRTC, writes the numbers to
book/_data/kernels.json and prints the rows in float as a Markdown table.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ckutils.cuda import variants
from ckutils.cuda.compile import nvrtc_version
from ckutils.cuda.variants import Need

FILE = Path(__file__).resolve().parent.parent / "book" / "_data" / "kernels.json"
COLUMNS = ("registers", "spills", "stack", "shared")


def record(rows: Sequence[Need]) -> dict:
    """The compiler, and a row a kernel and variant: its numbers by architecture."""
    return {
        "compiler": nvrtc_version(),
        "rows": [
            {
                "file": row.file,
                "kernel": row.kernel,
                "constants": row.constants,
                **{
                    f"sm_{usage.architecture}": [getattr(usage, c) for c in COLUMNS]
                    for usage in row.usages
                },
            }
            for row in rows
        ],
        "columns": COLUMNS,
    }


def main() -> None:
    rows = variants.needs()
    FILE.write_text(json.dumps(record(rows), indent=1) + "\n")
    print(variants.table([row for row in rows if "double" not in row.constants]))


if __name__ == "__main__":
    main()
