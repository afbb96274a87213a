"""Writes a trained model as a folder: model.safetensors (weights) and model.json (all the rest).

A run's checkpoints hold the same description. `thaw.model_reader` reads both.
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from thaw.backbones.backbone import Backbone
from thaw.classifier import Classifier
from thaw.store import sha256, write_json

FORMAT = 2  # to be raised when an older thaw could no longer read what is written; 2: input.crop


def describe(
    backbone: Backbone, targets: Mapping[str, Any], classes: Sequence[str], photos_licence: str
) -> dict[str, Any]:
    """What a model is, apart from its weights and its temperature, in plain values.

    `targets` has the nodes `backbone` and `head` of the run's configuration; a user's own class is
    only named by its `_target_`. `classes` are in label order.
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
    """Writes the folder's two files, both or none: `model` of `describe`, and more `facts`."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    state = single_precision(classifier.state_dict()).items()
    state = {name: value.cpu().contiguous().clone() for name, value in state}
    save_file(state, part / "model.safetensors")
    facts = {"sha256": sha256(part / "model.safetensors"), "temperature": temperature, **facts}
    write_json({**model, **facts}, part / "model.json")
    folder.mkdir(exist_ok=True)
    (folder / "model.json").unlink(missing_ok=True)  # without it the other file is no model
    for file in ("model.safetensors", "model.json"):
        (part / file).replace(folder / file)
    part.rmdir()


def single_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict, those of numbers with a point as float32."""
    return {name: of.float() if of.is_floating_point() else of for name, of in state.items()}
