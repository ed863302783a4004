"""Write book/reproductions.md from book/_data/experiments/*.json.

Every number of ours on that page is a value of a JSON file, or the mean, the smallest
or the largest of such values over seeds; `tests/test_reproductions.py` checks it.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "_data" / "experiments"
PAGE = ROOT / "book" / "reproductions.md"
CURVE = ROOT / "book" / "_static" / "omega_sweep.svg"
ORDER = (
    "released_ckcnn", "memory", "smnist", "digits", "vitals", "starts", "ckn_fashion",
    "ckn_cifar", "ckn_gradient", "kronecker_fashion",
)  # fmt: skip
# results that are fractions of right answers, shown in percent
PERCENT = re.compile(r"^(test.*|validation|accuracy|\d+ Hz.*|training images.*)$")
# what no script here has run at all
NOT_RUN = (
    "the published 200 passes of CKCNN over sequential and permuted MNIST (6 here)",
    "CKCNN trained on sequential CIFAR-10, Speech Commands, CharacterTrajectories and "
    "PhysioNet as in the paper",
    "copy memory and adding problem at T = 3000 and 6000",
    "the supervised CKN of five layers (published: 86.1 %)",
    "several seeds at the largest sizes, wherever a table says one",
    "anything on a GPU",
)
HEAD = """# Reproductions

The papers' tables next to ours. Each section below is one script in `experiments/`,
which anybody can run; it wrote one JSON file under `book/_data/experiments/`, and this
page is made from those files. Nothing here was measured on a GPU. These are runs on a
machine with two cores that it shared with other work, most of them cut short, and each
section says where: a case that "ended" by *cpu budget* or *time* was still learning. A
comparison holds for the budget that it had.

