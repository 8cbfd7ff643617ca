"""`fishfeat predict`: classify new images with a saved model."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fishfeat.checks import Finding
from fishfeat.errors import (
    CacheError,
    DataError,
    count_things,
    did_you_mean,
    shortened,
)
from fishfeat.features.cache import FeatureCache
from fishfeat.features.known_vectors import is_same_network
from fishfeat.features.streams import KnownVectors
from fishfeat.files import list_paths
from fishfeat.images.crops import BoxOptions, choose_box_options
from fishfeat.images.sources.inputs import TO_CLASSIFY, list_inputs
from fishfeat.models.model import Model, Prediction, VectorSource
from fishfeat.options import PredictOptions
from fishfeat.records import LayerCost, OnProgress, PathLike
from fishfeat.records.inputs import Input
from fishfeat.records.provenance import RuntimeConfig
from fishfeat.stages.saved_models import choose_model, find_backbone, find_difference_of_model
from fishfeat.workspace import Dataset

log = logging.getLogger("fishfeat")


@dataclass(frozen=True, eq=False)
class UsedModel:
    """The model that predicts.

    Attributes
    ----------
    dataset
        Name of the data set whose model it is; None where its folder was named.
    model
        Name of the model.
    sha256
        The digest in its `model.json`.
    class_names
        Columns of each prediction's scores.
    layers
        The layers where images may leave early, in order of depth; empty where none may.
    """

    dataset: str | None
    model: str
    sha256: str
    class_names: list[str]
    layers: tuple[LayerCost, ...]


@dataclass(frozen=True, eq=False)
class Predictions(UsedModel):
    """Predictions of one model, in the order of the images."""

    predictions: list[Prediction]


@dataclass(frozen=True, eq=False)
class PredictionJob:
    """A model and the images that it is to classify.

    Attributes
    ----------
    used
        The model.
    options
        How it predicts.
    inputs
        The images: a list, or a stream whose length nobody knows.
    """

    used: UsedModel
    options: PredictOptions
    inputs: list[Input] | Iterator[Input]
    _model: Model
    _source: VectorSource

    @property
    def n_images(self) -> int | None:
        """Number of images; None where it is not known."""
        return len(self.inputs) if isinstance(self.inputs, list) else None

    @property
    def noun(self) -> str:
        """What messages call one of the images: 'image', or 'box'."""
        return "box" if self.has_boxes else "image"

    @property
    def has_boxes(self) -> bool:
        """Whether there are boxes in images to classify."""
        inputs = self.inputs if isinstance(self.inputs, list) else []
        return any(image.id or image.box for image in inputs)

    def predict(
        self,
        inputs: list[Input] | Iterator[Input],
        *,
        begun: RuntimeConfig | None = None,
        n_earlier: int = 0,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Prediction]:
        """Classify images as they come, in their order; memory does not grow with their number.

        Parameters
        ----------
        inputs
            `self.inputs`, or the part of them that is left.
        begun
            The runtime of earlier predictions that these continue.
        n_earlier
            Number of images before `inputs`.
        on_progress
            Called with (done, total) images where their number is known.
        """
        source = self._source._replace(begun=begun, n_images=self.n_images)
        early_exit = self.options.early_exit
        predictions = self._model.predict_each(inputs, early_exit=early_exit, source=source)
        if self.used.layers:
            predictions = _log_exits(predictions, self.used.layers)
        n_cached = 0
        n_done = n_earlier
        for n_done, prediction in enumerate(predictions, n_earlier + 1):
            n_cached += prediction.scores is not None and prediction.runtime is None
            if on_progress is not None and self.n_images is not None:
                on_progress(n_done, self.n_images)
            if self.is_kept(prediction):
                yield prediction
        if n_cached:
            n_images = count_things(n_done - n_earlier, self.noun)
            log.info("%s of %s: the cache had the features.", f"{n_cached:,}", n_images)

    def is_kept(self, prediction: Prediction) -> bool:
        """Whether it has a label of `only`, or the reason why it has none."""
        only = self.options.only
        return not only or prediction.label in only or bool(prediction.reason)


def predict_images(
    paths: PathLike | Sequence[PathLike],
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    model: str | None = None,
    backbone: str | None = None,
    early_exit: bool = False,
) -> Predictions:
    """Classify each image; a folder or a CSV stands for the images in it.

    Parameters
    ----------
    paths, cache, dataset
        As in `prepare_predictions`.
    model, backbone, early_exit
        As in `PredictOptions`.

    Raises
    ------
    DataError
        There are no images, or none of them can be read.
    ModelError
        There is no such model, or the backbone has other weights.
    BackboneError
        The backbone of the model cannot be loaded.
    """
    options = PredictOptions(model=model, backbone=backbone, early_exit=early_exit)
    job = prepare_predictions(list_paths(paths), options, cache=cache, dataset=dataset)
    predictions = list(job.predict(job.inputs))
    if all(prediction.reason for prediction in predictions):
        reasons = [f"{prediction.path}: {prediction.reason}" for prediction in predictions]
        raise DataError(f"None of {len(reasons)} images can be read: {shortened(reasons)}.")
    return Predictions(**vars(job.used), predictions=predictions)


def prepare_predictions(
    paths: Sequence[PathLike] | Iterator[PathLike],
    options: PredictOptions,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
) -> PredictionJob:
    """Find the images and the model.

    Parameters
    ----------
    paths
        Image files, folders, CSV files with a column path, annotation files, and patterns such as
        'new/*.jpg'. An iterator gives image files, and is read while they are classified.
    options
        How the model predicts. A model of `fishfeat fit --early-exit` is used only with
        `early_exit`, or where it is named: then it computes every image to the end.
    cache
        The cache folder.
    dataset
        Name of the data set whose models are used; None is the one in use. A model that is named
        by its folder needs none.

    Raises
    ------
    DataError, ModelError, BackboneError
        As in `predict_images`.
    """
    inputs: list[Input] | Iterator[Input]
    table = TO_CLASSIFY._replace(root=options.root, columns=options.columns or "")
    if isinstance(paths, Sequence):
        names = list_paths(paths)
        inputs = [image for name in names for image in list_inputs(name, table)]
        if not inputs:
            raise DataError(f"No images in {', '.join(names)}.")
    else:
        inputs = (Input(list_paths(path)[0]) for path in paths)
    current, model, name = choose_model(
        options.model, cache=cache, dataset=dataset, early_exit=options.early_exit
    )
    class_names = model.class_names.tolist()
    _check_model(model, current, name, options)
    layers = model.config.layers if options.early_exit else ()
    dataset_name = None if current is None else current.name
    used = UsedModel(dataset_name, name, model.sha256, class_names, layers)
    find = functools.partial(
        find_backbone, model, current, options.backbone, early_exit=options.early_exit
    )
    if options.backbone is not None:  # it is checked also where the cache holds all images
        backbone = find()
        model.check_backbone(backbone.fingerprint)
        find = functools.partial(lambda: backbone)
    if current is None:
        return PredictionJob(used, options, inputs, model, VectorSource(None, BoxOptions(), find))
    scanned = current.state.options
    boxes = choose_box_options(scanned.box_margin, scanned.box_shape)
    source = VectorSource(find_known_vectors(model, current), boxes, find)
    return PredictionJob(used, options, inputs, model, source)


def _check_model(model: Model, dataset: Dataset | None, name: str, options: PredictOptions) -> None:
    """Check that the options fit the model, and say where its data set has changed."""
    class_names = model.class_names.tolist()
    for label in options.only:
        if label not in class_names:
            raise DataError(
                f"only {label!r}: the model {name} has no such class."
                f"{did_you_mean(label, class_names)} It has {shortened(class_names, n=12)}."
            )
    difference = "" if dataset is None else find_difference_of_model(dataset, model)
    if difference:
        log.warning(
            "%s",
            Finding(
                "stale-model",
                f"{name} was fitted on {difference}. Its classes are "
                f"{shortened(class_names, n=12)}.",
                "Run `fishfeat fit` again.",
            ),
        )
    if options.early_exit:
        model.check_exits()
    elif model.config.layers:
        log.info("Every image is computed to the last layer. --early-exit saves a part of it.")


def find_known_vectors(model: Model, dataset: Dataset) -> KnownVectors | None:
    """The vectors of the model's backbone that the cache holds; None where it holds none.

    A model that images may leave early takes the vectors of several layers, which are not looked
    up.
    """
    if model.config.layers:
        return None
    own = dataset.folder.features_file(model.spec)
    for path in [own] if own.exists() else dataset.folder.features_files():
        try:
            features = FeatureCache(path)
        except CacheError as error:
            log.info("Images are embedded, although the cache may hold them: %s", error)
            continue
        if features.n_done and is_same_network(features, model.spec, model.fingerprint):
            return KnownVectors(features, dataset.state.truncated)
    return None


def _log_exits(
    predictions: Iterator[Prediction], layers: Sequence[LayerCost]
) -> Iterator[Prediction]:
    """Log at the end how many images left early, and the operations that this saved."""
    reached: Counter[str] = Counter()
    for prediction in predictions:
        reached[prediction.layer] += bool(prediction.layer)
        yield prediction
    n_images = reached.total()
    if n_images:
        n_left = n_images - reached[layers[-1].name]
        cost = sum(layer.flops * reached[layer.name] for layer in layers)
        log.info(
            "%s of %s images left the network before its last layer, which saved %.0f%% of the "
            "operations.",
            f"{n_left:,}",
            f"{n_images:,}",
            100 * (1 - cost / (n_images * layers[-1].flops)),
        )
