"""List a data set and remember how it was listed."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fishfeat.errors import DataError
from fishfeat.features.specs import make_spec
from fishfeat.images.grouping.rules import parse_rules
from fishfeat.options import ScanOptions
from fishfeat.records import ImageSet, OnProgress, PathLike
from fishfeat.stages.grouping import asked_rules, group_listed
from fishfeat.workspace import DatasetFolder, Workspace

log = logging.getLogger("fishfeat")

DEMO_NAME = "demo"
DEMO_BACKBONE = "nano"


def list_images(
    data: PathLike | None = None,
    *,
    cache: PathLike = "cache",
    allow_truncated: bool | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> tuple[DatasetFolder, ImageSet]:
    """List a data set and keep the list in the workspace.

    Parameters
    ----------
    data
        Folder or CSV; None is the data set last used, else the embedded images.
    cache
        The cache folder.
    allow_truncated
        As `fishfeat.extract`; images rejected as truncated are looked at again.
    on_progress
        Called with (done, total) files.
    **options
        As `fishfeat.options.ScanOptions`. An option that is None is as it was when the same data
        was last listed; an empty one is off. The rules of `group_by` that need features are put in
        force once there are some.
    """
    from fishfeat.images.scan import scan

    workspace = Workspace(cache)
    path = Path(os.path.abspath(data)) if data is not None else _last_data(workspace)
    folder = _folder_of(workspace, path)
    group_by = asked_rules(options.pop("group_by", None), options.pop("group_pattern", None))
    given = options | {"allow_truncated": allow_truncated, "group_by": group_by}
    kept = _remembered(folder, given)
    allowed = bool(kept.get("allow_truncated"))
    asked = {name: v for name, v in kept.items() if name not in ("allow_truncated", "group_by")}
    rules = parse_rules(kept.get("group_by", ()))
    known = _known(folder, allow_truncated=allowed)
    columns = [str(rule) for rule in rules if rule.kind == "column"]
    scan_options = ScanOptions(group_by=tuple(columns), **asked)
    images = scan(path, scan_options, known=known, on_progress=on_progress)
    images = dataclasses.replace(images, name=folder.name)
    images = folder.settled(images, allow_truncated=allowed)
    images = group_listed(folder, images, rules)
    if (
        any(rule.kind == "duplicates" for rule in rules)
        and not folder.near_duplicates_csv.is_file()
    ):
        log.info("Near-duplicates are looked for once the images are embedded.")
    folder.save_images(images)
    folder.update(data=str(path), options=kept)
    workspace.use(folder)
    for note in images.notes:
        log.info("%s", note)
    _say_labels(images)
    return folder, images


def _known(folder: DatasetFolder, *, allow_truncated: bool) -> ImageSet | None:
    """The list of the last time, without what was rejected and would not be rejected now."""
    from fishfeat.images.decode import is_truncated_reason

    if not folder.images_csv.is_file():
        return None
    known = folder.load_images()
    if not allow_truncated:
        return known
    lost = tuple(one for one in known.rejected if not is_truncated_reason(one.reason))
    return dataclasses.replace(known, rejected=lost)


def _say_labels(images: ImageSet) -> None:
    unlabelled, n_classes = int((images.y < 0).sum()), len(images.class_names)
    if n_classes < 2:
        log.warning("%d classes: enough to embed, but `fishfeat fit` needs two.", n_classes)
    if unlabelled:
        log.info("%d images have no label: embedded, but not fitted or scored.", unlabelled)


def current_dataset(cache: PathLike) -> DatasetFolder:
    """The data set last used; a `DataError` where there is none."""
    current = Workspace(cache).current
    if current is None:
        raise DataError(
            f"No data set has been used in {os.fspath(cache)!r} yet: run `fishfeat extract DATA` "
            "first, or `fishfeat demo` to see it work."
        )
    return current


def describe_images(folder: DatasetFolder, images: ImageSet) -> dict[str, Any]:
    """Counts, sizes, groups, parts, repeated and unreadable images of a data set."""
    return {
        "dataset": folder.name,
        "root": images.root,
        "n_images": len(images),
        "n_groups": _n_groups(images, slice(None)),
        "grouping": images.grouping,
        "classes": [_describe_class(images, c) for c in range(len(images.class_names))],
        "parts": None if images.part is None else Counter(images.part.tolist()),
        "unlabelled": int((images.y < 0).sum()),
        "identical": _identical(images),
        "rejected": [{"path": lost.key, "reason": lost.reason} for lost in images.rejected],
        "notes": images.notes,
    }


def _describe_class(images: ImageSet, c: int) -> dict[str, Any]:
    own = images.y == c
    return {
        "class": images.class_names[c],
        "n_images": own.sum(),
        "n_groups": _n_groups(images, own),
        "median_width": np.median(images.width[own]),
        "median_height": np.median(images.height[own]),
    }


def _n_groups(images: ImageSet, rows: Any) -> int | None:
    return None if images.groups is None else len(np.unique(images.groups[rows]))


def _identical(images: ImageSet) -> dict[str, int]:
    """How many files repeat the bytes of another, and how many images have several labels."""
    pairs = np.unique(np.stack([images.digest, images.labels]), axis=1)
    _, n_labels = np.unique(pairs[0], return_counts=True)
    repeated = len(images) - len(n_labels)
    return {"repeated": repeated, "under_several_labels": int((n_labels > 1).sum())}


def draw_demo_images(cache: PathLike) -> Path:
    """The folder of the embedded images, drawn when they are first needed."""
    from fishfeat.demo import DEMO_GROUP_PATTERN, draw_demo

    workspace = Workspace(cache)
    path = Path(os.path.abspath(draw_demo(workspace.folder / "images" / DEMO_NAME)))
    folder = workspace.dataset_for(DEMO_NAME, path)
    if not folder.exists():
        spec = make_spec(DEMO_BACKBONE).to_json()
        options = {"group_by": [f"pattern:{DEMO_GROUP_PATTERN}"]}
        folder.update(root=str(path), options=options, spec=spec)
    return path


def _last_data(workspace: Workspace) -> Path:
    current = workspace.current
    if current is None:
        log.info("Data set: the embedded images, as no other was named.")
        return draw_demo_images(workspace.folder)
    data = Path(current.state()["data"])
    log.info("Data set: %s, the one last used (%s).", current.name, data)
    return data


def _folder_of(workspace: Workspace, path: Path) -> DatasetFolder:
    """A folder is a data set of its name; a CSV one of its name without suffix, in its folder."""
    name, root = (path.name, path) if path.is_dir() else (path.stem, path.parent)
    return workspace.dataset_for(name, root)


def _remembered(folder: DatasetFolder, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with those that are None taken from the last time, and said."""
    before = folder.state().get("options", {})
    taken = {name: value for name, value in before.items() if options.get(name) is None}
    if taken and folder.images_csv.is_file():
        log.info("As before: %s", " ".join(_said(name, value) for name, value in taken.items()))
    given = {name: value for name, value in options.items() if _is_set(value)}
    if isinstance(given.get("merge"), str | os.PathLike):  # the same file from another folder too
        given["merge"] = os.path.abspath(given["merge"])
    return taken | {name: _plain(value) for name, value in given.items()}


def _said(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, list):
        return " ".join(f"{flag} {one}" for one in value)
    return flag if value is True else f"{flag} {value}"


def _is_set(value: Any) -> bool:
    return value is True or isinstance(value, os.PathLike) or bool(value and any(value))


def _plain(value: Any) -> Any:
    """Lists, tables, texts and flags as JSON keeps them."""
    if isinstance(value, str | bool):
        return value
    return dict(value) if isinstance(value, Mapping) else list(value)
