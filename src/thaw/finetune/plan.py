"""The phases of a run: which layer groups train, in which epochs, at which rates.

These follow from the plan, the place in the run and, where a plateau decides, the validation
results so far: a resumed run needs no other memory. A place is an epoch and the share of it that is
done, so a run can go on with another batch size or more devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, get_args

from torch.nn.modules.batchnorm import _BatchNorm

from thaw.classifier import BatchNormMode, Classifier, DepthwiseMode, is_depthwise
from thaw.errors import ConfigError, check, check_known
from thaw.finetune.rates import Schedule, is_whole, plateaus
from thaw.text_table import text_table

_BODY = ("unfrozen", "lr_decay", "min_lr_ratio", "rates", "batchnorm", "depthwise")
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

    conf/finetune/phases.yaml and conf/phase/ explain the settings. Besides:
        epochs: Its length; 0, in the last phase: all epochs that are left.
        rates: In a plan, the learning rate, before the schedule, of each group that trains; the
            others are frozen.
        start: First epoch, from 0.
        cached_views: Views of each training photo in the features that it trains on; 0: photos.
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
    depthwise: DepthwiseMode = "frozen"
    end_on_plateau: int | None = None
    start: int = 0
    cached_views: int = 0

    @property
    def end(self) -> int:
        """The epoch, from 0, after its last one."""
        return self.start + self.epochs


def make_phase(given: Any, key: str, **more: Any) -> Phase:
    """Builds a phase from the settings that stand at `key` and those that its mode adds."""
    known = SETTINGS if more else [part.name for part in fields(Phase)]
    known = [name for name in known if name not in ("start", "cached_views")]  # computed
    check(isinstance(given, Mapping), key, given, f"a mapping of {', '.join(known)}")
    check_known(given, known, f"{key}.")
    phase = Phase(**{"lr": None, **given, **more})
    phase.check(key)
    above, end = ("finetune", "unfreeze_on_plateau") if more else (key, "end_on_plateau")
    plateau = phase.end_on_plateau
    check(isinstance(phase.augment, bool), f"{key}.augment", phase.augment, "true or false")
    check(isinstance(phase.mix, bool), f"{key}.mix", phase.mix, "true or false")
    for name, kind in (("batchnorm", BatchNormMode), ("depthwise", DepthwiseMode)):
        value, modes = getattr(phase, name), get_args(kind)
        check(value in modes, f"{above}.{name}", value, ", ".join(modes))
    fits = plateau is None or is_whole(plateau)
    check(fits, f"{above}.{end}", plateau, "1 or more epochs, or null")
    return phase


def settings_of(mode: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the settings that a mode has, and refuses a value for any other."""
    check(mode in MODES, "finetune.mode", mode, ", ".join(MODES))
    own = MODES[mode]
    for name in sorted({*chain(*MODES.values())} - {*own}):
        value = settings[name]
        if isinstance(value, Mapping):  # conf/phase/none.yaml, where all is null, is no phase
            value = {key: part for key, part in value.items() if part is not None} or None
        others = " or ".join(other for other, names in MODES.items() if name in names)
        rule = f"null: this mode has {', '.join(own)}; or choose finetune={others}"
        check(value is None, f"finetune={mode} finetune.{name}", value, rule)
    return {name: settings[name] for name in own}


