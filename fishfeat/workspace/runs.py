"""Saved runs: `run.json` with everything that JSON can hold, `arrays.npz` with the arrays."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fishfeat.errors import CacheError
from fishfeat.files import (
    JsonObject,
    json_digest,
    read_json,
    reading_from,
    safe_name,
    write_arrays,
    write_json,
)
from fishfeat.records import (
    BackboneSpec,
    FoldScore,
    Holdout,
    Parameter,
    Provenance,
    Run,
    RunConfig,
    RunKind,
    SplitStrategy,
)

_ARRAYS = ("keys", "y", "class_names", "scores", "fold")
_HOLDOUTS = ("holdout", "holdout_folds")
_HOLDOUT_ARRAYS = ("keys", "y", "scores")
_RENAMED_CHECKS = {"approximate-kernel": "cheaper-with-many-images"}
_FOLD_COUNTS = ("repeat", "fold", "n_train", "n_test", "n_classes_train")
_FOLD_SECONDS = ("seconds_fit", "seconds_predict")


class _SavedHoldout(msgspec.Struct):
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


class _SavedRun(msgspec.Struct):
    """`run.json`."""

    name: str
    kind: RunKind
    split: SplitStrategy
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    folds: tuple[FoldScore, ...]
    seconds: dict[str, float]
    splits_digest: str
    config: RunConfig
    versions: dict[str, str]
    holdout: _SavedHoldout | None = None
    holdout_folds: _SavedHoldout | None = None


def save_run(folder: Path, run: Run) -> Path:
    """Write a run to `<folder>/<name>-<split>-<key 8>/`, replacing an earlier run of the same.

    Two runs are the same where classifier, weights, seed, features and folds are.
    """
    path = folder / safe_name(f"{run.name}-{run.split}-{run_identity(run)[:8]}")
    write_arrays(path / "arrays.npz", collect_arrays(run))
    saved = _SavedRun(
        name=run.name,
        kind=run.kind,
        split=run.split,
        metrics=dict(run.metrics),
        intervals=dict(run.intervals),
        folds=run.folds,
        seconds=dict(run.seconds),
        splits_digest=run.splits_digest,
        config=run.config,
        versions=dict(run.versions),
        holdout=_save_holdout(run.holdout),
        holdout_folds=_save_holdout(run.holdout_folds),
    )
    write_json(path / "run.json", msgspec.to_builtins(saved, enc_hook=_encode))
    return path


def _save_holdout(holdout: Holdout | None) -> _SavedHoldout | None:
    if holdout is None:
        return None
    return _SavedHoldout(dict(holdout.metrics), dict(holdout.intervals))


def _encode(value: Any) -> Any:
    """Values of numpy as those of Python."""
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} cannot be written as JSON")


def collect_arrays(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a run by name; those of its held-out images have a prefix."""
    arrays = {name: getattr(run, name) for name in _ARRAYS}
    for prefix in _HOLDOUTS:
        holdout = getattr(run, prefix)
        if holdout is not None:
            for name in _HOLDOUT_ARRAYS:
                arrays[f"{prefix}_{name}"] = getattr(holdout, name)
    return arrays


def load_runs(folder: Path) -> list[Run]:
    """Every saved run, also those of earlier splits and features."""
    return [load_run(path.parent) for path in sorted(folder.glob("*/run.json"))]


