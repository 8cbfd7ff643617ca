"""Cross-validate classifiers on the features last extracted, and report what was found."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.classify.classifiers import DEFAULT_CLASSIFIERS, make_classifier
from fishfeat.classify.crossval import cross_validate, score_holdout
from fishfeat.classify.splits import make_splits
from fishfeat.errors import DataError
from fishfeat.images.signs import Sign
from fishfeat.models import fit_model
from fishfeat.records import Features, OnProgress, PathLike, Run, Splits
from fishfeat.stages.features import load_features
from fishfeat.stages.groups import (
    asked_rules,
    is_settled,
    known_rules,
    regroup,
    settle_groups,
)
from fishfeat.stages.pictures import current_dataset
from fishfeat.workspace import DatasetFolder

log = logging.getLogger("fishfeat")
OnRun = Callable[[str, str], "OnProgress | None"]


class Fit(NamedTuple):
    """What `fit_data` did: runs (for each classifier grouped, then random), models and signs.

    The signs are of groups that nobody named.
    """

    folder: DatasetFolder
    features: Features
    splits: Splits
    runs: list[Run]
    models: list[Path]
    signs: list[Sign]


def fit_data(
    *,
    cache: PathLike = "cache",
    clf: Sequence[str] = (),
    group_by: Sequence[str] | None = None,
    group_pattern: str | None = None,
    cv: int = 5,
    repeats: int = 1,
    seed: int = 0,
    test: float | None = None,
    balanced: bool = False,
    jobs: int = -1,
    on_run: OnRun | None = None,
    on_compare: OnProgress | None = None,
) -> Fit:
    """Cross-validate classifiers on the features last extracted and keep the fitted models.

    Parameters
    ----------
    cache
        The cache folder.
    clf
        Names of classifiers; none is svc, rf and xgb.
    group_by, group_pattern
        What belongs together, as in `scan`, and also 'duplicates', 'auto' and 'none'; None as
        before.
    cv, repeats, seed, test
        `n_splits` and so on of `make_splits`.
    balanced
        Weigh classes inversely to their frequency.
    jobs
        Folds at once.
    on_run
        Called with (classifier, split) before each run; gives its progress callback.
    on_compare
        As in `extract_data`.

    Returns
    -------
    Fit
        For each classifier the run on grouped folds and, to show what a leak would be worth, one
        on random folds; only the latter where no groups are known.
    """
    names = list(dict.fromkeys(clf or DEFAULT_CLASSIFIERS))
    for name in names:
        make_classifier(name)  # a wrong name is said before anything is fitted
    folder = current_dataset(cache)
    asked = asked_rules(group_by, group_pattern)
    if asked is not None:
        regroup(folder, asked)
    features, images = load_features(folder), folder.load_images()
    signs: list[Sign] = []
    if asked is not None or not is_settled(folder, images, features):
        _, features, signs = settle_groups(folder, images, features, on_compare=on_compare)
    log.info("Data set: %s. Features: %s.", folder.name, features.spec.describe())
    draw = partial(make_splits, features, n_splits=cv, repeats=repeats, seed=seed, test=test)
    both = [draw()]
    if both[0].strategy == "grouped":
        both.append(draw(strategy="random"))
    _say_splits(features, both[0], silent=any(r.kind == "none" for r in known_rules(folder)))
    fit_one = partial(_fit_one, folder, features, both, balanced, seed, jobs, on_run)
    done = [fit_one(name) for name in names]
    folder.update(splits=[splits.digest for splits in both])
    runs = [run for found, _ in done for run in found]
    return Fit(folder, features, both[0], runs, [model for _, model in done], signs)


def _say_splits(features: Features, splits: Splits, *, silent: bool) -> None:
    if features.groups is not None:
        n_groups = len(np.unique(features.groups[splits.rows]))
        log.info("Groups: %d in %d pictures. %s", n_groups, len(splits.rows), splits.grouping)
    elif not silent:
        log.warning(
            "No groups are known: pictures of one fish, or copies of one photograph, may stand on "
            "both sides of a split; then the scores flatter and the intervals are too narrow. "
            "--group-by mends it: 'pattern:fish_(\\d+)_' (a pattern of your own), column, "
            "folder:N, time:SECONDS or duplicates; --group-by none says that there are none."
        )
    if len(splits.holdout):
        origin = "the data set's own test part" if splits.holdout_origin == "parts" else "drawn"
        log.info("Held out: %d pictures (%s), scored once.", len(splits.holdout), origin)
    for note in splits.notes:
        log.warning("%s", note)


def _fit_one(
    folder: DatasetFolder,
    features: Features,
    both: Sequence[Splits],
    balanced: bool,
    seed: int,
    jobs: int,
    on_run: OnRun | None,
    clf: str,
) -> tuple[list[Run], Path]:
    """The runs of one classifier, and its model fitted on all rows that are not held out."""
    runs = []
    for splits in both:
        progress = on_run(clf, splits.strategy) if on_run else None
        validate = partial(cross_validate, features, clf, splits, balanced=balanced, seed=seed)
        runs.append(validate(n_jobs=jobs, on_progress=progress))
    model = fit_model(features, clf, rows=both[0].rows, balanced=balanced, seed=seed)
    if len(both[0].holdout):
        held = score_holdout(model.pipeline, features, both[0], seed=seed)
        runs[0] = dataclasses.replace(runs[0], holdout=held)
    for run in runs:
        folder.save_run(run)
    return runs, model.save(folder.models / model.name)


def runs_in_force(folder: DatasetFolder) -> list[Run]:
    """The kept runs whose splits are those last used, so that they can be compared."""
    in_force = set(folder.state().get("splits", ()))
    kept = folder.load_runs()
    runs = [run for run in kept if run.splits_digest in in_force]
    if not runs:
        raise DataError(f"{folder.name!r} has no scores yet: run `fishfeat fit` first.")
    if len(runs) < len(kept):
        log.info(
            "%d earlier runs are left out: they used other pictures, groups or folds.",
            len(kept) - len(runs),
        )
    return runs


def report_data(*, cache: PathLike = "cache") -> tuple[DatasetFolder, Path]:
    """Write the page of the data set last used; returns its folder and the page."""
    from fishfeat.report.page import write_report

    folder = current_dataset(cache)
    log.info("Data set: %s.", folder.name)
    page = write_report(runs_in_force(folder), folder.load_images(), folder.report)
    return folder, page
