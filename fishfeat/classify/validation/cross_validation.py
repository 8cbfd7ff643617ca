"""Fit on each fold's training rows, score its test rows: one classifier, one `Run`."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.pipeline import Pipeline

from fishfeat.classify.estimators.calibration import class_scores
from fishfeat.classify.estimators.registry import fit_pipeline
from fishfeat.classify.parallel import counted, device_in_use, results_of
from fishfeat.classify.statistics.metrics import bootstrap_intervals, evaluate
from fishfeat.classify.validation.search import Budget, make_model, run_name
from fishfeat.classify.validation.splits import partition_digest, prove_disjoint
from fishfeat.errors import DataError, SplitError
from fishfeat.files import versions
from fishfeat.records import Features, Float, Fold, Holdout, Int, OnProgress, Run, Splits

log = logging.getLogger("fishfeat")
_VERSIONS = ("fishfeat", "scikit-learn", "xgboost", "numpy", "joblib")


class FoldScores(NamedTuple):
    """What one fold gave: scores float64 (n_test, n_classes), their kind, seconds.

    `holdout` are scores float64 (n_held_out, n_classes) of the rows that are in no fold. The note
    says what the classifier did in place of its usual way, `params` what it chose.
    """

    scores: Float
    score_kind: str
    n_classes_train: int
    seconds_fit: float
    seconds_predict: float
    holdout: Float
    note: str = ""
    params: Mapping[str, Any] | None = None


def cross_validate(
    features: Features,
    clf: str,
    splits: Splits,
    *,
    balanced: bool = False,
    seed: int = 0,
    n_jobs: int = -1,
    search: Budget | None = None,
    on_progress: OnProgress | None = None,
) -> Run:
    """Score a classifier out of fold.

    Parameters
    ----------
    features
        Vectors and labels.
    clf
        A name of `fishfeat.classify.estimators.registry.CLASSIFIERS`; scaling is fitted inside each fold.
    splits
        Made for these features.
    balanced
        Weigh classes inversely to their frequency.
    seed
        Seed of the classifier.
    n_jobs
        Folds at once; -1 is one for each core.
    search
        Search the settings within each fold's training rows; the run is called '<clf>-search' and
        its folds say what was chosen.
    on_progress
        Called with (done, total) folds.

    Returns
    -------
    Run
        Out-of-fold scores and every metric computed from them; of held-out rows the mean of what
        the models of all folds of all repeats say.

    Raises
    ------
    SplitError
        The splits were made for other features, or put a group on both sides.
    DataError
        The classifier is not known, or cannot learn from as few images as a fold has.
    """
    same: dict[str, Any] = {"balanced": balanced, "seed": seed, "search": search}
    jobs = _fold_jobs(features, clf, splits, **same)
    with closing(results_of(jobs, n_jobs, searched=search is not None)) as results:
        return _collected(features, clf, splits, results, on_progress, **same)


class Fitted(NamedTuple):
    """The runs of one classifier on each of some splits, and its pipeline fitted on other rows."""

    runs: list[Run]
    pipeline: Pipeline


def validate_and_fit(
    features: Features,
    clf: str,
    several: Sequence[Splits],
    *,
    balanced: bool = False,
    seed: int = 0,
    n_jobs: int = -1,
    search: Budget | None = None,
    on_run: Callable[[Splits], OnProgress | None] = lambda splits: None,
) -> Fitted:
    """`cross_validate` on each of several splits, and fit on `rows` of the first, all at once.

    As one queue of fits no core waits for the last fold of one before the next begins.

    Parameters
    ----------
    features, clf, balanced, seed, n_jobs, search
        As `cross_validate`.
    several
        Splits of these features.
    on_run
        Called with each of the splits when its folds have their turn; gives its progress callback.
    """
    same: dict[str, Any] = {"balanced": balanced, "seed": seed, "search": search}
    by_splits = [_fold_jobs(features, clf, splits, **same) for splits in several]
    # The largest first, so that it is not what all wait for at the end.
    whole = delayed(_fit_whole)(partial(make_model, clf, **same), features, several[0].rows)
    jobs = [whole, *chain.from_iterable(by_splits)]
    with closing(results_of(jobs, n_jobs, searched=search is not None)) as results:
        pipeline = next(results)
        runs = [_collected(features, clf, s, results, on_run(s), **same) for s in several]
    return Fitted(runs, pipeline)


def _fold_jobs(features: Features, clf: str, splits: Splits, **how: Any) -> list[Any]:
    _check_splits(features, splits)
    fit = partial(delayed(_fit_fold), grouped=splits.strategy == "grouped")
    folds = chain.from_iterable(splits.repeats)
    # Made where it is fitted: a fitted forest is large, and a job is kept until all are done.
    fresh = partial(make_model, clf, **how)
    return [fit(fresh, features, fold, splits.holdout) for fold in folds]


def _collected(
    features: Features,
    clf: str,
    splits: Splits,
    results: Iterator[FoldScores],
    on_progress: OnProgress | None,
    *,
    search: Budget | None,
    **how: Any,
) -> Run:
    """The run of the next results, as many as there are folds."""
    n = splits.n_folds * len(splits.repeats)
    done: list[FoldScores] = []
    held = np.zeros((len(splits.holdout), len(features.class_names)))
    for result in counted(islice(results, n), n, on_progress):
        # Summed at once: hundreds of folds would hold as many copies.
        held += result.holdout / n
        done.append(result._replace(holdout=held[:0]))
    name = run_name(clf, search)
    config = _config(features, name, make_model(clf, search=search, **how), splits, **how)
    config |= {"search": str(search)} if search else {}
    config["notes"] = list(dict.fromkeys(result.note for result in done if result.note))[:1]
    for note in config["notes"]:
        log.warning("%s: %s", name, note)
    return _run(features, name, splits, done, held, config)


def _check_splits(features: Features, splits: Splits) -> None:
    """Raise a `SplitError` where the splits do not fit the labels or groups at hand."""
    rows = np.concatenate([splits.rows, splits.holdout])
    if splits.n_images != len(features) or (features.y[rows] < 0).any():
        raise SplitError(
            f"The splits were made for other features: {splits.n_images} images, here "
            f"{len(features)}. Make them again."
        )
    if features.groups is not None:
        prove_disjoint(splits, features.groups, folds=splits.strategy == "grouped")


def _fit_whole(fresh: Callable[[], Pipeline], features: Features, rows: Int) -> Pipeline:
    return fit_rows(fresh(), features, rows)


def _fit_fold(
    fresh: Callable[[], Pipeline], features: Features, fold: Fold, holdout: Int, *, grouped: bool
) -> FoldScores:
    start = time.perf_counter()
    model = fit_rows(fresh(), features, fold.train, grouped=grouped)
    fitted = time.perf_counter()
    scores, kind = score_rows(model, features, fold.test)
    seconds = (fitted - start, time.perf_counter() - fitted)
    held = score_rows(model, features, holdout)[0] if len(holdout) else scores[:0]
    note = getattr(model[-1], "note_", "")
    params = getattr(model[-1], "params_", None)
    return FoldScores(scores, kind, len(model.classes_), *seconds, held, note, params)


def fit_rows(model: Pipeline, features: Features, rows: Int, *, grouped: bool = True) -> Pipeline:
    """Fit `model` on some rows of the features; labels are codes into `class_names`.

    A classifier that folds its training rows again, to learn how sure it may be, keeps the groups
    together where `grouped`.
    """
    groups = features.groups[rows] if grouped and features.groups is not None else None
    try:
        return fit_pipeline(model, features.X[rows], features.y[rows], groups)
    except ValueError as error:
        n_classes = len(np.unique(features.y[rows]))
        inner = getattr(model[-1], "estimator", model[-1])
        raise DataError(
            f"{type(inner).__name__} cannot learn from {len(rows)} images of {n_classes} "
            f"{'class' if n_classes == 1 else 'classes'}: {_plain(error)}. Add images, or take "
            "another classifier with --clf."
        ) from error


def _plain(error: Exception) -> str:
    """What a library says, with 2 in place of np.int64(2)."""
    return re.sub(r"np\.\w+\(([^)]*)\)", r"\1", str(error)).rstrip(".")


def score_rows(model: Pipeline, features: Features, rows: Int) -> tuple[Float, str]:
    """Scores float64 (n_rows, n_classes) over all classes of the features, and their kind.

    A class that the model never saw gets probability 0.
    """
    scores = np.zeros((len(rows), len(features.class_names)))
    scores[:, model.classes_] = class_scores(model, features.X[rows])
    return scores, "proba"


def score_holdout(model: Pipeline, features: Features, splits: Splits, *, seed: int = 0) -> Holdout:
    """Scores of the held-out rows by a model fitted on `splits.rows`."""
    scores, _ = score_rows(model, features, splits.holdout)
    return judge_holdout(features, splits, scores, seed=seed)


def judge_holdout(features: Features, splits: Splits, scores: Float, *, seed: int = 0) -> Holdout:
    """What scores float64 (n_held_out, n_classes) of the held-out rows are worth."""
    rows = splits.holdout
    y = features.y[rows]
    groups = None if features.groups is None else features.groups[rows]
    return Holdout(
        keys=features.keys[rows],
        y=y,
        scores=scores,
        metrics=evaluate(y, scores),
        intervals=bootstrap_intervals(y, scores[None], groups=groups, seed=seed),
    )


def _run(
    features: Features,
    clf: str,
    splits: Splits,
    results: list[FoldScores],
    held: Float,
    config: Mapping[str, Any],
) -> Run:
    scores, fold = _gathered(features, splits, results)
    y, kind = features.y[splits.rows], results[0].score_kind
    judge = partial(judge_holdout, features, splits, seed=splits.seed)
    groups = None if features.groups is None else features.groups[splits.rows]
    each = [evaluate(y, repeat) for repeat in scores]
    return Run(
        name=clf,
        kind="classical",
        split=splits.strategy,
        keys=features.keys[splits.rows],
        y=y,
        class_names=features.class_names,
        scores=scores,
        score_kind=kind,  # type: ignore[arg-type]
        fold=fold,
        metrics={name: float(np.mean([m[name] for m in each])) for name in each[0]},
        intervals=bootstrap_intervals(y, scores, groups=groups, seed=splits.seed),
        folds=tuple(_fold_rows(features, splits, results)),
        seconds={
            "fit": sum(r.seconds_fit for r in results),
            "predict": sum(r.seconds_predict for r in results),
        },
        splits_digest=splits.digest,
        config=config,
        versions=versions(*_VERSIONS),
        holdout_folds=judge(held) if len(held) else None,
    )


def _gathered(features: Features, splits: Splits, results: list[FoldScores]) -> tuple[Float, Int]:
    """Scores (n_repeats, n_rows, n_classes) and fold numbers (n_repeats, n_rows), row by row."""
    shape = (len(splits.repeats), len(splits.rows), len(features.class_names))
    scores, fold = np.full(shape, np.nan), np.full(shape[:2], -1, np.int64)
    found = iter(results)
    for r, folds in enumerate(splits.repeats):
        for f, (_, test) in enumerate(folds):
            at = np.searchsorted(splits.rows, test)
            scores[r, at], fold[r, at] = next(found).scores, f
    return scores, fold


def _fold_rows(
    features: Features, splits: Splits, results: list[FoldScores]
) -> list[dict[str, Any]]:
    numbered = [
        (r, f, fold) for r, folds in enumerate(splits.repeats) for f, fold in enumerate(folds)
    ]
    return [
        {
            "repeat": r,
            "fold": f,
            "n_train": len(fold.train),
            "n_test": len(fold.test),
            "n_classes_train": result.n_classes_train,
            "seconds_fit": result.seconds_fit,
            "seconds_predict": result.seconds_predict,
            **evaluate(features.y[fold.test], result.scores),
            **({} if result.params is None else {"params": dict(result.params)}),
        }
        for (r, f, fold), result in zip(numbered, results, strict=True)
    ]


def _config(
    features: Features, clf: str, model: Pipeline, splits: Splits, *, balanced: bool, seed: int
) -> dict[str, Any]:
    return {
        "clf": clf,
        "balanced": balanced,
        "seed": seed,
        "device": device_in_use(),
        "params": plain_params(model),
        "features": describe_features(features),
        "splits": _describe_splits(features, splits),
    }


def plain_params(model: Pipeline) -> dict[str, Any]:
    """Every parameter of the pipeline's steps that JSON can hold."""
    simple = (str, int, float, bool, type(None))
    return {k: v for k, v in model.get_params().items() if isinstance(v, simple) and "__" in k}


