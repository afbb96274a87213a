"""Reads what a run leaves of its model: a model folder, or a checkpoint.

Nothing in either is run as code: they name the backbone and the head, and `thaw.image_classifier`
builds those that it knows.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from thaw.errors import ConfigError, check, reason
from thaw.model_folder import FORMAT, single_precision
from thaw.store import sha256
from thaw.training.restore import read_checkpoint

MAX_SIDE = 4096  # pixels of an image, which has to fit into the memory
CONTROL = r"[\x00-\x1f\x7f-\x9f]"  # characters that could change what a terminal shows


def read_model(path: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Reads a model folder, the one in a run folder, or a checkpoint of a run.

    Returns:
        The file with the description, the description (with the temperature), and the weights as
        `Classifier` names them, in single precision.

    Raises:
        ConfigError: No model there, of a newer format, or changed since it was written.
    """
    return _from_checkpoint(path) if path.suffix == ".ckpt" else _from_folder(path)


def _from_checkpoint(file: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    checkpoint = read_checkpoint(file, "checkpoint")
    model = checkpoint["hyper_parameters"].get("model")
    if not model:
        raise ConfigError(
            f"{file}: does not say which model it is of, since an older thaw wrote it. With the "
            f"settings of its run, train.py train=false ckpt_path={file} makes a model folder"
        )
    with described_by(file):
        _check_format(file, model)
        own = "classifier."
        state = {name.removeprefix(own): value for name, value in checkpoint["state_dict"].items()
                 if name.startswith(own)}  # fmt: skip
        return file, {**model, "temperature": checkpoint["temperature"]}, single_precision(state)


def _from_folder(given: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    folder = given if (given / "model.json").is_file() else given / "model"
    file, weights = folder / "model.json", folder / "model.safetensors"
    if not file.is_file():
        checkpoints = sorted(given.glob("checkpoints/*.ckpt"))
        hint = f", or a checkpoint, like {checkpoints[0]}" if checkpoints else ""
        raise ConfigError(
            f"{given}: holds no model (neither model.json nor model/model.json). Give the folder "
            "of a finished run, like logs/train/runs/2026-01-31_12-00-00, or its model folder"
            f"{hint}"
        )
    with described_by(file):
        model = json.loads(file.read_text(encoding="utf-8"))
        _check_format(file, model)
        if not weights.is_file() or sha256(weights) != model["sha256"]:
            raise ConfigError(
                f"{weights}: is missing, or is not the file that model.json was written with (by "
                "its sha256); copy the whole model folder again"
            )
        return file, model, load_file(weights)


@contextmanager
def described_by(file: Path) -> Iterator[None]:
    """ConfigError where a description, or the weights beside it, were made or changed by hand."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError,
            SafetensorError) as error:  # fmt: skip
        raise ConfigError(
            f"{file}: is no description of a model ({reason(error)}); copy the whole model folder "
            "again, or make it again with the settings of its run and train=false "
            "ckpt_path=CHECKPOINT"
        ) from error


def check_values(file: Path, model: dict[str, Any]) -> None:
    """Refuses values that no run writes: a model from elsewhere may have any in its description."""
    spec, names, scale = model["input"], model["classes"], float(model["temperature"])
    sides = (spec["size"], spec["resize"], model["backbone"]["image_size"])
    are_sides = all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides)
    are_names = all(isinstance(name, str) and not re.search(CONTROL, name) for name in names)
    are_classes = isinstance(names, list) and are_names and 0 < len(set(names)) == len(names)
    for fits, key, allowed in (
        (0 < scale < math.inf, "temperature", "a number above 0"),
        (are_classes, "classes", "a list of names, all different, without control characters"),
        (are_sides, "input", f"sides of 1 to {MAX_SIDE} pixels"),
        (len(spec["mean"]) == len(spec["std"]) == 3, "input", "mean and std of three colours"),
    ):
        check(fits, f"{file}: {key}", model[key], allowed)


def _check_format(file: Path, model: dict[str, Any]) -> None:
    if model["format"] > FORMAT:
        raise ConfigError(
            f"{file}: has format {model['format']}, and this thaw reads up to {FORMAT}; update thaw"
        )
