"""Downloads and archives: whole or not at all, checked, safe, and once for parallel jobs."""

import hashlib
import lzma
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from thaw.errors import DownloadError
from thaw.store import make_once

TIMEOUT = (5, 30)  # seconds to connect, and between two pieces of the answer
PATIENCE, SLOWEST = 60, 1024  # seconds from which on, and bytes a second below which, we give up
MIB = 2**20
MAX_RATIO, SMALL = 100, 2**30  # photos hardly shrink; an archive may unpack to a GiB in any case
Member = tuple[str, bool, IO[bytes] | None]  # name, whether it is a folder, content of a file
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


def fetch_archive(url: str, folder: Path, *, checksum: str | None) -> None:
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
    """Unpacks files and folders; one of BROKEN: it holds others, leads outside, or is a bomb."""
    print(f"Unpacking {archive}", flush=True)
    left = max(SMALL, MAX_RATIO * archive.stat().st_size)
    folder.mkdir()
    for name, is_folder, content in _members(archive):
        path = Path(name)
        if path.anchor or ".." in path.parts or not (is_folder or content):
            raise OSError(f"its member {name!a} is no plain file, or would land outside")
        path = folder / path
        (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
        left -= 1024  # of the disk, also for an empty file
        if content:
            with path.open("wb") as file:
                while left >= 0 and (piece := content.read(MIB)):
                    left -= file.write(piece)
        if left < 0:
            raise OSError(f"it unpacks to more than {MAX_RATIO} times its size")
    return folder


class Header(tarfile.TarInfo):
    """A member of a tar; refuses what tarfile would read into memory, however much it is."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        fits = self.isreg() or 0 <= self.size <= MIB
        return super()._proc_member(tar) if fits else self._proc_sparse()  # pyright: ignore

    def _proc_sparse(self, *_: object) -> NoReturn:
        raise ValueError("it has a header of more than a MiB, or a sparse file")

    _proc_gnusparse_10 = _proc_sparse


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                yield info.filename, info.is_dir(), zipped.open(info) if plain else None
        return
    try:
        with tarfile.open(archive, tarinfo=Header) as tar:
            while info := tar.next():
                yield info.name, info.isdir(), tar.extractfile(info) if info.isreg() else None
                tar.members, tar.pax_headers = [], {}  # pyright: ignore  else all stay in memory
            while tar.fileobj and tar.fileobj.read(MIB):  # to the end, where gzip's checksum stands
                pass
    except tarfile.ReadError as error:
        raise OSError("it is neither a whole zip nor a tar") from error
