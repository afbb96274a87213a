"""The learning rate over a phase, as a pure function of the place in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from thaw.errors import ConfigError, near, shown
from thaw.finetune.layers import is_number
from thaw.finetune.torch_schedule import table, total_steps

NEEDS: dict[str, tuple[str, ...]] = {  # settings without which a schedule is not one
    "constant": (),
    "step": ("step_epochs", "gamma"),
    "cosine": (),
    "plateau": ("gamma", "patience"),
}
ALLOWED = {
    "lr": ("a positive rate, like 1e-3", lambda value: 0 < value < math.inf),
    "warmup_epochs": ("0 or more epochs", lambda value: 0 <= value < math.inf),
    "step_epochs": ("1 or more epochs", lambda value: isinstance(value, int) and value >= 1),
    "gamma": ("above 0 to below 1", lambda value: 0 < value < 1),
    "floor": ("0 to 1, a share of lr", lambda value: 0 <= value <= 1),
    "patience": ("0 or more epochs", lambda value: isinstance(value, int) and value >= 0),
}


@dataclass(frozen=True)
class Schedule:
    """The learning rate over one phase.

    Attributes:
        lr: Rate of the head after the warm-up. Body groups have their share of it.
        schedule: What follows the warm-up. "constant". "step": times `gamma` every `step_epochs`.
            "cosine": down to `floor` (SGDR without restarts, arXiv:1608.03983). "plateau": times
            `gamma` when the monitored metric was no better for more than `patience` epochs, as
            torch's ReduceLROnPlateau with threshold 0, on the epochs after the warm-up. Or a
            function optimiser -> scheduler of torch, which body groups follow in proportion.
        warmup_epochs: Length in epochs of the linear rise to `lr`, may be a fraction. At most half
            of the phase is used.
        step_epochs: Epochs between two drops ("step").
        gamma: Factor at each drop, 0-1 ("step", "plateau").
        floor: Smallest share of `lr`, 0-1 ("cosine", "plateau").
        patience: Epochs that may be no better before a drop ("plateau").
        interval: "epoch" (None means that too) or "step": what torch's scheduler counts.
    """

    lr: float
    schedule: Literal["constant", "step", "cosine", "plateau"] | Any = "cosine"
    warmup_epochs: float = 0.0
    step_epochs: int | None = None
    gamma: float | None = None
    floor: float | None = None
    patience: int | None = None
    interval: Literal["epoch", "step"] | None = None

    @property
    def label(self) -> str:
        """The word for it, or the name of torch's class."""
        return self.schedule if isinstance(self.schedule, str) else self.schedule.func.__name__

    def warmup(self, epochs: int) -> float:
        """Gives the epochs of warm-up in a phase of `epochs` epochs."""
        return min(self.warmup_epochs, epochs / 2)

    def check(self, key: str) -> None:
        """Refuses values out of their ranges, and a schedule without what it needs.

        Raises:
            ConfigError: The message names the setting as `key`.name.
        """
        if not isinstance(self.schedule, str):
            needs = ()
        elif (needs := NEEDS.get(self.schedule)) is None:
            raise ConfigError(
                f"{key}.schedule={self.schedule}: allowed are {', '.join(NEEDS)}, or a scheduler "
                f"of torch{near(self.schedule, NEEDS)}"
            )
        for name, (words, fits) in ALLOWED.items():
            value = getattr(self, name)
            optional = name not in ("lr", "warmup_epochs", *needs)
            if not (optional and value is None) and not (is_number(value) and fits(value)):
                reason = f" ({key}.schedule={self.schedule} needs it)" if name in needs else ""
                raise ConfigError(f"{key}.{name}={shown(value)}: allowed is {words}{reason}")
        if self.interval not in (None, "epoch", "step"):
            raise ConfigError(f"{key}.interval={self.interval}: allowed are epoch, step")
        if not isinstance(self.schedule, str):
            total_steps(self.schedule, self.lr, f"{key}.schedule")

    def check_length(self, key: str, epochs: int, steps_per_epoch: int, *, grows: bool) -> None:
        """Refuses a scheduler of torch that was made for another length than the phase has.

        Args:
            key, epochs: Of the phase.
            steps_per_epoch: Optimiser steps of an epoch.
            grows: Whether the phase can become longer, since one before it can end early.

        Raises:
            ConfigError: The message has the number that fits.
        """
        if isinstance(self.schedule, str):
            return
        key = f"{key}.schedule"
        moves = self._moves(epochs, steps_per_epoch)
        length = total_steps(self.schedule, self.lr, key)
        if length is not None and (grows or length != moves):
            unit = "optimiser steps" if self.interval == "step" else "epochs"
            remedy = (
                f"is not known before a plateau ends the phase before it; use {key}=cosine"
                if grows else f"is {moves} {unit} after its warm-up; set total_steps={moves}"
            )  # fmt: skip
            raise ConfigError(f"{key}: total_steps={length}, but the length of this phase {remedy}")
        table(self.schedule, self.lr, moves)

    def share(
        self, epoch: int, progress: float, *, epochs: int, steps_per_epoch: int,
        values: Sequence[float] = (),
    ) -> float:  # fmt: skip
        """Gives the share of the rate, 0-1, at a place in a phase.

        Args:
            epoch: Epochs of the phase that are over.
            progress: Share 0-1 of the current epoch that is done.
            epochs: Length of the phase.
            steps_per_epoch: Optimiser steps of an epoch, the unit of the warm-up.
            values: Of the monitored metric after each epoch of the phase so far; larger is better.
        """
        steps = steps_per_epoch * epochs
        step = epoch * steps_per_epoch + round(progress * steps_per_epoch, 6)
        warmup = round(self.warmup(epochs) * steps_per_epoch)
        if step < warmup:
            return min(1.0, (step + 1) / warmup)
        if not isinstance(self.schedule, str):
            moves = self._moves(epochs, steps_per_epoch)
            place = (step - warmup) // (1 if self.interval == "step" else steps_per_epoch)
            return table(self.schedule, self.lr, moves)[min(int(place), moves - 1)]
        if self.schedule == "step":
            return (self.gamma or 1.0) ** (epoch // (self.step_epochs or 1))
        if self.schedule == "cosine":
            done = min(1.0, (step - warmup) / max(1, steps - warmup))
            floor = self.floor or 0.0
            return floor + (1.0 - floor) * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "plateau":
            counted = values[math.ceil(self.warmup(epochs)) : epoch]
            drops = plateaus(counted, (self.patience or 0) + 1)
            return max(self.floor or 0.0, (self.gamma or 1.0) ** len(drops))
        return 1.0

    def _moves(self, epochs: int, steps_per_epoch: int) -> int:
        """How often torch's scheduler moves between the warm-up and the end of the phase."""
        steps = steps_per_epoch * epochs - round(self.warmup(epochs) * steps_per_epoch)
        return steps if self.interval == "step" else math.ceil(steps / steps_per_epoch)


def plateaus(values: Sequence[float], patience: int, min_delta: float = 0.0) -> list[int]:
    """Gives the places, from 1, after which the best value had not grown for `patience` values.

    The count begins anew after each, as in torch's ReduceLROnPlateau and Lightning's EarlyStopping.
    """
    places: list[int] = []
    best, waited = -math.inf, 0
    for place, value in enumerate(values, start=1):
        if value > best + min_delta:
            best, waited = value, 0
        else:
            waited += 1
        if waited == patience:
            places.append(place)
            waited = 0
    return places
