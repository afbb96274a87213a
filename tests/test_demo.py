"""The drawn pictures: the same on every run, apart by class, and never half there."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from thaw.data import drawing, shapes
from thaw.data.decode import decode
from thaw.data.demo import Demo, Drawn, Shapes
from thaw.data.species import FLOWERS, PETAL_COLOURS, SPECIES
from thaw.errors import ConfigError

ROOT = Path(__file__).parents[1]
SIZE = 24  # pixels: quick to draw

# Mean red, green and blue of some pictures, as drawn by each version. When this fails because a
# drawing was changed on purpose: raise VERSION, so that no cache keeps the old ones, and put the
# new numbers here.
FLOWER_MEANS = {
    1: [
        [194.7, 175.0, 186.1],
        [112.3, 99.1, 101.8],
        [226.4, 197.7, 156.5],
        [119.7, 85.9, 78.8],
        [126.4, 127.7, 149.6],
        [94.4, 76.3, 90.0],
        [145.6, 136.1, 120.0],
        [180.5, 163.0, 110.6],
        [102.5, 83.2, 89.9],
        [135.7, 124.0, 111.2],
        [99.9, 83.4, 97.6],
        [93.2, 111.6, 78.0],
        [200.0, 196.0, 139.1],
        [231.9, 175.8, 149.9],
        [95.6, 102.2, 50.2],
        [146.1, 142.7, 151.8],
    ]
}
SHAPE_MEANS = {
    1: [
        [140.0, 132.5, 121.7],
        [118.7, 107.4, 82.0],
        [179.9, 175.2, 154.7],
        [107.6, 93.7, 105.0],
        [69.0, 62.1, 66.2],
        [108.3, 83.6, 86.6],
        [143.1, 104.2, 70.7],
        [140.4, 150.3, 148.6],
        [99.0, 125.4, 112.9],
        [69.4, 75.1, 64.9],
        [82.5, 100.9, 143.1],
        [96.6, 97.2, 51.1],
        [137.6, 142.0, 139.7],
        [127.5, 122.5, 122.2],
        [63.7, 79.1, 58.1],
        [174.0, 158.0, 147.5],
    ]
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Demo, "size", SIZE)


def demo(cache: Path, **settings: Any) -> Demo:
    counts = {"train_pictures": 2, "val_pictures": 1, "test_pictures": 1}
    return Demo(data_dir=cache / "none", cache_dir=cache, **{**counts, **settings})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"))}


@pytest.mark.parametrize(
    ("draw", "classes"),
    [(drawing.draw_flower, len(SPECIES)), (shapes.draw_shape, len(shapes.SHAPES))],
)
def test_a_picture_depends_on_its_class_and_seed_only(draw, classes: int) -> None:
    keys = [(label, i) for label in range(0, classes, 5) for i in range(2)]
    there = {key: draw(key[0], np.random.default_rng(key), 32).tobytes() for key in keys}
    back = {key: draw(key[0], np.random.default_rng(key), 32).tobytes() for key in reversed(keys)}
    assert there == back
    assert len(set(there.values())) == len(keys)


def test_every_class_can_be_drawn_and_differs_from_the_others() -> None:
    """Same randomness, so same pose and background: only the class makes the difference."""
    for draw, classes in ((drawing.draw_flower, FLOWERS), (shapes.draw_shape, shapes.SHAPES)):
        pictures = [draw(c, np.random.default_rng(0), 24) for c in range(len(classes))]
        assert {(p.mode, p.size) for p in pictures} == {("RGB", (24, 24))}
        assert len({p.tobytes() for p in pictures}) == len(classes) == len(set(classes))


def test_colour_does_not_name_the_species() -> None:
    """Each family shares its colours, and no colour is that of one species."""
    palettes = [species.palette for species in SPECIES]
    assert {palettes.count(p) for p in palettes} == {4}
    for colour in PETAL_COLOURS:
        assert sum(colour in palette for palette in palettes) >= 4


@pytest.mark.parametrize(
    ("draw", "version", "known"),
    [
        (drawing.draw_flower, drawing.VERSION, FLOWER_MEANS),
        (shapes.draw_shape, shapes.VERSION, SHAPE_MEANS),
    ],
)
def test_version_is_raised_when_drawings_change(draw, version: int, known) -> None:
    means = [np.asarray(draw(c, np.random.default_rng(c), 64)).mean((0, 1)) for c in range(16)]
    np.testing.assert_allclose(means, known[version], atol=0.25)  # Pillow versions differ a little


def test_demo_has_the_pictures_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = demo(tmp_path)
    assert len(data.classes) == 16
    assert data.val is not None
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (32, 16, 16)
    for photos in (data.train, data.val, data.test):
        for path, label in zip(photos.paths, photos.labels, strict=True):
            assert path.parent.name == data.classes[label]
    assert decode(data.train.paths[0]).shape == (3, SIZE, SIZE)
    assert capsys.readouterr().out == f"Drawing 64 demo pictures into {data.folder}\n"
    assert not (tmp_path / "none").exists()

    demo(tmp_path).prepare_data()
    assert capsys.readouterr().out == ""  # drawn once


def test_a_picture_does_not_depend_on_the_counts(tmp_path: Path) -> None:
    few, more = demo(tmp_path), demo(tmp_path, train_pictures=3, test_pictures=0)
    few.prepare_data()
    more.prepare_data()
    old, new = contents(few.folder), contents(more.folder)
    assert len(new) == 16 * 4
    assert more.test is None
    for name, picture in old.items():
        if not name.startswith("test"):
            assert new[name] == picture
    assert len(set(old.values())) == len(old)  # no picture is in two splits


def test_the_seed_of_a_run_leaves_the_pictures(tmp_path: Path) -> None:
    one, other = demo(tmp_path, train_per_class=1), demo(tmp_path, train_per_class=1, seed=1)
    assert one.test == other.test
    assert one.train != other.train


def test_interrupted_drawing_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = demo(tmp_path / "whole")
    whole.prepare_data()
    data = demo(tmp_path / "broken")
    drawn = 0

    def stop(label: int, rng: np.random.Generator, size: int):
        nonlocal drawn
        drawn += 1
        if drawn == 20:
            raise KeyboardInterrupt
        return drawing.draw_flower(label, rng, size)

    with monkeypatch.context() as patch:
        patch.setattr(Demo, "draw", staticmethod(stop))
        with pytest.raises(KeyboardInterrupt):
            data.prepare_data()
    assert not data.folder.exists()

    leftover = next(p for p in data.cache_dir.iterdir() if p.name.endswith(".partly"))
    (leftover / "train" / "stray.jpg").touch()
    data.prepare_data()
    assert contents(data.folder) == contents(whole.folder)
    assert not leftover.exists()


def test_parallel_jobs_draw_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(demo(tmp_path).prepare_data) for _ in range(3)]:
            job.result()
    assert capsys.readouterr().out.count("Drawing") == 1
    assert len(contents(demo(tmp_path).folder)) == 64


def test_a_changed_drawing_gets_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = demo(tmp_path).folder
    monkeypatch.setattr(Demo, "version", drawing.VERSION + 1)
    assert demo(tmp_path).folder != before


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"paths\.cache_dir=.*file.*Give a folder"):
        demo(tmp_path / "file").prepare_data()


@pytest.mark.parametrize("count", [0, 1.5, True])
def test_counts_are_checked(tmp_path: Path, count) -> None:
    with pytest.raises(ConfigError, match=r"data\.train_pictures=.*1 or more pictures per class"):
        demo(tmp_path, train_pictures=count)


def test_the_loader_gives_pictures(tmp_path: Path) -> None:
    data = demo(tmp_path, batch_size=8, num_workers=0)
    data.train_transform = data.eval_transform = lambda image: image.float() / 255
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, SIZE, SIZE)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("source", [Demo, Shapes])
def test_leaf_lists_the_constructor(source: type[Drawn]) -> None:
    leaf = yaml.safe_load((ROOT / f"conf/data/{source.name}.yaml").read_text())
    assert leaf.pop("_target_") == f"{source.__module__}.{source.__qualname__}"
    arguments = dict(inspect.signature(source).parameters)
    assert set(leaf) == set(arguments) - {"train_transform", "eval_transform", "shrink"}
    for name, value in leaf.items():
        if name not in ("data_dir", "cache_dir", "seed"):
            assert value == arguments[name].default, name
