"""Reads a checkpoint of a run, and says what is wrong when it is of another model."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from thaw.errors import ConfigError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint that train.py wrote; nothing in the file is run as code.

    Raises:
        ConfigError: There is no such file, it cannot be read, or it is no checkpoint of thaw.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"ckpt_path={path}: there is no such file, or it cannot be read as a checkpoint "
            f"({type(error).__name__}); give a file of a run's checkpoints/ folder"
        ) from error
    if not isinstance(checkpoint, dict) or "classes" not in checkpoint.get("hyper_parameters", {}):
        raise ConfigError(
            f"ckpt_path={path}: is no checkpoint of thaw; weights of a backbone alone go to "
            "backbone.weights=FILE"
        )
    return checkpoint


def check_model(
    checkpoint: Mapping[str, Any], classes: Sequence[str], own: Mapping[str, Any]
) -> None:
    """Refuses a checkpoint of other classes, whose scores would count for another name, or weights.

    Args:
        checkpoint: As `read_checkpoint` gives it.
        classes: Names of the data, in label order.
        own: Tensors of this run's model by name.

    Raises:
        ConfigError: The message says what differs.
    """
    hyper, saved = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    if list(hyper["classes"]) != list(classes):
        raise ConfigError(
            f"ckpt_path: knows other classes than the data, or in another order: "
            f"{', '.join(hyper['classes'])}. Data: {', '.join(classes)}. Use the data that it was "
            "trained with, or train anew"
        )
    shapes = [{name: tuple(value.shape) for name, value in part.items()} for part in (saved, own)]
    if wrong := sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()}):
        part = "backbone" if any(".body." in name for name in wrong) else "head"
        there, here = (shape.get(wrong[0], "missing") for shape in shapes)
        raise ConfigError(
            f"ckpt_path: its {part} is another one than {part}=... of this run: {len(wrong)} "
            f"tensors differ, {wrong[0]} is {there} there and {here} here. It was trained with "
            f"{part}: {hyper.get('config', {}).get(part)}; choose the same"
        )


def check_groups(checkpoint: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuses optimiser states of other parameter groups than `names`."""
    for state in checkpoint.get("optimizer_states", []):
        known = [group["name"] for group in state["param_groups"]]
        if known != list(names):
            raise ConfigError(
                f"ckpt_path: its optimiser knows the parameter groups {', '.join(known)}, this run "
                f"has {', '.join(names)}; go on with the backbone, granularity and layer-wise "
                "rates that the run was started with"
            )
