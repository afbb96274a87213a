"""A body is built again from what was recorded, and gives the same features with its weights."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from thaw.backbones.backbone import Backbone
from thaw.backbones.cnn import cnn_backbone
from thaw.backbones.rebuild import rebuild
from thaw.backbones.timm_backbone import timm_backbone
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.errors import ConfigError

# with weights, as after training, where that changes how the model is built
BUILT: dict[str, Callable[[str], Backbone]] = {
    "inception_v3": lambda file: torchvision_backbone("inception_v3", file, 96),
    "vit_b_32": lambda file: torchvision_backbone("vit_b_32", file, 64),
    "timm/vit_tiny_patch16_224": lambda file: timm_backbone("vit_tiny_patch16_224", file, 64),
    "tiny": lambda file: tiny_backbone(file, 48),
    "cnn": lambda file: cnn_backbone(file, 40),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("vit_b_32", "inception_v3") else ())
        for name in BUILT
    ],
)
def test_the_features_are_the_same(name: str, tmp_path: object) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    builder = name if name in ("tiny", "cnn") else "timm" if "/" in name else "torchvision"
    size = {"inception_v3": 96, "tiny": 48, "cnn": 40}.get(name, 64)
    torch.manual_seed(5)
    file = f"{tmp_path}/body.pth"
    torch.save(rebuild(builder, name, size).state_dict(), file)  # pyright: ignore[reportArgumentType]
    first = BUILT[name](file)
    assert (first.builder, first.name, first.input_spec.size) == (builder, name, size)
    before = torch.get_rng_state()
    again = rebuild(first.builder, first.name, first.input_spec.size)
    assert torch.equal(torch.get_rng_state(), before)
    assert str(again) == str(first.body)
    again.load_state_dict(first.body.state_dict())  # strict
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), first.body.eval()(images))


@pytest.mark.slow
def test_it_needs_no_lightning_and_no_hydra() -> None:
    code = (
        "import sys; from thaw.backbones.rebuild import rebuild; rebuild('tiny', 'tiny', 64);"
        "print([name for name in ('lightning', 'hydra', 'omegaconf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_builder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"body was built by keras, which is not thaw's"):
        rebuild("keras", "resnet50", 224)  # pyright: ignore[reportArgumentType]
