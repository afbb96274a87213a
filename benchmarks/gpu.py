"""Images a second of thaw on a GPU, frozen and unfrozen, beside a bare loop and its own loaders.

    python benchmarks/gpu.py                    ResNet-50 at 224 px; writes gpu.json and gpu.md here
    python benchmarks/gpu.py --device cpu --quick   does it all work? Prints, writes nothing

The photos are noise that this script draws, 500 x 375 JPEGs; no weights are needed. The bare loop
repeats one batch that lies on the device already: no loader is faster than that. The loaders are
measured alone too: the slower of the two is what bounds an epoch. All runs are in this process,
the compiled ones last; after --seconds no other is begun.
"""

import argparse
import contextlib
import gc
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from loading import loading
from PIL import Image
from torch import nn, optim
from torch.nn import functional
from torchvision import models

from thaw import launch
from thaw.training.device import best_precision, describe, main_device

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # train.py
CLASSES = 10
DRAWN = 512  # photos; the others are copies of these
WARM_UP, COUNTED = 1, 3  # epochs; in the first the cache is filled and kernels are chosen
TARGET = 0.95  # of what bounds it, unfrozen
PLANS = {
    "unfrozen": ["finetune=full", "finetune.unfrozen.warmup_epochs=0"],
    "frozen": ["finetune=feature_extraction", "finetune.cache_features=false"],
}
LOADERS = {"cached": ["data.cache=ram"], "decoding": ["data.cache=none"]}
ALONE = "loaders alone"


@dataclass(frozen=True)
class Measured:
    """What one way of training does.

    Attributes:
        rate: images a second, over whole epochs.
        step_rate: the same by the median time from step to step, without the epoch's ends.
        memory: the most that tensors took on the GPU, GB.
        first: seconds until the first counted epoch.
    """

    rate: float
    step_rate: float | None = None
    memory: float | None = None
    first: float | None = None


