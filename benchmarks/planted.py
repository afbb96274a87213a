"""Plants errors among 1,000 real photos and counts how many of them `thaw check` finds.

    THAW_DATA=my/data python benchmarks/planted.py

Photos of 25 classes go into a scratch folder, split 60 : 20 : 20, three draws of each data set.
Among them are planted 20 wrong labels, 20 exact copies and 20 re-encoded or cropped ones in another
split, 10 broken files, 10 photos off topic (drawn, or of another data set) and 5 placeholders. The
table goes to planted.md. What is found beside the planted counts against precision, also where the
data set itself is wrong: its own copies and labels are not known.
"""

import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from thaw import config
from thaw.compose import compose_run
from thaw.tools import check

DATA = Path(os.environ["THAW_DATA"])
BACKBONE = ["backbone=timm/tf_efficientnet_lite0", "backbone.image_size=128",
            f"backbone.weights={DATA}/weights/tf_efficientnet_lite0.safetensors"]  # fmt: skip
SOURCES = {"flowers102": "pets", "pets": "flowers102", "dogs_vs_cats": "flowers102"}  # off topic
PLANTED = {"label": 20, "exact": 20, "near": 20, "broken": 10, "outlier": 10, "flat": 5}
SPLITS = ("train", "val", "test")
SEEDS = 3


def photos_of(source: str) -> list[tuple[Path, str]]:
    """All photos of a source, with the names of their classes."""
    data = config.build(compose_run([f"data={source}"]).data, "data")
    splits = filter(None, (data.train, data.val, data.test))
    return [(path, data.classes[label]) for photos in splits
            for path, label in zip(photos.paths, photos.labels, strict=True)]  # fmt: skip


def placeholder(rng: np.random.Generator) -> Image.Image:
    """A plain ground with a few words."""
    size = tuple(int(n) for n in rng.integers(120, 400, 2))
    image = Image.new("RGB", size, (int(rng.integers(150, 255)),) * 3)
    ImageDraw.Draw(image).text((size[0] // 5, size[1] // 2), "image not available", fill="grey")
    return image


def drawing(rng: np.random.Generator) -> Image.Image:
    """Coloured shapes: no photo at all."""
    image = Image.new("RGB", (200, 160), tuple(int(n) for n in rng.integers(0, 255, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (int(n) for n in rng.integers(0, 150, 4))
        draw.rectangle((x, y, x + w, y + h), fill=tuple(int(n) for n in rng.integers(0, 255, 3)))
    return image


def changed(path: Path, rng: np.random.Generator, crop: bool) -> Image.Image:
    """A photo at 80 % of its size, or a crop of 70 to 95 % of its sides."""
    image = Image.open(path).convert("RGB")
    if not crop:
        return image.resize((image.width * 4 // 5, image.height * 4 // 5))
    w, h = (int(side * rng.uniform(0.7, 0.95)) for side in image.size)
    x, y = (int(rng.integers(0, n + 1)) for n in (image.width - w, image.height - h))
    return image.crop((x, y, x + w, y + h))


class Scratch:
    """The folder of photos, and what was planted: kind -> sets of photos."""

    def __init__(self, root: Path, source: str, seed: int) -> None:
        self.rng, self.root = np.random.default_rng(seed), root
        self.planted: defaultdict[str, set[frozenset[Path]]] = defaultdict(set)
        every, counts = photos_of(source), Counter[str]()
        kept = self.rng.permutation(sorted({name for _, name in every}))[:25].tolist()
        self.classes, self.files = kept, []
        for n in self.rng.permutation(len(every)):
            path, name = every[n]
            if name in kept and len(self.files) < 1000:
                split = ("train", "train", "train", "val", "test")[counts[name] % 5]
                counts[name] += 1
                self.files.append(self.place(split, name, path.suffix))
                shutil.copy(path, self.files[-1])
        self.order = [int(n) for n in self.rng.permutation(len(self.files))]  # each is used once
        self.others = photos_of(SOURCES[source])

    def place(self, split: str, name: str, suffix: str = ".jpg") -> Path:
        """A new file of a class in a split, under a random name."""
        path = self.root / split / name / f"{self.rng.integers(1 << 60):015x}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def anywhere(self) -> Path:
        """A new file of any class in any split."""
        return self.place(*(str(self.rng.choice(each)) for each in (SPLITS, self.classes)))

    def plant(self) -> None:
        """Plants everything."""
        for _ in range(PLANTED["label"]):
            path = self.files[self.order.pop()]
            wrong = self.rng.choice([name for name in self.classes if name != path.parent.name])
            new = self.place(path.parent.parent.name, str(wrong), path.suffix)
            self.planted["label"].add(frozenset([path.rename(new)]))
        for kind in ("exact", "near"):
            for n in range(PLANTED[kind]):
                path = self.files[self.order.pop()]
                split = self.rng.choice(
                    [each for each in SPLITS if each != path.parent.parent.name]
                )
                new = self.place(str(split), path.parent.name)
                if kind == "exact":
                    shutil.copy(path, new)
                else:
                    changed(path, self.rng, n % 2 == 1).save(new, quality=60)
                self.planted[kind].add(frozenset([path, new]))
        for n in range(PLANTED["broken"]):
            data = self.files[self.order.pop()].read_bytes()
            new = self.anywhere()
            new.write_bytes((data[: len(data) // 2], b"", b"<html>404</html>", data[100:])[n % 4])
            self.planted["broken"].add(frozenset([new]))
        for kind, draw in (("flat", placeholder), ("outlier", drawing)):
            for n in range(PLANTED[kind]):
                new = self.anywhere()
                if kind == "outlier" and n % 2:
                    shutil.copy(self.others[self.rng.integers(len(self.others))][0], new)
                else:
                    draw(self.rng).save(new, quality=80)
                self.planted[kind].add(frozenset([new]))


def measure(source: str, seed: int) -> dict[str, tuple[int, int]]:
    """For each kind how many of the planted were found, and how many were found in all."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Scratch(Path(scratch) / "photos", source, seed)
        made.plant()
        words = ["data=folder", f"data.root={made.root}", f"paths.cache_dir={scratch}/cache"]
        photos, findings, _ = check.look(check.read(ArgumentParser(), [*words, *BACKBONE]))
        found = {
            kind: {frozenset(photos.paths[n] for n in each.photos)
                   for each in findings if kind in each.kinds}
            for kind in PLANTED
        }  # fmt: skip
    return {kind: (len(found[kind] & made.planted[kind]), len(found[kind])) for kind in PLANTED}


def main() -> int:
    """Writes planted.md."""
    lines = [
        "# What `thaw check` finds of what was planted",
        "",
        __doc__.partition("\n\n")[2].strip(),
        "",
        "| photos | kind | planted | found | precision | recall |",
        "|---|---|---|---|---|---|",
    ]
    for source in SOURCES:
        runs = [measure(source, seed) for seed in range(SEEDS)]
        for kind, number in PLANTED.items():
            hits, found = (sum(run[kind][n] for run in runs) for n in (0, 1))
            shares = f"{hits / max(found, 1):.2f} | {hits / (SEEDS * number):.2f}"
            lines.append(f"| {source} | {kind} | {SEEDS} x {number} | {found} | {shares} |")
            print(lines[-1], flush=True)
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
