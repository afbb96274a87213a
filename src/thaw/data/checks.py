"""Checks of a source's settings and files."""

from thaw.data.photos import Splits
from thaw.errors import ConfigError


def check(key: str, value: object, allowed: bool, rule: str) -> None:
    """Raise a ConfigError that names the setting, its value and what is allowed."""
    if not allowed:
        raise ConfigError(f"data.{key}={value} is not allowed: give {rule}.")


def is_integer(value: object, least: int) -> bool:
    """Whether the value is an integer of at least `least`; True and False are not integers here."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_fraction(value: object) -> bool:
    """Whether the value is a number from 0 to below 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def check_folds(folds: int | None, fold: int, val_fraction: float | None) -> None:
    """Raise a ConfigError if data.folds, data.fold and data.val_fraction contradict each other."""
    if folds is None:
        rule = "the number of folds too, as data.folds=5, or leave data.fold out"
        check("fold", fold, fold == 0 and not isinstance(fold, bool), rule)
        return
    check("folds", folds, is_integer(folds, 2), "2 or more, or null for no folds")
    allowed = is_integer(fold, 0) and fold < folds
    check("fold", fold, allowed, f"0 to {folds - 1}, as data.folds={folds}")
    rule = f"null, since each of data.folds={folds} validates on 1/{folds} of the photos"
    check("val_fraction", val_fraction, val_fraction is None, rule)


def check_files_exist(splits: Splits) -> None:
    """Raise a ConfigError if a listed photo is not among the files."""
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    paths = [path for part in parts for path in part.paths]
    folders = {path.parent for path in paths}  # listed once each: faster than n lookups
    present = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    missing = [path for path in paths if path not in present]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(paths)} photos are missing, as {missing[0]}. Copy them "
            f"there, or delete {missing[0].parent} to have it downloaded again."
        )
