"""What a folder of a run or a sweep may set: it may come from a stranger, so it is only data."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString, Sweep
from hydra.errors import HydraException

from thaw.errors import ConfigError

TORCH = re.compile(r"torch\.optim\.(lr_scheduler\.)?[A-Z]\w*")  # a class, in no module below


def saved(file: Path) -> dict[str, Any]:
    """The node `hydra` of Hydra's hydra.yaml or multirun.yaml, with its overrides.

    Raises:
        ConfigError: The file is cut, empty, or not what Hydra writes.
    """
    try:
        node = yaml.safe_load(file.read_text("utf-8"))["hydra"]
        for words in (node["overrides"]["task"], node["overrides"].get("hydra", [])):
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise TypeError
        return node
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError,
            yaml.YAMLError) as error:  # fmt: skip
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> ConfigError:
    """What is said of such a file that is cut, empty or made by hand."""
    return ConfigError(
        f"{file}: is not as Hydra writes it ({type(error).__name__}), so the settings of the run "
        "are unknown; give them again, with ckpt_path=CHECKPOINT to go on from that"
    )


def check_sweep(words: Sequence[str], file: Path, *, is_same: bool) -> None:
    """Refuses flags and Hydra's settings of a sweep that could run more than this train.py does.

    `is_same` says whether the folder that the sweep was started in has no conf/ of its own.
    """
    if trusts():
        return
    for word in words:
        if not re.fullmatch(r"--config-name=\w+|hydra\.launcher\.n_jobs=\d+", word):
            raise _refusal(word, file, "sets the program itself")
    if not is_same:
        raise _refusal("runtime.cwd", file, "is a folder with a conf/ and a train.py of its own")


def saved_words(file: Path, conf: Path, *, trusted: bool = False) -> list[str]:
    """The settings and choices in such a file; if it is not trusted, none that conf/ does not know.

    Raises:
        ConfigError: One of them could run code or reach beyond conf/.
    """
    words: list[str] = saved(file)["overrides"]["task"]
    if trusted or trusts():
        return words
    parser, texts = OverridesParser.create(), (f.read_text("utf-8") for f in conf.rglob("*.yaml"))
    known = {name for text in texts for name in re.findall(r"\b_target_: *(\S+)", text)}
    kept: list[str] = []
    for word in words:
        try:
            override = parser.parse_override(word)
            plain = [*_plain(override.value())]
        except HydraException:
            raise _refusal(word, file, "is no setting") from None
        key = override.key_or_group
        if re.match(r"hydra\b", key) or "hydra" in (override.package or ""):
            raise _refusal(word, file, "sets the program itself")
        if "${" in word:  # could read the environment, or put the name of a class together
            raise _refusal(word, file, "is computed")
        names = [str(value) for _, value in plain] if (conf / key).is_dir() else []
        if any(".." in name or name.startswith("/") for name in [key, *names]):
            raise _refusal(word, file, "chooses outside of conf/")
        for name, value in plain:
            is_target = "_target_" in f"{key} {name}"
            if is_target and not (value in known or TORCH.fullmatch(str(value))):
                raise _refusal(word, file, f"names {value}, which no file of conf/ names")
        kept += [] if key == "trust" else [word]
    return kept


def _plain(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in what Hydra's parser gives, each with its key in the mapping it is in."""
    if isinstance(value, QuotedString):
        yield name, value.text
    elif isinstance(value, ChoiceSweep):
        yield from _plain(value.list, name)
    elif isinstance(value, Sweep):
        yield name, None
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _plain(part, key.text if isinstance(key, QuotedString) else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _plain(part, name)
    else:
        yield name, value


def trusts() -> bool:
    """Whether `thaw sweep resume --trust` started this process."""
    return os.environ.get("THAW_TRUST") == "1"


def _refusal(word: str, file: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{word}: {what}, and it stands in {file}, which may be a stranger's. If you trust that "
        "folder as your own code: trust=true beside resume=, or thaw sweep resume --trust"
    )
