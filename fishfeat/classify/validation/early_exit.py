"""Cross-validate early exit: what leaving a network early costs and saves, out of fold."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import numpy as np
from joblib import delayed
from sklearn.pipeline import Pipeline, make_pipeline

from fishfeat.classify.estimators.early_exit import THRESHOLDS, EarlyExitClassifier
from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.parallel import count_results, run_jobs
from fishfeat.classify.statistics.intervals import score_intervals
from fishfeat.classify.statistics.metrics import paired_interval
from fishfeat.classify.validation.cross_validation import (
    Validated,
    describe_features,
    run_from_scores,
    select_params,
)
from fishfeat.classify.validation.fold_fits import FoldFit, fit_rows, score_rows
from fishfeat.classify.validation.inner_findings import find_missing_inner_folds
from fishfeat.options import FitOptions
from fishfeat.records import (
    EarlyExit,
    ExitLayer,
    ExitPoint,
    Features,
    Float,
    Fold,
    Int,
    LayerCost,
    OnProgress,
    Run,
    RunConfig,
    Splits,
)

log = logging.getLogger("fishfeat")
NAME = "early-exit"


class _FoldResult(NamedTuple):
    """What one fold gives.

    Attributes
    ----------
    scores
        float64 (n_layers, n_test, n_classes): probabilities by each layer.
    left
        int64 (n_thresholds + 1, n_test): layer at which each image leaves by each of `THRESHOLDS`,
        and at last by the threshold that the fold learned.
    holdout
        float64 (n_held_out, n_classes): probabilities of the rows that are in no fold.
    threshold
        The threshold that the fold learned.
    fit
        How it was fitted.
    skipped
        What was left out because there are too few groups for inner folds.
    """

    scores: Float
    left: Int
    holdout: Float
    threshold: float
    fit: FoldFit
    skipped: tuple[str, ...]


def validate_early_exit(
    features: Features,
    layers: Sequence[LayerCost],
    all_splits: Sequence[Splits],
    options: FitOptions,
    *,
    on_run: Callable[[Splits], OnProgress | None] = lambda splits: None,
) -> Validated:
    """Score early exit out of fold on each of several splits, and fit it on all rows of the first.

    Probes, calibration and threshold are learned inside each fold, on inner folds of its training
    images that keep groups together. So nothing that is scored chose anything.

    Parameters
    ----------
    features
        The columns are the layers in order of depth.
    layers
        Name, number of columns and cost of each layer.
    all_splits
        Splits of these features.
    options
        How the probes are fitted, and how much accuracy leaving early may cost.
    on_run
        Called with each of the splits before its folds; gives its progress callback.

    Returns
    -------
    The runs, each with its `EarlyExit`, and the fitted pipeline.
    """
    fits = [delayed(_fit_all)(layers, options, features, all_splits[0].rows)]
    for splits in all_splits:
        is_grouped = splits.strategy == "grouped"
        for folds in splits.repeats:
            for fold in folds:
                job = delayed(_fit_fold)
                fits.append(job(layers, options, features, fold, splits.holdout, is_grouped))
    with closing(run_jobs(fits, options.jobs)) as results:
        pipeline = next(results)
        runs = [
            _make_run(features, layers, splits, options, results, on_run(splits))
            for splits in all_splits
        ]
    return Validated(runs, pipeline)


def make_early_exit(layers: Sequence[LayerCost], options: FitOptions) -> Pipeline:
    """Make the unfitted pipeline."""
    classifier = EarlyExitClassifier(
        make_classifier("logreg", options),
        dims=tuple(layer.dim for layer in layers),
        costs=tuple(layer.flops for layer in layers),
        max_loss=options.exit_loss,
    )
    return make_pipeline(classifier)


def _fit_all(
    layers: Sequence[LayerCost], options: FitOptions, features: Features, rows: Int
) -> Pipeline:
    return fit_rows(make_early_exit(layers, options), features, rows)


def _fit_fold(
    layers: Sequence[LayerCost],
    options: FitOptions,
    features: Features,
    fold: Fold,
    holdout: Int,
    is_grouped: bool,
) -> _FoldResult:
    start = time.perf_counter()
    model = fit_rows(make_early_exit(layers, options), features, fold.train, grouped=is_grouped)
    fitted = time.perf_counter()
    classifier: EarlyExitClassifier = model[-1]
    scores = np.zeros((len(layers), len(fold.test), len(features.class_names)))
    scores[:, :, classifier.classes_] = classifier.score_layers(features.X[fold.test])
    confidence = scores.max(axis=2)
    rules = [*classifier.rules_, classifier.rule_]
    left = np.stack([rule.find_layers(confidence) for rule in rules])
    predicted = time.perf_counter()
    held_scores = np.zeros((0, len(features.class_names)))
    if len(holdout):
        held_scores = score_rows(model, features, holdout)
    fit = FoldFit(
        n_classes_train=len(classifier.classes_),
        seconds_fit=fitted - start,
        seconds_predict=predicted - fitted,
    )
    threshold = classifier.rule_.threshold
    return _FoldResult(scores, left, held_scores, threshold, fit, classifier.skipped_)


def _make_run(
    features: Features,
    layers: Sequence[LayerCost],
    splits: Splits,
    options: FitOptions,
    results: Iterator[_FoldResult],
    on_progress: OnProgress | None,
) -> Run:
    """Make a run of the next results, one for each fold of each repeat."""
    n_fits = splits.n_folds * len(splits.repeats)
    n_rows, n_classes = len(splits.rows), len(features.class_names)
    scores = np.zeros((len(layers), len(splits.repeats), n_rows, n_classes))
    left = np.zeros((len(THRESHOLDS) + 1, len(splits.repeats), n_rows), np.int64)
    numbers = np.zeros((len(splits.repeats), n_rows), np.int64)
    held_scores = np.zeros((len(splits.holdout), n_classes))
    folds = list(count_results(islice(results, n_fits), n_fits, on_progress))
    for i, result in enumerate(folds):
        repeat, number = divmod(i, splits.n_folds)
        rows = np.searchsorted(splits.rows, splits.repeats[repeat][number].test)
        scores[:, repeat, rows] = result.scores
        left[:, repeat, rows] = result.left
        numbers[repeat, rows] = number
        held_scores += result.holdout / n_fits
    findings = find_missing_inner_folds(features, splits, [result.skipped for result in folds])
    for finding in findings:
        log.warning("%s: %s", NAME, finding)
    config = RunConfig(
        clf=NAME,
        balanced=options.balanced,
        seed=options.seed,
        params=select_params(make_early_exit(layers, options)),
        features=describe_features(features),
        notes=tuple(findings),
        early_exit=_describe_exits(
            features,
            layers,
            splits,
            _Scored(scores, left, numbers),
            max_loss=options.exit_loss,
            thresholds=tuple(result.threshold for result in folds),
        ),
    )
    chosen = _select_scores(scores, left[-1])
    fits = [result.fit for result in folds]
    return run_from_scores(features, splits, chosen, config, fits=fits, holdout=held_scores)


def _select_scores(scores: Float, left: Int) -> Float:
    """Scores (n_repeats, n_rows, n_classes) of the layer where each image leaves."""
    chosen: Float = np.take_along_axis(scores, left[None, :, :, None], axis=0)[0]
    return chosen


class _Scored(NamedTuple):
    """What all folds give together.

    Attributes
    ----------
    scores
        float64 (n_layers, n_repeats, n_rows, n_classes): probabilities by each layer.
    left
        int64 (n_thresholds + 1, n_repeats, n_rows), as in `_FoldResult`.
    numbers
        int64 (n_repeats, n_rows): fold that scores each row.
    """

    scores: Float
    left: Int
    numbers: Int


def _find_interval(y: Int, scores: Float, groups: Int | None, numbers: Int) -> tuple[float, float]:
    return score_intervals(y, scores, groups=groups, folds=numbers)["accuracy"]


def _describe_exits(
    features: Features,
    layers: Sequence[LayerCost],
    splits: Splits,
    scored: _Scored,
    *,
    max_loss: float,
    thresholds: tuple[float, ...],
) -> EarlyExit:
    """What leaving early costs and saves; `max_loss` and `thresholds` are as in `EarlyExit`."""
    scores, left, numbers = scored
    y = features.y[splits.rows]
    groups = None if features.groups is None else features.groups[splits.rows]
    flops = np.array([layer.flops for layer in layers])
    is_correct = (scores.argmax(axis=3) == y).astype(np.float64)
    exit_layers = []
    for i, layer in enumerate(layers):
        low, high = _find_interval(y, scores[i], groups, numbers)
        accuracy = float(is_correct[i].mean())
        share = float((left[-1] == i).mean())
        exit_layers.append(
            ExitLayer(layer.name, layer.dim, layer.flops, accuracy, low, high, share)
        )
    points = []
    for threshold, layer_numbers in zip(THRESHOLDS, left[:-1], strict=True):
        correct = np.take_along_axis(is_correct, layer_numbers[None], axis=0)
        points.append(
            ExitPoint(threshold, float(correct.mean()), float(flops[layer_numbers].mean()))
        )
    correct = np.take_along_axis(is_correct, left[-1][None], axis=0)[0].mean(axis=0)
    last = is_correct[-1].mean(axis=0)
    low, high = _find_interval(y, _select_scores(scores, left[-1]), groups, numbers)
    gain_low, gain_high = paired_interval(correct, last, groups=groups)
    return EarlyExit(
        layers=tuple(exit_layers),
        max_loss=max_loss,
        thresholds=thresholds,
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        flops=float(flops[left[-1]].mean()),
        gain=float(correct.mean() - last.mean()),
        gain_low=gain_low,
        gain_high=gain_high,
        curve=tuple(points),
    )
