"""Plain PyTorch, as seed recipes write it: the head first, then everything at smaller rates.

    python benchmarks/peer_plain.py --data ../shared/data

After pytorch.org/tutorials/beginner/transfer_learning_tutorial.html (requires_grad=False, a new
last layer, model.train() in each epoch, so BatchNorm of the frozen body goes on), with Adam and the
discriminative rates that follow-ups add (Howard and Ruder, arXiv:1801.06146: divide by a constant a
layer). --tuned: label smoothing, a cosine in each phase, the body's BatchNorm in eval mode. The
last epoch is the result.
"""

import torch
from job import CLASSES, Job, Stopwatch, asked, keep_statistics
from torch import nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader

STAGES = (  # by resolution, from the head down
    ("blocks.5", "blocks.6", "conv_head", "bn2"), ("blocks.3", "blocks.4"), ("blocks.2",),
    ("blocks.1",), ("conv_stem", "bn1", "blocks.0"),
)  # fmt: skip
DIVISOR = 1.5


def make_model(job: Job) -> nn.Module:
    """The pretrained network with a new last layer."""
    model = job.network(drop_rate=0.2)
    model.classifier = nn.Linear(model.num_features, CLASSES)
    return model.to(job.device)


def set_frozen(model: nn.Module, frozen: bool) -> None:
    """Freezes or unfreezes all but the classifier."""
    for parameter in model.parameters():
        parameter.requires_grad = not frozen
    for parameter in model.classifier.parameters():
        parameter.requires_grad = True


def body_groups(model: nn.Module, rate: float) -> list[dict]:
    """Of the optimiser: each stage has a smaller rate than the one above it."""
    groups = []
    for depth, names in enumerate(STAGES, 1):
        body = [p for name in names for p in model.get_submodule(name).parameters()]
        groups.append({"params": body, "lr": rate / DIVISOR**depth})
    return groups


def fit(job: Job, model: nn.Module, loaders: dict[str, DataLoader], epochs: int,
        optimiser: optim.Optimizer, watch: Stopwatch) -> float:  # fmt: skip
    """Trains and validates; returns the last validation accuracy."""
    cosine = optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * len(loaders["train"]))
    val = 0.0
    for _ in range(epochs):
        model.train()
        if job.tuned:
            keep_statistics(model)
        for images, labels in loaders["train"]:
            images, labels = images.to(job.device), labels.to(job.device)
            optimiser.zero_grad()
            scores = model(images)
            functional.cross_entropy(scores, labels, label_smoothing=job.smoothing).backward()
            optimiser.step()
            if job.tuned:
                cosine.step()
            watch.step()
        val = accuracy(job, model, loaders["val"])
    return val


def accuracy(job: Job, model: nn.Module, loader: DataLoader) -> float:
    """Share of photos whose best class is right."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += (model(images.to(job.device)).argmax(1).cpu() == labels).sum().item()
            total += len(labels)
    return right / total


def main() -> None:
    watch, job = Stopwatch(), asked("plain")
    torch.manual_seed(job.seed)
    model = make_model(job)
    loaders = {split: job.loader(split) for split in ("train", "val")}

    set_frozen(model, True)
    optimiser = optim.Adam(model.classifier.parameters(), job.head_rate)
    with watch.part("frozen"):
        val = fit(job, model, loaders, job.frozen, optimiser, watch)

    set_frozen(model, False)
    head = {"params": model.classifier.parameters(), "lr": job.body_rate}
    optimiser = optim.Adam([head, *body_groups(model, job.body_rate)])
    if job.unfrozen:
        with watch.part("unfrozen"):
            val = fit(job, model, loaders, job.unfrozen, optimiser, watch)

    with watch.part("test"):
        test = accuracy(job, model, job.loader("test")) if job.test else None
    watch.line(val, test)


if __name__ == "__main__":
    main()
