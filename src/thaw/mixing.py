"""Mixup and CutMix: pictures and labels of a training batch mixed with each other."""

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import v2

from thaw.errors import ConfigError

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def mixing(
    num_classes: int, *, mixup_alpha: float | None = None, cutmix_alpha: float | None = None
) -> Mix:
    """A function of (images (N, 3, H, W), labels (N,)) -> mixed images, soft labels (N, K).

    Each alpha is of a Beta distribution: that of a picture's weight in mixup (arXiv:1710.09412 uses
    0.1-0.4 on ImageNet), and that of a pasted box's area in CutMix (arXiv:1905.04899 uses 1). With
    both, each batch gets one of them.
    """
    kinds = ((v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha))
    chosen = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]
    if not chosen:
        raise ConfigError("mix.mixup_alpha=null and mix.cutmix_alpha=null: give one, or mix=none")
    return chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)
