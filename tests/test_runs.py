"""Run folders: found, read, and told about where they cannot be compared."""

import json
import re
from pathlib import Path

import pytest
from made_runs import history_of, write_run

from thaw.compare.names import flat
from thaw.compare.runs import Run, Unfinished, Unit, find, ignore, read
from thaw.errors import ConfigError

SCORES = {"val/acc": 0.75, "test/acc": 0.5}


def read_whole(folder: Path) -> Run:
    found = read(folder)
    assert isinstance(found, Run)
    return found


def test_runs_sweeps_globs_and_folders_above(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "runs" / name, scores=SCORES) for name in ("one", "two")]
    jobs = [write_run(tmp_path / "sweep" / str(job), scores=SCORES) for job in (0, 1, 2, 10)]
    (tmp_path / "sweep" / "multirun.yaml").touch()
    (tmp_path / "runs" / ".hidden").mkdir()
    assert find([str(runs[0])]) == [runs[0]]
    assert find([str(tmp_path / "sweep")]) == jobs  # in the order of the jobs
    assert find([str(tmp_path / "runs" / "*")]) == runs
    assert find([str(tmp_path)]) == [*runs, *jobs]
    assert find([str(tmp_path / "**" / "1*")]) == [jobs[1], jobs[3]]
    # each once, however often it is named
    again = [str(runs[1]), str(tmp_path / "runs"), f"{tmp_path}/runs/../runs/t*"]
    assert find(again) == [runs[1], runs[0]]
    odd = write_run(tmp_path / "odd" / "lr=[1]", scores=SCORES)  # a glob would read [1] as 1
    assert find([str(odd)]) == [odd]


