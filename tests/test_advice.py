"""The rule, case by case."""

import pytest

from thaw.advice import ENOUGH, NOISE, Depth, advise


def depths(gap: float) -> list[Depth]:
    """Four groups; the third is `gap` standard errors better than the last."""
    return [
        Depth("stem", 0.2, -0.6, 0.02),
        Depth("layer2", 0.5, -0.3, 0.02),
        Depth("layer3", 0.8 + 0.01 * gap, 0.01 * gap, 0.01),
        Depth("layer4", 0.8),
    ]


FEW, MANY = ENOUGH - 0.5, float(ENOUGH)
NEAR, FAR = NOISE - 0.1, NOISE + 0.1


@pytest.mark.parametrize(
    ("per_class", "gap", "way", "words"),
    [
        (FEW, NEAR, "features", ["finetune=feature_extraction"]),
        (FEW, FAR, "earlier",
         ["finetune=feature_extraction", "finetune.features_from=layer3"]),
        (MANY, NEAR, "top", ["finetune=partial", "finetune.top=2"]),
        (MANY, FAR, "all", ["finetune=freeze_unfreeze"]),
    ],
)  # fmt: skip
def test_the_four_ways(per_class: float, gap: float, way: str, words: list[str]) -> None:
    found = advise(per_class, depths(gap))
    assert found.way == way
    assert list(found.words) == words
    assert ("layer3 gives better features" in found.reason) == (gap == FAR)


def test_a_single_group_has_nothing_earlier() -> None:
    assert advise(FEW, [Depth("all", 0.5)]).way == "features"
    assert advise(MANY, [Depth("all", 0.5)]).words == ("finetune=partial", "finetune.top=1")
