"""Kronecker, low-rank and full layers on the full Fashion-MNIST: accuracy and numbers.

    python -m experiments.kronecker_fashion --data DIR

Chapter 2, section 2.9, at full size: one hidden layer of 256 units whose 784 x 256
matrix is full, full with fewer units, of low rank, or a sum of Kronecker products.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckutils.training import accuracy
from experiments.common import Experiment, arguments
from experiments.images import holdout, image_set
from experiments.loop import shuffled

SIZES = {
    "full": (256, 64, 16, 4),
    "Kronecker": (16, 4, 2, 1),
    "low rank": (16, 8, 4, 2, 1),
    "Kronecker, shuffled pixels": (4, 1),
    "frozen": (256,),
}
ABOUT = (
    "Fashion-MNIST, 60,000 + 10,000 images. The first layer holds the numbers of "
    "the label; 10 scores are read off its units (256 but for the smaller full "
    "ones). Six passes with Adam, the rate rising, then falling to 0; its peak, "
    "0.001 or 0.004, was chosen for each kind (at its largest size) on 10,000 of "
    "the training images. 'Shuffled' permutes the pixels of all images alike; "
    "'frozen' draws the first layer at random and keeps it."
)
PUBLISHED = [
    {"what": "Kronecker layers against full ones", "value": "3.6 times fewer numbers "
     "for 1 point of accuracy, on other tasks and networks",
     "source": "Zhou et al. (2015), arXiv:1512.09194"},
]  # fmt: skip


class KroneckerLayer(nn.Module):
    """x (b, 1, 28, 28) -> (b, 256): sum over r of left[r] x right[r]^T, flattened."""

    def __init__(self, rank: int):
        super().__init__()
        self.left = nn.Parameter(torch.randn(16, rank, 28) / (28 * rank) ** 0.5)
        self.right = nn.Parameter(torch.randn(28, rank, 16) / 28**0.5)

    def forward(self, x: Tensor) -> Tensor:
        z = x.squeeze(1) @ self.right.flatten(1)  # (b, 28, r 16)
        z = z.unflatten(2, (-1, 16)).transpose(1, 2).flatten(1, 2)  # (b, r 28, 16)
        return (self.left.flatten(1) @ z).flatten(1)  # (b, 256)


def first_layer(kind: str, size: int) -> tuple[list[nn.Module], int]:
    """The layers that stand for the 784 x 256 matrix, and how many units they give."""
    if kind.startswith("Kronecker"):
        return [KroneckerLayer(size)], 256
    wide = nn.Linear(784, size, bias=False)
    if kind == "low rank":
        return [nn.Flatten(), wide, nn.Linear(size, 256, bias=False)], 256
    return [nn.Flatten(), wide.requires_grad_(kind != "frozen")], size


def numbers(kind: str, size: int) -> int:
    """How many the first layer holds."""
    first, _ = first_layer(kind, size)
    return sum(p.numel() for part in first for p in part.parameters())


def prepared(split, kind: str):
    """The images with mean 0 and spread 1, the pixels in another order if shuffled."""
    mean, spread = split.train_images.mean(), split.train_images.std()
    order = torch.arange(784)
    if "shuffled" in kind:
        order = torch.randperm(784, generator=torch.Generator().manual_seed(0))
    images = [
        ((part - mean) / spread).flatten(1)[:, order].view_as(part)
        for part in (split.train_images, split.test_images)
    ]
    return split._replace(train_images=images[0], test_images=images[1])


def score(case, split, kind: str, size: int, rate: float) -> dict:
    torch.manual_seed(case.seed)
    first, units = first_layer(kind, size)
    net = nn.Sequential(*first, nn.ReLU(), nn.Linear(units, 10)).to(case.device)
    split = prepared(split, kind)
    batch = shuffled(split.train_images, split.train_labels, 100, case.seed)
    epochs = 2 if case.quick else 6
    case.train(
        net, F.cross_entropy, batch, steps=epochs * (len(split.train_labels) // 100),
        learning_rate=rate, schedule=lambda s: min(1.0, 10 * s + 0.1) * (1 - s),
    )  # fmt: skip
    return {
        "test": accuracy(net, split.test_images, split.test_labels),
        "numbers in the first layer": numbers(kind, size),
    }


def choose(case, split, kind: str, size: int) -> dict:
    seen = {}
    for rate in (1e-3, 4e-3):
        case.checkpoint.unlink(missing_ok=True)
        seen[rate] = score(case, split, kind, size, rate)["test"]
    best = max(seen, key=seen.get)
    return {"validation": seen[best], "rate": best}


def main(argv=None) -> dict:
    args = arguments("kronecker_fashion", __doc__).parse_args(argv)
    run = Experiment(
        "kronecker_fashion", "Kronecker layers on Fashion-MNIST, 60,000 images", args,
        about=ABOUT, published=PUBLISHED, not_run=["the tasks of Zhou et al."],
    )  # fmt: skip
    split = image_set(args, "fashion-mnist")
    held = holdout(split, len(split.train_labels) // 6)
    rates = {}
    for kind in ("full", "Kronecker", "low rank"):
        pick = run.case(
            f"choice of rate: {kind}",
            lambda case, k=kind: choose(case, held, k, SIZES[k][0]),
        )
        rates[kind] = pick["results"]["rate"] if pick else 1e-3
    rates |= {"Kronecker, shuffled pixels": rates["Kronecker"], "frozen": rates["full"]}
    for seed in run.seeds(3):
        for kind, sizes in SIZES.items():
            for size in sizes[:1] if run.quick else sizes:
                run.case(
                    f"{kind}, {numbers(kind, size):,} numbers",
                    lambda case, k=kind, s=size: score(case, split, k, s, rates[k]),
                    seed=seed, rate=rates[kind], size=size,
                )  # fmt: skip
    return run.finish()


if __name__ == "__main__":
    main()
