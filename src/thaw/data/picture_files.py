"""Picture files in folders: which files count, and in which order. Quick to import: no torch."""

import re
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
SUFFIXES += (".ppm", ".pgm", ".avif", ".jp2")


def picture_files(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and in the folders inside it, told by the ends of their names."""
    return (path for path in all_files(folder) if path.suffix.lower() in SUFFIXES)


def all_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and in the folders inside it, without hidden ones."""
    for path in visible(folder):
        if path.is_dir():
            yield from all_files(path)
        else:
            yield path


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, in natural order, without hidden files (.DS_Store, ._copy.jpg)."""
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(found, key=lambda path: natural(path.name))


def natural(name: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sort key: 1, 2, 10, not 1, 10, 2; capitals like small letters."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], name
