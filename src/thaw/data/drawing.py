"""Flowers drawn by a program: the demo's pictures, offline and the same on every run.

A flower is a list of polygons in its own coordinates, projected once and filled from back to front.
Needs numpy and Pillow only, so that it is quick to import and easy to lift out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from thaw.data.petal import Petal, Shape, disc
from thaw.data.scene import Array, Colour, background, jitter, mix, photograph, shaded
from thaw.data.species import CENTRE_COLOURS, PETAL_COLOURS, SPECIES, Species

VERSION = 1  # part of the cache folder's name: raise it when any picture changes
SUPERSAMPLING = 2  # Pillow's polygons have hard edges: draw larger, then shrink


@dataclass(frozen=True)
class Bloom:
    """The pose of one flower: maps its own coordinates to the canvas.

    In the flower's coordinates the centre is (0, 0, 0), petals reach radius 1 in the x-y plane and
    z points towards the viewer before the flower is tilted. Angles in radians.
    """

    centre: Array  # (2,), pixels
    radius: float  # pixels
    roll: float
    lean: float  # direction in which the flower is tilted away
    tilt: float

    def project(self, points: Array) -> Array:
        """Points (M, 3) of the flower -> points (M, 2) on the canvas, in pixels."""
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        flat = points[:, :2] @ np.array([[cos, sin], [-sin, cos]])
        lean = np.array([np.cos(self.lean), np.sin(self.lean)])
        shift = flat @ lean * (np.cos(self.tilt) - 1) + points[:, 2] * np.sin(self.tilt)
        return self.centre + self.radius * (flat + shift[:, None] * lean)

    def fill(
        self,
        draw: ImageDraw.ImageDraw,
        shapes: Sequence[Shape],
        place: Callable[[Array], Array] = np.asarray,
    ) -> None:
        """Draw polygons, the first at the back; `place` maps their corners to points (M, 3)."""
        corners = self.project(place(np.concatenate([points for points, _ in shapes])))
        start = 0
        for points, ink in shapes:
            draw.polygon(corners[start : start + len(points)].ravel().tolist(), fill=ink)
            start += len(points)


def draw_flower(class_index: int, rng: np.random.Generator, size: int) -> Image.Image:
    """One RGB picture, `size` x `size` pixels, of the species at `class_index` of SPECIES.

    The picture is a pure function of the class, the generator's state and the size.
    """
    species = SPECIES[class_index]
    side = size * SUPERSAMPLING
    ground = background(rng, size, tuple(PETAL_COLOURS.values()))
    canvas = ground.resize((side, side), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(canvas, "RGBA")
    colour = PETAL_COLOURS[species.palette[rng.integers(len(species.palette))]]
    colour = jitter(rng, colour, 14)
    radius = side * rng.uniform(0.27, 0.46)
    middle = side * rng.uniform(0.38, 0.62, 2)
    for i in reversed(range(1 + int(rng.random() < 0.25))):  # the main flower last, on top
        away = rng.uniform(0, 2 * np.pi)
        bloom = Bloom(
            centre=middle + i * radius * 1.3 * np.array([np.cos(away), np.sin(away)]),
            radius=radius * (1 - 0.35 * i),
            roll=rng.uniform(0, 2 * np.pi),
            lean=rng.uniform(0, 2 * np.pi),
            tilt=min(abs(rng.normal(0, 0.45)), 1.0),  # beyond 60 degrees petals hide each other
        )
        _stem(draw, rng, bloom, side)
        _flower(draw, rng, species, bloom, colour)
    return photograph(canvas.reduce(SUPERSAMPLING), rng)


def _stem(draw: ImageDraw.ImageDraw, rng: np.random.Generator, bloom: Bloom, side: int) -> None:
    """A curved stem from the bloom out of the picture, with up to three leaves."""
    green = jitter(rng, (72, 118, 52), 14)
    angle = rng.normal(np.pi / 2, 0.5)  # downwards: y grows towards the bottom
    t = np.linspace(0, 1, 12)[:, None]
    ahead = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-ahead[1], ahead[0]])
    path = bloom.centre + side * (t * ahead + rng.normal(0, 0.12) * t**2 * across)
    draw.line(path.ravel().tolist(), fill=green, width=max(2, round(bloom.radius * 0.07)))
    v = t
    for _ in range(rng.integers(0, 4)):
        root = path[rng.integers(2, 9)]
        turn = angle + rng.choice([-1, 1]) * rng.uniform(0.5, 1.2) + np.pi * (rng.random() < 0.5)
        along = bloom.radius * rng.uniform(0.5, 1.1) * np.array([np.cos(turn), np.sin(turn)])
        aside = rng.uniform(0.10, 0.24) * np.array([-along[1], along[0]])
        rim = np.sin(np.pi * v) ** 0.8 * aside
        tint = jitter(rng, green, 8)
        leaf = np.concatenate([root + v * along + rim, (root + v * along - rim)[::-1]])
        draw.polygon(leaf.ravel().tolist(), fill=tint)
        half = np.concatenate([root + v * along + rim, (root + v * along)[::-1]])
        draw.polygon(half.ravel().tolist(), fill=mix(tint, (255, 255, 230), 0.18))


def _flower(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    species: Species,
    bloom: Bloom,
    colour: Colour,
) -> None:
    """All rings of petals, outermost first, then the centre."""
    tips = mix(colour, (255, 255, 255), rng.uniform(0, 0.25))
    throat = mix(colour, jitter(rng, (235, 225, 160), 30), rng.uniform(0.1, 0.45))
    dark = mix(colour, (70, 16, 60), rng.uniform(0.6, 0.85))
    plump, wild = np.exp(rng.normal(0, 0.09)), rng.uniform(0.02, 0.07)
    cup = species.cup + rng.normal(0, 0.06)
    step = 2 * np.pi / species.petals
    for ring, length in enumerate(species.rings):
        for k in rng.permutation(species.petals):
            petal = Petal(
                species,
                angle=(k + ring / 2) * step + rng.normal(0, wild),
                length=length * np.exp(rng.normal(0, 0.05)),
                width=species.width * plump * np.exp(rng.normal(0, 0.06)),
                cup=cup + 0.25 * ring,
                phase=rng.uniform(0, 2 * np.pi),
            )
            shade = rng.uniform(-0.07, 0.07)
            body = petal.body(shaded(throat, shade), shaded(tips, shade), dark)
            bloom.fill(draw, body + petal.marking(dark), petal.place)
    bloom.fill(draw, _centre(rng, species, dark))


def _lifted(flat: Array, at: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
    """A figure (M, 2) around the origin -> points (M, 3) of the flower around `at`."""
    points = np.empty((len(flat), 3))
    points[:, :2] = flat + at[:2]
    points[:, 2] = at[2]
    return points


def _centre(rng: np.random.Generator, species: Species, dark: Colour) -> list[Shape]:
    """The middle of the flower: what sits on the petals, in the flower's coordinates."""
    colour = jitter(rng, CENTRE_COLOURS[rng.integers(len(CENTRE_COLOURS))], 12)
    size = species.centre_size * np.exp(rng.normal(0, 0.08))
    pale = mix(colour, (255, 255, 235), 0.6)
    match species.centre:
        case "dome":
            return _florets(colour, size, 0.16 * size)
        case "cone":
            return _florets(colour, size, 1.2 * size)
        case "stamens":
            eye = (_lifted(disc(0.55 * size, 20)), (*mix(colour, dark, 0.4), 255))
            return [eye, *_stamens(rng, colour, 9, (size, 0.16), 0.030)]
        case "crown":
            eye = (_lifted(disc(0.09, 20)), (150, 180, 80, 255))
            return [eye, *_stamens(rng, colour, 6, (size, 0.22), 0.048)]
        case "star":
            rays = disc(size, 2 * species.petals)
            rays[1::2] *= 0.4
            return [
                (_lifted(rays), (*pale, 255)),
                (_lifted(disc(0.3 * size, 20)), (*colour, 255)),
            ]
        case "ring":
            inks = ((1.0, dark), (0.72, mix(colour, pale, 0.4)), (0.3, mix(colour, dark, 0.6)))
            return [(_lifted(disc(share * size, 20)), (*ink, 255)) for share, ink in inks]


