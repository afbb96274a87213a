"""A trained model as a folder: model.safetensors (the weights) and model.json (all the rest).

Nothing in the folder is run as code. model.json names the backbone and the head, and thaw builds
those that it knows. Lightning, Hydra and the network are not needed to use a model.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from thaw import head
from thaw.backbones.backbone import Backbone
from thaw.backbones.pretrained import differences
from thaw.backbones.rebuild import BUILDERS, rebuild
from thaw.classifier import Classifier
from thaw.errors import ConfigError
from thaw.image_classifier import ImageClassifier
from thaw.store import write_json

FORMAT = 1  # raised when an older thaw can no longer read what is written
HEADS = {"thaw.head.linear": head.linear, "thaw.head.mlp": head.mlp}


def save_model(
    folder: Path, classifier: Classifier, backbone: Backbone, *, targets: Mapping[str, Any],
    classes: Sequence[str], temperature: float, **facts: Any,
) -> None:  # fmt: skip
    """Writes the model folder, whole or not at all; one that is there is replaced.

    Args:
        folder: to write.
        classifier: the trained network.
        backbone: that it was made of.
        targets: the nodes `backbone` and `head` of the run's configuration. What a user brought
            with a `_target_` of their own is only named by it.
        classes: names, in label order.
        temperature: of the calibration.
        facts: further plain values for model.json: metrics, licences, versions, git.
    """
    spec = backbone.input_spec
    arguments = dict(targets["head"])
    record: dict[str, Any] = {
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
        "temperature": temperature,
        **facts,
    }
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    state = {
        name: (value.float() if value.is_floating_point() else value).cpu().contiguous().clone()
        for name, value in classifier.state_dict().items()
    }
    save_file(state, part / "model.safetensors")
    record["sha256"] = _sha256(part / "model.safetensors")
    write_json(record, part / "model.json")
    if folder.exists():
        shutil.rmtree(folder)
    part.replace(folder)


def load(
    path: str | Path, *, body: nn.Module | None = None, head: nn.Module | None = None
) -> ImageClassifier:
    """The model of a model folder, or of a run folder, on the CPU and in eval mode.

    Args:
        path: the folder.
        body, head: needed where the run had a backbone or a head of your own: the module, with any
            weights. Body: (N, 3, S, S) -> (N, D); head: (N, D) -> (N, K).

    Raises:
        ConfigError: no model there, of a newer format, changed since it was written, with parts
            that thaw cannot build, or with weights that do not fit them.
    """
    given = Path(path).expanduser()
    folder = given if (given / "model.json").is_file() else given / "model"
    described, weights = folder / "model.json", folder / "model.safetensors"
    if not described.is_file():
        raise ConfigError(
            f"{given}: holds no model (neither model.json nor model/model.json). Give the folder "
            "of a finished run, like logs/train/runs/2026-01-31_12-00-00, or its model folder"
        )
    try:
        record = json.loads(described.read_text(encoding="utf-8"))
        if record["format"] > FORMAT:
            raise ConfigError(
                f"{described}: has format {record['format']}, and this thaw reads up to {FORMAT}; "
                "update thaw"
            )
        if not weights.is_file() or _sha256(weights) != record["sha256"]:
            raise ConfigError(
                f"{weights}: is missing, or is not the file that model.json was written with (by "
                "its sha256); copy the whole model folder again"
            )
        model = ImageClassifier(body or _body(record), head or _head(record), record)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{described}: is no description of a model ({error!r})") from error
    state = load_file(weights)
    if misfit := differences(model.state_dict(), state):
        raise ConfigError(f"{weights}: these weights do not fit the model ({misfit})")
    model.load_state_dict(state)
    return model


def _body(record: Mapping[str, Any]) -> nn.Module:
    facts = record["backbone"]
    if facts["builder"] not in BUILDERS:
        raise _unknown("body", facts["builder"])
    return rebuild(facts["builder"], facts["name"], facts["image_size"])


def _head(record: Mapping[str, Any]) -> nn.Module:
    facts = record["head"]
    if facts["builder"] not in HEADS:
        raise _unknown("head", facts["builder"])
    sizes = record["backbone"]["features"], len(record["classes"])
    return HEADS[facts["builder"]](*sizes, **facts["arguments"])


def _unknown(part: str, builder: str) -> ConfigError:
    return ConfigError(
        f"thaw.load: the {part} was built by {builder}, which is not thaw's, and a model folder "
        f"runs no code. Build the module yourself and give it: thaw.load(path, {part}=MODULE)"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
