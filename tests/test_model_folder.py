"""What was saved is what is loaded, for every kind of backbone, and nothing else is let in."""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from models import small_backbone
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import thaw
from thaw import transforms
from thaw.backbones.backbone import Backbone
from thaw.backbones.cnn import cnn_backbone
from thaw.backbones.timm_backbone import timm_backbone
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.classifier import Classifier
from thaw.errors import ConfigError
from thaw.head import linear
from thaw.image_classifier import ImageClassifier
from thaw.mlp_head import mlp
from thaw.model_folder import describe, save_model, sha256

CLASSES = ("cat", "ant", "bee")  # in no order that sorting would give
LINEAR = {"_target_": "thaw.head.linear", "dropout": 0.1, "init": "normal"}
MLP = {"_target_": "thaw.mlp_head.mlp", "hidden": [12], "dropout": 0.2, "norm": "batch"}


def network(backbone: Backbone, head: dict[str, Any] = LINEAR) -> Classifier:
    """With weights and statistics that no fresh network has, and scores that make no class certain:
    deep networks with random weights give scores of millions."""
    torch.manual_seed(1)
    make = {"thaw.head.linear": linear, "thaw.mlp_head.mlp": mlp}[head["_target_"]]
    arguments = {name: value for name, value in head.items() if name != "_target_"}
    classifier = Classifier(backbone, make(backbone.out_features, len(CLASSES), **arguments))
    with torch.no_grad():
        for value in classifier.parameters():
            value.mul_(1 + 0.1 * torch.rand_like(value))
        for value in classifier.buffers():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
        size = backbone.input_spec.size
        noise = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
        spread = classifier.eval()(transforms.normalise(backbone.input_spec)(noise)).std()
        last = [layer for layer in classifier.head.modules() if isinstance(layer, nn.Linear)][-1]
        last.weight /= spread
        last.bias /= spread
    return classifier


def save(folder: Path, backbone: Backbone, head: dict[str, Any] = LINEAR) -> Classifier:
    classifier = network(backbone, head)
    targets = {"backbone": {"_target_": "my.own.backbone"}, "head": head}
    described = describe(backbone, targets, CLASSES, "photos: none")
    save_model(folder, classifier, described, temperature=0.5, metrics={"test/acc": 0.9})
    return classifier


@cache
def files_of_tiny() -> dict[str, bytes]:
    torch.manual_seed(0)  # the same network, whatever other tests have drawn
    with TemporaryDirectory() as place:
        save(Path(place, "model"), tiny_backbone(weights=None, image_size=32))
        return {path.name: path.read_bytes() for path in Path(place, "model").iterdir()}


def tiny(folder: Path) -> Path:
    """A model folder of the tiny backbone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files_of_tiny().items():
        (folder / name).write_bytes(content)
    return folder


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (40, 60)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("make", "arguments", "head"),
    [
        (tiny_backbone, {"image_size": 32}, LINEAR),
        (cnn_backbone, {"image_size": 30}, LINEAR),
        (torchvision_backbone, {"name": "squeezenet1_1", "image_size": 48}, MLP),
        (timm_backbone, {"name": "tf_efficientnet_lite0", "image_size": 48}, LINEAR),
    ],
)  # fmt: skip
def test_a_loaded_model_gives_the_probabilities_of_the_saved_one(
    tmp_path: Path, make: Any, arguments: dict[str, Any], head: dict[str, Any]
) -> None:
    """Calibrated, to the bit, from pictures as the loader makes them; with its input spec."""
    torch.manual_seed(0)
    backbone = make(**arguments, weights=None)
    classifier = save(tmp_path / "model", backbone, head)
    classifier.fold = None  # as in the test of a run
    if backbone.is_convolutional:
        classifier.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    model = thaw.load(tmp_path)  # the folder of a run
    assert model.classes == CLASSES
    assert model.input_spec == backbone.input_spec
    assert repr(model.transform) == repr(transforms.eval_transform(backbone.input_spec))
    assert not any(module.training for module in model.modules())
    size = backbone.input_spec.size
    images = torch.randint(0, 256, (5, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        scores = classifier(transforms.normalise(backbone.input_spec)(images))
        assert torch.equal(model(images), (scores / 0.5).softmax(1))
        assert not torch.equal(model(images), scores.softmax(1))  # none is certain
        shades = images / 255
        before = shades.clone()
        assert torch.allclose(model(shades), model(images), atol=1e-5)
    assert torch.equal(shades, before)  # the caller's images stay as they are


def test_the_weights_are_float32_on_the_cpu_and_json_tells_the_rest(tmp_path: Path) -> None:
    backbone = tiny_backbone(weights=None, image_size=32)
    classifier = network(backbone).half()
    described = describe(backbone, {"head": LINEAR}, CLASSES, "photos: CC0")
    save_model(tmp_path / "model", classifier, described, temperature=2.0, git="abc")
    state = load_file(tmp_path / "model" / "model.safetensors")
    assert {name.partition(".")[0] for name in state} == {"body", "head"}
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    facts = json.loads((tmp_path / "model" / "model.json").read_text())
    assert facts["backbone"]["builder"] == "tiny"
    assert facts["head"] == {
        "builder": "thaw.head.linear", "arguments": {"dropout": 0.1, "init": "normal"}
    }  # fmt: skip
    assert (facts["classes"], facts["temperature"], facts["git"]) == ([*CLASSES], 2.0, "abc")
    assert (facts["input"]["interpolation"], facts["input"]["crop"]) == ("bilinear", "center")
    assert facts["licences"] == {"weights": backbone.licence, "photos": "photos: CC0"}


def test_a_model_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up leaves the model that was there before."""
    folder = tiny(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("thaw.model_folder.write_json", fail)
    with pytest.raises(OSError, match="no space left"):
        save(folder, tiny_backbone(image_size=16))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    (folder / "export").mkdir()  # of thaw export, or the user's own
    save(folder, tiny_backbone(image_size=16))  # over the old one and what was left half done
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in folder.iterdir()) == ["export", *sorted(before)]


