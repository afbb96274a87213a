"""Every figure of the page against its definition, and against the metrics of a run."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from fits import Data, module_of, plan_of
from test_metrics import draw

from thaw.data.photos import Photos
from thaw.errors import ConfigError
from thaw.report.predictions import Predictions
from thaw.training.metrics import Scores, best_class

HEADER = "path,label,predicted,probability,uncalibrated\n"


def predictions(labels: list[int], predicted: list[int], **more: Any) -> Predictions:
    """Of classes a, b, c, ..., as many as are needed."""
    number = max(labels + predicted) + 1
    half = np.full(len(labels), 0.5)
    given = {"probability": half, "uncalibrated": half, **more}
    paths = [f"{place}.jpg" for place in range(len(labels))]
    return Predictions("abcdefgh"[:number], paths, np.array(labels), np.array(predicted), **given)


@pytest.mark.parametrize(("classes", "absent"), [(2, None), (3, None), (8, None), (8, 4)])
def test_the_metrics_are_those_of_the_test(classes: int, absent: int | None) -> None:
    """From three numbers a photo the same as from all class scores, also without photos of one."""
    probabilities, labels = draw(classes, photos=200, absent=absent)
    scores = torch.tensor(np.log(probabilities), dtype=torch.float32)
    test = Scores(classes, "test", 0.6)
    test.add(scores, torch.tensor(labels))
    expected = test.metrics.compute()
    table = best_class(scores, 0.6).double().numpy()
    photos = Photos(tuple(map(Path, map(str, range(200)))), tuple(labels.tolist()))
    found = Predictions.of(photos, list("abcdefgh")[:classes], table).metrics()
    assert set(found) == {"acc", "acc_macro", "f1", "ece", "ece_uncalibrated"}
    for name, value in found.items():
        assert value == pytest.approx(float(expected[f"test/{name}"]), abs=1e-6), name
    assert found["ece"] != pytest.approx(found["ece_uncalibrated"])


def test_each_class() -> None:
    """b has no photos, and nothing is taken for c: those shares do not exist."""
    found = predictions([0, 0, 0, 2], [0, 0, 1, 1]).by_class
    nan = np.nan
    assert found["count"].tolist() == [3, 0, 1]
    np.testing.assert_allclose(found["precision"], [1, 0, nan])
    np.testing.assert_allclose(found["recall"], [2 / 3, nan, 0])
    np.testing.assert_allclose(found["f1"], [2 * (2 / 3) / (1 + 2 / 3), 0, 0])


def test_pairs_of_classes_that_are_confused() -> None:
    """Both ways together, the more frequent way first; right ones are no confusion."""
    labels = [0, 0, 0, 1, 2, 2, 3, 3]
    predicted = [1, 1, 2, 0, 0, 2, 3, 1]
    found = predictions(labels, predicted).confusions()
    assert found == [(0, 1, 2, 1), (0, 2, 1, 1), (3, 1, 1, 0)]


def test_labels_that_the_model_doubts() -> None:
    """As sure of another class as it is, on average, of the photos of that class it gets right."""
    labels = [0, 0, 1, 1, 0, 0, 1]
    taken = [0, 0, 1, 1, 1, 1, 0]
    sure = np.array([0.6, 0.8, 0.9, 0.5, 0.7, 0.69, 0.71])  # usually 0.7 of class a, and of b
    assert predictions(labels, taken, probability=sure).doubted().tolist() == [6, 4]
    # of a class that it never gets right there is nothing to compare with
    assert predictions([0, 0], [1, 0], probability=np.array([0.9, 0.8])).doubted().tolist() == []


def test_the_interval_of_an_accuracy() -> None:
    """Against the roots of its definition, (p - share)^2 = z^2 p (1 - p) / n."""
    for hits, number in ((0, 10), (8, 10), (10, 10), (5282, 6149)):
        share, z2 = hits / number, 1.959963985**2
        roots = np.roots([1 + z2 / number, -2 * share - z2 / number, share**2])
        found = predictions([0] * number, [0] * hits + [1] * (number - hits)).interval()
        assert found == pytest.approx(sorted(roots), abs=1e-9)


def test_a_table_that_is_written_is_read_again(tmp_path: Path) -> None:
    """With names that need quotes, that are no UTF-8, and a class without photos."""
    paths = ['a <b> & "c".jpg', "ä,é\n.jpg", "caf\udce9.jpg"]
    one = Predictions(
        ["a", "b, or c", "d"], paths, np.array([0, 1, 1]), np.array([1, 1, 0]),
        np.array([0.25, 1, 0.5]), np.array([0.125, 1, 0.75]),
    )  # fmt: skip
    one.write(tmp_path / "one.csv")
    two = Predictions.read(tmp_path / "one.csv", one.classes)
    assert list(two.paths) == paths
    for name in ("labels", "predicted", "probability", "uncalibrated"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist()
    with (tmp_path / "one.csv").open(encoding="utf-8", errors="replace", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["a", "b, or c", "b, or c"]
    assert Predictions.read(tmp_path / "one.csv").classes == ["a", "b, or c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is none of this thaw"),
        (HEADER, "is none of this thaw"),
        ("path,predicted,label,probability,uncalibrated\n1.jpg,a,b,1,1\n", "columns are not path,"),
        ("path,label,predicted,probability\n1.jpg,a,b,1\n", "columns are not path, label, pred"),
        (HEADER + "1.jpg,a,b,0.5,0.5\n2.jpg,a,b\n", "ValueError: zip"),
        (HEADER + "1.jpg,a,b,0.5,0.5,7\n", "is none of this thaw"),
        (HEADER + "1.jpg,a,b,high,0.5\n", "could not convert string to float: 'high'"),
        (HEADER + "1.jpg,a,b,0.5," + "9" * 200_000, "field larger than field limit"),
        (HEADER + "1.jpg,a,z,0.5,0.5\n", r"KeyError: 'z'\); measure the model again by: thaw eval"),
    ],
)
def test_tables_that_were_changed(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Predictions.read(file, ["a", "b"])


def test_nan_is_a_probability(tmp_path: Path) -> None:
    """A run that went to nan has a page."""
    file = tmp_path / "nan.csv"
    file.write_text(HEADER + "1.jpg,a,a,1.0000001,1\n2.jpg,a,b,nan,nan\n")
    assert np.isnan(Predictions.read(file, ["a", "b"]).probability).tolist() == [False, True]


def test_a_table_shorter_than_the_photos_is_of_the_first(tmp_path: Path) -> None:
    """As with trainer.limit_test_batches."""
    photos = Photos((tmp_path / "1.jpg", Path("2.jpg"), Path("3.jpg")), (1, 0, 1))
    found = Predictions.of(photos, ["a", "b"], np.array([[1, 0.5, 0.25], [1, 0.75, 0.5]]))
    assert found.paths == [str(tmp_path / "1.jpg"), str(Path("2.jpg").absolute())]
    assert found.right.tolist() == [True, False]


class Odd(Data):
    """Seven test photos, so that of two ranks one has more than the other."""

    def test_dataloader(self) -> Any:
        return self._loader(7, 2, False)


class SaveTable(pl.Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        torch.save(pl_module.test_predictions, self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.parametrize(("batches", "photos"), [(1.0, 7), (1, 4)])  # all, or one on each rank
def test_two_ranks_join_what_they_predict(tmp_path: Path, batches: float, photos: int) -> None:
    """On each the table of one process, photo for photo, though they take turns with photos."""

    def table(name: str, **settings: Any) -> list[torch.Tensor]:
        (tmp_path / name).mkdir()
        module = module_of(plan_of("full"))
        module.temperature = 0.7
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False,
            callbacks=[SaveTable(tmp_path / name)], use_distributed_sampler=False, **settings,
        )  # fmt: skip
        trainer.test(module, Odd(), verbose=False)
        return [torch.load(path) for path in sorted((tmp_path / name).iterdir())]

    (one,) = table("one")
    first, second = table("two", strategy="ddp_fork", devices=2, limit_test_batches=batches)
    assert one.shape == (7, 3)
    assert len(one.unique(dim=0)) == 7
    assert torch.equal(first, second)
    assert torch.allclose(first, one[: len(first)], atol=1e-6)
    assert len(first) == photos
