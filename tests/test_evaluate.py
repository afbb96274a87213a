"""`thaw evaluate`: the figures of the run's own test, classes by name, and what is refused."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from runs import SMALL, draw_photos, run_small
from test_model_folder import photo, tiny

from thaw import cli
from thaw.errors import ConfigError
from thaw.model_reader import read_model
from thaw.report.predictions import Predictions
from thaw.tools.evaluate import data_of


def evaluate(*words: object) -> int:
    return cli.main(["evaluate", *map(str, words)])


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def table(folder: Path) -> Predictions:
    return Predictions.read(folder / "predictions.csv", results_of(folder)["classes"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose test is far from all right, with the words that it was started with."""
    folder = tmp_path_factory.mktemp("run")
    photos = draw_photos(folder / "photos", other=12)
    settings = ["data.train_per_class=1", "finetune=full", "trainer.max_epochs=2"]
    run_small(photos, folder / "run", "report=fast", *settings)
    (folder / "run" / ".hydra").mkdir()
    words = [*SMALL, f"data.root={photos}", *settings]
    words = [word for word in words if not word.startswith("trainer.max_epochs=4")]
    saved = OmegaConf.create({"hydra": {"overrides": {"task": words}}})
    OmegaConf.save(saved, folder / "run" / ".hydra" / "hydra.yaml")
    return folder / "run"


