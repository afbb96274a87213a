"""Which of the four ways of transfer fits: a rule, from the size of the data and probes by depth.

The classic texts ask how much data there is, and how near it is to what the backbone was trained on
(CS231n, https://cs231n.github.io/transfer-learning/, and the table in its lecture):

                  near                            far
    few photos    features only                   features from an earlier layer
    enough        fine-tune the top               fine-tune everything

They give no numbers. Here both questions are asked of measurements. Deeper layers are more specific
to what was learned (arXiv:1411.1792), so data is near where the last layer group still removes many
of the errors that the best group before it makes. And with few photos the earlier layer is taken
only where its features are better. benchmarks/advise.md holds the rule against training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Way = Literal["features", "earlier", "top", "all"]

# Photos a class from which fine-tuning pays. In our runs (benchmarks/advise.md) features alone were
# better by 17 and 4 points at 2 and 5 photos, within the noise at 8, as good (demo) or 5 and 11
# points worse (Flowers102) at 10, 2 points worse at 30: so about 10, give or take a factor of two.
# "Extremely few" favour features, more favour fine-tuning, near and far alike (arXiv:2205.07874);
# with all the photos of twelve data sets fine-tuning is nearly always better (arXiv:1805.08974).
ENOUGH = 10

# Share of the best earlier group's errors that the last removes, from which data counts as near.
# MobileNetV2 and SqueezeNet, whose ImageNet has 120 breeds of dogs and hardly a flower: see
# benchmarks/advise.md. A guess from two nets: widths and depths of the groups matter too.
NEAR = 0.25

NOISE = 2.0  # standard errors by which an earlier group must be better to be taken


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
    reasons: tuple[str, ...]
    words: tuple[str, ...]


def advise(per_class: float, depths: Sequence[Depth]) -> Advice:
    """The way that fits.

    Args:
        per_class: photos to train on, of the median class.
        depths: features after each layer group, stem first; the last are those that a head gets.
    """
    *earlier, last = depths
    best = max(earlier, key=lambda depth: depth.accuracy, default=last)
    few = per_class < ENOUGH
    better = best.gap > NOISE * best.error
    share = removed(depths)
    way: Way = ("earlier" if better else "features") if few else ("top" if share >= NEAR else "all")
    words = {
        "features": ("finetune=feature_extraction",),
        "earlier": ("finetune=feature_extraction", f"finetune.features_from={best.group}"),
        "top": ("finetune=partial", f"finetune.top={max(1, len(depths) // 2)}"),
        "all": ("finetune=freeze_unfreeze",),
    }[way]
    near = "near to" if share >= NEAR else "far from"
    reasons = [
        f"{per_class:g} photos a class are {'few' if few else 'enough'}: fine-tuning pays from "
        f"about {ENOUGH}",
        f"{best.group} makes {1 - best.accuracy:.0%} errors, the last group {1 - last.accuracy:.0%}"
        f": {near} what the backbone knows (near: {NEAR:.0%} of them gone; here {share:.0%})",
    ]
    if few and earlier:
        than = f"{100 * best.gap:.1f} points better" if better else "not better, beyond chance,"
        reasons.append(f"{best.group}'s features are {than} than the last group's")
    return Advice(way, tuple(reasons), words)


def removed(depths: Sequence[Depth]) -> float:
    """Share of the best earlier group's errors that the last group removes; below 0: it adds some.

    1 where there is no earlier group; where the best one makes none, 1 if the last makes none
    either, else 0.
    """
    *earlier, last = depths
    best = max(earlier, key=lambda depth: depth.accuracy, default=last)
    if not earlier:
        return 1.0
    if best.accuracy == 1:
        return float(last.accuracy == 1)
    return 1 - (1 - last.accuracy) / (1 - best.accuracy)
