"""Splits keep groups on one side, score every row once, and refuse data leakage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fishfeat.classify.estimators.registry import DEFAULT_CLASSIFIERS
from fishfeat.classify.statistics.significance import compare
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import check_disjoint, make_splits
from fishfeat.errors import SplitError
from fishfeat.options import SplitOptions, Strategy
from fishfeat.records import BackboneSpec, Features, Fold, Splits
from fishfeat.records.identity import partition_digest

Array = np.ndarray[Any, Any]
MakeFeatures = Callable[..., Features]


def label_features(y: Array, **fields: Any) -> Features:
    """Features with these labels and one constant column."""
    n_classes = max(1, int(y.max()) + 1)
    return Features(
        X=np.zeros((len(y), 1), np.float32),
        keys=np.array([f"{i:04}.jpg" for i in range(len(y))]),
        y=y.astype(np.int64),
        class_names=np.array([f"fish{c}" for c in range(n_classes)]),
        spec=BackboneSpec("random", "test_resnet"),
        fingerprint="",
        **fields,
    )


def list_folds(splits: Splits) -> list[Fold]:
    return [fold for folds in splits.repeats for fold in folds]


@st.composite
def draw_features(draw: st.DrawFn) -> Features:
    """Groups of any size, most of them of one class; some images without a label."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=4, max_size=30))
    n_classes = draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = rng.integers(n_classes, size=len(sizes))[groups]
    y[rng.random(len(y)) < draw(st.sampled_from([0, 0.2]))] = -1
    is_changed = rng.random(len(y)) < draw(st.sampled_from([0, 0.1]))
    y[is_changed] = rng.integers(n_classes, size=is_changed.sum())
    return label_features(y, groups=groups * 3 + 5)


@given(
    draw_features(),
    st.integers(2, 6),
    st.integers(1, 3),
    st.integers(0, 10**6),
    st.sampled_from(["grouped", "random"]),
    st.sampled_from([None, 0.15, 0.4]),
)
def test_splits_of_any_data_are_sound_or_refused(
    features: Features, cv: int, repeats: int, seed: int, strategy: Strategy, test: float | None
) -> None:
    options = SplitOptions(cv=cv, repeats=repeats, seed=seed, test=test)
    try:
        splits = make_splits(features, options, strategy=strategy)
    except SplitError:
        reject()
    assert features.groups is not None
    groups, holdout = features.groups, splits.holdout
    labelled = np.flatnonzero(features.y >= 0)
    np.testing.assert_array_equal(np.sort(np.append(splits.rows, holdout)), labelled)
    assert not set(groups[holdout]) & set(groups[splits.rows])
    assert len(splits.repeats) == repeats
    for folds in splits.repeats:
        test_rows = np.concatenate([fold.test for fold in folds])
        np.testing.assert_array_equal(np.sort(test_rows), splits.rows)
    for fold in list_folds(splits):
        np.testing.assert_array_equal(np.sort(np.concatenate(fold)), splits.rows)
        if strategy == "grouped":
            assert not set(groups[fold.train]) & set(groups[fold.test])


@pytest.mark.parametrize("seed", range(20))
def test_no_seed_puts_a_group_on_both_sides(seed: int, leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky, SplitOptions(seed=seed, test=0.2))
    for train, test in [*list_folds(splits), (splits.rows, splits.holdout)]:
        assert not set(leaky.groups[train]) & set(leaky.groups[test])


def test_folds_are_grouped_where_groups_are_known(leaky: Features) -> None:
    grouped = make_splits(leaky)
    assert (grouped.strategy, grouped.grouping) == ("grouped", "by name")
    ungrouped = make_splits(dataclasses.replace(leaky, groups=None))
    assert (ungrouped.strategy, ungrouped.grouping) == ("random", "")
    random = make_splits(leaky, strategy="random")
    assert (random.strategy, random.grouping) == ("random", "")


def test_random_splits_put_groups_on_both_sides(leaky: Features) -> None:
    assert leaky.groups is not None
    fold = make_splits(leaky, strategy="random").repeats[0][0]
    assert set(leaky.groups[fold.train]) & set(leaky.groups[fold.test])


