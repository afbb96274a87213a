"""A user's own zip or tar as data.root: unpacked once, and nothing else is touched."""

import io
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


REFUSED = {
    "zip up": lambda home: outside(home / "a.zip", "../../evil"),
    "zip absolute": lambda home: outside(home / "a.zip", f"{home}/evil"),
    "tar up": lambda home: outside(home / "a.tar", "cat/../../evil"),
    "tar absolute": lambda home: outside(home / "a.tar", f"{home}/evil"),
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
