"""`fishfeat inspect`: list a data set without embedding anything."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fishfeat.errors import count_things
from fishfeat.images.grouping.rules import parse_rules
from fishfeat.options import BackboneOptions, CompareOptions, ScanOptions
from fishfeat.records import ImageSet, OnProgress, PathLike
from fishfeat.stages.dataset import OpenDataset, open_data
from fishfeat.stages.grouping import group_listed, parse_group_by
from fishfeat.workspace import Dataset, apply_truncated

log = logging.getLogger("fishfeat")


@dataclass(frozen=True)
class ClassInfo:
    """One class of a data set: counts, and median size in pixels."""

    name: str
    n_images: int
    n_groups: int | None
    median_width: float
    median_height: float


@dataclass(frozen=True)
class Inspection:
    """What is in a data set.

    Attributes
    ----------
    dataset, images
        Name, and the images with everything that was listed.
    classes
        One for each class.
    n_groups
        Number of groups; None where groups are not known.
    parts
        Number of images in 'train', 'val' and 'test'; None where the data set has no parts.
    n_unlabelled
        Images without a label.
    n_repeated
        Files with the same bytes as another file.
    n_contradicting
        Images that have several labels.
    """

    dataset: str
    images: ImageSet
    classes: tuple[ClassInfo, ...]
    n_groups: int | None
    parts: Mapping[str, int] | None
    n_unlabelled: int
    n_repeated: int
    n_contradicting: int


def inspect_data(
    data: PathLike | None = None,
    options: ScanOptions | None = None,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    on_progress: OnProgress | None = None,
) -> Inspection:
    """List a data set and describe it.

    The data set in use stays in use, and one that has features is left as it was last extracted: a
    look changes nothing that later commands do.

    Parameters
    ----------
    data
        Folder or CSV; None is the data set in use, else the demo images.
    options
        Which files, classes and groups; options that are None are as before.
    cache
        The cache folder.
    dataset
        Name of the data set. None is the one of these images, as their contents say.
    on_progress
        Called with (done, total) files.
    """
    options = options or ScanOptions()
    with open_data(data, cache, options, name=dataset, on_progress=on_progress) as opened:
        before, workspace = opened.dataset, opened.workspace
        listing = list_images(opened, options, on_progress)
        if before.state.spec is None or not before.folder.exists():
            state = dataclasses.replace(
                before.state, data=str(opened.data), options=listing.options
            )
            before.folder.commit(before, state, images=listing.images)
        elif listing.options != before.state.options:
            log.info("These options are not kept: give them to `fishfeat extract` to use them.")
        current = workspace.current
        if current is None:
            workspace.use(before.folder)
        elif current != before.folder:
            log.info(
                "%r stays the data set in use. `fishfeat extract DATA` takes another into use.",
                current.name,
            )
        return describe_images(before.name, listing.images)


class Listing(NamedTuple):
    """The images of a data set, and the options that listed them."""

    images: ImageSet
    options: ScanOptions


def list_images(
    opened: OpenDataset, options: ScanOptions, on_progress: OnProgress | None = None
) -> Listing:
    """List a data set; nothing is written.

    Options that are None are as they were the last time; empty ones are off. Rules of `group_by`
    that need features are applied after embedding.
    """
    from fishfeat.images.decode import describe_reader
    from fishfeat.images.scan import scan
    from fishfeat.images.value_range import check_value_ranges

    dataset = opened.dataset
    white = _find_white(dataset, options)
    options = _remember(dataset, options)
    rules = parse_rules(options.group_by or ())
    columns = tuple(str(rule) for rule in rules if rule.kind == "column")
    images = scan(
        opened.data,
        dataclasses.replace(options, group_by=columns),
        known=_select_known(opened.known, options),
        on_progress=on_progress,
    )
    images = check_value_ranges(dataclasses.replace(images, name=dataset.name), white)
    images = apply_truncated(
        images,
        dataset.state.truncated,
        allow_truncated=bool(options.allow_truncated),
        reader=describe_reader(),
    )
    images = group_listed(dataset, images, rules)
    if any(rule.kind == "duplicates" for rule in rules) and dataset.state.near_duplicates is None:
        log.info("Near-duplicates are searched for after embedding.")
    for note in images.notes:
        log.info("%s", note)
    for finding in images.findings:
        log.log(finding.log_level, "%s", finding)
    _log_labels(images)
    return Listing(images, options)


def _find_white(dataset: Dataset, options: ScanOptions) -> float | None:
    """The value of white that is given now, else the one last used."""
    if isinstance(options, BackboneOptions | CompareOptions) and options.white is not None:
        return options.white or None
    return None if dataset.state.spec is None else dataset.state.spec.white


def _remember(dataset: Dataset, options: ScanOptions) -> ScanOptions:
    """The options with those that are None taken from the last time, which is logged."""
    before = dataset.state.options
    values: dict[str, Any] = {}
    remembered = []
    for option in dataclasses.fields(ScanOptions):
        value, earlier = getattr(options, option.name), getattr(before, option.name)
        if value is None and earlier is not None:
            remembered.append(_format_option(option.name, earlier))
            value = earlier
        values[option.name] = _normalise(option.name, value)
    if remembered and dataset.images is not None:
        log.info("As before: %s", " ".join(remembered))
    return ScanOptions(**values)


def _normalise(name: str, value: Any) -> Any:
    """None for an empty option; rules in their canonical form; a table by its full path."""
    if name == "group_by" and value:
        value = parse_group_by(value)
    if name in ("merge", "root") and isinstance(value, str | os.PathLike) and os.fspath(value):
        return os.path.abspath(value)
    if name == "box_margin":
        return None if value == "" else value
    if isinstance(value, tuple):
        value = tuple(item for item in value if item)
    return value or None


def _format_option(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, tuple):
        return " ".join(f"{flag} {item}" for item in value)
    return flag if value is True else f"{flag} {value}"


def _select_known(known: ImageSet | None, options: ScanOptions) -> ImageSet | None:
    """An earlier listing, without rejected files that would not be rejected now."""
    from fishfeat.images.decode import is_truncated_reason

    if known is None or not options.allow_truncated:
        return known
    rejected = tuple(file for file in known.rejected if not is_truncated_reason(file.reason))
    return dataclasses.replace(known, rejected=rejected)


def _log_labels(images: ImageSet) -> None:
    n_unlabelled, n_classes = int((images.y < 0).sum()), len(images.class_names)
    if n_classes < 2:
        noun = "class" if n_classes == 1 else "classes"
        log.warning("%d %s: enough to embed, but `fishfeat fit` needs two.", n_classes, noun)
    if n_unlabelled:
        log.info(
            "Without a label, so embedded, but not fitted or scored: %s.",
            count_things(n_unlabelled, images.noun),
        )


def describe_images(name: str, images: ImageSet) -> Inspection:
    """Counts, sizes, groups, parts and repeated images of a data set."""
    pairs = np.unique(np.stack([images.digest, images.labels]), axis=1)
    _, n_labels = np.unique(pairs[0], return_counts=True)
    return Inspection(
        dataset=name,
        images=images,
        classes=tuple(_describe_class(images, c) for c in range(len(images.class_names))),
        n_groups=_count_groups(images, np.arange(len(images))),
        parts=None if images.part is None else Counter(images.part.tolist()),
        n_unlabelled=int((images.y < 0).sum()),
        n_repeated=len(images) - len(n_labels),
        n_contradicting=int((n_labels > 1).sum()),
    )


def _describe_class(images: ImageSet, c: int) -> ClassInfo:
    rows = np.flatnonzero(images.y == c)
    return ClassInfo(
        name=str(images.class_names[c]),
        n_images=len(rows),
        n_groups=_count_groups(images, rows),
        median_width=float(np.median(images.width[rows])),
        median_height=float(np.median(images.height[rows])),
    )


def _count_groups(images: ImageSet, rows: Any) -> int | None:
    return None if images.groups is None else len(np.unique(images.groups[rows]))
