"""A solved head is there before the first step, and training goes on from it."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SMALL, configuration, draw_photos
from torch.nn import functional

import train
from thaw.errors import ConfigError
from thaw.features.solvers import ridge
from thaw.features.table import read_table
from thaw.head import fit_of, linear, mlp
from thaw.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def run(photos: Path, output: Path, *settings: str) -> dict[str, Any]:
    every = [*SMALL, "finetune.unfreeze_epoch=1", "finetune.unfrozen.warmup_epochs=0.5",
             f"data.root={photos}", "test=false", "callbacks.checkpoint.save_top_k=-1",
             "callbacks.checkpoint.filename='{epoch}'",
             f"paths.cache_dir={output.parent / 'cache'}", *settings]  # fmt: skip
    return train.run(configuration(output, *every))


def weights(output: Path, epoch: int) -> dict[str, torch.Tensor]:
    file = output / "checkpoints" / f"{epoch}.ckpt"
    return torch.load(file, weights_only=True)["state_dict"]


@pytest.mark.parametrize("fit", ["lbfgs", "logistic", "ridge", "svm"])
def test_the_head_is_solved_and_then_trained_on(
    photos: Path, tmp_path: Path, capsys: Any, fit: str
) -> None:
    results = run(
        photos, tmp_path / "run", f"head.fit={fit}", "finetune.views=2", "head.dropout=0.2"
    )
    printed = capsys.readouterr().out
    assert f"solved ({fit})" in printed
    assert f"head solved by {fit} in" in printed
    assert "features: train, 24 photos, 2 views each" in printed
    solved, later = weights(tmp_path / "run", 0), weights(tmp_path / "run", 1)
    names = [name for name in solved if name.startswith("classifier.head")]
    assert all(solved[name].abs().sum() > 0 for name in names)
    assert any(not torch.equal(solved[name], later[name]) for name in names)
    body = [name for name in solved if name.startswith("classifier.body") and "weight" in name]
    assert any(not torch.equal(solved[name], later[name]) for name in body)
    assert results["phases"][0]["epochs"] == 1


def test_nothing_moves_after_it_in_its_epoch(photos: Path, tmp_path: Path) -> None:
    """The weights after the epoch are the solver's, on the features that the run left on disk."""
    run(photos, tmp_path / "run", "head.fit=ridge", "finetune.views=1")
    tables = {}
    for note in (tmp_path / "cache" / "features").glob("*.json"):
        store = Store(note.parent, json.loads(note.read_text())["what"])
        tables[store.what["number"]] = read_table(store)[:, 0]
    labels = {n: torch.arange(3).repeat_interleave(n // 3) for n in (24, 12)}
    order = ["blue", "green", "red"]
    assert sorted(order) == order  # folders in the order of their names are the labels
    found = ridge((tables[24], labels[24]), (tables[12], labels[12]), 3)
    saved = weights(tmp_path / "run", 0)
    assert torch.equal(saved["classifier.head.weight"], found.weight)
    assert torch.equal(saved["classifier.head.bias"], found.bias)
    scores = functional.linear(tables[12], found.weight, found.bias)
    assert (scores.argmax(1) == labels[12]).float().mean().item() == found.accuracy


def test_resume_is_exact(photos: Path, tmp_path: Path) -> None:
    keep = ("head.fit=ridge", "finetune.views=2")
    run(photos, tmp_path / "whole", *keep)
    start = tmp_path / "whole" / "checkpoints" / "0.ckpt"
    run(photos, tmp_path / "again", *keep, f"ckpt_path={start}")
    one, two = (weights(tmp_path / name, 3) for name in ("whole", "again"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_head_alone(photos: Path, tmp_path: Path) -> None:
    results = train.run(configuration(
        tmp_path / "run", *SMALL, f"data.root={photos}", "finetune=feature_extraction",
        "trainer.max_epochs=1", "head.fit=ridge", f"paths.cache_dir={tmp_path / 'cache'}",
    ))  # fmt: skip
    assert results["test/acc"] > 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("finetune.unfreeze_epoch=2",),
            r"2 epochs would repeat it; set finetune\.unfreeze_epoch=1",
        ),
        (("finetune=feature_extraction",), r"4 epochs would repeat it; set trainer\.max_epochs=1"),
        (("finetune=full",), r"needs a first phase that trains the head alone"),
        (("data.val_fraction=0",), r"chooses its strength on validation photos"),
        (("mix=mixup",), r"no mixed pictures; set finetune\.frozen\.mix=false"),
        (("data.balanced=true",), r"data\.balanced=true has no effect"),
        (("finetune.cache_features=false",), r"works on cached features"),
        (("head.fit=tree",), r"head\.fit=tree: allowed are sgd, logistic, lbfgs, ridge, svm"),
    ],
)
def test_what_does_not_go_with_it(
    photos: Path, tmp_path: Path, settings: tuple[str, ...], words: str
) -> None:
    every = [*SMALL, f"data.root={photos}", "finetune.unfreeze_epoch=1", "head.fit=ridge",
             *settings]  # fmt: skip
    if "finetune=f" in settings[0]:
        every.remove("finetune.unfreeze_epoch=1")
    if "val_fraction" in settings[0]:
        every[every.index(f"data.root={photos}")] = f"data.root={photos / 'train'}"
    with pytest.raises(ConfigError, match=words):
        train.run(configuration(tmp_path / "run", *every))


def test_two_names_of_one_fit(photos: Path, tmp_path: Path) -> None:
    for fit in ("logistic", "lbfgs"):
        run(photos, tmp_path / fit, f"head.fit={fit}")
    one, two = (weights(tmp_path / fit, 3) for fit in ("logistic", "lbfgs"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_no_room_for_features(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(100))
    with pytest.raises(ConfigError, match=r"head\.fit=ridge: there is no room .*paths\.cache_dir"):
        run(photos, tmp_path / "run", "head.fit=ridge")


def test_heads_say_how_they_learn() -> None:
    assert fit_of(linear(4, 2)) == "sgd"
    assert fit_of(linear(4, 2, dropout=0.1, fit="lbfgs")) == "lbfgs"
    assert fit_of(mlp(4, 2)) == "sgd"
