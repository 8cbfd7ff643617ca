"""`fishfeat finetune`: train the network itself, on the folds of the last fit, and compare."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fishfeat.classify.parallel import check_jobs
from fishfeat.classify.statistics.verdict import BASELINE, Verdict, judge_finetune
from fishfeat.classify.validation.ensemble import average_runs
from fishfeat.errors import DataError
from fishfeat.features.specs import make_spec
from fishfeat.finetuning.recipes import (
    Recipe,
    check_img_size,
    make_recipe,
    make_recipes,
    measure_depth,
)
from fishfeat.finetuning.tuned_networks import check_unseen
from fishfeat.models.fit import wrap_head
from fishfeat.models.model import Model
from fishfeat.models.saved import describe_scores
from fishfeat.options import FinetuneOptions, FitOptions
from fishfeat.records import BackboneSpec, Features, OnProgress, PathLike, Run, Splits
from fishfeat.stages.dataset import open_dataset, read_dataset
from fishfeat.stages.extract import load_features
from fishfeat.stages.fit import OnRun, fit_data, make_all_splits
from fishfeat.workspace import Dataset, Workspace

if TYPE_CHECKING:  # it loads torch
    from fishfeat.finetuning.description import BlockRow

log = logging.getLogger("fishfeat")


@dataclass
class Finetuning:
    """What `finetune_data` did.

    Attributes
    ----------
    dataset
        Name of the data set.
    features
        Features whose backbone was tuned.
    splits
        The splits that the runs are ranked on.
    baseline
        Logistic regression on the frozen features, on the same folds.
    random_baseline
        The same on random folds; None where the folds of `baseline` are random.
    runs
        The tuned network on grouped folds, then on random ones where groups are known, then the
        mean of its probabilities and those of the baseline.
    verdict
        Whether the tuned network is worth its cost.
    model, network
        Folder of the saved model, and of the tuned network; None where none was saved.
    """

    dataset: str
    features: Features
    splits: Splits
    baseline: Run
    random_baseline: Run | None
    runs: list[Run]
    verdict: Verdict
    model: Path | None = None
    network: Path | None = None


def finetune_data(
    options: FinetuneOptions | None = None,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    on_run: OnRun | None = None,
    on_progress: OnProgress | None = None,
) -> Finetuning:
    """Fine-tune as `finetune_all`, without a sweep.

    Raises
    ------
    DataError
        There is a sweep, which has several results; or as in `finetune_all`.
    """
    if options is not None and options.sweep is not None:
        raise DataError("sweep has several results: use `finetune_all`.")
    return finetune_all(
        options, cache=cache, dataset=dataset, on_run=on_run, on_progress=on_progress
    )[0]


def finetune_all(
    options: FinetuneOptions | None = None,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    on_run: OnRun | None = None,
    on_progress: OnProgress | None = None,
) -> list[Finetuning]:
    """Fine-tune the backbone of the features last extracted, on the folds of the last fit.

    There is one result, or with `sweep` one for each number of trained blocks.

    Where logistic regression was not fitted on these features and folds, it is fitted first: it is
    what the tuned network is compared with. Folds that are finished are not trained again.

    Parameters
    ----------
    options
        What is trained, and how.
    cache
        The cache folder.
    dataset
        Name of the data set, which is then the one in use; None is the one in use.
    on_run
        As in `fit_data`, for the baseline.
    on_progress
        Called with (done, total) images passed.

    Raises
    ------
    DataError
        A setting is wrong, an image cannot be read, or the network was trained on these images.
    BackboneError
        The backbone cannot be fine-tuned.
    """
    options = options or FinetuneOptions()
    recipes = make_recipes(options)
    check_img_size(recipes[0], options.img_size)
    check_jobs(options.jobs)
    if options.sweep is not None:
        _check_sweep(recipes[-1], load_features(read_dataset(cache, dataset)).spec)
    _fit_baseline(cache, dataset, recipes[0], on_run)
    return [
        _finetune(recipe, options, cache, dataset, on_progress=on_progress) for recipe in recipes
    ]


def _check_sweep(largest: Recipe, spec: BackboneSpec) -> None:
    """Raise a `DataError` where a sweep ends beyond the blocks of its network.

    Otherwise it would be found after hours of training.
    """
    from fishfeat.finetuning.description import count_blocks

    n_blocks = count_blocks(_make_network_spec(largest) or spec)
    if measure_depth(largest.train) > n_blocks:
        raise DataError(
            f"sweep must end at last:0..{n_blocks} or before for this network; it ends at "
            f"{largest.train}. `fishfeat finetune --blocks` lists the blocks."
        )


def _finetune(
    recipe: Recipe,
    options: FinetuneOptions,
    cache: PathLike,
    dataset: str | None,
    *,
    on_progress: OnProgress | None,
) -> Finetuning:
    """Fine-tune with one recipe, and save its runs and its model."""
    with open_dataset(cache, dataset) as opened:
        features = load_features(opened)
        all_splits = _make_fitted_splits(opened, features)
        assert all_splits is not None  # the baseline was fitted on them
        splits = all_splits[0]
        seen = np.append(splits.rows, splits.holdout)
        check_unseen(features, seen, network=_make_network_spec(recipe))
        log.info("Data set: %s. Features: %s.", opened.name, features.spec.describe())
        runs, model, network = _train(opened, features, all_splits, recipe, options, on_progress)
        baseline = _find_run(opened, features, splits)
        assert baseline is not None  # fitted above
        groups = None if features.groups is None else features.groups[splits.rows]
        verdict = judge_finetune(runs[0], baseline, groups=groups)
        if not recipe.is_solved:  # then both are the same
            runs.append(_average(features, splits, baseline, runs[0]))
        for run in runs:
            opened.folder.save_run(run)
        model_folder = None
        if model is not None:
            model = dataclasses.replace(model, scores=describe_scores(runs[0]))
            model_folder = model.save(opened.folder.models / model.name)
        Workspace(opened.folder.folder.parent).use(opened.folder)
        on_random = [_find_run(opened, features, others) for others in all_splits[1:]]
        return Finetuning(
            opened.name,
            features,
            splits,
            baseline,
            on_random[0] if on_random else None,
            runs,
            verdict,
            model_folder,
            network,
        )


def _fit_baseline(
    cache: PathLike, dataset: str | None, recipe: Recipe, on_run: OnRun | None
) -> None:
    """Fit logistic regression where it has no run on these features and on the folds last used."""
    current = read_dataset(cache, dataset)
    features = load_features(current)
    all_splits = _make_fitted_splits(current, features)
    if all_splits is not None and _find_run(current, features, all_splits[0]) is not None:
        return
    options = FitOptions(clf=(BASELINE,))
    if current.state.split_options is not None:
        options = dataclasses.replace(options, **dataclasses.asdict(current.state.split_options))
    log.info("%s is fitted first: it is what %s is compared with.", BASELINE, recipe.name)
    fit_data(options, cache=cache, dataset=dataset, on_run=on_run)


def _make_fitted_splits(dataset: Dataset, features: Features) -> list[Splits] | None:
    """The splits of the last fit, made again; None where nothing was fitted on these images."""
    options, state = dataset.state.split_options, dataset.state
    if options is None or not state.splits:
        return None
    all_splits = make_all_splits(features, options)
    if tuple(splits.digest for splits in all_splits) != state.splits:
        log.info("Images, labels or groups have changed since the last fit.")
        return None
    return all_splits


def _make_network_spec(recipe: Recipe) -> BackboneSpec | None:
    """The network that a recipe names; None is that of the features."""
    is_named = bool(recipe.network) and recipe.train != "scratch"
    return make_spec(recipe.network) if is_named else None


def _find_run(dataset: Dataset, features: Features, splits: Splits) -> Run | None:
    """The saved run of the baseline on these features and splits."""
    for run in dataset.folder.load_runs():
        info = run.config.features
        if (
            run.name == BASELINE
            and run.splits_digest == splits.digest
            and info is not None
            and info.fingerprint == features.fingerprint
            and np.array_equal(run.keys, features.keys[splits.rows])
            and np.array_equal(run.y, features.y[splits.rows])
            and not run.config.balanced
        ):
            return run
    return None


def _train(
    dataset: Dataset,
    features: Features,
    all_splits: list[Splits],
    recipe: Recipe,
    options: FinetuneOptions,
    on_progress: OnProgress | None,
) -> tuple[list[Run], Model | None, Path | None]:
    """The runs, the model of all images, and the folder of the tuned network."""
    ranked = all_splits[0]
    if recipe.is_solved:
        from fishfeat.finetuning.heads import make_classifier
        from fishfeat.finetuning.solved import solve_splits

        solved = solve_splits(
            features, all_splits, recipe, jobs=options.jobs, on_progress=on_progress
        )
        head = make_classifier(solved.head)
        return solved.runs, wrap_head(head, features, recipe.name, ranked), None
    from fishfeat.finetuning.finetune import FinetuneRuntime, finetune_splits
    from fishfeat.finetuning.saving import save_tuned

    tuned = finetune_splits(
        features,
        dataset.require_images(),
        all_splits,
        recipe,
        folder=dataset.folder.folder,
        img_size=options.img_size,
        runtime=FinetuneRuntime(options.device, options.jobs, on_progress),
    )
    runs = tuned.runs
    training = runs[0].config.training
    if tuned.final.divergence is not None or (training is not None and training.diverged):
        return runs, None, None
    saved = save_tuned(tuned, dataset.folder.folder, ranked.rows)
    runs = [_name_network(run, saved.backbone.backbone) for run in runs]
    model = wrap_head(saved.classifier, features, recipe.name, ranked, backbone=saved.backbone)
    return runs, model, saved.network


def _average(features: Features, splits: Splits, baseline: Run, tuned: Run) -> Run:
    """The mean of both, which has the recipe as its parameters."""
    name = f"{baseline.name}+{tuned.name}"
    averaged = average_runs(features, [baseline, tuned], splits, name=name)
    training = tuned.config.training
    assert training is not None
    config = dataclasses.replace(averaged.config, params=training.recipe)
    return dataclasses.replace(averaged, config=config)


def _name_network(run: Run, spec: BackboneSpec) -> Run:
    """The run with the tuned network that was saved."""
    training = run.config.training
    assert training is not None
    config = dataclasses.replace(run.config, training=dataclasses.replace(training, network=spec))
    return dataclasses.replace(run, config=config)


def list_network_blocks(
    options: FinetuneOptions | None = None,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
) -> list[BlockRow]:
    """The blocks of the network that would be trained, the last one first.

    Parameters
    ----------
    options
        Only `network`, `recipe`, `img_size` and whether `train` is 'scratch' matter. Without a
        network of the first two it is that of the features last extracted.
    cache, dataset
        As in `finetune_data`.

    Raises
    ------
    DataError
        There is no such recipe, or a setting of it is wrong.
    BackboneError
        The network is not known, or has no pretrained weights and `train` is not 'scratch'.
    """
    from fishfeat.finetuning.description import describe_blocks
    from fishfeat.finetuning.source import make_trained_spec

    options = options or FinetuneOptions()
    train = options.train if options.train == "scratch" else None
    recipe = make_recipe(
        FinetuneOptions(train=train, recipe=options.recipe, network=options.network)
    )
    spec = load_features(read_dataset(cache, dataset)).spec
    return describe_blocks(make_trained_spec(spec, recipe, options.img_size))
