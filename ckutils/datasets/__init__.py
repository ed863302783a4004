"""The small real data that ships with the book; licences stand beside the files."""

from ckutils.datasets.shipped import (
    fashion_mnist_small,
    photo,
    spoken_digits,
    vital_signs,
)

__all__ = ["fashion_mnist_small", "photo", "spoken_digits", "vital_signs"]
