"""The page of reproductions says what the JSON files say, and nothing else."""

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from tools import reproductions

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "_data" / "experiments"
RUNS = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def test_the_page_is_what_the_tool_writes():
    assert reproductions.PAGE.read_text(encoding="utf-8") == reproductions.page()


def test_there_is_something_on_it():
    assert len(RUNS) >= 3
    text = reproductions.PAGE.read_text(encoding="utf-8")
    for run in RUNS:
        assert f"## {run['title']}\n" in text


def sections() -> dict[str, list[list[str]]]:
    """Title -> the rows of its tables of ours, each a list of cells, heads left out."""
    text = reproductions.PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^## (.*)$", text, flags=re.M)[1:]
    found = {}
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        found[title] = []
        for block in re.findall(r"(?:^\|.*\n)+", body, re.M):
            head, _, *rows = [
                [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                for line in block.splitlines()
            ]
            if head[0] != "published":
                found[title] += rows
    return found


def stated(cases: list[dict]) -> list[float]:
    """All numbers that these cases let a page state: values, means, counts."""
    lists = [[case.get("parameters") for case in cases]]
    lists += [[case.get("steps") for case in cases]]
    lists += [[case["cpu_seconds"] for case in cases]]
    for key in cases[0]["results"]:
        lists.append([case["results"].get(key) for case in cases])
    found = [float(len(cases))]
    for values in lists:
        known = [v for v in values if isinstance(v, int | float)]
        if known:
            found += [fmean(known), min(known), max(known), float(sum(known))]
    return [v for value in found for v in (float(value), 100 * float(value))]


def shows(text: str, value: float) -> bool:
    """Is `text` this value, rounded to the digits that it has?"""
    plain = text.replace(",", "")
    if "e" in plain:
        return abs(float(plain) - value) <= 1e-3 * abs(value)
    digits = len(plain.partition(".")[2])
    return abs(float(plain) - value) <= 0.5000001 * 10**-digits


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["name"])
def test_every_number_of_ours_is_in_the_json(run):
    rows = sections()[run["title"]]
    labels = {
        reproductions.escape(c["label"]): c["label"] for c in run["cases"].values()
    }
    seen = set()
    for label, *cells in rows:
        if label not in labels:
            assert any(
                label == reproductions.escape(p["what"]) for p in run["published"]
            )
            continue
        seen.add(labels[label])
        cases = [c for c in run["cases"].values() if c["label"] == labels[label]]
        allowed = stated(cases)
        for cell in cells:
            for text in NUMBER.findall(cell):
                assert any(shows(text, value) for value in allowed), (label, cell, text)
    assert seen == set(labels.values()), "a case of the JSON is missing on the page"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["name"])
def test_a_run_says_where_it_comes_from(run):
    assert not run["quick"], "a quick run is no result"
    assert re.fullmatch(r"[0-9a-f]{12}", run["commit"]), (
        "files differed from the commit"
    )
    assert run["command"].startswith("python -m experiments.")
    assert "/" not in run["command"], "a path of somebody's machine"
    assert {"python", "torch", "numpy"} <= set(run["versions"])
    assert run["device"] and run["date"] and run["peak_memory_mb"] > 0
    assert run["seeds"] == sorted({case["seed"] for case in run["cases"].values()})
    total = sum(case["cpu_seconds"] for case in run["cases"].values())
    assert run["cpu_seconds"] == pytest.approx(total, abs=0.1)
    for case in run["cases"].values():
        assert case["results"] and case["cpu_seconds"] <= case["seconds"] * 4 + 1
        if "curve" in case:
            assert case["curve"][-1][0] == case["steps"] <= case["steps_planned"]


def example(**results) -> dict:
    case = {"label": "a | b", "seed": 0, "results": results, "cpu_seconds": 3.4}
    return {
        "name": "x", "title": "X", "about": "About.", "published": [], "not_run": [],
        "command": "c", "device": "d", "threads": 1, "date": "2026", "versions": {},
        "commit": "f", "seconds": 61.0, "cpu_seconds": 30.0, "peak_memory_mb": 1,
        "cases": {"a / seed 0": case},
    }  # fmt: skip


