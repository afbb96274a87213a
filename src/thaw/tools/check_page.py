"""The page of `thaw check`: the photos themselves, by kind of finding, with the reasons."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image, ImageOps

import thaw.report
from thaw.tools.check_files import FORMATS
from thaw.tools.check_findings import KINDS, Finding, Listing, by_splits, class_counts

MOST = 48  # findings of a kind that are shown
SIDE = 160  # of a small photo, in pixels


def write_page(
    page: Path, photos: Listing, findings: Sequence[Finding], notes: Sequence[str]
) -> Path:
    """Writes the page, which needs nothing else, and returns its path."""
    report = Path(*thaw.report.__path__, "page.html").read_text("utf-8")
    shown = {kind: [each for each in findings if each.kinds[0] == kind] for kind in KINDS}
    template = Path(__file__).with_name("check.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = environment.from_string(template).render(
        style=re.findall("<style>(.*?)</style>", report, re.DOTALL)[0], photos=photos, kinds=KINDS,
        shown={kind: found for kind, found in shown.items() if found}, most=MOST, notes=notes,
        small=small, copies=by_splits(photos, findings), classes=class_counts(photos),
    )  # fmt: skip
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8", errors="replace")  # file names need not be UTF-8
    return page


def small(path: Path) -> str | None:
    """The photo, SIDE pixels at its long side, as a data URI; None where it cannot be read."""
    data = io.BytesIO()
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft("RGB", (SIDE, SIDE))
            picture = ImageOps.exif_transpose(image).convert("RGB")
        picture.thumbnail((SIDE, SIDE))
        picture.save(data, "JPEG", quality=75)
    except Exception:  # as in check_files.see
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
