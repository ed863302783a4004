"""One training loop for all chapters: a seed in, a history out.

Two seeds decide a run: the one that drew the model's first weights (the caller's) and
the `seed` given here, which orders the data and draws the dropout masks.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ckutils.checks import check_int, check_number


class History(NamedTuple):
    """What `fit` saw.

    losses: the loss of each step's batch, before that step changed the weights.
    steps: after which steps (counted from 1) `evaluate` was called.
    scores: what it returned there.
    """

    losses: list[float]
    steps: list[int]
    scores: list


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    epochs: int = 1,
    batch_size: int = 64,
    seed: int = 0,
    optimiser: torch.optim.Optimizer | None = None,
    learning_rate: float = 1e-3,
    schedule: Callable[[float], float] | None = None,
    max_norm: float | None = None,
    evaluate: Callable[[nn.Module], object] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> History:
    """Descend loss(model(inputs), targets) in shuffled batches; changes `model`.

    All chapters. The same model, data and seed give the same run on the same device.
    The caller's random state is neither used nor changed.

    Args:
        model: runs on the device of its parameters; batches are moved there.
        loss: (predictions, targets) of one batch -> a scalar, say a mean.
        inputs, targets: tensors with one entry a sample along axis 0, on any device.
        epochs, batch_size: passes over the data; the last batch may be smaller.
        seed: orders the batches (the same on every device) and draws the dropout masks.
        optimiser: over the model's parameters; None is Adam at `learning_rate`.
        schedule: fraction of the run done, in [0, 1) -> factor on the learning rate;
            the optimiser has its own rate again when the run ends.
        max_norm: longer gradients are scaled down to this length; None never.
        evaluate: called with the model in evaluation mode after each epoch, without
            gradients; its results are History.scores.
        progress: called after each epoch with its number (from 1) and its mean loss.
    Returns the History. Each epoch sets the whole model to training mode, parts that
        were in evaluation mode too, and leaves it there.
    Raises ValueError for inputs and targets of different lengths or none, for a count
        below 1, for both `optimiser` and another `learning_rate` than the default;
        FloatingPointError at the end of an epoch in which the loss was not finite.

    >>> model, x = nn.Linear(1, 1, bias=False), torch.ones(8, 1)
    >>> with torch.no_grad(): _ = model.weight.zero_()
    >>> sgd = torch.optim.SGD(model.parameters(), 0.5)
    >>> fit(model, nn.MSELoss(), x, 3 * x, batch_size=8, optimiser=sgd).losses
    [9.0]
    """
    check_int(1, epochs=epochs, batch_size=batch_size)
    check_int(0, seed=seed)
    check_number(0, max_norm=0 if max_norm is None else max_norm)
    _check_data(inputs, targets)
    optimiser = _optimiser(model, optimiser, learning_rate)
    device = next(model.parameters()).device
    step = _Step(model, loss, optimiser, max_norm)
    total = epochs * -(-len(inputs) // batch_size)
    history = History([], [], [])
    order = torch.Generator().manual_seed(seed)  # on the CPU: one order everywhere
    with _seeded(seed, device), _rates(optimiser, schedule, total) as set_rates:
        for epoch in range(1, epochs + 1):
            model.train()
            losses = []  # stays on the device: one transfer an epoch
            for rows in torch.randperm(len(inputs), generator=order).split(batch_size):
                set_rates(len(history.losses) + len(losses))
                batch = _rows(inputs, rows, device), _rows(targets, rows, device)
                losses.append(step(*batch))
            _record(history, epoch, torch.stack(losses), progress)
            if evaluate is not None:
                history.steps.append(len(history.losses))
                with _evaluating(model):
                    history.scores.append(evaluate(model))
    model.train()
    return history


def _optimiser(model: nn.Module, optimiser, learning_rate: float):
    if optimiser is None:
        check_number(0, learning_rate=learning_rate)
        return torch.optim.Adam(model.parameters(), learning_rate)
    if learning_rate != 1e-3:
        raise ValueError(
            f"learning_rate must be left out beside an optimiser, got {learning_rate}"
        )
    return optimiser


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The generators of the CPU and of `device` start at `seed`, then are put back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":  # torch.manual_seed would reseed the other GPUs too
            torch.cuda.default_generators[device.index].manual_seed(seed)
        elif device.type != "cpu":
            torch.manual_seed(seed)
        yield


@contextmanager
def _rates(optimiser, schedule, total: int) -> Iterator[Callable[[int], None]]:
    """What sets the rates after so many of `total` steps; put back in the end."""
    if schedule is None:
        yield lambda done: None
        return
    rates = [(group, group["lr"]) for group in optimiser.param_groups]

    def set_rates(done: int) -> None:
        for group, rate in rates:
            group["lr"] = rate * schedule(done / total)

    try:
        yield set_rates
    finally:
        for group, rate in rates:
            group["lr"] = rate


class _Step(NamedTuple):
    """One descent step; its call returns the batch's loss before the step."""

    model: nn.Module
    loss: Callable
    optimiser: torch.optim.Optimizer
    max_norm: float | None

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        value = self.loss(self.model(inputs), targets)
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimiser.step()
        return value.detach()


