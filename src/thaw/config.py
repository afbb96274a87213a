"""A configuration node -> an object; nothing the user wrote is ignored.

Hydra refuses unknown keys on the command line, but not in experiment files, and skips nodes without
`_target_`. Here both stop the run.
"""

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import ConfigError, near

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
    for key in cfg:
        if key not in known:
            raise ConfigError(_unknown(str(key), str(key), cfg[key], known))


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
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    for name, place in (reserved or {}).items():
        if isinstance(plain, Mapping) and name in plain:
            raise ConfigError(f"{key}.{name}={plain[name]}: has no effect here; set {place}")
    _check_node(plain, key, computed)
    # Filled in first and called after: Hydra would turn computed dataclasses into mappings.
    filled = instantiate(OmegaConf.create({**plain, "_partial_": True}), _convert_="all")
    if plain.get("_partial_"):
        return functools.partial(filled, **computed)
    try:
        return filled(**computed)
    except ModuleNotFoundError as error:  # a logger's own package, most of all
        raise ConfigError(
            f"{key}: {plain['_target_']} needs a package that is not installed ({error}). thaw's "
            "extras: pip install '.[wandb]' or '.[mlflow]'"
        ) from error


def build_all(nodes: Any, key: str, **computed: Any) -> dict[str, Any]:
    """Builds every node of a mapping (callbacks, loggers); null ones are off.

    Raises:
        ConfigError: as `build`, for `key`.name.
    """
    if nodes is None:
        return {}
    plain: Any = (
        OmegaConf.to_container(nodes, resolve=True) if OmegaConf.is_config(nodes) else nodes
    )
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{key}={plain}: allowed is a mapping of name -> node with _target_")
    for name, node in plain.items():
        if node is not None and (not isinstance(node, Mapping) or "_target_" not in node):
            others = [str(other) for other in plain if other != name]
            raise ConfigError(
                f"{key}.{name}={node}: has no _target_, so it would do nothing"
                f"{near(str(name), others)}"
            )
    return {
        str(name): build(node, f"{key}.{name}", **computed)
        for name, node in plain.items()
        if node is not None
    }


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as dicts, lists, strings, numbers, booleans and None."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _check_node(node: Any, key: str, computed: Mapping[str, Any]) -> None:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(
            f"{key}={node}: has no _target_. Choose a file of conf/{key.partition('.')[0]}/, or "
            f"give {key}._target_ the path of a class or function"
        )
    try:
        target = get_object(node["_target_"])
        signature = inspect.signature(target)
    except (ImportError, ValueError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            f"{key}._target_={node['_target_']}: cannot be found ({error})"
        ) from error
    parameters = signature.parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    given = {name: value for name, value in node.items() if not str(name).startswith("_")}
    ours = str(node["_target_"]).startswith("thaw.")
    for name, value in given.items():
        if value == "???":
            raise ConfigError(f"{key}.{name}: has no value yet; give it as {key}.{name}=VALUE")
        if name in computed:
            raise ConfigError(f"{key}.{name}={value}: is computed by thaw; leave it out")
        if name not in names and not takes_all:
            raise ConfigError(
                _unknown(f"{key}.{name}", str(name), value, [n for n in names if n not in computed])
            )
        if value is None and ours and name in names:
            hint = signature.parameters[name].annotation
            if isinstance(hint, type) and hint not in (Any, inspect.Parameter.empty):
                raise ConfigError(f"{key}.{name}=null: is needed, and must be a {hint.__name__}")
        _check_inside(value, f"{key}.{name}")
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.name in names
        and parameter.name not in {*given, *computed}
    ]
    if missing and not node.get("_partial_"):
        hint = "; add _partial_: true, thaw fills it in" if missing[0] == "optimizer" else ""
        raise ConfigError(
            f"{key}.{missing[0]}: is needed by {node['_target_']} and not given{hint}"
        )


def _check_inside(value: Any, key: str) -> None:
    """Checks every node with a target in a value, however deep."""
    if isinstance(value, Mapping) and "_target_" in value:
        _check_node(value, key, {})
    elif isinstance(value, Mapping):
        for name, part in value.items():
            _check_inside(part, f"{key}.{name}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _check_inside(part, f"{key}.{number}")


def _unknown(key: str, name: str, value: Any, known: list[str]) -> str:
    return f"{key}={value}: nothing reads this key{near(name, known)}. Allowed: {', '.join(known)}"
