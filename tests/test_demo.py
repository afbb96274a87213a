"""The drawn pictures: the same on every run, apart by class, and never half there."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thaw.data import demo as demo_module
from thaw.data import flowers
from thaw.data.decode import decode
from thaw.data.demo import Demo
from thaw.data.flowers import FLOWERS, draw_flower

SIZE = 24  # pixels: quick to draw

# Mean red, green and blue of one picture of each class. When this fails because a drawing was
# changed on purpose: raise demo.VERSION, so that no cache keeps the old pictures, and put the
# new numbers here.
MEANS = {
    3: [
        [126.4, 140.6, 166.8],
        [140.4, 90.9, 81.4],
        [152.2, 135.4, 109.3],
        [143.0, 154.4, 115.2],
        [233.9, 225.7, 200.0],
        [209.9, 188.0, 188.4],
        [131.9, 108.0, 101.8],
        [122.5, 128.3, 124.2],
        [72.2, 100.1, 102.3],
        [242.4, 213.9, 183.5],
        [216.9, 197.7, 184.1],
        [145.3, 169.9, 128.6],
        [73.0, 69.0, 56.0],
        [162.3, 159.6, 164.9],
        [162.4, 162.8, 167.4],
        [121.5, 125.5, 183.5],
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


def test_every_class_can_be_drawn_and_differs_from_the_others() -> None:
    """Same randomness, so same pose and background: only the class makes the difference."""
    pictures = [draw_flower(c, np.random.default_rng(0), 24) for c in range(len(FLOWERS))]
    assert {(p.mode, p.size) for p in pictures} == {("RGB", (24, 24))}
    assert len({p.tobytes() for p in pictures}) == len(FLOWERS) == len(set(FLOWERS)) == 16


def test_version_is_raised_when_drawings_change() -> None:
    means = [np.asarray(draw_flower(c, np.random.default_rng(c), 64)).mean((0, 1))
             for c in range(16)]  # fmt: skip
    np.testing.assert_allclose(
        means, MEANS[demo_module.VERSION], atol=0.25
    )  # Pillows differ a little


def test_demo_has_the_pictures_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = demo(tmp_path)
    assert data.classes == tuple(sorted(FLOWERS))
    assert data.val is not None
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (32, 16, 16)
    for photos in (data.train, data.val, data.test):
        for path, label in zip(photos.paths, photos.labels, strict=True):
            assert path.parent.name == data.classes[label]
    assert decode(data.train.paths[0]).shape == (3, SIZE, SIZE)
    assert f"Drawing pictures of flowers into {data.folder}\n" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    demo(tmp_path).prepare_data()
    assert capsys.readouterr().out == ""  # drawn once


def test_a_picture_depends_on_its_split_class_and_number_only(tmp_path: Path) -> None:
    few, more = demo(tmp_path), demo(tmp_path, train_pictures=3, test_pictures=0)
    few.prepare_data()
    more.prepare_data()
    old, new = contents(few.folder), contents(more.folder)
    assert len(new) == 16 * 4
    assert more.test is None
    assert all(new[name] == old[name] for name in old if not name.startswith("test"))
    assert len(set(old.values())) == len(old)  # no picture is in two splits


def test_the_seed_of_a_run_leaves_the_pictures(tmp_path: Path) -> None:
    one, other = demo(tmp_path, train_per_class=1), demo(tmp_path, train_per_class=1, seed=1)
    assert one.test == other.test
    assert one.train != other.train


def test_interrupted_drawing_is_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, data = demo(tmp_path / "whole"), demo(tmp_path / "broken")
    whole.prepare_data()
    calls = iter(range(20))

    def stop(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return draw_flower(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(flowers, "draw_flower", stop)
        with pytest.raises(KeyboardInterrupt):
            data.prepare_data()
    assert not data.folder.exists()
    leftover = data.folder.with_name(f".{data.folder.name}.part")  # of a process that was killed
    (leftover / "train").mkdir(parents=True)
    (leftover / "train" / "stray.jpg").touch()
    data.prepare_data()
    assert contents(data.folder) == contents(whole.folder)
    assert not leftover.exists()


def test_parallel_jobs_draw_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: demo(tmp_path).prepare_data(), range(3)))
    assert capsys.readouterr().out.count("Drawing") == 1
    assert len(contents(demo(tmp_path).folder)) == 64


def test_the_loader_gives_pictures(tmp_path: Path) -> None:
    data = demo(tmp_path, batch_size=8, num_workers=0)
    data.train_transform = data.eval_transform = lambda image: image.float() / 255
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, SIZE, SIZE)
    assert labels.dtype == torch.int64
