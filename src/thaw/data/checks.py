"""What every source checks of its arguments and files, and how it tells what it leaves out."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from thaw.data.photos import Splits
from thaw.errors import ConfigError


def check(key: str, got: object, allowed: bool, rule: str) -> None:
    """Stop with the key as typed, the value got and the values allowed."""
    if not allowed:
        raise ConfigError(f"data.{key}={got} is not allowed: give {rule}.")


def is_whole(value: object, least: int) -> bool:
    """A whole number of `least` or more; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_share(value: object) -> bool:
    """A number from 0 to below 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def check_folds(folds: int | None, fold: int, val_fraction: float | None) -> None:
    """Stop where data.folds, data.fold and data.val_fraction do not go together."""
    if folds is None:
        if fold != 0 or isinstance(fold, bool):
            raise ConfigError(
                f"data.fold={fold} has no effect without data.folds: give the number of folds too, "
                "as data.folds=5, or leave data.fold out."
            )
        return
    check("folds", folds, is_whole(folds, 2), "2 or more, or null for no folds")
    allowed = is_whole(fold, 0) and fold < folds
    check("fold", fold, allowed, f"0 to {folds - 1}, as data.folds={folds}")
    if val_fraction is not None:
        raise ConfigError(
            f"data.val_fraction={val_fraction} has no effect beside data.folds={folds}: each fold "
            f"validates on 1/{folds} of the photos. Set data.val_fraction=null."
        )


def check_present(splits: Splits) -> None:
    """Stop where photos that a split lists are not among the files, naming one of them."""
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    paths = [path for part in parts for path in part.paths]
    names: dict[Path, set[str]] = {}
    for folder in {path.parent for path in paths}:  # one look per folder, not one per photo
        names[folder] = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [path for path in paths if path.name not in names[path.parent]]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(paths)} photos are missing, as {missing[0]}. Copy them "
            f"there, or delete {missing[0].parent} to have it downloaded again."
        )


@rank_zero_only
def say(line: str) -> None:
    """Tell the user about something left out; once, not once per process."""
    print(line, flush=True)
