"""Run folders: which are there, what is read of them, and which cannot be compared."""

import json
import math
import os
import re
from pathlib import Path

import pytest
from made_runs import write_run

from thaw.errors import ConfigError
from thaw.store import write_json
from thaw.tools.compare_runs import Run, Unit, compared, find_runs, read_run

SCORES = {"val/acc": 0.75, "test/acc": 0.5}


def read(folder: Path) -> Run:
    run = read_run(folder)
    assert isinstance(run, Run), run
    return run


def test_runs_sweeps_and_folders_above(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs" / name, scores=SCORES) for name in ("one", "two")]
    jobs = [write_run(tmp_path / "sweep" / str(job), scores=SCORES) for job in (0, 1, 2, 10)]
    assert find_runs([str(runs[0])]) == [runs[0]]
    assert sorted(find_runs([str(tmp_path / "sweep")])) == sorted(jobs)
    assert sorted(find_runs([str(tmp_path)])) == sorted([*runs, *jobs])
    again = [str(runs[1]), str(tmp_path / "runs"), f"{tmp_path}/runs/../runs/two"]
    assert find_runs(again) == [runs[1], runs[0]]  # each once


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing: there is no run in it"):
        find_runs([str(tmp_path / "nothing")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: there is no run in it"):
        find_runs([str(tmp_path / "empty")])
    write_run(tmp_path / "run", ["backbone=tiny"], seed=3, scores=SCORES, values=[0.5])
    both = [str(tmp_path / name) for name in ("empty", "run")]
    assert find_runs(both) == [tmp_path / "run"]
    with pytest.raises(ConfigError, match="nothing: there is no run in it"):
        find_runs([*both, str(tmp_path / "nothing")])


def test_what_is_read_of_a_run(tmp_path: Path) -> None:
    words = ["backbone=tiny", "finetune.unfrozen.lr=0.01", "tags=[a]", "+data.extra=1"]
    run = read(write_run(tmp_path / "run", words, seed=3, scores=SCORES, values=[0.5, 0.6, 0.7]))
    assert (run.unit, str(run.unit)) == (Unit(3, None), "seed 3")
    assert run.settings["finetune.unfrozen.lr"] == 0.01
    assert run.settings["callbacks.checkpoint.monitor"] == "${monitor}"
    assert not {"seed", "data.fold", "tags", "task_name", "paths.output_dir",
                "callbacks.checkpoint.dirpath"} & set(run.settings)  # fmt: skip
    assert run.choices == {"data": "folder", "backbone": "tiny", "finetune": "freeze_unfreeze"}
    assert {"backbone", "finetune.unfrozen.lr", "data.extra"} <= run.typed
    assert (run.seconds, run.trained, run.unfreeze_epochs) == (4.0, 900, [1])
    assert [(row["epoch"], row["val/acc"]) for row in run.history] == [(1, 0.5), (2, 0.6), (3, 0.7)]


def test_the_seed_and_the_fold_separate_no_groups_and_the_rest_does(tmp_path: Path) -> None:
    def identity(*words: str, seed: int = 0) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return read(write_run(folder, words, seed=seed, scores=SCORES)).identity

    first = identity()
    assert identity(seed=1) == identity("task_name=other") == first
    assert identity("data.seed=5") != first
    assert identity("data.num_workers=0") == first
    assert identity("data.folds=3", "data.fold=1") == identity("data.folds=3", "data.fold=2")
    assert identity("data.folds=3") != first
    assert identity("finetune.unfrozen.lr=0.002") != first
    assert identity("+data.new=null") == first  # of a version that has one key more
    assert identity("+data.new=false") != first


def test_the_unit_names_what_is_paired(tmp_path: Path) -> None:
    words = ["data.folds=3", "data.fold=2"]
    run = read(write_run(tmp_path / "run", words, seed=1, scores=SCORES))
    assert (run.unit, run.settings["data.folds"]) == (Unit(1, 2), 3)
    assert str(run.unit) == "seed 1, fold 2"


CONFIG = ".hydra/config.yaml"
DEEP = {"json": 3000, "yaml": 400}  # brackets in brackets, more than can be read


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in ("results.json", "history.json", CONFIG, ".hydra/hydra.yaml",
                                    ".hydra/overrides.yaml")
          for text in ("", "[" * DEEP[name[-4:]], "5", '{"val/acc": 0.', "\0", "[[1, 2]]")),
        *(("results.json", f'{{"phases": {phases}, "trainable_parameters": 1}}') for phases in
          ("null", "7", '[{"name": []}]', '[{"name": "a", "frozen": 1, "seconds": "x"}]')),
        ("results.json", '{"phases": [], "trainable_parameters": 1, "val/acc": "high"}'),
        ("results.json", f'{{"phases": [], "trainable_parameters": 1, "val/acc": {"9" * 400}}}'),
        (CONFIG, "seed: null\ndata: {}\n"), (CONFIG, "seed: 1"), (CONFIG, "seed: ${seed}"),
        (CONFIG, "a: !!python/object/apply:os.system [false]"),
        (".hydra/hydra.yaml", "hydra: {runtime: {choices: 3}}"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_files_are_told(tmp_path: Path, name: str, text: str) -> None:
    folder = write_run(tmp_path / "run", scores=SCORES, values=[0.5])
    (folder / name).write_text(text)
    found = read_run(folder)
    if name == ".hydra/overrides.yaml" and text.startswith("[[1"):
        assert isinstance(found, Run)  # odd words, which name nothing
    else:
        assert re.match(rf"{folder}/{name}: is damaged|its files are damaged", str(found)), found
        assert "\n" not in str(found)


def test_runs_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    assert read_run(write_run(tmp_path / "killed")) == "unfinished, there is no results.json"
    old = write_run(tmp_path / "old", scores=SCORES)
    results = json.loads((old / "results.json").read_text())
    del results["phases"][0]["seconds"]
    (old / "results.json").write_text(json.dumps(results))
    assert "another version of thaw (KeyError: 'seconds')" in str(read_run(old))
    (old / "results.json").unlink()
    os.mkfifo(old / "results.json")
    assert read_run(old) == "unfinished, there is no results.json"


def test_a_metric_that_is_null_is_not_finite(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", scores=SCORES, values=[0.5, 0.6])
    for name in ("results.json", "history.json"):
        content = json.loads((folder / name).read_text())
        (content if isinstance(content, dict) else content[1])["val/acc"] = math.nan
        write_json(content, folder / name)
        assert "NaN" not in (folder / name).read_text()
    run = read(folder)
    assert math.isnan(run.scores["val/acc"])
    assert [math.isnan(row["val/acc"]) for row in run.history] == [False, True]


def test_dotted_names() -> None:
    node = {"a": {"b": [1, {"c": 2}], "d": {}}, "e": None, "paths": {"f": 1}, "data": {"fold": 1}}
    assert compared(node) == {"a.b": [1, {"c": 2}], "a.d": {}}
