"""`thaw compare`, on a folder that a real run left and on folders written by hand."""

import base64
import csv
import io
import json
import os
import re
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from made_runs import write_run
from omegaconf import OmegaConf
from PIL import Image
from runs import SMALL, configuration, draw_photos

import train
from thaw import cli
from thaw.tools.compare import difference_cell, draw_curves_together, spread_cell, table_rows
from thaw.tools.compare_runs import Comparison, Run, find_runs, group_runs, read_run

HEAD, FULL = "finetune.unfreeze_epoch=3", "finetune.unfreeze_epoch=1"


def compare(*words: str | Path) -> None:
    assert cli.main(["compare", *map(str, words)]) == 0


def comparison_of(folder: Path) -> Comparison:
    runs = [run for place in find_runs([str(folder)]) if isinstance(run := read_run(place), Run)]
    (comparison,) = group_runs(runs, "acc")
    return comparison


def write_two_groups(folder: Path) -> None:
    """Three seeds of one setting, one of another."""
    for seed in range(3):
        write_run(folder / f"a{seed}", [HEAD], seed=seed, values=[0.3, 0.5, 0.4, 0.6], frozen=3,
                  scores={"val/acc": 0.6 + seed / 100, "test/acc": 0.5})  # fmt: skip
    write_run(folder / "b", [FULL], seed=1, values=[0.2, 0.7, 0.8, 0.1], frozen=1,
              scores={"val/acc": 0.8, "test/acc": 0.7})  # fmt: skip


def test_a_real_run_whose_phases_have_other_names(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    phases = [
        "{name: all, epochs: 1, lr: 1e-3, warmup_epochs: 0.0}",
        "{name: frozen, epochs: 1, top: 1, lr: 1e-3, warmup_epochs: 0.0}",  # it is not
        "{name: rest, top: 0, lr: 1e-3}",
    ]
    words = [*SMALL, f"data.root={photos}", "trainer.max_epochs=3", "finetune=phases",
             f"finetune.phases=[{','.join(phases)}]", f"paths.root_dir={tmp_path}",
             "seed=5"]  # fmt: skip
    cfg = configuration(tmp_path / "run", *words)
    hydra = tmp_path / "run" / ".hydra"
    hydra.mkdir(parents=True)
    OmegaConf.save(cfg, hydra / "config.yaml")  # as Hydra does before it calls the program
    OmegaConf.save(words, hydra / "overrides.yaml")
    choices = HydraConfig.get().runtime.choices
    OmegaConf.save({"hydra": {"runtime": {"choices": choices}}}, hydra / "hydra.yaml")
    train.run(cfg)
    comparison = comparison_of(tmp_path / "run")
    (group,) = comparison.groups
    (run,) = group.runs
    scores = [row["val/acc"] for row in json.loads((run.folder / "history.json").read_text())]
    assert [row["val/acc"] for row in run.history] == scores
    assert (run.unit.seed, run.unfreeze_epochs) == (5, [1, 2])
    assert group.values("test/acc") == {run.unit: run.scores["test/acc"]}
    page = tmp_path / "page.html"
    compare(tmp_path / "run", "--page", page)
    assert page.read_text(encoding="utf-8").count("<img") == 1


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two_groups(tmp_path / "runs")
    compare(tmp_path / "runs")
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    (group,) = (line for line in lines if line.startswith(HEAD) and "0.6100 ± 0.0100" in line)
    assert "-0.1900, 1 pair: no interval" in group  # seed 1: 0.61 - 0.80
    (alone,) = (line for line in lines if line.startswith(FULL))
    assert "±" not in alone
    assert "A group of one run says nothing about the spread" in printed
    assert f"val/acc 0.8000, seed 1, {tmp_path / 'runs' / 'b'}" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]  # no file unasked


def test_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two_groups(tmp_path)
    compare(tmp_path, "--markdown")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[1] == "| --- " + "| ---: " * 7 + "|"
    assert rows[2] == f"| {FULL} | 1 | 0.8000 | 0.7000 |  |  | 4.0 | 900 |"
    assert rows[3].startswith(f"| {HEAD} | 3 | 0.6100 ± 0.0100 | 0.5000 ± 0.0000 | -0.1900, 1 pair")


def test_csv_has_a_row_for_each_run(tmp_path: Path) -> None:
    write_two_groups(tmp_path / "runs")
    compare(tmp_path / "runs", "--csv", tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text("utf-8").splitlines()))
    assert [(row["group"], row["seed"], row["finetune.unfreeze_epoch"]) for row in rows] == [
        (FULL, "1", "1"), (HEAD, "0", "3"), (HEAD, "1", "3"), (HEAD, "2", "3"),
    ]  # fmt: skip
    assert [row["val/acc"] for row in rows] == ["0.8", "0.6", "0.61", "0.62"]
    assert {row["train_seconds"] for row in rows} == {"4.0"}


