"""Grouping rules: which images are related and must stay on one side of every split."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fishfeat.checks import Finding
from fishfeat.errors import DataError, count_things, did_you_mean, shortened
from fishfeat.images.grouping.capture_time import name_bursts, read_captures
from fishfeat.images.grouping.near_duplicates import near_duplicate_groups
from fishfeat.images.labels import compile_pattern, is_placeholder
from fishfeat.records import UNLABELLED, ImageSet, Int
from fishfeat.records.near_duplicates import NearDuplicates

FORMS = {
    "pattern": "pattern:REGEX",
    "column": "column or column:NAME",
    "folder": "folder:N",
    "time": "time:SECONDS",
    "duplicates": "duplicates",
    "auto": "auto",
    "none": "none",
}
_ONLY_ALONE = ("auto", "none")
_MAX_NAMES = 3


class Rule(NamedTuple):
    """One way to group images: 'folder:1' is of the kind 'folder' and has the value '1'."""

    kind: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """Parse the rules of `group_by`; a repeated rule counts once.

    Raises
    ------
    DataError
        A rule does not exist or its value is missing or not valid, there are two columns, or
        'auto' or 'none' is combined with another rule.
    """
    rules = tuple(dict.fromkeys(_parse_rule(text) for text in texts))
    for rule in rules:
        if rule.kind in _ONLY_ALONE and len(rules) > 1:
            raise DataError(
                f"group_by '{rule.kind}' cannot be combined with other rules; got "
                f"{shortened([str(rule) for rule in rules])}."
            )
    columns = [str(rule) for rule in rules if rule.kind == "column"]
    if len(columns) > 1:
        raise DataError(f"group_by takes one column; got {shortened(columns)}.")
    return rules


def _parse_rule(text: str) -> Rule:
    kind, _, value = text.partition(":")
    form = FORMS.get(kind, "")
    has_unexpected_value = bool(value) and ":" not in form
    lacks_value = not value and form.startswith(f"{kind}:")
    if not form or has_unexpected_value or lacks_value:
        raise DataError(
            f"group_by must be one of {', '.join(FORMS.values())}; got '{text}'."
            f"{_suggest_rule(text)}"
        )
    if kind == "folder" and not (value.isdecimal() and int(value) > 0):
        raise DataError(f"group_by folder:N takes a whole number from 1; got {text!r}.")
    if kind == "time" and not _is_positive(value):
        raise DataError(f"group_by time:SECONDS takes a number above 0; got {text!r}.")
    if kind == "pattern":
        compile_pattern(value, parameter="group_by pattern:")
    return Rule(kind, value)


def _suggest_rule(text: str) -> str:
    """' Did you mean ...?' for a rule that is probably meant, else ''."""
    if set(text) & set("()[]\\"):
        return f" Did you mean 'pattern:{text}'?"
    kind = text.partition(":")[0]
    return "" if kind in FORMS else did_you_mean(kind, FORMS)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def encode_groups(names: Sequence[str]) -> Int:
    """Number the group names, int64 (n_images,); an image without one ('') is a group of its own.

    Numbers follow the order of the names, so that folds equal those that scikit-learn draws by the
    names.
    """
    unique_names = [name or f"\0{i}" for i, name in enumerate(names)]
    _, codes = np.unique(np.array(unique_names, dtype=object), return_inverse=True)
    return codes.astype(np.int64)


class Grouping(NamedTuple):
    """What one rule gives: a group name for each image ('' for none), and sentences about it."""

    names: list[str]
    sentences: list[str]


def group_images(
    images: ImageSet, rules: Sequence[Rule | str], *, duplicates: NearDuplicates | None = None
) -> ImageSet:
    """Group images by one or more rules.

    Images are one group where any rule relates them, directly or through a chain of other images.

    Parameters
    ----------
    images
        Any image set. Its groups are replaced; the rule 'column' reads them.
    rules
        'pattern:REGEX': images whose keys match with the same text (the groups of the regular
        expression together, or the whole match where it has none). 'column': the column of the
        CSV. 'folder:N': the first N folders of the key. 'time:SECONDS': bursts of one camera, by
        EXIF capture time. 'duplicates': near-duplicates. 'none' removes the groups. No rule at all
        leaves `images` as they are.
    duplicates
        The result of `find_near_duplicates`, for the rule 'duplicates'.

    Returns
    -------
    ImageSet
        The images with `groups`, `group_name` and `grouping`.

    Raises
    ------
    DataError
        A rule is not valid, or relates no images at all.
    """
    parsed = parse_rules([str(rule) for rule in rules])
    if not parsed:
        return images
    if parsed[0].kind == "none":
        return replace(images, groups=None, group_name=None, grouping="")
    groupings = [_apply_rule(images, rule, duplicates) for rule in parsed]
    groups, names = _unite_groups([grouping.names for grouping in groupings])
    sentences = [sentence for grouping in groupings for sentence in grouping.sentences]
    crossing = find_crossing_groups(images, groups, parsed)
    if crossing is not None:
        sentences.append(str(crossing))
    return replace(
        images,
        groups=groups,
        group_name=np.array([name.replace("\0", " ") for name in names], str),
        grouping=" ".join(sentences),
    )


def group_by_column(images: ImageSet, names: Sequence[str], *, sentence: str = "") -> ImageSet:
    """Group images by the CSV's column `names`, str (n_images,); unchanged where all are ''.

    `sentence` says what the groups are, where they are not a column.
    """
    if not any(names):
        return images
    return replace(
        images,
        groups=encode_groups(names),
        group_name=np.array(names, str),
        grouping=sentence or "Images with the same value in the CSV's group column are one group.",
        findings=(
            *(finding for finding in images.findings if finding.check != "placeholder-groups"),
            *_check_placeholders(images, names),
        ),
    )


def _check_placeholders(images: ImageSet, names: Sequence[str]) -> list[Finding]:
    """Group names that stand for a missing value: their images are one group."""
    findings = []
    for name in sorted(set(names)):
        if not is_placeholder(name):
            continue
        labels = images.labels[np.array(names, str) == name]
        if len(labels) < 2:
            continue
        n_classes = len(set(labels.tolist()) - {""})
        of_classes = f" of {n_classes} classes" if n_classes > 1 else ""
        message = f"{len(labels)} images{of_classes} are in the group {name!r}."
        fix = "If their group is not known, leave the cells empty: each is then its own group."
        findings.append(Finding("placeholder-groups", message, fix))
    return findings


def find_crossing_groups(images: ImageSet, groups: Int, rules: Sequence[Rule]) -> Finding | None:
    """Check that no group has images of several classes; `groups` int64 (n_images,)."""
    labelled = images.y != UNLABELLED
    pairs = np.unique(np.stack([groups, images.y], axis=1)[labelled], axis=0)
    n_classes = np.bincount(pairs[:, 0]) if len(pairs) else np.zeros(0, np.int64)
    n_crossing = int((n_classes > 1).sum())
    if not n_crossing:
        return None
    if n_crossing == 1:
        message = "1 group holds images of several classes."
    else:
        message = f"{n_crossing} groups hold images of several classes."
    patterns = [rule.value for rule in rules if rule.kind == "pattern"]
    fix = ""
    if patterns:
        fix = (
            "If the number starts again in every folder, add the folder to the pattern: "
            f"`--group-by 'pattern:([^/]+)/[^/]*{patterns[0]}'`."
        )
    return Finding("groups-across-classes", message, fix)


def _unite_groups(columns: list[list[str]]) -> tuple[Int, list[str]]:
    """Unite images that share a name in any column: groups, int64 (n_images,), and their names."""
    if len(columns) == 1:
        return encode_groups(columns[0]), columns[0]
    from scipy.cluster.hierarchy import DisjointSet

    n_images = len(columns[0])
    sets = DisjointSet(range(n_images))
    for column in columns:
        first_row: dict[str, int] = {}
        for row, name in enumerate(column):
            if name:
                sets.merge(first_row.setdefault(name, row), row)
    groups = np.empty(n_images, np.int64)
    names = [""] * n_images
    # The sets come in the order of their smallest rows.
    for number, subset in enumerate(sets.subsets()):
        rows = sorted(subset)
        parts = [column[row] for column in columns for row in rows if column[row]]
        name = _join_names(list(dict.fromkeys(parts)))
        for row in rows:
            groups[row] = number
            names[row] = name
    return groups, names


def _join_names(names: list[str]) -> str:
    joined = " + ".join(names[:_MAX_NAMES])
    n_more = len(names) - _MAX_NAMES
    return f"{joined} + {n_more} more" if n_more > 0 else joined


# --- rules ----------------------------------------------------------------------------------


def _apply_rule(images: ImageSet, rule: Rule, duplicates: NearDuplicates | None) -> Grouping:
    if rule.kind == "pattern":
        return _group_by_pattern(images, rule.value)
    if rule.kind == "column":
        return _group_by_csv_column(images, rule.value)
    if rule.kind == "folder":
        return _group_by_folder(images, int(rule.value))
    if rule.kind == "time":
        return _group_by_time(images, rule.value)
    if rule.kind == "duplicates":
        return _group_by_duplicates(images, duplicates)
    raise DataError(
        f"group_by '{rule}' picks rules by the grouping hints, which `fishfeat extract` and "
        "`fishfeat fit` find. In Python, pass the rules of `find_hints(images)`."
    )


def name_by_pattern(regex: re.Pattern[str], key: str) -> str:
    """Name of the group of an image by its path; '' where the pattern does not match."""
    match = regex.search(key)
    parts = (match.groups("") or (match.group(0),)) if match else ()
    # No path holds a NUL, so different parts never give the same name.
    return "\0".join(parts) if any(parts) else ""


def name_by_folder(key: str, n_folders: int) -> str:
    """The outermost folders of a path; '' where it is in none."""
    return "/".join(key.split("/")[:-1][:n_folders])


def _group_by_pattern(images: ImageSet, pattern: str) -> Grouping:
    regex = compile_pattern(pattern, parameter="group_by pattern:")
    names = [name_by_pattern(regex, key) for key in images.keys.tolist()]
    if not any(names):
        raise DataError(
            f"group_by 'pattern:{pattern}' matches none of {len(images)} paths, for example "
            f"{shortened(images.keys, n=1)}. It is searched in the path below {images.root}."
        )
    sentences = [f"Images whose paths match `{pattern}` with the same text are one group."]
    n_alone = names.count("")
    if n_alone:
        sentences.append(
            f"Without a match, so each a group of its own: {count_things(n_alone, 'image')}."
        )
    return Grouping(names, sentences)


def _group_by_csv_column(images: ImageSet, name: str) -> Grouping:
    if images.group_name is None or not any(images.group_name.tolist()):
        raise DataError(
            f"group_by '{Rule('column', name)}': no image has a value in a column "
            f"{name or 'group'!r}. Use a CSV with this column, or another rule."
        )
    sentence = images.grouping
    if name or not sentence:
        column = name or "group"
        sentence = f"Images with the same value in the CSV's {column} column are one group."
    return Grouping(images.group_name.tolist(), [sentence])


def _group_by_folder(images: ImageSet, n_folders: int) -> Grouping:
    folders = [images.file_key(i).split("/")[:-1] for i in range(len(images))]
    place = str(images.root)
    # The paths of a table may leave its folder: folders count below the one that all share.
    if any(path[:1] == [".."] for path in folders):
        n_shared = 0
        for names_at in zip(*folders, strict=False):
            if len(set(names_at)) > 1:
                break
            n_shared += 1
        shared = folders[0][:n_shared]
        folders = [path[len(shared) :] for path in folders]
        place = os.path.normpath(images.root.joinpath(*shared))
    names = ["/".join(path[:n_folders]) for path in folders]
    if not any(names):
        raise DataError(
            f"group_by folder:{n_folders}: no image is in a folder below {place}, for "
            f"example {shortened(images.keys, n=1)}."
        )
    deepest = max(map(len, folders))
    if n_folders > deepest:
        unit = "folder" if deepest == 1 else "folders"
        raise DataError(
            f"group_by folder:{n_folders}: the deepest image is {deepest} {unit} below {place}."
        )
    if n_folders == 1:
        sentence = "Images in the same outermost folder are one group."
    else:
        sentence = f"Images with the same {n_folders} outermost folders are one group."
    if place != str(images.root):
        sentence = f"{sentence[:-1]}, counted below {place}."
    return Grouping(names, [sentence])


def _group_by_time(images: ImageSet, seconds: str) -> Grouping:
    captures = read_captures(images, np.arange(len(images)))
    names = name_bursts(captures, float(seconds))
    if not any(names):
        raise DataError(
            f"group_by time:{seconds}: none of {len(images)} images has a capture time in its EXIF "
            "data. Use another rule."
        )
    sentences = [
        f"Shots of one camera with at most {seconds} s from one to the next are one group."
    ]
    n_alone = names.count("")
    if n_alone:
        sentences.append(
            f"Without a capture time, so each a group of its own: {count_things(n_alone, 'image')}."
        )
    return Grouping(names, sentences)


def _group_by_duplicates(images: ImageSet, duplicates: NearDuplicates | None) -> Grouping:
    if duplicates is None:
        raise DataError(
            "group_by duplicates works after the images are embedded: in `fishfeat extract` and "
            "`fishfeat fit`, or in Python by "
            "group_images(images, ['duplicates'], duplicates=find_near_duplicates(images))."
        )
    names = near_duplicate_groups(images, duplicates)
    n_with = sum(map(bool, names))
    sentence = (
        "Near-duplicates, verified by registration, are one group: "
        f"{n_with} of {len(images)} images have one."
    )
    return Grouping(names, [sentence])
