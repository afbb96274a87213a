"""`thaw probe`: what it reads, what it measures, and that training finds its features."""

import re
import shlex
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from models import small_backbone
from runs import ROOT, configuration, draw_photos
from torch import nn

import thaw
import train
from thaw import cli
from thaw.backbones.backbone import Backbone
from thaw.backbones.folding import fold
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.compose import compose_run
from thaw.data import loading
from thaw.errors import ConfigError
from thaw.tools.probe import measure, read
from thaw.tools.probe_fit import GRIDS, LayerOutputs, fit, linear_head, pooled, way


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def words(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(ROOT)
    return [
        "data=folder", f"data.root={photos}", "data.num_workers=0", "backbone.image_size=32",
        "trainer=cpu", f"paths.root_dir={tmp_path}", f"paths.cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip


def test_the_command_line() -> None:
    given = read(
        ArgumentParser(), ["data=pets", "backbones=a,b:w.pth", "classifier=svm,knn", "seed=1"]
    )
    assert given.backbones == [["backbone=a"], ["backbone=b", "backbone.weights=w.pth"]]
    assert (given.layers, given.classifier) == ("last", ["svm", "knn"])
    assert given.words == ["data=pets", "seed=1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["backbones=a", "classifier=knn,tree"], r"^classifier=knn,tree: allowed is one or more "),
        (["backbones=a", "classifier=knn", "--save", "x"], r"^--save=x: .* for a linear head"),
        (["backbones=a", "layers=all", "--save", "x"], r"^--save=x: .* for a linear head"),
        (["backbones=a", "--save", "."], r"^--save=/.*: allowed is a folder that is not there yet"),
    ],
)
def test_words_that_cannot_be_understood(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(ArgumentParser(), given)


def test_features_are_computed_as_in_training(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With BatchNorm folded: the cache is the same, so the bits must be."""
    folded: list[nn.Module] = []

    def noting(body: nn.Module, images: torch.Tensor) -> Any:
        folded.append(body)
        return fold(body, images)

    monkeypatch.setattr(sys.modules[torchvision_backbone.__module__], "fold", noting)
    given = ["backbone=resnet18", "backbone.weights=null"]
    subject = measure(given, compose_run([*words, *given]))
    assert folded == [subject.backbone.body]


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)  # which comes with it
    for name in [name for name in sys.modules if name.startswith(("thaw.tools.", "sklearn"))]:
        monkeypatch.delitem(sys.modules, name)
    for command in ("check", "probe"):
        with pytest.raises(SystemExit):
            cli.main([command, "backbones=tiny"])
        assert "joblib is missing; pip install -e '.[probe]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [(["backbones=tiny,resnet81"], "resnet81"), (["backbones=tiny", "backbone=cnn"], "twice")],
)
def test_a_wrong_backbone_stops_before_anything_is_measured(
    words: list[str], given: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["probe", *words, *given])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_from_end_to_end(
    words: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are measured; training then finds the features."""
    spy = Mock(wraps=loading.decode)  # a function of this file would count as code of the photos
    monkeypatch.setattr(loading, "decode", spy)
    cli.main(["probe", *words, "backbones=tiny,cnn", "classifier=logistic,svm,knn"])
    printed = capsys.readouterr().out
    opened = {str(call.args[0]) for call in spy.call_args_list}
    assert len(opened) == 24 + 12  # training and validation
    assert not [path for path in opened if "/test/" in path]
    rows = re.findall(r"^(tiny|cnn) +\S+ +(\d+) +(\w+) +([\d.]+) +([\d.]+) ", printed, re.MULTILINE)
    assert {(name, kind) for name, _, kind, *_ in rows} == {
        (name, kind) for name in ("tiny", "cnn") for kind in GRIDS
    }
    accuracies = [float(row[3]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert "Ranked on 12 photos" in printed
    # the command for the best, and the files that it finds
    command = shlex.split(printed.splitlines()[-1].removeprefix("next"))
    assert command == ["python", "train.py", *words, f"backbone={rows[0][0]}"]
    cfg = configuration(
        tmp_path / "run", *command[2:], "finetune=feature_extraction", "finetune.cached_views=1",
        "finetune.cache_features=true", "trainer.max_epochs=2", "callbacks=none", "logger=none",
        "test=false",
    )  # fmt: skip
    train.run(cfg)
    trained = capsys.readouterr().out
    assert "features  train: 24 photos x 1 view from cache" in trained
    assert "features  val: 12 photos x 1 view from cache" in trained


def test_all_layers_and_a_way(words: list[str], tmp_path: Path, capsys: Any) -> None:
    cli.main(["probe", *words, "backbones=tiny", "layers=all", "seed=1"])
    printed = capsys.readouterr().out
    for group, width in (("conv1-layer1", 16), ("layer2", 40), ("layer3", 80), ("layer4", 128)):
        assert re.search(rf"^tiny +{group} +{width} +logistic +[01]\.", printed, re.MULTILINE)
    assert "8 photos a class are few" in printed
    command = shlex.split(printed.splitlines()[-1].removeprefix("next"))
    assert command[: 4 + len(words)] == ["python", "train.py", *words, "seed=1", "backbone=tiny"]
    assert command[len(words) + 4].startswith("finetune=")
    configuration(tmp_path / "run", *command[2:])  # is understood


def test_what_is_saved_predicts_as_the_classifier_does(
    words: list[str], photos: Path, tmp_path: Path, capsys: Any
) -> None:
    """On the photos themselves, with the accuracy that the table says."""
    model = tmp_path / "model"
    cli.main(["probe", *words, "backbones=tiny", "classifier=svm", "--save", str(model)])
    printed = capsys.readouterr().out
    assert printed.endswith(f"saved     thaw predict {model} photo.jpg\n")
    accuracy = re.search(r"^tiny .*svm +([\d.]+) ", printed, re.MULTILINE)
    loaded = thaw.load(model)
    paths = sorted((photos / "val").glob("*/*.png"))
    right = [said.label == path.parent.name
             for said, path in zip(loaded.predict(paths), paths, strict=True)]  # fmt: skip
    assert accuracy is not None
    assert sum(right) / len(right) == pytest.approx(float(accuracy[1]), abs=1e-4)
    assert loaded.facts["metrics"]["val/acc"] == pytest.approx(float(accuracy[1]), abs=1e-4)


def test_too_few_photos_for_three_folds() -> None:
    table = torch.rand(4, 2), torch.tensor([0, 0, 1, 1])
    with pytest.raises(
        ConfigError, match=r"training photos of the largest class=2: allowed is 3 or more"
    ):
        fit("logistic", table, seed=0)


def blobs(number: int, seed: int, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, 8) that scales far apart make hard, and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % classes
    features = torch.randn(number, 8, generator=generator)
    features[torch.arange(number), labels] += 3
    return features * 10.0 ** torch.arange(-3.0, 5.0), labels


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_learns_and_does_not_see_validation(name: str, classes: int) -> None:
    train, val = blobs(90, 0, classes), blobs(90, 1, classes)
    fitted = fit(name, train, val, seed=0)
    assert fitted.val is not None
    assert fitted.val > 0.85
    assert fitted.cross_validated == pytest.approx(fitted.val, abs=0.1)
    shuffled = val[0], (val[1] + 1) % classes
    other = fit(name, train, shuffled, seed=0)
    assert other.cross_validated == fitted.cross_validated
    assert other.score == other.val < 0.2
    assert fit(name, train, None, seed=0).score == fitted.cross_validated


@pytest.mark.parametrize("name", ["logistic", "svm"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_head_is_the_pipeline(name: str, classes: int) -> None:
    """Its scores, with the standardisation, and a temperature that lowers the loss."""
    train, val = blobs(90, 0, classes), blobs(90, 1, classes)
    fitted = fit(name, train, val, seed=0)
    head, temperature = linear_head(fitted.model, val)
    scores = head(val[0])
    expected = torch.tensor(fitted.model.decision_function(val[0].numpy()))
    found = scores if classes > 2 else scores[:, 1] - scores[:, 0]
    assert torch.allclose(found.double(), expected.double(), atol=1e-4)
    loss = torch.nn.functional.cross_entropy
    assert loss(scores / temperature, val[1]) < loss(scores, val[1]) + 1e-6
    assert linear_head(fitted.model)[1] == 1


@pytest.mark.parametrize(
    ("per_class", "last", "words"),
    [
        (5, 0.9, ["finetune=feature_extraction"]),
        (5, 0.78, ["finetune=feature_extraction"]),  # worse than layer3, within the noise
        (5, 0.5, ["finetune=partial", "finetune.top=1"]),  # layer3 and below stay
        (30, 0.9, ["finetune=partial", "finetune.top=2"]),
        (30, 0.81, ["finetune=freeze_unfreeze"]),
    ],
)
def test_the_four_ways(per_class: int, last: float, words: list[str]) -> None:
    accuracies = {"layer1": 0.4, "layer2": 0.6, "layer3": 0.8, "layer4": last}
    sentence, chosen = way(torch.full((400 // per_class,), per_class), accuracies)
    assert chosen == words
    assert f"{per_class} photos a class are {'few' if per_class < 10 else 'enough'}" in sentence
    assert f"the last layer is right in {last:.1%}, layer3 in 80.0%" in sentence


def images(size: int) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def outputs_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    layers = LayerOutputs(backbone).eval()
    output = layers(images(backbone.input_spec.size))
    return dict(zip(layers.layers, output.split(list(layers.layers.values()), 1), strict=True))


@torch.no_grad()
def test_layers_of_a_resnet_by_hand() -> None:
    backbone = tiny_backbone(image_size=32)
    body = backbone.body.eval()
    x = images(32)
    x = body.layer1(torch.relu(body.bn1(body.conv1(x))))
    expected = [x.mean((2, 3))]
    for layer in (body.layer2, body.layer3, body.layer4):
        x = layer(x)
        expected.append(x.mean((2, 3)))
    outputs = outputs_of(backbone)
    assert list(outputs) == ["conv1-layer1", "layer2", "layer3", "layer4"]
    for one, two in zip(outputs.values(), expected, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


WIDTHS = {
    "mobilenet_v2": [16, 24, 32, 96, 1280],
    "swin_t": [96, 192, 384, 768],
    "vit_b_32": [768] * 13,
}


@torch.no_grad()
@pytest.mark.parametrize("name", WIDTHS)
def test_the_last_layer_is_what_the_body_gives(name: str) -> None:
    torch.manual_seed(0)
    backbone = torchvision_backbone(name, weights=None, image_size=64)
    outputs = outputs_of(backbone)
    assert list(outputs) == [group.name for group in backbone.groups]
    last = backbone.body.eval()(images(backbone.input_spec.size))
    assert torch.allclose(list(outputs.values())[-1], last, atol=1e-5)
    assert [part.shape[1] for part in outputs.values()] == WIDTHS[name]


def test_a_layer_that_runs_twice_counts_where_it_began_and_no_hook_stays() -> None:
    backbone = small_backbone()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high, self.relu = backbone.body.conv, backbone.body.low, nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.high(self.relu(self.low(x)))).mean((2, 3))

    body = Twice().eval()
    groups = tuple(
        type(backbone.groups[0])(name, modules=modules)
        for name, modules in (("low", ("low", "relu")), ("high", ("high",)))
    )
    other = Backbone("twice", body, 6, backbone.input_spec, groups, "none", "random")
    with torch.no_grad():
        expected = torch.relu(body.low(images(16))).mean((2, 3))
        assert torch.allclose(outputs_of(other)["low"], expected, atol=1e-6)
    assert not any(module._forward_hooks for module in body.modules())


def test_means_over_places() -> None:
    image = torch.arange(2.0 * 3 * 4 * 4).view(2, 3, 4, 4)
    assert torch.equal(pooled(image), image.mean((2, 3)))
    last = image.permute(0, 2, 3, 1)  # N H W C
    assert torch.equal(pooled(last), image.mean((2, 3)))
    tokens = torch.rand(2, 5, 3)
    assert torch.equal(pooled(tokens), tokens.mean(1))
    assert torch.equal(pooled(tokens[:, 0]), tokens[:, 0])
