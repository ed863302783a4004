"""Speech Commands and CharacterTrajectories: sound and pen tips, read from their files.

`folder=` reads files that are there; without it they are fetched (see `fetching`).
"""

import re
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ckutils.checks import check_choice
from ckutils.datasets.fetching import fetch
from ckutils.datasets.shipped import Clips

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
PARTS = ("train", "validation", "test")


class Series(NamedTuple):
    """Series (n,) of float32 tensors (channels, t), labels (n,) int64."""

    series: tuple[Tensor, ...]
    labels: Tensor


def speech_commands(
    part: str, *, folder: Path | None = None, words: tuple[str, ...] = WORDS,
    base_url: str | None = None,
) -> Clips:  # fmt: skip
    """Spoken words at 16 kHz, each a tensor (t,) in [-1, 1]; labels index `words`.

    Args:
        part: "train" | "validation" | "test", by the set's own lists, which keep each
            speaker on one side.
        folder: holds one folder a word, `validation_list.txt` and `testing_list.txt`.
        words: which folders to read.
        base_url: where to fetch instead of the set's own address.
    Raises ValueError for another part, a missing list, or sound that is not mono, 16
        bits. Source: P. Warden, arXiv:1804.03209; CC BY 4.0.
    """
    check_choice(PARTS, part=part)
    if folder is None:
        folder = fetch("speech-commands", base_url=base_url)
    folder = Path(folder)
    listed = {
        "validation": _lines(folder / "validation_list.txt"),
        "test": _lines(folder / "testing_list.txt"),
    }
    sounds, labels = [], []
    for label, word in enumerate(words):
        for file in sorted((folder / word).glob("*.wav")):
            name = f"{word}/{file.name}"
            where = [p for p, names in listed.items() if name in names] or ["train"]
            if where[0] == part:
                sounds.append(read_wav(file))
                labels.append(label)
    if not sounds:
        raise ValueError(
            f"folder must hold .wav files of {words}, and {folder} has none"
        )
    return Clips(tuple(sounds), torch.tensor(labels), 16_000)


def _lines(file: Path) -> set[str]:
    if not file.exists():
        raise ValueError(f"folder must hold {file.name}, and {file.parent} does not")
    return set(file.read_text().split())


def read_wav(file: Path) -> Tensor:
    """Mono sound of 16 bits, (t,) float32 in [-1, 1)."""
    with wave.open(str(file), "rb") as sound:
        if sound.getnchannels() != 1 or sound.getsampwidth() != 2:
            raise ValueError(
                f"{file.name} must be mono, 16 bits, got {sound.getnchannels()} "
                f"channels of {8 * sound.getsampwidth()} bits"
            )
        raw = sound.readframes(sound.getnframes())
    return torch.from_numpy(np.frombuffer(raw, "<i2").astype(np.float32) / 32768)


def character_trajectories(
    part: str, *, folder: Path | None = None, digest: str | None = None,
    base_url: str | None = None,
) -> Series:  # fmt: skip
    """Pen tips that write 20 letters: velocities and force, (3, t), up to 182 steps.

    Args:
        part: "train" | "test", the archive's own halves.
        folder: holds `CharacterTrajectories_TRAIN.ts` and `..._TEST.ts`.
        digest: "sha256:..." of the zip file, needed to fetch it: none is published.
        base_url: where to fetch instead of the archive's address.
    Raises ValueError for another part, a missing file or digest, a file without series,
        or lines that are not three series of numbers and a label. Source: B. Williams,
        UCI; the archive of timeseriesclassification.com.
    """
    check_choice(("train", "test"), part=part)
    if folder is None:
        named = {"CharacterTrajectories.zip": digest}
        folder = fetch("character-trajectories", base_url=base_url, digests=named)
    name = f"CharacterTrajectories_{part.upper()}.ts"
    found = sorted(Path(folder).rglob(name))
    if not found:
        raise ValueError(f"folder must hold {name}, and {folder} does not")
    return read_ts(found[0], channels=3)


def read_ts(file: Path, *, channels: int) -> Series:
    """A file in the .ts format: channels split by ":", their values by ",", a label.

    Labels are numbered in the order of their names, sorted. "@data", in letters of
    either case, stands alone on the line above the first series.
    Raises ValueError if no series follows it, or for a line with another number of
        channels, unequal lengths, or an entry that is no number.
    """
    _, *body = re.split(r"(?im)^\s*@data\s*$", file.read_text(), maxsplit=1)
    lines = body[0].strip().splitlines() if body else []
    if not lines:
        raise ValueError(f"{file.name} must hold series below a line @data, got none")
    series, names = [], []
    for number, line in enumerate(lines, start=1):
        *rows, name = line.strip().split(":")
        series.append(_channels(rows, channels, f"{file.name}, series {number}"))
        names.append(name)
    order = {name: label for label, name in enumerate(sorted(set(names)))}
    return Series(tuple(series), torch.tensor([order[name] for name in names]))


def _channels(rows: list[str], channels: int, where: str) -> Tensor:
    """Rows of numbers between commas, as (channels, t)."""
    entries = [row.split(",") for row in rows]
    lengths = [len(row) for row in entries]
    if len(entries) != channels or len(set(lengths)) != 1:
        raise ValueError(
            f"{where}: must be {channels} rows of one length, got lengths {lengths}"
        )
    try:
        return torch.tensor([[float(entry) for entry in row] for row in entries])
    except ValueError as error:
        raise ValueError(f"{where}: must be numbers only, {error}") from error
