"""`thaw predict`: the labels of the run's own test, photo for photo; what it does with files."""

import csv
import json
import os
import random
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from runs import SMALL, configuration, draw_photos
from test_model_folder import MLP, photo, save, tiny

import thaw
import train
from thaw import cli, config, launch
from thaw.backbones.tiny import tiny_backbone
from thaw.data.decode import decode
from thaw.data.picture_files import natural
from thaw.errors import ConfigError
from thaw.tools import predict
from thaw.tools.predict_files import copy_into
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
    found = {row["path"]: row["predicted"] for row in rows}
    assert {path: found[str(path)] for path in labels} == labels
    return rows


@pytest.mark.parametrize("crop", ["center", "pad"])
def test_the_test_split_gets_the_labels_of_the_runs_own_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    """Invariant 11, with BatchNorm, dropout, long photos and a temperature far from 1."""
    photos = draw_photos(tmp_path / "photos", other=12)
    for path in photos.rglob("*.png"):
        Image.open(path).resize((60, 24)).save(path)
    settings = (*SMALL, f"data.root={photos}", "callbacks=default", "callbacks.progress=null",
                "head=mlp", "finetune=full", "data.train_per_class=2", "trainer.max_epochs=2",
                f"data.crop={crop}")  # fmt: skip
    results, labels = train_and_test(monkeypatch, tmp_path / "run", *settings)
    assert thaw.load(tmp_path / "run").input_spec.crop == crop
    assert len(labels) == 36
    rows = same_labels(tmp_path / "run", labels, [photos / "test"], tmp_path / "labels.csv")
    assert [Path(row["path"]) for row in rows] == list(labels)
    right = [row["predicted"] == Path(row["path"]).parent.name for row in rows]
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
    """Pets, among them a GIF and a PNG named .jpg, by worker processes, beside 642 other photos.

    What a pretrained body is worth, frozen and then unfrozen: 37 breeds of 17 photos each, where
    chance is 2.7 %.
    """
    launch.register_backbones()
    settings = (
        "backbone=mobilenet_v2",
        f"backbone.weights={data_dir / 'weights' / 'mobilenet_v2.pth'}",
        "backbone.image_size=96", "data=pets", f"paths.data_dir={data_dir}", "data.batch_size=16",
        "finetune.unfreeze_epoch=2", "trainer=cpu", "trainer.max_epochs=3", "callbacks=none",
        "logger=none",
    )  # fmt: skip
    results, labels = train_and_test(monkeypatch, tmp_path / "run", *settings)
    assert results["val/acc"] > 0.3
    assert [phase["name"] for phase in results["phases"]] == ["frozen", "unfrozen"]
    assert len(labels) == 298
    folder = next(iter(labels)).parent
    monkeypatch.setattr(predict, "choose_workers", lambda *_, **__: 2)
    rows = same_labels(tmp_path / "run", labels, [folder], tmp_path / "labels.csv")
    assert len(rows) == 940


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


@pytest.mark.parametrize("seed", range(3))
def test_names_are_in_natural_order(seed: int) -> None:
    """Numbers by their value and before letters; capitals like small letters, then by the name."""
    assert sorted(["a10", "B", "a9", "b1", "A09", "10", "9"], key=natural) == [
        "9", "10", "A09", "a9", "a10", "B", "b1",
    ]  # fmt: skip
    draw = random.Random(seed)
    names = ["".join(draw.choices("aAbB0129_- .", k=draw.randint(1, 6))) for _ in range(2000)]
    assert sorted(names, key=natural) == sorted(names, key=by_parts)


def by_parts(name: str) -> tuple[list[tuple[int, int | str]], str]:
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], name