def test_the_runs_own_test_split_gives_its_own_figures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photo for photo, and so the metrics, from the folder of the run alone."""
    assert evaluate(run, "--out", tmp_path, "--device", "cpu", "--batch-size", 5) == 0
    own, found = table(run), table(tmp_path)
    assert found.paths == own.paths
    assert found.predicted.tolist() == own.predicted.tolist()
    np.testing.assert_allclose(found.probability, own.probability, atol=2e-6)
    assert own.uncalibrated is not None
    assert found.uncalibrated is not None
    np.testing.assert_allclose(found.uncalibrated, own.uncalibrated, atol=2e-6)
    assert 0.2 < own.right.mean() < 1
    results = results_of(tmp_path)
    for name in ("acc", "acc_macro", "f1", "ece", "ece_uncalibrated"):
        assert results[f"test/{name}"] == pytest.approx(results_of(run)[f"test/{name}"], abs=1e-4)
    printed = capsys.readouterr().out
    assert f"acc {results['test/acc']:.4f}   acc_macro" in printed
    assert "36 photos; the 95 % interval of acc is 0." in printed
    assert f"page      {tmp_path}/report.html" in printed
    page = (tmp_path / "report.html").read_text()
    assert "calibration error" in page
    assert "thaw check --model" not in page  # which is for the photos of the run itself


def test_a_checkpoint_is_measured_on_the_photos_of_its_run(run: Path, tmp_path: Path) -> None:
    """Also of a run that has no model folder yet."""
    shutil.copytree(run / ".hydra", tmp_path / "begun" / ".hydra")
    file = tmp_path / "begun" / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    described, state = read_model(run / "model" / "model.json")
    torch.save(
        {
            "hyper_parameters": {"model": described, "classes": described["classes"]},
            "temperature": described["temperature"],
            "state_dict": {f"classifier.{name}": value for name, value in state.items()},
        },
        file,
    )
    evaluate(file, "--out", tmp_path / "out", "--device", "cpu")
    assert table(tmp_path / "out").paths == table(run).paths
    assert table(tmp_path / "out").predicted.tolist() == table(run).predicted.tolist()
    assert results_of(tmp_path / "out")["photos"] == "test split of the run"


def test_classes_are_the_same_where_their_names_are(run: Path, tmp_path: Path) -> None:
    """Without photos of the class that comes first, all other labels stay what they are."""
    source = run.parent / "photos"
    own = table(run)
    expected = dict(zip(own.paths, own.predicted.tolist(), strict=True))
    shutil.copytree(source / "test", tmp_path / "test")
    shutil.rmtree(tmp_path / "test" / own.classes[0])
    evaluate(run, "--photos", tmp_path / "test", "--out", tmp_path / "a", "--device", "cpu")
    found = Predictions.read(
        tmp_path / "a" / "predictions.csv", results_of(tmp_path / "a")["classes"]
    )
    assert found.classes == own.classes
    assert len(found) == 24
    for path, label, predicted in zip(found.paths, found.labels, found.predicted, strict=True):
        original = source / Path(path).relative_to(tmp_path)
        assert found.classes[label] == original.parent.name
        assert predicted == expected[str(original)]


def test_the_page_of_another_model_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        tiny(tmp_path / name)
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    photo(tmp_path / "photos" / "ant" / "1.png")
    words = ("--photos", tmp_path / "photos", "--out", tmp_path / "out", "--device", "cpu")
    evaluate(tmp_path / "one", *words)
    evaluate(tmp_path / "one", *words)
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "two", *words)
    assert f"out: holds the page of {tmp_path}/one; choose" in capsys.readouterr().err
    assert results_of(tmp_path / "out")["model"] == str(tmp_path / "one")


def test_photos_without_a_class_and_all_broken_ones_are_named(tmp_path: Path, capsys: Any) -> None:
    tiny(tmp_path / "model")
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    for name in ("ant/1.png", "loose.png"):
        photo(tmp_path / "photos" / name)
    for name in ("ant/bad1.png", "ant/bad2.png"):
        (tmp_path / "photos" / name).write_bytes(b"no picture")
    words = (tmp_path / "model", "--photos", tmp_path / "photos", "--out", tmp_path / "out")
    with pytest.raises(SystemExit):
        evaluate(*words, "--batch-size", "1")
    said = capsys.readouterr()
    assert "1 files in no class folder are left out" in said.out
    assert re.search(r"2 photos cannot be read.*bad1\.png.*bad2\.png", said.err, re.DOTALL)
    source = ["data=folder", f"data.root={tmp_path}/photos", "data.on_bad_photo=skip"]
    (tmp_path / "photos" / "test").mkdir()
    for name in ("train", "test"):
        for each in ("ant", "cat"):
            (tmp_path / "photos" / name / each).mkdir(parents=True)
            photo(tmp_path / "photos" / name / each / "1.png")
    (tmp_path / "photos/test/ant/bad.png").write_bytes(b"no picture")
    evaluate(tmp_path / "model", *source, "data.classes=[ant,cat]", "--out", tmp_path / "out")
    assert len(table(tmp_path / "out")) == 2


def test_a_data_source_whose_classes_are_in_another_order(tmp_path: Path) -> None:
    """A folder's classes are sorted: ant, cat. The model's are cat, ant, bee."""
    tiny(tmp_path / "model")
    for name in ("train/ant", "train/cat", "test/ant", "test/cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        photo(tmp_path / "photos" / name / "1.png")
    words = ["data=folder", f"data.root={tmp_path}/photos"]
    evaluate(tmp_path / "model", *words, "--out", tmp_path / "a", "--device", "cpu")
    found = table(tmp_path / "a")
    assert [Path(path).parent.name for path in found.paths] == ["ant", "cat"]
    assert found.labels.tolist() == [1, 0]
    assert results_of(tmp_path / "a")["photos"] == f"test split of {' '.join(words)}"


def test_the_full_page_of_other_photos(tmp_path: Path) -> None:
    """With the model that results.json names."""
    tiny(tmp_path / "model")
    for name in ("ant", "cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        photo(tmp_path / "photos" / name / "1.png")
    out = tmp_path / "out"
    evaluate(tmp_path / "model", "--photos", tmp_path / "photos", "--out", out, "--full")
    assert "Where it looks" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{}/model", "data=demo", "--photos", "x"], r"--photos x: give either this or data=demo"),
        (["{}/model", "--batch-size", "0"], r"--batch-size=0: allowed is 1 or more"),
        (["{}/model", "--photos", "{}/none"], r"none: has no photos in sub-folders, one a class"),
        (["{}/model", "--photos", "{}/model"], r"model: has no photos in sub-folders, one a class"),
        (["{}/model"], r"is no run's folder"),
        (["{}/model", "--photos", "{}/p", "--out", "{}/run"], r"run: is the folder of a run"),
        (["{}/model", "--photos", "{}/p"],
         r"classes that the model does not know: hen\. It knows: cat, ant, bee"),
        (["{}/model", "data=demo", "data.crop=nonsense"], r"data\.crop=nonsense: is not read here"),
        (["{}/model", "data=folder", "data.root={}/p2"],
         r"data=folder data\.root=.*: there are no test photos"),
    ],
)  # fmt: skip
def test_what_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    tiny(tmp_path / "model")
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    for name in ("p/hen", "p/cat", "p2/cat", "p2/ant"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        evaluate(*(word.format(tmp_path) for word in words), *out)
    assert stop.value.code == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def begun(folder: Path, words: Sequence[str]) -> Path:
    """The folder of a run, with the words that started it."""
    (folder / ".hydra").mkdir(parents=True)
    saved = {"hydra": {"overrides": {"task": list(words)}}}
    OmegaConf.save(OmegaConf.create(saved), folder / ".hydra" / "hydra.yaml")
    return folder


def test_the_runs_own_photos_also_before_it_has_a_model(tmp_path: Path) -> None:
    """Asked for by the run's folder, its model folder or its checkpoint: the same photos."""
    photos = draw_photos(tmp_path / "photos")
    words = ["data=folder", f"data.root={photos}", "data.num_workers=0", "data.train_per_class=3",
             "backbone=tiny", "resume=gone", "ckpt_path=gone.ckpt"]  # fmt: skip
    run = begun(tmp_path / "run", words)
    for path in (run, run / "model", run / "checkpoints" / "last.ckpt"):
        data = data_of(path)
        assert (len(data.train), len(data.test or ())) == (9, 12)
        assert {photo.parent.parent.name for photo in data.train.paths} == {"train"}
    with pytest.raises(ConfigError, match=r"last.ckpt: is no run's folder .*; give the run's"):
        data_of(tmp_path / "elsewhere" / "last.ckpt")


