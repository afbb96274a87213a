"""The whole program on a GPU, on drawn flowers: what no test on a CPU can see.

Skipped where torch sees no NVIDIA GPU; `pytest -m gpu` runs nothing else.
"""

import csv
import json
import os
import signal
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hydra.utils import instantiate
from runs import TWO_AND_TWO, configuration
from torch import Tensor, nn
from torch._dynamo.utils import counters

import train
from thaw import cli
from thaw.backbones import folding, torchvision_backbone
from thaw.errors import Interrupted

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU here"),
    # torch 2.11's compiler on Python 3.12, and where float32 stays as exact as it is; Lightning, of
    # a run on the CPU where there is a GPU
    pytest.mark.filterwarnings(
        "ignore:.*torch.jit.script_method|GPU available but not used|TensorFloat32 tensor cores"
    ),
]
# Lightning sets it for trainer.deterministic=true, but torch looks once: at the first product of
# matrices in the process, and these runs share one.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

STEPS = 6  # an epoch: 96 pictures, 16 at once
CLASSES, TEST = 16, 10  # test pictures of each class
DATA = ("data=demo", "data.train_pictures=6", "data.val_pictures=4",
        f"data.test_pictures={TEST}", "data.num_workers=0")  # fmt: skip
SMALL = (*DATA, "backbone=tiny", "trainer=gpu", "trainer.max_epochs=4",
         "trainer.log_every_n_steps=1", "callbacks=none", "logger=none",
         "+callbacks.watch._target_=test_gpu.Watch")  # fmt: skip
LIVE, CACHED = "finetune.cache_features=false", "finetune.cache_features=true"
LAST = Path("checkpoints/last.ckpt")


