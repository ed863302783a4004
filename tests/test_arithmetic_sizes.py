"""Sizes and padding: against torch, JAX, counting, and the published relationships."""

import itertools
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ckutils.arithmetic import (
    PADDINGS,
    conv_input_sizes,
    conv_output_size,
    conv_transpose_output_size,
    dilated_size,
    pool_output_size,
    resolve_padding,
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The grid of the issue: size, kernel, stride, padding, dilation.
GRID = list(
    itertools.product(range(1, 13), range(1, 6), range(1, 5), range(4), (1, 2, 3))
)


def outcome(function, *args, **knobs):
    """What a call returns, or "error" where it refuses the arguments."""
    try:
        return function(*args, **knobs)
    except (ValueError, RuntimeError):
        return "error"


def torch_conv_size(n, k, s, p, d):
    x, w = torch.zeros(1, 1, n), torch.zeros(1, 1, k)
    return F.conv1d(x, w, stride=s, padding=p, dilation=d).shape[-1]


# Convolution ---------------------------------------------------------------------


def test_sizes_by_hand():
    assert conv_output_size(5, 3) == 3
    assert conv_output_size(6, 3, stride=2, padding=1) == 3
    assert conv_output_size(7, 3, dilation=2) == 3
    assert conv_output_size(3, 3, input_dilation=2) == 3
    assert conv_output_size((4, 6), (3, 2), stride=(1, 2)) == (2, 3)
    assert conv_output_size(224, (7, 3), stride=2) == (109, 111)
    assert conv_output_size((9, 9), 3, padding="same") == (9, 9)


def test_output_size_is_torchs_on_the_grid():
    for n, k, s, p, d in GRID:
        want = outcome(torch_conv_size, n, k, s, p, d)
        got = outcome(conv_output_size, n, k, stride=s, padding=p, dilation=d)
        assert got == want, f"{n=} {k=} {s=} {p=} {d=}"


def test_output_size_counts_the_starts():
    for n, k, s, p, d in GRID:
        for e in (1, 2, 3):
            positions = e * (n - 1) + 1
            starts = [i for i in range(-p, positions + p + 3) if (i + p) % s == 0]
            fits = [i for i in starts if i + d * (k - 1) < positions + p + 2]
            if fits:
                got = conv_output_size(
                    n, k, stride=s, padding=((p, p + 2),), dilation=d, input_dilation=e
                )
                assert got == len(fits), f"{n=} {k=} {s=} {p=} {d=} {e=}"


def test_dilated_size_is_the_length_of_a_stuffed_kernel():
    for k, d in itertools.product(range(1, 9), range(1, 6)):
        stuffed = [entry for _ in range(k) for entry in (1, *(0,) * (d - 1))]
        trimmed = stuffed[: len(stuffed) - (d - 1)]
        assert dilated_size(k, d) == len(trimmed)
        assert trimmed.count(0) == (k - 1) * (d - 1)
        # CP-21: a valid convolution loses (k - 1) d entries
        assert conv_output_size(50, k, dilation=d) == 50 - (k - 1) * d
    assert dilated_size((3, 5), 2) == (5, 9)


def test_input_dilation_adds_steps_not_a_factor():
    # CP-05, CP-24: T + (T - 1)(d - 1) entries are fewer than d T for every d > 1
    for n, e, k in itertools.product(range(1, 20), range(1, 5), range(1, 4)):
        length = n + (n - 1) * (e - 1)
        assert dilated_size(n, e) == length
        assert (length == e * n) == (e == 1)
        for lo, hi in ((0, 0), (2, 0), (3, 4)):
            if length + lo + hi >= k:
                got = conv_output_size(n, k, input_dilation=e, padding=((lo, hi),))
                assert got == length + (lo + hi) - k + 1


def test_worked_shapes_of_the_source():
    assert conv_output_size(100, 5, padding="valid") == 96  # CP-15
    assert conv_output_size(224, 7, padding="valid", dilation=2) == 212  # CP-20
    assert conv_output_size(224, 7, padding=[(0, 0)], input_dilation=2) == 441  # CP-22


def test_same_keeps_the_size_only_at_stride_one():
    # CP-12
    for n, k, s, _, d in GRID:
        got = conv_output_size(n, k, stride=s, padding="same", dilation=d)
        assert got == -(-n // s)
    # CP-14: "k - 1 less" holds at stride 1 and dilation 1
    assert all(
        (conv_output_size(12, k, stride=s, dilation=d) == 12 - (k - 1))
        == (s == 1 and (d == 1 or k == 1))
        for k in (1, 3)
        for s in (1, 2)
        for d in (1, 2)
    )


# Padding -------------------------------------------------------------------------


def test_same_is_jaxs_on_the_grid():
    lax = pytest.importorskip("jax").lax
    for n, k, s, _, d in GRID:
        want = lax.padtype_to_pads((n,), (d * (k - 1) + 1,), (s,), "SAME")
        got = resolve_padding("same", k, stride=s, dilation=d, size=n)
        assert got == tuple(tuple(map(int, pair)) for pair in want), f"{n=} {k=} {s=}"


def test_named_paddings_by_hand():
    assert resolve_padding("valid", (3, 4)) == ((0, 0), (0, 0))
    assert resolve_padding("same", 4) == ((1, 2),)
    assert resolve_padding("same", 3, stride=2, size=6) == ((0, 1),)
    assert resolve_padding("same", 1, stride=3, size=7) == ((0, 0),)
    assert resolve_padding("causal", 3, dilation=4) == ((8, 0),)
    assert resolve_padding("causal", (3, 2)) == ((2, 0), (1, 0))
    assert resolve_padding("circular", (4, 3), dilation=(2, 1)) == ((3, 3), (1, 1))
    assert resolve_padding("reflect", 4) == ((1, 2),)
    # two entries beyond an edge: three entries have them in the mirror, two have not
    assert conv_output_size(3, 5, padding="reflect") == 3
    with pytest.raises(ValueError, match="at most size - 1 = 1 entries"):
        conv_output_size(2, 5, padding="reflect")
    assert conv_input_sizes(1, 5, stride=4, padding="reflect") == range(3, 5)


def test_numbers_in_every_form():
    assert resolve_padding(2, 3) == ((2, 2),)
    assert resolve_padding(2, (3, 3)) == ((2, 2), (2, 2))
    assert resolve_padding((1, 0), (3, 3)) == ((1, 1), (0, 0))
    assert resolve_padding([(1, 0), 2], (3, 3)) == ((1, 0), (2, 2))
    assert resolve_padding([(0, 0)], 7) == ((0, 0),)
    assert resolve_padding((4, 0), 5) == ((4, 0),)  # a bare pair, on one axis
    assert resolve_padding((4,), 5) == ((4, 4),)
    assert resolve_padding(1, 3, size=(5, 5)) == ((1, 1), (1, 1))


# The inverse, and transposed -----------------------------------------------------


@given(
    m=st.integers(1, 9),
    k=st.integers(1, 5),
    s=st.integers(1, 4),
    d=st.integers(1, 3),
    e=st.integers(1, 3),
    padding=st.sampled_from([0, 1, 3, ((0, 2),), *PADDINGS]),
)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_input_sizes_are_all_that_give_the_output(m, k, s, d, e, padding):
    knobs = {"stride": s, "padding": padding, "dilation": d, "input_dilation": e}
    if e > 1 and padding in ("same", "circular", "reflect"):
        with pytest.raises(ValueError, match="input_dilation"):
            conv_input_sizes(m, k, **knobs)
        return
    most = 4 * 9 + 3 * 5 + 20
    want = [n for n in range(1, most) if outcome(conv_output_size, n, k, **knobs) == m]
    got = conv_input_sizes(m, k, **knobs)
    assert list(got) == want
    assert isinstance(got, range)


def test_input_sizes_are_one_for_each_output_padding():
    for m, k, s, p, d in GRID:
        sizes = list(conv_input_sizes(m, k, stride=s, padding=p, dilation=d))
        made = [
            outcome(
                conv_transpose_output_size, m, k, stride=s, padding=p, dilation=d,
                output_padding=a,
            )
            for a in range(s)
        ]  # fmt: skip
        assert sizes == [n for n in made if n != "error"], f"{m=} {k=} {s=} {p=} {d=}"
    assert conv_input_sizes((3, 4), 3, stride=(2, 1)) == (range(7, 9), range(6, 7))
    assert len(conv_input_sizes(1, 1, padding=3)) == 0


def test_transposed_size_is_torchs_with_every_output_padding():
    for n, k, s, p, d in GRID:
        x, w = torch.zeros(1, 1, n), torch.zeros(1, 1, k)
        for a in range(max(s, d) + 1):
            knobs = {"stride": s, "padding": p, "output_padding": a, "dilation": d}
            want = outcome(F.conv_transpose1d, x, w, **knobs)
            want = want if isinstance(want, str) else want.shape[-1]
            got = outcome(conv_transpose_output_size, n, k, **knobs)
            assert got == (want or "error"), f"{n=} {k=} {knobs}"


def test_transposed_size_takes_pairs_and_tuples():
    assert conv_transpose_output_size(3, 3, padding=((2, 0),)) == 3
    assert conv_transpose_output_size(3, 3, padding="causal") == 3
    assert conv_transpose_output_size((3, 4), 2, stride=(1, 3)) == (4, 11)


# Pooling -------------------------------------------------------------------------


def test_pool_size_is_torchs_on_the_grid():
    for n, k, s, p in itertools.product(
        range(1, 13), range(1, 6), range(1, 5), range(4)
    ):
        for ceil_mode in (False, True):
            x = torch.zeros(1, 1, n)
            knobs = {"stride": s, "padding": p, "ceil_mode": ceil_mode}
            want = outcome(F.max_pool1d, x, k, **knobs)
            want = want if isinstance(want, str) else want.shape[-1]
            got = outcome(pool_output_size, n, k, **knobs)
            assert got == want, f"{n=} {k=} {knobs}"


def test_pool_by_hand():
    assert pool_output_size(7, 2) == 3  # GD-13: without the floor, 3.5
    assert pool_output_size(7, 2, ceil_mode=True) == 4
    assert pool_output_size((8, 9), 3, stride=2, padding=1) == (4, 5)
    # the last window would start in the padding behind the signal: it goes
    assert pool_output_size(3, 2, stride=2, padding=1, ceil_mode=True) == 2


# The published guide -------------------------------------------------------------

# Dumoulin and Visin, arXiv:1603.07285: number -> (needs, output size, our call).
# i input, k kernel, s stride, p padding, a output padding, d dilation.


def _plain(i, k, s, p, a, d):
    return conv_output_size(i, k, stride=s, padding=p, dilation=d)


def _transposed(i, k, s, p, a, d):
    return conv_transpose_output_size(
        i, k, stride=s, padding=p, output_padding=a, dilation=d
    )


RELATIONSHIPS = {
    1: (lambda i, k, s, p, a, d: s == 1 and p == 0 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: (i - k) + 1, _plain),
    2: (lambda i, k, s, p, a, d: s == 1 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: (i - k) + 2 * p + 1, _plain),
    3: (lambda i, k, s, p, a, d: s == 1 and k % 2 and p == k // 2 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: i, _plain),
    4: (lambda i, k, s, p, a, d: s == 1 and p == k - 1 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: i + (k - 1), _plain),
    5: (lambda i, k, s, p, a, d: p == 0 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: (i - k) // s + 1, _plain),
    6: (lambda i, k, s, p, a, d: a == 0 and d == 1,
        lambda i, k, s, p, a, d: (i + 2 * p - k) // s + 1, _plain),
    7: (lambda i, k, s, p, a, d: p == 0 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: (i - k) // s + 1,
        lambda i, k, s, p, a, d: pool_output_size(i, k, stride=s)),
    8: (lambda i, k, s, p, a, d: s == 1 and p == 0 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: i + (k - 1), _transposed),
    9: (lambda i, k, s, p, a, d: s == 1 and a == 0 and d == 1,
        lambda i, k, s, p, a, d: i + (k - 1) - 2 * p, _transposed),
    10: (lambda i, k, s, p, a, d: s == d == 1 and k % 2 and p == k // 2 and a == 0,
         lambda i, k, s, p, a, d: i, _transposed),
    11: (lambda i, k, s, p, a, d: s == 1 and p == k - 1 and a == 0 and d == 1,
         lambda i, k, s, p, a, d: i - (k - 1), _transposed),
    12: (lambda i, k, s, p, a, d: p == 0 and a == 0 and d == 1,
         lambda i, k, s, p, a, d: s * (i - 1) + k, _transposed),
    13: (lambda i, k, s, p, a, d: a == 0 and d == 1,
         lambda i, k, s, p, a, d: s * (i - 1) + k - 2 * p, _transposed),
    14: (lambda i, k, s, p, a, d: a < s and d == 1,
         lambda i, k, s, p, a, d: s * (i - 1) + a + k - 2 * p, _transposed),
    15: (lambda i, k, s, p, a, d: a == 0,
         lambda i, k, s, p, a, d: (i + 2 * p - k - (k - 1) * (d - 1)) // s + 1, _plain),
}  # fmt: skip


@pytest.mark.parametrize("number", RELATIONSHIPS)
def test_relationship_of_the_guide(number):
    needs, size, ours = RELATIONSHIPS[number]
    cases = 0
    for n, k, s, p, d in GRID:
        for a in range(4):
            if needs(n, k, s, p, a, d) and (o := size(n, k, s, p, a, d)) >= 1:
                assert ours(n, k, s, p, a, d) == o, f"{n=} {k=} {s=} {p=} {a=} {d=}"
                cases += 1
    assert cases >= 30


def test_relationship_14_names_the_size_that_was_forgotten():
    # a = (i + 2p - k) mod s leads back to i from its own output size
    for n, k, s, p, _ in GRID:
        if n + 2 * p >= k:
            o = conv_output_size(n, k, stride=s, padding=p)
            a = (n + 2 * p - k) % s
            back = conv_transpose_output_size(
                o, k, stride=s, padding=p, output_padding=a
            )
            assert back == n


# Errors --------------------------------------------------------------------------

ERRORS = [
    (lambda: conv_output_size(0, 3), r"size must be an integer >= 1, got 0"),
    (lambda: conv_output_size(5.0, 3), r"size must be an int or a tuple of 1 ints"),
    (lambda: conv_output_size(True, 3), r"size must be an integer >= 1, got True"),
    (lambda: conv_output_size(5, 3, stride=0), r"stride must be an integer >= 1"),
    (lambda: conv_output_size(5, 3, stride=True), r"stride must be an integer >= 1"),
    (lambda: conv_output_size(5, 3, dilation=-1), r"dilation must be an integer >= 1"),
    (lambda: conv_output_size(5, 3, input_dilation=0), r"input_dilation must be an in"),
    (lambda: conv_output_size((5, 5), (3,)), r"one entry a spatial axis, got size="),
    (lambda: conv_output_size((), 3), r"one entry a spatial axis, got size=\(\)"),
    (lambda: conv_output_size((5, 5), 3, stride=(1, 1, 1)), r"stride must be an int o"),
    (lambda: conv_output_size(5, 3, padding=-1), r"padding must be an integer >= 0"),
    (lambda: conv_output_size(5, 3, padding=True), r"padding must be an integer >= 0"),
    (lambda: conv_output_size(5, 3, padding=1.5), r"padding must be an integer >= 0"),
    (lambda: conv_output_size(5, 3, padding=((1, 2, 3),)), r"pairs \(lo, hi\), got \("),
    (lambda: conv_output_size((5, 5), 3, padding=((1, 2),)), r"each of 2 axes, got"),
    (lambda: conv_output_size(5, 3, padding="full"), r"padding must be one of 'valid'"),
    (lambda: conv_output_size(5, 3, padding=None), r"padding must be an integer >= 0"),
    (lambda: conv_output_size(4, 3, dilation=2), r"kernel spans 5 and the input has 4"),
    (lambda: conv_output_size(3, 9, padding="reflect"), r"at most size - 1 = 2 entrie"),
    (lambda: conv_output_size(5, 3, padding="same", input_dilation=2), r"'valid' or '"),
    (lambda: resolve_padding("same", 3, stride=2), r"needs the input's size where a s"),
    (lambda: resolve_padding(1, 3, size=0), r"size must be an integer >= 1, got 0"),
    (lambda: dilated_size(3, 0), r"dilation must be an integer >= 1, got 0"),
    (lambda: dilated_size(0, 1), r"size must be an integer >= 1, got 0"),
    (lambda: conv_input_sizes(0, 3), r"output_size must be an integer >= 1, got 0"),
    (lambda: conv_transpose_output_size(3, 3, padding="same"), r"what it stands for d"),
    (lambda: conv_transpose_output_size(3, 3, output_padding=1), r"below the stride o"),
    (lambda: conv_transpose_output_size(3, 3, output_padding=-1), r"output_padding mu"),
    (lambda: conv_transpose_output_size(1, 3, padding=2), r"2 \+ 2 of 3 entries are c"),
    (lambda: pool_output_size(5, 3, padding=2), r"at most kernel_size / 2 = 1.5, got"),
    (lambda: pool_output_size(2, 3), r"the window has 3 and the input 2"),
    (lambda: pool_output_size(5, 3, ceil_mode=1), r"ceil_mode must be True or False"),
    (lambda: pool_output_size(5, 3, stride=0), r"stride must be an integer >= 1, got"),
    (lambda: pool_output_size(5, 3, padding=-1), r"padding must be an integer >= 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors_name_the_argument_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
