"""Shapes and textures drawn by a program: what the tiny backbone is pretrained on.

A class is an outline filled with a texture: "striped star-5", "wooden crescent". Colours, pose,
light and clutter are random. There are no flowers among them, so that fine-tuning on the demo is
real transfer. Needs numpy and Pillow only.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]
Colour = tuple[int, int, int]

GROUNDS = (  # pairs: dark and light side of a background
    ((38, 62, 34), (128, 156, 84)), ((24, 44, 38), (86, 124, 98)), ((70, 58, 44), (172, 150, 116)),
    ((52, 66, 92), (168, 190, 214)), ((36, 34, 44), (112, 104, 118)),
    ((112, 118, 104), (222, 220, 204)),
)  # fmt: skip


def jitter(rng: np.random.Generator, colour: Sequence[float], spread: float) -> Colour:
    """The colour with noise of that standard deviation (of 255) on each channel."""
    noisy = np.clip(np.asarray(colour) + rng.normal(0, spread, 3), 0, 255)
    return int(noisy[0]), int(noisy[1]), int(noisy[2])


def mix(one: Sequence[float], other: Sequence[float], share: float) -> Colour:
    """The colour that is `share` (0-1) of the way from one to the other."""
    r, g, b = (round(p + (q - p) * share) for p, q in zip(one, other, strict=True))
    return r, g, b


def background(
    rng: np.random.Generator, size: int, clutter: Sequence[Sequence[float]]
) -> Image.Image:
    """An RGB ground of soft cloudy colour with blurred blobs and blades in front of it.

    The blobs take the colours of the subject's pool, so that a picture's colours say little about
    what it shows.
    """
    dark, light = GROUNDS[int(rng.integers(len(GROUNDS)))]
    cells = int(rng.integers(3, 9))
    cloud = rng.random((cells, cells, 1))
    cloud = np.asarray(dark) + (np.asarray(light) - np.asarray(dark)) * cloud
    coarse = np.clip(cloud + rng.normal(0, 6, cloud.shape), 0, 255).astype(np.uint8)
    ground = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(ground, "RGBA")
    for _ in range(rng.integers(0, 7)):
        x, y = rng.uniform(0, size, 2)
        r = size * rng.uniform(0.03, 0.14)
        tint = mix(clutter[int(rng.integers(len(clutter)))], light, rng.uniform(0, 0.5))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*tint, int(rng.integers(90, 220))))
    for _ in range(rng.integers(0, 9)):
        x, y = rng.uniform(0, size, 2)
        dx, dy = rng.normal(0, 0.35 * size, 2)
        tint = jitter(rng, mix(dark, light, rng.random()), 10)
        draw.line((x, y, x + dx, y + dy), fill=(*tint, 200), width=int(rng.integers(1, 6)))
    return ground.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.008, 0.035)))


def photograph(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture as a camera may have taken it: light from one side, warm or cold, a little blur
    and noise, and another exposure each time.
    """
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(picture.width * rng.uniform(0, 0.008)))
    pixels = np.asarray(picture, dtype=np.float32)  # H W C
    height, width = pixels.shape[:2]
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1 + np.float32(strength) * (
        x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    )
    warmth = rng.normal(0, 0.07)
    balance = np.array([1 + warmth, 1, 1 - warmth]) * np.exp(rng.normal(0, 0.16))
    pixels = pixels * light[:, :, None] * balance.astype(np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(1, 7))
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


SUPERSAMPLING = 3

COLOURS = (
    (238, 236, 228), (34, 34, 44), (206, 58, 60), (238, 146, 54), (244, 208, 78), (92, 160, 84),
    (64, 150, 158), (70, 102, 190), (130, 82, 170), (222, 122, 168), (134, 92, 62),
)  # fmt: skip


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
    "triangle": _polar(np.ones(3)), "square": _polar(np.ones(4)), "pentagon": _polar(np.ones(5)),
    "disc": _polar(np.ones(40)), "star-4": _star(4, 0.42), "star-5": _star(5, 0.45),
    "star-6": _star(6, 0.52), "star-8": _star(8, 0.60), "star-12": _star(12, 0.66),
    "cog-6": _cog(6, 0.72), "cog-10": _cog(10, 0.78), "saw": _saw(7), "cross": _cross(0.34),
    "crescent": _crescent(), "heart": _heart(), "drop": _drop(), "spiral": _spiral(),
}  # fmt: skip


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
    "striped": _striped, "checked": _checked, "dotted": _dotted, "rayed": _rayed,
    "ringed": _ringed, "wooden": _wooden, "mottled": _mottled, "shaded": _shaded,
}  # fmt: skip
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