def test_the_page_stands_alone(tmp_path: Path) -> None:
    write_two_groups(tmp_path / "runs")
    write_run(tmp_path / "runs" / "c", ["finetune.tag=<b>"], scores={"val/acc": 0.1})
    compare(tmp_path / "runs", "--page", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (link,) = re.findall(r"(?:src|href)=\"(.*?)\"", text)
    kind, _, data = link.partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).width > 500
    assert "0.6100 ± 0.0100" in text
    assert "finetune.tag=&lt;b&gt;" in text


def test_an_unfinished_run_is_one_line_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_two_groups(tmp_path)
    killed = write_run(tmp_path / "killed", [FULL])
    compare(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if str(killed) in line] == [
        f"- Passed over: {killed}: unfinished, there is no results.json"
    ]


def test_runs_that_diverged_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    for seed, value in enumerate((0.5, 0.6, nan)):
        write_run(tmp_path / "runs" / f"a{seed}", [HEAD], seed=seed, scores={"val/acc": value},
                  values=[0.3, value])  # fmt: skip
        write_run(tmp_path / "runs" / f"b{seed}", [FULL], seed=seed, scores={"val/acc": nan},
                  values=[nan, nan])  # fmt: skip
    compare(tmp_path / "runs", "--page", tmp_path / "page.html")
    printed = capsys.readouterr().out
    (row,) = (line for line in printed.splitlines() if line.startswith(HEAD) and "0.55" in line)
    assert "0.5500 ± 0.0707, of 2  " in row
    (lost,) = (line for line in printed.splitlines() if line.startswith(FULL) and "none" in line)
    assert lost.split()[:3] == [FULL, "3", "none"]


def test_a_run_that_diverged_after_a_good_epoch_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_two_groups(tmp_path)
    run = write_run(tmp_path / "runs" / "odd", [HEAD], seed=9, scores={"val/acc": 0.5},
                    status="diverged", ended="diverged in epoch 4")  # fmt: skip
    compare(tmp_path)
    assert f"- Compared all the same: {run} diverged in epoch 4\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "f1"], r"--metric=f1: allowed is what the runs have: acc$"),
        (["--metric", "top1"], r"invalid choice: 'top1'"),
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
    assert f"can be compared:\n  Passed over: {killed}: unfinished" in capsys.readouterr().err


def test_cells(tmp_path: Path) -> None:
    assert difference_cell([0.1, 0.05, 0.15]) == "+0.1000 [+0.0500, +0.1500] *"
    assert difference_cell([-0.1, -0.3, 0.1]) == "-0.1000 [-0.3000, +0.1000]"
    assert difference_cell([0.1, -0.1, 0.3]) == "+0.1000 [-0.1000, +0.3000]"
    assert difference_cell([-0.2, -0.3, -0.1]) == "-0.2000 [-0.3000, -0.1000] *"
    assert difference_cell([]) == "no common seed"
    assert (spread_cell([], 1), spread_cell([0.5], 2), spread_cell([0.1, 0.3], 2)) == (
        "none", "0.5000, of 1", "0.2000 ± 0.1414",
    )  # fmt: skip
    write_run(tmp_path / "a", [HEAD], scores={"val/acc": 0.5, "test/acc": 0.5})
    write_run(tmp_path / "b", [FULL], scores={"val/acc": 0.4})
    comparison = comparison_of(tmp_path)
    assert table_rows(comparison)[1:] == [
        [HEAD, "1", "0.5000", "0.5000", "", "", "4.0", "900"],
        [FULL, "1", "0.4000", "none", "-0.1000, 1 pair: no interval", "no common seed", "4.0",
         "900"],
    ]  # fmt: skip


def test_of_runs_that_repeat_each_other_the_last_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice the same run is one sample: counted twice, the spread would be too small."""
    runs = []
    for number, (seed, val) in enumerate(((0, 0.5), (1, 0.6), (0, 0.5))):
        runs.append(write_run(tmp_path / str(number), seed=seed, scores={"val/acc": val}))
        os.utime(runs[-1] / "results.json", (number, number))
    compare(runs[2], runs[1], runs[0])
    printed = capsys.readouterr().out
    assert re.search(r"^all +2 +0\.5500 ± 0\.0707 ", printed, re.MULTILINE)
    assert f"Left out: {runs[0]}; {runs[2]} has the same settings and seed 0\n" in printed


def test_curves_of_all_groups(tmp_path: Path) -> None:
    write_two_groups(tmp_path)
    figure = draw_curves_together(comparison_of(tmp_path))
    assert figure is not None
    for axes, sign in zip(figure.axes, (-1, 1), strict=True):
        full, head, *unfreezes = axes.lines
        assert list(full.get_xdata()) == [1, 2, 3, 4]
        assert (sign * full.get_ydata()[0], sign * head.get_ydata()[0]) == pytest.approx(
            (0.2, 0.3) if sign > 0 else (-1.8, -1.7)
        )
        assert [line.get_xdata()[0] for line in unfreezes] == [1.5, 3.5]
        assert len(axes.collections) == 1  # the band of the group with several runs
    assert [axes.get_ylabel() for axes in figure.axes] == ["validation loss", "validation accuracy"]
