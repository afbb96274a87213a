"""The modes of fine-tuning: each writes the list of phases of a run.

One function per file in conf/finetune/; its keyword arguments are the settings there. All take the
model's layer groups (stem first, head last) and the trainer's max_epochs, which thaw passes, and
raise ConfigError for a setting that cannot work, or does nothing, in that many epochs. What several
of them take:

    frozen, unfrozen        schedule and switches of a phase with a frozen and an unfrozen body
    lr_decay, min_lr_ratio, rates
                            layer-wise rates of the unfrozen body, see `optim.layer_rates`
    batchnorm               of the body once unfrozen, see `Classifier`
    unfreeze_epoch          epochs before the body is unfrozen
    unfreeze_on_plateau     unfreeze earlier, when validation gets no better
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, get_args

from thaw.classifier import HEAD, BatchNormMode
from thaw.errors import ConfigError, near
from thaw.groups import LayerGroup
from thaw.optim import find, layer_rates
from thaw.plan import NEVER, Phase, PhaseSettings, Plan, Plateau

Groups = Sequence[LayerGroup]
Rates = Mapping[str, float]
Top = int | float | str | Sequence[str]


def freeze_unfreeze(
    groups: Groups,
    max_epochs: int,
    *,
    unfreeze_epoch: int,
    frozen: PhaseSettings,
    unfrozen: PhaseSettings,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    rates: Rates | None = None,
    batchnorm: BatchNormMode = "train",
    unfreeze_on_plateau: Plateau = NEVER,
) -> Plan:
    """Train the head on the frozen body, then everything with layer-wise rates."""
    _check_unfreeze(unfreeze_epoch, max_epochs, unfreeze_on_plateau)
    phases = [
        _frozen(groups, unfreeze_epoch, frozen, unfreeze_on_plateau),
        Phase(
            "unfrozen", unfreeze_epoch, max_epochs,
            _rates(groups, unfrozen.lr, lr_decay, min_lr_ratio, rates),
            unfrozen, batchnorm, key="finetune.unfrozen",
        ),
    ]  # fmt: skip
    return _plan("freeze_unfreeze", groups, phases)


def feature_extraction(groups: Groups, max_epochs: int, *, frozen: PhaseSettings) -> Plan:
    """Train the head only."""
    return _plan("feature_extraction", groups, [_frozen(groups, max_epochs, frozen)])


def classifier(groups: Groups, max_epochs: int, *, frozen: PhaseSettings) -> Plan:
    """Train the whole classifier that the weights came with, and the new last layer in it.

    For backbones with a classifier of several layers, such as VGG; the features stay frozen.
    """
    own = [group.name for group in groups if group.is_classifier]
    if not own:
        raise ConfigError(
            "finetune=classifier: this backbone has a single last layer, and the head replaces it; "
            "use finetune=feature_extraction"
        )
    rates = dict.fromkeys([*own, HEAD], frozen.lr)
    phase = Phase("classifier", 0, max_epochs, rates, frozen, key="finetune.frozen")
    return _plan("classifier", groups, [phase])


def full(
    groups: Groups,
    max_epochs: int,
    *,
    unfrozen: PhaseSettings,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    rates: Rates | None = None,
    batchnorm: BatchNormMode = "train",
) -> Plan:
    """Train everything from the first epoch."""
    chosen = _rates(groups, unfrozen.lr, lr_decay, min_lr_ratio, rates)
    phase = Phase("unfrozen", 0, max_epochs, chosen, unfrozen, batchnorm, key="finetune.unfrozen")
    return _plan("full", groups, [phase])


def from_scratch(groups: Groups, max_epochs: int, *, unfrozen: PhaseSettings) -> Plan:
    """Train everything at one rate, BatchNorm statistics too, from random weights.

    `conf/finetune/from_scratch.yaml` sets `backbone.weights` to null with it.
    """
    rates = {group.name: unfrozen.lr for group in groups}
    phase = Phase("unfrozen", 0, max_epochs, rates, unfrozen, "train", key="finetune.unfrozen")
    return _plan("from_scratch", groups, [phase])


def partial(
    groups: Groups,
    max_epochs: int,
    *,
    top: Top,
    unfreeze_epoch: int,
    frozen: PhaseSettings,
    unfrozen: PhaseSettings,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    rates: Rates | None = None,
    batchnorm: BatchNormMode = "train",
    unfreeze_on_plateau: Plateau = NEVER,
) -> Plan:
    """Train the head, then the top of the body with it; the rest stays frozen for good.

    Args:
        top: what of the body trains: a number of groups (2), a share of them (0.5), the name of
            the lowest ("layer3"), or a list of names.
    """
    _check_unfreeze(unfreeze_epoch, max_epochs, unfreeze_on_plateau)
    chosen = _rates(groups, unfrozen.lr, lr_decay, min_lr_ratio, rates)
    names = _top(groups, top, "finetune.top")
    trained = {name: rate for name, rate in chosen.items() if name in names}
    if idle := set(_named(groups, rates)) - names:
        raise ConfigError(
            f"finetune.rates={dict(rates or {})}: has no effect on {', '.join(sorted(idle))}, "
            f"frozen by finetune.top={top}"
        )
    phases = [
        _frozen(groups, unfreeze_epoch, frozen, unfreeze_on_plateau),
        Phase(
            "unfrozen", unfreeze_epoch, max_epochs, trained, unfrozen, batchnorm,
            key="finetune.unfrozen",
        ),
    ]  # fmt: skip
    return _plan("partial", groups, phases)


def gradual(
    groups: Groups,
    max_epochs: int,
    *,
    unfreeze_epoch: int,
    every_epochs: int,
    stop_at: str | None,
    frozen: PhaseSettings,
    unfrozen: PhaseSettings,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    rates: Rates | None = None,
    batchnorm: BatchNormMode = "train",
    unfreeze_on_plateau: Plateau = NEVER,
) -> Plan:
    """Train the head, then unfreeze one layer group after another, from the head down.

    ULMFiT, arXiv:1801.06146, section 3.3. Each phase has a schedule of its own.

    Args:
        every_epochs: between two unfreezes; the last phase has all epochs that are left.
        stop_at: name of the lowest group to unfreeze; None: the stem.
    """
    _check_unfreeze(unfreeze_epoch, max_epochs, unfreeze_on_plateau)
    if unfreeze_on_plateau.patience is not None:
        key = "finetune.unfreeze_on_plateau.patience"
        remedy = "; raise finetune.every_epochs"
        _check_patience(key, unfreeze_on_plateau.patience, every_epochs, remedy)
    down = [group.name for group in reversed(groups)]  # head first
    if stop_at is not None:
        found = set(find(groups, stop_at, "finetune.stop_at"))
        down = down[: max(down.index(name) for name in found) + 1]
    if every_epochs < 1:
        raise ConfigError(f"finetune.every_epochs={every_epochs}: allowed is 1 or more epochs")
    needed = unfreeze_epoch + (len(down) - 2) * every_epochs + 1
    if needed > max_epochs:
        raise ConfigError(
            f"trainer.max_epochs={max_epochs}: unfreezing {len(down) - 1} groups, one each "
            f"{every_epochs} epochs from epoch {unfreeze_epoch} on, takes {needed} or more; raise "
            "it, or stop earlier with finetune.stop_at=<layer group>"
        )
    chosen = _rates(groups, unfrozen.lr, lr_decay, min_lr_ratio, rates)
    starts = [unfreeze_epoch + place * every_epochs for place in range(len(down) - 1)]
    phases = [_frozen(groups, unfreeze_epoch, frozen, unfreeze_on_plateau)]
    for place, (start, end) in enumerate(pairwise([*starts, max_epochs])):
        trained = {name: chosen[name] for name in down[: place + 2]}
        plateau = NEVER if end == max_epochs else unfreeze_on_plateau
        phases.append(
            Phase(
                down[place + 1], start, end, trained, unfrozen, batchnorm, plateau,
                "finetune.unfrozen",
            )
        )  # fmt: skip
    return _plan("gradual", groups, phases)


@dataclass(frozen=True)
class PhaseItem(PhaseSettings):
    """One phase as a user writes it, see `phases`.

    Attributes:
        name: for logs and tables; None: its number.
        start: epoch, from 0.
        groups: what trains besides the head, as `top` of `partial`; 0: nothing, 1.0: all.
        lr_decay, min_lr_ratio, rates, batchnorm, plateau: see the modes.
    """

    name: str | None = None
    start: int = 0
    groups: Top = 1.0
    lr_decay: float | None = None
    min_lr_ratio: float | None = None
    rates: Rates | None = None
    batchnorm: BatchNormMode = "train"
    plateau: Mapping[str, Any] = field(default_factory=dict)


def phases(groups: Groups, max_epochs: int, *, phases: Sequence[Mapping[str, Any]]) -> Plan:
    """Whatever the user writes: a list of phases, each with the settings of `PhaseItem`."""
    if not phases:
        raise ConfigError("finetune.phases=[]: give at least one phase, like [{lr: 1e-3}]")
    items = [_item(number, given) for number, given in enumerate(phases)]
    starts = [item.start for item in items]
    if starts[0] != 0 or any(a >= b for a, b in pairwise([*starts, max_epochs])):
        raise ConfigError(
            f"finetune.phases: they start at epochs {starts}; the first must start at 0, each "
            f"later than the one before, all below trainer.max_epochs={max_epochs}"
        )
    made = []
    for number, (item, end) in enumerate(zip(items, [*starts[1:], max_epochs], strict=True)):
        key = f"finetune.phases.{number}"
        names = {HEAD} if item.groups == 0 else _top(groups, item.groups, f"{key}.groups")
        rates = _rates(groups, item.lr, item.lr_decay, item.min_lr_ratio, item.rates, key)
        plateau = Plateau(**item.plateau)
        if plateau.patience is not None:
            _check_patience(f"{key}.plateau.patience", plateau.patience, end - item.start)
        shared = {part.name: getattr(item, part.name) for part in fields(PhaseSettings)}
        made.append(
            Phase(
                item.name or f"phase {number}", item.start, end,
                {name: rate for name, rate in rates.items() if name in names},
                PhaseSettings(**shared), item.batchnorm, plateau, key,
            )
        )  # fmt: skip
    return _plan("phases", groups, made)


def _item(number: int, given: Mapping[str, Any]) -> PhaseItem:
    known = [part.name for part in fields(PhaseItem)]
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"finetune.phases.{number}.{name}={value}: nothing reads this key"
                f"{near(str(name), known)}. Allowed: {', '.join(known)}"
            )
    if "lr" not in given:
        raise ConfigError(f"finetune.phases.{number}.lr: is needed and not given")
    return PhaseItem(**given)


def _frozen(
    groups: Groups, epochs: int, settings: PhaseSettings, plateau: Plateau = NEVER
) -> Phase:
    return Phase(
        "frozen", 0, epochs, {groups[-1].name: settings.lr}, settings, "eval", plateau,
        "finetune.frozen",
    )  # fmt: skip


def _plan(mode: str, groups: Groups, phases: Sequence[Phase]) -> Plan:
    """The plan, once each phase has been checked and named apart."""
    names = [phase.name for phase in phases]
    checked = []
    for number, phase in enumerate(phases):
        phase.settings.check(phase.key, phase.epochs)
        if phase.batchnorm not in get_args(BatchNormMode):
            allowed = ", ".join(get_args(BatchNormMode))
            raise ConfigError(f"finetune.batchnorm={phase.batchnorm}: allowed are {allowed}")
        doubled = names.count(phase.name) > 1
        checked.append(replace(phase, name=f"{phase.name} {number}") if doubled else phase)
    return Plan(mode, tuple(group.name for group in groups), tuple(checked))


def _named(groups: Groups, rates: Rates | None) -> list[str]:
    return [found for name in rates or {} for found in find(groups, name, "finetune.rates")]


def _top(groups: Groups, top: Top, key: str) -> set[str]:
    """Names of the groups that `top` means, with the head."""
    body = [group.name for group in groups[:-1]]
    if isinstance(top, str):
        lowest = min(body.index(name) for name in find(groups[:-1], top, key))
        return {*body[lowest:], HEAD}
    if isinstance(top, int | float):
        number = top if isinstance(top, int) else round(top * len(body))
        if isinstance(top, bool) or not 1 <= number <= len(body):
            raise ConfigError(
                f"{key}={top}: allowed is a number of layer groups from 1 to {len(body)}, a share "
                f"of them up to 1.0 (as 0.5), the name of the lowest, or a list of names, of "
                f"{', '.join(body)}"
            )
        return {*body[len(body) - number :], HEAD}
    return {HEAD} | {found for name in top for found in find(groups, name, key)}


def _rates(
    groups: Groups,
    lr: float,
    lr_decay: float | None,
    min_lr_ratio: float | None,
    named: Rates | None,
    key: str = "finetune",
) -> dict[str, float]:
    if lr_decay is not None and min_lr_ratio is not None:
        raise ConfigError(
            f"{key}.lr_decay={lr_decay} and {key}.min_lr_ratio={min_lr_ratio}: give one, "
            "exponential or linear rates, and set the other to null"
        )
    for name, value in (("lr_decay", lr_decay), ("min_lr_ratio", min_lr_ratio)):
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"{key}.{name}={value}: allowed is above 0 to 1, or null")
    for name, value in (named or {}).items():
        if not value > 0:
            raise ConfigError(f"{key}.rates.{name}={value}: allowed is a positive rate, like 1e-4")
    return layer_rates(groups, lr, lr_decay=lr_decay, min_lr_ratio=min_lr_ratio, named=named)


def _check_unfreeze(unfreeze_epoch: int, max_epochs: int, plateau: Plateau) -> None:
    if not 1 <= unfreeze_epoch < max_epochs:
        raise ConfigError(
            f"finetune.unfreeze_epoch={unfreeze_epoch}: allowed is 1 to {max_epochs - 1}, below "
            f"trainer.max_epochs={max_epochs}; else use finetune=feature_extraction (never "
            "unfreeze) or finetune=full (from the start)"
        )
    if plateau.patience is not None:
        _check_patience(
            "finetune.unfreeze_on_plateau.patience", plateau.patience, unfreeze_epoch,
            "; unfreeze_epoch is the latest that the body is unfrozen: raise it",
        )  # fmt: skip


def _check_patience(key: str, patience: int, epochs: int, remedy: str = "") -> None:
    if not 1 <= patience < epochs - 1:
        raise ConfigError(
            f"{key}={patience}: can never end a phase of {epochs} epochs early; allowed is 1 or "
            f"more, in a phase of patience + 2 or more epochs{remedy}"
        )
