"""`thaw export`: the file gives the answers of the trained model, or it is not there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from runs import draw_photos, run_small
from test_model_folder import CLASSES, save, tiny

import thaw
from thaw import cli
from thaw.backbones.timm_backbone import timm_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.data.picture_files import picture_files
from thaw.errors import ConfigError
from thaw.image_classifier import ImageClassifier
from thaw.tools import export as tool
from thaw.tools import export_formats
from thaw.tools.export import Labelled, Parity, compare, find_photos
from thaw.tools.export_formats import export, load_file
from thaw.tools.preprocess import prepare

ROOT = Path(__file__).resolve().parents[1]


def run(*words: object) -> int:
    return cli.main(["export", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run whose photos are still there; its net knows three colours."""
    folder = tmp_path_factory.mktemp("runs")
    photos = draw_photos(folder / "photos", train=16, other=12)
    words = [f"data.root={photos}", "head=mlp", "finetune=full", "trainer.max_epochs=8"]
    output = folder / "run"
    run_small(photos, output, *words[1:])
    (output / ".hydra").mkdir()
    saved = {"hydra": {"overrides": {"task": ["data=folder", words[0]]}}}
    (output / ".hydra" / "hydra.yaml").write_text(json.dumps(saved))
    return output


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    assert run(trained) == 0
    return trained / "export" / "onnx"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ImageClassifier:
    return thaw.load(tiny(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def files(model: ImageClassifier, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model in both formats: tracing it takes seconds."""
    folder = tmp_path_factory.mktemp("files")
    for format in ("onnx", "pt2"):
        export(model, folder / f"model.{format}", "float", [])
    return {path.suffix[1:]: path for path in folder.iterdir()}


def images(model: ImageClassifier, number: int) -> NDArray[np.uint8]:
    size = model.input_spec.size
    return np.random.default_rng(number).integers(0, 256, (number, 3, size, size), dtype=np.uint8)


def probabilities(model: ImageClassifier, batch: NDArray[np.uint8]) -> NDArray[np.floating]:
    with torch.inference_mode():
        return model(torch.from_numpy(batch)).numpy()


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_the_graph_gives_the_same_probabilities_for_batches_of_any_size(
    files: dict[str, Path], model: ImageClassifier, format: str
) -> None:
    predict = load_file(files[format])
    for number in (1, 2, 8, 13):
        batch = images(model, number)
        got = predict(batch)
        assert np.allclose(got, probabilities(model, batch), atol=1e-5)
        assert np.allclose(got.sum(1), 1, atol=1e-5)


def test_the_onnx_file_says_what_it_is(files: dict[str, Path], model: ImageClassifier) -> None:
    """To a program that has nothing but the file."""
    onnx.checker.check_model(files["onnx"], full_check=True)
    session = onnxruntime.InferenceSession(files["onnx"])
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["N", 3, 32, 32])
    assert (wanted.name, wanted.type) == ("probabilities", "tensor(float)")
    assert wanted.shape == ["N", len(CLASSES)]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == [*CLASSES]
    assert json.loads(facts["input"]) == model.facts["input"]
    assert json.loads(facts["licences"]) == model.facts["licences"]


def test_the_pt2_file_says_what_it_is(files: dict[str, Path], model: ImageClassifier) -> None:
    facts = {"classes": "", "input": "", "licences": ""}
    torch.export.load(files["pt2"], extra_files=facts)
    assert {name: json.loads(value) for name, value in facts.items()} == {
        name: model.facts[name] for name in facts
    }


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_half_precision_halves_the_file_and_leaves_the_model(
    files: dict[str, Path], tmp_path: Path, model: ImageClassifier, format: str
) -> None:
    batch = images(model, 4)
    before = probabilities(model, batch)
    predict = export(model, tmp_path / f"model.{format}", "half", [])
    size = (tmp_path / f"model.{format}").stat().st_size
    assert size < 0.6 * files[format].stat().st_size
    got = predict(batch)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - before).max() < 0.02
    assert np.array_equal(probabilities(model, batch), before)


def test_int8_takes_its_ranges_from_the_photos(
    files: dict[str, Path], tmp_path: Path, model: ImageClassifier
) -> None:
    """A third of the bytes, near the model on such photos, and far from it with wrong ranges."""
    batch = images(model, 16)
    expected = probabilities(model, batch)
    distance = []
    for photos in (np.split(batch, 16), [batch[:1] // 64]):
        path = shutil.copy(files["onnx"], tmp_path / f"{len(photos)}.onnx")
        export_formats.quantise(path, photos, export_formats.metadata(model))
        assert path.stat().st_size < 0.4 * files["onnx"].stat().st_size
        facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        assert facts == export_formats.metadata(model)
        distance.append(np.abs(load_file(path)(batch) - expected).max())
    assert 0 < distance[0] < 0.1
    assert distance[1] > 2 * distance[0]


@pytest.mark.slow
def test_weights_too_large_for_one_file_lie_beside_it(
    tmp_path: Path, model: ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = "torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD"
    monkeypatch.setattr(limit, 1_000)
    predict = export(model, tmp_path / "large.onnx", "float", [])
    assert {path.name for path in tmp_path.iterdir()} == {"large.onnx", "large.onnx.data"}
    batch = images(model, 2)
    assert np.allclose(predict(batch), probabilities(model, batch), atol=1e-5)
    with pytest.raises(ConfigError, match="--int8: is not offered for weights of more than 2 GB"):
        export_formats.quantise(tmp_path / "large.onnx", [], {})


def test_export_of_a_run_is_compared_on_its_validation_photos(
    trained: Path, exported: Path
) -> None:
    assert below(exported) == ["export.json", "model.onnx", "preprocess.py"]
    facts = json.loads((exported / "export.json").read_text())["parity"]
    accuracy = json.loads((trained / "results.json").read_text())["val/acc"]
    assert (facts["photos"], facts["known"]) == (36, 36)
    assert facts["before"] == pytest.approx(accuracy)
    assert facts["before"] > 0.9
    assert not [*trained.glob(".export*")]


PROGRAM = """
import importlib.abc, runpy, sys

class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "thaw", "onnx"):
            raise ImportError(f"{name} is not for this program")

sys.meta_path.insert(0, NoTorch())
sys.argv = ["preprocess.py", *sys.argv[1:]]
runpy.run_path("preprocess.py", run_name="__main__")
"""


def test_another_program_without_torch_gives_the_same_answers(
    trained: Path, exported: Path
) -> None:
    """The copy of preprocess.py and ONNX Runtime, in a process in which importing torch raises."""
    photos = sorted((trained.parent / "photos" / "test").rglob("*.png"))
    lines = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, "model.onnx", *map(str, photos)],
        cwd=exported, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    expected = thaw.load(trained).predict(photos)
    assert len(lines) == len(photos) == 36
    for path, line, prediction in zip(photos, lines, expected, strict=True):
        record = json.loads(line)
        assert [*record] == ["path", "label", "probability", "top"]  # as of thaw predict --json
        assert (record["path"], record["label"]) == (str(path), prediction.label)
        assert record["probability"] == pytest.approx(prediction.probability, abs=0.05)
        assert [top["label"] for top in record["top"]] == [*prediction.probabilities]


@pytest.mark.parametrize(
    ("name", "value"), [("classes", ["a"]), ("input", {"size": 9999, "resize": 9999}),
                        ("input", {"size": 32, "resize": 10**9})],
)  # fmt: skip
def test_metadata_that_are_not_of_the_graph_are_refused(
    files: dict[str, Path], tmp_path: Path, name: str, value: object
) -> None:
    """By the program beside a model from elsewhere, before it reads a photo."""
    changed = onnx.load(files["onnx"])
    (entry,) = (entry for entry in changed.metadata_props if entry.key == name)
    entry.value = json.dumps(value)
    onnx.save(changed, tmp_path / "model.onnx")
    words = [sys.executable, str(ROOT / "src/thaw/tools/preprocess.py"), "model.onnx", "a.jpg"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("model.onnx: its metadata are not of its graph ([3, 32, 32, 3])")


def wrong_colours(path: Path, spec: dict[str, Any]) -> NDArray[np.uint8]:
    return prepare(path, spec)[:, ::-1].copy()


def test_an_export_that_gives_other_answers_leaves_nothing(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """BGR for RGB, as OpenCV's users have it; an older export stays."""
    run(trained, "--format", "pt2")
    earlier = below(trained)
    content = (trained / "export" / "pt2" / "export.json").read_bytes()
    monkeypatch.setattr(tool, "prepare", wrong_colours)
    message = refused(capsys, trained, "--format", "pt2")
    assert "--tolerance 0.05 --max-loss 1.0: the exported model gives other answers" in message
    assert re.search(r"so nothing was written: [1-9]\d\.\d\d% of the labels differ", message)
    assert below(trained) == earlier
    assert (trained / "export" / "pt2" / "export.json").read_bytes() == content


def test_the_tolerance_is_the_users(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no folder is left where none was."""
    message = refused(capsys, trained, "--format", "pt2", "--half", "--tolerance", 0, "--out",
                      tmp_path / "new")  # fmt: skip
    assert "--tolerance 0.0 --max-loss 1.0: the exported model gives other answers" in message
    assert below(tmp_path) == []


@pytest.mark.slow
def test_int8_fails_beyond_the_loss_that_is_allowed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = (trained, "--int8", "--out", tmp_path / "new")
    monkeypatch.setattr(tool, "prepare", wrong_colours)
    message = refused(capsys, *words)
    assert re.search(r"--max-loss 0\.01: .* and 0\.[1-9]\d+ of the accuracy is lost", message)
    assert below(tmp_path) == []
    monkeypatch.undo()
    assert run(*words) == 0
    assert json.loads((tmp_path / "new" / "export.json").read_text())["precision"] == "int8"


def test_photos_of_a_folder_have_its_names_as_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that the model does not have says nothing."""
    model = thaw.load(tiny(tmp_path / "model"))
    rng = np.random.default_rng(0)
    for place in range(30):
        pixels = rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((60, 40))
        name = model.predict(image)[0].label if place % 3 else "dragon"
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / name / f"{place}.png")
    words = (tmp_path, "--format", "pt2", "--photos", tmp_path / "photos")
    assert run(*words) == 0
    known = [path.parent.name != "dragon" for path in picture_files(tmp_path / "photos")][::2]
    assert 0 < sum(known) < len(known) == 15
    printed = capsys.readouterr().out
    assert f"1.0000 before, 1.0000 after ({sum(known)} photos of known class)" in printed


def test_drawn_photos_where_the_runs_own_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are no measure for int8, which fits itself to the photos."""
    tiny(tmp_path / "model")
    assert run(tmp_path / "model", "--format", "pt2") == 0
    printed = capsys.readouterr().out
    assert re.search(r"photos cannot be had \(.*hydra\.yaml is missing", printed)
    assert "photos         32 drawn flowers" in printed
    assert below(tmp_path / "model" / "export") == [
        "pt2", "pt2/export.json", "pt2/model.pt2", "pt2/preprocess.py",
    ]  # fmt: skip
    before = below(tmp_path)
    message = refused(capsys, tmp_path, "--int8")
    assert "--int8: needs photos to calibrate on; give them by --photos FOLDER" in message
    assert below(tmp_path) == before


def test_broken_photos_are_passed_over_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cat").mkdir()
    for place in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / f"{place}.png")
    for place in (0, 4, 5):
        (tmp_path / "cat" / f"{place}.png").write_bytes(b"no picture")
    _, tested, calibrating = find_photos(tmp_path, tmp_path, tmp_path)
    assert [path.stem for path, _ in tested] == ["2", "6"]
    assert [path.stem for path in calibrating] == ["1", "3", "7"]
    printed = capsys.readouterr().out
    assert re.search(r"2 of 4 photos passed over, the first: .*0\.png: it is empty", printed)
    assert re.search(r"1 of 4 photos passed over, the first: .*5\.png: it is empty", printed)
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"^--photos .*: holds no photos that can be read; give"):
        find_photos(tmp_path, tmp_path, tmp_path)


def test_an_export_replaces_an_earlier_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ImageClassifier
) -> None:
    def write(_model: object, path: Path, *_: object) -> None:
        path.write_text("new")

    out = tmp_path / "export" / "onnx"
    found = Parity(6, 0, 0.01, "photo.jpg", 0, 1.0, 1.0)
    monkeypatch.setattr("thaw.tools.export.load", lambda _path: model)
    monkeypatch.setattr("thaw.tools.export.export", write)
    monkeypatch.setattr("thaw.tools.export.compare", lambda *_: found)
    own, earlier = ("app/model.onnx", "model.txt"), ("export.json", "model.onnx", "model.onnx.data")
    for name in (*own, *earlier):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("old")
    assert run(tmp_path) == 0
    assert below(out) == sorted(["app", *own, "export.json", "model.onnx", "preprocess.py"])
    assert {(out / name).read_text() for name in own} == {"old"}
    assert (out / "model.onnx").read_text() == "new"


def test_a_runs_photos_are_not_downloaded_again(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_self: object) -> None:
        raise AssertionError("downloads")

    monkeypatch.setattr("thaw.data.folder.Folder.prepare_data", fail, raising=False)
    source, photos, _ = find_photos(trained, None, tmp_path / "drawn")
    assert source == "validation photos of the run"
    assert len(photos) == 36


def test_what_differs_is_found_on_single_photos_and_where_there_is_no_number(
    tmp_path: Path, model: ImageClassifier
) -> None:
    rng = np.random.default_rng(0)
    photos: list[Labelled] = []
    for place in range(20):
        path = tmp_path / f"{place}.png"
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        photos.append((path, None))

    def as_trained(batch: NDArray[np.uint8]) -> NDArray[np.floating]:
        return probabilities(model, batch)

    def wrong_alone(batch: NDArray[np.uint8]) -> NDArray[np.floating]:
        right = as_trained(batch)
        return right[:, ::-1] if len(batch) == 1 else right

    def no_number(batch: NDArray[np.uint8]) -> NDArray[np.floating]:
        right = as_trained(batch)
        right[-1] = np.nan
        return right

    same = compare(model, as_trained, photos)
    assert (same.differing, same.known, same.before, same.after) == (0, 0, 1.0, 1.0)
    assert same.difference < 0.02
    alone = compare(model, wrong_alone, photos)
    assert alone.differing > 0
    assert alone.difference > 0.02
    found = compare(model, no_number, photos)
    assert found.difference == 1.0
    assert found.farthest == f"{tmp_path.name}/0.png"  # alone, it is the last one of its batch


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("run", "run/export/onnx"),
        ("run/model", "run/export/onnx"),
        ("run/checkpoints/last.ckpt", "run/export/last-onnx"),
        ("run/checkpoints/epoch=3.5.ckpt", "run/export/epoch=3.5-onnx"),
        ("run/other/last.ckpt", "run/other/export/last-onnx"),
        ("models/a", "models/a/export/onnx"),
        ("models/model", "models/model/export/onnx"),
        ("models/lone.ckpt", "models/export/lone-onnx"),
    ],
)
def test_no_two_models_are_exported_to_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    model: str, folder: str,
) -> None:  # fmt: skip
    """The message names the folder, which is there and is no export."""
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / folder).mkdir(parents=True)
    for name in ("run/model", "models/a", "models/model"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "model.json").touch()
    monkeypatch.setattr("thaw.tools.export.load", lambda _path: None)
    monkeypatch.chdir(tmp_path)
    assert f"--out {tmp_path / folder}: exists and is no export" in refused(capsys, model)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "pt2", "--int8"], "--format pt2 --int8: is not offered; give --format onnx"),
        (["--tolerance", "2"], "--tolerance=2.0: allowed is 0 to 1"),
        (["--photos", "{}/none"], "--photos {}/none: holds no photos"),
        (["--photos", "{}/empty"], "empty: holds no photos that can be read; give others"),
        (["--out", "{}/model"], "model: exists and is no export"),
    ],
)
def test_words_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    tiny(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    before = below(tmp_path)
    told = refused(capsys, tmp_path, *(word.format(tmp_path) for word in words))
    assert message.format(tmp_path) in told
    assert below(tmp_path) == before


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    tiny(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    told = r"thaw export: onnxscript is missing; pip install -e '\.\[export\]'"
    assert re.search(told, refused(capsys, tmp_path))


FAMILIES = {  # image size
    "resnet18": 64, "vgg11_bn": 64, "mobilenet_v3_small": 64, "efficientnet_b0": 64,
    "densenet121": 64, "convnext_tiny": 64, "swin_t": 64, "vit_b_32": 64, "squeezenet1_1": 64,
    "inception_v3": 96,
    "timm/tf_efficientnet_lite0": 64, "timm/convnext_atto": 64, "timm/vit_tiny_patch16_224": 64,
}  # fmt: skip


CI = ("convnext_tiny", "swin_t", "vit_b_32")  # a kind each


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.every] * (name not in CI)) for name in FAMILIES]
)
def test_every_family_gives_the_same_probabilities(tmp_path: Path, name: str) -> None:
    """In both formats, for batches of 1, 2 and 5; docs/export.md has the table."""
    source, _, plain = name.rpartition("/")
    build = timm_backbone if source else torchvision_backbone
    save(tmp_path / "model", build(name=plain, weights=None, image_size=FAMILIES[name]))
    model = thaw.load(tmp_path)
    for format in ("onnx", "pt2"):
        predict = export(model, tmp_path / f"model.{format}", "float", [])
        for number in (1, 2, 5):
            batch = images(model, number)
            expected = probabilities(model, batch)
            assert np.ptp(expected) > 0.1
            assert np.allclose(predict(batch), expected, atol=1e-4), format


def test_the_table_of_families_is_that_of_the_test() -> None:
    table = (ROOT / "docs" / "export.md").read_text("utf-8")
    assert set(re.findall(r"^\| `([\w/]+)`", table, re.MULTILINE)) == {*FAMILIES}