@dataclass(frozen=True)
class Plan:
    """All phases of a run, in order, without gaps.

    Attributes:
        groups: Names of all layer groups, stem first, head last.
        values: The monitored metric after each epoch so far; larger is better.
        steps_per_epoch: Optimiser steps of an epoch when the run began, the unit of the warm-up.
        note: What was chosen by itself, and why; printed with the plan.
    """

    mode: str
    groups: tuple[str, ...]
    phases: tuple[Phase, ...]
    values: tuple[float, ...] = ()
    steps_per_epoch: int | None = None
    note: str = ""

    @property
    def unfreeze_epochs(self) -> tuple[int, ...]:
        """Epochs, from 0, at which a later phase begins."""
        return tuple(phase.start for phase in self.phases[1:])

    @property
    def needs_validation(self) -> bool:
        """Whether it depends on the validation results."""
        return any(phase.end_on_plateau or phase.schedule == "plateau" for phase in self.phases)

    def check(self, *, monitor: str, validates: bool, validate_every: int = 1) -> None:
        """Refuses a plan that waits for a plateau which is not measured after every epoch."""
        if self.needs_validation and not (validates and validate_every == 1):
            fault = f"waits for a plateau of {monitor}, which must be measured after every epoch"
            hint = "set data.val_fraction=0.2 and trainer.check_val_every_n_epoch=1"
            raise ConfigError(f"finetune={self.mode}: {fault}; {hint}")

    def begun(self, epoch: int) -> list[list[Any]]:
        """Start and trained groups of each phase that has begun in an epoch (from 0)."""
        return [[each.start, [*each.rates]] for each in self.phases if each.start <= epoch]

    def phase_at(self, epoch: int) -> Phase:
        """Gives the phase of an epoch (from 0); beyond the end the last one."""
        return next((phase for phase in self.phases if epoch < phase.end), self.phases[-1])

    def learning_rate(self, group: str, epoch: int, progress: float) -> float:
        """Gives the rate of a layer group when `progress` (0-1) of an epoch is done; 0: frozen."""
        phase = self.phase_at(epoch)
        if group not in phase.rates:
            return 0.0
        return phase.rates[group] * phase.share(
            epoch - phase.start, progress, epochs=phase.epochs,
            steps_per_epoch=self.steps_per_epoch or 1, values=self.values[phase.start :],
        )  # fmt: skip

    def after(self, values: Sequence[float]) -> "Plan":
        """Gives the plan as it stands after epochs with these validation results.

        If a plateau ends a phase early, the later phases begin earlier. They keep their lengths,
        but the last one gets the epochs that were saved. This plan must be the one as written.
        """
        phases: list[Phase] = []
        start = 0
        for phase in self.phases[:-1]:
            epochs = phase.epochs
            if phase.end_on_plateau is not None:
                measured = values[start : start + epochs - 1]
                epochs = next(iter(plateaus(measured, phase.end_on_plateau)), epochs)
            phases.append(replace(phase, start=start, epochs=epochs))
            start += epochs
        last = replace(self.phases[-1], start=start, epochs=self.phases[-1].end - start)
        return replace(self, phases=(*phases, last), values=tuple(values))


def plan_table(plan: Plan, model: Classifier, steps_per_epoch: int, images: int = 0) -> str:
    """Lays out layer group x parameters x rate by phase; `images` of a step on all devices."""
    size = f" of {images} images" if images else ""
    names = plan.groups[::-1]  # head first
    sizes = [sum(each.numel() for _, each in named) for _, named in model.group_parameters()][::-1]
    numbers = [f"{number:,}" for number in (*sizes, sum(sizes))]
    normed = any(isinstance(module, _BatchNorm) for module in model.body.modules())
    depthwise = any(map(is_depthwise, model.body.modules()))
    rows = ("all", "steps", "schedule", "BatchNorm", "depthwise", "trains on")
    columns = [["layer group", *names, *rows], ["parameters", *numbers, *[""] * 5]]
    for phase in plan.phases:
        last = f"s {phase.start + 1}-{phase.end}" if phase.epochs > 1 else f" {phase.end}"
        plateau = f" or plateau of {phase.end_on_plateau}" if phase.end_on_plateau else ""
        learns = model.learning(phase.rates, phase.batchnorm, phase.depthwise)
        trains = {each.name for each in model.groups if learns & {*each.parameters}}
        rates = [phase.rates.get(name) if name in trains else None for name in names]
        kind = phase.schedule if isinstance(phase.schedule, str) else phase.schedule.func.__name__
        warmup = phase.warmup(phase.epochs)  # that the phase really has
        what, views = "mixed photos" if phase.mix else "photos", phase.cached_views
        what = f"cached features, {views} view{'s' * (views > 1)} each" if views else what
        columns.append([
            f"{phase.name}: epoch{last}{plateau}",
            *("frozen" if rate is None else f"lr {rate:.2e}" for rate in rates),
            f"{model.share(phase.rates, phase.batchnorm, phase.depthwise):.1%} trains",
            f"{phase.epochs * steps_per_epoch:,}{size}",
            f"{kind}, warm-up {warmup:g}" if warmup else kind,
            phase.batchnorm if normed else "none",
            phase.depthwise if depthwise else "none",
            what if phase.augment else f"{what}, not augmented",
        ])  # fmt: skip
    return text_table(list(zip(*columns, strict=True)), right=(1,)) + plan.note
