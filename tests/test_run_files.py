"""What a run leaves behind."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from models import small_classifier
from torch import nn

from thaw.data.photos import Photos, Splits
from thaw.finetune.builder import build_plan
from thaw.report import run_files
from thaw.training.record import Record

PHOTOS = Splits(("cat", "dog"), Photos((Path("in/cat/1.jpg"), Path("in/dog/2.jpg")), (0, 1)),
                Photos((Path("in/dog/3.jpg"),), (1,)), None)  # fmt: skip
DATA: Any = SimpleNamespace(classes=PHOTOS.classes, skipped=2, bad_photos=["a.jpg"], splits=PHOTOS,
                            folder=Path("in"))  # fmt: skip
SCHEDULE = {"lr": 1e-3, "schedule": "constant"}
HISTORY = [
    {"epoch": epoch + 1, "phase": "frozen" if epoch < 2 else "unfrozen",
     "train/loss": 2 - epoch / 4, "train/acc": epoch / 4,
     "val/loss": 2 - epoch / 5, "val/acc": epoch / 5}
    for epoch in range(4)
]  # fmt: skip
RESULTS = {
    "test/acc": 0.75, "test/f1": 0.5, "test/loss": 1.0, "val/acc": 0.8125,
    "phases": [{"name": "frozen", "epochs": 2, "seconds": 1.26, "images_per_second": 99.5}],
    "seconds": 2.34, "seed": 3, "device": "cpu",
}  # fmt: skip


def record_of(mode: str) -> Record:
    groups = small_classifier().groups
    plans = {
        "feature_extraction": build_plan(groups, 2, mode="feature_extraction", frozen=SCHEDULE),
        "freeze_unfreeze": build_plan(
            groups,
            4,
            mode="freeze_unfreeze",
            batchnorm="train",
            depthwise="frozen",
            unfreeze_epoch=2,
            frozen=SCHEDULE,
            unfrozen=SCHEDULE,
        ),
    }
    record = Record(plans[mode])
    record.history = [{"phase": "frozen", "seconds": 0.25, "images": 50}] * 2
    return record


@pytest.mark.parametrize("mode", ["feature_extraction", "freeze_unfreeze"])
def test_results(mode: str) -> None:
    model = small_classifier()
    model.get_submodule("body.low")[0] = nn.Conv2d(6, 6, 3, groups=6)  # pyright: ignore
    still = sum(parameter.numel() for parameter in model.get_submodule("body.low").parameters())
    results = run_files.make_results(
        model, record_of(mode), {"val/acc": 1, "test/acc": 0.5}, DATA, seed=4
    )
    every = sum(parameter.numel() for parameter in model.parameters())
    head = 8 * 4 + 4
    assert results["parameters"] == every
    trained = head if mode == "feature_extraction" else every - still
    assert results["trainable_parameters"] == trained
    # a phase that was not reached is not there
    assert results["phases"] == [
        {"name": "frozen", "start_epoch": 1, "epochs": 2, "seconds": 0.5, "images": 100,
         "images_per_second": 200.0, "trains": ["head"], "frozen": True}
    ]  # fmt: skip
    assert (results["val/acc"], results["test/acc"], results["seed"]) == (1.0, 0.5, 4)
    assert (results["classes"], results["skipped"]) == (["cat", "dog"], 2)
    assert results["bad_photos"] == ["a.jpg"]
    assert json.loads(json.dumps(results)) == results


def test_the_last_lines_printed() -> None:
    assert run_files.summary(RESULTS, Path("logs/run")).splitlines() == [
        "",
        "val       acc 0.8125",
        "test      acc 0.7500   f1 0.5000   loss 1.0000",
        "frozen    2 epochs   1.3 s   100 images/s",
        "run       2.3 s in all   seed 3   cpu",
        "folder    logs/run",
        "next      thaw predict logs/run photo.jpg",
    ]


def test_written_files(tmp_path: Path) -> None:
    record = record_of("freeze_unfreeze")
    record.history = HISTORY
    (tmp_path / "run").mkdir()
    for name in ("predictions.csv", "report.html", "check.json"):  # of before it was resumed
        (tmp_path / "run" / name).touch()
    run_files.write(tmp_path / "run", RESULTS, record, DATA)
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == RESULTS
    assert json.loads((tmp_path / "run" / "history.json").read_text()) == HISTORY
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "results.json", "history.json", "split.csv",
    }  # fmt: skip
    assert (tmp_path / "run" / "split.csv").read_text().splitlines() == [
        "path,split,label", "cat/1.jpg,train,cat", "dog/2.jpg,train,dog", "dog/3.jpg,val,dog",
    ]  # fmt: skip


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    run_files.write_json({"a": 1}, file)
    with pytest.raises(TypeError):
        run_files.write_json({"a": object()}, file)
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert run_files.git_revision() is None
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), (*who, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    revision = run_files.git_revision()
    assert revision is not None
    assert len(revision) == 40
    (tmp_path / "new").touch()
    assert run_files.git_revision() == f"{revision}+changes"