@pytest.mark.parametrize("strategy", ["grouped", "random"])
def test_every_fold_has_each_class_in_proportion(
    strategy: Strategy, make_features: MakeFeatures
) -> None:
    features = make_features((10, 20, 30))
    for fold in list_folds(make_splits(features, SplitOptions(seed=3), strategy=strategy)):
        np.testing.assert_array_equal(np.bincount(features.y[fold.test]), [8, 16, 24])


def test_images_without_a_label_are_left_out(make_features: MakeFeatures) -> None:
    features = make_features()
    y = features.y.copy()
    y[::5] = -1
    splits = make_splits(dataclasses.replace(features, y=y), SplitOptions(test=0.2))
    rows = np.sort(np.append(splits.rows, splits.holdout))
    np.testing.assert_array_equal(rows, np.flatnonzero(y >= 0))


@pytest.mark.parametrize("strategy", ["grouped", "random"])
def test_the_seed_decides_the_splits(strategy: Strategy, leaky: Features) -> None:
    first, again, other = (
        make_splits(leaky, SplitOptions(seed=seed), strategy=strategy) for seed in (4, 4, 5)
    )
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_each_repeat_has_other_folds(leaky: Features) -> None:
    splits = make_splits(leaky, SplitOptions(repeats=3))
    assert (len(splits.repeats), splits.n_folds) == (3, 5)
    assert len({folds[0].test.tobytes() for folds in splits.repeats}) == 3


