"""The command line around a run: choices without a file, `resume=`, errors as one paragraph."""

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, KeysView, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Sweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from thaw.errors import ConfigError, Interrupted, PhotoError, ThawError, near, reason, trouble
from thaw.ranges import check_ranges, leaves
from thaw.stopping import ignore_signals, signals
from thaw.store import last_checkpoints
from thaw.trust import conf_dir, saved_words


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wraps what `hydra.main` returns: all backbones, `resume=`, errors as one paragraph."""
    register_backbones()

    def program() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
        signals.handle()
        with explained():
            sys.argv[1:] = resume_words(sys.argv[1:])
            check_choices(sys.argv[1:])
        with explained(sys.argv[1:]):
            main()

    return program


@contextmanager
def explained(words: Sequence[str] = (), folder: Path | None = None) -> Iterator[None]:
    """Ends the program with one paragraph about an error that the user can mend, or a stop.

    `words` are the command line; `folder`, of the run if it has one by now, says how to go on.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        ignore_signals()
        said, code = "stopped", 128 + number  # as shells and schedulers expect
    except (ThawError, HydraException, OmegaConfBaseException) as error:
        said, code = f"error: {in_words(error, words)}", 1
        folder = folder if isinstance(error, PhotoError) else None  # or settings must change
    except Exception as error:  # what `trouble` does not know is raised again
        if not (what := trouble(error)):
            raise
        said, code = f"error: {what}", 1
    else:
        return
    if folder and last_checkpoints(folder):
        said += f"; go on with: python train.py {shlex.quote(f'resume={folder}')}"
    print(f"\n{said}", file=sys.stderr)
    raise SystemExit(code)


def key_of(word: str) -> str:
    """ "+trainer.devices=2" -> "trainer.devices"."""
    return word.lstrip("+~").partition("=")[0]


def quoted(value: object) -> str:
    """A value as Hydra's command line takes it, whatever characters are in it."""
    return "'" + re.sub(r"(\\+)(?='|\Z)", r"\1\1", str(value)).replace("'", r"\'") + "'"


def check_choices(words: Sequence[str]) -> None:
    """Refuses words that Hydra cannot read, that are no choice, or choose from one group twice."""
    seen: dict[str, str] = {}
    for word in words:
        if "=" not in word or word[0] == "-":
            continue  # an option, or its value
        try:
            value = OverridesParser.create().parse_override(word).value()
        except HydraException as error:
            key, _, text = word.partition("=")
            quotes = f"quotes around a value with signs in it may help: \"{key}='{text}'\""
            message = f"{word}: cannot be read as KEY=VALUE ({reason(error)}); {quotes}"
            raise ConfigError(message) from error
        key = key_of(word)
        for each in value.list if isinstance(value, ChoiceSweep) else [value]:
            if key == "task_name":
                check_ranges({key: getattr(each, "text", each)})
        if word[0] == "~" or not (conf_dir() / key).is_dir():
            continue
        several = isinstance(value, list) and key in ("callbacks", "logger", "experiment", "debug")
        if not several and not isinstance(value, str | Sweep):
            raise ConfigError(f"{word}: no such choice. Allowed is one of the files of conf/{key}/")
        if seen.setdefault(key, word) is not word:
            both = f"{seen[key]} {word}: {key} is chosen twice"
            raise ConfigError(f"{both}; leave one out, or sweep over them: -m {key}=ONE,TWO")


