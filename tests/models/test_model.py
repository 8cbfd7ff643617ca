"""A saved model predicts the same, and files that do not belong together are refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fishfeat.classify.statistics.metrics import margin
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError, ModelError
from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.models.fit import combine_models, fit_model
from fishfeat.models.load import load_model
from fishfeat.models.model import Model, name_model
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import Features

CLASSES = ("bass", "bream", "cod")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(make_spec("random:test_resnet", img_size=64))


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each class, and each class has its own hue."""
    root = tmp_path_factory.mktemp("pond")
    rng = np.random.default_rng(0)
    for c, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(6):
            rgb = rng.integers(0, 60, (40, 56, 3), dtype=np.uint8)
            rgb[..., c] += 150
            Image.fromarray(rgb).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def features(pond: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Features:
    return extract(scan(pond), backbone, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def model(features: Features) -> Model:
    return fit_model(features, "svc")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 no image")
    return path


def test_predicted_labels_are_the_classes_of_the_images(
    model: Model, backbone: Backbone, pond: Path
) -> None:
    paths = [pond / name / f"{i}.png" for i in (4, 1) for name in CLASSES]
    predictions = model.predict(paths, backbone=backbone)
    assert [p.label for p in predictions] == [*CLASSES, *CLASSES]
    assert [p.path for p in predictions] == [str(path) for path in paths]
    for prediction in predictions:
        assert prediction.margin is not None
        assert 0 < prediction.margin <= 1
        assert prediction.reason == ""


def test_scores_and_margins_are_those_of_the_pipeline(
    model: Model, backbone: Backbone, features: Features, pond: Path
) -> None:
    paths = [pond / key for key in features.keys.tolist()]
    predictions = model.predict(paths, backbone=backbone)
    scores = np.stack([p.scores for p in predictions])
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores, model.pipeline.predict_proba(features.X), atol=1e-4)
    np.testing.assert_allclose([p.margin for p in predictions], margin(scores))


@pytest.mark.parametrize("clf", ["svc", "xgb", "lda", "centroid"])
def test_a_saved_model_predicts_the_same(
    clf: str, features: Features, backbone: Backbone, pond: Path, tmp_path: Path
) -> None:
    model = fit_model(features, clf, ClassifierOptions(balanced=True, seed=3))
    loaded = load_model(model.save(tmp_path / "model"))
    paths = [pond / name / "0.png" for name in CLASSES]
    before = model.predict(paths, backbone=backbone)
    after = loaded.predict(paths, backbone=backbone)
    assert [(p.label, p.margin) for p in before] == [(p.label, p.margin) for p in after]
    np.testing.assert_array_equal([p.scores for p in before], [p.scores for p in after])


def test_a_loaded_model_equals_the_saved_one(model: Model, tmp_path: Path) -> None:
    loaded = load_model(model.save(tmp_path))
    np.testing.assert_array_equal(loaded.class_names, model.class_names)
    for name in ("clf", "spec", "fingerprint", "config", "name", "scores"):
        assert getattr(loaded, name) == getattr(model, name)


def test_a_model_records_how_it_was_fitted(features: Features) -> None:
    options = ClassifierOptions(balanced=True, seed=3)
    config = fit_model(features, "centroid", options).config
    assert (config.balanced, config.seed, config.search) == (True, 3, "")
    assert (config.n_images, config.members, config.params) == (18, (), {})
    assert (config.features.backbone, config.features.dim) == (features.spec, features.dim)


def test_a_saved_ensemble_predicts_the_same(features: Features, tmp_path: Path) -> None:
    model = combine_models([fit_model(features, clf) for clf in ("lda", "centroid")])
    loaded = load_model(model.save(tmp_path))
    assert (loaded.clf, loaded.config.members) == ("ensemble", ("lda", "centroid"))
    assert loaded.config == model.config
    np.testing.assert_array_equal(
        loaded.pipeline.predict_proba(features.X), model.pipeline.predict_proba(features.X)
    )


def test_the_backbone_is_loaded_by_the_specification_of_the_model(
    model: Model, backbone: Backbone, pond: Path
) -> None:
    path = pond / "cod" / "0.png"
    (loaded,) = model.predict([path])
    (given,) = model.predict([path], backbone=backbone)
    assert loaded.label == given.label
    np.testing.assert_allclose(loaded.scores, given.scores, atol=1e-5)


def test_a_class_that_was_not_in_training_is_never_predicted(
    features: Features, backbone: Backbone, pond: Path
) -> None:
    model = fit_model(features, "svc", rows=np.flatnonzero(features.y != 1))
    (prediction,) = model.predict([pond / "bream" / "0.png"], backbone=backbone)
    assert prediction.label in ("bass", "cod")
    assert prediction.scores.shape == (3,)
    assert prediction.scores[1] == 0


def test_images_without_a_label_are_not_in_training(features: Features) -> None:
    y = features.y.copy()
    y[:2] = -1
    model = fit_model(dataclasses.replace(features, y=y), "logreg")
    assert model.config.n_images == 16
    assert model.pipeline.classes_.tolist() == [0, 1, 2]
    given = fit_model(dataclasses.replace(features, y=y), "logreg", rows=np.arange(len(y)))
    assert given.config == model.config
    assert given.pipeline.classes_.tolist() == [0, 1, 2]


def test_rows_that_do_not_exist_are_refused(features: Features) -> None:
    with pytest.raises(DataError, match="rows must be 0 to 17; got 0 to 18"):
        fit_model(features, "logreg", rows=np.arange(19))


def test_a_model_is_saved_with_the_scores_of_its_classifier(
    features: Features, tmp_path: Path
) -> None:
    run = cross_validate(features, "centroid", make_splits(features, SplitOptions(cv=3)))
    model = fit_model(features, "centroid", run=run)
    assert model.scores is not None
    assert model.scores.metrics == run.metrics
    card = (model.save(tmp_path / "scored") / "README.md").read_text()
    assert f"| accuracy | {run.metrics['accuracy']:.3f} |" in card
    assert "No groups were known" in card
    plain = (fit_model(features, "centroid").save(tmp_path / "plain") / "README.md").read_text()
    assert "groups" not in plain
    with pytest.raises(DataError, match="run must be of 'logreg'"):
        fit_model(features, "logreg", run=run)
    other = dataclasses.replace(features, fingerprint="0" * 64)
    with pytest.raises(DataError, match="run must be of these features"):
        fit_model(other, "centroid", run=run)


@pytest.mark.parametrize("clf", ["rf", "svc", "logreg"])
def test_vectors_of_another_shape_or_without_numbers_are_refused(
    clf: str, features: Features, tmp_path: Path
) -> None:
    fitted = fit_model(features, clf)
    for model in (fitted, load_model(fitted.save(tmp_path))):
        for X in (features.X[:2, :-1], np.hstack([features.X, features.X]), features.X[0]):
            with pytest.raises(DataError, match=rf"shape \(n, {features.dim}\)"):
                model.predict_vectors(X)
        bad = features.X[:2].copy()
        bad[1, 0] = np.nan
        with pytest.raises(DataError, match="must be finite"):
            model.predict_vectors(bad)
        assert model.predict_vectors(features.X[:1].tolist())[0].label  # type: ignore[arg-type]


def test_too_few_images_or_classes_are_an_error_with_their_numbers(features: Features) -> None:
    with pytest.raises(DataError, match="cannot learn from 0 images of 0 classes"):
        fit_model(features, "svc", rows=np.empty(0, np.int64))
    with pytest.raises(DataError, match="cannot learn from 6 images of 1 class:"):
        fit_model(features, "svc", rows=np.flatnonzero(features.y == 0))


# --- unreadable images ----------------------------------------------------------------------


def test_an_unreadable_image_has_a_reason_and_does_not_shift_the_others(
    model: Model, backbone: Backbone, pond: Path, broken: Path
) -> None:
    bass, bream, cod = (pond / name / "2.png" for name in CLASSES)
    absent = broken.with_name("absent.png")
    readable = model.predict([bass, bream, cod], backbone=backbone)
    mixed = model.predict([bass, broken, bream, absent, cod], backbone=backbone)
    assert [p.label for p in mixed] == ["bass", "", "bream", "", "cod"]
    for before, after in zip(readable, mixed[::2], strict=True):
        np.testing.assert_allclose(before.scores, after.scores, atol=1e-4)
    for failed in mixed[1::2]:
        assert failed.reason
        assert (failed.margin, failed.scores) == (None, None)
    assert (mixed[1].path, mixed[3].path) == (str(broken), str(absent))


def test_arrays_are_classified_like_their_files(
    model: Model, backbone: Backbone, pond: Path
) -> None:
    paths = sorted(pond.glob("*/*.png"))
    arrays = [np.asarray(Image.open(path)) for path in paths]
    from_files = model.predict(paths, backbone=backbone)
    for given in (backbone, None):
        predictions = model.predict_arrays(arrays, backbone=given)
        assert [p.path for p in predictions[:2]] == ["image 0", "image 1"]
        assert [p.label for p in predictions] == [p.label for p in from_files]
        scores = np.array([p.scores for p in predictions])
        np.testing.assert_allclose(scores, [p.scores for p in from_files], atol=1e-4)
    assert model.predict_arrays([]) == []
    for wrong in (arrays[0][..., 0], arrays[0].astype(np.float32), arrays[0][:0]):
        with pytest.raises(DataError, match="image 1 is"):
            model.predict_arrays([arrays[0], wrong])


def test_unreadable_images_alone_have_a_reason_each(
    model: Model, backbone: Backbone, broken: Path
) -> None:
    predictions = model.predict([broken, broken], backbone=backbone)
    assert [bool(p.reason) for p in predictions] == [True, True]


def test_each_path_has_a_prediction_also_where_a_path_is_given_twice(
    model: Model, backbone: Backbone, pond: Path
) -> None:
    path = pond / "cod" / "0.png"
    assert [p.label for p in model.predict([path, path], backbone=backbone)] == ["cod", "cod"]
    assert model.predict([], backbone=backbone) == []


# --- refused ----------------------------------------------------------------------------------


def test_a_backbone_of_other_preprocessing_is_refused(model: Model, pond: Path) -> None:
    other = load_backbone(make_spec("random:test_resnet", img_size=96))
    with pytest.raises(ModelError, match=rf"{model.fingerprint[:12]}.*{other.fingerprint[:12]}"):
        model.predict([pond / "cod" / "0.png"], backbone=other)


def test_a_backbone_of_other_weights_is_refused(
    features: Features, backbone: Backbone, pond: Path
) -> None:
    model = fit_model(dataclasses.replace(features, fingerprint="0" * 64), "centroid")
    with pytest.raises(ModelError, match=rf"000000000000.*{backbone.fingerprint[:12]}"):
        model.predict([pond / "cod" / "0.png"])


def test_saving_replaces_an_earlier_model(features: Features, tmp_path: Path) -> None:
    for clf in ("centroid", "logreg"):
        fit_model(features, clf).save(tmp_path)
    assert load_model(tmp_path).clf == "logreg"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "arrays.safetensors",
        "model.json",
    ]


