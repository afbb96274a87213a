"""`thaw advise` from end to end, on drawn photos."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from runs import configuration, draw_photos

from thaw import cli


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


def test_what_it_chooses_is_not_to_be_given(words: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        cli.main(["advise", *words, "finetune=full"])
    assert "error: finetune=full: is what advise chooses" in capsys.readouterr().err
