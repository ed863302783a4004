"""Benchmarks compare like with like, and the page says what their files say."""

import importlib
import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import timing
from tools import performance

MODULES = [importlib.import_module(f"benchmarks.{name}") for name in command.MODULES]


@pytest.mark.parametrize("module", MODULES, ids=command.MODULES)
def test_all_ways_give_one_answer_and_a_row(module):
    for case in module.cases("cpu", quick=True):
        row = timing.measure(case, "cpu", rounds=2, least=0.0)
        assert row["peers"] and row["seconds"] > 0
        assert json.loads(json.dumps(row))["flop_per_byte"] == pytest.approx(
            case.flops / case.bytes
        )


def one_case(ours, theirs, **changes):
    case = timing.Case("sum", "3", "float32", ours, {"another": theirs}, 3, 12)
    return case._replace(**changes)


def test_a_fast_wrong_answer_is_no_peer():
    right = torch.arange(3.0)
    for wrong in (right + 0.1, right.nan_to_num() * torch.nan, torch.arange(4.0)):
        with pytest.raises(SystemExit, match=r"sum 3, another: (differs|shape)"):
            timing.measure(one_case(lambda: right, lambda w=wrong: w), "cpu")


def test_a_ratio_is_theirs_over_ours():
    def wait(n):
        return lambda: torch.ones(n).cumsum(0)[:1]

    row = timing.measure(one_case(wait(1000), wait(2000)), "cpu", rounds=5)
    peer = row["peers"]["another"]
    assert peer["low"] <= peer["high"]
    assert peer["ratio"] == pytest.approx(peer["seconds"] / row["seconds"])


def test_the_page_is_made_from_the_stored_runs():
    assert performance.page() == performance.PAGE.read_text(encoding="utf-8")


def test_stored_runs_are_whole_and_of_real_sizes():
    for name, run in performance.runs().items():
        device = "cpu" if run["threads"] else "cuda"
        wanted = {
            (case.operation, case.size, case.dtype)
            for module in MODULES
            if device == "cpu" or torch.cuda.is_available()
            for case in module.cases(device)
        }
        got = {(row["operation"], row["size"], row["dtype"]) for row in run["rows"]}
        assert got >= wanted, f"{name}.json: measure again, {wanted - got}"
        assert {"date", "commit", "device", "torch"} <= run.keys()


def test_goals_are_met_by_the_stored_run_or_named_on_the_page():
    text = performance.PAGE.read_text(encoding="utf-8")
    for run in performance.runs().values():
        for row in run["rows"]:
            assert row["goal"] in text
