"""Which images belong together and must never stand on both sides of a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fishfeat.errors import DataError, did_you_mean, shortened
from fishfeat.images.grouping.capture_time import bursts, read_captures
from fishfeat.images.grouping.joined import Joined
from fishfeat.images.grouping.near_duplicates import near_duplicate_groups
from fishfeat.images.labels import compiled
from fishfeat.records import UNLABELLED, ImageSet, Int
from fishfeat.records.near_duplicates import NearDuplicates

OPTION = "--group-by"
FORMS = {
    "pattern": "pattern:REGEX",
    "column": "column or column:NAME",
    "folder": "folder:N",
    "time": "time:SECONDS",
    "duplicates": "duplicates",
    "auto": "auto",
    "none": "none",
}
_ALONE = ("auto", "none")
_NAMES_SHOWN = 3


class Rule(NamedTuple):
    """One way to say what belongs together: 'folder:1' is kind 'folder', value '1'."""

    kind: str
    value: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind


def parse_rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    """The rules of --group-by.

    Raises
    ------
    DataError
        A rule is not known, lacks its value or has a wrong one, or 'auto' or 'none' is not alone.
    """
    rules = tuple(dict.fromkeys(_parsed(text) for text in texts))
    alone = [rule.kind for rule in rules if rule.kind in _ALONE]
    if alone and len(rules) > 1:
        given = " ".join(f"{OPTION} {rule}" for rule in rules)
        raise DataError(f"{OPTION} {alone[0]} stands alone; got {given}.")
    columns = [rule for rule in rules if rule.kind == "column"]
    if len(columns) > 1:
        raise DataError(f"{OPTION} takes one column; got {shortened([str(c) for c in columns])}.")
    return rules


def _parsed(text: str) -> Rule:
    kind, _, value = text.partition(":")
    wrong = kind not in FORMS or (bool(value) and ":" not in FORMS[kind])
    if wrong or (not value and FORMS[kind].startswith(f"{kind}:")):
        raise DataError(
            f"{OPTION} must be one of {', '.join(FORMS.values())}; got '{text}'.{_meant(text)}"
        )
    if kind == "folder" and not (value.isdecimal() and int(value) > 0):
        raise DataError(f"{OPTION} folder:N takes a number from 1; got {text!r}.")
    if kind == "time" and not _is_positive(value):
        raise DataError(f"{OPTION} time:SECONDS takes a number above 0; got {text!r}.")
    if kind == "pattern":
        compiled(value, option=f"{OPTION} pattern:")
    return Rule(kind, value)


def _meant(text: str) -> str:
    """A hint at the rule that was meant, where there is one."""
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
    """Number the group names, int64 (n_images,); an image without one ('') is its own group.

    In the order of their names, so that folds are those that scikit-learn draws by the names.
    """
    unique = [name or f"\0{i}" for i, name in enumerate(names)]
    codes: Int = np.unique(np.array(unique, dtype=object), return_inverse=True)[1].astype(np.int64)
    return codes


class Grouping(NamedTuple):
    """What one rule finds: a name for each image ('' for none), and sentences about it."""

    names: list[str]
    sentences: list[str]


def group_images(
    images: ImageSet, rules: Sequence[Rule | str], *, duplicates: NearDuplicates | None = None
) -> ImageSet:
    """The image set with groups by one or more rules.

    Images that any of the rules puts together belong together, and so do those that a chain of
    rules connects.

    Parameters
    ----------
    images
        Any image set; groups that it has count for 'column' and are replaced.
    rules
        'pattern:REGEX' (searched in each key; its groups together, or the whole match where it has
        none, name what the image belongs to), 'column' (of the CSV), 'folder:N' (the first N
        folders of the key), 'time:SECONDS' (bursts of one camera, by EXIF capture time),
        'duplicates'. No rule at all leaves `images` as they are; 'none' is without groups.
    copies
        What `find_near_duplicates` found, for 'duplicates'.

    Raises
    ------
    DataError
        A rule is not valid or finds nothing at all.
    """
    parsed = parse_rules([str(rule) for rule in rules])
    if not parsed:
        return images
    if parsed[0].kind == "none":
        return replace(images, groups=None, group_name=None, grouping="")
    found = [_found(images, rule, duplicates) for rule in parsed]
    groups, names = _united([one.names for one in found])
    sentences = [sentence for one in found for sentence in one.sentences]
    sentences += _crossing(images, groups, parsed)
    return replace(
        images,
        groups=groups,
        group_name=np.array([name.replace("\0", " ") for name in names], str),
        grouping=" ".join(sentences),
    )


def group_by_pattern(images: ImageSet, pattern: str) -> ImageSet:
    """The image set with groups found in the paths, as by the rule 'pattern:REGEX'."""
    return group_images(images, [Rule("pattern", pattern)])


def group_by_column(images: ImageSet, names: Sequence[str]) -> ImageSet:
    """The image set with what the column `group` says of each image; none where it is empty."""
    if not any(names):
        return images
    return replace(
        images,
        groups=encode_groups(names),
        group_name=np.array(names, str),
        grouping="Images belong together by the CSV's group column.",
    )


def _found(images: ImageSet, rule: Rule, duplicates: NearDuplicates | None) -> Grouping:
    if rule.kind == "duplicates":
        return _duplicates(images, duplicates)
    if rule.kind not in _FINDERS:
        raise DataError(f"{OPTION} {rule} chooses rules by what `fishfeat extract` finds.")
    return _FINDERS[rule.kind](images, rule.value)


def _united(columns: list[list[str]]) -> tuple[Int, list[str]]:
    """Groups of images that share a name in any column, int64 (n,), and what they are called."""
    if len(columns) == 1:
        return encode_groups(columns[0]), columns[0]
    joined = Joined(len(columns[0]))
    for column in columns:
        first: dict[str, int] = {}
        for i, name in enumerate(column):
            if name:
                joined.join(first.setdefault(name, i), i)
    roots = np.array([joined.root(i) for i in range(len(columns[0]))], np.int64)
    called: dict[int, dict[str, None]] = {}
    for column in columns:
        for root, name in zip(roots.tolist(), column, strict=True):
            if name:
                called.setdefault(root, {})[name] = None
    names = [_called(list(called.get(root, ()))) for root in roots.tolist()]
    groups: Int = np.unique(roots, return_inverse=True)[1].astype(np.int64)
    return groups, names


def _called(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return " + ".join(names[:_NAMES_SHOWN]) + (f" + {more} more" if more > 0 else "")


# --- rules ----------------------------------------------------------------------------------


def _by_pattern(images: ImageSet, pattern: str) -> Grouping:
    regex = compiled(pattern, option=f"{OPTION} pattern:")
    found = [regex.search(str(key)) for key in images.keys]
    # A NUL stands in no path, so joined names cannot be mistaken for one another.
    parts = [m.groups("") or (m.group(0),) if m else () for m in found]
    names = ["\0".join(part) if any(part) else "" for part in parts]
    if not any(names):
        raise DataError(
            f"{OPTION} 'pattern:{pattern}' matches none of {len(images)} paths, for example "
            f"{shortened(images.keys, n=1)}. It is searched in the path below {images.root}."
        )
    alone = names.count("")
    sentences = [f"Images in whose paths `{pattern}` finds the same belong together."]
    if alone:
        sentences.append(f"{alone} images do not match it; each is a group of its own.")
    return Grouping(names, sentences)


def _by_column(images: ImageSet, name: str) -> Grouping:
    column = f"column {name!r}" if name else "column group"
    if images.group_name is None or not any(images.group_name.tolist()):
        raise DataError(
            f"{OPTION} {Rule('column', name)}: no image has an entry in a {column}. Give a CSV "
            "that has it, or group the images by something else."
        )
    said = f"Images belong together by the CSV's {name or 'group'} column."
    return Grouping(images.group_name.tolist(), [said])


def _by_folder(images: ImageSet, value: str) -> Grouping:
    n = int(value)
    folders = [key.split("/")[:-1] for key in images.keys.tolist()]
    names = ["/".join(path[:n]) for path in folders]
    if not any(names):
        raise DataError(
            f"{OPTION} folder:{n}: no image lies in a folder below {images.root}, for example "
            f"{shortened(images.keys, n=1)}."
        )
    if n > (deepest := max(map(len, folders))):
        raise DataError(
            f"{OPTION} folder:{n}: the deepest image lies in {deepest} "
            f"{'folder' if deepest == 1 else 'folders'} below {images.root}."
        )
    kind = "outermost folder" if n == 1 else f"{n} outermost folders"
    return Grouping(names, [f"Images belong together by the {kind} of the path."])


def _by_time(images: ImageSet, value: str) -> Grouping:
    captures = read_captures(images, np.arange(len(images)))
    names = bursts(captures, float(value))
    if not any(names):
        raise DataError(
            f"{OPTION} time:{value}: none of {len(images)} images says in its EXIF data when it "
            "was taken. Group them by something else."
        )
    sentences = [f"Bursts: shots of one camera with no more than {value} s from one to the next."]
    alone = names.count("")
    if alone:
        sentences.append(f"{alone} images do not say when; each is a group of its own.")
    return Grouping(names, sentences)


def _duplicates(images: ImageSet, duplicates: NearDuplicates | None) -> Grouping:
    if duplicates is None:
        raise DataError(
            f"{OPTION} duplicates compares images by their features, so after embedding: in "
            "`fishfeat extract` and `fishfeat fit`, or in Python by "
            "group_images(images, ['duplicates'], duplicates=find_near_duplicates(images))."
        )
    names = near_duplicate_groups(images, duplicates)
    n = sum(map(bool, names))
    how = "Near-duplicates belong together, each verified by laying one image on the other"
    return Grouping(names, [f"{how}: {n} of {len(images)} images have one."])


_FINDERS: dict[str, Callable[[ImageSet, str], Grouping]] = {
    "pattern": _by_pattern,
    "column": _by_column,
    "folder": _by_folder,
    "time": _by_time,
}


def _crossing(images: ImageSet, groups: Int, rules: Sequence[Rule]) -> list[str]:
    """A warning where one group spans classes: often a number that restarts in every folder."""
    labelled = images.y != UNLABELLED
    pairs = np.unique(np.stack([groups, images.y], axis=1)[labelled], axis=0)
    crossing = int((np.bincount(pairs[:, 0]) > 1).sum()) if len(pairs) else 0
    if not crossing:
        return []
    said = f"{crossing} groups hold images of several classes."
    patterns = [rule.value for rule in rules if rule.kind == "pattern"]
    if not patterns:
        return [said]
    return [
        f"{said} If the number restarts in every folder, put the folder into the pattern: "
        f"'([^/]+)/[^/]*{patterns[0]}'."
    ]
