"""Fit a model on all images, or make one of what is fitted already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline

from fishfeat.classify.estimators.dense_head import DenseHead
from fishfeat.classify.estimators.ensemble import SoftVotingEnsemble
from fishfeat.classify.parallel import one_blas_thread
from fishfeat.classify.validation.cross_validation import describe_features
from fishfeat.classify.validation.ensemble import NAME as ENSEMBLE
from fishfeat.classify.validation.fold_fits import fit_rows
from fishfeat.classify.validation.search import make_model, name_run
from fishfeat.errors import DataError, ModelError, check_record
from fishfeat.models.model import Model
from fishfeat.models.saved import ModelConfig, describe_scores
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features, FeaturesInfo, Int, Run, Splits, identify_data


def fit_model(
    features: Features,
    clf: str,
    options: ClassifierOptions | None = None,
    *,
    rows: Int | None = None,
    run: Run | None = None,
) -> Model:
    """Fit a classifier on all labelled images, or on some of them.

    Parameters
    ----------
    features
        Features to fit on.
    clf
        Name of the classifier, as in `CLASSIFIERS`.
    options
        How it is fitted.
    rows
        int64 (n_rows,): which rows of the features; None is all. Those without a label are left
        out. `splits.rows` leaves out the images that are held out.
    run
        The cross-validation of the same classifier on the same features: its scores are saved with
        the model.

    Raises
    ------
    DataError
        `rows` are no rows of the features, or `run` is of another classifier or other features.
    """
    options = ClassifierOptions() if options is None else options
    check_record("options", options, ClassifierOptions)
    rows = np.arange(len(features)) if rows is None else np.asarray(rows, np.int64)
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(features):
        raise DataError(f"rows must be 0 to {len(features) - 1}; got {rows.min()} to {rows.max()}.")
    rows = rows[features.y[rows] >= 0]
    if run is not None:
        _check_run(run, features, name_run(clf, options))
    with one_blas_thread():
        pipeline = fit_rows(make_model(clf, options), features, rows)
    model = wrap_pipeline(pipeline, features, clf, rows, options)
    return model if run is None else replace(model, scores=describe_scores(run))


def _check_run(run: Run, features: Features, name: str) -> None:
    """Raise a `DataError` where a run is not of the classifier `name` on these features."""
    if run.name != name:
        raise DataError(f"run must be of {name!r}; got that of {run.name!r}.")
    info = run.config.features
    is_same = info is not None and (info.fingerprint, info.dim) == (
        features.fingerprint,
        features.dim,
    )
    if not is_same or not np.array_equal(run.class_names, features.class_names):
        raise DataError(f"run must be of these features; that of {run.name!r} is of others.")


def wrap_pipeline(
    pipeline: Pipeline,
    features: Features,
    clf: str,
    rows: Int,
    options: ClassifierOptions,
    *,
    holdout: Int | None = None,
) -> Model:
    """Make the model of a pipeline that was fitted on `rows` int64 (n_rows,) of the features.

    `holdout` int64 (n_test,) are the rows that were held out.
    """
    if holdout is None:
        holdout = rows[:0]
    return Model(
        clf=name_run(clf, options),
        pipeline=pipeline,
        class_names=features.class_names,
        spec=features.spec,
        fingerprint=features.fingerprint,
        config=ModelConfig(
            balanced=options.balanced,
            seed=options.seed,
            n_images=len(rows),
            features=describe_features(features),
            search=options.search or "",
            params=getattr(pipeline[-1], "params_", None) or {},
            data=identify_data(features, rows, holdout),
        ),
    )


def wrap_head(
    classifier: DenseHead,
    features: Features,
    clf: str,
    splits: Splits,
    *,
    backbone: FeaturesInfo | None = None,
) -> Model:
    """Make the model of the head of a network that was trained on `splits.rows`.

    Parameters
    ----------
    classifier
        The head.
    features
        The features that the training started from.
    clf
        Name of the recipe.
    splits
        Which rows were trained on and held out.
    backbone
        The tuned network; None is that of the features.
    """
    backbone = backbone or describe_features(features)
    return Model(
        clf=clf,
        pipeline=make_pipeline(classifier),
        class_names=features.class_names,
        spec=backbone.backbone,
        fingerprint=backbone.fingerprint,
        config=ModelConfig(
            balanced=False,
            seed=splits.seed,
            n_images=len(splits.rows),
            features=backbone,
            data=identify_data(features, splits.rows, splits.holdout),
        ),
    )


def combine_models(models: Sequence[Model]) -> Model:
    """Make the soft-voting ensemble of models that were fitted on the same features.

    Raises
    ------
    ModelError
        They have other features or classes.
    """
    kinds = {(model.fingerprint, tuple(model.class_names.tolist())) for model in models}
    if len(kinds) > 1:
        raise ModelError("An ensemble needs models of the same features and classes.")
    pipeline = make_pipeline(SoftVotingEnsemble.from_fitted([model.pipeline for model in models]))
    members = tuple(model.clf for model in models)
    config = replace(models[0].config, search="", params={}, members=members)
    return replace(models[0], clf=ENSEMBLE, pipeline=pipeline, config=config, scores=None)
