"""Downloads of files: complete or not at all, checked, and once for parallel jobs."""

import hashlib
import lzma
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from thaw.errors import DownloadError
from thaw.store import make_once

TIMEOUT = (5, 30)  # seconds to connect, and between two pieces of the answer
PATIENCE, SLOWEST = 60, 1024  # seconds from which on, and bytes a second below which, we give up
MIB = 2**20
# What downloads and archives raise: requests OSErrors, a zip with a password a RuntimeError
BROKEN = (OSError, HTTPError, tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error,
          lzma.LZMAError, RuntimeError, ValueError)  # fmt: skip


def fetch(url: str, path: Path, *, checksum: str | None, remedy: str) -> Path:
    """Downloads a file to `path`, unless it is there; or raises a DownloadError with the remedy.

    `checksum`: "md5:<hex>", "sha256:<hex>" (8 digits are enough, as in torch hub's file names) or
    "md5-first-mib:<hex>" (as fast.ai publishes); None: only the length is compared.
    """

    def download(part: Path) -> Path:
        print(f"Downloading {url} to {path}", flush=True)
        # some servers send a .tgz as "compressed", and it would arrive unpacked
        plain = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as response:
            response.raise_for_status()
            length, started = int(response.headers.get("Content-Length", 0)), time.monotonic()
            bar = tqdm(total=length, unit="B", unit_scale=True, leave=False, disable=None)
            with part.open("wb") as file, bar:
                while piece := response.raw.read1(MIB):
                    bar.update(file.write(piece))
                    seconds = time.monotonic() - started
                    if seconds > PATIENCE and file.tell() < SLOWEST * seconds:
                        raise OSError(f"only {file.tell():,} bytes came in {seconds:.0f} s")
        size, kind = part.stat().st_size, response.headers.get("Content-Type", "")
        if size < max(length, 1):
            raise OSError(f"IncompleteRead: {size:,} of {length:,} bytes came")
        if kind.startswith("text/html"):
            raise OSError("a web page came instead of the file")
        compare(part, checksum)
        return part

    return make_download(path, download, url, remedy)


def make_download(path: Path, make: Callable[[Path], Path], what: str, remedy: str) -> Path:
    """Calls `make_once`, and returns the path; its errors become a DownloadError on `what`."""
    try:
        make_once(path, make)
    except BROKEN as error:
        raise DownloadError(f"Could not get {what}: {error}. What to do: {remedy}.") from error
    return path


def compare(path: Path, checksum: str | None) -> None:
    """Raises an OSError if a file has another checksum, which is written as for `fetch`."""
    if checksum is None:
        return
    kind, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        if kind == "md5-first-mib":
            actual = hashlib.md5(file.read(MIB), usedforsecurity=False).hexdigest()
        else:
            actual = hashlib.file_digest(file, kind).hexdigest()
    if not actual.startswith(expected):
        raise OSError(f"the {kind} of {path} is {actual} and should be {expected}: it is damaged")
