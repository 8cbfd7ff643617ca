"""What the page's script knows: every image, every answer, the map, the orders of classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from fishfeat.classify.projection import FeatureMap
from fishfeat.classify.statistics.class_merging import order_by_confusion
from fishfeat.files import plain
from fishfeat.records import ImageSet, Int
from fishfeat.report.content.galleries import View
from fishfeat.report.content.tables import confusion_of
from fishfeat.report.output.thumbnails import Thumbs
from fishfeat.report.text import shown

# The map's coordinates are whole numbers from 0 to this.
MAP_SIDE = 4096
_NOT_SCORED = -1


def explore(
    views: Sequence[View], images: ImageSet, thumbs: Thumbs, feature_map: FeatureMap | None
) -> dict[str, Any]:
    """Everything that a click may open; lists of images go by the rows of the image set."""
    classes = np.unique(np.concatenate([images.class_names, views[0].run.class_names]))
    return {
        "keys": [shown(str(key)) for key in images.keys],
        "classes": [shown(str(name)) for name in classes],
        "y": _true(views[0], images, classes),
        "groups": _group_names(images),
        "runs": [_run(view, images, classes) for view in views],
        "map": None if feature_map is None else _map(feature_map, images),
        "mime": thumbs.mime,
        "side": thumbs.side,
    }


def _true(view: View, images: ImageSet, classes: Any) -> list[int]:
    """The label that each image was scored by, where it was scored; else the one it has now."""
    y = np.array(_codes(images.y, images.class_names, classes), dtype=np.int64)
    y[view.rows] = _codes(view.run.y, view.run.class_names, classes)
    codes: list[int] = y.tolist()
    return codes


def _codes(y: Int, names: Any, classes: Any) -> list[int]:
    """`y`, which counts in `names`, counted in `classes`; -1 stays."""
    where = np.append(np.searchsorted(classes, names), _NOT_SCORED)
    codes: list[int] = where[y].tolist()
    return codes


def _group_names(images: ImageSet) -> list[str] | None:
    if images.groups is None:
        return None
    if images.group_name is None:
        return [f"#{group}" for group in images.groups]
    return [shown(str(name)) for name in images.group_name]


def _run(view: View, images: ImageSet, classes: Any) -> dict[str, Any]:
    predicted = np.full(len(images), _NOT_SCORED)
    predicted[view.rows] = _codes(view.predicted, view.run.class_names, classes)
    margin = np.zeros(len(images))
    margin[view.rows] = view.margin
    return {
        "slug": view.slug,
        "label": shown(view.label),
        "classes": np.searchsorted(classes, view.run.class_names).tolist(),
        "predicted": predicted.tolist(),
        "margin": np.round(margin, 3).tolist(),
        "together": order_by_confusion(confusion_of(view)).tolist(),
    }


def _map(feature_map: FeatureMap, images: ImageSet) -> dict[str, Any]:
    """Coordinates in whole numbers, the same scale on both axes, and the rows they are of."""
    at = np.searchsorted(images.keys, feature_map.keys)
    here = np.append(images.keys, "")[at] == feature_map.keys
    xy = feature_map.xy[here]
    low, span = xy.min(axis=0), float(np.ptp(xy, axis=0).max()) or 1.0
    scaled = np.round((xy - low) / span * MAP_SIDE).astype(int)
    return {"rows": at[here].tolist(), "x": scaled[:, 0].tolist(), "y": scaled[:, 1].tolist()}


def as_script(content: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(plain(content), separators=(",", ":"), ensure_ascii=True)
    return Markup(text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}))


def thumb_lines(thumbs: Thumbs, n_images: int) -> Markup:
    """A line for each image of the set: the base64 text of its thumbnail, or nothing."""
    return Markup("\n".join(thumbs.encoded.get(row, "") for row in range(n_images)))
