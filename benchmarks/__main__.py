"""Ours against what one would use instead, in one run: `make bench`.

    python -m benchmarks [--device cuda] [--threads 2] [--only causal] [--quick]
                         [--json FILE | --save]

Prints one line a comparison: how many times our time the other way takes, with the
quartiles of neighbouring calls. With --json or --save the rows are written with
card or processor, versions, commit and date; book/performance.md is made from those in
book/_data/benchmarks. How far `causal_conv(method="auto")` stays from the best method
is measured by benchmarks/auto.py.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import timing

MODULES = (
    "correlate2d", "causal", "causal_libraries", "spectra", "ckconv_layer",
    "recurrence", "ckn_layer", "ckn_epilogue", "kmeans",
)  # fmt: skip


def rows(device: str, *, only: str = "", quick: bool = False):
    """Every case of one module, or of all, measured and printed as it comes."""
    for name in MODULES:
        if only not in ("", name):
            continue
        module = importlib.import_module(f"benchmarks.{name}")
        for case in module.cases(device, quick=quick):
            row = timing.measure(case, device, **(QUICK if quick else {}))
            show(row)
            yield row


def rows_of_fresh_processes(options) -> list[dict]:
    """Each module in a process of its own, so that none leaves memory to the next.

    What a process has freed it may get back without asking the system; whether it does
    decides the time of whatever makes large tensors. So causal_conv is measured twice:
    as a fresh process comes, and with an allocator that keeps all it ever had.
    """
    found = []
    for name in MODULES:
        found += _rows_of_a_process(name, options, {})
        if name == "causal" and options.device == "cpu":
            for row in _rows_of_a_process(name, options, KEEP_MEMORY):
                name_kept = f"{row['operation']}, memory kept"
                found.append(row | {"operation": name_kept, "goal": ""})
    return found


# glibc's allocator: nothing is mapped apart, nothing is given back
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


def _rows_of_a_process(name: str, options, environment: dict) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", "--only", name, "--json", file]
        command += ["--device", options.device, "--threads", str(options.threads)]
        command += ["--quick"] * options.quick
        subprocess.run(command, env=os.environ | environment, check=True)
        return json.loads(file.read_text())["rows"]


QUICK = {"rounds": 2, "least": 0.0}


def show(row: dict) -> None:
    print(
        f"{row['operation']} {row['size']} {row['dtype']}: {1e3 * row['seconds']:.3g} "
        f"ms, {row['gb_per_s']:.3g} GB/s, {row['gflop_per_s']:.3g} GFLOP/s",
        flush=True,
    )
    for name, peer in row["peers"].items():
        low, high = peer["low"], peer["high"]
        print(f"  {peer['ratio']:7.2f} times ours ({low:.2f} to {high:.2f}): {name}")
    if row["peak_bytes"]:
        held = (f"{size / 1e6:.0f} {name}" for name, size in row["peak_bytes"].items())
        print(f"  peak MB: {', '.join(held)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="one module")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--save", action="store_true", help="--json into the book")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    record = timing.provenance(options.device) | timing.ceilings(options.device)
    print(", ".join(f"{name} {value}" for name, value in record.items()))
    with torch.no_grad():
        record["rows"] = (
            list(rows(options.device, only=options.only, quick=options.quick))
            if options.only
            else rows_of_fresh_processes(options)
        )
    target = options.json or (book_file(record) if options.save else None)
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record, indent=1) + "\n")


def book_file(record: dict) -> Path:
    """cpu.json, or one file a card."""
    card = "-".join(record["device"].lower().split())
    name = "cpu" if record["threads"] else card
    return timing.ROOT / "book" / "_data" / "benchmarks" / f"{name}.json"


if __name__ == "__main__":
    main()
