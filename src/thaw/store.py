"""A file that costs time to make and is kept: named after all it depends on, whole or not there.

What does not match its note (cut short, changed, of other weights) is made anew, never trusted.
"""

import hashlib
import json
import os
import shutil
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock

BLOCK = 1 << 24  # bytes read at once when a file is checked


class Store:
    """One file and the note beside it.

    Attributes:
        what: everything the content depends on, plain values; the file's name is its hash.
        path: of the file; the note has the same name and ends in .json.
        part: where it is written until it is whole.
        lock: to hold while one looks whether it is there, and makes it.
    """

    def __init__(self, folder: Path, what: dict[str, Any]) -> None:
        self.what = what
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
        self.path = folder / f"{name}.bin"
        self.part = self.path.with_suffix(".part")
        self.note = self.path.with_suffix(".json")
        self.lock = FileLock(self.path.with_suffix(".lock"))

    def is_whole(self) -> bool:
        """Whether the file is there and is what its note says: checksum and fingerprint."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return note["what"] == self.what and note["crc32"] == checksum(self.path)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def take(self) -> AbstractContextManager[object]:
        """Takes the lock, and gives it back at the end of a `with`; the folder is made for it.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.lock.acquire()

    def begin(self, size: int) -> None:
        """An empty file of `size` bytes.

        The room is taken at once where the system can: a file that is written through memory would
        else end the process on a disk that has filled up meanwhile.

        Raises:
            OSError: there is no room for it, or a quota leaves none.
        """
        free = shutil.disk_usage(self.part.parent).free
        if free < 1.1 * size:
            needed = f"would take {size / 1e6:,.1f} MB"
            raise OSError(f"{needed}, and {self.part.parent} has {free / 1e6:,.0f} MB free")
        try:
            with self.part.open("wb") as file:
                if hasattr(os, "posix_fallocate") and size:
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
        except OSError:
            self.part.unlink(missing_ok=True)
            raise

    def finish(self, **facts: Any) -> None:
        """Puts the file in its place, and the note beside it, with plain facts to read it by."""
        note = {"what": self.what, "crc32": checksum(self.part), **facts}
        self.part.replace(self.path)
        written = self.note.with_suffix(".note")
        written.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        written.replace(self.note)

    def facts(self) -> dict[str, Any]:
        """The note."""
        return json.loads(self.note.read_text(encoding="utf-8"))


def write_json(content: Any, path: Path) -> None:
    """Writes a JSON file that is whole or not there."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return value
