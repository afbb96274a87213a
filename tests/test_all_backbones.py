"""Each of torchvision's models as a backbone, against what its own forward pass does."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
import torchvision.models
from order import reads
from torch import nn

from thaw.backbones import groups, tracing
from thaw.backbones.backbone import Backbone
from thaw.backbones.groups import Granularity
from thaw.backbones.rebuild import without_values
from thaw.backbones.torchvision_backbone import torchvision_backbone

pytestmark = pytest.mark.slow

NAMES = torchvision.models.list_models(module=torchvision.models)
# The smallest of each architecture; the others differ in depth, width and size.
CI = ("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s",
      "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
      "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d",
      "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32",
      "wide_resnet50_2")  # fmt: skip
CLASSES = 6007  # a prime, so that nothing else in a model has it


def test_there_are_eighty() -> None:
    assert len(NAMES) == 80
    assert set(CI) < set(NAMES)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.every] * (n not in CI)) for n in NAMES],
)
def backbone(request: pytest.FixtureRequest) -> Iterator[Backbone]:
    """Without values, so that even the largest is there at once."""
    with without_values():
        yield torchvision_backbone(request.param, weights=None)


def test_the_last_layer_is_the_one_that_the_classes_size(backbone: Backbone) -> None:
    options: dict[str, Any] = {"num_classes": CLASSES}
    has_auxiliary = backbone.name in ("googlenet", "inception_v3")
    if has_auxiliary:
        options["init_weights"] = False  # else it warns
    with without_values():
        model = torchvision.models.get_model(backbone.name, weights=None, **options)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    sized = {key for key, shape in shapes.items() if shape and shape[0] == CLASSES}
    auxiliary = {key for key in shapes if key.lower().startswith("aux")}
    (layer,) = {key.rpartition(".")[0] for key in sized - auxiliary}
    assert backbone.out_features == shapes[f"{layer}.weight"][1]
    assert bool(auxiliary) == has_auxiliary
    left = {key for key, _ in backbone.body.named_parameters()}
    own = {key for key, _ in model.named_parameters()}
    assert left == own - auxiliary - sized


def test_groups_follow_the_real_order_of_execution(backbone: Backbone) -> None:
    """All that a group holds is read after all of the group before it."""
    size = backbone.input_spec.size
    seen = tracing.trace(backbone.body, size)
    place = reads(backbone.body, size)
    every = sorted(key for key, _ in backbone.body.named_parameters())
    assert sorted(place) == every, "some are never read"
    assert groups.split(backbone.body, seen, "stage") == backbone.groups
    for granularity in get_args(Granularity):
        made = groups.split(backbone.body, seen, granularity)
        assert sorted(key for group in made for key in group.parameters) == every
        for before, after in pairwise(made):
            last = max(before.parameters, key=place.__getitem__)
            first = min(after.parameters, key=place.__getitem__)
            assert place[last] < place[first], (granularity, last, first)


def test_the_layers_behind_the_picture_are_marked(backbone: Backbone) -> None:
    """`is_classifier`: what comes after the pooling, where a layer gets (N, D)."""
    inputs: dict[str, int] = {}

    def note(key: str) -> Any:
        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            inputs.setdefault(key, args[0].ndim)

        return hook

    hooks = [
        module.register_forward_pre_hook(note(key))
        for key, module in backbone.body.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    size = backbone.input_spec.size
    with torch.no_grad():
        backbone.body.eval()(torch.zeros(2, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    for group in backbone.groups:
        dims = {inputs[key] for key in inputs if f"{key}.weight" in group.parameters}
        assert group.is_classifier == (dims == {2}), group.name
