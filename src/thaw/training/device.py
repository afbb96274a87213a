"""Settings of the trainer and of the optimiser that depend on the device."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from thaw.backbones.backbone import Backbone
from thaw.errors import ConfigError, check

SHORT_RUN = 400_000  # images to train on, below which compiling kernels does not pay


def quiet_lightning() -> None:
    """Leaves out what Lightning prints of its own choices, which are thaw's here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # that was asked for
    for message in ("LeafSpec", "Checkpoint directory", "not have many workers", "to overfit but"):
        warnings.filterwarnings("ignore", f".*{message}")


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuses arguments of the Trainer that the plan or this machine cannot follow."""
    epochs = trainer.get("max_epochs")
    check(type(epochs) is int and epochs >= 1, "trainer.max_epochs", epochs, "1 or more epochs")
    interval = trainer.get("val_check_interval")
    check(repr(interval) in ("None", "1.0"), "trainer.val_check_interval", interval, "1.0: what is "
          "validated is what is saved; limit_train_batches makes epochs shorter")  # fmt: skip
    wanted = trainer.get("accelerator")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if not {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(str(wanted), True):
        raise ConfigError(
            f"trainer.accelerator={wanted}: torch {torch.__version__} sees no such device here; "
            "use trainer=cpu, or trainer=default, which uses what there is"
        )
    strategy = trainer.get("strategy", "auto")
    if strategy not in ("auto", "ddp"):  # in others an unfreeze is not proven right
        raise ConfigError(f"trainer.strategy={strategy}: use trainer=default or trainer=ddp")


def trainer_settings(trainer: Mapping[str, Any], *, validates: bool) -> dict[str, Any]:
    """Gives the Trainer's arguments with `precision: auto` decided, for data with val/ or not.

    On several devices `strategy: auto` is ddp: Lightning would fork in a notebook, and what the
    forked processes train and measure never comes back.
    """
    settings = dict(trainer)
    if settings.get("strategy", "auto") == "auto" and settings.get("devices", 1) != 1:
        settings["strategy"] = "ddp"
    if settings.get("precision") == "auto":
        settings["precision"] = best_precision(str(settings.get("accelerator", "auto")))
    if not validates:
        settings["limit_val_batches"] = 0
    return settings


def optimizer_settings(optim: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the optimiser's arguments with `fused: auto` decided: not in mixed precision.

    On a CPU a fused step takes a tenth of the time; in mixed precision Lightning 2.6.6 cannot clip
    the gradients of a fused optimiser.
    """
    settings, mixed = dict(optim), str(trainer.get("precision")).endswith("mixed")
    if settings.get("fused") == "auto":
        settings["fused"] = not mixed
    if settings.get("fused") and mixed and trainer.get("gradient_clip_val"):
        allowed = "auto or false, or trainer.gradient_clip_val=null, in mixed precision"
        raise ConfigError(f"optim.fused=true: allowed is {allowed}: Lightning cannot clip then")
    return settings


def best_precision(accelerator: str) -> str:
    """Gives Lightning's `precision`; on CPUs and Apple's GPUs, mixed is not reliably faster."""
    # bf16 needs no loss scaling, but GPUs older than Ampere compute it slowly
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "16-mixed"


def uses_channels_last(backbone: Backbone, trainer: Mapping[str, Any], photos: int) -> bool:
    """Tells whether a run on so many training photos should have them in channels_last.

    Convolutional bodies are faster so. But for it cuDNN compiles a kernel of each depthwise
    convolution when a new shape of batch first comes: EfficientNet-Lite0's first step on an H100
    took 25 s instead of 0.8 s (torch 2.11, bf16, 256 images of 224 pixels), and the others gained
    a fifth (2,822 images/s against 2,301).
    """
    depthwise = any(
        isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        for layer in backbone.body.modules()
    )
    on_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    is_short = photos * trainer["max_epochs"] < SHORT_RUN
    return backbone.is_convolutional and not (depthwise and on_gpu and is_short)


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
