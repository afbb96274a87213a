"""Your own photos, listed in a table."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TextIO

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.folder import SPLITS
from thaw.data.photos import Photos, Splits
from thaw.data.picture_files import natural
from thaw.errors import ConfigError, check, near


@dataclass(kw_only=True, eq=False)
class Csv(PhotoDataModule):
    """Your own photos, one a line of a table, of which the first line names the columns.

    The columns split (train, val or test) and group need not be there; `data.groups` names another
    column of groups, or is as in every source. Capitals in names of columns are as small letters.
    conf/data/csv.yaml explains the settings.
    """

    name = "csv"
    licence = "your own photos: whatever holds for them"
    csv: Path
    images: Path | None = None
    path_column: str = "path"
    label_column: str = "label"
    split_column: str = "split"
    test_fraction: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.csv = Path(self.csv).expanduser()
        for key in ("path_column", "label_column", "split_column"):
            setattr(self, key, getattr(self, key).lower())
        self._column = "group" if self.groups is None else self.groups.lower()  # if it is there
        self.folder = Path(self.images or self.csv.parent).expanduser()
        rule = f"a file (looked in {Path.cwd()}); folders are read by data=folder data.root=FOLDER"
        check(self.csv.is_file(), "data.csv", self.csv, rule)

    def find_splits(self) -> Splits:
        """Reads the table; raises a ConfigError that names the line of what cannot be."""
        found: defaultdict[str, list[tuple[Path, str, str | None]]] = defaultdict(list)
        lines: dict[Path, int] = {}
        for line, row in self._rows():
            path, label = self.folder / row[self.path_column], row[self.label_column]
            split = SPLITS.get(given := row.get(self.split_column, "train").lower())
            if path in lines:
                raise self._error(line, f"{path} is in line {lines[path]} already")
            if not path.is_file():
                raise self._error(line, f"there is no file {path}; data.images names its folder")
            if not label or not split:
                rule = f"{self.split_column} {given!r} must be one of {', '.join(SPLITS)}"
                raise self._error(line, rule if label else f"{self.label_column} is empty")
            lines[path] = line
            if self.wanted is None or label in self.wanted:
                # a photo without the name of a group is on its own
                group = row[self._column] or str(path) if self._column in row else None
                found[split].append((path, label, group))
        classes = tuple(sorted({label for _, label, _ in found["train"]}, key=natural))
        if len(classes) < 2:
            raise self._error(1, f"{len(classes)} classes to train on; two or more are needed")

        def photos(split: str) -> Photos:
            paths, labels, groups = zip(*found[split], strict=True) if found[split] else ((),) * 3
            for path, label in zip(paths, labels, strict=True):
                if label not in classes:
                    raise self._error(lines[path], f"no training photo is of class {label!r}")
            return Photos(paths, tuple(map(classes.index, labels)), groups if any(groups) else None)

        return Splits(classes, photos("train"), photos("val") or None, photos("test") or None)

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Line number and values of each photo."""
        with self._open() as file:
            first = file.readline()
            file.seek(0)
            if "\0" in first:
                raise self._error(1, "is no text in UTF-8. Save it as CSV UTF-8 or as .parquet")
            separator = max(",;\t", key=first.count)
            table = csv.DictReader(file, delimiter=separator, restval="", strict=True)
            try:
                names = table.fieldnames = [each.strip().lower() for each in table.fieldnames or ()]
                read = [self.path_column, self.label_column, self.split_column, self._column]
                for column in read:
                    optional = column in ("split", self._column) and column not in names
                    if names.count(column) != 1 and not optional:
                        hint = f"there are: {', '.join(names)}{near(column, names)}"
                        fault = f"must name the column {column!r} once ({hint}). For other names "
                        raise self._error(1, f"{fault}set data.path_column, label_column ...")
                if others := [name for name in names if name not in read]:
                    print_once(f"data      columns that are not read: {', '.join(others)}")
                for row in table:
                    if None in row:
                        raise self._error(table.line_num, "more values than columns; quote commas")
                    yield table.line_num, {name: value.strip() for name, value in row.items()}
            except csv.Error as error:  # a quote without its second, a value of 100,000 characters
                raise self._error(table.line_num, str(error)) from error

    def _open(self) -> TextIO:
        """The table as CSV, which pandas makes of parquet; its rows are lines from 2 on."""
        if self.csv.suffix != ".parquet":
            return self.csv.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            table = import_module("pandas").read_parquet(self.csv)
            return io.StringIO(table.to_csv(index=False), newline="")
        except Exception as error:  # pyarrow has many of its own
            hint = "pip install pandas pyarrow, or give CSV"
            raise self._error(1, f"cannot be read as parquet ({error}); {hint}") from error

    def _error(self, line: int, fault: str) -> ConfigError:
        return ConfigError(f"data.csv={self.csv}, line {line}: {fault}.")
