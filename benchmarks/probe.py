"""The network that all systems of proofs.py train, and the probe that looks inside a run."""

import copy
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn, optim

EPOCHS, UNFREEZE, STEPS = 6, 2, 6  # epochs, first epoch of the unfrozen body, steps in an epoch
LR, DECAY = 0.05, 0.75  # of the head under plain SGD; share of it for each layer further down
LAYERS = ("stem", "stage1", "stage2", "stage3")  # of the body; the head comes after them


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        resume: a checkpoint, or for thaw the folder of an interrupted run too.
        optimiser: "adamw", or "sgd" without momentum and decay: |dw| / |g| is then the rate.
        schedule: a scheduler of torch by name.
        layerwise: ask for the rates LR * DECAY ** (distance from the head).
        devices: processes.
        accumulate: batches in one optimiser step.
        ordinary: shuffled loader, no seed in each step, as users have it; and checkpoints in the
            middle of epochs. Otherwise order and dropout are a function of the step, so that what
            differs after a resume comes from freezing alone.
        stop_at: thaw only: Ctrl-C comes in this step.
        folder: for checkpoints/ and the probe's rank<r>.pt.
    """

    resume: str = ""
    optimiser: str = "adamw"
    schedule: str = ""
    layerwise: bool = False
    devices: int = 1
    accumulate: int = 1
    ordinary: bool = False
    stop_at: int = 0
    folder: str = ""


class Body(nn.Module):
    """(N, 3, 16, 16) -> (N, 8); norms and biases start equal, dropout is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        for name in LAYERS[1:]:
            stage = (nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8))
            self.add_module(name, nn.Sequential(*stage, nn.Dropout(0.2)))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 16, 16) -> (N, 8)."""
        for name in LAYERS:
            images = self.get_submodule(name)(images)
        return images.mean((2, 3))


def thaw_backbone() -> Any:
    """`Body` for thaw, each layer a group."""
    from thaw.backbones.backbone import Backbone, InputSpec
    from thaw.backbones.groups import LayerGroup

    body = Body()
    named = [name for name, _ in body.named_parameters()]
    groups = tuple(
        LayerGroup(layer, tuple(n for n in named if n.startswith(layer)), (layer,))
        for layer in LAYERS
    )
    spec = InputSpec(16, 18, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Backbone("proof", body, 8, spec, groups, "none", "random")


class Watch(pl.Callback):
    """Looks into a run of any system, and leaves rank<r>.pt.

    start:   weights and buffers before the first step
    epochs:  the same after each epoch
    rates:   for each step (epoch, {layer: |dw| / |g| of its kernels}); meant for plain SGD
    gap:     largest difference between the body's output as training has it and in eval mode,
             at the first step
    tuned:   names of the parameters in the optimiser at the end
    """

    def __init__(self, folder: str, stop_at: int = 0) -> None:
        self.folder, self.stop_at = Path(folder), stop_at
        self.seen: dict[str, Any] = {"epochs": {}, "rates": [], "gap": None}
        self.before: dict[str, tuple[Tensor, Tensor]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After a checkpoint is loaded, before the first step."""
        self.seen["start"] = _state(pl_module)
        self.seen["parameters"] = [_common(name) for name, _ in pl_module.named_parameters()]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """The body as the step will use it, on a copy: the run is not disturbed."""
        if self.seen["gap"] is None:
            if hasattr(pl_module, "backbone"):
                body, images = pl_module.backbone, batch[0]
            else:  # thaw's batches are bytes until the device has them
                body, images = pl_module.classifier.body, pl_module.prepare(batch[0].clone())
            with torch.random.fork_rng(), torch.no_grad():
                trained, still = copy.deepcopy(body)(images), copy.deepcopy(body).eval()(images)
            self.seen["gap"] = (trained - still).abs().max().item()
        if self.stop_at and trainer.global_step == self.stop_at - 1:
            os.kill(os.getpid(), signal.SIGINT)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: optim.Optimizer
    ) -> None:
        """Kernels and gradients, which the step will join."""
        self.before = {
            _common(name): (weight.detach().clone(), weight.grad.clone())
            for name, weight in pl_module.named_parameters()
            if weight.grad is not None and weight.ndim > 1
        }

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """The rate that each layer really got."""
        now, rates = _state(pl_module), {}
        for layer in (*(f"body.{name}" for name in LAYERS), "head"):
            own = [name for name in self.before if name.startswith(layer)]
            moved = sum((now[n] - self.before[n][0]).double().square().sum().item() for n in own)
            slope = sum(self.before[n][1].double().square().sum().item() for n in own)
            rates[layer] = (moved / slope) ** 0.5 if slope else 0.0
        self.seen["rates"].append((trainer.current_epoch, rates))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves after every epoch, so that a stopped run leaves what it had."""
        self.seen["epochs"][trainer.current_epoch] = _state(pl_module)
        names = {id(p): _common(name) for name, p in pl_module.named_parameters()}
        groups = trainer.optimizers[0].param_groups
        self.seen["tuned"] = [names[id(p)] for group in groups for p in group["params"]]
        torch.save(self.seen, self.folder / f"rank{trainer.global_rank}.pt")


def _common(name: str) -> str:
    """body.<...> or head.<...>, whatever the system calls them."""
    return name.removeprefix("classifier.").replace("backbone.", "body.", 1)


def _state(module: nn.Module) -> dict[str, Tensor]:
    state = {_common(name): value.clone() for name, value in module.state_dict().items()}
    return {name: value for name, value in state.items() if name.startswith(("body.", "head."))}


def falling(step: int) -> float:
    """For LambdaLR."""
    return 0.95**step
