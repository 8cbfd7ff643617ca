"""`fishfeat fit`: cross-validate classifiers on the features last extracted; save the models."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fishfeat.checks import Finding
from fishfeat.classify.estimators.registry import DEFAULT_CLASSIFIERS
from fishfeat.classify.parallel import check_jobs, use_backend
from fishfeat.classify.validation.cross_validation import (
    Validated,
    score_holdout,
    validate_and_fit,
)
from fishfeat.classify.validation.early_exit import NAME as EARLY_EXIT
from fishfeat.classify.validation.early_exit import validate_early_exit
from fishfeat.classify.validation.ensemble import NAME as ENSEMBLE
from fishfeat.classify.validation.ensemble import average_runs
from fishfeat.classify.validation.learning_curve import learning_curve
from fishfeat.classify.validation.novelty import leave_one_class_out, select_known_fold
from fishfeat.classify.validation.permutation import score_shuffled_labels
from fishfeat.classify.validation.search import make_model
from fishfeat.classify.validation.splits import make_splits, parse_folds
from fishfeat.errors import DataError, count_things
from fishfeat.finetuning.tuned_networks import check_unseen
from fishfeat.images.grouping.hints import GroupingHint
from fishfeat.models.fit import combine_models, wrap_pipeline
from fishfeat.models.model import Model
from fishfeat.models.saved import describe_scores
from fishfeat.options import FitOptions, SplitOptions
from fishfeat.records import Chance, Features, OnProgress, PathLike, Run, Splits, identify_data
from fishfeat.records.results import Curve, Novelty
from fishfeat.stages.dataset import open_dataset
from fishfeat.stages.early_exit import Layers, load_layers
from fishfeat.stages.extract import load_features
from fishfeat.stages.grouping import Grouped, apply_groups, are_applied, parse_group_by, regroup
from fishfeat.stages.saved_results import find_map, save_result
from fishfeat.workspace import Dataset, Workspace

log = logging.getLogger("fishfeat")
# Called with (classifier, split) before each run; gives its progress callback.
OnRun = Callable[[str, str], "OnProgress | None"]
# Fitted dozens of times for a learning curve or for novelty detection, so a fast one.
QUICK_CLASSIFIER = "logreg"
# Random folds beside groups that are left out one by one.
RANDOM_FOLDS = 10
MANY_FITS = 500
HOLDOUT_ORIGINS = {
    "drawn": "drawn",
    "names": "the last of each class by file name",
    "parts": "the test part of the data set",
}


@dataclass
class Fit:
    """What `fit_data` did.

    Attributes
    ----------
    dataset
        Name of the data set.
    features
        With the active groups.
    splits
        The splits that the runs are ranked on.
    hints
        Hints at related images, where nobody named groups.
    noun
        What one of the images is: 'image', or 'box'.
    runs
        For each classifier the run on grouped folds, then the one on random folds; only the latter
        where no groups are known.
    models
        Folders of the saved models.
    chance
        Name of a run -> its scores on shuffled labels, where they were asked for.
    curves, novelty
        Learning curves and novelty detection, where they were asked for.
    """

    dataset: str
    features: Features
    splits: Splits
    hints: list[GroupingHint]
    noun: str = "image"
    runs: list[Run] = field(default_factory=list)
    models: list[Path] = field(default_factory=list)
    chance: dict[str, Chance] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    novelty: list[Novelty] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """What every step of one fit needs."""

    features: Features
    all_splits: Sequence[Splits]
    options: FitOptions
    on_run: OnRun | None

    @property
    def splits(self) -> Splits:
        """The splits that the runs are ranked on."""
        return self.all_splits[0]

    def report_to(self, clf: str, step: str) -> OnProgress | None:
        """The progress callback of a step."""
        return self.on_run(clf, step) if self.on_run else None


@dataclass(frozen=True)
class _Fitted:
    """The runs of one classifier and its model."""

    runs: list[Run]
    model: Model


def fit_data(
    options: FitOptions | None = None,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    on_run: OnRun | None = None,
    on_compare: OnProgress | None = None,
) -> Fit:
    """Cross-validate classifiers on the features last extracted and save the fitted models.

    Each classifier is saved, and counts, as soon as it is finished: what an error or the user stops
    later takes nothing away from it.

    Parameters
    ----------
    options
        Classifiers, folds, groups and extras.
    cache
        The cache folder.
    dataset
        Name of the data set, which is then the one in use; None is the one in use.
    on_run
        Called with (classifier, split) before each run; gives its progress callback.
    on_compare
        Called with (done, total) images or pairs, where near-duplicates are searched for.

    Returns
    -------
    Fit
        For each classifier the run on grouped folds and, for comparison, one on random folds.
    """
    options = options or FitOptions()
    names = _check_options(options)
    with open_dataset(cache, dataset) as before:
        grouped = _group_features(before, options, on_compare)
        features = grouped.features
        log.info("Data set: %s. Features: %s.", before.name, features.spec.describe())
        job = _Job(features, make_all_splits(features, options), options, on_run)
        check_unseen(features, np.append(job.splits.rows, job.splits.holdout))
        noun = grouped.images.noun
        _log_splits(job, noun, is_silent="none" in (grouped.state.options.group_by or ()))
        if options.novelty:
            select_known_fold(features, job.splits)  # an impossible request fails before the fits
        layers = load_layers(before, features) if options.early_exit else None
        fit = Fit(before.name, features, job.splits, grouped.hints, noun)
        saver = _Saver(before, grouped, job, fit, _list_steps(names, options))
        with use_backend(options.backend):
            fitted = []
            for name in names:
                fitted.append(_fit_classifier(job, name, fit))
                saver.save_classifier(fitted[-1], step=name)
            if layers is not None:
                saver.save_classifier(_fit_early_exit(job, layers), step=EARLY_EXIT)
            _add_extras(job, fit, saver)
        if options.ensemble:
            saver.save_classifier(_fit_ensemble(job, fitted), step=ENSEMBLE)
        find_map(saver.dataset, features)
        return fit


def _check_options(options: FitOptions) -> list[str]:
    """Names of the classifiers. Options that are wrong fail here, before anything is fitted."""
    check_jobs(options.jobs)
    names = list(dict.fromkeys(options.clf or DEFAULT_CLASSIFIERS))
    for name in names:
        make_model(name, options)
    if not 0 <= options.exit_loss < 1:
        raise DataError(f"exit_loss must be at least 0 and below 1; got {options.exit_loss}.")
    if options.ensemble and len(names) < 2:
        raise DataError(
            f"ensemble needs at least two classifiers; got {names[0]}. Add one with --clf."
        )
    return names


def _group_features(
    dataset: Dataset, options: FitOptions, on_compare: OnProgress | None
) -> Grouped:
    """The features last extracted, with the groups that are asked for or active."""
    is_asked = options.group_by is not None
    if options.group_by is not None:
        dataset = regroup(dataset, parse_group_by(options.group_by))
    features = load_features(dataset)
    if not is_asked and are_applied(dataset, features):
        return Grouped(dataset.require_images(), features, [], dataset.state, None)
    return apply_groups(dataset, dataset.require_images(), features, on_compare=on_compare)


def select_split_options(options: SplitOptions) -> SplitOptions:
    """Those of the options that say how the splits are made."""
    names = [option.name for option in dataclasses.fields(SplitOptions)]
    return SplitOptions(**{name: getattr(options, name) for name in names})


def make_all_splits(features: Features, options: SplitOptions) -> list[Splits]:
    """The splits to rank by and, where these are grouped, random ones for comparison."""
    ranked = make_splits(features, options)
    if ranked.strategy == "random":
        return [ranked]
    if parse_folds(options.cv) is None:
        n_groups = ranked.n_folds
        n_random = min(RANDOM_FOLDS, int(np.bincount(features.y[ranked.rows]).max()))
        options = dataclasses.replace(options, cv=n_random)
        log.info(
            "Each of %d groups is left out in turn: %d fits of each classifier. The random folds "
            "for comparison are %d.",
            n_groups,
            n_groups,
            n_random,
        )
        if n_groups > MANY_FITS:
            log.warning("%d fits of each classifier take long. --cv 10 needs ten.", n_groups)
    return [ranked, make_splits(features, options, strategy="random")]


def _log_splits(job: _Job, noun: str, *, is_silent: bool) -> None:
    features, splits = job.features, job.splits
    if features.groups is not None:
        n_groups = len(np.unique(features.groups[splits.rows]))
        n_scored = count_things(len(splits.rows), noun)
        log.info("Groups: %d in %s. %s", n_groups, n_scored, splits.grouping)
    elif not is_silent:
        log.warning(
            "%s",
            Finding(
                "no-groups",
                "No groups are known. Images of one fish, or copies of one photograph, may be on "
                "both sides of a split: then the scores are too high and the intervals too narrow.",
                "Name related images with --group-by: 'pattern:fish_(\\d+)_' (with your own "
                "pattern), column, folder:N, time:SECONDS or duplicates. `--group-by none` says "
                "that the images are unrelated.",
            ),
        )
    if len(splits.holdout):
        origin = HOLDOUT_ORIGINS[splits.holdout_origin]
        n_held_out = count_things(len(splits.holdout), noun)
        log.info("Held out: %s (%s), scored once.", n_held_out, origin)
    for finding in splits.notes:
        log.warning("%s", finding)


def _fit_classifier(job: _Job, clf: str, fit: Fit) -> _Fitted:
    """The runs of one classifier, and its model fitted on all rows that are not held out."""
    validated = validate_and_fit(
        job.features,
        clf,
        job.all_splits,
        job.options,
        jobs=job.options.jobs,
        on_run=lambda splits: job.report_to(clf, splits.strategy),
    )
    runs = validated.runs
    chance = _score_shuffled(job, clf) if job.options.permute else None
    if chance is not None:
        fit.chance[runs[0].name] = chance
        config = dataclasses.replace(runs[0].config, chance=chance)
        runs[0] = dataclasses.replace(runs[0], config=config)
    return _add_holdout(job, runs, _wrap_model(job, validated, clf))


def _fit_early_exit(job: _Job, layers: Layers) -> _Fitted:
    """The runs of early exit, and its model fitted on all rows that are not held out."""
    on_layers = dataclasses.replace(job, features=layers.features)
    validated = validate_early_exit(
        layers.features,
        layers.costs,
        job.all_splits,
        job.options,
        on_run=lambda splits: job.report_to(EARLY_EXIT, splits.strategy),
    )
    model = _wrap_model(on_layers, validated, EARLY_EXIT)
    config = dataclasses.replace(model.config, search="", layers=layers.costs)
    model = dataclasses.replace(model, clf=EARLY_EXIT, config=config)
    return _add_holdout(on_layers, validated.runs, model)


def _wrap_model(job: _Job, validated: Validated, clf: str) -> Model:
    return wrap_pipeline(
        validated.pipeline,
        job.features,
        clf,
        job.splits.rows,
        job.options,
        holdout=job.splits.holdout,
    )


def _add_holdout(job: _Job, runs: list[Run], model: Model) -> _Fitted:
    """The runs, the first with the score of the model on the held-out images."""
    if len(job.splits.holdout):
        holdout = score_holdout(model.pipeline, job.features, job.splits)
        runs = [dataclasses.replace(runs[0], holdout=holdout), *runs[1:]]
    return _Fitted(runs, model)


def _score_shuffled(job: _Job, clf: str) -> Chance | None:
    """Scores on shuffled labels, with a warning where they are above chance.

    None where shuffled labels cannot be learned, as when a fold is left with a single class.
    """
    try:
        chance = score_shuffled_labels(
            job.features,
            clf,
            job.splits,
            job.options,
            n_shuffles=job.options.permute,
            jobs=job.options.jobs,
            on_progress=job.report_to(clf, "shuffled"),
        )
    except DataError as error:
        log.warning("--permute is left out for %s: %s", clf, error)
        return None
    if chance.is_above_chance:
        log.warning(
            "%s",
            Finding(
                "above-chance-on-shuffled-labels",
                f"{clf} scores {np.mean(chance.shuffled):.3f} balanced accuracy on shuffled "
                f"labels, where guessing gives {chance.chance:.3f}. This is data leakage.",
                "Check the groups (--group-by).",
            ),
        )
    return chance


def _add_extras(job: _Job, fit: Fit, saver: _Saver) -> None:
    """Learning curves and novelty detection of the classifiers that are named."""
    from fishfeat.report.content.sentences import describe_curve, describe_novelty

    for clf in dict.fromkeys(job.options.clf or (QUICK_CLASSIFIER,)):
        if job.options.learning_curve:
            curve = learning_curve(
                job.features,
                clf,
                job.splits,
                job.options,
                jobs=job.options.jobs,
                on_progress=job.report_to(clf, "learning curve"),
            )
            fit.curves.append(curve)
            saver.save_extra(curve)
            log.info("%s", describe_curve(curve))
        if job.options.novelty:
            novelty = leave_one_class_out(
                job.features,
                clf,
                job.splits,
                job.options,
                jobs=job.options.jobs,
                on_progress=job.report_to(clf, "novelty detection"),
            )
            fit.novelty.append(novelty)
            saver.save_extra(novelty)
            log.info("%s", describe_novelty(novelty))


def _fit_ensemble(job: _Job, members: Sequence[_Fitted]) -> _Fitted:
    """One more run on each of the splits, and one more model, of those that were fitted."""
    runs = []
    for i, splits in enumerate(job.all_splits):
        runs.append(average_runs(job.features, [member.runs[i] for member in members], splits))
    return _add_holdout(job, runs, combine_models([member.model for member in members]))


# --- saving -----------------------------------------------------------------------------------


def _list_steps(names: Sequence[str], options: FitOptions) -> tuple[str, ...]:
    """What a fit has to finish, in words."""
    extras = dict.fromkeys(options.clf or (QUICK_CLASSIFIER,))
    steps = list(names)
    if options.early_exit:
        steps.append(EARLY_EXIT)
    for clf in extras:
        if options.learning_curve:
            steps.append(_name_extra(Curve, clf))
        if options.novelty:
            steps.append(_name_extra(Novelty, clf))
    if options.ensemble:
        steps.append(ENSEMBLE)
    return tuple(steps)


def _name_extra(kind: type[Curve] | type[Novelty], clf: str) -> str:
    return f"the {'learning curve' if kind is Curve else 'novelty detection'} of {clf}"


class _Saver:
    """Saves each result when it is finished, and commits the state that makes it count.

    The first commit brings the groups and folds of this fit; each later one only says what is still
    to be finished. So a kill between two classifiers leaves the finished ones, and only these.
    """

    def __init__(
        self, before: Dataset, grouped: Grouped, job: _Job, fit: Fit, steps: Sequence[str]
    ) -> None:
        self.dataset = before
        self._grouped = grouped
        self._job = job
        self._fit = fit
        self._unfinished = tuple(steps)

    def save_classifier(self, fitted: _Fitted, *, step: str) -> None:
        """Write the runs and the model of a classifier."""
        folder = self.dataset.folder
        for run in fitted.runs:
            folder.save_run(run)
            self._fit.runs.append(run)
        model = dataclasses.replace(fitted.model, scores=describe_scores(fitted.runs[0]))
        self._fit.models.append(model.save(folder.models / model.name))
        self._commit(step)

    def save_extra(self, result: Curve | Novelty) -> None:
        """Write a learning curve or novelty detection."""
        splits = self._job.splits
        data = identify_data(self._job.features, splits.rows, splits.holdout)
        save_result(self.dataset.folder, result, data=data)
        self._commit(_name_extra(type(result), result.clf))

    def _commit(self, step: str) -> None:
        self._unfinished = tuple(name for name in self._unfinished if name != step)
        state = dataclasses.replace(
            self._grouped.state,
            splits=tuple(splits.digest for splits in self._job.all_splits),
            split_options=select_split_options(self._job.options),
            unfinished=self._unfinished,
        )
        self.dataset = self.dataset.folder.commit(
            self.dataset,
            state,
            images=self._grouped.images,
            near_duplicates=self._grouped.near_duplicates,
        )
        self._grouped = self._grouped._replace(near_duplicates=None)
        Workspace(self.dataset.folder.folder.parent).use(self.dataset.folder)
