"""Reads what a run leaves of its model: a model folder, or a checkpoint.

Nothing in either is run as code: they name the backbone and the head, and `thaw.image_classifier`
builds those that it knows.
"""

import math
import re
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from thaw.errors import ConfigError, check
from thaw.model_folder import FORMAT, single_precision
from thaw.store import read_checkpoint, read_plain, sha256

MAX_SIDE = 4096  # pixels of an image, which has to fit into the memory
CONTROL = r"[\x00-\x1f\x7f-\x9f]"  # characters that could change what a terminal shows


def find_model(path: Path) -> Path:
    """The checkpoint itself, or the model.json of a model folder or a run; ConfigError: none."""
    folder = path if (path / "model.json").is_file() else path / "model"
    if path.suffix == ".ckpt" or (folder / "model.json").is_file():
        return path if path.suffix == ".ckpt" else folder / "model.json"
    checkpoints = sorted(path.glob("checkpoints/*.ckpt"))
    hint = f", or a checkpoint, like {checkpoints[0]}" if checkpoints else ""
    raise ConfigError(
        f"{path}: holds no model (neither model.json nor model/model.json). Give the folder of a "
        f"finished run, like logs/train/runs/2026-01-31_12-00-00, or its model folder{hint}"
    )


def read_model(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the description, with the temperature, and the weights as `Classifier` names them.

    Weights are in single precision. A ConfigError: it is of a newer format, has odd values, or
    changed since it was written. Other errors say that the file was made or changed by hand.
    """
    if file.suffix == ".ckpt":
        checkpoint = read_checkpoint(file, "checkpoint")
        model = checkpoint["hyper_parameters"]["model"]
        model = {**model, "temperature": checkpoint.get("temperature")}
        own = "classifier."
        state = {name.removeprefix(own): value for name, value in checkpoint["state_dict"].items()
                 if name.startswith(own)}  # fmt: skip
    else:
        model, weights = read_plain(file), file.with_name("model.safetensors")
        if not weights.is_file() or sha256(weights) != model["sha256"]:
            raise ConfigError(
                f"{weights}: is missing, or is not the file that model.json was written with (by "
                "its sha256); copy the whole model folder again"
            )
        state = load_file(weights)
    if model["format"] > FORMAT:
        raise ConfigError(
            f"{file}: has format {model['format']}, and this thaw reads up to {FORMAT}; update thaw"
        )
    _check_values(file, model)
    return model, single_precision(state)


def _check_values(file: Path, model: dict[str, Any]) -> None:
    """Refuses values that no run writes: a model from elsewhere may have any in its description."""
    spec, names, scale = model["input"], model["classes"], float(model["temperature"])
    sides = (spec["size"], spec["resize"], model["backbone"]["image_size"])
    are_sides = all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides)
    are_names = all(isinstance(name, str) and not re.search(CONTROL, name) for name in names)
    are_classes = isinstance(names, list) and are_names and 0 < len(set(names)) == len(names)
    are_colours = len(spec["mean"]) == len(spec["std"]) == 3 and min(spec["std"]) > 0
    for fits, key, allowed in (
        (0 < scale < math.inf, "temperature", "a number above 0"),
        (are_classes, "classes", "a list of names, all different, without control characters"),
        (are_sides, "input", f"sides of 1 to {MAX_SIDE} pixels"),
        (are_colours, "input", "mean and std of three colours, std above 0"),
    ):
        check(fits, f"{file}: {key}", model[key], allowed)
