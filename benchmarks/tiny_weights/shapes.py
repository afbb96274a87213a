"""Shapes and textures drawn by a program: what the tiny backbone is pretrained on.

A class is an outline filled with a texture: "striped star-5", "wooden crescent". Colours, pose,
light and clutter are random. There are no flowers among them, so that fine-tuning on the demo is
real transfer. Needs numpy and Pillow only.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scene import Array, background, jitter, mix, photograph

SUPERSAMPLING = 3

COLOURS = (
    (238, 236, 228),
    (34, 34, 44),
    (206, 58, 60),
    (238, 146, 54),
    (244, 208, 78),
    (92, 160, 84),
    (64, 150, 158),
    (70, 102, 190),
    (130, 82, 170),
    (222, 122, 168),
    (134, 92, 62),
)


def _polar(radius: Array) -> Array:
    """The closed outline (M, 2) with those radii at equal angles."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    return radius[:, None] * np.array([np.cos(angle), np.sin(angle)]).T


def _star(points: int, inner: float) -> Array:
    return _polar(np.where(np.arange(2 * points) % 2, inner, 1.0))


def _cog(teeth: int, inner: float) -> Array:
    return _polar(np.where(np.arange(8 * teeth) % 8 < 4, inner, 1.0))


def _cross(arm: float) -> Array:
    corner = np.array([(1, arm), (arm, arm), (arm, 1), (-arm, 1)])
    turned = corner @ np.array([[0, 1], [-1, 0]])
    return np.concatenate([corner[:3], turned[:3], -corner[:3], -turned[:3]])


def _crescent() -> Array:
    angle = np.linspace(0.6, 2 * np.pi - 0.6, 30)
    outer = np.array([np.cos(angle), np.sin(angle)]).T
    inner = np.array([0.42 + 0.68 * np.cos(angle), 0.68 * np.sin(angle)]).T
    return np.concatenate([outer, inner[::-1]])


def _heart() -> Array:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.array([x, -y]).T / 16


def _drop() -> Array:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.array([np.cos(t), 0.9 * np.sin(t) * np.sin(t / 2) ** 1.5]).T


def _spiral() -> Array:
    turn = np.linspace(0.5, 4.2 * np.pi, 70)
    far = turn / turn[-1]
    wide = 0.085
    axis = np.array([np.cos(turn), np.sin(turn)]).T
    return np.concatenate([axis * (far + wide)[:, None], (axis * (far - wide)[:, None])[::-1]])


def _saw(blades: int) -> Array:
    """A circular saw: the radius climbs and falls back at once."""
    return _polar(0.62 + 0.38 * (np.arange(16 * blades) % 16) / 15)


OUTLINES: dict[str, Array] = {
    "triangle": _polar(np.ones(3)),
    "square": _polar(np.ones(4)),
    "pentagon": _polar(np.ones(5)),
    "disc": _polar(np.ones(40)),
    "star-4": _star(4, 0.42),
    "star-5": _star(5, 0.45),
    "star-6": _star(6, 0.52),
    "star-8": _star(8, 0.60),
    "star-12": _star(12, 0.66),
    "cog-6": _cog(6, 0.72),
    "cog-10": _cog(10, 0.78),
    "saw": _saw(7),
    "cross": _cross(0.34),
    "crescent": _crescent(),
    "heart": _heart(),
    "drop": _drop(),
    "spiral": _spiral(),
}


def _noise(x: Array, rng: np.random.Generator, cells: int) -> Array:
    """Clouds of about 0-1 with that many cells along a side, of x's shape."""
    coarse = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize(x.shape[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


def _sharp(level: Array) -> Array:
    """Below 0 -> about 0, above -> about 1, with a soft step between, so that it does not alias."""
    return 0.5 + 0.5 * np.tanh(4 * level)


def _striped(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _sharp(np.sin(rng.uniform(7, 14) * x))


def _checked(x: Array, y: Array, rng: np.random.Generator) -> Array:
    step = rng.uniform(7, 11)
    return _sharp(np.sin(step * x) * np.sin(step * y))


def _dotted(x: Array, y: Array, rng: np.random.Generator) -> Array:
    step = rng.uniform(10, 16)
    return _sharp(np.cos(step * x) + np.cos(step * y) - 0.8)


def _rayed(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _sharp(np.sin(rng.integers(6, 13) * np.arctan2(y, x)))


def _ringed(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _sharp(np.sin(rng.uniform(10, 18) * np.hypot(x, y)))


def _wooden(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _sharp(np.sin(12 * (x + 0.7 * _noise(x, rng, 5)) + 1.5 * y))


def _mottled(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return _sharp(1.2 * (_noise(x, rng, 12) - 0.5))


def _shaded(x: Array, y: Array, rng: np.random.Generator) -> Array:
    return np.clip(0.5 + 0.5 * x, 0, 1)


# x and y in units of the outline, and randomness -> share of the front colour (0-1)
TEXTURES: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "rayed": _rayed,
    "ringed": _ringed,
    "wooden": _wooden,
    "mottled": _mottled,
    "shaded": _shaded,
}
SHAPES = tuple(f"{texture} {outline}" for outline in OUTLINES for texture in TEXTURES)


def draw_shape(class_index: int, rng: np.random.Generator, size: int) -> Image.Image:
    """One RGB picture, `size` x `size` pixels, of the class at `class_index` of SHAPES.

    The picture is a pure function of the class, the generator's state and the size.
    """
    outline = list(OUTLINES.values())[class_index // len(TEXTURES)]
    texture = list(TEXTURES.values())[class_index % len(TEXTURES)]
    picture = background(rng, size, COLOURS)
    radius = size * rng.uniform(0.25, 0.46)
    middle = size * rng.uniform(0.38, 0.62, 2)
    turn, lean = rng.uniform(0, 2 * np.pi, 2)
    squash = np.cos(min(abs(rng.normal(0, 0.4)), 1.0))
    # outline -> picture: turn, then shrink along a random direction as a tilted disc does
    tilted = _rotation(lean) @ np.diag([squash, 1.0]) @ _rotation(-lean)
    pose = radius * tilted @ _rotation(turn)
    corners = outline @ pose.T + middle
    first, second = rng.choice(len(COLOURS), 2, replace=False)
    front = jitter(rng, COLOURS[first], 16)
    back = jitter(rng, COLOURS[second], 16)
    grid = np.moveaxis(np.indices((size, size))[::-1], 0, -1) - middle  # H W 2
    x, y = np.moveaxis(grid @ np.linalg.inv(pose).T, -1, 0)  # H W each
    share = texture(x, y, rng)[:, :, None]
    skin = Image.fromarray((share * front + (1 - share) * back).astype(np.uint8))
    shadow = _mask(corners + radius * 0.06, size).point([level // 4 for level in range(256)])
    picture.paste((12, 10, 20), mask=shadow)
    if rng.random() < 0.4:  # a margin
        rim = mix(front, (20, 20, 30), rng.uniform(0.3, 0.9))
        picture.paste(rim, mask=_mask(middle + (corners - middle) * 1.08, size))
    picture.paste(skin, mask=_mask(corners, size))
    return photograph(picture, rng)


def _rotation(angle: float) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _mask(corners: Array, size: int) -> Image.Image:
    """How much of each pixel (0-255) lies in the polygon with corners (M, 2)."""
    large = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    ImageDraw.Draw(large).polygon((SUPERSAMPLING * corners).ravel().tolist(), fill=255)
    return large.reduce(SUPERSAMPLING)
