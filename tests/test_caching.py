"""The frozen phase on cached features is the frozen phase, and the unfrozen one goes on from it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SMALL, TWO_AND_TWO, configuration, draw_photos

import train
from thaw.classifier import Classifier

# a checkpoint of another folder on purpose
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def run(photos: Path, output: Path, *settings: str, only: bool = False) -> dict[str, Any]:
    """Two frozen epochs and two unfrozen ones, or `only` what the settings say."""
    every = [*SMALL, *(() if only else TWO_AND_TWO), f"data.root={photos}", "test=false",
             f"paths.cache_dir={output.parent / 'cache'}", *settings]  # fmt: skip
    return train.run(configuration(output, *every))


def last(output: Path) -> dict[str, Any]:
    return torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)


class Count:
    """Passes through the body of images in training mode or not, by the size of the batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = 0
        features = Classifier.features

        def body(model: Classifier, images: torch.Tensor) -> torch.Tensor:
            self.images += len(images)
            return features(model, images)

        monkeypatch.setattr(Classifier, "features", body)


PLAIN = "finetune.frozen.augment=false"  # one view, always the same
CACHE = "finetune.cache_features=true"
LIVE = "finetune.cache_features=false"


def test_one_view_gives_the_weights_of_the_run_without_a_cache(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the frozen phase, with dropout in the head, and to the end of the run."""
    both = (PLAIN, "head.dropout=0.3")
    count = Count(monkeypatch)
    run(photos, tmp_path / "live", *both, LIVE)
    live = count.images
    count.images = 0
    results = run(photos, tmp_path / "cached", *both, CACHE)
    assert live == 4 * (24 + 12)
    assert count.images == 2 * (24 + 12) + (24 + 12)
    one, two = (last(tmp_path / name)["state_dict"] for name in ("live", "cached"))
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-5, rtol=1e-3), name
    histories = [json.loads((tmp_path / name / "history.json").read_text())
                 for name in ("live", "cached")]  # fmt: skip
    for live_row, row in zip(*histories, strict=True):
        numbers = [name for name in row if name.startswith(("train/", "val/"))]
        assert [row[name] for name in numbers] == pytest.approx(
            [live_row[name] for name in numbers], abs=1e-4
        )
    assert results["phases"][0]["seconds"] > 0


def test_the_second_run_computes_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    settings = ["finetune=feature_extraction", "finetune.cached_views=3", CACHE]
    for name in ("first", "second"):
        count = Count(monkeypatch)
        cfg = configuration(tmp_path / name, *SMALL, f"data.root={photos}", "test=false",
                            f"paths.cache_dir={tmp_path / 'cache'}", *settings)  # fmt: skip
        train.run(cfg)
        text = capsys.readouterr().out
        if name == "first":
            assert re.search(r"^features  train: 24 photos x 3 views, 0\.0 MB in", text, re.M)
            assert count.images == 3 * 24 + 12
        else:
            assert re.search(r"^features  train: 24 photos x 3 views from cache$", text, re.M)
            assert re.search(r"^features  val: 12 photos x 1 view from cache$", text, re.M)
            assert count.images == 0
    one, two = (last(tmp_path / name)["state_dict"] for name in ("first", "second"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_validation_in_some_epochs_is_on_features_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Count(monkeypatch)
    run(photos, tmp_path / "run", "finetune=feature_extraction", "finetune.cached_views=1",
        "trainer.check_val_every_n_epoch=2", only=True)  # fmt: skip
    assert count.images == 24 + 12


@pytest.mark.slow
def test_a_second_phase_of_the_head_has_views_of_its_own(
    photos: Path, tmp_path: Path, capsys: Any
) -> None:
    """The first without augmentation; and no cache once the body was trained."""
    head = "top: 0, lr: 1e-3"
    phases = (
        f"finetune.phases=[{{{head}, epochs: 1, augment: false}}, {{epochs: 1, {head}}}, "
        f"{{epochs: 1, lr: 1e-3}}, {{{head}}}]"
    )
    run(photos, tmp_path / "run", "finetune=phases", phases, CACHE, only=True)
    printed = capsys.readouterr().out
    sources = "cached features, 1 view each, not augmented  cached features, 2 views each  photos"
    assert sources in printed
    assert "features  train: 24 photos x 1 view, " in printed
    assert "features  train: 24 photos x 2 views, " in printed
    assert printed.count("features  train") == 2


def test_resume_is_exact(photos: Path, tmp_path: Path) -> None:
    """From the third of six steps of a cached epoch, and from the last before the unfreeze."""
    keep = (CACHE, "finetune.cached_views=2", "callbacks.checkpoint.save_top_k=-1",
            "callbacks.checkpoint.filename='{epoch}'")  # fmt: skip
    save = ("+callbacks.each._target_=fits.Save", f"+callbacks.each.folder={tmp_path}",
            "+callbacks.each.steps=[3]")  # fmt: skip
    run(photos, tmp_path / "whole", *keep, *save)
    whole = last(tmp_path / "whole")["state_dict"]
    for start in (tmp_path / "step3.ckpt", tmp_path / "whole" / "checkpoints" / "1.ckpt"):
        run(photos, tmp_path / start.stem, *keep, f"ckpt_path={start}")
        again = last(tmp_path / start.stem)["state_dict"]
        assert all(torch.equal(value, again[name]) for name, value in whole.items()), start


def test_a_folder_that_cannot_be_written_goes_on_without(
    photos: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    run(photos, tmp_path / "run", CACHE)
    said = r"^features  train: .*: going on without a cache, since .*cache.* Set paths\.cache"
    found = re.findall(said, capsys.readouterr().out, re.MULTILINE)
    assert len(found) == 1  # once, not in every epoch


def test_auto_caches_where_it_saves_something(photos: Path, tmp_path: Path, capsys: Any) -> None:
    """Fewer views than frozen epochs; test_builder.py has where it does not."""
    run(photos, tmp_path / "run", "finetune.cached_views=1")
    printed = capsys.readouterr().out
    assert "features  train" in printed
    assert "cached features, 1 view each" in printed
