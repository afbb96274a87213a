"""The command line around a run: choices without a file, `resume=`, errors as one paragraph."""

import functools
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, KeysView, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import ConfigError, Interrupted, ThawError, near, reason


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Adds to what `hydra.main` returns: all backbones, `resume=`, sweeps, errors in words."""
    register_backbones()

    @functools.wraps(main)
    def program() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
        with explained():
            sys.argv[1:] = words = resume_words(sys.argv[1:])
            check_choices(words)
            try:
                main()
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError(in_words(error, words)) from error

    return program


def is_first_rank() -> bool:
    """Whether this process is rank 0 of its run, as Lightning, torchrun and SLURM tell it."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def torchvision_names() -> list[str]:
    """Names of torchvision's classification models, read from its source without importing it.

    Importing it takes seconds, and `--help`, `--cfg` and shell completion should not.
    """
    package = importlib.util.find_spec("torchvision")
    assert package is not None
    assert package.origin is not None
    pattern = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    files = (Path(package.origin).parent / "models").glob("*.py")
    return sorted(name for file in files for name in pattern.findall(file.read_text("utf-8")))


class TimmNames(dict[str, ConfigNode]):
    """Every name is a choice, `backbone=timm/<name>`, as if it had a file in conf/backbone/timm/.

    Whether timm knows the name is asked when the backbone is built: importing timm takes seconds,
    and it may not be installed.
    """

    def __contains__(self, file: object) -> bool:
        return str(file).endswith(".yaml")

    def keys(self) -> KeysView[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What `--help` shows."""
        return {"<any name of timm>.yaml": None}.keys()

    def __missing__(self, file: str) -> ConfigNode:
        name = file.removesuffix(".yaml")
        node = OmegaConf.create({"defaults": ["/backbone/timm@_here_", "_self_"], "name": name})
        return ConfigNode(file, node, group="backbone/timm", package="backbone", provider="timm")


def register_backbones() -> None:
    """Makes each torchvision model and each `timm/<name>` a choice, as if it had a file."""
    store = ConfigStore.instance()
    # Hydra copies its whole repository, this store in it, for each group that --help lists (3 of
    # 4.3 seconds); the store is one for the process, and what is loaded from it is copied anyway.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]
    for name in torchvision_names():
        node = {"defaults": ["torchvision", "_self_"], "name": name}
        store.store(group="backbone", name=name, node=node, provider="torchvision")
    store.repo["backbone"]["timm"] = TimmNames()


def conf_dir() -> Path:
    """The folder conf/: of the current directory where there is one, else beside this package.

    Raises:
        ConfigError: there is none.
    """
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / "conf" / "train.yaml").is_file():
            return root / "conf"
    raise ConfigError("no conf/train.yaml here: run this in a checkout of thaw")


def files_of(group: str) -> dict[str, list[str]]:
    """The choices that have a file in conf/<group>/ -> the keys in it."""
    return {
        file.stem: [
            str(key) for key in yaml.safe_load(file.read_text("utf-8")) or () if key != "defaults"
        ]
        for file in sorted((conf_dir() / group).glob("*.yaml"))
    }


def compose_run(words: Sequence[str], **options: bool) -> DictConfig:
    """The configuration that `python train.py <words>` would run with; paths.output_dir is null.

    Args:
        words: settings and choices, as on the command line.
        options: of Hydra's `compose`.

    Raises:
        ConfigError: a word that does not fit.
    """
    register_backbones()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return compose("train", [*words, "paths.output_dir=null"], **options)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(in_words(error, words)) from error


def key_of(word: str) -> str:
    """ "+trainer.devices=2" -> "trainer.devices"."""
    return word.lstrip("+~").partition("=")[0]


def is_choice(word: str) -> bool:
    """Whether a word chooses from a group, which is a folder in conf/."""
    return "=" in word and (conf_dir() / key_of(word)).is_dir()


def quoted(value: object) -> str:
    """A value as Hydra's command line takes it, whatever characters are in it."""
    text = re.sub(r"(\\+)(?='|$)", r"\1\1", str(value)).replace("'", r"\'")
    return f"'{text}'"


def check_choices(words: Sequence[str]) -> None:
    """Refuses two choices from one group, of which Hydra would silently use the last.

    Raises:
        ConfigError: both of them.
    """
    seen: dict[str, str] = {}
    for word in filter(is_choice, words):
        group, _, name = word.partition("=")
        if group in seen:
            both = f"{group}={seen[group]} {word}"
            raise ConfigError(
                f"{both}: {group} is chosen twice; leave one out, or compare them in a sweep: "
                f"-m {group}={seen[group]},{name}"
            )
        seen[group] = name


def saved_words(file: Path, key: str = "") -> list[str]:
    """The words of a command line that Hydra saved, settings and choices.

    Args:
        file: overrides.yaml of a run or multirun.yaml of a sweep.
        key: where in the file they stand.

    Raises:
        ConfigError: the file is missing, cut or damaged.
    """
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
        for part in filter(None, key.split(".")):
            content = content[part]
        if isinstance(content, list) and all(re.match(r"[+~]*\w", str(word)) for word in content):
            return [str(word) for word in content]
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        pass
    raise ConfigError(f"{file}: is missing or damaged, so the settings are not known; start anew")


def resume_words(words: Sequence[str]) -> list[str]:
    """`resume=<run dir>` -> the command line of that run, with what stands beside it added.

    The run goes on in its own folder, with its own settings: those that Hydra saved there. A word
    beside `resume=` replaces the saved one of the same key, so that the result can be read again:
    Lightning starts further ranks with it.

    Args:
        words: of the command line, without the program's name.

    Raises:
        ConfigError: the folder is no run of thaw.
    """
    chosen = [word for word in words if word.startswith("resume=")]
    if not chosen or chosen[-1] in ("resume=", "resume=null"):
        return list(words)
    folder = Path(chosen[-1].removeprefix("resume=").strip("'\"")).expanduser()
    if not (folder / ".hydra").is_dir():
        raise ConfigError(
            f"resume={folder}: no run to go on from ({folder / '.hydra'} is missing). Give the "
            "folder of a run, like logs/train/runs/2026-01-31_12-00-00, or a checkpoint with "
            "ckpt_path=FILE"
        )
    place = quoted(folder)
    ours = [f"resume={place}", f"hydra.run.dir={place}", "hydra.mode=RUN"]  # a search's is MULTIRUN
    given = [word for word in words if key_of(word) not in map(key_of, ours)]
    replaced = {"resume", "ckpt_path", *map(key_of, given)}
    saved = saved_words(folder / ".hydra" / "overrides.yaml")
    return [*(word for word in saved if key_of(word) not in replaced), *given, *ours]


def checkpoints(folder: str | Path) -> list[Path]:
    """Those of a run folder that a run can go on from."""
    names = ("last.ckpt", "interrupted.ckpt")
    return [path for name in names if (path := Path(folder) / "checkpoints" / name).is_file()]


def last_checkpoint(folder: str | Path) -> Path:
    """The checkpoint of a run folder that is furthest along.

    Raises:
        ConfigError: it has none.
    """
    if found := checkpoints(folder):
        return max(found, key=lambda path: path.stat().st_mtime_ns)
    raise ConfigError(
        f"resume={folder}: no last.ckpt or interrupted.ckpt in {Path(folder) / 'checkpoints'}; "
        "the run ended before its first epoch did, so start it again without resume"
    )


@contextmanager
def explained() -> Iterator[None]:
    """Errors that the user can mend end the program with one paragraph instead of a stack.

    Exits with 1, or with 130 after Ctrl-C or SIGTERM, as shells expect.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        folder = stop.folder if isinstance(stop, Interrupted) else None
        again = f"; go on with: python train.py resume={folder}" if folder else ""
        print(f"\nstopped{again}", file=sys.stderr)
        raise SystemExit(130) from None
    except ThawError as error:
        print(f"\nerror: {reason(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def in_words(error: Exception, words: Sequence[str]) -> str:
    """What Hydra found wrong with the words of a command line, in one paragraph."""
    if isinstance(error.__cause__, ThawError):
        return str(error.__cause__)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = error.options or []
        known = ", ".join(options) if len(options) < 30 else "see python train.py --help"
        plugin = (
            "; a plugin of Hydra that is not installed? pip install '.[slurm,optuna]'"
            * group.startswith("hydra")
        )
        return f"{group}={name}: no such choice. Allowed: {known}{near(name, options)}{plugin}"
    wrong = re.match(r"Could not override '(.+?)'", str(error))
    return (wrong and _no_such_key(wrong[1], words)) or " ".join(str(error).split())


def _no_such_key(key: str, words: Sequence[str]) -> str | None:
    """Says which choice lacks a key, what it has, and which choices have the key."""
    group = key.partition(".")[0]
    given = next((word for word in words if key_of(word) == key), key)
    choices = [word for word in words if is_choice(word) and key_of(word) != group]
    others = [word for word in choices if "," not in word]  # what else a sweep varies is no matter
    options = [word for word in words if is_choice(word) and key_of(word) == group]
    for option in options[0].partition("=")[2].split(",") if options else [""]:
        try:
            chosen = [*others, f"{group}={option}"] if option else others
            node = cfg = compose_run(chosen, return_hydra_config=True)
        except ConfigError:
            return None
        for part in key.split("."):
            if not OmegaConf.is_dict(node) or part not in node:
                choice = cfg.hydra.runtime.choices.get(group)
                place = f"{group}={choice}" if choice else "train.yaml"
                has = [str(name) for name in node if str(name)[0] != "_" and name != "hydra"]
                there = [
                    f"{group}={name}" for name, keys in files_of(group).items() if part in keys
                ]
                hint = f"; {part} is a key of {', '.join(there)}" if there else near(part, has)
                return f"{given}: {place} has no {part}, but {', '.join(has)}{hint}"
            node = node[part]
    return f"{given}: in a sweep over {group} write '{key}=choice({given.partition('=')[2]})'"
