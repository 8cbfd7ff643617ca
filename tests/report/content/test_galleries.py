import numpy as np
import pytest

from fishfeat.errors import DataError
from fishfeat.report.content.galleries import build_galleries, select_typical_images
from fishfeat.report.run_view import RunView, find_first_of_each


def view_of(run, images):
    return RunView(run.name, run.name, run, images)


def by_name(view, peers=()):
    return {gallery.name: gallery for gallery in build_galleries(view, peers)}


def test_confident_incorrect_images_are_incorrect_and_the_most_confident_come_first(
    make_images, make_run
):
    images = make_images(40, groups_of=1)
    margin = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, 40))
    wrong = [2, 5, 11, 17, 23, 31]
    found = by_name(view_of(make_run(images, wrong=wrong, margin=margin), images))[
        "confident_incorrect"
    ]
    confident = [i for i in wrong if margin[i] >= np.quantile(margin, 0.25)]
    assert [shot.row for shot in found.images] == sorted(confident, key=lambda i: -margin[i])
    assert not any(shot.is_correct for shot in found.images)
    assert all(shot.true_label != shot.predicted_label for shot in found.images)
    assert found.n_images == len(confident)


def test_uncertain_images_are_those_with_the_smallest_margins(make_images, make_run):
    images = make_images(40, groups_of=1)
    found = by_name(view_of(make_run(images, margin=np.linspace(0.9, 0.1, 40)), images))[
        "uncertain"
    ]
    assert [shot.row for shot in found.images[:3]] == [39, 38, 37]
    assert found.n_images == 10


def test_confident_correct_images_are_correct_and_one_of_each_class(make_images, make_run):
    images = make_images(30)
    found = by_name(view_of(make_run(images, wrong=[29]), images))["confident_correct"]
    assert all(shot.is_correct and shot.true_label == shot.predicted_label for shot in found.images)
    assert sorted(shot.true_label for shot in found.images) == ["bream", "cod", "dab"]


def test_images_that_only_this_run_classifies_correctly_or_incorrectly(make_images, make_run):
    images = make_images(30, groups_of=1)
    views = [
        view_of(make_run(images, "a", wrong=[1, 2, 3]), images),
        view_of(make_run(images, "b", wrong=[2, 3, 4]), images),
        view_of(make_run(images, "c", wrong=[3, 2, 5, 6]), images),
    ]

    def rows(view, name):
        peers = [other for other in views if other is not view]
        return {shot.row for shot in by_name(view, peers)[name].images}

    assert [rows(view, "only_incorrect") for view in views] == [{1}, {4}, {5, 6}]
    assert [rows(view, "only_correct") for view in views] == [set(), set(), set()]
    correct_alone = view_of(make_run(images, "d", wrong=[2]), images)
    peers = [view_of(make_run(images, n, wrong=[2, 7]), images) for n in "ef"]
    assert [shot.row for shot in by_name(correct_alone, peers)["only_correct"].images] == [7]


def test_a_run_alone_is_not_compared(make_images, make_run):
    images = make_images(30)
    assert "only_correct" not in by_name(view_of(make_run(images), images))


def test_of_each_group_one_image_is_shown_and_the_others_counted(make_images, make_run):
    images = make_images(40, groups_of=10)
    found = by_name(view_of(make_run(images, wrong=range(10, 20)), images))["confident_incorrect"]
    assert [(shot.row, shot.n_more, shot.unit) for shot in found.images] == [(19, 9, "group")]
    assert found.n_images == 10


def test_first_of_each_keeps_the_order():
    assert find_first_of_each(np.array([7, 7, 2, 7, 2, 9])).tolist() == [0, 2, 5]


def test_a_view_finds_its_rows_in_a_larger_image_set(make_images, make_run):
    images = make_images(30)
    run = make_run(images.select(np.arange(10, 30, 3)))
    assert view_of(run, images).rows.tolist() == list(range(10, 30, 3))
    with pytest.raises(DataError, match="no longer in the data set"):
        _ = view_of(run, images.select(np.arange(20))).rows


def test_each_class_is_shown_by_the_image_that_scores_highest_for_it(make_images, make_run):
    images = make_images(30)
    found = select_typical_images(view_of(make_run(images), images))
    assert found == {"bream": 25, "cod": 27, "dab": 29}
