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
from collections.abc import Iterable
from itertools import count, islice
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from thaw.errors import ConfigError, reason
from thaw.store import write_json

Record = dict[str, Any]  # path, label, probability, top, and where it is asked for, unsure


class Rows:
    """Writes records as a table, as one JSON list, as a line of JSON each, or as text to read.

    Beside a table or lines stands a note of the model and the options that they are made with: only
    a file with an equal note is resumed.

    Attributes:
        done: The paths that stand in a file which is resumed, in memory.
        number: Rows of that file.
    """

    def __init__(
        self, form: str, file: Path | None, top: int, *, marks: bool, resume: bool,
        made_with: dict[str, Any],
    ) -> None:  # fmt: skip
        self.form, self.marks = form, marks
        self.done: set[str] = set()
        self.number = 0
        self.file: TextIO = sys.stdout
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            if resume and file.is_file() and file.stat().st_size:
                self._go_on(file, made_with)
            self.file = file.open("a" if self.number else "w", encoding="utf-8", newline="")
            if form != "json" and file.is_file():  # not a pipe
                write_json(made_with, _note(file))
        self.csv = csv.writer(self.file, lineterminator="\n")
        if form == "csv" and not self.number:
            # Not `label`, which in a run's predictions.csv is the true class
            places = ["", *(f"_{place}" for place in range(2, top + 1))]
            columns = [name + place for place in places for name in ("predicted", "probability")]
            self.csv.writerow(["path", *columns, *["unsure"] * marks])
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
            best = [(each["label"], each["probability"]) for each in record["top"]]
            if self.form == "csv":
                cells = [cell for label, value in best for cell in (label, f"{value:.6f}")]
                marks = ["yes" if record["unsure"] else "no"] if self.marks else []
                self.csv.writerow([record["path"], *cells, *marks])
            elif self.form == "text":
                cells = [record["path"], *(f"{label} {value:.2f}" for label, value in best)]
                print(*cells, *["unsure"] * record.get("unsure", False), sep="  ", file=self.file)
            else:
                text = json.dumps(record, ensure_ascii=False)
                self.file.write(self.before + text + "\n" * (self.form == "jsonl"))
                self.before = ",\n" if self.form == "json" else ""
        self.file.flush()

    def _go_on(self, file: Path, made_with: dict[str, Any]) -> None:
        """Notes what is done, and cuts off a half-written last line.

        Raises:
            ConfigError: It was written with other options, or changed since.
        """
        try:
            made = dict(json.loads(_note(file).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            made = {}
        other = [f"{name} {made.get(name, 'unknown')} (now {value})"
                 for name, value in made_with.items() if made.get(name) != value]  # fmt: skip
        if other:
            raise ConfigError(
                f"--resume: {file} was made, says {_note(file).name} beside it, with "
                f"{', '.join(other)}; give the same, or start anew without --resume"
            )
        with file.open("rb+") as content:
            content.truncate(sum(len(line) for line in content if line.endswith(b"\n")))
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                rows = csv.reader(lines, strict=True) if self.form == "csv" else lines
                for row in islice(rows, int(self.form == "csv"), None):
                    self.done.add(json.loads(row)["path"] if isinstance(row, str) else row[0])
                    self.number += 1
        except (csv.Error, ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"--resume: {file} was changed since it was written ({reason(error)}); start anew "
                "without --resume"
            ) from error


def _note(file: Path) -> Path:
    return file.with_name(f".{file.name}.resume")


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
            ConfigError: The file has fewer rows.
        """
        self.is_numpy, self.width, self.rows = path.suffix == ".npy", width, rows
        end = self.HEADER + 4 * width * rows
        if rows and not (path.is_file() and path.stat().st_size >= end):
            raise ConfigError(
                f"--embeddings {path}: has not the {rows} rows of {width} numbers that belong to "
                "the rows of the file that is resumed; start anew without --resume"
            )
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
