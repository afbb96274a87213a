"""The whole run, end to end, on small pictures."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf, open_dict
from runs import ROOT, SMALL, TWO_AND_TWO, command, configuration, draw_photos
from runs import run_small as run

import train
from thaw.errors import ConfigError, Interrupted


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def equal(first: Path, second: Path) -> bool:
    """Weights, buffers, optimiser state and rates, to the bit."""
    one, two = (torch.load(path, weights_only=True) for path in (first, second))
    states = [content["optimizer_states"][0] for content in (one, two)]
    pairs = [(one["state_dict"], two["state_dict"])]
    pairs += [(states[0]["state"][key], states[1]["state"][key]) for key in states[0]["state"]]
    same = all(torch.equal(a[name], b[name]) for a, b in pairs for name in a)
    rates = [[group["lr"] for group in state["param_groups"]] for state in states]
    return same and rates[0] == rates[1] and states[0]["state"].keys() == states[1]["state"].keys()


def test_a_run_leaves_everything(photos: Path, tmp_path: Path) -> None:
    results = run(photos, tmp_path, "callbacks=default", "callbacks.progress=null",
                  "logger=[tensorboard,csv]", "seed=5", "tags=[a,b]")  # fmt: skip
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    for split in ("val", "test"):
        for metric in ("acc", "acc_top5", "acc_macro", "f1", "ece", "loss"):
            assert isinstance(written[f"{split}/{metric}"], float)
    assert {name for name in written if name.startswith("train/")} == {"train/acc", "train/loss"}
    assert [(phase["name"], phase["epochs"]) for phase in written["phases"]] == [
        ("frozen", 2), ("unfrozen", 2),
    ]  # fmt: skip
    assert all(phase["images_per_second"] > 0 for phase in written["phases"])
    assert written["parameters"] == written["trainable_parameters"] > 100_000
    assert (written["seed"], written["device"], written["tags"]) == (5, "cpu", ["a", "b"])
    assert set(written["versions"]) >= {"thaw", "torch", "torchvision", "lightning", "python"}
    assert Path(written["best_checkpoint"]).is_file()
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    best = torch.load(written["best_checkpoint"], weights_only=True)["epoch"]
    assert written["val/acc"] == history[best]["val/acc"] == max(row["val/acc"] for row in history)
    for name in ("first_batch.png", "plan.txt", "checkpoints/last.ckpt"):
        assert (tmp_path / name).stat().st_size > 0
    assert list((tmp_path / "tensorboard").glob("events*"))
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"lr/head", "lr/layer4", "val/acc", "train/loss_step"} <= set(rows[0])
    for metric in ("train/acc", "train/loss", "val/acc"):  # each in the row of its own epoch
        logged = [float(row[metric]) for row in rows if row[metric]]
        assert [row[metric] for row in history] == pytest.approx(logged)


def test_a_frozen_body_is_the_same_to_the_bit_at_the_end(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path, "finetune=feature_extraction")
    saved = weights(tmp_path / "checkpoints" / "last.ckpt")
    cfg = configuration(tmp_path, *SMALL, f"data.root={photos}")
    import lightning.pytorch as pl

    from thaw import config

    pl.seed_everything(cfg.seed, verbose=False)
    fresh = config.build(cfg.backbone, "backbone").body.state_dict()
    body = {name: value for name, value in saved.items() if name.startswith("classifier.body.")}
    assert len(body) == len(fresh)
    assert all(torch.equal(value, body[f"classifier.body.{name}"]) for name, value in fresh.items())
    assert saved["classifier.head.weight"].abs().sum() > 0


def test_the_unfrozen_body_changes_in_every_group(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path, "finetune.batchnorm=train")
    import lightning.pytorch as pl

    from thaw import config

    cfg = configuration(tmp_path, *SMALL, f"data.root={photos}")
    pl.seed_everything(cfg.seed, verbose=False)
    fresh = config.build(cfg.backbone, "backbone").body.state_dict()
    saved = weights(tmp_path / "checkpoints" / "last.ckpt")
    still = [
        name for name, value in fresh.items()
        if torch.equal(value, saved[f"classifier.body.{name}"])
    ]  # fmt: skip
    assert still == []


@pytest.mark.parametrize("workers", [1])
def test_the_number_of_workers_changes_nothing(photos: Path, tmp_path: Path, workers: int) -> None:
    for name, number in (("none", 0), ("some", workers)):
        run(photos, tmp_path / name, f"data.num_workers={number}", "test=false")
    checkpoints = [tmp_path / name / "checkpoints" / "last.ckpt" for name in ("none", "some")]
    assert equal(*checkpoints)


def test_seeds_matter(photos: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        run(photos, tmp_path / str(seed), f"seed={seed}", "test=false", "trainer.max_epochs=3")
    one, two = (weights(tmp_path / str(seed) / "checkpoints" / "last.ckpt") for seed in (1, 2))
    assert not torch.equal(one["classifier.head.weight"], two["classifier.head.weight"])


@pytest.mark.parametrize(
    "step", [3, 6, 12, 14, 24]
)  # frozen: inside, at an epoch's end; unfrozen: at the start, inside, in the very last step
def test_resume_after_an_interrupt_is_exact(
    photos: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped inside an epoch or at its last step: the same bits as a run that was not."""
    settings = ("finetune.batchnorm=train", "head.dropout=0.3", "test=false")
    run(photos, tmp_path / "whole", *settings)
    from thaw.training.checkpoints import GracefulStop

    def ask(self: GracefulStop, trainer, pl_module, batch, batch_idx: int) -> None:
        if trainer.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(GracefulStop, "on_train_batch_start", ask)
    with pytest.raises(Interrupted):
        run(photos, tmp_path / "stopped", *settings)
    monkeypatch.undo()
    last = "checkpoints/last.ckpt"
    saved = torch.load(tmp_path / "stopped" / last, weights_only=True)
    assert saved["global_step"] == step  # after the last step of an epoch it stops at its end
    run(photos, tmp_path / "stopped", *settings, f"resume={tmp_path / 'stopped'}")
    assert equal(tmp_path / "whole" / last, tmp_path / "stopped" / last)
    history = json.loads((tmp_path / "stopped" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_resume_after_each_epoch_is_exact(photos: Path, tmp_path: Path, epochs: int) -> None:
    """From a checkpoint of the end of an epoch, as a killed run leaves it."""
    settings = ("head.dropout=0.3", "test=false", "callbacks.checkpoint.save_top_k=-1",
                "callbacks.checkpoint.filename='{epoch}'")  # fmt: skip
    run(photos, tmp_path / "whole", *settings)
    folder = tmp_path / "whole" / "checkpoints"
    run(photos, tmp_path / "again", *settings, f"ckpt_path={folder / f'{epochs - 1}.ckpt'}")
    assert equal(folder / "last.ckpt", tmp_path / "again" / "checkpoints" / "last.ckpt")


def test_early_stopping_waits_for_the_unfreeze(photos: Path, tmp_path: Path) -> None:
    """A head that cannot learn gets no better from the first epoch on; patience is 1."""
    run(photos, tmp_path, "callbacks=early_stopping", "callbacks.progress=null",
        "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=1.0",
        "trainer.max_epochs=6", "finetune.unfreeze_epoch=3")  # fmt: skip
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["phase"] for row in history] == ["frozen"] * 3 + ["unfrozen"] * 2


@pytest.mark.parametrize("mode", ["full", "from_scratch"])
def test_other_modes_run(photos: Path, tmp_path: Path, mode: str) -> None:
    results = run(photos, tmp_path, f"finetune={mode}", "optim=sgd",
                  "head=mlp", "augment=strong", "trainer.max_epochs=2")  # fmt: skip
    assert [phase["name"] for phase in results["phases"]] == ["unfrozen"]


def test_without_validation_photos_the_last_epoch_is_tested(photos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.symlink_to(photos / "train")
    results = run(flat, tmp_path, "data.val_fraction=0", "trainer.max_epochs=3")
    assert not any(name.startswith(("val/", "test/")) for name in results)
    assert torch.load(results["best_checkpoint"], weights_only=True)["epoch"] == 2


def test_a_trained_model_is_a_backbone_again(photos: Path, tmp_path: Path) -> None:
    first = run(photos, tmp_path / "a", "test=false")
    trained = weights(first["best_checkpoint"])["classifier.body.conv1.weight"]
    file = tmp_path / "a" / "model" / "model.safetensors"
    run(photos, tmp_path / "b", f"backbone.weights={file}", "trainer.max_epochs=3", "test=false",
        "finetune=feature_extraction")  # fmt: skip
    again = weights(tmp_path / "b" / "checkpoints" / "last.ckpt")["classifier.body.conv1.weight"]
    assert torch.equal(trained, again)


def test_testing_only(photos: Path, tmp_path: Path) -> None:
    first = run(photos, tmp_path / "a")
    again = run(photos, tmp_path / "b", "train=false", f"ckpt_path={first['best_checkpoint']}")
    assert again["test/acc"] == first["test/acc"]
    with pytest.raises(ConfigError, match="train=false: needs a trained model"):
        run(photos, tmp_path / "c", "train=false")
    with pytest.raises(
        ConfigError, match=r"resume=.* train=false: .*ckpt_path=.*/checkpoints/best"
    ):
        run(photos, tmp_path / "a", "train=false", f"resume={tmp_path / 'a'}")


def test_the_test_is_in_float32_whatever_training_is(photos: Path, tmp_path: Path) -> None:
    """As `thaw predict` is."""
    first = run(photos, tmp_path / "a", "trainer.precision=bf16-mixed")
    again = run(photos, tmp_path / "b", "train=false", f"ckpt_path={first['best_checkpoint']}")
    assert again["test/loss"] == first["test/loss"]


@pytest.mark.parametrize("key", ["ckpt_path", "resume"])
def test_a_checkpoint_of_something_else_is_named_before_training(
    photos: Path, tmp_path: Path, key: str
) -> None:
    file = tmp_path / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    torch.save({"state_dict": {}}, file)
    given = file if key == "ckpt_path" else tmp_path
    with pytest.raises(ConfigError, match=rf"^{key}={file}: .* is no checkpoint of thaw"):
        run(photos, tmp_path, f"{key}={given}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["+trainer.strategy=fsdp"], r"trainer\.strategy=fsdp"),
        (["finetune.unfreeze_on_plateau=1", "finetune.unfreeze_epoch=3",
          "trainer.check_val_every_n_epoch=2"], r"waits for a plateau of val/acc"),
        (["finetune.unfreeze_on_plateau=1", "finetune.unfreeze_epoch=3",
          "trainer.limit_val_batches=0"], r"waits for a plateau of val/acc"),
        (["mix=mixup", "monitor=train/acc"], r"monitor=train/acc: allowed is val/loss"),
        (["finetune.frozen=null"], r"finetune\.frozen=null: allowed is a mapping"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    photos: Path, tmp_path: Path, settings: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        run(photos, tmp_path, *settings, "finetune.unfrozen.warmup_epochs=0.5")


@pytest.mark.parametrize(
    "mode", ["gradual", "partial", "phases", "full", "feature_extraction", "from_scratch"]
)
def test_the_debug_run_goes_with_every_mode(photos: Path, tmp_path: Path, mode: str) -> None:
    small = [word for word in SMALL if "max_epochs" not in word]
    cfg = configuration(tmp_path, *small, f"data.root={photos}", "debug=default",
                        f"finetune={mode}")  # fmt: skip
    assert train.run(cfg)["phases"][-1]["epochs"] >= 1


def test_the_rate_is_not_the_optimisers(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr=0\.1: is set by finetune\.frozen\.lr"):
        run(photos, tmp_path, "+optim.lr=0.1")


def test_a_key_that_nothing_reads_is_refused(photos: Path, tmp_path: Path) -> None:
    cfg = configuration(tmp_path, *SMALL, f"data.root={photos}")
    with open_dict(cfg):
        cfg.label_smothing = 0.2
    with pytest.raises(ConfigError, match=r"label_smothing=0\.2.*did you mean label_smoothing"):
        train.run(cfg)


def test_another_metric_to_go_by(photos: Path, tmp_path: Path) -> None:
    """val/loss is better when smaller, without being told so."""
    run(photos, tmp_path, "monitor=val/loss")
    history = json.loads((tmp_path / "history.json").read_text())
    best = torch.load(next((tmp_path / "checkpoints").glob("best*")), weights_only=True)["epoch"]
    assert history[best]["val/loss"] == min(row["val/loss"] for row in history)
    with pytest.raises(ConfigError, match=r"monitor=test/acc.*val/acc"):
        run(photos, tmp_path, "monitor=test/acc")


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 3])
def test_killed_and_resumed_from_the_command_line(photos: Path, tmp_path: Path, epoch: int) -> None:
    """kill -9 in a frozen and in an unfrozen epoch, then resume=<run dir>."""
    settings = [*SMALL, f"data.root={photos}", "head.dropout=0.3", f"paths.root_dir={tmp_path}",
                "trainer.max_epochs=40", "callbacks.last.every_seconds=0", *TWO_AND_TWO,
                "test=false"]  # fmt: skip
    folders = [tmp_path / name for name in ("whole", "killed")]
    subprocess.run(command(*settings, f"hydra.run.dir={folders[0]}"), check=True, cwd=ROOT)
    process = subprocess.Popen(command(*settings, f"hydra.run.dir={folders[1]}"), cwd=ROOT)
    last = folders[1] / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if last.is_file():
            try:
                reached = torch.load(last, weights_only=True)["epoch"]
            except (EOFError, RuntimeError):  # being written
                continue
            if reached >= epoch - 1:
                break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folders[1] / "history.json").exists(), "it ended before it was killed"
    subprocess.run(command(f"resume={folders[1]}"), check=True, cwd=ROOT)
    assert equal(folders[0] / "checkpoints" / "last.ckpt", last)
    assert OmegaConf.load(folders[1] / ".hydra" / "config.yaml").trainer.max_epochs == 40  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_and_says_how_to_go_on(photos: Path, tmp_path: Path) -> None:
    settings = [*SMALL, *TWO_AND_TWO, f"data.root={photos}", f"paths.root_dir={tmp_path}",
                "trainer.max_epochs=500", f"hydra.run.dir={tmp_path / 'run'}"]  # fmt: skip
    process = subprocess.Popen(
        command(*settings), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"python train.py resume={tmp_path / 'run'}" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "run" / "checkpoints" / "previous.ckpt").is_file()
