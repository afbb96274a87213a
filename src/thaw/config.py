"""A configuration node -> an object; unknown keys and nodes without `_target_` stop the run."""

import functools
import re
from collections.abc import Mapping
from contextlib import suppress
from inspect import signature
from typing import Any

from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import ConfigError, ThawError, check_known, near, reason
from thaw.ranges import check_kind, check_ranges, leaves
from thaw.trust import conf_dir

KEYS = (
    "task_name", "tags", "seed", "monitor", "train", "test", "ckpt_path", "resume", "trust",
    "label_smoothing", "compile", "backbone", "head", "data", "augment", "mix", "finetune",
    "optim", "trainer", "callbacks", "logger", "report", "paths",
)  # fmt: skip
PATHS = ("root_dir", "data_dir", "cache_dir", "log_dir", "output_dir")
LIBRARIES = ("lightning", "torch", "torchvision")  # whose refusals of a value are told in words


def check_keys(cfg: DictConfig) -> None:
    """Refuses values out of range, and keys of train.yaml and paths that nothing reads."""
    check_known(cfg, KEYS)  # pyright: ignore[reportArgumentType]  a mapping too
    check_known(cfg.get("paths") or {}, PATHS, "paths.")
    if gone := [key for key in KEYS if key not in cfg]:
        way = "none" if (conf_dir() / gone[0] / "none.yaml").is_file() else "CHOICE"
        raise ConfigError(f"{gone[0]}: is gone, as by ~{gone[0]} or []; write {gone[0]}={way}")
    check_ranges(plain(cfg))
    if cfg.get("report"):  # it is built at the end of a run
        _check_node({**plain(cfg.report), "_partial_": True}, "report", {})


def plain(node: Any) -> Any:
    """A resolved node as dicts, lists, strings, numbers, booleans and None."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def build(node: Any, key: str, *, taken: Mapping[str, str] | None = None, **computed: Any) -> Any:
    """Calls what `_target_` names with the node's other keys.

    Args:
        node: A mapping with `_target_`; nested mappings with one are built too.
        key: Where the node stands ("data"), for messages.
        taken: Arguments that the user sets elsewhere -> where.
        computed: Arguments that the program knows and the user must not give.
    """
    settings = plain(node)
    _check_node(settings, key, {**dict.fromkeys(computed, "thaw itself"), **(taken or {})})
    for place, inner in leaves(settings, f"{key}."):
        if isinstance(inner, Mapping) and "_target_" in inner:
            _check_node(inner, place, {})
    check_ranges({key: settings})
    try:
        # Hydra only makes a partial here, and we call it: given to `instantiate`, the computed
        # dataclasses would become mappings.
        made = instantiate(OmegaConf.create({**settings, "_partial_": True}), _convert_="all")
        filled = functools.partial(_told, made, key, settings, **computed)
        return filled if settings.get("_partial_") else filled()
    except InstantiationException as error:  # of a nested node
        raise error.__cause__ if isinstance(error.__cause__, ThawError) else error from None
    except ModuleNotFoundError as error:
        how = f": pip install -e '.[{key.partition('.')[2]}]'" if key.startswith("logger.") else ""
        raise ConfigError(f"{key}: a package is not installed ({error}); get it{how}") from error


def build_all(nodes: Any, key: str) -> dict[str, Any]:
    """Builds every node of a mapping (callbacks, loggers); null ones are off."""
    return {str(name): build(node, f"{key}.{name}")
            for name, node in (plain(nodes) or {}).items() if node is not None}  # fmt: skip


def _told(make: Any, key: str, settings: Mapping[str, Any], *args: Any, **computed: Any) -> Any:
    """Calls a constructor; what one of a library refuses is told with the setting that it names."""
    try:
        return make(*args, **computed)
    except Exception as error:  # a library's refusals are of all kinds; others go on below
        target = str(settings["_target_"])
        roots = {name.partition(".")[0] for name in (target, type(error).__module__)}
        if roots.isdisjoint(LIBRARIES) or isinstance(error, ModuleNotFoundError):
            raise
        given = {name: value for name, value in settings.items() if name[0] != "_"}
        said = str(error)
        named = {n: v for n, v in given.items()
                 if re.search(rf"\b{n.rstrip('s')}|'{re.escape(str(v))}'", said, re.I)}  # fmt: skip
        named = named or (given if len(given) < 9 else {})  # not all of a Trainer's
        words = ", ".join(f"{key}.{name}={value}" for name, value in named.items())
        raise ConfigError(f"{words or key}: {target} refuses it: {reason(error)}") from error


def _check_node(node: Any, key: str, elsewhere: Mapping[str, str]) -> None:
    """Compares the keys of a node with the arguments of its target, and their values' types."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        group, _, name = key.partition(".")
        meant = near(name, [file.stem for file in (conf_dir() / group).glob("*.yaml")])
        raise ConfigError(f"{key}={node}: has no _target_{meant}; see conf/{group}/")
    target = node["_target_"]
    try:
        arguments = signature(made := get_object(str(target))).parameters
        with suppress(NameError):  # an annotation that only a type checker can read
            arguments = signature(made, eval_str=True).parameters
    except (ImportError, TypeError, ValueError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{key}._target_={target}: cannot be found ({reason(error)})") from error
    named = {name: each for name, each in arguments.items()
             if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}  # fmt: skip
    has_kwargs = any(each.kind is each.VAR_KEYWORD for each in arguments.values())
    given = {str(name): value for name, value in node.items() if str(name)[0] != "_"}
    for name, value in given.items():
        place = f"{key}.{name}"
        if value == "???":  # OmegaConf's mark for a missing value
            raise ConfigError(f"{place}: has no value yet; give it as {place}=VALUE")
        if name in elsewhere:
            raise ConfigError(f"{place}={value}: is set by {elsewhere[name]}; leave it out")
        if not has_kwargs:
            check_known({name: value}, [n for n in named if n not in elsewhere], f"{key}.")
        if name in named:
            check_kind(named[name].annotation, place, value)
    for name, each in named.items():
        needed = each.default is each.empty and not node.get("_partial_")
        if needed and name not in {*given, *elsewhere}:
            raise ConfigError(f"{key}.{name}: is needed by {target} and not given")
