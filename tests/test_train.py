"""The whole run, end to end, on small pictures."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from runs import SMALL, configuration, draw_photos
from runs import run_small as run

import train
from thaw.errors import ConfigError, Interrupted
from thaw.training.checkpoints import GracefulStop


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


LAST = Path("checkpoints/last.ckpt")


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
    with (tmp_path / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"lr/head", "lr/layer4", "val/acc", "train/loss_step"} <= set(rows[0])
    for metric in ("train/acc", "train/loss", "val/acc"):  # each in the row of its own epoch
        logged = [float(row[metric]) for row in rows if row[metric]]
        assert [row[metric] for row in history] == pytest.approx(logged)


def test_the_seed_matters_and_the_number_of_workers_does_not(photos: Path, tmp_path: Path) -> None:
    for name, word in (("a", "seed=0"), ("b", "data.num_workers=1"), ("c", "seed=1")):
        run(photos, tmp_path / name, word, "test=false")
    one, same, other = (tmp_path / name / LAST for name in "abc")
    assert equal(one, same)
    assert not torch.equal(*(weights(path)["classifier.head.1.weight"] for path in (one, other)))


EXACT = ("finetune.batchnorm=train", "head.dropout=0.3", "test=false")


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run(photos, folder, *EXACT)
    return folder / LAST


@pytest.mark.parametrize("step", [3, 14, 24])  # frozen, inside; unfrozen: inside, the very last
def test_resume_after_an_interrupt_is_exact(
    photos: Path, whole: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits as a run that was not stopped."""

    def ask(self: GracefulStop, trainer, pl_module, batch, batch_idx: int) -> None:
        if trainer.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(GracefulStop, "on_train_batch_start", ask)
    with pytest.raises(Interrupted):
        run(photos, tmp_path, *EXACT)
    monkeypatch.undo()
    saved = torch.load(tmp_path / LAST, weights_only=True)
    assert saved["global_step"] == step  # after the last step of an epoch it stops at its end
    run(photos, tmp_path, *EXACT, f"resume={tmp_path}")
    assert equal(whole, tmp_path / LAST)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]


def test_what_stands_on_the_disk_stays_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a run that goes on, and cached features in a home folder that is called `~`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    words = ("logger=csv", "paths.cache_dir='~/cache'", "finetune.cache_features=true")
    last = "callbacks.last.every_seconds=0"
    run(photos, tmp_path / "run", *words, "callbacks=default", last, "callbacks.progress=null",
        "+trainer.max_steps=9")  # fmt: skip
    first = (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text()
    run(photos, tmp_path / "run", *words, "callbacks=default", last, "callbacks.progress=null",
        f"resume={tmp_path / 'run'}")  # fmt: skip
    assert (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text() == first
    assert (tmp_path / "run" / "csv" / "version_1" / "metrics.csv").is_file()
    assert list((tmp_path / "home" / "cache" / "features").iterdir())
    assert not (tmp_path / "~").exists()


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


def test_a_plateau_without_validation_is_refused(photos: Path, tmp_path: Path) -> None:
    """test_bad_input.py has what else is refused."""
    words = ("finetune.unfreeze_on_plateau=1", "finetune.unfreeze_epoch=3")
    with pytest.raises(ConfigError, match=r"waits for a plateau of val/acc"):
        run(photos, tmp_path, *words, "trainer.limit_val_batches=0")


@pytest.mark.parametrize(
    "words",
    [("gradual", "optim=sgd"), ("partial", "head=mlp"), ("phases",), ("full", "augment=strong"),
     ("feature_extraction",), ("from_scratch", "optim=adam")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_the_debug_run_goes_with_every_mode(
    photos: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    small = [word for word in SMALL if "max_epochs" not in word]
    cfg = configuration(tmp_path, *small, f"data.root={photos}", "debug=default",
                        f"finetune={words[0]}", *words[1:])  # fmt: skip
    assert train.run(cfg)["phases"][-1]["epochs"] >= 1


def test_another_metric_to_go_by(photos: Path, tmp_path: Path) -> None:
    """val/loss is better when smaller, without being told so."""
    run(photos, tmp_path, "monitor=val/loss")
    history = json.loads((tmp_path / "history.json").read_text())
    best = torch.load(next((tmp_path / "checkpoints").glob("best*")), weights_only=True)["epoch"]
    assert history[best]["val/loss"] == min(row["val/loss"] for row in history)
