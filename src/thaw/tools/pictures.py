"""Photos in rows under their titles, for notebooks."""

import math
from collections.abc import Collection, Sequence

from matplotlib.figure import Figure
from torch import Tensor


def draw_photos(
    images: Tensor, titles: Sequence[str], *, wrong: Collection[int] = (), columns: int = 6
) -> Figure:
    """Draws photos in rows, each under its title.

    Args:
        images: (N, 3, H, W), uint8 or values 0-1.
        titles: N of them; a line break makes two lines.
        wrong: places of the photos whose titles are red.
        columns: photos in a row.
    """
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    for place, (axes, image, title) in enumerate(zip(panels, images, titles, strict=False)):
        axes.imshow(image.permute(1, 2, 0).cpu().numpy())  # (H, W, 3)
        axes.set_title(title, fontsize=9, color="tab:red" if place in wrong else "black")
    return figure
