"""timm's model, freezing, optimiser groups and schedule in a plain loop.

    python benchmarks/peer_timm.py --data ../shared/data     timm in PYTHONPATH, see `make bench`

After huggingface.co/docs/timm (feature_extraction, reference/optimizers, reference/schedulers) and
the docstrings of timm.utils.freeze and unfreeze (1.0.31). They name no rates for a job like this
one; these are what thaw began with, the head's for the frozen phase and the body's for the other.
--tuned: label smoothing, the body's BatchNorm in eval mode; the cosine is there anyway. The last
epoch is the result.
"""

import torch
from job import CLASSES, Job, Stopwatch, asked, keep_statistics
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy
from timm.utils.model import freeze, unfreeze
from torch import nn
from torch.utils.data import DataLoader

BODY = ["conv_stem", "bn1", "blocks", "conv_head", "bn2"]
DECAY, WEIGHT_DECAY = 0.75, 0.05  # layer_decay of create_optimizer_v2, a layer; timm's for AdamW


def make_model(job: Job) -> nn.Module:
    """The pretrained network with a new classifier."""
    model = job.network()
    model.reset_classifier(CLASSES)
    return model.to(job.device)


def evaluate(job: Job, model: nn.Module, loader: DataLoader) -> float:
    """Top-1 accuracy, a share 0-1."""
    model.eval()
    top1 = AverageMeter()
    with torch.inference_mode():
        for images, labels in loader:
            scores = model(images.to(job.device))
            top1.update(accuracy(scores, labels.to(job.device))[0].item(), len(labels))
    return top1.avg / 100


def fit(job: Job, model: nn.Module, loaders: dict[str, DataLoader], epochs: int, rate: float,
        watch: Stopwatch) -> float:  # fmt: skip
    """Trains what is not frozen, with layer-wise rates and a cosine; returns the val accuracy."""
    updates, val = len(loaders["train"]), 0.0
    loss = LabelSmoothingCrossEntropy(job.smoothing) if job.tuned else nn.CrossEntropyLoss()
    optimiser = create_optimizer_v2(
        model, opt="adamw", lr=rate, weight_decay=WEIGHT_DECAY, layer_decay=DECAY
    )
    scheduler, epochs = create_scheduler_v2(
        optimiser,
        sched="cosine",
        num_epochs=epochs,
        step_on_epochs=False,
        updates_per_epoch=updates,
    )
    for epoch in range(epochs):
        model.train()
        if job.tuned:
            keep_statistics(model)
        for batch, (images, labels) in enumerate(loaders["train"]):
            optimiser.zero_grad()
            loss(model(images.to(job.device)), labels.to(job.device)).backward()
            optimiser.step()
            scheduler.step_update(epoch * updates + batch + 1)
            watch.step()
        val = evaluate(job, model, loaders["val"])
    return val


def main() -> None:
    watch, job = Stopwatch(), asked("timm")
    torch.manual_seed(job.seed)
    model = make_model(job)
    loaders = {split: job.loader(split) for split in ("train", "val")}
    freeze(model, BODY)  # BatchNorm's statistics too
    with watch.part("frozen"):
        val = fit(job, model, loaders, job.frozen, job.head_rate, watch)
    unfreeze(model, BODY)
    with watch.part("unfrozen"):
        val = fit(job, model, loaders, job.unfrozen, job.body_rate, watch)
    with watch.part("test"):
        test = evaluate(job, model, job.loader("test")) if job.test else None
    watch.line(val, test)


if __name__ == "__main__":
    main()
