"""The ridge classifier of chapter 5 for many penalties at the price of one."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def ridge_path(
    x: Tensor, labels: Tensor, penalties: Iterable[float], *, block: int = 5000
) -> dict[float, nn.Linear]:
    """penalty -> `ckn.ridge_classifier(x, labels, penalty)`, solved in float64.

    Chapter 5, eq. (5.18). x (n, d), labels (n,). The matrix x^T x is summed block by
    block in float64 and factored once a penalty: 2 n d^2 + d^3 / 3 each.
    """
    targets = 2 * F.one_hot(labels).double() - 1
    centre, bias = _mean(x), targets.mean(0)
    gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    cross = gram.new_zeros(x.shape[1], targets.shape[1])
    for rows, wanted in zip(x.split(block), targets.split(block), strict=True):
        rows = rows.double() - centre
        gram.addmm_(rows.mT, rows)
        cross.addmm_(rows.mT, wanted - bias)
    mean_square = gram.diagonal().sum() / len(x)
    found = {}
    for penalty in penalties:
        ridged = gram.clone()
        ridged.diagonal().add_(penalty * mean_square)
        weight = torch.cholesky_solve(cross, torch.linalg.cholesky(ridged))
        found[penalty] = _linear(weight, bias - centre @ weight, x)
    return found


def _mean(x: Tensor) -> Tensor:
    return sum(part.double().sum(0) for part in x.split(5000)) / len(x)


def _linear(weight: Tensor, bias: Tensor, like: Tensor) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, *weight.shape).to(like)
    linear.weight.copy_(weight.mT)
    linear.bias.copy_(bias)
    return linear
