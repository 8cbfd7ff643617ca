"""Put groups in force: those that were asked for, or say what speaks for some where none were."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fishfeat.errors import FishfeatError
from fishfeat.files import json_digest
from fishfeat.images.grouping.hints import GroupingHint, find_hints
from fishfeat.images.grouping.near_duplicates import N_NEIGHBOURS, find_near_duplicates
from fishfeat.images.grouping.rules import Rule, group_by_column, group_images, parse_rules
from fishfeat.images.sources.listing import list_data
from fishfeat.records import Features, ImageSet, OnProgress
from fishfeat.records.near_duplicates import NearDuplicates
from fishfeat.workspace import DatasetFolder

log = logging.getLogger("fishfeat")

_LOOK = 2  # raised when copies or hints are found in another way, so that it is looked again


def asked_rules(group_by: Sequence[str] | None, group_pattern: str | None) -> list[str] | None:
    """Both options as rules; None where neither is given, [] where an empty one forgets."""
    if group_by is None and group_pattern is None:
        return None
    texts = [*(group_by or ()), *([f"pattern:{group_pattern}"] if group_pattern else [])]
    return [str(rule) for rule in parse_rules([text for text in texts if text])]


def known_rules(folder: DatasetFolder) -> tuple[Rule, ...]:
    """The rules in force of a data set; none where nothing was asked for."""
    return parse_rules(folder.state().get("options", {}).get("group_by", ()))


def group_listed(folder: DatasetFolder, images: ImageSet, rules: Sequence[Rule]) -> ImageSet:
    """Groups that need no features; of copies those that were found before."""
    if _is_auto(rules):
        found = folder.state().get("hints", {}).get("found", ())
        rules = parse_rules([hint["rule"] for hint in found])
    duplicates = folder.load_near_duplicates()
    ready = [rule for rule in rules if rule.kind != "duplicates" or duplicates is not None]
    return group_images(images, ready, duplicates=duplicates)


def regroup(folder: DatasetFolder, asked: Sequence[str]) -> None:
    """Ask for other groups: `asked` as rules, none for those that the data set brings itself.

    Groups that need features are put in force by `settle_groups`.
    """
    rules = parse_rules(asked)
    images = group_listed(folder, _as_listed(folder, rules), rules)
    folder.save_images(images)
    options = folder.state().get("options", {}) | {"group_by": list(asked)}
    folder.update(options={name: value for name, value in options.items() if value})


@contextlib.contextmanager
def restored_on_failure(folder: DatasetFolder) -> Iterator[None]:
    """Groups with which nothing can be split are not remembered: what was in force before stays."""
    images, options = folder.load_images(), folder.state().get("options", {})
    try:
        yield
    except FishfeatError:
        folder.save_images(images)
        folder.update(options=options)
        raise


def _as_listed(folder: DatasetFolder, rules: Sequence[Rule]) -> ImageSet:
    """The images with the groups of the CSV's column, where the data set is one that has it."""
    images, data = folder.load_images(), Path(folder.state()["data"])
    column = next((rule.value for rule in rules if rule.kind == "column"), "")
    names = [""] * len(images)
    if data.is_file():
        listed = {entry.key: entry.group for entry in list_data(data, group_column=column).entries}
        names = [listed.get(key, "") for key in images.keys.tolist()]
    plain = dataclasses.replace(images, groups=None, group_name=None, grouping="")
    return group_by_column(plain, names)


def is_settled(folder: DatasetFolder, images: ImageSet, features: Features) -> bool:
    """Whether the groups in force are those of these very images and features."""
    kinds = {rule.kind for rule in known_rules(folder)}
    if images.groups is None or "auto" in kinds:
        return False
    looked = folder.state().get("near_duplicates", {}).get("key")
    return "duplicates" not in kinds or looked == _look_key(images, features)


class Settled(NamedTuple):
    """The images and features with the groups in force, and the hints, where any were wanted."""

    images: ImageSet
    features: Features
    hints: list[GroupingHint]


