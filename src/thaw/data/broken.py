"""Photos that cannot be read, all of them, before training; for JPEG a third of a decoding pass.

What looks whole is not decoded: a JPEG whose parts follow each other to its end mark without a hole
of zeros, a PNG with right checksums. All else is decoded, and that decides. A damaged JPEG that
still has this form is found by `thaw check`.
"""

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from thaw.data.decode import decode, open_image, read_file
from thaw.data.loading import usable_cpus
from thaw.errors import PhotoError

MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")  # not a byte of the picture, nor a restart
BETWEEN_SCANS = re.compile(rb"[\xc4\xd9-\xdd\xe0-\xef\xfe]")  # what a marker may be
SCAN, END = b"\xda", b"\xd9"
HOLE = bytes(64)  # where a disk or a download broke off there are 512 zeros and more
TOLD = 100  # photos at most


def find_broken(paths: Sequence[Path]) -> dict[Path, str]:
    """The photos that cannot be read as they should be, and what is wrong with each."""
    # the filter is set here, since threads share it
    with warnings.catch_warnings(action="ignore"), ThreadPool(min(8, usable_cpus())) as pool:
        fine = pool.imap(_is_fine, paths, chunksize=32)
        told = tqdm(fine, "checking the photos", len(paths), leave=False, disable=None, delay=3)
        doubtful = [path for path, is_fine in zip(paths, told, strict=True) if not is_fine]
    return {path: fault for path in doubtful if (fault := _fault(path))}


def describe(broken: Mapping[Path, str], folder: Path, setting: str) -> str:
    """A paragraph on them, with a line for each of the first hundred."""
    lines = [f"\n  {os.path.relpath(path, folder)}: {why}" for path, why in broken.items()]
    lines[TOLD:] = [f"\n  and {len(lines) - TOLD} more"] if len(lines) > TOLD else []
    return f"{setting}: {len(broken)} photos in {folder} cannot be read:{''.join(lines)}"


def _is_fine(path: Path) -> bool:
    try:
        data = read_file(path)
        with open_image(data) as image:
            if image.format in ("JPEG", "MPO"):
                return _is_whole_jpeg(data)  # to be decoded alone: its faults stand on stderr
            if image.format == "PNG":
                image.verify()
            else:
                decode(path)
            return True
    except Exception:  # Pillow's plugins raise all kinds; the photo is decoded again, which decides
        return False


def _is_whole_jpeg(data: bytes) -> bool:
    place, scans = 2, 0
    while found := MARKER.search(data, place):
        if scans and (HOLE in data[place : found.start()] or not BETWEEN_SCANS.match(found[1])):
            return False
        if found[1] == END:
            return True
        scans += found[1] == SCAN
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])  # its length
    return False


def _fault(path: Path) -> str | None:
    try:
        with said_on_stderr() as said:
            decode(path)
    except PhotoError as error:
        return str(error).partition(f"{path}: ")[2].partition(". Delete it")[0]
    sys.stderr.writelines(f"{line}\n" for line in said if "JPEG" not in line)
    return next((line for line in said if "JPEG" in line), None)


@contextmanager
def said_on_stderr() -> Iterator[list[str]]:
    """Keeps the lines that C code writes there: libjpeg tells there alone of a damaged photo."""
    lines, stderr = [], os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