def draw_photos(folder: Path, number: int) -> Path:
    """JPEGs of smooth noise, which compress about as photos do."""
    generator = torch.Generator().manual_seed(0)
    paths = [folder / f"{index % CLASSES}" / f"{index}.jpg" for index in range(number)]
    for index, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        if index < DRAWN:
            noise = torch.randint(0, 256, (47, 63, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(noise.numpy()).resize((500, 375), Image.Resampling.BICUBIC).save(path)
        else:
            shutil.copyfile(paths[index % DRAWN], path)
    return folder


def peak() -> float | None:
    """Since the last `fresh`, GB."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def fresh() -> None:
    """Nothing left on the device, and nothing that was compiled."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def bare(given: argparse.Namespace, plan: str, compiled: bool) -> Measured:
    """A plain loop on one batch that is on the device."""
    began = time.perf_counter()
    device = main_device(given.device)
    torch.backends.cudnn.benchmark = True  # as thaw's trainer
    model: Any = models.get_model(given.backbone, num_classes=CLASSES)
    model = model.to(device, memory_format=torch.channels_last).train()
    head = [*model.children()][-1]
    if plan == "frozen":
        model.requires_grad_(False).eval()
        head.requires_grad_(True)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimiser = optim.AdamW(trained, 1e-6, fused=True)
    run: nn.Module = torch.compile(model) if compiled else model  # pyright: ignore[reportAssignmentType]
    shape = (given.batch, 3, given.size, given.size)
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (given.batch,), device=device)
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    kind = kinds.get(best_precision(given.device))

    def steps(number: int) -> float:
        began = time.perf_counter()
        for _ in range(number):
            optimiser.zero_grad()
            with torch.autocast(device.type, kind, enabled=kind is not None):
                loss = functional.cross_entropy(run(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        trained[0].sum().item()  # waits for the device
        return time.perf_counter() - began

    steps(3)
    first = time.perf_counter() - began
    number = max(1, given.photos // given.batch)
    rate = number * given.batch / median(steps(number) for _ in range(COUNTED))
    return Measured(rate, rate, peak(), first)


def settings(given: argparse.Namespace, photos: Path, folder: Path) -> list[str]:
    """Of train.py, for all runs."""
    return [
        f"backbone={given.backbone}", "backbone.weights=null", f"backbone.image_size={given.size}",
        "data=folder", f"data.root='{photos}'", "data.val_fraction=0",
        f"data.batch_size={given.batch}", f"paths.root_dir='{folder}'",
        f"paths.cache_dir='{folder}/cache'", f"paths.output_dir='{folder}'",
    ]  # fmt: skip


def thaw(given: argparse.Namespace, words: list[str], folder: Path, log: Path) -> Measured:
    """A run of train.py, by its epochs after the warm-up."""
    from train import run

    every = [*words, f"trainer={given.device}", f"trainer.max_epochs={WARM_UP + COUNTED}",
             "test=false", "callbacks=none", "logger=none",
             "+callbacks.watch._target_=watch.Watch"]  # fmt: skip
    with initialize_config_dir(str(HERE.parent / "conf"), version_base="1.3"):
        cfg = compose("train", every)
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        run(cfg)
    seen = json.loads((folder / "watch.json").read_text())
    steps = seen["steps"]
    between = [later - earlier for earlier, later in itertools.pairwise(steps)]
    return Measured(
        given.photos / median(seen["epochs"][WARM_UP:]), given.batch / median(between), peak(),
        sum(seen["epochs"][:WARM_UP]),
    )  # fmt: skip


Found = dict[str, dict[str, Measured]]


def measure(given: argparse.Namespace, scratch: Path, found: Found) -> None:
    """Fills `found`: loaders alone; by plan, the bare loop and thaw with each loader."""
    began = time.perf_counter()
    photos = draw_photos(scratch / "photos", given.photos)
    print(f"photos drawn in {time.perf_counter() - began:.0f} s", flush=True)
    log = scratch / "thaw.log"

    def add(part: str, name: str, work: Any, *arguments: Any) -> None:
        spent = time.perf_counter() - began
        if spent > given.seconds:
            print(f"{part}, {name}: left out after {spent:.0f} s", flush=True)
            return
        fresh()
        try:
            found.setdefault(part, {})[name] = work(*arguments)
        except Exception:  # the other figures are still worth having
            print(f"{part}, {name}: failed\n{traceback.format_exc(limit=-4)}", flush=True)
            return
        print(f"{part}, {name}: {found[part][name]} at {time.perf_counter() - began:.0f} s",
              flush=True)  # fmt: skip

    def alone(words: list[str]) -> Measured:
        return Measured(loading(words))

    for compiled in (False, True):
        end = ", compiled" if compiled else ""
        for plan, mode in PLANS.items():
            if compiled and plan == "frozen":
                continue  # a minute more, for what decoding bounds
            add(plan, f"bare{end}", bare, given, plan, compiled)
            for name, loader in LOADERS.items():
                if compiled and name == "decoding":
                    continue
                folder = scratch / f"{plan}-{compiled}-{name}"
                words = [*settings(given, photos, folder), *mode, *loader]
                words.append(f"compile={str(compiled).lower()}")
                add(plan, f"thaw, {name}{end}", thaw, given, words, folder, log)
        if not compiled:
            for name, loader in LOADERS.items():
                add(ALONE, name, alone, [*settings(given, photos, scratch), *loader])


def page(given: argparse.Namespace, found: Found) -> str:
    """Markdown."""
    lines = [
        f"# {given.backbone} at {given.size} px on {describe(main_device(given.device))}", "",
        f"- command: python {' '.join(sys.argv)}",
        f"- torch {torch.__version__}, {best_precision(given.device)}, channels_last, batch "
        f"{given.batch}, {given.photos} photos of 500 x 375, {os.cpu_count()} CPUs",
        f"- targets: unfrozen {TARGET} of the bare loop where the loader is not the bound; frozen "
        "bound by decoding only", "",
        "| | images/s | step to step | of the bare loop | bound | of the bound | peak GB | first |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    loaders = found.get(ALONE, {})
    for part, rows in found.items():
        for name, row in rows.items():
            cells = [f"{part}: {name}", f"{row.rate:.0f}",
                     f"{row.step_rate:.0f}" if row.step_rate else ""]  # fmt: skip
            free = rows.get("bare, compiled" if name.endswith("compiled") else "bare")
            loader = loaders.get(name.removeprefix("thaw, ").removesuffix(", compiled"))
            if name.startswith("thaw") and free and loader:
                bound = min(("network", free), ("loader", loader), key=lambda pair: pair[1].rate)
                cells += [f"{row.rate / free.rate:.2f}", bound[0]]
                cells.append(f"{row.rate / bound[1].rate:.2f}")
            else:
                cells += ["", "", ""]
            cells.append(f"{row.memory:.1f}" if row.memory is not None else "")
            cells.append(f"{row.first:.0f} s" if row.first is not None else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints, and writes unless it is quick."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--photos", type=int, default=8192)
    parser.add_argument("--seconds", type=float, default=600, help="after which nothing is begun")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="ResNet-18, 64 photos at 64 px")
    given = parser.parse_args()
    if given.quick:
        given.backbone, given.size, given.batch, given.photos = "resnet18", 64, 16, 64
    if given.device == "gpu" and not torch.cuda.is_available():
        parser.error("there is no GPU here that torch sees; --device cpu measures the same there")
    launch.register_backbones()
    found: Found = {}
    with tempfile.TemporaryDirectory() as temporary:
        measure(given, Path(temporary), found)
    text = page(given, found)
    print(text)
    if not given.quick:
        content = {part: {name: asdict(row) for name, row in rows.items()}
                   for part, rows in found.items()}  # fmt: skip
        (HERE / "gpu.md").write_text(text, encoding="utf-8")
        (HERE / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
