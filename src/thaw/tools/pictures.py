"""Photos in rows under their titles, for notebooks."""

import math
from collections.abc import Collection, Sequence

from matplotlib.figure import Figure
from torch import Tensor


def draw_photos(
    images: Tensor, titles: Sequence[str], *, wrong: Collection[int] = (), columns: int = 6
) -> Figure:
    """Draws photos (N, 3, H, W), uint8 or values 0-1, in rows of `columns`, each under its title.

    A line break in a title makes two lines; `wrong` are the places of the photos with red titles.
    """
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows), layout="constrained")
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if place < len(images):
            axes.imshow(images[place].permute(1, 2, 0).cpu().numpy())  # (H, W, 3)
            colour = "tab:red" if place in wrong else "black"
            axes.set_title(titles[place], fontsize=9, color=colour)
    return figure
