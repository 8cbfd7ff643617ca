"""The files of a saved model hold no code, and damage in them is a `ModelError`."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest

from fishfeat.classify.estimators.dense_head import DenseHead
from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import ModelError
from fishfeat.models.fit import combine_models, fit_model, wrap_head, wrap_pipeline
from fishfeat.models.load import load_model
from fishfeat.models.model import Model
from fishfeat.models.saved import ARRAYS, DESCRIPTION, ModelScores
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import BackboneSpec, Features, FeaturesInfo

Damage = Callable[[bytes], bytes]
SCORES = ModelScores("grouped", 5, 20, {"accuracy": 0.9, "ece": 0.02}, {"accuracy": (0.8, 0.95)})


@pytest.fixture(scope="module")
def features() -> Features:
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    X = (rng.normal(size=(48, 8)) + rng.normal(size=(3, 8))[y]).astype(np.float32)
    names = np.array(["bass", "bream", "cod"])
    keys = np.array([f"{i}.png" for i in range(48)])
    return Features(X, keys, y, names, BackboneSpec("random", "test_resnet"), "0" * 64)


@pytest.fixture(scope="module")
def model(features: Features) -> Model:
    return dataclasses.replace(fit_model(features, "logreg"), scores=SCORES)


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return model.save(tmp_path / "logreg-on-pond")


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    change(content)
    (folder / DESCRIPTION).write_text(json.dumps(content))


def test_a_model_says_what_it_is(folder: Path, model: Model) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    assert content["protocol"] >= 2
    assert content["class_names"] == ["bass", "bream", "cod"]
    assert content["fingerprint"] == "0" * 64
    assert content["scores"]["metrics"]["accuracy"] == 0.9
    assert content["scores"]["intervals"]["accuracy"] == [0.8, 0.95]
    assert (content["ece"], content["config"]["n_images"]) == (0.02, 48)
    assert {"fishfeat", "numpy", "scikit-learn"} <= content["versions"].keys()
    assert load_model(folder).scores == SCORES
    card = (folder / "README.md").read_text()
    for fact in ("bass, bream, cod", "48 labelled images", "0.900", "0.800 to 0.950", "20 groups"):
        assert fact in card


def test_the_card_names_the_folder_of_a_tuned_network(features: Features, tmp_path: Path) -> None:
    tuned = BackboneSpec("local-dir", "/cache/networks/tuned")
    model = fit_model(dataclasses.replace(features, spec=tuned), "logreg")
    card = (model.save(tmp_path / "tuned") / "README.md").read_text()
    assert "`tuned`" in card
    assert "--backbone local-dir:" in card
    plain = (fit_model(features, "logreg").save(tmp_path / "plain") / "README.md").read_text()
    assert "--backbone" not in plain


def test_a_loaded_model_is_saved_as_it_was(folder: Path, tmp_path: Path) -> None:
    load_model(folder).save(tmp_path / "again")
    for file in (DESCRIPTION, ARRAYS, "README.md"):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()


def make_head(features: Features) -> Model:
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(4, 8)), rng.normal(size=4)), (rng.normal(size=(3, 4)), np.ones(3))]
    splits = make_splits(features, SplitOptions(cv=2), strategy="random")
    info = FeaturesInfo("pond", features.spec, features.fingerprint, features.X.shape[1])
    return wrap_head(DenseHead(layers, np.arange(3), 0.7), features, "tuned", splits, backbone=info)


def make_ensemble(features: Features) -> Model:
    return combine_models([fit_model(features, clf) for clf in ("svc", "centroid")])


def make_search(features: Features) -> Model:
    return fit_model(features, "centroid", ClassifierOptions(search="3"))


@pytest.mark.parametrize("make", [make_head, make_ensemble, make_search])
def test_the_model_of_each_way_to_make_one_is_the_same_in_its_files(
    make: Callable[[Features], Model], features: Features, tmp_path: Path
) -> None:
    made = make(features)
    loaded = load_model(made.save(tmp_path))
    expected = made.pipeline.predict_proba(features.X)
    np.testing.assert_allclose(
        loaded.pipeline.predict_proba(features.X), expected, rtol=0, atol=1e-12
    )
    assert (loaded.name, loaded.config) == (made.name, made.config)


# --- no code ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(features: Features) -> list[Model]:
    models = [fit_model(features, clf) for clf in ("svc", "logreg", "knn")]
    for clf, name in (("rf", "n_estimators"), ("xgb", "estimator__n_estimators")):
        pipeline = make_classifier(clf)
        pipeline[-1].set_params(**{name: 8})
        pipeline.fit(features.X, features.y)
        rows = np.arange(len(features))
        models.append(wrap_pipeline(pipeline, features, clf, rows, ClassifierOptions()))
    return models


def test_nothing_is_unpickled_to_load_and_predict(
    fitted: list[Model], features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was read")

    for model in fitted:
        model.save(tmp_path / model.clf)
    with monkeypatch.context() as patch:
        for name in ("load", "loads", "Unpickler"):
            patch.setattr(pickle, name, refuse)
        patch.setattr(joblib, "load", refuse)
        loaded = [load_model(tmp_path / model.clf) for model in fitted]
        probabilities = [model.pipeline.predict_proba(features.X) for model in loaded]
    for model, proba in zip(fitted, probabilities, strict=True):
        expected = model.pipeline.predict_proba(features.X)
        np.testing.assert_allclose(proba, expected, rtol=0, atol=1e-12)


def test_loading_and_predicting_needs_no_package_that_fitted_it(
    fitted: list[Model], tmp_path: Path
) -> None:
    combine_models(fitted).save(tmp_path)
    code = (
        "import sys, numpy as np\n"
        "from fishfeat.models.load import load_model\n"
        f"model = load_model({str(tmp_path)!r})\n"
        "model.pipeline.predict_proba(np.zeros((1, 8), np.float32))\n"
        "heavy = ('sklearn', 'xgboost', 'joblib', 'torch', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- earlier versions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "clf", "command"),
    [
        ({}, "svc", "fishfeat fit --clf svc"),
        ({"balanced": True}, "lda", "fishfeat fit --clf lda --balanced"),
        ({"search": "20"}, "rf-search", "fishfeat fit --clf rf --search 20"),
        ({"members": ["svc", "knn"]}, "ensemble", "fishfeat fit --clf svc --clf knn --ensemble"),
        ({}, "early-exit", "fishfeat fit --early-exit"),
        ({}, "a-last-blocks", "fishfeat finetune"),
    ],
)
def test_a_model_of_joblib_is_refused_with_the_command_that_fits_it_again(
    config: dict[str, object], clf: str, command: str, folder: Path
) -> None:
    def make_old(content: dict[str, object]) -> None:
        del content["classifier"]
        content["clf"] = clf
        content["config"] |= config  # type: ignore[operator]

    edit(folder, make_old)
    (folder / ARRAYS).unlink()
    (folder / "pipeline.joblib").write_bytes(pickle.dumps(pytest.fail))
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert f"`{command}" in str(caught.value)
    assert str(folder) in str(caught.value)


def test_saving_again_removes_what_an_earlier_version_saved(model: Model, tmp_path: Path) -> None:
    (tmp_path / "pipeline.joblib").write_bytes(b"old")
    model.save(tmp_path)
    assert not (tmp_path / "pipeline.joblib").exists()


def test_a_model_of_a_newer_version_is_refused(folder: Path) -> None:
    edit(folder, lambda content: content.update(protocol=99))
    with pytest.raises(ModelError, match="99"):
        load_model(folder)


# --- damage -------------------------------------------------------------------------------------


def test_the_files_of_two_models_are_refused(
    folder: Path, features: Features, tmp_path: Path
) -> None:
    other = fit_model(features, "centroid").save(tmp_path / "other")
    shutil.copy(other / ARRAYS, folder / ARRAYS)
    with pytest.raises(ModelError, match="fishfeat fit"):
        load_model(folder)
    (folder / ARRAYS).unlink()
    with pytest.raises(ModelError, match="fishfeat fit"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"\xff\xfe", b'{"protocol": "x"}'])
def test_what_is_no_model_is_refused(content: bytes, folder: Path) -> None:
    (folder / DESCRIPTION).write_bytes(content)
    with pytest.raises(ModelError):
        load_model(folder)


def test_random_damage_is_refused_or_changes_no_answer(
    folder: Path, model: Model, features: Features
) -> None:
    rng = np.random.default_rng(0)
    files = {name: (folder / name).read_bytes() for name in (DESCRIPTION, ARRAYS)}
    expected = load_model(folder).pipeline.predict_proba(features.X)
    n_refused = 0
    for number in range(100):
        for name, content in files.items():
            (folder / name).write_bytes(content)
        name = (DESCRIPTION, ARRAYS)[number % 2]
        changed = bytearray(files[name])
        place = int(rng.integers(len(changed)))
        if number % 3 == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif number % 3 == 1:
            del changed[place : place + 3]
        else:
            changed[place:place] = rng.bytes(2)
        (folder / name).write_bytes(changed)
        try:
            loaded = load_model(folder)
        except ModelError:
            n_refused += 1
        else:
            np.testing.assert_array_equal(loaded.pipeline.predict_proba(features.X), expected)
            assert loaded.class_names.tolist() == model.class_names.tolist()
    assert n_refused >= 90
