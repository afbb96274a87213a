"""The rate that a run chooses by itself, from what is known before training."""

from thaw.backbones.backbone import Backbone

MANY = 1000  # photos from which on the rate is the highest
HIGHEST, LOWEST = 1e-3, 1e-4
SMALL = 1_000_000  # parameters of a body that has little to lose


def unfrozen_lr(backbone: Backbone, photos: int) -> tuple[float, str]:
    """Gives the head's rate after the unfreeze for `lr: auto`, for Adam, and the reason in words.

    Convolutional bodies: 1e-3 from 1,000 training photos on; below, by the square of their number,
    at least 1e-4. With few photos a high rate loses more of what the weights know than it learns
    (measured, benchmarks/LOG.md: Pets, Dogs-vs-Cats). A body without normalisation layers takes a
    tenth (measured on SqueezeNet; torchvision trains such networks at a tenth of the others' rate).
    A body of less than a million parameters has little to lose and keeps 1e-3 (the demo). Bodies of
    linear layers, such as transformers, were not measured: 1e-4, about what MAE fine-tunes ViT-B
    with (5e-4 x batch / 256, arXiv:2111.06377 and its FINETUNE.md) at the batches usual here.
    """
    parameters = sum(parameter.numel() for parameter in backbone.body.parameters())
    if not backbone.is_convolutional:
        return LOWEST, "for linear layers"
    kinds = {kind.__name__ for layer in backbone.body.modules() for kind in type(layer).__mro__}
    normalises = any("Norm" in kind for kind in kinds)
    if parameters < SMALL and normalises:
        return HIGHEST, "for a small network"
    rate = max(LOWEST, HIGHEST * min(1.0, (photos / MANY) ** 2))
    if normalises:
        return rate, f"for {photos:,} photos"
    return rate / 10, f"for {photos:,} photos, no norm"
