"""Look-alike flowers drawn by a program: the pictures of data=demo.

Sixteen invented species in four families. Within a family colours, poses and backgrounds are the
same; the species differ in the number, outline and rings of petals, in their marking and centre.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

VERSION = 2  # part of the cache folder's name: raise it when any picture changes
SUPERSAMPLING = 2  # polygons of Pillow have hard edges: draw larger, then shrink

Array = NDArray[np.float64]
Polygon = tuple[Array, ArrayLike]  # corners (P, 2) and colour
Rng = np.random.Generator


class Species(NamedTuple):
    """What all flowers of one kind share; lengths are fractions of the flower's radius."""

    name: str
    family: str  # key of PETAL_COLOURS
    petals: int  # in one ring
    width: float  # widest half-width of a petal
    base: float  # the outline is v^base (1-v)^point, v from 0 (base) to 1 (tip)
    point: float
    tip: str  # plain, notched or fringed
    marking: str  # none, veins, streak, spots, blotch or band
    centre: str  # disc, ring, star or stamens
    centre_size: float
    rings: tuple[float, ...] = (1.0,)  # petal length of each ring, outermost first


WHITE, PINK, YELLOW, PURPLE = (247, 244, 236), (240, 152, 186), (247, 209, 72), (146, 98, 196)
ORANGE, RED, MAGENTA, BLUE = (246, 168, 92), (236, 104, 92), (203, 62, 133), (102, 132, 214)
PETAL_COLOURS = {
    "mallow": (PINK, MAGENTA, WHITE, PURPLE, RED), "daisy": (WHITE, YELLOW, PINK, PURPLE, ORANGE),
    "lily": (WHITE, ORANGE, YELLOW, PINK, RED), "poppy": (RED, YELLOW, WHITE, PURPLE, BLUE),
}  # fmt: skip
CENTRE_COLOURS = ((240, 192, 48), (222, 138, 40), (120, 74, 40), (150, 170, 70), (92, 44, 70))
GROUNDS = ((34, 60, 34), (24, 44, 38), (70, 58, 44), (52, 66, 92), (112, 118, 104))

SPECIES = (
    Species("brook mallow", "mallow", 5, 0.46, 0.8, 0.30, "notched", "veins", "stamens", 0.16),
    Species("evening mallow", "mallow", 5, 0.48, 0.7, 0.38, "plain", "blotch", "stamens", 0.16),
    Species("pinwheel vine", "mallow", 5, 0.40, 0.6, 0.42, "plain", "none", "star", 0.22),
    Species("ragged pink", "mallow", 5, 0.44, 1.0, 0.25, "fringed", "band", "ring", 0.12),
    Species("meadow daisy", "daisy", 13, 0.135, 0.5, 0.30, "plain", "none", "disc", 0.27),
    Species("coin daisy", "daisy", 8, 0.26, 0.8, 0.25, "notched", "streak", "disc", 0.25),
    Species("double daisy", "daisy", 13, 0.14, 0.5, 0.4, "plain", "none", "disc", 0.22, (1, 0.68)),
    Species("prairie cone", "daisy", 11, 0.16, 0.4, 0.35, "notched", "none", "ring", 0.36),
    Species("star lily", "lily", 6, 0.23, 0.8, 0.95, "plain", "spots", "stamens", 0.30),
    Species("wood lily", "lily", 6, 0.25, 0.8, 0.85, "plain", "streak", "stamens", 0.30),
    Species("bell tulip", "lily", 6, 0.38, 0.6, 0.55, "plain", "blotch", "stamens", 0.20),
    Species("snow squill", "lily", 6, 0.20, 0.6, 0.75, "plain", "veins", "ring", 0.15),
    Species("field poppy", "poppy", 4, 0.66, 0.5, 0.30, "plain", "blotch", "ring", 0.24),
    Species("wallflower", "poppy", 4, 0.48, 1.2, 0.30, "notched", "veins", "star", 0.14),
    Species("columbine", "poppy", 5, 0.26, 0.7, 0.90, "plain", "none", "stamens", 0.14, (1, 0.55)),
    Species("passion wheel", "poppy", 10, 0.22, 0.6, 0.60, "plain", "band", "ring", 0.16),
)
FLOWERS = tuple(species.name for species in SPECIES)


