"""Downloads of files and archives: complete or not at all, and once for parallel jobs.

Everything is written beside its final place and moved there in one step, after its checksum was
compared. So what has its final name is complete, and if it is there, nothing is written, not even a
lock (a data folder may be read-only).
"""

import contextlib
import gzip
import hashlib
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import requests
import urllib3.exceptions
from filelock import FileLock, Timeout

from thaw.errors import DownloadError

# Seconds to connect, and between two pieces of the answer; without a network a run must fail soon
TIMEOUT = (5, 30)

MIB = 2**20


def fetch(url: str, path: Path, *, checksum: str | None, remedy: str) -> Path:
    """Download a file to `path`, unless it is there.

    Args:
        url: its address.
        path: where it shall be.
        checksum: "md5:<hex>", "sha256:<hex>" (8 digits are enough, as in torch hub's file names) or
            "md5-first-mib:<hex>" (as fast.ai publishes); None: only the length is compared.
        remedy: what the user can do without a network, as the end of a sentence.

    Raises:
        DownloadError: with the address, the cause and the remedy; `path` does not exist then.
    """
    if path.exists():
        return path
    with _locked(path, url, remedy):
        if not path.exists():  # another process may have fetched it while this one waited
            print(f"Downloading {url} to {path}", flush=True)
            _download(url, path, checksum, remedy)
    return path


def fetch_archive(
    url: str, folder: Path, *, inside: str, checksum: str | None, remedy: str
) -> Path:
    """Download and unpack the folder `inside` of a .tar.gz as `folder`, unless that is there.

    An archive that the user has put beside `folder` is used and stays, if its checksum is right; a
    downloaded one is deleted when it is unpacked. The other arguments are those of `fetch`.

    Raises:
        DownloadError: as `fetch`, or the archive is broken, lacks `inside`, or has members that
            would land outside; `folder` does not exist then.
    """
    if folder.exists():
        return folder
    archive = folder.parent / url.rpartition("/")[2]
    with _locked(folder, url, remedy):
        if folder.exists():
            return folder
        for left_over in folder.parent.glob(f".{folder.name}.partly-*"):
            shutil.rmtree(left_over)  # of a process that was killed
        by_hand = archive.exists()
        if by_hand:
            _compare(archive, checksum, str(archive), remedy)
        else:
            fetch(url, archive, checksum=checksum, remedy=remedy)
        _unpack(archive, folder, inside, remedy)
        if not by_hand:
            archive.unlink()
    return folder


@contextlib.contextmanager
def _locked(path: Path, url: str, remedy: str) -> Iterator[None]:
    """The lock of `path`; parallel jobs wait here until the first one has finished."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that is downloading {url}", flush=True)
            lock.acquire()
    except OSError as error:
        raise _failed(url, f"cannot write into {path.parent} ({error})", remedy) from error
    try:
        yield
    finally:
        lock.release()


def _download(url: str, path: Path, checksum: str | None, remedy: str) -> None:
    # imported here: in a notebook it warns of tqdm's missing widgets, download or not
    import pooch

    opened: list[requests.Response] = []
    loader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=MIB, timeout=TIMEOUT,
        # some servers send a .tgz as "compressed", and it would arrive unpacked
        headers={"Accept-Encoding": "identity"},
        hooks={"response": lambda response, *_, **__: opened.append(response)},
    )  # fmt: skip
    partly = path.with_name(f".{path.name}.partly")
    try:
        loader(url, str(partly), None)
        _compare(partly, checksum, url, remedy)
        partly.replace(path)
    except requests.RequestException as error:
        raise _failed(url, _cause(error), remedy) from error
    except OSError as error:
        raise _failed(url, f"cannot write {partly} ({error})", remedy) from error
    finally:
        partly.unlink(missing_ok=True)
        for response in opened:  # pooch leaves the connection of a failed download open
            response.close()


def _cause(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    stalled = error.args and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)
    if isinstance(error, requests.ReadTimeout) or stalled:
        return f"the server fell silent for {TIMEOUT[1]} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the transfer broke off ({error})"
    if isinstance(error, requests.ConnectionError):
        return f"no connection ({error})"
    return str(error)


def _compare(path: Path, checksum: str | None, what: str, remedy: str) -> None:
    if checksum is None:
        return
    kind, _, expected = checksum.partition(":")
    assert len(expected) >= 8, f"{checksum}: too short to mean anything"
    with path.open("rb") as file:
        if kind == "md5-first-mib":
            actual = hashlib.md5(file.read(MIB), usedforsecurity=False).hexdigest()
        else:
            new = partial(hashlib.new, kind, usedforsecurity=False)
            actual = hashlib.file_digest(file, new).hexdigest()
    if not actual.startswith(expected):
        cause = f"its {kind} is {actual} and should be {expected}: the file is damaged or another"
        raise _failed(what, cause, remedy)


def _unpack(archive: Path, folder: Path, inside: str, remedy: str) -> None:
    """Unpack into a folder beside, then move what is wanted in one step."""
    if not hasattr(tarfile, "data_filter"):  # Python 3.11.0 to 3.11.3
        cause = "this Python unpacks archives without protection; 3.11.4 or newer is needed"
        raise _failed(str(archive), cause, remedy)
    print(f"Unpacking {archive}", flush=True)
    partly = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partly-", dir=folder.parent))
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                tar.extractall(partly, filter="data")
            while stream.read(MIB):  # to the end, where gzip stores the checksum of everything
                pass
        (partly / inside).rename(folder)
    except tarfile.FilterError as error:
        raise _failed(str(archive), f"refused, not safe to unpack ({error})", remedy) from error
    except FileNotFoundError as error:
        raise _failed(str(archive), f"it holds no folder {inside}/", remedy) from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise _failed(str(archive), f"it cannot be unpacked ({error})", remedy) from error
    finally:
        shutil.rmtree(partly, ignore_errors=True)


def _failed(what: str, cause: str, remedy: str) -> DownloadError:
    return DownloadError(f"Could not get {what}: {cause}. What to do: {remedy}.")
