"""Public files, fetched once, checked against their digest, kept in a cache."""

import shutil
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from ckutils.checks import check_choice

LIMIT = 1 << 16  # bytes read at a time


class Source(NamedTuple):
    """base: the address up to the file's name. files: name -> "algorithm:digest"."""

    base: str
    files: dict[str, str | None]


# Digests: MNIST and Fashion-MNIST as in torchvision's tables, CIFAR-10 as on its
# authors' page, Speech Commands as in torchaudio's. For CharacterTrajectories none is
# published: its reader asks for one.
SOURCES = {
    "mnist": Source("https://ossci-datasets.s3.amazonaws.com/mnist/", {
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    }),
    "fashion-mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", {
            "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
        }),
    "cifar-10": Source("https://www.cs.toronto.edu/~kriz/", {
        "cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530",
    }),
    "speech-commands": Source("http://download.tensorflow.org/data/", {
        "speech_commands_v0.02.tar.gz": "sha256:af14739ee7dc311471de98f5f9d2c919"
        "1b18aedfe957f4a6ff791c709868ff58",
    }),
    "character-trajectories": Source(
        "https://timeseriesclassification.com/aeon-toolkit/", {
            "CharacterTrajectories.zip": None,
        }),
}  # fmt: skip


def fetch(
    name: str, *, base_url: str | None = None, digests: dict[str, str] | None = None,
    cache: Path | None = None,
) -> Path:  # fmt: skip
    """The folder with the files of one set, fetched with pooch if they are not there.

    Args:
        name: one of `SOURCES`.
        base_url: instead of the set's own; http, https or file.
        digests: file name -> "algorithm:digest", instead of the known ones.
        cache: a folder; None is pooch's own for "ckutils".
    Raises ValueError for another name, a file without a digest, a digest that does not
        fit; ImportError with advice if pooch is missing.
    """
    check_choice(SOURCES, name=name)
    source = SOURCES[name]
    known = source.files | (digests or {})
    unknown = [file for file, digest in known.items() if digest is None]
    if unknown:
        raise ValueError(
            f"digests must give one for {unknown}: none is published. The address is "
            f"{base_url or source.base}"
        )
    pooch = _pooch()
    folder = Path(cache or pooch.os_cache("ckutils")) / name
    for file, digest in known.items():
        pooch.retrieve(
            f"{base_url or source.base}{file}", digest, fname=file, path=folder,
            downloader=_download, processor=_unpack,
        )  # fmt: skip
    return folder


def _pooch():
    try:
        import pooch
    except ImportError:
        raise ImportError(
            "fetching needs pooch: pip install pooch; or give a folder with the files"
        ) from None
    return pooch


def _download(url: str, file: str, _) -> None:
    """What pooch calls; urllib also knows file:// addresses."""
    with urllib.request.urlopen(url, timeout=60) as answer, open(file, "wb") as out:
        shutil.copyfileobj(answer, out, LIMIT)


def _unpack(file: str, action: str, _) -> str:
    """Unpack an archive beside itself, once; no name may leave the folder."""
    path = Path(file)
    done = path.with_name(f"{path.name}.unpacked")
    if action == "fetch" and done.exists() and path.name.endswith((".tar.gz", ".zip")):
        return file
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(path.parent, filter="data")
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.parent)  # zipfile strips such names itself
    else:
        return file
    done.touch()
    return file
