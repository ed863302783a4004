"""Where the kernel network starts: SIREN's bounds against those of the released code.

    python -m experiments.starts --data DIR

Chapter 3, section 3.6. In the released code weight normalisation is attached before the
SIREN bounds are drawn, which therefore never take effect. Three tasks, five seeds.
"""

import torch
import torch.nn.functional as F

from ckutils.training import accuracy, count_weights
from experiments.common import Experiment, arguments
from experiments.digits import MeanOverTime, heard, parts
from experiments.images import holdout, image_set, subset
from experiments.loop import shuffled
from experiments.memory import TASKS
from experiments.sequences import ckcnn
from experiments.smnist import as_sequences

STARTS = ("siren", "as-published")
OMEGAS = (5.0, 15.0, 45.0)
ABOUT = (
    "The same CKCNN from two starts, five seeds each. Each start has its own "
    "omega_0 and rate of learning (5, 15, 45; 0.002, 0.01), chosen with another "
    "seed on sequences that are not tested. Copy memory, T = 100: steps until "
    "solved (as in its own section), 1,000 at most. Permuted MNIST at 14 x 14, "
    "10,000 images, and spoken digits at 2 kHz: test accuracy after 300 steps."
)


def memory(case, task: str, init: str, settings: dict, steps: int) -> dict:
    """Steps until solved (or the limit), and the score then."""
    maker, c_in, c_out, head, loss, score, solved = TASKS[task]
    length = 20 if case.quick else 100
    torch.manual_seed(case.seed)
    net = ckcnn(c_in, c_out, 10, head, settings["omega_0"], init).to(case.device)
    x, y = maker(300, length, seed=(case.seed * 10 + 1) * 1_000_000)
    x, y = x.to(case.device), y.to(case.device)
    run = case.train(
        net, loss, lambda s: maker(32, length, seed=case.seed * 10_000_000 + s + 1),
        steps=steps, learning_rate=settings["rate"], max_norm=1.0, every=25,
        evaluate=lambda m: score(m, x, y), solved=solved,
    )  # fmt: skip
    return {
        "steps": run.steps[-1],
        "solved": float(run.stopped == "solved"),
        "score": float(f"{run.scores[-1]:.4g}"),
    }


def classify(case, sets, init: str, settings: dict, steps: int, part: str) -> dict:
    """Test accuracy of a network on `sets`: name -> (inputs, labels)."""
    torch.manual_seed(case.seed)
    x, labels = sets["train"]
    options = {"horizon": x.shape[-1] // 4} if sets["mean"] else {}
    head = "all" if sets["mean"] else "last"
    net = ckcnn(1, 10, 12, head, settings["omega_0"], init, **options)
    net = MeanOverTime(net) if sets["mean"] else net
    case.train(
        net, F.cross_entropy, shuffled(x, labels, 32, case.seed), steps=steps,
        learning_rate=settings["rate"], max_norm=1.0, schedule=lambda s: 1 - s,
    )  # fmt: skip
    case.note(parameters=count_weights(net))
    return {"accuracy": accuracy(net.eval(), *sets[part], batch_size=100)}


def choose(case, work) -> dict:
    """The settings with the best short run: fewest steps, best score."""
    seen = []
    for omega_0 in OMEGAS[: 1 if case.quick else None]:
        for rate in (2e-3, 1e-2):
            case.checkpoint.unlink(missing_ok=True)
            settings = {"omega_0": omega_0, "rate": rate}
            seen.append((*rank(work(settings)), omega_0, rate))
    case.note(grid=[list(row) for row in seen])
    return {"omega_0": min(seen)[-2], "rate": min(seen)[-1]}


def rank(results: dict) -> tuple[float, float]:
    """Smaller is better: steps, then the score, falling for a fraction."""
    if "accuracy" in results:
        return 0.0, -results["accuracy"]
    score = results["score"]
    return (1 - results["solved"]) * 1e9 + results["steps"], score


def main(argv=None) -> dict:
    args = arguments("starts", __doc__).parse_args(argv)
    run = Experiment(
        "starts", "Two starts of the kernel network", args, about=ABOUT,
        not_run=["the tasks at full length, and the adding problem"],
    )  # fmt: skip
    held = as_sequences(
        holdout(image_set(args, "mnist"), 60 if run.quick else 2000), True, 2
    )
    data = {"permuted MNIST, 14 x 14": images_of(image_set(args, "mnist"), held),
            "spoken digits, 2 kHz": digits_of(run.quick)}  # fmt: skip
    limit, steps = (6, 4) if run.quick else (1000, 300)
    for task in ("copy", *data):
        for init in STARTS:

            def work(case, settings, final=True, task=task, init=init):
                if task in data:
                    part = "test" if final else "choose"
                    count = steps if final else max(1, steps // 2)
                    return classify(case, data[task], init, settings, count, part)
                return memory(
                    case, task, init, settings, limit if final else limit // 3
                )

            pick = run.case(
                f"{task}, {init} start: choice",
                lambda case, w=work: choose(case, lambda s: w(case, s, False)),
                seed=args.seed + 100,
            ).get("results")  # fmt: skip
            for seed in run.seeds(5) if pick else ():
                run.case(
                    f"{task}, {init} start",
                    lambda case, w=work, p=pick: w(case, p), seed=seed, **pick,
                )  # fmt: skip
    return run.finish()


def images_of(split, held) -> dict:
    """Short sequences of pixels: 10,000 to train, 2,000 to choose, 2,000 to test."""
    part = subset(held, 10_000, 0)
    test = as_sequences(split, True, 2)
    return {
        "train": (part.train_images, part.train_labels),
        "choose": (held.test_images, held.test_labels),
        "test": (test.test_images[:2000], test.test_labels[:2000]), "mean": False,
    }  # fmt: skip


def digits_of(quick: bool) -> dict:
    return parts(*heard(2000, quick)) | {"mean": True}


if __name__ == "__main__":
    main()
