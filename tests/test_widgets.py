"""Explorers: what they compute in the browser is what the package computes.

Each `check_*` evaluates many states in the page and in Python. The canaries plant an
error in a formula of the page and see the check turn red.
"""

import html
import itertools
import random
import re
from pathlib import Path

import pytest
import torch

from ckutils.arithmetic import (
    conv_input_sizes,
    conv_output_size,
    conv_transpose_output_size,
)
from ckutils.ckn import (
    arc_cosine_kernel,
    exponential_kernel,
    nystrom_features,
    polynomial_kernel,
)
from ckutils.convolution import conv, conv_transpose
from ckutils.kernel_nets import Siren
from ckutils.kronecker import compose_kernels, kronecker_kernel
from ckutils.receptive import receptive_field, receptive_set
from ckutils.recurrence import lru_kernel
from ckutils.widgets import EXPLORERS, explorer, explorer_html

F64 = torch.float64
EPS = torch.finfo(F64).eps


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def close(got, want: torch.Tensor, tol: float, state) -> None:
    got = tensor(got)
    assert got.shape == want.shape, f"{got.shape} for {tuple(want.shape)}: {state}"
    error = float((got - want).abs().nan_to_num(torch.inf).max())
    assert error <= tol, f"off by {error:.1e}, tolerance {tol:.1e}: {state}"


class Ask:
    """ask(name, states): pairs of a state and what the page computes from it."""

    spoil, every = staticmethod(lambda text: text), 1

    def __init__(self, page):
        self.page = page

    def __call__(self, name, states):
        states = list(states)[:: self.every]
        self.page.goto("about:blank")  # forgets the constants of the last page
        self.page.set_content(self.spoil(explorer_html(name)))
        script = "states => states.map(explorer.compute)"
        return zip(states, self.page.evaluate(script, states), strict=True)


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture
def ask(page):
    return Ask(page)


# Chapter 1 -------------------------------------------------------------------------


def grids(n, k):
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    image, kernel = (7 * i + 3 * j) % 9 + 1, (i + 3 * j) % 4 - 1
    return image[:n, :n].double()[None], kernel[:k, :k].double()[None, None]


def check_convolution(ask):
    names = "size", "kernel", "stride", "padding", "dilation", "inputDilation"
    values = (1, 2, 5, 8), (1, 2, 3, 5), (1, 2, 4), (0, 1, 4), (1, 3), (1, 2, 3)
    states = [dict(zip(names, v, strict=True)) for v in itertools.product(*values)]
    states = [s | {"mode": "convolution"} for s in states]
    refused = 0
    for state, got in ask("convolution", states):
        n, k, s, p, d, e = (state[name] for name in names)
        knobs = {"stride": s, "padding": p, "dilation": d, "input_dilation": e}
        try:
            size = conv_output_size(n, k, **knobs)
        except ValueError:
            refused += 1
            assert "error" in got, state
            continue
        assert "error" not in got and got["size"] == size, state
        image, kernel = grids(n, k)
        close(got["output"], conv(image, kernel, **knobs)[0], 0, state)
        sizes = conv_input_sizes(size, k, **knobs)
        assert got["sizes"] == [sizes[0], sizes[-1]], state
        # one entry more at the end changes the size exactly if nothing is unread
        longer = {"padding": ((p, p + s - got["unread"]),)}
        assert conv_output_size(n, k, **knobs | longer) == size + 1, state
    assert refused


def check_transposed(ask):
    names = "size", "kernel", "stride", "padding", "dilation", "outputPadding"
    values = (1, 2, 5), (1, 2, 3, 5), (1, 2, 4), (0, 1, 4), (1, 3), (0, 1, 2, 3)
    states = [dict(zip(names, v, strict=True)) for v in itertools.product(*values)]
    states = [s | {"mode": "transposed"} for s in states]
    refused = 0
    for state, got in ask("convolution", states):
        n, k, s, p, d, a = (state[name] for name in names)
        knobs = {"stride": s, "padding": p, "dilation": d, "output_padding": a}
        try:
            size = conv_transpose_output_size(n, k, **knobs)
        except ValueError:
            refused += 1
            assert "error" in got, state
            continue
        assert "error" not in got and got["size"] == size, state
        image, kernel = grids(n, k)
        close(got["output"], conv_transpose(image, kernel, **knobs)[0], 0, state)
    assert refused


# Chapter 2 -------------------------------------------------------------------------


def cascades():
    """Random layers, half of them with the dilations of a Kronecker product."""
    draw = random.Random(2)
    for case in range(80):
        span, layers = 1, []
        for _ in range(draw.randint(1, 4)):
            taps = [draw.randint(1, 9) for _ in range(draw.randint(1, 6))]
            dilation = span if case % 2 and span <= 32 else draw.randint(1, 32)
            layers.append({"taps": taps, "dilation": dilation})
            span *= len(taps)
        yield {"layers": layers, "follow": "none"}


