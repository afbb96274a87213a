"""Picture files in folders."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
SUFFIXES += (".ppm", ".pgm", ".avif", ".jp2", ".heic", ".heif")
# What systems and programs leave beside photos, as hidden files are: never photos, never classes
SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}


def picture_files(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and in the folders inside it, told by the ends of their names."""
    return (path for path in all_files(folder) if path.suffix.lower() in SUFFIXES)


def all_files(folder: Path, ignored: set[Path] | None = None) -> Iterator[Path]:
    """The files in a folder and in the folders inside it, linked ones too, as `visible` says."""
    for path in visible(folder, ignored):
        yield from all_files(path, ignored) if path.is_dir() else [path]


def visible(folder: Path, ignored: set[Path] | None = None) -> Iterator[Path]:
    """What a folder holds, in natural order; `ignored` are hidden and SYSTEM files, and circles."""
    # names alone, since a folder may have a million files
    for name in sorted(os.listdir(folder), key=natural):  # noqa: PTH208
        path = folder / name
        above = path.absolute().parents if path.is_symlink() else ()
        if not (name.startswith(".") or name.lower() in SYSTEM) and not any(
            each.resolve().is_relative_to(path.resolve()) for each in above
        ):
            yield path
        elif ignored is not None:
            ignored.add(path)


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key: 1, 2, 10, not 1, 10, 2; capitals like small letters."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
