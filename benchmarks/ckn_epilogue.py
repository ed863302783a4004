"""What a CKN layer does behind its matrix product: ckn_layer.cu (chapter 5).

On a CPU the operator is the sequence of torch calls itself, so there are no rows; on a
GPU it is one kernel, and two more for the gradients.
"""

import torch
from torch.nn import functional as F

from benchmarks.timing import Case
from ckutils.cuda import ckn_epilogue

# images, channels, anchors, pixels a side
SIZES = {
    "cpu": (),
    "cuda": ((128, 3, 128, 32), (128, 128, 128, 32)),
    "quick": ((2, 2, 4, 8),),
}
HOW = (3, 3), (1, 1), "exponential"


def cases(device: str, *, quick: bool = False):
    for b, c, p, n in SIZES["quick" if quick else device]:
        maps = torch.rand(b, c, n, n, device=device)
        filters = F.normalize(torch.randn(p, 9 * c, device=device)).view(p, c, 3, 3)
        products = F.conv2d(maps, filters, padding=1)
        given = products, maps, torch.tensor(4.0, device=device)
        size, goal = f"{b} images {n} x {n}, 3 x 3 x {c} to {p} channels", ""
        if device == "cuda":
            goal = "at least 3 times the steps in torch"
        yield Case(
            "CKN epilogue",
            size,
            "float32",
            lambda given=given: ckn_epilogue.ckn_layer(*given, *HOW)[0],
            forward_peers(given),
            flops=b * n * n * (5 * p + 2 * c + 9),
            bytes=4 * b * n * n * (2 * p + c),
            goal=goal,
        )
        yield gradients(given, size)


def forward_peers(given) -> dict:
    ways = {"steps in torch": lambda: ckn_epilogue._layer(*given, *HOW)[0]}
    if ckn_epilogue.has_kernels(given[0]):
        ways["naive kernel"] = lambda: ckn_epilogue.launch_layer(
            *given, *HOW, kernel="ckn_layer_naive"
        )[0]
    return ways


def gradients(given, size: str) -> Case:
    """The gradient in the products, forward included; those in the maps and in beta
    are taken as well."""
    leaves = [v.clone().requires_grad_() for v in given]

    def step(layer):
        @torch.enable_grad()
        def run():
            y, _ = layer(*leaves, *HOW)
            return torch.autograd.grad(y, leaves, torch.ones_like(y))[0]

        return run

    (b, p, h, w), c = given[0].shape, given[1].shape[1]
    return Case(
        "CKN epilogue, with gradients",
        size,
        "float32",
        step(ckn_epilogue.ckn_layer),
        {"steps in torch": step(ckn_epilogue._layer)},
        flops=b * h * w * (15 * p + 4 * c + 18),
        bytes=4 * b * h * w * (5 * p + 3 * c),
    )
