"""How well the scores of `thaw rank` order what training really gives.

    OMP_NUM_THREADS=1 THAW_DATA=<folder of real photos> python -m benchmarks.rank --out /tmp/rank

Scores are of the training photos alone (the verb takes those of validation too); the real result is
accuracy on the validation photos. Everything is kept in rank.json beside this file, and what is
there is not made again; rank.md is written from it. Test splits are not read.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from scipy.stats import pearsonr
from torch import Tensor
from torch.nn import functional

from thaw import launch
from thaw.backbones.taps import Taps
from thaw.features.scores import logme, nearest, probe
from thaw.features.solvers import logistic
from thaw.verbs.subject import Subject, backbone_of, subject_of
from train import run

HERE = Path(__file__).resolve().parent
SCORES = ("probe", "knn", "logme")
QUIET = ["test=false", "callbacks=none", "logger=none", "trainer=cpu", "data.num_workers=0"]
PHOTOS = ("mobilenet_v2", "squeezenet1_0")
SOURCES = ("flowers102", "pets", "dogs_vs_cats")
EPOCHS = (0, 1, 4)  # of pretraining
SHAPES = ["data=shapes", "data.train_pictures=20", "data.val_pictures=1"]
DEMO = ["data=demo", "data.val_pictures=40"]  # 480 to train on, 640 to validate on

TITLES = {
    "tiny": "TinyResNets pretrained on 2,720 drawn shapes for 0 to 4 epochs, and thaw's own at "
    "three sizes, fine-tuned on the demo's flowers: 2 frozen and 4 unfrozen epochs, one seed. "
    "Chance is 0.0625; those pretrained here are hardly above it",
    "photos": "MobileNetV2 and SqueezeNet on three sets of photos at 128 pixels; the real results "
    "are those of recipes.jsonl (head_1e-3, seed 0): 5 frozen and 5 unfrozen epochs. Compared "
    "within a data set: three pairs in all",
    "groups flowers102": "Their layer groups as backbones of growing depth: a head solved on each "
    "for Flowers102. The probe is nearly the same sum, so its figures say little here",
    "groups pets": "The same for Pets",
}


class Results:
    """rank.json: list -> backbone -> scores and real result."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self.known = json.loads(path.read_text(encoding="utf-8"))

    def has(self, group: str, name: str) -> bool:
        return name in self.known.get(group, {})

    def add(self, group: str, name: str, **figures: float) -> None:
        rounded = {key: round(value, 4) for key, value in figures.items()}
        self.known.setdefault(group, {})[name] = rounded
        self.path.write_text(json.dumps(self.known, indent=2) + "\n", encoding="utf-8")
        print(f"{group}: {name}: {rounded}", flush=True)


def trained(out: Path, words: list[str]) -> float:
    """Validation accuracy at the end of a run of train.py."""
    cfg = launch.compose_run([*words, *QUIET, f"paths.root_dir='{out}'"])
    cfg.paths.output_dir = str(out / "runs" / f"{time.time_ns()}")
    return float(run(cfg)["val/acc"])


def scored(features: Tensor, labels: Tensor) -> dict[str, float]:
    """The three scores."""
    return {
        "probe": probe(features, labels).accuracy,
        "knn": nearest(features, labels)[0],
        "logme": logme(features, labels),
    }


def subject(out: Path, words: list[str]) -> Subject:
    cfg = launch.compose_run([*words, *QUIET, f"paths.root_dir='{out}'"])
    return subject_of(cfg, backbone_of(cfg))


def parts_of(found: Subject) -> tuple[dict[str, Tensor], Tensor, int]:
    """Features (P, D) after each layer group, labels (P,), and how many of them are to train on."""
    taps = Taps(found.backbone)
    features, labels = found.features(found.runner(taps))
    parts = features.split(taps.widths, 1)
    return dict(zip(taps.names, parts, strict=True)), labels, len(found.data.train)


def of_training(found: Subject) -> dict[str, float]:
    """The scores of the body's features of the training photos."""
    parts, labels, number = parts_of(found)
    *_, last = parts.values()
    return scored(last[:number], labels[:number])


def pretrained(out: Path, epochs: int) -> list[str]:
    """A TinyResNet that has seen shapes for so many epochs."""
    if epochs == 0:
        return ["backbone=tiny", "backbone.weights=null"]
    file = out / f"tiny{epochs}.safetensors"
    if not file.is_file():
        mode = ["finetune=from_scratch", "finetune.unfrozen.lr=4e-3",
                "finetune.unfrozen.warmup_epochs=0.5", f"trainer.max_epochs={epochs}"]  # fmt: skip
        trained(out, [*SHAPES, "backbone=tiny", *mode, f"save_backbone='{file}'"])
    return ["backbone=tiny", f"backbone.weights='{file}'"]


def tiny_ones(out: Path, results: Results) -> None:
    """Small nets of our own."""
    candidates = [(f"{epochs} epochs", epochs, 64) for epochs in EPOCHS]
    candidates += [(f"thaw's own at {size}", None, size) for size in (32, 48, 64)]
    for name, epochs, size in candidates:
        if results.has("tiny", name):
            continue
        chosen = ["backbone=tiny"] if epochs is None else pretrained(out, epochs)
        words = [*DEMO, *chosen, f"backbone.image_size={size}"]
        mode = ["trainer.max_epochs=6", "finetune.unfreeze_epoch=2",
                "trainer.check_val_every_n_epoch=6"]  # fmt: skip
        real = trained(out, [*words, *mode])
        results.add("tiny", name, **of_training(subject(out, words)), real=real)


