"""The folds are those of scikit-learn."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from fishfeat.classify.grouped_folds import GroupedFolds

pytestmark = pytest.mark.filterwarnings("ignore:The least populated class")


@pytest.mark.parametrize("n_folds", [2, 3, 10])
@pytest.mark.parametrize("is_pure", [True, False])
def test_folds_are_those_of_scikit_learn(n_folds: int, is_pure: bool) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        groups = np.r_[np.arange(20), rng.integers(0, 20, 60)]
        y = groups % 5 if is_pure else np.r_[np.repeat(np.arange(4), 10), rng.integers(0, 4, 40)]
        expected, folds = (
            list(splitter(n_folds, shuffle=True, random_state=seed).split(y, y, groups))
            for splitter in (StratifiedGroupKFold, GroupedFolds)
        )
        for fold, expected_fold in zip(folds, expected, strict=True):
            for rows, expected_rows in zip(fold, expected_fold, strict=True):
                np.testing.assert_array_equal(rows, expected_rows)


def test_too_few_groups_are_the_error_of_scikit_learn() -> None:
    with pytest.raises(ValueError, match="n_splits=3"):
        list(GroupedFolds(3).split(np.arange(4), np.arange(4) % 2, np.arange(4)))
