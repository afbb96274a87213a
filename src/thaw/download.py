"""Downloads and archives: whole or not at all, checked, safe, and once for parallel jobs."""

import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from thaw.errors import DownloadError
from thaw.store import make_once

TIMEOUT = (5, 30)  # seconds to connect, and between two pieces of the answer
MIB = 2**20
MAX_RATIO, SMALL = 100, 2**30  # photos hardly shrink; an archive may unpack to a GiB in any case
# What downloads and archives raise: requests OSErrors, a zip with a password a RuntimeError
BROKEN = (OSError, HTTPError, tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error,
          lzma.LZMAError, RuntimeError, ValueError)  # fmt: skip


def fetch(url: str, path: Path, *, checksum: str, remedy: str) -> Path:
    """Downloads a file to `path`, unless it is there; or raises a DownloadError with the remedy.

    `checksum`: "md5:<hex>", "sha256:<hex>" (8 digits are enough, as in torch hub's file names) or
    "md5-first-mib:<hex>" (as fast.ai publishes).
    """

    def download(part: Path) -> Path:
        print(f"Downloading {url} to {path}", flush=True)
        # some servers send a .tgz as "compressed", and it would arrive unpacked
        plain = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=TIMEOUT, headers=plain) as response:
            response.raise_for_status()
            length = int(response.headers.get("Content-Length", 0))
            bar = tqdm(total=length, unit="B", unit_scale=True, leave=False, disable=None)
            with part.open("wb") as file, bar:
                while piece := response.raw.read1(MIB):  # IncompleteRead where it breaks off
                    bar.update(file.write(piece))
        if response.headers.get("Content-Type", "").startswith("text/html"):
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


def compare(path: Path, checksum: str) -> None:
    """Raises an OSError if a file has another checksum, which is written as for `fetch`."""
    kind, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        if kind == "md5-first-mib":
            actual = hashlib.md5(file.read(MIB), usedforsecurity=False).hexdigest()
        else:
            actual = hashlib.file_digest(file, kind).hexdigest()
    if not actual.startswith(expected):
        raise OSError(f"the {kind} of {path} is {actual} and should be {expected}: it is damaged")


def fetch_archive(url: str, folder: Path, *, checksum: str) -> None:
    """Downloads the archive that holds `folder` under its own name, and unpacks it beside others.

    An archive that the user has put there is used and stays, if its checksum is right; a downloaded
    one is deleted, whether it could be unpacked or not. Raises DownloadError as `fetch`.
    """
    archive = folder.parent / url.rpartition("/")[2]

    def make(part: Path) -> Path:
        by_hand = archive.exists()
        if by_hand:
            compare(archive, checksum)
        else:
            fetch(url, archive, checksum=checksum, remedy=offline(url, folder))
        try:
            unpack(archive, part)
        finally:
            if not by_hand:
                archive.unlink()
        return part / folder.name

    make_download(folder, make, f"{folder.name}/ of {url}", offline(url, folder))


def offline(url: str, path: Path) -> str:
    """What a user can do if a download to `path` fails, as the end of a sentence."""
    return (f"put {url.rpartition('/')[2]} from {url} into {path.parent}, or set paths.data_dir "
            f"to a folder that has {path.name} in the same place, or try data=demo")  # fmt: skip


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a zip or tar; one of BROKEN: it leads outside, holds devices, or is a bomb."""
    print(f"Unpacking {archive}", flush=True)
    most, is_zip = max(SMALL, MAX_RATIO * archive.stat().st_size), zipfile.is_zipfile(archive)
    try:
        opener: Any = zipfile.ZipFile if is_zip else tarfile.open
        with opener(archive) as opened:
            listed = opened.infolist() if is_zip else opened.getmembers()
            name, size = ("filename", "file_size") if is_zip else ("name", "size")
            members = [(Path(getattr(info, name)), getattr(info, size)) for info in listed]
            if any(path.anchor or ".." in path.parts for path, _ in members):
                raise OSError("a file in it would land outside")
            if sum(1024 + size for _, size in members) > most:  # of the disk, also for an empty one
                raise OSError(f"it unpacks to more than {MAX_RATIO} times its size")
            while not is_zip and opened.fileobj.read(MIB):  # to the end, where gzip's checksum is
                pass
            folder.mkdir()
            opened.extractall(folder, **({} if is_zip else {"filter": "data"}))
    except tarfile.ReadError as error:
        raise OSError("it is neither a whole zip nor a tar") from error
    return folder
