"""Which settings each file of conf/finetune/ has.

All files have the same keys, so that a sweep over several of them composes. A key that a mode does
not have is null there; a value for it would do nothing, or make the mode another one.
"""

from collections.abc import Mapping
from typing import Any

from thaw.errors import ConfigError

_BODY = ("unfrozen", "lr_decay", "min_lr_ratio", "rates", "batchnorm")
_CACHE = ("cache_features", "cached_views")
_BOTH = ("frozen", "unfreeze_epoch", "unfreeze_on_plateau", *_BODY, *_CACHE)

# name -> what it does, in a few words, and its settings
MODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "freeze_unfreeze": ("unfreezes the whole body at once", _BOTH),
    "partial": ("unfreezes the top of the body at once", ("top", *_BOTH)),
    "gradual": ("unfreezes one group after another", ("top", "every_epochs", *_BOTH)),
    "feature_extraction": ("never unfreezes the body", ("frozen", *_CACHE)),
    "classifier": ("trains the last layers from the first epoch", ("top", *_BODY)),
    "full": ("trains everything from the first epoch", _BODY),
    "from_scratch": ("trains everything from random weights", ("unfrozen",)),
    "phases": ("goes by the list of phases", ("phases", *_CACHE)),
}


def check_mode(mode: str, given: Mapping[str, Any]) -> None:
    """Refuses settings that a mode does not have.

    Args:
        mode: Name of the file in conf/finetune/. One that is not in `MODES` has all settings.
        given: Settings by name; null ones are not given.

    Raises:
        ConfigError: The message names the mode, what it has, and the modes that have the setting.
    """
    does, own = MODES.get(mode, ("", tuple(given)))
    for name in ("frozen", "unfrozen"):
        if mode in MODES and name in own and not as_typed(name, given[name]):
            raise ConfigError(f"finetune.{name}=null: finetune={mode} needs the phase; leave it be")
    for name, value in given.items():
        if name not in own and (typed := as_typed(f"finetune.{name}", value)):
            others = [other for other, (_, settings) in MODES.items() if name in settings]
            raise ConfigError(
                f"finetune={mode} {typed}: this mode {does} and has no {name}; it has "
                f"{', '.join(own)}. Use finetune={' or '.join(others)}"
            )


def as_typed(key: str, value: Any) -> str:
    """Gives the first value that is not null as one types it; nothing where all are null."""
    if isinstance(value, Mapping):
        parts = (as_typed(f"{key}.{name}", part) for name, part in value.items())
        return next((part for part in parts if part), "")
    return "" if value is None else f"{key}={value}"
