"""Image sets for the experiments: the full ones, or a corner of the shipped one."""

import torch
from torch import Tensor

from ckutils.datasets import fashion_mnist_small
from ckutils.datasets.full import fetch_images
from ckutils.datasets.shipped import ImageSplit


def image_set(args, name: str) -> ImageSplit:
    """The set `name`, from --data DIR/name or fetched; 240 + 60 images if --quick."""
    if args.quick:
        small = fashion_mnist_small()
        cut = [part[:240] for part in small[:2]] + [part[:60] for part in small[2:]]
        if name == "cifar-10":
            cut[::2] = [quick_colours(part) for part in cut[::2]]
        return ImageSplit(*cut)
    return fetch_images(name, folder=args.data and args.data / name)


def quick_colours(images: Tensor) -> Tensor:
    """(n, 1, 28, 28) -> (n, 3, 14, 14): colours like CIFAR-10's, smaller."""
    small = torch.nn.functional.avg_pool2d(images, 2)
    return torch.cat([small, small.flip(-1), small.roll(3, -1)], dim=1)


def holdout(split: ImageSplit, count: int) -> ImageSplit:
    """The training images cut in two: the last `count` stand for the test set."""
    order = torch.randperm(
        len(split.train_labels), generator=torch.Generator().manual_seed(2026)
    )
    kept, held = order[:-count], order[-count:]
    x, y = split.train_images, split.train_labels
    return ImageSplit(x[kept], y[kept], x[held], y[held])


def subset(split: ImageSplit, count: int, seed: int) -> ImageSplit:
    """`count` training images drawn at random; the test images all."""
    order = torch.randperm(
        len(split.train_labels), generator=torch.Generator().manual_seed(seed)
    )[:count]
    return split._replace(
        train_images=split.train_images[order], train_labels=split.train_labels[order]
    )
