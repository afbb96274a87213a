"""Checkpoints: which one is the best, and that a run's folder can be moved."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from fits import difference
from lightning.pytorch.callbacks import ModelCheckpoint
from runs import draw_photos, run_small

from thaw.errors import ConfigError, Interrupted
from thaw.training.checkpoints import (
    GracefulStop,
    SaveBest,
    SaveLast,
    WholeFiles,
    best_checkpoint,
    newest_whole,
    use_settings,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def ended(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    run_small(photos, folder)
    return folder


@pytest.fixture
def copied(ended: Path, tmp_path: Path) -> Path:
    """That run in another folder: one that was moved."""
    return shutil.copytree(ended, tmp_path / "moved")


def test_the_best_is_that_of_the_monitored_metric_whatever_the_order(tmp_path: Path) -> None:
    other = ModelCheckpoint(monitor="val/loss", mode="min")
    ours = SaveBest(dirpath=tmp_path, monitor="val/acc", mode="max")
    other.best_model_path, ours.best_model_path = "other.ckpt", "ours.ckpt"
    last = SaveLast(str(tmp_path))
    assert best_checkpoint([last, other, ours], "val/acc") == "ours.ckpt"
    assert best_checkpoint([last, other], "val/acc") is None
    assert best_checkpoint([last], "val/acc") is None
    every = ModelCheckpoint(every_n_epochs=1)
    every.best_model_path = "every.ckpt"
    assert best_checkpoint([every, ours], "val/acc") == "ours.ckpt"
    ours.monitor = None  # without validation photos
    assert best_checkpoint([every, ours], "val/acc") == "ours.ckpt"


def test_without_a_best_checkpoint_the_last_weights_are_tested_after_a_resume(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the weights that the resumed run started from."""
    whole = run_small(photos, tmp_path / "whole", "callbacks.checkpoint=null")
    assert whole["best_checkpoint"] is None

    def stop(self: GracefulStop, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(GracefulStop, "on_train_batch_start", stop)
    with pytest.raises(Interrupted):
        run_small(photos, tmp_path / "run", "callbacks.checkpoint=null")
    monkeypatch.undo()
    resume = f"resume={tmp_path / 'run'}"
    resumed = run_small(photos, tmp_path / "run", "callbacks.checkpoint=null", resume)
    assert resumed["test/loss"] == whole["test/loss"]


def test_a_run_that_was_moved_keeps_its_best_checkpoint(
    photos: Path, ended: Path, copied: Path
) -> None:
    """Lightning forgets it when the folder has another name (its issue 11379)."""
    first = json.loads((ended / "results.json").read_text())
    again = run_small(photos, copied, f"resume={copied}")
    best = Path(first["best_checkpoint"]).name
    assert Path(again["best_checkpoint"]) == copied / "checkpoints" / best
    assert again["test/acc"] == first["test/acc"]
    history = json.loads((copied / "history.json").read_text())
    epoch = torch.load(again["best_checkpoint"], weights_only=True)["epoch"]
    assert history[epoch]["val/acc"] == max(row["val/acc"] for row in history)


def test_a_run_that_goes_on_in_another_folder_has_a_best_epoch_of_its_own(
    photos: Path, ended: Path, tmp_path: Path
) -> None:
    last = ended / "checkpoints" / "last.ckpt"
    results = run_small(photos, tmp_path, f"ckpt_path={last}", "trainer.max_epochs=5")
    assert Path(results["best_checkpoint"]).parent == tmp_path / "checkpoints"


def test_parameter_groups_of_one_name_may_hold_other_layers() -> None:
    """Their momenta would go to other weights."""
    there: list[Any] = [{"name": "a..c", "layer_groups": ["a", "b", "c"]}]
    here = [{"name": "a..c", "layer_groups": ["a", "c"]}]
    checkpoint = {"optimizer_states": [{"param_groups": there}]}
    use_settings(checkpoint, there)
    with pytest.raises(ConfigError, match=r"has the groups a\.\.c a b c, this run a\.\.c a c;"):
        use_settings(checkpoint, here)


def test_optimiser_settings_beside_resume_count(photos: Path, copied: Path) -> None:
    """torch's optimisers would load those of the checkpoint in their place."""
    more = (f"resume={copied}", "trainer.max_epochs=5")
    run_small(photos, copied, *more, "optim.weight_decay=0.25", "optim.betas=[0.8,0.9]")
    last = torch.load(copied / "checkpoints" / "last.ckpt", weights_only=True)
    groups = last["optimizer_states"][0]["param_groups"]
    assert {(*group["betas"], group["weight_decay"]) for group in groups} == {
        (0.8, 0.9, 0.25), (0.8, 0.9, 0.0)
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"another optimiser than optim="):
        run_small(photos, copied, *more, "optim=sgd")


def test_a_damaged_checkpoint_is_never_used(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one before it is, and gives the same bits; torch itself reads a changed bit as whole."""
    run_small(photos, tmp_path, "test=false", "callbacks.last.every_seconds=0")
    last, previous = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    whole, older = torch.load(last, weights_only=True), previous.read_bytes()
    changed = bytearray(last.read_bytes())
    changed[len(changed) // 2] ^= 1
    last.write_bytes(changed)
    assert torch.load(last, weights_only=True).keys() == whole.keys()
    with pytest.raises(ConfigError, match=r"ckpt_path=.*last\.ckpt: .* it is damaged"):
        run_small(photos, tmp_path / "other", f"ckpt_path={last}")
    for content in (changed, changed[:-100], b""):
        last.write_bytes(content)
        previous.write_bytes(older)
        assert newest_whole(tmp_path, whole["hyper_parameters"]["config"]) == previous
        assert not last.exists()  # the next save would put it in the place of the whole one
        printed = capsys.readouterr().out
        assert "last.ckpt: there is no such file, or it is damaged" in printed
        assert "previous.ckpt: epoch 3\n" in printed
    run_small(photos, tmp_path, "test=false", f"resume={tmp_path}")
    again = torch.load(last, weights_only=True)
    assert difference(whole["state_dict"], again["state_dict"]) == []
    assert difference(whole["optimizer_states"], again["optimizer_states"]) == []
    last.unlink()
    previous.write_bytes(changed)
    with pytest.raises(ConfigError, match=r"resume=.*previous\.ckpt: .* it is damaged"):
        newest_whole(tmp_path, {})


def test_resume_tells_what_is_set_otherwise(
    photos: Path, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by a file of conf/ that was changed meanwhile; not that the folder is another one."""
    run_small(photos, copied, f"resume={copied}")
    assert "other settings" not in capsys.readouterr().out
    more = ("trainer.max_epochs=5", "label_smoothing=0.1", "optim.betas=[0.8,0.999]")
    run_small(photos, copied, f"resume={copied}", *more)
    (line,) = (each for each in capsys.readouterr().out.splitlines() if "other settings" in each)
    told = line.removeprefix("resume    other settings than before: ").split(", ")
    assert sorted(told) == [
        "label_smoothing=0.1 (before: 0.3)",
        "optim.betas.0=0.8 (before: 0.9)",
        "trainer.max_epochs=5 (before: 4)",
    ]


def test_resume_without_a_checkpoint(
    photos: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that ended keeps what it has; one that was killed before the first starts anew."""
    shutil.rmtree(copied / "checkpoints")
    kept = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"^resume=.*: has ended, and has no last\.ckpt any more"):
        run_small(photos, copied, f"resume={copied}")
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == kept
    assert newest_whole(tmp_path / "killed", {}) is None
    assert "has no checkpoint yet, and begins as it was started" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written beside its place, whatever $TMPDIR is."""
    monkeypatch.setenv("TMPDIR", "/nowhere")
    writer, path = WholeFiles(), tmp_path / "run" / "last.ckpt"
    for number in range(3):
        writer.save_checkpoint({"number": number}, path)
    numbers = [
        torch.load(path.with_name(f"{name}.ckpt"))["number"] for name in ("last", "previous")
    ]
    assert numbers == [2, 1]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        writer.save_checkpoint({"number": 3}, path)
    assert sorted(each.name for each in path.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert torch.load(path)["number"] == 2


def test_what_slurm_requeues_from_is_gone_before_the_test(
    photos: Path, ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning would load hpc_ckpt_1.ckpt again, and test the weights of an earlier epoch."""
    plain = json.loads((ended / "results.json").read_text())
    for name in ("JOB_ID", "NTASKS", "PROCID", "LOCALID", "NODEID", "NNODES"):
        monkeypatch.setenv(f"SLURM_{name}", "1" if name[0] in "JN" and name != "NODEID" else "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "thaw")
    save_checkpoint = WholeFiles.save_checkpoint

    def save(self: WholeFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any) -> None:
        save_checkpoint(self, checkpoint, path, storage_options)
        if checkpoint["epoch"] == 0:  # as Lightning does at a signal
            save_checkpoint(self, checkpoint, tmp_path / "slurm" / "hpc_ckpt_1.ckpt")

    monkeypatch.setattr(WholeFiles, "save_checkpoint", save)
    ended = run_small(photos, tmp_path / "slurm")
    assert [phase["epochs"] for phase in ended["phases"]] == [2, 2]
    assert ended["test/loss"] == plain["test/loss"]
    assert not list((tmp_path / "slurm").glob("hpc_*"))


def test_a_checkpoint_of_another_plan(photos: Path, tmp_path: Path) -> None:
    """What a phase that has begun trains is not another thing now; what is to come may be."""
    words = ("finetune.unfreeze_epoch=1", "trainer.max_epochs=2", "test=false")
    run_small(photos, tmp_path / "a", *words)
    start = f"ckpt_path={tmp_path}/a/checkpoints/last.ckpt"
    with pytest.raises(
        ConfigError, match=r"by another plan .* to epoch 2: there \[\[0, \['head'\]\], "
    ):
        run_small(
            photos, tmp_path / "b", start, "finetune.unfreeze_epoch=3", "trainer.max_epochs=4"
        )
    run_small(photos, tmp_path / "c", start, "finetune.unfreeze_epoch=1", "trainer.max_epochs=3")
