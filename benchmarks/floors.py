"""What no tool can beat with this network and these photos: the floors of bench.py.

    python benchmarks/floors.py passes --repeats 3   decode only, one forward pass, steps in memory
    python benchmarks/floors.py bare --epochs 2      a plain loop: training and validation

As fast as plain code gets here: thaw's decoder and its allocator setting, views cut as uint8 by
workers that stay, normalised as a batch, channels_last, nothing logged. So a ratio to a floor
hides no waste in the floor.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from job import BATCH, CLASSES, CROP_SCALE, MEAN, MEMORY_IMAGES, RESIZE, SIZE, STD, Job
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision.transforms import v2

from thaw.data.decode import decode
from thaw.training.device import keep_freed_memory

TRAIN_VIEW = v2.Compose(
    [v2.RandomResizedCrop(SIZE, scale=CROP_SCALE, antialias=True), v2.RandomHorizontalFlip()]
)
EVAL_VIEW = v2.Compose([v2.Resize(RESIZE, antialias=True), v2.CenterCrop(SIZE)])
NORMALISE = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


class Photos(Dataset[tuple[Tensor, int]]):
    """Decoded, cut to a view, uint8."""

    def __init__(self, job: Job, split: str) -> None:
        self.paths, self.labels = job.photos(split)
        self.view = TRAIN_VIEW if split == "train" else EVAL_VIEW

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.view(decode(self.paths[index])), self.labels[index]


def make_loader(job: Job, split: str) -> DataLoader:
    """As thaw's, without what makes it resumable."""
    more = {"persistent_workers": True, "prefetch_factor": 4} if job.workers else {}
    shuffle = split == "train"
    return DataLoader(Photos(job, split), BATCH, shuffle=shuffle, num_workers=job.workers, **more)


def make_model(job: Job) -> models.MobileNetV2:
    """Pretrained, with a new last layer."""
    model = models.mobilenet_v2()
    model.load_state_dict(torch.load(job.weights, weights_only=True))
    model.classifier[1] = nn.Linear(model.last_channel, CLASSES)
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def ready(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> what the network takes."""
    return NORMALISE(images).contiguous(memory_format=torch.channels_last)


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def decode_all(job: Job) -> None:
    """Training and validation photos, once, workers started as at the start of a run."""
    for split in ("train", "val"):
        for _ in make_loader(job, split):
            pass


def forward_all(job: Job, model: models.MobileNetV2) -> None:
    """The same, and the frozen body on them."""
    model.eval()
    with torch.inference_mode():
        for split in ("train", "val"):
            for images, _ in make_loader(job, split):
                model.features(ready(images)).mean((2, 3))


def train_step(
    model: nn.Module, optimiser: optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    """Forward, backward, step."""
    optimiser.zero_grad()
    functional.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
    optimiser.step()


def memory_steps(model: models.MobileNetV2, number: int = MEMORY_IMAGES // BATCH) -> None:
    """Training steps on one batch that is there already."""
    model.train()
    images = ready(torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8))
    labels = torch.randint(0, CLASSES, (BATCH,))
    optimiser = optim.AdamW(model.parameters(), 1e-9)
    for _ in range(number):
        train_step(model, optimiser, images, labels)


def passes(job: Job, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat, the three in turn."""
    model = make_model(job)
    memory_steps(model, 1)  # warms up
    seconds: dict[str, list[float]] = {"decode": [], "forward": [], "memory": []}
    for _ in range(repeats):
        seconds["decode"].append(timed(lambda: decode_all(job)))
        seconds["forward"].append(timed(lambda: forward_all(job, model)))
        seconds["memory"].append(timed(lambda: memory_steps(model)))
    return seconds


def bare(job: Job, epochs: int) -> list[float]:
    """Seconds of each epoch: training on all photos with everything unfrozen, then validation."""
    model = make_model(job)
    optimiser = optim.AdamW(model.parameters(), 1e-4)
    loaders = {split: make_loader(job, split) for split in ("train", "val")}

    def epoch() -> None:
        model.train()
        for images, labels in loaders["train"]:
            train_step(model, optimiser, ready(images), labels)
        model.eval()
        right = torch.zeros(())
        with torch.inference_mode():
            for images, labels in loaders["val"]:
                right += (model(ready(images)).argmax(1) == labels).sum()

    return [timed(epoch) for _ in range(epochs)]


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("passes", "bare"))
    default = os.environ.get("THAW_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=default, help="holds flowers-102/, weights/")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode")
    parser.add_argument("--repeats", type=int, default=3, help="of each pass")
    parser.add_argument("--epochs", type=int, default=2, help="of the bare loop")
    given = parser.parse_args()
    job = Job(given.data, frozen=0, unfrozen=0, seed=0, workers=given.workers)
    keep_freed_memory()
    if given.what == "passes":
        print(json.dumps(passes(job, given.repeats)))
    else:
        print(json.dumps({"epochs": bare(job, given.epochs)}))


if __name__ == "__main__":
    main()
