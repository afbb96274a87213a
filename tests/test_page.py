"""The page of a run: what stands on it for every kind of result; and it needs nothing else."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import draw_photos, run_small
from test_model_folder import tiny

from thaw.errors import ConfigError
from thaw.heat_map import heat_map
from thaw.image_classifier import load
from thaw.report import page
from thaw.report.page import examples, small, write_page
from thaw.report.predictions import Predictions
from thaw.store import write_json

VOID = {"meta", "img", "path", "rect", "br"}  # without an end tag


class Reader(HTMLParser):
    """The text of a page; fails where its tags are not closed in order."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.sources: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.attributes |= values.keys()
        self.sources += [values["src"] or ""] if "src" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def evaluated(
    folder: Path, classes: Sequence[str], labels: Sequence[int], predicted: Sequence[int],
    probability: Sequence[float] | None = None, names: Sequence[str] | None = None,
) -> Path:  # fmt: skip
    """A folder with results of photos that are drawn."""
    files = [folder / "photos" / (names[n] if names else f"{n}.jpg") for n in range(len(labels))]
    (folder / "photos").mkdir(parents=True)
    for number, file in enumerate(files):
        Image.new("RGB", (30, 20), (5 * number % 256, 90, 90)).save(file)
    chances = np.full(len(labels), 0.5) if probability is None else np.array(probability)
    tested = Predictions(classes, list(map(str, files)), np.array(labels), np.array(predicted),
                         chances, chances / 2)  # fmt: skip
    tested.write(folder / "predictions.csv")
    results = {"classes": classes, "phases": [], "seed": 3, "device": "cpu"}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frozen and two unfrozen epochs, with the page that train.py makes by default."""
    folder = tmp_path_factory.mktemp("run")
    run_small(draw_photos(folder / "photos"), folder / "run", "report=fast", "seed=2")
    return folder / "run"


def test_a_run_ends_with_a_page_of_its_test(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    page = Reader(run / "report.html")
    assert f"{results['test/acc']:.1%}".replace("%", " %") in page.text
    assert f"{results['test/ece']:.3f} calibration error" in page.text
    assert "3 classes, 12 test photos" in page.text
    plan = (run / "plan.txt").read_text()
    assert " ".join(plan.split()) in page.text
    assert (run / "curves.png").stat().st_size > 0
    tested = Predictions.read(run / "predictions.csv", results["classes"])
    for name, value in tested.metrics().items():
        assert value == pytest.approx(results[f"test/{name}"], abs=1e-5), name
    curves = [source for source in page.sources if source.startswith("data:image/svg")]
    assert len(curves) == 3  # loss, accuracy, rates
    history = json.loads((run / "history.json").read_text())
    assert [row["rates"]["layer4"] > 0 for row in history] == [False, False, True, True]


def test_nothing_is_read_from_elsewhere(run: Path) -> None:
    """No network, no other file: all pictures are inside, and nothing refers to anything."""
    page = Reader(run / "report.html")
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not page.attributes & {"href", "srcset", "onload", "action"}
    assert not re.search(
        r"https?:|@import|url\(|fetch\(|import ", (run / "report.html").read_text()
    )


def test_names_with_every_character(tmp_path: Path) -> None:
    classes = ['<b>&"x"</b>', "Ä 花 'q'", "</script><script>alert(1)</script>"]
    names = ["a & b.jpg", "ü <i>.jpg", "caf\udce9.jpg"]
    evaluated(tmp_path, classes, [0, 1, 2], [1, 1, 0], names=names)
    page = Reader(write_page(tmp_path))
    for name in (*classes, "a & b.jpg", "ü <i>.jpg", "caf?.jpg"):
        assert name in page.text
    assert "photo not found" not in page.text
    assert "<script>alert" not in (tmp_path / "report.html").read_text()


def test_two_classes(tmp_path: Path) -> None:
    evaluated(tmp_path, ["cat", "dog"], [0, 0, 0, 1], [0, 0, 1, 1])
    page = Reader(write_page(tmp_path))
    assert (
        "Rows: the true class. Columns: what the photos are taken for. cat dog cat 2 1 dog 1"
        in (page.text)
    )
    assert "1 of cat taken for dog, 0 of dog for cat" in page.text
    assert "75.0 % accuracy" in page.text


def test_a_hundred_classes_have_a_table_and_no_matrix(tmp_path: Path) -> None:
    labels = [number for number in range(100) for _ in range(3)]
    predicted = [label if place % 3 else (label + 1) % 100 for place, label in enumerate(labels)]
    classes = [f"class {number}" for number in range(100)]
    evaluated(tmp_path, classes, labels, predicted)
    page = Reader(write_page(tmp_path))
    assert "Rows: the true class" not in page.text
    for name in classes:
        assert f"{name} 3 66.7 % 66.7 % 66.7 %" in page.text
    assert page.text.count(" taken for class ") > 20  # pairs and photos
    assert (tmp_path / "report.html").stat().st_size < 1e6


def test_a_class_without_test_photos_has_no_recall(tmp_path: Path) -> None:
    evaluated(tmp_path, ["a", "b", "c"], [0, 0, 2], [0, 0, 2])
    page = Reader(write_page(tmp_path))
    assert "a 2 100.0 % 100.0 % 100.0 % b 0 - - - c 1 100.0 %" in page.text
    # nothing is wrong, so nothing is confused
    assert "What is taken for what" not in page.text
    assert "The surest mistakes" not in page.text


def test_the_surest_mistakes_and_the_least_sure(tmp_path: Path) -> None:
    """In this order, with what they were taken for."""
    evaluated(tmp_path, ["a", "b"], [0, 0, 0, 1], [1, 1, 0, 1], [0.6, 0.9, 0.55, 0.7])
    text = Reader(write_page(tmp_path)).text
    wrong = text.partition("The surest mistakes")[2].partition("Labels to check: 1")
    assert wrong[0].endswith("a , taken for b 90.0 % 1.jpg a , taken for b 60.0 % 0.jpg ")
    doubts, _, unsure = wrong[2].partition("The least sure")
    assert doubts.endswith(f"a b 90.0 % {tmp_path}/photos/1.jpg ")  # b is right with 0.7
    assert unsure.startswith(" a 55.0 % 2.jpg a , taken for b 60.0 % 0.jpg b 70.0 % 3.jpg")


def test_the_check_of_the_photos_is_linked_and_its_notes_are_text(tmp_path: Path) -> None:
    evaluated(tmp_path, ["a", "b"], [0, 1], [0, 1], [0.6, 0.9])
    assert f"thaw check --model {tmp_path}" in Reader(write_page(tmp_path)).text
    write_json(["Test accuracy <b>0.9</b>"], tmp_path / "check.json")
    page = write_page(tmp_path)
    assert "Test accuracy <b>0.9</b>" in Reader(page).text
    assert 'href="check.html"' in page.read_text("utf-8")
    write_json({"page": "javascript:alert()"}, tmp_path / "check.json")
    with pytest.raises(ConfigError, match="its content is no list"):
        write_page(tmp_path)


def test_examples_of_two_classes_show_what_is_confused(tmp_path: Path) -> None:
    """Of each class two photos: what is taken for the other, then right ones, then others."""
    evaluated(tmp_path, ["a", "b", "c"], [0, 0, 0, 0, 1, 1, 1], [2, 0, 1, 0, 2, 2, 1])
    tested = Predictions.read(tmp_path / "predictions.csv", ["a", "b", "c"])
    assert examples(tested, 0, 1) == [2, 1, 6, 4]


def test_photos_that_are_gone_and_numbers_that_are_none(tmp_path: Path) -> None:
    """A run that went to nan has a page too."""
    evaluated(tmp_path, ["a", "b"], [0, 1], [0, 0], [float("nan"), float("nan")])
    for file in (tmp_path / "photos").iterdir():
        file.unlink()
    assert "photo not found" in Reader(write_page(tmp_path)).text


@pytest.mark.parametrize("size", [(1000, 5), (5, 997)])
def test_the_longest_picture_that_is_read_is_shown(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "long.png")
    assert small(tmp_path / "long.png")


def test_without_a_test_split_it_says_so(run: Path, tmp_path: Path) -> None:
    """And nothing of an earlier test is left."""
    (tmp_path / "predictions.csv").write_text("of a run before")
    run_small(run.parent / "photos", tmp_path, "report=fast", "test=false")
    page = Reader(tmp_path / "report.html")
    assert "No test photos were read" in page.text
    assert "Classes" not in page.text
    assert not (tmp_path / "predictions.csv").exists()


def test_no_page_where_none_is_asked_for(run: Path, tmp_path: Path) -> None:
    of_the_page = ("report.html", "predictions.csv")
    for name in of_the_page:
        (tmp_path / name).write_text("of a run before")
    run_small(run.parent / "photos", tmp_path, "report=none")
    assert (tmp_path / "results.json").is_file()
    assert not [name for name in of_the_page if (tmp_path / name).exists()]


def test_the_full_page_has_heat_maps(run: Path) -> None:
    page = Reader(write_page(run, full=True))
    assert "Where it looks" in page.text


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_the_full_page_is_plain_where_a_part_is_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    """thaw cannot build it again, and a run that trained for hours must not end with an error."""
    tiny(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    facts = json.loads(file.read_text())
    facts[part]["builder"] = "my.own"
    file.write_text(json.dumps(facts))
    evaluated(tmp_path, ["a", "b"], [0, 1], [0, 0])
    page = Reader(write_page(tmp_path, full=True))
    assert "50.0 % accuracy" in page.text
    assert "Where it looks" not in page.text
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("report.html lacks heat maps: thaw.load: the ")
    assert "was built by my.own, which is not thaw's" in line


def test_heat_maps_of_wrong_and_right_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The surest mistakes first; photos that are gone are left out; none without places."""
    shown: list[int] = []

    def noting(model: Any, view: torch.Tensor, label: int) -> torch.Tensor:
        shown.append(label)
        return heat_map(model, view, label)

    monkeypatch.setattr(page, "heat_map", noting)
    tiny(tmp_path / "model")
    labels, predicted = [0] * 10, [1] * 3 + [0] * 7
    evaluated(tmp_path, ["cat", "ant", "bee"], labels, predicted, [0.3, 0.9, 0.6] + [0.5] * 7)
    tested = Predictions.read(tmp_path / "predictions.csv", ["cat", "ant", "bee"])
    (tmp_path / "photos" / "2.jpg").unlink()
    model = load(tmp_path)
    monkeypatch.setattr(page, "load", lambda _run: model)
    found = page.find_heat_maps(tmp_path, tested)
    assert [tested.paths[each["place"]] for each in found][:2] == [
        str(tmp_path / "photos" / f"{n}.jpg") for n in (1, 0)
    ]
    assert [bool(tested.right[each["place"]]) for each in found] == [False] * 2 + [True] * 6
    assert shown == [1] * 2 + [0] * 6  # of what is said, not of the label
    assert all(each["heat"] != each["picture"] for each in found)
    model.body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                                     torch.nn.Linear(3, model.head[-1].in_features))  # pyright: ignore  # fmt: skip
    assert page.find_heat_maps(tmp_path, tested) == []
    assert "no output inside the body is spatial" in capsys.readouterr().err


def test_a_folder_without_results_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is damaged, or of another program"):
        write_page(tmp_path)


RESULTS = '{"classes": ["a", "b"], "phases": []}'
ROW = '{"epoch": 1, "train/loss": 1, "train/acc": 0.5, "rates": {"head": 0.1}}'
