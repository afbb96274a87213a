"""What is said of each set of weights, against torchvision's own records and counts made here."""

from typing import Any

import pytest
import torch
import torchvision.models
from torchvision.models import ResNet50_Weights

from thaw.backbones import catalogue
from thaw.backbones.catalogue import Entry
from thaw.backbones.catalogue_plot import best, draw
from thaw.errors import ConfigError


def entry(name: str, accuracy: float | None, parameters: int, gflops: float) -> Entry:
    return Entry(name, "V1", True, parameters, gflops, accuracy, 224, "MIT", "fc (Linear)")


SMALL = entry("small", 60.0, 2_000_000, 0.4)
LARGE = entry("large", 80.0, 90_000_000, 9.0)
WASTE = entry("waste", 70.0, 99_000_000, 5.0)
OTHER = entry("other", None, 5_000_000, 0.1)
ALL = [WASTE, SMALL, OTHER, LARGE]


def test_all_weights_of_torchvision_and_tiny_are_there() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    expected = {
        (name, weights.name)
        for name in names
        for weights in torchvision.models.get_model_weights(name)
    }
    found = catalogue.find()
    assert {(one.name, one.weights) for one in found} == expected | {("tiny", "DEFAULT")}
    assert [one.name for one in found] == sorted(one.name for one in found)
    assert sum(one.is_default for one in found) == 81
    assert all(one.last_layer for one in found)


def test_an_entry_is_torchvisions_own_record() -> None:
    first, second = catalogue.find(["resnet50"])[:2]
    assert (first.weights, first.is_default) == ("IMAGENET1K_V1", False)
    assert second.is_default
    for one in (first, second):
        weights = ResNet50_Weights[one.weights]
        assert one.accuracy == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert one.gflops == weights.meta["_ops"]
        assert one.size == weights.transforms().crop_size[0]
        assert one.last_layer == "fc (Linear)"
        assert one.licence == "none declared, ImageNet"
    whole = torchvision.models.resnet50(weights=None)
    assert first.parameters == sum(weight.numel() for weight in whole.parameters())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "convnext_tiny", "densenet121"])
def test_counted_operations_are_those_that_torchvision_publishes(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    published = torchvision.models.get_model_weights(name)["DEFAULT"].meta["_ops"]
    assert catalogue.count_gflops(model, 224) == pytest.approx(published, rel=0.01)


def test_names_are_found_by_a_part_and_by_a_pattern() -> None:
    assert {one.name for one in catalogue.find(["wide_res"])} == {
        "wide_resnet50_2", "wide_resnet101_2",
    }  # fmt: skip
    assert {one.name for one in catalogue.find(["resnet1*", "tiny"])} == {
        "convnext_tiny", "resnet18", "resnet101", "resnet152", "tiny",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"resnet51: no backbone.*did you mean resnet50"):
        catalogue.find(["resnet51"])


def test_timms_are_counted() -> None:
    timm: Any = pytest.importorskip("timm")
    (one,) = catalogue.find(["timm/resnet18.a1_in1k"])
    whole = torchvision.models.get_model_weights("resnet18")["DEFAULT"].meta  # the same network
    assert one.parameters == whole["num_params"]
    assert one.gflops == pytest.approx(whole["_ops"], rel=0.01)
    assert (one.accuracy, one.size, one.last_layer) == (None, 224, "fc (Linear)")
    assert one.licence == "apache-2.0, ImageNet"
    dino = catalogue.find(["timm/vit_small_patch14_dinov2*"])[0]
    assert (dino.size, dino.last_layer) == (518, "none")
    assert len(catalogue.timm_names()) == len(timm.list_models(pretrained=True))


def test_weights_without_a_classifier_have_no_accuracy() -> None:
    """torchvision writes "not a number" there."""
    accuracies = {one.weights: one.accuracy for one in catalogue.find(["vgg16"])}
    assert accuracies["IMAGENET1K_FEATURES"] is None
    assert accuracies["IMAGENET1K_V1"] is not None


def test_order_and_limits() -> None:
    def names(*arguments: Any) -> list[str]:
        return [one.name for one in catalogue.arrange(ALL, *arguments)]

    assert names("name") == ["large", "other", "small", "waste"]
    assert names("accuracy") == ["large", "waste", "small", "other"]
    assert names("size") == ["small", "other", "large", "waste"]
    assert names("compute") == ["other", "small", "waste", "large"]
    assert names("name", 90) == ["large", "other", "small"]
    assert names("size", None, 0.4) == ["small", "other"]
    with pytest.raises(ConfigError, match=r"--max-params 1 .*small has 2\.0 million.*other takes"):
        names("name", 1)
    with pytest.raises(ConfigError, match=r"--max-gflops 0: allowed is above 0"):
        names("name", None, 0)


def test_the_best_are_those_that_nothing_beats() -> None:
    known = [SMALL, LARGE, WASTE]
    assert best(known, lambda one: one.parameters) == [SMALL, LARGE]
    assert best(known, lambda one: one.gflops) == [SMALL, WASTE, LARGE]


def test_the_picture_has_every_point_and_the_names_of_the_best() -> None:
    left, right = draw(ALL).axes
    for axes, cost in ((left, lambda one: one.parameters / 1e6), (right, lambda one: one.gflops)):
        (rest,) = axes.collections
        (line,) = axes.lines
        drawn = {tuple(point) for point in rest.get_offsets()}
        drawn |= set(zip(*line.get_data(), strict=True))
        assert drawn == {(cost(one), one.accuracy) for one in (SMALL, LARGE, WASTE)}
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel()
    assert {text.get_text() for text in left.texts} == {"small", "large"}
    assert {text.get_text() for text in right.texts} == {"small", "waste", "large"}
    with pytest.raises(ConfigError, match="none of these weights has a published accuracy"):
        draw([OTHER])
