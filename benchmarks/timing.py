"""Times of functions that take turns, ceilings of the machine, and who measured when.

A row of a benchmark is a `Case`: our function and those of others that do the same. All
are called in one process, in turn, each warm and, on a GPU, synchronised; what counts
is the ratio of medians. Achieved rates are put beside ceilings of the same machine:
copying a large tensor, and multiplying large matrices.
"""

import datetime
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parent.parent


class Case(NamedTuple):
    """One operation at one size.

    `flops` and `bytes` are what the operation cannot do without: real multiplications
    and additions of the best algorithm in use, and each input and output once.
    """

    operation: str
    size: str
    dtype: str
    ours: Callable
    peers: Mapping[str, Callable]
    flops: float
    bytes: float
    tolerance: float = 1e-4  # of the largest value; None where outputs differ in kind
    goal: str = ""


class Peer(NamedTuple):
    """What another way takes: seconds a call, and its median over ours."""

    seconds: float
    ratio: float
    low: float  # the ratio of neighbouring calls, lower and upper quartile
    high: float


def measure(case: Case, device: str, *, rounds: int = 9, least: float = 0.02) -> dict:
    """Check that all ways agree, time them in turn, and return one row."""
    ways = {"ckutils": case.ours, **case.peers}
    for name, way in case.peers.items():
        check_agreement(f"{case.operation} {case.size}, {name}", way, case)
    times = in_turn(ways, device, rounds=rounds, least=least)
    ours = times.pop("ckutils")
    median = statistics.median(ours)
    return {
        "operation": case.operation,
        "size": case.size,
        "dtype": case.dtype,
        "goal": case.goal,
        "seconds": median,
        "spread": quartiles([value / median for value in ours]),
        "gflop_per_s": case.flops / median / 1e9,
        "gb_per_s": case.bytes / median / 1e9,
        "flop_per_byte": case.flops / case.bytes,
        "peers": {name: compared(ours, theirs) for name, theirs in times.items()},
        "peak_bytes": peaks(ways) if device == "cuda" else {},
    }


def in_turn(ways: Mapping[str, Callable], device: str, *, rounds: int, least: float):
    """Seconds a call of each way, round after round, `least` seconds at a time."""
    repeats = {}
    for name, way in ways.items():
        way()  # allocates, plans, compiles
        once = seconds_of(way, 1, device)
        repeats[name] = max(1, math.ceil(least / max(once, 1e-9)))
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(seconds_of(way, repeats[name], device))
    return times


def peaks(ways: Mapping[str, Callable]) -> dict[str, int]:
    """What a call of each way asks of a GPU's memory beyond what is there already."""
    most = {}
    for name, way in ways.items():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        torch.cuda.synchronize()
        most[name] = torch.cuda.max_memory_allocated() - before
    return most


def compared(ours: list[float], theirs: list[float]) -> dict:
    """One peer's entry of a row."""
    low, high = quartiles([b / a for a, b in zip(ours, theirs, strict=True)])
    median = statistics.median(theirs)
    return Peer(median, median / statistics.median(ours), low, high)._asdict()


def quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def check_agreement(name: str, way: Callable, case: Case) -> None:
    """A fast wrong answer is no peer, and neither are we."""
    if case.tolerance is None:
        return
    got, want = (torch.as_tensor(f()).cpu().detach() for f in (way, case.ours))
    if got.shape != want.shape:
        raise SystemExit(f"{name}: shape {tuple(got.shape)}, ours {tuple(want.shape)}")
    error = float((got - want).abs().max() / want.abs().max())
    if not error <= case.tolerance:
        raise SystemExit(f"{name}: differs from ours by {error:.1e} of the largest")


def seconds_of(way: Callable, repeats: int, device: str) -> float:
    """Seconds a call, over `repeats` calls; a GPU is waited for before and after."""
    wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        way()
    wait(device)
    return (time.perf_counter() - start) / repeats


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# What the machine can do ----------------------------------------------------------


def ceilings(device: str) -> dict:
    """Measured here and now: bytes a second of a copy, operations of two products."""
    big = torch.randn(1 << (28 if device == "cuda" else 25), device=device)
    target = torch.empty_like(big)
    n = 8192 if device == "cuda" else 2048
    copy = best(lambda: target.copy_(big), device)
    rates = {}
    for dtype in (torch.float32, torch.float64):
        a, b = torch.randn(2, n, n, device=device, dtype=dtype)
        product = torch.empty_like(a)
        multiply = best(lambda a=a, b=b, c=product: torch.mm(a, b, out=c), device)
        rates[str(dtype).removeprefix("torch.")] = 2 * n**3 / multiply / 1e9
    return {
        "copy_gb_per_s": 2 * big.numel() * 4 / copy / 1e9,
        "product_gflop_per_s": rates,
    }


def best(way: Callable, device: str, rounds: int = 7) -> float:
    """Seconds of the fastest of several calls: a ceiling is a maximum of rates."""
    seconds_of(way, 1, device)
    return min(seconds_of(way, 1, device) for _ in range(rounds))


def provenance(device: str) -> dict:
    """Card or processor, versions, commit and date."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    record = {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "device": device_name(device),
        "threads": torch.get_num_threads() if device == "cpu" else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        import cupy

        record["cuda"], record["cupy"] = torch.version.cuda, cupy.__version__
        record["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return record


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"