def _check_data(inputs: Tensor, targets: Tensor) -> None:
    for name, value in {"inputs": inputs, "targets": targets}.items():
        if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 0:
            raise ValueError(
                f"{name} must be a tensor of at least one sample, got "
                f"{tuple(value.shape) if isinstance(value, Tensor) else type(value)}"
            )
    if len(inputs) != len(targets):
        raise ValueError(
            f"targets must have one entry for each of the {len(inputs)} inputs, got "
            f"{len(targets)}"
        )


def _rows(data: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    return data[rows.to(data.device)].to(device)


def _record(history: History, epoch: int, losses: Tensor, progress) -> None:
    if not torch.isfinite(losses).all():
        at = len(history.losses) + int((~torch.isfinite(losses)).nonzero()[0]) + 1
        raise FloatingPointError(f"the loss is not finite at step {at} (epoch {epoch})")
    history.losses.extend(losses.tolist())
    if progress is not None:
        progress(epoch, float(losses.mean()))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; then every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        model.train(modes[0][1])  # for a model whose train() does more than set flags
        for module, mode in modes:
            module.training = mode


def predict(model: nn.Module, inputs: Tensor, *, batch_size: int = 500) -> Tensor:
    """model(inputs) in evaluation mode, batch by batch, without gradients.

    All chapters. The mode of every module is put back, after an error too.

    Args:
        model: runs on the device of its parameters.
        inputs: (n, ...), n >= 1, on any device.
        batch_size: samples at a time.
    Returns the predictions (n, ...) on the model's device.
    Raises ValueError if there is no sample or `batch_size` is below 1.

    >>> predict(nn.Dropout(0.5), torch.ones(2, 3))
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    check_int(1, batch_size=batch_size)
    _check_data(inputs, inputs)
    device = next((p.device for p in model.parameters()), inputs.device)
    with _evaluating(model):
        return torch.cat([model(x.to(device)) for x in inputs.split(batch_size)])


def accuracy(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, batch_size: int = 500
) -> float:
    """The fraction of samples whose largest output (n, classes) is at their label.

    All chapters.

    Args:
        model: (n, ...) -> scores (n, classes); runs in evaluation mode.
        inputs: (n, ...); labels: (n,), int64.
        batch_size: samples at a time.
    Returns a number in [0, 1].
    Raises ValueError if there is no sample, the lengths differ, or labels or scores
        have other axes.

    >>> accuracy(nn.Identity(), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    _check_data(inputs, labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must be (n,), got shape {tuple(labels.shape)}")
    scores = predict(model, inputs, batch_size=batch_size)
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(
            f"model must give scores ({len(labels)}, classes), got shape "
            f"{tuple(scores.shape)}"
        )
    best = scores.argmax(dim=1)
    return (best == labels.to(best.device)).double().mean().item()


def count_weights(model: nn.Module) -> int:
    """How many trainable numbers a model holds; a shared tensor counts once.

    All chapters.

    >>> count_weights(nn.Conv2d(3, 4, 5))
    304
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
