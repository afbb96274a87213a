"""Speed is images over seconds, and measuring it trains nothing."""

import time

import torch
from models import SPEC, small_backbone
from torch import Tensor, nn

from thaw import transforms
from thaw.features.extraction import Runner
from thaw.features.speed import CPU_BATCH, speed

CPU = torch.device("cpu")


def runner(body: nn.Module) -> Runner:
    normalise = transforms.normalise(SPEC)
    return Runner(body, normalise, precision="32-true", device=CPU, channels_last=False)


class Slow(nn.Module):
    """Takes 20 ms forward in evaluation, 60 in training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(0.06 if self.training else 0.02)
        return images.mean((2, 3)) * self.weight


def test_images_over_seconds() -> None:
    found = speed(runner(Slow()), size=8, width=3, classes=2, batch_size=64)
    for rate, seconds in ((found.forward, 0.02), (found.training, 0.06)):
        assert 0.3 * CPU_BATCH / seconds < rate <= CPU_BATCH / seconds


def test_no_weight_moves() -> None:
    body = small_backbone().body
    before = {name: value.clone() for name, value in body.named_parameters()}
    found = speed(runner(body), size=16, width=8, classes=4, batch_size=1)
    assert found.forward > found.training > 0
    assert all(torch.equal(value, before[name]) for name, value in body.named_parameters())
    assert not body.training
