"""The phases of a run: which layer groups train, in which epochs, at which rates.

What trains in an epoch, and at which rate in a step, is a pure function of the plan (and, where a
plateau decides, of the validation results so far), so a resumed run needs no other memory of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from thaw.backbones.groups import HEAD, LayerGroup
from thaw.classifier import BatchNormMode
from thaw.errors import ConfigError
from thaw.features.cache_choice import CacheChoice
from thaw.finetune.plateau import NEVER, Plateau
from thaw.finetune.schedule import Schedule, factor, plateaus


@dataclass(frozen=True)
class PhaseSettings(Schedule):
    """The rate over a phase, and what else is on or off in it.

    Attributes:
        augment: False trains on the evaluation view of every photo.
        mix: whether `mix=...` (mixup, CutMix) is on.
        reset_optimizer: whether the optimiser forgets its momenta when the phase begins.
    """

    augment: bool = True
    mix: bool = True
    reset_optimizer: bool = False


NO_CACHE = CacheChoice()


@dataclass(frozen=True)
class Phase:
    """Some epochs during which the same groups train.

    Attributes:
        name: for logs and tables.
        start, end: epochs, from 0; the end is not included.
        rates: learning rate of each group that trains, before the schedule; all others are frozen.
        settings: schedule and switches.
        batchnorm: of the body, see `Classifier`.
        plateau: ends the phase early.
        fit: how the head learns: "sgd", by the optimiser; else solved before the first step, and
            its rate is 0.
        key: where the settings stand in the configuration, for messages.
    """

    name: str
    start: int
    end: int
    rates: dict[str, float]
    settings: PhaseSettings
    batchnorm: BatchNormMode = "eval"
    plateau: Plateau = NEVER
    fit: str = "sgd"
    key: str = "finetune"

    @property
    def epochs(self) -> int:
        """Length in epochs."""
        return self.end - self.start

    @property
    def plateau_key(self) -> str:
        """Where its plateau stands in the configuration."""
        own = self.key.startswith("finetune.phases.")
        return f"{self.key}.plateau" if own else "finetune.unfreeze_on_plateau"


@dataclass(frozen=True)
class Plan:
    """All phases of a run, in order, without gaps.

    Attributes:
        mode: the function that wrote it.
        groups: names of all layer groups, stem first, head last.
        phases: from epoch 0 to the last.
        values: of the monitored metric after each epoch so far, larger is better.
        cache: which phases train on cached features.
    """

    mode: str
    groups: tuple[str, ...]
    phases: tuple[Phase, ...]
    values: tuple[float, ...] = ()
    cache: CacheChoice = NO_CACHE

    @property
    def unfreeze_epochs(self) -> tuple[int, ...]:
        """Epochs at which a later phase begins."""
        return tuple(phase.start for phase in self.phases[1:])

    @property
    def watches(self) -> str | None:
        """The setting that makes the plan depend on validation; None where nothing does."""
        for phase in self.phases:
            if phase.settings.shape == "plateau":
                return f"{phase.key}.shape=plateau"
            if phase.plateau.patience is not None:
                return f"{phase.plateau_key}.patience={phase.plateau.patience}"
        return None

    @property
    def moves(self) -> bool:
        """Whether phases can begin earlier than written."""
        return any(phase.plateau.patience is not None for phase in self.phases)

    def check(self, *, monitor: str, validates: bool, mixes: bool, validate_every: int = 1) -> None:
        """Refuses a plan that waits for what is not measured, or never uses what is chosen.

        Args:
            monitor: the metric that checkpoints and plateaus go by.
            validates: whether there are validation photos.
            mixes: whether mixup or CutMix is chosen.
            validate_every: epochs between two validations.

        Raises:
            ConfigError: names the setting.
        """
        if self.watches and not validates:
            raise ConfigError(
                f"{self.watches}: goes by {monitor}, and there are no validation photos to measure "
                "it on; set data.val_fraction=0.2"
            )
        cached = [phase for phase in self.phases if self.views(phase, mixes)]
        if self.cache.features is True and not cached:
            raise ConfigError(
                "finetune.cache_features=true: has no effect, since no phase trains the head alone "
                "on unmixed pictures; set auto or false, or finetune.frozen.mix=false"
            )
        if self.cache.views is not None and not any(p.settings.augment for p in cached):
            raise ConfigError(
                f"finetune.views={self.cache.views}: has no effect, since no phase trains on "
                "cached features of augmented photos (finetune.cache_features=auto wants more "
                "epochs than views; true caches them all the same); set finetune.views=null"
            )
        if self.watches and validate_every != 1:
            raise ConfigError(
                f"trainer.check_val_every_n_epoch={validate_every}: {self.watches} needs a "
                "validation after every epoch; set 1"
            )
        if mixes and not any(phase.settings.mix for phase in self.phases):
            keys = ", ".join(dict.fromkeys(f"{phase.key}.mix=true" for phase in self.phases))
            raise ConfigError(
                "mix: has no effect, since it is off in every phase; set one of "
                f"{keys}, or mix=none"
            )

    def check_lengths(self, steps_per_epoch: int) -> None:
        """Refuses schedulers of torch that do not fit the steps of their phase.

        Raises:
            ConfigError: names the setting.
        """
        for phase in self.phases:
            grows = self.moves and phase is self.phases[-1]
            phase.settings.check_length(phase.key, steps_per_epoch, phase.epochs, grows=grows)

    def views(self, phase: Phase, mixes: bool) -> int:
        """Cached views of each training photo in a phase; 0: it reads photos.

        Args:
            phase: one of the plan.
            mixes: whether mixup or CutMix is chosen.
        """
        settings = phase.settings
        before = self.phases[: self.phases.index(phase)]
        if any(set(earlier.rates) != {HEAD} for earlier in before):
            return 0  # the body is no longer what later runs have; nor what an average of it is
        return self.cache.views_in(
            phase.rates, epochs=phase.epochs, augment=settings.augment, mixes=mixes and settings.mix
        )

    def phase_at(self, epoch: int) -> Phase:
        """The phase of an epoch; beyond the end the last one."""
        for phase in self.phases:
            if epoch < phase.end:
                return phase
        return self.phases[-1]

    def rate(self, group: str, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a group at an optimiser step of the run (from 0); 0 when frozen."""
        phase = self.phase_at(step // steps_per_epoch)
        if group not in phase.rates:
            return 0.0
        inside = step - phase.start * steps_per_epoch
        seen = self.values[phase.start :]
        return phase.rates[group] * factor(
            phase.settings, inside, steps_per_epoch, phase.epochs, seen
        )

    def after(self, values: Sequence[float]) -> "Plan":
        """The plan as it stands after epochs with these validation results; larger is better.

        A phase that a plateau ends makes room: the phases behind it come earlier with the lengths
        they had, and the last one has the epochs that were saved.
        """
        phases: list[Phase] = []
        saved = 0
        for phase in self.phases:
            start, end = phase.start - saved, phase.end - saved
            patience = phase.plateau.patience
            if phase is self.phases[-1]:
                end = phase.end
            elif patience is not None:
                found = plateaus(values[start : end - 1], patience, phase.plateau.min_delta)
                if found:
                    saved += end - (start + found[0])
                    end = start + found[0]
            phases.append(replace(phase, start=start, end=end))
        return replace(self, phases=tuple(phases), values=tuple(values))


def plan_of(
    mode: str, groups: Sequence[LayerGroup], phases: Sequence[Phase],
    cache: CacheChoice = NO_CACHE,
) -> Plan:  # fmt: skip
    """The plan, once each phase has been checked and named apart.

    Raises:
        ConfigError: a setting that cannot work in its phase, or does nothing there.
    """
    assert [phase.start for phase in phases[1:]] == [phase.end for phase in phases[:-1]]
    if phases[0].settings.reset_optimizer:
        raise ConfigError(
            f"{phases[0].key}.reset_optimizer=true: has no effect, since the run begins with this "
            "phase and has no optimiser state yet; set false"
        )
    names = [phase.name for phase in phases]
    checked = []
    for number, phase in enumerate(phases):
        phase.settings.check(phase.key, phase.epochs)
        if phase.batchnorm not in get_args(BatchNormMode):
            allowed = ", ".join(get_args(BatchNormMode))
            key = phase.key if mode == "phases" else "finetune"
            raise ConfigError(f"{key}.batchnorm={phase.batchnorm}: allowed are {allowed}")
        doubled = names.count(phase.name) > 1
        checked.append(replace(phase, name=f"{phase.name} {number}") if doubled else phase)
    cache.check()
    return Plan(mode, tuple(group.name for group in groups), tuple(checked), cache=cache)