def check_cascade(ask):
    products = []
    for state, got in ask("cascade", cascades()):
        kernels = [tensor(row["taps"]) for row in state["layers"]]
        steps = [row["dilation"] for row in state["layers"]]
        layers = [(len(k), 1, d) for k, d in zip(kernels, steps, strict=True)]
        composite = compose_kernels(kernels, steps)
        close(got["composite"], composite, 0, state)
        ones = [torch.ones_like(kernel) for kernel in kernels]
        close(got["paths"], compose_kernels(ones, steps), 0, state)
        assert got["size"] == receptive_field(layers).size, state
        read = set(receptive_set(layers))
        assert got["holes"] == [m for m in range(got["size"]) if m not in read], state
        assert (got["gap"] is None) == (got["holes"] == []), state
        assert set(got["reaches"][-1]) == read, state
        assert got["weights"] == sum(map(len, kernels)), state
        product = kronecker_kernel(kernels)
        close(got["product"], product, 0, state)
        same = composite.shape == product.shape and bool((composite == product).all())
        assert got["isKronecker"] == same, state
        products.append(same)
    assert 0.2 < sum(products) / len(products) < 0.8


def check_followed_weight(ask):
    states = []
    for state in itertools.islice(cascades(), 40):
        layer = len(state["layers"]) // 2
        tap = len(state["layers"][layer]["taps"]) - 1
        states.append(state | {"follow": f"{layer},{tap}"})
    for state, got in ask("cascade", states):
        layer, tap = map(int, state["follow"].split(","))
        kernels = [tensor(row["taps"]) for row in state["layers"]]
        weight = kernels[layer].requires_grad_()
        composite = compose_kernels(kernels, [r["dilation"] for r in state["layers"]])
        # the values that change with the weight: all taps are positive
        slopes = [torch.autograd.grad(c, weight, retain_graph=True) for c in composite]
        users = [m for m, (slope,) in enumerate(slopes) if slope[tap] > 0]
        assert got["users"] == users, state


# Chapter 3 -------------------------------------------------------------------------

SIRENS = [
    {"omega": omega, "depth": depth, "width": width, "lags": lags, "seed": seed}
    for seed, (omega, depth, width, lags) in enumerate(
        itertools.product((1, 30, 300), (1, 2, 5), (8, 64), (32, 256))
    )
]


def net_of(state) -> Siren:
    torch.manual_seed(state["seed"])
    return Siren(
        1, 1, hidden_features=state["width"], hidden_layers=state["depth"],
        omega_0=state["omega"], weight_norm=False,
    )  # fmt: skip


def check_draws(ask):
    for state, _ in ask("siren", SIRENS):
        net, drawn = net_of(state), ask.page.evaluate("drawn", state)
        for layer, got in zip([*net.hidden, net.readout], drawn, strict=True):
            # a machine may round once or twice on the way to a float32
            for name, want in layer.named_parameters():
                want = want.detach().double()
                tol = 2**-23 * float(want.abs().max())
                close(got[name], want, tol, state)


def check_siren(ask):
    for state, got in ask("siren", SIRENS):
        net = net_of(state).double()
        drawn = ask.page.evaluate("drawn", state)
        for layer, row in zip([*net.hidden, net.readout], drawn, strict=True):
            layer.weight.data = tensor(row["weight"])
            layer.bias.data = tensor(row["bias"])
        lags = state["lags"]
        kernel = net(torch.linspace(1, -1, lags, dtype=F64)[:, None])[:, 0].detach()
        # an argument of about 3 omega, rounded; each layer of n sines with weights up
        # to sqrt(6/n)/omega can raise an error at most sqrt(6 n) times
        gain = (6 * state["width"]) ** (state["depth"] / 2)
        tol = 8 * EPS * state["omega"] * gain * max(1.0, float(kernel.abs().max()))
        close(got["kernel"], kernel, tol, state)
        power = torch.fft.rfft(kernel - kernel.mean()).abs().square()
        share = power / power.sum()
        close(got["share"], share, 1e-10, state)
        cycles = torch.fft.rfftfreq(lags, 2 / (lags - 1), dtype=F64)
        close(got["cycles"], cycles, 1e-12 * lags, state)
        at = int((share.cumsum(0) < 0.9).sum())
        assert got["edge"] == pytest.approx(float(cycles[at])), state
        assert got["band"] == pytest.approx(state["omega"] / 2 / torch.pi), state


# Chapter 4 -------------------------------------------------------------------------


