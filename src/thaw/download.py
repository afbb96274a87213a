"""Downloads of files and archives: complete or not at all, and once for parallel jobs.

Everything is moved to its final place in one step, after its checksum was compared.
"""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm

from thaw.errors import DownloadError
from thaw.store import make_once

# Seconds to connect, and between two pieces of the answer; without a network a run must fail soon
TIMEOUT = (5, 30)

MIB = 2**20


def fetch(url: str, path: Path, *, checksum: str | None, remedy: str) -> Path:
    """Downloads a file to `path`, unless it is there; or raises a DownloadError.

    Args:
        checksum: "md5:<hex>", "sha256:<hex>" (8 digits are enough, as in torch hub's file names) or
            "md5-first-mib:<hex>" (as fast.ai publishes); None: only the length is compared.
        remedy: what the user can do without a network, as the end of a sentence.
    """

    def download(part: Path) -> Path:
        print(f"Downloading {url} to {path}", flush=True)
        # some servers send a .tgz as "compressed", and it would arrive unpacked
        plain = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as response:
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0)) // MIB
            with part.open("wb") as file:
                pieces = response.iter_content(MIB)
                for piece in tqdm(pieces, total=total, unit="MiB", leave=False, disable=None):
                    file.write(piece)
        _compare(part, checksum)
        return part

    return _make(path, download, url, remedy)


def fetch_archive(
    url: str, folder: Path, *, inside: str, checksum: str | None, remedy: str
) -> Path:
    """Downloads and unpack the folder `inside` of a .tar.gz as `folder`, unless that is there.

    An archive that the user has put beside `folder` is used and stays, if its checksum is right; a
    downloaded one is deleted when it is unpacked. The other arguments are those of `fetch`. Raises
    DownloadError as `fetch`, also if a member of the archive would land outside.
    """
    archive = folder.parent / url.rpartition("/")[2]

    def unpack(part: Path) -> Path:
        by_hand = archive.exists()
        if by_hand:
            _compare(archive, checksum)
        else:
            fetch(url, archive, checksum=checksum, remedy=remedy)
        print(f"Unpacking {archive}", flush=True)
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                tar.extractall(part, filter="data")  # refuses what would land outside
            while stream.read(MIB):  # to the end, where gzip stores the checksum of everything
                pass
        (part / inside).stat()  # raises if it is missing
        if not by_hand:
            archive.unlink()
        return part / inside

    return _make(folder, unpack, f"{inside}/ of {url}", remedy)


def _make(path: Path, make: Callable[[Path], Path], what: str, remedy: str) -> Path:
    """`make_once`, which returns the path; its errors become a DownloadError on `what`."""
    try:
        make_once(path, make)
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:  # requests' are OSErrors
        raise DownloadError(f"Could not get {what}: {error}. What to do: {remedy}.") from error
    return path


def _compare(path: Path, checksum: str | None) -> None:
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
