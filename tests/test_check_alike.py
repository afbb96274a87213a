"""Labels in doubt and outliers of `thaw check`."""

from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_check import made

from thaw.tools import check, probe
from thaw.tools.check_alike import (
    ALIKE,
    NEIGHBOURS,
    doubts,
    likeness,
    look_alike,
    nearest,
    outliers,
)
from thaw.tools.check_files import Listing, Seen


def test_doubts_and_outliers() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 32))
    labels = np.repeat(np.arange(4), 30)
    table = centres[labels] + 0.4 * rng.normal(size=(120, 32))
    table = np.concatenate([table, -centres[:1] + 3 * rng.normal(size=(1, 32))])
    given = np.append(labels, 0)
    given[[5, 70]] = [2, 1]
    given = np.append(given, 4)[: len(table)]
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    found = {pair[:2] for pair in doubts(table[:120], given[:120])}
    assert found == {(5, 0), (70, 2)}
    distances, others = nearest(table, table, NEIGHBOURS + 1)
    assert distances[:, 1:] == pytest.approx(
        1 - np.take_along_axis(table @ table.T, others[:, 1:], 1)
    )
    found = [place for place, _ in outliers(distances)]
    assert found[0] == 120
    assert len(found) <= 4
    assert doubts(table[:8], np.zeros(8, int)) == []  # of one class nothing is doubted
    assert doubts(table[25:35], labels[25:35]) == []  # fewer photos than neighbours that count


def test_a_photo_is_far_also_where_classes_are_small() -> None:
    """The tenth nearest photo is then of another class and, by distances alone, nothing is far."""
    distances = np.append(np.linspace(0.2, 0.7, 200), 0.95)[:, None]
    assert [place for place, _ in outliers(distances)] == [200]


@pytest.mark.parametrize(("share", "found"), [(0.93, False), (0.98, True)])
def test_turned_pictures_must_be_more_alike(share: float, found: bool) -> None:
    """A round flower is much like another one that is turned."""
    rng = np.random.default_rng(0)
    one, noise = rng.normal(size=(2, 32, 32))
    two = np.rot90(share * one + np.sqrt(1 - share**2) * noise)
    greys = [(128 + 30 * each).clip(0, 255).astype(np.uint8).tobytes() for each in (one, two)]
    first, second = (Seen({}, "", 32, grey.hex()) for grey in greys)
    assert (likeness((first, second)) >= ALIKE) == found


def test_a_placeholder_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(0).normal(1, 0.2, size=(40, 8))
    table[[3, 30]] = np.eye(8)[[0, 5]]
    subject = SimpleNamespace(tables=[(torch.from_numpy(table),)])
    monkeypatch.setattr(probe, "measure", lambda *args, **more: subject)
    photos = Listing([Path(f"{n}.jpg") for n in range(40)], [0] * 40, ["train"] * 40, ("a", "b"))
    seen = [Seen({"flat": "has two colours"} if n == 3 else {}, str(n)) for n in range(40)]
    found, _ = look_alike(photos, seen, None)
    told = [each.photos for each in found if each.kinds == ("outlier",)]
    assert told[0] == (30,)
    assert (3,) not in told


@pytest.mark.slow  # other processes import torch
def test_the_whole_check_doubts_a_wrong_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "photos", 80)
    words = ["data=folder", f"data.root={tmp_path}/photos", f"paths.cache_dir={tmp_path}/cache",
             "backbone=tiny", "data.num_workers=0"]  # fmt: skip
    photos, findings, _ = check.look(check.read(ArgumentParser(), words))
    doubted = {
        photos.paths[n].name for each in findings if each.kinds == ("label",) for n in each.photos
    }
    assert doubted == {"wrong <b>.png"}
    assert "features  tiny: 82 photos" in capsys.readouterr().out
