"""Images a second of thaw on a GPU, frozen and unfrozen, beside a bare loop and its own loaders.

    python benchmarks/gpu.py                    ResNet-50 at 224 px; writes gpu.json and gpu.md here
    python benchmarks/gpu.py data.num_workers=15    with settings of thaw
    python benchmarks/gpu.py --device cpu --quick   does it all work? Prints, writes nothing

The photos are noise that this script draws, 500 x 375 JPEGs; no weights are needed. The bare loop
repeats one batch that lies on the device already: no loader is faster than that. The loaders are
measured alone too: the slower of the two bounds an epoch. All runs are in this process, the
compiled ones last; after --seconds no other is begun.
"""

import argparse
import contextlib
import gc
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from loading import loading
from PIL import Image
from torch import nn, optim
from torch.nn import functional
from torchvision import models

from thaw.backbones.folding import fold
from thaw.compose import compose_run
from thaw.training.device import best_precision, describe

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # train.py
CLASSES = 10
DRAWN = 512  # photos; the others are copies of these
WARM_UP, COUNTED = 1, 3  # epochs; in the first the cache is filled and kernels are chosen
PLANS = {
    # all of it trains, as in the bare loop
    "unfrozen": ["finetune=full", "finetune.unfrozen.warmup_epochs=0", "finetune.depthwise=train"],
    "frozen": ["finetune=feature_extraction", "finetune.cache_features=false"],
}
Row = dict[str, float]  # rate: images a second; memory: the peak of tensors on the GPU, GB


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


def with_memory(rate: float) -> Row:
    """Adds the peak since `fresh`."""
    on_gpu = torch.cuda.is_available()
    return {"rate": rate, **({"memory": torch.cuda.max_memory_allocated() / 1e9} if on_gpu else {})}


