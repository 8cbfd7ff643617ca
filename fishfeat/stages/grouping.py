"""Apply the groups that were asked for, or give hints where none were."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.files import json_digest
from fishfeat.images.grouping.hints import GroupingHint, find_hints
from fishfeat.images.grouping.near_duplicates import N_NEIGHBOURS, find_near_duplicates
from fishfeat.images.grouping.rules import Rule, group_by_column, group_images, parse_rules
from fishfeat.images.sources.annotated import choose_reader
from fishfeat.images.sources.listing import list_data
from fishfeat.images.sources.tables import TableOptions
from fishfeat.records import Features, ImageSet, OnProgress
from fishfeat.records.near_duplicates import NearDuplicates
from fishfeat.workspace import (
    Dataset,
    DatasetState,
    HintSearch,
    NearDuplicateSearch,
    SavedHint,
)

log = logging.getLogger("fishfeat")

# Raised where near-duplicates or hints are found in another way, so that they are searched again.
_METHOD = 3


class Grouped(NamedTuple):
    """Images and features with the active groups.

    Attributes
    ----------
    images, features
        With the active groups.
    hints
        Hints at related images, where nobody named groups.
    state
        The state to commit: it remembers the searches.
    near_duplicates
        The table to commit; None where the one on disk is up to date.
    """

    images: ImageSet
    features: Features
    hints: list[GroupingHint]
    state: DatasetState
    near_duplicates: NearDuplicates | None


def parse_group_by(group_by: Sequence[str]) -> tuple[str, ...]:
    """The rules of --group-by in their canonical form; empty ones are dropped."""
    return tuple(str(rule) for rule in parse_rules([text for text in group_by if text]))


def group_listed(dataset: Dataset, images: ImageSet, rules: Sequence[Rule]) -> ImageSet:
    """Groups that need no features; of near-duplicates those that were verified before."""
    state = dataset.state
    if _is_auto(rules):
        hints = () if state.hints is None else state.hints.hints
        rules = parse_rules([hint.rule for hint in hints])
    near_duplicates = None
    if any(rule.kind == "duplicates" for rule in rules):
        near_duplicates = dataset.load_near_duplicates()
    if near_duplicates is None:
        rules = [rule for rule in rules if rule.kind != "duplicates"]
    return group_images(images, rules, duplicates=near_duplicates)


def regroup(dataset: Dataset, group_by: Sequence[str]) -> Dataset:
    """The data set with other rules; no rule at all is the groups that a table brings.

    Groups that need features are applied by `apply_groups`. Nothing is written.
    """
    rules = parse_rules(group_by)
    images = dataset.require_images()
    plain = dataclasses.replace(images, groups=None, group_name=None, grouping="")
    names, sentence = _read_listed_groups(dataset, images, rules)
    listed = group_by_column(plain, names, sentence=sentence)
    options = dataclasses.replace(dataset.state.options, group_by=tuple(group_by) or None)
    state = dataclasses.replace(dataset.state, options=options)
    dataset = dataclasses.replace(dataset, state=state)
    return dataclasses.replace(dataset, images=group_listed(dataset, listed, rules))


def _read_listed_groups(
    dataset: Dataset, images: ImageSet, rules: Sequence[Rule]
) -> tuple[list[str], str]:
    """Group of each image in the table or annotation file, '' for none; what they are."""
    data = Path(dataset.state.data)
    options = dataset.state.options
    source = options.source or ""
    if not data.exists() or (data.is_dir() and choose_reader(data, source) is None):
        return [""] * len(images), ""
    column = next((rule.value for rule in rules if rule.kind == "column"), "")
    how = TableOptions(options.root, options.columns or "", column)
    listing = list_data(data, table=how, source=source)
    groups = {entry.key: entry.group for entry in listing.entries}
    return [groups.get(key, "") for key in images.keys.tolist()], listing.grouping


def apply_groups(
    dataset: Dataset,
    images: ImageSet,
    features: Features,
    *,
    on_compare: OnProgress | None = None,
) -> Grouped:
    """Group images and features by the rules of the state; nothing is written.

    Where there are no rules and the data set brings no groups, hints at related images are logged.
    The rule 'none' silences them, 'auto' applies them.
    """
    state = dataset.state
    rules = parse_rules(state.options.group_by or ())
    is_auto = _is_auto(rules)
    hints: list[GroupingHint] = []
    if is_auto or (not rules and images.groups is None):
        search = _search_hints(state, images, features)
        state = dataclasses.replace(state, hints=search)
        hints = [GroupingHint(**dataclasses.asdict(hint)) for hint in search.hints]
        rules = _choose_rules(hints) if is_auto else rules
        if not is_auto:
            _log_hints(hints)
    near_duplicates, new_table = None, None
    if any(rule.kind == "duplicates" for rule in rules):
        near_duplicates = _reuse_near_duplicates(dataset, images, features)
        if near_duplicates is None:
            new_table = _search_near_duplicates(dataset, images, features, on_compare)
            near_duplicates = new_table
            new_search = NearDuplicateSearch(
                n_images=new_table.n_images,
                n_compared=new_table.n_compared,
                n_pairs=len(new_table.pairs),
                key=_search_key(images, features),
                features=features.spec.to_json(),
            )
            state = dataclasses.replace(state, near_duplicates=new_search)
    if rules:
        images = group_images(images, rules, duplicates=near_duplicates)
    rows = np.searchsorted(images.keys, features.keys)
    groups = None if images.groups is None else images.groups[rows]
    features = dataclasses.replace(features, groups=groups, grouping=images.grouping)
    return Grouped(images, features, hints, state, new_table)


def are_applied(dataset: Dataset, features: Features) -> bool:
    """Whether the groups of the images are those of these very images and features."""
    images, state = dataset.require_images(), dataset.state
    kinds = {rule.kind for rule in parse_rules(state.options.group_by or ())}
    if images.groups is None or "auto" in kinds:
        return False
    if "duplicates" not in kinds:
        return True
    search = state.near_duplicates
    return search is not None and search.key == _search_key(images, features)


def _is_auto(rules: Sequence[Rule]) -> bool:
    return [rule.kind for rule in rules] == ["auto"]


def _choose_rules(hints: Sequence[GroupingHint]) -> tuple[Rule, ...]:
    """The rules of the hints; 'none' where there are none."""
    if not hints:
        log.info(
            "--group-by auto: no number repeats in the file names, and there are no bursts and no "
            "near-duplicates."
        )
        return (Rule("none"),)
    log.info("--group-by auto uses %s.", ", ".join(hint.rule for hint in hints))
    return parse_rules([hint.rule for hint in hints])


def _log_hints(hints: Sequence[GroupingHint]) -> None:
    for hint in hints:
        log.warning("%s", hint.finding())
    if hints:
        log.warning(
            "`--group-by auto` applies these hints. `--group-by none` says that the images are "
            "unrelated."
        )


# --- searches that are remembered -----------------------------------------------------------


def _search_key(images: ImageSet, features: Features) -> str:
    """Digest of what a search depends on: the images, the features and the method."""
    return json_digest(
        [
            _METHOD,
            N_NEIGHBOURS,
            images.keys,
            images.digest,
            features.keys,
            features.spec.key,
            features.fingerprint,
        ]
    )


def _reuse_near_duplicates(
    dataset: Dataset, images: ImageSet, features: Features
) -> NearDuplicates | None:
    """The pairs on disk, where they are of the same images and features."""
    search = dataset.state.near_duplicates
    if search is None or search.key != _search_key(images, features):
        return None
    return dataset.load_near_duplicates()


def _search_near_duplicates(
    dataset: Dataset, images: ImageSet, features: Features, on_compare: OnProgress | None
) -> NearDuplicates:
    embedded = images.select(np.isin(images.keys, features.keys))
    near_duplicates = find_near_duplicates(embedded, features.X, on_progress=on_compare)
    log.info(
        "Near-duplicates: %d pairs verified of %d compared; they are listed in %s.",
        len(near_duplicates.pairs),
        near_duplicates.n_compared,
        dataset.folder.folder / "near_duplicates.csv",
    )
    return near_duplicates


def _search_hints(state: DatasetState, images: ImageSet, features: Features) -> HintSearch:
    key = json_digest([_search_key(images, features), images.labels])
    if state.hints is not None and state.hints.key == key:
        return state.hints
    embedded = images.select(np.isin(images.keys, features.keys))
    hints = find_hints(embedded, features.X)
    return HintSearch(key, tuple(SavedHint(**hint._asdict()) for hint in hints))