def recurrences():
    fixed = [
        ([[0.9, 0]], 0), ([[-1, 0]], 0), ([[0.6, 0.8]], 0), ([[1.02, 0]], 0),
        ([[1, 0], [1, 0]], 1), ([[0.9, 0], [0.8, 0]], 4), ([[0, 0]], 0),
        ([[0.9, 0.35], [-0.5, 0.75]], 0), ([[0, 1], [0, 0.5], [0.5, 0]], 2.5),
    ]  # fmt: skip
    draw = random.Random(4)
    for _ in range(40):
        modes = [
            [draw.uniform(-0.75, 0.75), draw.choice([0, draw.uniform(0, 0.7)])]
            for _ in range(draw.randint(1, 3))
        ]
        fixed.append((modes, draw.choice([0, 0.5, 5])))
    for at, (modes, coupling) in enumerate(fixed):
        yield {"modes": modes, "coupling": coupling, "length": (32, 64, 128)[at % 3]}


def matrices(state):
    """W and U: a block an eigenvalue or pair, first states coupled."""
    blocks = [
        tensor([[re, -im], [im, re]]) if im else tensor([[re]])
        for re, im in state["modes"]
    ]
    W = torch.block_diag(*blocks)
    starts = [sum(map(len, blocks[:at])) for at in range(len(blocks))]
    for row, column in itertools.pairwise(starts):
        W[row, column] = state["coupling"]
    U = torch.zeros(len(W), 1, dtype=F64)
    U[starts] = 1
    return W, U


def check_recurrence(ask):
    for state, got in ask("recurrence", recurrences()):
        W, U = matrices(state)
        T = state["length"]
        close(got["W"], W, 0, state)
        kernel = (U.T @ lru_kernel(W, U, T)[:, 0])[0]
        chain = torch.stack([torch.linalg.matrix_power(W, t) for t in range(T)])
        norm = torch.linalg.matrix_norm(chain, 2)
        # T products, each rounded, each error carried on by at most the largest power
        tol = 10 * T * EPS * float(norm.max()) ** 2 * len(W)
        close(got["kernel"], kernel, tol, state)
        close(got["norm"], norm, tol, state)
        power = torch.fft.rfft(kernel).abs().square()
        close(got["power"], power, 10 * T * tol * max(1, float(norm.max())), state)
        radius = float(torch.linalg.eigvals(W).abs().max())
        # a Jordan block splits by the root of the rounding
        assert got["radius"] == pytest.approx(radius, abs=1e-6), state


# Chapter 5 -------------------------------------------------------------------------

ANCHORS = [
    [90], [20, 80, 150], [0, 60, 120, 180, 240, 300], [80, 100], [20, 80, 80, 150],
    [0, 180], [10, 50, 100, 170, 200, 230, 280, 330], [0, 0],
]  # fmt: skip
KAPPA = {
    "exponential": exponential_kernel,
    "arc-cosine": lambda u, beta: arc_cosine_kernel(u),
    "polynomial": lambda u, beta: polynomial_kernel(u, 2, offset=1.0),
}


def check_nystrom(ask):
    names = "anchors", "kernel", "beta", "eps", "reference"
    values = ANCHORS, KAPPA, (0.5, 4, 32), (0, 1e-3, 1), (100, 20)
    states = [dict(zip(names, v, strict=True)) for v in itertools.product(*values)]
    angles = torch.deg2rad(torch.arange(0, 360, 5, dtype=F64))
    for state, got in ask("nystrom", states):
        anchors = torch.deg2rad(tensor(state["anchors"]))
        kappa = lambda u, s=state: KAPPA[s["kernel"]](u, float(s["beta"]))  # noqa: E731
        x, z, here = (
            torch.stack([a.cos(), a.sin()], dim=-1)
            for a in (angles, anchors, torch.deg2rad(tensor([state["reference"]])))
        )
        psi = nystrom_features(x, z, kappa, float(state["eps"]))
        there = nystrom_features(here, z, kappa, float(state["eps"]))
        gram = kappa(z @ z.T) + state["eps"] * torch.eye(len(z), dtype=F64)
        kept = torch.linalg.eigvalsh(gram)
        kept = kept[kept > len(z) * EPS * kept[-1]]
        tol = 100 * EPS * len(z) * float(kept[-1] / kept[0]) ** 1.5
        if tol > 1e-4:
            continue  # the features themselves have lost their digits
        close(got["exact"], kappa(x @ here.T)[:, 0], 1e-13, state)
        close(got["approximation"], (psi @ there.T)[:, 0], tol, state)
        # near 0 the root of a rounded square has half of its digits
        close(got["length"], psi.norm(dim=1), tol + tol**0.5, state)
        error = kappa(x @ x.T) - psi @ psi.T
        rms, worst = error.square().mean().sqrt(), error.abs().max()
        assert got["rms"] == pytest.approx(float(rms), abs=tol), state
        assert got["worst"] == pytest.approx(float(worst), abs=tol), state
        assert got["rank"] == len(kept), state


# All of them -------------------------------------------------------------------------

