"""Planted wrong labels are found, and difficult images alone are not label issues."""

import numpy as np
import pytest

from fishfeat.classify.statistics.label_issues import class_thresholds, detect_label_issues


def make_confident(classes, *, n_classes=3, p=0.9):
    """Probabilities that give `p` to the class of each image, and equal parts to the others."""
    proba = np.full((len(classes), n_classes), (1 - p) / (n_classes - 1))
    proba[np.arange(len(classes)), classes] = p
    return proba


def test_planted_wrong_labels_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=300)
    given = true.copy()
    planted = rng.choice(300, size=12, replace=False)
    given[planted] = (true[planted] + 1) % 3
    logits = 4 * np.eye(3)[true] + rng.normal(size=(300, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows, predicted = detect_label_issues(given, proba)
    assert len(set(planted) & set(rows)) >= 10
    assert len(set(rows) - set(planted)) <= 3
    hits = np.isin(rows, planted)
    np.testing.assert_array_equal(predicted[hits], true[rows[hits]])


def test_the_least_probable_label_comes_first():
    y = np.array([0] * 10 + [1] * 10)
    proba = make_confident(np.repeat([0, 1], 10), n_classes=2, p=0.8)
    proba[3], proba[5] = [0.05, 0.95], [0.15, 0.85]
    assert detect_label_issues(y, proba)[0].tolist() == [3, 5]


def test_images_of_a_difficult_class_are_no_label_issues():
    """They are predicted as the easy class, but with less confidence than its own images."""
    y = np.array([0] * 20 + [1] * 20)
    proba = np.vstack([np.tile([0.95, 0.05], (20, 1)), np.tile([0.55, 0.45], (20, 1))])
    assert (proba[20:].argmax(axis=1) != 1).all()
    assert detect_label_issues(y, proba)[0].size == 0


def test_a_class_that_was_never_in_training_has_no_label_issues():
    y = np.array([0] * 10 + [1] * 10 + [2] * 4)
    proba = np.pad(make_confident(np.repeat([0, 1], [14, 10]), n_classes=2), ((0, 0), (0, 1)))
    proba[10:20] = make_confident([1] * 10, n_classes=2) @ np.eye(2, 3)
    proba[20:] = [0.9, 0.1, 0.0]
    assert np.isnan(class_thresholds(y, proba)[2])
    assert detect_label_issues(y, proba)[0].size == 0


def test_thresholds_are_the_mean_confidence_of_each_class_in_itself():
    y = np.array([0, 0, 1])
    proba = np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]])
    np.testing.assert_allclose(class_thresholds(y, proba), [0.7, 0.6])


@pytest.mark.parametrize("n_classes", [2, 5])
def test_perfect_predictions_have_no_label_issues(n_classes):
    y = np.arange(40) % n_classes
    assert detect_label_issues(y, np.eye(n_classes)[y])[0].size == 0
