"""Fit on the training rows of each fold, score its test rows: one classifier, one `Run`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from joblib import delayed
from sklearn.pipeline import Pipeline

from fishfeat.checks import Finding
from fishfeat.classify.parallel import count_results, run_jobs
from fishfeat.classify.statistics.intervals import score_intervals
from fishfeat.classify.statistics.metrics import check_probabilities, evaluate
from fishfeat.classify.validation.fold_fits import (
    FoldFit,
    FoldResult,
    fit_rows,
    plan_fits,
    score_rows,
)
from fishfeat.classify.validation.inner_findings import find_missing_inner_folds
from fishfeat.classify.validation.many_images import find_cheaper_fits
from fishfeat.classify.validation.search import make_model, name_run
from fishfeat.classify.validation.splits import check_disjoint
from fishfeat.errors import SplitError, check_record
from fishfeat.files import versions
from fishfeat.options import ClassifierOptions
from fishfeat.records import (
    Features,
    FeaturesInfo,
    Float,
    FoldScore,
    Holdout,
    Int,
    OnProgress,
    Parameter,
    Run,
    RunConfig,
    RunKind,
    Splits,
    SplitsInfo,
    identify_data,
)
from fishfeat.records.identity import partition_digest

log = logging.getLogger("fishfeat")
_VERSIONS = ("fishfeat", "scikit-learn", "xgboost", "numpy", "joblib")


def cross_validate(
    features: Features,
    clf: str,
    splits: Splits,
    options: ClassifierOptions | None = None,
    *,
    jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> Run:
    """Score a classifier out of fold.

    Parameters
    ----------
    features
        Features and labels.
    clf
        A name of `fishfeat.classify.estimators.registry.CLASSIFIERS`. Scaling is fitted inside each
        fold.
    splits
        Made for these features.
    options
        How the classifier is fitted. With `search` the run is called '<clf>-search' and its folds
        say what was chosen.
    jobs
        Folds at the same time; -1 is one for each core.
    on_progress
        Called with (done, total) folds.

    Returns
    -------
    Run
        Out-of-fold scores and every metric computed from them. Scores of held-out rows are the mean
        over the models of all folds of all repeats.

    Raises
    ------
    SplitError
        The splits were made for other features, or put a group on both sides.
    DataError
        The classifier is not known, or cannot learn from as few images as a fold has.
    """
    options = ClassifierOptions() if options is None else options
    check_record("options", options, ClassifierOptions)
    _check_splits(features, splits)
    fits = plan_fits(features, clf, splits, options)
    with closing(run_jobs(fits, jobs, is_search=options.search is not None)) as results:
        folds = chain.from_iterable(results)
        return _make_run(features, clf, splits, options, folds, on_progress)


class Validated(NamedTuple):
    """The runs of one classifier on several splits, and its pipeline fitted on all their rows."""

    runs: list[Run]
    pipeline: Pipeline


def validate_and_fit(
    features: Features,
    clf: str,
    all_splits: Sequence[Splits],
    options: ClassifierOptions,
    *,
    jobs: int = -1,
    on_run: Callable[[Splits], OnProgress | None] = lambda splits: None,
) -> Validated:
    """`cross_validate` on each of several splits, and fit on `rows` of the first, in one queue.

    In one queue no core waits for the last fold of one run before the next run begins.

    Parameters
    ----------
    features, clf, options, jobs
        As `cross_validate`.
    all_splits
        Splits of these features.
    on_run
        Called with each of the splits before its folds; gives its progress callback.
    """
    # The fit on all rows takes the longest time: it comes first, so that no core waits for it.
    fits = [delayed(_fit_all)(clf, options, features, all_splits[0].rows)]
    for splits in all_splits:
        _check_splits(features, splits)
        fits += plan_fits(features, clf, splits, options)
    with closing(run_jobs(fits, jobs, is_search=options.search is not None)) as results:
        pipeline = next(results)
        note = getattr(pipeline[-1], "note_", "")
        folds = chain.from_iterable(results)
        runs = [
            _make_run(features, clf, splits, options, folds, on_run(splits), note)
            for splits in all_splits
        ]
    return Validated(runs, pipeline)


def _check_splits(features: Features, splits: Splits) -> None:
    """Raise a `SplitError` where the splits do not fit the labels or groups of the features."""
    rows = np.concatenate([splits.rows, splits.holdout])
    if splits.n_images != len(features) or (features.y[rows] < 0).any():
        raise SplitError(
            f"splits must be made for these features: they were made for {splits.n_images} images, "
            f"and there are {len(features)}. Make them again."
        )
    if features.groups is not None:
        check_disjoint(splits, features.groups, folds=splits.strategy == "grouped")


def _fit_all(clf: str, options: ClassifierOptions, features: Features, rows: Int) -> Pipeline:
    return fit_rows(make_model(clf, options), features, rows)


def _make_run(
    features: Features,
    clf: str,
    splits: Splits,
    options: ClassifierOptions,
    results: Iterator[FoldResult],
    on_progress: OnProgress | None,
    saved_note: str = "",
) -> Run:
    """Make a run of the next results, one for each fold of each repeat."""
    n_fits = splits.n_folds * len(splits.repeats)
    shape = (len(splits.repeats), len(splits.rows), len(features.class_names))
    scores = np.full(shape, np.nan)
    held_scores = np.zeros((len(splits.holdout), len(features.class_names)))
    fits, notes, skipped = [], [], []
    for i, result in enumerate(count_results(islice(results, n_fits), n_fits, on_progress)):
        repeat, fold = divmod(i, splits.n_folds)
        rows = np.searchsorted(splits.rows, splits.repeats[repeat][fold].test)
        scores[repeat, rows] = result.scores
        held_scores += result.holdout / n_fits
        fits.append(result.fit)
        notes.append(result.note)
        skipped.append(result.skipped)
    findings = find_cheaper_fits(notes, saved_note)
    is_search = options.search is not None
    findings += find_missing_inner_folds(features, splits, skipped, is_search=is_search)
    config = _make_config(features, clf, splits, options, findings)
    return run_from_scores(features, splits, scores, config, fits=fits, holdout=held_scores)


def _make_config(
    features: Features,
    clf: str,
    splits: Splits,
    options: ClassifierOptions,
    findings: list[Finding],
) -> RunConfig:
    name = name_run(clf, options)
    for finding in findings:
        log.warning("%s: %s", name, finding)
    return RunConfig(
        clf=name,
        balanced=options.balanced,
        seed=options.seed,
        device=options.device,
        search=options.search or "",
        params=select_params(make_model(clf, options)),
        features=describe_features(features),
        splits=describe_splits(features, splits),
        notes=tuple(findings),
    )


def run_from_scores(
    features: Features,
    splits: Splits,
    scores: Float,
    config: RunConfig,
    *,
    fits: Sequence[FoldFit],
    kind: RunKind = "classical",
    holdout: Float | None = None,
) -> Run:
    """Make a run from out-of-fold scores: compute every metric and interval.

    Parameters
    ----------
    features, splits
        What was scored, and how.
    scores
        float (n_repeats, n_rows, n_classes): probabilities of `splits.rows` in each repeat. Each
        row sums to 1, as far as float32 can tell.
    config
        What made the scores. Its `clf` is the name of the run; `features` and `splits` are filled
        in where they are None.
    fits
        One for each fold of each repeat, in their order.
    kind
        'classical' or 'finetune'.
    holdout
        float64 (n_held_out, n_classes): mean probabilities of the held-out rows over all folds;
        None or no rows where nothing is held out.

    Raises
    ------
    DataError
        `scores` has another shape, is not finite, has a value below 0, or a row that does not sum
        to 1.
    """
    shape = (len(splits.repeats), len(splits.rows), len(features.class_names))
    scores = check_probabilities(scores, shape, config.clf)
    y = features.y[splits.rows]
    groups = None if features.groups is None else features.groups[splits.rows]
    repeats = [evaluate(y, repeat_scores) for repeat_scores in scores]
    metrics = {}
    for name in repeats[0]:
        metrics[name] = float(np.mean([repeat[name] for repeat in repeats]))
    numbers = _number_folds(splits)
    folds = _score_folds(features, splits, scores, fits)
    holdout_folds = None
    if holdout is not None and len(holdout):
        holdout_folds = evaluate_holdout(features, splits, holdout)
    return Run(
        name=config.clf,
        kind=kind,
        split=splits.strategy,
        keys=features.keys[splits.rows],
        y=y,
        class_names=features.class_names,
        scores=scores,
        fold=numbers,
        metrics=metrics,
        intervals=score_intervals(y, scores, groups=groups, folds=numbers),
        folds=folds,
        seconds={
            "fit": sum(fold.seconds_fit for fold in folds),
            "predict": sum(fold.seconds_predict for fold in folds),
        },
        splits_digest=splits.digest,
        config=replace(
            config,
            features=config.features or describe_features(features),
            splits=config.splits or describe_splits(features, splits),
        ),
        versions=versions(*_VERSIONS),
        holdout_folds=holdout_folds,
    )


def _number_folds(splits: Splits) -> Int:
    """int64 (n_repeats, n_rows): fold that scores each row."""
    numbers = np.full((len(splits.repeats), len(splits.rows)), -1, np.int64)
    for repeat, folds in enumerate(splits.repeats):
        for number, fold in enumerate(folds):
            numbers[repeat, np.searchsorted(splits.rows, fold.test)] = number
    return numbers


def _score_folds(
    features: Features, splits: Splits, scores: Float, fits: Sequence[FoldFit]
) -> tuple[FoldScore, ...]:
    fold_scores = []
    for i, fit in enumerate(fits):
        repeat, number = divmod(i, splits.n_folds)
        fold = splits.repeats[repeat][number]
        rows = np.searchsorted(splits.rows, fold.test)
        fold_scores.append(
            FoldScore(
                repeat=repeat,
                fold=number,
                n_train=len(fold.train),
                n_test=len(fold.test),
                n_classes_train=fit.n_classes_train,
                seconds_fit=fit.seconds_fit,
                seconds_predict=fit.seconds_predict,
                metrics=evaluate(features.y[fold.test], scores[repeat, rows]),
                params=fit.params,
            )
        )
    return tuple(fold_scores)


def score_holdout(model: Pipeline, features: Features, splits: Splits) -> Holdout:
    """Score the held-out rows by a model that was fitted on `splits.rows`."""
    return evaluate_holdout(features, splits, score_rows(model, features, splits.holdout))


def evaluate_holdout(features: Features, splits: Splits, scores: Float) -> Holdout:
    """Compute metrics and intervals of the held-out rows.

    `scores` are their probabilities, float64 (n_held_out, n_classes).
    """
    rows = splits.holdout
    y = features.y[rows]
    groups = None if features.groups is None else features.groups[rows]
    return Holdout(
        keys=features.keys[rows],
        y=y,
        scores=scores,
        metrics=evaluate(y, scores),
        intervals=score_intervals(y, scores[None], groups=groups),
    )


def select_params(model: Pipeline) -> dict[str, Parameter]:
    """Select the parameters of the pipeline's steps that JSON can hold."""
    params = {}
    for name, value in model.get_params().items():
        if "__" in name and isinstance(value, str | int | float | bool | None):
            params[name] = value
    return params


def describe_features(features: Features) -> FeaturesInfo:
    """Describe which features a run or a model used."""
    return FeaturesInfo(
        dataset=features.dataset,
        backbone=features.spec,
        fingerprint=features.fingerprint,
        dim=features.dim,
        provenance=features.provenance,
    )


def describe_splits(features: Features, splits: Splits) -> SplitsInfo:
    """Describe which splits a run used."""
    groups = features.groups
    return SplitsInfo(
        strategy=splits.strategy,
        seed=splits.seed,
        n_folds=splits.n_folds,
        n_repeats=len(splits.repeats),
        n_groups=None if groups is None else len(np.unique(groups[splits.rows])),
        groups=partition_digest(groups, splits.rows),
        n_test=len(splits.holdout),
        holdout_origin=splits.holdout_origin,
        grouping=splits.grouping,
        notes=splits.notes,
        data=identify_data(features, splits.rows, splits.holdout),
    )
