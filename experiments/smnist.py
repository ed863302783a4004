"""Sequential and permuted MNIST with CKCNN, and what omega_0 does.

    python -m experiments.smnist --data DIR [--epochs 200]

Chapter 3, section 3.15: an image is a sequence of 784 brightnesses. The published run
has 200 passes; `--epochs` says how many here. The sweep over omega_0 reads permuted
images of 14 x 14, 196 steps.
"""

import torch
import torch.nn.functional as F

from ckutils.datasets.shipped import ImageSplit
from ckutils.training import accuracy
from experiments.common import Experiment, arguments
from experiments.images import holdout, image_set, subset
from experiments.loop import shuffled
from experiments.sequences import ckcnn

OMEGAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
TASKS = {"sequential": 31.09, "permuted": 43.46}  # the published omega_0
ABOUT = (
    "MNIST, 60,000 + 10,000 images, of which 10,000 training images are kept to "
    "look at (the paper had no such split and stopped on the test set). CKCNN of "
    "98,286 numbers, two blocks of 30 channels, batches of 64, Adam at 0.001 (0.002 "
    "at most here, falling to 0), gradients within length 1, published omega_0, "
    "SIREN start, a norm per step. The sweep: permuted 14 x 14 images, 16 channels, "
    "10,000 training images, 400 steps at 0.004, accuracy on the kept images."
)
PUBLISHED = [
    {"what": "sequential MNIST, 98,286 numbers", "value": "99.31 %, 200 passes",
     "source": "Romero et al. (2021), arXiv:2102.02611"},
    {"what": "permuted MNIST, 98,286 numbers", "value": "98.00 %, 200 passes",
     "source": "Romero et al. (2021), arXiv:2102.02611"},
    {"what": "permuted MNIST, omega_0 from 1 to 100", "value": "98.54 to 65.22 %",
     "source": "Romero et al. (2021), arXiv:2102.02611"},
]  # fmt: skip


def as_sequences(split: ImageSplit, permuted: bool, pool: int = 1) -> ImageSplit:
    """(n, 1, pixels), normalised; if permuted, by one draw for all images."""
    mean, spread = 0.1307, 0.3081
    side = split.train_images.shape[-1] // pool
    order = torch.arange(side**2)
    if permuted:
        draw = torch.Generator().manual_seed(0)
        order = torch.randperm(side**2, generator=draw)
    parts = [
        ((F.avg_pool2d(images, pool) - mean) / spread).flatten(2)[..., order]
        for images in (split.train_images, split.test_images)
    ]
    return split._replace(train_images=parts[0], test_images=parts[1])


def long_run(case, data: ImageSplit, kept: ImageSplit, epochs: int) -> dict:
    """Train on 50,000; look at 200 of the kept as it goes; both sets at the end."""
    torch.manual_seed(case.seed)
    net = ckcnn(1, 10, 30, "last", case.settings["omega_0"], dropout=0.1)
    batch = shuffled(kept.train_images, kept.train_labels, 64, case.seed)
    look = kept.test_images[:200], kept.test_labels[:200]
    steps = 2 if case.quick else epochs * (len(kept.train_labels) // 64)
    run = case.train(
        net, F.cross_entropy, batch, steps=steps, learning_rate=2e-3, max_norm=1.0,
        evaluate=lambda m: accuracy(m, *look, batch_size=100),
        schedule=lambda s: min(1.0, 20 * s + 0.05) * (1 - s),
    )  # fmt: skip
    net.eval()
    case.note(scores=[list(pair) for pair in zip(run.steps, run.scores, strict=True)])
    return {
        "validation": accuracy(net, kept.test_images, kept.test_labels, batch_size=100),
        "test": accuracy(net, data.test_images, data.test_labels, batch_size=100),
        "passes": round(len(run.losses) * 64 / len(kept.train_labels), 2),
    }


def sweep(case, kept: ImageSplit, init: str) -> dict:
    torch.manual_seed(case.seed)
    net = ckcnn(1, 10, 16, "last", case.settings["omega_0"], init)
    part = subset(kept, 10_000, case.seed)
    batch = shuffled(part.train_images, part.train_labels, 64, case.seed)
    case.train(
        net, F.cross_entropy, batch, steps=4 if case.quick else 400,
        learning_rate=4e-3, max_norm=1.0, schedule=lambda s: 1 - s,
    )  # fmt: skip
    few = kept.test_images[:2000], kept.test_labels[:2000]
    return {"validation": accuracy(net.eval(), *few)}


def main(argv=None) -> dict:
    parser = arguments("smnist", __doc__)
    parser.add_argument("--epochs", type=int, default=200)
    args = parser.parse_args(argv)
    run = Experiment(
        "smnist", "Sequential and permuted MNIST", args, about=ABOUT,
        published=PUBLISHED,
        not_run=["the published 200 passes"] * (args.epochs < 200),
    )  # fmt: skip
    split = image_set(args, "mnist")
    held = holdout(split, len(split.train_labels) // 6)
    for seed in run.seeds(1):
        for omega_0 in OMEGAS[: 1 if run.quick else None]:
            for init in ("siren", "as-published"):
                run.case(
                    f"sweep, permuted 14 x 14, {init} start: omega_0 = {omega_0:g}",
                    lambda case, i=init: sweep(case, as_sequences(held, True, 2), i),
                    seed=seed, omega_0=omega_0,
                )  # fmt: skip
    for task, omega_0 in TASKS.items():
        permuted = task == "permuted"
        pool = 2 if run.quick else 1
        kept = as_sequences(held, permuted, pool)
        run.case(
            f"{task} MNIST, 784 steps",
            lambda case, p=permuted, k=kept, q=pool: long_run(
                case, as_sequences(split, p, q), k, args.epochs
            ),
            seed=args.seed, omega_0=omega_0,
        )  # fmt: skip
    return run.finish()


if __name__ == "__main__":
    main()
