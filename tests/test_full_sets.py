"""The loaders of the full public sets, on small files of the same formats."""

import gzip
import hashlib
import io
import json
import struct
import sys
import tarfile
import wave
import zipfile

import matplotlib.image
import numpy as np
import pytest
import torch

from ckutils.datasets import (
    character_trajectories,
    fetch_images,
    fetching,
    full,
    series,
    speech_commands,
)

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def write_idx_set(folder, packed=True) -> list[np.ndarray]:
    """Four files of 7 + 3 images of 28 x 28; returns the arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for count in (7, 3):
        arrays.append(RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        arrays.append(RNG.integers(0, 10, count, dtype=np.uint8))
    for name, array in zip(full.IDX, arrays, strict=True):
        raw = idx(array)
        ending, raw = (".gz", gzip.compress(raw)) if packed else ("", raw)
        (folder / f"{name}{ending}").write_bytes(raw)
    return arrays


def digests(folder) -> dict[str, str]:
    return {
        file.name: "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
    }


# Images ----------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_become_images_and_labels(tmp_path, packed):
    x, y, x_test, y_test = write_idx_set(tmp_path / "deep" / "er", packed)
    split = fetch_images("mnist", folder=tmp_path)
    assert split.train_images.shape == (7, 1, 28, 28)
    assert split.train_images.dtype == torch.float32
    assert float(split.train_images[2, 0, 3, 4]) == np.float32(x[2, 3, 4]) / 255
    assert float(split.test_images[1, 0, 27, 0]) == np.float32(x_test[1, 27, 0]) / 255
    assert split.train_labels.tolist() == y.tolist()
    assert split.test_labels.tolist() == y_test.tolist()


def test_a_damaged_idx_file_is_refused(tmp_path):
    write_idx_set(tmp_path, packed=False)
    file = tmp_path / full.IDX[0]
    raw = file.read_bytes()
    file.write_bytes(raw[:-1])
    with pytest.raises(ValueError, match=r"5487 bytes for the shape \(7, 28, 28\)"):
        fetch_images("mnist", folder=tmp_path)
    file.write_bytes(b"\x89PNG" + raw)
    with pytest.raises(ValueError, match="not an IDX file of bytes"):
        full.read_idx(file)
    file.write_bytes(idx(np.zeros((6, 28, 28), np.uint8)))
    with pytest.raises(ValueError, match=r"labels \(7,\) do not fit \(6, 28, 28\)"):
        fetch_images("mnist", folder=tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="folder must hold train-images-idx3-ubyte"):
        fetch_images("fashion-mnist", folder=tmp_path)


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="name must be one of 'mnist'"):
        fetch_images("imagenet")


def cifar_arrays():
    images = RNG.integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)  # 6 files of 2
    return images, RNG.integers(0, 10, (6, 2))


def write_cifar_binary(folder):
    images, labels = cifar_arrays()
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    folder.mkdir(parents=True)
    for name, x, y in zip(names, images, labels, strict=True):
        records = np.concatenate([y[:, None], x.reshape(2, -1)], 1).astype(np.uint8)
        records.tofile(folder / name)
    return images, labels


def write_cifar_png(folder):
    images, labels = cifar_arrays()
    names = [f"data_batch_{k}.png" for k in range(1, 6)] + ["test_batch.png"]
    folder.mkdir(parents=True)
    for name, x in zip(names, images, strict=True):
        rows = x.transpose(0, 2, 3, 1).reshape(2, 1024, 3)  # one image a row
        matplotlib.image.imsave(folder / name, rows)
    (folder / "train_lables.json").write_text(json.dumps(labels[:5].ravel().tolist()))
    (folder / "test_lables.json").write_text(json.dumps(labels[5].tolist()))
    return images, labels


@pytest.mark.parametrize("write", [write_cifar_binary, write_cifar_png])
def test_cifar_from_both_formats(tmp_path, write):
    images, labels = write(tmp_path / "cifar-10")
    split = fetch_images("cifar-10", folder=tmp_path)
    want = images[:5].reshape(10, 3, 32, 32)
    assert torch.equal((split.train_images * 255).round().byte(), torch.tensor(want))
    assert torch.equal(
        (split.test_images * 255).round().byte(), torch.tensor(images[5])
    )
    assert split.train_labels.tolist() == labels[:5].ravel().tolist()
    assert split.test_labels.tolist() == labels[5].tolist()


def test_a_damaged_cifar_is_refused(tmp_path):
    write_cifar_binary(tmp_path / "a")
    with (tmp_path / "a" / "data_batch_2.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="6147 bytes are no records of 3073"):
        fetch_images("cifar-10", folder=tmp_path / "a")
    write_cifar_png(tmp_path / "b")
    (tmp_path / "b" / "test_lables.json").write_text("[1, 2, 3]")
    with pytest.raises(ValueError, match=r"\(3,\) labels for 2 images"):
        fetch_images("cifar-10", folder=tmp_path / "b")
    (tmp_path / "b" / "test_lables.json").write_text("[1, 12]")
    with pytest.raises(ValueError, match="labels must be 0 to 9, got up to 12"):
        fetch_images("cifar-10", folder=tmp_path / "b")
    blank = np.zeros((2, 100, 3), np.uint8)
    matplotlib.image.imsave(tmp_path / "b" / "test_batch.png", blank)
    with pytest.raises(ValueError, match="is no image of 32 x 32 a row"):
        fetch_images("cifar-10", folder=tmp_path / "b")


# Fetching --------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """pooch's cache in a folder of the test."""
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "ckutils"


