"""Images a second of thaw on a GPU, frozen and unfrozen, beside a bare loop and its own loaders.

    python benchmarks/gpu.py                    ResNet-50 at 224 px; writes gpu.json and gpu.md here
    python benchmarks/gpu.py --device cpu --quick   does it all work? Prints, writes nothing

The photos are noise that this script draws, 500 x 375 JPEGs; no weights are needed. The bare loop
repeats one batch that lies on the device already: no loader is faster than that. The loaders are
measured alone too, so that one sees which of the two bounds an epoch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from loading import loading
from PIL import Image
from torch import nn, optim
from torch.nn import functional
from torchvision import models

from thaw import launch
from thaw.training.device import best_precision, describe, main_device

HERE = Path(__file__).resolve().parent
CLASSES, WARM_UP, TARGET = (
    10,
    2,
    0.95,
)  # epochs or steps before the ones that count; of the bare loop
PLANS = {
    "frozen": ["finetune=feature_extraction", "finetune.cache_features=false"],
    "unfrozen": ["finetune=full", "finetune.unfrozen.warmup_epochs=0"],
}
LOADERS = {
    "decoding": ["data.cache=none"],
    "cached": ["data.cache=ram"],
    "cached, cropped on the device": ["data.cache=ram", "data.augment_on=device"],
}


def draw_photos(folder: Path, number: int) -> Path:
    """JPEGs of smooth noise, which compress about as photos do."""
    generator = torch.Generator().manual_seed(0)
    for index in range(number):
        noise = torch.randint(0, 256, (47, 63, 3), dtype=torch.uint8, generator=generator)
        path = folder / f"{index % CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.numpy()).resize((500, 375), Image.Resampling.BICUBIC).save(path)
    return folder


def bare(given: argparse.Namespace, plan: str, compiled: bool) -> float:
    """Images a second of a plain loop on one batch that is on the device."""
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
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(
        best_precision(given.device)
    )

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

    steps(WARM_UP)
    number = max(1, given.photos // given.batch)
    return number * given.batch / median(steps(number) for _ in range(3))


def settings(given: argparse.Namespace, photos: Path, folder: Path) -> list[str]:
    """Of train.py, for all runs."""
    return [
        f"backbone={given.backbone}", "backbone.weights=null", f"backbone.image_size={given.size}",
        "data=folder", f"data.root='{photos}'", "data.val_fraction=0",
        f"data.batch_size={given.batch}", f"paths.root_dir='{folder}'",
        f"paths.cache_dir='{folder}/cache'",
    ]  # fmt: skip


def thaw(given: argparse.Namespace, words: list[str], folder: Path) -> float:
    """Images a second of a run of train.py, by its epochs after the warm-up."""
    epochs = WARM_UP + (1 if given.quick else 4)
    command = [
        sys.executable, str(HERE.parent / "train.py"), *words, f"trainer={given.device}",
        f"trainer.max_epochs={epochs}", "test=false", "callbacks=none",
        "+callbacks.watch._target_=watch.Watch", f"hydra.run.dir='{folder}'",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    seen = json.loads((folder / "watch.json").read_text())
    return given.photos / median(seen["epochs"][WARM_UP:])


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, dict[str, float]]:
    """Images a second, by what is measured: bare loop and thaw by plan, loaders alone."""
    photos = draw_photos(scratch / "photos", given.photos)
    found: dict[str, dict[str, float]] = {"frozen": {}, "unfrozen": {}, "loaders alone": {}}
    for name, loader in LOADERS.items():
        words = settings(given, photos, scratch)
        found["loaders alone"][name] = loading([*words, *loader])
        print(f"{name}, alone: {found['loaders alone'][name]:.0f} images/s", flush=True)
    for plan, mode in PLANS.items():
        for compiled in (False, True):
            end = ", compiled" if compiled else ""
            found[plan][f"bare{end}"] = bare(given, plan, compiled)
            if torch.cuda.is_available():  # what comes next is another process
                torch.cuda.empty_cache()
            for index, (name, loader) in enumerate(LOADERS.items()):
                folder = scratch / f"{plan}-{compiled}-{index}"
                words = settings(given, photos, folder)
                words += [*mode, *loader, f"compile={str(compiled).lower()}"]
                found[plan][f"thaw, {name}{end}"] = thaw(given, words, folder)
            print(plan, {name: round(rate) for name, rate in found[plan].items()}, flush=True)
    return found


def page(given: argparse.Namespace, found: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    lines = [
        f"# {given.backbone} at {given.size} px on {describe(main_device(given.device))}", "",
        f"- command: python {' '.join(sys.argv)}",
        f"- torch {torch.__version__}, {best_precision(given.device)}, channels_last, batch "
        f"{given.batch}, {given.photos} photos of 500 x 375, {os.cpu_count()} CPUs", "",
        f"| | images/s | of the bare loop (target {TARGET}) |", "| --- | --- | --- |",
    ]  # fmt: skip
    for part, rates in found.items():
        for name, rate in rates.items():
            bare_rate = rates.get("bare, compiled" if name.endswith("compiled") else "bare")
            share = f"{rate / bare_rate:.2f}" if bare_rate else ""
            lines.append(f"| {part}: {name} | {rate:.0f} | {share} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints, and writes unless it is quick."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--photos", type=int, default=8192)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="ResNet-18, 64 photos at 64 px")
    given = parser.parse_args()
    if given.quick:
        given.backbone, given.size, given.batch, given.photos = "resnet18", 64, 16, 64
    if given.device == "gpu" and not torch.cuda.is_available():
        parser.error("there is no GPU here that torch sees; --device cpu measures the same there")
    launch.register_backbones()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(given, Path(temporary))
    text = page(given, found)
    print(text)
    if not given.quick:
        (HERE / "gpu.md").write_text(text, encoding="utf-8")
        (HERE / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
