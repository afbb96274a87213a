"""Settings of the trainer and of the optimiser that depend on the device."""

import ctypes
import platform
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer

from thaw.errors import ConfigError, check


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuses arguments of the Trainer that the plan or this machine cannot follow."""
    epochs = trainer.get("max_epochs")
    check(type(epochs) is int and epochs >= 1, "trainer.max_epochs", epochs, "1 or more epochs")
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
    """Gives the Trainer's arguments with `precision: auto` decided, for data with val/ or not."""
    settings = dict(trainer)
    if settings.get("precision") == "auto":
        settings["precision"] = best_precision(str(settings.get("accelerator", "auto")))
    if not validates:
        settings["limit_val_batches"] = 0
    return settings


def optimizer_settings(optim: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the optimiser's arguments with `fused: auto` decided.

    In fp16 a fused optimiser removes the loss scale itself, after the gradients should have been
    clipped; on Apple's GPUs it is untested.
    """
    settings = dict(optim)
    if settings.get("fused") == "auto":
        mps = torch.backends.mps.is_available() and trainer.get("accelerator") != "cpu"
        settings["fused"] = not mps and not str(trainer.get("precision")).startswith("16")
    return settings


def clip_gradients(
    module: LightningModule, optimizer: Optimizer, limit: float | None, algorithm: str | None
) -> None:
    """Clips under a fused optimiser in bf16 too, which Lightning 2.6.6 refuses, as if it scaled."""
    plugin = module.trainer.precision_plugin
    if limit and getattr(plugin, "scaler", None) is None:
        how = GradClipAlgorithmType(algorithm or "norm")
        Precision.clip_gradients(plugin, optimizer, limit, how)
    else:
        module.clip_gradients(optimizer, limit, algorithm)


def best_precision(accelerator: str) -> str:
    """Gives Lightning's `precision`; on CPUs and Apple's GPUs, mixed is not reliably faster."""
    # bf16 needs no loss scaling, but GPUs older than Ampere compute it slowly
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "16-mixed"


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def keep_freed_memory() -> None:
    """Stops glibc from returning the memory of freed tensors to the kernel after each step.

    The kernel clears every page that it hands out again: on a CPU that took 0.9 of 2.4 seconds of
    a training step (MobileNetV2, 64 images of 128 pixels). Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc" or torch.cuda.is_available():
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, -1)  # never trim
    libc.mallopt(mmap_max, 0)  # large blocks come from the heap too, which is not trimmed