CHECKS = (
    check_convolution, check_transposed, check_cascade, check_followed_weight,
    check_draws, check_siren, check_recurrence, check_nystrom,
)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_the_browser_computes_what_the_package_computes(check, ask):
    check(ask)


PLANTED = [
    (check_convolution, "(room - span) / s) + 1", "(room - span + 1) / s) + 1"),
    (check_convolution, "kernelValue(a, b) * read(", "kernelValue(b, a) * read("),
    (check_convolution, "last = first + s - 1", "last = first + s"),
    (check_convolution, "unread: (room - span) % s", "unread: room % s"),
    (check_transposed, "full - 2 * p + a", "full - 2 * p"),
    (check_transposed, "a >= Math.max(s, d)", "a >= s"),
    (check_transposed, "s * j + d * b - p];", "s * j + b - p];"),
    (check_cascade, "out[m + dilation * j]", "out[out.length - 1 - m - dilation * j]"),
    (check_cascade, "kronecker(outer, inner)", "kronecker(inner, outer)"),
    (check_cascade, "if (dilation > size)", "if (dilation >= size)"),
    (check_cascade, "span *= taps.length;", "span += taps.length;"),
    (check_followed_weight, "at !== layer || j === tap", "j === tap"),
    (check_draws, "sizes[at + 1], sizes[at]", "sizes[at], sizes[at + 1]"),
    (check_draws, "y ^= (y << 15) & 0xefc60000;", ""),
    (check_draws, "Math.PI / omega", "1 / omega"),
    (check_siren, "Math.sin(omega * z)", "Math.sin(omega * z + bias[i])"),
    (check_siren, "(2 * lag) / (lags - 1)", "(2 * lag) / lags"),
    (check_siren, "(lags - 1) / (2 * lags)", "1 / 2"),
    (check_siren, "collected += s) >= 0.9", "collected += s) >= 0.95"),
    (check_recurrence, "chain = times(W, chain)", "chain = times(chain, chain)"),
    (check_recurrence, "scale * Math.sqrt(Math.max", "scale * (Math.max"),
    (check_recurrence, "W[at - sizes[m]][at] = coupling", "W[at - 1][at] = coupling"),
    (check_recurrence, "=> Math.hypot(re, im)));", "=> Math.abs(re)));"),
    (check_nystrom, "1 / Math.sqrt(value)", "1 / value"),
    (check_nystrom, "value > floor ?", "value > 0 ?"),
    (check_nystrom, "k + (i === j ? eps : 0)", "k"),
    (check_nystrom, "beta * (u - 1)", "beta * beta * (u - 1)"),
    (check_nystrom, "u * (Math.PI - Math.acos", "u * (Math.PI / 2 - Math.acos"),
]


@pytest.mark.parametrize(("check", "right", "wrong"), PLANTED)
def test_a_planted_error_is_seen(check, right, wrong, ask):
    def spoil(text):
        assert text.count(right) == 1, f"{right!r} stands {text.count(right)} times"
        return text.replace(right, wrong)

    ask.spoil, ask.every = spoil, 5  # 5 meets every value of every knob
    with pytest.raises(AssertionError, match=r"\{'\w+': "):  # it names the state
        check(ask)


# The Python side ---------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_is_one_small_page_that_asks_for_nothing(name):
    page = explorer_html(name)
    assert len(page.encode()) <= 60_000
    page = page.replace("http://www.w3.org/2000/svg", "")  # a name, not a request
    for word in ("http:", "https:", " src=", "<link", "@import", "url(", "fetch("):
        assert word not in page, word


def test_every_equation_that_a_page_cites_stands_in_its_chapter():
    chapters = sorted((Path(__file__).parent.parent / "notebooks").glob("*.py"))
    for name, chapter in zip(EXPLORERS, chapters, strict=True):
        cited = re.findall(r"\(([1-5]\.\d+)\)", explorer_html(name))
        assert cited, name
        for number in cited:
            assert f"\\tag{{{number}}}" in chapter.read_text(), f"{name} cites {number}"


@pytest.mark.parametrize("make", [explorer, explorer_html])
@pytest.mark.parametrize("name", ["nothing", "", None, "common"])
def test_an_unknown_name_is_refused(make, name):
    with pytest.raises(ValueError, match="name must be one of 'convolution', 'casc"):
        make(name)


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_notebook_gets_a_frame_with_the_page_and_words_beside_it(name):
    shown = explorer(name)
    frame = shown._repr_html_()
    (page,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(page) == explorer_html(name)
    assert frame == explorer(name)._repr_html_()  # nbval compares it
    assert repr(shown).startswith("Explorer of chapter ")
    words = re.sub(r"<iframe.*?</iframe>", "", frame, flags=re.S)
    assert repr(shown) in words
    assert "removes frames" in words
