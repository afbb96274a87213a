"""The settings of a phase as a user writes them, and which settings each mode has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, get_args

from thaw.classifier import BatchNormMode
from thaw.errors import ConfigError, check, check_known
from thaw.finetune.schedule import Schedule, is_whole

_BODY = ("unfrozen", "lr_decay", "min_lr_ratio", "rates", "batchnorm")
_CACHE = ("cache_features", "cached_views")
_BOTH = ("frozen", "unfreeze_epoch", "unfreeze_on_plateau", *_BODY, *_CACHE)
# The files of conf/finetune/ and the settings that each has. What one does not have is null there.
MODES: dict[str, tuple[str, ...]] = {
    "freeze_unfreeze": _BOTH,
    "partial": ("top", *_BOTH),
    "gradual": ("top", "every_epochs", *_BOTH),
    "feature_extraction": ("frozen", *_CACHE),
    "classifier": ("top", *_BODY),
    "full": _BODY,
    "from_scratch": ("unfrozen",),
    "phases": ("phases", *_CACHE),
}
SETTINGS = (*(part.name for part in fields(Schedule)), "augment", "mix")  # keys of conf/phase/


@dataclass(frozen=True)
class Phase(Schedule):
    """Some epochs during which the same groups train: a phase of the list, and of the plan.

    Attributes:
        augment: Whether photos are trained on in random views, else in the evaluation view.
        mix: Whether mixup or CutMix is on, where it is chosen.
        epochs: Its length; 0, in the last phase: all epochs that are left.
        top: What trains besides the head, see `top_groups`.
        lr_decay, min_lr_ratio: Rules for the rates, see `layer_rates`.
        rates: Rates of groups by name, in place of a rule. In a plan: the learning rate, before the
            schedule, of each group that trains; the others are frozen.
        batchnorm: Mode of the body's BatchNorm layers in groups that train, see `Classifier`.
        end_on_plateau: The phase ends early after so many epochs without a better monitored metric.
        start: First epoch, from 0.
        cached_views: Views of each training photo in the features that it trains on; 0: photos.
        derived: Why `lr` is what it is, where the plan chose it.
    """

    augment: bool = True
    mix: bool = True
    name: str = ""
    epochs: int = 0
    top: int | float | str | Sequence[str] | None = None
    lr_decay: float | None = None
    min_lr_ratio: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    batchnorm: BatchNormMode = "eval"
    end_on_plateau: int | None = None
    start: int = 0
    cached_views: int = 0
    derived: str = ""

    @property
    def end(self) -> int:
        """The epoch, from 0, after its last one."""
        return self.start + self.epochs


def make_phase(given: Any, key: str, **more: Any) -> Phase:
    """Builds a phase from the settings that stand at `key` and those that its mode adds."""
    known = SETTINGS if more else [part.name for part in fields(Phase)]
    known = [name for name in known if name not in ("start", "cached_views", "derived")]  # computed
    check(isinstance(given, Mapping), key, given, f"a mapping of {', '.join(known)}")
    check_known(given, known, f"{key}.")
    phase = Phase(**{"lr": None, **given, **more})
    phase.check(key)
    above, end = ("finetune", "unfreeze_on_plateau") if more else (key, "end_on_plateau")
    modes, plateau = get_args(BatchNormMode), phase.end_on_plateau
    check(isinstance(phase.augment, bool), f"{key}.augment", phase.augment, "true or false")
    check(isinstance(phase.mix, bool), f"{key}.mix", phase.mix, "true or false")
    check(phase.batchnorm in modes, f"{above}.batchnorm", phase.batchnorm, ", ".join(modes))
    check(
        plateau is None or is_whole(plateau), f"{above}.{end}", plateau, "1 or more epochs, or null"
    )
    return phase


def settings_of(mode: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the settings that a mode has, and refuses a value for any other."""
    check(mode in MODES, "finetune.mode", mode, ", ".join(MODES))
    own = MODES[mode]
    for name in sorted({*chain(*MODES.values())} - {*own}):
        value = settings[name]
        if isinstance(value, Mapping):  # conf/phase/none.yaml, where all is null, is no phase
            value = {key: part for key, part in value.items() if part is not None} or None
        if value is not None:
            others = [other for other, names in MODES.items() if name in names]
            raise ConfigError(
                f"finetune={mode} finetune.{name}={value}: this mode has no {name}; it has "
                f"{', '.join(own)}. Use finetune={' or '.join(others)}"
            )
    return {name: settings[name] for name in own}
