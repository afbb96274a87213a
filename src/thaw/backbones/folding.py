"""BatchNorm in eval mode, computed by the convolutions in front of it, which is faster.

There it multiplies each channel by a scale and adds a shift, so a convolution of the weights times
the scale, with the shift as its bias, gives the same, and the same gradients, but for rounding
(arXiv:1712.05877, section 3.2). What lies between the two is neither computed nor stored: ResNet-50
takes 54 ms a step instead of 88, and 6.2 GB instead of 11.9 (256 images of 224 pixels, bf16, H100);
on CPUs steps take 0.80 to 0.99 of the time (Intel) or 0.89 to 1.09 (AMD; benchmarks/LOG.md). On a
GPU that waits for many small operations it costs time: RegNetY-400MF 1.20 (benchmarks/gpu.md).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

RECOMPUTES = ("grad_checkpointing", "memory_efficient")  # attributes in timm and torchvision
Pair = tuple[Any, Any]  # a convolution, and the BatchNorm layer that alone reads its output


def fold(body: nn.Module, images: Tensor) -> Callable[[], AbstractContextManager[None]]:
    """Gives what makes a context in which a body runs so, on images like these (N, 3, H, W).

    It does nothing where it would change the features of these images, and for a body that computes
    parts again in the backward pass, which is outside of the context.
    """
    modes = [(module, module.training) for module in body.modules()]
    if any(getattr(module, name, False) for module, _ in modes for name in RECOMPUTES):
        return nullcontext
    body.eval()  # draws no random numbers, and changes no statistics
    try:
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            expected, pairs = _find_pairs(body, images)
            with _folded(pairs):
                difference = body(images) - expected
    finally:
        for module, mode in modes:
            module.training = mode
    # far from both, since a resumed run must decide the same: rounding is 0.08 at most, in bf16
    return partial(_folded, pairs) if difference.norm() < 0.2 * expected.norm() else nullcontext


def _find_pairs(body: nn.Module, images: Tensor) -> tuple[Tensor, list[Pair]]:
    """The body's features (N, D), and its layers that follow each other."""
    made_by: dict[int, tuple[nn.Module, ref[Tensor]]] = {}
    pairs: list[Pair] = []

    def made(conv: nn.Module, _: object, output: Tensor) -> None:
        made_by[id(output)] = (conv, ref(output))

    def taken(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        conv, output = made_by.pop(id(inputs[0]), (None, lambda: None))
        if output() is inputs[0]:  # else it is another with the same id
            pairs.append((conv, norm))

    with ExitStack() as hooks:
        for layer in body.modules():
            if "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks:
                continue  # somebody wants to see, or does, what happens there
            if isinstance(layer, nn.Conv2d):
                hooks.enter_context(layer.register_forward_hook(made))
            elif isinstance(layer, nn.BatchNorm2d) and layer.affine and layer.track_running_stats:
                hooks.enter_context(layer.register_forward_pre_hook(taken))
        return body(images), pairs


@contextmanager
def _folded(pairs: list[Pair]) -> Iterator[None]:
    for conv, norm in pairs:
        if not norm.training:
            conv.forward, norm.forward = partial(_convolve, conv, norm), partial(_pass_on, norm)
    try:
        yield
    finally:
        for layer in chain(*pairs):
            layer.__dict__.pop("forward", None)


def _convolve(conv: Any, norm: Any, images: Tensor) -> Tensor:
    # by hand: fuse_conv_bn_weights of torch makes new parameters, so no gradient comes to these
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    offset = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    folded = {"weight": conv.weight * scale.view(-1, 1, 1, 1), "bias": norm.bias - offset * scale}
    own, dtype = conv._parameters, conv.weight.dtype  # used as its own: a subclass may pad
    conv._parameters = {**own, **{name: value.to(dtype) for name, value in folded.items()}}
    try:
        return type(conv).forward(conv, images)
    finally:
        conv._parameters = own


def _pass_on(norm: Any, images: Tensor) -> Tensor:
    return norm.act(norm.drop(images)) if hasattr(norm, "act") else images  # timm's layers have
