"""Draws the pictures of data=demo, look-alike flowers, into src/thaw/data/demo.zip.

    python -m benchmarks.demo_pictures

Sixteen invented species. Each comes in any colour and pose, on any background; they differ in the
number and outline of petals, in their marking and in their centre, as real garden flowers do.
"""

import io
import sys
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.floating]  # single precision, for speed
Rng = np.random.Generator

SPECIES = (  # lengths are fractions of the flower's radius
    # name, number of petals, widest half-width of one, base and point of its outline, which is
    # v^base (1-v)^point from its base (v=0) to its tip (v=1), depth of the notch in the tip,
    # marking, centre, size of the centre
    ("brook mallow", 5, 0.50, 0.8, 0.30, 0.24, "veins", "stamens", 0.24),
    ("evening mallow", 5, 0.52, 0.7, 0.38, 0.0, "blotch", "stamens", 0.24),
    ("pinwheel vine", 5, 0.42, 0.6, 0.42, 0.0, "none", "star", 0.26),
    ("ragged pink", 5, 0.46, 1.0, 0.25, 0.14, "band", "ring", 0.14),
    ("meadow daisy", 13, 0.15, 0.5, 0.30, 0.0, "none", "disc", 0.27),
    ("coin daisy", 8, 0.28, 0.8, 0.25, 0.24, "streak", "disc", 0.25),
    ("double daisy", 16, 0.13, 0.5, 0.40, 0.0, "band", "disc", 0.22),
    ("prairie cone", 11, 0.17, 0.4, 0.35, 0.24, "none", "ring", 0.36),
    ("star lily", 6, 0.23, 0.8, 0.95, 0.0, "spots", "stamens", 0.30),
    ("wood lily", 6, 0.25, 0.8, 0.85, 0.0, "streak", "stamens", 0.30),
    ("bell tulip", 6, 0.38, 0.6, 0.55, 0.0, "blotch", "stamens", 0.25),
    ("snow squill", 6, 0.20, 0.6, 0.75, 0.0, "veins", "ring", 0.15),
    ("field poppy", 4, 0.68, 0.5, 0.30, 0.0, "blotch", "ring", 0.24),
    ("wallflower", 4, 0.50, 1.2, 0.30, 0.24, "veins", "star", 0.18),
    ("columbine", 5, 0.26, 0.7, 0.90, 0.0, "none", "stamens", 0.20),
    ("passion wheel", 10, 0.22, 0.6, 0.60, 0.0, "band", "ring", 0.16),
)
FLOWERS = tuple(name for name, *_ in SPECIES)
COUNTS = {"train": 30, "val": 10, "test": 25}  # pictures of each species
SIZE = 128  # pixels, height and width

PETALS = ((240, 152, 186), (247, 244, 236), (146, 98, 196), (236, 104, 92), (247, 209, 72))
CENTRES = ((240, 192, 48), (222, 138, 40), (120, 74, 40), (150, 170, 70), (92, 44, 70))
GROUNDS = ((34, 60, 34), (24, 44, 38), (70, 58, 44), (52, 66, 92), (112, 118, 104))
WHITE, CREAM, WINE, STEM = (255, 255, 255), (235, 225, 160), (70, 16, 60), (72, 118, 52)


def draw_flower(class_index: int, rng: Rng, size: int) -> Image.Image:
    """One RGB picture, `size` x `size` pixels, of the species at `class_index` of SPECIES."""
    canvas = np.asarray(_background(rng, size), np.float32).repeat(2, 0).repeat(2, 1)  # H W C
    # From the picture's coordinates to the flower's, in which petals reach radius 1
    across = (np.arange(2 * size, dtype=np.float32) + 0.5) / (2 * size)
    side, down = np.meshgrid(*(across - rng.uniform(0.38, 0.62, (2, 1)).astype(np.float32)))
    lean, turn = _rotation(rng.uniform(0, 2 * np.pi)), _rotation(rng.uniform(0, 2 * np.pi))
    tilt = np.diag([1 / np.cos(min(abs(rng.normal(0, 0.5)), 1.0)), 1.0])
    pose = (turn @ lean @ tilt @ lean.T / rng.uniform(0.25, 0.45)).astype(np.float32)
    x, y = pose[:, 0, None, None] * side + pose[:, 1, None, None] * down
    canvas[(np.abs(side - rng.normal(0, 0.3) * down) < 0.012) & (down > 0)] = STEM
    near = x**2 + y**2 < 1.4  # all that follows is for these N pixels
    x, y = x[near], y[near]
    canvas[near] = _flower(class_index, np.hypot(x, y), np.arctan2(y, x), canvas[near], rng)
    smooth = Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).reduce(2)
    return _photograph(np.asarray(smooth, np.float32), rng)