def test_the_digest_changes_with_any_index(leaky: Features) -> None:
    splits = make_splits(leaky, SplitOptions(test=0.2, repeats=2))
    digests = {splits.digest}
    for r, folds in enumerate(splits.repeats):
        for f, fold in enumerate(folds):
            for i in (0, len(fold.train) // 2, -1):
                shorter = Fold(np.delete(fold.train, i), fold.test)
                changed = (*folds[:f], shorter, *folds[f + 1 :])
                repeats = (*splits.repeats[:r], changed, *splits.repeats[r + 1 :])
                digests.add(dataclasses.replace(splits, repeats=repeats).digest)
    for i in range(len(splits.holdout)):
        digests.add(dataclasses.replace(splits, holdout=np.delete(splits.holdout, i)).digest)
    digests.add(dataclasses.replace(splits, n_images=splits.n_images + 1).digest)
    assert len(digests) == 1 + 2 * 5 * 3 + len(splits.holdout) + 1


# --- held out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.45, 0.5])
def test_a_drawn_test_set_is_near_its_share_and_stratified(
    share: float, make_features: MakeFeatures
) -> None:
    features = make_features((20, 20, 40))
    splits = make_splits(features, SplitOptions(test=share))
    assert splits.holdout_origin == "drawn"
    assert len(splits.holdout) / len(features) == pytest.approx(share, abs=0.055)
    class_shares = np.bincount(features.y[splits.holdout]) / len(splits.holdout)
    np.testing.assert_allclose(class_shares, [0.25, 0.25, 0.5], atol=0.06)


def test_a_drawn_test_set_holds_whole_groups_even_for_random_folds(leaky: Features) -> None:
    assert leaky.groups is not None
    grouped = make_splits(leaky, SplitOptions(test=0.15), strategy="grouped")
    random = make_splits(leaky, SplitOptions(test=0.15), strategy="random")
    np.testing.assert_array_equal(grouped.holdout, random.holdout)
    assert not set(leaky.groups[random.holdout]) & set(leaky.groups[random.rows])


def test_by_name_the_last_groups_of_each_class_are_held_out() -> None:
    y = np.repeat([0, 1], [20, 40])
    groups = np.arange(60) // 4
    splits = make_splits(label_features(y, groups=groups), SplitOptions(test=0.2, test_by="name"))
    assert splits.holdout_origin == "names"
    np.testing.assert_array_equal(splits.holdout, [*range(16, 20), *range(52, 60)])
    alone = make_splits(label_features(y), SplitOptions(test=0.1, test_by="name", seed=3))
    np.testing.assert_array_equal(alone.holdout, [18, 19, *range(56, 60)])


@given(draw_features(), st.sampled_from([0.1, 0.3, 0.5]))
def test_by_name_no_group_is_on_both_sides(features: Features, share: float) -> None:
    try:
        splits = make_splits(features, SplitOptions(cv=2, test=share, test_by="name"))
    except SplitError:
        reject()
    assert features.groups is not None
    assert not set(features.groups[splits.holdout]) & set(features.groups[splits.rows])


def test_by_default_no_test_set_is_drawn(leaky: Features) -> None:
    splits = make_splits(leaky)
    assert (len(splits.holdout), splits.holdout_origin) == (0, "")


@pytest.fixture
def with_parts(make_features: MakeFeatures) -> Features:
    """Features with parts: one third of the groups is test, one sixth val, the rest train."""
    features = make_features((9, 9, 9))
    assert features.groups is not None
    part = np.array(["test", "train", "val", "test", "train", "train"])[features.groups % 6]
    return dataclasses.replace(features, part=part)


def test_the_test_part_of_the_data_is_held_out(with_parts: Features) -> None:
    assert with_parts.part is not None
    splits = make_splits(with_parts)
    assert splits.holdout_origin == "parts"
    np.testing.assert_array_equal(splits.holdout, np.flatnonzero(with_parts.part == "test"))
    np.testing.assert_array_equal(splits.rows, np.flatnonzero(with_parts.part != "test"))


def test_the_test_part_may_be_ignored_or_replaced(with_parts: Features) -> None:
    ignored = make_splits(with_parts, SplitOptions(test=0))
    assert (len(ignored.holdout), ignored.holdout_origin) == (0, "")
    drawn = make_splits(with_parts, SplitOptions(test=0.2))
    assert drawn.holdout_origin == "drawn"


def test_parts_without_a_labelled_test_part_hold_nothing_out(with_parts: Features) -> None:
    assert with_parts.part is not None
    y = np.where(with_parts.part == "test", -1, with_parts.y)
    assert not len(make_splits(dataclasses.replace(with_parts, y=y)).holdout)


def test_a_test_part_that_shares_groups_is_refused_with_a_fix(
    with_parts: Features,
) -> None:
    assert with_parts.part is not None
    part = with_parts.part.copy()
    row = np.flatnonzero(part == "train")[0]
    part[row] = "test"
    n_test = (part == "test").sum()
    leaking = dataclasses.replace(with_parts, part=part)
    with pytest.raises(SplitError, match=f"1 of {n_test} images") as caught:
        make_splits(leaking)
    for fact in (str(with_parts.keys[row]), "--test 0.15", "--test 0."):
        assert fact in str(caught.value)
    assert len(make_splits(leaking, SplitOptions(test=0)).rows) == len(with_parts)


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "fact"),
    [
        ([-1] * 8, "none in 0 of 8 images"),
        ([0] * 8, r"\['fish0'\] in 8 of 8"),
        ([1] * 5 + [-1], r"\['fish1'\] in 5 of 6"),
    ],
)
def test_fewer_than_two_classes_are_refused(y: list[int], fact: str) -> None:
    with pytest.raises(SplitError, match=f"At least two classes are needed.*{fact}"):
        make_splits(label_features(np.array(y)))


def test_one_class_outside_the_test_part_is_refused() -> None:
    part = np.array(["train"] * 10 + ["test"] * 10)
    features = label_features(np.repeat([0, 1], 10), part=part)
    with pytest.raises(SplitError, match=r"At least two classes .*held out"):
        make_splits(features)


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(SplitError, match=r"cv=5 .* 3 images .* 2 to 3"):
        make_splits(label_features(np.array([0, 0, 0, 1, 1, 1])))


