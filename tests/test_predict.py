"""`thaw predict`: the labels of the run's own test, photo for photo; what it does with files."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from runs import SMALL, configuration, draw_photos
from test_model_folder import photo, tiny

import train
from thaw import cli, config, launch
from thaw.tools import predict
from thaw.training.module import TransferModule


def run(*words: object) -> int:
    return cli.main(["predict", *map(str, words)])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train_and_test(
    monkeypatch: pytest.MonkeyPatch, output: Path, *settings: str
) -> tuple[dict[str, Any], dict[Path, str]]:
    """Runs train.py; gives its results and the label that its test predicted for each photo."""
    predicted: list[int] = []
    end = TransferModule.on_test_epoch_end

    def noting(module: TransferModule) -> None:
        end(module)
        predicted.extend(module.test_predictions[:, 0].int().tolist())

    monkeypatch.setattr(TransferModule, "on_test_epoch_end", noting)
    cfg = configuration(output, *settings)
    results = train.run(cfg)
    data = config.build(cfg.data, "data")
    names = [data.classes[label] for label in predicted]
    return results, dict(zip(data.test.paths, names, strict=True))


def same_labels(
    model: Path, labels: dict[Path, str], photos: Sequence[Path], output: Path
) -> list[dict[str, str]]:
    run(model, *photos, "--csv", output, "--device", "cpu")
    rows = rows_of(output)
    found = {row["path"]: row["label"] for row in rows}
    assert {path: found[str(path)] for path in labels} == labels
    return rows


def test_the_test_split_gets_the_labels_of_the_runs_own_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 11, with BatchNorm, dropout, a centre crop, and a temperature far from 1."""
    photos = draw_photos(tmp_path / "photos", other=12)
    settings = (*SMALL, f"data.root={photos}", "callbacks=default", "callbacks.progress=null",
                "head=mlp", "finetune=full", "data.train_per_class=2")  # fmt: skip
    results, labels = train_and_test(monkeypatch, tmp_path / "run", *settings)
    assert len(labels) == 36
    rows = same_labels(tmp_path / "run", labels, [photos / "test"], tmp_path / "labels.csv")
    assert [Path(row["path"]) for row in rows] == list(labels)
    right = [row["label"] == Path(row["path"]).parent.name for row in rows]
    assert sum(right) / len(right) == pytest.approx(results["test/acc"])
    facts = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert facts["temperature"] == pytest.approx(results["val/temperature"])
    assert facts["metrics"]["test/acc"] == results["test/acc"]
    assert facts["git"] == results["git"]


