"""Whether training agrees with what `thaw advise` says.

    OMP_NUM_THREADS=1 THAW_DATA=<folder of real photos> python -m benchmarks.advise --out /tmp/rank

For each case the ways are gone: a head solved on the last layer's features, one on the best earlier
group's, then epochs of the top and of everything. The real result is accuracy on the validation
photos; test splits are not read. On the demo 2 frozen and 8 unfrozen epochs are trained here; on
photos everything was fine-tuned for recipes.jsonl (head_1e-3, seed 0: 5 and 5 epochs), and the top
with --top alone, in the same way, on Dogs-vs-Cats with MobileNetV2. Everything is kept in
advise.json beside this file, and what is there is not made again; advise.md is written from it.
"""

import argparse
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.rank import (
    DEMO,
    HERE,
    PHOTOS,
    SOURCES,
    parts_of,
    recorded,
    solved,
    subject,
    trained,
    weights,
)  # fmt: skip
from benchmarks.recipes import HEAD, whole
from thaw.advice import Depth, advise, removed
from thaw.features.scores import difference, probe

WAYS = ("features", "earlier", "top", "all")
TOP = "dogs_vs_cats, mobilenet_v2"  # whose top is trained too
SHORT = ["trainer.max_epochs=10", "finetune.unfreeze_epoch=2",
         "trainer.check_val_every_n_epoch=10"]  # fmt: skip


def cases(data: Path) -> dict[str, list[str]]:
    """Name -> settings of train.py."""
    few = {
        f"demo, {number} a class": [*DEMO, "backbone=tiny", f"data.train_per_class={number}"]
        for number in (2, 5, 10, 30)
    }
    photos = {
        f"{source}, {name}": [f"data={source}", *weights(data, name)]
        for source, name in product(SOURCES, PHOTOS)
    }
    return {**photos, **few}


def measure(out: Path, words: list[str]) -> dict[str, Any]:
    """What advise says, and what the four ways give."""
    found = subject(out, words)
    parts, labels, number = parts_of(found)
    probes = {name: probe(part, labels) for name, part in parts.items()}
    *_, last = parts
    depths = [
        Depth(name, found.accuracy, *difference(found.right, probes[last].right))
        for name, found in probes.items()
    ]
    counts = torch.tensor(found.data.train.labels).bincount().tolist()
    best = max(depths[:-1], key=lambda depth: depth.accuracy)
    real = {
        way: solved(parts[name], labels, number, probes[name].strength)
        for way, name in (("features", last), ("earlier", best.group))
    }
    if words[0] == DEMO[0]:
        real["top"] = trained(out, [*words, "finetune=partial", "finetune.top=2", *SHORT])
        real["all"] = trained(out, [*words, "finetune=freeze_unfreeze", *SHORT])
    else:
        real["all"] = recorded(found.data.name, found.backbone.name)
    return {
        "per_class": median(counts), "validated": len(labels) - number,
        "depths": [asdict(depth) for depth in depths],
        "real": {way: round(value, 4) for way, value in real.items()},
    }  # fmt: skip


def page(known: dict[str, Any]) -> Iterator[str]:
    """The lines of advise.md."""
    yield "# Whether training agrees with `thaw advise`"
    yield ""
    yield "Made by `python -m benchmarks.advise`; figures in advise.json. Validation accuracy of"
    yield "the four ways; bold: what advise says. probe: of the last layer group; removed: share of"
    yield "the best earlier one's errors that it removes. lost: what the advice is behind the best"
    yield "way (+- standard error of one figure). The rule's two numbers were chosen with these"
    yield "cases in view, so that they agree is no proof; one seed each."
    yield ""
    yield "| case | photos a class | probe | removed | " + " | ".join(WAYS) + " | lost |"
    yield "|---" * (5 + len(WAYS)) + "|"
    for name, row in known.items():
        real, depths = row["real"], [Depth(**depth) for depth in row["depths"]]
        says = advise(row["per_class"], depths).way
        cells = [
            name, f"{row['per_class']:g}", f"{depths[-1].accuracy:.3f}",
            f"{removed(depths):.0%}",
            *(_cell(real.get(way), way == says) for way in WAYS),
        ]  # fmt: skip
        best = max(real.values())
        error = math.sqrt(best * (1 - best) / row["validated"])
        lost = f"{best - real[says]:.3f} +-{error:.3f}" if says in real else ""
        yield f"| {' | '.join(cells)} | {lost} |"


def _cell(value: float | None, chosen: bool) -> str:
    text = "not run" if value is None else f"{value:.3f}"
    return f"**{text}**" if chosen else text


def main() -> None:
    """Measures what is missing, then writes the page."""
    parser = argparse.ArgumentParser()
    default = os.environ.get("THAW_DATA", "../shared/data")
    parser.add_argument("--out", type=Path, required=True, help="scratch folder")
    parser.add_argument("--data", type=Path, default=default, help="real photos")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument("--top", action="store_true", help=f"train the top of {TOP} too")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "advise.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, words in cases(given.data.resolve()).items():
        if name not in known and name.startswith(given.only):
            known[name] = measure(given.out.resolve(), words)
            path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            print(f"{name}: {known[name]}", flush=True)
    row = known.get(TOP)
    if given.top and row and "top" not in row["real"]:
        words = [*cases(given.data.resolve())[TOP], "finetune=partial", "finetune.top=2"]
        row["real"]["top"] = round(trained(given.out.resolve(), [*words, *whole(HEAD)]), 4)
        path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        print(f"{TOP}: top {row['real']['top']}", flush=True)
    (HERE / "advise.md").write_text("\n".join(page(known)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
