"""Grad-CAM: equal to CAM where both are defined, hot where the class is, for every kind of body."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from thaw.backbones.backbone import Backbone
from thaw.backbones.cnn import cnn_backbone
from thaw.backbones.timm_backbone import timm_backbone
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.heat_map import heat_map, overlay
from thaw.image_classifier import ImageClassifier


def classifier(
    body: nn.Module, head: nn.Module, size: int = 32, classes: int = 2
) -> ImageClassifier:
    facts = {
        "classes": [str(label) for label in range(classes)], "temperature": 1.0,
        "backbone": {"channels_last": False},
        "input": {"size": size, "resize": size, "mean": [0.0] * 3, "std": [1.0] * 3,
                  "interpolation": "bilinear"},
    }  # fmt: skip
    return ImageClassifier(body, head, facts)


class Colours(nn.Module):
    """(N, 3, 32, 32) -> (N, 2): how much red and how much blue there is, out of 4 x 4 places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 8, 8, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0] = self.conv.weight[1, 2] = 1 / 64

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))


def noise(size: int) -> Tensor:
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8)


def test_each_class_is_hot_in_its_own_corner() -> None:
    """Red stands in the upper left quarter of the quarter, blue in the lower right."""
    head = nn.Linear(2, 2, bias=False)
    head.weight.data = torch.eye(2)
    model = classifier(Colours(), head)
    view = torch.zeros(3, 32, 32, dtype=torch.uint8)
    view[0, :8, :8], view[2, 24:, 24:] = 255, 255
    red, blue = (heat_map(model, view, label) for label in (0, 1))
    assert red.shape == (32, 32)
    assert red[:4, :4].min() == blue[28:, 28:].min() == 1
    assert red[12:].max() == red[:, 12:].max() == blue[:20].max() == blue[:, :20].max() == 0
    assert torch.equal(red, blue.flip(0, 1))
    painted = overlay(view, red)
    assert painted.dtype == torch.uint8
    assert painted.shape == view.shape
    assert torch.equal(painted[0, 12:], painted[2, 12:])  # grey where nothing speaks for it


def test_nothing_that_speaks_for_a_class_is_an_empty_map() -> None:
    head = nn.Linear(2, 2, bias=False)
    head.weight.data.zero_()
    assert heat_map(classifier(Colours(), head), noise(32), 0).count_nonzero() == 0


def test_what_all_scores_share_changes_nothing() -> None:
    """The softmax does not see it; the bare scores here are all negative."""
    head, view = nn.Linear(2, 2), noise(32)
    head.weight.data = torch.eye(2)
    model = classifier(Colours(), head)
    expected = heat_map(model, view, 1)
    head.weight.data -= 5
    torch.testing.assert_close(heat_map(model, view, 1), expected, rtol=0, atol=1e-4)
    assert expected.max() == 1


def test_it_is_cam_where_the_features_are_means() -> None:
    """Between one pooling and a linear head both are the same map (arXiv:1512.04150)."""
    torch.manual_seed(0)
    body, head = (
        torchvision_backbone("resnet18", weights=None, image_size=96).body,
        nn.Linear(512, 2),
    )
    model, view = classifier(body, head, size=96), noise(96)
    kept: list[Tensor] = []
    body.get_submodule("layer4").register_forward_hook(lambda *passed: kept.append(passed[-1]))
    with torch.no_grad():
        model(view[None])
    for label in range(2):
        weight = head.weight[label] - head.weight.mean(0)
        cam = torch.einsum("c,nchw->nhw", weight, kept[0]).relu()[None]
        cam = functional.interpolate(cam, (96, 96), mode="bilinear")[0, 0].detach()
        assert cam.max() > 0
        expected = cam / cam.max()
        torch.testing.assert_close(heat_map(model, view, label), expected, rtol=0, atol=1e-5)


def torchvision(name: str, size: int) -> Callable[[], Backbone]:
    return lambda: torchvision_backbone(name, weights=None, image_size=size)


def timm(name: str, size: int) -> Callable[[], Backbone]:
    return lambda: timm_backbone(name, weights=None, image_size=size)


QUICK = {
    "tiny": lambda: tiny_backbone(weights=None),
    "cnn": lambda: cnn_backbone(weights=None),
    "resnet": torchvision("resnet18", 64),
    "squeezenet": torchvision("squeezenet1_1", 64),
    "timm vit": timm("vit_tiny_patch16_224", 64),
}
LARGE = {
    "swin": torchvision("swin_t", 64),
    "timm registers": timm("vit_small_patch16_dinov3", 64),
    "timm mean of tokens": timm("vit_little_patch16_reg4_gap_256", 64),
}


@pytest.mark.parametrize(
    "make",
    [*QUICK.values(), *(pytest.param(make, marks=pytest.mark.slow) for make in LARGE.values())],
    ids=[*QUICK, *LARGE],
)  # fmt: skip
def test_every_kind_of_body_has_a_map(make: Callable[[], Backbone]) -> None:
    """It differs by place and class, and the model is afterwards as it was."""
    torch.manual_seed(0)
    backbone = make()
    size = backbone.input_spec.size
    model = classifier(backbone.body, nn.Linear(backbone.out_features, 8), size, classes=8)
    view = noise(size)
    before = model(view[None]).detach()
    with torch.inference_mode():  # as a server does
        maps = [heat_map(model, view, label) for label in range(8)]
    for heat in maps:
        assert heat.shape == (size, size)
        assert 0 <= heat.min() <= heat.max() <= 1
    assert max(heat.std().item() for heat in maps) > 1e-3
    assert any(not torch.equal(maps[0], other) for other in maps[1:])
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(part.training for part in model.modules())
    assert not any(part._forward_hooks for part in model.modules())
    torch.testing.assert_close(model(view[None]), before, rtol=0, atol=0)


def test_a_body_without_places_is_told() -> None:
    model = classifier(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), nn.Identity())
    with pytest.raises(ValueError, match="no output inside the body is spatial"):
        heat_map(model, noise(32), 0)
