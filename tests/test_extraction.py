"""A pass without Lightning gives the features that a run's body gives, in files that it finds."""

import json
from pathlib import Path

import pytest
import torch
from models import small_backbone
from runs import draw_photos
from torch import nn

from thaw import transforms
from thaw.data.dataset import PhotoDataset
from thaw.data.folder import find_in
from thaw.errors import ConfigError
from thaw.features.extraction import Runner, autocast, features_of
from thaw.features.table import fingerprint
from thaw.store import Store

CPU = torch.device("cpu")


def runner(**changes: bool) -> Runner:
    backbone = small_backbone()
    return Runner(
        backbone.body, transforms.normalise(backbone.input_spec), precision="32-true", device=CPU,
        channels_last=changes.get("channels_last", False),
    )  # fmt: skip


def dataset(folder: Path) -> PhotoDataset:
    photos = find_in(draw_photos(folder)).train
    return PhotoDataset(photos, transforms.eval_transform(small_backbone().input_spec))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_each_row_is_what_the_body_gives_for_the_photo(tmp_path: Path, batch_size: int) -> None:
    photos, run = dataset(tmp_path / "photos"), runner()
    store = Store(tmp_path / "features", {"a": batch_size})
    found, made = features_of(store, photos, run, batch_size=batch_size, num_workers=0)
    assert made
    assert found.table.shape == (24, 1, 8)
    body = small_backbone().body.eval()
    normalise = transforms.normalise(small_backbone().input_spec)
    for place in range(24):
        image, label = photos[(place, None)]
        with torch.no_grad():
            assert torch.allclose(found.table[place], body(normalise(image[None])), atol=1e-6)
        assert found.labels[place] == label


def test_the_second_time_nothing_runs(tmp_path: Path) -> None:
    photos, run = dataset(tmp_path / "photos"), runner()
    what = fingerprint(run.body, photos, run.normalise, views=1, precision="32-true", device=CPU)
    one, made = features_of(Store(tmp_path / "f", what), photos, run, batch_size=8, num_workers=0)
    again, remade = features_of(
        Store(tmp_path / "f", what), photos, lambda _: pytest.fail("ran"), batch_size=8,
        num_workers=0,
    )  # fmt: skip
    assert (made, remade) == (True, False)
    assert torch.equal(one.table, again.table)
    assert json.loads(next((tmp_path / "f").glob("*.json")).read_text())["what"] == what


def test_the_body_stands_still_in_a_pass(tmp_path: Path) -> None:
    run = runner(channels_last=True)
    before = {name: value.clone() for name, value in run.body.state_dict().items()}
    features_of(
        Store(tmp_path / "f", {}), dataset(tmp_path / "photos"), run, batch_size=8, num_workers=0
    )
    assert all(torch.equal(value, before[name]) for name, value in run.body.state_dict().items())


def test_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where the folder should be")
    with pytest.raises(ConfigError, match=r"^paths\.cache_dir=.*cache: features cannot be written"):
        features_of(
            Store(tmp_path / "cache" / "features", {}), dataset(tmp_path / "photos"), runner(),
            batch_size=8, num_workers=0,
        )  # fmt: skip


def test_precisions() -> None:
    layer = nn.Linear(4, 4)
    for precision, kind in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        with autocast(precision, CPU):
            assert layer(torch.zeros(2, 4)).dtype == kind
    with pytest.raises(ConfigError, match=r"trainer\.precision=64-true: .*bf16-mixed"):
        autocast("64-true", CPU)