def settle_groups(
    folder: DatasetFolder,
    images: ImageSet,
    features: Features,
    *,
    on_compare: OnProgress | None = None,
) -> Settled:
    """Put the groups of `known_rules` in force, in `images.csv` and in the features.

    Where nothing was asked for and the data set brings no groups of its own, what speaks for some
    is said; 'none' silences that, and 'auto' uses what was found.
    """
    rules = known_rules(folder)
    unnamed = not rules and images.groups is None
    hints = _signs(folder, images, features) if unnamed or _is_auto(rules) else []
    if unnamed:
        _say_hints(hints)
    if _is_auto(rules):
        rules = _chosen(hints)
    duplicates = None
    if any(rule.kind == "duplicates" for rule in rules):
        duplicates = _near_duplicates(folder, images, features, on_compare)
    if rules:
        listed, images = images, group_images(images, rules, duplicates=duplicates)
        if not _same_groups(listed, images):
            folder.save_images(images)
    return Settled(images, _regrouped(features, images), hints)


def _same_groups(a: ImageSet, b: ImageSet) -> bool:
    same = (np.array_equal(getattr(a, name), getattr(b, name)) for name in ("groups", "group_name"))
    return a.grouping == b.grouping and all(same)


def _is_auto(rules: Sequence[Rule]) -> bool:
    return [rule.kind for rule in rules] == ["auto"]


def _chosen(hints: Sequence[GroupingHint]) -> tuple[Rule, ...]:
    """The rules of the hints; 'none' where there are none."""
    if not hints:
        log.info("--group-by auto: no number repeats in the names, and no bursts or copies found.")
        return (Rule("none"),)
    log.info("--group-by auto takes %s.", ", ".join(hint.rule for hint in hints))
    return parse_rules([hint.rule for hint in hints])


def _say_hints(hints: Sequence[GroupingHint]) -> None:
    for hint in hints:
        log.warning("%s", hint.finding())
    if hints:
        log.warning("`--group-by auto` applies the rules above.")


def _regrouped(features: Features, images: ImageSet) -> Features:
    """The features with the groups of `images`, which hold all of its keys."""
    rows = np.searchsorted(images.keys, features.keys)
    groups = None if images.groups is None else images.groups[rows]
    return dataclasses.replace(features, groups=groups, grouping=images.grouping)


# --- what was looked for before is not looked for again -------------------------------------


def _look_key(images: ImageSet, features: Features) -> str:
    """Digest of what a look depends on: which images, and which features."""
    seen = [images.keys, images.digest, features.keys, features.spec.key, features.fingerprint]
    return json_digest([_LOOK, N_NEIGHBOURS, *seen])


def _near_duplicates(
    folder: DatasetFolder, images: ImageSet, features: Features, on_compare: OnProgress | None
) -> NearDuplicates:
    key = _look_key(images, features)
    known = folder.load_near_duplicates()
    if known is not None and folder.state()["near_duplicates"].get("key") == key:
        return known
    embedded = images.select(np.isin(images.keys, features.keys))
    duplicates = find_near_duplicates(embedded, features.X, on_progress=on_compare)
    folder.save_near_duplicates(duplicates, key=key, features=features.spec.to_json())
    log.info(
        "Near-duplicates: %d pairs verified of %d compared; each stands in %s.",
        *(len(duplicates.pairs), duplicates.n_compared, folder.near_duplicates_csv),
    )
    return duplicates


def _signs(folder: DatasetFolder, images: ImageSet, features: Features) -> list[GroupingHint]:
    key = json_digest([_look_key(images, features), images.labels])
    noted: dict[str, Any] = folder.state().get("hints", {})
    if noted.get("key") != key:
        embedded = images.select(np.isin(images.keys, features.keys))
        found = find_hints(embedded, features.X)
        noted = {"key": key, "found": [hint._asdict() for hint in found]}
        folder.update(hints=noted)
    return [GroupingHint(**hint) for hint in noted["found"]]
