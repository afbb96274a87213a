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

    Of 3,000 files with one changed bit torch 2.11 read 2,894 as if they were whole: the checksums
    that it writes into the file are not compared.
    """
    try:
        with ZipFile(path) as file:
            if file.testzip():
                raise BadZipFile
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, zlib.error,
            BadZipFile, pickle.UnpicklingError) as error:  # fmt: skip
        raise ConfigError(
            f"{key}={path}: there is no such file, or it is damaged, or cannot be read as a "
            f"checkpoint ({type(error).__name__}); give a file of a run's checkpoints/ folder"
        ) from error
    if not isinstance(checkpoint, dict) or "classes" not in checkpoint.get("hyper_parameters", {}):
        raise ConfigError(
            f"{key}={path}: is no checkpoint of thaw; weights of a backbone alone go to "
            "backbone.weights=FILE"
        )
    return checkpoint


def newest_whole(folder: str | Path | None) -> Path | None:
    """The checkpoint of a run to go on from; None: it has saved none.

    A damaged last.ckpt is removed where the one before is whole: saving would put it in that one's
    place.

    Raises:
        ConfigError: there are some, and all are damaged.
    """
    broken = None
    for path in last_checkpoints(folder) if folder else ():
        try:
            checkpoint = read_checkpoint(path, "resume")
        except ConfigError as error:
            broken = error
            print(error)
        else:
            if broken:
                path.with_name(LAST).unlink(missing_ok=True)
            print(f"resume    {path}: epoch {checkpoint['epoch'] + 1}", flush=True)
            return path
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


def use_settings(checkpoint: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Puts the settings of `groups` into the optimiser states; refuses those of other groups.

    Else the optimiser would go on with the weight decay and momentum that it was saved with,
    whatever is given beside `resume`.
    """
    here = _describe(groups)
    for state in checkpoint.get("optimizer_states", []):
        if (there := _describe(state["param_groups"])) != here:
            raise ConfigError(
                f"ckpt_path: its optimiser knows the parameter groups {there}, this run "
                f"has {here}; go on with the backbone, granularity and layer-wise "
                "rates that the run was started with"
            )
        for saved, group in zip(state["param_groups"], groups, strict=True):
            if saved.keys() != group.keys():
                raise ConfigError(
                    "ckpt_path: was saved by another optimiser than optim=... of this run; choose "
                    "the one that the run was started with"
                )
            saved.update({name: group[name] for name in group if name not in ("params", "lr")})


def _describe(groups: Sequence[Mapping[str, Any]]) -> str:
    parts = [(group["name"], group["layer_groups"]) for group in groups]
    return ", ".join(f"{name} ({' '.join(own)})" if own[1:] else name for name, own in parts)
