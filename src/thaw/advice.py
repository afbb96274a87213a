"""Which of the four ways of transfer fits: a rule, from the size of the data and probes by depth.

The classic texts ask two things, how much data there is and how near it is to what the backbone
was trained on (CS231n, "Transfer Learning", https://cs231n.github.io/transfer-learning/, and the
table in its lecture on training networks):

                  near                            far
    few photos    features only                   features from an earlier layer
    enough        fine-tune the top               fine-tune everything

They give no numbers. Those here, and how sure they are, stand beside each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Way = Literal["features", "earlier", "top", "all"]

ENOUGH = 10  # photos a class
NOISE = 2.0  # standard errors


@dataclass(frozen=True)
class Depth:
    """Features after one layer group.

    Attributes:
        group: its name.
        accuracy: share 0-1 that the cross-validated probe gets right.
        gap: how much that is above what the last group's features give, on the same photos.
        error: standard error of the gap.
    """

    group: str
    accuracy: float
    gap: float = 0.0
    error: float = 0.0


@dataclass(frozen=True)
class Advice:
    """A way, why, and the settings of train.py that take it."""

    way: Way
    reason: str
    words: tuple[str, ...]


def advise(per_class: float, depths: Sequence[Depth]) -> Advice:
    """The way that fits.

    Args:
        per_class: photos to train on, of the median class.
        depths: features after each layer group, stem first; the last are those that a head gets.
    """
    *earlier, last = depths
    best = max(earlier, key=lambda depth: depth.accuracy, default=last)
    far = best.gap > NOISE * best.error
    few = per_class < ENOUGH
    size = f"{per_class:g} photos a class are {'fewer than' if few else 'at least'} {ENOUGH}"
    if far:
        nearness = (
            f"{best.group} gives better features than the last layer, by {100 * best.gap:.1f} "
            "points, so what the backbone learned last does not suit these photos"
        )
    else:
        nearness = "no earlier layer gives better features than the last"
    way: Way = ("earlier" if far else "features") if few else ("all" if far else "top")
    words = {
        "features": ("finetune=feature_extraction",),
        "earlier": ("finetune=feature_extraction", f"finetune.features_from={best.group}"),
        "top": ("finetune=partial", f"finetune.top={max(1, len(depths) // 2)}"),
        "all": ("finetune=freeze_unfreeze",),
    }[way]
    return Advice(way, f"{size}; {nearness}", words)
