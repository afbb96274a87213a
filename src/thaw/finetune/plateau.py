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
