"""Models: what is saved predicts the same, and what does not belong together is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image

from fishfeat.classify.statistics.metrics import margin
from fishfeat.errors import DataError, ModelError
from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.models import Model, fit_model, load_model, model_name
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features

CLASSES = ("bass", "bream", "cod")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone(make_spec("random:test_resnet", img_size=64))


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each class, told apart by their hue."""
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


def test_images_get_the_names_of_their_classes(
    model: Model, backbone: Backbone, pond: Path
) -> None:
    paths = [pond / name / f"{i}.png" for i in (4, 1) for name in CLASSES]
    found = model.predict(paths, backbone=backbone)
    assert [p.label for p in found] == [*CLASSES, *CLASSES]
    assert [p.path for p in found] == [str(path) for path in paths]
    assert all(0 < p.margin <= 1 and not p.reason for p in found)


def test_scores_and_confidence_are_those_of_the_pipeline(
    model: Model, backbone: Backbone, features: Features, pond: Path
) -> None:
    found = model.predict([pond / key for key in features.keys.tolist()], backbone=backbone)
    scores = np.stack([p.scores for p in found])
    np.testing.assert_allclose(scores, model.pipeline.predict_proba(features.X), atol=1e-4)
    np.testing.assert_allclose([p.margin for p in found], margin(scores))


@pytest.mark.parametrize("clf", ["svc", "xgb", "lda", "centroid"])
def test_a_saved_model_predicts_the_same(
    clf: str, features: Features, backbone: Backbone, pond: Path, tmp_path: Path
) -> None:
    model = fit_model(features, clf, ClassifierOptions(balanced=True, seed=3))
    loaded = load_model(model.save(tmp_path / "kept"))
    paths = [pond / name / "0.png" for name in CLASSES]
    before, after = (m.predict(paths, backbone=backbone) for m in (model, loaded))
    assert [(p.label, p.margin) for p in before] == [(p.label, p.margin) for p in after]
    np.testing.assert_array_equal([p.scores for p in before], [p.scores for p in after])


def test_a_saved_model_keeps_what_it_was_made_of(model: Model, tmp_path: Path) -> None:
    loaded = load_model(model.save(tmp_path))
    np.testing.assert_array_equal(loaded.class_names, model.class_names)
    for name in ("clf", "spec", "fingerprint", "score_kind", "name"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.config["n_images"] == 18
    assert (loaded.config["balanced"], loaded.config["seed"]) == (False, 0)


def test_the_backbone_is_loaded_by_the_models_own_specification(
    model: Model, backbone: Backbone, pond: Path
) -> None:
    path = pond / "cod" / "0.png"
    own, given = model.predict([path])[0], model.predict([path], backbone=backbone)[0]
    assert own.label == given.label
    np.testing.assert_allclose(own.scores, given.scores, atol=1e-5)


def test_classes_that_were_not_learned_are_never_the_answer(
    features: Features, backbone: Backbone, pond: Path
) -> None:
    rows = np.flatnonzero(features.y != 1)
    found = fit_model(features, "svc", rows=rows).predict(
        [pond / "bream" / "0.png"], backbone=backbone
    )
    assert found[0].label in ("bass", "cod")
    assert found[0].scores.shape == (3,)
    assert found[0].scores.argmin() == 1


def test_images_without_a_label_are_not_learned(features: Features) -> None:
    y = features.y.copy()
    y[:2] = -1
    model = fit_model(dataclasses.replace(features, y=y), "logreg")
    assert model.config["n_images"] == 16
    assert model.pipeline.classes_.tolist() == [0, 1, 2]


def test_nothing_to_learn_from_is_an_error_that_says_so(features: Features) -> None:
    with pytest.raises(DataError, match="cannot learn from 0 images of 0 classes"):
        fit_model(features, "svc", rows=np.empty(0, np.int64))
    with pytest.raises(DataError, match="cannot learn from 6 images of 1 class:"):
        fit_model(features, "svc", rows=np.flatnonzero(features.y == 0))


# --- unreadable images ----------------------------------------------------------------------


def test_an_unreadable_image_gets_its_reason_and_shifts_nothing(
    model: Model, backbone: Backbone, pond: Path, broken: Path
) -> None:
    good = [pond / name / "2.png" for name in CLASSES]
    alone = model.predict(good, backbone=backbone)
    mixed = model.predict(
        [good[0], broken, good[1], broken.with_name("absent.png"), good[2]], backbone=backbone
    )
    assert [p.label for p in mixed] == ["bass", "", "bream", "", "cod"]
    for before, after in zip(alone, mixed[::2], strict=True):
        np.testing.assert_allclose(before.scores, after.scores, atol=1e-4)
    for failed in mixed[1::2]:
        assert failed.reason
        assert failed.margin is None
    assert (mixed[1].path, mixed[3].path) == (str(broken), str(broken.with_name("absent.png")))


def test_nothing_but_unreadable_images_is_answered_too(
    model: Model, backbone: Backbone, broken: Path
) -> None:
    found = model.predict([broken, broken], backbone=backbone)
    assert [bool(p.reason) for p in found] == [True, True]


def test_a_image_named_twice_is_answered_twice_and_none_not_at_all(
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
    with pytest.raises(
        ModelError, match=f"fingerprint 000000000000; .*{backbone.fingerprint[:12]}"
    ):
        model.predict([pond / "cod" / "0.png"])


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def test_a_tampered_pipeline_is_refused_before_it_is_unpickled(
    model: Model, tmp_path: Path
) -> None:
    folder = model.save(tmp_path / "kept")
    trace = tmp_path / "ran"
    joblib.dump(Trap(trace), folder / "pipeline.joblib")
    with pytest.raises(ModelError, match=r"pipeline\.joblib is not the file that model\.json"):
        load_model(folder)
    assert not trace.exists()
    joblib.load(folder / "pipeline.joblib")
    assert trace.exists()


def test_one_changed_bit_and_a_missing_pipeline_are_refused(model: Model, tmp_path: Path) -> None:
    folder = model.save(tmp_path)
    content = bytearray((folder / "pipeline.joblib").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "pipeline.joblib").write_bytes(content)
    with pytest.raises(ModelError, match="Fit again"):
        load_model(folder)
    (folder / "pipeline.joblib").unlink()
    with pytest.raises(ModelError, match="Fit again"):
        load_model(folder)


def test_a_model_saved_over_another_replaces_it(features: Features, tmp_path: Path) -> None:
    for clf in ("centroid", "logreg"):
        fit_model(features, clf).save(tmp_path)
    assert load_model(tmp_path).clf == "logreg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "pipeline.joblib"]


def test_a_folder_without_a_model_is_refused_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model.*fishfeat fit"):
        load_model(tmp_path)


def test_the_name_tells_classifiers_and_specifications_apart(model: Model) -> None:
    wider = dataclasses.replace(model.spec, img_size=96)
    names = {
        model_name(clf, spec, balanced=balanced)
        for clf in ("svc", "rf")
        for spec in (model.spec, wider)
        for balanced in (False, True)
    }
    assert len(names) == 8
    assert model.name in names
    assert model.name.startswith("svc-on-test_resnet-")
