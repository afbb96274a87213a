"""The tiny backbone and the weights that come with it."""

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.demo_pictures import FLOWERS, draw_flower
from thaw.backbones import tiny


def test_size_and_shapes() -> None:
    net = tiny.TinyResNet(7).eval()
    parameters = sum(p.numel() for p in net.parameters())
    assert 200_000 < parameters < 450_000
    size = tiny.INPUT.size
    with torch.no_grad():
        assert net(torch.zeros(2, 3, size, size)).shape == (2, 7)
        net.fc = torch.nn.Identity()
        assert net(torch.zeros(2, 3, size, size)).shape == (2, 128)
        assert net(torch.zeros(1, 3, 50, 37)).shape == (1, 128)  # any other size as well


def body() -> tiny.TinyResNet:
    """The net as a file holds it: without its last layer."""
    net = tiny.TinyResNet(1)
    net.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return net.eval()


def test_weights_are_small_and_load_strictly() -> None:
    assert tiny.WEIGHTS.stat().st_size < 1_000_000
    net = body()
    net.load_state_dict(load_file(tiny.WEIGHTS))
    assert net.conv1.weight.dtype == torch.float32
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def pictures(first: int, count: int) -> torch.Tensor:
    """Flowers (K * count, 3, H, W), class by class, as the net wants them."""
    drawn = [
        np.asarray(draw_flower(label, np.random.default_rng([label, i]), tiny.INPUT.size))
        for label in range(len(FLOWERS))
        for i in range(first, first + count)
    ]
    images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 255
    return (images - tiny.INPUT.mean[0]) / tiny.INPUT.std[0]


def test_features_transfer_to_flowers_it_never_saw() -> None:
    """Nearest of 16 class means, of 5 pictures each: the frozen features beat random ones."""
    known, asked = pictures(0, 5), pictures(5, 5)

    def share_right(net: tiny.TinyResNet) -> float:
        with torch.no_grad():
            means = net(known).unflatten(0, (len(FLOWERS), 5)).mean(1)  # K D
            nearest = torch.cdist(net(asked), means).argmin(1).unflatten(0, (len(FLOWERS), 5))
        return (nearest == torch.arange(len(FLOWERS))[:, None]).float().mean().item()

    torch.manual_seed(0)
    random = share_right(body())
    net = body()
    net.load_state_dict(load_file(tiny.WEIGHTS))
    assert share_right(net) > random + 0.2
