"""Fitted models: fit on everything, keep, load, name new images, refuse a wrong backbone."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np
from sklearn.pipeline import Pipeline, make_pipeline

from fishfeat.classify.estimators.ensemble import SoftVotingEnsemble
from fishfeat.classify.parallel import one_blas_thread
from fishfeat.classify.statistics.metrics import margin
from fishfeat.classify.validation.cross_validation import describe_features, fit_rows, score_rows
from fishfeat.classify.validation.ensemble import NAME
from fishfeat.classify.validation.search import Budget, make_model, run_name
from fishfeat.errors import ModelError
from fishfeat.files import atomic, read_json, safe_name, versions, write_json
from fishfeat.records import BackboneSpec, Features, Float, Int, Str

if TYPE_CHECKING:
    from fishfeat.features.backbones import Backbone

_FILE = "pipeline.joblib"
_VERSIONS = ("fishfeat", "scikit-learn", "xgboost", "numpy", "joblib", "torch", "timm")


class Prediction(NamedTuple):
    """What a model says of one image; `reason` is not '' where it could not be read.

    `scores` float64 (n_classes,) are probabilities or decision values, as the model gives them;
    `margin` is the distance of the two best, 0 to 1: it ranks one model's answers, and is neither
    a probability nor to be compared between models. Both are None where nothing could be read.
    """

    path: str
    label: str
    margin: float | None
    scores: Float | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted pipeline with everything needed to use it on new images.

    Attributes
    ----------
    clf
        Name of the classifier.
    pipeline
        Fitted scikit-learn pipeline over features; its labels are codes into `class_names`.
    class_names
        str (n_classes,).
    spec, fingerprint
        The backbone that the features must come from.
    score_kind
        'proba' or 'decision'.
    config
        How it was fitted and on what.
    """

    clf: str
    pipeline: Any
    class_names: Str
    spec: BackboneSpec
    fingerprint: str
    score_kind: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder it is kept in."""
        return model_name(self.clf, self.spec, balanced=self.config["balanced"])

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `pipeline.joblib`, then `model.json`, so that no half model counts."""
        folder = Path(folder)
        buffer = io.BytesIO()
        joblib.dump(self.pipeline, buffer, compress=3)
        with atomic(folder / _FILE, binary=True) as file:
            file.write(buffer.getvalue())
        about = {
            "clf": self.clf,
            "class_names": self.class_names,
            "spec": self.spec.to_json(),
            "fingerprint": self.fingerprint,
            "score_kind": self.score_kind,
            "config": self.config,
            "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "versions": versions(*_VERSIONS),
        }
        write_json(folder / "model.json", about)
        return folder

    def predict(
        self, paths: Sequence[str | os.PathLike[str]], *, backbone: Backbone | None = None
    ) -> list[Prediction]:
        """Name new images, in the order given.

        Parameters
        ----------
        paths
            Image files.
        backbone
            Loaded already; otherwise it is loaded by the model's own specification.

        Raises
        ------
        ModelError
            The backbone's weights or preprocessing are not those that the model was fitted with.
        """
        from fishfeat.features.autotune import autotune
        from fishfeat.features.backbones import load_backbone
        from fishfeat.features.engines.local import Item, embed

        backbone = backbone or load_backbone(self.spec)
        self.check_backbone(backbone.fingerprint)
        names = [str(os.fspath(path)) for path in paths]
        found: dict[str, Prediction] = {}
        items = [Item(name, "") for name in dict.fromkeys(names)]
        for batch in embed(items, backbone, runner=autotune(items, backbone).runner):
            found |= self._predictions([item.path for item in batch.items], batch.X)
            found |= {item.path: self._unreadable(item.path, why) for item, why in batch.failed}
        return [found[name] for name in names]

    def check_backbone(self, fingerprint: str) -> None:
        """Raise a `ModelError` where `fingerprint` is not that of the model's own backbone."""
        if fingerprint != self.fingerprint:
            raise ModelError(
                f"This model was fitted on features of {self.spec.describe()} with the "
                f"fingerprint {self.fingerprint[:12]}; the backbone at hand has "
                f"{fingerprint[:12]}. Its answers would mean nothing. Bring back the weights, or "
                "extract and fit again."
            )

    def _predictions(self, paths: list[str], X: Any) -> dict[str, Prediction]:
        if not paths:
            return {}
        features = Features(
            X=X,
            keys=np.array(paths, str),
            y=np.full(len(paths), -1, np.int64),
            class_names=self.class_names,
            spec=self.spec,
            fingerprint=self.fingerprint,
        )
        scores, _ = score_rows(self.pipeline, features, np.arange(len(paths)))
        sure, best = margin(scores), scores.argmax(axis=1)
        return {
            path: Prediction(path, str(self.class_names[b]), float(c), s)
            for path, b, c, s in zip(paths, best, sure, scores, strict=True)
        }

    def _unreadable(self, path: str, reason: str) -> Prediction:
        return Prediction(path, "", None, None, reason)


