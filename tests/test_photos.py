"""Real photos and real weights: what a pretrained body is worth, within a minute or two."""

from pathlib import Path

import pytest
from runs import configuration

import train
from thaw import launch

pytestmark = [pytest.mark.slow, pytest.mark.photos]


def run(data_dir: Path, output: Path, *overrides: str) -> dict:
    launch.register_backbones()
    settings = [
        "backbone=mobilenet_v2",
        f"backbone.weights={data_dir / 'weights' / 'mobilenet_v2.pth'}",
        "backbone.image_size=96",
        f"paths.data_dir={data_dir}",
        "data.num_workers=0",
        "trainer=cpu",
        "callbacks=none",
        "logger=none",
    ]
    return train.run(configuration(output, *settings, *overrides))


def test_frozen_features_tell_cats_from_dogs(data_dir: Path, tmp_path: Path) -> None:
    """shared/data/README.md: frozen, these weights separate the two at about 99 % (at 224 px)."""
    settings = ("data=dogs_vs_cats", "data.train_per_class=200", "data.batch_size=32")
    mode = ("finetune=feature_extraction", "trainer.max_epochs=2")
    assert run(data_dir, tmp_path, *settings, *mode)["test/acc"] > 0.9


def test_pets_train_frozen_and_unfrozen(data_dir: Path, tmp_path: Path) -> None:
    """37 breeds of 17 photos each: chance is 2.7 %."""
    mode = ("finetune.unfreeze_epoch=2", "trainer.max_epochs=4")
    results = run(data_dir, tmp_path, "data=pets", "data.batch_size=16", *mode)
    assert results["val/acc"] > 0.3
    assert [phase["name"] for phase in results["phases"]] == ["frozen", "unfrozen"]
