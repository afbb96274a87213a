"""What every generated picture shares: a background out of focus, and the light on it.

Needs numpy and Pillow only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]
Colour = tuple[int, int, int]

GROUNDS = (  # pairs: dark and light side of a background
    ((38, 62, 34), (128, 156, 84)),
    ((24, 44, 38), (86, 124, 98)),
    ((70, 58, 44), (172, 150, 116)),
    ((52, 66, 92), (168, 190, 214)),
    ((36, 34, 44), (112, 104, 118)),
    ((112, 118, 104), (222, 220, 204)),
)


def jitter(rng: np.random.Generator, colour: Sequence[float], spread: float) -> Colour:
    """The colour with noise of that standard deviation (of 255) on each channel."""
    noisy = np.clip(np.asarray(colour) + rng.normal(0, spread, 3), 0, 255)
    return int(noisy[0]), int(noisy[1]), int(noisy[2])


def mix(one: Sequence[float], other: Sequence[float], share: float) -> Colour:
    """The colour that is `share` (0-1) of the way from one to the other."""
    r, g, b = (round(p + (q - p) * share) for p, q in zip(one, other, strict=True))
    return r, g, b


def shaded(colour: Sequence[float], shade: float) -> Colour:
    """Lighter for a shade above 0, darker below."""
    return mix(colour, (255, 255, 255) if shade > 0 else (20, 10, 30), abs(shade))


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
