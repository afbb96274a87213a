"""The files that `thaw predict` writes: rows, copies of photos, embeddings.

All of them can be gone on with: rows are written last, so what has a row is done.
"""

import csv
import filecmp
import io
import json
import re
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from thaw.errors import ConfigError
from thaw.store import write_json

Record = dict[str, Any]  # path, label, probability, top, and where it is asked for, unsure


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """ConfigError that names the option where its path cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: cannot be written ({error}); give a place that you may write to"
        ) from error


class Rows:
    """Writes records as a table, as one JSON list, as a line of JSON each, or as text to read.

    Beside a file that can be resumed stands a note of the model and options that it is made with.

    Attributes:
        done: The paths that stand in a file which is resumed, in memory.
        number: Rows of that file.
    """

    def __init__(
        self, form: str, file: Path | None, top: int, *, marks: bool, resume: bool,
        made_with: dict[str, Any],
    ) -> None:  # fmt: skip
        self.form, self.top, self.marks, self.made_with = form, top, marks, made_with
        self.done: set[str] = set()
        self.number = 0
        self.file: TextIO = sys.stdout
        goes_on = False
        if file:
            with writing(f"--{form}", file):
                file.parent.mkdir(parents=True, exist_ok=True)
                goes_on = resume and file.is_file() and self._read(file)
                self.file = file.open("a" if goes_on else "w", encoding="utf-8", newline="")
                if not goes_on and form != "json" and file.is_file():  # not a pipe
                    write_json(made_with, _note(file))
        if form == "csv" and not goes_on:
            self.file.write(_csv_line(self._columns()))
        self.before = "[\n" if form == "json" else ""

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.form == "json" and kind is None:
            self.file.write("[]\n" if self.before == "[\n" else "\n]\n")
        if self.file is not sys.stdout:
            self.file.close()

    def add(self, records: Iterable[Record]) -> None:
        """Writes the records of a batch."""
        for record in records:
            self.file.write(self.before + self._text(record))
            self.before = ",\n" if self.form == "json" else ""
        self.file.flush()

    def _text(self, record: Record) -> str:
        if self.form in ("json", "jsonl"):
            return json.dumps(record, ensure_ascii=False) + "\n" * (self.form == "jsonl")
        best = [(each["label"], each["probability"]) for each in record["top"]]
        if self.form == "csv":
            cells = [cell for label, value in best for cell in (label, f"{value:.6f}")]
            marks = ["yes" if record["unsure"] else "no"] if self.marks else []
            return _csv_line([record["path"], *cells, *marks])
        cells = [record["path"], *(f"{label} {value:.2f}" for label, value in best)]
        return "  ".join([*cells, "unsure"] if record.get("unsure") else cells) + "\n"

    def _columns(self) -> list[str]:
        """Not `label`, which in a run's predictions.csv is the true class."""
        further = [f"{name}_{place}" for place in range(2, self.top + 1)
                   for name in ("predicted", "probability")]  # fmt: skip
        return ["path", "predicted", "probability", *further, *["unsure"] * self.marks]

    def _read(self, file: Path) -> bool:
        """Notes what is done, and cuts off a half-written last line; False: nothing whole is there.

        Raises:
            ConfigError: It is another kind of file, or was written with other options.
        """
        end = 0  # of the last whole line, in bytes

        def whole_lines() -> Iterator[str]:
            nonlocal end
            for line in content:
                if line.endswith(b"\n"):
                    end += len(line)
                    yield line.decode()

        with file.open("rb+") as content:
            try:
                for path in self._paths(whole_lines()):
                    self.done.add(path)
                    self.number += 1
            except (csv.Error, ValueError, LookupError, TypeError) as error:
                raise ConfigError(
                    f"--resume: {file} was not written with --{self.form} --top {self.top} and "
                    f"{'an' if self.marks else 'no'} --unsure; give the options of the run that "
                    "was stopped, or start anew without --resume"
                ) from error
            if end:
                self._check_note(file)
            content.truncate(end)
        return end > 0

    def _check_note(self, file: Path) -> None:
        try:
            made = dict(json.loads(_note(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            made = {}
        other = [f"{name} {made.get(name, 'unknown')} (now {value})"
                 for name, value in self.made_with.items() if made.get(name) != value]  # fmt: skip
        if other:
            raise ConfigError(
                f"--resume: {file} was made, says {_note(file).name} beside it, with "
                f"{', '.join(other)}; give the same, or start anew without --resume"
            )

    def _paths(self, lines: Iterator[str]) -> Iterator[str]:
        """The paths in a file of this form; ValueError if its rows have other parts than ours."""
        if self.form == "csv":
            table = csv.reader(lines, strict=True)
            if next(table, self._columns()) != self._columns():
                raise ValueError("other columns")
            yield from (row[0] for row in table)
            return
        for record in map(json.loads, lines):
            if len(record["top"]) != self.top or ("unsure" in record) != self.marks:
                raise ValueError("other parts")
            yield record["path"]


def _note(file: Path) -> Path:
    return file.with_name(f".{file.name}.resume")


def _csv_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def copy_into(folder: Path, label: str, photo: Path) -> Path:
    """Copies a photo to `folder`/`label`; a name that another photo has gets a number.

    A photo that was copied there before is not copied again. A label that would lead out of the
    folder is written with `_`.
    """
    target = folder / (re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", label).strip(" .") or "_")
    target.mkdir(parents=True, exist_ok=True)
    names = (f"{photo.stem}_{number}{photo.suffix}" for number in count(2))
    copy = target / photo.name
    while copy.exists():
        if filecmp.cmp(photo, copy, shallow=False):  # else equal size and time would do
            return copy
        copy = target / next(names)
    part = target / f".{photo.name}.part"
    shutil.copy2(photo, part)
    return part.replace(copy)


class Embeddings:
    """Features (N, D) in a .npy or .safetensors file that grows, and is whole after every batch.

    The header, which tells N, has a fixed length and is written anew each time.
    """

    HEADER = 256  # bytes

    def __init__(self, path: Path, width: int, rows: int) -> None:
        """Opens the file behind its first `rows` rows; makes it new where there are none.

        Raises:
            ConfigError: The file has fewer rows, or rows of another width.
        """
        self.is_numpy, self.width, self.rows = path.suffix == ".npy", width, rows
        end, head = self.HEADER + 4 * width * rows, b""
        if rows and path.is_file() and path.stat().st_size >= end:
            with path.open("rb") as file:
                head = file.read(self.HEADER)
        shape = re.search(rb"[(\[](\d+), (\d+)[)\]]", head)
        if rows and not (shape and int(shape[1]) >= rows and int(shape[2]) == width):
            raise ConfigError(
                f"--embeddings {path}: has not the {rows} rows of {width} numbers that belong to "
                "the rows of the file that is resumed; start anew without --resume"
            )
        with writing("--embeddings", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("rb+" if rows else "wb+")
            self.file.truncate(end)
        self._write_header()

    def __enter__(self) -> "Embeddings":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, features: Tensor) -> None:
        """Adds the features (N, D) of a batch."""
        self.file.seek(0, io.SEEK_END)
        self.file.write(features.float().cpu().numpy().astype("<f4").tobytes())
        self.rows += len(features)
        self._write_header()

    def _write_header(self) -> None:
        """See numpy.lib.format, version 1.0, and the format's page of safetensors."""
        shape = [self.rows, self.width]
        if self.is_numpy:
            facts: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (*shape,)}
            start, text = b"\x93NUMPY\x01\x00" + struct.pack("<H", self.HEADER - 10), repr(facts)
        else:
            offsets = [0, 4 * self.rows * self.width]
            facts = {"embeddings": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
            start, text = struct.pack("<Q", self.HEADER - 8), json.dumps(facts)
        self.file.seek(0)
        self.file.write(start + text.encode().ljust(self.HEADER - len(start) - 1) + b"\n")
        self.file.flush()
