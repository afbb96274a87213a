"""The learning rate over a phase, as a pure function: a place in the phase -> share of the rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from thaw.errors import ConfigError, near, shown
from thaw.finetune.replay import replay, stand_in

Shape = Literal["constant", "step", "exponential", "cosine", "one_cycle", "plateau", "torch"]

# Settings that only some shapes read; with any other they would silently do nothing.
READERS: dict[str, tuple[Shape, ...]] = {
    "step_epochs": ("step",),
    "gamma": ("step", "exponential", "plateau"),
    "patience": ("plateau",),
    "floor": ("cosine", "plateau"),
    "scheduler": ("torch",),
    "interval": ("torch",),
}


@dataclass(frozen=True)
class Schedule:
    """The learning rate over one phase.

    Attributes:
        lr: of the head, once warm. Body groups have their share of it.
        shape: what follows the warm-up. "constant". "step": times `gamma` every `step_epochs`.
            "exponential": times `gamma` every epoch. "cosine" down to `floor` (SGDR without
            restarts, arXiv:1608.03983). "one_cycle": a cosine rise from lr / 25 over
            `warmup_epochs`, then a cosine down to lr / 250,000 (arXiv:1708.07120, as torch's
            OneCycleLR, but of the rate only). "plateau": times `gamma` when the monitored metric
            was no better for more than `patience` epochs, as torch's ReduceLROnPlateau with
            threshold 0, on the epochs after the warm-up. "torch": any scheduler of torch, which
            begins after the warm-up.
        warmup_epochs: length of the linear rise to `lr`, may be a fraction.
        step_epochs: epochs between two drops ("step").
        gamma: factor at each drop, 0-1 ("step", "exponential", "plateau").
        floor: smallest share of `lr`, 0-1 ("cosine", "plateau").
        patience: epochs that may be no better before a drop ("plateau").
        scheduler: optimiser -> scheduler ("torch"). It is run once on a stand-in with the head's
            rate, so that a resumed run needs none of its state; body groups follow in proportion.
        interval: "epoch" (None means that too) or "step": when torch's scheduler moves ("torch").
    """

    lr: float
    shape: Shape = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int | None = None
    gamma: float | None = None
    floor: float | None = None
    patience: int | None = None
    scheduler: Any = None
    interval: Literal["epoch", "step"] | None = None

    def check(self, key: str, epochs: int) -> None:
        """Refuses what cannot work, or has no effect, in a phase of `epochs` epochs.

        Raises:
            ConfigError: names the setting as `key`.name.
        """
        self._check_ranges(key, epochs)
        for name, shapes in READERS.items():
            value = getattr(self, name)
            if value is not None and self.shape not in shapes:
                raise ConfigError(
                    f"{key}.{name}={value}: has no effect with {key}.shape={self.shape}; set "
                    f"{key}.shape={' or '.join(shapes)}, or {key}.{name}=null"
                )
        with_shape = f"with {key}.shape={self.shape} allowed is"
        if self.shape == "step" and not 1 <= (self.step_epochs or 0) < epochs:
            raise ConfigError(
                f"{key}.step_epochs={shown(self.step_epochs)}: {with_shape} 1 or more, below the "
                f"{epochs} epochs of the phase (a later drop never comes)"
            )
        if self.shape in READERS["gamma"] and not 0 < (self.gamma or 0) < 1:
            raise ConfigError(f"{key}.gamma={shown(self.gamma)}: {with_shape} above 0 to below 1")
        if self.shape == "plateau" and not 0 <= (-1 if self.patience is None else self.patience) < (
            epochs - 1
        ):
            raise ConfigError(
                f"{key}.patience={shown(self.patience)}: {with_shape} 0 or more, and 2 below the "
                f"{epochs} epochs of the phase (a later drop never comes)"
            )
        if self.shape == "one_cycle" and not self.warmup_epochs:
            raise ConfigError(
                f"{key}.warmup_epochs=0: one_cycle first rises to lr; {with_shape} above 0, usual "
                f"is {0.3 * epochs:g} (30 % of the phase)"
            )
        if self.shape == "torch":
            self._check_torch(key)

    def _check_ranges(self, key: str, epochs: int) -> None:
        if not self.lr > 0:
            raise ConfigError(f"{key}.lr={self.lr}: allowed is a positive rate, like 1e-3")
        if self.shape not in get_args(Shape):
            allowed = ", ".join(get_args(Shape))
            raise ConfigError(
                f"{key}.shape={self.shape}: allowed are {allowed}"
                f"{near(str(self.shape), get_args(Shape))}"
            )
        if not 0 <= self.warmup_epochs < epochs:
            raise ConfigError(
                f"{key}.warmup_epochs={self.warmup_epochs}: allowed is 0 to below {epochs}, the "
                "number of epochs of this phase"
            )
        if self.floor is not None and not 0 <= self.floor <= 1:
            raise ConfigError(f"{key}.floor={self.floor}: allowed is 0 to 1, a share of lr")

    def _check_torch(self, key: str) -> None:
        kind = getattr(self.scheduler, "func", None)
        if not (isinstance(kind, type) and issubclass(kind, LRScheduler)):
            raise ConfigError(
                f"{key}.scheduler={shown(self.scheduler)}: with {key}.shape=torch give a "
                "scheduler, like "
                f"'{key}.scheduler={{_target_:torch.optim.lr_scheduler.StepLR,_partial_:true,"
                "step_size:2}'"
            )
        if issubclass(kind, ReduceLROnPlateau):
            raise ConfigError(
                f"{key}.scheduler={kind.__name__}: needs a metric at each step; use "
                f"{key}.shape=plateau {key}.gamma=0.1 {key}.patience=2, which goes by `monitor`"
            )
        if self.interval not in (None, "epoch", "step"):
            raise ConfigError(f"{key}.interval={self.interval}: allowed are epoch, step")
        try:
            self.scheduler(stand_in(self.lr))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{key}.scheduler: {error}") from error

    def check_length(
        self, key: str, steps_per_epoch: int, epochs: int, *, grows: bool = False
    ) -> None:
        """Refuses a scheduler of torch made for another number of steps than the phase has.

        Args:
            key, epochs: of the phase.
            steps_per_epoch: optimiser steps.
            grows: whether the phase can become longer, since one before it can end early.

        Raises:
            ConfigError: with the number that fits.
        """
        if self.shape != "torch":
            return
        moves = _moves(self, steps_per_epoch, epochs)
        length = getattr(self.scheduler(stand_in(self.lr)), "total_steps", None)
        if length is not None and grows:
            raise ConfigError(
                f"{key}.scheduler.total_steps={length}: the length of this phase is not known "
                f"before a plateau ends the one before it; use {key}.shape=one_cycle or cosine, "
                "which take the length that it gets"
            )
        if length is not None and length != moves:
            unit = "optimiser steps" if self.interval == "step" else "epochs"
            raise ConfigError(
                f"{key}.scheduler.total_steps={length}: the phase has {moves} {unit} after its "
                f"warm-up, with {key}.interval={self.interval or 'epoch'}; set total_steps={moves}"
            )
        replay(self.scheduler, self.lr, moves)


def factor(
    schedule: Schedule, step: int, steps_per_epoch: int, epochs: int, values: Sequence[float] = ()
) -> float:
    """Share of the rate at optimiser step `step` (from 0) of a phase of `epochs` epochs.

    Args:
        schedule, step, epochs: of the phase.
        steps_per_epoch: optimiser steps.
        values: of the monitored metric after each epoch of the phase so far; larger is better.
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    steps = steps_per_epoch * epochs
    epoch = step // steps_per_epoch
    gamma = schedule.gamma or 1.0
    if schedule.shape == "one_cycle":
        return _one_cycle(step, warmup, steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.shape == "step":
        return gamma ** (epoch // (schedule.step_epochs or 1))
    if schedule.shape == "exponential":
        return gamma**epoch
    if schedule.shape == "cosine":
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return _cosine(1.0, schedule.floor or 0.0, done)
    if schedule.shape == "plateau":
        counted = values[math.ceil(schedule.warmup_epochs) : epoch]
        drops = plateaus(counted, (schedule.patience or 0) + 1)
        return max(schedule.floor or 0.0, gamma ** len(drops))
    if schedule.shape == "torch":
        place = step - warmup
        if schedule.interval != "step":
            place //= steps_per_epoch
        moves = _moves(schedule, steps_per_epoch, epochs)
        return replay(schedule.scheduler, schedule.lr, moves)[min(place, moves - 1)]
    return 1.0


def plateaus(values: Sequence[float], patience: int, min_delta: float = 0.0) -> list[int]:
    """Places after which the best value had not grown for `patience` values in a row, from 1.

    The count begins anew after each. The rule of torch's ReduceLROnPlateau and Lightning's
    EarlyStopping.
    """
    found: list[int] = []
    best, waited = -math.inf, 0
    for place, value in enumerate(values, start=1):
        if value > best + min_delta:
            best, waited = value, 0
        else:
            waited += 1
        if waited == patience:
            found.append(place)
            waited = 0
    return found


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))


def _one_cycle(step: int, warmup: int, steps: int) -> float:
    """As torch's OneCycleLR: the top is at step warmup - 1, the end at the last step."""
    top, last = max(1, warmup - 1), steps - 1
    if step <= top:
        return _cosine(1 / 25, 1.0, step / top)
    return _cosine(1.0, 1 / 250_000, (step - top) / max(1, last - top))


def _moves(schedule: Schedule, steps_per_epoch: int, epochs: int) -> int:
    """How often torch's scheduler moves between the warm-up and the end of the phase."""
    steps = steps_per_epoch * epochs - round(schedule.warmup_epochs * steps_per_epoch)
    return steps if schedule.interval == "step" else math.ceil(steps / steps_per_epoch)
