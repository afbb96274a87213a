"""When a phase ends before its time."""

from dataclasses import dataclass

from thaw.errors import ConfigError


@dataclass(frozen=True)
class Plateau:
    """When a phase ends before its time.

    Attributes:
        patience: epochs in a row without a better value of the monitored metric; None: never.
        min_delta: what counts as better.
    """

    patience: int | None = None
    min_delta: float = 0.0


NEVER = Plateau()


def check_patience(key: str, patience: int, epochs: int, remedy: str = "") -> None:
    """Refuses a patience that can never end a phase of `epochs` epochs early.

    Raises:
        ConfigError: names `key`.
    """
    if not 1 <= patience < epochs - 1:
        raise ConfigError(
            f"{key}={patience}: can never end a phase of {epochs} epochs early; allowed is 1 or "
            f"more, in a phase of patience + 2 or more epochs{remedy}"
        )


def check_plateau(plateau: Plateau, unfreeze_epoch: int) -> None:
    """Refuses settings of finetune.unfreeze_on_plateau that would have no effect."""
    key = "finetune.unfreeze_on_plateau"
    if plateau.patience is None and plateau.min_delta:
        raise ConfigError(
            f"{key}.min_delta={plateau.min_delta}: has no effect without {key}.patience=EPOCHS"
        )
    if plateau.patience is not None:
        check_patience(
            f"{key}.patience", plateau.patience, unfreeze_epoch,
            "; unfreeze_epoch is the latest that the body is unfrozen: raise it",
        )  # fmt: skip
