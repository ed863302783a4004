"""checks.py: a verdict that can be False, a digest that hides rounding, rules."""

import math

import numpy as np
import pytest
import torch

from ckutils import checks
from ckutils.checks import agree, digest, per_axis


def test_agree_prints_a_verdict(capsys):
    agree("sum", torch.tensor([1.0, 2.0]), [1.0, 2.0 + 1e-9], tol=1e-8)
    assert capsys.readouterr().out == "sum: True\n"


@pytest.mark.parametrize(
    ("got", "want", "message"),
    [
        ([1.0, 2.5], [1.0, 2.0], r"x: got 2.5, want 2, .* at index \(1,\)"),
        ([1.0, math.nan], [1.0, math.nan], "got nan, want nan"),
        ([math.inf], [-math.inf], "got inf, want -inf"),
        ([1.0], [math.inf], "want inf"),
        ([1.0], [[1.0]], r"got shape \(1,\), want \(1, 1\)"),
        ([1.0 + 1e-3j], [1.0], r"got 1\+0.001j"),
    ],
)
def test_agree_raises_and_says_where(got, want, message):
    with pytest.raises(AssertionError, match=message):
        agree("x", np.array(got), np.array(want), tol=1e-6)


def test_agree_takes_equal_infinities_integers_and_empty_arrays(capsys):
    agree("x", [math.inf, -math.inf], [math.inf, -math.inf], tol=0)
    agree("y", torch.arange(3), np.arange(3), tol=0)
    agree("z", [], [], tol=0)
    assert capsys.readouterr().out.count("True") == 3


def test_agree_reads_views_that_carry_a_sign(capsys):
    z = torch.tensor([1 + 2j, 3 - 4j]).conj()
    agree("imaginary part", z.imag, [-2.0, 4.0], tol=0)
    agree("conjugate", z, [1 - 2j, 3 + 4j], tol=0)
    assert capsys.readouterr().out.count("True") == 2


def test_agree_is_not_fooled_by_a_small_type():
    """Halves are compared in float64: their difference would round to 0 in float16."""
    with pytest.raises(AssertionError):
        agree("x", torch.tensor(1.0, dtype=torch.float16), 1 + 1e-4, tol=1e-5)


def test_agree_takes_no_infinite_tolerance_with_which_nan_would_agree():
    with pytest.raises(ValueError, match="tol must be a number >= 0, got inf"):
        agree("x", math.nan, 1.0, tol=math.inf)


@pytest.mark.parametrize("tol", [-1, math.nan, "0", None])
def test_agree_refuses_a_tolerance_that_is_none(tol):
    with pytest.raises(ValueError, match="tol must be a number >= 0, got"):
        agree("x", 1, 1, tol=tol)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1.0, 4.0, 7.0], "y (3,): mean 4, max 7 at 2"),
        ([[0.0, 1.0], [5.0, 2.0]], "y (2, 2): mean 2, max 5 at (1, 0)"),
        ([1e-17, -1e-17, 1.0], "y (3,): mean 0.33, max 1 at 2"),
        ([-1e-17, 1.0, -1.0], "y (3,): mean 0, max 1 at 1"),
        ([1.0, math.nan, 3.0], "y (3,): mean 2, max 3 at 2, 1 missing"),
        ([math.nan], "y (1,): all missing"),
        ([True, False, True, True], "y (4,): 0.750 true"),
        ([], "y (0,): empty"),
        (2.5, "y (): mean 2.5, max 2.5"),
        ([0.0, 0.0], "y (2,): mean 0, max 0 at 0"),
        ([1.0, math.inf], "y (2,): mean inf, max inf at 1"),
        (torch.tensor([12345.678]), "y (1,): mean 1.23e+04, max 1.23e+04 at 0"),
        ([1.234567e-305], "y (1,): mean 1.23e-305, max 1.23e-305 at 0"),
        ([5e-324], "y (1,): mean 0, max 0 at 0"),
        (torch.tensor([1 + 2j]).conj().imag, "y (1,): mean -2, max -2 at 0"),
    ],
)
def test_digest_in_words(value, text):
    assert digest(y=value) == text


