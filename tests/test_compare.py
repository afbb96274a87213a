"""`thaw compare`, on folders that real runs left and on folders written by hand."""

import base64
import csv
import json
import re
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
import torch
from made_runs import history_of, write_run
from matplotlib.container import BarContainer
from PIL import Image
from runs import SMALL, TWO_AND_TWO, command, draw_photos

from thaw import cli
from thaw.compare import pictures
from thaw.compare.paired import Difference, spread
from thaw.compare.run_groups import Section, group_runs
from thaw.compare.runs import Run, find, read
from thaw.compare.tables import difference_cell, scores_table, spread_cell
from thaw.errors import ConfigError

RATES = ("finetune.unfrozen.lr=0.01", "finetune.unfrozen.lr=0.001")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rates and two folds, swept over by train.py."""
    folder = tmp_path_factory.mktemp("sweep")
    photos = draw_photos(folder / "photos")
    small = [word for word in SMALL if not word.startswith("callbacks")]
    words = [*small, f"data.root={photos}", *TWO_AND_TWO, f"paths.root_dir={folder}",
             "callbacks.progress=null", "finetune.unfrozen.lr=0.01,0.001",
             "data.folds=2", "data.fold=0,1", f"hydra.sweep.dir={folder / 'jobs'}"]  # fmt: skip
    subprocess.run(command("-m", *words), check=True, capture_output=True, timeout=400)
    return folder / "jobs"


def compare(*words: str | Path) -> None:
    cli.main(["compare", *map(str, words)])


def results_of(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*/results.json"))]


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def test_a_sweep(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(sweep, "--csv", tmp_path / "all.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["all.csv"]  # nothing unasked
    printed = capsys.readouterr().out
    rows, results = rows_of(tmp_path / "all.csv"), results_of(sweep)
    assert sorted((row["group"], row["fold"]) for row in rows) == sorted(
        (rate, fold) for rate in RATES for fold in "01"
    )
    assert {row["seed"] for row in rows} == {"0"}
    assert sorted(float(row["test/acc"]) for row in rows) == sorted(r["test/acc"] for r in results)
    for rate in RATES:
        assert len({row["finetune.unfrozen.lr"] for row in rows if row["group"] == rate}) == 1
        for metric in ("val/acc", "test/acc"):
            values = [float(row[metric]) for row in rows if row["group"] == rate]
            assert spread_cell(spread(values)) in printed
    # 2 frozen and 2 unfrozen epochs; each fold trains on 18 of 36 photos, validates on the others
    assert {row["images"] for row in rows} == {str(4 * 36)}
    assert "Nadeau" in printed
    assert "The best run is one of the best group" in printed
    assert "Runs share cached features" in printed
    assert "runs differ in" not in printed


def test_the_best_run_of_a_sweep(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(sweep, "--html", sweep.parent / "page.html")
    values: dict[str, list[float]] = {}  # of each rate, over the folds
    for file in sorted(sweep.glob("*/results.json")):
        rate = file.parent.name.partition("fold")[0][2:]
        values.setdefault(rate, []).append(json.loads(file.read_text())["val/acc"])
    best = max(max(values.values(), key=sum))
    line = re.search(r"^Best run by val/acc: (\S+), .*, (\S+), checkpoint (.*)$",
                     capsys.readouterr().out, re.MULTILINE)  # fmt: skip
    assert line is not None
    assert line[1] == f"{best:.4f}"
    assert Path(line[3]).is_relative_to(line[2])
    saved = torch.load(line[3], weights_only=True)
    chosen = next(row for row in saved["record"]["history"] if row["epoch"] == saved["epoch"])
    assert chosen["val/acc"] == best


class Page(HTMLParser):
    """What a page refers to, and the text of its cells and heads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.cells: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inside = tag
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.inside in ("td", "th"):
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


