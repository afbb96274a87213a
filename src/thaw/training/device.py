"""What depends on the device: settings of the trainer and the optimiser, layout, memory."""

import ctypes
import logging
import platform
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from thaw.backbones.backbone import Backbone
from thaw.classifier import is_depthwise
from thaw.errors import check

SHORT_RUN = 400_000  # images to train on, below which compiling kernels does not pay


def quiet_lightning() -> None:
    """Leaves out what Lightning prints of its own choices, which are thaw's here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # that was asked for
    for message in ("LeafSpec", "Checkpoint directory", "not have many workers", "to overfit but"):
        warnings.filterwarnings("ignore", f".*{message}")


def trainer_settings(trainer: Mapping[str, Any], backbone: Any = None) -> dict[str, Any]:
    """Gives the Trainer's arguments with `auto` decided; refuses what a plan cannot follow."""
    settings = dict(trainer)
    epochs, interval = settings.get("max_epochs"), settings.get("val_check_interval")
    check(type(epochs) is int and epochs >= 1, "trainer.max_epochs", epochs, "1 or more epochs")
    check(repr(interval) in ("None", "1.0"), "trainer.val_check_interval", interval, "1.0: what is "
          "validated is what is saved; limit_train_batches makes epochs shorter")  # fmt: skip
    wanted = settings.get("accelerator")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(str(wanted), True)
    check(there, "trainer.accelerator", wanted, "cpu or auto: torch sees no such device here")
    way = settings.get("strategy", "auto")  # in others an unfreeze is not proven right
    check(way in ("auto", "ddp"), "trainer.strategy", way, "trainer=default or trainer=ddp")
    precision = settings.get("precision")  # halves would also add up the metrics
    check(str(precision) not in ("16-true", "bf16-true"), "trainer.precision", precision, "auto, "
          "32-true, bf16-mixed or 16-mixed")  # fmt: skip
    mixed_up = settings.get("sync_batchnorm") and "timm_backbone" in str(backbone)
    check(not mixed_up, "trainer.sync_batchnorm", True, "false for a network of timm: Lightning "
          "would replace layers that hold an activation")  # fmt: skip
    # in a notebook Lightning would fork processes, which never come back
    if way == "auto" and settings.get("devices", 1) != 1:
        settings["strategy"] = "ddp"
    if settings.get("precision") == "auto":
        settings["precision"] = best_precision(str(settings.get("accelerator", "auto")))
    return settings


def optimizer_settings(optim: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Decides `fused: auto`: it is fast, but Lightning 2.6.6 cannot clip it in mixed precision."""
    mixed, fused = str(trainer.get("precision")).endswith(("mixed", "16")), optim.get("fused")
    fits = not (mixed and fused is True and trainer.get("gradient_clip_val"))
    check(fits, "optim.fused", fused, "auto, or trainer.gradient_clip_val=null in mixed precision")
    return {**optim, **({"fused": not mixed} if fused == "auto" else {})}


def best_precision(accelerator: str) -> str:
    """Gives Lightning's `precision`; on CPUs and Apple's GPUs, mixed is not reliably faster."""
    # bf16 needs no loss scaling, but GPUs older than Ampere compute it slowly
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "16-mixed"


def uses_channels_last(backbone: Backbone, trainer: Mapping[str, Any], photos: int) -> bool:
    """Tells whether a run on so many training photos should have them in channels_last.

    Convolutional bodies are faster so. But cuDNN compiles a kernel of each depthwise convolution
    first: EfficientNet-Lite0's first step on an H100 took 25 s instead of 0.8 s (torch 2.11, bf16,
    256 images of 224 pixels), and the others gained a fifth.
    """
    depthwise = any(map(is_depthwise, backbone.body.modules()))
    on_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    is_short = photos * trainer["max_epochs"] < SHORT_RUN
    return backbone.is_convolutional and not (depthwise and on_gpu and is_short)


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def keep_freed_memory() -> None:
    """Stops glibc from returning the memory of freed tensors to the kernel after each step.

    The kernel clears every page that it hands out again: on a CPU that took 0.9 of 2.4 seconds of
    a training step (MobileNetV2, 64 images of 128 pixels). Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc" or torch.cuda.is_available():
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(-1, -1)  # M_TRIM_THRESHOLD in malloc.h: never trim
    mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too, which is not trimmed
