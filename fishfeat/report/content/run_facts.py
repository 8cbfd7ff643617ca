"""Facts of a run as the page shows them. A fact that is not known is None, '' or empty."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from fishfeat.checks import Finding
from fishfeat.files import JsonObject, json_digest
from fishfeat.records import BackboneSpec, Chance, EarlyExit, Parameter, Run, Training

# --- classifier ---------------------------------------------------------------------------------


def configuration(run: Run) -> JsonObject:
    """The whole configuration by name, only to be shown.

    Of a fine-tune it has what was chosen, not what happened: see `training` for that.
    """
    chosen = dataclasses.replace(run.config, training=None, early_exit=None)
    values: JsonObject = dataclasses.asdict(chosen)
    del values["training"], values["early_exit"]
    if run.config.training is not None:
        values["recipe"] = dict(recipe(run))
    return values


def is_balanced(run: Run) -> bool:
    """Whether all classes had the same weight in training."""
    return run.config.balanced or recipe(run).get("class_weights") == "balanced"


def fit_notes(run: Run) -> tuple[Finding, ...]:
    """What was noted while the run was fitted."""
    return run.config.notes


def shuffled_labels(run: Run) -> Chance | None:
    """Scores on shuffled labels; None where they were not made."""
    return run.config.chance


def training(run: Run) -> Training | None:
    """How the networks of a fine-tune were trained; None for a classifier on frozen features."""
    return run.config.training


def early_exit(run: Run) -> EarlyExit | None:
    """What leaving the network early costs and saves; None where every image is computed whole."""
    return run.config.early_exit


def recipe(run: Run) -> Mapping[str, Parameter]:
    """The recipe of a fine-tune; empty for a classifier on frozen features."""
    return {} if run.config.training is None else run.config.training.recipe


def recipe_of_member(run: Run) -> Mapping[str, Parameter]:
    """The recipe of a fine-tune, also where the run is its mean with the baseline; else empty."""
    return recipe(run) or (run.config.params if run.config.members else {})


def members(run: Run) -> tuple[str, ...]:
    """Names of the runs whose probabilities are averaged; empty for a single classifier."""
    return run.config.members


def classifier_digest(run: Run) -> str:
    """Digest of the classifier and its features, whatever parameters a search chose."""
    network = [features_description(run), fingerprint(run)]
    return json_digest([run.name, run.kind, run.config.balanced, network])


def configuration_digest(run: Run) -> str:
    """Digest of the classifier and its parameters or recipe, without splits and seed."""
    compared = dataclasses.replace(
        run.config, splits=None, features=None, seed=0, training=None, early_exit=None
    )
    return json_digest([classifier_digest(run), compared, recipe(run)])


def sorting_digest(run: Run) -> str:
    """Digest of the whole configuration: an order of runs that are alike in all else."""
    return json_digest(run.config)


# --- features -----------------------------------------------------------------------------------


def features_description(run: Run) -> str:
    """The features in words."""
    features = run.config.features
    return "" if features is None else features.description


def backbone(run: Run) -> BackboneSpec | None:
    """The specification of the backbone; None where the features are not known."""
    features = run.config.features
    return None if features is None else features.backbone


def white(run: Run) -> float | None:
    """Value of white in images of more than 8 bits, as the features of the run took it."""
    features = run.config.features
    return None if features is None else features.backbone.white


def fingerprint(run: Run) -> str:
    """SHA-256 of the backbone's weights and preprocessing."""
    features = run.config.features
    return "" if features is None else features.fingerprint


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
    n_parameters: int | None = None
    embed_seconds: float | None = None
    n_embedded: int | None = None
    device: str = "–"
    input_size: tuple[int, ...] = ()
    versions: Mapping[str, str] = MappingProxyType({})


def embedding(run: Run) -> EmbeddingFacts:
    """How the features of a run were computed."""
    features = run.config.features
    provenance = None if features is None else features.provenance
    facts = EmbeddingFacts(
        features=features_description(run),
        fingerprint=fingerprint(run),
        dim=None if features is None else features.dim,
    )
    if provenance is None:
        return facts
    runtimes = []
    for record in provenance.runtimes:
        runtimes.append(f"{record.config.runtime} {record.config.precision}")
    return facts._replace(
        n_parameters=provenance.n_parameters,
        embed_seconds=provenance.embed_seconds,
        n_embedded=provenance.n_embedded,
        device=", ".join([provenance.device or "–", *dict.fromkeys(runtimes)]),
        input_size=provenance.input_size or (),
        versions=provenance.versions,
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
        Checks of the splits that were not passed.
    """

    n_folds: int
    n_repeats: int
    n_test: int
    seed: int | None = None
    n_groups: int | None = None
    holdout_origin: str = ""
    grouping: str = ""
    notes: tuple[Finding, ...] = ()


def splits(run: Run) -> SplitFacts:
    """The splits of a run."""
    info = run.config.splits
    facts = SplitFacts(
        n_folds=run.n_folds,
        n_repeats=len(run.fold),
        n_test=0 if run.held_out is None else len(run.held_out.keys),
    )
    if info is None:
        return facts
    return facts._replace(
        seed=info.seed,
        n_groups=info.n_groups,
        holdout_origin=info.holdout_origin,
        grouping=info.grouping,
        notes=info.notes,
    )
