"""Reads a checkpoint of a run, and says what is wrong when it is of another model."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from thaw.errors import ConfigError


def read_checkpoint(path: str | Path, key: str = "ckpt_path") -> dict[str, Any]:
    """Reads a checkpoint that train.py wrote; nothing in the file is run as code.

    Args:
        path: Of the file.
        key: The setting that names it, for messages.

    Raises:
        ConfigError: There is no such file, it cannot be read, or it is no checkpoint of thaw.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{key}={path}: there is no such file; give a run's checkpoints/*.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{key}={path}: cannot be read as a checkpoint ({type(error).__name__}); it is "
            "damaged, or no file that thaw wrote. Give a file of a run's checkpoints/ folder"
        ) from error
    hyper = checkpoint.get("hyper_parameters", {}) if isinstance(checkpoint, dict) else {}
    if "state_dict" not in checkpoint or "classes" not in hyper:
        raise ConfigError(
            f"{key}={path}: has no state_dict or no class names, so it is no checkpoint of thaw; "
            "weights of a backbone alone go to backbone.weights=FILE"
        )
    return checkpoint


def check_classes(saved: Sequence[str], own: Sequence[str], key: str = "ckpt_path") -> None:
    """Refuses a checkpoint of other classes, since a score would count for another name.

    Args:
        saved: Names in the checkpoint, in label order.
        own: Names of the data, in label order.
        key: The setting that names the checkpoint.

    Raises:
        ConfigError: The message has both lists.
    """
    if list(saved) == list(own):
        return
    if sorted(saved) == sorted(own):
        what = "knows the classes of the data in another order"
        remedy = "use the data module and the folders that it was trained with, or train anew"
    else:
        what = f"knows other classes than the data ({len(saved)} and {len(own)})"
        for place, names, others in (("checkpoint", saved, own), ("data", own, saved)):
            if alone := [name for name in names if name not in others]:
                what += f"; only in the {place}: {_list(alone)}"
        remedy = "give the folders the names that it was trained with, or train anew"
    raise ConfigError(f"{key}: {what}. Checkpoint: {_list(saved)}. Data: {_list(own)}. To go on, "
                      f"{remedy}")  # fmt: skip


def check_weights(
    saved: Mapping[str, Any], own: Mapping[str, Any], config: Mapping[str, Any],
    key: str = "ckpt_path",
) -> None:  # fmt: skip
    """Refuses the weights of another model.

    Args:
        saved, own: Tensors by name, of the checkpoint and of this run.
        config: Settings of the run that wrote the checkpoint.
        key: The setting that names the checkpoint.

    Raises:
        ConfigError: The message says whether backbone or head differ, and in what.
    """
    wrong = [name for name in saved if name not in own or saved[name].shape != own[name].shape]
    wrong += [name for name in own if name not in saved]
    if not wrong:
        return
    part = "backbone" if any(".body." in name for name in wrong) else "head"
    node = config.get(part)
    was = dict(node) if isinstance(node, Mapping) else "unknown"
    shapes = [
        f"{name} is {_shape(saved, name)} there and {_shape(own, name)} here" for name in wrong[:3]
    ]
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    raise ConfigError(
        f"{key}: its {part} is another one than {part}=... of this run: {', '.join(shapes)}{more}. "
        f"It was trained with {part}: {was}; choose the same"
    )


def check_groups(checkpoint: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuses optimiser states of other parameter groups than `names`.

    Raises:
        ConfigError: The message has both lists.
    """
    for state in checkpoint.get("optimizer_states", []):
        known = [group["name"] for group in state["param_groups"]]
        if known != list(names):
            raise ConfigError(
                f"ckpt_path: its optimiser knows the parameter groups {', '.join(known)}, this run "
                f"has {', '.join(names)}; go on with the backbone, granularity and layer-wise "
                "rates that the run was started with"
            )


def _shape(tensors: Mapping[str, Any], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "missing"


def _list(names: Sequence[str], most: int = 20) -> str:
    rest = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
