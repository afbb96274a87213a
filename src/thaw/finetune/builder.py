"""Writes the phases of a run from the settings of conf/finetune/.

There is one builder. Each file of conf/finetune/ is a set of values for the same settings, which it
turns into a list of `PhaseItem`; `finetune=phases` gives that list itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, TypeGuard, get_args

from thaw.backbones.groups import HEAD
from thaw.classifier import BatchNormMode
from thaw.errors import ConfigError, shown
from thaw.finetune.layers import Groups, Rates, Top, layer_rates, top_groups
from thaw.finetune.mode_settings import as_typed, check_mode
from thaw.finetune.phase_items import PhaseItem, make
from thaw.finetune.plan import Phase, Plan, Plateau, layers_key, plateau_key
from thaw.finetune.schedule import Schedule

CACHED_VIEWS = 2  # as good as 4 after 5 + 5 epochs, 1 is worse by 0.7 points; benchmarks/LOG.md


Items = Sequence[tuple[PhaseItem, str]]  # with where their settings stand, as "finetune.frozen"


def build_plan(
    groups: Groups,
    max_epochs: int,
    *,
    mode: str,
    frozen: Mapping[str, Any] | None = None,
    unfrozen: Mapping[str, Any] | None = None,
    unfreeze_epoch: int | None = None,
    unfreeze_on_plateau: Mapping[str, Any] | None = None,
    top: Top | None = None,
    every_epochs: int | None = None,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    rates: Rates | None = None,
    batchnorm: BatchNormMode | None = None,
    cache_features: Literal["auto"] | bool | None = None,
    cached_views: int | None = None,
    phases: Sequence[Mapping[str, Any]] | None = None,
    mixes: bool = False,
    limits_batches: bool = False,
    overfits: bool = False,
) -> Plan:
    """Writes the plan of a run; conf/finetune/freeze_unfreeze.yaml says what the settings mean.

    Args:
        groups: Layer groups of the model, stem first, head last.
        max_epochs: Of the trainer.
        mode: Name of the file in conf/finetune/.
        frozen, unfrozen: `PhaseSettings` of the phases in which the head alone, and in which the
            body too trains; None: there are none.
        unfreeze_epoch, unfreeze_on_plateau: When the first ends, where there are both.
        top: What of the body is ever unfrozen, see `top_groups`; None: all.
        every_epochs: Epochs between two groups that are unfrozen one after another from the head
            down (ULMFiT, arXiv:1801.06146, section 3.3); None: all at once.
        lr_decay, min_lr_ratio, rates: Layer-wise rates of the body, see `layer_rates`.
        batchnorm: Of the body once unfrozen, see `Classifier`; None: "train".
        cache_features, cached_views: See `_with_cache`.
        phases: The list itself, of settings of `PhaseItem`, in place of all above but the cache.
        mixes: Whether mixup or CutMix is chosen.
        limits_batches: Whether an epoch has some of the batches only; then "auto" does not cache.
        overfits: Whether an epoch has the same few batches again; then nothing is cached.

    Raises:
        ConfigError: A setting that the mode does not have, or that cannot work in so many epochs.
    """
    settings = {
        "frozen": frozen, "unfrozen": unfrozen, "unfreeze_epoch": unfreeze_epoch,
        "unfreeze_on_plateau": unfreeze_on_plateau, "top": top, "every_epochs": every_epochs,
        "lr_decay": lr_decay, "min_lr_ratio": min_lr_ratio, "rates": rates,
        "batchnorm": batchnorm, "cache_features": cache_features, "cached_views": cached_views,
        "phases": phases,
    }  # fmt: skip
    check_mode(mode, settings)
    given = {name: value for name, value in settings.items() if as_typed(name, value)}
    items = _read_list(phases) if "phases" in given else _write_list(groups, max_epochs, given)
    made = _phases(groups, max_epochs, items, mixes=mixes)
    _check_cache(cache_features, cached_views)
    if cache_features and not overfits and not (cache_features == "auto" and limits_batches):
        made = _with_cache(made, cached_views or CACHED_VIEWS, always=cache_features is True)
    return Plan(mode, tuple(group.name for group in groups), tuple(made))


def _write_list(groups: Groups, max_epochs: int, given: Mapping[str, Any]) -> Items:
    """Turns the settings that are given into a list of phases."""
    plateau = given.get("unfreeze_on_plateau")
    items: list[tuple[PhaseItem, str]] = []
    start = 0
    if "frozen" in given:
        key = "finetune.frozen"
        head = make(PhaseItem, {**given["frozen"], "name": "frozen", "top": 0}, key)
        if "unfrozen" not in given:
            return [(head, key)]
        start = given.get("unfreeze_epoch")
        if not _is_whole(start) or start >= max_epochs:
            raise ConfigError(
                f"finetune.unfreeze_epoch={shown(start)}: allowed is a whole number from 1 to "
                f"{max_epochs - 1}, below trainer.max_epochs={max_epochs}; else use "
                "finetune=feature_extraction (never unfreeze) or finetune=full (from the start)"
            )
        items.append((replace(head, epochs=start, end_on_plateau=plateau), key))
    names = top_groups(groups, given.get("top", 1.0), "finetune.top")
    order = [group.name for group in groups if group.name in names][::-1]  # head first
    layers = {name: given.get(name) for name in ("lr_decay", "min_lr_ratio", "rates")}
    layers |= {"name": "unfrozen", "top": order, "batchnorm": given.get("batchnorm", "train")}
    key = "finetune.unfrozen"
    body = make(PhaseItem, {**given.get("unfrozen", {}), **layers}, key)
    if "every_epochs" not in given:
        return [*items, (body, key)]
    every, number = given["every_epochs"], len(order) - 1
    if not _is_whole(every) or start + (number - 1) * every >= max_epochs:
        raise ConfigError(
            f"finetune.every_epochs={every} trainer.max_epochs={max_epochs}: allowed are 1 or more "
            f"epochs between unfreezing {number} groups, all after the first {start} epochs and "
            "within max_epochs; raise that, or unfreeze fewer with finetune.top=<lowest group>"
        )
    steps = [
        replace(body, name=name, top=order[: place + 2], epochs=every, end_on_plateau=plateau)
        for place, name in enumerate(order[1:])
    ]
    steps[-1] = replace(steps[-1], epochs=None, end_on_plateau=None)
    return items + [(step, key) for step in steps]


def _read_list(phases: Any) -> Items:
    """Checks the list that the user writes."""
    if not isinstance(phases, Sequence) or isinstance(phases, str) or not phases:
        raise ConfigError(
            f"finetune.phases={phases}: allowed is a list of one phase or more, like [{{lr: 1e-3}}]"
        )
    items = [
        (make(PhaseItem, given, f"finetune.phases.{number}"), f"finetune.phases.{number}")
        for number, given in enumerate(phases)
    ]
    return [
        (replace(item, name=item.name or f"phase {number}"), key)
        for number, (item, key) in enumerate(items, start=1)
    ]


def _phases(groups: Groups, max_epochs: int, items: Items, *, mixes: bool) -> list[Phase]:
    """Gives each phase of the list its epochs and rates."""
    made: list[Phase] = []
    start = 0
    for number, (item, key) in enumerate(items, start=1):
        left, last = max_epochs - start, number == len(items)
        epochs = left if item.epochs is None and last else item.epochs
        if epochs is None or not _is_whole(epochs) or (epochs != left if last else epochs >= left):
            allowed = f"{left}, or none, in the last phase" if last else f"1 to {left - 1}"
            raise ConfigError(
                f"{key}.epochs={shown(item.epochs)}: allowed is {allowed}; the phases before it "
                f"have {start} of trainer.max_epochs={max_epochs}"
            )
        twins = [other.name for other, _ in items].count(item.name) > 1
        name = f"{item.name} {number}" if twins else str(item.name)
        made.append(_phase(groups, replace(item, name=name), key, start, start + epochs, mixes))
        start += epochs
    return made


def _phase(groups: Groups, item: PhaseItem, key: str, start: int, end: int, mixes: bool) -> Phase:
    """Checks one phase, and computes its rates."""
    schedule = Schedule(**{part.name: getattr(item, part.name) for part in fields(Schedule)})
    schedule.check(key)
    for name in ("augment", "mix", "reset_optimizer"):
        if not isinstance(value := getattr(item, name), bool):
            raise ConfigError(f"{key}.{name}={shown(value)}: allowed are true, false")
    layers = layers_key(key)
    if item.batchnorm not in get_args(BatchNormMode):
        allowed = ", ".join(get_args(BatchNormMode))
        raise ConfigError(f"{layers}.batchnorm={shown(item.batchnorm)}: allowed are {allowed}")
    plateau = make(Plateau, item.end_on_plateau or {}, plateau_key(key))
    if plateau.patience is not None and not _is_whole(plateau.patience):
        raise ConfigError(
            f"{plateau_key(key)}.patience={plateau.patience}: allowed is 1 or more epochs, or null"
        )
    none = item.top == 0 and not isinstance(item.top, bool)
    names = {HEAD} if none else top_groups(groups, item.top, f"{layers}.top")
    rates = layer_rates(
        groups, item.lr, lr_decay=item.lr_decay, min_lr_ratio=item.min_lr_ratio, named=item.rates,
        key=layers,
    )  # fmt: skip
    return Phase(
        str(item.name), start, end, {name: rate for name, rate in rates.items() if name in names},
        schedule, item.batchnorm, item.augment, item.mix and mixes, item.reset_optimizer,
        plateau=plateau, key=key,
    )  # fmt: skip


def _with_cache(phases: Sequence[Phase], views: int, *, always: bool) -> list[Phase]:
    """Says which phases train on cached features.

    They train the head alone on unmixed photos, before the body was ever trained: afterwards the
    body is no longer what later runs have.

    Args:
        phases: All of a run, in order.
        views: Of each training photo, the evaluation view and then random ones, if it augments.
        always: Also where the body would run no more often over the photos without a cache.
    """
    made = []
    for number, phase in enumerate(phases):
        fresh = all(set(earlier.rates) == {HEAD} for earlier in phases[: number + 1])
        own = views if phase.augment else 1
        on = fresh and not phase.mix and (always or phase.epochs > own)
        made.append(replace(phase, cached_views=own if on else 0))
    return made


def _check_cache(when: Any, views: Any) -> None:
    if when not in (None, "auto") and not isinstance(when, bool):
        raise ConfigError(f"finetune.cache_features={when}: allowed are auto, true, false")
    if views is not None and not _is_whole(views):
        raise ConfigError(f"finetune.cached_views={views}: allowed is 1 or more views, or null")


def _is_whole(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
