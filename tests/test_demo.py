"""The demo's pictures: as many as asked for, whole or not there, as their program draws them."""

import io
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.demo_pictures import COUNTS, FLOWERS, SIZE, draw_flower
from thaw.data.decode import decode
from thaw.data.demo import ARCHIVE, VERSION, Demo
from thaw.store import sha256


def demo(cache: Path, **settings: Any) -> Demo:
    return Demo(data_dir=cache / "none", cache_dir=cache, **settings)


def test_demo_has_its_pictures(tmp_path: Path) -> None:
    data = demo(tmp_path)
    assert data.classes == tuple(sorted(FLOWERS))
    parts = {name: getattr(data, name) for name in COUNTS}
    assert {name: len(photos) for name, photos in parts.items()} == {
        name: 16 * count for name, count in COUNTS.items()
    }
    for name, photos in parts.items():
        for path, label in photos.pairs():
            assert path.parent == data.folder / name / data.classes[label]
    assert decode(data.train.paths[0]).shape == (3, SIZE, SIZE)
    assert not (tmp_path / "none").exists()
    few = demo(tmp_path, train_pictures=2, val_pictures=3, test_pictures=0)
    assert few.val is not None
    assert (len(few.train), len(few.val), few.test) == (32, 48, None)
    assert {*few.train.paths} < {*data.train.paths}


def test_the_seed_of_a_run_leaves_the_pictures(tmp_path: Path) -> None:
    one, other = demo(tmp_path, train_per_class=1), demo(tmp_path, train_per_class=1, seed=1)
    assert one.test == other.test
    assert one.train != other.train


def test_the_archive_is_what_the_program_draws() -> None:
    with ZipFile(ARCHIVE) as archive:
        names = archive.namelist()
        pictures = {name: archive.read(name) for name in names}
    # where the archive has changed on purpose: raise VERSION, so that no cache keeps the old one
    assert (VERSION, sha256(ARCHIVE)[:8]) == (4, "068d8624")
    assert len(names) == len({*pictures.values()}) == 16 * sum(COUNTS.values())  # none is twice
    for label, name in enumerate(FLOWERS):
        drawn = np.asarray(draw_flower(label, np.random.default_rng([2, label, 3]), SIZE), float)
        packed = Image.open(io.BytesIO(pictures[f"test/{name}/0003.jpg"]))
        assert np.abs(np.asarray(packed, float) - drawn).mean() < 8  # JPEG, and a few grey values
        assert np.abs(np.asarray(packed, float) - drawn[:, ::-1]).mean() > 15


def test_what_was_unpacked_by_half_is_unpacked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = demo(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "unpack_archive", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            data.prepare_data()
    assert not data.folder.exists()
    leftover = data.folder.with_name(f".{data.folder.name}.part")  # of a process that was killed
    (leftover / "train").mkdir(parents=True)
    (leftover / "train" / "stray.jpg").touch()
    data.prepare_data()
    assert len([*data.folder.rglob("*.jpg")]) == 1040
    assert not leftover.exists()


def test_the_loader_gives_pictures(tmp_path: Path) -> None:
    data = demo(tmp_path, batch_size=8, num_workers=0)
    data.train_transform = data.eval_transform = lambda image: image.float() / 255
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, SIZE, SIZE)
    assert labels.dtype == torch.int64
