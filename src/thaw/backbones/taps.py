"""What each layer group of a body gives, not only the last: one pass for all depths."""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thaw.backbones import tracing
from thaw.backbones.backbone import Backbone
from thaw.errors import ConfigError


class Taps(nn.Module):
    """Images (N, 3, H, W) -> (N, D1 + D2 + ...): features after each layer group, stem first.

    After a group: the output of its last layer to run, averaged over places (or tokens). After the
    last one: the body's own features, which a head gets.

    Attributes:
        names: of the groups.
        widths: D1, D2, ... of each.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = backbone.body
        self.names = tuple(group.name for group in backbone.groups)
        self.parts = {name: place for place, group in enumerate(backbone.groups)
                      for name in group.modules}  # fmt: skip
        self.widths: tuple[int, ...] = ()
        tracing.run_without_data(self, backbone.input_spec.size)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D1 + D2 + ...)."""
        found: dict[int, Tensor] = {}
        begun: set[str] = set()
        handles: list[RemovableHandle] = []
        for name, place in self.parts.items():

            def keep(
                _module: nn.Module, _inputs: object, output: object, name: str = name,
                place: int = place,
            ) -> None:  # fmt: skip
                # a layer that is used again further up (one ReLU for all) counts where it began
                if isinstance(output, Tensor) and output.ndim > 1 and name not in begun:
                    begun.add(name)
                    found[place] = pooled(output)

            handles.append(self.body.get_submodule(name).register_forward_hook(keep))
        try:
            last = self.body(images)
        finally:
            for handle in handles:
                handle.remove()
        found[len(self.names) - 1] = last
        if silent := [name for place, name in enumerate(self.names) if place not in found]:
            raise ConfigError(
                f"layer groups {', '.join(silent)} give no tensor that could be features; use "
                "backbone.granularity=stage or block"
            )
        parts = [found[place] for place in range(len(self.names))]
        self.widths = tuple(part.shape[1] for part in parts)
        return torch.cat(parts, 1)

    def extra_repr(self) -> str:
        """The groups: features depend on where they end."""
        return f"{self.names}, {self.parts}"


def pooled(output: Tensor) -> Tensor:
    """Mean over places: (N, C, H, W) or (N, H, W, C) or (N, T, C) or (N, C) -> (N, C)."""
    where = tracing.places(output.shape)
    return output.mean(where) if where else output