def test_cells_by_hand():
    cell = reproductions.cell
    assert cell("test", [0.5, 0.25]) == "37.50 % (25.00 to 50.00)"
    assert cell("test", [0.5]) == "50.00 %"
    assert cell("solved", [True, False, True]) == "2 of 3"
    assert cell("steps to solve", [None, None]) == "never"
    assert cell("steps to solve", [100, None, 200]) == "150 (100 to 200)"
    assert cell("score", [0.0123456]) == "0.01235"
    assert cell("classifier", ["ridge", "ridge"]) == "ridge"
    assert cell("omega_0", [0.0]) == "" and cell("omega_0", [45.0]) == "45"
    assert cell("numbers", [98_286]) == "98,286"


def test_a_section_by_hand(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(example(test=0.5)))
    text = reproductions.page(tmp_path)
    assert "| run | test accuracy | seeds | CPU seconds |\n" in text
    assert "| a \\| b | 50.00 % | 1 | 3 |\n" in text
    assert "1 minutes on the clock" in text
    chosen = example(test=0.5)
    chosen["cases"]["a / seed 0"]["label"] = "choice of y"
    (tmp_path / "x.json").write_text(json.dumps(chosen))
    assert "| run | held-out accuracy | seeds |" in reproductions.page(tmp_path)


def test_the_two_tests_of_memory_have_a_column_each(tmp_path):
    record = example(score=0.004, solved=True)
    record["cases"]["a / seed 0"]["label"] = "adding, T = 5: a"
    other = {"label": "copy, T = 5: a", "results": {"score": 0.9, "solved": False}}
    record["cases"]["b / seed 0"] = record["cases"]["a / seed 0"] | other
    (tmp_path / "x.json").write_text(json.dumps(record))
    text = reproductions.page(tmp_path)
    assert "| run | mean squared error | solved | seeds |" in text
    assert "| run | symbols recalled | solved | seeds |" in text


# What the chapters quote -------------------------------------------------------------

COPY, ADD = "copy, T = {}: {}", "adding, T = {}: {}"


def only(values: list[float]) -> float:
    """The value of the one seed."""
    (value,) = values
    return value


def ends(experiment: str, label: str, key: str) -> list[tuple]:
    """A range over seeds: the smallest and the largest."""
    return [(experiment, label, key, min), (experiment, label, key, max)]


def swept(omega_0: int) -> list[tuple]:
    """The mean over seeds of the sweep at this omega_0, for both starts."""
    task = "sweep, permuted 14 x 14"
    return [
        ("smnist", f"{task}, {start} start: omega_0 = {omega_0}", "validation", fmean)
        for start in ("siren", "as-published")
    ]


def digits(rival: str, *keys: str) -> list[tuple]:
    return [("digits", f"train at 2000 Hz: {rival}", key, only) for key in keys]