def load_run(folder: Path) -> Run:
    """The run that `save_run` wrote; runs of version 0.1.0 are read too.

    Raises
    ------
    CacheError
        A file is damaged.
    """
    try:
        content = read_json(folder / "run.json")
        if content.get("protocol", 1) < 2:
            content = _upgrade_from_1(content)
        content = _rename_checks(content)
        saved = msgspec.convert(content, _SavedRun)
        path = folder / "arrays.npz"
        with reading_from(path), np.load(path, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
        return Run(
            name=saved.name,
            kind=saved.kind,
            split=saved.split,
            metrics=saved.metrics,
            intervals=saved.intervals,
            folds=saved.folds,
            seconds=saved.seconds,
            splits_digest=saved.splits_digest,
            config=saved.config,
            versions=saved.versions,
            keys=arrays["keys"],
            y=arrays["y"],
            class_names=arrays["class_names"],
            scores=arrays["scores"],
            fold=arrays["fold"],
            holdout=_load_holdout(saved, arrays, "holdout"),
            holdout_folds=_load_holdout(saved, arrays, "holdout_folds"),
        )
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise CacheError(f"{folder} cannot be read ({error}). Delete it and fit again.") from error


def _load_holdout(
    saved: _SavedRun, arrays: Mapping[str, np.ndarray[Any, Any]], name: str
) -> Holdout | None:
    scores: _SavedHoldout | None = getattr(saved, name)
    if scores is None:
        return None
    return Holdout(
        metrics=scores.metrics,
        intervals=scores.intervals,
        **{array: arrays[f"{name}_{array}"] for array in _HOLDOUT_ARRAYS},
    )


def run_identity(run: Run) -> str:
    """Digest of classifier, weights, seed, features, folds and the recipe of a fine-tune.

    It is that of version 0.1.0, so that a run replaces an earlier one of that version. The
    parameters that a search selects do not matter, nor does the folder of a local network: its
    fingerprint says which it is.
    """
    config, features = run.config, run.config.features
    classifier = [config.clf, config.balanced, config.seed]
    weights: list[Any] = [None, None]
    if features is not None:
        weights = [_format_spec_of_0_1(features.backbone), features.fingerprint]
    identity: list[Any] = [run.name, run.kind, run.split, run.splits_digest, classifier, weights]
    if config.training is not None:
        identity.append(dict(config.training.recipe))
    elif run.kind == "finetune":  # the mean of a tuned and a frozen run
        identity.append(dict(config.params))
    return json_digest(identity)


def _format_spec_of_0_1(spec: BackboneSpec) -> dict[str, Parameter]:
    values = dataclasses.asdict(spec)
    if spec.white is None:
        del values["white"]
    values["views"] = values.pop("tta")
    if spec.source == "bundled":
        values["source"] = "embedded"
    if spec.source == "local-dir":
        values["name"] = ""
    return values


# --- files of earlier versions ----------------------------------------------------------------


def _rename_checks(content: JsonObject) -> JsonObject:
    """`run.json` with the ids that the checks of its notes have today."""
    config = dict(content["config"])
    notes = []
    for note in config.get("notes", ()):
        notes.append(note | {"check": _RENAMED_CHECKS.get(note["check"], note["check"])})
    config["notes"] = notes
    return content | {"config": config}


def _upgrade_from_1(content: JsonObject) -> JsonObject:
    """`run.json` of version 0.1.0 with the names of today."""
    upgraded = dict(content)
    upgraded["folds"] = [_upgrade_fold(i, fold) for i, fold in enumerate(content["folds"])]
    upgraded["config"] = _upgrade_config(content["config"])
    upgraded["intervals"] = {name: list(ends) for name, ends in content["intervals"].items()}
    return upgraded


def _upgrade_fold(i: int, fold: JsonObject) -> JsonObject:
    """Metrics were among the counts."""
    values: JsonObject = {name: fold.get(name, 0) for name in _FOLD_COUNTS}
    values["fold"] = fold.get("fold", i)
    values |= {name: fold.get(name, 0.0) for name in _FOLD_SECONDS}
    values["params"] = fold.get("params")
    values["metrics"] = {name: fold[name] for name in fold if name not in values}
    return values


def _upgrade_config(config: JsonObject) -> JsonObject:
    upgraded = dict(config)
    upgraded["members"] = upgraded.pop("voters", [])
    upgraded["notes"] = _upgrade_notes(config.get("notes", ()))
    features = dict(config.get("features") or {})
    backbone = dict(features.get("backbone") or {})
    if backbone:
        backbone["tta"] = backbone.pop("views", "none")
        if backbone["source"] == "embedded":
            backbone["source"] = "bundled"
        features["backbone"] = backbone
        provenance = Provenance.from_dict(features.get("provenance") or {})
        features["provenance"] = msgspec.to_builtins(provenance)
    upgraded["features"] = features or None
    splits = dict(config.get("splits") or {})
    if splits:
        splits["notes"] = _upgrade_notes(splits.get("notes", ()))
    upgraded["splits"] = splits or None
    return upgraded


def _upgrade_notes(notes: Any) -> list[dict[str, str]]:
    """Sentences of version 0.1.0 as findings of the check that they were of."""
    checks = {
        "Fewer": "few-groups-in-class",
        "Only one": "one-group-in-class",
        "Only in": "class-only-held-out",
    }
    findings = []
    for note in map(str, notes):
        check = "cheaper-with-many-images"
        for start, name in checks.items():
            if note.startswith(start):
                check = name
        findings.append({"check": check, "message": note})
    return findings
