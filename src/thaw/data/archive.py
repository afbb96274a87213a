"""Archives of photos, downloaded or the user's own: unpacked whole or not at all, and safely."""

import tarfile
import zipfile
from pathlib import Path

from thaw.data.photos import visible
from thaw.download import BROKEN, MIB, compare, fetch, make_download
from thaw.errors import ConfigError
from thaw.store import make_once


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
            (part / folder.name).stat()  # raises if it is missing
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
    """Unpacks a zip or tar; nothing lands outside. Raises one of BROKEN if it is damaged."""
    print(f"Unpacking {archive}", flush=True)
    folder.mkdir()
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder)
        return folder
    if not tarfile.is_tarfile(archive):
        raise OSError("it is neither a whole zip nor a tar")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")  # refuses devices and links that lead outside
        while tar.fileobj and tar.fileobj.read(MIB):  # to the end, where gzip's checksum stands
            pass
    return folder
