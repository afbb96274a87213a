"""One petal: its outline, its colours and what is drawn on it, as flat polygons."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from thaw.data.scene import Array, Colour, mix
from thaw.data.species import Species

Ink = tuple[int, int, int, int]  # RGB and how opaque, 0-255 each
Shape = tuple[Array, Ink]  # the corners of a polygon and what fills it


ALONG = np.sin(np.linspace(0, np.pi / 2, 14))  # v of the outline: denser at the tip, where it bends


@dataclass(frozen=True)
class Petal:
    """One petal: u runs across it, v along it from 0 (base) to 1 (tip); lengths as in Species."""

    species: Species
    angle: float
    length: float
    width: float
    cup: float
    phase: float

    def place(self, points: Array) -> Array:
        """Points (M, 2), as u and v -> points (M, 3) of the flower."""
        u, reach = points[:, 0], self.length * points[:, 1]
        angle = self.angle + self.species.twist * points[:, 1]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([reach * cos - u * sin, reach * sin + u * cos, self.cup * reach**2]).T

    def half_width(self, v: Array) -> Array:
        """Distance of the outline from the midrib."""
        base, point = self.species.base, self.species.point
        widest = base / (base + point)
        peak = widest**base * (1 - widest) ** point
        return self.width * v**base * (1 - v) ** point / peak

    def outline(self) -> Array:
        """The corners (28, 2) of the closed outline, up one side and down the other."""
        u = self.half_width(ALONG)
        u, v = np.concatenate([u, -u[::-1]]), np.concatenate([ALONG, ALONG[::-1]])
        rim = np.clip((v - 0.6) / 0.4, 0, 1)
        across = u / self.width
        match self.species.tip:
            case "notched":
                v = v - 0.24 * rim * np.exp(-((across / 0.45) ** 2))
            case "toothed":
                v = v - 0.12 * rim * (0.5 + 0.5 * np.cos(5 * np.pi * across))
            case "fringed":
                v = v - 0.15 * rim * (np.arange(len(v)) % 2)
            case "plain":
                v = v + 0.02 * rim * np.sin(3 * across + self.phase)
        return np.array([u, v]).T

    def upto(self, outline: Array, cut: float) -> Array:
        """The part of the outline below v = cut, with a rounded front."""
        front = cut - 0.12 * (outline[:, 0] / self.width) ** 2
        return np.array([outline[:, 0], np.minimum(outline[:, 1], front)]).T

    def body(self, throat: Colour, tips: Colour, dark: Colour) -> list[Shape]:
        """Shadow, margin, the gradient from throat to tip, and the fold's shade."""
        outline = self.outline()
        edged = self.species.edged
        shapes: list[Shape] = [(outline * (1.08, 1.04), (15, 10, 25, 50))]
        shapes.append((outline, (*(dark if edged else mix(tips, dark, 0.12)), 255)))
        inner = outline * ((0.80, 0.93) if edged else (0.96, 0.98))
        bands = 4 if self.species.petals * len(self.species.rings) > 8 else 7
        for i in range(bands):
            cut = 1 - i / bands
            shapes.append((self.upto(inner, cut), (*mix(throat, tips, cut**0.8), 255)))
        fold = outline.copy()
        fold[len(fold) // 2 :, 0] = 0  # one side of the midrib
        shapes.append((fold, (30, 10, 40, 26)))
        return shapes

    def marking(self, dark: Colour) -> list[Shape]:
        """What the species has drawn on its petals."""
        match self.species.marking:
            case "veins":
                return [(self._vein(share), (*dark, 150)) for share in (-0.6, -0.3, 0, 0.3, 0.6)]
            case "streak":
                v = np.linspace(0.05, 0.72, 9)
                u = 0.16 * self.width * np.sin(np.pi * np.linspace(0.15, 1, 9))
                return [(strip(u, -u, v), (*dark, 200))]
            case "spots":
                spread = (np.arange(9) * 0.618 + self.phase) % 1 - 0.5
                spots = np.array([spread * self.width, 0.22 + 0.055 * np.arange(9)]).T
                return [(disc(0.024) + spot, (*dark, 220)) for spot in spots]
            case "blotch":
                return [(self.upto(self.outline() * (0.86, 1), 0.46), (*dark, 170))]
            case "band":
                v = np.linspace(0.36, 0.58, 6)
                return [
                    (strip(0.8 * self.half_width(v), -0.8 * self.half_width(v), v), (*dark, 170))
                ]
            case "none":
                return []

    def _vein(self, share: float) -> Array:
        """A thin strip along the petal, `share` of the way from the midrib to the margin."""
        v = np.linspace(0.12, 0.86 - 0.25 * abs(share), 7)
        u = share * self.half_width(v)
        return strip(u + 0.010, u - 0.010, v)


def strip(left: Array, right: Array, v: Array) -> Array:
    """The polygon (2 M, 2) between two lines over the same v (M,)."""
    return np.array([np.concatenate([left, right[::-1]]), np.concatenate([v, v[::-1]])]).T


def disc(radius: float, corners: int = 8) -> Array:
    """The polygon (corners, 2) around the origin."""
    return radius * _unit_disc(corners)


@cache  # some fifty discs a flower
def _unit_disc(corners: int) -> Array:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.array([np.cos(angle), np.sin(angle)]).T
