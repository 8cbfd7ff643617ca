"""Classifiers on a stream of rows are those of all rows in memory, on the same folds."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from fishfeat.classify.predictors.archive import from_arrays, to_arrays
from fishfeat.classify.validation.streaming import N_PARTS, Rows, cross_validate_stream
from fishfeat.errors import DataError

DIM, N_CLASSES, N_FOLDS = 6, 3, 4


@pytest.fixture(scope="module")
def rows():
    """240 rows of three classes in 60 groups, in the order of their classes."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(N_CLASSES), 80)
    groups = np.arange(240) // 4
    centres = rng.normal(size=(N_CLASSES, DIM))
    X = centres[codes] + rng.normal(size=(60, DIM))[groups] + rng.normal(size=(240, DIM)) * 0.5
    numbers = rng.permutation(60)[groups]
    return Rows((X * 7 + 3).astype(np.float32), codes, numbers % N_FOLDS, numbers % N_PARTS)


def stream(rows, size):
    def read():
        for start in range(0, len(rows.codes), size):
            yield Rows(*(column[start : start + size] for column in rows))

    return read


def predict_in_memory(rows):
    """Out-of-fold labels of the same least squares by scikit-learn."""
    labels = np.empty_like(rows.codes)
    targets = np.where(rows.codes[:, None] == np.arange(N_CLASSES), 1.0, -1.0)
    for fold in range(N_FOLDS):
        train, test = rows.folds != fold, rows.folds == fold
        scaler = StandardScaler().fit(rows.X[train])
        ridge = Ridge(alpha=0.1 * DIM).fit(scaler.transform(rows.X[train]), targets[train])
        labels[test] = ridge.predict(scaler.transform(rows.X[test])).argmax(axis=1)
    return labels


def test_ridge_is_that_of_all_rows_in_memory(rows):
    scores = cross_validate_stream(stream(rows, 50), "ridge", N_CLASSES, N_FOLDS)
    labels = predict_in_memory(rows)
    confusion = np.zeros((N_CLASSES, N_CLASSES), int)
    np.add.at(confusion, (rows.codes, labels), 1)
    np.testing.assert_array_equal(scores.confusion, confusion)
    assert scores.accuracy == pytest.approx((labels == rows.codes).mean())
    recalls = [(labels == c)[rows.codes == c].mean() for c in range(N_CLASSES)]
    np.testing.assert_allclose(scores.recalls, recalls)
    assert scores.balanced_accuracy == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("clf", ["ridge", "svc"])
def test_the_size_of_the_parts_changes_nothing(rows, clf):
    runs = [cross_validate_stream(stream(rows, n), clf, N_CLASSES, N_FOLDS) for n in (7, 240)]
    np.testing.assert_array_equal(runs[0].confusion, runs[1].confusion)
    assert runs[0].accuracy_interval == runs[1].accuracy_interval


@pytest.mark.parametrize("clf", ["ridge", "svc"])
def test_the_machine_is_saved_and_has_probabilities(rows, clf):
    predictor = cross_validate_stream(stream(rows, 50), clf, N_CLASSES, N_FOLDS).predictor
    proba = predictor.predict_proba(rows.X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (proba.argmax(axis=1) == rows.codes).mean() > 0.85
    loaded = from_arrays(*to_arrays(predictor))
    np.testing.assert_array_equal(loaded.predict_proba(rows.X), proba)


def test_an_interval_is_wider_where_groups_are_few(rows):
    alone = rows._replace(parts=np.arange(240) % N_PARTS)
    few = rows._replace(parts=rows.folds)  # one part for each fold
    widths = []
    for same in (alone, few):
        low, high = cross_validate_stream(
            stream(same, 50), "ridge", N_CLASSES, N_FOLDS
        ).accuracy_interval
        widths.append(high - low)
    assert 0 < widths[0] < widths[1]


def test_labels_drawn_by_chance_give_chance(rows):
    shuffled = rows._replace(codes=np.random.default_rng(1).permutation(rows.codes))
    scores = cross_validate_stream(stream(shuffled, 50), "svc", N_CLASSES, N_FOLDS)
    assert scores.accuracy < 0.5


def test_a_class_without_rows_has_no_recall(rows):
    scores = cross_validate_stream(stream(rows, 50), "ridge", N_CLASSES + 1, N_FOLDS)
    assert np.isnan(scores.recalls[-1])
    assert scores.balanced_accuracy == pytest.approx(np.mean(scores.recalls[:-1]))


@pytest.mark.parametrize("clf", ["xgb", "logreg", "ridg"])
def test_other_classifiers_are_refused(rows, clf):
    with pytest.raises(DataError, match="ridge or svc"):
        cross_validate_stream(stream(rows, 50), clf, N_CLASSES, N_FOLDS)


def test_a_fold_that_has_all_rows_is_an_error(rows):
    one = rows._replace(folds=np.zeros(240, np.int64))
    with pytest.raises(DataError, match="fewer folds"):
        cross_validate_stream(stream(one, 50), "ridge", N_CLASSES, 2)
