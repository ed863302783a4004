"""A training loop for runs of hours: it survives interruptions, and it may be spread.

Step k of a run depends on the seed, on k and on the weights, on nothing else: the batch
and the dropout masks are functions of k. A run that resumes from its last checkpoint
therefore repeats the very numbers of one that was never interrupted.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ckutils.checks import check_int, check_number


class Trained(NamedTuple):
    """What `train` saw.

    losses: of each step's global batch, before that step changed the weights.
    steps, scores: after which steps (counted from 1) `evaluate` was called, and what
        it returned.
    seconds, cpu_seconds: on the clock and of this process, interruptions left out.
    stopped: "end" | "solved" | "cpu budget" | "time".
    """

    losses: list[float]
    steps: list[int]
    scores: list
    seconds: float
    cpu_seconds: float
    stopped: str


def ranks() -> tuple[int, int]:
    """This process's number, and how many processes train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def wait_for_all() -> None:
    if ranks()[1] > 1:
        dist.barrier()


def shuffled(
    inputs: Tensor, targets: Tensor, batch_size: int, seed: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """step -> the batch of that step: every epoch in a new order, only full batches.

    >>> batch = shuffled(torch.arange(5), torch.arange(5), 2, seed=0)
    >>> sorted(torch.cat([batch(0)[0], batch(1)[0]]).tolist()) != [0, 0, 1, 1]
    True
    """
    check_int(1, batch_size=batch_size)
    check_int(0, seed=seed)
    a_pass = len(inputs) // batch_size
    if a_pass == 0:
        raise ValueError(
            f"batch_size must be at most the {len(inputs)} samples, got {batch_size}"
        )
    kept = {}

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, a_pass)
        if epoch not in kept:
            draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            kept.clear()
            kept[epoch] = torch.randperm(len(inputs), generator=draw)
        rows = kept[epoch][place * batch_size : (place + 1) * batch_size]
        return inputs[rows], targets[rows]

    return batch


