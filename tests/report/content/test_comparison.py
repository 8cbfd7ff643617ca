import dataclasses

import numpy as np
import pytest

from fishfeat.errors import DataError, SplitError
from fishfeat.records import BackboneSpec, FeaturesInfo, RunConfig
from fishfeat.report.content.comparison import (
    check_comparable,
    compare_with_best,
    label_runs,
    measure_optimism,
    rank_runs,
    score_majority_class,
)


def test_runs_are_ranked_best_first_whatever_their_order(make_images, make_run):
    images = make_images()
    runs = [make_run(images, name, wrong=range(n)) for name, n in (("a", 9), ("b", 2), ("c", 5))]
    assert [standing.label for standing in rank_runs(runs)] == ["b", "c", "a"]
    assert [standing.label for standing in rank_runs(runs[::-1])] == ["b", "c", "a"]


def test_the_random_run_of_the_same_classifier_stands_beside_the_grouped_one(make_images, make_run):
    images = make_images()
    runs = [
        make_run(images, "svc", wrong=[1, 2, 3]),
        make_run(images, "svc", wrong=[1], split="random"),
        make_run(images, "rf", split="random"),
    ]
    (standing,) = rank_runs(runs)
    assert standing.random is runs[1]
    optimism = measure_optimism(standing, images)
    assert optimism.value == pytest.approx(2 / 30)
    assert optimism.low <= optimism.value <= optimism.high


def test_optimism_is_not_measured_between_runs_on_other_images(make_images, make_run):
    images = make_images()
    few = images.select(np.arange(20))
    (standing,) = rank_runs([make_run(few), make_run(images, split="random")])
    assert standing.random is not None
    assert measure_optimism(standing, images) is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda images: {"splits_digest": "0" * 64}, "folds"),
        (lambda images: {"y": images.y[::-1].copy()}, "images or labels"),
        (lambda images: {"class_names": np.array(["x", "y", "z"])}, "classes"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(make_images, make_run, change, what):
    images = make_images()
    runs = [make_run(images, "svc"), make_run(images, "rf")]
    runs[1] = dataclasses.replace(runs[1], **change(images))
    with pytest.raises(SplitError, match=f"different {what} .*'svc'.*'rf'"):
        check_comparable(runs)


def test_grouped_and_random_folds_may_differ(make_images, make_run):
    images = make_images()
    check_comparable([make_run(images), make_run(images, split="random")])


def test_no_runs_are_refused_with_the_command_that_fixes_it():
    with pytest.raises(DataError, match="fishfeat fit"):
        check_comparable([])


def test_a_run_is_close_to_the_best_where_their_difference_may_be_chance(make_images, make_run):
    images = make_images(120)
    hard = list(range(0, 60))  # images that all runs get wrong do not tell which run is better
    runs = [
        make_run(images, "best", wrong=hard),
        make_run(images, "near", wrong=[*hard[:-4], *range(60, 65)]),
        make_run(images, "far", wrong=[*hard, *range(60, 90)]),
    ]
    found = compare_with_best(rank_runs(runs), images)
    assert {label: d.is_significant for label, d in found.items()} == {"near": False, "far": True}
    assert found["far"].value == pytest.approx(0.25)


def test_a_difference_made_by_one_group_alone_may_be_chance(make_images, make_run):
    images = make_images(120, groups_of=30)
    runs = [make_run(images, "best"), make_run(images, "one group", wrong=range(30))]
    assert compare_with_best(rank_runs(runs), images)["one group"].is_significant is False
    alone = make_images(120, groups_of=None)
    runs = [make_run(alone, "best"), make_run(alone, "one group", wrong=range(30))]
    assert compare_with_best(rank_runs(runs), alone)["one group"].is_significant


def test_labels_grow_only_until_the_runs_differ(make_images, make_run):
    images = make_images()
    run = make_run(images)
    other = dataclasses.replace(run.config, balanced=True)
    assert label_runs([run, make_run(images, "rf")]) == ["svc", "rf"]
    assert label_runs([run, dataclasses.replace(run, config=other)]) == [
        "svc",
        "svc, balanced",
    ]
    assert len(set(label_runs([run, run]))) == 2


def test_labels_name_the_backbone_where_there_are_several(make_images, make_run):
    images = make_images()
    runs = []
    for name, size in (("one", 64), ("one", 96), ("two", 64)):
        backbone = BackboneSpec("timm", name, img_size=size)
        features = FeaturesInfo(dataset="pond", backbone=backbone, fingerprint=name, dim=8)
        runs.append(make_run(images, config=RunConfig("svc", features=features)))
    assert label_runs(runs[1:]) == ["svc on one", "svc on two"]
    assert label_runs(runs)[0] == "svc on timm:one, 64 px, squash"


def test_the_baseline_predicts_the_most_frequent_class(make_images, make_run):
    images = make_images(y=np.repeat([0, 1, 2], [20, 6, 4]))
    majority = score_majority_class(make_run(images))
    assert majority == ("bream", 2 / 3, 1 / 3)


def test_counterparts_are_found_among_runs_of_one_name(make_images, make_run):
    images = make_images()
    configs = [RunConfig("svc", params={"C": c}) for c in (1, 10)]
    grouped = [make_run(images, config=c, wrong=range(i)) for i, c in enumerate(configs)]
    random = [make_run(images, config=c, split="random") for c in configs]
    assert [s.random for s in rank_runs([*random[::-1], *grouped])] == random


def test_a_search_that_ends_elsewhere_on_random_folds_is_still_the_same_classifier(
    make_images, make_run
):
    images = make_images()
    grouped = make_run(images, config=RunConfig("svc", params={"C": 1}))
    random = make_run(images, config=RunConfig("svc", params={"C": 9}), split="random")
    assert rank_runs([grouped, random])[0].random is random
