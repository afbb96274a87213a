"""What no tool can beat with this network and these photos: the floors of bench.py.

    python benchmarks/floors.py --epochs 2      one forward pass; a plain loop with validation

As fast as plain code gets here: thaw's decoder and its allocator setting, views cut as uint8 by
workers that stay, normalised as a batch, channels_last, nothing logged. So a ratio to a floor
hides no waste in the floor.
"""

import json
import time
from collections.abc import Callable

import torch
from job import BATCH, CLASSES, CROP_SCALE, MEAN, RESIZE, SIZE, STD, Job, arguments
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


def forward(job: Job, model: models.MobileNetV2) -> None:
    """The frozen body on all training and validation photos, workers started as in a run."""
    model.eval()
    with torch.inference_mode():
        for split in ("train", "val"):
            for images, _ in make_loader(job, split):
                model.features(ready(images)).mean((2, 3))


def bare(job: Job, model: models.MobileNetV2, epochs: int) -> list[float]:
    """Seconds of each epoch: training on all photos with everything unfrozen, then validation."""
    optimiser = optim.AdamW(model.parameters(), 1e-4)
    loaders = {split: make_loader(job, split) for split in ("train", "val")}

    def epoch() -> None:
        model.train()
        for images, labels in loaders["train"]:
            optimiser.zero_grad()
            scores = model(ready(images))
            functional.cross_entropy(scores, labels, label_smoothing=0.1).backward()
            optimiser.step()
        model.eval()
        right = torch.zeros(())
        with torch.inference_mode():
            for images, labels in loaders["val"]:
                right += (model(ready(images)).argmax(1) == labels).sum()

    return [timed(epoch) for _ in range(epochs)]


def main() -> None:
    """Prints one line of JSON: seconds of one forward pass, and of each epoch of the plain loop."""
    parser = arguments()
    parser.add_argument("--epochs", type=int, default=2, help="of the plain loop")
    given = parser.parse_args()
    job = Job(given.data, workers=given.workers)
    keep_freed_memory()
    model = make_model(job)
    with torch.inference_mode():
        model(torch.rand(BATCH, 3, SIZE, SIZE))  # warms up
    seconds = {"forward": [timed(lambda: forward(job, model))]}
    print(json.dumps({**seconds, "bare_epoch": bare(job, model, given.epochs)}))


if __name__ == "__main__":
    main()
