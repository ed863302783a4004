"""Each check of an exercise: passed by the solution in the chapter, by nothing less.

The solutions are the folded cells of the chapters. A wrong answer is a solution with
one place changed, as a reader might have it, or a function written out here.
"""

import inspect
import itertools
import math
import re
from functools import cache
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import ckutils
from ckutils import checks, ckn, exercises
from ckutils.exercises import chapter1, chapter2, chapter5, engine
from ckutils.exercises.engine import Case, verify

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("0*.py"))
LENGTHS = ("5 minutes", "10 minutes", "20 minutes", "an hour", "an evening")
CHECKS = [getattr(exercises, name) for name in exercises.__all__]


# The exercises of the chapters -------------------------------------------------------


@cache
def written() -> dict[str, dict]:
    """Number -> its text, its time, its solution cells, its chapter's file."""
    found = {}
    for path in CHAPTERS:
        number, inside = None, False
        for cell in jupytext.read(path).cells:
            if cell.cell_type == "markdown":
                inside = inside or bool(
                    re.search("^## .*Exercises$", cell.source, re.M)
                )
                named = re.search(r"\*\*Exercise (\d\.\d)\*\* \((.*?)\)", cell.source)
                if named and inside:
                    number = named[1]
                    found[number] = {"text": cell.source, "time": named[2]}
                    found[number] |= {"cells": [], "file": path.name}
                elif inside:
                    number = None
            elif number:
                found[number]["cells"].append(cell)
    return found


def tools() -> dict:
    """The names that a chapter has imported, and all checks."""
    names = {"torch": torch, "np": np, "math": math, "F": F, "F64": torch.float64}
    return names | {name: getattr(exercises, name) for name in exercises.__all__}


@cache
def solved(chapter: str) -> dict:
    """The namespace after all solutions of a chapter."""
    names = tools()
    for number, exercise in written().items():
        if number[0] == chapter:
            for cell in exercise["cells"]:
                exec(cell.source, names)
    return names


def check_of(number: str):
    """The check that the solution's last cell calls, and the function it is given."""
    calls = re.findall(r"^(check_\w+)\((\w+)\)", source_of(number), re.M)
    assert len(calls) == 1, f"exercise {number} calls {calls}"
    return getattr(exercises, calls[0][0]), calls[0][1]


def source_of(number: str) -> str:
    return "\n".join(cell.source for cell in written()[number]["cells"])


NUMBERS = sorted(written())


def test_there_are_enough_from_five_minutes_to_an_evening():
    for chapter in "12345":
        times = [written()[n]["time"] for n in NUMBERS if n[0] == chapter]
        assert len(times) >= 5
        assert times[0] == LENGTHS[0] and times[-1] == LENGTHS[-1]
        assert sorted(times, key=LENGTHS.index) == times, "not in the order of time"


@pytest.mark.parametrize("number", NUMBERS)
def test_an_exercise_has_a_signature_and_a_folded_solution(number):
    exercise = written()[number]
    assert exercise["cells"], "no solution"
    assert all(cell.metadata["tags"] == ["hide-cell"] for cell in exercise["cells"])
    _, name = check_of(number)
    told = re.search(rf"```python\ndef {name}\((.*?)\):", exercise["text"])
    assert told, f"no signature of {name} in the text"
    given = inspect.signature(solved(number[0])[name]).parameters.values()
    assert told[1].split(", ") == [p.name for p in given if p.default is p.empty]


def test_every_check_belongs_to_one_exercise():
    used = [check_of(number)[0].__name__ for number in NUMBERS]
    assert sorted(used) == sorted(exercises.__all__)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_check_says_its_number_and_states_the_task(number, capsys):
    check, name = check_of(number)
    assert check(solved(number[0])[name]) is None
    printed = capsys.readouterr().out
    assert re.search(rf"^exercise {number}: all \d+ cases agree$", printed, re.M)
    told = inspect.getdoc(check)
    heading = f"Chapter {number[0]}, exercise {number}, {written()[number]['time']}"
    assert told.startswith("f(") and heading in told
    entry = f"autofunction:: ckutils.exercises.{check.__name__}\n"
    assert entry in (ROOT / "book" / "api.md").read_text(encoding="utf-8")


