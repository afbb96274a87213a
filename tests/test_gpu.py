"""The whole program on a GPU, on drawn flowers: what no test on a CPU can see.

Skipped where torch sees no NVIDIA GPU; `pytest -m gpu` runs nothing else.
"""

import json
import os
import signal
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hydra.utils import instantiate
from runs import ROOT, command, configuration
from torch import Tensor, nn
from torch._dynamo.utils import counters

import train
from thaw import cli
from thaw.errors import Interrupted

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU here"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # on purpose
]
# Lightning sets it for trainer.deterministic=true, but torch looks once: at the first product of
# matrices in the process, and these runs share one. A run in a process of its own is tested too.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

STEPS = 6  # an epoch: 96 pictures, 16 at once
CLASSES, TEST = 16, 10  # test pictures of each class
DATA = ("data=demo", "data.train_pictures=6", "data.val_pictures=4",
        f"data.test_pictures={TEST}", "data.num_workers=0")  # fmt: skip
SMALL = (*DATA, "backbone=tiny", "trainer=gpu", "trainer.max_epochs=4",
         "trainer.log_every_n_steps=1", "callbacks=none", "logger=none",
         "+callbacks.watch._target_=test_gpu.Watch")  # fmt: skip
TWO_AND_TWO = ("finetune.unfreeze_epoch=2", "finetune.unfrozen.warmup_epochs=0.5")
PLAIN = "finetune.frozen.augment=false"  # one view, always the same
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
        gaps: between logits of the trained network and of its copy in the usual memory format.
    """

    made: "list[Watch]" = []  # noqa: RUF012

    def __init__(self, stop: int | None = None, layout: bool = False) -> None:
        self.stop, self.layout = stop, layout
        self.states: list[dict[str, Tensor]] = []
        self.frozen: list[set[str]] = []
        self.losses: list[float] = []
        self.features: list[Tensor] = []
        self.formats: list[tuple[bool, bool]] = []
        self.gaps: list[float] = []
        self.handles: list[Any] = []
        Watch.made.append(self)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert pl_module.device.type == "cuda"
        self.states.append(copied(pl_module))
        head = pl_module.classifier.head
        assert isinstance(head, nn.Module)

        def keep(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if trainer.training:
                self.features.append(inputs[0].detach().float().cpu())

        self.handles = [head.register_forward_pre_hook(keep)]
        if self.layout:
            for layer in pl_module.modules():
                if isinstance(layer, nn.Conv2d):
                    self.handles.append(layer.register_forward_pre_hook(self._look))

    def _look(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(layer, nn.Conv2d)
        self.formats.append((is_channels_last(inputs[0]), is_channels_last(layer.weight)))

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
            model = pl_module.classifier.eval()
            assert isinstance(model, nn.Module)
            usual = deepcopy(model).to(memory_format=torch.contiguous_format)  # pyright: ignore
            images = torch.rand(32, 3, 64, 64, device=pl_module.device)
            with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
                logits = model(images.contiguous(memory_format=torch.channels_last))
                self.gaps.append(gap(logits, usual(images)))


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


def of_training(path: Path) -> dict[str, Tensor]:
    """Everything in a checkpoint that training goes on from: weights, buffers, momenta, scale."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    found = dict(saved["state_dict"])
    for index, state in saved["optimizer_states"][0]["state"].items():
        found |= {f"{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    for key, value in saved.get("MixedPrecision", {}).items():
        found[f"scaler.{key}"] = torch.as_tensor(value)
    return found


def history(output: Path) -> list[dict[str, float]]:
    return json.loads((output / "history.json").read_text())


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


@pytest.mark.parametrize(
    ("precision", "features", "exact"),
    [
        ("bf16-mixed", LIVE, True),
        ("bf16-mixed", CACHED, False),
        ("16-mixed", CACHED, True),
        ("16-mixed", LIVE, False),
    ],
)
def test_stopped_and_resumed(tmp_path: Path, precision: str, features: str, exact: bool) -> None:
    """After the first epoch, and inside the first unfrozen one."""
    words = (f"trainer.precision={precision}", features, "head.dropout=0.2", "test=false",
             f"trainer.deterministic={str(exact).lower()}")  # fmt: skip
    _, whole = run(tmp_path / "whole", *words)
    assert len(whole.losses) == 4 * STEPS
    assert all(torch.tensor(whole.losses).isfinite())
    start, _, second, third, fourth = whole.states
    assert moved(start, second) == set()
    assert moved(start, second, "head")
    weights = {name for name in start if "body" in name and name.endswith("weight")}
    assert weights <= moved(second, third)
    assert weights <= moved(third, fourth)
    expected = of_training(tmp_path / "whole" / LAST)
    for step in (STEPS, 2 * STEPS + 3):
        stopped = tmp_path / f"stopped{step}"
        with pytest.raises(Interrupted):
            run(stopped, *words, f"+callbacks.watch.stop={step}")
        run(stopped, *words, f"resume={stopped}")
        found = of_training(stopped / LAST)
        assert found.keys() == expected.keys()
        differ = {
            name: gap(value.float(), found[name].float())
            for name, value in expected.items()
            if not torch.equal(value, found[name])
        }
        print(f"step {step}: {len(differ)} of {len(expected)} tensors differ, the most by "
              f"{max(differ.values(), default=0):.1e}")  # fmt: skip
        if exact:
            assert differ == {}
        else:  # cuDNN may take other kernels, which round otherwise; momenta tell nothing
            body = [name for name in weights if name in differ]
            assert all(differ[name] < 0.02 for name in body)
        losses = [[row["val/loss"] for row in history(folder)]
                  for folder in (tmp_path / "whole", stopped)]  # fmt: skip
        assert losses[0] == pytest.approx(losses[1], rel=1e-6 if exact else 0.02)


def test_deterministic_in_a_process_of_its_own(tmp_path: Path) -> None:
    """By the command line, on the device and in the precision it chooses: twice the same bits."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CUBLAS")}
    words = [word for word in SMALL if not word.startswith(("trainer=", "+"))]
    words += [*TWO_AND_TWO, "trainer.deterministic=true", f"paths.cache_dir={tmp_path / 'cache'}"]
    for name in ("one", "two"):
        line = command(*words, f"hydra.run.dir={tmp_path / name}")
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    one, two = (of_training(tmp_path / name / LAST) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


def test_the_device_is_in_the_results(tmp_path: Path) -> None:
    results, _ = run(tmp_path / "run", "trainer.max_epochs=3")
    assert results["device"] == torch.cuda.get_device_name()


@pytest.mark.parametrize(("precision", "limit"), [("32-true", 0.02), ("bf16-mixed", 0.1)])
def test_compiled_across_the_unfreeze(tmp_path: Path, precision: str, limit: float) -> None:
    """Gradients reach the body, and the losses are those of the run that is not compiled."""
    both = {}
    graphs = {}
    for compiled in ("false", "true"):
        torch._dynamo.reset()
        counters.clear()
        words = (LIVE, f"trainer.precision={precision}", f"compile={compiled}", "test=false")
        _, both[compiled] = run(tmp_path / compiled, *words)
        graphs[compiled] = counters["stats"]["unique_graphs"]
    losses = [torch.tensor(both[name].losses) for name in ("false", "true")]
    gaps = ((losses[0] - losses[1]).abs() / losses[0]).tolist()
    print(f"{precision}: graphs {graphs}, largest difference of a step's loss: frozen "
          f"{max(gaps[: 2 * STEPS]):.1e}, first unfrozen {gaps[2 * STEPS]:.1e}, later "
          f"{max(gaps[2 * STEPS :]):.1e}")  # fmt: skip
    assert graphs["false"] == 0
    assert graphs["true"] >= 2
    watch = both["true"]
    assert moved(watch.states[0], watch.states[2]) == set()
    weights = {name for name in watch.states[0] if "body" in name and name.endswith("weight")}
    assert weights <= moved(watch.states[2], watch.states[3])
    # roundings of other kernels grow from step to step, once the body trains
    assert max(gaps[: 2 * STEPS + 1]) < 0.02
    assert max(gaps) < limit


def test_compiled_fp16(tmp_path: Path) -> None:
    """With its loss scale too."""
    torch._dynamo.reset()
    _, watch = run(tmp_path / "run", "trainer.precision=16-mixed", "compile=true", "test=false",
                   "trainer.max_epochs=3", CACHED)  # fmt: skip
    assert all(torch.tensor(watch.losses).isfinite())
    assert moved(watch.states[0], watch.states[2]) == set()
    assert moved(watch.states[2], watch.states[3])


def test_channels_last(tmp_path: Path) -> None:
    """Every convolution gets such images and has such kernels, frozen and not, also resumed."""
    words = (LIVE, "test=false", "+callbacks.watch.layout=true")
    _, watch = run(tmp_path / "run", *words)
    assert len(watch.formats) > 100
    assert set(watch.formats) == {(True, True)}
    assert watch.gaps[0] < 1e-4
    start = next((tmp_path / "run" / "checkpoints").glob("best*"))
    _, again = run(tmp_path / "again", *words, "trainer.max_epochs=5", f"ckpt_path={start}")
    assert set(again.formats) == {(True, True)}
    assert again.gaps[0] < 1e-4


@pytest.mark.parametrize(
    ("precision", "limit"), [("32-true", 1e-5), ("bf16-mixed", 2e-2), ("16-mixed", 2e-3)]
)
def test_cached_features_are_the_live_ones(tmp_path: Path, precision: str, limit: float) -> None:
    """The same in every step of the frozen phase, and the runs agree to the end of it."""
    words = (f"trainer.precision={precision}", "finetune=feature_extraction", PLAIN)
    live, watch = run(tmp_path / "live", *words, LIVE)
    results, cached = run(tmp_path / "cached", *words, CACHED)
    assert list((tmp_path / "cache" / "features").glob("*.bin"))
    assert len(watch.features) == len(cached.features) == 4 * STEPS
    gaps = [gap(one, two) for one, two in zip(watch.features, cached.features, strict=True)]
    print(f"{precision}: cached and live features differ by {max(gaps):.1e}")
    assert max(gaps) <= limit
    losses = [torch.tensor(each.losses) for each in (watch, cached)]
    assert torch.allclose(*losses, rtol=max(limit, 1e-4), atol=1e-4)
    one_photo = 1 / (CLASSES * 4) + 1e-6
    for split in ("val", "test"):
        assert abs(live[f"{split}/acc"] - results[f"{split}/acc"]) <= one_photo


@pytest.mark.parametrize(
    "mode",
    [
        ("finetune=partial", "finetune.top=1", *TWO_AND_TWO),
        ("finetune=gradual", "finetune.unfreeze_epoch=1", "finetune.stop_at=layer3"),
        ("finetune=freeze_unfreeze", *TWO_AND_TWO, "finetune.batchnorm=frozen"),
    ],
    ids=["partial", "gradual", "batchnorm"],
)
@pytest.mark.parametrize("callbacks", ["none", "ema"])
def test_what_is_frozen_stands_still(tmp_path: Path, mode: tuple[str, ...], callbacks: str) -> None:
    """To the bit, BatchNorm's statistics too; what trains moves."""
    bar = () if callbacks == "none" else ("callbacks.progress=null",)
    _, watch = run(tmp_path / "run", *mode, LIVE, "test=false", f"callbacks={callbacks}", *bar)
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
    assert results["test/acc"] > 0.3
    here, _ = run(tmp_path / "cpu", "train=false", f"ckpt_path={results['best_checkpoint']}",
                  "trainer=cpu", "trainer.precision=32-true")  # fmt: skip
    wrong = abs(here["test/acc"] - results["test/acc"]) * CLASSES * TEST
    print(f"{wrong:.0f} of {CLASSES * TEST} test pictures are judged otherwise on the CPU")
    assert wrong < 2.5
    assert here["test/loss"] == pytest.approx(results["test/loss"], rel=0.02)


@pytest.mark.parametrize("fit", ["logistic", "ridge", "svm"])
def test_a_solved_head(tmp_path: Path, fit: str) -> None:
    """On features in bf16, then trained on with the body."""
    results, watch = run(tmp_path / "run", f"head.fit={fit}", "finetune=freeze_unfreeze",
                         "finetune.unfreeze_epoch=1", "finetune.unfrozen.warmup_epochs=0.5",
                         "trainer.max_epochs=3")  # fmt: skip
    assert all(torch.tensor(watch.losses).isfinite())
    assert history(tmp_path / "run")[0]["val/acc"] > 0.3
    assert results["test/acc"] > 0.3


@pytest.mark.parametrize(
    "extra",
    [
        ("mix=both",),
        ("optim=sgd", "trainer.accumulate_grad_batches=4"),
        ("finetune=from_scratch", "backbone=cnn", "backbone.image_size=64"),
        ("data.cache=ram", "data.num_workers=2"),
        ("augment=strong", "data.num_workers=2"),
        ("callbacks=swa", "callbacks.progress=null"),
        ("head=mlp", "callbacks=default", "logger=[tensorboard,csv]"),
    ],
    ids=lambda words: words[0],
)
def test_it_runs_with(tmp_path: Path, extra: tuple[str, ...]) -> None:
    results, watch = run(tmp_path / "run", *extra)
    assert all(torch.tensor(watch.losses).isfinite())
    assert 0 <= results["test/acc"] <= 1


@pytest.mark.parametrize("verb", [("rank", "backbones=tiny,cnn"), ("advise", "backbone=tiny")])
def test_verbs(tmp_path: Path, verb: tuple[str, str], capsys: Any) -> None:
    cli.main([*verb, *DATA, f"paths.root_dir={tmp_path}", f"paths.cache_dir={tmp_path / 'cache'}"])
    assert "python train.py" in capsys.readouterr().out
