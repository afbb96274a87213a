"""Does the model look where the heat map says? Grey over a quarter of the picture, and ask again.

    python benchmarks/heat_map.py ../runs/lite0           # a finished run whose photos are there

The probability of the predicted class, whole, without the hottest and without the coldest quarter
of the picture (grey is zero to the network), and how many maps are empty: for thaw's map, whose
score is taken above the mean of all classes, and for Grad-CAM with the bare score.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import thaw
from thaw.data.decode import decode
from thaw.heat_map import heat_map
from thaw.image_classifier import ImageClassifier
from thaw.tools.evaluate import data_of


class Bare(nn.Module):
    """A head of two classes, of which the first has the bare score of a class: their mean is 0."""

    def __init__(self, head: nn.Module, label: int) -> None:
        super().__init__()
        self.head, self.label = head, label

    def forward(self, features: Tensor) -> Tensor:
        score = self.head(features)[:, self.label]
        return torch.stack([score, -score], dim=1)  # N 2


def bare_map(model: ImageClassifier, view: Tensor, label: int) -> Tensor:
    """Grad-CAM of the bare class score, else as `heat_map`."""
    head = model.head
    model.head = Bare(head, label)
    try:
        return heat_map(model, view, 0)
    finally:
        model.head = head


@torch.no_grad()
def covered(model: ImageClassifier, view: Tensor, heat: Tensor, label: int) -> list[float]:
    """The probability of a class without the hottest and without the coldest quarter."""
    grey = torch.tensor([255 * value for value in model.input_spec.mean]).to(torch.uint8)
    order = heat.flatten().argsort(descending=True)
    views = []
    for part in (order[: len(order) // 4], order[-(len(order) // 4) :]):
        pixels = view.flatten(1).clone()
        pixels[:, part] = grey[:, None]
        views.append(pixels.view_as(view))
    return model(torch.stack(views))[:, label].tolist()


def main() -> None:
    """Prints a line of JSON for each kind of map."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--every", type=int, default=31, help="n-th photo of the test split")
    given = parser.parse_args()
    model = thaw.load(given.run)
    test = data_of(given.run).test
    assert test is not None, "the run has no test split"
    paths = list(test.paths)[:: given.every]
    kinds = {"above the mean": heat_map, "bare": bare_map}
    rows: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for path in paths:
        view = model.transform(decode(path))
        with torch.no_grad():
            whole, label = (value.item() for value in model(view[None])[0].max(0))
        for kind, make in kinds.items():
            heat = make(model, view, int(label))
            without = covered(model, view, heat, int(label))
            rows[kind].append([whole, *without, float(heat.max() == 0)])
    for kind, row in rows.items():
        names = ("whole", "without the hottest", "without the coldest", "share of empty maps")
        means = [round(value, 3) for value in torch.tensor(row).mean(0).tolist()]
        print(
            json.dumps({"score": kind, "photos": len(row), **dict(zip(names, means, strict=True))})
        )


if __name__ == "__main__":
    main()
