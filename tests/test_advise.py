"""`thaw advise` from end to end, on drawn photos."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from runs import configuration, draw_photos

from thaw import cli
from thaw.advice import Advice


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    photos = draw_photos(tmp_path / "photos", train=6)
    return [
        "data=folder", f"data.root={photos}", "data.num_workers=0", "backbone.image_size=32",
        "trainer=cpu", f"paths.root_dir={tmp_path}", f"paths.cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip


def test_figures_and_a_command(words: list[str], tmp_path: Path, capsys: Any) -> None:
    cli.main(["advise", *words])
    printed = capsys.readouterr().out
    assert "18 photos to train on, 12 for validation, 3 classes of 6" in printed
    for group, width in (("conv1-layer1", 16), ("layer2", 40), ("layer3", 80), ("layer4", 128)):
        assert re.search(rf"^{group} +{width} +\d+\.\d \+-", printed, re.MULTILINE)
    command = shlex.split(printed.splitlines()[-1])
    assert command[: 2 + len(words)] == ["python", "train.py", *words]
    assert command[2 + len(words)] == "finetune=feature_extraction"
    cfg = configuration(tmp_path / "run", *command[2 : 3 + len(words)])
    assert cfg.finetune._target_.endswith("feature_extraction")


def test_the_command_fits_a_short_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The default unfreezes at epoch 5, which 4 epochs never reach."""
    everything = Advice("all", ("so",), ("finetune=freeze_unfreeze",))
    monkeypatch.setattr("thaw.verbs.advise.advise", lambda *_: everything)
    cli.main(["advise", *words, "trainer.max_epochs=4"])
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[-2:] == ["finetune=freeze_unfreeze", "finetune.unfreeze_epoch=2"]
    assert configuration(tmp_path / "run", *command[2:]).finetune.unfreeze_epoch == 2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("finetune=full", "finetune=full: is, or holds, what advise chooses"),
        ("experiment=demo_few_shot", "experiment=demo_few_shot: is, or holds, what advise chooses"),
        ("head.fit=ridge", "head.fit=ridge: is, or holds, what advise chooses"),
        ("trainer.max_epochs=1", "trainer.max_epochs=1: advise weighs ways of 2 or more epochs"),
    ],
)
def test_what_it_chooses_is_not_to_be_given(
    words: list[str], word: str, message: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["advise", *words, word])
    assert f"error: {message}" in capsys.readouterr().err