def test_the_page_stands_alone(sweep: Path, tmp_path: Path) -> None:
    compare(sweep, "--html", tmp_path / "page.html", "--markdown", tmp_path / "page.md")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert len(page.links) == 4
    for link in page.links:
        kind, _, data = link.partition(",")
        assert kind == "data:image/png;base64"
        picture = Image.open(BytesIO(base64.b64decode(data)))
        assert picture.width > 500
    folders = [str(folder) for folder in find([str(sweep)])]
    assert set(folders) <= set(page.cells)
    markdown = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "![" not in markdown  # the pictures are not beside it
    assert "| group" in markdown


def test_markdown_refers_to_the_pictures_beside_it(sweep: Path, tmp_path: Path) -> None:
    compare(sweep, "--out", tmp_path)
    named = re.findall(r"!\[.*\]\((.*)\)", (tmp_path / "compare.md").read_text(encoding="utf-8"))
    assert named == ["together.png", "unfreeze.png", "cost.png", "curves.png"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *named, "compare.html", "compare.md", "compare.csv",
    }  # fmt: skip


def test_the_default_folder(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compare(sweep)
    (folder,) = (tmp_path / "logs" / "compare").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", folder.name)
    assert (folder / "compare.html").is_file()


HEAD, FULL = "finetune.unfreeze_epoch=3", "finetune.unfreeze_epoch=1"


def write_two_groups(folder: Path) -> None:
    """Three seeds of one setting, one of another."""
    history = history_of([0.3, 0.5, 0.4, 0.6], 3)
    for seed in range(3):
        write_run(folder / f"a{seed}", [HEAD], seed=seed, history=history,
                  scores={"val/acc": 0.6 + seed / 100, "test/acc": 0.5})  # fmt: skip
    write_run(folder / "b", [FULL], seed=1, history=history_of([0.2, 0.7, 0.8, 0.1], 1),
              scores={"val/acc": 0.8, "test/acc": 0.7})  # fmt: skip


def section_of(folder: Path) -> Section:
    runs = [run for place in find([str(folder)]) if isinstance(run := read(place), Run)]
    (section,) = group_runs(runs, "acc")
    return section


def test_what_is_told_of_too_few_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two_groups(tmp_path / "runs")
    compare(tmp_path / "runs", "--csv", tmp_path / "all.csv")
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    (group,) = (line for line in lines if line.startswith(HEAD) and "±" in line)
    assert "0.6100 ± 0.0100" in group
    assert "-0.1900, 1 pair: no interval" in group  # seed 1: 0.61 - 0.80
    (alone,) = (line for line in lines if line.startswith(FULL) and "baseline" in line)
    assert "±" not in alone
    assert "One run tells nothing of the spread" in printed
    assert "95 % confidence" not in printed


def test_cells() -> None:
    assert difference_cell(Difference(3, 0.1, 0.05, 0.15, 0.01)) == "+0.1000 [+0.0500, +0.1500] *"
    assert difference_cell(Difference(3, -0.1, -0.3, 0.1, 0.4)) == "-0.1000 [-0.3000, +0.1000]"
    assert difference_cell(Difference(0)) == "no common seed"


def test_folders_left_out_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two_groups(tmp_path / "runs")
    killed = write_run(tmp_path / "runs" / "killed", [FULL])
    again = write_run(tmp_path / "runs" / "c", [FULL], seed=1, scores={"val/acc": 0.5})
    out = tmp_path / "out"
    compare(tmp_path / "runs", "--out", out)
    printed = capsys.readouterr().out
    assert f"- {killed}: no results.json" in printed
    assert re.search(rf"runs/b is left out: {again} has the same settings and seed 1", printed)
    assert f"Without history.json, so not among the curves: {again}" in printed
    assert str(killed) in Page((out / "compare.html").read_text(encoding="utf-8")).cells
    assert str(killed) in (out / "compare.md").read_text(encoding="utf-8")
    rows = rows_of(out / "compare.csv")
    assert [row["status"][:15] for row in rows] == ["finished"] * 4 + ["no results.json"]


def test_runs_that_diverged_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    for seed, value in enumerate((0.5, 0.6, nan)):
        write_run(tmp_path / "runs" / f"a{seed}", [HEAD], seed=seed, scores={"val/acc": value},
                  history=history_of([0.3, value], 1))  # fmt: skip
        write_run(tmp_path / "runs" / f"b{seed}", [FULL], seed=seed, scores={"val/acc": nan},
                  history=history_of([nan, nan], 1))  # fmt: skip
    compare(tmp_path / "runs", "--out", tmp_path / "out")
    printed = capsys.readouterr().out
    (row,) = (line for line in printed.splitlines() if line.startswith(HEAD) and "±" in line)
    assert "0.5500 ± 0.0707" in row
    assert "no common seed" not in printed
    folders = ", ".join(str(tmp_path / "runs" / name) for name in ("a2", "b0", "b1", "b2"))
    assert f"val/acc is not finite, so in no mean: {folders}." in printed


def test_a_metric_that_a_group_has_not(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [HEAD], scores={"val/acc": 0.5, "test/acc": 0.5})
    write_run(tmp_path / "b", [FULL], scores={"val/acc": 0.4})
    _, row = scores_table(section_of(tmp_path)).rows
    assert row == (FULL, "1", "0.4000", "none", "-0.1000, 1 pair: no interval", "none")


def test_other_versions_and_commits_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"val/acc": 0.5}
    write_run(tmp_path / "a", scores=scores, git="b" * 40 + "+changes")
    write_run(tmp_path / "b", seed=1, scores=scores, versions={"thaw": "0.1.0", "torch": "2.9.0"})
    compare(tmp_path, "--csv", tmp_path / "all.csv")
    printed = capsys.readouterr().out
    assert "differ in commit: bbbbbbbbb+changes (1 run), aaaaaaaaa (1 run)" in printed
    assert "differ in torch's version: 2.15.0 (1 run), 2.9.0 (1 run)" in printed
    assert "thaw's version" not in printed
    assert "device" not in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "top1"], r"--metric top1: no run has it\. Allowed here: acc$"),
        (["--metric", "test/acc"], r"both splits are shown, give the name alone"),
        (["--metric", "f1"], r"--metric f1: no run has it"),
        (["--baseline", "nothing"], r"--baseline nothing: no group"),
        (["--ignore", HEAD.partition("=")[0]], r"--ignore: .*/a1 and .*/b have the same seed"),
    ],
)
def test_options_that_fit_nothing(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_two_groups(tmp_path)
    with pytest.raises(SystemExit):
        compare(tmp_path, *words)
    assert re.search(message, capsys.readouterr().err.strip(), re.MULTILINE)


def test_only_runs_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = write_run(tmp_path / "killed")
    with pytest.raises(SystemExit):
        compare(tmp_path)
    message = capsys.readouterr().err
    assert "none of these folders holds a run that ended" in message
    assert f"{killed}: no results.json" in message


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    from thaw.verbs.compare import _write

    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/x\.csv: cannot be written"):
        _write(tmp_path / "file" / "x.csv", "")


def test_bars_of_frozen_against_unfrozen(tmp_path: Path) -> None:
    """The best validation value within each; a dot for each run."""
    write_two_groups(tmp_path)
    section = section_of(tmp_path)
    values = {g.name: pictures.phase_values(g, "acc") for g in section.groups}
    assert values == {HEAD: ([0.5] * 3, [0.6] * 3), FULL: ([0.2], [0.8])}
    figure = pictures.unfreeze_bars(section)
    assert figure is not None
    (axes,) = figure.axes
    widths = [bar[0].get_width() for bar in axes.containers if isinstance(bar, BarContainer)]
    assert widths == pytest.approx([0.2, 0.5, 0.8, 0.6])
    assert [label.get_text() for label in axes.get_yticklabels()] == [FULL, HEAD]
    assert [len(line.get_xdata()) for line in axes.lines] == [1, 3, 1, 3]
    assert axes.get_xlim()[0] == 0  # bars that do not begin at zero lie
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["frozen", "unfrozen"]


def test_bars_of_groups_with_one_phase(tmp_path: Path) -> None:
    write_run(tmp_path / "both", [FULL], scores={"val/acc": 0.5}, history=history_of([0.2, 0.5], 1))
    write_run(tmp_path / "frozen", [HEAD], scores={"val/acc": 0.4}, history=history_of([0.4], 1))
    section = section_of(tmp_path)
    values = {g.name: pictures.phase_values(g, "acc") for g in section.groups}
    assert values == {FULL: ([0.2], [0.5]), HEAD: ([0.4], [])}
    assert pictures.unfreeze_bars(section) is not None
    from_scratch = tmp_path / "scratch"
    write_run(from_scratch, scores={"val/acc": 0.3}, history=history_of([0.3], 0))
    section = section_of(from_scratch)
    assert pictures.phase_values(section.groups[0], "acc") == ([], [0.3])
    assert pictures.unfreeze_bars(section) is None  # nothing to hold it against


def test_curves_mark_the_unfreeze_of_each_group(tmp_path: Path) -> None:
    write_two_groups(tmp_path)
    section = section_of(tmp_path)
    figure = pictures.curves(section)
    assert figure is not None
    rows = [figure.axes[:2], figure.axes[2:]]
    for group, row, epoch in zip(section.groups, rows, (1, 3), strict=True):
        for axes in row:
            (mark,) = (line for line in axes.lines if line.get_label() == "unfreeze")
            assert set(mark.get_xdata()) == {epoch + 0.5}
            assert bool(axes.collections) == (len(group.runs) > 1)  # the band
    assert [axes.get_ylabel() for axes in rows[0]] == ["loss", "accuracy"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "epoch", "epoch"]


def test_the_cost_is_on_test_photos_where_all_have_them(tmp_path: Path) -> None:
    write_two_groups(tmp_path)
    figure = pictures.cost(section_of(tmp_path))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_ylabel() == "test accuracy"
    means = [found.get_offsets()[0].tolist() for found in axes.collections
             if str(found.get_label()).startswith("finetune")]  # fmt: skip
    assert means == [pytest.approx([4.0, 0.7]), pytest.approx([4.0, 0.5])]
    write_run(tmp_path / "new", ["finetune.unfreeze_epoch=9"], scores={"val/acc": 0.5})
    figure = pictures.cost(section_of(tmp_path))
    assert figure is not None
    assert figure.axes[0].get_ylabel() == "validation accuracy"


@pytest.mark.parametrize("groups", [1, 12, 14])
def test_pictures_hold_one_to_twelve_groups(tmp_path: Path, groups: int) -> None:
    for number in range(groups):
        write_run(tmp_path / str(number), [f"finetune.unfrozen.lr={number}"],
                  scores={"val/acc": number / 20}, history=history_of([0.1, 0.2], 1))  # fmt: skip
    section = section_of(tmp_path)
    shown = min(groups, pictures.MOST)
    curves, bars = pictures.curves(section), pictures.unfreeze_bars(section)
    together = pictures.together(section)
    assert curves is not None
    assert bars is not None
    assert len(curves.axes) == 2 * shown
    assert len(bars.axes[0].get_yticks()) == shown
    if groups == 1:
        assert together is None
    else:
        assert together is not None
        drawn = [line for line in together.axes[0].lines if line.get_label() != "unfreeze"]
        looks = {(line.get_color(), line.get_marker()) for line in drawn}
        assert len(looks) == shown
        assert drawn[0].get_label() == f"finetune.unfrozen.lr={groups - 1}"  # the best first