def test_more_folds_than_groups_are_refused(make_features: MakeFeatures) -> None:
    with pytest.raises(SplitError, match=r"cv=5 .* 4 groups .* 2 to 4\. .*--cv 4 or --cv logo"):
        make_splits(make_features((4, 3)))
    with pytest.raises(SplitError, match=r"test=0\.1 .* 10 folds.* 6 groups .* 0\.17"):
        make_splits(make_features((6, 6)), SplitOptions(test=0.1))


def test_classes_of_one_group_each_are_refused(make_features: MakeFeatures) -> None:
    with pytest.raises(SplitError, match="no class has two groups"):
        make_splits(make_features((1, 1)))


@pytest.mark.parametrize("cv", [-1, 0, 1])
def test_fewer_than_two_folds_are_refused(cv: int, leaky: Features) -> None:
    with pytest.raises(SplitError, match=f"cv={cv}: at least 2 folds"):
        make_splits(leaky, SplitOptions(cv=cv))


def test_the_numbers_of_the_groups_do_not_change_the_digest() -> None:
    rows = np.array([0, 1, 3, 4])
    groups, renumbered = np.array([5, 5, 9, 2, 5]), np.array([1, 1, 0, 7, 1])
    assert partition_digest(groups, rows) == partition_digest(renumbered, rows)
    assert partition_digest(groups, rows) != partition_digest(np.array([5, 2, 9, 2, 5]), rows)
    assert partition_digest(None, rows) == ""


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (SplitOptions(test=0.6), "test must be .*0.02 to 0.5; got 0.6"),
        (SplitOptions(test=-0.1), "test must be"),
        (SplitOptions(test=float("nan")), "test must be"),
        (SplitOptions(repeats=0), "repeats must be at least 1; got 0"),
    ],
)
def test_values_that_are_not_allowed_are_refused(
    options: SplitOptions, fact: str, leaky: Features
) -> None:
    with pytest.raises(SplitError, match=fact):
        make_splits(leaky, options)


def test_a_strategy_that_does_not_exist_is_refused(leaky: Features) -> None:
    with pytest.raises(SplitError, match=r"strategy must be .*auto, grouped, random; got 'group'"):
        make_splits(leaky, strategy="group")  # type: ignore[arg-type]


def test_grouped_folds_without_groups_are_refused_with_a_fix(leaky: Features) -> None:
    with pytest.raises(SplitError, match="--group-by"):
        make_splits(dataclasses.replace(leaky, groups=None), strategy="grouped")


# --- each group in turn -----------------------------------------------------------------------


def test_logo_leaves_each_group_out_in_turn(make_features: MakeFeatures) -> None:
    features = make_features((4, 4, 1), class_effect=3)
    splits = make_splits(features, SplitOptions(cv="logo"))
    assert features.groups is not None
    assert (splits.n_folds, splits.strategy) == (9, "grouped")
    for train, test in splits.repeats[0]:
        assert len(np.unique(features.groups[test])) == 1
        assert len(train) + len(test) == len(features)
    (note,) = splits.notes
    assert note.check == "one-group-in-class"
    assert "cod" in note.message
    run = cross_validate(features, "lda", splits)
    assert (run.predicted == run.y)[run.y != 2].mean() > 0.9


def test_many_folds_of_one_class_each_are_scored_without_a_warning(
    make_features: MakeFeatures,
) -> None:
    features = make_features((6, 6, 3, 3, 3), group_of=2)
    run, other = (
        cross_validate(features, clf, make_splits(features, SplitOptions(cv="logo")))
        for clf in ("centroid", "lda")
    )
    assert len(run.folds) == 21
    assert all(np.isfinite(list(run.std.values())))
    assert 0 <= (compare(run, other, groups=features.groups).p_folds or 0) <= 1


def test_logo_leaves_out_no_held_out_group(make_features: MakeFeatures) -> None:
    features = make_features((10, 10))
    assert features.groups is not None
    splits = make_splits(features, SplitOptions(cv="logo", test=0.2))
    five_folds = make_splits(features, SplitOptions(cv=5, test=0.2))
    np.testing.assert_array_equal(splits.holdout, five_folds.holdout)
    assert splits.n_folds == len(np.unique(features.groups[splits.rows])) == 16
    assert not set(features.groups[splits.holdout]) & set(features.groups[splits.rows])


