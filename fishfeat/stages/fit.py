"""Cross-validate classifiers on the features last extracted, and report what was found."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fishfeat.classify.estimators.registry import DEFAULT_CLASSIFIERS, make_classifier
from fishfeat.classify.parallel import on_device, use_backend
from fishfeat.classify.validation.cross_validation import score_holdout, validate_and_fit
from fishfeat.classify.validation.ensemble import vote as vote_of
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.classify.validation.learning_curve import learning_curve as draw_curve
from fishfeat.classify.validation.novelty import Novelty, known_fold, leave_one_class_out
from fishfeat.classify.validation.permutation import Chance, permutation_check
from fishfeat.classify.validation.search import Budget, parse_budget
from fishfeat.classify.validation.splits import make_splits, parse_folds, partition_digest
from fishfeat.errors import DataError
from fishfeat.images.grouping.hints import GroupingHint
from fishfeat.models import Model, ensemble_model, model_of
from fishfeat.records import Features, ImageSet, OnProgress, PathLike, Run, Splits
from fishfeat.stages.extract import load_features
from fishfeat.stages.grouping import (
    asked_rules,
    is_settled,
    known_rules,
    regroup,
    restored_on_failure,
    settle_groups,
)
from fishfeat.stages.inspect import current_dataset
from fishfeat.stages.kept_results import (
    extras_in_force,
    find_map,
    keep_map,
    merge_in_force,
    save_extra,
)
from fishfeat.workspace import DatasetFolder

log = logging.getLogger("fishfeat")
OnRun = Callable[[str, str], "OnProgress | None"]
# Fitted dozens of times for a curve or unknown species, so a fast one where none is named.
QUICK_CLASSIFIER = "logreg"
# Random folds beside groups that are left out one by one.
RANDOM_FOLDS = 10
MANY_FITS = 500


class Fit(NamedTuple):
    """What `fit_data` did: runs (for each classifier grouped, then random), models and hints.

    `chance` is what each classifier scored on shuffled labels and `unknown` how it takes species
    that it never saw, as `curves`, where that was asked for; the hints are of groups that nobody
    named.
    """

    folder: DatasetFolder
    features: Features
    splits: Splits
    runs: list[Run]
    models: list[Path]
    chance: dict[str, Chance]
    hints: list[GroupingHint]
    curves: list[Curve]
    novelty: list[Novelty]


class _How(NamedTuple):
    """How each classifier is fitted."""

    balanced: bool
    seed: int
    jobs: int
    search: Budget | None
    permute: int
    on_run: OnRun | None


class _Done(NamedTuple):
    """What was done with one classifier."""

    runs: list[Run]
    model: Model
    chance: Chance | None = None


def fit_data(
    *,
    cache: PathLike = "cache",
    clf: Sequence[str] = (),
    group_by: Sequence[str] | None = None,
    group_pattern: str | None = None,
    cv: int | str = 5,
    repeats: int = 1,
    seed: int = 0,
    test: float | None = None,
    balanced: bool = False,
    search: str | None = None,
    vote: bool = False,
    permute: int = 0,
    learning_curve: bool = False,
    novelty: bool = False,
    jobs: int = -1,
    backend: str | None = None,
    device: str = "cpu",
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
        `n_splits` and so on of `make_splits`; beside 'logo' the random folds are 10.
    balanced
        Weigh classes inversely to their frequency.
    search
        Budget of the search for settings in each training fold: '20' trials, '60s'; None searches
        nothing.
    vote
        Add the mean of the classifiers' probabilities as one more run and model.
    permute
        How often to score each classifier on shuffled labels too, which must give chance.
    learning_curve
        Also score the named classifiers (logreg where none is named) on ever more of the training
        groups and keep the curve for the page.
    unknown
        Also leave each class out in turn and keep whether the named classifiers (logreg where none
        is named) are less sure of what they never saw.
    jobs
        Folds at once.
    backend
        Where the folds run, as `fishfeat.classify.parallel.std`; None is here.
    device
        Where xgb grows its trees: 'cpu', 'cuda' or 'cuda:N'.
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
    if jobs == 0 or jobs < -1:
        raise DataError(f"--jobs is a number of folds at once, or -1 for one a core; got {jobs}.")
    names = _names(clf, vote)
    budget = parse_budget(search) if search else None
    folder = current_dataset(cache)
    asked = asked_rules(group_by, group_pattern)
    with restored_on_failure(folder) if asked is not None else nullcontext():
        features, hints = _grouped_features(folder, asked, on_compare)
        log.info("Data set: %s. Features: %s.", folder.name, features.spec.describe())
        both = _both_splits(features, cv, repeats=repeats, seed=seed, test=test)
    _say_splits(features, both[0], silent=any(r.kind == "none" for r in known_rules(folder)))
    if novelty:
        known_fold(features, both[0])  # what cannot be done is said before anything is fitted
    how = _How(balanced, seed, jobs, budget, permute, on_run)
    quick = list(dict.fromkeys(clf)) or [QUICK_CLASSIFIER]
    with use_backend(backend), on_device(device):
        done = [_fit_one(folder, features, both, name, how) for name in names]
        curves = [
            _keep_curve(folder, features, both[0], name, how) for name in quick if learning_curve
        ]
        left_out = [
            _keep_unknown(folder, features, both[0], name, how) for name in quick if novelty
        ]
    chance = {one.runs[0].name: one.chance for one in done if one.chance is not None}
    if vote:
        done.append(_vote(folder, features, both, done, seed))
    keep_map(folder, features)
    folder.update(splits=[splits.digest for splits in both])
    runs = [run for one in done for run in one.runs]
    paths = [folder.models / one.model.name for one in done]
    return Fit(folder, features, both[0], runs, paths, chance, hints, curves, left_out)


def _grouped_features(
    folder: DatasetFolder, asked: Sequence[str] | None, on_compare: OnProgress | None
) -> tuple[Features, list[GroupingHint]]:
    """The features last extracted, with the groups that are asked for or in force."""
    if asked is not None:
        regroup(folder, asked)
    features, images = load_features(folder), folder.load_images()
    if asked is None and is_settled(folder, images, features):
        return features, []
    _, features, hints = settle_groups(folder, images, features, on_compare=on_compare)
    return features, hints


def _names(clf: Sequence[str], vote: bool) -> list[str]:
    """The classifiers asked for; a wrong name is said before anything is fitted."""
    names = list(dict.fromkeys(clf or DEFAULT_CLASSIFIERS))
    for name in names:
        make_classifier(name)
    if vote and len(names) < 2:
        raise DataError(f"--vote wants at least two classifiers; got {names[0]}. Name --clf more.")
    return names


def _both_splits(features: Features, cv: int | str, **how: Any) -> list[Splits]:
    """What is ranked by and, where that is grouped, random folds to hold it against."""
    ranked = make_splits(features, n_splits=cv, **how)
    if ranked.strategy == "random":
        return [ranked]
    if parse_folds(cv) is None:
        largest = int(np.bincount(features.y[ranked.rows]).max())
        n = ranked.n_folds
        cv = min(RANDOM_FOLDS, largest)
        log.log(
            logging.WARNING if n > MANY_FITS else logging.INFO,
            "Each of %d groups is left out in turn: %d fits of each classifier%s. The random folds "
            "beside them are %d.",
            *(n, n, ", where --cv 10 has ten" if n > MANY_FITS else "", cv),
        )
    return [ranked, make_splits(features, n_splits=cv, strategy="random", **how)]


def _say_splits(features: Features, splits: Splits, *, silent: bool) -> None:
    if features.groups is not None:
        n_groups = len(np.unique(features.groups[splits.rows]))
        log.info("Groups: %d in %d images. %s", n_groups, len(splits.rows), splits.grouping)
    elif not silent:
        log.warning(
            "No groups are known: images of one fish, or copies of one photograph, may stand on "
            "both sides of a split; then the scores flatter and the intervals are too narrow. "
            "--group-by mends it: 'pattern:fish_(\\d+)_' (a pattern of your own), column, "
            "folder:N, time:SECONDS or duplicates; --group-by none says that there are none."
        )
    if len(splits.holdout):
        origin = "the data set's own test part" if splits.holdout_origin == "parts" else "drawn"
        log.info("Held out: %d images (%s), scored once.", len(splits.holdout), origin)
    for note in splits.notes:
        log.warning("%s", note)


def _fit_one(
    folder: DatasetFolder, features: Features, both: Sequence[Splits], clf: str, how: _How
) -> _Done:
    """The runs of one classifier, and its model fitted on all rows that are not held out."""
    same: dict[str, Any] = {"balanced": how.balanced, "seed": how.seed, "search": how.search}

    def on_run(splits: Splits) -> OnProgress | None:
        return how.on_run(clf, splits.strategy) if how.on_run else None

    fitted = validate_and_fit(features, clf, both, n_jobs=how.jobs, on_run=on_run, **same)
    runs = fitted.runs
    chance = _on_shuffled(features, both[0], clf, how) if how.permute else None
    if chance is not None:
        runs[0] = dataclasses.replace(
            runs[0], config={**runs[0].config, "chance": chance._asdict()}
        )
    model = model_of(fitted.pipeline, features, clf, both[0].rows, **same)
    return _Done(_kept(folder, features, both[0], runs, model, how.seed), model, chance)


def _on_shuffled(features: Features, splits: Splits, clf: str, how: _How) -> Chance | None:
    """The score on shuffled labels, with a warning where it is better than guessing.

    None where they cannot be learnt, as when a shuffling leaves a fold a single class.
    """
    try:
        chance = _checked(features, splits, clf, how)
    except DataError as error:
        log.warning("--permute is left out for %s: %s", clf, error)
        return None
    if chance.leaks:
        log.warning(
            "%s scores %.3f balanced accuracy on shuffled labels, where guessing gives %.3f: what "
            "it is asked about has leaked into training. Look at the groups.",
            *(clf, np.mean(chance.shuffled), chance.chance),
        )
    return chance


def _checked(features: Features, splits: Splits, clf: str, how: _How) -> Chance:
    return permutation_check(
        features,
        clf,
        splits,
        n_shuffles=how.permute,
        balanced=how.balanced,
        seed=how.seed,
        n_jobs=how.jobs,
        search=how.search,
        on_progress=how.on_run(clf, "shuffled") if how.on_run else None,
    )


def _vote(
    folder: DatasetFolder,
    features: Features,
    both: Sequence[Splits],
    done: Sequence[_Done],
    seed: int,
) -> _Done:
    """One more run on each kind of splits, and one more model, of those that were fitted."""
    runs = [
        vote_of(features, [one.runs[i] for one in done], splits) for i, splits in enumerate(both)
    ]
    model = ensemble_model([one.model for one in done])
    return _Done(_kept(folder, features, both[0], runs, model, seed), model)


def _kept(
    folder: DatasetFolder,
    features: Features,
    splits: Splits,
    runs: list[Run],
    model: Model,
    seed: int,
) -> list[Run]:
    """The runs, the first with its held-out score, saved beside the model."""
    if len(splits.holdout):
        held = score_holdout(model.pipeline, features, splits, seed=seed)
        runs = [dataclasses.replace(runs[0], holdout=held), *runs[1:]]
    for run in runs:
        folder.save_run(run)
    model.save(folder.models / model.name)
    return runs


def _keep_curve(
    folder: DatasetFolder, features: Features, splits: Splits, clf: str, how: _How
) -> Curve:
    from fishfeat.report.content.sentences import describe_curve

    progress = how.on_run(clf, "learning curve") if how.on_run else None
    draw = partial(draw_curve, features, clf, splits, balanced=how.balanced, seed=how.seed)
    curve = draw(n_jobs=how.jobs, on_progress=progress)
    save_extra(folder, curve)
    log.info("%s", describe_curve(curve))
    return curve


def _keep_unknown(
    folder: DatasetFolder, features: Features, splits: Splits, clf: str, how: _How
) -> Novelty:
    from fishfeat.report.content.sentences import describe_novelty

    progress = how.on_run(clf, "unknown species") if how.on_run else None
    leave_out = partial(leave_one_class_out, balanced=how.balanced, seed=how.seed)
    found = leave_out(features, clf, splits, n_jobs=how.jobs, on_progress=progress)
    save_extra(folder, found)
    log.info("%s", describe_novelty(found))
    return found


def runs_in_force(folder: DatasetFolder) -> list[Run]:
    """The kept runs whose splits are those last used, so that they can be compared."""
    in_force = set(folder.state().get("splits", ()))
    kept = folder.load_runs()
    runs = [run for run in kept if run.splits_digest in in_force]
    if not runs:
        raise DataError(f"{folder.name!r} has no scores yet: run `fishfeat fit` first.")
    if len(runs) < len(kept):
        log.info(
            "%d earlier runs are left out: they used other images, groups or folds.",
            len(kept) - len(runs),
        )
    return runs


def _of_these_groups(folder: DatasetFolder, runs: list[Run], images: ImageSet) -> list[Run]:
    """The runs whose intervals were drawn by the groups in force, lest a page mixes two kinds."""

    def digest(run: Run) -> str:
        return partition_digest(images.groups, np.flatnonzero(np.isin(images.keys, run.keys)))

    # Runs of before do not say by which groups.
    own = [run for run in runs if run.config["splits"].get("groups", digest(run)) == digest(run)]
    if not own:
        raise DataError(
            f"The scores of {folder.name!r} are of other groups than those in force "
            f"({images.grouping.rstrip('.') or 'none'}): run `fishfeat fit` again."
        )
    if len(own) < len(runs):
        log.warning(
            "Left out, as they are of other groups: %d of %d runs. Fit them again.",
            *(len(runs) - len(own), len(runs)),
        )
    return own


def report_data(
    *,
    cache: PathLike = "cache",
    map_method: str | None = None,
    group_matrix: bool = False,
    on_progress: OnProgress | None = None,
) -> tuple[DatasetFolder, Path]:
    """Write the page of the data set last used; returns its folder and the page.

    Parameters
    ----------
    cache
        The cache folder.
    map_method
        'pca' or 'umap': how the features are laid out on a plane, once; None is pca.
    group_matrix
        Also write each run's confusion matrix as CSV, by class and by group.
    on_progress
        Called with (done, total) thumbnails.
    """
    from fishfeat.report.content.contents import ReportContent
    from fishfeat.report.output.page import write_report

    folder = current_dataset(cache)
    log.info("Data set: %s.", folder.name)
    images, duplicates = folder.load_images(), folder.load_near_duplicates()
    runs = _of_these_groups(folder, runs_in_force(folder), images)
    page = write_report(
        runs,
        images,
        folder.report,
        content=ReportContent(
            feature_map=find_map(folder, map_method),
            curves=extras_in_force(folder, Curve, runs),
            novelty=extras_in_force(folder, Novelty, runs),
            merge=merge_in_force(folder),
            near_duplicates=duplicates.pairs if duplicates else (),
        ),
        group_matrix=group_matrix,
        on_progress=on_progress,
    )
    return folder, page
