"""`thaw models`: one table out of torchvision's and timm's own records."""

import math
from typing import Any

import pytest
import torchvision.models
from torchvision.models import ResNet50_Weights

from thaw import cli
from thaw.backbones.cnn import cnn_backbone
from thaw.backbones.tiny import tiny_backbone
from thaw.errors import ConfigError
from thaw.tools.models import find


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    cli.main(["models", *words])
    return capsys.readouterr().out.splitlines()


def test_all_weights_of_torchvision_and_our_own_are_there() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    expected = {
        (name, weights.name)
        for name in names
        for weights in torchvision.models.get_model_weights(name)
    }
    rows = find()
    assert {(row.name, row.weights.removesuffix(" *")) for row in rows} == expected | {
        ("tiny", "DEFAULT"),
        ("cnn", ""),
    }
    assert sum(row.weights.endswith(" *") for row in rows) == 80
    for name, build in (("tiny", tiny_backbone), ("cnn", cnn_backbone)):
        (row,) = (row for row in rows if row.name == name)
        parameters = sum(weight.numel() for weight in build(None).body.parameters())
        assert (row.parameters, row.size) == (parameters, build(None).input_spec.size)


def test_a_row_is_torchvisions_own_record() -> None:
    first, second = (row for row in find(["resnet50"]) if row.name == "resnet50")
    assert (first.weights, second.weights) == ("IMAGENET1K_V1", "IMAGENET1K_V2 *")
    for row in (first, second):
        weights = ResNet50_Weights[row.weights.removesuffix(" *")]
        assert row.accuracy == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert row.gflops == weights.meta["_ops"]
        assert row.size == weights.transforms().crop_size[0]
        assert row.licence == "none declared"
    assert {row.licence for row in find(["regnet_y_16gf"])} == {
        "none declared", "https://github.com/facebookresearch/SWAG/blob/main/LICENSE",
    }  # fmt: skip


def test_weights_without_a_classifier_have_no_accuracy() -> None:
    """torchvision writes "not a number" there."""
    accuracies = {row.weights: row.accuracy for row in find(["vgg16"]) if row.name == "vgg16"}
    assert math.isnan(accuracies["IMAGENET1K_FEATURES"])
    assert accuracies["IMAGENET1K_V1 *"] == 71.592


def test_names_are_found_by_a_part_and_by_a_pattern() -> None:
    assert {row.name for row in find(["wide_res"])} == {"wide_resnet50_2", "wide_resnet101_2"}
    assert {row.name for row in find(["resnet1*", "tiny"])} == {
        "convnext_tiny", "resnet18", "resnet101", "resnet152", "tiny",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"resnet51: no backbone.*did you mean resnet50"):
        find(["resnet51"])


def test_timms_are_counted() -> None:
    pytest.importorskip("timm")
    (row,) = find(["timm/resnet18.a1_in1k"])
    same_network: Any = torchvision.models.get_model_weights("resnet18")["DEFAULT"].meta
    assert row.parameters == same_network["num_params"]
    assert (math.isnan(row.gflops), math.isnan(row.accuracy)) == (True, True)
    assert (row.size, row.licence) == (224, "apache-2.0")
    assert find(["timm/vit_base_patch16_sapiens2.fb"]) == []  # 1024 x 768 pixels: no run takes it


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "squeezenet", "tiny*", "--sort", "size")
    assert [line.split()[0] for line in lines[2:5]] == ["tiny", "squeezenet1_1", "squeezenet1_0"]
    assert "IMAGENET1K_V1 *" in lines[3]
    assert "58.18" in lines[3]  # torchvision's page of SqueezeNet 1.1
    assert "non-commercial research" in lines[-1]


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("name", "mobilenet_v2", "mobilenet_v3_small"),
        ("accuracy", "mobilenet_v3_large", "mobilenet_v3_small"),
        ("size", "mobilenet_v3_small", "mobilenet_v3_large"),
        ("compute", "mobilenet_v3_small", "mobilenet_v2"),
    ],
)
def test_orders(capsys: pytest.CaptureFixture[str], order: str, first: str, last: str) -> None:
    names = [line.split()[0] for line in printed(capsys, "mobilenet", "--sort", order)[2:7]]
    assert (names[0], names[-1]) == (first, last)
