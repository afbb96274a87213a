"""A user's own zip or tar as data.root: unpacked once, and nothing else is touched."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_data_sources import folder, sizes
from test_download import left

from thaw import download
from thaw.data.folder import Folder
from thaw.errors import ConfigError

PHOTOS = {f"my photos/{name}/{i}.jpg": b"x" for name in ("cat", "dog") for i in range(5)}


def made(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '').replace('tgz', 'gz')}") as tar:
        for name, content in members.items():
            add(tar, name, content)
    return path


def add(
    tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, "/etc/passwd"
    tar.addfile(info, io.BytesIO(content))


def of(file: Path) -> Folder:
    module = folder(file)
    module.cache_dir = file.parent / "cache"
    return module


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.xz", "a.tar.bz2", "photos"])
def test_archives_are_unpacked_once(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By content; a folder that holds everything is passed over, as what macOS adds."""
    file = made(tmp_path / (name if "." in name else "b.zip"), {**PHOTOS, "__MACOSX/cat/._0": b"m"})
    file = file.rename(tmp_path / name)
    for _ in range(2):
        module = of(file)
        assert (module.classes, sizes(module)) == (("cat", "dog"), (8, 2, 0))
        assert module.folder.name == "my photos"
    assert capsys.readouterr().out.count("Unpacking") == 1
    made(tmp_path / "c.zip", {f"cat/{i}.jpg": b"" for i in range(3)} | {"dog/1.jpg": b""})
    (tmp_path / "c.zip").rename(file)
    assert sizes(of(file)) == (3, 1, 0)  # another archive under the same name


def outside(path: Path, name: str) -> Path:
    return made(path, {**PHOTOS, name: b"evil"})


def special(path: Path, kind: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        add(tar, "cat/0.jpg", b"x")
        add(tar, "cat/1.jpg", kind=kind)
    return path


def zip_link(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        link = zipfile.ZipInfo("cat/1.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
    return path


REFUSED = {
    "zip up": lambda home: outside(home / "a.zip", "../../evil"),
    "zip absolute": lambda home: outside(home / "a.zip", f"{home}/evil"),
    "tar up": lambda home: outside(home / "a.tar", "cat/../../evil"),
    "tar absolute": lambda home: outside(home / "a.tar", f"{home}/evil"),
    "zip link": lambda home: zip_link(home / "a.zip"),
    "tar link": lambda home: special(home / "a.tar", tarfile.SYMTYPE),
    "tar hard link": lambda home: special(home / "a.tar", tarfile.LNKTYPE),
    "tar device": lambda home: special(home / "a.tar", tarfile.CHRTYPE),
    "tar pipe": lambda home: special(home / "a.tar", tarfile.FIFOTYPE),
    "zip bomb": lambda home: made(home / "a.zip", {"cat/0.jpg": bytes(10**6)}),
    "tar bomb": lambda home: made(home / "a.tgz", {"cat/0.jpg": bytes(10**6)}),
    "many files": lambda home: made(home / "a.tgz", {f"cat/{i}.jpg": b"" for i in range(2000)}),
    "cut zip": lambda home: cut(made(home / "a.zip", PHOTOS)),
    "cut tgz": lambda home: cut(made(home / "a.tgz", PHOTOS)),
    "no archive": lambda home: home / "photo.jpg",
}  # fmt: skip


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("kind", REFUSED)
def test_archives_that_are_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing lands outside, and nothing that is left counts as unpacked next time."""
    monkeypatch.setattr(download, "SMALL", 10**5)
    (tmp_path / "photo.jpg").write_bytes(b"no archive")
    file = REFUSED[kind](tmp_path)
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"data\.root=.*: cannot be unpacked: .* Make it anew"
        ):
            of(file).setup()
    assert left(tmp_path / "cache" / "archives") == []
    assert not list(tmp_path.rglob("evil"))


def header(path: Path, kind: bytes, *, size: int = 0, fields: dict[str, str] | None = None) -> Path:
    """A tar whose first header says that so many bytes of its own kind follow; few do."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        info = tarfile.TarInfo("cat/0.jpg")
        info.type, info.size, info.pax_headers = kind, size, fields or {}
        form = tarfile.PAX_FORMAT if fields else tarfile.GNU_FORMAT  # has sizes below zero
        tar.fileobj.write(info.tobuf(form) + b"1000000000\n" + bytes(10**5))  # pyright: ignore
    return path


HEADERS = {
    "pax": {"kind": tarfile.XHDTYPE, "size": 2**31},
    "pax for all": {"kind": tarfile.XGLTYPE, "size": 2**20 + 1},
    "long name": {"kind": tarfile.GNUTYPE_LONGNAME, "size": 2**31},
    "long link": {"kind": tarfile.GNUTYPE_LONGLINK, "size": 2**31},
    "below zero": {"kind": tarfile.XHDTYPE, "size": -1024},
    "sparse": {"kind": tarfile.GNUTYPE_SPARSE},
    "sparse by pax": {"kind": tarfile.REGTYPE,
                      "fields": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_would_fill_the_memory(tmp_path: Path, kind: str, suffix: str) -> None:
    """tarfile reads a header whole, and makes a list of a sparse file's holes."""
    file = header(tmp_path / f"a{suffix}", **HEADERS[kind])
    with pytest.raises(ConfigError, match="a header of more than a MiB, or a sparse file"):
        of(file).setup()
    assert left(tmp_path / "cache" / "archives") == []


def test_members_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile keeps the headers of all, which may be a MiB each."""
    tars: list[tarfile.TarFile] = []
    file, opened = made(tmp_path / "a.tar", PHOTOS), tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: tars.append(opened(*a, **k)) or tars[0])
    download.unpack(file, tmp_path / "out")
    assert tars[0].members == []
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == len(PHOTOS)