def resume_words(words: Sequence[str]) -> list[str]:
    """`resume=<run dir>` -> the command line of that run, with what stands beside it added.

    A setting given beside `resume` replaces the saved one of the same key. Applying the function to
    its own result changes nothing, because Lightning starts further ranks with that command line.
    """

    def is_override(word: str) -> bool:  # the others are options, which argparse wants first
        return bool(re.match(r"~|[^-].*=", word))

    words = sorted(words, key=is_override)
    chosen = [word for word in words if word.startswith("resume=")]
    if not chosen or chosen[-1] in ("resume=", "resume=null"):
        return words
    text = chosen[-1].removeprefix("resume=")
    if text[0] in "'\"":  # as `quoted` writes it, for the next rank
        text = OverridesParser.create().parse_override(chosen[-1]).value()
    folder = Path(str(text)).expanduser()
    file = folder / ".hydra" / "hydra.yaml"
    if not file.is_file():
        message = f"resume={folder}: no run to go on from ({file} is missing)"
        raise ConfigError(f"{message}; give a run's folder, or a checkpoint by ckpt_path=FILE")
    place = quoted(folder)
    resume_settings = [f"resume={place}", f"hydra.run.dir={place}", "hydra.mode=RUN"]
    given = [word for word in words if key_of(word) not in map(key_of, resume_settings)]
    replaced = {"resume", "trust", *map(key_of, given)}
    if last_checkpoints(folder):  # else the run starts anew, from its own ckpt_path if it has one
        two = "ckpt_path" in replaced and "ckpt_path=null" not in given
        if two and not set(resume_settings) <= set(words):  # which are this function's result
            raise ConfigError(f"resume={folder} ckpt_path=...: give one of the two")
        replaced.add("ckpt_path")
    saved = [word for word in saved_words(file, trusted="trust=true" in given)
             if key_of(word) not in replaced]  # fmt: skip
    # Hydra applies words in turn: those beside `resume` win, also inside of a saved mapping
    return sorted([*saved, *given, *resume_settings], key=is_override)


def in_words(error: Exception, words: Sequence[str]) -> str:
    """What Hydra found wrong with the words of a command line, in one paragraph."""
    cause = error if isinstance(error, ThawError) else error.__cause__
    if isinstance(cause, ThawError):
        return reason(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = error.options or []
        known = ", ".join(options) if len(options) < 30 else "see python train.py --help"
        return f"{group}={name}: no such choice. Allowed: {known}{near(name, options)}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        key, node = cause.full_key, cause.parent_node
        above, _, name = key.rpartition(".")
        given = next((word for word in words if f"{key_of(word)}.".startswith(f"{key}.")), key)
        has = [str(other) for other in node if str(other)[0] != "_"]
        settings: Any = OmegaConf.to_container(node._get_root(), resolve=False)
        places = [place for place, _ in leaves({**settings, "hydra": None})]
        meant = near(name, has) or near(name, {at.rpartition(".")[2] for at in places}, places)
        but = f"but {', '.join(has)}" if has else f"nor others; choose {above}=... or add +{given}"
        choice = next((word for word in words if key_of(word) == above and "," in word), "")
        # Hydra composes a sweep before its jobs, with the default choice
        meant = f"; beside {choice} write '{key}=choice(VALUE)'" if choice else meant
        return f"{given}: {above or 'train.yaml'} has no {name}, {but}{meant}"
    message = " ".join(str(error).split()).partition(" See https://hydra.cc")[0]
    if key := getattr(error, "full_key", None):  # of what stands in ${...}
        return f"{key}: {message.partition(' full_key:')[0]}; give a value without ${{...}}"
    return f"{message}. A setting is KEY=VALUE" if "missing EQUAL" in message else message


def torchvision_names() -> list[str]:
    """Names of torchvision's classifiers, read from its source: importing it takes seconds."""
    folder = distribution("torchvision").locate_file("torchvision/models")
    pattern = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    text = "".join(file.read_text("utf-8") for file in Path(str(folder)).glob("*.py"))
    return sorted(pattern.findall(text))


class TimmNames(dict[str, ConfigNode]):
    """Any timm name is a choice; whether timm has it is checked when the backbone is built."""

    def __contains__(self, file: object) -> bool:
        return str(file).endswith(".yaml")

    def keys(self) -> KeysView[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {"<any name of timm>.yaml": None}.keys()

    def __missing__(self, file: str) -> ConfigNode:
        name = file.removesuffix(".yaml")
        node = OmegaConf.create({"defaults": ["/backbone/timm@_here_", "_self_"], "name": name})
        return ConfigNode(file, node, group="backbone/timm", package="backbone", provider="timm")


def register_backbones() -> None:
    """Makes each torchvision model and each `timm/<name>` a choice, as if it had a file."""
    store = ConfigStore.instance()
    # Hydra copies this store for each group that --help lists, which takes 3 of 4.3 seconds.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]
    for name in torchvision_names():
        node = {"defaults": ["torchvision", "_self_"], "name": name}
        store.store(group="backbone", name=name, node=node, provider="torchvision")
    store.repo["backbone"]["timm"] = TimmNames()
