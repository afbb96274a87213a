"""Archives of photos, downloaded or the user's own: unpacked whole or not at all, and safely."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

from thaw.data.photos import visible
from thaw.download import BROKEN, MIB, compare, fetch, make_download
from thaw.errors import ConfigError
from thaw.store import make_once

MAX_RATIO, SMALL = 100, 2**30  # photos hardly shrink; an archive may unpack to a GiB in any case
Member = tuple[str, bool, IO[bytes] | None]  # name, whether it is a folder, content of a file


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
    there = path.relative_to(path.parents[1])
    return (f"put {url.rpartition('/')[2]} from {url} into {path.parent}, or name the folder that "
            f"holds {there} with paths.data_dir=PATH, or try data=demo")  # fmt: skip


def unpacked(archive: Path, cache_dir: Path) -> Path:
    """The folder in the cache that a user's archive is unpacked into, once; or a ConfigError."""
    facts = archive.stat()
    folder = cache_dir / "archives" / f"{archive.name}-{facts.st_size}-{facts.st_mtime_ns}"
    try:
        make_once(folder, lambda part: unpack(archive, part))
    except BROKEN as error:
        hint = "Make it anew, or unpack it yourself and give the folder"
        raise ConfigError(f"data.root={archive}: cannot be unpacked: {error}. {hint}.") from error
    inside = list(visible(folder))
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


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
