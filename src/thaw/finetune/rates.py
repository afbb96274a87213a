"""Learning rates: over a phase, by the place in it, and of the optimiser's parameter groups."""

import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeGuard

import torch

from thaw.backbones.backbone import Backbone
from thaw.classifier import Classifier
from thaw.errors import ConfigError, check

NEEDS = {"constant": (), "step": ("step_epochs", "gamma"), "cosine": (),
         "plateau": ("gamma", "patience")}  # fmt: skip  # settings that a schedule must have
ENOUGH = 5000  # bits in the labels, photos x log2(classes), at which the rate is 1e-3
HIGHEST, LOWEST = 1.5e-3, 1e-4
SMALL = 1_000_000  # parameters of a body that has little to lose
USUAL = 5  # unfrozen epochs at which the rates were measured


@dataclass(frozen=True)
class Schedule:
    """The learning rate over one phase, by the settings that conf/phase/frozen.yaml explains.

    "cosine" falls to 0 (SGDR without restarts, arXiv:1608.03983). A scheduler of torch is given as
    a function of the optimiser.
    """

    lr: float
    schedule: Literal["constant", "step", "cosine", "plateau"] | Any = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int | None = None
    gamma: float | None = None
    patience: int | None = None

    def warmup(self, epochs: int) -> float:
        return min(self.warmup_epochs, epochs / 2)

    def check(self, key: str) -> None:
        """Refuses values out of their ranges, and a schedule without what it needs."""
        is_torch = isinstance(self.schedule, functools.partial)
        own = () if is_torch else NEEDS.get(str(self.schedule))
        example = "{_target_:torch.optim.lr_scheduler.StepLR,_partial_:true,step_size:2}"
        allowed = f"{', '.join(NEEDS)}, or a scheduler of torch, like {example}"
        check(own is not None, f"{key}.schedule", self.schedule, allowed)
        for name, fits, allowed in (
            ("lr", is_number(self.lr) and 0 < self.lr < math.inf, "a positive rate, like 1e-3"),
            ("warmup_epochs", is_number(self.warmup_epochs, 0), "0 or more epochs"),
            ("step_epochs", is_whole(self.step_epochs), "1 or more epochs"),
            ("gamma", is_number(self.gamma, 0, 1), "a factor from 0 to 1"),
            ("patience", is_whole(self.patience, 0), "0 or more epochs"),
        ):
            value = getattr(self, name)
            if name not in ("lr", "warmup_epochs", *(own or ())):
                readers = " and ".join(each for each, names in NEEDS.items() if name in names)
                fits, allowed = value is None, f"null with this schedule; {readers} have {name}"
            check(fits, f"{key}.{name}", value, allowed)

    def share(
        self, epoch: int, progress: float, *, epochs: int, steps_per_epoch: int,
        values: Sequence[float] = (),
    ) -> float:  # fmt: skip
        """Gives the share of the rate, 0-1, at a place in a phase of so many epochs.

        The place is the number of epochs that are over and the progress, 0-1, in the current one.
        `values` has the monitored metric after each epoch of the phase; larger is better.
        """
        step = epoch * steps_per_epoch + round(progress * steps_per_epoch, 6)
        warmup = round(self.warmup(epochs) * steps_per_epoch)
        left = steps_per_epoch * epochs - warmup  # steps after the warm-up
        if step < warmup:
            return min(1.0, (step + 1) / warmup)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return (self.gamma or 0.0) ** (epoch // (self.step_epochs or 1))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, left))))
        if self.schedule == "plateau":
            counted = values[math.ceil(self.warmup(epochs)) : epoch]
            return (self.gamma or 0.0) ** len(plateaus(counted, (self.patience or 0) + 1))
        shares = torch_shares(self.schedule, self.lr, math.ceil(left / steps_per_epoch))
        return shares[min(int((step - warmup) // steps_per_epoch), len(shares) - 1)]


@functools.lru_cache(maxsize=32)
def torch_shares(make: Any, lr: float, epochs: int) -> tuple[float, ...]:
    """Gives the share of `lr` in each epoch by a scheduler of torch, run once on a stand-in."""
    optimizer = torch.optim.Adagrad([torch.zeros(1)], lr=lr)  # torch refuses to move its momentum
    shares: list[float] = []
    try:
        scheduler = make(optimizer)
        for _ in range(epochs):
            shares.append(float(optimizer.param_groups[0]["lr"]) / lr)
            optimizer.step()
            scheduler.step()
    except (TypeError, ValueError) as error:
        name = make.func.__name__
        raise ConfigError(f"schedule={name} in a phase of {epochs} epochs: {error}") from error
    return tuple(shares)


def plateaus(values: Sequence[float], patience: int) -> list[int]:
    """Gives the places, from 1, after which the best value had not grown for `patience` values."""
    places: list[int] = []
    best, last = -math.inf, 0  # the place of the best value, or of the plateau after it
    for place, value in enumerate(values, start=1):
        if value > best:
            best, last = value, place
        elif place - last == patience:  # counted anew from here, as in torch's ReduceLROnPlateau
            places.append(last := place)
    return places


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> TypeGuard[float]:
    """Whether a value is a number in a range; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def is_whole(value: Any, least: int = 1) -> TypeGuard[int]:
    return isinstance(value, int) and is_number(value, least)


def parameter_groups(model: Classifier, phases: list[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Gives optimiser groups that hold every parameter of the model once, frozen or not.

    Layer groups that have the same rate in every phase share an optimiser group, since fused ones
    are fast with few of them. Vectors (norms and biases) have groups of their own without weight
    decay (arXiv:1812.01187, section 3.1). `phases` has the rates of each phase by layer group.
    """
    alike: dict[tuple[float | None, ...], dict[str, list[Any]]] = defaultdict(dict)
    for group, named in model.group_parameters():
        rates = tuple(phase.get(group.name) for phase in phases)
        alike[rates][group.name] = [parameter for _, parameter in named]
    result: list[dict[str, Any]] = []
    for members in alike.values():
        names, tensors = list(members), list(chain(*members.values()))
        name = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
        shared = {"layer_groups": names, "lr": 1.0}
        if matrices := [tensor for tensor in tensors if tensor.ndim > 1]:
            result.append({"params": matrices, "name": name, **shared})
        if vectors := [tensor for tensor in tensors if tensor.ndim <= 1]:
            extra = {"name": f"{name}/vectors", "weight_decay": 0.0}
            result.append({"params": vectors, **shared, **extra})
    return result


def unfrozen_lr(
    backbone: Backbone, photos: int, classes: int, epochs: int = USUAL
) -> tuple[float, str]:
    """Gives the head's rate after the unfreeze for `lr: auto`, for Adam, and the reason in words.

    conf/phase/unfrozen.yaml has the rule; 750 photos of 102 classes hold 5,000 bits, or 5,000 of
    two. Where labels say little, a high rate loses more of what the weights know than it learns
    (measured, benchmarks/LOG.md). Without normalisation layers it is a tenth (measured on
    SqueezeNet; as torchvision does). Below five epochs it is 5 / epochs times as high, at most
    twice and never above 2e-3, so that they go nearly as far (measured at 2).
    Bodies of linear layers were not measured: 1e-4 is about what MAE fine-tunes ViT-B with (5e-4 x
    batch / 256, arXiv:2111.06377 and its FINETUNE.md) at the batches usual here.
    """
    if not backbone.is_convolutional:
        return LOWEST, "for linear layers"
    kinds = {kind.__name__ for layer in backbone.body.modules() for kind in type(layer).__mro__}
    normalises = any("Norm" in kind for kind in kinds)
    if normalises and sum(parameter.numel() for parameter in backbone.body.parameters()) < SMALL:
        rate, why = 1e-3, "for a small network"
    else:
        bits = photos * math.log2(classes)
        rate = max(LOWEST, min(HIGHEST, 1e-3 * (bits / ENOUGH) ** 2))
        why = f"for {photos:,} photos of {classes} classes"
    times = max(1.0, min(2.0, USUAL / max(1, epochs), 2e-3 / rate))
    why += f", x {times:.3g} for {epochs} epochs" if times > 1 else ""
    return (rate * times, why) if normalises else (rate * times / 10, f"{why}, no norm")