class Watch(pl.Callback):
    """What a run did; made by its configuration, and found in `made` afterwards.

    Attributes:
        states: weights and buffers before the run and after each epoch.
        frozen: for each epoch, names of what must not move in it: weights without a gradient, and
            buffers of layers that have no other weights.
        losses: of each training step.
        features: what the head got in each training step.
        formats: whether each convolution got channels_last images, and has such a kernel.
        gap: between logits of the trained network and of its copy in the usual memory format.
        labels: that the test predicted.
    """

    made: "list[Watch]" = []  # noqa: RUF012  shared on purpose: Hydra makes the instances

    def __init__(self, stop: int | None = None, layout: bool = False) -> None:
        self.stop, self.layout = stop, layout
        self.states: list[dict[str, Tensor]] = []
        self.frozen: list[set[str]] = []
        self.losses: list[float] = []
        self.features: list[Tensor] = []
        self.formats: set[tuple[bool, bool]] = set()
        self.gap, self.labels = 0.0, []
        self.handles: list[Any] = []
        Watch.made.append(self)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.states.append(copied(pl_module))

        def keep(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if trainer.training:
                self.features.append(inputs[0].detach().float().cpu())

        def look(layer: Any, inputs: tuple[Tensor]) -> None:
            self.formats.add((is_channels_last(inputs[0]), is_channels_last(layer.weight)))

        self.handles = [pl_module.classifier.head.register_forward_pre_hook(keep)]  # pyright: ignore
        if self.layout:
            convolutions = (m for m in pl_module.modules() if isinstance(m, nn.Conv2d))
            self.handles += [layer.register_forward_pre_hook(look) for layer in convolutions]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        still: set[str] = set()
        for name, layer in pl_module.named_modules():
            weights = list(layer.parameters(recurse=False))
            if weights and not any(weight.requires_grad for weight in weights):
                own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
                still |= {f"{name}.{key}" for key, _ in own}
        self.frozen.append(still)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step + 1 == self.stop:
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.states.append(copied(pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for handle in self.handles:
            handle.remove()
        if self.layout:
            model: Any = pl_module.classifier.eval()  # pyright: ignore
            usual = deepcopy(model).to(memory_format=torch.contiguous_format)
            images = torch.rand(32, 3, 64, 64, device=pl_module.device)
            with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
                logits = model(images.contiguous(memory_format=torch.channels_last))
                self.gap = gap(logits, usual(images))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.labels = pl_module.test_predictions[:, 0].long().tolist()  # pyright: ignore


def copied(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def gap(one: Tensor, two: Tensor) -> float:
    """Size of the difference, as a share of the first's."""
    return float((one - two).norm() / one.norm())


def run(output: Path, *settings: str) -> tuple[dict, Watch]:
    """Two frozen epochs and two unfrozen ones, unless the settings say otherwise."""
    if not any(word.startswith("finetune=") for word in settings):
        settings = (*TWO_AND_TWO, *settings)
    words = (*SMALL, f"paths.cache_dir={output.parent / 'cache'}", *settings)
    return train.run(configuration(output, *words)), Watch.made[-1]


def moved(before: dict[str, Tensor], after: dict[str, Tensor], part: str = "body") -> set[str]:
    """Names below classifier.<part> whose values differ in any bit."""
    names = [name for name in before if name.startswith(f"classifier.{part}.")]
    assert names
    return {name for name in names if not torch.equal(before[name], after[name])}


def body_weights(state: dict[str, Tensor]) -> set[str]:
    return {name for name in state if ".body." in name and name.endswith("weight")}


def of_training(path: Path) -> dict[str, Tensor]:
    """Everything in a checkpoint that training goes on from: weights, buffers, momenta, scale."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    tensors = dict(saved["state_dict"])
    for index, state in saved["optimizer_states"][0]["state"].items():
        tensors |= {f"{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    for key, value in saved.get("MixedPrecision", {}).items():
        tensors[f"scaler.{key}"] = torch.as_tensor(value)
    return tensors


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn once: the only folder in the cache of a run that has made nothing else."""
    folder = tmp_path_factory.mktemp("pictures")
    instantiate(configuration(folder, *DATA, f"paths.cache_dir={folder}").data).prepare_data()
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, pictures: Path) -> None:
    """Each test has features of its own."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / pictures.name).symlink_to(pictures)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # on purpose
@pytest.mark.parametrize(("precision", "features"), [("bf16-mixed", LIVE), ("16-mixed", CACHED)])
def test_unfreezes_and_resumes_to_the_bit(tmp_path: Path, precision: str, features: str) -> None:
    """Stopped after the first epoch, and inside the first unfrozen one."""
    words = (f"trainer.precision={precision}", features, "head.dropout=0.2", "test=false",
             "trainer.deterministic=true", "backbone=resnet18", "backbone.weights=null",
             "backbone.image_size=64")  # fmt: skip
    _, whole = run(tmp_path / "whole", *words)
    assert len(whole.losses) == 4 * STEPS
    assert all(torch.tensor(whole.losses).isfinite())
    start, _, second, third, fourth = whole.states
    assert moved(start, second) == set()
    assert moved(start, second, "head")
    assert body_weights(start) <= moved(second, third) & moved(third, fourth)
    expected = of_training(tmp_path / "whole" / LAST)
    for step in (STEPS, 2 * STEPS + 3):
        stopped = tmp_path / f"stopped{step}"
        with pytest.raises(Interrupted):
            run(stopped, *words, f"+callbacks.watch.stop={step}")
        run(stopped, *words, f"resume={stopped}")
        resumed = of_training(stopped / LAST)
        assert resumed.keys() == expected.keys()
        assert [k for k, value in expected.items() if not torch.equal(value, resumed[k])] == []


@pytest.mark.parametrize(("precision", "limit"), [("32-true", 0.02), ("bf16-mixed", 0.1)])
def test_compiled_across_the_unfreeze(tmp_path: Path, precision: str, limit: float) -> None:
    """Gradients reach the body, and the losses are those of the run that is not compiled."""
    losses = {}
    for compiled in ("false", "true"):
        torch._dynamo.reset()
        counters.clear()
        words = (LIVE, f"trainer.precision={precision}", f"compile={compiled}", "test=false")
        _, watch = run(tmp_path / compiled, *words)
        losses[compiled] = torch.tensor(watch.losses)
    assert counters["stats"]["unique_graphs"] >= 2
    assert moved(watch.states[0], watch.states[2]) == set()
    assert body_weights(watch.states[0]) <= moved(watch.states[2], watch.states[3])
    gaps = ((losses["false"] - losses["true"]).abs() / losses["false"]).tolist()
    # roundings of other kernels grow from step to step, once the body trains
    assert max(gaps[: 2 * STEPS + 1]) < 0.02
    assert max(gaps) < limit


def test_channels_last(tmp_path: Path) -> None:
    """Every convolution gets such images and has such kernels, frozen and not, also resumed."""
    words = (LIVE, "test=false", "+callbacks.watch.layout=true")
    _, watch = run(tmp_path / "run", *words)
    start = next((tmp_path / "run" / "checkpoints").glob("best*"))
    _, again = run(tmp_path / "again", *words, "trainer.max_epochs=5", f"ckpt_path={start}")
    for each in (watch, again):
        assert each.formats == {(True, True)}
        assert each.gap < 1e-4


@pytest.mark.parametrize(("precision", "limit"), [("32-true", 2e-3), ("bf16-mixed", 2e-2)])
def test_folded_batchnorm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, limit: float
) -> None:
    """BatchNorm inside the convolutions changes no loss of the first unfrozen epoch."""
    losses, made = [], []

    def spied(*given: Any) -> Any:
        made.append(folding.fold(*given))
        return made[-1]

    monkeypatch.setattr(torchvision_backbone, "fold", spied)
    for name in ("folded", "plain"):
        words = (f"trainer.precision={precision}", "test=false", LIVE, "backbone=resnet18",
                 "backbone.weights=null", "backbone.image_size=64")  # fmt: skip
        _, watch = run(tmp_path / name, *words)
        losses.append(watch.losses[: 3 * STEPS])
        monkeypatch.setattr(torchvision_backbone, "fold", lambda *_: nullcontext)
    assert losses[0] == pytest.approx(losses[1], rel=limit)
    assert len(made[0].args[0]) == 20


@pytest.mark.parametrize(("precision", "limit"), [("32-true", 1e-5), ("bf16-mixed", 2e-2)])
def test_cached_features_are_the_live_ones(tmp_path: Path, precision: str, limit: float) -> None:
    """The same in every step of the frozen phase, and the runs agree to the end of it."""
    words = (f"trainer.precision={precision}", "finetune=feature_extraction",
             "finetune.frozen.augment=false")  # fmt: skip
    live, one = run(tmp_path / "live", *words, LIVE)
    cached, two = run(tmp_path / "cached", *words, CACHED)
    assert (tmp_path / "cache" / "features").is_dir()
    gaps = [gap(*pair) for pair in zip(one.features, two.features, strict=True)]
    assert len(gaps) == 4 * STEPS
    assert max(gaps) <= limit
    assert one.losses == pytest.approx(two.losses, rel=max(limit, 1e-4), abs=1e-4)
    assert live["val/acc"] == pytest.approx(cached["val/acc"], abs=1 / (CLASSES * 4) + 1e-6)


@pytest.mark.parametrize(
    "mode",
    [
        ("finetune=partial", "finetune.top=1", *TWO_AND_TWO),
        ("finetune=freeze_unfreeze", *TWO_AND_TWO, "finetune.batchnorm=frozen"),
    ],
    ids=["partial", "batchnorm"],
)
def test_what_is_frozen_stands_still(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """To the bit, BatchNorm's statistics too; what trains moves."""
    _, watch = run(tmp_path / "run", *mode, LIVE, "test=false")
    assert len(watch.frozen) == 4
    for epoch, still in enumerate(watch.frozen):
        before, after = watch.states[epoch], watch.states[epoch + 1]
        assert {name for name in still if not torch.equal(before[name], after[name])} == set()
        trained = {name for name in before if name.endswith("weight")} - still
        assert {name for name in trained if torch.equal(before[name], after[name])} == set()
    kinds = {name.rpartition(".")[2] for name in watch.frozen[0]}
    assert {"weight", "running_mean", "running_var", "num_batches_tracked"} <= kinds
    assert watch.frozen[0] > watch.frozen[-1]


def test_the_best_checkpoint_on_the_cpu(tmp_path: Path) -> None:
    """A checkpoint of the GPU is as right there, in float32."""
    results, _ = run(tmp_path / "gpu", "trainer.max_epochs=6")
    assert results["device"] == torch.cuda.get_device_name()
    assert results["test/acc"] > 0.3
    here, _ = run(tmp_path / "cpu", "train=false", f"ckpt_path={results['best_checkpoint']}",
                  "trainer=cpu", "trainer.precision=32-true")  # fmt: skip
    assert abs(here["test/acc"] - results["test/acc"]) * CLASSES * TEST < 2.5
    assert here["test/loss"] == pytest.approx(results["test/loss"], rel=0.02)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_predict_says_what_the_test_said(tmp_path: Path, pictures: Path, precision: str) -> None:
    """`thaw predict` on the run's folder; both compute in float32."""
    _, watch = run(tmp_path / "run", f"trainer.precision={precision}")
    table = tmp_path / "table.csv"
    cli.main(["predict", str(tmp_path / "run"), str(pictures / "test"), "--csv", str(table)])
    classes = json.loads((tmp_path / "run" / "model" / "model.json").read_text())["classes"]
    with table.open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    rows = [row for row in rows if int(Path(row["path"]).stem) < TEST]
    rows.sort(key=lambda row: classes.index(Path(row["path"]).parent.name))
    assert len(rows) == len(watch.labels) == CLASSES * TEST
    for row, label in zip(rows, watch.labels, strict=True):
        best = {row[f"predicted{place}"]: float(row[f"probability{place}"]) for place in ("", "_2")}
        # TF32 of another batch rounds otherwise, which decides between classes that are level
        assert best.get(classes[label], 0) > max(best.values()) - 0.01, row["path"]


@pytest.mark.parametrize(
    "extra",
    [
        ("mix=both", "optim=sgd", "trainer.accumulate_grad_batches=4", "augment=strong"),
        ("data.cache=ram", "data.num_workers=2", "callbacks=ema"),
        ("compile=true", "trainer.precision=16-mixed", "head=mlp"),
    ],
    ids=lambda words: words[0],
)
def test_it_runs_with(tmp_path: Path, extra: tuple[str, ...]) -> None:
    results, watch = run(tmp_path / "run", *extra)
    assert all(torch.tensor(watch.losses).isfinite())
    assert 0 <= results["test/acc"] <= 1
