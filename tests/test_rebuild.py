"""A body is built again from what was recorded, and gives the same features with its weights."""

from functools import partial
from pathlib import Path

import pytest
import torch

from thaw.backbones.cnn import cnn_backbone
from thaw.backbones.rebuild import rebuild
from thaw.backbones.timm_backbone import timm_backbone
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.errors import ConfigError

BUILT = {  # a builder and a size in pixels
    "inception_v3": (partial(torchvision_backbone, "inception_v3"), 96),
    "vit_b_32": (partial(torchvision_backbone, "vit_b_32"), 64),
    "timm/vit_tiny_patch16_224": (partial(timm_backbone, "vit_tiny_patch16_224"), 64),
    "tiny": (tiny_backbone, 48),
    "cnn": (cnn_backbone, 40),
}
SLOW = ("inception_v3", "vit_b_32")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in BUILT]
)
def test_the_features_are_the_same(name: str, tmp_path: Path) -> None:
    """With weights from a file, as after training, where that changes how the model is built."""
    make, size = BUILT[name]
    builder = name if name in ("tiny", "cnn") else "timm" if "/" in name else "torchvision"
    torch.manual_seed(5)
    torch.save(rebuild(builder, name, size).state_dict(), tmp_path / "body.pth")
    first = make(str(tmp_path / "body.pth"), size)
    assert (first.builder, first.name, first.input_spec.size) == (builder, name, size)
    before = torch.get_rng_state()
    again = rebuild(first.builder, first.name, first.input_spec.size)
    assert torch.equal(torch.get_rng_state(), before)
    assert str(again) == str(first.body)
    again.load_state_dict(first.body.state_dict())  # strict
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), first.body.eval()(images))


def test_an_unknown_builder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"body was built by keras, which is not thaw's"):
        rebuild("keras", "resnet50", 224)  # pyright: ignore[reportArgumentType]
