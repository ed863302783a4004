"""The training loop against hand-written steps, and what it promises on seeds."""

from contextlib import nullcontext
from itertools import chain

import pytest
import torch
from torch import nn

from ckutils import training
from ckutils.training import accuracy, count_weights, fit, predict


def linear(start=0.0):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    return model


def small(dropout=0.0):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2)
    )


def blobs(n=60):
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=draw) + 2 * labels[:, None]
    return x, labels


def test_one_step_by_hand():
    # loss (w - 3)^2 at w = 0: 9; slope -6; rate 1/4: w = 1.5; then loss 2.25
    model, x = linear(), torch.ones(4, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.25)
    seen = fit(model, nn.MSELoss(), x, 3 * x, epochs=2, batch_size=4, optimiser=sgd)
    assert seen.losses == [9.0, 2.25]
    assert model.weight.item() == 2.25


def test_gradients_are_clipped_by_length():
    model, x = linear(), torch.ones(4, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.25)
    fit(model, nn.MSELoss(), x, 3 * x, batch_size=4, optimiser=sgd, max_norm=1.0)
    assert model.weight.item() == pytest.approx(0.25, rel=1e-5)  # 1e-6 guards length 0


def test_every_sample_once_an_epoch_in_a_new_order():
    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.seen = nn.Parameter(torch.zeros(1)), []

        def forward(self, x):
            self.seen.append(x.flatten().tolist())
            return x * self.weight

    spy, x = Spy(), torch.arange(7.0)[:, None]
    fit(spy, nn.MSELoss(), x, x, epochs=2, batch_size=3)
    assert [len(batch) for batch in spy.seen] == [3, 3, 1, 3, 3, 1]
    first = [*chain(*spy.seen[:3])]
    second = [*chain(*spy.seen[3:])]
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second


def test_the_schedule_multiplies_the_rate():
    model, x = linear(), torch.ones(4, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.25)
    seen = []
    fit(
        model, nn.MSELoss(), x, 3 * x, epochs=2, batch_size=2, optimiser=sgd,
        schedule=lambda done: seen.append(done) or 1 - done,
    )  # fmt: skip
    assert seen == [0, 0.25, 0.5, 0.75]
    assert sgd.param_groups[0]["lr"] == 0.25  # its own again


def test_the_schedule_changes_each_step_and_no_later_run():
    # w -> w + 2 rate (3 - w): rate 1/4 halves the distance of 3, rate 1/8 leaves 3/4
    model, x = linear(), torch.ones(4, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.25)
    options = {"batch_size": 2, "optimiser": sgd, "schedule": lambda done: 1 - done}
    losses = fit(model, nn.MSELoss(), x, 3 * x, **options).losses
    assert losses == [9.0, 2.25] and 3 - model.weight.item() == 3 * 0.5 * 0.75
    again = linear()
    sgd.param_groups[0]["params"] = list(again.parameters())
    assert fit(again, nn.MSELoss(), x, 3 * x, **options).losses == losses


def test_the_rate_is_put_back_after_an_error_too():
    model, x = linear(), torch.full((4, 1), torch.inf)
    sgd = torch.optim.SGD(model.parameters(), 0.25)
    with pytest.raises(FloatingPointError):
        fit(model, nn.MSELoss(), x, x, optimiser=sgd, schedule=lambda done: 0.5)
    assert sgd.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_seed_decides_the_order_and_the_masks(dropout):
    x, labels = blobs()
    runs = []
    for outside, (seed, size) in enumerate(
        [(3, 16), (3, 16), (4, 16), (3, 60), (4, 60)]
    ):
        model = small(dropout)
        torch.manual_seed(outside)  # the caller's state neither matters nor changes
        before = torch.get_rng_state()
        runs.append(fit(model, nn.CrossEntropyLoss(), x, labels, epochs=2, seed=seed,
                        batch_size=size).losses)  # fmt: skip
        assert torch.equal(torch.get_rng_state(), before)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    if dropout == 0:  # one batch of all: the order is only that of a sum
        assert runs[3] == pytest.approx(runs[4], rel=1e-5)
    else:
        assert runs[3] != pytest.approx(runs[4], rel=1e-3)


def test_a_run_on_the_cpu_reseeds_no_gpu(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    fit(linear(), nn.MSELoss(), torch.ones(4, 1), torch.ones(4, 1))
    assert seeded == []


def test_a_run_on_one_gpu_reseeds_the_cpu_and_that_gpu(monkeypatch):
    gpus, forked = [torch.Generator().manual_seed(i) for i in (1, 2)], []
    monkeypatch.setattr(torch.cuda, "default_generators", gpus)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: fork(devices))
    state = torch.get_rng_state()

    def fork(devices):
        forked.extend(devices)
        return nullcontext()

    with training._seeded(7, torch.device("cuda", 1)):
        assert torch.initial_seed() == 7
    torch.set_rng_state(state)
    assert [gpu.initial_seed() for gpu in gpus] == [1, 7]
    assert forked == [torch.device("cuda", 1)]


@pytest.mark.gpu
def test_a_run_on_the_gpu_is_seeded_and_puts_the_gpus_state_back():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    x, labels = blobs()
    runs = []
    for outside, seed in enumerate([3, 3, 4]):
        model = small(dropout=0.5).cuda()
        torch.cuda.manual_seed(outside)
        before = torch.cuda.get_rng_state()
        seen = fit(model, nn.CrossEntropyLoss(), x, labels, seed=seed, batch_size=60)
        runs.append(seen.losses)
        assert torch.equal(torch.cuda.get_rng_state(), before)
    assert runs[0] == runs[1] != runs[2]