def offer(monkeypatch, name, folder) -> str:
    """Make the digests those of the files in `folder`; returns its address."""
    source = fetching.SOURCES[name]._replace(files=digests(folder))
    monkeypatch.setitem(fetching.SOURCES, name, source)
    return folder.as_uri() + "/"


def test_files_are_fetched_once_and_checked(tmp_path, cached, monkeypatch):
    there = tmp_path / "there"
    _, labels, *_ = write_idx_set(there)
    url = offer(monkeypatch, "mnist", there)
    split = fetch_images("mnist", base_url=url)
    assert split.train_labels.tolist() == labels.tolist()
    assert sorted(f.name for f in (cached / "mnist").iterdir()) == sorted(
        f.name for f in there.iterdir()
    )
    for file in there.iterdir():
        file.unlink()  # the second time nothing is fetched
    assert fetch_images("mnist", base_url=url).train_labels.tolist() == labels.tolist()


def test_a_file_with_another_digest_is_refused(tmp_path, cached, monkeypatch):
    there = tmp_path / "there"
    write_idx_set(there)
    url = offer(monkeypatch, "mnist", there)
    with gzip.open(there / f"{full.IDX[0]}.gz", "wb") as file:
        file.write(b"other")
    with pytest.raises(ValueError, match=f"(?s)hash .*{full.IDX[0]}"):
        fetch_images("mnist", base_url=url)


