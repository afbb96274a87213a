"""The command line around a run: choices without a file, `resume=`, errors as one paragraph."""

import importlib.util
import re
import sys
from collections.abc import Iterator, KeysView, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import ConfigError, Interrupted, ThawError, reason


def torchvision_names() -> list[str]:
    """Names of torchvision's classification models, read from its source without importing it.

    Importing it takes seconds, and `--help`, `--cfg` and shell completion should not.
    """
    package = importlib.util.find_spec("torchvision")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(next(iter(package.submodule_search_locations))) / "models"
    pattern = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    return sorted(
        name for file in folder.glob("*.py") for name in pattern.findall(file.read_text("utf-8"))
    )


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
    """Makes every torchvision model a choice of the group `backbone`, as if it had a file there.

    And every `timm/<name>`.
    """
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
    raise ConfigError(
        "no conf/train.yaml here: run this in the checkout of thaw, or in a folder with a conf/ "
        "like its own"
    )


def compose_run(words: Sequence[str]) -> DictConfig:
    """The configuration that `python train.py <words>` would run with.

    Its outputs belong to no run: paths.output_dir is null.

    Args:
        words: settings and choices, as on the command line.

    Raises:
        ConfigError: what Hydra says of a word it does not understand.
    """
    register_backbones()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return compose("train", [*words, "paths.output_dir=null"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{' '.join(words)}: {error}") from error


def resume_arguments(arguments: list[str]) -> list[str]:
    """`resume=<run dir>` -> the command line of that run, with what stands beside it added.

    The run goes on in its own folder, with its own settings: those that Hydra saved there.

    Args:
        arguments: of the command line, without the program's name.

    Raises:
        ConfigError: the folder is no run of thaw.
    """
    chosen = [word for word in arguments if word.startswith("resume=")]
    if not chosen or chosen[-1] in ("resume=", "resume=null"):
        return arguments
    folder = Path(chosen[-1].removeprefix("resume=").strip("'\"")).expanduser()
    saved = folder / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise ConfigError(
            f"resume={folder}: no run to go on from ({saved} is missing). Give the folder of a "
            "run, like logs/train/runs/2026-01-31_12-00-00, or a checkpoint with ckpt_path=FILE"
        )
    before = OmegaConf.load(saved)
    assert isinstance(before, ListConfig)
    kept = [str(word) for word in before if not str(word).startswith(("resume=", "ckpt_path="))]
    added = [word for word in arguments if not word.startswith("resume=")]
    place = quoted(folder)
    return [*kept, *added, f"resume={place}", f"hydra.run.dir={place}", "hydra.mode=RUN"]


def quoted(value: object) -> str:
    """As Hydra's command line takes it, whatever characters are in it."""
    text = re.sub(r"(\\+)(?='|$)", r"\1\1", str(value)).replace("'", r"\'")
    return f"'{text}'"


def last_checkpoint(folder: str | Path) -> Path:
    """The checkpoint of a run folder that is furthest along.

    Raises:
        ConfigError: it has none.
    """
    found = checkpoints(folder)
    if not found:
        raise ConfigError(
            f"resume={folder}: no last.ckpt or interrupted.ckpt in {Path(folder) / 'checkpoints'}; "
            "the run ended before its first epoch did, so start it again without resume"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def checkpoints(folder: str | Path) -> list[Path]:
    """Those of a run folder that a run can go on from."""
    names = ("last.ckpt", "interrupted.ckpt")
    return [path for name in names if (path := Path(folder) / "checkpoints" / name).is_file()]


@contextmanager
def explained() -> Iterator[None]:
    """Errors that the user can mend end the program with one paragraph instead of a stack.

    Exits with 1, or with 130 after Ctrl-C or SIGTERM, as shells expect.
    """
    try:
        yield
    except Interrupted as stop:
        print(f"\nstopped; go on with: python train.py resume={stop.folder}", file=sys.stderr)
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
    except ThawError as error:
        print(f"\nerror: {reason(error)}", file=sys.stderr)
        raise SystemExit(1) from None
