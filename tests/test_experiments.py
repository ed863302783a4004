"""The experiments: runs that resume or are shared, and what they measure with."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spread_train
import torch
from torch import nn

from ckutils import ckn
from ckutils.ckconv import CKCNN, CKConv
from ckutils.kronecker import kronecker_kernel
from experiments import (
    ckn_cifar,
    ckn_gradient,
    common,
    digits,
    images,
    kronecker_fashion,
    loop,
    memory,
    released_ckcnn,
    sequences,
    vitals,
)
from experiments.ridge import ridge_path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(
    file.stem
    for file in (ROOT / "experiments").glob("*.py")
    if "def main(" in file.read_text()
)


def blobs(n=64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    return torch.randn(n, 3, generator=draw) + 2 * labels[:, None], labels


def small():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2))


def trained(model, batch=None, **options):
    batch = batch or loop.shuffled(*blobs(), 8, seed=1)
    options = {"steps": 40, "every": 10, "schedule": lambda s: 1 - s} | options
    return loop.train(model, nn.functional.cross_entropy, batch, **options)


# The loop --------------------------------------------------------------------------


def test_one_step_by_hand():
    # loss (w - 3)^2 at w = 0: 9; slope -6; rate 1/4: w = 1.5; then loss 2.25
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    x = torch.ones(4, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.25)
    run = loop.train(model, nn.MSELoss(), lambda k: (x, 3 * x), steps=2, optimiser=sgd)
    assert run.losses == [9.0, 2.25] and model.weight.item() == 2.25
    assert run.steps == [2] and run.scores == [None] and run.stopped == "end"


def test_batches_are_passes_in_new_orders():
    x = torch.arange(7)
    batch = loop.shuffled(x, 10 * x, 3, seed=2)
    passes = [torch.cat([batch(2 * e)[0], batch(2 * e + 1)[0]]) for e in range(3)]
    assert all(len(set(p.tolist())) == 6 for p in passes)
    assert len({tuple(p.tolist()) for p in passes}) == 3
    assert torch.equal(batch(5)[1], 10 * batch(5)[0])
    assert torch.equal(batch(1)[0], loop.shuffled(x, x, 3, seed=2)(1)[0])
    with pytest.raises(ValueError, match="batch_size must be at most the 7 samples"):
        loop.shuffled(x, x, 8, seed=0)


@pytest.mark.parametrize("kill_at", [3, 10, 27])
def test_a_killed_run_resumes_with_the_same_losses(tmp_path, kill_at):
    def interrupted(step):
        if step == kill_at:
            raise KeyboardInterrupt
        return batch(step)

    batch = loop.shuffled(*blobs(), 8, seed=1)
    whole = trained(small())
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(small(), interrupted, checkpoint=file)
    asked = []
    rest = trained(
        small(), lambda k: asked.append(k) or batch(k), checkpoint=file
    )  # fmt: skip
    assert rest.losses == whole.losses
    assert asked[0] == kill_at // 10 * 10, "it must go on from the last checkpoint"


def test_a_process_that_is_killed_resumes_with_the_same_losses(tmp_path):
    code = (
        "import os, signal; import test_experiments as t; from pathlib "
        "import Path; b = t.loop.shuffled(*t.blobs(), 8, seed=1); "
        "k = lambda s: os.kill(os.getpid(), signal.SIGKILL) if s == 33 else b(s); "
        f"t.trained(t.small(), k, checkpoint=Path({str(tmp_path / 'run.pt')!r}))"
    )
    here = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=here)
    assert killed.returncode == -9
    resumed = trained(small(), checkpoint=tmp_path / "run.pt")
    assert resumed.losses == trained(small()).losses


def test_limits_and_success_stop_a_run(tmp_path):
    assert trained(small(), cpu_budget=0.0).stopped == "cpu budget"
    file = tmp_path / "run.pt"
    late = trained(small(), deadline=0.0, checkpoint=file)
    assert late.stopped == "time" and len(late.losses) == 10
    # with more time it goes on, to the same end
    assert trained(small(), checkpoint=file).losses == trained(small()).losses
    done = trained(small(), evaluate=lambda m: 1, solved=lambda score: score == 1)
    assert done.stopped == "solved" and done.steps == [10] and done.scores == [1]


def test_a_loss_that_is_not_finite_ends_the_run():
    with pytest.raises(FloatingPointError, match="not finite at step 2"):
        trained(small(), lambda k: (blobs()[0] / (1 - k), blobs()[1]), steps=3)


def test_two_processes_give_the_losses_of_one(tmp_path):
    """Mean over the global batch, gradients averaged: the same to rounding."""
    out = tmp_path / "losses.json"
    script = ROOT / "tests" / "spread_train.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script), str(out)],
        cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    shared = json.loads(out.read_text())
    assert shared["processes"] == 2
    alone = spread_train.losses()
    assert np.abs(np.subtract(shared["losses"], alone)).max() < 1e-5
    assert len(set(alone)) == len(alone)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(loop, "ranks", lambda: (1, 2))
    x, y = torch.arange(6), torch.arange(6) * 10
    assert loop._share(x, y)[1].tolist() == [10, 30, 50]
    with pytest.raises(ValueError, match="batch of 5 must be a multiple of the 2"):
        loop._share(x[:5], y[:5])


# The record ------------------------------------------------------------------------


def experiment(tmp_path, *words, **more):
    given = ["--quick", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "c")]
    args = common.arguments("memory", "").parse_args([*given, *words])
    return common.Experiment("memory", "Title", args, about="About.", **more)


def test_a_record_says_what_ran_where_and_for_how_long(tmp_path):
    run = experiment(tmp_path, "--data", "/somewhere/private", "--seed", "3")
    run.case("one", lambda case: {"score": case.seed}, seed=3, width=2)
    record = json.loads((tmp_path / "out" / "memory.json").read_text())
    assert record == run.finish()
    assert (
        record["command"] == "python -m experiments.memory --seed 3 --quick --data DIR"
    )
    assert {"python", "torch", "numpy"} == set(record["versions"])
    for key in ("commit", "device", "date", "seconds", "cpu_seconds", "peak_memory_mb"):
        assert record[key] or key.endswith("seconds"), key
    (case,) = record["cases"].values()
    assert case["results"] == {"score": 3} and case["settings"] == {"width": 2}
    assert record["seeds"] == [3]


def test_finished_cases_are_not_run_again(tmp_path):
    ran = []
    for words in ([], [], ["--fresh"]):
        run = experiment(tmp_path, *words)
        run.case("one", lambda case: ran.append(1) or {"score": 1})
    assert len(ran) == 2


def test_a_case_without_time_is_named_as_not_run(tmp_path):
    run = experiment(tmp_path, "--minutes", "-1")
    assert run.case("one", lambda case: {"score": 1}) == {}
    assert run.finish()["not_run"] == ["one / seed 0: out of time"]


def test_a_case_resumes_inside_its_training(tmp_path):
    def work(case, batch):
        run = case.train(
            small(), nn.functional.cross_entropy, batch, steps=20, every=5
        )  # fmt: skip
        return {"last": run.losses[-1]}

    def killed(step):
        if step == 12:
            raise KeyboardInterrupt
        return batch(step)

    batch = loop.shuffled(*blobs(), 8, seed=1)
    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path).case("one", lambda case: work(case, killed))
    seen = []
    entry = experiment(tmp_path).case(
        "one", lambda case: work(case, lambda k: seen.append(k) or batch(k))
    )
    other = experiment(tmp_path / "b").case("one", lambda case: work(case, batch))
    assert seen[0] == 10 and entry["results"] == other["results"]
    assert entry["steps"] == 20 and entry["stopped"] == "end"
    assert entry["curve"] == other["curve"]


def test_a_curve_is_the_mean_of_stretches():
    assert common.curve([1.0, 3.0, 5.0, 7.0, 9.0], points=3) == [
        [2, 2.0], [4, 6.0], [5, 9.0],
    ]  # fmt: skip


@pytest.mark.parametrize("name", [s for s in SCRIPTS if s != "released_ckcnn"])
def test_each_script_runs_and_writes_its_record(tmp_path, name, capsys):
    main = importlib.import_module(f"experiments.{name}").main
    torch.manual_seed(0)
    record = main(["--quick", "--out", str(tmp_path), "--cache", str(tmp_path / "c")])
    assert record["cases"] and record["quick"]
    stored = json.loads((tmp_path / f"{name}.json").read_text())
    assert stored["cases"].keys() == record["cases"].keys()
    for case in stored["cases"].values():
        for value in case["results"].values():
            assert value is None or isinstance(value, str | bool) or np.isfinite(value)
    assert "/" not in stored["command"]


# What they measure with ------------------------------------------------------------


def test_the_tasks_of_memory_by_hand():
    x, y = sequences.adding(50, 9, seed=0)
    assert torch.allclose((x[:, 0] * x[:, 1]).sum(1, keepdim=True), y)
    assert (x[:, 1].sum(1) == 2).all() and (x[:, 1, :4].sum(1) == 1).all()
    x, y = sequences.copy_memory(20, 5, seed=0)
    assert x.shape == (20, 10, 25) and (x.sum(1) == 1).all()
    assert torch.equal(x[..., :10].argmax(1), y[:, -10:]) and (y[:, :-10] == 0).all()
    assert (x[:, 9, 14] == 1).all()

    class Perfect(nn.Module):
        def forward(self, x):
            return torch.nn.functional.pad(x[:, :9, :10], (15, 0))

    assert sequences.recalled(Perfect(), x, y) == 1.0
    assert sequences.recalled(nn.Identity(), x, y) < 0.3


@pytest.mark.parametrize("task", memory.TASKS)
def test_the_rivals_are_of_about_equal_size_and_causal(task):
    _, c_in, c_out, head, *_ = memory.TASKS[task]
    x = torch.randn(2, c_in, 30)
    for name, make in memory.RIVALS.items():
        torch.manual_seed(0)
        model = make(c_in, c_out, head, 30, 10.0)
        count = sum(p.numel() for p in model.parameters())
        if "20" not in name:
            assert 15_000 < count < 20_000, (name, count)
        y = model(x)
        assert y.shape == ((2, c_out) if head == "last" else (2, c_out, 30))
        if head == "all":
            changed = torch.cat([x[..., :20], torch.randn(2, c_in, 10)], -1)
            gap = (model(changed) - y)[..., :20].abs().max()
            assert gap < 1e-4 * y.abs().max(), name


def test_ridge_path_is_the_chapters_classifier():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(57, 12, generator=draw, dtype=torch.float64)
    labels = torch.arange(57) % 3
    for penalty, got in ridge_path(x, labels, (1e-3, 0.1), block=20).items():
        want = ckn.ridge_classifier(x, labels, penalty)
        assert torch.allclose(got.weight, want.weight, atol=1e-10)
        assert torch.allclose(got.bias, want.bias, atol=1e-10)


def test_the_hinge_classifier_is_at_a_minimum():
    x, labels = blobs(80)
    x = x.double()
    start = ckn.ridge_classifier(x, labels, 1e-2)
    fitted = ckn_cifar.hinge(x, labels, 1e-2, start)

    def value(linear):
        targets = 2 * torch.nn.functional.one_hot(labels).double() - 1
        scale = 1e-2 * (x - x.mean(0)).square().sum(1).mean()
        margin = (1 - targets * linear(x)).clamp_min(0).square().sum(1).mean()
        return margin + scale * linear.weight.square().sum()

    value(fitted).backward()
    assert value(fitted) < value(start)
    assert fitted.weight.grad.abs().max() < 1e-3 * value(fitted)


def test_whitening_makes_the_pixels_uncorrelated():
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=draw)
    x = (torch.randn(3000, 12, generator=draw) @ mix).view(3000, 3, 2, 2)
    white, other = ckn_cifar.whitened(x, x[:5], ridge=1e-6)
    flat = white.flatten(1)
    values = torch.linalg.eigvalsh(flat.mT @ flat / 3000)
    # the mean of an image is gone, so one direction is empty
    assert values[0] < 1e-3 and (values[1:] - 1).abs().max() < 1e-2
    assert torch.equal(other, white[:5])


def test_the_kronecker_layer_is_its_sum():
    torch.manual_seed(0)
    layer = kronecker_fashion.KroneckerLayer(3).double()
    left, right = layer.left.transpose(0, 1), layer.right.permute(1, 2, 0)
    pairs = zip(left, right, strict=True)
    matrix = sum(kronecker_kernel([b, a]) for a, b in pairs)  # (256, 784)
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    assert torch.allclose(layer(x), x.flatten(1) @ matrix.mT)
    assert kronecker_fashion.numbers("Kronecker", 1) == 896
    assert kronecker_fashion.numbers("low rank", 2) == 2080


def test_held_out_images_are_no_training_images():
    x = torch.arange(30.0).view(30, 1, 1, 1)
    split = images.ImageSplit(x, torch.arange(30), x, torch.arange(30))
    held = images.holdout(split, 5)
    assert len(held.test_labels) == 5 and len(held.train_labels) == 25
    assert set(held.train_labels.tolist()) | set(held.test_labels.tolist()) == set(
        range(30)
    )
    part = images.subset(split, 7, 3)
    assert len(set(part.train_labels.tolist())) == 7
    assert torch.equal(part.train_images.flatten().long(), part.train_labels)


@pytest.mark.parametrize("eps", [1e-3, 1e-2])
def test_the_published_gradient_is_not_that_of_its_root(eps):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, 4, generator=draw, dtype=torch.float64)
    gram = (x @ x.mT).requires_grad_()

    def root(right):
        apply = ckn_gradient.PublishedRoot.apply
        return lambda g: apply((g + g.mT) / 2, right, eps).sum()

    assert torch.autograd.gradcheck(root(True), (gram,))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(root(False), (gram,), atol=1e-7, rtol=1e-7)


# Irregular times and other rates ---------------------------------------------------


def test_true_times_are_zeros_with_a_mask():
    torch.manual_seed(0)
    layer = CKConv(2, 3, horizon=vitals.HOURS, omega_0=10.0)
    values = torch.randn(2, 48)
    kept = (torch.rand(2, 48) > 0.4).float()
    values = values * kept
    hours = torch.arange(48.0)
    pair = torch.stack([values, torch.ones_like(values)], 1)
    want = layer.at(hours, pair, hours, weights=kept)
    assert torch.allclose(vitals.with_mask(layer, values, kept), want, atol=1e-5)


def test_dropped_hours_by_hand():
    nan = float("nan")
    x = torch.full((1, 48), nan)
    x[0, :6] = torch.tensor([1.0, 2.0, nan, 4.0, 5.0, 6.0])
    late = 0
    for seed in range(10):
        inputs, target = vitals.dropped(x, 0.5, seed=seed)
        kept, asked = inputs[0, 1] > 0, target[0].isfinite()
        assert not kept[2] and not kept[6:].any()
        assert torch.equal(inputs[0, 0], torch.where(kept, x[0], 0))
        assert not (asked & kept).any() and (target[0][asked] == x[0][asked]).all()
        first = int(kept.nonzero()[0]) if kept.any() else 48
        assert not asked[:first].any(), "nothing comes before the first sample"
        assert (asked | kept | x[0].isnan())[first:].all()
        late += first > 0
    assert late > 1
    inputs = torch.zeros(1, 2, 48)
    inputs[0, :, 3], inputs[0, 0, 3] = 1, 7.0
    assert vitals.last_value(inputs)[0, 2:6].tolist() == [0, 7, 7, 7]


def test_density_weights_sum_to_the_time_covered():
    class Spy:
        def at(self, times, pair, query, *, weights):
            self.weights = weights
            return pair

    spy, kept = Spy(), torch.zeros(1, 48)
    kept[0, [1, 4, 5]] = 1
    vitals.by_density(spy, torch.zeros(1, 48), kept)
    gaps = spy.weights[0, [1, 4, 5]] / (3 / 48)
    assert gaps.tolist() == [2, 3, 1] and spy.weights[0, 2] == 0


@pytest.mark.parametrize("factor", [True, False])
def test_at_the_training_rate_another_rate_changes_nothing(factor):
    torch.manual_seed(0)
    model = digits.MeanOverTime(sequences.ckcnn(1, 4, 3, "all", 10.0, horizon=20))
    x = torch.randn(2, 1, 40)
    same = digits.AtAnotherRate(model, 1.0, factor=factor, low_pass=True)
    assert torch.allclose(same(x), model(x), atol=1e-5)


@torch.no_grad()
def test_a_finer_grid_needs_the_factor():
    """One layer at twice the rate: with 1/r the sums stay, without it they double."""
    torch.manual_seed(0)
    layer = CKConv(1, 3, horizon=60, omega_0=2.0)
    nn.init.zeros_(layer.bias)
    fine = torch.sin(0.05 * torch.arange(400) / 2)[None, None] + 0.3
    want = layer(fine[..., ::2])
    model = digits.MeanOverTime(nn.Identity())
    ratio = {}
    for factor in (True, False):
        other = digits.AtAnotherRate(model, 2.0, factor=factor, low_pass=False)
        got = other.convolve(layer, fine, 2.0)[..., ::2]
        ratio[factor] = float((got * want).sum() / want.square().sum())
    assert abs(ratio[True] - 1) < 0.05 and abs(ratio[False] - 2) < 0.1


def test_smoothing_keeps_what_is_constant():
    assert torch.allclose(digits.smooth(torch.ones(1, 1, 50), 4), torch.ones(1, 1, 50))
    fast = torch.cos(torch.pi * torch.arange(64.0))[None, None]
    assert digits.smooth(fast, 2)[..., 16:-16].abs().max() < 0.01


# The released weights --------------------------------------------------------------


class ReleasedKernel(nn.Module):
    """Pointwise convolutions with weight normalisation, at places 0, 4 and 8."""

    def __init__(self, out, omega_0):
        super().__init__()
        sizes, self.omega_0 = [(1, 32), (32, 32), (32, out)], omega_0
        layers = [nn.Identity() for _ in range(9)]
        for place, (fed, width) in zip((0, 4, 8), sizes, strict=True):
            layers[place] = nn.utils.weight_norm(nn.Conv1d(fed, width, 1))
        self.kernel_net = nn.Sequential(*layers)

    def forward(self, positions):
        for place in (0, 4):
            positions = torch.sin(self.omega_0 * self.kernel_net[place](positions))
        return self.kernel_net[8](positions)


class ReleasedConv(nn.Module):
    def __init__(self, c_in, c_out, omega_0):
        super().__init__()
        self.Kernel = ReleasedKernel(c_in * c_out, omega_0)
        self.bias = nn.Parameter(torch.randn(c_out))
        self.register_buffer("train_length", torch.zeros(1, dtype=torch.int32))

    def forward(self, x):
        t = x.shape[-1]
        values = self.Kernel(torch.linspace(-1, 1, t)[None, None])
        kernel = values.view(-1, x.shape[1], t)  # the present sample comes last
        padded = nn.functional.pad(x, (t - 1, 0))
        return nn.functional.conv1d(padded, kernel, self.bias)


class Wrapped(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer_norm = nn.GroupNorm(1, channels, eps=1e-12)
        nn.init.normal_(self.layer_norm.weight), nn.init.normal_(self.layer_norm.bias)

    def forward(self, x):
        return self.layer_norm(x)


class ReleasedBlock(nn.Module):
    def __init__(self, c_in, c_out, omega_0):
        super().__init__()
        self.cconv1 = ReleasedConv(c_in, c_out, omega_0)
        self.cconv2 = ReleasedConv(c_out, c_out, omega_0)
        self.norm1, self.norm2 = Wrapped(c_out), Wrapped(c_out)
        same = c_in == c_out
        self.shortcut = nn.Sequential(*([] if same else [nn.Conv1d(c_in, c_out, 1)]))

    def forward(self, x):
        h = torch.relu(self.norm1(self.cconv1(x)))
        return torch.relu(self.shortcut(x) + torch.relu(self.norm2(self.cconv2(h))))


class Released(nn.Module):
    """The published names and shapes, put together by definition."""

    def __init__(self, c_in, channels, omega_0):
        super().__init__()
        self.backbone = nn.Sequential(
            ReleasedBlock(c_in, channels, omega_0),
            ReleasedBlock(channels, channels, omega_0),
        )
        self.finallyr = nn.Linear(channels, 10)

    def forward(self, x):
        return self.finallyr(self.backbone(x)[..., -1])


def checkpoint(folder, c_in=1, prefix="", lengths=True):
    torch.manual_seed(1)
    with pytest.warns(FutureWarning, match="weight_norm"):
        theirs = Released(c_in, 6, 25.696)
    state = theirs.state_dict()
    if not lengths:  # the older files lack them
        state = {k: v for k, v in state.items() if "train_length" not in k}
    kind = "CIFAR10" if c_in == 3 else "MNIST_perm_False"
    name = f"{kind}_model_CKCNN_blcks_2_nohid_6_kernnohid_32_kernact_Sine_kernomega0_"
    file = folder / f"{name}25.7_bs_64.pt"
    torch.save({prefix + k: v for k, v in state.items()}, file)
    return theirs, file


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("c_in", [1, 3])
def test_released_weights_give_released_outputs(tmp_path, c_in, prefix):
    theirs, file = checkpoint(tmp_path, c_in, prefix, lengths=c_in == 1)
    ours = released_ckcnn.load_released(file, c_in)
    x = torch.randn(4, c_in, 50)
    want = theirs(x)
    assert torch.allclose(ours(x), want, atol=1e-4 * want.abs().max().item())


def test_a_train_length_becomes_the_horizon(tmp_path):
    _, file = checkpoint(tmp_path)
    state = torch.load(file, weights_only=True)
    state["backbone.0.cconv1.train_length"] = torch.tensor([784], dtype=torch.int32)
    torch.save(state, file)
    ours = released_ckcnn.load_released(file, 1)
    assert ours.blocks[0].conv1.horizon == 784 and ours.blocks[1].conv1.horizon is None


def test_files_of_another_kind_are_refused(tmp_path):
    _, file = checkpoint(tmp_path)
    with pytest.raises(ValueError, match="must say nohid_"):
        released_ckcnn.load_released(file.rename(tmp_path / "x.pt"), 1)
    _, file = checkpoint(tmp_path)
    state = torch.load(file, weights_only=True)
    state["backbone.0.extra"] = torch.zeros(1)
    torch.save(state, file)
    with pytest.raises(ValueError, match="is no released CKCNN"):
        released_ckcnn.load_released(file, 1)


def test_the_released_convolution_is_right_at_even_lengths_only():
    torch.manual_seed(0)
    model = CKCNN(1, 10, channels=4, norm="released")
    x = torch.randn(2, 1, 41)
    exact = {t: model(x[..., :t]) for t in (40, 41)}
    lossy = released_ckcnn.as_released(model)
    gap = {t: (lossy(x[..., :t]) - exact[t]).norm() / exact[t].norm() for t in exact}
    assert gap[40] < 1e-4 and gap[41] > 0.05


def test_the_permutation_is_found(monkeypatch):
    draw = np.random.RandomState(0)
    draw.permutation(9)
    order = torch.from_numpy(draw.permutation(9))  # the second draw

    class Knows(nn.Module):
        def forward(self, x):
            flat = x[:, 0, :].new_zeros(x.shape[0], 9).scatter(
                1, order.expand(len(x), 9), x[:, 0]
            )  # fmt: skip
            return flat

    images = torch.eye(9).view(9, 1, 3, 3)
    found, right = released_ckcnn.find_permutation(Knows(), images, torch.arange(9))
    assert torch.equal(found, order) and right == 1.0


def test_the_published_files_are_evaluated(tmp_path, monkeypatch):
    _, file = checkpoint(tmp_path)
    file.rename(tmp_path / file.name.replace("nohid_6", "nohid_30"))
    with pytest.raises(ValueError, match="is no released CKCNN"):
        released_ckcnn.load_released(next(tmp_path.glob("MNIST*.pt")), 1)
    next(tmp_path.glob("MNIST*.pt")).rename(file)
    record = released_ckcnn.main([
        "--quick", "--checkpoints", str(tmp_path), "--channels", "6",
        "--out", str(tmp_path), "--cache", str(tmp_path / "c"),
    ])  # fmt: skip
    (case,) = record["cases"].values()
    assert 0 <= case["results"]["test"] <= 1 and case["parameters"] > 1000
    assert any("no file CIFAR10" in line for line in record["not_run"])


def test_the_command_line_has_what_was_asked_for():
    parser = common.arguments("memory", "")
    assert isinstance(parser, argparse.ArgumentParser)
    args = parser.parse_args(["--device", "cpu", "--seed", "4", "--quick"])
    assert (args.device, args.seed, args.quick) == ("cpu", 4, True)
