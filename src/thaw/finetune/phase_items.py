"""The settings of one phase, as a user writes them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from thaw.classifier import BatchNormMode
from thaw.errors import ConfigError, near, shown
from thaw.finetune.layers import Rates, Top
from thaw.finetune.schedule import Schedule


@dataclass(frozen=True)
class PhaseSettings(Schedule):
    """The rate over a phase, and what else is on or off in it; the keys of conf/phase/.

    Attributes:
        augment: False trains on the evaluation view of every photo.
        mix: Whether `mix=...` (mixup, CutMix) is on, where it is chosen.
        reset_optimizer: Whether the optimiser forgets its momenta when the phase begins.
    """

    augment: bool = True
    mix: bool = True
    reset_optimizer: bool = False


@dataclass(frozen=True)
class PhaseItem(PhaseSettings):
    """One phase of the list.

    Attributes:
        name: For logs and tables; None: its number, from 1.
        epochs: Its length; None, in the last phase: all epochs that are left.
        top: What trains besides the head, see `top_groups`; 0: nothing.
        lr_decay, min_lr_ratio, rates: Layer-wise rates, see `layer_rates`.
        batchnorm: Of the body in groups that train, see `Classifier`.
        end_on_plateau: {patience: 2, min_delta: 0.0} ends the phase early, see `Plateau`.
    """

    name: str | None = None
    epochs: int | None = None
    top: Top = 1.0
    lr_decay: float | None = None
    min_lr_ratio: float | None = None
    rates: Rates | None = None
    batchnorm: BatchNormMode = "eval"
    end_on_plateau: Mapping[str, Any] | None = None


def make(kind: type, given: Any, key: str) -> Any:
    """Builds a dataclass from a mapping, and refuses keys that it does not have."""
    known = [part.name for part in fields(kind)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}={shown(given)}: allowed is a mapping of {', '.join(known)}")
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"{key}.{name}={shown(value)}: nothing reads this key{near(str(name), known)}. "
                f"Allowed: {', '.join(known)}"
            )
    if "lr" in known and "lr" not in given:
        raise ConfigError(f"{key}.lr: is needed and not given")
    return kind(**given)