def weights(data: Path, name: str) -> list[str]:
    """A backbone of the real photos' folder, at 128 pixels."""
    file = data / "weights" / f"{name}.pth"
    return [f"backbone={name}", f"backbone.weights='{file}'", "backbone.image_size=128",
            f"paths.data_dir='{data}'"]  # fmt: skip


def recorded(source: str, name: str) -> float:
    """Validation accuracy of a whole run with 5 frozen and 5 unfrozen epochs, see recipes.py."""
    lines = (HERE / "recipes.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = ("head_1e-3", source, name, 0)
    for row in map(json.loads, lines):
        if (row["candidate"], row["data"], row["backbone"], row["seed"]) == wanted:
            return row["val_acc"]
    raise KeyError(f"{source}, {name}")


def on_photos(out: Path, data: Path, results: Results) -> None:
    """Two nets of others, whose fine-tuning is on record."""
    for source, name in product(SOURCES, PHOTOS):
        if not results.has("photos", f"{source}, {name}"):
            found = subject(out, [f"data={source}", *weights(data, name)])
            real = recorded(source, name)
            results.add("photos", f"{source}, {name}", **of_training(found), real=real)


def by_group(out: Path, data: Path, results: Results) -> None:
    """Features after each layer group."""
    for source in ("flowers102", "pets"):
        for name in PHOTOS:
            found = subject(out, [f"data={source}", *weights(data, name)])
            group = f"groups {source}"
            if all(results.has(group, f"{name} {part.name}") for part in found.backbone.groups):
                continue
            parts, labels, number = parts_of(found)
            for part, own in parts.items():
                scores = scored(own[:number], labels[:number])
                real = solved(own, labels, number, probe(own[:number], labels[:number]).strength)
                results.add(group, f"{name} {part}", **scores, real=real)


def solved(features: Tensor, labels: Tensor, number: int, strength: float) -> float:
    """Validation accuracy of a head solved on the first `number` photos."""
    train, val = (features[:number], labels[:number]), (features[number:], labels[number:])
    found = logistic(train, val, int(labels.max()) + 1, strengths=[strength])
    scores = functional.linear(val[0], found.weight, found.bias)
    return (scores.argmax(1) == val[1]).float().mean().item()


def tau(rows: dict[str, Any], score: str) -> float:
    """Kendall's, over the pairs of one data set, which a name "data, backbone" begins with."""
    pairs = [
        (one[score] - two[score]) * (one["real"] - two["real"])
        for (name, one), (other, two) in combinations(rows.items(), 2)
        if name.rpartition(", ")[0] == other.rpartition(", ")[0]
    ]
    return sum((pair > 0) - (pair < 0) for pair in pairs) / len(pairs)


def page(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The lines of rank.md."""
    yield "# How well the scores of `thaw rank` order real results"
    yield ""
    yield "Made by `python -m benchmarks.rank`; figures in rank.json. Kendall's tau counts pairs"
    yield "in the right order (1: all, 0: half, -1: none), Pearson's r how near to a line they lie."
    yield ""
    yield "| backbones | number | " + " | ".join(f"{s}: tau | {s}: r" for s in SCORES) + " |"
    yield "|---" * (2 + 2 * len(SCORES)) + "|"
    for group, rows in known.items():
        real = [row["real"] for row in rows.values()]
        cells = []
        for score in SCORES:
            several = any(
                ", " in name for name in rows
            )  # data sets; one line for all means nothing
            r = pearsonr([row[score] for row in rows.values()], real).statistic
            cells += [f"{tau(rows, score):.2f}", "" if several else f"{r:.2f}"]
        yield f"| {group} | {len(rows)} | " + " | ".join(cells) + " |"
    for group, rows in known.items():
        yield ""
        yield f"## {group}"
        yield ""
        yield f"{TITLES[group]}."
        yield ""
        yield "| backbone | " + " | ".join(SCORES) + " | real |"
        yield "|---" * (2 + len(SCORES)) + "|"
        for name, row in sorted(rows.items(), key=lambda pair: -pair[1]["real"]):
            figures = " | ".join(f"{row[key]:.3f}" for key in (*SCORES, "real"))
            yield f"| {name} | {figures} |"


def main() -> None:
    """Measures what is missing, then writes the page."""
    parser = argparse.ArgumentParser()
    default = os.environ.get("THAW_DATA", "../shared/data")
    parser.add_argument("--out", type=Path, required=True, help="scratch folder")
    parser.add_argument("--data", type=Path, default=default, help="real photos")
    parser.add_argument("--only", choices=("tiny", "photos", "groups"))
    given = parser.parse_args()
    out, data = given.out.resolve(), given.data.resolve()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = Results(HERE / "rank.json")
    if given.only in (None, "groups"):
        by_group(out, data, results)
    if given.only in (None, "tiny"):
        tiny_ones(out, results)
    if given.only in (None, "photos"):
        on_photos(out, data, results)
    (HERE / "rank.md").write_text("\n".join(page(results.known)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