def test_archives_are_unpacked_once(tmp_path, cached, monkeypatch):
    write_cifar_binary(tmp_path / "cifar-10-batches-bin")
    there = tmp_path / "there"
    there.mkdir()
    with tarfile.open(there / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    url = offer(monkeypatch, "cifar-10", there)
    for _ in range(2):
        split = fetch_images("cifar-10", base_url=url)
        assert split.train_images.shape == (10, 3, 32, 32)
    bad = cached / "cifar-10" / "cifar-10-batches-bin" / "test_batch.bin"
    bad.write_bytes(b"\0" * 3073)  # unpacked again, this would be mended
    assert len(fetch_images("cifar-10", base_url=url).test_labels) == 1


def test_an_archive_cannot_write_outside_its_folder(tmp_path, cached, monkeypatch):
    there = tmp_path / "there"
    there.mkdir()
    with tarfile.open(there / "cifar-10-binary.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("../../outside")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    url = offer(monkeypatch, "cifar-10", there)
    with pytest.raises(tarfile.FilterError):
        fetch_images("cifar-10", base_url=url)
    assert not (tmp_path / "outside").exists()


def test_without_pooch_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match="pip install pooch; or give a folder"):
        fetching.fetch("mnist")


def test_every_known_digest_is_one():
    length = {"md5": 32, "sha256": 64}
    for source in fetching.SOURCES.values():
        assert source.base.endswith("/")
        for digest in filter(None, source.files.values()):
            kind, value = digest.split(":")
            assert len(value) == length[kind] and int(value, 16)


# Sound and pen tips ----------------------------------------------------------------


def write_wav(file, samples, channels=1, width=2):
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(channels), sound.setsampwidth(width)
        sound.setframerate(16_000), sound.writeframes(samples)


def speech_folder(folder):
    for word in ("yes", "no"):
        for k in range(3):
            samples = np.array([k, -32768, 16384], "<i2").tobytes()
            write_wav(folder / word / f"{k}_nohash_0.wav", samples)
    (folder / "validation_list.txt").write_text("yes/1_nohash_0.wav\n")
    (folder / "testing_list.txt").write_text("yes/2_nohash_0.wav\nno/0_nohash_0.wav\n")


def test_speech_commands_keep_the_sets_own_lists(tmp_path):
    speech_folder(tmp_path)
    parts = {
        part: speech_commands(part, folder=tmp_path, words=("yes", "no"))
        for part in series.PARTS
    }
    assert {part: clips.labels.tolist() for part, clips in parts.items()} == {
        "train": [0, 1, 1], "validation": [0], "test": [0, 1],
    }  # fmt: skip
    clips = parts["validation"]
    assert (
        clips.waveforms[0].tolist() == [1 / 32768, -1.0, 0.5] and clips.rate == 16_000
    )


def test_speech_commands_are_fetched(tmp_path, cached, monkeypatch):
    speech_folder(tmp_path / "set")
    there = tmp_path / "there"
    there.mkdir()
    with tarfile.open(there / "speech_commands_v0.02.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "set", ".")
    url = offer(monkeypatch, "speech-commands", there)
    assert len(speech_commands("test", base_url=url).labels) == 2


def test_wrong_sound_is_refused(tmp_path):
    with pytest.raises(ValueError, match="part must be one of 'train'"):
        speech_commands("dev", folder=tmp_path)
    with pytest.raises(ValueError, match=r"folder must hold validation_list.txt"):
        speech_commands("test", folder=tmp_path)
    speech_folder(tmp_path)
    with pytest.raises(ValueError, match=r"folder must hold \.wav files"):
        speech_commands("test", folder=tmp_path, words=("up",))
    write_wav(tmp_path / "stereo.wav", b"\0" * 8, channels=2)
    with pytest.raises(ValueError, match="must be mono, 16 bits, got 2 channels of 16"):
        series.read_wav(tmp_path / "stereo.wav")


TS = """#a comment
@problemName CharacterTrajectories
@data
1,2,3:4,5,6:7,8,9:b
0.5,-1:0,0:1e-3,2:a
"""


def ts_folder(folder, text=TS):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("TRAIN", "TEST"):
        (folder / f"CharacterTrajectories_{part}.ts").write_text(text)


def test_pen_tips_are_read(tmp_path):
    ts_folder(tmp_path)
    got = character_trajectories("train", folder=tmp_path)
    assert got.series[0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert got.series[1].shape == (3, 2) and got.labels.tolist() == [1, 0]


@pytest.mark.parametrize("tag", ["@DATA", " @Data\t", "@data\r"])
def test_the_tag_above_the_series_has_letters_of_either_case(tmp_path, tag):
    ts_folder(tmp_path, TS.replace("a comment", "lines after @data").replace(
        "\n@data", f"\n{tag}"))  # fmt: skip
    assert character_trajectories("train", folder=tmp_path).labels.tolist() == [1, 0]


def test_pen_tips_are_fetched_with_the_callers_digest(tmp_path, cached):
    there = tmp_path / "there"
    there.mkdir()
    with zipfile.ZipFile(there / "CharacterTrajectories.zip", "w") as archive:
        for part in ("TRAIN", "TEST"):
            archive.writestr(f"CharacterTrajectories_{part}.ts", TS)
    url = there.as_uri() + "/"
    with pytest.raises(ValueError, match="digests must give one"):
        character_trajectories("test", base_url=url)
    (digest,) = digests(there).values()
    assert len(character_trajectories("test", base_url=url, digest=digest).labels) == 2


def test_wrong_pen_tips_are_refused(tmp_path):
    with pytest.raises(ValueError, match="folder must hold CharacterTrajectories_TEST"):
        character_trajectories("test", folder=tmp_path)
    with pytest.raises(ValueError, match="part must be one of 'train', 'test'"):
        character_trajectories("validation", folder=tmp_path)
    ts_folder(tmp_path, "@data\n1,2:3:4,5:x\n")
    with pytest.raises(ValueError, match=r"must be 3 rows .* got lengths \[2, 1, 2\]"):
        character_trajectories("test", folder=tmp_path)
    ts_folder(tmp_path, "@data\n1:3:4:x\n1:?:4:x\n")
    with pytest.raises(
        ValueError, match=r"TEST\.ts, series 2: must be numbers .* '\?'"
    ):
        character_trajectories("test", folder=tmp_path)
    for text in ("1:2:3:x\n", "@data\n", "", "#@data\n1:2:3:x\n"):
        ts_folder(tmp_path, text)
        with pytest.raises(ValueError, match=r"_TEST\.ts must hold series below"):
            character_trajectories("test", folder=tmp_path)