def change(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_folders_that_hold_no_model_of_this_thaw(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no model.*model/model\.json.*its model folder$"):
        thaw.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()  # of a run that was stopped
    with pytest.raises(ConfigError, match=r"or a checkpoint, like .*checkpoints/last\.ckpt"):
        thaw.load(tmp_path)
    folder = tiny(tmp_path / "model")
    change(folder, format=99)
    with pytest.raises(ConfigError, match=r"model\.json: has format 99, .*update thaw"):
        thaw.load(folder)
    for text in ("{", "[]", "{}", '{"format": 1, "sha256": 3}'):
        (folder / "model.json").write_text(text)
        with pytest.raises(ConfigError, match=r"model\.json: is (no desc|dam)|ors: is missing"):
            thaw.load(folder)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("", {"classes": ["cat", "ant", "ant"]}, r"classes=.*allowed is a list of names"),
        ("", {"classes": ["cat", "ant", "\x1b]0;owned\x07"]}, r"classes=.*control characters"),
        ("", {"classes": "cab"}, r"classes=cab: allowed is a list of names"),
        ("", {"classes": []}, r"classes=\[\]: allowed is a list of names"),
        ("", {"classes": [*"abcd"]}, r"weights do not fit the model"),
        ("input", {"size": 10**6}, r"input=.*: allowed is sides of 1 to 4096 pixels"),
        ("input", {"resize": 10**9}, r"input=.*: allowed is sides of 1 to 4096 pixels"),
        ("input", {"size": 32.5}, r"input=.*: allowed is sides of 1 to 4096 pixels"),
        ("input", {"mean": [0.5]}, r"input=.*: allowed is mean and std of three colours"),
        ("input", {"std": [0.2, 0.0, 0.2]}, r"input=.*: allowed is mean and std of .* above 0"),
        ("input", {"crop": "os.system"}, r"crop=os\.system: allowed is center, squash, pad"),
        ("backbone", {"image_size": 10**6}, r"input=.*: allowed is sides of 1 to 4096 pixels"),
        ("backbone", {"features": 10**9}, r"weights do not fit the model \(shape: head"),
        ("backbone", {"builder": "os.system"}, r"body was built by os\.system.*runs no code"),
        ("backbone", {"builder": "timm", "name": "timm/hf-hub:a/b"}, r"no such model of timm"),
        ("head", {"builder": "os.system"}, r"head was built by os\.system.*runs no code"),
        ("head", {"builder": "thaw.mlp_head.mlp", "arguments": {"hidden": [10**9]}}, "fit|alloc"),
        *(("", changes, r"model\.json: is no description of a model \(.*copy the whole model")
          for changes in ({"format": "two"}, {"format": [2]}, {"format": None}, {"input": {}},
                          {"backbone": 3}, {"head": {}}, {"temperature": "warm"},
                          {"classes": None})),
        ("head", {"arguments": {"depth": 3}}, r"model\.json: is no description of a model"),
        ("backbone", {"features": 10**18}, "is no description of a model"),
        *(("", {"temperature": value}, r"model\.json: temperature=.*: allowed is a number above 0")
          for value in (0, -1.0, math.nan, math.inf)),
    ],
)  # fmt: skip
def test_what_was_changed_by_hand_is_told_before_it_fills_the_memory(
    tmp_path: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    folder = tiny(tmp_path / "model")
    facts = json.loads((folder / "model.json").read_text())
    change(folder, **({part: facts[part] | changes} if part else changes))
    with pytest.raises(ConfigError, match=message):
        thaw.load(tmp_path)


def test_weights_that_are_missing_changed_or_of_another_model(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "model")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ConfigError, match=r"model\.safetensors: is missing, or is not the file"):
        thaw.load(folder)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"model\.safetensors: is missing, or is not the file"):
        thaw.load(folder)
    weights.write_bytes(b"weights")
    change(folder, sha256=sha256(weights))
    with pytest.raises(ConfigError, match=r"is no description .*SafetensorError"):
        thaw.load(folder)
    weights.write_bytes(content)
    change(folder, sha256=sha256(weights))
    change(folder, classes=["cat", "ant"])
    with pytest.raises(ConfigError, match=r"do not fit the model \(shape: head.*\(3,\) in the fi"):
        thaw.load(folder)


def test_parts_of_the_users_own_are_given_and_never_imported(tmp_path: Path) -> None:
    """A folder names them; importing a name out of a file would run code."""
    backbone = replace(small_backbone(), builder="")
    own = {"_target_": "os.system", "command": "touch pwned"}
    head = nn.Linear(8, 3)
    classifier = Classifier(backbone, head).eval()
    targets = {"backbone": {"_target_": "my.backbone"}, "head": own}
    described = describe(backbone, targets, CLASSES, "photos: none")
    save_model(tmp_path / "model", classifier, described, temperature=1.0)
    with pytest.raises(ConfigError, match=r"body was built by my\.backbone.*body=MODULE"):
        thaw.load(tmp_path)
    body = small_backbone(seed=5).body
    with pytest.raises(ConfigError, match=r"head was built by os\.system.*head=MODULE"):
        thaw.load(tmp_path, body=body)
    model = thaw.load(tmp_path, body=body, head=nn.Linear(8, 3))
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    expected = classifier(transforms.normalise(backbone.input_spec)(images)).softmax(1)
    assert isinstance(model, ImageClassifier)
    assert torch.allclose(model(images), expected, atol=1e-6)
