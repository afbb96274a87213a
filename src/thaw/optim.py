"""Learning rates as pure functions: layer groups -> rates, a place in a phase -> factor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from thaw.classifier import Classifier
from thaw.errors import ConfigError

Shape = Literal["constant", "step", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate over one phase.

    Attributes:
        lr: of the head, once warm. Body groups have their share of it.
        shape: what follows the warm-up: "constant", "step" (times `gamma` every `step_epochs`), or
            "cosine" down to `floor` (SGDR without restarts, arXiv:1608.03983).
        warmup_epochs: length of the linear rise to `lr`, may be a fraction.
        step_epochs: epochs between two drops ("step" only).
        gamma: factor at each drop, 0-1 ("step" only).
        floor: share of `lr` at the end, 0-1 ("cosine" only).
    """

    lr: float
    shape: Shape = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int | None = None
    gamma: float | None = None
    floor: float | None = None

    def check(self, key: str, epochs: int) -> None:
        """Refuses what cannot work, or has no effect, in a phase of `epochs` epochs.

        Raises:
            ConfigError: names the setting as `key`.name.
        """
        if not self.lr > 0:
            raise ConfigError(f"{key}.lr={self.lr}: allowed is a positive rate, like 1e-3")
        if self.shape not in ("constant", "step", "cosine"):
            raise ConfigError(f"{key}.shape={self.shape}: allowed are constant, step, cosine")
        if not 0 <= self.warmup_epochs < epochs:
            raise ConfigError(
                f"{key}.warmup_epochs={self.warmup_epochs}: allowed is 0 to below {epochs}, the "
                "number of epochs of this phase"
            )
        if self.shape == "step":
            if self.step_epochs is None or not 1 <= self.step_epochs < epochs:
                raise ConfigError(
                    f"{key}.step_epochs={self.step_epochs}: with {key}.shape=step allowed is 1 to "
                    f"{epochs - 1} (the phase has {epochs} epochs; a later drop never comes)"
                )
            if self.gamma is None or not 0 < self.gamma < 1:
                raise ConfigError(
                    f"{key}.gamma={self.gamma}: with {key}.shape=step allowed is above 0 to below 1"
                )
        for name, shape in (("step_epochs", "step"), ("gamma", "step"), ("floor", "cosine")):
            value = getattr(self, name)
            if value is not None and self.shape != shape:
                raise ConfigError(
                    f"{key}.{name}={value}: has no effect with {key}.shape={self.shape}; set "
                    f"{key}.shape={shape} or {key}.{name}=null"
                )
        if self.floor is not None and not 0 <= self.floor <= 1:
            raise ConfigError(f"{key}.floor={self.floor}: allowed is 0 to 1, a share of lr")


def factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Share of the rate at optimiser step `step` (from 0) of a phase of `epochs` epochs: 0-1."""
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.shape == "step":
        assert schedule.gamma is not None
        assert schedule.step_epochs is not None
        return schedule.gamma ** (step // steps_per_epoch // schedule.step_epochs)
    if schedule.shape == "cosine":
        floor = schedule.floor or 0.0
        done = min(1.0, (step - warmup) / max(1, steps_per_epoch * epochs - warmup))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def layer_rates(
    names: Sequence[str],
    lr: float,
    *,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
) -> dict[str, float]:
    """Layer-wise rates, highest at the head.

    Args:
        names: groups, stem first, head last.
        lr: of the head.
        lr_decay: each group towards the stem has this share of the rate above it, 0-1
            (ULMFiT, arXiv:1801.06146, section 3.2; BEiT, arXiv:2106.08254).
        min_lr_ratio: instead, rates fall linearly from the head to this share of it at the stem.
    """
    last = len(names) - 1
    if min_lr_ratio is not None:
        share = [min_lr_ratio + (1 - min_lr_ratio) * place / last for place in range(last + 1)]
    else:
        share = [(lr_decay or 1.0) ** (last - place) for place in range(last + 1)]
    return {name: lr * part for name, part in zip(names, share, strict=True)}


def parameter_groups(model: Classifier) -> list[dict[str, Any]]:
    """Optimiser groups: every parameter of the model in exactly one, frozen or not.

    Each layer group gives at most two: its matrices and kernels, and its vectors (norms and
    biases), which take no weight decay (arXiv:1812.01187, section 3.1). Few groups, so that the
    foreach and fused optimisers can batch. `lr` is 1: the plan's rates are absolute.
    """
    result: list[dict[str, Any]] = []
    for group, named in model.group_parameters():
        matrices: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for _, parameter in named:
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
        shared = {"layer_group": group.name, "lr": 1.0}
        if matrices:
            result.append({"params": matrices, "name": group.name, **shared})
        if vectors:
            vector_group = {"params": vectors, "name": f"{group.name}/vectors", **shared}
            result.append({**vector_group, "weight_decay": 0.0})
    return result
