"""The rule, case by case."""

import json

import pytest
from runs import ROOT

from benchmarks import advise as cases
from thaw.advice import ENOUGH, NEAR, NOISE, Depth, advise, removed


def depths(third: float, *, error: float = 0.01) -> list[Depth]:
    """Four groups; the last one's probe gets 0.8."""
    return [
        Depth("stem", 0.2, -0.6, error),
        Depth("layer2", 0.5, -0.3, error),
        Depth("layer3", third, third - 0.8, error),
        Depth("layer4", 0.8),
    ]


FEW, MANY = ENOUGH - 0.5, float(ENOUGH)
EDGE = 1 - 0.2 / (1 - NEAR)  # of layer3, at which the last group removes just `NEAR` of the errors


@pytest.mark.parametrize(
    ("per_class", "third", "way", "words"),
    [
        (FEW, 0.6, "features", ["finetune=feature_extraction"]),
        (FEW, 0.8 + 0.009 * NOISE, "features", ["finetune=feature_extraction"]),
        (FEW, 0.8 + 0.011 * NOISE, "earlier",
         ["finetune=feature_extraction", "finetune.features_from=layer3"]),
        (MANY, EDGE - 0.01, "top", ["finetune=partial", "finetune.top=2"]),
        (MANY, EDGE + 0.01, "all", ["finetune=freeze_unfreeze"]),
        (MANY, 0.9, "all", ["finetune=freeze_unfreeze"]),
    ],
)  # fmt: skip
def test_the_four_ways(per_class: float, third: float, way: str, words: list[str]) -> None:
    found = advise(per_class, depths(third))
    assert found.way == way
    assert list(found.words) == words
    size, nearness, *features = found.reasons
    assert ("are enough" in size) == (per_class == MANY)
    assert ("near to" in nearness) == (third < EDGE)
    assert (
        features == []
        if per_class == MANY
        else ("points better" in features[0]) == (way == "earlier")
    )


def test_the_share_of_errors_that_the_last_group_removes() -> None:
    assert removed(depths(0.6)) == pytest.approx(0.5)  # 0.4 -> 0.2
    assert removed(depths(0.8)) == pytest.approx(0.0)
    assert removed(depths(0.9)) == pytest.approx(-1.0)  # it doubles them
    assert removed([Depth("stem", 1.0), Depth("layer4", 1.0)]) == 1
    assert removed([Depth("stem", 1.0), Depth("layer4", 0.9)]) == 0


def test_a_single_group_has_nothing_earlier() -> None:
    assert advise(FEW, [Depth("all", 0.5)]).way == "features"
    assert advise(MANY, [Depth("all", 0.5)]).words == ("finetune=partial", "finetune.top=1")


def test_the_page_is_of_todays_rule() -> None:
    """benchmarks/advise.json, which benchmarks/advise.py writes."""
    known = json.loads((ROOT / "benchmarks" / "advise.json").read_text())
    text = "\n".join(cases.page(known)) + "\n"
    assert (ROOT / "benchmarks" / "advise.md").read_text() == text
