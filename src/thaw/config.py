"""A configuration node -> an object; nothing the user wrote is ignored.

Hydra refuses unknown keys on the command line, but not in experiment files, and skips nodes without
`_target_`. Here both stop the run.
"""

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import ConfigError, ThawError, near, reason
from thaw.launch import files_of

KEYS = (
    "task_name", "tags", "seed", "monitor", "train", "test", "ckpt_path", "resume",
    "save_backbone", "label_smoothing", "compile", "backbone", "head", "data", "augment", "mix",
    "finetune", "optim", "trainer", "callbacks", "logger", "paths",
)  # fmt: skip


def check_keys(cfg: DictConfig, allowed: Iterable[str] = KEYS) -> None:
    """Refuses top-level keys that nothing reads, as a typo in an experiment file makes them.

    Raises:
        ConfigError: the key and the nearest allowed ones.
    """
    known = list(allowed)
    for key in map(str, cfg):
        if key not in known:
            raise ConfigError(_unknown(key, key, cfg[key], known))


def plain(node: Any) -> Any:
    """A resolved node as dicts, lists, strings, numbers, booleans and None.

    Raises:
        ConfigError: a value that refers to one that is not there.
    """
    if not OmegaConf.is_config(node):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        where = "; outside of python train.py give paths.output_dir=FOLDER" * (
            "Hydra" in str(error)
        )
        raise ConfigError(f"{error.full_key}: has no value ({reason(error)}){where}") from error


def build(
    node: Any, key: str, *, reserved: Mapping[str, str] | None = None, **computed: Any
) -> Any:
    """Calls what `_target_` names with the node's other keys.

    Args:
        node: a mapping with `_target_`; nested mappings with one are built too.
        key: where the node stands ("data"), for messages.
        reserved: arguments of the target that are set elsewhere -> where.
        computed: arguments that the program knows and the user must not give.

    Raises:
        ConfigError: no `_target_`, a target that does not exist, an unknown or a missing key, a
            package that is not installed.
    """
    settings = plain(node)
    for name, place in (reserved or {}).items():
        if isinstance(settings, Mapping) and name in settings:
            raise ConfigError(f"{key}.{name}={settings[name]}: is set by {place}; leave it out")
    _check_node(settings, key, computed)
    try:
        # Filled in first and called after: Hydra would turn computed dataclasses into mappings.
        made = instantiate(OmegaConf.create({**settings, "_partial_": True}), _convert_="all")
        return (
            functools.partial(made, **computed) if settings.get("_partial_") else made(**computed)
        )
    except InstantiationException as error:  # of a nested node
        raise error.__cause__ if isinstance(error.__cause__, ThawError) else error from None
    except ModuleNotFoundError as error:  # a logger's own package, most of all
        raise ConfigError(
            f"{key}: {settings['_target_']} needs a package that is not installed ({error}). "
            "thaw's extras: pip install '.[wandb]' or '.[mlflow]'"
        ) from error


def build_all(nodes: Any, key: str, **computed: Any) -> dict[str, Any]:
    """Builds every node of a mapping (callbacks, loggers); null ones are off.

    Raises:
        ConfigError: as `build`, for `key`.name.
    """
    settings = {} if nodes is None else plain(nodes)
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{key}={settings}: allowed is a mapping of name -> node with _target_")
    chosen = {str(name): node for name, node in settings.items() if node is not None}
    for name, node in chosen.items():
        if not isinstance(node, Mapping) or "_target_" not in node:
            shipped = {other for keys in files_of(key).values() for other in keys} - {"defaults"}
            known = sorted({*settings, *shipped} - {name})
            raise ConfigError(
                f"{key}.{name}={node}: has no _target_, so it would do nothing{near(name, known)}"
            )
    return {name: build(node, f"{key}.{name}", **computed) for name, node in chosen.items()}


def _check_node(node: Any, key: str, computed: Mapping[str, Any]) -> None:
    """Compares the keys of a node with a target, and of those inside, with what they call."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(
            f"{key}={node}: has no _target_. Choose a file of conf/{key.partition('.')[0]}/, or "
            f"give {key}._target_ the path of a class or function"
        )
    path = node["_target_"]
    try:
        parameters = inspect.signature(get_object(path)).parameters
    except (ImportError, ValueError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{key}._target_={path}: cannot be found ({error})") from error
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {name: each for name, each in parameters.items() if each.kind in kinds}
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    given = {str(name): value for name, value in node.items() if str(name)[0] != "_"}
    for name, value in given.items():
        place = f"{key}.{name}"
        if value == "???":
            raise ConfigError(f"{place}: has no value yet; give it as {place}=VALUE")
        if name in computed:
            raise ConfigError(f"{place}={value}: is computed by thaw; leave it out")
        if name not in named and not takes_all:
            raise ConfigError(_unknown(place, name, value, [n for n in named if n not in computed]))
        if value is None and path.startswith("thaw.") and name in named:
            hint = named[name].annotation
            if isinstance(hint, type) and hint not in (Any, inspect.Parameter.empty):
                raise ConfigError(f"{place}=null: is needed, and must be a {hint.__name__}")
        _check_inside(value, place)
    for name, each in named.items():
        missing = each.default is each.empty and name not in {*given, *computed}
        if missing and not node.get("_partial_"):
            hint = "; add _partial_: true, thaw fills it in" if name == "optimizer" else ""
            raise ConfigError(f"{key}.{name}: is needed by {path} and not given{hint}")


def _check_inside(value: Any, key: str) -> None:
    """Checks every node with a target in a value, however deep."""
    if isinstance(value, Mapping) and "_target_" in value:
        _check_node(value, key, {})
    elif isinstance(value, Mapping | list):
        for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check_inside(part, f"{key}.{name}")


def _unknown(key: str, name: str, value: Any, known: list[str]) -> str:
    return f"{key}={value}: nothing reads this key{near(name, known)}. Allowed: {', '.join(known)}"
