"""The photos of a run: those that it trained on, or others for its model."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from runs import draw_photos

from thaw.errors import ConfigError
from thaw.tools.run_data import data_of


def begun(folder: Path, words: Sequence[str]) -> Path:
    """The folder of a run, with the words that started it."""
    (folder / ".hydra").mkdir(parents=True)
    saved = {"hydra": {"overrides": {"task": list(words)}}}
    OmegaConf.save(OmegaConf.create(saved), folder / ".hydra" / "hydra.yaml")
    return folder


def test_the_runs_own_photos_also_before_it_has_a_model(tmp_path: Path) -> None:
    """Asked for by the run's folder, its model folder or its checkpoint: the same photos."""
    photos = draw_photos(tmp_path / "photos")
    words = ["data=folder", f"data.root={photos}", "data.num_workers=0", "data.train_per_class=3",
             "backbone=tiny", "resume=gone", "ckpt_path=gone.ckpt"]  # fmt: skip
    run = begun(tmp_path / "run", words)
    for path in (run, run / "model", run / "checkpoints" / "last.ckpt"):
        data = data_of(path)
        assert (len(data.train), len(data.test or ())) == (9, 12)
        assert {photo.parent.parent.name for photo in data.train.paths} == {"train"}
    with pytest.raises(ConfigError, match=r"last.ckpt: is no run's folder .*; give the run's"):
        data_of(tmp_path / "elsewhere" / "last.ckpt")


def test_other_photos_take_nothing_of_the_runs_settings(tmp_path: Path) -> None:
    """Not the few-shot draw, nor what the other source does not know."""
    run = begun(tmp_path / "run", ["data=pets", "data.target=binary", "data.train_per_class=3"])
    photos = draw_photos(tmp_path / "photos")
    words = ["data=folder", f"data.root={photos}"]
    assert len(data_of(run, words).train) == 24
    assert len(data_of(tmp_path / "model", words).train) == 24  # a model folder of no run


UNREAD = ("batch_size", "num_workers", "crop", "cache", "balanced", "train_per_class", "folds")


@pytest.mark.parametrize("key", UNREAD)
def test_what_changes_no_test_photo_is_refused(tmp_path: Path, key: str) -> None:
    message = rf"^data\.{key}=3: is not read here.*data\.\*.*--batch-size .* crop is the model's"
    for words in ([f"data.{key}=3"], ["data=demo", f"+data.{key}=3"]):
        with pytest.raises(ConfigError, match=message.replace("^", r"^\+?")):
            data_of(tmp_path, words)


def test_what_cannot_be_found_or_would_not_be_read(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", ["data=demo"])
    with pytest.raises(ConfigError, match=r"backbone=resnet18: is not read here\. Allowed"):
        data_of(run, ["data=pets", "backbone=resnet18"])
    with pytest.raises(ConfigError, match=r"seed=3: is not read here"):
        data_of(run, ["seed=3"])
    with pytest.raises(ConfigError, match=r"data=petz: no such choice.*did you mean pets"):
        data_of(run, ["data=petz"])