def test_saving_replaces_no_file_of_somebody_else(features: Features, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my project")
    with pytest.raises(DataError, match=r"README\.md that is not of fishfeat"):
        fit_model(features, "centroid").save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "my project"


def test_models_of_other_classes_make_no_ensemble(model: Model) -> None:
    other = dataclasses.replace(model, class_names=np.array(["a", "b", "c"]))
    with pytest.raises(ModelError, match="same features and classes"):
        combine_models([model, other])


def test_a_folder_without_a_model_is_refused_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model.*fishfeat fit"):
        load_model(tmp_path)


def test_classifiers_weights_and_specifications_have_different_names(model: Model) -> None:
    wider = dataclasses.replace(model.spec, img_size=96)
    names = {
        name_model(clf, spec, balanced=balanced)
        for clf in ("svc", "rf")
        for spec in (model.spec, wider)
        for balanced in (False, True)
    }
    assert len(names) == 8
    assert model.name in names
    assert model.name.startswith("svc-on-test_resnet-")


# --- paths --------------------------------------------------------------------------------------


def test_one_path_is_one_path_whatever_its_type(
    model: Model, backbone: Backbone, pond: Path
) -> None:
    path = pond / "cod" / "0.png"
    for given in (path, str(path), os.fsencode(path), [path], (str(path),)):
        (prediction,) = model.predict(given, backbone=backbone)
        assert (prediction.path, prediction.label) == (str(path), "cod")


@pytest.mark.parametrize("given", [5, None, [5], [["a.png"]]])
def test_what_is_no_path_is_refused(model: Model, backbone: Backbone, given: object) -> None:
    with pytest.raises(DataError, match="paths"):
        model.predict(given, backbone=backbone)  # type: ignore[arg-type]


def test_an_image_has_the_same_scores_in_any_company(features: Features, tmp_path: Path) -> None:
    model = load_model(fit_model(features, "logreg").save(tmp_path))
    whole = model._score_rows(features.X)
    for n in (1, 3, 7):
        parts = [model._score_rows(features.X[i : i + n]) for i in range(0, len(features), n)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
