"""Tries the default recipe, or a change to it, on real photos and weights.

    export OMP_NUM_THREADS=1 THAW_DATA=<folder>
    python -m benchmarks.recipes default --seeds 0 1 2
    python -m benchmarks.recipes batch_64 lr_3e-4 --data flowers102 pets --seeds 0 1
    python -m benchmarks.recipes --table

A candidate is a list of changes to thaw's defaults. Each run trains 5 epochs with a frozen body on
cached features and 5 with an unfrozen one, at 128 pixels. Choose by the validation accuracy of the
last epoch ("val"), and look at the gain over the best frozen epoch; "test" is of the best epoch,
for the report alone. Dogs-vs-Cats at 200 photos and seed 2 stay out of every choice. A run adds a
JSON line to logs/recipes.jsonl; a run that is there is not made again. LOG.md says what was found.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import mean
from typing import Any

from thaw.compose import compose_run
from train import run

DATA: dict[str, tuple[list[str], int]] = {  # settings, validation photos
    "flowers102": (["data=flowers102"], 1020),
    "flowers102_5": (["data=flowers102", "data.train_per_class=5"], 1020),
    "pets": (["data=pets"], 128),
    "dogs_2000": (["data=dogs_vs_cats"], 320),
    "dogs_200": (["data=dogs_vs_cats", "data.train_per_class=100"], 320),
    "dogs_50": (["data=dogs_vs_cats", "data.train_per_class=25"], 320),
    "demo": (["data=demo"], 160),
}
BACKBONES = {  # their files in weights/; choose on lite0 and lite2: two others are stand-ins
    "lite0": ("timm/tf_efficientnet_lite0", "tf_efficientnet_lite0.safetensors"),
    "lite2": ("timm/tf_efficientnet_lite2", "tf_efficientnet_lite2.safetensors"),
    "mobilenet_v2": ("mobilenet_v2", "mobilenet_v2.pth"),
    "squeezenet1_0": ("squeezenet1_0", "squeezenet1_0.pth"),
    "tiny": ("tiny", None),
}
COMMON = (
    "logger=none", "report=none", "trainer=cpu", "data.num_workers=0",
    "backbone.image_size=128",
)  # fmt: skip
CANDIDATES: dict[str, list[str]] = {
    "default": [],
    "adamw": ["optim=adamw", "head=linear"],  # as in the default until 28 November 2026
    "depthwise_train": ["finetune.depthwise=train"],
    "batch_64": ["data.batch_size=64"],
    "batch_16": ["data.batch_size=16"],
    "batchnorm_train": ["finetune.batchnorm=train"],
    "batchnorm_frozen": ["finetune.batchnorm=frozen"],
    "head_5e-4": ["finetune.frozen.lr=5e-4"],
    "head_2e-3": ["finetune.frozen.lr=2e-3"],
    "lr_1e-4": ["finetune.unfrozen.lr=1e-4"],
    "lr_2.5e-4": ["finetune.unfrozen.lr=2.5e-4"],
    "lr_3e-4": ["finetune.unfrozen.lr=3e-4"],
    "lr_1e-3": ["finetune.unfrozen.lr=1e-3"],
    "lr_2e-3": ["finetune.unfrozen.lr=2e-3"],
    "decay_0.65": ["finetune.lr_decay=0.65"],
    "decay_0.85": ["finetune.lr_decay=0.85"],
    "views_4": ["finetune.cached_views=4"],
    "smoothing_0": ["label_smoothing=0"],
    "smoothing_0.2": ["label_smoothing=0.2"],
    "smoothing_0.3": ["label_smoothing=0.3"],
    "ema": ["+callbacks.ema={_target_:thaw.training.averaging.EMA,decay:0.99}"],
    "half": ["finetune=partial", "finetune.top=0.5"],
    "combo": [
        "label_smoothing=0.4",
        "augment.crop_scale=[0.2,1.0]",
        "optim.weight_decay=0.1",
    ],
    "quick": ["experiment=quick"],
    "best": ["experiment=best"],
}


def measure(candidate: str, data: str, backbone: str, seed: int) -> dict[str, Any]:
    """One run, as a line of the file."""
    name, file = BACKBONES[backbone]
    words = [f"backbone={name}", f"seed={seed}", *DATA[data][0], *COMMON, *CANDIDATES[candidate]]
    if file is not None:
        words.append(f"backbone.weights='{Path(os.environ['THAW_DATA'], 'weights', file)}'")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="recipes-") as folder:
        cfg = compose_run(words)
        cfg.paths.output_dir = folder
        results = run(cfg)
        history = json.loads(Path(folder, "history.json").read_text(encoding="utf-8"))
    accuracies = {"frozen": [], "unfrozen": []}
    for row in history:
        accuracies["frozen" if row["phase"] == "frozen" else "unfrozen"].append(row["val/acc"])
    return {
        "candidate": candidate, "overrides": CANDIDATES[candidate],
        "data": data, "backbone": backbone, "seed": seed, "accuracies": accuracies,
        "frozen": max(accuracies["frozen"], default=None), "val": history[-1]["val/acc"],
        "test": results.get("test/acc"), "ece": results.get("test/ece"),
        "seconds": round(time.perf_counter() - started, 1),
        "phase_seconds": {phase["name"]: phase["seconds"] for phase in results["phases"]},
    }  # fmt: skip


def holds(line: dict[str, Any]) -> bool:
    """Whether the last epoch is at least the best frozen one minus one standard error."""
    frozen = line["frozen"]
    error = sqrt(frozen * (1 - frozen) / DATA[line["data"]][1])
    return line["val"] >= frozen - error


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: a row for each candidate, data set and backbone, with its seeds."""
    rows = [
        "| candidate | data, backbone | best frozen -> last epoch, seed by seed | mean gain | test "
        "| ECE of test | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = dict.fromkeys((each["candidate"], each["data"], each["backbone"]) for each in lines)
    for kind in kinds:
        own = [x for x in lines if (x["candidate"], x["data"], x["backbone"]) == kind]
        own.sort(key=lambda line: line["seed"])
        pairs = ", ".join(
            f"{x['frozen']:.3f} -> {x['val']:.3f}{'' if holds(x) else ' (below)'}" for x in own
        )
        gain = mean(x["val"] - x["frozen"] for x in own)
        tests = f"{mean(x['test'] for x in own):.3f}"
        eces = ", ".join(f"{x['ece']:.3f}" for x in own)
        seconds = mean(x["seconds"] for x in own)
        cells = [kind[0], f"{kind[1]}, {kind[2]}", pairs, f"{gain:+.3f}", tests, eces]
        rows.append(f"| {' | '.join(cells)} | {seconds:.0f} |")
    kept = sum(map(holds, lines))
    rows.append(f"\n{kept} of {len(lines)} runs end at least at the best frozen epoch minus one "
                "standard error.")  # fmt: skip
    return "\n".join(rows)


def main() -> None:
    """Runs what the command line asks for and the file does not hold yet."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("candidates", nargs="*", metavar="candidate", help=", ".join(CANDIDATES))
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
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
