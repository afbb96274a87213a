"""The files that `thaw predict` writes: rows, and copies of photos."""

import csv
import filecmp
import json
import os
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TextIO

from thaw.errors import ConfigError, reason
from thaw.image_classifier import Prediction
from thaw.store import read_plain, write_json


class Output:
    """Writes what the command line asks for; rows come last, so what has a row is done.

    Beside a table or lines stands a note of the model and the options that they are made with: only
    a file with an equal note is resumed.

    Attributes:
        done: The paths that stand in a file which is resumed, in memory.
        number: Rows that are written.
    """

    def __init__(self, given: Namespace, weights: str) -> None:
        self.given, file = given, given.file
        self.done: set[str] = set()
        self.number = 0
        self.rows: TextIO = sys.stdout
        if file:
            note = file.with_name(f".{file.name}.resume")
            made_with = {"model": weights, "form": given.form, "--top": given.top,
                         "--tta": given.tta, "--unsure": given.unsure}  # fmt: skip
            file.parent.mkdir(parents=True, exist_ok=True)
            if given.resume and file.is_file() and file.stat().st_size:
                self._go_on(note, made_with)
            self.rows = file.open("a" if self.number else "w", encoding="utf-8", newline="")
            if given.form != "json" and file.is_file():  # not a pipe
                write_json(made_with, note)
        self.csv = csv.writer(self.rows, lineterminator="\n")
        if given.form == "csv" and not self.number:
            # Not `label`, which in a run's predictions.csv is the true class
            places = ["", *(f"_{place}" for place in range(2, given.top + 1))]
            columns = [name + place for place in places for name in ("predicted", "probability")]
            self.csv.writerow(["path", *columns, *["unsure"] * (given.unsure > 0)])
        if given.form == "json":
            self.rows.write("[")

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.given.form == "json" and kind is None:
            self.rows.write("\n]\n")
        if self.rows is not sys.stdout:
            self.rows.close()

    def add(self, paths: Sequence[Path], predictions: Sequence[Prediction]) -> None:
        """Writes a batch."""
        given = self.given
        for path, prediction in zip(paths, predictions, strict=True):
            unsure = prediction.probability < given.unsure
            if given.copy_into:
                copy_into(given.copy_into, "unsure" if unsure else prediction.label, path)
            name, record = readable(path), prediction.record(given.top)
            best = [(each["label"], each["probability"]) for each in record["top"]]
            if given.form == "csv":
                cells = [cell for label, value in best for cell in (label, f"{value:.6f}")]
                marks = ["yes" if unsure else "no"] if given.unsure else []
                self.csv.writerow([name, *cells, *marks])
            elif given.form == "text":
                cells = [f"{label} {value:.2f}" for label, value in best]
                print(name, *cells, *["unsure"] * unsure, sep="  ", file=self.rows)
            else:
                mark = {"unsure": unsure} if given.unsure else {}
                text = json.dumps({"path": name, **record, **mark}, ensure_ascii=False)
                comma = "," if self.number else ""
                self.rows.write(f"{text}\n" if given.form == "jsonl" else f"{comma}\n{text}")
            self.number += 1
        self.rows.flush()

    def _go_on(self, note: Path, made_with: dict[str, object]) -> None:
        """Notes what is done, and cuts off a half-written last line; ConfigError: of another."""
        file, made = self.given.file, read_plain(note) if note.is_file() else {}
        other = [f"{name} {made.get(name, 'unknown')} (now {value})"
                 for name, value in made_with.items() if made.get(name) != value]  # fmt: skip
        if other:
            raise ConfigError(
                f"--resume: {file} was made, says {note.name} beside it, with {', '.join(other)}; "
                "give the same, or start anew without --resume"
            )
        with file.open("rb+") as content:
            content.truncate(sum(len(line) for line in content if line.endswith(b"\n")))
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                if self.given.form == "csv":
                    paths = [row[0] for row in csv.reader(lines, strict=True)][1:]
                else:
                    paths = [json.loads(line)["path"] for line in lines]
        except (csv.Error, ValueError, LookupError, TypeError) as error:
            raise ConfigError(
                f"--resume: {file} was changed since it was written ({reason(error)}); start anew "
                "without --resume"
            ) from error
        self.done, self.number = set(paths), len(paths)


def readable(path: Path) -> str:
    """The path, with marks for what is not UTF-8 in it: such a name must not end the run."""
    return os.fsencode(path).decode(errors="replace")


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
