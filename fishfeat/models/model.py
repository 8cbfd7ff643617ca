"""A fitted model: save it, and classify new images with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.predictors.archive import to_arrays
from fishfeat.classify.predictors.exits import ExitScoring
from fishfeat.classify.predictors.probabilities import class_scores
from fishfeat.classify.statistics.metrics import margin
from fishfeat.errors import DataError, ModelError
from fishfeat.files import check_is_own, list_paths, safe_name, versions, write_text
from fishfeat.models.saved import DESCRIPTION, ModelConfig, ModelScores, SavedModel, write_saved
from fishfeat.options import EngineOptions
from fishfeat.records import BackboneSpec, Float, PathLike, Str
from fishfeat.records.inputs import Input
from fishfeat.records.provenance import RuntimeConfig

if TYPE_CHECKING:
    from fishfeat.features.backbones import Backbone
    from fishfeat.features.engines.loading import Item, Reader
    from fishfeat.features.engines.local import Batch
    from fishfeat.features.exit_networks import ReadyExits
    from fishfeat.features.kept_networks import KeptNetwork
    from fishfeat.features.ready_networks import ReadyNetwork
    from fishfeat.features.streams import KnownVectors, StreamedVector
    from fishfeat.images.crops import BoxOptions

# Images of a stream that are known before the network is made ready, and how many are expected
# where nobody knows.
_N_FIRST, _MANY_IMAGES = 16, 1_000
# Rows that a classifier scores at a time.
_N_SCORED = 16
_VERSIONS = ("fishfeat", "scikit-learn", "xgboost", "numpy", "torch", "timm")


class Prediction(NamedTuple):
    """Prediction of a model for one image.

    Attributes
    ----------
    path
        The image.
    label
        The predicted label; '' where the image cannot be read.
    margin
        Difference between the two largest probabilities, 0 to 1. It ranks the predictions of one
        model and is not a probability. None where the image cannot be read.
    scores
        float64 (n_classes,): probabilities. None where the image cannot be read.
    reason
        Why the image cannot be read, or ''.
    layer
        The layer at which the image left the network; '' where no image may leave early.
    runtime
        How the network ran; None where it did not, as for an image whose features were cached.
    group, id
        The group and, of a box in the image, the name that its source has; '' without one.
    box
        Left, top, right and bottom of the box in pixels as its source has it; None for the whole
        image.
    where
        Where the box stands in its source; '' elsewhere.
    """

    path: str
    label: str
    margin: float | None
    scores: Float | None
    reason: str = ""
    layer: str = ""
    runtime: RuntimeConfig | None = None
    group: str = ""
    id: str = ""
    box: tuple[float, float, float, float] | None = None
    where: str = ""

    @property
    def probability(self) -> float | None:
        """The calibrated probability of the label; None where the image cannot be read."""
        return None if self.scores is None else float(self.scores.max())


class VectorSource(NamedTuple):
    """Where the vectors of a stream of images come from.

    Attributes
    ----------
    known
        Vectors that need not be computed.
    boxes
        How a box becomes a part of an image; None is the default.
    find_backbone
        Finds the backbone when the first image has to be embedded. None is as in `Model.predict`.
    begun
        The runtime of earlier predictions that these continue.
    n_images
        Number of images, where it is known.
    reader
        How the files of the images are read; None is from disk.
    """

    known: KnownVectors | None = None
    boxes: BoxOptions | None = None
    find_backbone: Callable[[], Backbone | KeptNetwork] | None = None
    begun: RuntimeConfig | None = None
    n_images: int | None = None
    reader: Reader | None = None


class _Job(NamedTuple):
    """Some of the images to embed, their number, and how."""

    items: list[Item]
    n_images: int
    source: VectorSource
    early_exit: bool


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted pipeline with everything that is needed to classify new images.

    Attributes
    ----------
    clf
        Name of the classifier.
    pipeline
        The fitted scikit-learn pipeline over features, or what was loaded of one; its labels are
        codes into `class_names`.
    class_names
        str (n_classes,).
    spec, fingerprint
        The backbone that the features must come from.
    config
        How it was fitted and on what.
    scores
        How well it did in cross-validation; None where it was not measured.
    versions
        Versions of the packages that it was saved with; empty before.
    sha256
        The digest in its `model.json`; '' before it is saved.
    """

    clf: str
    pipeline: Any
    class_names: Str
    spec: BackboneSpec
    fingerprint: str
    config: ModelConfig
    scores: ModelScores | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""

    @property
    def name(self) -> str:
        """Name of the folder it is saved in."""
        return name_model(self.clf, self.spec, balanced=self.config.balanced)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `arrays.safetensors`, `model.json`, and README.md, a card for people.

        Raises
        ------
        ModelError
            The pipeline has a step that is not of fishfeat.
        DataError
            The folder has a README.md of somebody else.
        """
        from fishfeat.classify.convert import convert_estimator  # loads scikit-learn
        from fishfeat.models.card import write_card

        folder = Path(folder)
        check_is_own(folder, DESCRIPTION, ("README.md",))
        description, arrays = to_arrays(convert_estimator(self.pipeline))
        saved = SavedModel(
            clf=self.clf,
            class_names=self.class_names.tolist(),
            spec=self.spec.to_json(),
            fingerprint=self.fingerprint,
            config=self.config,
            classifier=description,
            scores=self.scores,
            ece=None if self.scores is None else self.scores.metrics.get("ece"),
            versions=dict(self.versions) or versions(*_VERSIONS),
        )
        write_saved(folder, saved, arrays)
        write_text(folder / "README.md", write_card(saved))
        return folder

    def predict(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        backbone: Backbone | KeptNetwork | None = None,
        early_exit: bool = False,
    ) -> list[Prediction]:
        """Classify new images, in the order given.

        Parameters
        ----------
        paths
            Image files, or one of them.
        backbone
            A loaded backbone, or a network kept on this machine. None is a kept one of the model's
            specification and weights, else it is loaded.
        early_exit
            Let each image leave at the first confident layer; False computes all to the end.

        Raises
        ------
        ModelError
            Images cannot leave this model early, the weights or the preprocessing of the backbone
            are not the model's.
        DataError
            `paths` are no paths.
        """
        names = list_paths(paths)
        return list(self.predict_each(names, backbone=backbone, early_exit=early_exit))

    def predict_arrays(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        backbone: Backbone | KeptNetwork | None = None,
        early_exit: bool = False,
    ) -> list[Prediction]:
        """Classify images that are in memory, such as frames of a camera, in the order given.

        The path of each prediction is the number of its image: 'image 0', 'image 1', ...

        Parameters
        ----------
        images
            uint8 (height, width, 3) each: red, green and blue.
        backbone, early_exit
            As in `predict`. Where images come again and again, give a loaded backbone.

        Raises
        ------
        ModelError
            As `predict`.
        DataError
            An image is no such array.
        """
        from fishfeat.features.engines.arrays import name_arrays, read_arrays

        named = name_arrays(images)
        source = VectorSource(reader=read_arrays(named))
        predictions = self.predict_each(
            list(named), backbone=backbone, early_exit=early_exit, source=source
        )
        return list(predictions)

    def predict_each(
        self,
        paths: PathLike | Iterable[PathLike | Input],
        *,
        backbone: Backbone | KeptNetwork | None = None,
        early_exit: bool = False,
        source: VectorSource | None = None,
    ) -> Iterator[Prediction]:
        """Classify images as they come, in the order given. Memory does not grow with their number.

        Parameters
        ----------
        paths
            Image files, or one of them, or inputs of `list_inputs`. A generator is read a few
            batches ahead.
        backbone, early_exit
            As in `predict`.
        source
            Vectors that need not be computed, and how the others are.

        Raises
        ------
        ModelError, DataError
            As `predict`.
        """
        from fishfeat.features.engines.loading import Item

        source = source or VectorSource()
        if early_exit:
            self.check_exits()
        if backbone is not None:
            if not hasattr(backbone, "fingerprint"):
                raise DataError(
                    f"backbone must be loaded, as fishfeat.load_backbone does; got {backbone!r}."
                )
            self.check_backbone(backbone.fingerprint)
            source = source._replace(find_backbone=lambda: backbone)
        if isinstance(paths, str | bytes) or not isinstance(paths, Iterable):
            paths = list_paths(paths)
        if isinstance(paths, Sequence):
            first = list(map(_make_input, paths))
            inputs, n_images = iter(first), len(first)
        else:
            rest = map(_make_input, paths)
            first = list(islice(rest, _N_FIRST))
            inputs, n_images = chain(first, rest), len(first)
            if n_images == _N_FIRST:
                n_images = source.n_images or _MANY_IMAGES
        items = [Item(image.path, "") for image in first]
        job = _Job(items, source.n_images or n_images, source, early_exit)
        return self._predict_stream(inputs, job)

    def _predict_stream(self, inputs: Iterator[Input], job: _Job) -> Iterator[Prediction]:
        from fishfeat.features.engines.loading import FROM_DISK
        from fishfeat.features.engines.local import embed
        from fishfeat.features.streams import stream_vectors
        from fishfeat.images.crops import BoxOptions

        ready: list[ReadyNetwork | ReadyExits] = []
        reader = job.source.reader or FROM_DISK

        def embed_items(items: Iterable[Item]) -> Iterator[Batch]:
            if not ready:
                ready.append(self._make_ready(job))
            return embed(items, ready[0].network, ready[0].runner, reader=reader)

        known, boxes = job.source.known, job.source.boxes or BoxOptions()
        stream = stream_vectors(
            inputs, embed_items, known=known, boxes=boxes, n_images=job.n_images
        )
        for images in stream:
            runtime = ready[0].runner.config if ready else None
            yield from self._predict_images(images, runtime)

    def _make_ready(self, job: _Job) -> ReadyNetwork | ReadyExits:
        """Load the network that embeds the images, and choose how it runs."""
        from fishfeat.features.engines.loading import FROM_DISK
        from fishfeat.features.exit_networks import make_exits_ready
        from fishfeat.features.kept_exits import ExitUse
        from fishfeat.features.ready_networks import make_ready

        backbone: Backbone | KeptNetwork | None
        if job.source.find_backbone is not None:
            backbone = job.source.find_backbone()
        else:
            backbone = self.find_kept_network(early_exit=job.early_exit)
            backbone = backbone or self._load_backbone()
        self.check_backbone(backbone.fingerprint)
        load = self._load_backbone
        if job.early_exit:
            use = ExitUse(self._layer_names, self.exits.rule_.exits, self.exits.find_leaving)
            return make_exits_ready(backbone, use, job.n_images, load=load)
        begun, n_images = job.source.begun, job.n_images
        return make_ready(
            backbone,
            job.items,
            EngineOptions(),
            load=load,
            begun=begun,
            n_images=n_images,
            reader=job.source.reader or FROM_DISK,
        )

    def check_exits(self) -> None:
        """Raise a `ModelError` where images cannot leave this model early."""
        if not self.config.layers:
            reason = "it classifies by the last layer alone. Run `fishfeat fit --early-exit`"
            raise ModelError(
                f"Images cannot leave {self.name} early: {reason}, or leave out --early-exit."
            )

    def find_kept_network(self, *, early_exit: bool = False) -> KeptNetwork | None:
        """Find a network with the model's weights that is kept on this machine, ready to run."""
        from fishfeat.features.exit_networks import find_startable_exits
        from fishfeat.features.ready_networks import find_startable

        kept: KeptNetwork | None = find_startable(self.spec, EngineOptions())
        if early_exit:
            kept = find_startable_exits(self.spec, self._layer_names)
        return kept if kept is not None and kept.fingerprint == self.fingerprint else None

    @property
    def exits(self) -> ExitScoring:
        """The linear probes of a model that images may leave early."""
        classifier = self.pipeline
        if not isinstance(classifier, ExitScoring):  # fitted just now
            classifier = classifier[-1]
        assert isinstance(classifier, ExitScoring)
        return classifier

    @property
    def _layer_names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.config.layers)

    def _load_backbone(self) -> Backbone:
        from fishfeat.features.backbones import load_backbone

        return load_backbone(self.spec)

    def check_backbone(self, fingerprint: str) -> None:
        """Raise a `ModelError` where the fingerprint is not that of the model's backbone."""
        if fingerprint != self.fingerprint:
            raise ModelError(
                f"This model was fitted on features of {self.spec.describe()} with the "
                f"fingerprint {self.fingerprint[:12]}; this backbone has {fingerprint[:12]}. The "
                "predictions would have no meaning. Restore the weights, name their folder with "
                "--backbone local-dir:FOLDER, or run `fishfeat extract` and `fishfeat fit` again."
            )

    def _predict_images(
        self, images: Sequence[StreamedVector], runtime: RuntimeConfig | None
    ) -> list[Prediction]:
        vectors = [image.vector for image in images if image.vector is not None]
        scored = iter(self.predict_vectors(np.array(vectors, np.float32)) if vectors else ())
        predictions = []
        for image, vector, reason, is_embedded in images:
            if vector is None:
                prediction = Prediction("", "", None, None, reason)
            else:
                prediction = next(scored)._replace(runtime=runtime if is_embedded else None)
            predictions.append(
                prediction._replace(
                    path=image.path,
                    id=image.id,
                    group=image.group,
                    box=image.box,
                    where=image.where,
                )
            )
        return predictions

    def predict_vectors(self, X: NDArray[np.float32]) -> list[Prediction]:
        """Predictions of vectors, which have no path.

        Parameters
        ----------
        X
            float (n, dim), finite: features of the model's backbone. Of a model that images may
            leave early, NaN stands for the layers that an image did not reach.

        Raises
        ------
        DataError
            X has another number of columns, or values that are not finite.
        """
        if self.config.layers:
            scores, numbers = self.exits.score_reached(X, len(self.class_names))
            layers = [self.config.layers[number].name for number in numbers]
        else:
            vectors = self._check_vectors(X)
            scores, layers = self._score_rows(vectors), [""] * len(vectors)
        if not np.isfinite(scores).all():
            raise ModelError(f"The model {self.name} gives no numbers. Run `fishfeat fit` again.")
        margins, best = margin(scores), scores.argmax(axis=1)
        predictions = []
        for i, layer in enumerate(layers):
            label = str(self.class_names[best[i]])
            predictions.append(Prediction("", label, float(margins[i]), scores[i], "", layer))
        return predictions

    def _check_vectors(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = np.asarray(X, np.float32)
        dim = self.config.features.dim
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise DataError(
                f"X must have the shape (n, {dim}), as the features that {self.name} was fitted "
                f"on; got {vectors.shape}."
            )
        if not np.isfinite(vectors).all():
            raise DataError("X must be finite; it holds NaN or infinite values.")
        return vectors

    def _score_rows(self, X: NDArray[np.float32]) -> Float:
        scores = np.zeros((len(X), len(self.class_names)))
        # A product of float32 depends on the number of rows: an image would have other
        # probabilities in other company, and a file that goes on other digits.
        rows = np.zeros((_N_SCORED, X.shape[1]), X.dtype)
        for start in range(0, len(X), _N_SCORED):
            part = X[start : start + _N_SCORED]
            rows[: len(part)] = part
            found = class_scores(self.pipeline, rows)[: len(part)]
            scores[start : start + len(part), self.pipeline.classes_] = found
        return scores


def _make_input(image: PathLike | Input) -> Input:
    return image if isinstance(image, Input) else Input(list_paths([image])[0])


def name_model(clf: str, spec: BackboneSpec, *, balanced: bool) -> str:
    """Name the model of a classifier on some features: 'svc[-balanced]-on-NAME-KEY'."""
    weights = "-balanced" if balanced else ""
    return safe_name(f"{clf}{weights}-on-{safe_name(spec.label)}-{spec.key[:8]}")
