"""What costs another pass for the page of a run: heat maps, and how far each layer group moved.

Apart from page.py, since it needs the model, which the usual page does not.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from thaw import config
from thaw.data.decode import decode
from thaw.errors import ConfigError, PhotoError
from thaw.heat_map import heat_map, overlay
from thaw.image_classifier import ImageClassifier, load
from thaw.report.page import jpeg, photo
from thaw.report.predictions import Predictions

EACH = 6  # of the surest mistakes, and of right ones


def more_of(folder: Path, results: Mapping[str, Any], tested: Predictions | None) -> dict[str, Any]:
    """What `render` of page.py takes besides: heat maps, and the way of the layer groups.

    The model is that of the run in `folder`, or the one that results.json names. Nothing where it
    cannot be loaded, as with a backbone or a head of the user's own; one line says why.
    """
    run = Path(results.get("model", folder))
    try:
        model = load(run)
    except ConfigError as error:
        print(f"report.html has no heat maps and no layer movement: {error}", file=sys.stderr)
        return {}
    maps = heat_maps(model, tested) if tested else []
    return {"heat_maps": maps, "movement": movement(run, model)}


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
    """How far each layer group of the body is from the backbone's weights.

    Those are the weights that `backbone.weights` names, or with null the random ones of the run's
    seed: the backbone is built again as the run's settings say. A run with `ckpt_path` or `resume`
    went on from a checkpoint instead.

    Returns:
        Name of the group, stem first, and the norm of the difference as a share of the norm of the
        backbone's weights; empty for a model folder without a run around it.
    """
    file = run / ".hydra" / "config.yaml"
    if not file.is_file():
        return []
    cfg: Any = OmegaConf.load(file)
    torch.manual_seed(cfg.seed)
    start = config.build(cfg.backbone, "backbone")
    before, now = (dict(body.named_parameters()) for body in (start.body, model.body))
    if {name: value.shape for name, value in before.items()} != {
        name: value.shape for name, value in now.items()
    }:
        raise ConfigError(f"{run}: the settings in {file} are not those of its model")
    found = []
    for group in start.groups:
        change = sum(float((now[n] - before[n]).square().sum()) for n in group.parameters)
        length = sum(float(before[n].square().sum()) for n in group.parameters)
        found.append((group.name, (change / length) ** 0.5))
    return found
