"""What is remembered of one data set between commands: read once, committed once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fishfeat.errors import CacheError
from fishfeat.options import ScanOptions
from fishfeat.records import BackboneSpec


@dataclass(frozen=True)
class NearDuplicateSearch:
    """The search whose pairs are in `near_duplicates.csv`.

    Attributes
    ----------
    n_images, n_compared, n_pairs
        Images searched, pairs compared, pairs verified.
    key
        Digest of the images, features and method: the search is made again where it differs.
    features
        JSON of the backbone specification whose features were used.
    """

    n_images: int
    n_compared: int
    n_pairs: int = 0
    key: str = ""
    features: str = ""


@dataclass(frozen=True)
class SavedHint:
    """A grouping hint; the fields of `fishfeat.images.grouping.hints.GroupingHint`."""

    rule: str
    n_groups: int
    n_images: int
    related_share: float


@dataclass(frozen=True)
class HintSearch:
    """Grouping hints that were found, and the digest of what they were searched in."""

    key: str
    hints: tuple[SavedHint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DatasetState:
    """What is remembered of one data set between commands.

    Attributes
    ----------
    root
        Folder that the keys of its images are relative to.
    data
        Folder or table that was listed.
    grouping, notes
        As in `ImageSet`.
    options
        How it was listed; options that are None were never given.
    spec
        The backbone last used; None before the first extraction.
    features
        Name of the feature file last used; '' before the first extraction.
    truncated
        Digest -> reason of every image that was embedded though its file ends too early.
    splits
        Digests of the splits last used, the ranked ones first.
    near_duplicates, hints
        What was searched for before.
    """

    root: str = ""
    data: str = ""
    grouping: str = ""
    notes: tuple[str, ...] = ()
    options: ScanOptions = field(default_factory=ScanOptions)
    spec: BackboneSpec | None = None
    features: str = ""
    truncated: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    near_duplicates: NearDuplicateSearch | None = None
    hints: HintSearch | None = None

    def to_json(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {
            "root": self.root,
            "data": self.data,
            "grouping": self.grouping,
            "notes": list(self.notes),
            "options": _options_to_json(self.options),
            "spec": None if self.spec is None else self.spec.to_json(),
            "features": self.features,
            "truncated": dict(self.truncated),
            "splits": list(self.splits),
            "near_duplicates": None
            if self.near_duplicates is None
            else dataclasses.asdict(self.near_duplicates),
            "hints": None if self.hints is None else dataclasses.asdict(self.hints),
        }

    @classmethod
    def from_json(cls, path: Path, content: Mapping[str, Any]) -> DatasetState:
        """The state that `to_json` gave; files of protocol 1 are read too.

        Raises
        ------
        CacheError
            `content` of the file `path` is not a state.
        """
        values = dict(content)
        if values.get("protocol", 1) < 2:
            values = _upgrade_from_1(values)
        try:
            spec, search, hints = (
                values.get(name) for name in ("spec", "near_duplicates", "hints")
            )
            return cls(
                root=values.get("root", ""),
                data=values.get("data", ""),
                grouping=values.get("grouping", ""),
                notes=tuple(values.get("notes", ())),
                options=_options_from_json(values.get("options", {})),
                spec=BackboneSpec.from_json(spec) if spec else None,
                features=values.get("features") or "",
                truncated=values.get("truncated", {}),
                splits=tuple(values.get("splits", ())),
                near_duplicates=NearDuplicateSearch(**search) if search else None,
                hints=_hints_from_json(hints) if hints else None,
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise CacheError(
                f"{path} cannot be read ({error!r}). Delete it and run `fishfeat extract DATA` "
                "again."
            ) from error


def _options_to_json(options: ScanOptions) -> dict[str, Any]:
    """The options that were given."""
    values: dict[str, Any] = {}
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        if isinstance(value, tuple):
            values[option.name] = list(value)
        elif isinstance(value, Mapping):
            values[option.name] = dict(value)
        elif isinstance(value, os.PathLike):
            values[option.name] = os.fspath(value)
        elif value is not None:
            values[option.name] = value
    return values


def _options_from_json(values: Mapping[str, Any]) -> ScanOptions:
    names = {option.name for option in dataclasses.fields(ScanOptions)}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name in names:
            given[name] = tuple(value) if isinstance(value, list) else value
    return ScanOptions(**given)


def _hints_from_json(values: Mapping[str, Any]) -> HintSearch:
    return HintSearch(values["key"], tuple(SavedHint(**hint) for hint in values["hints"]))


def _upgrade_from_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of version 0.1.0 under the names of today; hints are searched again."""
    upgraded = {name: value for name, value in values.items() if name != "signs"}
    for old, new in (("half_read", "truncated"), ("copies", "near_duplicates")):
        if old in upgraded:
            upgraded[new] = upgraded.pop(old)
    return upgraded
