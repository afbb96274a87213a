"""Downloads against a server on this machine: whole or not at all, and once."""

import hashlib
import io
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from thaw import download
from thaw.download import fetch, fetch_archive
from thaw.errors import DownloadError

CONTENT = bytes(range(256)) * 8000  # 2 MB: more than one piece
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
REMEDY = "put the file there yourself"


class Server(ThreadingHTTPServer):
    """Serves `files`; /short breaks off half-way, /slow takes half a second; counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/file.bin": CONTENT, "/short": CONTENT, "/slow": CONTENT,
                      "/empty": b"", "/page.html": b"<html>Log in first</html>"}  # fmt: skip
        self.requests: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path not in self.server.files:
            self.send_error(404)
            return
        body = self.server.files[self.path]
        self.send_response(200)
        if self.path == "/page.html":
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/slow":
            time.sleep(0.5)
        self.wfile.write(body[: len(body) // 2] if self.path == "/short" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def tar_gz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def left(folder: Path) -> list[str]:
    """What lies in a folder but locks."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


@pytest.mark.parametrize(
    "checksum",
    [
        MD5,
        SHA256,
        SHA256[: len("sha256:") + 8],
        "md5-first-mib:" + hashlib.md5(CONTENT[: 2**20]).hexdigest(),
    ],
)
def test_fetches_once(server: Server, tmp_path: Path, checksum: str) -> None:
    path = tmp_path / "new" / "file.bin"
    for _ in range(2):
        fetch(server.url("/file.bin"), path, checksum=checksum, remedy=REMEDY)
    assert path.read_bytes() == CONTENT
    assert server.requests == ["/file.bin"]
    assert left(path.parent) == ["file.bin"]


@pytest.mark.parametrize(
    ("path", "checksum", "cause"),
    [
        ("/short", MD5, "IncompleteRead"),
        ("/file.bin", "md5:" + "0" * 32, "should be 0000"),
        ("/file.bin", "sha256:00000000", "should be 0000"),
        ("/nothing", MD5, "404"),
        ("/empty", MD5, "should be"),
        ("/page.html", MD5, "a web page came"),
    ],
)
def test_failure_leaves_nothing(
    server: Server, tmp_path: Path, path: str, checksum: str, cause: str
) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(server.url(path), tmp_path / "file", checksum=checksum, remedy=REMEDY)
    for part in (cause, server.url(path), REMEDY):
        assert part in str(caught.value)
    assert left(tmp_path) == []


def test_no_network_fails_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        start = time.perf_counter()
        with pytest.raises(DownloadError, match=r"refused.*What to do: put the file"):
            fetch(url, tmp_path / "x", checksum=MD5, remedy=REMEDY)
    assert time.perf_counter() - start < 3


def test_silent_server_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.1))
    with pytest.raises(DownloadError, match="timed out"):
        fetch(server.url("/slow"), tmp_path / "x", checksum=MD5, remedy=REMEDY)
    assert left(tmp_path) == []


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from thaw.download import fetch;"
        "fetch(sys.argv[1], Path(sys.argv[2]), checksum=sys.argv[3], remedy='')"
    )
    command = [sys.executable, "-c", code, server.url("/slow"), str(tmp_path / "file"), MD5]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for job in jobs:
        job.communicate(timeout=60)
    assert [job.returncode for job in jobs] == [0, 0]
    assert server.requests == ["/slow"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # in the place of the folder (root may write anywhere)
    with pytest.raises(DownloadError, match=r"Could not get .*file"):
        fetch(server.url("/file.bin"), tmp_path / "file" / "x", checksum=MD5, remedy=REMEDY)
    assert server.requests == []


ARCHIVE = tar_gz({"photos/a.jpg": b"a", "photos/sub/b.jpg": b"b", "other.txt": b"c"})


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def get_archive(server: Server, folder: Path, content: bytes, checksum: str | None = None) -> None:
    server.files["/photos.tgz"] = content
    url = server.url("/photos.tgz")
    fetch_archive(url, folder, checksum=checksum or md5(content))


def test_archive_is_unpacked_once_and_removed(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        get_archive(server, tmp_path / "photos", ARCHIVE)
    assert (tmp_path / "photos" / "sub" / "b.jpg").read_bytes() == b"b"
    assert left(tmp_path) == ["photos"]
    assert server.requests == ["/photos.tgz"]


def test_archive_put_there_by_hand_is_used_and_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.tgz").write_bytes(ARCHIVE)
    get_archive(server, tmp_path / "photos", b"", md5(ARCHIVE))
    assert left(tmp_path) == ["photos", "photos.tgz"]
    assert server.requests == []


def test_wrong_archive_put_there_by_hand_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.tgz").write_bytes(ARCHIVE)
    with pytest.raises(DownloadError, match="should be"):
        get_archive(server, tmp_path / "photos", b"", MD5)
    assert left(tmp_path) == ["photos.tgz"]


def flipped(archive: bytes) -> bytes:
    """One bit of gzip's sum of it all, which stands 8 bytes before the end."""
    return archive[:-8] + bytes([archive[-8] ^ 1]) + archive[-7:]


@pytest.mark.parametrize(
    ("archive", "cause"),
    [
        (ARCHIVE[:-20], "Could not get"),
        (flipped(ARCHIVE), "CRC"),
        (b"no archive", "Could not get"),
        (tar_gz({"elsewhere/a.jpg": b"a"}), "No such file.*photos"),
        (tar_gz({"photos/a.jpg": b"a", "../../evil": b"e"}), "outside"),
    ],
    ids=["cut", "one bit", "no archive", "without photos", "traversal"],
)
def test_bad_archive_leaves_no_folder(
    server: Server, tmp_path: Path, archive: bytes, cause: str
) -> None:
    folder = tmp_path / "deep" / "data"
    with pytest.raises(DownloadError, match=cause):
        get_archive(server, folder / "photos", archive)
    assert left(folder) == []  # nor the archive, which would count as put there by hand
    assert not [p for p in tmp_path.rglob("*") if p.is_dir() and ".part" in p.name]
    assert not list(tmp_path.rglob("evil"))


def test_killed_while_unpacking(server: Server, tmp_path: Path) -> None:
    """The folder is not there after it, and the next call has it and clears up."""
    code = (
        "import os, sys; from pathlib import Path; from thaw import download\n"
        "whole = download.unpack\n"
        "def die(*args): whole(*args); os._exit(9)\n"
        "download.unpack = die\n"
        "download.fetch_archive(sys.argv[1], Path(sys.argv[2]), checksum=sys.argv[3])"
    )
    server.files["/photos.tgz"] = ARCHIVE
    command = [sys.executable, "-c", code, server.url("/photos.tgz"), str(tmp_path / "photos"),
               md5(ARCHIVE)]  # fmt: skip
    assert subprocess.run(command, stdout=subprocess.PIPE, check=False).returncode == 9
    assert not (tmp_path / "photos").exists()
    assert list(tmp_path.glob(".photos.part"))
    get_archive(server, tmp_path / "photos", ARCHIVE)
    assert (tmp_path / "photos" / "a.jpg").exists()
    assert not list(tmp_path.glob(".photos.part"))


def test_nothing_is_written_where_all_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file.bin").touch()
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    get_archive(server, tmp_path / "photos", ARCHIVE)
    fetch(server.url("/file.bin"), tmp_path / "file.bin", checksum=MD5, remedy=REMEDY)
    tmp_path.chmod(stat.S_IRWXU)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.bin", "photos"]
    assert server.requests == []