def draw_flower(class_index: int, rng: Rng, size: int) -> Image.Image:
    """One RGB picture, `size` x `size` pixels, of the species at `class_index` of SPECIES."""
    species = SPECIES[class_index]
    side = size * SUPERSAMPLING
    canvas = _background(rng, size).resize((side, side), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(canvas, "RGBA")
    colour = _pick(PETAL_COLOURS[species.family], rng)
    middle, radius = side * rng.uniform(0.38, 0.62, 2), side * rng.uniform(0.25, 0.45)
    # From the flower's coordinates (petals reach radius 1) to pixels: turn it, then tilt it away.
    lean = _rotation(rng.uniform(0, 2 * np.pi))
    squash = np.cos(min(abs(rng.normal(0, 0.5)), 1.0))
    pose = radius * lean @ np.diag([squash, 1.0]) @ lean.T @ _rotation(rng.uniform(0, 2 * np.pi))

    def fill(corners: Array, colour: ArrayLike, opacity: int = 255) -> None:
        points = (corners @ pose.T + middle).ravel().tolist()
        draw.polygon(points, fill=(*np.asarray(colour).clip(0, 255).astype(int).tolist(), opacity))

    stem = middle + side * np.array([[0, 0], [rng.normal(0, 0.3), 1]])
    draw.line(stem.ravel().tolist(), fill=(72, 118, 52), width=max(2, round(radius * 0.07)))
    tips = _mix(colour, (255, 255, 255), rng.uniform(0, 0.25))
    throat = _mix(colour, (235, 225, 160), rng.uniform(0.1, 0.45))
    dark = _mix(colour, (70, 16, 60), rng.uniform(0.6, 0.85))
    plump = species.width * np.exp(rng.normal(0, 0.09))
    strength = int(rng.integers(90, 170))  # of the marking
    for ring, length in enumerate(species.rings):
        for k in rng.permutation(species.petals):
            angle = 2 * np.pi * (k + ring / 2) / species.petals + rng.normal(0, 0.05)
            turn = length * np.exp(rng.normal(0, 0.05)) * _rotation(angle).T
            outline = _outline(species, plump * np.exp(rng.normal(0, 0.06)))
            shade = rng.uniform(0.93, 1.07)
            fill(outline * (1.04, 1.08) @ turn, (15, 10, 25), 50)  # its shadow
            fill(outline @ turn, _mix(tips, dark, 0.12) * shade)
            for cut in (1.0, 0.75, 0.5, 0.25):  # from the tip's colour to the throat's
                part = outline * (0.97, 0.94)
                part[:, 0] = np.minimum(part[:, 0], cut)
                fill(part @ turn, _mix(throat, tips, cut) * shade)
            for mark in _marking(species.marking, plump, rng):
                fill(mark @ turn, dark, strength)
    for corners, ink in _centre(species, dark, rng):
        fill(corners, ink)
    return _photograph(canvas.reduce(SUPERSAMPLING), rng)


def _outline(species: Species, width: float) -> Array:
    """The corners (28, 2) of a petal along the x axis, up one side and down the other."""
    v = np.sin(np.linspace(0, np.pi / 2, 14))  # denser at the tip, where the outline bends
    widest = species.base / (species.base + species.point)
    peak = widest**species.base * (1 - widest) ** species.point
    u = width * v**species.base * (1 - v) ** species.point / peak
    u, v = np.concatenate([u, -u[::-1]]), np.concatenate([v, v[::-1]])
    rim = np.clip((v - 0.6) / 0.4, 0, 1)
    if species.tip == "notched":
        v = v - 0.24 * rim * np.exp(-((u / width / 0.45) ** 2))
    elif species.tip == "fringed":
        v = v - 0.15 * rim * (np.arange(28) % 2)
    return np.array([v, u]).T


def _marking(kind: str, width: float, rng: Rng) -> list[Array]:
    """Polygons on a petal along the x axis."""
    shares = (-0.7, -0.35, 0, 0.35, 0.7) if kind == "veins" else ()
    polygons = [_box(0.12, 0.8, 0.012) @ _rotation(share * width).T for share in shares]
    if kind == "spots":
        across = width * rng.uniform(-0.5, 0.5, 9)
        polygons = [_disc(0.024) + place for place in zip(np.linspace(0.22, 0.66, 9), across)]
    elif kind == "streak":
        polygons = [_disc(0.33, 4) * [1, 0.5 * width] + [0.38, 0]]
    elif kind == "blotch":
        polygons = [_disc(0.25) * [1, 2.4 * width] + [0.24, 0]]
    elif kind == "band":
        polygons = [_box(0.36, 0.58, 0.75 * width)]
    return polygons


def _centre(species: Species, dark: Array, rng: Rng) -> list[Polygon]:
    """The middle of the flower, which lies on the petals."""
    colour = _pick(CENTRE_COLOURS, rng)
    pale = _mix(colour, (255, 255, 235), 0.6)
    size = species.centre_size * np.exp(rng.normal(0, 0.08))
    if species.centre == "disc":
        inks = (_mix(colour, (255, 255, 255), 0.3), _mix(colour, (20, 10, 30), 0.3))
        places = [size * np.sqrt(i / 40) * _rotation(2.4 * i)[0] for i in range(36)]  # a spiral
        florets = [(_disc(0.08 * size) + at, inks[i % 2]) for i, at in enumerate(places)]
        return [(_disc(size), colour), *florets]
    if species.centre == "ring":
        inks = ((1.0, dark), (0.72, colour), (0.3, _mix(colour, dark, 0.6)))
        return [(_disc(share * size), ink) for share, ink in inks]
    if species.centre == "star":
        rays = _disc(size, 2 * species.petals)
        rays[1::2] *= 0.4
        return [(rays, pale), (_disc(0.3 * size), colour)]
    turns = [_rotation(angle).T for angle in 0.9 * np.arange(7) + rng.normal(0, 0.12, 7)]
    threads = [(_box(0, size, 0.010) @ turn, _mix(colour, (255, 255, 235), 0.5)) for turn in turns]
    return threads + [((_disc(0.04) + (size, 0)) @ turn, colour) for turn in turns]


def _background(rng: Rng, size: int) -> Image.Image:
    """Cloudy colour with blurred blobs in the colours of petals: so colour alone says little."""
    dark = np.asarray(GROUNDS[rng.integers(len(GROUNDS))])
    cells = int(rng.integers(3, 9))
    cloud = np.clip(dark * (1 + 1.5 * rng.random((cells, cells, 1))), 0, 255).astype(np.uint8)
    ground = Image.fromarray(cloud).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(ground, "RGBA")
    colours = [colour for palette in PETAL_COLOURS.values() for colour in palette]
    for _ in range(rng.integers(0, 10)):
        (x, y), r = rng.uniform(0, size, 2), size * rng.uniform(0.03, 0.14)
        ink = (*colours[rng.integers(len(colours))], int(rng.integers(90, 220)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    return ground.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.008, 0.035)))