def fresh() -> None:
    """Nothing left on the device, and nothing that was compiled."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def device_of(given: argparse.Namespace) -> torch.device:
    """The device of --device."""
    return torch.device("cuda", 0) if given.device == "gpu" else torch.device("cpu")


def bare(given: argparse.Namespace, plan: str, compiled: bool) -> Row:
    """A plain loop on one batch that is on the device, with BatchNorm as thaw has it.

    That is in eval, and inside the convolutions where the body trains and nothing is compiled;
    folding.py compares with and without.
    """
    device = device_of(given)
    torch.backends.cudnn.benchmark = True  # as the runs of thaw here
    model: Any = models.get_model(given.backbone, num_classes=CLASSES)
    model = model.to(device, memory_format=torch.channels_last).train()
    for module in model.modules():
        module.train(not isinstance(module, nn.BatchNorm2d))
    if plan == "frozen":
        model.requires_grad_(False).eval()
        [*model.children()][-1].requires_grad_(True)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimiser = optim.AdamW(trained, 1e-6, fused=True)
    run: Any = torch.compile(model) if compiled else model
    shape = (given.batch, 3, given.size, given.size)
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (given.batch,), device=device)
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    kind = kinds.get(best_precision(given.device))

    folds = plan == "unfrozen" and not compiled
    context = fold(model, images) if folds else contextlib.nullcontext

    def steps(number: int) -> float:
        began = time.perf_counter()
        for _ in range(number):
            optimiser.zero_grad()
            with torch.autocast(device.type, kind, enabled=kind is not None), context():
                loss = functional.cross_entropy(run(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        trained[0].sum().item()  # waits for the device
        return time.perf_counter() - began

    steps(3)
    number = max(1, given.photos // given.batch)
    return with_memory(number * given.batch / median(steps(number) for _ in range(COUNTED)))


def thaw(given: argparse.Namespace, words: list[str], folder: Path) -> Row:
    """A run of train.py, by its epochs after the warm-up."""
    from train import run

    cfg = compose_run([
        *words, f"trainer={given.device}", f"trainer.max_epochs={WARM_UP + COUNTED}",
        "test=false", "callbacks=none", "logger=none", "trainer.benchmark=true",
        "callbacks.checkpoint=null", "callbacks.last=null",  # 300 MB an epoch, to a slow disk
        "+callbacks.watch._target_=watch.Watch",
    ])  # fmt: skip
    cfg.paths.output_dir = str(folder)
    folder.mkdir(parents=True)
    with (folder / "log.txt").open("w") as file, contextlib.redirect_stdout(file):
        run(cfg)
    epochs = json.loads((folder / "watch.json").read_text())["epochs"]
    return with_memory(given.photos / median(epochs[WARM_UP:]))


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, Row]:
    """Rows by name: loaders alone; of each plan the bare loop and thaw with each loader."""
    began = time.perf_counter()
    rows: dict[str, Row] = {}
    photos = draw_photos(scratch / "photos", given.photos)
    settings = [
        f"backbone={given.backbone}", "backbone.weights=null", f"backbone.image_size={given.size}",
        "data=folder", f"data.root='{photos}'", "data.val_fraction=0",
        f"data.batch_size={given.batch}", f"paths.cache_dir='{scratch}/cache'", *given.settings,
    ]  # fmt: skip

    def add(name: str, work: Callable[[], Row]) -> None:
        spent = time.perf_counter() - began
        if spent > given.seconds:
            print(f"{name}: left out after {spent:.0f} s", flush=True)
            return
        fresh()
        try:
            rows[name] = work()
            print(f"{name}: {rows[name]}", flush=True)
        except Exception:  # the other figures are still worth having
            print(f"{name}: failed\n{traceback.format_exc(limit=-4)}", flush=True)

    for compiled, plan in ((False, "unfrozen"), (False, "frozen"), (True, "unfrozen")):
        end = ", compiled" if compiled else ""
        add(f"{plan}: bare loop{end}", lambda p=plan, c=compiled: bare(given, p, c))
        for cache in ("ram",) if compiled else ("none", "ram"):
            words = [*settings, *PLANS[plan], f"data.cache={cache}"]
            words.append(f"compile={str(compiled).lower()}")
            folder = scratch / f"{plan}-{compiled}-{cache}"
            name = f"{plan}: thaw, cache={cache}{end}"
            add(name, lambda words=words, folder=folder: thaw(given, words, folder))
        if plan == "unfrozen" and not compiled:
            for cache in ("none", "ram"):
                words = [*settings, f"data.cache={cache}"]
                add(f"loader, cache={cache}", lambda words=words: {"rate": loading(words)})
    return rows


def page(given: argparse.Namespace, rows: dict[str, Row]) -> str:
    """Markdown; of each run of thaw the share of what bounds it, the bare loop or the loader."""
    lines = [
        f"# {given.backbone} at {given.size} px on {describe(device_of(given))}", "",
        f"- command: python {' '.join(sys.argv)}",
        f"- torch {torch.__version__}, {best_precision(given.device)}, channels_last, batch "
        f"{given.batch}, {given.photos} photos of 500 x 375, {os.cpu_count()} CPUs", "",
        "| | images/s | bound by | share of the bound | peak GB |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, row in rows.items():
        plan, _, rest = name.partition(": thaw, ")
        cache, _, compiled = rest.partition(", ")
        end = ", compiled" if compiled else ""
        bounds = [each for each in (f"{plan}: bare loop{end}", f"loader, {cache}") if each in rows]
        cells = ["", ""]
        if rest and bounds:
            bound = min(bounds, key=lambda each: rows[each]["rate"])
            cells = [bound, f"{row['rate'] / rows[bound]['rate']:.2f}"]
        memory = f"{row['memory']:.1f}" if "memory" in row else ""
        lines.append(f"| {name} | {row['rate']:.0f} | {' | '.join(cells)} | {memory} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints, and writes unless it is quick."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("settings", nargs="*", help="of thaw")
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
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(given, Path(temporary))
    text = page(given, rows)
    print(text)
    if not given.quick:
        (HERE / "gpu.md").write_text(text, encoding="utf-8")
        (HERE / "gpu.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
