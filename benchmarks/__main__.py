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
from pathlib import Path

import torch

from benchmarks import timing

MODULES = (
    "correlate2d", "causal", "spectra", "ckconv_layer", "recurrence", "ckn_layer",
    "ckn_epilogue", "kmeans",
)  # fmt: skip


def rows(device: str, *, only: str = "", quick: bool = False):
    """Every case of every module, measured; each row is printed as it comes."""
    for name in MODULES:
        if only not in name:
            continue
        module = importlib.import_module(f"benchmarks.{name}")
        for case in module.cases(device, quick=quick):
            row = timing.measure(case, device, **(QUICK if quick else {}))
            show(row)
            yield row


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
    parser.add_argument("--only", default="", help="part of a module's name")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--save", action="store_true", help="--json into the book")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    record = timing.provenance(options.device) | timing.ceilings(options.device)
    print(", ".join(f"{name} {value}" for name, value in record.items()))
    with torch.no_grad():
        record["rows"] = list(
            rows(options.device, only=options.only, quick=options.quick)
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
