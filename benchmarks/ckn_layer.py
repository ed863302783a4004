"""CKNLayer against the published sequence of steps (chapter 5)."""

import torch
from torch.nn import functional as F

from benchmarks.timing import Case
from ckutils.ckn import CKNLayer

# images, channels, anchors, pixels a side, subsampling
SIZES = {
    "cpu": ((100, 1, 32, 28, 2), (100, 32, 64, 14, 2)),
    "cuda": ((128, 3, 128, 32, 1), (128, 128, 128, 32, 2)),
    "quick": ((2, 2, 4, 8, 2),),
}


def cases(device: str, *, quick: bool = False):
    for b, c, p, n, s in SIZES["quick" if quick else device]:
        torch.manual_seed(0)
        layer = CKNLayer(c, p, 3, subsampling=s, padding=1).to(device)
        maps = torch.rand(b, c, n, n, device=device)
        anchors, whitening = layer.unit_anchors(), layer.whitening()
        fixed = maps, anchors, whitening
        yield Case(
            "CKNLayer",
            f"{b} images {n} x {n}, {c} to {p} channels, subsampling {s}",
            "float32",
            lambda layer=layer, fixed=fixed: layer(fixed[0], fixed[2]),
            {
                "published steps": lambda layer=layer, f=fixed: published_steps(
                    layer, *f
                )
            },
            flops=2 * b * n * n * p * 9 * c + 2 * b * (n // s) ** 2 * p * p,
            bytes=4 * b * (n * n * c + (n // s) ** 2 * p),
            goal="at least 3 times the steps in torch" if device == "cuda" else "",
        )


def published_steps(layer, maps, anchors, whitening, eps=1e-6):
    """Norm, convolution, kernel, whitening at every pixel, then pooling."""
    ones = maps.new_ones(1, layer.in_channels, *layer.kernel_size)
    norms = F.conv2d(maps**2, ones, padding=layer.padding).clamp(min=eps).sqrt()
    filters = anchors.unflatten(1, (-1, *layer.kernel_size))
    out = F.conv2d(maps, filters, padding=layer.padding)
    out = norms * layer.kernel(out / norms.clamp(min=eps))
    b, p, h, w = out.shape
    out = torch.bmm(whitening.expand(b, p, p), out.reshape(b, p, -1)).view(b, p, h, w)
    if layer.subsampling == 1:
        return out
    s, window = layer.subsampling, layer.taps[:, None] * layer.taps
    return F.conv2d(
        out, window.to(maps).expand(p, 1, -1, -1), stride=s, padding=s, groups=p
    )
