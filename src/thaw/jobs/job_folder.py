"""Folders of runs and of a sweep's jobs: no two share one, and a job's says what differs."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from thaw.errors import ConfigError

LONGEST = 120  # ASCII characters of a name; file systems take 255, encrypted ones 143


def key_of(word: str) -> str:
    """ "+trainer.devices=2" -> "trainer.devices"."""
    return word.lstrip("+~").partition("=")[0]


def differing(overrides: Sequence[str], fixed: Sequence[str]) -> list[str]:
    """The overrides of a job in which it differs from others of its sweep.

    Args:
        overrides: of the job.
        fixed: keys that have one value in all jobs.
    """
    return [word for word in overrides if key_of(word) not in fixed]


def folder_name(number: int, overrides: Sequence[str], fixed: Sequence[str] = ()) -> str:
    """ "3_backbone-resnet18_frozen.lr-1e-3" for a job's folder.

    Keys are as short as they can be told apart, and no character is one that a file system or
    Hydra's command line takes for something else. The number alone makes it unique.

    Args:
        number: of the job.
        overrides: of the job.
        fixed: keys that have one value in all jobs; left out.
    """
    words = differing(overrides, fixed)
    parts = [str(number), *(_safe(word.replace("=", "-", 1)) for word in shortened(words))]
    name = "_".join(parts)
    if len(name) > LONGEST:
        digest = hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
        name = f"{name[: LONGEST - 9]}-{digest}"
    return name


def shortened(words: Sequence[str]) -> list[str]:
    """ "finetune.frozen.lr=0.00123456789" -> "lr=0.001235", unless another key ends in lr too."""
    keys = [re.split(r"[./]", key_of(word)) for word in words]
    short = []
    for word, key in zip(words, keys, strict=True):
        others = [f".{'.'.join(other)}" for other in keys if other is not key]
        tails = (".".join(key[-length:]) for length in range(1, len(key) + 1))
        alone = (tail for tail in tails if not any(other.endswith(f".{tail}") for other in others))
        short.append(f"{next(alone, '.'.join(key))}={_short(word.partition('=')[2])}")
    return short


def _short(value: str) -> str:
    """Four digits of a number that a search drew; all else as it is."""
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value


def _safe(text: str) -> str:
    return re.sub(r"-*[^\w.+-]+-*", "-", text, flags=re.ASCII).rstrip("-.")


def claim(folder: Path) -> Path:
    """Makes a new folder of this name, or, where there is one, with _2, _3, ... behind it.

    Two processes never get the same: the system makes a folder once.

    Raises:
        ConfigError: the system refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made ({error}); set paths.root_dir=... to where outputs may go"
        ) from error
    raise AssertionError
