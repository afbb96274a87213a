"""Where a trained model looks: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391)."""

from contextlib import ExitStack
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from thaw.image_classifier import ImageClassifier


def heat_map(model: ImageClassifier, view: Tensor, label: int) -> Tensor:
    """How much each place of a picture speaks for a class: float (S, S), 0 to 1, on the CPU.

    Each channel of the body's last spatial output is weighted by its mean effect on the class
    score; where the sum is positive, the place speaks for the class. The score is taken above the
    mean of all classes, because what all scores share is nothing to a softmax. With the bare score
    a third of the maps of Flowers102's photos were empty, and the coldest quarter mattered more to
    the model than the hottest (EfficientNet-Lite0; benchmarks/serving.md).

    In a transformer that classifies by its class token, the last block's patches have no effect any
    more. So the last output with an effect is taken: of the norm before that block's attention.

    `view` is uint8 (3, S, S), as `model.transform` gives it, and `label` the place of the class in
    `model.classes`. All is 0 where nothing speaks for the class. Raises a ValueError where no
    output inside the body is spatial.
    """
    outputs: list[Any] = []
    # Attention weights are square as well, but come out of modules without parameters.
    parts = [part for part in model.body.modules() if next(part.parameters(), None) is not None]
    with ExitStack() as hooks, torch.inference_mode(False), torch.enable_grad():
        for part in parts:
            hooks.enter_context(part.register_forward_hook(lambda *seen: outputs.append(seen[-1])))
        images = model.normalise(view[None].to(next(model.parameters()).device))
        scores = model.head(model.body(images.requires_grad_()))[0]  # K
        spatial = [output for output in outputs if len(_places(output))]
        if not spatial:
            raise ValueError("heat_map: no output inside the body is spatial, so there is no map")
        score, heat = scores[label] - scores.mean(), torch.zeros(1)
        for output in reversed(spatial):
            (found,) = torch.autograd.grad(score, output, retain_graph=True, allow_unused=True)
            if found is not None and (effects := _places(found)).any():
                heat = (_places(output.detach()) @ effects.mean(0)).relu()  # P
                break
    heat = heat.view(1, 1, isqrt(len(heat)), -1)
    heat = functional.interpolate(heat, view.shape[-2:], mode="bilinear")[0, 0]
    return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).cpu()


def overlay(view: Tensor, heat: Tensor) -> Tensor:
    """The picture in grey, under a heat map (S, S) from yellow to red: uint8 (3, S, S)."""
    grey = (view.float().mean(0) / 255).expand(3, -1, -1)
    colours = torch.stack([torch.ones_like(heat), 1 - heat, torch.zeros_like(heat)])
    return (255 * torch.lerp(grey, colours, 0.6 * heat)).round().to(torch.uint8)


def _places(output: Any) -> Tensor:
    """An output for one picture -> its P places (P, C), P a square; empty if it is not spatial."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != 1:
        return torch.empty(0)
    one = output[0]
    if one.ndim == 2:  # L C: the class token and its like, then the patches
        one = one[-(isqrt(len(one)) ** 2) :]
    elif one.shape[1] == one.shape[2]:  # C H W; the picture is square
        one = one.flatten(1).T
    elif one.shape[0] == one.shape[1]:  # H W C, as in Swin
        one = one.flatten(0, 1)
    return one if one.ndim == 2 and len(one) > 1 else torch.empty(0)
