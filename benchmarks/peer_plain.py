"""Plain PyTorch, as seed recipes write it: the head first, then everything at smaller rates.

    python benchmarks/peer_plain.py --data ../shared/data

After pytorch.org/tutorials/beginner/transfer_learning_tutorial.html (requires_grad=False, a new
last layer, model.train() in each epoch, so BatchNorm of the frozen body goes on), with Adam and the
discriminative rates that follow-ups add (Howard and Ruder, arXiv:1801.06146: divide by a constant a
layer). The last epoch is the result.
"""

import torch
from job import CLASSES, Job, Stopwatch, asked
from torch import nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import models

STAGES = ((14, 19), (7, 14), (4, 7), (2, 4), (0, 2))  # of model.features, by resolution
HEAD_RATE, RATE, DIVISOR = 1e-3, 1e-4, 1.5


def make_model(job: Job) -> models.MobileNetV2:
    """The pretrained network with a new last layer."""
    model = models.mobilenet_v2()
    model.load_state_dict(torch.load(job.weights, weights_only=True))
    model.classifier[1] = nn.Linear(model.last_channel, CLASSES)
    return model


def train(
    model: nn.Module, loader: DataLoader, optimiser: optim.Optimizer, watch: Stopwatch
) -> None:
    """One epoch."""
    model.train()
    for images, labels in loader:
        optimiser.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        watch.step()


def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Share of photos whose best class is right."""
    model.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += (model(images).argmax(1) == labels).sum().item()
            total += len(labels)
    return right / total


def main() -> None:
    watch, job = Stopwatch(), asked()
    torch.manual_seed(job.seed)
    model = make_model(job)
    loaders = {split: job.loader(split) for split in ("train", "val", "test")}
    val = 0.0

    for parameter in model.features.parameters():
        parameter.requires_grad = False
    optimiser = optim.Adam(model.classifier.parameters(), HEAD_RATE)
    with watch.part("frozen"):
        for _ in range(job.frozen):
            train(model, loaders["train"], optimiser, watch)
            val = accuracy(model, loaders["val"])

    for parameter in model.features.parameters():
        parameter.requires_grad = True
    groups = [{"params": model.classifier.parameters(), "lr": RATE}]
    for depth, (start, end) in enumerate(STAGES, 1):
        body = model.features[start:end].parameters()
        groups.append({"params": body, "lr": RATE / DIVISOR**depth})
    optimiser = optim.Adam(groups)
    with watch.part("unfrozen"):
        for _ in range(job.unfrozen):
            train(model, loaders["train"], optimiser, watch)
            val = accuracy(model, loaders["val"])

    with watch.part("test"):
        test = accuracy(model, loaders["test"])
    watch.line(val, test)


if __name__ == "__main__":
    main()
