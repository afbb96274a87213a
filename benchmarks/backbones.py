"""What thaw makes of each of torchvision's classification models, as a table: backbones.md.

    python benchmarks/backbones.py

Nothing is downloaded or trained: the models are made without values. Two minutes of one core.
"""

import math
import time
from pathlib import Path

import torch
import torchvision

from thaw import launch
from thaw.backbones import tracing
from thaw.backbones.backbone import Backbone
from thaw.backbones.rebuild import without_values
from thaw.backbones.torchvision_backbone import torchvision_backbone, torchvision_model

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# torchvision's models as backbones

- command: python benchmarks/backbones.py
- versions: torch {torch}, torchvision {torchvision}
- D: features that the head gets, (N, D)
- parameters: of the body, without the last layer and without auxiliary heads
- sizes: pixels of the square input that a pass through the network takes (`thaw models` has the
  size that each set of weights was trained for)
- groups: names of the layer groups, stem first, at `backbone.granularity=stage`; a-b: from a to b

| backbone | D | parameters | sizes | groups | |
| --- | ---: | ---: | --- | ---: | --- |
"""


def sizes(name: str, default: int) -> str:
    """ "any", "63 and more", "multiples of 16" or ranges."""

    def works(size: int) -> bool:
        try:
            with without_values():
                model = torchvision_model(name, size)
            tracing.trace(model, size)
        except tracing.SIZE_ERRORS:
            return False
        return True

    if works(1):
        return "any"
    if not works(default - 1) or not works(default + 1):
        found = [size for size in range(1, 480) if works(size)]
        step = math.gcd(*found)
        if step > 1:
            assert found == list(range(step, 480, step)), found
            return f"multiples of {step}"
        ends = [size for size in found if size + 1 not in found]
        starts = [size for size in found if size - 1 not in found]
        return ", ".join(f"{low}-{high}" for low, high in zip(starts, ends, strict=True)) + ", ..."
    low, high = 1, default  # the first never works, the second does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return f"{high} and more"


def row(backbone: Backbone) -> str:
    """One line of the table."""
    parameters = sum(weight.numel() for weight in backbone.body.parameters())
    names = ", ".join(group.name for group in backbone.groups)
    cells = (
        backbone.name, str(backbone.out_features), f"{parameters:,}",
        sizes(backbone.name, backbone.input_spec.size), str(len(backbone.groups)), names,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    started = time.perf_counter()
    rows = []
    for name in launch.torchvision_names():
        with without_values():
            rows.append(row(torchvision_backbone(name, weights=None)))
        print(rows[-1], end="")
    head = HEAD.format(torch=torch.__version__, torchvision=torchvision.__version__)
    PAGE.write_text(head + "".join(rows), encoding="utf-8")
    print(f"{PAGE}: {len(rows)} models, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
