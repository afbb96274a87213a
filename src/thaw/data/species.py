"""The sixteen invented species of the demo: four families of look-alikes.

Within a family the colours, leaves, backgrounds and poses are the same; what tells two species
apart is a combination of petal count, outline, layers, veins, margin and centre, as among real
garden flowers. So neither a colour histogram nor the silhouette alone names the species.
"""

from dataclasses import dataclass
from typing import Literal

PETAL_COLOURS = {
    "white": (247, 244, 236),
    "yellow": (247, 209, 72),
    "apricot": (246, 168, 92),
    "coral": (236, 104, 92),
    "pink": (240, 152, 186),
    "magenta": (203, 62, 133),
    "violet": (146, 98, 196),
    "blue": (102, 132, 214),
}
CENTRE_COLOURS = ((240, 192, 48), (222, 138, 40), (120, 74, 40), (150, 170, 70), (92, 44, 70))

Tip = Literal["plain", "notched", "toothed", "fringed"]
Marking = Literal["none", "veins", "streak", "spots", "blotch", "band"]
Centre = Literal["dome", "cone", "stamens", "star", "crown", "ring"]


@dataclass(frozen=True)
class Species:
    """What all flowers of one kind share; lengths are fractions of the bloom's radius."""

    name: str
    palette: tuple[str, ...]  # keys of PETAL_COLOURS; the same for the whole family
    petals: int  # in one ring
    width: float  # widest half-width of a petal
    base: float  # outline ~ v^base (1-v)^point: a larger base makes a narrower claw
    point: float  # 0.25 blunt, 0.5 round, 1 pointed, 1.5 drawn out
    centre: Centre
    centre_size: float
    tip: Tip = "plain"
    marking: Marking = "none"
    rings: tuple[float, ...] = (1.0,)  # petal length of each ring, outermost first
    edged: bool = False  # a contrasting margin
    twist: float = 0.0  # radians between a petal's base and its tip
    cup: float = 0.15  # height of the tips above the centre; negative hangs down


_MALLOW = ("pink", "magenta", "white", "violet", "coral")
_DAISY = ("white", "yellow", "pink", "violet", "apricot")
_LILY = ("white", "apricot", "yellow", "pink", "coral")
_POPPY = ("coral", "yellow", "white", "violet", "blue")

SPECIES: tuple[Species, ...] = (
    # broad petals, mostly five
    Species("brook mallow", _MALLOW, 5, 0.46, 0.8, 0.30, "stamens", 0.16, "notched", "veins"),
    Species("evening mallow", _MALLOW, 5, 0.48, 0.7, 0.38, "stamens", 0.16, marking="blotch"),
    Species("pinwheel vine", _MALLOW, 5, 0.40, 0.6, 0.42, "star", 0.22, marking="none", twist=0.5),
    Species("ragged pink", _MALLOW, 5, 0.44, 1.0, 0.25, "ring", 0.12, "fringed", "band"),
    # many straps around a disc
    Species("meadow daisy", _DAISY, 13, 0.135, 0.5, 0.30, "dome", 0.27),
    Species("coin daisy", _DAISY, 8, 0.26, 0.8, 0.25, "dome", 0.25, "toothed", "streak"),
    Species("double daisy", _DAISY, 13, 0.14, 0.5, 0.40, "dome", 0.22, rings=(1.0, 0.68)),
    Species("prairie cone", _DAISY, 11, 0.16, 0.4, 0.35, "cone", 0.36, "notched", cup=-0.25),
    # six pointed petals
    Species("star lily", _LILY, 6, 0.23, 0.8, 0.95, "crown", 0.30, marking="spots"),
    Species("wood lily", _LILY, 6, 0.25, 0.8, 0.85, "crown", 0.30, marking="streak"),
    Species("bell tulip", _LILY, 6, 0.38, 0.6, 0.55, "crown", 0.20, marking="blotch", cup=0.4),
    Species("snow squill", _LILY, 6, 0.20, 0.6, 0.75, "ring", 0.15, marking="veins", edged=True),
    # two layers, four petals, ribbons: the odd ones
    Species("field poppy", _POPPY, 4, 0.66, 0.5, 0.30, "ring", 0.24, marking="blotch"),
    Species("wallflower", _POPPY, 4, 0.48, 1.2, 0.30, "star", 0.14, "notched", "veins"),
    Species("lantern columbine", _POPPY, 5, 0.26, 0.7, 0.90, "stamens", 0.14, rings=(1.0, 0.55)),
    Species("passion wheel", _POPPY, 10, 0.22, 0.6, 0.60, "ring", 0.16, marking="band", edged=True),
)
FLOWERS = tuple(species.name for species in SPECIES)
