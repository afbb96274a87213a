"""torchvision's models as backbones."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import nn

from thaw.backbones.backbone import Backbone, InputSpec, assemble
from thaw.backbones.folding import fold
from thaw.backbones.groups import Granularity
from thaw.backbones.pretrained import OFFLINE, Source, own_source
from thaw.errors import ConfigError, near


def torchvision_backbone(
    name: str, weights: str | None = "DEFAULT", image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:  # fmt: skip
    """Builds any of torchvision's classification models as a backbone.

    `weights`: "DEFAULT" (the best that torchvision has), a name from the model's weights enum
    ("IMAGENET1K_V1"), the path of a file, or None for random ones. `image_size`: side of the input
    in pixels; None: that of the weights. `granularity`: of the layer groups, see `groups.split`.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        hint = f"{near(name, known)}. `thaw models` lists them."
        raise ConfigError(f"backbone.name={name}: no such torchvision model{hint}")
    enum: Any = torchvision.models.get_model_weights(name)
    source = own_source(weights, sorted({*enum.__members__, "DEFAULT"}))
    # Random weights and weights from a file use the preprocessing of the default weights.
    entry = enum.DEFAULT if source else enum[weights]
    preset = entry.transforms()
    if source is None:
        declared = entry.meta.get("license") or "no licence declared by torchvision"
        source = Source(entry.name, f"weights: {declared}", partial(official_file, entry.url))
    mean, std = tuple(preset.mean), tuple(preset.std)
    spec = InputSpec(preset.crop_size[0], preset.resize_size[0], mean, std, preset.interpolation)
    spec = spec.at(image_size)
    make = partial(torchvision_model, name, random=weights is None)
    return replace(assemble("torchvision", name, make, spec, source, granularity), fold=fold)


def torchvision_model(name: str, size: int, *, random: bool = True) -> nn.Module:
    """Builds the whole model for inputs of `size` pixels; without a slow start if not `random`."""
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = size  # the position embedding has one entry per patch
    elif name.startswith("maxvit_"):
        options["input_size"] = (size, size)  # the windows must tile every stage
    elif name in ("googlenet", "inception_v3"):
        # torchvision's weights expect another mean and std; thus the input means the same with any
        options.update(transform_input=True, aux_logits=False, init_weights=random)
    return torchvision.models.get_model(name, weights=None, **options)


def official_file(url: str) -> Path:
    """Returns torchvision's weight file, which is fetched on first use into torch hub's folder."""
    from thaw.download import fetch  # imports network libraries, which thaw.load has no use for

    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    (digest,) = re.findall(r"-([0-9a-f]{8,})\.", name)  # torch hub's way: start of the sha256
    remedy = f"put the file at {path}, {OFFLINE}"
    fetch(url, path, checksum=f"sha256:{digest}", remedy=remedy)
    return path
