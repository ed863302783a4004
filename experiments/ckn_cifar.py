"""CKN on whitened CIFAR-10 without labels: the published shapes of two layers.

    python -m experiments.ckn_cifar --data DIR [--shapes 64-256 256-1024 512-8192]

Chapter 5. Patches of 3 x 3, Gaussian pooling with strides 2 and 6. The anchors come
from the training images without their labels; the classifier (ridge or squared hinge)
and its penalty are chosen on 10,000 of the 50,000 training labels; then the
classifier is fitted to all 50,000 and looks once at the test images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ckutils import ckn
from ckutils.training import count_weights
from experiments.common import Experiment, arguments
from experiments.images import image_set
from experiments.ridge import ridge_path

BETA = 1 / 0.6**2  # sigma = 0.6, as in the reference code
PENALTIES = (1e-5, 1e-4, 1e-3)
ABOUT = (
    "CIFAR-10, 50,000 + 10,000 images, no augmentation; each image minus its mean "
    "over its spread, then ZCA whitening with 0.1 added to the eigenvalues (the "
    "whitened file that the reference code reads was not to be had, so ours may "
    "differ from it). beta = 2.78 is sigma = 0.6 as there; the other beta was "
    "chosen among 1, 1.7 and 2.78 on 13,000 training images. Anchors: spherical "
    "k-means on patches of 5,000 training images, no labels. Chosen on 10,000 held- "
    "out training labels: ridge or squared hinge, and the penalty. A test accuracy "
    "has a standard error of 0.4 points."
)
PUBLISHED = [
    {"what": f"unsupervised, whitened, {shape}", "value": f"{value} %",
     "source": "the reference code's table, D. Chen, CKN-Pytorch-image"}
    for shape, value in (("64-256", 77.5), ("256-1024", 82.0), ("512-8192", 84.0))
]  # fmt: skip


def whitened(train: Tensor, test: Tensor, ridge: float = 0.1) -> tuple[Tensor, Tensor]:
    """Both sets, (n, c, h, w), contrast-normalised and ZCA-whitened by the first."""
    flat = [_contrast(images.flatten(1)) for images in (train, test)]
    mean = flat[0].mean(0)
    centred = flat[0] - mean
    values, vectors = torch.linalg.eigh(centred.mT @ centred / len(centred))
    zca = (vectors * (values.clamp_min(0) + ridge).rsqrt()) @ vectors.mT
    return tuple(
        ((part - mean) @ zca).view_as(images)
        for part, images in zip(flat, (train, test), strict=True)
    )


def _contrast(rows: Tensor) -> Tensor:
    rows = rows - rows.mean(1, keepdim=True)
    # 10 grey levels^2 keep flat images from becoming noise
    return rows / (rows.square().mean(1, keepdim=True) + 10 / 255**2).sqrt()


def hinge(x: Tensor, labels: Tensor, penalty: float, start: nn.Linear) -> nn.Linear:
    """One against all: mean (1 - t f)_+^2 + penalty m |W|^2 by L-BFGS from `start`."""
    targets = 2 * F.one_hot(labels).to(x.dtype) - 1
    weight = start.weight.detach().clone().requires_grad_()
    bias = start.bias.detach().clone().requires_grad_()
    scale = penalty * (x - x.mean(0)).square().sum(1).mean()
    descent = torch.optim.LBFGS(
        [weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe"
    )

    def value():
        descent.zero_grad()
        margin = (1 - targets * (x @ weight.mT + bias)).clamp_min(0)
        loss = margin.square().sum(1).mean() + scale * weight.square().sum()
        loss.backward()
        return loss

    descent.step(value)
    fitted = nn.utils.skip_init(nn.Linear, *weight.shape[::-1]).to(x)
    with torch.no_grad():
        fitted.weight.copy_(weight), fitted.bias.copy_(bias)
    return fitted


@torch.no_grad()
def features(case, shape: str, beta: float, train: Tensor, test: Tensor):
    """Both sets through a network whose anchors saw the first, without labels."""
    p1, p2 = (int(p) for p in shape.split("-"))
    torch.manual_seed(case.seed)
    kernel = {"kernel": ckn.Exponential(beta), "padding": 1}
    net = ckn.CKN([
        ckn.CKNLayer(3, p1, 3, subsampling=2, **kernel),
        ckn.CKNLayer(p1, p2, 3, subsampling=6, **kernel),
    ]).to(case.device)  # fmt: skip
    patches = 2000 if case.quick else max(30_000, 20 * p2)
    net.fit_unsupervised(
        train, patches=patches, sample=min(5000, len(train)), seed=case.seed
    )
    case.note(parameters=count_weights(net))
    return [net.encode(images, batch_size=100) for images in (train, test)]


def classifiers(x: Tensor, labels: Tensor, kinds) -> dict:
    """(kind, penalty) -> a linear classifier."""
    made = {}
    for penalty, ridge in ridge_path(x, labels, sorted({p for _, p in kinds})).items():
        if ("ridge", penalty) in kinds:
            made["ridge", penalty] = ridge
        if ("hinge", penalty) in kinds:
            made["hinge", penalty] = hinge(x, labels, penalty, ridge)
    return made


@torch.no_grad()
def right(classifier: nn.Linear, x: Tensor, labels: Tensor) -> float:
    return float((classifier(x).argmax(1) == labels).double().mean())


def evaluate(case, shape: str, beta: float, data) -> dict:
    """Choose the classifier on held-out labels, fit it to all, test it once."""
    (train, test), labels, test_labels = data
    x, x_test = features(case, shape, beta, train, test)
    held = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    draw = torch.Generator().manual_seed(2026)
    held[torch.randperm(len(x), generator=draw)[: len(x) // 5]] = True
    kinds = {(kind, p) for kind in ("ridge", "hinge") for p in PENALTIES}
    seen = {
        kind: right(fitted, x[held], labels[held])
        for kind, fitted in classifiers(x[~held], labels[~held], kinds).items()
    }
    best = max(seen, key=seen.get)
    case.note(grid=[[*kind, score] for kind, score in seen.items()])
    result = {"validation": seen[best], "classifier": best[0], "penalty": best[1]}
    fitted = classifiers(x, labels, {best})[best]
    return result | {"test": right(fitted, x_test, test_labels)}


def choose_beta(case, shape: str, train: Tensor, labels: Tensor) -> dict:
    """Ridge on the first 10,000 training images, scored on the 3,000 after them."""
    cut = (100, 40) if case.quick else (10_000, 3000)
    first, held = train[: cut[0]], train[cut[0] : sum(cut)]
    y, wanted = labels[: cut[0]], labels[cut[0] : sum(cut)]
    seen = {}
    for beta in (1.0, 1.7, BETA):
        x, x_held = features(case, shape, beta, first, held)
        fitted = ridge_path(x, y, (1e-4, 1e-3, 1e-2)).values()
        seen[beta] = max(right(classifier, x_held, wanted) for classifier in fitted)
    case.note(grid=[list(pair) for pair in seen.items()])
    best = max(seen, key=seen.get)
    return {"validation": seen[best], "beta": best}


def main(argv=None) -> dict:
    parser = arguments("ckn_cifar", __doc__)
    parser.add_argument("--shapes", nargs="+", default=["64-256"])
    args = parser.parse_args(argv)
    shapes = ["4-8"] if args.quick else args.shapes
    run = Experiment(
        "ckn_cifar", "CKN on whitened CIFAR-10", args, about=ABOUT, published=PUBLISHED,
        not_run=["supervised networks of five layers (published: 86.1 %), for a GPU"],
    )  # fmt: skip
    split = image_set(args, "cifar-10")
    images = whitened(
        split.train_images.to(run.device), split.test_images.to(run.device)
    )
    labels = [split.train_labels.to(run.device), split.test_labels.to(run.device)]
    data = (images, *labels)
    pick = run.case(
        f"choice of beta, {shapes[0]}",
        lambda case: choose_beta(case, shapes[0], images[0], labels[0]),
    ).get("results", {"beta": BETA})
    other = f", beta = {pick['beta']:.2f}"
    for beta in sorted({BETA, pick["beta"]}, reverse=True):
        for shape in shapes:
            for seed in run.seeds(3 if shape == "64-256" else 1):
                run.case(
                    f"unsupervised, {shape}" + other * (beta != BETA),
                    lambda case, s=shape, b=beta: evaluate(case, s, b, data),
                    seed=seed, beta=round(beta, 4),
                )  # fmt: skip
    return run.finish()


if __name__ == "__main__":
    main()
