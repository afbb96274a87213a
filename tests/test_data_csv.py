"""data=csv: tables of photos, and errors that name the line."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_data_sources import folder, names, sizes, touch

from thaw.data.csv import Csv
from thaw.errors import ConfigError


def table(root: Path, text: str, encoding: str = "utf-8", **settings: object) -> Csv:
    file = root / "photos.csv"
    file.write_bytes(text.encode(encoding))
    return Csv(data_dir=root, cache_dir=root, csv=file, **settings)  # pyright: ignore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(*(tmp_path / f"{i}.jpg" for i in range(12)))
    return tmp_path


def rows(*columns: str, count: int = 12, sep: str = ",") -> str:
    """A table of 12 photos of two classes; other columns are given by their values for i."""
    lines = [sep.join(("path", "label", *(name.partition("=")[0] for name in columns)))]
    for i in range(count):
        extra = [eval(name.partition("=")[2], {"i": i}) for name in columns]
        lines.append(sep.join((f"{i}.jpg", "ab"[i % 2], *extra)))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("sep", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_path_and_label_alone(root: Path, sep: str, encoding: str) -> None:
    module = table(root, rows(sep=sep), encoding)
    assert (module.classes, sizes(module)) == (("a", "b"), (10, 2, 0))
    assert sizes(table(root, rows(), test_fraction=0.2)) == (8, 2, 2)
    assert all("ab"[label] == "ab"[int(name[:-4]) % 2] for name, label in names(module.train, root))


def test_splits_by_column_and_other_names(root: Path) -> None:
    text = rows("split=('Train','valid','TESTING')[i // 2 % 3]")
    module = table(root, text)
    assert sizes(module) == (4, 4, 4)
    assert names(module.val, root) == [("2.jpg", 0), ("3.jpg", 1), ("8.jpg", 0), ("9.jpg", 1)]
    other = text.replace("path,label,split", "file,kind,part")
    columns = {"path_column": "file", "label_column": "kind", "split_column": "part"}
    assert table(root, other, **columns).splits == module.splits
    (root / "else").mkdir()
    file = root / "else" / "t.csv"
    file.write_text(text)
    moved = Csv(data_dir=root, cache_dir=root, csv=file, images=root)
    assert moved.splits == module.splits


def test_what_a_run_wrote_gives_the_same_splits(tmp_path: Path) -> None:
    touch(*(tmp_path / "p" / name / f"{i}.jpg" for name in "ab" for i in range(10)))
    first = folder(tmp_path / "p", test_fraction=0.2)
    first.splits.write(tmp_path / "split.csv", first.folder)
    again = Csv(data_dir=tmp_path, cache_dir=tmp_path, csv=tmp_path / "split.csv",
                images=tmp_path / "p")  # fmt: skip
    assert again.splits == first.splits


@pytest.mark.parametrize(
    ("column", "groups"),
    [("group", None), ("animal", "animal"), ("other", r"^(\d)")],
)
def test_groups_by_column_or_expression(root: Path, column: str, groups: str | None) -> None:
    module = table(root, rows(f"{column}=str(i // 4)"), groups=groups, val_fraction=0.34)
    assert module.val is not None
    number = (lambda p: int(p.stem) // 4) if groups != r"^(\d)" else (lambda p: p.name[0])
    train, val = ({number(p) for p in part.paths} for part in (module.train, module.val))
    assert not train & val
    assert val


def test_classes_and_skipped_photos(root: Path) -> None:
    (root / "skip.txt").write_text("3.jpg\n")
    module = table(root, rows(), skip=root / "skip.txt", classes=["b", "a"], val_fraction=0)
    assert module.classes == ("b", "a")
    assert (module.train.labels.count(0), module.train.labels.count(1)) == (5, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n0.jpg,a\n99.jpg,b\n", r"line 3: there is no file .*99\.jpg; data\.images"),
        ("path,label\n0.jpg,a\n1.jpg,\n", r"line 3: label is empty"),
        ("path,label\n0.jpg,a\n1.jpg\n", r"line 3: label is empty"),
        ("path,label\n0.jpg,a\n1.jpg,b,c\n", r"line 3: more values than columns"),
        ("path,label\n0.jpg,a\n1.jpg,b\n0.jpg,b\n", r"line 4: .*0\.jpg is in line 2 already"),
        ("path,label,split\n0.jpg,a,train\n1.jpg,b,later\n", r"line 3: split 'later' must be one"),
        ("path,label,split\n0.jpg,a,train\n1.jpg,b,train\n2.jpg,c,test\n", r"line 4: no .*'c'"),
        ("file,label\n0.jpg,a\n", r"name the column 'path' once \(there are: file, label\)"),
        ("path,label\n0.jpg,a\n", r"1 classes to train on; two or more"),
        ("path,label\n", r"0 classes to train on"),
        ("", r"line 1: must name the column 'path' once"),
    ],
)
def test_lines_that_are_refused(root: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table(root, text).setup()


def test_a_mistyped_column_of_groups_finds_no_photo(root: Path) -> None:
    text = rows("animal=str(i // 4)")
    with pytest.raises(ConfigError, match=r"groups=anmal: is not in the path .* Give a column of"):
        table(root, text, groups="anmal").setup()
    assert sizes(table(root, text, groups=r"^(\d)", val_fraction=0)) == (12, 0, 0)


def test_capitals_in_names_of_columns_do_not_matter(root: Path) -> None:
    text = rows("Split=('train', 'val')[i > 8]", "ANIMAL=str(i // 9)").replace("path", "Path", 1)
    module = table(root, text, groups="Animal", label_column="LABEL")
    assert sizes(module) == (9, 3, 0)
    assert {*(module.train.groups or ())} == {"0"}


def test_tables_that_are_not_there(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.csv=.*: allowed is a file .*data\.root=FOLDER"):
        Csv(data_dir=root, cache_dir=root, csv=root)
    with pytest.raises(ConfigError, match=r"data\.csv=.*none\.csv: allowed is a file \(looked in"):
        Csv(data_dir=root, cache_dir=root, csv=root / "none.csv")
    with pytest.raises(ConfigError, match=r"must name the column 'fold' once"):
        table(root, rows(), split_column="fold").setup()


def test_parquet_is_read_by_pandas(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pandas, which is not among what `make install` installs."""
    (root / "t.parquet").write_bytes(b"PAR1")
    module = Csv(data_dir=root, cache_dir=root, csv=root / "t.parquet", groups="animal")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"cannot be read as parquet .* pip install pandas"):
        module.setup()
    broken = SimpleNamespace(read_parquet=lambda file: 1 / 0)
    monkeypatch.setitem(sys.modules, "pandas", broken)
    with pytest.raises(ConfigError, match=r"cannot be read as parquet \(division"):
        module.setup()
    text = rows("animal=str(i // 4)")
    frame = SimpleNamespace(to_csv=lambda index: text if not index else "")
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(read_parquet=lambda file: frame))
    assert [*module.splits.train.pairs()] == [*table(root, text, groups="animal").train.pairs()]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("path,label,split", "path,label,Label", "must name the column 'label' once"),
        ("0.jpg,a", "0.jpg,B\udce4r", r"class 'B\\udce4r' is not in UTF-8"),
        ("path,label,split", "\npath,label,split", "line 1: must name the column 'path' once"),
        ("0.jpg,a", '0.jpg,"a', "unexpected end of data"),
        ("path", "p\0a\0t\0h\0", "line 1: is no text in UTF-8. Save it as CSV UTF-8"),
    ],
)
def test_tables_that_would_be_read_wrongly(root: Path, old: str, new: str, said: str) -> None:
    text = rows("split=['train', 'val'][i > 8]").replace(old, new, 1)
    file = root / "photos.csv"
    file.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(ConfigError, match=said):
        _ = Csv(data_dir=root, cache_dir=root, csv=file).splits


def test_columns_that_are_not_read_are_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sizes(table(root, rows("set='test'"))) == (10, 2, 0)
    assert "columns that are not read: set" in capsys.readouterr().out


def test_a_class_that_is_not_wanted_may_be_in_the_test_alone(root: Path) -> None:
    text = rows("split='train'") + "12.jpg,c,test\n"
    touch(root / "12.jpg")
    assert sizes(table(root, text, classes=["b", "a"])) == (10, 2, 0)
