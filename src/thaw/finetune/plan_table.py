"""A plan as a table, to print before training."""

from torch.nn.modules.batchnorm import _BatchNorm

from thaw.classifier import Classifier
from thaw.finetune.plan import Phase, PhaseSettings, Plan


def plan_table(plan: Plan, model: Classifier, steps_per_epoch: int, *, mixes: bool = False) -> str:
    """Phase x layer group x rate x parameters, as text to print before training.

    Args:
        plan: of the run.
        model: for sizes.
        steps_per_epoch: optimiser steps.
        mixes: whether mixup or CutMix is chosen.
    """
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
        cells = [_cell(phase, name) for phase in plan.phases]
        rows.append(row(name, f"{sizes[name]:,}", cells))
    shares = [model.share(phase.rates, phase.batchnorm) for phase in plan.phases]
    rows += [
        row("all", f"{total:,}", [f"{share:.1%} trains" for share in shares]),
        row("steps", "", [f"{phase.epochs * steps_per_epoch:,}" for phase in plan.phases]),
        row("schedule", "", [_schedule(phase) for phase in plan.phases]),
        row("BatchNorm", "", [phase.batchnorm if normed else "none" for phase in plan.phases]),
        row("trains on", "", [_source(plan.views(phase, mixes)) for phase in plan.phases]),
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


def _cell(phase: Phase, group: str) -> str:
    if group not in phase.rates:
        return "frozen"
    return f"lr {phase.rates[group]:.2e}"


def _schedule(phase: Phase) -> str:
    settings = phase.settings
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


def _source(views: int) -> str:
    if not views:
        return "photos"
    return f"cached features, {views} view{'s' if views > 1 else ''} each"


def _switches(settings: PhaseSettings) -> str:
    words = {
        "no augmentation": not settings.augment,
        "no mixing": not settings.mix,
        "new optimiser state": settings.reset_optimizer,
    }
    return ", ".join(word for word, on in words.items() if on)