@pytest.mark.slow
@pytest.mark.photos
def test_real_photos_get_the_labels_of_the_runs_own_test(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 6,149 test photos of Flowers102, decoded by worker processes, beside 2,040 others."""
    launch.register_backbones()
    settings = (
        "backbone=mobilenet_v2",
        f"backbone.weights={data_dir / 'weights' / 'mobilenet_v2.pth'}",
        "backbone.image_size=96", "data=flowers102", f"paths.data_dir={data_dir}", "trainer=cpu",
        "callbacks=none", "logger=none", "finetune=feature_extraction", "trainer.max_epochs=3",
    )  # fmt: skip
    results, labels = train_and_test(monkeypatch, tmp_path / "run", *settings)
    assert len(labels) == 6149
    folder = next(iter(labels)).parent
    rows = same_labels(tmp_path / "run", labels, [folder], tmp_path / "labels.csv")
    assert len(rows) == 8189
    assert results["test/ece"] < results["test/ece_uncalibrated"]


def test_one_line_a_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In natural order, folders at any depth, without hidden files and what is no picture."""
    tiny(tmp_path / "model")
    photos = tmp_path / "photos"
    (photos / "deeper").mkdir(parents=True)
    for name in ("10.png", "9.PNG", "deeper/b.jpg", ".hidden.png"):
        photo(photos / name)
    (photos / "notes.txt").write_text("no picture")
    single = photo(tmp_path / "single.png", seed=1)
    run(tmp_path, photos, single, "--top", 2, "--batch-size", 2)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    names = [photos / "9.PNG", photos / "10.png", photos / "deeper" / "b.jpg", single]
    assert [line.split("  ")[0] for line in lines] == [str(name) for name in names]
    assert all(re.fullmatch(r"\S+  (ant|bee|cat) [01]\.\d\d  (ant|bee|cat) 0\.\d\d", line)
               for line in lines)  # fmt: skip
    assert printed.err == ""


def test_tables_and_lists_hold_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--top` beyond the number of classes gives all of them."""
    tiny(tmp_path / "model")
    paths = [photo(tmp_path / f"{number}.png", number) for number in range(3)]
    run(tmp_path, *paths, "--csv", tmp_path / "new" / "labels.csv")
    assert capsys.readouterr().out == ""
    run(tmp_path, *paths, "--json", "-")
    records = json.loads(capsys.readouterr().out)
    table = rows_of(tmp_path / "new" / "labels.csv")
    for path, record, row in zip(paths, records, table, strict=True):
        assert record["path"] == row["path"] == str(path)
        assert record["label"] == row["label"] == record["top"][0]["label"]
        assert record["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
        assert [top["label"] for top in record["top"]] == [
            row["label"], row["label_2"], row["label_3"],
        ]  # fmt: skip
        assert sum(top["probability"] for top in record["top"]) == pytest.approx(1)


@pytest.mark.parametrize("form", [[], ["--csv", "-"], ["--json", "-"]])
def test_broken_photos_are_told_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: list[str]
) -> None:
    """The results of all others are whole, and the exit code says that something was wrong."""
    tiny(tmp_path / "model")
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "c.png", "e.png"):
        photo(photos / name)
    for name in ("b.jpg", "d.png"):
        (photos / name).write_bytes(b"no picture")
    assert run(tmp_path, photos, "--batch-size", 2, *form) == 1
    printed = capsys.readouterr()
    assert "b.jpg" in printed.err
    assert "d.png" in printed.err
    assert "2 photos could not be read" in printed.err
    assert [name in printed.out for name in ("a.png", "b.jpg", "c.png", "d.png", "e.png")] == [
        True, False, True, False, True,
    ]  # fmt: skip
    if "--json" in form:
        assert len(json.loads(printed.out)) == 3


def test_only_broken_photos_still_make_a_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path / "model")
    (tmp_path / "a.jpg").write_bytes(b"")
    assert run(tmp_path, tmp_path / "a.jpg", "--json", "-") == 1
    assert json.loads(capsys.readouterr().out) == []


def test_a_photo_that_is_named_twice_has_two_rows(tmp_path: Path) -> None:
    tiny(tmp_path / "model")
    path = photo(tmp_path / "a.png")
    assert run(tmp_path, path, path, "--csv", tmp_path / "out.csv") == 0
    first, second = rows_of(tmp_path / "out.csv")
    assert first == second


def test_worker_processes_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a number of batches that the workers cannot share evenly."""
    tiny(tmp_path / "model")
    paths = [photo(tmp_path / f"{number}.png", number) for number in range(5)]
    run(tmp_path, *paths, "--batch-size", 2, "--csv", tmp_path / "alone.csv")
    monkeypatch.setattr(predict, "choose_workers", lambda *_, **__: 2)
    run(tmp_path, *paths, "--batch-size", 2, "--csv", tmp_path / "two.csv")
    assert rows_of(tmp_path / "two.csv") == rows_of(tmp_path / "alone.csv")
    assert len(rows_of(tmp_path / "alone.csv")) == 5


def test_names_that_are_not_utf8_do_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny(tmp_path / "model")
    photo(tmp_path / "a.png").rename(tmp_path / "caf\udce9.png")
    run(tmp_path, tmp_path / "caf\udce9.png")
    assert "caf\N{REPLACEMENT CHARACTER}.png  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}/gone.jpg"], r"gone\.jpg: no such photo or folder"),
        (["{}/model"], r"model: holds no photos \(\.jpg"),
        (["{}/a.png", "--top", "0"], r"--top 0: allowed is 1 or more"),
        (["{}/a.png", "--batch-size", "-3"], r"--batch-size -3: allowed is 1 or more"),
        (["{}/a.png", "--device", "tpux"], r"--device tpux: cannot be used .*try auto or cpu"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    tiny(tmp_path / "model")
    photo(tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *(word.format(tmp_path) for word in words))
    assert stop.value.code == 1
    assert re.search(message, capsys.readouterr().err)
