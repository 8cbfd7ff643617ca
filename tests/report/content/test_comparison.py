import dataclasses

import numpy as np
import pytest

from fishfeat.errors import DataError, SplitError
from fishfeat.report.content.comparison import (
    always_most_frequent,
    behind,
    check_comparable,
    labels_of,
    leaderboard,
    leak,
)


def test_runs_are_ranked_best_first_whatever_their_order(make_images, make_run):
    images = make_images()
    runs = [make_run(images, name, wrong=range(n)) for name, n in (("a", 9), ("b", 2), ("c", 5))]
    assert [standing.label for standing in leaderboard(runs)] == ["b", "c", "a"]
    assert [standing.label for standing in leaderboard(runs[::-1])] == ["b", "c", "a"]


def test_the_random_run_of_the_same_classifier_stands_beside_the_grouped_one(make_images, make_run):
    images = make_images()
    runs = [
        make_run(images, "svc", wrong=[1, 2, 3]),
        make_run(images, "svc", wrong=[1], split="random"),
        make_run(images, "rf", split="random"),
    ]
    (standing,) = leaderboard(runs)
    assert standing.random is runs[1]
    worth = leak(standing, images)
    assert worth.value == pytest.approx(2 / 30)
    assert worth.low <= worth.value <= worth.high


def test_no_leak_is_told_between_runs_on_other_images(make_images, make_run):
    images = make_images()
    few = images.select(np.arange(20))
    (standing,) = leaderboard([make_run(few), make_run(images, split="random")])
    assert standing.random is not None
    assert leak(standing, images) is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda images: {"splits_digest": "0" * 64}, "folds"),
        (lambda images: {"y": images.y[::-1].copy()}, "images or labels"),
        (lambda images: {"class_names": np.array(["x", "y", "z"])}, "classes"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(make_images, make_run, change, what):
    images = make_images()
    runs = [make_run(images, "svc"), make_run(images, "rf")]
    runs[1] = dataclasses.replace(runs[1], **change(images))
    with pytest.raises(SplitError, match=f"different {what} .*'svc'.*'rf'"):
        check_comparable(runs)


def test_grouped_and_random_folds_may_differ(make_images, make_run):
    images = make_images()
    check_comparable([make_run(images), make_run(images, split="random")])


def test_no_runs_are_refused_with_the_cure():
    with pytest.raises(DataError, match="fishfeat fit"):
        check_comparable([])


def test_a_run_is_close_to_the_best_where_their_difference_may_be_chance(make_images, make_run):
    images = make_images(120)
    hard = list(range(0, 60))  # what everybody gets wrong says nothing of who is better
    runs = [
        make_run(images, "best", wrong=hard),
        make_run(images, "near", wrong=[*hard[:-4], *range(60, 65)]),
        make_run(images, "far", wrong=[*hard, *range(60, 90)]),
    ]
    found = behind(leaderboard(runs), images)
    assert {label: d.is_significant for label, d in found.items()} == {"near": False, "far": True}
    assert found["far"].value == pytest.approx(0.25)


def test_a_difference_made_by_one_group_alone_may_be_chance(make_images, make_run):
    images = make_images(120, groups_of=30)
    runs = [make_run(images, "best"), make_run(images, "one group", wrong=range(30))]
    assert not behind(leaderboard(runs), images)["one group"].is_significant
    alone = make_images(120, groups_of=None)
    runs = [make_run(alone, "best"), make_run(alone, "one group", wrong=range(30))]
    assert behind(leaderboard(runs), alone)["one group"].is_significant


def test_labels_grow_only_until_the_runs_differ(make_images, make_run):
    images = make_images()
    run = make_run(images)
    other = dict(run.config) | {"balanced": True}
    assert labels_of([run, make_run(images, "rf")]) == ["svc", "rf"]
    assert labels_of([run, dataclasses.replace(run, config=other)]) == [
        "svc",
        "svc, balanced",
    ]
    assert len(set(labels_of([run, run]))) == 2


def test_labels_name_the_backbone_where_there_are_several(make_images, make_run):
    images = make_images()
    names = ("timm:one, 64 px, squash", "timm:one, 96 px, squash", "timm:two, 64 px, squash")
    runs = [make_run(images, config={"features": {"description": name}}) for name in names]
    assert labels_of(runs[1:]) == ["svc on one", "svc on two"]
    assert labels_of(runs)[0] == "svc on timm:one, 64 px, squash"


def test_the_baseline_names_the_largest_class(make_images, make_run):
    images = make_images(y=np.repeat([0, 1, 2], [20, 6, 4]))
    found = always_most_frequent(make_run(images))
    assert found == {"accuracy": 2 / 3, "balanced_accuracy": 1 / 3}


def test_counterparts_are_found_among_runs_of_one_name(make_images, make_run):
    images = make_images()
    configs = [{"clf": "svc", "params": {"C": c}, "splits": {}} for c in (1, 10)]
    grouped = [make_run(images, config=c, wrong=range(i)) for i, c in enumerate(configs)]
    random = [make_run(images, config=c, split="random") for c in configs]
    assert [s.random for s in leaderboard([*random[::-1], *grouped])] == random


def test_a_search_that_ends_elsewhere_on_random_folds_is_still_the_same_classifier(
    make_images, make_run
):
    images = make_images()
    grouped = make_run(images, config={"params": {"C": 1}})
    random = make_run(images, config={"params": {"C": 9}}, split="random")
    assert leaderboard([grouped, random])[0].random is random
