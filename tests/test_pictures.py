"""Pictures that are kept are those that would be decoded, and nothing is decoded twice."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SMALL, TWO_AND_TWO, configuration, draw_photos

import train
from thaw.backbones.backbone import InputSpec
from thaw.data import base, dataset, pictures
from thaw.data.crops import Crops
from thaw.data.dataset import PhotoDataset
from thaw.data.decode import decode
from thaw.data.folder import Folder
from thaw.data.loading import PhotoSampler, ResumableLoader, collate
from thaw.data.photos import Photos
from thaw.data.pictures import keep
from thaw.errors import ConfigError
from thaw.transforms import Shrink, eval_transform, train_transform
from thaw.verbs.subject import backbone_of, subject_of

SPEC = InputSpec(16, 18, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SHRINK = Shrink(SPEC)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def photos(folder: Path) -> Photos:
    paths = sorted((folder / "train").rglob("*.png"))
    return Photos(tuple(paths), tuple(range(len(paths))))


@pytest.mark.parametrize("where", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_kept_pictures_are_the_decoded_ones(
    photos: Photos, tmp_path: Path, where: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "CHUNK", 5000)  # several blocks
    kept = keep(photos, SHRINK, where, folder=tmp_path, workers=workers, label="train")
    assert kept is not None
    assert len(kept.blocks) > 1 or where == "disk"
    for index, path in enumerate(photos.paths):
        assert torch.equal(kept[index], SHRINK(decode(path)))
    view = eval_transform(SPEC)
    assert torch.equal(
        PhotoDataset(photos, view, pictures=kept)[3, None][0],
        PhotoDataset(photos, view)[3, None][0],
    )


def test_the_next_run_finds_the_file_and_makes_a_broken_one_anew(
    photos: Photos, tmp_path: Path, capsys: Any
) -> None:
    def again() -> str:
        kept = keep(photos, SHRINK, "disk", folder=tmp_path, workers=0, label="train")
        assert kept is not None
        assert torch.equal(kept[7], SHRINK(decode(photos.paths[7])))
        return capsys.readouterr().out

    assert "pictures: train, short side 18" in again()
    assert "pictures from cache: train" in again()
    (file,) = tmp_path.glob("*.bin")
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    assert "pictures: train" in again()
    file.write_bytes(content[:-9])
    assert "pictures: train" in again()
    other = Shrink(InputSpec(16, 20, (0.5,) * 3, (0.25,) * 3))
    keep(photos, other, "disk", folder=tmp_path, workers=0, label="train")
    assert len(list(tmp_path.glob("*.bin"))) == 2


def test_what_does_not_fit_is_said_and_decoded(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(pictures, "SHARE", 1e-12)
    for where, place in (("ram", "memory"), ("disk", str(tmp_path))):
        assert keep(photos, SHRINK, where, folder=tmp_path, workers=0, label="train") is None
        assert f"would not fit, {place} has" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_a_run_decodes_each_photo_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Training and validation; the test split is read once anyway, from the files."""
    seen: Counter[str] = Counter()

    def counted(path: Path) -> torch.Tensor:
        seen[path.parts[-3]] += 1
        return decode(path)

    for module in (dataset, pictures):
        monkeypatch.setattr(module, "decode", counted)
    monkeypatch.setattr(pictures, "SAMPLE", 1)  # the estimate decodes some, and one for its size
    every = [*SMALL, *TWO_AND_TWO, f"data.root={folder}", f"paths.cache_dir={tmp_path}",
             f"data.cache={where}"]  # fmt: skip
    train.run(configuration(tmp_path / "run", *every))
    assert seen == {"train": 24 + 2, "val": 12 + 2, "test": 12}


def of_folder(folder: Path, cache_dir: Path, strength: float = 0.0, **settings: Any) -> Folder:
    given = {"batch_size": 8, "cache": "ram", **settings}
    return Folder(
        data_dir=cache_dir, cache_dir=cache_dir, root=folder, **given, shrink=SHRINK,
        train_transform=train_transform(SPEC, color_jitter=strength),
        eval_transform=eval_transform(SPEC),
    )  # fmt: skip


@pytest.mark.parametrize(("strength", "threaded"), [(0.0, True), (0.5, False)])
def test_kept_pictures_are_cut_by_threads_where_that_gives_the_same_views(
    folder: Path, tmp_path: Path, strength: float, threaded: bool
) -> None:
    """Colours are jittered by torchvision, from the global generator."""
    two = of_folder(folder, tmp_path, strength, num_workers=2).train_dataloader()
    assert isinstance(two, ResumableLoader)
    assert (two.fetch is not None) == threaded
    expected = list(of_folder(folder, tmp_path, strength, num_workers=0).train_dataloader())
    state = torch.get_rng_state()
    for batches in zip(two, expected, strict=True):
        assert all(torch.equal(*both) for both in zip(*batches, strict=True))
    if threaded:  # the start of worker processes draws
        assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_of_views_is_what_the_loader_would_collate(folder: Path, tmp_path: Path) -> None:
    photos = of_folder(folder, tmp_path).train_dataloader().dataset
    assert isinstance(photos, PhotoDataset)
    keys = [(3, 7), (0, None), (5, 1)]
    (images, labels), (expected, theirs) = (
        photos.views(keys),
        collate([photos[key] for key in keys]),
    )
    assert torch.equal(images, expected)
    assert images.stride() == expected.stride()
    assert labels.tolist() == theirs.tolist()


