"""What takes time to make and is kept on disk: whole or not there, and made once by all jobs."""

import hashlib
import json
import pickle
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from filelock import FileLock

from thaw.errors import ConfigError, reason

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # in a run's checkpoints/; the one before it
LARGEST, LARGEST_YAML = 30_000_000, 300_000  # of a file of plain values, at worst 0.8 GB, 10 s


class Store:
    """One file `<hash>.bin`, named after `what` it depends on, and its note `<hash>.json`.

    The file counts only with the note: a note of other content, a file that was cut short or
    changed, or a missing note means that the file is made again. `lock` is to hold meanwhile.
    """

    def __init__(self, folder: Path, what: dict[str, Any]) -> None:
        self.what = what
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
        self.path = folder / f"{name}.bin"
        self.note = self.path.with_suffix(".json")
        self.lock = FileLock(self.path.with_suffix(".lock"))

    def is_whole(self) -> bool:
        """Whether the file and its note are what was written together."""
        try:
            facts = self.facts()
            checksum = facts.pop("sha256")
            return facts["what"] == self.what and checksum == sha256(self.path, facts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def facts(self) -> dict[str, Any]:
        """The note's content; OSError or ValueError where there is none."""
        return json.loads(self.note.read_text(encoding="utf-8"))

    def part(self, name: str) -> Path:
        """A file beside it to write to, which `finish` puts in its place when it is whole."""
        return self.path.with_suffix(f".{name}.part")

    def clear_parts(self) -> None:
        """Deletes what was begun and not finished; call it while holding the lock."""
        for path in self.path.parent.glob(f"{self.path.stem}.*part"):
            path.unlink(missing_ok=True)

    def finish(self, part: Path, size: int, **facts: Any) -> None:
        """Puts a part of this size in the file's place; writes the note, with plain facts."""
        if part.stat().st_size != size:
            raise OSError(f"{part} is not whole")
        content = {"what": self.what, **facts}
        checksum = sha256(part, content)
        part.replace(self.path)
        write_json({**content, "sha256": checksum}, self.note)


def make_once(path: Path, make: Callable[[Path], Path]) -> None:
    """Moves what `make(part)` returns to `path`, unless that is there; one process at a time."""
    if path.exists():  # nothing is written, not even a lock: its folder may be read-only
        return
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{part}.lock"):
        if not path.exists():  # another process may have made it while this one waited
            try:
                _remove(part)  # of a process that was killed
                make(part).replace(path)
            finally:
                _remove(part)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    part.unlink(missing_ok=True)


def write_json(content: Any, path: Path) -> None:
    """Writes a JSON file that is whole or not there; JSON has no nan and no inf: null instead."""
    plain = json.loads(json.dumps(content), parse_constant=lambda _name: None)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def read_plain(path: Path, kind: type = dict) -> Any:
    """The content of a JSON or YAML file; ConfigError: not there, damaged, or no `kind`."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:  # a pipe would never end
            raise OSError(f"no file, or above {LARGEST / 1e6:.0f} MB")
        if path.suffix == ".json":
            content = json.loads(path.read_text("utf-8"))
        else:
            import yaml  # not needed to use a model

            text = path.read_text("utf-8")
            large = len(text) > LARGEST_YAML or text.count("[") + text.count("{") > 2_000
            try:  # with aliases a small file becomes a huge tree
                if large or any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(text)):
                    raise ValueError("it has aliases, or is larger than Hydra's files are")
                content = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from error
        if not isinstance(content, kind):
            raise TypeError(f"its content is no {kind.__name__}")
        return content
    except (OSError, ValueError, TypeError, RecursionError) as error:
        fault = f"{path}: is damaged, or of another program than this thaw ({reason(error)})"
        raise ConfigError(fault) from error


def sha256(path: Path, note: dict[str, Any] | None = None) -> str:
    """The checksum of a file, and of a note on it, in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(note, sort_keys=True).encode() if note else b"")
    return digest.hexdigest()


def last_checkpoints(folder: str | Path) -> list[Path]:
    """What a run folder has to go on from, unread, the newest first."""
    paths = (Path(folder) / "checkpoints" / name for name in (LAST, PREVIOUS))
    return [path for path in paths if path.is_file()]


def read_checkpoint(path: str | Path, key: str = "ckpt_path") -> dict[str, Any]:
    """Reads a checkpoint of train.py; runs no code in it, and compares checksums, unlike torch."""
    import torch  # the first process of a sweep has no use for it

    try:
        if not Path(path).is_file():  # a pipe or a device would never end
            raise FileNotFoundError
        with ZipFile(path) as file:
            if any(entry.compress_type for entry in file.infolist()) or file.testzip():  # a bomb
                raise BadZipFile
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if "classes" in checkpoint["hyper_parameters"]:
            return checkpoint
        raise KeyError("classes")
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, zlib.error,
            BadZipFile, pickle.UnpicklingError) as error:  # fmt: skip
        fault = "there is no such file, or it is damaged or is no checkpoint of thaw"
        hint = "give one of RUN/checkpoints/; weights of a backbone alone: backbone.weights=FILE"
        raise ConfigError(f"{key}={path}: {fault} ({type(error).__name__}); {hint}") from error
