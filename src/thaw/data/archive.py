"""Archives of photos: downloaded, unpacked, and compared with the lists that came with them."""

import gzip
import tarfile
from pathlib import Path

from thaw.data.photos import Splits
from thaw.download import MIB, compare, fetch, make_download
from thaw.errors import ConfigError


def fetch_archive(
    url: str, folder: Path, *, inside: str, checksum: str | None, remedy: str
) -> Path:
    """Downloads and unpacks the folder `inside` of a .tar.gz as `folder`, unless that is there.

    An archive that the user has put beside `folder` is used and stays, if its checksum is right; a
    downloaded one is deleted when it is unpacked. The other arguments are those of `fetch`. Raises
    DownloadError as `fetch`, also if a member of the archive would land outside.
    """
    archive = folder.parent / url.rpartition("/")[2]

    def unpack(part: Path) -> Path:
        by_hand = archive.exists()
        if by_hand:
            compare(archive, checksum)
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

    return make_download(folder, unpack, f"{inside}/ of {url}", remedy)


def check_files(splits: Splits) -> Splits:
    """Returns the splits; raises a ConfigError if a photo that a source's lists name is missing."""
    parts = [part for part in (splits.train, splits.val, splits.test) if part is not None]
    missing = [path for part in parts for path in part.paths if not path.is_file()]
    if missing:
        raise ConfigError(
            f"{len(missing)} of the listed photos are missing, as {missing[0]}. Copy them "
            f"there, or delete {missing[0].parent} to have it downloaded again."
        )
    return splits


def offline(files: str, folder: Path) -> str:
    """What a user can do if a download fails, as the end of a sentence."""
    return (f"put {files} into {folder}, or name the folder that holds {folder.name}/ with "
            "paths.data_dir=PATH, or try thaw without a network with data=demo")  # fmt: skip
