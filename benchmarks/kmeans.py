"""spherical_kmeans against a Python loop over clusters (chapter 5)."""

import torch

from benchmarks.timing import Case
from ckutils.ckn import spherical_kmeans

SIZES = {
    "cpu": ((100_000, 25, 256),),
    "cuda": ((1_000_000, 75, 512),),
    "quick": ((200, 5, 4),),
}
ROUNDS = 2  # of assignment and update; both ways do the same number


def cases(device: str, *, quick: bool = False):
    for n, d, p in SIZES["quick" if quick else device]:
        torch.manual_seed(0)
        x = torch.nn.functional.normalize(torch.randn(n, d, device=device))
        yield Case(
            "spherical_kmeans",
            f"{n} patches of {d}, {p} anchors, {ROUNDS} rounds",
            "float32",
            lambda x=x, p=p: ours(x, p),
            {
                "a loop over clusters": lambda x=x, p=p: by_loop(x, p, similarity_loop),
                "a loop in the update only": lambda x=x, p=p: by_loop(x, p, product),
            },
            flops=2 * n * d * p * ROUNDS,
            bytes=4 * n * d * ROUNDS,
            tolerance=None,  # the starts differ, and so do the clusters
            goal="at least 10 times a loop over clusters" if device == "cpu" else "",
        )


def ours(x, p):
    draw = torch.Generator().manual_seed(0)
    return spherical_kmeans(x, p, generator=draw, iterations=ROUNDS, tol=0.0)


def by_loop(x, p, similarity):
    """The usual lines: one pass over all patches for every cluster."""
    draw = torch.Generator().manual_seed(0)
    anchors = x[torch.randperm(len(x), generator=draw)[:p].to(x.device)]
    for _ in range(ROUNDS):
        labels = similarity(x, anchors).argmax(1)
        for j in range(p):
            mine = x[labels == j]
            if len(mine):
                anchors[j] = torch.nn.functional.normalize(mine.sum(0), dim=0)
    return anchors


def similarity_loop(x, anchors):
    return torch.stack([x @ anchor for anchor in anchors], 1)


def product(x, anchors):
    return x @ anchors.mT