def test_words_that_name_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing/\*: no such folder"):
        find([str(tmp_path / "nothing" / "*")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: no run in it .*config\.yaml.*results\.json"):
        find([str(tmp_path / "empty")])


def test_what_is_read_of_a_run(tmp_path: Path) -> None:
    words = ["backbone=tiny", "finetune.unfrozen.lr=0.01", "tags=[a]", "+data.extra=1"]
    folder = write_run(
        tmp_path / "run", words, seed=3, scores=SCORES, history=history_of([0.5, 0.6], 1)
    )
    run = read_whole(folder)
    assert run.unit == Unit(3, 3, None)
    assert str(run.unit) == "seed 3"
    assert run.settings["finetune.unfrozen.lr"] == 0.01
    assert run.settings["callbacks.checkpoint.monitor"] == "${monitor}"
    ignored = ("seed", "data.seed", "data.fold", "tags", "task_name", "paths.output_dir",
               "callbacks.checkpoint.dirpath")  # fmt: skip
    assert not set(ignored) & set(run.settings)
    assert run.choices == {"data": "folder", "backbone": "tiny", "finetune": "freeze_unfreeze"}
    assert run.typed == {"backbone", "finetune.unfrozen.lr", "data.extra"}
    assert (run.monitor, run.folds) == ("val/acc", None)
    assert (run.train_seconds, run.images) == (4.0, 240)
    assert [row["val/acc"] for row in run.history] == [0.5, 0.6]


def test_seed_and_fold_do_not_tell_runs_apart_and_the_rest_does(tmp_path: Path) -> None:
    def identity(*words: str, seed: int = 0) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return read_whole(write_run(folder, words, seed=seed, scores=SCORES)).identity

    first = identity()
    assert identity(seed=1) == identity("data.seed=5") == identity("task_name=other") == first
    assert identity("data.folds=3", "data.fold=1") == identity("data.folds=3", "data.fold=2")
    assert identity("data.folds=3") != first
    assert identity("finetune.unfrozen.lr=0.002") != first
    assert identity("+data.new=null") == first  # of a version that has one key more
    assert identity("+data.new=false") != first


def test_the_unit_names_what_is_paired(tmp_path: Path) -> None:
    words = ["data.folds=3", "data.fold=2", "data.seed=7"]
    run = read_whole(write_run(tmp_path / "run", words, seed=1, scores=SCORES))
    assert run.unit == Unit(1, 7, 2)
    assert str(run.unit) == "seed 1, data.seed 7, fold 2"
    assert run.folds == 3


def test_images_of_a_run_that_did_not_count_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", scores=SCORES)
    results = json.loads((folder / "results.json").read_text())
    for phase in results["phases"]:
        del phase["images"]
    (folder / "results.json").write_text(json.dumps(results))
    assert read_whole(folder).images == round(1.5 * 80 + 2.5 * 48)


def test_the_checkpoint_is_found_where_the_folder_went(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", scores=SCORES)
    assert read_whole(folder).checkpoint is None
    checkpoint = folder / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert read_whole(folder).checkpoint == checkpoint


def test_further_settings_can_be_ignored(tmp_path: Path) -> None:
    words = ["ckpt_path=a.ckpt", "finetune.unfrozen.lr=1"]
    whole = read_whole(write_run(tmp_path / "run", words, scores=SCORES))
    (run,) = ignore([whole], ["ckpt_path", "finetune"])
    assert "data.root" in run.settings
    assert not [name for name in run.settings if name.startswith(("ckpt", "finetune"))]
    assert run.choices == {"data": "folder", "backbone": "tiny"}
    assert (run.typed, run.unit) == (set(), whole.unit)
    assert run.identity != whole.identity
    with pytest.raises(ConfigError, match=r"--ignore ckpt_pth: no run .* did you mean ckpt_path\?"):
        ignore([whole], ["ckpt_pth"])


def test_folders_without_results_say_why(tmp_path: Path) -> None:
    def why(folder: Path) -> str:
        found = read(folder)
        assert isinstance(found, Unfinished)
        assert found.folder == folder
        return found.why

    killed = write_run(tmp_path / "killed")
    assert re.search(r"^no results\.json, no status\.json; last wrote 20\d\d-",
                     why(killed))  # fmt: skip
    assert "resume" not in why(killed)
    (killed / "checkpoints").mkdir()
    (killed / "checkpoints" / "last.ckpt").touch()
    assert f"python train.py resume={killed} goes on with it" in why(killed)
    failed = write_run(tmp_path / "failed")
    (failed / "status.json").write_text('{"state": "failed", "overrides": [], "error": "no room"}')
    assert why(failed).startswith("no results.json, failed (no room); last wrote")
    half = write_run(tmp_path / "half", scores=SCORES)
    (half / "results.json").write_text('{"val/acc": 0.')
    assert why(half).startswith("cannot be read: JSONDecodeError")
    bare = write_run(tmp_path / "bare", scores=SCORES)
    (bare / ".hydra" / "config.yaml").unlink()
    assert why(bare) == "no .hydra/config.yaml, so its settings are not known"
    odd = write_run(tmp_path / "odd", scores=SCORES)
    (odd / ".hydra" / "config.yaml").write_text("seed: 1\n")
    assert why(odd) == "cannot be read: ValueError: no monitor, data; these are no files of thaw's"
    (killed / "status.json").write_text("{}")
    assert "status.json: is no status of a run ('state')" in why(killed)


def test_settings_of_another_kind_are_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", scores=SCORES)
    for seed, data in (("null", "{}"), ("1", "null"), ("1", "3")):
        text = f"seed: {seed}\ndata: {data}\nmonitor: val/acc\n"
        (folder / ".hydra" / "config.yaml").write_text(text)
        found = read(folder)
        assert isinstance(found, Unfinished)
        assert found.why.startswith("cannot be read: ")


def test_pruned_runs_are_not_compared(tmp_path: Path) -> None:
    found = read(write_run(tmp_path / "run", scores=SCORES, pruned="epoch 3: behind"))
    assert isinstance(found, Unfinished)
    assert found.why == "pruned (epoch 3: behind)"


def test_flat_names() -> None:
    node = {"a": {"b": [1, {"c": 2}], "d": {}}, "e": None}
    assert dict(flat(node)) == {"a.b": [1, {"c": 2}], "a.d": {}, "e": None}