def fit_model(
    features: Features,
    clf: str,
    *,
    rows: Int | None = None,
    balanced: bool = False,
    seed: int = 0,
    search: Budget | None = None,
) -> Model:
    """Fit a classifier on every labelled image, or on `rows` int64 (n_rows,) of the features."""
    rows = np.flatnonzero(features.y >= 0) if rows is None else rows
    unfitted = make_model(clf, search=search, balanced=balanced, seed=seed)
    with one_blas_thread():
        pipeline = fit_rows(unfitted, features, rows)
    return model_of(pipeline, features, clf, rows, balanced=balanced, seed=seed, search=search)


def model_of(
    pipeline: Pipeline,
    features: Features,
    clf: str,
    rows: Int,
    *,
    balanced: bool = False,
    seed: int = 0,
    search: Budget | None = None,
) -> Model:
    """The model of a pipeline that was fitted on `rows` int64 (n_rows,) of the features."""
    chosen = {"search": str(search), "params": pipeline[-1].params_} if search else {}
    _, kind = score_rows(pipeline, features, rows[:1])
    return Model(
        clf=run_name(clf, search),
        pipeline=pipeline,
        class_names=features.class_names,
        spec=features.spec,
        fingerprint=features.fingerprint,
        score_kind=kind,
        config={
            "balanced": balanced,
            "seed": seed,
            "n_images": len(rows),
            "features": describe_features(features),
            **chosen,
        },
    )


def ensemble_model(models: Sequence[Model]) -> Model:
    """One model of several that were fitted on the same features: the mean of what they say."""
    first, voters = models[0], [model.clf for model in models]
    if len({(model.fingerprint, tuple(model.class_names.tolist())) for model in models}) > 1:
        raise ModelError("Only models of the same features and classes can vote together.")
    pipeline = make_pipeline(SoftVotingEnsemble.from_fitted([model.pipeline for model in models]))
    config = {**first.config, "voters": voters}
    return replace(first, clf=NAME, pipeline=pipeline, score_kind="proba", config=config)


def model_name(clf: str, spec: BackboneSpec, *, balanced: bool) -> str:
    """What the model of a classifier on some features is called: 'svc[-balanced]-on-NAME-KEY'."""
    return f"{clf}{'-balanced' if balanced else ''}-on-{safe_name(spec.label)}-{spec.key[:8]}"


def load_model(folder: str | os.PathLike[str]) -> Model:
    """Load what `Model.save` wrote.

    A joblib file runs code when it is loaded: load only models whose origin you know.

    Raises
    ------
    ModelError
        The folder holds no model, or its two files do not belong together.
    """
    folder = Path(folder)
    if not (folder / "model.json").is_file():
        raise ModelError(f"{folder} holds no model. `fishfeat fit` keeps one for each classifier.")
    about = read_json(folder / "model.json")
    content = (folder / _FILE).read_bytes() if (folder / _FILE).is_file() else b""
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise ModelError(f"{folder / _FILE} is not the file that model.json speaks of. Fit again.")
    return Model(
        clf=about["clf"],
        pipeline=joblib.load(io.BytesIO(content)),
        class_names=np.array(about["class_names"], str),
        spec=BackboneSpec.from_json(about["spec"]),
        fingerprint=about["fingerprint"],
        score_kind=about["score_kind"],
        config=about["config"],
    )
