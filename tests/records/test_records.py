"""The records refuse values that do not fit together, and describe what they hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishfeat.checks import Finding
from fishfeat.errors import BackboneError, DataError, SplitError
from fishfeat.options import Pool, Precision, Resize
from fishfeat.records import (
    SOURCES,
    BackboneSpec,
    Chance,
    Features,
    FeaturesInfo,
    Fold,
    FoldScore,
    ImageSet,
    Rejected,
    Run,
    RunConfig,
    Splits,
    SplitsInfo,
)

SPEC = BackboneSpec("timm", "densenet121")


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def make_images(**changes) -> ImageSet:
    fields = {
        "name": "fish",
        "root": Path("/data"),
        "keys": np.array(["a.png", "b.png", "c.png"]),
        "y": rows(1, -1, 0),
        "class_names": np.array(["cod", "dab"]),
        "digest": np.array(["da", "db", "dc"]),
        "n_bytes": rows(10, 11, 12),
        "mtime_ns": rows(20, 21, 22),
        "width": rows(30, 31, 32),
        "height": rows(40, 41, 42),
    }
    return ImageSet(**fields | changes)


def make_features(**changes) -> Features:
    fields = {
        "X": np.ones((2, 3), np.float32),
        "keys": np.array(["a.png", "b.png"]),
        "y": rows(0, -1),
        "class_names": np.array(["cod"]),
        "spec": SPEC,
        "fingerprint": "f",
    }
    return Features(**fields | changes)


def make_splits(*folds: tuple[list[int], list[int]], **changes) -> Splits:
    fields = {
        "repeats": (tuple(Fold(rows(*train), rows(*test)) for train, test in folds),),
        "strategy": "random",
        "seed": 0,
        "n_images": 6,
        "rows": rows(0, 1, 2, 3),
    }
    return Splits(**fields | changes)


def make_run(**changes) -> Run:
    fields = {
        "name": "svc",
        "kind": "classical",
        "split": "grouped",
        "keys": np.array(["a.png", "b.png", "c.png"]),
        "y": rows(0, 1, 0),
        "class_names": np.array(["cod", "dab"]),
        "scores": np.full((2, 3, 2), 0.5),
        "fold": np.zeros((2, 3), np.int64),
        "metrics": {},
        "intervals": {},
        "seconds": {},
        "config": RunConfig("svc"),
        "versions": {},
        "folds": (),
        "splits_digest": "d",
    }
    return Run(**fields | changes)


# --- image sets -------------------------------------------------------------------------------


def test_labels_are_class_names_and_empty_for_images_without_a_label():
    assert make_images().labels.tolist() == ["dab", "", "cod"]
    assert len(make_images()) == 3
    assert make_images().path(1) == Path("/data/b.png")


def test_long_labels_are_not_cut():
    images = make_images(class_names=np.array(["a", "a very long class name"]))
    assert images.labels.tolist() == ["a very long class name", "", "a"]


PER_IMAGE = ["y", "digest", "n_bytes", "mtime_ns", "width", "height", "groups", "part"]


@pytest.mark.parametrize("column", PER_IMAGE)
def test_a_column_of_another_length_is_refused_by_name(column):
    with pytest.raises(DataError) as caught:
        make_images(**{column: rows(0, 0)})
    assert str(caught.value) == f"ImageSet: 3 keys but lengths {{'{column}': 2}}."


@pytest.mark.parametrize("keys", [["b", "a", "c"], ["a", "a", "b"]])
def test_keys_must_be_sorted_and_unique(keys):
    with pytest.raises(DataError, match="must be sorted and unique"):
        make_images(keys=np.array(keys))


@pytest.mark.parametrize("y", [rows(0, 1, 2), rows(0, -2, 1)])
def test_a_label_without_a_class_is_refused(y):
    with pytest.raises(DataError, match="y must be -1 to 1; got"):
        make_images(y=y)


@pytest.mark.parametrize("selected", [rows(0, 2), np.array([True, False, True])])
def test_selected_images_keep_all_their_columns(selected):
    broken = Rejected("b.png", "broken")
    images = make_images(
        groups=rows(5, 6, 7),
        part=np.array(["train", "val", "test"]),
        rejected=(Rejected("z.png", "empty file"),),
        notes=("A note.",),
    )
    selection = images.select(selected, rejected=(broken,))
    for column in ("keys", *PER_IMAGE):
        assert getattr(selection, column).tolist() == getattr(images, column)[[0, 2]].tolist()
    assert [r.key for r in selection.rejected] == ["z.png", "b.png"]
    assert selection.notes == ("A note.",)
    assert selection.class_names is images.class_names
    assert len(images) == 3


def test_selecting_adds_no_groups_and_no_parts():
    selection = make_images().select(rows(1))
    assert (selection.groups, selection.part) == (None, None)


def test_selecting_no_rows_gives_an_empty_set_with_the_same_classes():
    empty = make_images().select(rows())
    assert (len(empty), empty.labels.tolist()) == (0, [])
    assert empty.class_names.tolist() == ["cod", "dab"]


def test_rejecting_a_digest_rejects_every_image_that_has_it_and_drops_empty_classes():
    images = make_images(y=rows(1, 0, 1), digest=np.array(["same", "other", "same"]))
    rest = images.reject({"same": "broken", "absent": "unused"})
    assert rest.keys.tolist() == ["b.png"]
    assert rest.labels.tolist() == ["cod"]
    assert rest.class_names.tolist() == ["cod"]
    assert [(r.key, r.reason, r.label, r.digest) for r in rest.rejected] == [
        ("a.png", "broken", "dab", "same"),
        ("c.png", "broken", "dab", "same"),
    ]
    assert [(r.n_bytes, r.mtime_ns) for r in rest.rejected] == [(10, 20), (12, 22)]


def test_rejecting_a_digest_that_no_image_has_changes_nothing():
    images = make_images()
    assert images.reject({"absent": "unused"}) is images


RECORDS = [
    RunConfig("svc"),
    SplitsInfo("random", 0, 5),
    FeaturesInfo("pond", SPEC, "f", 3),
    FoldScore(0, 0, 4, 2, 2, 0.0, 0.0, {}),
    SPEC,
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_fields_of_a_record_cannot_be_changed(record):
    for field in dataclasses.fields(record):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field.name, None)


def test_arrays_of_a_record_cannot_be_replaced():
    for record, field in [(make_images(), "y"), (make_features(), "X"), (make_run(), "scores")]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field, rows(0, 0, 0))


# --- specifications ---------------------------------------------------------------------------

SPECS = st.builds(
    BackboneSpec,
    st.sampled_from(SOURCES),
    st.text(max_size=10),
    layer=st.sampled_from(["last", "3", "features.norm5"]),
    pool=st.sampled_from(get_args(Pool)),
    img_size=st.none() | st.integers(8, 4096),
    resize=st.sampled_from(get_args(Resize)),
    precision=st.sampled_from(get_args(Precision)),
    tta=st.sampled_from(["none", "flip", "d4", "rotate:2", "rotate:12"]),
    white=st.none() | st.sampled_from([1.0, 4095.0, 10000.0]),
)


@settings(max_examples=40)
@given(SPECS)
def test_a_specification_survives_json_with_the_same_key(spec):
    again = BackboneSpec.from_json(spec.to_json())
    assert (again, again.key) == (spec, spec.key)
    values = json.loads(spec.to_json())
    # Files keep the words of version 0.1.0.
    values["tta"] = values.pop("views", "none")
    if values["source"] == "embedded":
        values["source"] = "bundled"
    assert ("white" in values) == (spec.white is not None)
    values.setdefault("white", None)
    assert values == dataclasses.asdict(spec)


@pytest.mark.parametrize(
    "change",
    [
        *({"source": "random"}, {"name": "resnet18"}, {"layer": "3"}, {"pool": "max"}),
        *({"img_size": 64}, {"resize": "pad"}, {"precision": "bf16"}, {"tta": "flip"}),
        {"white": 4095.0},
    ],
)
def test_each_field_changes_the_key(change):
    assert dataclasses.replace(SPEC, **change).key != SPEC.key


def test_the_key_is_that_of_the_caches_on_disk():
    # With other keys no cache on disk would be found again.
    assert dataclasses.replace(SPEC, precision="fp32").key.startswith("baba5907")


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("resize", "padd", "squash, pad, crop"),
        ("pool", "mean", "auto, avg, max, token"),
        ("precision", "fp8", "auto, fp32, bf16, fp16"),
        ("tta", "rotate:1", "none, flip, d4, rotate:N with N from 2 to 99"),
        ("tta", "flipp", "none, flip, d4, rotate:N with N from 2 to 99"),
        ("white", 0.0, "a number above 0"),
        ("white", float("nan"), "a number above 0"),
        ("img_size", 7, "8 to 4096 pixels"),
        ("img_size", 4097, "8 to 4096 pixels"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_those_that_are(option, value, allowed):
    with pytest.raises(BackboneError) as caught:
        BackboneSpec("timm", "resnet18", **{option: value})
    message = str(caught.value)
    assert message.startswith(f"{option} must be ")
    assert allowed in message
    assert str(value) in message


def test_a_source_that_does_not_exist_is_refused():
    with pytest.raises(BackboneError, match=r"torchvision, hf-hub.*got tim:resnet18"):
        BackboneSpec("tim", "resnet18")


def test_a_description_lists_the_fields_that_are_not_the_default():
    assert SPEC.describe() == "timm:densenet121, its own input size, squash"
    changed = BackboneSpec("local-dir", "/models/mine", "3", "max", 64, "pad", "bf16", "flip")
    expected = "local-dir:mine, 64 px, pad, layer 3, max pooling, bf16, TTA flip"
    assert changed.describe() == expected


# --- features ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_images, make_features])
@pytest.mark.parametrize(
    "groups",
    [
        np.array(["a", "a", "b"]),
        np.array([0.0, 1.0, np.nan]),
        np.array([[0], [0], [1]]),
        np.array([0, -1, -1]),
        [0, 0, 1],
    ],
)
def test_groups_are_whole_numbers_from_0(make, groups):
    n = len(make())
    assert make(groups=rows(0, 0, 1)[:n]).groups is not None
    with pytest.raises(DataError, match=r"^groups must be"):
        make(groups=groups[:n])


def test_features_have_the_labels_of_their_classes():
    assert make_features().labels.tolist() == ["cod", ""]


def test_selected_features_keep_all_their_columns():
    features = make_features(X=np.arange(6, dtype=np.float32).reshape(2, 3), groups=rows(4, 7))
    for chosen in (rows(1), np.array([False, True])):
        selected = features.select(chosen)
        assert (selected.keys.tolist(), selected.labels.tolist()) == (["b.png"], [""])
        assert (selected.X.tolist(), selected.groups.tolist()) == ([[3, 4, 5]], [7])
        assert selected.class_names.tolist() == ["cod"]


def test_the_images_of_features_are_those_that_could_be_read():
    images = make_images(groups=rows(0, 0, 1), rejected=(Rejected("x.png", "empty file"),))
    features = make_features(
        keys=np.array(["a.png", "c.png"]),
        y=rows(1, 0),
        class_names=np.array(["cod", "dab"]),
        groups=rows(0, 1),
        rejected=(Rejected("x.png", "empty file"), Rejected("b.png", "truncated")),
    )
    used = features.select_images(images)
    assert (used.keys.tolist(), used.labels.tolist()) == (["a.png", "c.png"], ["dab", "cod"])
    assert used.groups.tolist() == [0, 1]
    assert {file.key: file.reason for file in used.rejected} == {
        "x.png": "empty file",
        "b.png": "truncated",
    }
    of_one_class = features.select(rows(1))
    only = dataclasses.replace(of_one_class, y=rows(0), class_names=np.array(["cod"]), rejected=())
    left = only.select_images(images)
    assert (left.class_names.tolist(), left.labels.tolist()) == (["cod"], ["cod"])
    assert [(file.key, file.label) for file in left.rejected[1:]] == [
        ("a.png", "dab"),
        ("b.png", ""),
    ]
    with pytest.raises(DataError, match="1 of 2 are not among them"):
        features.select_images(images.select(rows(0, 1)))


def test_features_have_a_length_and_a_dimension():
    assert (len(make_features()), make_features().dim) == (2, 3)


@pytest.mark.parametrize(
    "X",
    [
        np.ones((2, 3), np.float64),
        np.ones((2,), np.float32),
        np.asfortranarray(np.ones((2, 3), np.float32)),
    ],
)
def test_features_are_contiguous_float32_of_two_dimensions(X):
    with pytest.raises(DataError, match="C-contiguous float32 array of two dimensions"):
        make_features(X=X)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_with_a_fix(bad):
    X = np.ones((2, 3), np.float32)
    X[1, 2] = bad
    with pytest.raises(DataError) as caught:
        make_features(X=X)
    for fact in ("1 feature", "b.png", "--precision fp32"):
        assert fact in str(caught.value)
    assert "a.png" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [("X", np.ones((1, 3), np.float32)), ("y", rows(0)), ("groups", rows(0)), ("part", rows(0))],
)
def test_features_and_labels_must_have_one_row_for_each_key(column, value):
    with pytest.raises(DataError, match=rf"Features: 2 keys but lengths \{{'{column}': 1\}}"):
        make_features(**{column: value})


# --- splits -----------------------------------------------------------------------------------

TWO_FOLDS = (([2, 3], [0, 1]), ([0, 1], [2, 3]))


def test_folds_that_score_every_row_once_are_accepted():
    assert make_splits(*TWO_FOLDS, holdout=rows(5)).n_folds == 2


@pytest.mark.parametrize(
    "folds",
    [
        (([2, 3], [0, 1]), ([0, 1], [2])),
        (([2, 3], [0, 1]), ([0, 1], [1, 2, 3])),
        (([2, 3], [0, 1]), ([0, 1], [2, 3, 4])),
    ],
)
def test_folds_that_do_not_score_every_row_once_are_refused(folds):
    with pytest.raises(SplitError, match="must score every row once"):
        make_splits(*folds)


def test_every_repeat_is_checked():
    good = tuple(Fold(rows(*train), rows(*test)) for train, test in TWO_FOLDS)
    with pytest.raises(SplitError, match="must score every row once"):
        make_splits(repeats=(good, good[:1]))


@pytest.mark.parametrize("train", [[0, 2, 3], [2, 3, 4], [2, 3, 5]])
def test_training_on_scored_or_held_out_rows_is_refused(train):
    with pytest.raises(SplitError, match="trains on rows that"):
        make_splits((train, [0, 1]), TWO_FOLDS[1], holdout=rows(5))


def test_splits_of_other_kinds_are_refused():
    good = (([0, 1], [2, 3]), ([2, 3], [0, 1]))
    with pytest.raises(SplitError, match="must be grouped or random"):
        make_splits(*good, strategy="mine")
    with pytest.raises(SplitError, match=r"Rows must be 0 to 2; got 0 to 3"):
        make_splits(*good, n_images=3)
    with pytest.raises(SplitError, match="at least one repeat"):
        make_splits(repeats=())
    plain = ((rows(0, 1), rows(2, 3)), (rows(2, 3), rows(0, 1)))
    with pytest.raises(SplitError, match=r"Fold\(train, test\)"):
        make_splits(repeats=(plain,))


def test_a_row_cannot_be_held_out_and_scored():
    with pytest.raises(SplitError, match="Held-out rows are among the rows"):
        make_splits(*TWO_FOLDS, holdout=rows(3))


def test_equal_splits_have_one_digest_and_different_splits_have_another():
    swapped = (([1, 3], [0, 2]), ([0, 2], [1, 3]))
    smaller = (([2], [0, 1]), ([0, 1], [2, 3]))
    digests = [
        make_splits(*TWO_FOLDS).digest,
        make_splits(*TWO_FOLDS[::-1]).digest,
        make_splits(*swapped).digest,
        make_splits(*smaller).digest,
        make_splits(*TWO_FOLDS, strategy="grouped").digest,
        make_splits(*TWO_FOLDS, n_images=7).digest,
        make_splits(*TWO_FOLDS, holdout=rows(5)).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert make_splits(*TWO_FOLDS).digest == digests[0]


def test_the_digest_does_not_depend_on_the_type_of_the_indices():
    narrow = tuple(Fold(rows(*a).astype(np.int32), rows(*b).astype(np.int32)) for a, b in TWO_FOLDS)
    assert make_splits(repeats=(narrow,)).digest == make_splits(*TWO_FOLDS).digest


# --- runs -------------------------------------------------------------------------------------


def test_scores_are_averaged_over_repeats_before_a_class_is_chosen():
    scores = np.zeros((2, 3, 2))
    scores[0] = [[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]
    scores[1] = [[0.6, 0.4], [0.0, 1.0], [1.0, 0.0]]
    run = make_run(scores=scores)
    assert np.allclose(run.mean_scores, [[0.75, 0.25], [0.2, 0.8], [0.7, 0.3]])
    assert run.predicted.tolist() == [0, 1, 0]


def test_correct_is_the_share_of_repeats_that_classify_an_image_correctly():
    scores = np.zeros((2, 3, 2))
    scores[0] = [[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]
    scores[1] = [[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]]
    assert make_run(scores=scores).correct.tolist() == [1, 0.5, 0]


def make_fold(number: int, **metrics: float) -> FoldScore:
    return FoldScore(0, number, 4, 2, 2, 0.1, 0.1, metrics)


def test_std_is_over_all_folds_and_only_of_metrics_that_each_fold_has():
    folds = (make_fold(0, accuracy=0.5, auroc=0.5), make_fold(1, accuracy=0.7))
    run = make_run(folds=folds, metrics={"accuracy": 0.6, "auroc": 0.5})
    assert run.std == {"accuracy": pytest.approx(0.2 / np.sqrt(2))}
    assert make_run(folds=folds[:1], metrics={"accuracy": 0.5}).std == {}


@pytest.mark.parametrize(
    ("split", "info", "expected"),
    [
        ("grouped", SplitsInfo("grouped", 0, 3, n_groups=3), True),
        ("grouped", SplitsInfo("grouped", 0, 3, n_groups=4), False),
        ("grouped", None, False),
        ("random", SplitsInfo("random", 0, 3, n_groups=3), False),
    ],
)
def test_a_run_knows_whether_each_fold_scores_one_group(split, info, expected):
    fold = np.tile(np.arange(3), (2, 1))
    run = make_run(split=split, fold=fold, config=RunConfig("svc", splits=info))
    assert run.n_folds == 3
    assert run.leaves_groups_out is expected


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": np.zeros((2, 3, 3))},
        {"scores": np.zeros((2, 4, 2))},
        {"scores": np.zeros((3, 2))},
    ],
)
def test_scores_of_another_shape_are_refused(changes):
    with pytest.raises(DataError, match=r"scores .* shape"):
        make_run(**changes)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match=r"scores of 'svc' .*finite"):
        make_run(scores=np.full((2, 3, 2), np.nan))


def test_fold_numbers_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"fold of 'svc' .* shape"):
        make_run(fold=np.zeros((1, 3), np.int64))


@pytest.mark.parametrize("y", [rows(0, 1), rows(0, 1, 2)])
def test_labels_of_a_run_must_fit(y):
    with pytest.raises(DataError):
        make_run(y=y)


# --- configurations ---------------------------------------------------------------------------


def make_config(**changes) -> RunConfig:
    fields = {
        "clf": "svc",
        "params": {"rbfsvc__C": 10},
        "features": FeaturesInfo("pond", SPEC, "f", 3),
        "splits": SplitsInfo("grouped", 0, 5, n_groups=7),
        "notes": (Finding("cheaper-with-many-images", "A note."),),
    }
    return RunConfig(**fields | changes)


def test_configurations_of_equal_fields_are_equal():
    assert make_config() == make_config()
    assert RunConfig("svc") == RunConfig("svc", balanced=False, seed=0, device="cpu", search="")


@pytest.mark.parametrize(
    "change",
    [
        {"clf": "rf"},
        {"balanced": True},
        {"seed": 1},
        {"device": "cuda"},
        {"search": "20"},
        {"params": {"rbfsvc__C": 3}},
        {"features": FeaturesInfo("lake", SPEC, "f", 3)},
        {"splits": SplitsInfo("random", 0, 5, n_groups=7)},
        {"members": ("svc", "rf")},
        {"notes": ()},
        {"chance": Chance(0.5, (0.4,), 0.3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_field_makes_a_configuration_different(change):
    assert make_config(**change) != make_config()


def test_a_configuration_of_another_program_has_no_features_and_no_splits():
    config = RunConfig("their-network")
    assert (config.features, config.splits, config.chance) == (None, None, None)
    assert (config.params, config.members, config.notes) == ({}, (), ())
