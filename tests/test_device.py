"""Precision follows the device."""

import pytest
import torch

from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.errors import ConfigError
from thaw.training.device import (
    best_precision,
    describe,
    optimizer_settings,
    trainer_settings,
    uses_channels_last,
)


def have(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None) -> None:
    """A GPU of some CUDA capability, or none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


@pytest.mark.parametrize(
    ("capability", "accelerator", "precision"),
    [
        ((9, 0), "auto", "bf16-mixed"),  # Hopper
        ((8, 0), "gpu", "bf16-mixed"),  # Ampere, the first that is fast at it
        ((7, 5), "auto", "16-mixed"),  # Turing
        ((7, 0), "cuda", "16-mixed"),
        ((9, 0), "cpu", "32-true"),
        ((9, 0), "mps", "32-true"),
        (None, "auto", "32-true"),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int] | None, accelerator: str, precision: str,
) -> None:  # fmt: skip
    have(monkeypatch, capability)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: accelerator == "mps")
    assert best_precision(accelerator) == precision
    node = {"accelerator": accelerator, "precision": "auto", "max_epochs": 3}
    expected = {**node, "precision": precision}
    assert trainer_settings(node) == expected
    assert node["precision"] == "auto"


def test_several_devices_are_ddp() -> None:
    """Lightning would fork in a notebook, where the results of the processes never come back."""
    for devices, strategy in ((2, "ddp"), ("auto", "ddp"), ([0, 1], "ddp"), (1, None)):
        found = trainer_settings({"devices": devices, "max_epochs": 1})
        assert found.get("strategy") == strategy
    given = {"devices": 2, "strategy": "ddp", "max_epochs": 1}
    assert trainer_settings(given) == given


def test_fused() -> None:
    """Only where Lightning can clip: in mixed precision it refuses a fused optimiser."""
    kinds = {
        "32-true": True,
        32: True,
        "bf16-mixed": False,
        "16-mixed": False,
        16: False,
        "bf16": False,
    }
    for precision, fused in kinds.items():
        found = optimizer_settings({"fused": "auto", "betas": 1}, {"precision": precision})
        assert found == {"fused": fused, "betas": 1}
    assert optimizer_settings({"fused": False}, {"precision": "32-true"}) == {"fused": False}
    assert optimizer_settings({}, {"precision": "32-true"}) == {}
    clips = {"precision": "bf16-mixed", "gradient_clip_val": 1.0}
    with pytest.raises(ConfigError, match=r"optim\.fused=True: .*gradient_clip_val=null"):
        optimizer_settings({"fused": True}, clips)
    assert optimizer_settings({"fused": True}, {"precision": "bf16-mixed"}) == {"fused": True}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            {"val_check_interval": 0.3},
            r"val_check_interval=0\.3: allowed is 1\.0: what is val",
        ),
        ({"val_check_interval": 1}, r"val_check_interval=1: allowed is 1\.0"),  # every batch
        ({"precision": "bf16-true"}, r"precision=bf16-true: allowed is auto, 32-true, bf16-mixed"),
        ({"sync_batchnorm": True}, r"trainer\.sync_batchnorm=True: .* network of timm"),
        ({"strategy": "ddp_spawn"}, r"trainer\.strategy=ddp_spawn: .*trainer=ddp"),
        ({"strategy": {"_target_": "MyStrategy"}}, r"trainer\.strategy=.*MyStrategy.*trainer=ddp"),
    ],
)
def test_what_the_plan_cannot_follow(setting: dict[str, object], words: str) -> None:
    node = {"max_epochs": 4, "strategy": "ddp", "accelerator": "cpu"}
    assert trainer_settings(node) == node
    with pytest.raises(ConfigError, match=words):
        trainer_settings({**node, **setting}, {"_target_": "thaw.backbones.timm_backbone.make"})


def test_a_chosen_precision_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, (9, 0))
    settings = trainer_settings({"precision": "32-true", "max_epochs": 1})
    assert settings["precision"] == "32-true"


def test_describe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert describe(torch.device("cpu")) == "cpu"
    assert describe(torch.device("cuda", 1)) == "GPU 1"


@pytest.mark.parametrize(
    ("name", "gpu", "photos", "expected"),
    [
        ("mobilenet_v2", True, 1_000, False),  # depthwise: cuDNN would compile longer than it gains
        ("mobilenet_v2", True, 200_000, True),
        ("mobilenet_v2", False, 1_000, True),
        ("resnet18", True, 1_000, True),
        ("vit_b_32", True, 200_000, False),
    ],
)
def test_channels_last(
    monkeypatch: pytest.MonkeyPatch, name: str, gpu: bool, photos: int, expected: bool
) -> None:
    with torch.device("meta"):
        backbone = torchvision_backbone(name, None)
    have(monkeypatch, (9, 0) if gpu else None)
    trainer = {"accelerator": "auto", "max_epochs": 10}
    assert uses_channels_last(backbone, trainer, photos) is expected
