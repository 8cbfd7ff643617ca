"""What is remembered of one data set between commands: read once, committed once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fishfeat.checks import Finding
from fishfeat.errors import CacheError
from fishfeat.files import JsonObject
from fishfeat.options import ScanOptions, SplitOptions
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
    grouping, notes, findings
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
    split_options
        How these splits were made; None where they are of a version that did not remember it.
    near_duplicates, hints
        What was searched for before.
    unfinished
        Classifiers and extras that the last `fit` had not finished when it was stopped.
    """

    root: str = ""
    data: str = ""
    grouping: str = ""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    options: ScanOptions = field(default_factory=ScanOptions)
    spec: BackboneSpec | None = None
    features: str = ""
    truncated: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    split_options: SplitOptions | None = None
    near_duplicates: NearDuplicateSearch | None = None
    hints: HintSearch | None = None
    unfinished: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Values that JSON can hold."""
        return {
            "root": self.root,
            "data": self.data,
            "grouping": self.grouping,
            "notes": list(self.notes),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "options": _options_to_json(self.options),
            "spec": None if self.spec is None else self.spec.to_json(),
            "features": self.features,
            "truncated": dict(self.truncated),
            "splits": list(self.splits),
            "split_options": None
            if self.split_options is None
            else dataclasses.asdict(self.split_options),
            "near_duplicates": None
            if self.near_duplicates is None
            else dataclasses.asdict(self.near_duplicates),
            "hints": None if self.hints is None else dataclasses.asdict(self.hints),
            "unfinished": list(self.unfinished),
        }

    @classmethod
    def from_json(cls, path: Path, content: JsonObject) -> DatasetState:
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
            saved = msgspec.convert(values, _SavedState)
            return cls(
                root=saved.root,
                data=saved.data,
                grouping=saved.grouping,
                notes=saved.notes,
                findings=saved.findings,
                options=_options_from_json(saved.options),
                spec=BackboneSpec.from_json(saved.spec) if saved.spec else None,
                features=saved.features or "",
                truncated=saved.truncated,
                splits=saved.splits,
                split_options=saved.split_options,
                near_duplicates=saved.near_duplicates,
                hints=saved.hints,
                unfinished=saved.unfinished,
            )
        except (TypeError, KeyError, ValueError) as error:
            raise CacheError(
                f"{path} cannot be read ({error}). Delete it and run `fishfeat extract DATA` again."
            ) from error


class _SavedState(msgspec.Struct):
    """`dataset.json`; files of earlier versions lack some entries."""

    root: str = ""
    data: str = ""
    grouping: str = ""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    options: JsonObject = {}
    spec: str | None = None
    features: str | None = None
    truncated: dict[str, str] = {}
    splits: tuple[str, ...] = ()
    split_options: SplitOptions | None = None
    near_duplicates: NearDuplicateSearch | None = None
    hints: HintSearch | None = None
    unfinished: tuple[str, ...] = ()


def _options_to_json(options: ScanOptions) -> JsonObject:
    """The options that were given."""
    values: JsonObject = {}
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


def _options_from_json(values: JsonObject) -> ScanOptions:
    """The options; those of another version that do not exist here are left out."""
    names = {option.name for option in dataclasses.fields(ScanOptions)}
    given: JsonObject = {}
    for name, value in values.items():
        if name in names:
            given[name] = tuple(value) if isinstance(value, list) else value
    return ScanOptions(**given)


def _upgrade_from_1(values: JsonObject) -> JsonObject:
    """Entries of version 0.1.0 under the names of today; hints are searched again."""
    upgraded = {name: value for name, value in values.items() if name != "signs"}
    for old, new in (("half_read", "truncated"), ("copies", "near_duplicates")):
        if old in upgraded:
            upgraded[new] = upgraded.pop(old)
    return upgraded