def test_it_learns_and_reports():
    x, labels = blobs()
    model, told = small(), []
    seen = fit(
        model, nn.CrossEntropyLoss(), x, labels, epochs=30, batch_size=20,
        learning_rate=1e-2, progress=lambda epoch, loss: told.append((epoch, loss)),
        evaluate=lambda m: (
            m.training, torch.is_grad_enabled(), accuracy(m, x, labels)),
    )  # fmt: skip
    assert seen.steps == [3 * epoch for epoch in range(1, 31)]
    assert len(seen.losses) == 90
    assert seen.scores[-1][:2] == (False, False)
    assert seen.scores[-1][2] > 0.9
    assert model.training
    assert told[0] == (1, pytest.approx(sum(seen.losses[:3]) / 3))
    assert [epoch for epoch, _ in told] == list(range(1, 31))


def test_float64_stays_float64():
    model = linear().double()
    x = torch.ones(4, 1, dtype=torch.float64)
    fit(model, nn.MSELoss(), x, x)
    assert model.weight.dtype == torch.float64


def test_a_loss_that_is_not_finite_is_reported_with_its_step():
    x = torch.ones(4, 1)
    x[0] = torch.inf
    with pytest.raises(FloatingPointError, match=r"not finite at step 1 \(epoch 1\)"):
        fit(linear(1.0), nn.MSELoss(), x, x, batch_size=4)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("epochs must be an integer >= 1, got 0", {"epochs": 0}),
        ("batch_size must be an integer >= 1, got 0", {"batch_size": 0}),
        ("seed must be an integer >= 0, got -1", {"seed": -1}),
        ("learning_rate must be a number >= 0, got -1", {"learning_rate": -1}),
        ("max_norm must be a number >= 0, got -2", {"max_norm": -2}),
        ("inputs must be a tensor of at least one sample", {"inputs": [1.0]}),
        ("targets must be a tensor of at least one", {"targets": torch.zeros(0, 1)}),
        ("one entry for each of the 4 inputs, got 3", {"targets": torch.ones(3, 1)}),
    ],
)
def test_errors(message, arguments):
    x = torch.ones(4, 1)
    arguments = {"inputs": x, "targets": x} | arguments
    with pytest.raises(ValueError, match=message):
        fit(linear(), nn.MSELoss(), **arguments)


def test_an_optimiser_has_its_own_rate():
    model, x = linear(), torch.ones(4, 1)
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="learning_rate must be left out beside"):
        fit(model, nn.MSELoss(), x, x, optimiser=adam, learning_rate=0.1)


def test_predict_runs_in_evaluation_mode_and_puts_the_mode_back():
    model = small(dropout=0.5).train()
    x, _ = blobs()
    got = predict(model, x, batch_size=7)
    assert model.training and not got.requires_grad
    torch.testing.assert_close(got, model.eval()(x).detach())
    model.eval()
    predict(model, x)
    assert not model.training
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1"):
        predict(model, x, batch_size=0)
    with pytest.raises(ValueError, match="inputs must be a tensor of at least one"):
        predict(model, x[:0])


def partly_frozen():
    model = small(dropout=0.5).train()
    model[2].eval()
    return model, [module.training for module in model.modules()]


def test_predict_leaves_a_frozen_part_frozen():
    model, modes = partly_frozen()
    predict(model, blobs()[0])
    assert [module.training for module in model.modules()] == modes


def test_predict_puts_the_modes_back_after_an_error():
    model, modes = partly_frozen()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict(model, torch.ones(2, 4))
    assert [module.training for module in model.modules()] == modes


def test_fit_trains_on_after_an_evaluation_that_fails():
    model, (x, labels) = small(), blobs()

    def evaluate(model):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fit(model, nn.CrossEntropyLoss(), x, labels, evaluate=evaluate)
    assert model.training and all(module.training for module in model.modules())


def test_accuracy_by_hand():
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    assert accuracy(nn.Identity(), scores, torch.tensor([0, 0, 0])) == pytest.approx(
        2 / 3
    )
    with pytest.raises(ValueError, match="one entry for each of the 3 inputs, got 2"):
        accuracy(nn.Identity(), scores, torch.tensor([0, 0]))


def test_accuracy_broadcasts_no_labels_and_takes_no_scores_over_time():
    scores, labels = torch.eye(4), torch.arange(4)
    assert accuracy(nn.Identity(), scores, labels) == 1
    with pytest.raises(ValueError, match=r"labels must be \(n,\), got shape \(4, 1\)"):
        accuracy(nn.Identity(), scores, labels[:, None])
    with pytest.raises(ValueError, match=r"give scores \(4, classes\), got .* 4, 5\)"):
        accuracy(nn.Identity(), torch.ones(4, 4, 5), labels)
    with pytest.raises(ValueError, match=r"give scores \(4, classes\), got .*\(16,\)"):
        accuracy(nn.Flatten(0), scores, labels)


def test_a_shared_or_frozen_weight_counts_once_or_not():
    layer = nn.Linear(4, 4)
    assert count_weights(nn.Sequential(layer, layer)) == 20
    assert count_weights(nn.Linear(4, 4).requires_grad_(False)) == 0
