"""Your own photos, listed in a table."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.folder import SPLITS
from thaw.data.photos import Photos, Splits, natural
from thaw.errors import ConfigError, near

Row = dict[str, str]  # name of a column -> value


@dataclass(kw_only=True, eq=False)
class Csv(PhotoDataModule):
    """Your own photos, one a line of a table, of which the first line names the columns.

    The columns split (train, val or test) and group need not be there; `data.groups` names another
    column of groups, or is as in every source.

    Args:
        csv: With commas, semicolons or tabs, in UTF-8; or .parquet, which pandas reads.
        images: Folder that the paths start from; None: that of the table.
        test_fraction: 0-1, of the training photos, to test on, the same for every seed.
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
        self.folder = Path(self.images or self.csv.parent).expanduser()
        hint = "; folders of photos are read by data=folder data.root=FOLDER" * self.csv.is_dir()
        self.check("csv", self.csv.is_file(), f"a file (looked in {Path.cwd()}){hint}")

    def find_splits(self) -> Splits:
        """Reads the table; raises a ConfigError that names the line of what cannot be."""
        rows = self._rows()
        pairs: dict[str, list[tuple[Path, str]]] = {"train": [], "val": [], "test": []}
        for path, (line, row) in rows.items():
            split = SPLITS.get(row.get(self.split_column, "train").lower())
            if split is None:
                raise self._error(line, f"{self.split_column} must be one of {', '.join(SPLITS)}")
            if not self.wanted or row[self.label_column] in self.wanted:
                pairs[split].append((path, row[self.label_column]))
        classes = tuple(sorted({name for _, name in pairs["train"]}, key=natural))
        labels = {name: label for label, name in enumerate(classes)}
        for path, name in pairs["val"] + pairs["test"]:
            if name not in labels:
                raise self._error(rows[path][0], f"no training photo is of class {name!r}")
        if len(classes) < 2:
            raise self._error(1, f"{len(classes)} classes to train on; two or more are needed")
        if self._column and all(self._column in row for _, row in rows.values()):
            of = {path: row[self._column] for path, (_, row) in rows.items()}
            self.group_of = lambda path: of[path] or str(path)  # no name: on its own
        train, val, test = (Photos.of((path, labels[label]) for path, label in part)
                            for part in pairs.values())  # fmt: skip
        return Splits(classes, train, val or None, test or None)

    @property
    def _column(self) -> str:  # of groups, if it is there
        return "group" if self.groups is None else self.groups

    def _rows(self) -> dict[Path, tuple[int, Row]]:
        """The photos, and the line and values of each."""
        rows: dict[Path, tuple[int, Row]] = {}
        for line, row in self._read():
            for column in (self.path_column, self.label_column, self.split_column):
                if row.get(column) == "":
                    hint = "; write train, val or test, or delete the column"
                    hint *= column == self.split_column
                    raise self._error(line, f"{column} is empty{hint}")
            path = self.folder / row[self.path_column]
            if path in rows:
                raise self._error(line, f"{path} is in line {rows[path][0]} already")
            if not path.is_file():
                raise self._error(line, f"there is no file {path}; data.images names its folder")
            rows[path] = (line, row)
        return rows

    def _read(self) -> Iterator[tuple[int, Row]]:
        """Line number and values of each photo; of parquet the row's number, from 1."""
        if self.csv.suffix == ".parquet":
            try:
                table = import_module("pandas").read_parquet(self.csv).fillna("").astype(str)
            except ImportError as error:
                raise self._error(1, "pip install pandas pyarrow, or give CSV") from error
            except Exception as error:  # pyarrow has many of its own
                raise self._error(1, f"cannot be read as parquet ({error})") from error
            records = table.to_dict("records")
            self._check_columns([*(records or [{}])[0]])
            yield from enumerate(records, 1)
            return
        with self.csv.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(",;\t", key=first.count)
            table = csv.DictReader(file, delimiter=separator, restval="", strict=True)
            try:
                table.fieldnames = [name.strip() for name in table.fieldnames or ()]
                self._check_columns(table.fieldnames)
                for row in table:
                    if None in row:
                        raise self._error(table.line_num, "more values than columns; quote commas")
                    yield table.line_num, {name: value.strip() for name, value in row.items()}
            except csv.Error as error:  # a quote without its second, a value of 100,000 characters
                raise self._error(table.line_num, str(error)) from error

    def _check_columns(self, names: Sequence[str]) -> None:
        """Refuses names that cannot be what is meant, and says which columns are not read."""
        there = f"There are: {', '.join(names)}"
        if any(not name.isprintable() for name in names):
            raise self._error(1, "is not in UTF-8; in Excel save it as 'CSV UTF-8'")
        if len({*names}) < len(names) or not any(names):
            raise self._error(
                1, f"must name each column once, and has {', '.join(names) or 'none'}"
            )
        read = [self.path_column, self.label_column, self.split_column, self._column]
        for name in names:
            if name not in read and name.lower() in (self.split_column, self._column):
                raise self._error(1, f"write the column {name!r} as {name.lower()!r}")
        for key in ("path_column", "label_column", "split_column"):
            if (column := getattr(self, key)) not in [*names, "split"]:
                hint = f"{near(column, names)}. {there}"
                raise self._error(1, f"there is no column {column!r} (data.{key}){hint}")
        if self.groups and self.groups not in names and re.fullmatch(r"[\w ]+", self.groups):
            hint = (
                f"{near(self.groups, names)}. {there}; or give a regular expression, as '^([^/]+)/'"
            )
            raise self._error(1, f"there is no column {self.groups!r} (data.groups){hint}")
        if others := [name for name in names if name not in read]:
            print_once(f"data      columns that are not read: {', '.join(others)}")

    def _error(self, line: int, fault: str) -> ConfigError:
        return ConfigError(f"data.csv={self.csv}, line {line}: {fault}.")
