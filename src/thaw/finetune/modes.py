"""The modes of fine-tuning: each writes the list of phases of a run.

One function per file in conf/finetune/; its keyword arguments are the settings there. All take the
model's layer groups (stem first, head last) and the trainer's max_epochs, which thaw passes, and
raise ConfigError for a setting that cannot work, or does nothing, in that many epochs. What several
of them take:

    frozen, unfrozen        schedule and switches of a phase with a frozen and an unfrozen body
    lr_decay, min_lr_ratio, rates
                            layer-wise rates of the unfrozen body, see `layers.layer_rates`
    batchnorm               of the body once unfrozen, see `Classifier`
    unfreeze_epoch          epochs before the body is unfrozen
    unfreeze_on_plateau     unfreeze earlier, when validation gets no better
    cache_features, views   train the head on features that are computed once, see `CacheChoice`
"""

from itertools import pairwise

from thaw.backbones.groups import HEAD
from thaw.backbones.layers import Groups, Rates, Top, check_named, find, layer_rates, top_of
from thaw.classifier import BatchNormMode
from thaw.errors import ConfigError
from thaw.features.cache_choice import CacheChoice, When
from thaw.finetune.plan import Phase, PhaseSettings, Plan, plan_of
from thaw.finetune.plateau import NEVER, Plateau, check_patience, check_plateau


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
    batchnorm: BatchNormMode = "eval",
    unfreeze_on_plateau: Plateau = NEVER,
    cache_features: When = "auto",
    views: int | None = None,
) -> Plan:
    """Train the head on the frozen body, then everything with layer-wise rates."""
    _check_unfreeze(unfreeze_epoch, max_epochs, unfreeze_on_plateau)
    chosen = layer_rates(
        groups, unfrozen.lr, lr_decay=lr_decay, min_lr_ratio=min_lr_ratio, named=rates
    )
    phases = [
        _frozen(groups, unfreeze_epoch, frozen, unfreeze_on_plateau),
        _unfrozen(unfreeze_epoch, max_epochs, chosen, unfrozen, batchnorm),
    ]
    return plan_of("freeze_unfreeze", groups, phases, CacheChoice(cache_features, views))


def feature_extraction(
    groups: Groups,
    max_epochs: int,
    *,
    frozen: PhaseSettings,
    cache_features: When = "auto",
    views: int | None = None,
) -> Plan:
    """Train the head only."""
    phase = _frozen(groups, max_epochs, frozen)
    return plan_of("feature_extraction", groups, [phase], CacheChoice(cache_features, views))


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
    return plan_of("classifier", groups, [phase])


def full(
    groups: Groups,
    max_epochs: int,
    *,
    unfrozen: PhaseSettings,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    rates: Rates | None = None,
    batchnorm: BatchNormMode = "eval",
) -> Plan:
    """Train everything from the first epoch."""
    chosen = layer_rates(
        groups, unfrozen.lr, lr_decay=lr_decay, min_lr_ratio=min_lr_ratio, named=rates
    )
    phase = _unfrozen(0, max_epochs, chosen, unfrozen, batchnorm)
    return plan_of("full", groups, [phase])


def from_scratch(groups: Groups, max_epochs: int, *, unfrozen: PhaseSettings) -> Plan:
    """Train everything at one rate, BatchNorm statistics too, from random weights.

    `conf/finetune/from_scratch.yaml` sets `backbone.weights` to null with it.
    """
    rates = {group.name: unfrozen.lr for group in groups}
    phase = _unfrozen(0, max_epochs, rates, unfrozen, "train")
    return plan_of("from_scratch", groups, [phase])


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
    batchnorm: BatchNormMode = "eval",
    unfreeze_on_plateau: Plateau = NEVER,
    cache_features: When = "auto",
    views: int | None = None,
) -> Plan:
    """Train the head, then the top of the body with it; the rest stays frozen for good.

    Args:
        top: what of the body trains: a number of groups (2), a share of them (0.5), the name of
            the lowest ("layer3"), or a list of names.
    """
    _check_unfreeze(unfreeze_epoch, max_epochs, unfreeze_on_plateau)
    chosen = layer_rates(
        groups, unfrozen.lr, lr_decay=lr_decay, min_lr_ratio=min_lr_ratio, named=rates
    )
    names = top_of(groups, top, "finetune.top")
    trained = {name: rate for name, rate in chosen.items() if name in names}
    check_named(groups, rates, names)
    phases = [
        _frozen(groups, unfreeze_epoch, frozen, unfreeze_on_plateau),
        _unfrozen(unfreeze_epoch, max_epochs, trained, unfrozen, batchnorm),
    ]
    return plan_of("partial", groups, phases, CacheChoice(cache_features, views))


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
    batchnorm: BatchNormMode = "eval",
    unfreeze_on_plateau: Plateau = NEVER,
    cache_features: When = "auto",
    views: int | None = None,
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
        check_patience(key, unfreeze_on_plateau.patience, every_epochs, remedy)
    down = [group.name for group in reversed(groups)]  # head first
    if stop_at is not None:
        found = set(find(groups[:-1], stop_at, "finetune.stop_at"))
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
    chosen = layer_rates(
        groups, unfrozen.lr, lr_decay=lr_decay, min_lr_ratio=min_lr_ratio, named=rates
    )
    check_named(groups, rates, down)
    starts = [unfreeze_epoch + place * every_epochs for place in range(len(down) - 1)]
    phases = [_frozen(groups, unfreeze_epoch, frozen, unfreeze_on_plateau)]
    for place, (start, end) in enumerate(pairwise([*starts, max_epochs])):
        trained = {name: chosen[name] for name in down[: place + 2]}
        plateau = NEVER if end == max_epochs else unfreeze_on_plateau
        phases.append(
            Phase(
                down[place + 1], start, end, trained, unfrozen, batchnorm, plateau,
                key="finetune.unfrozen",
            )
        )  # fmt: skip
    return plan_of("gradual", groups, phases, CacheChoice(cache_features, views))


def _frozen(
    groups: Groups, epochs: int, settings: PhaseSettings, plateau: Plateau = NEVER
) -> Phase:
    return Phase(
        "frozen", 0, epochs, {groups[-1].name: settings.lr}, settings, "eval", plateau,
        key="finetune.frozen",
    )  # fmt: skip


def _unfrozen(
    start: int,
    end: int,
    rates: dict[str, float],
    settings: PhaseSettings,
    batchnorm: BatchNormMode,
) -> Phase:
    return Phase("unfrozen", start, end, rates, settings, batchnorm, key="finetune.unfrozen")


def _check_unfreeze(unfreeze_epoch: int, max_epochs: int, plateau: Plateau) -> None:
    if not isinstance(unfreeze_epoch, int) or not 1 <= unfreeze_epoch < max_epochs:
        raise ConfigError(
            f"finetune.unfreeze_epoch={unfreeze_epoch}: allowed is a whole number from "
            f"1 to {max_epochs - 1}, below trainer.max_epochs={max_epochs}; else use "
            "finetune=feature_extraction (never unfreeze) or finetune=full (from the start)"
        )
    check_plateau(plateau, unfreeze_epoch)
