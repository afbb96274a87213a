"""data.cache=ram: the pictures in memory are the decoded ones, and nothing is decoded twice."""

import pickle
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SMALL, TWO_AND_TWO, configuration, draw_photos

import train
from thaw.backbones.backbone import InputSpec
from thaw.data import loading
from thaw.data.decode import decode
from thaw.data.folder import Folder
from thaw.data.loading import PhotoDataset, read_pictures
from thaw.data.photos import Photos
from thaw.transforms import Shrink, eval_transform, train_transform

SPEC = InputSpec(16, 18, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SHRINK = Shrink(SPEC)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def photos(folder: Path) -> Photos:
    paths = sorted((folder / "train").rglob("*.png"))
    return Photos(tuple(paths), tuple(range(len(paths))))


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_in_memory_are_the_decoded_ones(
    photos: Photos, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "BLOCK_BYTES", 5000)  # several blocks
    read = read_pictures(photos, SHRINK, num_workers=workers, label="train")
    assert read is not None
    assert len(read.blocks) > 1
    for index, path in enumerate(photos.paths):
        assert torch.equal(read[index], SHRINK(decode(path)))
    view = eval_transform(SPEC)
    assert torch.equal(
        PhotoDataset(photos, view, pictures=read)[3, None][0],
        PhotoDataset(photos, view)[3, None][0],
    )


def test_a_spawned_worker_shares_the_memory(photos: Photos) -> None:
    read = read_pictures(photos, SHRINK, num_workers=0, label="train")
    assert read is not None
    received = pickle.loads(ForkingPickler.dumps(read))  # as on the way to a spawned process
    assert all(block.is_shared() for block in read.blocks)
    read.blocks[0][0] ^= 1
    assert torch.equal(received[3], read[3])
    assert torch.equal(received.blocks[0], read.blocks[0])


def test_pictures_that_do_not_fit_are_decoded(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(loading, "FREE_SHARE", 1e-12)
    assert read_pictures(photos, SHRINK, num_workers=0, label="train") is None
    assert "train, 0 MB in memory do not fit" in capsys.readouterr().out


def test_a_run_decodes_each_photo_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and validation; the test split is read once anyway, from the files."""
    seen: Counter[str] = Counter()

    def counted(path: Path) -> torch.Tensor:
        seen[path.parts[-3]] += 1
        return decode(path)

    monkeypatch.setattr(loading, "decode", counted)
    monkeypatch.setattr(loading, "SAMPLE_SIZE", 1)  # for the estimate of the size
    every = [*SMALL, *TWO_AND_TWO, f"data.root={folder}", f"paths.cache_dir={tmp_path}",
             "data.cache=ram"]  # fmt: skip
    train.run(configuration(tmp_path / "run", *every))
    assert seen == {"train": 24 + 1, "val": 12 + 1, "test": 12}


def test_validation_is_the_same_with_pictures_in_memory(folder: Path, tmp_path: Path) -> None:
    """Whatever features of photos in files are kept; test_transforms.py has all ways to crop."""
    every = [*SMALL, *TWO_AND_TWO, f"data.root={folder}", f"paths.cache_dir={tmp_path}",
             "data.crop=pad", "augment=none"]  # fmt: skip
    results = [
        train.run(configuration(tmp_path / cache, *every, f"data.cache={cache}"))
        for cache in ("none", "ram")
    ]
    assert results[0]["val/loss"] == pytest.approx(results[1]["val/loss"], rel=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_workers_give_the_same_views(folder: Path, tmp_path: Path, strength: float) -> None:
    def batches(workers: int) -> list:
        data = Folder(
            data_dir=tmp_path, cache_dir=tmp_path, root=folder, batch_size=8, cache="ram",
            num_workers=workers, shrink=SHRINK, eval_transform=eval_transform(SPEC),
            train_transform=train_transform(SPEC, color_jitter=strength),
        )  # fmt: skip
        return list(data.train_dataloader())

    for ours, theirs in zip(batches(2), batches(0), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.filterwarnings("ignore:You requested to overfit:UserWarning")
def test_overfitting_on_some_batches(folder: Path, tmp_path: Path) -> None:
    """Lightning takes a sampler of its own there, which knows no seeds of views."""
    every = [*SMALL, *TWO_AND_TWO, f"data.root={folder}", f"paths.cache_dir={tmp_path}",
             "data.cache=ram", "data.num_workers=1", "trainer.overfit_batches=1",
             "finetune.cache_features=true"]  # fmt: skip
    assert "train/loss" in train.run(configuration(tmp_path / "run", *every))
