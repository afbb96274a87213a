"""Features after each layer group are the means of what its last layer gives."""

import pytest
import torch
from models import small_backbone
from torch import nn

from thaw.backbones.backbone import Backbone, torchvision_backbone
from thaw.backbones.own_backbones import tiny_backbone
from thaw.backbones.taps import Taps, pooled


def images(size: int) -> torch.Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def taps_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    taps = Taps(backbone).eval()
    found = taps(images(backbone.input_spec.size))
    return dict(zip(taps.names, found.split(taps.widths, 1), strict=True))


@torch.no_grad()
def test_groups_of_a_resnet_by_hand() -> None:
    backbone = tiny_backbone(image_size=32)
    body = backbone.body.eval()
    x = images(32)
    x = body.layer1(torch.relu(body.bn1(body.conv1(x))))
    expected = [x.mean((2, 3))]
    for layer in (body.layer2, body.layer3, body.layer4):
        x = layer(x)
        expected.append(x.mean((2, 3)))
    found = taps_of(backbone)
    assert list(found) == ["conv1-layer1", "layer2", "layer3", "layer4"]
    for one, two in zip(found.values(), expected, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


WIDTHS = {
    "mobilenet_v2": [16, 24, 32, 96, 1280],
    "squeezenet1_0": [96, 256, 512, 512],
    "vgg11_bn": [64, 128, 256, 512, 512, 4096, 4096],
    "swin_t": [96, 192, 384, 768],
    "vit_b_32": [768] * 13,
}


@torch.no_grad()
@pytest.mark.parametrize("name", WIDTHS)
def test_the_last_are_the_bodys_own_and_all_are_of_their_width(name: str) -> None:
    torch.manual_seed(0)
    size = None if name.startswith(("vit", "swin")) else 64
    backbone = torchvision_backbone(name, weights=None, image_size=size)
    found = taps_of(backbone)
    assert list(found) == [group.name for group in backbone.groups]
    last = backbone.body.eval()(images(backbone.input_spec.size))
    assert torch.allclose(list(found.values())[-1], last, atol=1e-5)
    assert all(part.isfinite().all() for part in found.values())
    assert [part.shape[1] for part in found.values()] == WIDTHS[name]


def test_a_layer_that_runs_twice_counts_where_it_began() -> None:
    backbone = small_backbone()
    shared = nn.ReLU()

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high, self.relu = backbone.body.conv, backbone.body.low, shared

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
        assert torch.allclose(taps_of(other)["low"], expected, atol=1e-6)


def test_nothing_of_it_stays_behind() -> None:
    backbone = small_backbone()
    taps = Taps(backbone)
    taps(images(16))
    assert not any(module._forward_hooks for module in backbone.body.modules())


def test_means_over_places() -> None:
    image = torch.arange(2.0 * 3 * 4 * 4).view(2, 3, 4, 4)
    assert torch.equal(pooled(image), image.mean((2, 3)))
    last = image.permute(0, 2, 3, 1)  # N H W C
    assert torch.equal(pooled(last), image.mean((2, 3)))
    tokens = torch.rand(2, 5, 3)
    assert torch.equal(pooled(tokens), tokens.mean(1))
    assert torch.equal(pooled(tokens[:, 0]), tokens[:, 0])


def test_the_groups_are_in_its_name() -> None:
    """The fingerprint of its features goes by repr."""
    one, two = tiny_backbone(), tiny_backbone(granularity="block")
    assert repr(Taps(one)) != repr(Taps(two))
