"""report.html: what a run learned and where it errs, as one page that opens from disk.

It is made from the files of a run folder alone, so it can be made again at any time. page.html is
its template: all text, style and the order of the page stand there.
"""

import base64
import io
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from thaw.data.decode import MAX_RATIO, decode
from thaw.data.photos import Photos
from thaw.errors import PhotoError
from thaw.heat_map import heat_map, overlay
from thaw.image_classifier import load
from thaw.report.curves import draw_curves, draw_rates
from thaw.report.predictions import Predictions
from thaw.store import read_plain

TEMPLATE = Path(__file__).with_name("page.html")
SIDE = MAX_RATIO  # of a small photo, in pixels: of the longest one the other side has one
EACH = 6  # heat maps of the surest mistakes, and of right ones


def write_page(
    folder: Path, photos: Photos | None = None, test_predictions: Tensor | None = None, *,
    full: bool = False,
) -> Path:  # fmt: skip
    """Writes `folder`/report.html from the files beside it, and returns its path.

    Args:
        folder: Holds results.json and, where there are any, history.json, plan.txt and
            predictions.csv.
        photos, test_predictions: The test split of a run that has just ended and what
            `TransferModule.test_predictions` says of it (N, 3); predictions.csv is written first.
        full: Adds heat maps by the model of the run, or by the one that results.json names.
    """
    results, table = read_plain(folder / "results.json"), folder / "predictions.csv"
    classes, tested = results["classes"], None
    if photos and test_predictions is not None and len(test_predictions):
        Predictions.of(photos, classes, test_predictions.double().numpy()).write(table)
    if table.is_file():
        tested = Predictions.read(table, classes)
    maps = find_heat_maps(Path(results.get("model", folder)), tested) if full and tested else []
    plan, page, checked = (folder / name for name in ("plan.txt", "report.html", "check.json"))
    write_template(
        TEMPLATE, page, name=folder.resolve().name, folder=shlex.quote(str(folder.resolve())),
        results=results, tested=tested,
        plan=plan.read_text("utf-8") if plan.is_file() else "",
        curves=draw_history(folder, results["phases"]),
        small=small, examples=tested and partial(examples, tested),
        check=read_plain(checked, list) if checked.is_file() else None, heat_maps=maps,
    )  # fmt: skip
    return page


def write_template(template: Path, file: Path, **values: Any) -> None:
    """Writes a template with these values in it, in which no value is taken for HTML, to a file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = environment.from_string(template.read_text("utf-8")).render(values)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", errors="replace")  # file names need not be UTF-8


def draw_history(folder: Path, phases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Draws history.json as curves.png, and as panels that a phone shows one below another."""
    file = folder / "history.json"
    if not (history := read_plain(file, list) if file.is_file() else []):
        return []
    unfreezes = [phase["start_epoch"] - 1 for phase in phases[1:]]
    draw_curves(history, unfreezes).savefig(folder / "curves.png", dpi=120)
    panels = [draw_curves(history, unfreezes, [metric]) for metric in ("loss", "acc")]
    return [drawn(panel, "svg+xml") for panel in (*panels, draw_rates(history, unfreezes))]


def examples(tested: Predictions, one: int, two: int) -> list[int]:
    """Two photos of each of two classes: those that are taken for the other, then right ones."""
    places: list[int] = []
    for label, other in ((one, two), (two, one)):
        own = np.flatnonzero(tested.labels == label)
        rank = 2 * (tested.predicted[own] == other) + tested.right[own]
        places += own[np.argsort(-rank, kind="stable")][:2].tolist()
    return places


def find_heat_maps(run: Path, tested: Predictions) -> list[dict[str, Any]]:
    """Views with heat maps: the surest mistakes, then right ones; prints why there are none."""
    wrong, right = tested.by_probability(~tested.right)[:EACH], tested.by_probability(tested.right)
    right = right[np.linspace(0, len(right) - 1, min(EACH, len(right))).astype(int)]  # sure to not
    found: list[dict[str, Any]] = []
    try:
        model = load(run)
        for place in map(int, (*wrong, *right)):
            with suppress(PhotoError):  # a photo that is gone by now
                view = model.transform(decode(Path(tested.paths[place])))
                heat = overlay(view, heat_map(model, view, int(tested.predicted[place])))
                found.append({"place": place, "picture": jpeg(view), "heat": jpeg(heat)})
    except ValueError as error:  # a ConfigError is one, too
        print(f"report.html lacks heat maps: {error}", file=sys.stderr)
    return found


def small(path: str | Path) -> str | None:
    """The whole photo, SIDE pixels at its long side, as a data URI; None where it is gone."""
    with suppress(PhotoError):
        return jpeg(resize(decode(Path(path)), size=None, max_size=SIDE))
    return None


def jpeg(picture: Tensor) -> str:
    """uint8 (3, H, W) -> a data URI."""
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    return _data_uri("jpeg", partial(image.save, format="JPEG", quality=80))


def drawn(figure: Figure, form: str) -> str:
    """A figure -> a data URI; `form` is svg+xml or png."""
    kind = form.partition("+")[0]
    return _data_uri(form, partial(figure.savefig, format=kind, dpi=110))


def _data_uri(kind: str, save: Callable[[io.BytesIO], object]) -> str:
    save(data := io.BytesIO())
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
