"""The small real data that ships with the book, and loaders of full sets."""

from ckutils.datasets.full import fetch_images
from ckutils.datasets.series import character_trajectories, speech_commands
from ckutils.datasets.shipped import (
    fashion_mnist_small,
    photo,
    spoken_digits,
    vital_signs,
)

__all__ = [
    "character_trajectories",
    "fashion_mnist_small",
    "fetch_images",
    "photo",
    "speech_commands",
    "spoken_digits",
    "vital_signs",
]
