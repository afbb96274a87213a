"""A backbone and a head as one plain nn.Module that knows which of its layer groups are frozen."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.backbones.backbone import Backbone
from thaw.backbones.groups import HEAD, LayerGroup, check_cover

BatchNormMode = Literal["eval", "train", "frozen"]
DepthwiseMode = Literal["train", "frozen"]


def is_depthwise(layer: nn.Module) -> bool:
    """Whether it is a convolution that filters each channel alone."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


class Classifier(nn.Module):
    """A model for images: (N, 3, H, W) -> class scores (N, K).

    Frozen is a state of a layer group that stays through every `train()`: its parameters get no
    gradients and its modules are in eval mode, so neither weights nor BatchNorm statistics change.

    Attributes:
        groups: The layer groups, stem first and head last, with names as in this module.
        trainable: Names of the groups that train now.
        batchnorm: What the body's BatchNorm does in groups that train. "train": statistics, scale
            and shift change. "eval": the statistics stay. "frozen": all of it stays.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.body = backbone.body
        self.head = head

        def inside(names: Iterable[str]) -> tuple[str, ...]:
            return tuple(f"body.{name}" for name in names)

        of_body = (replace(each, parameters=inside(each.parameters), modules=inside(each.modules))
                   for each in backbone.groups)  # fmt: skip
        of_head = tuple(f"head.{name}" for name, _ in head.named_parameters())
        self.groups = (*of_body, LayerGroup(HEAD, of_head, ("head",)))
        check_cover(self.groups, [name for name, _ in self.named_parameters()])
        self.trainable: frozenset[str] = frozenset(self.group_names)
        self.batchnorm: BatchNormMode = "train"
        self.fold: Any = backbone.fold  # makes the body faster, see `folding`
        self.folded: Any = None

    @property
    def group_names(self) -> tuple[str, ...]:
        return tuple(group.name for group in self.groups)

    def features(self, images: Tensor) -> Tensor:  # N 3 H W -> N D, what the head gets
        if not self.fold or torch.compiler.is_compiling():
            return self.body(images)
        self.folded = self.folded or self.fold(self.body, images)
        with self.folded():
            return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def set_trainable(
        self, names: Collection[str], batchnorm: BatchNormMode, depthwise: DepthwiseMode
    ) -> None:
        """Freezes every group but `names`, and sets the mode of every module accordingly.

        With `depthwise` "frozen", the body's depthwise convolutions stay in these groups too, and
        scale and shift of a BatchNorm that is registered right after one.
        """
        if unknown := set(names) - set(self.group_names):
            raise KeyError(f"no such layer groups: {sorted(unknown)}; {self.group_names}")
        self.trainable, self.batchnorm = frozenset(names), batchnorm
        learns = self.learning(names, batchnorm, depthwise)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in learns)
            if name not in learns:
                parameter.grad = None  # or the optimiser would apply the last gradient again
        self.train(self.training)

    def learning(
        self, names: Collection[str], batchnorm: BatchNormMode, depthwise: DepthwiseMode
    ) -> set[str]:
        """The names of the parameters that get gradients when these groups train."""
        still: set[str] = set()
        last: nn.Module = self.body
        for module, layer in self.body.named_modules():
            is_norm = isinstance(layer, _BatchNorm)
            # folded, a norm's gradient is made from that of the filter before it, see `folding`
            filters = is_depthwise(last if is_norm else layer)
            if (is_norm and batchnorm == "frozen") or (filters and depthwise == "frozen"):
                own = layer.named_parameters(recurse=False)
                still |= {f"body.{module}.{name}" for name, _ in own}
            last = layer
        groups = (group for group in self.groups if group.name in names)
        return {name for group in groups for name in group.parameters} - still

    def share(
        self, names: Collection[str], batchnorm: BatchNormMode, depthwise: DepthwiseMode
    ) -> float:
        """Returns the share of all parameters, 0-1, that gets gradients when these groups train."""
        learns = self.learning(names, batchnorm, depthwise)
        sizes = {name: parameter.numel() for name, parameter in self.named_parameters()}
        return sum(sizes[name] for name in learns) / sum(sizes.values())

    def train(self, mode: bool = True) -> "Classifier":
        """Sets training mode for what trains and eval mode for what is frozen."""
        super().train(mode)
        if not mode:
            return self
        # Containers are in no group. Some read their own `training`: they follow the last group.
        self.body.train(self.groups[-2].name in self.trainable)
        for group in self.groups:
            for name in group.modules:
                self.get_submodule(name).train(group.name in self.trainable)
        for module in self.body.modules():
            if self.batchnorm != "train" and isinstance(module, _BatchNorm):
                module.eval()
        return self

    def group_parameters(self) -> Iterator[tuple[LayerGroup, list[tuple[str, nn.Parameter]]]]:
        """Yields each group with its named parameters, stem first."""
        parameters = dict(self.named_parameters())
        for group in self.groups:
            yield group, [(name, parameters[name]) for name in group.parameters]