def describe_features(features: Features) -> dict[str, Any]:
    """What made the vectors, as a run and a model keep it."""
    return {
        "dataset": features.dataset,
        "backbone": features.spec,
        "description": features.spec.describe(),
        "fingerprint": features.fingerprint,
        "dim": features.dim,
        "provenance": dict(features.provenance),
    }


def what_was_asked(
    features: Features, clf: str, splits: Splits, *, balanced: bool, seed: int
) -> dict[str, Any]:
    """Of which classifier, features and folds a result is that is no run."""
    return {
        "clf": clf,
        "balanced": balanced,
        "seed": seed,
        "split": splits.strategy,
        "splits_digest": splits.digest,
        "features": features.spec.describe(),
    }


def _describe_splits(features: Features, splits: Splits) -> dict[str, Any]:
    groups = features.groups
    return {
        "strategy": splits.strategy,
        "seed": splits.seed,
        "n_folds": splits.n_folds,
        "n_repeats": len(splits.repeats),
        "n_groups": None if groups is None else len(np.unique(groups[splits.rows])),
        "groups": partition_digest(groups, splits.rows),
        "n_test": len(splits.holdout),
        "holdout_origin": splits.holdout_origin,
        "grouping": splits.grouping,
        "notes": list(splits.notes),
    }
