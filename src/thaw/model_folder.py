"""A trained model on disk: a folder with model.safetensors (weights) and model.json (all the rest).

A run's checkpoints hold the same description. Nothing in either is run as code: they name the
backbone and the head, and `thaw.image_classifier` builds those that it knows.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from thaw.backbones.backbone import Backbone
from thaw.classifier import Classifier
from thaw.errors import ConfigError
from thaw.store import sha256, write_json
from thaw.training.restore import read_checkpoint

FORMAT = 2  # to be raised when an older thaw could no longer read what is written; 2: input.crop


def describe(
    backbone: Backbone, targets: Mapping[str, Any], classes: Sequence[str], photos_licence: str
) -> dict[str, Any]:
    """What a model is, apart from its weights and its temperature, in plain values.

    Args:
        targets: The nodes `backbone` and `head` of the run's configuration. A user's own class is
            only named by its `_target_`.
        classes: Names of the K classes, in label order.
        photos_licence: One line on the licence of the photos that it was trained on.
    """
    spec, arguments = backbone.input_spec, dict(targets["head"])
    return {
        "format": FORMAT,
        "backbone": {
            "builder": backbone.builder or targets["backbone"]["_target_"],
            "name": backbone.name,
            "image_size": spec.size,
            "features": backbone.out_features,
            "channels_last": backbone.is_convolutional,
        },
        "head": {"builder": arguments.pop("_target_"), "arguments": arguments},
        "classes": list(classes),
        "input": {**dataclasses.asdict(spec), "interpolation": spec.interpolation.value},
        "licences": {"weights": backbone.licence, "photos": photos_licence},
    }


def save_model(
    folder: Path, classifier: Classifier, model: Mapping[str, Any], *, temperature: float,
    **facts: Any,
) -> None:  # fmt: skip
    """Writes the model folder, whole or not at all, in place of one that is there.

    Args:
        model: What `describe` gave.
        facts: Further plain values for model.json: metrics, versions, git.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    state = {
        name: value.cpu().contiguous().clone()
        for name, value in single_precision(classifier.state_dict()).items()
    }
    save_file(state, part / "model.safetensors")
    checksum = sha256(part / "model.safetensors")
    write_json({**model, "sha256": checksum, "temperature": temperature, **facts},
               part / "model.json")  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


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
    _check_format(file, model["format"])
    own = "classifier."
    state = {name.removeprefix(own): value for name, value in checkpoint["state_dict"].items()
             if name.startswith(own)}  # fmt: skip
    described = {**model, "temperature": checkpoint["temperature"]}
    return file, described, single_precision(state)


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
    try:
        model = json.loads(file.read_text(encoding="utf-8"))
        _check_format(file, model["format"])
        if not weights.is_file() or sha256(weights) != model["sha256"]:
            raise ConfigError(
                f"{weights}: is missing, or is not the file that model.json was written with (by "
                "its sha256); copy the whole model folder again"
            )
        return file, model, load_file(weights)
    except SafetensorError as error:
        raise ConfigError(f"{weights}: is no safetensors file ({error})") from error
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise not_described(file, error) from error


def not_described(file: Path, error: Exception) -> ConfigError:
    """The error for a description that was made or changed by hand."""
    return ConfigError(f"{file}: is no description of a model ({error!r})")


def _check_format(file: Path, found: int) -> None:
    if found > FORMAT:
        raise ConfigError(
            f"{file}: has format {found}, and this thaw reads up to {FORMAT}; update thaw"
        )


def single_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict, those of numbers with a point as float32."""
    return {name: value.float() if value.is_floating_point() else value
            for name, value in state.items()}  # fmt: skip
