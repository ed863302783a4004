"""Heart rates with missing hours: zeros, a mask, order only, true times.

    python -m experiments.vitals

Chapter 3, section 3.16. From hourly heart rates 30, 50 or 70 % of the measurements are
dropped; a causal CKConv guesses each dropped one from those kept before it.
"""

import torch
from torch import Tensor, nn

from ckutils.ckconv import CKConv
from ckutils.datasets import vital_signs
from experiments.common import Experiment, arguments
from experiments.loop import shuffled

HOURS = 48
ABOUT = (
    "Heart rates of the hospital stays with at least 30 measurements in the first "
    "48 hours; whole stays train (70 %), choose omega_0 (15 %) and test (15 %). One "
    "CKConv of 8 channels and a small network at each hour; 500 steps with Adam. "
    "The score is the mean squared error over the variance, 1 for a guess of the "
    "mean. On an hourly grid zeros with a mask and true times with equal weights "
    "are the same function (chapter 3, section 3.16), so they share a row. The last "
    "row needs no training."
)


def stays(quick: bool) -> Tensor:
    """(stays, 48): heart rate less its mean over its spread, NaN where not measured."""
    rows, data = [], vital_signs()
    column = data.names.index("HR")
    for values, hours in zip(data.values, data.hours, strict=True):
        row = torch.full((HOURS,), torch.nan)
        early = hours <= HOURS
        row[hours[early] - 1] = values[early, column]
        if row.isfinite().sum() >= 30:
            rows.append(row)
    x = torch.stack(rows[: 80 if quick else None])
    known = x[x.isfinite()]
    return (x - known.mean()) / known.std()


def dropped(x: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (n, 2, 48): value or 0, kept or not; targets (n, 48), NaN if not asked."""
    draw = torch.Generator().manual_seed(seed)
    kept = x.isfinite() & (torch.rand(x.shape, generator=draw) >= share)
    before = kept.cumsum(1) > 0
    asked = x.isfinite() & ~kept & before
    values = torch.where(kept, x, 0)
    return torch.stack([values, kept.float()], 1), torch.where(asked, x, torch.nan)


def with_zeros(layer: CKConv, values: Tensor, kept: Tensor) -> Tensor:
    return layer(torch.stack([values, torch.zeros_like(values)], 1))


def with_mask(layer: CKConv, values: Tensor, kept: Tensor) -> Tensor:
    return layer(torch.stack([values, kept], 1))


def by_order(layer: CKConv, values: Tensor, kept: Tensor) -> Tensor:
    """The samples as if they had come one after another, without their times."""
    rank = kept.cumsum(1) - 1
    pair = torch.stack([values, torch.ones_like(values)], 1)
    return layer.at(rank, pair, rank, weights=kept)


def by_density(layer: CKConv, values: Tensor, kept: Tensor) -> Tensor:
    """True times; each sample stands for the gap before it, in units of the mean."""
    hours = torch.arange(HOURS, dtype=values.dtype, device=values.device)
    seen = torch.where(kept > 0, hours, -1.0).cummax(1).values
    last = torch.cat([torch.full_like(seen[:, :1], -1.0), seen[:, :-1]], 1)
    weights = kept * (hours - last) * kept.mean(1, keepdim=True)
    pair = torch.stack([values, torch.ones_like(values)], 1)
    return layer.at(hours, pair, hours, weights=weights)


PRESENTED = {
    "zeros, no mask": with_zeros,
    "zeros and a mask, or true times": with_mask,
    "order only": by_order,
    "true times, 1/density": by_density,
}


class FillIn(nn.Module):
    def __init__(self, present, omega_0: float):
        super().__init__()
        self.layer = CKConv(2, 8, horizon=HOURS, omega_0=omega_0)
        self.head = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        self.present = present

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.present(self.layer, x[:, 0], x[:, 1]).mT)[..., 0]


def asked_error(guess: Tensor, target: Tensor) -> Tensor:
    asked = target.isfinite()
    return (guess[asked] - target[asked]).square().mean()


def last_value(x: Tensor) -> Tensor:
    """The last kept value before each hour."""
    hours = torch.arange(HOURS)
    at = torch.where(x[:, 1] > 0, hours, 0).cummax(1).values
    return x[:, 0].gather(1, at)


def relative(guess: Tensor, target: Tensor) -> float:
    known = target[target.isfinite()]
    return float(asked_error(guess, target) / known.var(correction=0))


def trained(case, data, name: str, share: float, omega_0: float) -> nn.Module:
    torch.manual_seed(case.seed)
    model = FillIn(PRESENTED[name], omega_0)
    batch = shuffled(
        *dropped(data["train"], share, case.seed), 16 if case.quick else 64, case.seed
    )
    case.train(
        model, asked_error, batch, steps=case.settings["steps"], learning_rate=5e-3,
        max_norm=1.0, schedule=lambda s: 1 - s,
    )  # fmt: skip
    return model.eval()


@torch.no_grad()
def scored(case, model, data, part: str, share: float) -> float:
    x, target = (t.to(case.device) for t in dropped(data[part], share, 10_000))
    guess = torch.cat([model(rows) for rows in x.split(100)])
    return round(relative(guess, target), 4)


def evaluate(case, data, name: str, share: float) -> dict:
    if name == "the last value again":
        x, target = dropped(data["test"], share, 10_000)
        return {"error / variance": round(relative(last_value(x), target), 4)}
    model = trained(case, data, name, share, case.settings["omega_0"])
    return {"error / variance": scored(case, model, data, "test", share)}


def choose(case, data, share: float) -> dict:
    seen = {}
    for omega_0 in (3.0, 10.0, 30.0):
        case.checkpoint.unlink(missing_ok=True)
        model = trained(case, data, "zeros and a mask, or true times", share, omega_0)
        seen[omega_0] = scored(case, model, data, "choose", share)
    case.note(grid=[[*pair] for pair in seen.items()])
    best = min(seen, key=seen.get)
    return {"held-out error / variance": seen[best], "omega_0": best}


def main(argv=None) -> dict:
    args = arguments("vitals", __doc__).parse_args(argv)
    run = Experiment(
        "vitals", "Heart rates with missing hours", args, about=ABOUT,
        not_run=["the published sepsis and CharacterTrajectories tables, whose data or "
                 "splits are not public by package"],
    )  # fmt: skip
    x = stays(run.quick)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(11))
    n = len(x)
    cuts = order.split([n - 2 * (3 * n // 20), 3 * n // 20, 3 * n // 20])
    names = ("train", "choose", "test")
    data = {name: x[rows] for name, rows in zip(names, cuts, strict=True)}
    steps = 3 if run.quick else 500
    for share in (0.3, 0.5, 0.7):
        pick = run.case(
            f"{share:.0%} dropped: choice of omega_0",
            lambda case, p=share: choose(case, data, p), steps=steps,
        ).get("results")  # fmt: skip
        for seed in run.seeds(3) if pick else ():
            for name in (*PRESENTED, "the last value again"):
                settings = {"omega_0": pick["omega_0"], "steps": steps}
                if name == "the last value again":
                    if seed != args.seed:
                        continue
                    settings = {}
                run.case(
                    f"{share:.0%} dropped: {name}",
                    lambda case, p=share, m=name: evaluate(case, data, m, p),
                    seed=seed, **settings,
                )  # fmt: skip
    return run.finish()


if __name__ == "__main__":
    main()
