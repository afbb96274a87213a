"""The phases of a run: which layer groups train, in which epochs, at which rates.

What trains in an epoch, and at which rate in a step, is a pure function of the plan (and, where a
plateau decides, of the validation results so far), so a resumed run needs no other memory of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch.nn.modules.batchnorm import _BatchNorm

from thaw.classifier import BatchNormMode, Classifier
from thaw.errors import ConfigError
from thaw.schedule import Schedule, factor, plateaus


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


@dataclass(frozen=True)
class Plateau:
    """When a phase ends before its time.

    Attributes:
        patience: epochs in a row without a better value of the monitored metric; None: never.
        min_delta: what counts as better.
    """

    patience: int | None = None
    min_delta: float = 0.0


NEVER = Plateau()


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
        key: where the settings stand in the configuration, for messages.
    """

    name: str
    start: int
    end: int
    rates: dict[str, float]
    settings: PhaseSettings
    batchnorm: BatchNormMode = "eval"
    plateau: Plateau = NEVER
    key: str = "finetune"

    @property
    def epochs(self) -> int:
        """Length in epochs."""
        return self.end - self.start


@dataclass(frozen=True)
class Plan:
    """All phases of a run, in order, without gaps.

    Attributes:
        mode: the function that wrote it.
        groups: names of all layer groups, stem first, head last.
        phases: from epoch 0 to the last.
        values: of the monitored metric after each epoch so far, larger is better.
    """

    mode: str
    groups: tuple[str, ...]
    phases: tuple[Phase, ...]
    values: tuple[float, ...] = ()

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
                return f"finetune.unfreeze_on_plateau.patience={phase.plateau.patience}"
        return None

    def check(self, *, monitor: str, validates: bool, mixes: bool) -> None:
        """Refuses a plan that waits for what is not measured, or never uses what is chosen.

        Args:
            monitor: the metric that checkpoints and plateaus go by.
            validates: whether there are validation photos.
            mixes: whether mixup or CutMix is chosen.

        Raises:
            ConfigError: names the setting.
        """
        if self.watches and not validates:
            raise ConfigError(
                f"{self.watches}: goes by {monitor}, and there are no validation photos to measure "
                "it on; set data.val_fraction=0.2"
            )
        if mixes and not any(phase.settings.mix for phase in self.phases):
            keys = ", ".join(f"{phase.key}.mix=true" for phase in self.phases)
            raise ConfigError(
                "mix: has no effect, since it is off in every phase; set one of "
                f"{keys}, or mix=none"
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


def plan_table(plan: Plan, model: Classifier, steps_per_epoch: int) -> str:
    """Phase x layer group x rate x parameters, as text to print before training."""
    sizes = {
        group.name: sum(parameter.numel() for _, parameter in named)
        for group, named in model.group_parameters()
    }
    total = sum(sizes.values())
    width = max(len("layer group"), *(len(name) for name in plan.groups))
    heads = [_title(phase) for phase in plan.phases]
    normed = any(isinstance(module, _BatchNorm) for module in model.body.modules())

    def row(first: str, size: str, cells: list[str]) -> list[str]:
        return [first, size, *cells]

    rows = [row("layer group", "parameters", heads)]
    for name in reversed(plan.groups):
        rates = [phase.rates.get(name) for phase in plan.phases]
        cells = ["frozen" if rate is None else f"lr {rate:.2e}" for rate in rates]
        rows.append(row(name, f"{sizes[name]:,}", cells))
    shares = [sum(sizes[name] for name in phase.rates) / total for phase in plan.phases]
    rows += [
        row("all", f"{total:,}", [f"{share:.1%} trains" for share in shares]),
        row("steps", "", [f"{phase.epochs * steps_per_epoch:,}" for phase in plan.phases]),
        row("schedule", "", [_schedule(phase.settings) for phase in plan.phases]),
        row("BatchNorm", "", [phase.batchnorm if normed else "none" for phase in plan.phases]),
    ]
    switches = [_switches(phase.settings) for phase in plan.phases]
    if any(switches):
        rows.append(row("set", "", switches))
    columns = [max(len(line[place]) for line in rows) for place in range(2, 2 + len(heads))]
    lines = ["  ".join("-" * size for size in (width, 12, *columns))]
    for first, size, *cells in rows:
        padded = (cell.ljust(column) for cell, column in zip(cells, columns, strict=True))
        lines.append("  ".join([first.ljust(width), size.rjust(12), *padded]).rstrip())
    return "\n".join([lines[1], lines[0], *lines[2:]])


def _title(phase: Phase) -> str:
    title = f"{phase.name}: epochs {phase.start}-{phase.end - 1}"
    if phase.plateau.patience is not None:
        title += f" or plateau of {phase.plateau.patience}"
    return title


def _schedule(settings: PhaseSettings) -> str:
    text: str = settings.shape
    if settings.shape == "torch":
        text = settings.scheduler.func.__name__
    if settings.shape == "step":
        text += f" x{settings.gamma} each {settings.step_epochs}"
    elif settings.shape in ("exponential", "plateau"):
        text += f" x{settings.gamma}"
    if settings.warmup_epochs:
        text += f", warm-up {settings.warmup_epochs:g}"
    return text


def _switches(settings: PhaseSettings) -> str:
    words = {
        "no augmentation": not settings.augment,
        "no mixing": not settings.mix,
        "new optimiser state": settings.reset_optimizer,
    }
    return ", ".join(word for word, on in words.items() if on)