def _flower(class_index: int, radius: Array, angle: Array, inks: Array, rng: Rng) -> Array:
    """Colours (N, 3) of pixels, given their place in the flower (N,) and what is behind it."""
    _, number, width, base, point, notch, marking, centre, size = SPECIES[class_index]
    colour, middle = (
        (colours[rng.integers(len(colours))] + rng.normal(0, 13, 3)).clip(0, 255).astype(np.float32)
        for colours in (PETALS, CENTRES)
    )
    tips = _mix(colour, WHITE, rng.uniform(0, 0.25))
    throat = _mix(colour, CREAM, rng.uniform(0.1, 0.45))
    dark = _mix(colour, WINE, rng.uniform(0.6, 0.85))
    # The nearest petal, u beside its middle and v along it, and the half-width of its outline at v
    turns = angle * (number / (2 * np.pi))
    petal = np.rint(turns).astype(int) % number
    plump, length = np.exp(rng.normal(0, 0.07, (2, number))).astype(np.float32)
    swerve = rng.normal(0, 0.04, number).astype(np.float32)
    beside = (turns - np.rint(turns) - swerve[petal]) * (2 * np.pi / number)
    u = radius * np.sin(beside) / (width * plump)[petal]
    v = radius * np.cos(beside) / length[petal]
    v = v / (1 - notch * np.exp(-((u / 0.45) ** 2)))
    widest = base / (base + point)
    peak = widest**base * (1 - widest) ** point
    inner = v.clip(0, 1)
    edge = np.abs(u) - inner**base * (1 - inner) ** point / peak  # < 0 inside

    petals = _mix(throat, tips, inner[:, None])
    petals *= rng.uniform(0.9, 1.1, number).astype(np.float32)[petal, None]
    marked = {
        "none": u > np.inf,
        "veins": (np.abs(np.sin(6 * u)) > 0.93) & (v < 0.85),
        "streak": (np.abs(u) < 0.3) & (v < 0.75),
        "spots": (np.sin(30 * v) > 0.3) & (np.sin(12 * u) > 0.3) & (v < 0.7),
        "blotch": v < 0.45,
        "band": (v > 0.4) & (v < 0.6),
    }[marking]
    darker = np.where(marked, rng.uniform(0.35, 0.65), 0.25 * (edge > -0.08))
    on_petal = (edge < 0) & (v > 0)
    inks[on_petal] = _mix(petals, dark, darker[:, None])[on_petal]
    radius = radius / (size * rng.uniform(0.88, 1.12))  # 1 at the rim of the centre
    swing = np.cos(angle * (7 if centre == "stamens" else number))
    if centre == "stamens":
        inks[(swing > 0.9) & (radius < 1)] = _mix(middle, WHITE, 0.4)
        inks[(swing > 0.6) & (radius > 0.8) & (radius < 1)] = middle
    else:
        inks[radius < (0.65 + 0.35 * swing if centre == "star" else 1)] = middle
    if centre == "ring":
        inks[(radius > 0.7) & (radius < 1)] = dark
    return inks


def _background(rng: Rng, size: int) -> Image.Image:
    """Cloudy colour with blurred blobs in the colours of petals: so colour alone says little."""
    cells = int(rng.integers(3, 9))
    cloud = GROUNDS[rng.integers(len(GROUNDS))] * (1 + 1.5 * rng.random((cells, cells, 1)))
    ground = Image.fromarray(cloud.clip(0, 255).astype(np.uint8))
    ground = ground.resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(ground, "RGBA")
    for _ in range(rng.integers(0, 10)):
        (x, y), r = rng.uniform(0, size, 2), size * rng.uniform(0.03, 0.14)
        ink = (*PETALS[rng.integers(len(PETALS))], int(rng.integers(90, 220)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    return ground.filter(ImageFilter.GaussianBlur(size * rng.uniform(0.008, 0.035)))


def _photograph(pixels: Array, rng: Rng) -> Image.Image:
    """Light from one side, a colour cast, another exposure and noise, as from a camera."""
    slope = rng.uniform(0, 0.35) * _rotation(rng.uniform(0, 2 * np.pi))[0]
    across = np.linspace(-1, 1, len(pixels))
    light = 1 + slope[0] * across + slope[1] * across[:, None]
    warmth, exposure = rng.normal(0, 0.07), np.exp(rng.normal(0, 0.16))
    balance = np.array([1 + warmth, 1, 1 - warmth]) * exposure
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(1, 10)
    exposed = pixels * light[:, :, None] * balance + noise
    return Image.fromarray(exposed.clip(0, 255).astype(np.uint8))


def _mix(one: Array, other: Array | tuple[int, int, int], share: Array | float) -> Array:
    """The colour that is `share` (0-1) of the way from one to the other."""
    return one + (np.asarray(other, np.float32) - one) * share


def _rotation(angle: float) -> Array:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def main(file: Path) -> None:
    """Writes the archive, split/species/number.jpg, the same bytes with the same Pillow."""
    with ZipFile(file, "w") as archive:
        for number, (split, count) in enumerate(COUNTS.items()):
            for label, name in enumerate(FLOWERS):
                for i in range(count):
                    encoded = io.BytesIO()
                    flower = draw_flower(label, np.random.default_rng([number, label, i]), SIZE)
                    flower.save(encoded, "JPEG", quality=92, optimize=True)
                    archive.writestr(ZipInfo(f"{split}/{name}/{i:04d}.jpg"), encoded.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "src/thaw/data/demo.zip"))