Nothing was selected on a test set. Where a number is a mean over seeds, the smallest
and the largest stand in brackets.
"""


def records(folder: Path | None = None) -> list[dict]:
    """All runs, in the order of the page."""
    found = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted((folder or FOLDER).glob("*.json"))
    }
    names = [name for name in ORDER if name in found]
    return [found[name] for name in [*names, *sorted(set(found) - set(names))]]


def labels(record: dict) -> dict[str, list[dict]]:
    """Label -> its cases, one a seed."""
    grouped = {}
    for case in record["cases"].values():
        grouped.setdefault(case["label"], []).append(case)
    return grouped


def number(value: float, percent: bool) -> str:
    """Four digits, or percent with two decimals."""
    if percent:
        return f"{100 * value:.2f}"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}"


def cell(key: str, values: list) -> str:
    """One result over seeds: a word, `2 of 3`, or mean (smallest to largest)."""
    if all(isinstance(v, bool) for v in values):
        return f"{sum(values)} of {len(values)}"
    known = [v for v in values if v is not None and (v or key != "omega_0")]
    if not known:
        return "never" if key.startswith("steps") else ""
    if isinstance(known[0], str):
        return ", ".join(sorted(set(known)))
    percent = bool(PERCENT.match(key))
    mean = number(sum(known) / len(known), percent) + " %" * percent
    if len(known) == 1 or min(known) == max(known):
        return mean
    return f"{mean} ({number(min(known), percent)} to {number(max(known), percent)})"


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def row(values) -> str:
    return "| " + " | ".join(values) + " |"


def table(groups: dict[str, list[dict]], choice: bool) -> list[str]:
    """Labels whose cases have the same results, one row each."""
    first = next(iter(groups.values()))[0]
    keys = list(first["results"])
    # a column that no case fills says nothing
    more = {
        "numbers learned": any("parameters" in c for g in groups.values() for c in g),
        "steps run": any("steps" in c for g in groups.values() for c in g),
        "ended": any("stopped" in c for g in groups.values() for c in g),
    }
    heads = [
        "run",
        *(_head(key, choice) for key in keys),
        *(k for k, v in more.items() if v),
    ]
    heads += ["seeds", "CPU seconds"]
    lines = [row(heads), row(["---"] * len(heads))]
    for label, cases in groups.items():
        values = [
            cell(key, [case["results"].get(key) for case in cases]) for key in keys
        ]
        extra = {
            "numbers learned": cell("", [c.get("parameters") for c in cases]),
            "steps run": cell("", [c.get("steps") for c in cases]),
            "ended": ", ".join(sorted({c["stopped"] for c in cases if "stopped" in c})),
        }
        values += [extra[key] for key, shown in more.items() if shown]
        seconds = [case["cpu_seconds"] for case in cases]
        values += [str(len(cases)), f"{sum(seconds) / len(seconds):.0f}"]
        lines.append(row([escape(label), *values]))
    return lines


def _head(key: str, choice: bool) -> str:
    """The name of a result, which says what the images were for."""
    if key in ("test", "validation"):
        return "held-out accuracy" if choice or key != "test" else "test accuracy"
    return escape(key)


def tables(record: dict) -> list[str]:
    """One table for each set of results; what was chosen comes last."""
    kinds = {}
    for label, cases in labels(record).items():
        cases = [c | {"results": _named(label, c["results"])} for c in cases]
        keys = tuple(cases[0]["results"])
        kinds.setdefault(("choice" in label, keys), {})[label] = cases
    lines = []
    for (choice, _), groups in sorted(kinds.items(), key=lambda kind: kind[0][0]):
        if choice and not any(line == CHOSEN for line in lines):
            lines += [CHOSEN, ""]
        lines += [*table(groups, choice), ""]
    return lines


def _named(label: str, results: dict) -> dict:
    """The two tests of memory have a score each, of different kinds."""
    test = label.partition(",")[0]
    score = {"copy": "symbols recalled", "adding": "mean squared error"}.get(test)
    return {score if score and k == "score" else k: v for k, v in results.items()}


CHOSEN = "What was chosen, on samples that no test saw:"


def ran(record: dict) -> str:
    """One paragraph: command, machine, versions, time."""
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    commits = {c.get("commit", record["commit"]) for c in record["cases"].values()}
    minutes, cpu = record["seconds"] / 60, record["cpu_seconds"] / 60
    return (
        f"`{record['command']}` on {record['device']}, {record['threads']} thread(s), "
        f"{record['date']}; {versions}; commit {', '.join(sorted(commits))}. "
        f"{minutes:.0f} minutes on the clock, {cpu:.0f} of the processor; "
        f"{record['peak_memory_mb']:,} MB at most. "
        f"[All numbers](_data/experiments/{record['name']}.json)."
    )


def sweep(record: dict) -> dict[str, dict[float, list[float]]]:
    """Start of the kernel network -> omega_0, rising -> accuracies, one a seed."""
    found = {}
    for case in record["cases"].values():
        if named := re.match(r"sweep, .*, (\S+) start: omega_0", case["label"]):
            seeds = found.setdefault(named[1], {})
            seeds.setdefault(case["settings"]["omega_0"], []).append(
                case["results"]["validation"]
            )
    return {start: dict(sorted(points.items())) for start, points in found.items()}


def draw_sweep(record: dict, path: Path) -> None:
    """Mean accuracy against omega_0, a curve a start, bars from seed to seed."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "ckutils"
    import matplotlib.pyplot as plt
    import numpy as np

    from ckutils.plotting import COLOURS, use_style

    use_style()
    figure, ax = plt.subplots(figsize=(7.2, 2.8))
    looks = (("siren", "-o", "blue"), ("as-published", "--s", "vermilion"))
    for start, style, colour in looks:
        seen = {at: np.array(values) for at, values in sweep(record)[start].items()}
        mean = [values.mean() for values in seen.values()]
        bars = [(v.mean() - v.min(), v.max() - v.mean()) for v in seen.values()]
        ax.errorbar(
            list(seen), mean, np.transpose(bars), fmt=style, capsize=3,
            color=COLOURS[colour], label=f"{start} start",
        )  # fmt: skip
    ax.axhline(0.1, color="0.4", linestyle=":", label="guessing")
    names = [f"{at:g}" for at in seen]
    ax.set(xscale="log", xticks=list(seen), xticklabels=names, ylim=(0, 1))
    ax.set(xlabel="omega_0", ylabel="accuracy on kept images")
    ax.minorticks_off()
    ax.legend(loc="lower center")
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def curve_of(record: dict) -> list[str]:
    """The figure of the sweep, with a sentence that says its ends and its top."""
    told = []
    for start, seeds in sweep(record).items():
        mean = {at: 100 * sum(values) / len(values) for at, values in seeds.items()}
        best, (first, *_, last) = max(mean, key=mean.get), mean
        told.append(
            f"{start} start {mean[first]:.1f} % at {first:g}, best {mean[best]:.1f} % "
            f"at {best:g}, {mean[last]:.1f} % at {last:g}"
        )
    told = "; ".join(told)
    return [
        f"**What does omega_0 do to the accuracy, and does the start matter?** {told} "
        f"(means of {len(seeds[best])} seeds; bars from the least to the largest).",
        "", f"```{{image}} _static/{CURVE.name}",
        ":alt: Accuracy against omega_0 on a logarithmic axis, one curve a start. "
        f"Both rise from omega_0 = 1 and stay together to 10; {told}.",
        ":width: 720px", "```", "",
    ]  # fmt: skip


def section(record: dict) -> list[str]:
    lines = [f"## {record['title']}", "", record["about"], ""]
    if record["published"]:
        lines += [row(["published", "value", "source"]), row(["---"] * 3)]
        lines += [
            row([escape(p["what"]), escape(p["value"]), escape(p["source"])])
            for p in record["published"]
        ]
        lines += [""]
    lines += curve_of(record) if sweep(record) else []
    lines += tables(record)
    lines += [f"Ran: {ran(record)}", ""]
    if record["not_run"]:
        # what lacked the time is named once, not once a seed
        named = dict.fromkeys(
            re.sub(r" / seed \d+: out of time$", " (out of time)", item)
            for item in record["not_run"]
        )
        lines += [f"Not run: {escape('; '.join(named))}.", ""]
    return lines


def page(folder: Path | None = None) -> str:
    lines = [HEAD]
    for record in records(folder):
        lines += section(record)
    lines += ["## What was not run", ""]
    lines += [f"- {escape(item)}" for item in NOT_RUN]
    return "\n".join(lines) + "\n"


def main() -> None:
    for record in records():
        if sweep(record):
            draw_sweep(record, CURVE)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