def test_logo_without_groups_is_refused(make_features: MakeFeatures) -> None:
    features = dataclasses.replace(make_features((3, 3)), groups=None)
    with pytest.raises(SplitError, match=r"cv=logo .*No groups are known"):
        make_splits(features, SplitOptions(cv="logo"))


def test_logo_with_a_single_group_is_refused(make_features: MakeFeatures) -> None:
    features = dataclasses.replace(make_features((3, 3)), groups=np.zeros(24, np.int64))
    with pytest.raises(SplitError, match=r"cv=logo.* no class has two groups"):
        make_splits(features, SplitOptions(cv="logo"))


def test_logo_where_a_fold_trains_on_a_single_class_is_refused(
    make_features: MakeFeatures,
) -> None:
    features = make_features((3, 3))
    groups = np.where(features.y == 0, 0, features.groups)
    with pytest.raises(SplitError, match=r"cv=logo.* a single class"):
        make_splits(dataclasses.replace(features, groups=groups), SplitOptions(cv="logo"))


def test_logo_with_repeats_is_refused(make_features: MakeFeatures) -> None:
    with pytest.raises(SplitError, match=r"cv=logo .*2 repeats"):
        make_splits(make_features((3, 3)), SplitOptions(cv="logo", repeats=2))


def test_logo_with_random_folds_is_refused(make_features: MakeFeatures) -> None:
    with pytest.raises(SplitError, match="cv=logo leaves groups out"):
        make_splits(make_features((3, 3)), SplitOptions(cv="logo"), strategy="random")


def test_a_number_of_folds_may_be_text(leaky: Features) -> None:
    from_text = make_splits(leaky, SplitOptions(cv="4"))
    from_number = make_splits(leaky, SplitOptions(cv=4))
    assert from_text.digest == from_number.digest


def test_any_other_text_is_refused(leaky: Features) -> None:
    with pytest.raises(SplitError, match=r"cv must be .*logo.*; got 'loo'"):
        make_splits(leaky, SplitOptions(cv="loo"))


@pytest.mark.parametrize("cv", [2.7, float("nan"), float("inf"), None, [5]])
def test_folds_that_are_no_whole_number_are_refused(leaky: Features, cv: Any) -> None:
    with pytest.raises(SplitError):
        make_splits(leaky, SplitOptions(cv=cv))


# --- notes about rare classes -----------------------------------------------------------------


def test_notes_list_the_rare_classes_and_a_fix(make_features: MakeFeatures) -> None:
    few, single = make_splits(make_features((8, 3, 1)), SplitOptions(cv=5)).notes
    assert (few.check, few.severity) == ("few-groups-in-class", "warning")
    assert few.message == "Fewer groups than folds, so not scored in every fold: bream (3)."
    for choice in ("--cv 3 or --cv logo", "--merge FILE", "--drop NAME"):
        assert choice in few.fix
    assert (single.check, single.severity) == ("one-group-in-class", "error")
    assert "cod" in single.message
    assert "--drop NAME" in single.fix
    assert "--cv" not in single.fix
    assert "bass" not in f"{few} {single}"


def test_there_are_no_notes_where_every_class_has_enough_groups(leaky: Features) -> None:
    assert make_splits(leaky).notes == ()


def test_notes_count_images_where_no_groups_are_known(make_features: MakeFeatures) -> None:
    features = dataclasses.replace(make_features((8, 1), group_of=4), groups=None)
    (note,) = make_splits(features, SplitOptions(cv=5)).notes
    assert note.check == "few-groups-in-class"
    assert "images" in note.message
    assert "bream (4)" in note.message
    assert "--cv 4" in note.fix
    assert "logo" not in note.fix


def test_a_note_lists_at_most_twelve_classes() -> None:
    y = np.concatenate([np.repeat([0, 1], 10), np.repeat(np.arange(2, 40), 3)])
    (note,) = make_splits(label_features(y)).notes
    assert "fish13 (3) and 26 more" in note.message
    assert "fish14" not in note.message


