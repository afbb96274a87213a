"""A plan as a table, to print before training."""

from torch.nn.modules.batchnorm import _BatchNorm

from thaw.classifier import Classifier
from thaw.finetune.phases import Phase
from thaw.finetune.plan import Plan
from thaw.text_table import text_table


def plan_table(plan: Plan, model: Classifier, steps_per_epoch: int) -> str:
    """Lays out phase x layer group x rate x parameters, with epochs counted from 1."""
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
    return text_table(rows, right=(1,))


def _title(phase: Phase) -> str:
    epochs = f"epochs {phase.start + 1}-{phase.end}" if phase.epochs > 1 else f"epoch {phase.end}"
    plateau = f" or plateau of {phase.end_on_plateau}" if phase.end_on_plateau else ""
    return f"{phase.name}: {epochs}{plateau}"


def _schedule(phase: Phase) -> str:
    """The schedule with the warm-up that the phase really has."""
    name = phase.schedule if isinstance(phase.schedule, str) else phase.schedule.func.__name__
    warmup = phase.warmup(phase.epochs)
    return f"{name}, warm-up {warmup:g}" if warmup else name


def _source(phase: Phase) -> str:
    what = "mixed photos" if phase.mix else "photos"
    if views := phase.cached_views:
        what = f"cached features, {views} view{'s' if views > 1 else ''} each"
    return what if phase.augment else f"{what}, not augmented"