def test_other_photos_take_nothing_of_the_runs_settings(tmp_path: Path) -> None:
    """Not the few-shot draw, nor what the other source does not know."""
    run = begun(tmp_path / "run", ["data=pets", "data.target=binary", "data.train_per_class=3"])
    photos = draw_photos(tmp_path / "photos")
    words = ["data=folder", f"data.root={photos}"]
    assert len(data_of(run, words).train) == 24
    assert len(data_of(tmp_path / "model", words).train) == 24  # a model folder of no run
    run = begun(tmp_path / "few", ["data=folder", "data.root=gone", "data.val_fraction=0.3",
                                   "data.train_per_class=99"])  # fmt: skip
    assert len(data_of(run, words[1:]).train) == 24  # it has validation photos of its own


UNREAD = ("batch_size", "num_workers", "crop", "cache", "balanced", "train_per_class", "folds")


@pytest.mark.parametrize("key", UNREAD)
def test_what_changes_no_test_photo_is_refused(tmp_path: Path, key: str) -> None:
    message = rf"^data\.{key}=3: is not read here.*data\.\*.*--batch-size .* crop is the model's"
    for words in ([f"data.{key}=3"], ["data=demo", f"+data.{key}=3"]):
        with pytest.raises(ConfigError, match=message.replace("^", r"^\+?")):
            data_of(tmp_path, words)


def test_what_cannot_be_found_or_would_not_be_read(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", ["data=demo"])
    with pytest.raises(ConfigError, match=r"backbone=resnet18: is not read here\. Allowed"):
        data_of(run, ["data=pets", "backbone=resnet18"])
    with pytest.raises(ConfigError, match=r"seed=3: is not read here"):
        data_of(run, ["seed=3"])
    with pytest.raises(ConfigError, match=r"data=petz: no such choice.*did you mean pets"):
        data_of(run, ["data=petz"])
