"""The only reader of a run's configuration and folds.

Runs of earlier versions lack some entries. A fact that a run does not record is None, '' or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fishfeat.checks import Finding
from fishfeat.files import json_digest
from fishfeat.records import Run

if TYPE_CHECKING:  # it loads scikit-learn, which these facts do not need
    from fishfeat.classify.validation.permutation import Chance

_NOT_COMPARED = ("splits", "features", "seed")
_FOLD_FIELDS = {"repeat", "fold", "n_train", "n_test", "n_classes_train"}
_FOLD_FIELDS |= {"seconds_fit", "seconds_predict", "params"}


def _read(run: Run, *path: str) -> Any:
    """An entry of the configuration; None where any part of the path is missing."""
    value: Any = run.config
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


# --- classifier ---------------------------------------------------------------------------------


def seed(run: Run) -> int | None:
    """Seed of the classifier."""
    value = _read(run, "seed")
    return None if value is None else int(value)


def is_balanced(run: Run) -> bool:
    """Whether all classes have the same weight in training."""
    return bool(_read(run, "balanced"))


def chance(run: Run) -> Chance | None:
    """Scores on shuffled labels; None where they were not computed."""
    from fishfeat.classify.validation.permutation import Chance

    scores = _read(run, "chance")
    return Chance(**scores) if scores else None


def configuration(run: Run) -> Mapping[str, Any]:
    """The whole configuration, only to be shown."""
    return run.config


def classifier_digest(run: Run) -> str:
    """Digest of the classifier and its features, whatever parameters a search chose."""
    network = [_read(run, "features", "description"), _read(run, "features", "fingerprint")]
    return json_digest([run.name, run.kind, _read(run, "balanced"), network])


def configuration_digest(run: Run) -> str:
    """Digest of the classifier and its parameters, without splits and seed."""
    compared = {name: value for name, value in run.config.items() if name not in _NOT_COMPARED}
    return json_digest([classifier_digest(run), compared])


def sorting_digest(run: Run) -> str:
    """Digest of the whole configuration: an order of runs that are alike in all else."""
    return json_digest(run.config)


# --- features -----------------------------------------------------------------------------------


def features_description(run: Run) -> str:
    """The features in words."""
    return str(_read(run, "features", "description") or "")


def fingerprint(run: Run) -> str:
    """SHA-256 of the backbone's weights and preprocessing."""
    return str(_read(run, "features", "fingerprint") or "")


class EmbeddingFacts(NamedTuple):
    """How the features were computed.

    Attributes
    ----------
    features
        The features in words.
    fingerprint
        SHA-256 of the backbone's weights and preprocessing.
    dim
        Number of features of each image.
    n_parameters
        Number of parameters of the backbone.
    embed_seconds, n_embedded
        Seconds that embedding took, and number of images that were embedded in them.
    device
        Device, and the inference runtimes with their precisions: 'cpu, compile bf16'.
    input_size
        Width and height in pixels; () where it varies.
    versions
        Package -> version.
    """

    features: str
    fingerprint: str
    dim: int | None
    n_parameters: int | None
    embed_seconds: float | None
    n_embedded: int | None
    device: str
    input_size: tuple[int, ...]
    versions: Mapping[str, str]


def embedding(run: Run) -> EmbeddingFacts:
    """How the features of a run were computed."""
    provenance = _read(run, "features", "provenance") or {}
    runtimes = []
    for used in provenance.get("ways", ()):
        runtime = used.get("runtime") or used["compute"]  # fishfeat 0.1.0 wrote 'compute'
        runtimes.append(f"{runtime} {used['precision']}")
    device = str(provenance.get("device", "–"))
    return EmbeddingFacts(
        features=features_description(run),
        fingerprint=fingerprint(run),
        dim=_read(run, "features", "dim"),
        n_parameters=provenance.get("n_parameters"),
        embed_seconds=provenance.get("embed_seconds"),
        n_embedded=provenance.get("n_embedded"),
        device=", ".join([device, *dict.fromkeys(runtimes)]),
        input_size=tuple(provenance.get("input_size") or ()),
        versions=provenance.get("versions") or {},
    )


# --- splits -------------------------------------------------------------------------------------


class SplitFacts(NamedTuple):
    """The splits of a run.

    Attributes
    ----------
    seed
        Seed of the splits.
    n_folds, n_repeats
        Folds of a repeat, and repeats.
    n_groups
        Number of groups in the folds.
    n_test
        Number of images that are held out.
    holdout_origin
        'parts' (the data set's own test part), 'drawn', or ''.
    grouping
        How the groups were found, in words.
    notes
        What the splits say about themselves, as findings or as sentences.
    """

    seed: int | None
    n_folds: int
    n_repeats: int
    n_groups: int | None
    n_test: int
    holdout_origin: str
    grouping: str
    notes: tuple[Finding | str, ...]


def splits(run: Run) -> SplitFacts:
    """The splits of a run."""
    return SplitFacts(
        seed=_read(run, "splits", "seed"),
        n_folds=run.n_folds,
        n_repeats=len(run.fold),
        n_groups=_read(run, "splits", "n_groups"),
        n_test=0 if run.holdout is None else len(run.holdout.keys),
        holdout_origin=str(_read(run, "splits", "holdout_origin") or ""),
        grouping=str(_read(run, "splits", "grouping") or ""),
        notes=tuple(_read(run, "splits", "notes") or ()),
    )


# --- folds --------------------------------------------------------------------------------------


class FoldFacts(NamedTuple):
    """One fold of one repeat, both counted from 0.

    Attributes
    ----------
    n_train, n_test
        Images in training, and images that were scored.
    n_classes_train
        Classes in training.
    seconds_fit, seconds_predict
        Seconds.
    metrics
        Metric -> score of this fold.
    params
        Parameters that a search chose; None where there was no search.
    """

    repeat: int
    fold: int
    n_train: int | None
    n_test: int | None
    n_classes_train: int | None
    seconds_fit: float | None
    seconds_predict: float | None
    metrics: Mapping[str, float]
    params: Mapping[str, str | int | float | bool | None] | None


def folds(run: Run) -> list[FoldFacts]:
    """The folds of a run, in order."""
    facts = []
    for fold in run.folds:
        fact = FoldFacts(
            repeat=fold["repeat"],
            fold=fold["fold"],
            n_train=fold.get("n_train"),
            n_test=fold.get("n_test"),
            n_classes_train=fold.get("n_classes_train"),
            seconds_fit=fold.get("seconds_fit"),
            seconds_predict=fold.get("seconds_predict"),
            metrics={name: value for name, value in fold.items() if name not in _FOLD_FIELDS},
            params=fold.get("params"),
        )
        facts.append(fact)
    return facts
