"""The modes of fine-tuning: each writes the list of phases of a run.

One function per file in conf/finetune/; its keyword arguments are the settings there.
"""

from collections.abc import Sequence

from thaw.classifier import HEAD, BatchNormMode
from thaw.errors import ConfigError
from thaw.optim import Schedule, layer_rates
from thaw.plan import Phase, Plan


def freeze_unfreeze(
    groups: Sequence[str],
    max_epochs: int,
    *,
    unfreeze_epoch: int,
    frozen: Schedule,
    unfrozen: Schedule,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    batchnorm: BatchNormMode = "train",
) -> Plan:
    """Train the head on the frozen body, then everything with layer-wise rates.

    Args:
        groups, max_epochs: of the model and of the trainer; thaw passes both.
        unfreeze_epoch: number of epochs before the body is unfrozen.
        frozen, unfrozen: rates and schedules of the two phases.
        lr_decay, min_lr_ratio: layer-wise rates once unfrozen, one of the two; see `layer_rates`.
        batchnorm: of the body once unfrozen. "eval" keeps the pretrained statistics.

    Raises:
        ConfigError: a setting that cannot work in this many epochs.
    """
    if not 1 <= unfreeze_epoch < max_epochs:
        raise ConfigError(
            f"finetune.unfreeze_epoch={unfreeze_epoch}: allowed is 1 to {max_epochs - 1}, below "
            f"trainer.max_epochs={max_epochs}; else use finetune=feature_extraction (never "
            "unfreeze) or finetune=full (from the start)"
        )
    _check_layer_rates(lr_decay, min_lr_ratio)
    _check_batchnorm(batchnorm)
    frozen.check("finetune.frozen", unfreeze_epoch)
    unfrozen.check("finetune.unfrozen", max_epochs - unfreeze_epoch)
    rates = layer_rates(groups, unfrozen.lr, lr_decay=lr_decay, min_lr_ratio=min_lr_ratio)
    return Plan(
        "freeze_unfreeze",
        tuple(groups),
        (
            Phase("frozen", 0, unfreeze_epoch, {HEAD: frozen.lr}, frozen, "eval"),
            Phase("unfrozen", unfreeze_epoch, max_epochs, rates, unfrozen, batchnorm),
        ),
    )


def feature_extraction(groups: Sequence[str], max_epochs: int, *, frozen: Schedule) -> Plan:
    """Train the head only.

    Args:
        groups, max_epochs: of the model and of the trainer; thaw passes both.
        frozen: rate and schedule of the head.

    Raises:
        ConfigError: a setting that cannot work in this many epochs.
    """
    frozen.check("finetune.frozen", max_epochs)
    phase = Phase("frozen", 0, max_epochs, {HEAD: frozen.lr}, frozen, "eval")
    return Plan("feature_extraction", tuple(groups), (phase,))


def full(
    groups: Sequence[str],
    max_epochs: int,
    *,
    unfrozen: Schedule,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    batchnorm: BatchNormMode = "train",
) -> Plan:
    """Train everything from the first epoch.

    Args:
        groups, max_epochs: of the model and of the trainer; thaw passes both.
        unfrozen: rate and schedule.
        lr_decay, min_lr_ratio: layer-wise rates, one of the two or none; see `layer_rates`.
        batchnorm: of the body. "eval" keeps the pretrained statistics.

    Raises:
        ConfigError: a setting that cannot work in this many epochs.
    """
    _check_layer_rates(lr_decay, min_lr_ratio)
    _check_batchnorm(batchnorm)
    unfrozen.check("finetune.unfrozen", max_epochs)
    rates = layer_rates(groups, unfrozen.lr, lr_decay=lr_decay, min_lr_ratio=min_lr_ratio)
    phase = Phase("unfrozen", 0, max_epochs, rates, unfrozen, batchnorm)
    return Plan("full", tuple(groups), (phase,))


def from_scratch(groups: Sequence[str], max_epochs: int, *, unfrozen: Schedule) -> Plan:
    """Train everything at one rate, BatchNorm statistics too, from random weights.

    `conf/finetune/from_scratch.yaml` sets `backbone.weights` to null with it.

    Args:
        groups, max_epochs: of the model and of the trainer; thaw passes both.
        unfrozen: rate and schedule.

    Raises:
        ConfigError: a setting that cannot work in this many epochs.
    """
    unfrozen.check("finetune.unfrozen", max_epochs)
    rates = dict.fromkeys(groups, unfrozen.lr)
    phase = Phase("unfrozen", 0, max_epochs, rates, unfrozen, "train")
    return Plan("from_scratch", tuple(groups), (phase,))


def _check_layer_rates(lr_decay: float | None, min_lr_ratio: float | None) -> None:
    if lr_decay is not None and min_lr_ratio is not None:
        raise ConfigError(
            f"finetune.lr_decay={lr_decay} and finetune.min_lr_ratio={min_lr_ratio}: give one, "
            "exponential or linear rates, and set the other to null"
        )
    for key, value in (("lr_decay", lr_decay), ("min_lr_ratio", min_lr_ratio)):
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"finetune.{key}={value}: allowed is above 0 to 1, or null")


def _check_batchnorm(batchnorm: str) -> None:
    if batchnorm not in ("eval", "train"):
        raise ConfigError(f"finetune.batchnorm={batchnorm}: allowed are eval, train")
