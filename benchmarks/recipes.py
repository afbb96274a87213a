"""Searches one default recipe on real photos, by validation accuracy alone.

    export OMP_NUM_THREADS=1 THAW_DATA=<folder>
    python -m benchmarks.recipes default batchnorm_train --data flowers102 pets --seeds 0 1
    python -m benchmarks.recipes --table

A candidate is a list of changes to thaw's defaults. Each run trains 5 epochs with a frozen body on
cached features and 5 with an unfrozen one, in batches of 64 at 128 pixels, and is validated at the
end. The test split is never read. Each run adds a JSON line to logs/recipes.jsonl; a run that is
there is not made again. `--table` prints the file's validation accuracies. LOG.md says what earlier
searches found.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from thaw import launch
from train import run

DATA = ("flowers102", "pets", "dogs_vs_cats")
BACKBONES = {  # their files in weights/; choose on lite0: the other two are stand-ins
    "lite0": ("timm/tf_efficientnet_lite0", "tf_efficientnet_lite0.safetensors"),
    "mobilenet_v2": ("mobilenet_v2", "mobilenet_v2.pth"),
    "squeezenet1_0": ("squeezenet1_0", "squeezenet1_0.pth"),
}
COMMON = (
    "test=false", "callbacks=none", "logger=none", "trainer=cpu", "data.num_workers=0",
    "backbone.image_size=128", "trainer.check_val_every_n_epoch=10",
)  # fmt: skip
CANDIDATES: dict[str, list[str]] = {
    "default": [],
    "batchnorm_train": ["finetune.batchnorm=train"],
    "batchnorm_frozen": ["finetune.batchnorm=frozen"],
    "head_5e-4": ["finetune.frozen.lr=5e-4"],
    "head_2e-3": ["finetune.frozen.lr=2e-3"],
    "lr_5e-4": ["finetune.unfrozen.lr=5e-4"],
    "lr_2e-3": ["finetune.unfrozen.lr=2e-3"],
    "decay_0.65": ["finetune.lr_decay=0.65"],
    "decay_0.85": ["finetune.lr_decay=0.85"],
    "warmup_0.5": ["finetune.unfrozen.warmup_epochs=0.5"],
    "views_1": ["finetune.cached_views=1"],
    "views_4": ["finetune.cached_views=4"],
    "smoothing_0": ["label_smoothing=0"],
    "crop_0.5": ["augment.crop_scale=[0.5,1]"],
    "ema": ["+callbacks.ema={_target_:thaw.training.averaging.EMA,decay:0.99}"],
}


def measure(candidate: str, data: str, backbone: str, seed: int) -> dict[str, Any]:
    """One run, as a line of the file; its figures are those of the last epoch."""
    name, file = BACKBONES[backbone]
    weights = Path(os.environ["THAW_DATA"], "weights", file)
    where = [f"data={data}", f"backbone={name}", f"backbone.weights='{weights}'", f"seed={seed}"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="recipes-") as folder:
        cfg = launch.compose_run([*where, *COMMON, *CANDIDATES[candidate]])
        cfg.paths.output_dir = folder
        results = run(cfg)
        last = json.loads(Path(folder, "history.json").read_text(encoding="utf-8"))[-1]
    return {
        "candidate": candidate, "overrides": CANDIDATES[candidate],
        "data": data, "backbone": backbone, "seed": seed,
        "val_acc": round(last["val/acc"], 4), "val_loss": round(last["val/loss"], 4),
        "epochs": last["epoch"], "seconds": round(time.perf_counter() - started, 1),
        "phase_seconds": {phase["name"]: phase["seconds"] for phase in results["phases"]},
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown: a row for each candidate and seed, a column for each data set and backbone."""
    columns = list(dict.fromkeys((r["data"], r["backbone"]) for r in runs))
    values = {(r["candidate"], r["seed"], r["data"], r["backbone"]): r["val_acc"] for r in runs}
    lines = [
        "| candidate | seed | " + " | ".join(f"{data}, {name}" for data, name in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for candidate, seed in dict.fromkeys((r["candidate"], r["seed"]) for r in runs):
        row = [values.get((candidate, seed, *column)) for column in columns]
        cells = ["-" if value is None else f"{value:.3f}" for value in row]
        lines.append(f"| {candidate} | {seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs what the command line asks for and the file does not hold yet."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("candidates", nargs="*", metavar="candidate", help=", ".join(CANDIDATES))
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=["lite0"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("logs/recipes.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what the file holds")
    given = parser.parse_args()
    if unknown := set(given.candidates) - set(CANDIDATES):
        parser.error(f"no such candidate: {', '.join(sorted(unknown))}")
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    runs = [json.loads(line) for line in lines]
    done = {(r["candidate"], r["data"], r["backbone"], r["seed"]) for r in runs}
    for seed, *what in product(given.seeds, given.candidates, given.data, given.backbones):
        if (*what, seed) not in done:
            runs.append(measure(*what, seed))
            given.out.parent.mkdir(parents=True, exist_ok=True)
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(runs[-1]) + "\n")
    if given.table:
        print(table(runs))


if __name__ == "__main__":
    main()