def test_digest_hides_rounding_noise_but_shows_a_change():
    values = torch.linspace(-1, 1, 101, dtype=torch.float64).sin()
    assert digest(y=values) == digest(y=values.float()) == digest(y=values + 1e-9)
    assert digest(y=values) != digest(y=values * 1.02)


def test_digest_of_several_and_of_none():
    assert digest(a=[1], b=[2]).count("\n") == 1
    with pytest.raises(ValueError, match="at least one named array"):
        digest()
    with pytest.raises(ValueError, match="z must be real, got dtype complex"):
        digest(z=[1j])


RULES = [
    (checks.check_int, (1,), {"stride": 0}, "stride must be an integer >= 1, got 0"),
    (checks.check_int, (1,), {"k": 2.0}, "k must be an integer >= 1, got 2.0"),
    (checks.check_int, (0,), {"k": True}, "k must be an integer >= 0, got True"),
    (checks.check_number, (0,), {"eps": -1}, "eps must be a number >= 0, got -1"),
    (checks.check_number, (0, 1), {"p": 2}, r"p must be a number in \[0, 1\], got 2"),
    (checks.check_number, (0,), {"p": math.nan}, "p must be a number >= 0, got nan"),
    (checks.check_number, (0,), {"p": math.inf}, "p must be a number >= 0, got inf"),
    (
        checks.check_choice,
        (("a", "b"),),
        {"mode": "c"},
        "mode must be one of 'a', 'b', got 'c'",
    ),
    (
        checks.check_float,
        (),
        {"x": [1]},
        "x must be a torch tensor, got <class 'list'>",
    ),
    (
        checks.check_float,
        (),
        {"x": torch.ones(1).int()},
        "x must be float32 or float64, got torch.int32",
    ),
    (
        checks.check_ndim,
        (2,),
        {"x": torch.ones(3)},
        r"x must have at least 2 axes, got shape \(3,\)",
    ),
    (
        per_axis,
        (1, 2),
        {"stride": (1, 2, 3)},
        r"stride must be an int or a tuple of 2 ints, got \(1, 2, 3\)",
    ),
    (
        per_axis,
        (1, 2),
        {"stride": "12"},
        "stride must be an int or a tuple of 2 ints, got '12'",
    ),
    (per_axis, (1, 2), {"stride": (1, 0)}, "stride must be an integer >= 1, got 0"),
]


@pytest.mark.parametrize(("rule", "arguments", "named", "message"), RULES)
def test_a_rule_names_argument_rule_and_value(rule, arguments, named, message):
    with pytest.raises(ValueError, match=message):
        rule(*arguments, **named)


def test_check_same_names_both_sides():
    a, b = torch.ones(1), torch.ones(1).double()
    with pytest.raises(ValueError, match="b must have the dtype and device of a"):
        checks.check_same(a=a, b=b)


def test_rules_let_good_values_pass():
    checks.check_int(1, k=np.int64(3))
    checks.check_number(0, 1, p=0.5, q=1)
    checks.check_choice(("a", "b"), mode="a")
    checks.check_float(x=torch.ones(1), y=torch.ones(1).double())
    checks.check_same(a=torch.ones(1), b=torch.ones(2))
    checks.check_ndim(1, x=torch.ones(1))
    assert per_axis(0, 3, pad=[0, 1, 2], size=5) == ((0, 1, 2), (5, 5, 5))


def test_views_that_torch_negates_or_conjugates_later_are_read(capsys):
    z = torch.tensor([1 + 2j, 3 - 4j])
    assert z.conj().imag.is_neg() and z.conj().is_conj()
    assert checks.digest(x=z.conj().imag) == "x (2,): mean 1, max 4 at 1"
    agree("negated", z.conj().imag, [-2, 4], tol=0)
    agree("conjugated", z.conj(), np.array([1 - 2j, 3 + 4j]), tol=0)
    assert capsys.readouterr().out == "negated: True\nconjugated: True\n"


def test_source_shows_the_code_without_its_docstring(capsys):
    checks.source(checks._place)
    assert "def _place(at)" in capsys.readouterr().out
    checks.source(agree)
    out = capsys.readouterr().out
    assert "Print `name: True`" not in out and "raise AssertionError" in out


def test_describe_runtime_is_one_line():
    assert "torch" in checks.describe_runtime()
    assert "\n" not in checks.describe_runtime()