def train(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    batch: Callable[[int], tuple[Tensor, Tensor]],
    *,
    steps: int,
    seed: int = 0,
    optimiser: torch.optim.Optimizer | None = None,
    learning_rate: float = 1e-3,
    schedule: Callable[[float], float] | None = None,
    max_norm: float | None = None,
    every: int = 100,
    evaluate: Callable[[nn.Module], object] | None = None,
    solved: Callable[[object], bool] | None = None,
    cpu_budget: float = float("inf"),
    deadline: float = float("inf"),
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Trained:
    """Descend the mean `loss` of batch(0), batch(1), ...; changes `model`.

    In a process group each process takes its share of every batch, and gradients are
    averaged: the losses are those of one process with the whole batch, to rounding.

    Args:
        model: on the device where it is to run.
        loss: (predictions, targets) -> the mean over the batch.
        batch: number of the step, from 0 -> (inputs, targets), a function of it alone.
        steps, every: at most so many; after each `every` (and the last) it evaluates
            in evaluation mode, keeps a checkpoint and looks at the limits.
        seed: of the dropout masks.
        optimiser: over the model's parameters; None is Adam at `learning_rate`.
        schedule: fraction of `steps` done -> factor on the learning rate.
        max_norm: longer gradients are scaled to this length.
        solved: score -> whether to stop.
        cpu_budget: seconds of this process; deadline: on time.monotonic().
        checkpoint: a file; if it exists the run goes on from there.
        progress: (step, steps, loss) -> None, after each step.
    Returns Trained. Raises ValueError if processes cannot share a batch equally,
        FloatingPointError at a loss that is not finite.
    """
    check_int(1, steps=steps, every=every)
    check_int(0, seed=seed)
    check_number(0, max_norm=0 if max_norm is None else max_norm)
    optimiser = optimiser or torch.optim.Adam(model.parameters(), learning_rate)
    wait_for_all()  # a checkpoint that one has removed is not read by another
    descent = _Descent(model, loss, optimiser, schedule, max_norm, steps)
    state = _State(model, optimiser, checkpoint)
    clock = _Clock(state.seconds, state.cpu_seconds)
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while len(state.losses) < steps and state.stopped == "":
            at = len(state.losses)
            model.train()
            torch.manual_seed((seed << 40) + (at << 8) + ranks()[0])
            state.losses.append(descent(at, *_share(*batch(at)), device))
            if progress is not None:
                progress(at + 1, steps, state.losses[-1])
            if (at + 1) % every == 0 or at + 1 == steps:
                score = _score(model, evaluate)
                state.steps.append(at + 1)
                state.scores.append(score)
                state.seconds, state.cpu_seconds = clock.read()
                state.stopped = _why_stop(
                    solved is not None and solved(score),
                    state.cpu_seconds > cpu_budget,
                    time.monotonic() > deadline,
                )
                state.save()
    model.train()
    return Trained(
        state.losses, state.steps, state.scores, state.seconds, state.cpu_seconds,
        state.stopped or "end",
    )  # fmt: skip


class _Descent:
    """One step of descent on this process's share; returns the global batch's loss."""

    def __init__(self, model, loss, optimiser, schedule, max_norm, steps):
        self.model, self.loss, self.optimiser = model, loss, optimiser
        self.schedule, self.max_norm, self.steps = schedule, max_norm, steps
        self.rates = [group["lr"] for group in optimiser.param_groups]
        self.shared = DistributedDataParallel(model) if ranks()[1] > 1 else model

    def __call__(self, at: int, inputs: Tensor, targets: Tensor, device) -> float:
        if self.schedule is not None:
            factor = self.schedule(at / self.steps)
            for group, rate in zip(
                self.optimiser.param_groups, self.rates, strict=True
            ):
                group["lr"] = rate * factor
        value = self.loss(self.shared(inputs.to(device)), targets.to(device))
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimiser.step()
        value = value.detach()
        if ranks()[1] > 1:
            dist.all_reduce(value)
            value /= ranks()[1]
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss is not finite at step {at + 1}")
        return float(value)


class _State:
    """All that a run must remember, and the file it is kept in."""

    def __init__(self, model, optimiser, file: Path | None):
        self.model, self.optimiser, self.file = model, optimiser, file
        self.losses, self.steps, self.scores = [], [], []
        self.seconds, self.cpu_seconds, self.stopped = 0.0, 0.0, ""
        if file is not None and file.exists():
            kept = torch.load(file, weights_only=True, map_location="cpu")
            model.load_state_dict(kept.pop("model"))
            optimiser.load_state_dict(kept.pop("optimiser"))
            self.__dict__.update(kept)
            # what stopped for want of time may go on
            self.stopped = self.stopped if self.stopped == "solved" else ""

    def save(self) -> None:
        if self.file is None or ranks()[0] > 0:
            return
        kept = {k: v for k, v in self.__dict__.items() if k not in _NOT_KEPT}
        kept["model"] = self.model.state_dict()
        kept["optimiser"] = self.optimiser.state_dict()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_suffix(".new")
        torch.save(kept, new)
        os.replace(new, self.file)  # at no moment is there half a checkpoint


_NOT_KEPT = ("model", "optimiser", "file")


class _Clock:
    def __init__(self, seconds: float, cpu_seconds: float):
        self.start = time.monotonic() - seconds, time.process_time() - cpu_seconds

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self.start[0], time.process_time() - self.start[1]


def _share(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    rank, world = ranks()
    if len(inputs) % world:
        raise ValueError(
            f"the batch of {len(inputs)} must be a multiple of the {world} processes"
        )
    return inputs[rank::world], targets[rank::world]


@torch.no_grad()
def _score(model: nn.Module, evaluate):
    model.eval()
    return None if evaluate is None else evaluate(model)


def _why_stop(solved: bool, over_budget: bool, late: bool) -> str:
    """The same answer in every process: that of the first."""
    reasons = ("", "time", "cpu budget", "solved")
    why = 3 if solved else 2 if over_budget else 1 if late else 0
    if ranks()[1] > 1:
        box = [why]
        dist.broadcast_object_list(box, src=0)
        why = box[0]
    return reasons[why]
