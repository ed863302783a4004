"""One training loop for all chapters: a seed in, a history out.

Two seeds decide a run: the one that drew the model's first weights (the caller's) and
the `seed` given here, which orders the data and draws the dropout masks.
"""

from collections.abc import Callable
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
        schedule: fraction of the run done, in [0, 1) -> factor on the learning rate.
        max_norm: longer gradients are scaled down to this length; None never.
        evaluate: called with the model in evaluation mode after each epoch, without
            gradients; its results are History.scores.
        progress: called after each epoch with its number (from 1) and its mean loss.
    Returns the History. The model is left in training mode.
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
    set_rate = _rate_setter(optimiser, schedule, epochs * -(-len(inputs) // batch_size))
    history = History([], [], [])
    order = torch.Generator().manual_seed(seed)  # on the CPU: one order everywhere
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for epoch in range(1, epochs + 1):
            model.train()
            losses = []  # stays on the device: one transfer an epoch
            for rows in torch.randperm(len(inputs), generator=order).split(batch_size):
                set_rate(len(history.losses) + len(losses))
                batch = _rows(inputs, rows, device), _rows(targets, rows, device)
                losses.append(step(*batch))
            _record(history, epoch, torch.stack(losses), progress)
            if evaluate is not None:
                history.steps.append(len(history.losses))
                history.scores.append(_evaluated(model, evaluate))
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


def _rate_setter(optimiser, schedule, total: int) -> Callable[[int], None]:
    rates = [group["lr"] for group in optimiser.param_groups]

    def set_rate(done: int) -> None:
        if schedule is not None:
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(done / total)

    return set_rate


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


@torch.no_grad()
def _evaluated(model: nn.Module, evaluate: Callable):
    model.eval()
    return evaluate(model)


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, *, batch_size: int = 500) -> Tensor:
    """model(inputs) in evaluation mode, batch by batch, without gradients.

    All chapters. The model's own mode is put back afterwards.

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
    training = model.training
    model.eval()
    parts = [model(part.to(device)) for part in inputs.split(batch_size)]
    model.train(training)
    return torch.cat(parts)


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
    Raises ValueError if there is no sample or the lengths differ.

    >>> accuracy(nn.Identity(), torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    _check_data(inputs, labels)
    best = predict(model, inputs, batch_size=batch_size).argmax(dim=1)
    return (best == labels.to(best.device)).double().mean().item()


def count_weights(model: nn.Module) -> int:
    """How many trainable numbers a model holds; a shared tensor counts once.

    All chapters.

    >>> count_weights(nn.Conv2d(3, 4, 5))
    304
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
