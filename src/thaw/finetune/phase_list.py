"""The mode `phases`: a list of phases that the user writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

from thaw.backbones.groups import HEAD
from thaw.backbones.layers import Groups, Rates, Top, check_named, layer_rates, top_of
from thaw.classifier import BatchNormMode
from thaw.errors import ConfigError, near, shown
from thaw.features.cache_choice import CacheChoice, When
from thaw.finetune.plan import Phase, PhaseSettings, Plan, plan_of
from thaw.finetune.plateau import Plateau, check_patience


@dataclass(frozen=True)
class PhaseItem(PhaseSettings):
    """One phase as a user writes it, see `phases`.

    Attributes:
        name: for logs and tables; None: its number.
        start: epoch, from 0.
        groups: what trains besides the head, as `top` of `partial`; 0: nothing, 1.0: all.
        lr_decay, min_lr_ratio, rates: layer-wise rates, where more than the head trains.
        batchnorm: None: "eval".
        plateau: {"patience": 2, "min_delta": 0.0} ends the phase early, see `Plateau`.
    """

    name: str | None = None
    start: int = 0
    groups: Top = 1.0
    lr_decay: float | None = None
    min_lr_ratio: float | None = None
    rates: Rates | None = None
    batchnorm: BatchNormMode | None = None
    plateau: Mapping[str, Any] = field(default_factory=dict)


def phases(
    groups: Groups,
    max_epochs: int,
    *,
    phases: Sequence[Mapping[str, Any]],
    cache_features: When = "auto",
    views: int | None = None,
) -> Plan:
    """Whatever the user writes: a list of phases, each with the settings of `PhaseItem`.

    Args:
        groups, max_epochs: of the model and the trainer; thaw passes both.
        phases: in order.
        cache_features, views: see `CacheChoice`.
    """
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
        names = {HEAD} if item.groups == 0 else top_of(groups, item.groups, f"{key}.groups")
        if names == {HEAD}:
            _check_head_only(item, key)
        rates = layer_rates(
            groups,
            item.lr,
            lr_decay=item.lr_decay,
            min_lr_ratio=item.min_lr_ratio,
            named=item.rates,
            key=key,
        )
        check_named(groups, item.rates, names, key)
        plateau = _plateau(item.plateau, f"{key}.plateau")
        if plateau.patience is not None:
            if end == max_epochs:
                raise ConfigError(
                    f"{key}.plateau.patience={plateau.patience}: has no effect, since this is the "
                    "last phase; use callbacks=early_stopping to end the run"
                )
            check_patience(f"{key}.plateau.patience", plateau.patience, end - item.start)
        shared = {part.name: getattr(item, part.name) for part in fields(PhaseSettings)}
        made.append(
            Phase(
                item.name or f"phase {number}", item.start, end,
                {name: rate for name, rate in rates.items() if name in names},
                PhaseSettings(**shared), item.batchnorm or "eval",
                plateau, key=key,
            )
        )  # fmt: skip
    return plan_of("phases", groups, made, CacheChoice(cache_features, views))


def _item(number: int, given: Mapping[str, Any]) -> PhaseItem:
    key = f"finetune.phases.{number}"
    _check_keys(given, PhaseItem, key)
    if "lr" not in given:
        raise ConfigError(f"{key}.lr: is needed and not given")
    if given.get("groups", 0) is None:
        raise ConfigError(f"{key}.groups=null: leave it out for all, or 0 for the head alone")
    return PhaseItem(**given)


def _plateau(given: Mapping[str, Any], key: str) -> Plateau:
    _check_keys(given, Plateau, key)
    return Plateau(**given)


def _check_keys(given: Any, kind: type, key: str) -> None:
    known = [part.name for part in fields(kind)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}={shown(given)}: allowed is a mapping of {', '.join(known)}")
    for name, value in given.items():
        if name not in known:
            raise ConfigError(
                f"{key}.{name}={shown(value)}: nothing reads this key{near(str(name), known)}. "
                f"Allowed: {', '.join(known)}"
            )


def _check_head_only(item: PhaseItem, key: str) -> None:
    for name in ("lr_decay", "min_lr_ratio", "batchnorm"):
        if (value := getattr(item, name)) is not None:
            raise ConfigError(
                f"{key}.{name}={value}: has no effect in a phase that trains the head alone "
                f"({key}.groups={item.groups}); leave it out"
            )
