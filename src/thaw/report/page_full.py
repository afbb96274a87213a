"""What costs another pass for the page of a run: heat maps, and how far each layer group moved.

Apart from page.py, since it needs the model.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from thaw import config
from thaw.backbones.rebuild import BUILDERS
from thaw.data.decode import decode
from thaw.errors import ConfigError, PhotoError
from thaw.heat_map import heat_map, overlay
from thaw.image_classifier import ImageClassifier, load
from thaw.report.page import jpeg, photo
from thaw.report.predictions import Predictions
from thaw.store import read_plain

EACH = 6  # of the surest mistakes, and of right ones


def more_of(folder: Path, results: Mapping[str, Any], tested: Predictions | None) -> dict[str, Any]:
    """Heat maps and the way of the layer groups, as page.html takes them.

    The model is that of the run in `folder`, or the one that results.json names. What cannot be
    made, as with a backbone or a head of the user's own, is left out; one line says why.
    """
    run, found = Path(results.get("model", folder)), {}
    try:
        model = load(run)
        found["heat_maps"] = heat_maps(model, tested) if tested else []
        found["movement"] = movement(run, model)
    except ConfigError as error:
        print(f"report.html lacks heat maps or layer movement: {error}", file=sys.stderr)
    return found


def heat_maps(model: ImageClassifier, tested: Predictions) -> list[dict[str, Any]]:
    """Views with heat maps of the predicted class: the surest mistakes, then right ones.

    Empty for a body that sees no places, as `thaw.heat_map` says.
    """
    wrong, right = tested.by_probability(~tested.right)[:EACH], tested.by_probability(tested.right)
    right = right[np.linspace(0, len(right) - 1, min(EACH, len(right))).astype(int)]  # sure to not
    found = []
    for place in map(int, (*wrong, *right)):
        try:
            view = model.transform(decode(Path(tested.paths[place])))
            heat = heat_map(model, view, int(tested.predicted[place]))
        except PhotoError:  # a photo that is gone by now
            continue
        except ValueError:
            return []
        found.append({**photo(tested, place, picture=False), "picture": jpeg(view),
                      "heat": jpeg(overlay(view, heat))})  # fmt: skip
    return found


@torch.no_grad()
def movement(run: Path, model: ImageClassifier) -> list[tuple[str, float]]:
    """How far each layer group, stem first, is from the weights that the run's backbone began with.

    The backbone is built again as the run's settings say. The number is the norm of the difference
    as a share of the norm of those weights; none for a model folder without a run around it.
    """
    file = run / ".hydra" / "config.yaml"
    if not file.is_file():
        return []
    cfg: Any = OmegaConf.create(read_plain(file))
    node = config.plain(cfg.backbone)
    # A folder from elsewhere must not say what is run: thaw's own builders alone, no nested targets
    is_nested = any(isinstance(value, dict | list) for value in node.values())
    if is_nested or node["_target_"] not in BUILDERS.values():
        raise ConfigError(f"{file}: its backbone is none of thaw's")
    torch.manual_seed(cfg.seed)
    start = config.build(node, "backbone")
    before, now = (dict(body.named_parameters()) for body in (start.body, model.body))
    if {(n, p.shape) for n, p in before.items()} != {(n, p.shape) for n, p in now.items()}:
        raise ConfigError(f"{run}: the settings in {file} are not those of its model")
    found = []
    for group in start.groups:
        old, new = (torch.cat([part[n].flatten() for n in group.parameters])
                    for part in (before, now))  # fmt: skip
        found.append((group.name, float((new - old).norm() / old.norm())))
    return found
