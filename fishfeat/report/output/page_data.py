"""The data of the page's script: every image, every prediction, the map, the orders of classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fishfeat.classify.statistics.class_merging import order_by_confusion
from fishfeat.records import ImageSet, Int, Str
from fishfeat.records.results import FeatureMap
from fishfeat.report.content.tables import count_confusion
from fishfeat.report.output.thumbnails import SmallThumbnails
from fishfeat.report.run_view import RunView
from fishfeat.report.text import escape_invisible

# The map's coordinates are whole numbers from 0 to this.
MAP_SIDE = 4096
_NOT_SCORED = -1


class RunData(TypedDict):
    """A run: `classes` are indices into the page's classes, the lists go by the page's images."""

    slug: str
    label: str
    classes: list[int]
    predicted: list[int]
    margin: list[float]
    similarOrder: list[int]


class MapData(TypedDict):
    """The map: rows of the images and their coordinates."""

    rows: list[int]
    x: list[int]
    y: list[int]


class PageData(TypedDict):
    """Everything that a click may open; lists of images go by the rows of the image set."""

    paths: list[str]
    classes: list[str]
    labels: list[int]
    groups: list[str] | None
    runs: list[RunData]
    map: MapData | None
    mime: str
    side: int


def build_page_data(
    views: Sequence[RunView],
    images: ImageSet,
    thumbnails: SmallThumbnails,
    feature_map: FeatureMap | None,
) -> PageData:
    """The data of the script."""
    classes = np.unique(np.concatenate([images.class_names, views[0].run.class_names]))
    return {
        "paths": [escape_invisible(str(key)) for key in images.keys],
        "classes": [escape_invisible(str(name)) for name in classes],
        "labels": _list_labels(views[0], images, classes),
        "groups": _list_groups(images),
        "runs": [_build_run(view, images, classes) for view in views],
        "map": None if feature_map is None else _build_map(feature_map, images),
        "mime": thumbnails.mime,
        "side": thumbnails.side,
    }


def _list_labels(view: RunView, images: ImageSet, classes: Str) -> list[int]:
    """The label that each image was scored by; of other images the label that it has now."""
    labels = _translate(images.y, images.class_names, classes)
    labels[view.rows] = _translate(view.run.y, view.run.class_names, classes)
    codes: list[int] = labels.tolist()
    return codes


def _translate(y: Int, class_names: Str, classes: Str) -> NDArray[np.int64]:
    """Indices into `class_names` as indices into `classes`; -1 stays."""
    index_of = np.append(np.searchsorted(classes, class_names), _NOT_SCORED)
    translated: NDArray[np.int64] = index_of[y].astype(np.int64)
    return translated


def _list_groups(images: ImageSet) -> list[str] | None:
    if images.groups is None:
        return None
    if images.group_name is None:
        return [f"#{group}" for group in images.groups]
    return [escape_invisible(str(name)) for name in images.group_name]


def _build_run(view: RunView, images: ImageSet, classes: Str) -> RunData:
    predicted = np.full(len(images), _NOT_SCORED)
    predicted[view.rows] = _translate(view.predicted, view.run.class_names, classes)
    margin = np.zeros(len(images))
    margin[view.rows] = view.margin
    return {
        "slug": view.slug,
        "label": escape_invisible(view.label),
        "classes": np.searchsorted(classes, view.run.class_names).tolist(),
        "predicted": predicted.tolist(),
        "margin": np.round(margin, 3).tolist(),
        "similarOrder": order_by_confusion(count_confusion(view)).tolist(),
    }


def _build_map(feature_map: FeatureMap, images: ImageSet) -> MapData:
    """Whole coordinates, with the same scale on both axes, of the images that are listed."""
    rows = np.searchsorted(images.keys, feature_map.keys)
    is_listed = np.append(images.keys, "")[rows] == feature_map.keys
    xy = feature_map.xy[is_listed]
    extent = float(np.ptp(xy, axis=0).max()) or 1.0
    scaled = np.round((xy - xy.min(axis=0)) / extent * MAP_SIDE).astype(int)
    return {
        "rows": rows[is_listed].tolist(),
        "x": scaled[:, 0].tolist(),
        "y": scaled[:, 1].tolist(),
    }


def format_script_json(content: Mapping[str, object]) -> Markup:
    """JSON that cannot end the script element around it."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return Markup(text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}))


def format_thumbnail_lines(thumbnails: SmallThumbnails, n_images: int) -> Markup:
    """A line for each image: the base64 text of its small thumbnail, or an empty line."""
    return Markup("\n".join(thumbnails.encoded.get(row, "") for row in range(n_images)))
