"""Splits: whole groups on one side, every row scored once, and leaks refused."""

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
from fishfeat.classify.validation.splits import make_splits, partition_digest, prove_disjoint
from fishfeat.errors import SplitError
from fishfeat.options import SplitOptions
from fishfeat.records import BackboneSpec, Features, Fold, Splits

Array = np.ndarray[Any, Any]
MakeFeatures = Callable[..., Features]


def labelled(y: Array, **fields: Any) -> Features:
    """Features whose only content is their labels and groups."""
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


def folds_of(splits: Splits) -> list[Fold]:
    return [fold for folds in splits.repeats for fold in folds]


@st.composite
def any_features(draw: st.DrawFn) -> Features:
    """Groups of any size, mostly of one class each; some images without a label."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=4, max_size=30))
    n_classes = draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    y = rng.integers(n_classes, size=len(sizes))[groups]
    y[rng.random(len(y)) < draw(st.sampled_from([0, 0.2]))] = -1
    other = rng.random(len(y)) < draw(st.sampled_from([0, 0.1]))
    y[other] = rng.integers(n_classes, size=other.sum())
    return labelled(y, groups=groups * 3 + 5)


@given(
    any_features(),
    st.integers(2, 6),
    st.integers(1, 3),
    st.integers(0, 10**6),
    st.sampled_from(["grouped", "random"]),
    st.sampled_from([None, 0.15, 0.4]),
)
def test_whatever_the_data_splits_are_sound_or_refused(
    features: Features, n_splits: int, repeats: int, seed: int, strategy: Any, test: float | None
) -> None:
    try:
        splits = make_splits(
            features,
            SplitOptions(cv=n_splits, repeats=repeats, seed=seed, test=test),
            strategy=strategy,
        )
    except SplitError:
        reject()
    assert features.groups is not None
    groups, held = features.groups, splits.holdout
    known = np.flatnonzero(features.y >= 0)
    np.testing.assert_array_equal(np.sort(np.append(splits.rows, held)), known)
    assert not set(groups[held]) & set(groups[splits.rows])
    assert len(splits.repeats) == repeats
    for folds in splits.repeats:
        scored = np.concatenate([fold.test for fold in folds])
        np.testing.assert_array_equal(np.sort(scored), splits.rows)
    for train, tested in folds_of(splits):
        np.testing.assert_array_equal(np.sort(np.append(train, tested)), splits.rows)
        if strategy == "grouped":
            assert not set(groups[train]) & set(groups[tested])


@pytest.mark.parametrize("seed", range(20))
def test_no_seed_puts_a_group_on_both_sides(seed: int, leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky, SplitOptions(seed=seed, test=0.2))
    sides = [(fold.train, fold.test) for fold in folds_of(splits)]
    for one, other in [*sides, (splits.rows, splits.holdout)]:
        assert not set(leaky.groups[one]) & set(leaky.groups[other])


def test_groups_are_used_where_they_are_known(leaky: Features) -> None:
    grouped = make_splits(leaky)
    assert (grouped.strategy, grouped.grouping) == ("grouped", "by name")
    without = make_splits(dataclasses.replace(leaky, groups=None))
    assert (without.strategy, without.grouping) == ("random", "")
    asked = make_splits(leaky, strategy="random")
    assert (asked.strategy, asked.grouping) == ("random", "")


def test_random_splits_break_groups_apart(leaky: Features) -> None:
    assert leaky.groups is not None
    fold = make_splits(leaky, strategy="random").repeats[0][0]
    assert set(leaky.groups[fold.train]) & set(leaky.groups[fold.test])


@pytest.mark.parametrize("strategy", ["grouped", "random"])
def test_every_fold_has_each_class_in_proportion(
    strategy: Any, make_features: MakeFeatures
) -> None:
    features = make_features((10, 20, 30))
    for fold in folds_of(make_splits(features, SplitOptions(seed=3), strategy=strategy)):
        np.testing.assert_array_equal(np.bincount(features.y[fold.test]), [8, 16, 24])


def test_images_without_a_label_are_left_out(make_features: MakeFeatures) -> None:
    features = make_features()
    y = features.y.copy()
    y[::5] = -1
    splits = make_splits(dataclasses.replace(features, y=y), SplitOptions(test=0.2))
    used = np.sort(np.append(splits.rows, splits.holdout))
    np.testing.assert_array_equal(used, np.flatnonzero(y >= 0))


@pytest.mark.parametrize("strategy", ["grouped", "random"])
def test_a_seed_gives_the_same_splits_and_another_other_ones(
    strategy: Any, leaky: Features
) -> None:
    digests = [
        make_splits(leaky, SplitOptions(seed=seed), strategy=strategy).digest for seed in (4, 4, 5)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_repeats_are_drawn_anew(leaky: Features) -> None:
    splits = make_splits(leaky, SplitOptions(repeats=3))
    assert (len(splits.repeats), splits.n_folds) == (3, 5)
    tests = {folds[0].test.tobytes() for folds in splits.repeats}
    assert len(tests) == 3


def test_the_digest_changes_with_any_index(leaky: Features) -> None:
    splits = make_splits(leaky, SplitOptions(test=0.2, repeats=2))
    seen = {splits.digest}
    for r, folds in enumerate(splits.repeats):
        for f, fold in enumerate(folds):
            for i in (0, len(fold.train) // 2, -1):
                shorter = Fold(np.delete(fold.train, i), fold.test)
                changed = (*folds[:f], shorter, *folds[f + 1 :])
                repeats = (*splits.repeats[:r], changed, *splits.repeats[r + 1 :])
                seen.add(dataclasses.replace(splits, repeats=repeats).digest)
    for i in range(len(splits.holdout)):
        seen.add(dataclasses.replace(splits, holdout=np.delete(splits.holdout, i)).digest)
    seen.add(dataclasses.replace(splits, n_images=splits.n_images + 1).digest)
    assert len(seen) == 1 + 2 * 5 * 3 + len(splits.holdout) + 1


# --- held out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.45, 0.5])
def test_a_drawn_test_set_is_near_its_share_and_stratified(
    share: float, make_features: MakeFeatures
) -> None:
    features = make_features((20, 20, 40))
    splits = make_splits(features, SplitOptions(test=share))
    assert splits.holdout_origin == "drawn"
    assert len(splits.holdout) / len(features) == pytest.approx(share, abs=0.055)
    held = np.bincount(features.y[splits.holdout]) / len(splits.holdout)
    np.testing.assert_allclose(held, [0.25, 0.25, 0.5], atol=0.06)


def test_a_drawn_test_set_holds_whole_groups_even_for_random_folds(leaky: Features) -> None:
    assert leaky.groups is not None
    grouped, random = (
        make_splits(leaky, SplitOptions(test=0.15), strategy=s) for s in ("grouped", "random")
    )
    np.testing.assert_array_equal(grouped.holdout, random.holdout)
    assert not set(leaky.groups[random.holdout]) & set(leaky.groups[random.rows])


def test_no_test_set_is_drawn_unless_asked(leaky: Features) -> None:
    splits = make_splits(leaky)
    assert (len(splits.holdout), splits.holdout_origin) == (0, "")


@pytest.fixture
def parted(make_features: MakeFeatures) -> Features:
    """Parts by group: every third group is test, one in three of the others val."""
    features = make_features((9, 9, 9))
    assert features.groups is not None
    part = np.array(["test", "train", "val", "test", "train", "train"])[features.groups % 6]
    return dataclasses.replace(features, part=part)


def test_the_test_part_of_the_data_is_held_out(parted: Features) -> None:
    assert parted.part is not None
    splits = make_splits(parted)
    assert splits.holdout_origin == "parts"
    np.testing.assert_array_equal(splits.holdout, np.flatnonzero(parted.part == "test"))
    np.testing.assert_array_equal(splits.rows, np.flatnonzero(parted.part != "test"))


def test_the_test_part_may_be_ignored_or_drawn_again(parted: Features) -> None:
    ignored, drawn = (
        make_splits(parted, SplitOptions(test=0)),
        make_splits(parted, SplitOptions(test=0.2)),
    )
    assert (len(ignored.holdout), ignored.holdout_origin) == (0, "")
    assert drawn.holdout_origin == "drawn"


def test_parts_without_a_labelled_test_part_hold_nothing_out(parted: Features) -> None:
    assert parted.part is not None
    y = np.where(parted.part == "test", -1, parted.y)
    assert not len(make_splits(dataclasses.replace(parted, y=y)).holdout)


def test_a_test_part_that_shares_groups_is_refused_with_the_flags_that_mend_it(
    parted: Features,
) -> None:
    assert parted.part is not None
    part = parted.part.copy()
    moved = np.flatnonzero(part == "train")[0]
    part[moved] = "test"
    leaking = dataclasses.replace(parted, part=part)
    expected = (
        rf"1 of {(part == 'test').sum()} images .*{parted.keys[moved]}.*--test 0\.15.*--test 0\."
    )
    with pytest.raises(SplitError, match=expected):
        make_splits(leaking)
    assert len(make_splits(leaking, SplitOptions(test=0)).rows) == len(parted)


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "found"),
    [([-1] * 8, "none"), ([0] * 8, r"\['fish0'\]"), ([1] * 5 + [-1], r"\['fish1'\] in 5 of 6")],
)
def test_fewer_than_two_classes_are_refused(y: list[int], found: str) -> None:
    with pytest.raises(SplitError, match=f"At least two classes are needed; found {found}"):
        make_splits(labelled(np.array(y)))


def test_one_class_outside_the_test_part_is_refused() -> None:
    part = np.array(["train"] * 10 + ["test"] * 10)
    features = labelled(np.repeat([0, 1], 10), part=part)
    with pytest.raises(SplitError, match=r"At least two classes are needed; found .*held out"):
        make_splits(features)


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(SplitError, match=r"--cv 5 asks for 5 folds; .* 3 images .* 2 to 3"):
        make_splits(labelled(np.array([0, 0, 0, 1, 1, 1])))


def test_more_folds_than_groups_are_refused(make_features: MakeFeatures) -> None:
    with pytest.raises(
        SplitError, match=r"--cv 5 asks for 5 folds; .* 4 groups .* 2 to 4\. Take --cv 4 or"
    ):
        make_splits(make_features((4, 3)))
    with pytest.raises(
        SplitError, match=r"--test 0\.1 asks for 10 folds; .* 6 groups .* share of 0\.17"
    ):
        make_splits(make_features((6, 6)), SplitOptions(test=0.1))


def test_classes_of_one_group_each_are_refused(make_features: MakeFeatures) -> None:
    with pytest.raises(SplitError, match="no class has two groups"):
        make_splits(make_features((1, 1)))


@pytest.mark.parametrize("n_splits", [-1, 0, 1])
def test_fewer_than_two_folds_are_refused(n_splits: int, leaky: Features) -> None:
    with pytest.raises(SplitError, match=f"--cv {n_splits}: at least 2 folds are needed"):
        make_splits(leaky, SplitOptions(cv=n_splits))


def test_the_same_groups_by_other_names_have_one_digest() -> None:
    rows = np.array([0, 1, 3, 4])
    one, other = np.array([5, 5, 9, 2, 5]), np.array([1, 1, 0, 7, 1])
    assert partition_digest(one, rows) == partition_digest(other, rows)
    assert partition_digest(one, rows) != partition_digest(np.array([5, 2, 9, 2, 5]), rows)
    assert partition_digest(None, rows) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 0.6}, "--test must be 0 or a share from 0.02 to 0.5; got 0.6"),
        ({"test": -0.1}, "--test must be"),
        ({"test": float("nan")}, "--test must be"),
        ({"repeats": 0}, "--repeats must be at least 1; got 0"),
        ({"strategy": "group"}, "auto, grouped, random; got 'group'"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: dict[str, Any], message: str, leaky: Features
) -> None:
    with pytest.raises(SplitError, match=message):
        make_splits(leaky, **options)


def test_grouped_folds_without_groups_are_refused_with_a_cure(leaky: Features) -> None:
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
    assert note.startswith("Only one group, so never trained on when scored")
    assert "cod" in note
    run = cross_validate(features, "lda", splits)
    assert (run.predicted == run.y)[run.y != 2].mean() > 0.9


def test_hundreds_of_folds_of_one_class_each_are_scored_without_a_warning(
    make_features: MakeFeatures,
) -> None:
    features = make_features((40, 40, 40, 5, 5, 5, 5), group_of=2)
    run, other = (
        cross_validate(features, clf, make_splits(features, SplitOptions(cv="logo")))
        for clf in ("centroid", "lda")
    )
    assert len(run.folds) == 140
    assert all(np.isfinite(list(run.std.values())))
    assert 0 <= (compare(run, other, groups=features.groups).p_folds or 0) <= 1


def test_logo_respects_what_is_held_out(make_features: MakeFeatures) -> None:
    features = make_features((10, 10))
    assert features.groups is not None
    splits, folds = (make_splits(features, SplitOptions(cv=n, test=0.2)) for n in ("logo", 5))
    np.testing.assert_array_equal(splits.holdout, folds.holdout)
    assert splits.n_folds == len(np.unique(features.groups[splits.rows])) == 16
    assert not set(features.groups[splits.holdout]) & set(features.groups[splits.rows])


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("No groups are known", {}),
        ("no class has two groups", {}),
        ("a single class to train on", {}),
        ("draws nothing, so 2 repeats", {"repeats": 2}),
        ("leaves groups out", {"strategy": "random"}),
    ],
)
def test_what_cannot_be_left_out_is_said(
    case: str, options: dict[str, Any], make_features: MakeFeatures
) -> None:
    features = make_features((3, 3))
    assert features.groups is not None
    of_one = np.where(features.y == 0, 0, features.groups)
    groups = {
        "No groups are known": None,
        "no class has two groups": np.zeros(24, np.int64),
        "a single class to train on": of_one,
    }.get(case, features.groups)
    with pytest.raises(SplitError, match=case):
        make_splits(
            dataclasses.replace(features, groups=groups), SplitOptions(cv="logo"), **options
        )


def test_a_number_of_folds_may_be_text_and_another_word_is_refused(leaky: Features) -> None:
    assert (
        make_splits(leaky, SplitOptions(cv="4")).digest
        == make_splits(leaky, SplitOptions(cv=4)).digest
    )
    expected = r"--cv takes a number of folds \(5\) or logo \(.*\); got 'loo'"
    with pytest.raises(SplitError, match=expected):
        make_splits(leaky, SplitOptions(cv="loo"))


# --- rare classes -----------------------------------------------------------------------------


def test_rare_classes_are_noted_and_the_others_not(make_features: MakeFeatures) -> None:
    few, single = make_splits(make_features((8, 3, 1)), SplitOptions(cv=5)).notes
    assert few.startswith("Fewer groups than folds")
    assert "bream (3)." in few
    assert single.startswith("Only one group, so never trained on when scored")
    assert "cod." in single
    assert "bass" not in few + single
    for choice in ("--cv 3 or --cv logo", "--merge FILE", "--drop NAME"):
        assert choice in few
    assert "No folds mend it" in single
    assert "--drop NAME" in single


def test_nothing_is_noted_where_every_class_has_enough(leaky: Features) -> None:
    assert make_splits(leaky).notes == ()


def test_without_groups_images_are_counted(make_features: MakeFeatures) -> None:
    features = dataclasses.replace(make_features((8, 1), group_of=4), groups=None)
    (note,) = make_splits(features, SplitOptions(cv=5)).notes
    assert note.startswith("Fewer images than folds, so not scored in every fold: bream (4). Add")
    assert "--cv 4, merge" in note
    assert "logo" not in note


def test_hundreds_of_rare_classes_are_no_endless_note() -> None:
    y = np.concatenate([np.repeat([0, 1], 10), np.repeat(np.arange(2, 40), 3)])
    (note,) = make_splits(labelled(y)).notes
    assert "fish13 (3) and 26 more. Add" in note


@pytest.mark.parametrize("groups", [(8, 2, 1), (8, 8, 1, 1), (2, 2)])
@pytest.mark.parametrize("clf", DEFAULT_CLASSIFIERS)
def test_classes_of_few_groups_are_fitted_all_the_same(
    clf: str, groups: tuple[int, ...], make_features: MakeFeatures
) -> None:
    features = make_features(groups, group_of=2)
    for n_splits in (2, min(5, max(groups)), "logo"):
        run = cross_validate(
            features, clf, make_splits(features, SplitOptions(cv=n_splits)), jobs=1
        )
        assert np.isfinite(run.metrics["accuracy"])


def test_a_class_that_stands_only_in_the_test_part_is_noted(parted: Features) -> None:
    assert parted.part is not None
    part = np.where(parted.y == 2, "test", parted.part)
    part[(parted.y != 2) & (part == "test")] = "train"
    notes = make_splits(dataclasses.replace(parted, part=part)).notes
    assert notes == ("Only in the held-out images, so never trained on: cod.",)


# --- planted leaks ----------------------------------------------------------------------------


def test_a_group_planted_on_both_sides_of_a_fold_is_caught(leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky)
    prove_disjoint(splits, leaky.groups)
    groups = leaky.groups.copy()
    fold = splits.repeats[0][2]
    groups[fold.test[0]] = groups[fold.train[0]]
    with pytest.raises(SplitError, match="1 groups stand on both sides"):
        prove_disjoint(splits, groups)
    prove_disjoint(splits, groups, folds=False)


def test_a_group_planted_in_the_held_out_set_is_caught(leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky, SplitOptions(test=0.2))
    groups = leaky.groups.copy()
    groups[splits.holdout[0]] = groups[splits.rows[0]]
    for folds in (True, False):
        with pytest.raises(SplitError, match="both sides"):
            prove_disjoint(splits, groups, folds=folds)


def planted(splits: Splits, **leak: Any) -> Splits:
    """`splits` with the first fold changed as `leak` says."""
    first, *others = splits.repeats[0]
    return dataclasses.replace(splits, repeats=((first._replace(**leak), *others),))


def test_splits_refuse_to_train_on_rows_that_are_scored(leaky: Features) -> None:
    splits = make_splits(leaky, SplitOptions(test=0.2))
    first = splits.repeats[0][0]
    with pytest.raises(SplitError, match="trained on rows that are scored"):
        planted(splits, train=np.append(first.train, first.test[0]))
    with pytest.raises(SplitError, match="trained on rows that are scored"):
        planted(splits, train=np.append(first.train, splits.holdout[0]))


def test_splits_refuse_to_score_a_row_twice_or_never(leaky: Features) -> None:
    splits = make_splits(leaky)
    first, second = splits.repeats[0][:2]
    with pytest.raises(SplitError, match="score every row once"):
        planted(splits, test=first.test[1:])
    with pytest.raises(SplitError, match="score every row once"):
        planted(splits, test=np.append(first.test, second.test[0]))


def test_splits_refuse_held_out_rows_among_the_folds(leaky: Features) -> None:
    splits = make_splits(leaky)
    with pytest.raises(SplitError, match="Held-out rows"):
        dataclasses.replace(splits, holdout=splits.rows[:3])