def test_a_note_names_the_classes_that_are_only_held_out(with_parts: Features) -> None:
    assert with_parts.part is not None
    part = np.where(with_parts.y == 2, "test", with_parts.part)
    part[(with_parts.y != 2) & (part == "test")] = "train"
    (note,) = make_splits(dataclasses.replace(with_parts, part=part)).notes
    assert (note.check, note.severity) == ("class-only-held-out", "error")
    assert "cod" in note.message


def test_the_run_of_the_splits_has_their_notes(make_features: MakeFeatures) -> None:
    features = make_features((8, 3, 1))
    splits = make_splits(features)
    config = cross_validate(features, "centroid", splits).config
    assert config.splits is not None
    assert config.splits.notes == splits.notes
    assert len(splits.notes) == 2


def test_notes_do_not_change_the_digest(make_features: MakeFeatures) -> None:
    splits = make_splits(make_features((8, 3, 1)))
    assert dataclasses.replace(splits, notes=()).digest == splits.digest


SLOW = ("rf", "xgb")


@pytest.mark.usefixtures("few_trees")
@pytest.mark.parametrize("groups", [(5, 2, 1), (4, 4, 1, 1), (2, 2)])
@pytest.mark.parametrize("clf", DEFAULT_CLASSIFIERS)
def test_classes_of_few_groups_can_be_fitted(
    clf: str, groups: tuple[int, ...], make_features: MakeFeatures
) -> None:
    features = make_features(groups, group_of=2)
    for cv in (2,) if clf in SLOW else (2, "logo"):
        run = cross_validate(features, clf, make_splits(features, SplitOptions(cv=cv)), jobs=1)
        assert np.isfinite(run.metrics["accuracy"])


# --- planted data leakage ---------------------------------------------------------------------


def test_a_group_on_both_sides_of_a_fold_is_detected(leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky)
    check_disjoint(splits, leaky.groups)
    groups = leaky.groups.copy()
    fold = splits.repeats[0][2]
    groups[fold.test[0]] = groups[fold.train[0]]
    with pytest.raises(SplitError, match="1 groups are on both sides"):
        check_disjoint(splits, groups)
    check_disjoint(splits, groups, folds=False)


def test_a_group_in_the_held_out_set_and_in_training_is_detected(leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky, SplitOptions(test=0.2))
    groups = leaky.groups.copy()
    groups[splits.holdout[0]] = groups[splits.rows[0]]
    for folds in (True, False):
        with pytest.raises(SplitError, match="both sides"):
            check_disjoint(splits, groups, folds=folds)


def change_first_fold(splits: Splits, **rows: Array) -> Splits:
    """Replace the training or test rows of the first fold."""
    first, *others = splits.repeats[0]
    return dataclasses.replace(splits, repeats=((first._replace(**rows), *others),))


def test_a_fold_that_trains_on_scored_or_held_out_rows_is_refused(leaky: Features) -> None:
    splits = make_splits(leaky, SplitOptions(test=0.2))
    first = splits.repeats[0][0]
    with pytest.raises(SplitError, match="trains on rows that"):
        change_first_fold(splits, train=np.append(first.train, first.test[0]))
    with pytest.raises(SplitError, match="trains on rows that"):
        change_first_fold(splits, train=np.append(first.train, splits.holdout[0]))


def test_folds_that_score_a_row_twice_or_never_are_refused(leaky: Features) -> None:
    splits = make_splits(leaky)
    first, second = splits.repeats[0][:2]
    with pytest.raises(SplitError, match="score every row once"):
        change_first_fold(splits, test=first.test[1:])
    with pytest.raises(SplitError, match="score every row once"):
        change_first_fold(splits, test=np.append(first.test, second.test[0]))


def test_held_out_rows_in_the_folds_are_refused(leaky: Features) -> None:
    splits = make_splits(leaky)
    with pytest.raises(SplitError, match="Held-out rows"):
        dataclasses.replace(splits, holdout=splits.rows[:3])