# A beginning, and wrong answers ------------------------------------------------------


def raises(*args):
    raise NotImplementedError("to be written")


BEGINNINGS = {
    "returns nothing": lambda *args: None,
    "raises": raises,
    "returns its first argument": lambda *args: args[0],
    "returns all arguments": lambda *args: args,
    "returns NaN": lambda *args: math.nan,
    "returns zeros": lambda *args: torch.zeros(3).double(),
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_beginning_fails_with_case_and_hint(check, beginning):
    pattern = r"^exercise \d\.\d, case \d of \d: f\(.*\)\n  .+\n  hint: .+\.$"
    with pytest.raises(AssertionError, match=pattern):
        check(BEGINNINGS[beginning])


# number, what stands in the solution, what a reader has instead, what the check says
WRONG = (
    ("1.1", "total - total // 2, total // 2", "total // 2, total - total // 2",
     "belongs in front"),
    ("1.1", "dilation * (kernel_size - 1) + 1", "kernel_size", "span five entries"),
    ("1.1", "max((outputs - 1) * stride + span - size, 0)",
     "(outputs - 1) * stride + span - size", "nothing is cut off"),
    ("1.1", "math.ceil(size / stride)", "size // stride", "Sizes round up"),
    ("1.2", "index_add", "index_copy", "Tap 2 reads the same entry as tap 0"),
    ("1.2", "torch.arange(len(w))", "torch.arange(len(w)).flip(0)", "unchanged"),
    ("1.3", " if n + a >= 1", "", "also returns sizes below 1"),
    ("1.3", "range(s)", "range(1)", "that the floor cuts off"),
    ("1.3", "reversed(layers)", "layers", "from the last layer to the first"),
    ("1.3", "- 2 * p", "- p", "differ by the entry"),
    ("1.4", " / phase.numel()", "", "The corners share one sum"),
    ("1.4", "phase += (1 - phase.sum()) / phase.numel()", "phase /= phase.sum()",
     "One a tap"),
    ("1.4", "even[a::stride, b::stride]", "even[a::stride]", "One a tap"),
    ("1.5", "value * w", "value * w.flip(0)", "Where two kernels meet"),
    ("1.5", "+= value", "= value", "Where two kernels meet, they add"),
    ("1.5", "return whole[padding : size - padding]",
     "return F.pad(whole[padding : size - padding - output_padding],"
     " (0, output_padding))", "computed, not zero"),
    ("1.5", "[padding : size - padding]", "[2 * padding :]", "on both sides"),
    ("1.6", "slice(d1 * i, d1 * i + s1", "slice(i, i + s1", "d apart, windows s"),
    ("1.6", "p1 : p1 + x.shape[2]", ": x.shape[2]", "fell on the padding"),
    ("1.6", "g.sum((0, 2, 3))", "g.sum((2, 3)).mean(0)", "the bias is added"),
    ("1.6", "] += back", "] = back", "part 0.*\n.*Eq. \\(1.26\\)"),
    ("1.6", "taps = w.unflatten(0, (groups, -1))",
     "taps = w.unflatten(0, (-1, groups)).transpose(0, 1)", "their own slice of g"),
    ("2.1", "k == 1 or ", "", "one tap has no gap"),
    ("2.1", "sorted(zip(dilations, kernel_sizes, strict=True))",
     "zip(dilations, kernel_sizes, strict=True)", "Sort by dilation"),
    ("2.1", "d <= width", "d < width", "is the size of the first: full"),
    ("2.1", "d * (k - 1)", "d * k", "taps are d apart"),
    ("2.2", "math.prod(kernel_sizes[:i])", "kernel_sizes[0] ** i", "Unequal sizes"),
    ("2.2", "kernel_sizes[:i]", "kernel_sizes[: i + 1]", "One layer is not dilated"),
    ("2.3", "tap * whole", "kernel[-1 - j] * whole", "its own composite"),
    ("2.3", "longer[d * j : d * j + len(whole)]", "longer[j : j + len(whole)]",
     "spread by its dilation"),
    ("2.3", "] += tap", "] = tap", "Two paths lead to offset 1"),
    ("2.4", "gradient.reshape(a, c, b, d)",
     "gradient.reshape(c, a, d, b).permute(1, 0, 3, 2)", "only every second entry"),
    ("2.4", "return to_left, to_right", "return to_right, to_left", "all of right"),
    ("2.5", "w.sum(-1) @ bias + b", "bias + b", "is a constant signal"),
    ("2.5", '"oc,cit->oit"', '"ci,oct->oit"', "Matrices do not commute"),
    ("2.5", "d * j : d * j + size", "j : j + size", "Three layers"),
    ("2.6", ".permute(order)", "", "distance to the matrix"),
    ("2.6", "torch.randn(k, generator=generator)", "torch.ones(k)", "Start elsewhere"),
    ("2.6", "sweeps=100", "sweeps=1", "go round until nothing changes|No product"),
    ("3.1", "rate / other_rate", "other_rate / rate", "50 steps of 10 ms"),
    ("3.1", "(horizon - 1) * other_rate // rate + 1",
     "round(horizon * other_rate / rate)", "50 steps of 10 ms"),
    ("3.1", "// rate + 1", "// rate + 2", "The same rate changes nothing"),
    ("3.2", "max(signal + taps - 1 - n, 0)", "signal + taps - 1 - n", "than needed"),
    ("3.2", "taps - 1 - n", "taps - n", "nothing wraps"),
    ("3.3", "irfft(spectrum, n)", "irfft(spectrum)", "n = 5 is odd"),
    ("3.3", "len(x) + len(kernel) - 1", "len(x)", "By hand"),
    ("3.3", "len(x) + len(kernel) - 1", "2 * len(x)", "longer than the signal"),
    ("3.3", "[: len(x)]", "", "expected shape \\(3,\\), got \\(5,\\)"),
    ("3.4", "(gradient - to_g * direction)", "gradient", "nothing is left for v"),
    ("3.4", "g / length", "g", "g / \\|v\\| times as fast"),
    ("3.4", "sum(1, keepdim=True)", "sum()", "expected shape \\(1, 1\\)"),
    ("3.5", "kernel(lags.clamp_min(0)).where(seen, 0)", "kernel(lags) * seen",
     "0 times NaN is NaN"),
    ("3.5", "lags >= 0", "lags > 0", "at lag 0"),
    ("3.5", ".where(seen, 0)", "", "has not happened yet"),
    ("3.5", "values * weights", "values", "Each sample has its weight"),
    ("3.6", "past = line[len(line) - reach :]", "past = chunk[len(chunk) - reach :]",
     "shorter than k - 1"),
    ("3.6", "past = line[len(line) - reach :]", "past = line[-reach:]", "x\\[-0:\\]"),
    ("3.6", "* spectrum, n_fft)", "* spectrum)", "n_fft may be odd"),
    ("3.6", "nonlocal past", "past = kernel.new_zeros(reach)", "needs the last k - 1"),
    ("3.6", "range(0, len(chunk), step)", "[0]", "takes several transforms"),
    ("4.1", "math.log(math.log(2) / half_life)", "math.log(2) / half_life", "one step"),
    ("4.1", "/ half_life)", "* half_life)", "a hundred times"),
    ("4.2", "(r_min**2 + u * (r_max**2 - r_min**2)).sqrt()",
     "r_min + u * (r_max - r_min)", "0.707, not 0.5"),
    ("4.2", "max_phase * v", "2 * math.pi * v", "a share of max_phase"),
    ("4.3", "[(1 - a) * a, a]", "[1 - a, a]", "which contains x_t"),
    ("4.3", "(1 - a) ** 2]", "0.0]", "answers at lag 0"),
    ("4.4", "np.expm1(z)", "(np.exp(z) - 1)", "loses its digits"),
    ("4.4", "step if z == 0 else np.expm1(z) / rate", "np.expm1(z) / rate", "rate 0"),
    ("4.4", "complex(rate * step)", "(rate * step).real", "complex pairs"),
    ("4.5", "before.conj()", "before", "conjugated"),
    ("4.5", "a[t + 1].conj()", "a[t + 1]", "conjugated"),
    ("4.5", "a[t + 1].conj() if t + 1 < len(a) else 0", "a[t].conj()", "leads a_2 = 3"),
    ("4.5", "to_b * before", "to_b * h", "leads a_2 = 3"),
    ("4.5", "later = g[t] + ahead * later", "later = g[t] + ahead * g[t - 1]", "h_2"),
    ("4.6", "combine(ends[i // 2 - 1], items[i])",
     "combine(items[i], ends[i // 2 - 1])", "Item 2 comes behind"),
    ("4.6", "combine(*pair)", "combine(*pair[::-1])", "takes the earlier item first"),
    ("4.6", "len(items) < 2", "len(items) == 1", "No items have no prefixes"),
    ("5.1", " if size else 0.0", "", "A zero patch has no angle"),
    ("5.1", "/ size - 1", "- 1", "kappa\\(1\\) = 1"),
    ("5.1", "return size * ", "return ", "so K\\(x, x\\)"),
    ("5.1", "/ size - 1)", "/ size)", "so K\\(x, x\\)"),
    ("5.2", "b**0.5", "b", "its square is b_0"),
    ("5.2", "power = torch.einsum(\"ni,nj->nij\", power, x).flatten(1)",
     "power = power * x", "products of two coordinates"),
    ("5.3", "np.moveaxis(windows, 1, 3)", "windows", "A row holds all its channels"),
    ("5.3", "np.moveaxis(windows, 1, 3)", "np.moveaxis(windows, (2, 3), (0, 1))",
     "all belong to image 0"),
    ("5.4", "np.sqrt(values + eps)", "(np.sqrt(values) + eps)", "inside of the root"),
    ("5.4", "np.where(norms == 0, 1, norms)", "norms", "no features"),
    ("5.4", "return norms * np", "return np", "By hand in 5.3"),
    ("5.4", "np.sqrt(values + eps)", "(values + eps)", "inside of the root"),
    ("5.5", "-1 / (s[:, None] * s * (s[:, None] + s))",
     "(1 / s[:, None] - 1 / s) / (values[:, None] - values)", "On the diagonal"),
    ("5.5", "-1 / (s[:, None] * s * (s[:, None] + s))",
     "torch.where(values[:, None] == values, -values**-1.5 / 2,"
     " (1 / s[:, None] - 1 / s) / (values[:, None] - values))", "loses nine digits"),
    ("5.5", "(factor * inside)", "(torch.diag(factor.diag()) * inside)", "-1/6"),
    ("5.6", "taps /= taps.sum()", "pass", "every second tap"),
    ("5.6", "/ s**2)", "/ (2 * s**2))", "every second tap"),
    ("5.6", "[(0, 0), (0, 0), (p, p), (p, p)]", "[(0, 0)] * 4", "before the patches"),
    ("5.6", "pool_gaussian(maps, s) if s > 1 else maps", "pool_gaussian(maps, s)",
     "no pooling"),
    ("5.6", "np.moveaxis(maps, 3, 1)", "np.moveaxis(maps, 3, 1)[..., ::-1]",
     "Patches of 2 by 2"),
)  # fmt: skip


def ids(row) -> str:
    return f"{row[0]}: {row[2][:30]}"


@pytest.mark.parametrize("row", WRONG, ids=ids)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_answer_fails_with_its_hint(row):
    number, right, wrong, told = row
    source, names = source_of(number), dict(solved(number[0]))
    assert source.count(right) == 1, "the solution has no such place"
    pattern = rf"(?s)^exercise {number}, case \d of \d.*{told}"
    with pytest.raises(AssertionError, match=pattern):
        exec(source.replace(right, wrong), names)


def test_every_exercise_has_a_plausible_wrong_answer():
    assert {row[0] for row in WRONG} == set(NUMBERS)


def loop(combine, items):
    return list(itertools.accumulate(items, combine))


def doubling(combine, items):
    """log2 n rounds over all items: the ten lines of section 4.2."""
    whole, r = list(items), 1
    while r < len(whole):
        joined = [combine(whole[i - r], whole[i]) for i in range(r, len(whole))]
        whole, r = whole[:r] + joined, 2 * r
    return whole


def test_a_scan_must_be_parallel_and_spare_work():
    with pytest.raises(AssertionError, match=r"7 combinations in a row, above 6"):
        exercises.check_prefix_scan(loop)
    with pytest.raises(AssertionError, match="17 combinations of 8 items, above 16"):
        exercises.check_prefix_scan(doubling)
    with pytest.raises(AssertionError, match="raised AttributeError"):
        exercises.check_prefix_scan(lambda combine, items: ["a"] * len(items))


def test_streams_must_not_share_their_past():
    """A stream that remembers in a name that all streams share."""
    shared = {}

    def overlap_save(kernel, n_fft):
        shared["past"] = kernel.new_zeros(len(kernel) - 1)

        def push(chunk):
            line = torch.cat([shared["past"], chunk])
            shared["past"] = line[len(chunk) :]
            taps = kernel.flip(0)[None, None]
            return F.conv1d(line[None, None], taps)[0, 0] if len(chunk) else chunk

        return push

    with pytest.raises(AssertionError, match=r"case 2 of 8(.|\n)*last k - 1 samples"):
        exercises.check_stream(overlap_save)
    with pytest.raises(AssertionError, match="must return 6 outputs for as many"):
        exercises.check_stream(lambda kernel, n_fft: lambda chunk: chunk[1:])
    with pytest.raises(AssertionError, match="must return a function, push"):
        exercises.check_stream(lambda kernel, n_fft: kernel)


def test_judges_say_what_they_need():
    with pytest.raises(AssertionError, match="the factors' shapes must be"):
        exercises.check_nearest_factors(lambda matrix, shapes: [matrix])
    with pytest.raises(AssertionError, match=r"W, U must be \(2, 2\), \(2,\)"):
        exercises.check_two_averages(lambda a: (torch.eye(3), torch.ones(3)))
    with pytest.raises(AssertionError, match="one row of features a point"):
        exercises.check_power_features(lambda x, weights: x.T)


# What is expected is what the package computes ---------------------------------------


def test_the_expected_values_are_the_packages():
    y, w = chapter1._normal(1, 9), chapter1._normal(1, 1, 7, seed=1)
    knobs = {"stride": 3, "padding": 2, "output_padding": 2}
    got = chapter1._adjoint(y[0], w[0, 0], *knobs.values())
    checks.agree("scatter", got, ckutils.conv_transpose(y, w, **knobs)[0], 1e-12)
    kernels = [chapter1._normal(3, 2, 3), chapter1._normal(2, 3, 2, seed=1)]
    want = ckutils.compose_kernels([w[..., None] for w in kernels], [2, 3])[..., 0]
    checks.agree("paths", chapter2._paths(kernels, [2, 3]), want, 1e-12)
    x, z = chapter5._array(6, 4), chapter5._unit_rows(3, 4, seed=1)
    want = ckutils.nystrom_features(
        torch.tensor(x), torch.tensor(z), lambda u: torch.exp(2 * (u - 1)), 0.01
    )
    checks.agree("Nystrom", chapter5._nystrom(x, z, 2.0, 0.01), want, 1e-10)
    images = chapter5._array(2, 1, 7, 6)
    layer = ckn.CKNLayer(1, 3, 2, subsampling=2, padding=1).double()
    anchors = layer.unit_anchors().detach().flatten(1).numpy()
    beta = float(layer.kernel.log_beta.detach().exp())
    got = chapter5._layer(images, anchors, 2, beta, layer.eps, 1, 2)
    checks.agree("layer", got, layer(torch.tensor(images)), 1e-10)


# The engine --------------------------------------------------------------------------


def told(want, got, tol=0.0, **more) -> str:
    """What the engine says of one result."""
    with pytest.raises(AssertionError) as error:
        verify("9.9", lambda n: got, "n", [Case((3,), want, "Think.", tol, **more)])
    text = str(error.value)
    assert text.startswith("exercise 9.9, case 1 of 1: f(n=3)\n")
    assert text.endswith("\n  hint: Think.")
    return text.splitlines()[1].strip()


ROW = torch.tensor([1.0, 2.0]).double()


@pytest.mark.parametrize(
    ("want", "got", "says"),
    [
        (6, 5, "the result: expected 6, got 5"),
        (6, 6.0, "the result: expected 6, got 6.0"),
        (1, True, "the result: expected 1, got True"),
        (True, 1, "the result: expected True, got 1"),
        (2.0, math.nan, "the result: expected 2 within 0.0e+00, got nan"),
        (2.0, "2", "the result: expected 2.0, got '2'"),
        (1j, 1.0, "the result: expected 0+1j within 0.0e+00, got 1"),
        ((1, 2), (2, 1), "the result: expected (1, 2), got (2, 1)"),
        ((1, 2), [1], "the result: expected 2 values, got 1: [1]"),
        ((1, 2), 1, "the result: expected (1, 2), got 1"),
        ((2, 0.5), (2, 0.4), "part 1: expected 0.5 within 0.0e+00, got 0.4"),
        (ROW, [1.0, 2.0], "expected a torch tensor, got [1.0, 2.0]"),
        (ROW.numpy(), ROW, "expected a NumPy array, got [1., 2.]"),
        (ROW, ROW[None], "expected shape (2,), got (1, 2)"),
        (ROW, ROW.float(), "expected torch.float64, got torch.float32"),
        (ROW, ROW * math.nan, "the result: expected [1., 2.], got [nan, nan]"),
        (ROW * math.nan, ROW * math.nan, "got [nan, nan]"),
        (ROW, None, "the function returned None: is there a `return`?"),
        (torch.ones(4, 5), torch.ones(4, 5).triu(), "at (1, 0): expected 1, got 0"),
    ],
)
def test_the_engine_says_what_differs(want, got, says):
    assert says in told(want, got)


@pytest.mark.parametrize(
    ("want", "got"),
    [
        (6, np.int64(6)),
        (6, torch.tensor(6)),
        (0.5, torch.tensor(0.5)),
        (0.5, np.float32(0.5)),
        (True, True),
        ((1, 2), [1, 2]),
        ((), []),
        ("a", "a"),
        (math.inf, math.inf),
        (ROW, ROW.clone().requires_grad_()),
        (ROW / 0, ROW / 0),
    ],
)
def test_the_engine_takes_what_is_right(want, got, capsys):
    verify("9.9", lambda n: got, "n", [Case((3,), want, "Think.")])
    assert capsys.readouterr().out == "exercise 9.9: all 1 cases agree\n"


def test_the_engine_names_an_exception_and_keeps_it():
    with pytest.raises(AssertionError, match="raised ZeroDivisionError: ") as error:
        verify("9.9", lambda n: n / 0, "n", [Case((3,), 1, "Think.")])
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_the_engine_asks_the_judge():
    more = {"judge": lambda got, n: got - n, "what": "the rest"}
    assert told(0, 5, **more) == "the rest: expected 0, got 2"
    assert "the result, 'x', cannot be used. TypeError: " in told(0, "x", **more)


def test_the_engine_stops_at_the_first_case():
    rows = [Case((n,), n + (n > 1), f"Case {n}.") for n in range(4)]
    with pytest.raises(AssertionError, match=r"case 3 of 4: f\(n=2\)(.|\n)*Case 2\."):
        verify("9.9", lambda n: n, "n", rows)


def test_the_engine_protects_its_cases():
    """What a function does to its arguments does not reach the comparison."""
    rows = [Case((ROW,), ROW, "Think."), Case((ROW,), 2 * ROW, "Again.")]
    with pytest.raises(AssertionError, match="case 2 of 2"):
        verify("9.9", lambda row: row.mul_(1), "row", rows)
    with pytest.raises(AssertionError, match="case 1 of 2"):
        verify("9.9", lambda row: row.mul_(2), "row", rows)
    assert ROW.tolist() == [1.0, 2.0]


def test_the_engine_refuses_what_is_no_function():
    with pytest.raises(ValueError, match="f must be a function, got 3"):
        exercises.check_span(3)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (torch.zeros(2, 2), "[[0., 0.], [0., 0.]]"),
        (torch.zeros(4, 5), "<float32 tensor of shape (4, 5)>"),
        (np.zeros((4, 5)), "<float64 array of shape (4, 5)>"),
        ([(1, 2), "a"], "[(1, 2), 'a']"),
        (test_every_check_belongs_to_one_exercise,
         "test_every_check_belongs_to_one_exercise"),
        ("x" * 200, "'" + "x" * 76 + "..."),
    ],
)  # fmt: skip
def test_values_are_described_in_one_line(value, line):
    assert " ".join(engine.describe(value).split()) == line
