"""Settings of the trainer and the optimiser that depend on the device."""

import ctypes
import platform
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import Optimizer

from thaw.errors import ConfigError, shown


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuses, before anything is loaded, what the plan or this machine cannot follow.

    Args:
        trainer: keyword arguments of Lightning's Trainer.

    Raises:
        ConfigError: names the setting.
    """
    epochs = trainer.get("max_epochs")
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        raise ConfigError(f"trainer.max_epochs={shown(epochs)}: allowed is 1 or more epochs")
    if trainer.get("max_steps", -1) not in (-1, None):
        raise ConfigError(
            f"trainer.max_steps={trainer['max_steps']}: phases are made of whole epochs; set "
            "trainer.max_epochs, and trainer.limit_train_batches for short ones"
        )
    wanted = trainer.get("accelerator")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if not {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(str(wanted), True):
        raise ConfigError(
            f"trainer.accelerator={wanted}: torch {torch.__version__} sees no such device here; "
            "use trainer=cpu, or trainer=default, which takes what there is"
        )
    strategy = trainer.get("strategy", "auto")
    if isinstance(strategy, str) and strategy not in ("auto", "ddp"):
        raise ConfigError(
            f"trainer.strategy={strategy}: allowed are auto (one device) and ddp, under which the "
            "unfreezing is proven right; use trainer=default or trainer=ddp"
        )


def trainer_settings(trainer: Mapping[str, Any], *, validates: bool) -> dict[str, Any]:
    """The trainer's settings: what is left to the device decided, no validation without photos.

    Args:
        trainer: keyword arguments of Lightning's Trainer.
        validates: whether there are validation photos.
    """
    node = dict(trainer)
    if node.get("benchmark") is None:
        node["benchmark"] = not node.get("deterministic")
    if node.get("precision") == "auto":
        node["precision"] = best_precision(str(node.get("accelerator", "auto")))
    if not validates:
        node["limit_val_batches"] = 0
    return node


def optimizer_settings(optim: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The optimiser's settings: `fused: auto` decided.

    On 2 cores a fused AdamW step of MobileNetV2 takes 3.4 ms, one kernel at a time 21. In fp16 a
    fused optimiser takes the scale off the gradients by itself, after they should be clipped; on
    Apple's GPUs it was not tried.

    Args:
        optim: keyword arguments of the optimiser.
        trainer: keyword arguments of Lightning's Trainer, see `trainer_settings`.

    Raises:
        ConfigError: `fused` is none of its values.
    """
    node = dict(optim)
    if "fused" in node and node["fused"] != "auto" and not isinstance(node["fused"], bool):
        raise ConfigError(f"optim.fused={shown(node['fused'])}: allowed are auto, true, false")
    if node.get("fused") == "auto":
        mps = torch.backends.mps.is_available() and trainer.get("accelerator") != "cpu"
        node["fused"] = not mps and not str(trainer.get("precision")).startswith("16")
    return node


def clip_gradients(
    module: LightningModule, optimizer: Optimizer, limit: float | None, algorithm: str | None
) -> None:
    """Clips in bf16 too what a fused optimiser steps on.

    Lightning 2.6.6 refuses that, as if gradients were scaled there, which they are in fp16 only.

    Args:
        module, optimizer: as `LightningModule.configure_gradient_clipping` gets them.
        limit: of the norm (or value) of the gradients; None: none.
        algorithm: Lightning's "norm" or "value"; None: "norm".
    """
    plugin = module.trainer.precision_plugin
    if limit and getattr(plugin, "scaler", None) is None:
        how = GradClipAlgorithmType(algorithm or "norm")
        Precision.clip_gradients(plugin, optimizer, limit, how)
    else:
        module.clip_gradients(optimizer, limit, algorithm)


def best_precision(accelerator: str) -> str:
    """Lightning's `precision` for an accelerator: the fastest that needs no care.

    bf16 has the range of float32, so it needs no loss scaling; GPUs older than Ampere compute it
    slowly and get fp16. CPUs and Apple's GPUs stay at float32, where mixed precision is not
    reliably faster.
    """
    if accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        return "32-true"
    capable = torch.cuda.get_device_capability()[0] >= 8
    return "bf16-mixed" if capable else "16-mixed"


def main_device(accelerator: str) -> torch.device:
    """The first device of Lightning's `accelerator`, as Lightning chooses it."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """Name of the device: "NVIDIA H200", "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def keep_freed_memory() -> None:
    """Stops glibc from handing the memory of freed tensors back to the kernel after each step.

    It would ask for it again a moment later, and the kernel clears every page: on a CPU that took
    0.9 of 2.4 seconds of a training step (MobileNetV2, 64 images of 128 pixels, channels_last; with
    this none). A process that computes on a GPU gains nothing, another libc has no such call.
    Source: mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc" or torch.cuda.is_available():
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX in malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, -1)  # never trim
    libc.mallopt(mmap_max, 0)  # large blocks from the heap too, which is kept
