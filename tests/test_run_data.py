"""The photos of a finished run: those that it trained on, seen as in evaluation."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from runs import draw_photos
from test_model_folder import tiny

from thaw.data.decode import decode
from thaw.errors import ConfigError
from thaw.image_classifier import load
from thaw.tools.run_data import data_of


def finished(folder: Path, words: Sequence[str]) -> Path:
    """The folder of a run with a model, and the words that started it."""
    tiny(folder / "model")
    (folder / ".hydra").mkdir()
    saved = {"hydra": {"overrides": {"task": list(words)}}}
    OmegaConf.save(OmegaConf.create(saved), folder / ".hydra" / "hydra.yaml")
    return folder


def test_the_runs_own_photos_in_the_view_of_evaluation(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    words = ["data=folder", f"data.root={photos}", "data.num_workers=0", "data.train_per_class=3",
             "backbone=tiny", "resume=gone", "ckpt_path=gone.ckpt"]  # fmt: skip
    run = finished(tmp_path / "run", words)
    data = data_of(run, ["data.batch_size=5"])
    assert (len(data.train), data.batch_size) == (9, 5)
    assert data.test is not None
    transform = load(run).transform
    for loader, paths in (
        (data.train_dataloader(), data.train.paths),
        (data.test_dataloader(), data.test.paths),
    ):
        loader.sampler.shuffle = loader.sampler.train = False  # pyright: ignore
        seen = torch.cat([images for images, _ in loader])
        assert torch.equal(seen, torch.stack([transform(decode(path)) for path in paths]))


def test_other_photos_take_nothing_of_the_runs_settings(tmp_path: Path) -> None:
    """Not the few-shot draw, nor what the other source does not know."""
    run = finished(tmp_path / "run", ["data=pets", "data.target=binary", "data.train_per_class=3"])
    photos = draw_photos(tmp_path / "photos")
    words = ["data=folder", f"data.root={photos}"]
    assert len(data_of(run, words).train) == 24
    assert len(data_of(run / "model", words).train) == 24  # a model folder knows no run


def test_what_cannot_be_found_or_would_not_be_read(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", ["data=demo"])
    with pytest.raises(ConfigError, match=r"model: is no run's folder .*; give the run's folder"):
        data_of(run / "model")
    with pytest.raises(ConfigError, match=r"backbone=resnet18: does not choose photos\. Allowed"):
        data_of(run, ["data=pets", "backbone=resnet18"])
    with pytest.raises(ConfigError, match=r"data=petz: no such choice.*did you mean pets"):
        data_of(run, ["data=petz"])
