"""Layer groups: every parameter in exactly one, in the order in which they run."""

import numpy as np
import pytest
import torch
import torchvision.models
from torch import nn

from thaw.backbones.groups import LayerGroup, check_cover, split
from thaw.backbones.tracing import last_layer, run_without_data, trace

# One of each family that issue 2 names, with its last layer, D and groups, written down from the
# models' papers and their own printed structure, not from what `split` gives.
FAMILIES = {
    "resnet18": ("fc", 512, ["conv1", "layer1", "layer2", "layer3", "layer4"]),
    "vgg11_bn": ("classifier.6", 4096, [
        "features.0", "features.4", "features.8-11", "features.15-18", "features.22-25",
        "classifier.0", "classifier.3",
    ]),
    "mobilenet_v2": ("classifier.1", 1280, [
        "features.0-1", "features.2-3", "features.4-6", "features.7-13", "features.14-18",
    ]),
    "efficientnet_b0": ("classifier.1", 1280, [
        "features.0-1", "features.2", "features.3", "features.4-5", "features.6-8",
    ]),
    "densenet121": ("classifier", 1024, [
        "features.conv0", "features.denseblock1", "features.transition1-denseblock2",
        "features.transition2-denseblock3", "features.transition3-denseblock4",
    ]),
    "convnext_tiny": ("classifier.2", 768, [f"features.{n}-{n + 1}" for n in (0, 2, 4, 6)]),
    "swin_t": ("head", 768, [f"features.{n}-{n + 1}" for n in (0, 2, 4, 6)]),
    "vit_b_32": ("heads.head", 768, [
        "conv_proj", *(f"encoder.layers.encoder_layer_{block}" for block in range(12)),
    ]),
}  # fmt: skip


def model_of(name: str) -> nn.Module:
    """Without weights and values, so that even large ones are built at once."""
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None)


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    layer, features, names = FAMILIES[name]
    model = model_of(name)
    seen = trace(model, 224)
    assert last_layer(model, seen) == layer
    parent, _, child = layer.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    assert run_without_data(model, 224).shape == (2, features)
    groups = split(model, seen)
    assert [group.name for group in groups] == names
    held = [parameter for group in groups for parameter in group.parameters]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_groups_run_in_order(name: str) -> None:
    """All of a group's layers start after those of the group before it."""
    model = model_of(name)
    seen = trace(model, 224)
    last = -1
    for group in split(model, seen):
        places = [
            place
            for place, module in enumerate(seen.order)
            if any(module == own or module.startswith(own + ".") for own in group.modules)
        ]
        assert min(places) > last, f"{group.name} starts before the group in front of it ends"
        last = max(places)


def test_loose_parameters_belong_to_the_stem() -> None:
    model = model_of("vit_b_32")
    stem = split(model, trace(model, 224))[0]
    assert {"class_token", "encoder.pos_embedding"} <= set(stem.parameters)


def test_layers_of_vgg16_are_spaced_as_in_the_recipe() -> None:
    """np.linspace over its 44 layers that see an image; the classifier behind them has the end."""
    model = model_of("vgg16_bn")
    groups = split(model, trace(model, 224), "layer")
    depths = {group.name: group.depth for group in groups}
    places = np.linspace(0, 1, 44)
    for name in ("features.0", "features.1", "features.24", "features.41"):
        assert depths[name] == pytest.approx(places[int(name.partition(".")[2])])
    assert depths["classifier.0"] == depths["classifier.3"] == 1


def test_trace_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, 8)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_cover_names_what_is_missing_doubled_and_repeated() -> None:
    groups = [LayerGroup("a", ("x", "y"), ()), LayerGroup("a", ("y",), ())]
    with pytest.raises(ValueError, match="each name once") as error:
        check_cover(groups, ["x", "y", "z"])
    assert "missing=['z'], twice=['y', 'a']" in str(error.value)
