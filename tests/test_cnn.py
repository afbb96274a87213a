"""The small net for training from scratch: its layers, its size, what it learns."""

import pytest
import torch
from torch import nn

from thaw.backbones.cnn import SmallCnn, cnn_backbone
from thaw.errors import ConfigError


def published(size: int) -> nn.Sequential:
    """As the texts write it."""
    side = (((size - 2) // 2 - 2) // 2 - 2) // 2
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128 * side * side, 128), nn.ReLU(), nn.Linear(128, 2),
    )  # fmt: skip


@pytest.mark.parametrize("size", [22, 61])
def test_it_is_the_published_net(size: int) -> None:
    net, reference = SmallCnn(2, size), published(size)
    reference.load_state_dict(
        dict(zip(reference.state_dict(), net.state_dict().values(), strict=True))
    )
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(net(images), reference(images))


def test_as_a_backbone() -> None:
    backbone = cnn_backbone()
    assert (backbone.input_spec.size, backbone.out_features) == (128, 128)
    assert [group.name for group in backbone.groups] == ["conv1", "conv2", "conv3", "fc1"]
    assert backbone.weights == "random"
    assert backbone.body(torch.rand(2, 3, 128, 128)).shape == (2, 128)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.image_size=21: .* needs 22 pixels or more"):
        cnn_backbone(image_size=21)
    with pytest.raises(ConfigError, match=r"backbone\.weights=DEFAULT: .*a path .* or null"):
        cnn_backbone("DEFAULT")