def _photograph(picture: Image.Image, rng: Rng) -> Image.Image:
    """Light from one side, a colour cast, another exposure and noise, as from a camera."""
    pixels = np.asarray(picture, dtype=np.float32)  # H W C
    direction = rng.uniform(0, 0.35) * _rotation(rng.uniform(0, 2 * np.pi))[0]
    across = np.linspace(-1, 1, len(pixels))
    light = 1 + direction[0] * across + direction[1] * across[:, None]
    warmth = rng.normal(0, 0.07)
    balance = np.array([1 + warmth, 1, 1 - warmth]) * np.exp(rng.normal(0, 0.16))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(1, 10)
    exposed = pixels * light[:, :, None] * balance + noise
    return Image.fromarray(np.clip(exposed, 0, 255).astype(np.uint8))


def _pick(colours: tuple[tuple[int, int, int], ...], rng: Rng) -> Array:
    colour = np.asarray(colours[int(rng.integers(len(colours)))])
    return np.clip(colour + rng.normal(0, 13, 3), 0, 255)


def _mix(one: Array, other: ArrayLike, share: float) -> Array:
    """The colour that is `share` (0-1) of the way from one to the other."""
    return one + (np.asarray(other) - one) * share


def _rotation(angle: float) -> Array:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _disc(radius: float, corners: int = 12) -> Array:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return radius * np.array([np.cos(angle), np.sin(angle)]).T


def _box(start: float, stop: float, u: float) -> Array:
    return np.array([[start, -u], [stop, -u], [stop, u], [start, u]])
