"""Reads a checkpoint of a run, and says what is wrong when it is of another model."""

import pickle
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from thaw.errors import ConfigError
from thaw.store import LAST, last_checkpoints


def read_checkpoint(path: str | Path, key: str = "ckpt_path") -> dict[str, Any]:
    """Reads a checkpoint that train.py wrote; nothing in the file is run as code.

    The checksums in the file are compared, which torch 2.11 does not.
    """
    try:
        with ZipFile(path) as file:
            if file.testzip():
                raise BadZipFile
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if "classes" in checkpoint["hyper_parameters"]:
            return checkpoint
        raise KeyError("classes")
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, zlib.error,
            BadZipFile, pickle.UnpicklingError) as error:  # fmt: skip
        raise ConfigError(
            f"{key}={path}: there is no such file, or it is damaged or is no checkpoint of thaw "
            f"({type(error).__name__}); give a file of a run's checkpoints/ folder. Weights of a "
            "backbone alone go to backbone.weights=FILE"
        ) from error


def newest_whole(folder: str | Path | None) -> Path | None:
    """The checkpoint of a run to go on from; None: it has saved none. ConfigError: all are damaged.

    A damaged last.ckpt is removed: saving would put it in the place of the whole one before it.
    """
    broken = None
    for path in last_checkpoints(folder) if folder else ():
        try:
            print(
                f"resume    {path}: epoch {read_checkpoint(path, 'resume')['epoch'] + 1}",
                flush=True,
            )
            if broken:
                path.with_name(LAST).unlink(missing_ok=True)
            return path
        except ConfigError as error:
            broken = error
            print(error)
    if broken:
        raise broken
    return None


def check_model(
    checkpoint: Mapping[str, Any], classes: Sequence[str], own: Mapping[str, Any]
) -> None:
    """Refuses a checkpoint of other classes (in label order), or of another model than `own`."""
    if not {"temperature", "plan"} <= checkpoint.keys():
        raise ConfigError("ckpt_path: is of another version of thaw; go on with that version")
    hyper, saved = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    if list(hyper["classes"]) != list(classes):
        theirs, ours = ", ".join(hyper["classes"]), ", ".join(classes)
        raise ConfigError(
            f"ckpt_path: knows other classes than the data, or in another order: {theirs}. Data: "
            f"{ours}. Use the data that it was trained with, or train anew"
        )
    shapes = [{name: tuple(value.shape) for name, value in part.items()} for part in (saved, own)]
    if wrong := sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()}):
        part = "backbone" if any(".body." in name for name in wrong) else "head"
        there, here = (shape.get(wrong[0], "missing") for shape in shapes)
        theirs = hyper.get("config", {}).get(part)
        raise ConfigError(
            f"ckpt_path: its {part} is another one than {part}=... of this run: {wrong[0]} is "
            f"{there} there and {here} here. It was trained with {part}: {theirs}; choose the same"
        )


def use_settings(checkpoint: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Puts the settings of `groups` into the optimiser states; refuses those of other groups.

    Else the saved weight decay and momentum would count, not those given beside `resume`.
    """

    def kinds(parts: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
        return [(part["name"], part["layer_groups"], part.keys()) for part in parts]

    for state in checkpoint.get("optimizer_states", []):
        if kinds(state["param_groups"]) != kinds(groups):
            there, here = (", ".join(" ".join(part["layer_groups"]) for part in parts)
                           for parts in (state["param_groups"], groups))  # fmt: skip
            raise ConfigError(
                "ckpt_path: its optimiser is another one than optim=... of this run, or has other "
                f"groups: {there} there, {here} here; go on with the optim, backbone, granularity "
                "and layer-wise rates that the run was started with"
            )
        for saved, group in zip(state["param_groups"], groups, strict=True):
            saved.update({name: group[name] for name in group if name not in ("params", "lr")})
