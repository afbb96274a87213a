"""What is known of the licence of weights, and what is said of it in each run.

A library's own licence is not that of its weights. torchvision declares none ("pre-trained models
may have their own licenses or terms and conditions derived from the dataset used for training", its
README), but for SWAG's; timm's records name one where the authors gave one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchvision.models import WeightsEnum

# https://image-net.org/download: "Researcher shall use the Database only for non-commercial
# research and educational purposes"
CAUTION = (
    "trained on ImageNet, whose pictures are licensed for non-commercial research only; whether "
    "that binds the weights is disputed: ask before you use them commercially"
)
# torchvision gives only its address; that this is CC-BY-NC 4.0 says torchvision's README
SWAG = "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"

RANDOM = "weights: random"

# timm's tags, in its names: resnet50.a1_in1k, convnext_nano.in12k. Those after the bar learned
# without labels, on ImageNet-1k (arXiv:2111.06377, 2301.00808, 2104.14294) or on what ImageNet-22k
# is part of (LVD-142M: DINOv2, arXiv:2304.07193, appendix A; Merged-38M: EVA-02, arXiv:2303.11331;
# LVD-1689M goes with batches of ImageNet-1k: DINOv3, arXiv:2508.10104)
_IMAGENET_TAG = re.compile(r"in(1|12|21|22)k|lvd(142|1689)m|m38m|^(mae|fcmae|dino)$")
_IMAGENET_CLASSES = (1000, 11221, 11821, 21841, 21842, 21843)  # of ImageNet-1k, -12k and -21k


@dataclass(frozen=True)
class Licence:
    """Of one set of weights.

    Attributes:
        name: as declared by who publishes the weights; None: nothing is declared.
        publisher: who would have declared it.
        imagenet: whether ImageNet's pictures were trained on.
    """

    name: str | None
    publisher: str
    imagenet: bool

    @property
    def line(self) -> str:
        """What a run prints."""
        name = self.name or f"no licence declared by {self.publisher}"
        return f"weights: {name}" + (f"; {CAUTION}" if self.imagenet else "")

    @property
    def short(self) -> str:
        """What stands in a table."""
        name = (self.name or "none declared").partition(" (http")[0]
        return name + (", ImageNet" if self.imagenet else "")


def of_file(path: str) -> str:
    """What a run prints of weights that the user brought."""
    return f"weights: {path}, licence unknown to thaw"


def of_torchvision(entry: WeightsEnum) -> Licence:
    """All of torchvision's classification weights were trained on ImageNet-1k at the end."""
    declared = entry.meta.get("license")
    name = f"CC-BY-NC-4.0 ({SWAG})" if declared == SWAG else declared
    return Licence(name, "torchvision", imagenet=True)


def of_timm(cfg: Mapping[str, Any]) -> Licence:
    """Of a `pretrained_cfg` of timm, as a mapping."""
    declared = cfg.get("license")
    name = None if declared in (None, "unknown", "other") else str(declared)
    tag = str(cfg.get("tag") or "")
    imagenet = bool(_IMAGENET_TAG.search(tag)) or cfg.get("num_classes") in _IMAGENET_CLASSES
    return Licence(name, "timm", imagenet)