def test_tables_and_lists_hold_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--top` beyond the number of classes gives all of them."""
    tiny(tmp_path / "model")
    paths = [photo(tmp_path / f"{number}.png", number) for number in range(3)]
    run(tmp_path, *paths, "--csv", tmp_path / "new" / "labels.csv")
    assert capsys.readouterr().out == ""
    run(tmp_path, *paths, "--json", "-")
    records = json.loads(capsys.readouterr().out)
    table = rows_of(tmp_path / "new" / "labels.csv")
    assert "label" not in table[0]  # predictions.csv of a run has the true class there
    for path, record, row in zip(paths, records, table, strict=True):
        assert record["path"] == row["path"] == str(path)
        assert record["label"] == row["predicted"] == record["top"][0]["label"]
        assert record["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
        assert [top["label"] for top in record["top"]] == [
            row["predicted"], row["predicted_2"], row["predicted_3"],
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
        (["{}/a.png", "--top", "0"], r"--top=0: allowed is 1 or more"),
        (["{}/a.png", "--batch-size", "-3"], r"--batch-size=-3: allowed is 1 or more"),
        (["{}/a.png", "--unsure", "60"], r"--unsure=60\.0: allowed is a probability, 0 to 1"),
        (["{}/a.png", "--resume"], r"--resume: needs --csv FILE or --jsonl FILE"),
        (["{}/a.png", "--resume", "--csv", "-"], r"--resume: needs --csv FILE or --jsonl FILE"),
        (["{}/a.png", "--resume", "--json", "{}/b.json"], r"needs --csv FILE or --jsonl FILE"),
        (["{}", "--copy-into", "{}/sorted"], r"--copy-into .*sorted: lies in .*give a folder outs"),
        (["{}/a.png", "--device", "tpux"], r"--device tpux: cannot be used .*try auto or cpu"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    tiny(tmp_path / "model")
    photo(tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, *(word.format(tmp_path) for word in words))
    assert stop.value.code == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("option", ["--csv", "--jsonl", "--json", "--copy-into"])
def test_what_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    tiny(tmp_path / "model")
    target = photo(tmp_path / "a.png") / "x.npy"
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, tmp_path / "a.png", option, target, "--device", "cpu")
    assert stop.value.code == 1
    said = rf"error: thaw predict: \[Errno .*'{target.parent}.*'; give a place that can be read and"
    assert re.search(said, capsys.readouterr().err)


def many(folder: Path, number: int = 7) -> list[Path]:
    folder.mkdir()
    return [photo(folder / f"{index}.png", index) for index in range(number)]


@pytest.mark.parametrize(
    ("form", "kept"),
    [("csv", 0), ("csv", 30), ("csv", 0.5), ("csv", 1.0), ("jsonl", 0.5), ("jsonl", 0.6)],
)
def test_a_stopped_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, kept: float
) -> None:
    """Cut anywhere, also within a line: the files are those of a run that was not stopped.

    To the bit with one photo a batch; else up to rounding, since the batches are other ones.
    """
    tiny(tmp_path / "model")
    photos = many(tmp_path / "photos")
    whole, cut = tmp_path / "whole" / f"rows.{form}", tmp_path / "cut" / f"rows.{form}"
    for rows in (whole, cut):
        words = (tmp_path, tmp_path / "photos", "--batch-size", 1, "--unsure", 0.6, f"--{form}",
                 rows)  # fmt: skip
        run(*words)
    text = cut.read_bytes()
    end = int(kept * len(text)) if isinstance(kept, float) else kept
    cut.write_bytes(text[:end])
    done = max(0, text[:end].count(b"\n") - (form == "csv"))
    decoded: list[Path] = []
    monkeypatch.setattr(predict, "decode", lambda path: decoded.append(path) or decode(path))
    assert run(*words, "--resume") == 0
    assert decoded == photos[done:]
    assert cut.read_bytes() == whole.read_bytes()


def refused(message: str, *words: object) -> None:
    with pytest.raises(ConfigError, match=message):
        predict.main(ArgumentParser(), [*map(str, words), "--device", "cpu", "--resume"])


def test_what_is_resumed_must_be_of_the_same_model_and_options(tmp_path: Path) -> None:
    """As the note beside it says; what was refused stays as it was."""
    tiny(tmp_path / "model")
    save(tmp_path / "other", tiny_backbone(weights=None, image_size=16), MLP)
    many(tmp_path / "photos", 2)
    model, file = tmp_path / "model", tmp_path / "rows.csv"
    words = (tmp_path / "photos", "--csv", file, "--unsure", 0.6)
    assert run(model, *words) == 0
    before = file.read_bytes()
    assert run(model, *words, "--resume") == 0
    said = r"rows\.csv was made, says \.rows\.csv\.resume beside it, with"
    refused(rf"{said} --tta False \(now True\); give", model, *words, "--tta")
    refused(rf"{said} --top 3 \(now 2\); give", model, *words, "--top", 2)
    refused(rf"{said} --unsure 0\.6 \(now 0\.5\);", model, *words, "--unsure", 0.5)
    refused(rf"{said} model \w+ \(now \w+\);", tmp_path / "other", *words)
    refused(rf"{said} form csv \(now jsonl\);", model, words[0], "--jsonl", *words[2:])
    (tmp_path / ".rows.csv.resume").unlink()
    refused(r"with model unknown \(now \w+\), form unknown", model, *words)
    assert file.read_bytes() == before


@pytest.mark.parametrize(("form", "row"), [("csv", '"a.png,cat\n'), ("jsonl", "[]\n")])
def test_rows_that_others_wrote_are_not_gone_on_with(tmp_path: Path, form: str, row: str) -> None:
    tiny(tmp_path / "model")
    many(tmp_path / "photos", 2)
    file = tmp_path / f"rows.{form}"
    words = (tmp_path / "model", tmp_path / "photos", f"--{form}", file)
    assert run(*words) == 0
    file.write_text(file.read_text() + row)
    refused(rf"rows\.{form} was changed since it was written \(.*; start anew", *words)


def test_a_resumed_run_tells_of_broken_photos_again(tmp_path: Path) -> None:
    """They have no row. One that has been mended since gets its row at the end."""
    tiny(tmp_path / "model")
    photos = many(tmp_path / "photos", 3)
    photos[1].write_bytes(b"no picture")
    words = (tmp_path, tmp_path / "photos", "--csv", tmp_path / "rows.csv")
    assert run(*words) == 1
    assert run(*words, "--resume") == 1
    photo(photos[1])
    assert run(*words, "--resume") == 0
    found = [row["path"] for row in rows_of(tmp_path / "rows.csv")]
    assert found == [str(photos[number]) for number in (0, 2, 1)]


def test_tta_is_the_mean_over_a_photo_and_its_mirror_image(tmp_path: Path) -> None:
    tiny(tmp_path / "model")
    path = photo(tmp_path / "a.png", size=(36, 36))  # as large as the evaluation view is cut from
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    model = thaw.load(tmp_path)
    first, second = (each.probabilities for each in model.predict([path, tmp_path / "b.png"]))
    assert first != pytest.approx(second, abs=1e-3)
    run(tmp_path, path, "--tta", "--json", tmp_path / "a.json", "--device", "cpu")
    (record,) = json.loads((tmp_path / "a.json").read_text())
    found = {each["label"]: each["probability"] for each in record["top"]}
    means = {label: (first[label] + second[label]) / 2 for label in first}
    assert found == pytest.approx(means, abs=1e-6)


def test_photos_are_copied_into_a_folder_for_each_class(tmp_path: Path) -> None:
    """Without overwriting; those under --unsure apart; and once, however often it runs."""
    tiny(tmp_path / "model")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        photo(tmp_path / folder / "a.png", seed=len(folder))
    many(tmp_path / "one" / "deeper")
    photo(tmp_path / "two" / "a.png", seed=9)
    words = (tmp_path, tmp_path / "one", tmp_path / "two", "--unsure", 0.6, "--csv",
             tmp_path / "rows.csv", "--copy-into", tmp_path / "sorted")  # fmt: skip
    for _ in range(2):
        run(*words)
        expected: dict[str, list[bytes]] = {}
        for row in rows_of(tmp_path / "rows.csv"):
            sure = float(row["probability"]) >= 0.6
            assert row["unsure"] == ("no" if sure else "yes")
            label = row["predicted"] if sure else "unsure"
            expected.setdefault(label, []).append(Path(row["path"]).read_bytes())
        assert len(expected) > 1
        assert "unsure" in expected
        folders = {folder.name: folder.iterdir() for folder in (tmp_path / "sorted").iterdir()}
        found = {name: sorted(path.read_bytes() for path in of) for name, of in folders.items()}
        assert found == {label: sorted(contents) for label, contents in expected.items()}


def test_other_photos_of_the_same_name_get_a_number(tmp_path: Path) -> None:
    copies = []
    for folder in ("x", "y", "z", "x"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.b.jpg").write_text(folder)
        copies.append(copy_into(tmp_path / "into", "cat", tmp_path / folder / "a.b.jpg").name)
    assert copies == ["a.b.jpg", "a.b_2.jpg", "a.b_3.jpg", "a.b.jpg"]
    contents = [(tmp_path / "into" / "cat" / name).read_text() for name in copies]
    assert contents == ["x", "y", "z", "x"]
    assert len(list((tmp_path / "into" / "cat").iterdir())) == 3


def test_other_photos_of_the_same_name_size_and_time_are_copied_too(tmp_path: Path) -> None:
    """As two cameras, or an archive that keeps no times, leave them."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_text(folder)
        os.utime(tmp_path / folder / "a.jpg", (0, 0))
        copy_into(tmp_path / "into", "cat", tmp_path / folder / "a.jpg")
    contents = [path.read_text() for path in (tmp_path / "into" / "cat").iterdir()]
    assert sorted(contents) == ["x", "y"]


@pytest.mark.parametrize("label", ["../../out", "/etc", "..", "a/b", "", ". ", "C:x", "x\0y"])
def test_no_class_leads_out_of_the_folder(tmp_path: Path, label: str) -> None:
    """Classes are names that a file tells, and the file may be from anywhere."""
    copy = copy_into(tmp_path / "deep" / "into", label, photo(tmp_path / "a.png"))
    assert copy.parent.parent == tmp_path / "deep" / "into"
    assert copy.read_bytes() == (tmp_path / "a.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "deep"}


def test_a_checkpoint_predicts_too(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    settings = (*SMALL, f"data.root={photos}", "callbacks=default", "callbacks.progress=null",
                "data.crop=squash", "finetune=full", "trainer.max_epochs=1")  # fmt: skip
    train.run(configuration(tmp_path / "run", *settings))
    (best,) = (tmp_path / "run" / "checkpoints").glob("best*.ckpt")
    for model, name in ((tmp_path / "run", "run.csv"), (best, "best.csv")):
        run(model, photos / "test", "--csv", tmp_path / name)
    assert rows_of(tmp_path / "run.csv") == rows_of(tmp_path / "best.csv")