def test_a_gpu_keeps_worker_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads would take Python's lock from the loop that starts its kernels."""
    monkeypatch.setattr(base, "computes_on_cpu", lambda trainer: False)
    data = of_folder(folder, tmp_path)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert isinstance(loader, ResumableLoader)
        assert loader.fetch is None
    data = of_folder(folder, tmp_path, augment_on="device")
    train_loader, val_loader = data.train_dataloader(), data.val_dataloader()
    assert isinstance(train_loader, ResumableLoader)
    assert isinstance(val_loader, ResumableLoader)
    assert train_loader.fetch is not None
    assert val_loader.fetch is None


@pytest.mark.filterwarnings("ignore:You requested to overfit:UserWarning")
@pytest.mark.parametrize("place", ["cpu", "device"])
@pytest.mark.parametrize("workers", [0, 2])
def test_overfitting_on_some_batches(
    folder: Path, tmp_path: Path, place: str, workers: int
) -> None:
    """Lightning takes a sampler of its own there, which knows no seeds of views."""
    every = [*SMALL, *TWO_AND_TWO, f"data.root={folder}", f"paths.cache_dir={tmp_path}",
             "data.cache=ram", f"data.augment_on={place}", f"data.num_workers={workers}",
             "trainer.overfit_batches=1"]  # fmt: skip
    assert "train/loss" in train.run(configuration(tmp_path / "run", *every))


def test_a_verb_that_draws_no_views_takes_the_setting(folder: Path, tmp_path: Path) -> None:
    every = [f"data.root={folder}", "data.cache=ram", "data.augment_on=device"]
    cfg = configuration(tmp_path, *SMALL, *every)
    images, _ = next(iter(subject_of(cfg, backbone_of(cfg)).data.train_dataloader()))
    assert images.dtype == torch.uint8
    assert images.ndim == 4


def test_pictures_that_do_not_fit_are_not_cut_on_the_device(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(pictures, "SHARE", 1e-12)
    data = of_folder(folder, tmp_path, augment_on="device", num_workers=0)
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, 16, 16)
    assert "data.augment_on=device: no pictures are kept" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["ram", "disk"])
@pytest.mark.parametrize("augment", [True, False])
def test_views_made_on_the_device_are_those_made_by_the_loader(
    folder: Path, tmp_path: Path, where: str, augment: bool
) -> None:
    def batches(place: str, workers: int) -> list[Any]:
        data = of_folder(folder, tmp_path, cache=where, augment_on=place, num_workers=workers)
        loader = data.train_dataloader()
        assert isinstance(loader.sampler, PhotoSampler)
        loader.sampler.augment = augment
        found = list(loader)
        assert all(isinstance(batch[0], Crops) == (place == "device") for batch in found)
        return [data.on_after_batch_transfer(batch, 0) for batch in found]

    expected = batches("cpu", 0)
    for workers in (0, 2):
        for ours, theirs in zip(batches("device", workers), expected, strict=True):
            assert (ours[0].int() - theirs[0].int()).abs().max() <= (1 if augment else 0)
            assert torch.equal(ours[1], theirs[1])


def test_a_run_makes_its_views_on_the_device(folder: Path, tmp_path: Path) -> None:
    every = [*SMALL, *TWO_AND_TWO, f"data.root={folder}", f"paths.cache_dir={tmp_path}",
             "data.cache=ram", "finetune.cache_features=false"]  # fmt: skip
    losses = {}
    for place in ("cpu", "device"):
        trained = train.run(configuration(tmp_path / place, *every, f"data.augment_on={place}"))
        losses[place] = trained["train/loss"]
    assert losses["device"] != losses["cpu"]  # a step of brightness here and there
    assert losses["device"] == pytest.approx(losses["cpu"], rel=0.05)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (["data.cache=none"], r"data\.cache=ram or disk beside it"),
        (["data.cache=ram", "augment.color_jitter=0.1"], "a random crop and perhaps a flip alone"),
        (["data.cache=ram", "augment.crop_scale=null"], "a random crop and perhaps a flip alone"),
        (["data.cache=ram", "augment.horizontal_flip=0.5", "data.augment_on=gpu"], "cpu, device"),
    ],
)
def test_what_cannot_be_made_on_the_device(
    folder: Path, tmp_path: Path, settings: list[str], rule: str
) -> None:
    every = [*SMALL, *TWO_AND_TWO, f"data.root={folder}", "data.augment_on=device", *settings]
    with pytest.raises(ConfigError, match=rf"data\.augment_on=.*{rule}"):
        train.run(configuration(tmp_path, *every))


def test_unknown_place(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache=memory is not allowed: give none, ram"):
        train.run(configuration(tmp_path, *SMALL, f"data.root={folder}", "data.cache=memory"))
