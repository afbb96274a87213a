"""Writes a trained model as a folder: model.safetensors (weights) and model.json (all the rest).

`thaw.image_classifier` reads it. Nothing in the folder is run as code: model.json names the
backbone and the head, and thaw builds those that it knows.
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from thaw.backbones.backbone import Backbone
from thaw.classifier import Classifier
from thaw.store import sha256, write_json

FORMAT = 1  # to be raised when an older thaw could no longer read what is written


def save_model(
    folder: Path, classifier: Classifier, backbone: Backbone, *, targets: Mapping[str, Any],
    classes: Sequence[str], temperature: float, **facts: Any,
) -> None:  # fmt: skip
    """Writes the model folder, whole or not at all, in place of one that is there.

    Args:
        targets: The nodes `backbone` and `head` of the run's configuration. A user's own class is
            only named by its `_target_`.
        classes: Names of the K classes, in label order.
        facts: Further plain values for model.json: metrics, licences, versions, git.
    """
    spec = backbone.input_spec
    arguments = dict(targets["head"])
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    state = {
        name: (value.float() if value.is_floating_point() else value).cpu().contiguous().clone()
        for name, value in classifier.state_dict().items()
    }
    save_file(state, part / "model.safetensors")
    record = {
        "format": FORMAT,
        "sha256": sha256(part / "model.safetensors"),
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
        "temperature": temperature,
        **facts,
    }
    write_json(record, part / "model.json")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
