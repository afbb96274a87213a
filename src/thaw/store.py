"""A file that takes time to make and is kept on disk, named after everything it depends on.

A file counts only with the note beside it: a note of other content, a file that was cut short or
changed, or a missing note means that the file is made again.
"""

import hashlib
import json
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock

BLOCK = 1 << 24  # bytes read at once when a file is checked


class Store:
    """One file `<hash>.bin` and its note `<hash>.json`.

    Attributes:
        what: everything the content depends on, as plain values; the hash in the names is of it.
        path: of the file.
        note: of the note.
        lock: to hold while looking whether the file is there, and while making it.
    """

    def __init__(self, folder: Path, what: dict[str, Any]) -> None:
        self.what = what
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
        self.path = folder / f"{name}.bin"
        self.note = self.path.with_suffix(".json")
        self.lock = FileLock(self.path.with_suffix(".lock"))

    def locked(self) -> AbstractContextManager[object]:
        """Makes the folder and acquires the lock, which the end of a `with` block releases.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.lock.acquire()

    def is_whole(self) -> bool:
        """Whether the file is there and is what its note says: content and checksum."""
        try:
            facts = self.facts()
            return facts["what"] == self.what and facts["crc32"] == checksum(self.path)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def part(self, name: str = "") -> Path:
        """A file beside it to write to, which `finish` puts in its place when it is whole."""
        return self.path.with_suffix(f".{name}.part" if name else ".part")

    def clear_parts(self) -> None:
        """Deletes what was begun and not finished; call it while holding the lock."""
        for path in self.path.parent.glob(f"{self.path.stem}.*part"):
            path.unlink(missing_ok=True)

    def finish(self, part: Path, **facts: Any) -> None:
        """Puts a part in the file's place and writes the note, with plain facts to read it by."""
        content = {"what": self.what, "crc32": checksum(part), **facts}
        part.replace(self.path)
        write_json(content, self.note)

    def facts(self) -> dict[str, Any]:
        """The note's content.

        Raises:
            OSError, ValueError: there is no note, or it is no JSON.
        """
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