QUOTES = {  # a sentence with places, and the results that stand in them
    "02": {
        r"896 numbers give (\S+) to (\S+) % as they are": ends(
            "kronecker_fashion", "Kronecker, 896 numbers", "test"
        ),
        r"and (\S+) to (\S+) % shuffled": ends(
            "kronecker_fashion", "Kronecker, shuffled pixels, 896 numbers", "test"
        ),
    },
    "03": {
        r"Copying, the CKCNN needs (\d+), (\d+) and (\d+) steps": [
            ("memory", COPY.format(t, "CKCNN"), "steps to solve", only)
            for t in (100, 200, 1000)
        ],
        r"A TCN needs (\d+) and (\d+) at the two": [
            ("memory", COPY.format(t, "TCN"), "steps to solve", only)
            for t in (100, 200)
        ],
        r"unit \(chapter 4\) (\d+) and (\d+), and": [
            ("memory", COPY.format(t, "LRU"), "steps to solve", only)
            for t in (100, 200)
        ],
        r"the GRU needs (\d+), (\d+) and (\d+) steps, a": [
            ("memory", ADD.format(t, "GRU"), "steps to solve", only)
            for t in (100, 200, 1000)
        ],
        r"a TCN (\d+) and (\d+); a CKCNN": [
            ("memory", ADD.format(t, "TCN"), "steps to solve", only) for t in (100, 200)
        ],
        r"one of 20 channels needs (\S+) and (\S+), and": [
            ("memory", ADD.format(t, "CKCNN, 20 channels"), "steps to solve", only)
            for t in (100, 200)
        ],
        r"the SIREN start gives (\S+) % and the released one (\S+) %": swept(10),
        r"at 30 they give (\S+) and (\S+) %": swept(30),
        r"at 100 they give (\S+) and (\S+) %": swept(100),
        r"give (\S+) % on sequential MNIST, (\S+) % on permuted MNIST and (\S+) % on": [
            ("released_ckcnn", f"{task}, 30 channels", "test", only)
            for task in ("sequential MNIST", "permuted MNIST", "sequential CIFAR-10")
        ],
        r"of 100 channels (\S+), (\S+) and (\S+) %: the paper's": [
            ("released_ckcnn", f"{task}, 100 channels", "test", only)
            for task in ("sequential MNIST", "permuted MNIST", "sequential CIFAR-10")
        ],
        r"is right on (\S+) % of the sequential test images and on (\S+) %": [
            ("smnist", f"{task} MNIST, 784 steps", "test", only)
            for task in ("sequential", "permuted")
        ],
        r"The CKCNN is right on (\S+) % of the test clips at 2 kHz and on (\S+) % at "
        r"8 kHz with the factor, (\S+) % without": digits(
            "CKCNN", "2000 Hz", "8000 Hz", "8000 Hz, no 1/r"
        ),
        r"A TCN reaches (\S+) % at home and (\S+) %": digits(
            "TCN", "2000 Hz", "8000 Hz"
        ),
        r"a GRU (\S+) and (\S+) %,": digits("GRU", "2000 Hz", "8000 Hz"),
        r"unit (\S+) and (\S+) %, where guessing": digits("LRU", "2000 Hz", "8000 Hz"),
    },
    "05": {
        r"without labels, (\S+) to (\S+) % on": ends(
            "ckn_fashion", "CKN 16-32 without labels, 60000 images", "test"
        ),
        r"with labels, (\S+) to (\S+) %\.": ends(
            "ckn_fashion", "CNN 16-32, 60000 images", "test"
        ),
        r"they are level: (\S+) to (\S+) % against": ends(
            "ckn_fashion", "CKN 16-32 without labels, 1000 images", "test"
        ),
        r"against (\S+) to (\S+) %": ends(
            "ckn_fashion", "CNN 16-32, 1000 images", "test"
        ),
        r"64 and 256 give (\S+) %": [
            ("ckn_fashion", "CKN 64-256 without labels, 60000 images", "test", only)
        ],
        r"that network reaches (\S+) to (\S+) %": ends(
            "ckn_cifar", "unsupervised, 64-256", "test"
        ),
    },
}


def results(experiment: str, label: str, key: str) -> list[float]:
    record = json.loads((FOLDER / f"{experiment}.json").read_text())
    cases = [c for c in record["cases"].values() if c["label"] == label]
    return sorted(case["results"][key] for case in cases)


@pytest.mark.parametrize("chapter", QUOTES)
def test_a_chapter_quotes_what_was_measured(chapter):
    (path,) = (ROOT / "notebooks").glob(f"{chapter}_*.py")
    text = path.read_text(encoding="utf-8")
    for sentence, sources in QUOTES[chapter].items():
        (found,) = re.findall(sentence, text)
        numbers = [found] if isinstance(found, str) else found
        for number, (*source, pick) in zip(numbers, sources, strict=True):
            value, plain = pick(results(*source)), number.replace(",", "")
            scale = 1 if value > 1 else 100
            places = len(plain.partition(".")[2])
            assert plain == f"{scale * value:.{places}f}", (sentence, value)


def test_nobody_else_is_done_with_memory():
    """What chapter 3 says of those that it gives no number."""
    cases = json.loads((FOLDER / "memory.json").read_text())["cases"].values()
    late = {
        case["label"]: case["results"]["solved"]
        for case in cases
        if "T = 1000" in case["label"] and "choice" not in case["label"]
    }
    solved = {label for label, done in late.items() if done}
    assert len(late) == 9
    assert solved == {COPY.format(1000, "CKCNN"), ADD.format(1000, "GRU")}
    assert not any(
        case["results"]["solved"]
        for case in cases
        if re.fullmatch(r"copy, .*: GRU|adding, .*: CKCNN", case["label"])
    )
