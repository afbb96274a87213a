"""Photos that are alike, and what follows: copies, labels in doubt and photos off topic.

Near copies are looked for by small thumbnails, and by features where there are some. What looks
alike to these is laid over each other at several sizes, which tells a crop of a photo from another
photo of the same thing. Labels and topics are judged by the features of a pretrained backbone.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from thaw.data.photos import Photos, Splits
from thaw.tools.check_files import GRID, Array, Finding, Listing, Seen, in_cores

Pair = tuple[int, int]  # places of two photos in the listing
SIDE = 8  # pixels of the thumbnails, of any shape made square, that pairs are looked for by
NEAR = 3  # photos that each is compared with: the nearest ones
ROUGH = 0.1  # cosine distance of thumbnails up to which two photos may be one picture
SCALES = np.linspace(1, 0.5, 15)  # of the largest size that fits
# Correlation from which they are one picture. 94 % of crops of Flowers102 to 60 to 95 % of the
# sides, scaled and saved at quality 50, reach it; of pairs in Pets and Dogs vs. Cats those that are
# no copies have 0.90 at most, all others 0.94 and more. Of two labels, and of turned or squeezed
# ones, more is asked: a cat in a meadow and a dog on a beach reach 0.94, and round flowers do.
ALIKE, SURELY_ALIKE = 0.91, 0.95
NEIGHBOURS = 10  # whose labels count; the farthest tells an outlier, so a few alike are still some
CLOSE = 0.3  # cosine distance of features up to which two photos may be one picture
FOLDS = 5  # and the least photos of a class for its labels to be judged
# In doubt: the share of the own label is below this part of what chance gives. What that finds, and
# what the count of confident learning does, is in docs/check.md.
DOUBT = 0.3
FAR = 2.75  # robust standard deviations above the median; of 1,000 normal values 3 are


def find_copies(photos: Listing, seen: Sequence[Seen], near: Sequence[Pair] = ()) -> list[Finding]:
    """Photos that are one picture, the most alike first; `near` are more pairs to look at."""
    first: dict[str, int] = {}  # of the photos with these pixels
    found: dict[Pair, float] = {}
    for place in range(len(photos.paths)):
        if seen[place].pixels and (one := first.setdefault(seen[place].pixels, place)) != place:
            found[one, place] = 1.0
    alone = {n for n in first.values() if "flat" not in seen[n].notes}  # flat ones all look alike
    pairs = [*close_pairs(seen, sorted(alone)), *near]
    todo = sorted({(min(pair), max(pair)) for pair in pairs if len(alone.intersection(pair)) > 1})
    likes = in_cores(likeness, [(seen[one], seen[two]) for one, two in todo], "copies")
    for (one, two), alike in zip(todo, likes, strict=True):
        if alike >= (ALIKE if photos.labels[one] == photos.labels[two] else SURELY_ALIKE):
            found[one, two] = alike
    findings = []
    for (one, two), alike in sorted(found.items(), key=lambda item: -item[1]):
        same = seen[one].pixels == seen[two].pixels
        kinds = [kind for kind, each in (("conflict", photos.labels), ("across", photos.splits))
                 if each[one] != each[two]]  # fmt: skip
        why = "the same pixels" if same else f"correlation {alike:.2f}"
        findings.append(Finding((*kinds, "exact" if same else "near"), (one, two), why))
    return findings


def close_pairs(seen: Sequence[Seen], places: Sequence[int]) -> list[Pair]:
    """Pairs among these photos whose thumbnails are alike, if need be one mirrored or turned."""
    if not places:
        return []
    small = [Image.fromarray(seen[n].thumbnail()).resize((SIDE, SIDE), Image.Resampling.BOX)
             for n in places]  # fmt: skip
    grey = np.stack([np.asarray(each, np.float32).ravel() for each in small])  # (N, SIDE * SIDE)
    table: Any = normalize(grey - grey.mean(axis=1, keepdims=True))
    square = table.reshape(-1, SIDE, SIDE)
    turned = [np.rot90(square, quarters, (1, 2)) for quarters in range(3)]  # 3 is 1 the other way
    at, pairs = np.array(places), list[Pair]()
    for asked in (*turned, square[:, :, ::-1]):
        distances, others = nearest(table, asked.reshape(table.shape))
        one, two = np.nonzero(distances < ROUGH)
        pairs += zip(at[one].tolist(), at[others[one, two]].tolist(), strict=True)
    return pairs


def nearest(table: Array, asked: Array, number: int = NEAR + 1) -> tuple[Array, Array]:
    """Cosine distances (M, k) from unit vectors (M, D) to the nearest of (N, D); their places."""
    index = NearestNeighbors(n_neighbors=min(number, len(table)), algorithm="brute").fit(table)
    distances, places = index.kneighbors(asked)
    return distances**2 / 2, places


def likeness(both: tuple[Seen, Seen]) -> float:
    """The best correlation, -1 to 1, of one of two pictures in grey with a part of the other.

    The part has the shape of the whole picture, and 0.5 to 1 of the largest size that fits. The
    other picture may be mirrored; or, as a whole, turned by quarters and of another shape.
    """
    one, two = (each.thumbnail().astype(np.float32) for each in both)
    turned = [np.rot90(each, n) for each in (two, two[:, ::-1]) for n in range(4)]  # quarters
    same = [Image.fromarray(each).resize(one.shape[::-1], Image.Resampling.BOX) for each in turned]
    whole = max(_best_fit(one, np.asarray(each), SCALES[:1]) for each in same)
    ways = [pair for other in turned[::4] for pair in ((one, other), (other, one))]
    halves = ([np.asarray(Image.fromarray(each).reduce(2)) for each in way] for way in ways)
    rough = [_best_fit(part, whole, SCALES[::2]) for part, whole in halves]
    best = int(np.argmax(rough))
    part = _best_fit(*ways[best], SCALES) if rough[best] > ALIKE - 0.1 else rough[best]
    return max(part, whole) if whole >= SURELY_ALIKE else part


def _best_fit(part: Array, whole: Array, scales: Array) -> float:
    """The best correlation of `part` (h, w) at some scales with what lies under it in (H, W)."""
    best, picture = -1.0, Image.fromarray(part)
    for scale in min(np.array(whole.shape) / part.shape) * scales:
        h, w = (round(side * scale) for side in part.shape)
        if min(h, w) < GRID // 6:
            break
        over = np.asarray(picture.resize((w, h), Image.Resampling.BOX)).ravel()
        under = sliding_window_view(whole, (h, w)).reshape(-1, h * w)
        over, under = over - over.mean(), under - under.mean(axis=1, keepdims=True)
        # a deviation of at least one grey value, so that noise in a flat place does not count
        spread = np.maximum((under**2).sum(axis=1), h * w) * max((over**2).sum(), h * w)
        best = max(best, float((under @ over / np.sqrt(spread)).max()))
    return best


def look_alike(photos: Listing, seen: Sequence[Seen], cfg: Any) -> tuple[list[Finding], list[Pair]]:
    """Labels in doubt and photos unlike all others, each the worst first; and pairs near by."""
    from thaw.tools.probe import measure  # with torch, which --fast does without

    places = np.array([n for n in range(len(photos.paths)) if seen[n].pixels])
    labels = np.array(photos.labels)[places]
    readable = Photos.of((photos.paths[n], photos.labels[n]) for n in places)
    subject = measure([], cfg, splits=Splits(photos.classes, readable, None, None))
    table: Any = normalize(subject.tables[0][0].numpy())  # (N, D)
    findings = []
    for n, likely, share in doubts(table, labels):
        own, other = photos.classes[labels[n]], photos.classes[likely]
        why = f"{own}? Photos like it are {other}; {own} has a share of {share:.1%}"
        findings.append(Finding(("label",), (int(places[n]),), why))
    distances, others = nearest(table, table, NEIGHBOURS + 1)  # the first is the photo itself
    for n, far in outliers(distances):
        if "flat" not in seen[places[n]].notes:  # that is told already
            why = f"{far:.1f} deviations farther from others than usual"
            findings.append(Finding(("outlier",), (int(places[n]),), why))
    one, two = np.nonzero(distances[:, : NEAR + 1] < CLOSE)
    return findings, [*zip(places[one].tolist(), places[others[one, two]].tolist(), strict=True)]


def doubts(table: Array, labels: Array) -> list[tuple[int, int, float]]:
    """Photos whose label is in doubt, the most doubtful first: place, likely label, share of own.

    Shares are the mean of what a linear classifier and the nearest photos say, both from the other
    folds. Photos are ranked by the share of their own label, the self-confidence of confident
    learning (C. Northcutt et al., arXiv:1911.00068).
    """
    places = np.flatnonzero(np.bincount(labels)[labels] >= FOLDS)
    classes, own = np.unique(labels[places], return_inverse=True)  # 0 to K - 1
    if len(classes) < 2:
        return []
    # C as `thaw probe` chooses it for such features; what does not converge is right all the same
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    near = KNeighborsClassifier(min(NEIGHBOURS, len(own) * (FOLDS - 1) // FOLDS))
    both = VotingClassifier([("linear", linear), ("near", near)], voting="soft")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares: Any = cross_val_predict(both, table[places], own, cv=folds, method="predict_proba")
    every = np.arange(len(own))
    given = shares[every, own]
    shares[every, own] = -1
    likely, found = classes[shares.argmax(1)], np.flatnonzero(given < DOUBT / len(classes))
    return [(int(places[n]), int(likely[n]), float(given[n]))
            for n in found[np.argsort(given[found], kind="stable")]]  # fmt: skip


def outliers(distances: Array) -> list[tuple[int, float]]:
    """Photos that lie far from all others, the farthest first, and how many deviations far."""
    last = distances[:, -1].clip(1e-3, 1 - 1e-3)
    far = np.log(last / (1 - last))  # as they end at 1; else where classes are small none is far
    far -= np.median(far)
    far /= max(1.4826 * np.median(np.abs(far)), 1e-9)  # 1.4826: of a normal distribution
    return [(int(n), float(far[n])) for n in np.argsort(-far, kind="stable") if far[n] > FAR]