def _florets(colour: Colour, size: float, height: float) -> list[Shape]:
    """A disc of many small flowers, raised in the middle; they sit on a sunflower's spiral."""
    shapes: list[Shape] = []
    for i in range(6):
        low = i / 6
        level = disc(size * np.sqrt(1 - low**2), 20)
        shapes.append(
            (_lifted(level, (0, 0, height * low)), (*shaded(colour, low / 2 - 0.35), 255))
        )
    for i in range(36):
        far, angle = np.sqrt(i / 36), 2.39996 * i
        at = (size * far * np.cos(angle), size * far * np.sin(angle), height * (1 - far**2))
        shapes.append(
            (_lifted(disc(0.08 * size, 6), at), (*shaded(colour, 0.3 - 0.6 * (i % 2)), 255))
        )
    return shapes


def _stamens(
    rng: np.random.Generator, colour: Colour, count: int, reach: tuple[float, float], tip: float
) -> list[Shape]:
    """Threads from the centre to `reach` (out, up), each with a disc of radius `tip` on top."""
    shapes: list[Shape] = []
    for k in range(count):
        angle = 2 * np.pi * k / count + rng.normal(0, 0.12)
        out = np.array([np.cos(angle), np.sin(angle)])
        far = reach[0] * np.exp(rng.normal(0, 0.12))
        aside = 0.010 * np.array([-out[1], out[0]])
        thread = _lifted(np.stack([aside, far * out + aside, far * out - aside, -aside]))
        thread[1:3, 2] = reach[1]
        shapes.append((thread, (*mix(colour, (255, 255, 235), 0.5), 255)))
        shapes.append((_lifted(disc(tip), (*(far * out), reach[1])), (*colour, 255)))
    return shapes
