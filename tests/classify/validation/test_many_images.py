"""A run says where its classifier was fitted in the cheaper way for many images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fishfeat.classify.estimators import boosting, forest, registry
from fishfeat.classify.estimators.rbf_svc import RBFSVC
from fishfeat.classify.validation.cross_validation import cross_validate, validate_and_fit
from fishfeat.classify.validation.many_images import find_cheaper_fits
from fishfeat.classify.validation.splits import make_splits
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import Features

pytestmark = pytest.mark.usefixtures("few_trees")
MakeFeatures = Callable[..., Features]
SetLimit = Callable[[int], None]


@pytest.fixture
def set_limit(monkeypatch: pytest.MonkeyPatch) -> SetLimit:
    """Set the number of images above which svc, rf and xgb take the cheaper way."""

    def set_all(limit: int) -> None:
        def make_svc(**settings: Any) -> RBFSVC:
            return RBFSVC(max_exact=limit, **settings)

        monkeypatch.setattr(boosting, "MANY_IMAGES", limit)
        monkeypatch.setattr(forest, "MANY_IMAGES", limit)
        monkeypatch.setattr(registry, "RBFSVC", make_svc)

    return set_all


@pytest.fixture
def few(make_features: MakeFeatures) -> Features:
    """48 images of two classes, of which a fold of two trains on 24."""
    return make_features((6, 6), group_of=4, class_effect=2, dim=4)


@pytest.mark.parametrize(
    ("clf", "search"), [("svc", None), ("rf", None), ("xgb", None), ("svc", "1")]
)
def test_each_classifier_says_that_it_is_cheaper(
    clf: str, search: str | None, few: Features, set_limit: SetLimit
) -> None:
    splits = make_splits(few, SplitOptions(cv=2))
    options = ClassifierOptions(search=search)
    set_limit(23)
    (note,) = cross_validate(few, clf, splits, options, jobs=1).config.notes
    assert note.check == "cheaper-with-many-images"
    assert note.message.startswith("24 ")


def test_fits_that_do_not_change_have_no_note(few: Features, set_limit: SetLimit) -> None:
    splits = make_splits(few, SplitOptions(cv=2))
    assert cross_validate(few, "xgb", splits, jobs=1).config.notes == ()
    set_limit(10)
    for clf in ("logreg", "centroid"):
        assert cross_validate(few, clf, splits, jobs=1).config.notes == ()


def test_a_note_on_the_saved_classifier_alone_is_in_the_run(
    few: Features, set_limit: SetLimit
) -> None:
    set_limit(40)
    splits = make_splits(few, SplitOptions(cv=2))
    assert cross_validate(few, "svc", splits, jobs=1).config.notes == ()
    validated = validate_and_fit(few, "svc", [splits], ClassifierOptions(), jobs=1)
    (note,) = validated.runs[0].config.notes
    assert "48" in note.message.split()


def test_the_number_of_cheaper_folds_is_said() -> None:
    assert find_cheaper_fits(["", ""]) == []
    (some,) = find_cheaper_fits(["", "a", "b"], "c")
    assert {"2", "3", "a"} <= set(some.message.split())
    assert find_cheaper_fits(["a", "b"], "c")[0].message == "a"
