"""The phases of a run: which layer groups train, in which epochs, at which rates.

What trains in an epoch, and at which rate, is a pure function of the plan and of the place in the
run (and, where a plateau decides, of the validation results so far), so a resumed run needs no
other memory of it. A place is (epoch, share of the epoch that is done), never a number of steps:
a run may go on with another batch size, accumulation or number of devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from thaw.classifier import BatchNormMode
from thaw.errors import ConfigError
from thaw.finetune.schedule import Schedule, plateaus


@dataclass(frozen=True)
class Plateau:
    """When a phase ends before its time.

    Attributes:
        patience: Epochs in a row without a better value of the monitored metric; None: never.
        min_delta: How much better a value must be to count.
    """

    patience: int | None = None
    min_delta: float = 0.0


NEVER = Plateau()


@dataclass(frozen=True)
class Phase:
    """Some epochs during which the same groups train.

    Attributes:
        name: For logs and tables.
        start, end: Epochs, from 0; the end is not included.
        rates: Learning rate of each group that trains, before the schedule; all other groups are
            frozen.
        schedule: How the rates go over the phase.
        batchnorm: Mode of the body's BatchNorm layers in groups that train, see `Classifier`.
        augment: Whether photos are trained on in random views; else in the evaluation view.
        mix: Whether mixup or CutMix is on.
        reset_optimizer: Whether the optimiser forgets its momenta when the phase begins.
        cached_views: Number of views of each training photo that the head trains on as cached
            features; 0: the phase reads photos.
        plateau: Ends the phase early.
        key: Where the settings stand in the configuration, for messages.
    """

    name: str
    start: int
    end: int
    rates: dict[str, float]
    schedule: Schedule
    batchnorm: BatchNormMode = "eval"
    augment: bool = True
    mix: bool = False
    reset_optimizer: bool = False
    cached_views: int = 0
    plateau: Plateau = NEVER
    key: str = "finetune"

    @property
    def epochs(self) -> int:
        """Length in epochs."""
        return self.end - self.start

    @property
    def watches(self) -> str | None:
        """The setting that makes it depend on validation; None where nothing does."""
        if self.schedule.schedule == "plateau":
            return f"{self.key}.schedule=plateau"
        if self.plateau.patience is None:
            return None
        return f"{plateau_key(self.key)}.patience={self.plateau.patience}"


@dataclass(frozen=True)
class Plan:
    """All phases of a run, in order, without gaps.

    Attributes:
        mode: The choice of conf/finetune/ that it was made from.
        groups: Names of all layer groups, stem first, head last.
        phases: From epoch 0 to the last one.
        values: Of the monitored metric after each epoch so far; larger is better.
        steps_per_epoch: Optimiser steps of an epoch when the run began, in which the warm-up and
            torch's schedulers count. It is kept when a resumed run has another number.
    """

    mode: str
    groups: tuple[str, ...]
    phases: tuple[Phase, ...]
    values: tuple[float, ...] = ()
    steps_per_epoch: int | None = None

    @property
    def unfreeze_epochs(self) -> tuple[int, ...]:
        """Epochs, from 0, at which a later phase begins."""
        return tuple(phase.start for phase in self.phases[1:])

    @property
    def watches(self) -> str | None:
        """The setting that makes the plan depend on validation; None where nothing does."""
        return next((phase.watches for phase in self.phases if phase.watches), None)

    @property
    def moves(self) -> bool:
        """Whether phases can begin earlier than written."""
        return any(phase.plateau.patience is not None for phase in self.phases)

    def check(self, *, monitor: str, validates: bool, validate_every: int = 1) -> None:
        """Refuses a plan that waits for what is not measured.

        Args:
            monitor: The metric that checkpoints and plateaus go by.
            validates: Whether there are validation photos.
            validate_every: Epochs between two validations.

        Raises:
            ConfigError: The message names the setting.
        """
        if self.watches and not validates:
            raise ConfigError(
                f"{self.watches}: goes by {monitor}, and there are no validation photos to measure "
                "it on; set data.val_fraction=0.2"
            )
        if self.watches and validate_every != 1:
            raise ConfigError(
                f"trainer.check_val_every_n_epoch={validate_every}: {self.watches} needs a "
                "validation after every epoch; set 1"
            )

    def check_lengths(self) -> None:
        """Refuses schedulers of torch that do not fit the steps of their phase.

        Raises:
            ConfigError: The message names the setting.
        """
        for phase in self.phases:
            grows = self.moves and phase is self.phases[-1]
            steps = self.steps_per_epoch or 1
            phase.schedule.check_length(phase.key, phase.epochs, steps, grows=grows)

    def phase_at(self, epoch: int) -> Phase:
        """Gives the phase of an epoch (from 0); beyond the end the last one."""
        return next((phase for phase in self.phases if epoch < phase.end), self.phases[-1])

    def learning_rate(self, group: str, epoch: int, progress: float) -> float:
        """Gives the learning rate of a layer group at a place in the run; 0 when it is frozen.

        Args:
            group: Name of the layer group.
            epoch: Epochs of the run that are over.
            progress: Share 0-1 of the current epoch that is done.
        """
        phase = self.phase_at(epoch)
        if group not in phase.rates:
            return 0.0
        return phase.rates[group] * phase.schedule.share(
            epoch - phase.start, progress, epochs=phase.epochs,
            steps_per_epoch=self.steps_per_epoch or 1, values=self.values[phase.start :],
        )  # fmt: skip

    def after(self, values: Sequence[float]) -> "Plan":
        """Gives the plan as it stands after epochs with these validation results.

        A phase that a plateau ends makes room: the phases behind it come earlier with the lengths
        they had, and the last one has the epochs that were saved. The plan must be the written one.

        Args:
            values: One for each epoch so far; larger is better.
        """
        phases: list[Phase] = []
        saved = 0
        for phase in self.phases:
            start, end = phase.start - saved, phase.end - saved
            patience = phase.plateau.patience
            if phase is self.phases[-1]:
                end = phase.end
            elif patience is not None:
                places = plateaus(values[start : end - 1], patience, phase.plateau.min_delta)
                if places:
                    saved += end - (start + places[0])
                    end = start + places[0]
            phases.append(replace(phase, start=start, end=end))
        return replace(self, phases=tuple(phases), values=tuple(values))


def layers_key(key: str) -> str:
    """Gives where the layer-wise settings of a phase stand, whose schedule stands at `key`."""
    return key if key.startswith("finetune.phases.") else "finetune"


def plateau_key(key: str) -> str:
    """Gives where that stands which ends a phase early, whose schedule stands at `key`."""
    own = key.startswith("finetune.phases.")
    return f"{key}.end_on_plateau" if own else "finetune.unfreeze_on_plateau"
