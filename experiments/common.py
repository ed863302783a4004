"""What all experiments share: the command line, the cases, and the record in JSON.

An experiment is a list of cases (a model on a task, with a seed). Finished cases are
kept in `.cache/experiments/`, the case at work keeps a checkpoint there, so the same
command goes on where it was interrupted. `--fresh` starts anew.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ckutils.training import count_weights
from experiments.loop import Trained, ranks, train, wait_for_all

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "book" / "_data" / "experiments"
CACHE = ROOT / ".cache" / "experiments"


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--seed", type=int, default=0, help="the first seed")
    add("--seeds", type=int, default=None, help="how many, for cases that repeat")
    add("--quick", action="store_true", help="tiny sizes, to see that it runs")
    add("--data", type=Path, default=None, help="folder with one folder a data set")
    add("--only", default="", help="only cases whose name contains this")
    add("--minutes", type=float, default=float("inf"), help="of wall time, in all")
    add("--cpu-budget", type=float, default=float("inf"), help="CPU seconds a case")
    add("--threads", type=int, default=None, help="of torch on a CPU")
    add("--out", type=Path, default=None, help="where the JSON goes")
    add("--cache", type=Path, default=None, help="where unfinished work is kept")
    add("--fresh", action="store_true", help="forget unfinished work")
    return parser


class Experiment:
    """One run of one script: runs its cases in order and writes one JSON.

    Args:
        name: of the script and of the JSON.
        title: the first line of its section on the page.
        args: what `arguments(name, ...)` parsed.
        about: sentences for the page: the data, the split, what was selected and how.
        published: rows for the page, dicts with `what`, `value` and `source`.
        not_run: sentences: what the papers did and this script has not run.
    """

    def __init__(
        self, name: str, title: str, args: argparse.Namespace, *, about: str,
        published: list[dict] = (), not_run: list[str] = (),
    ):  # fmt: skip
        start_processes(args.device)
        if args.threads:
            torch.set_num_threads(args.threads)
        self.args, self.quick = args, args.quick
        rank, world = ranks()
        cuda = args.device == "cuda"
        self.device = torch.device(
            f"cuda:{rank}" if cuda and world > 1 else args.device
        )
        self.file = (args.out or (CACHE if args.quick else RESULTS)) / f"{name}.json"
        key = f"{name}{'-quick' if args.quick else ''}-{args.seed}"
        self.cache = (args.cache or CACHE) / key
        if args.fresh and rank == 0:
            shutil.rmtree(self.cache, ignore_errors=True)
        wait_for_all()
        self.deadline = time.monotonic() + 60 * args.minutes
        self.record = {
            "name": name, "title": title, "about": about,
            "published": list(published), "not_run": list(not_run),
            "seeds": self.seeds(), "quick": args.quick,
            **provenance(name, args, self.device), "cases": {},
        }  # fmt: skip
        kept = self.cache / "record.json"
        if kept.exists():
            self.record["cases"] = json.loads(kept.read_text())
        wait_for_all()  # nobody writes before all have read

    def seeds(self, count: int = 1) -> list[int]:
        """The seeds of cases that repeat; `count` unless the command line says."""
        count = 1 if self.quick else self.args.seeds or count
        return list(range(self.args.seed, self.args.seed + count))

    def case(
        self, label: str, work: Callable[["Case"], dict], *, seed: int = 0, **settings
    ) -> dict:
        """Run `work` unless it is done; its dict of results goes into the record.

        Args:
            label: what is compared, the same for all seeds.
            work: Case -> {"name": number}, the results.
            seed: settings: for the record, and for `work` through the case.
        Returns the case's entry in the record.
        """
        name = f"{label} / seed {seed}"
        if name in self.record["cases"] or self.args.only not in name:
            return self.record["cases"].get(name, {})
        late = time.monotonic() > self.deadline
        if _first_says(late):
            self.record["not_run"].append(f"{name}: out of time")
            return {}
        case = Case(self, name, seed, settings)
        say(f"{name}")
        wall, cpu = time.monotonic(), time.process_time()
        results = work(case)
        entry = {
            "label": label, "seed": seed, "settings": settings, "results": results,
            "commit": self.record["commit"],
            # a resumed training counts what it had used before
            "seconds": _most(case, "training_seconds", time.monotonic() - wall),
            "cpu_seconds": _most(
                case, "training_cpu_seconds", time.process_time() - cpu
            ),
            **case.seen,
        }  # fmt: skip
        self.record["cases"][name] = entry
        say(f"  {results}  {entry['cpu_seconds']} s of CPU\n")
        self.write()
        case.checkpoint.unlink(missing_ok=True)
        return entry

    def write(self) -> None:
        """The record so far, and what is needed to go on."""
        if ranks()[0] > 0:
            return
        cases = self.record["cases"].values()
        self.record["seeds"] = sorted({case["seed"] for case in cases})
        for total in ("seconds", "cpu_seconds"):
            self.record[total] = round(sum(case[total] for case in cases), 1)
        self.record["peak_memory_mb"] = peak_memory(self.device)
        write_json(self.cache / "record.json", self.record["cases"])
        write_json(self.file, self.record)

    def finish(self) -> dict:
        """Write a last time; returns the record."""
        self.write()
        say(f"{self.record['name']}: {len(self.record['cases'])} cases\n")
        if ranks()[1] > 1:
            dist.destroy_process_group()
        return self.record


class Case:
    """One case at work: its seed, its settings, and a place for its checkpoint."""

    def __init__(self, experiment: Experiment, name: str, seed: int, settings: dict):
        self.experiment, self.name = experiment, name
        self.seed, self.settings = seed, settings
        self.device, self.quick = experiment.device, experiment.quick
        plain = "".join(c if c.isalnum() else "-" for c in name)
        self.checkpoint = experiment.cache / f"{plain}.pt"
        self.seen = {}

    def train(self, model: nn.Module, loss, batch, **options) -> Trained:
        """`loop.train` with checkpoint, limits, bar; the record keeps what it saw."""
        options.setdefault("seed", self.seed)
        options.setdefault("cpu_budget", self.experiment.args.cpu_budget)
        run = train(
            model.to(self.device), loss, batch, checkpoint=self.checkpoint,
            deadline=self.experiment.deadline, progress=bar, **options,
        )  # fmt: skip
        self.seen = {
            "parameters": count_weights(model),
            "steps": len(run.losses),
            "steps_planned": options["steps"],
            "stopped": run.stopped,
            "training_seconds": round(run.seconds, 2),
            "training_cpu_seconds": round(run.cpu_seconds, 2),
            "curve": curve(run.losses),
        }
        return run

    def note(self, **seen) -> None:
        """Put more beside the results: `parameters`, curves, what was selected."""
        self.seen |= seen


def _most(case: "Case", key: str, seconds: float) -> float:
    return round(max(seconds, case.seen.get(key, 0.0)), 2)


def curve(losses: list[float], points: int = 60) -> list[list[float]]:
    """[last step of a stretch, its mean loss] for at most so many stretches."""
    stretch = max(1, -(-len(losses) // points))
    parts = [losses[i : i + stretch] for i in range(0, len(losses), stretch)]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    return [
        [end, float(f"{sum(part) / len(part):.4g}")]
        for end, part in zip(ends, parts, strict=True)
    ]


def provenance(name: str, args: argparse.Namespace, device: torch.device) -> dict:
    """What ran, of which commit, on what, with which versions, and when."""
    given = vars(args) | {"data": "DIR" if args.data else None, "out": None}
    given |= {"cache": None, "fresh": False, "threads": None}
    defaults = arguments(name, "").parse_args([])
    words = [f"python -m experiments.{name}"]
    for key, value in given.items():
        if value not in (None, False) and value != getattr(defaults, key, None):
            value = "DIR" if isinstance(value, Path) else value
            value = " ".join(value) if isinstance(value, list) else value
            option = f"--{key.replace('_', '-')}"
            words.append(option if value is True else f"{option} {value}")
    return {
        "command": " ".join(words),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "processes": ranks()[1],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def commit() -> str:
    """The commit of the code, with "+" if files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True)
        # results of earlier runs are no part of the code
        code = [":!book", ":!notebooks", ":!.cache"]
        changes = [*git, "status", "--porcelain", "--", ".", *code]
        dirty = subprocess.run(changes, capture_output=True).stdout.strip()
    except OSError:
        return "unknown"
    return (head.stdout.decode().strip()[:12] or "unknown") + ("+" if dirty else "")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.split(":")[1].strip() for line in lines if "model name" in line}
    return (
        f"CPU, {names.pop() if names else platform.machine()}, {os.cpu_count()} cores"
    )


def peak_memory(device: torch.device) -> int:
    """In MB: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    # Linux counts in kilobytes, macOS in bytes
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def start_processes(device: str) -> None:
    """Join the process group when torchrun started several processes."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def write_json(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    text = json.dumps(content, indent=1)
    # points of a curve on one line each
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", _one_line, text)
    new.write_text(text + "\n", encoding="utf-8")
    os.replace(new, file)


def _one_line(found: re.Match) -> str:
    flat = re.sub(r",\s+", ", ", found[1])
    return f"[{flat}]" if len(flat) < 80 else found[0]


def say(text: str) -> None:
    if ranks()[0] == 0:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def bar(step: int, steps: int, loss: float, width: int = 30) -> None:
    """A progress bar on stderr, drawn anew two hundred times a run."""
    if step % max(1, steps // 200) == 0 or step == steps:
        done = width * step // steps
        say(f"[{'#' * done:<{width}}] {step}/{steps} loss {loss:.4f}")


def _first_says(answer: bool) -> bool:
    """The first process's answer, in every process."""
    if ranks()[1] == 1:
        return answer
    box = [answer]
    dist.broadcast_object_list(box, src=0)
    return box[0]
