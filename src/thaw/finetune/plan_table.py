"""A plan as a table, to print before training."""

from torch.nn.modules.batchnorm import _BatchNorm

from thaw.classifier import Classifier
from thaw.finetune.plan import Phase, Plan
from thaw.text_table import text_table


def plan_table(plan: Plan, model: Classifier, steps_per_epoch: int) -> str:
    """Lays out phase x layer group x rate x parameters, with epochs counted from 1.

    Args:
        plan: Of the run.
        model: For the sizes of the layer groups.
        steps_per_epoch: Optimiser steps of an epoch.
    """
    sizes = {
        group.name: sum(parameter.numel() for _, parameter in named)
        for group, named in model.group_parameters()
    }
    normed = any(isinstance(module, _BatchNorm) for module in model.body.modules())
    phases = plan.phases
    rows = [["layer group", "parameters", *map(_title, phases)]]
    for name in reversed(plan.groups):
        rates = [phase.rates.get(name) for phase in phases]
        cells = ["frozen" if rate is None else f"lr {rate:.2e}" for rate in rates]
        rows.append([name, f"{sizes[name]:,}", *cells])
    shares = [model.share(phase.rates, phase.batchnorm) for phase in phases]
    rows += [
        ["all", f"{sum(sizes.values()):,}", *(f"{share:.1%} trains" for share in shares)],
        ["steps", "", *(f"{phase.epochs * steps_per_epoch:,}" for phase in phases)],
        ["schedule", "", *map(_schedule, phases)],
        ["BatchNorm", "", *(phase.batchnorm if normed else "none" for phase in phases)],
        ["trains on", "", *map(_source, phases)],
    ]
    if not all(phase.augment for phase in phases):
        views = ["random" if phase.augment else "no augmentation" for phase in phases]
        rows.append(["views", "", *views])
    if any(phase.mix for phase in phases):
        rows.append(["mixing", "", *("on" if phase.mix else "off" for phase in phases)])
    if any(phase.reset_optimizer for phase in phases):
        kept = ["new" if phase.reset_optimizer else "kept" for phase in phases]
        rows.append(["momenta", "", *kept])
    return text_table(rows, right=(1,))


def _title(phase: Phase) -> str:
    last = f"-{phase.end}" if phase.epochs > 1 else ""
    title = f"{phase.name}: epoch{'s' if last else ''} {phase.start + 1}{last}"
    if phase.plateau.patience is not None:
        title += f" or plateau of {phase.plateau.patience}"
    return title


def _schedule(phase: Phase) -> str:
    """The schedule with the warm-up that the phase really has."""
    schedule = phase.schedule
    text = schedule.label
    if schedule.schedule == "step":
        text += f" x{schedule.gamma} each {schedule.step_epochs}"
    elif schedule.schedule == "plateau":
        text += f" x{schedule.gamma}"
    if warmup := schedule.warmup(phase.epochs):
        text += f", warm-up {warmup:g}"
    return text


def _source(phase: Phase) -> str:
    if not phase.cached_views:
        return "photos"
    views = f"{phase.cached_views} view{'s' if phase.cached_views > 1 else ''}"
    return f"cached features, {views} each"
