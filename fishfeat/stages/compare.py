"""`fishfeat compare`: several backbones on the same folds, on one page."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.classify.parallel import check_jobs
from fishfeat.classify.validation.cross_validation import (
    cross_validate,
    score_holdout,
    validate_and_fit,
)
from fishfeat.classify.validation.search import make_model
from fishfeat.classify.validation.splits import make_splits, parse_folds
from fishfeat.errors import (
    BackboneError,
    CacheError,
    DataError,
    FishfeatError,
    MissingExtraError,
)
from fishfeat.features.cache import select_features
from fishfeat.features.extract import (
    describe_unavailable,
    embed_missing,
    plan_extraction,
    reject_unusable,
)
from fishfeat.features.specs import check_runtime
from fishfeat.finetuning.tuned_networks import check_unseen
from fishfeat.options import BackboneOptions, ClassifierOptions, CompareOptions
from fishfeat.records import (
    BackboneSpec,
    Features,
    ImageSet,
    OnProgress,
    PathLike,
    Run,
    Splits,
    identify_data,
)
from fishfeat.report.content.backbone_sentences import list_findings
from fishfeat.report.content.backbones import Comparison, compare, label_backbones
from fishfeat.stages.dataset import OpenDataset, open_data
from fishfeat.stages.extract import Progress, select_spec
from fishfeat.stages.fit import OnRun
from fishfeat.stages.grouping import Grouped, apply_groups
from fishfeat.stages.inspect import list_images
from fishfeat.workspace import Dataset, DatasetFolder
from fishfeat.workspace.runs import load_runs, save_run

log = logging.getLogger("fishfeat")


class ComparedData(NamedTuple):
    """What `compare_data` did.

    Attributes
    ----------
    dataset
        Name of the data set.
    comparison
        The backbones, their differences, and those that could not be compared.
    page
        The page.
    n_new
        Images embedded now, summed over the backbones.
    """

    dataset: str
    comparison: Comparison
    page: Path
    n_new: int


class _Network(NamedTuple):
    """A backbone at one input size, and the layers to embed in one pass."""

    spec: BackboneSpec
    layers: tuple[str, ...]

    def describe(self) -> str:
        """One line: the network, and its layers."""
        return dataclasses.replace(self.spec, layer=", ".join(self.layers)).describe()


@dataclass
class _Work:
    """What has been done so far.

    Attributes
    ----------
    images
        Images that no backbone rejected.
    truncated
        Digest -> reason of every image that was embedded though its file ends too early.
    files
        Feature file of each backbone.
    failed
        Reason of each backbone that could not be compared.
    n_new
        Images embedded now.
    """

    images: ImageSet
    truncated: Mapping[str, str]
    files: dict[BackboneSpec, Path] = field(default_factory=dict)
    failed: dict[BackboneSpec, str] = field(default_factory=dict)
    n_new: int = 0


def compare_data(
    data: PathLike | None = None,
    options: CompareOptions | None = None,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    progress: Progress | None = None,
    on_run: OnRun | None = None,
    on_progress: OnProgress | None = None,
) -> ComparedData:
    """Embed, fit and compare several backbones on the same folds; write the page.

    What is in the cache is neither embedded nor fitted again. Images, labels and groups are
    remembered as by `extract_data`; the features in use, the last fit, its report and its models
    stay as they were.

    Parameters
    ----------
    data
        Folder or CSV; None is that of the data set in use, else the demo images.
    options
        Backbones, folds and classifier; options of the images that are None are as before.
    cache
        The cache folder.
    dataset
        Name of the data set. None is the one of these images, as their contents say.
    progress
        Progress callbacks of the extractions.
    on_run
        Called with (label of the backbone, split) before each run; gives its progress callback.
    on_progress
        Called with (done, total) thumbnails.

    Raises
    ------
    DataError
        There is nothing to compare, or an option is wrong.
    BackboneError
        None of the backbones could be compared.
    """
    from fishfeat.report.output.comparison_page import write_comparison

    options, progress = options or CompareOptions(), progress or Progress()
    _check_options(options)
    with open_data(data, cache, options, name=dataset, on_progress=progress.on_scan) as opened:
        networks = _list_networks(opened.dataset.state.spec, options)
        before, work = _embed_all(opened, networks, options, progress)
        grouped = _group_images(before, work, progress)
        folder = before.folder
        folder.commit(
            before,
            grouped.state,
            images=grouped.images,
            near_duplicates=grouped.near_duplicates,
        )
        opened.workspace.use(folder)
        runs = _fit_all(folder, grouped.images, work, options, on_run)
        if not runs:
            raise BackboneError(_say_none_compared(work.failed))
        comparison = compare(runs, grouped.images, failed=work.failed)
        for finding in list_findings(comparison):
            log.log(finding.log_level, "%s", finding)
        page = write_comparison(comparison, folder.comparison, on_progress=on_progress)
        return ComparedData(folder.name, comparison, page, work.n_new)


def _check_options(options: CompareOptions) -> None:
    """Options that are wrong fail here, before anything is embedded."""
    check_runtime(options.runtime)
    check_jobs(options.jobs)
    parse_folds(options.cv)
    make_model(options.clf, ClassifierOptions(seed=options.seed))
    n_combinations = 1
    for values in (options.backbone, options.img_size, options.layer):
        n_combinations *= max(1, len(dict.fromkeys(values)))
    if n_combinations < 2 and "all-blocks" not in options.layer:
        raise DataError(
            "There is nothing to compare: give two backbones, input sizes or layers. `fishfeat "
            "compare --backbone nano --backbone densenet121` compares two networks."
        )


def _say_none_compared(failed: dict[BackboneSpec, str]) -> str:
    labels = label_backbones(list(failed))
    reasons = [f"{label}: {reason}" for label, reason in zip(labels, failed.values(), strict=True)]
    return f"None of {len(reasons)} backbones could be compared. {' '.join(reasons)}"


# --- features -----------------------------------------------------------------------------------


def _list_networks(used: BackboneSpec | None, options: CompareOptions) -> list[_Network]:
    """Each backbone at each input size."""
    networks = []
    backbones, sizes = options.backbone or (None,), options.img_size or (None,)
    for backbone, size in itertools.product(dict.fromkeys(backbones), dict.fromkeys(sizes)):
        changes = BackboneOptions(
            backbone=backbone,
            img_size=size,
            resize=options.resize,
            pool=options.pool,
            tta=options.tta,
            precision=options.precision,
            white=options.white,
        )
        spec = select_spec(used, changes)
        networks.append(_Network(spec, tuple(dict.fromkeys(options.layer)) or (spec.layer,)))
    return networks


def _embed_all(
    opened: OpenDataset,
    networks: Sequence[_Network],
    options: CompareOptions,
    progress: Progress,
) -> tuple[Dataset, _Work]:
    """List the images and embed them by each network; one that fails does not stop the others."""
    before, folder = opened.dataset, opened.dataset.folder
    images, scan_options = list_images(opened, options, progress.on_scan)
    state = dataclasses.replace(before.state, data=str(opened.data), options=scan_options)
    # A killed comparison continues with the same images.
    before = folder.commit(before, state, images=images)
    work = _Work(images, before.state.truncated)
    for number, network in enumerate(networks, 1):
        log.info("Backbone %d of %d: %s.", number, len(networks), network.describe())
        _embed(before, work, network.spec, network.layers, options, progress.on_embed)
    if not work.files:
        raise BackboneError(_say_none_compared(work.failed))
    return before, work


def _embed(
    before: Dataset,
    work: _Work,
    spec: BackboneSpec,
    layers: tuple[str, ...],
    options: CompareOptions,
    on_progress: OnProgress | None,
) -> None:
    """Embed what the cache does not hold, and note what was done or why it failed."""
    folder = before.folder
    allow_truncated = bool(before.state.options.allow_truncated)
    try:
        plan = plan_extraction(work.images, spec, folder, layers=layers)
        embedding = embed_missing(
            plan,
            work.images,
            folder,
            engine=options,
            truncated=work.truncated,
            allow_truncated=allow_truncated,
            on_progress=on_progress,
        )
    except (BackboneError, CacheError, MissingExtraError) as error:
        if len(layers) == 1:
            work.failed[dataclasses.replace(spec, layer=layers[0])] = str(error)
            return
        for layer in layers:  # one of them may be the reason
            _embed(before, work, spec, (layer,), options, on_progress)
        return
    if message := describe_unavailable(work.images, embedding):
        raise DataError(message)
    work.images = reject_unusable(work.images, embedding, allow_truncated=allow_truncated)
    work.truncated = embedding.truncated
    work.n_new += embedding.n_new
    for layer_spec in plan.specs:
        work.files[layer_spec] = folder.features_file(layer_spec)


def _group_images(before: Dataset, work: _Work, progress: Progress) -> Grouped:
    """The groups that all backbones share.

    Where they need features, these are the features in use, else those of the first backbone.
    """
    features = _load_used_features(before, work.images)
    if features is None:
        features = select_features(work.images, next(iter(work.files.values())))
    state = dataclasses.replace(before.state, truncated=work.truncated)
    return apply_groups(
        dataclasses.replace(before, state=state),
        work.images,
        features,
        on_compare=progress.on_compare,
    )


def _load_used_features(before: Dataset, images: ImageSet) -> Features | None:
    """The features in use; None where there are none, or not of all images."""
    path = before.folder.folder / "features" / before.state.features
    if not path.is_file():
        return None
    try:
        features = select_features(images, path)
    except FishfeatError as error:
        log.warning("%s", error)
        return None
    return features if len(features) == len(images) else None


# --- scores -------------------------------------------------------------------------------------


def _fit_all(
    folder: DatasetFolder,
    images: ImageSet,
    work: _Work,
    options: CompareOptions,
    on_run: OnRun | None,
) -> list[Run]:
    """The run of each backbone, all on the same folds; what is saved is not fitted again."""
    labels = label_backbones([*work.files, *work.failed])
    saved = [*folder.load_runs(), *load_runs(folder.comparison / "runs")]
    splits = None
    runs = []
    for (spec, file), label in zip(work.files.items(), labels, strict=False):
        features = select_features(images, file)
        splits = splits or make_splits(features, options)
        run = _find_run(saved, features, splits, options)
        try:
            check_unseen(features, np.append(splits.rows, splits.holdout))
            if run is None:
                on_fold = None if on_run is None else on_run(label, splits.strategy)
                run = _fit(features, splits, options, on_fold)
                save_run(folder.comparison / "runs", run)
        except DataError as error:
            work.failed[spec] = str(error)
        else:
            runs.append(run)
    return runs


def _find_run(
    saved: Sequence[Run], features: Features, splits: Splits, options: CompareOptions
) -> Run | None:
    """The saved run of the classifier on these features and folds; None where there is none."""
    data = identify_data(features, splits.rows, splits.holdout)
    for run in saved:
        config, info = run.config, run.config.features
        if (
            run.name == options.clf
            and (run.split, run.splits_digest) == (splits.strategy, splits.digest)
            and (config.seed, config.balanced) == (options.seed, False)
            and info is not None
            and (info.backbone, info.fingerprint) == (features.spec, features.fingerprint)
            and config.splits is not None
            and data == config.splits.data != ""
            and (run.holdout is not None) == bool(len(splits.holdout))
        ):
            # The file may have grown since; it says how long embedding took.
            info = dataclasses.replace(info, provenance=features.provenance)
            return dataclasses.replace(run, config=dataclasses.replace(config, features=info))
    return None


def _fit(
    features: Features, splits: Splits, options: CompareOptions, on_fold: OnProgress | None
) -> Run:
    """Cross-validate the classifier; held-out images are scored by one fit on all others."""
    how = ClassifierOptions(seed=options.seed)
    if not len(splits.holdout):
        return cross_validate(
            features, options.clf, splits, how, jobs=options.jobs, on_progress=on_fold
        )
    validated = validate_and_fit(
        features, options.clf, [splits], how, jobs=options.jobs, on_run=lambda _: on_fold
    )
    holdout = score_holdout(validated.pipeline, features, splits)
    return dataclasses.replace(validated.runs[0], holdout=holdout)
