"""What a folder of a run or a sweep may set: it may come from a stranger, so it is only data."""

import os
import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from thaw.errors import ConfigError, reason
from thaw.store import read_plain

# Hydra's grammar has no quotes around a key, and no escapes for letters.
TARGET = re.compile(r"""\b_target_ *[:=] *["']?([\w.]+)(?=["',}\])\s]|$)""")
TORCH = re.compile(r"torch\.optim\.(lr_scheduler\.)?[A-Z]\w*")  # a class, in no module below


def conf_dir() -> Path:
    """The folder conf/ of the current directory if that is a thaw project, else thaw's own."""
    here = Path.cwd()
    is_ours = (here / "conf" / "train.yaml").is_file() and (here / "train.py").is_file()
    return (here if is_ours else Path(__file__).resolve().parents[2]) / "conf"


def saved(file: Path) -> dict[str, Any]:
    """The node `hydra` of Hydra's hydra.yaml or multirun.yaml; ConfigError: it is damaged."""
    try:
        node = read_plain(file)["hydra"]
        for words in (node["overrides"]["task"], node["overrides"].get("hydra", [])):
            if not isinstance(words, list) or any("\0" in word for word in words):
                raise TypeError
            "".join(words)  # a TypeError where one is no text
        return node
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> ConfigError:
    """What is said of such a file that is cut, empty or made by hand."""
    hint = "Give a folder that a run or sweep printed, or all settings and ckpt_path=CHECKPOINT"
    return ConfigError(f"{file}: is not as Hydra writes it ({reason(error)}). {hint}")


def saved_words(file: Path, *, trusted: bool = False) -> list[str]:
    """The settings and choices in such a file; refuses what could run code or leave conf/."""
    words: list[str] = saved(file)["overrides"]["task"]
    if trusted:
        return words
    conf = conf_dir()
    texts = (yaml_file.read_text("utf-8") for yaml_file in conf.rglob("*.yaml"))
    known = {name for text in texts for name in TARGET.findall(text)}
    for word in words:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            refuse(word, file, "is no setting")
            continue
        key, names = override.key_or_group, TARGET.findall(word)
        unknown = [name for name in names if name not in known and not TORCH.fullmatch(name)]
        reasons = {
            "sets the program itself": re.search(r"^hydra\b|@.*hydra", f"{key}@{override.package}"),
            "is computed": "${" in word,  # could read the environment, or make the name of a class
            "chooses outside of conf/": ".." in key
            or ((conf / key).is_dir() and re.search(r"\.\.|(^|\W)/", word)),
            "names a class that no file of conf/ names": unknown
            or word.count("_target_") != len(names),
        }
        for what, is_so in reasons.items():
            if is_so:
                refuse(word, file, what)
    return [word for word in words if word.lstrip("+~").partition("=")[0] != "trust"]


def refuse(word: str, file: Path, what: str) -> None:
    """Raises a ConfigError about a word of such a file, unless the folder is trusted."""
    if os.environ.get("THAW_TRUST") != "1":  # which `thaw sweep resume --trust` sets
        fault = f"{what}, and it stands in {file}, which may be a stranger's"
        ways = "resume=... trust=true, thaw sweep resume --trust or THAW_TRUST=1 thaw evaluate"
        raise ConfigError(f"{word}: {fault}. If you trust that folder as your own code: {ways}")
