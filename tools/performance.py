"""Write book/performance.md and its figure from book/_data/benchmarks/*.json.

`make bench` writes those files: cpu.json on two cores, one named after the card on a
GPU. Seconds of a CPU are not printed: what carries over to another machine is the ratio
of two things timed in one run, and the share of what that machine could do at most.
"""

import functools
import itertools
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "_data" / "benchmarks"
KERNELS = ROOT / "book" / "_data" / "kernels.json"
PAGE = ROOT / "book" / "performance.md"
TEMPLATE = ROOT / "tools" / "performance.md"
FIGURE = ROOT / "book" / "_static" / "roofline.svg"


def runs() -> dict[str, dict]:
    """The stored runs by file name."""
    files = sorted(FOLDER.glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def share(rate: float, ceiling: float) -> str:
    return f"{100 * rate / ceiling:.2g} %"


def roof(run: dict, flop_per_byte: float, dtype: str = "float32") -> float:
    """GFLOP/s that an operation of this intensity could reach in this type."""
    double = dtype in ("float64", "complex128")
    product = run["product_gflop_per_s"]["float64" if double else "float32"]
    return min(product, flop_per_byte * run["copy_gb_per_s"])


def table(run: dict) -> list[str]:
    """One table an operation, one line a size, all other ways in its last column."""
    lines, names = [], dict.fromkeys(row["operation"] for row in run["rows"])
    for name in names:
        lines += [
            f"### {name}",
            "",
            "| size | flop a byte | of the roof | times our time (middle half) |",
            "|---|--:|--:|---|",
        ]
        rows = [row for row in run["rows"] if row["operation"] == name]
        lines += [*map(functools.partial(line, run), rows), ""]
        goals = [f"{r['size']} {r['dtype']}: {reached(r)}" for r in rows if r["goal"]]
        lines += [f"Goals: {'; '.join(goals)}.", ""] if goals else []
    return lines


def reached(row: dict) -> str:
    """A goal such as "at least 5 times SciPy", and whether this row has reached it."""
    words = re.fullmatch(r"at least ([\d.]+) times (.*)", row["goal"])
    if words is None:
        return f"{row['goal']} (not decided here)"
    least, whom = float(words[1]), words[2].removeprefix("the ").lower()
    (ratio,) = {p["ratio"] for name, p in row["peers"].items() if whom in name.lower()}
    return f"{row['goal']}, {'reached' if ratio >= least else '**missed**'}"


def line(run: dict, row: dict) -> str:
    others = "; ".join(
        f"{name} **{peer['ratio']:.2g}** ({peer['low']:.2g} to {peer['high']:.2g})"
        for name, peer in row["peers"].items()
    )
    reach = share(row["gflop_per_s"], roof(run, row["flop_per_byte"], row["dtype"]))
    size = f"{row['size']}, {row['dtype']}"
    return f"| {size} | {row['flop_per_byte']:.3g} | {reach} | {others} |"


def section(name: str, run: dict) -> list[str]:
    where = "On a CPU" if run["threads"] else f"On a GPU: {run['device']}"
    versions = [
        f"{key} {run[key]}"
        for key in ("python", "torch", "cuda", "cupy")
        if run.get(key)
    ]
    threads = f", {run['threads']} threads" if run["threads"] else ""
    return [
        f"## {where}",
        "",
        f"{run['device']}{threads}; {', '.join(versions)}; {run['date']}, commit "
        f"{run['commit']} (`book/_data/benchmarks/{name}.json`). On this machine, in "
        "this run, a product of matrices in float32 made "
        f"{machine_balance(run):.3g} operations in the time in which a copy moved a "
        "byte. A ratio above 1 says how many times longer the other way took.",
        "",
        *table(run),
    ]


def machine_balance(run: dict) -> float:
    return run["product_gflop_per_s"]["float32"] / run["copy_gb_per_s"]


def kernels() -> list[str]:
    """Registers and shared memory of each kernel, as the compiler reports them."""
    stored = json.loads(KERNELS.read_text())
    place = {name: i for i, name in enumerate(stored["columns"])}
    columns = [name for name in stored["rows"][0] if name.startswith("sm_")]
    lines = [
        "### What the kernels ask of a card",
        "",
        f"Registers a thread, as {stored['compiler']} reports them, and bytes of "
        "static shared memory a block. None spills to memory; a test compiles all "
        "of them anew and compares.",
        "",
        f"| kernel | constants | {' | '.join(columns)} | shared |",
        "|---|---|" + "--:|" * (len(columns) + 1),
    ]
    for row in stored["rows"]:
        needs = [row[name] for name in columns]
        registers = " | ".join(str(need[place["registers"]]) for need in needs)
        shared = max(need[place["shared"]] for need in needs)
        which = f"| `{row['kernel']}` | {row['constants']}"
        lines.append(f"{which} | {registers} | {shared} |")
    return [*lines, ""]


def page() -> str:
    """The template with its two marks replaced by what is stored."""
    measured = [line for name, run in runs().items() for line in section(name, run)]
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("<!-- runs -->\n\n", "\n".join(measured) + "\n")
    return text.replace("<!-- kernels -->\n\n", "\n".join(kernels()) + "\n")


def draw(run: dict, path: Path) -> None:
    """The roofs of the CPU run and its rows beneath them."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "ckutils"
    import matplotlib.pyplot as plt
    import numpy as np

    from ckutils.plotting import COLOURS, use_style

    use_style()
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    rows = run["rows"]
    x = np.geomspace(0.1, 2 * max(row["flop_per_byte"] for row in rows), 200)
    for dtype, style in (("float32", "-"), ("float64", "--")):
        top = [roof(run, v, dtype) for v in x]
        ax.plot(x, top, style, color="0.4", linewidth=2, label=f"roof, {dtype}")
    names = list(dict.fromkeys(row["operation"] for row in rows))
    looks = itertools.product("osD^", list(COLOURS.values())[:4])
    for name, (marker, colour) in zip(names, looks, strict=False):
        mine = [row for row in rows if row["operation"] == name]
        ax.plot(
            [row["flop_per_byte"] for row in mine],
            [row["gflop_per_s"] for row in mine],
            marker, color=colour, label=name, linestyle="none", markersize=8,
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", ylabel="achieved, GFLOP/s")
    ax.set_xlabel("operations per byte of inputs and outputs (flop/B)")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    fig.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(fig)


def main() -> None:
    stored = runs()
    if "cpu" in stored:
        draw(stored["cpu"], FIGURE)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
