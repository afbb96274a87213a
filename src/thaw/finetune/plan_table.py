"""A plan as a table, to print before training."""

from torch.nn.modules.batchnorm import _BatchNorm

from thaw.classifier import Classifier
from thaw.finetune.phases import Phase
from thaw.finetune.plan import Plan
from thaw.text_table import text_table


def plan_table(plan: Plan, model: Classifier, steps_per_epoch: int, images: int = 0) -> str:
    """Lays out layer group x parameters x rate in each phase, with epochs counted from 1.

    `images` is the number of a step, on all devices together; 0: not known.
    """
    size = f" of {images} images" if images else ""
    names = plan.groups[::-1]  # head first
    sizes = {
        group.name: sum(parameter.numel() for _, parameter in named)
        for group, named in model.group_parameters()
    }
    numbers = [f"{number:,}" for number in (*(sizes[name] for name in names), sum(sizes.values()))]
    normed = any(isinstance(module, _BatchNorm) for module in model.body.modules())
    columns = [
        ["layer group", *names, "all", "rate", "steps", "schedule", "BatchNorm", "trains on"],
        ["parameters", *numbers, *[""] * 5],
    ]
    for phase in plan.phases:
        last = f"s {phase.start + 1}-{phase.end}" if phase.epochs > 1 else f" {phase.end}"
        plateau = f" or plateau of {phase.end_on_plateau}" if phase.end_on_plateau else ""
        rates = [phase.rates.get(name) for name in names]
        columns.append([
            f"{phase.name}: epoch{last}{plateau}",
            *("frozen" if rate is None else f"lr {rate:.2e}" for rate in rates),
            f"{model.share(phase.rates, phase.batchnorm):.1%} trains",
            phase.derived or "as set",
            f"{phase.epochs * steps_per_epoch:,}{size}", _schedule(phase),
            phase.batchnorm if normed else "none", _source(phase),
        ])  # fmt: skip
    return text_table(list(zip(*columns, strict=True)), right=(1,))


def _schedule(phase: Phase) -> str:
    name = phase.schedule if isinstance(phase.schedule, str) else phase.schedule.func.__name__
    warmup = phase.warmup(phase.epochs)  # that the phase really has
    return f"{name}, warm-up {warmup:g}" if warmup else name


def _source(phase: Phase) -> str:
    what = "mixed photos" if phase.mix else "photos"
    if views := phase.cached_views:
        what = f"cached features, {views} view{'s' if views > 1 else ''} each"
    return what if phase.augment else f"{what}, not augmented"
