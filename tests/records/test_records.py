"""The records refuse what does not fit together, and tell what they hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishfeat.errors import BackboneError, DataError, SplitError
from fishfeat.records import (
    POOLS,
    PRECISIONS,
    RESIZES,
    BackboneSpec,
    Features,
    Fold,
    ImageSet,
    Rejected,
    Run,
    Splits,
)

SPEC = BackboneSpec("timm", "densenet121")


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def image_set(**changes) -> ImageSet:
    columns = {
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
    return ImageSet(**columns | changes)


def features(**changes) -> Features:
    columns = {
        "X": np.ones((2, 3), np.float32),
        "keys": np.array(["a.png", "b.png"]),
        "y": rows(0, -1),
        "class_names": np.array(["cod"]),
        "spec": SPEC,
        "fingerprint": "f",
    }
    return Features(**columns | changes)


def splits(*folds: tuple[list[int], list[int]], **changes) -> Splits:
    columns = {
        "repeats": (tuple(Fold(rows(*train), rows(*test)) for train, test in folds),),
        "strategy": "random",
        "seed": 0,
        "n_images": 6,
        "rows": rows(0, 1, 2, 3),
    }
    return Splits(**columns | changes)


def run(**changes) -> Run:
    columns = {
        "name": "svc",
        "kind": "classical",
        "split": "grouped",
        "keys": np.array(["a.png", "b.png", "c.png"]),
        "y": rows(0, 1, 0),
        "class_names": np.array(["cod", "dab"]),
        "scores": np.full((2, 3, 2), 0.5),
        "score_kind": "proba",
        "fold": np.zeros((2, 3), np.int64),
        **{name: {} for name in ("metrics", "intervals", "seconds", "config", "versions")},
        "folds": (),
        "splits_digest": "d",
    }
    return Run(**columns | changes)


# --- image sets -------------------------------------------------------------------------------


def test_labels_are_the_names_of_the_classes_and_empty_where_there_is_none():
    assert image_set().labels.tolist() == ["dab", "", "cod"]
    assert len(image_set()) == 3
    assert image_set().path(1) == Path("/data/b.png")


def test_labels_longer_than_any_class_name_so_far_are_not_cut():
    images = image_set(class_names=np.array(["a", "a very long class name"]))
    assert images.labels.tolist() == ["a very long class name", "", "a"]


PER_IMAGE = ["y", "digest", "n_bytes", "mtime_ns", "width", "height", "groups", "part"]


@pytest.mark.parametrize("column", PER_IMAGE)
def test_a_column_of_another_length_is_refused_by_name(column):
    with pytest.raises(DataError) as caught:
        image_set(**{column: rows(0, 0)})
    assert str(caught.value) == f"ImageSet: 3 keys but lengths {{'{column}': 2}}."


@pytest.mark.parametrize("keys", [["b", "a", "c"], ["a", "a", "b"]])
def test_keys_must_be_sorted_and_unique(keys):
    with pytest.raises(DataError, match="must be sorted and unique"):
        image_set(keys=np.array(keys))


@pytest.mark.parametrize("y", [rows(0, 1, 2), rows(0, -2, 1)])
def test_a_label_without_a_class_is_refused(y):
    with pytest.raises(DataError, match="y must lie in -1 to 1; got"):
        image_set(y=y)


@pytest.mark.parametrize("chosen", [rows(0, 2), np.array([True, False, True])])
def test_selecting_keeps_each_image_with_all_that_belongs_to_it(chosen):
    lost = Rejected("b.png", "broken")
    whole = image_set(
        groups=rows(5, 6, 7),
        part=np.array(["train", "val", "test"]),
        rejected=(Rejected("z.png", "empty file"),),
        notes=("A note.",),
    )
    half = whole.select(chosen, rejected=(lost,))
    for column in ("keys", *PER_IMAGE):
        assert getattr(half, column).tolist() == getattr(whole, column)[[0, 2]].tolist()
    assert [r.key for r in half.rejected] == ["z.png", "b.png"]
    assert (half.notes, half.class_names is whole.class_names) == (("A note.",), True)
    assert len(whole) == 3


def test_selecting_invents_no_groups_and_no_parts():
    half = image_set().select(rows(1))
    assert (half.groups, half.part) == (None, None)


def test_selecting_nothing_gives_an_empty_set_with_the_same_classes():
    none = image_set().select(rows())
    assert (len(none), none.labels.tolist()) == (0, [])
    assert none.class_names.tolist() == ["cod", "dab"]


def test_rejecting_by_digest_takes_every_copy_names_each_and_leaves_no_empty_class():
    images = image_set()
    digest = np.where(images.y == images.y[0], "same", images.digest)
    left = dataclasses.replace(images, digest=digest).reject({"same": "why", "other": "no"})
    gone = images.y == images.y[0]
    assert left.keys.tolist() == images.keys[~gone].tolist()
    assert left.labels.tolist() == images.labels[~gone].tolist()
    assert left.class_names.tolist() == sorted(set(images.labels[~gone]) - {""})
    found = [(lost.key, lost.reason, lost.label) for lost in left.rejected]
    assert found == [
        (key, "why", label)
        for key, label in zip(images.keys[gone], images.labels[gone], strict=True)
    ]
    assert images.reject({"other": "no"}) is images


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        image_set().y = rows(0, 0, 0)


# --- specifications ---------------------------------------------------------------------------

SPECS = st.builds(
    BackboneSpec,
    st.sampled_from(["timm", "torchvision", "hf-hub", "local-dir", "random"]),
    st.text(max_size=10),
    layer=st.sampled_from(["last", "3", "features.norm5"]),
    pool=st.sampled_from(POOLS),
    img_size=st.none() | st.integers(8, 4096),
    resize=st.sampled_from(RESIZES),
    precision=st.sampled_from(PRECISIONS),
    tta=st.sampled_from(["none", "flip", "d4", "rotate:2", "rotate:12"]),
)


@settings(max_examples=40)
@given(SPECS)
def test_a_specification_comes_back_from_its_json_with_the_same_key(spec):
    again = BackboneSpec.from_json(spec.to_json())
    assert (again, again.key) == (spec, spec.key)
    values = json.loads(spec.to_json())
    values["tta"] = values.pop("views", "none")  # the key in files
    assert values == dataclasses.asdict(spec)


@pytest.mark.parametrize(
    "change",
    [
        *({"source": "random"}, {"name": "resnet18"}, {"layer": "3"}, {"pool": "max"}),
        *({"img_size": 64}, {"resize": "pad"}, {"precision": "bf16"}, {"tta": "flip"}),
    ],
)
def test_whatever_changes_the_vectors_changes_the_key(change):
    assert dataclasses.replace(SPEC, **change).key != SPEC.key


def test_the_key_is_that_of_the_caches_on_disk():
    # Changing it would orphan every cache: raise the protocol of the files when you must.
    assert dataclasses.replace(SPEC, precision="fp32").key.startswith("baba5907")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("resize", "padd", "--resize must be one of squash, pad, crop; got 'padd'. Did you mean"),
        ("pool", "mean", "--pool must be one of auto, avg, max, token; got 'mean'."),
        ("precision", "fp8", "--precision must be one of auto, fp32, bf16, fp16; got 'fp8'."),
        (
            "tta",
            "rotate:1",
            "--tta must be one of none, flip, d4, rotate:N with N from 2 to 99",
        ),
        (
            "tta",
            "flipp",
            "--tta must be one of none, flip, d4, rotate:N with N from 2 to 99; got",
        ),
        ("img_size", 7, "--img-size must be 8 to 4096 pixels; got 7."),
        ("img_size", 4097, "--img-size must be 8 to 4096 pixels; got 4097."),
    ],
)
def test_an_option_that_is_not_known_is_refused_with_what_is(option, value, said):
    with pytest.raises(BackboneError) as caught:
        BackboneSpec("timm", "resnet18", **{option: value})
    assert str(caught.value).startswith(said)


def test_a_description_names_what_is_not_the_default():
    assert SPEC.describe() == "timm:densenet121, its own input size, squash"
    odd = BackboneSpec("local-dir", "/models/mine", "3", "max", 64, "pad", "bf16")
    assert odd.describe() == "local-dir:mine, 64 px, pad, layer 3, max pooling, bf16"


# --- features ---------------------------------------------------------------------------------


def test_features_know_their_shape():
    assert (len(features()), features().dim) == (2, 3)


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
        features(X=X)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named_with_the_cure(bad):
    X = np.ones((2, 3), np.float32)
    X[1, 2] = bad
    with pytest.raises(DataError) as caught:
        features(X=X)
    assert str(caught.value) == (
        "1 feature vectors are not finite ('b.png'): the network overflows in this precision. "
        "Extract with --precision fp32."
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [("X", np.ones((1, 3), np.float32)), ("y", rows(0)), ("groups", rows(0)), ("part", rows(0))],
)
def test_features_and_labels_must_have_one_row_for_each_key(column, value):
    with pytest.raises(DataError, match=rf"Features: 2 keys but lengths \{{'{column}': 1\}}"):
        features(**{column: value})


# --- splits -----------------------------------------------------------------------------------

HALVES = (([2, 3], [0, 1]), ([0, 1], [2, 3]))


def test_folds_that_score_every_row_once_are_splits():
    assert splits(*HALVES, holdout=rows(5)).n_folds == 2


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
        splits(*folds)


def test_every_repeat_is_checked():
    good = tuple(Fold(rows(*train), rows(*test)) for train, test in HALVES)
    with pytest.raises(SplitError, match="must score every row once"):
        splits(repeats=(good, good[:1]))


@pytest.mark.parametrize("train", [[0, 2, 3], [2, 3, 4], [2, 3, 5]])
def test_training_on_what_is_scored_or_held_out_is_refused(train):
    with pytest.raises(SplitError, match="trained on rows that are scored"):
        splits((train, [0, 1]), HALVES[1], holdout=rows(5))


def test_a_row_cannot_be_held_out_and_scored():
    with pytest.raises(SplitError, match="Held-out rows stand among the rows of the folds"):
        splits(*HALVES, holdout=rows(3))


def test_equal_splits_have_one_digest_and_every_difference_another():
    swapped = (([1, 3], [0, 2]), ([0, 2], [1, 3]))
    smaller = (([2], [0, 1]), ([0, 1], [2, 3]))
    digests = [
        splits(*HALVES).digest,
        splits(*HALVES[::-1]).digest,
        splits(*swapped).digest,
        splits(*smaller).digest,
        splits(*HALVES, strategy="grouped").digest,
        splits(*HALVES, n_images=7).digest,
        splits(*HALVES, holdout=rows(5)).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert splits(*HALVES).digest == digests[0]


def test_the_digest_looks_at_the_indices_and_not_at_their_type():
    narrow = tuple(Fold(rows(*a).astype(np.int32), rows(*b).astype(np.int32)) for a, b in HALVES)
    assert splits(repeats=(narrow,)).digest == splits(*HALVES).digest


# --- runs -------------------------------------------------------------------------------------


def test_scores_are_averaged_over_repeats_before_a_class_is_chosen():
    scores = np.zeros((2, 3, 2))
    scores[0] = [[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]
    scores[1] = [[0.6, 0.4], [0.0, 1.0], [1.0, 0.0]]
    assert np.allclose(run(scores=scores).mean_scores, [[0.75, 0.25], [0.2, 0.8], [0.7, 0.3]])
    assert run(scores=scores).predicted.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": np.zeros((2, 3, 3))},
        {"scores": np.zeros((2, 4, 2))},
        {"scores": np.zeros((3, 2))},
        {"fold": np.zeros((1, 3), np.int64)},
    ],
)
def test_scores_of_another_shape_are_refused(changes):
    with pytest.raises(DataError, match="scores must have the shape"):
        run(**changes)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="The scores of 'svc' are not all finite"):
        run(scores=np.full((2, 3, 2), np.nan))


@pytest.mark.parametrize("y", [rows(0, 1), rows(0, 1, 2)])
def test_labels_of_a_run_must_fit(y):
    with pytest.raises(DataError):
        run(y=y)
