"""Searches one default recipe on real photos, by validation accuracy alone.

    export OMP_NUM_THREADS=1 THAW_DATA=<folder>
    python -m benchmarks.recipes base head_1e-3 --data flowers102 pets --seeds 0 1
    python -m benchmarks.recipes --table

A candidate is a list of overrides of thaw's configuration. Each run trains 5 epochs with a frozen
body on cached features and then, but for those named frozen_..., 5 with an unfrozen one, in batches
of 64 at 128 pixels. The test split is never read. Each run adds a JSON line to recipes.jsonl; a run
that is there is not made again. `--table` prints the file's validation accuracies.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw import launch
from train import run

ROOT = Path(__file__).resolve().parents[1]
DATA = ("flowers102", "pets", "dogs_vs_cats")
BACKBONES = ("mobilenet_v2", "squeezenet1_0")
COMMON = (
    "test=false", "callbacks=none", "logger=none", "trainer=cpu", "data.num_workers=0",
    "backbone.image_size=128", "finetune.cache_features=true",
)  # fmt: skip


def frozen(views: int, lr: str, epochs: int = 5) -> list[str]:
    """The frozen phase alone; features of the validation photos are cached too."""
    mode = ["finetune=feature_extraction", f"trainer.max_epochs={epochs}"]
    return [*mode, f"finetune.cached_views={views}", f"finetune.frozen.lr={lr}"]


def whole(*changes: str) -> list[str]:
    """Both phases, validated once, at the end."""
    first = ["finetune.cached_views=4", "finetune.frozen.lr=2e-3", "trainer.check_val_every_n_epoch=10"]
    return [*first, *changes]


def ema(decay: float) -> str:
    """What is validated is the moving average of the weights."""
    return f"+callbacks.ema={{_target_:thaw.training.averaging.EMA,decay:{decay}}}"


def changed(*changes: str) -> list[str]:
    """thaw's defaults as they are now, but for these; validated once, at the end."""
    return ["trainer.check_val_every_n_epoch=10", *changes]


HEAD = "finetune.frozen.lr=1e-3"
CANDIDATES: dict[str, list[str]] = {
    **{
        f"frozen_views{views}_lr{lr}": frozen(views, lr)
        for views, lr in product((1, 2, 4, 8), ("5e-4", "1e-3", "2e-3", "5e-3", "1e-2", "2e-2"))
    },
    **{
        f"frozen_views{views}_lr{lr}_16epochs": frozen(views, lr, epochs=16)
        for views, lr in product((1, 4), ("5e-4", "1e-3", "2e-3"))
    },
    **{
        f"frozen_views4_lr{lr}_smoothing0": [*frozen(4, lr), "label_smoothing=0"]
        for lr in ("1e-3", "2e-3")
    },
    "frozen_views1_lr2e-3_16epochs_smoothing0": [*frozen(1, "2e-3", 16), "label_smoothing=0"],
    "base": whole(),  # thaw's defaults when the search began
    "lr_2e-3": whole("finetune.unfrozen.lr=2e-3"),
    "lr_5e-4": whole("finetune.unfrozen.lr=5e-4"),
    "ema_0.95": whole(ema(0.95)),
    "crop_0.5": whole("augment.crop_scale=[0.5,1]"),
    "head_1e-3": whole(HEAD),
    "head_5e-4": whole("finetune.frozen.lr=5e-4"),
    "head_1e-3_decay_0.85": whole(HEAD, "finetune.lr_decay=0.85"),
    "head_1e-3_ema": whole(HEAD, ema(0.99)),
    "head_1e-3_eval": whole(HEAD, "finetune.batchnorm=eval"),
    "default": changed(),
    "default_lbfgs": changed(
        "head.fit=lbfgs",
        "finetune.unfreeze_epoch=1",
        "trainer.max_epochs=6",
        "trainer.check_val_every_n_epoch=1",
    ),
    "default_head_2e-3": changed("finetune.frozen.lr=2e-3"),
    "default_decay_0.65": changed("finetune.lr_decay=0.65"),
    "default_warmup_0.5": changed("finetune.unfrozen.warmup_epochs=0.5"),
    "default_eval": changed("finetune.batchnorm=eval"),
    "default_lr_5e-4": changed("finetune.unfrozen.lr=5e-4"),
    "default_ema": changed(ema(0.99)),
}


def configuration(output: Path, overrides: list[str]) -> DictConfig:
    """The composed configuration of a run into `output`, as train.py would get it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides, return_hydra_config=True)
    cfg.hydra.runtime.output_dir = str(output)
    cfg.hydra.job.num = 0
    HydraConfig.instance().set_config(cfg)
    del cfg.hydra
    return cfg


def measure(candidate: str, data: str, backbone: str, seed: int) -> dict[str, Any]:
    """One run, as a line of the file; its figures are those of the last epoch."""
    weights = Path(os.environ["THAW_DATA"], "weights", f"{backbone}.pth")
    where = [f"data={data}", f"backbone={backbone}", f"backbone.weights={weights}", f"seed={seed}"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="recipes-") as folder:
        results = run(configuration(Path(folder), [*where, *COMMON, *CANDIDATES[candidate]]))
        last = json.loads(Path(folder, "history.json").read_text(encoding="utf-8"))[-1]
    return {
        "candidate": candidate, "overrides": CANDIDATES[candidate],
        "data": data, "backbone": backbone, "seed": seed,
        "val_acc": round(last["val/acc"], 4), "val_loss": round(last["val/loss"], 4),
        "epochs": last["epoch"] + 1, "seconds": round(time.perf_counter() - started, 1),
        "phase_seconds": {phase["name"]: phase["seconds"] for phase in results["phases"]},
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a row for each candidate and seed, a column for each data set and backbone."""
    columns = list(product(DATA, BACKBONES))
    found = {(r["candidate"], r["seed"], r["data"], r["backbone"]): r["val_acc"] for r in runs}
    lines = [
        "| candidate | seed | " + " | ".join(f"{data}, {name}" for data, name in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for candidate, seed in dict.fromkeys((r["candidate"], r["seed"]) for r in runs):
        values = [found.get((candidate, seed, *column)) for column in columns]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"| {candidate} | {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs what the command line asks for and the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("candidates", nargs="*", metavar="candidate", help=", ".join(CANDIDATES))
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/recipes.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what the file holds")
    asked = parser.parse_args()
    if unknown := set(asked.candidates) - set(CANDIDATES):
        parser.error(f"no such candidate: {', '.join(sorted(unknown))}")
    lines = asked.out.read_text(encoding="utf-8").splitlines() if asked.out.exists() else []
    runs = [json.loads(line) for line in lines]
    done = {(r["candidate"], r["data"], r["backbone"], r["seed"]) for r in runs}
    launch.register_backbones()
    for seed, name, data, backbone in product(
        asked.seeds, asked.candidates, asked.data, asked.backbones
    ):
        if (name, data, backbone, seed) not in done:
            runs.append(measure(name, data, backbone, seed))
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(runs[-1]) + "\n")
    if asked.table:
        print(table(runs))


if __name__ == "__main__":
    main()
