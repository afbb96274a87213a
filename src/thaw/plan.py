"""The phases of a run: which layer groups train, in which epochs, at which rates.

What trains in an epoch, and at which rate in a step, is a pure function of the plan, so a resumed
run needs no memory of it.
"""

from dataclasses import dataclass

from thaw.classifier import BatchNormMode, Classifier
from thaw.optim import Schedule, factor


@dataclass(frozen=True)
class Phase:
    """Some epochs during which the same groups train.

    Attributes:
        name: for logs and tables.
        start, end: epochs, from 0; the end is not included.
        rates: learning rate of each group that trains, before the schedule; all others are frozen.
        schedule: over the phase.
        batchnorm: of the body, see `Classifier`.
    """

    name: str
    start: int
    end: int
    rates: dict[str, float]
    schedule: Schedule
    batchnorm: BatchNormMode

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
    """

    mode: str
    groups: tuple[str, ...]
    phases: tuple[Phase, ...]

    @property
    def unfreeze_epochs(self) -> tuple[int, ...]:
        """Epochs at which a later phase begins."""
        return tuple(phase.start for phase in self.phases[1:])

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
        share = factor(phase.schedule, inside, steps_per_epoch, phase.epochs)
        return phase.rates[group] * share


def plan_table(plan: Plan, model: Classifier, steps_per_epoch: int) -> str:
    """Phase x layer group x rate x parameters, as text to print before training."""
    sizes = {
        group.name: sum(parameter.numel() for _, parameter in named)
        for group, named in model.group_parameters()
    }
    total = sum(sizes.values())
    width = max(len("layer group"), *(len(name) for name in plan.groups))
    heads = [f"{phase.name}: epochs {phase.start}-{phase.end - 1}" for phase in plan.phases]
    columns = [max(16, len(head)) for head in heads]

    def row(first: str, size: str, cells: list[str]) -> str:
        padded = (cell.ljust(column) for cell, column in zip(cells, columns, strict=True))
        return "  ".join([first.ljust(width), size.rjust(12), *padded]).rstrip()

    lines = [row("layer group", "parameters", heads)]
    lines.append("  ".join("-" * size for size in (width, 12, *columns)))
    for name in reversed(plan.groups):
        rates = [phase.rates.get(name) for phase in plan.phases]
        cells = ["frozen" if rate is None else f"lr {rate:.2e}" for rate in rates]
        lines.append(row(name, f"{sizes[name]:,}", cells))
    shares = []
    for phase in plan.phases:
        trained = sum(sizes[name] for name in phase.rates)
        shares.append(f"{trained / total:.1%} trains")
    lines.append(row("all", f"{total:,}", shares))
    lines.append(row("steps", "", [f"{phase.epochs * steps_per_epoch:,}" for phase in plan.phases]))
    lines.append(row("schedule", "", [_describe(phase.schedule) for phase in plan.phases]))
    lines.append(row("BatchNorm", "", [phase.batchnorm for phase in plan.phases]))
    return "\n".join(lines)


def _describe(schedule: Schedule) -> str:
    text = schedule.shape
    if schedule.shape == "step":
        text += f" x{schedule.gamma} each {schedule.step_epochs}"
    if schedule.warmup_epochs:
        text += f", warm-up {schedule.warmup_epochs:g}"
    return text
