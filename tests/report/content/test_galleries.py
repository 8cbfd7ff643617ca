import numpy as np
import pytest

from fishfeat.errors import DataError
from fishfeat.report.content.galleries import (
    View,
    first_of_each,
    galleries,
    thumbnails,
    typical_images,
)


def view_of(run, images):
    return View(run.name, run.name, run, images)


def chosen(view, peers=()):
    return {gallery.name: gallery for gallery in galleries(view, peers)}


def test_sure_and_wrong_images_are_wrong_and_the_surest_come_first(make_images, make_run):
    images = make_images(40, groups_of=1)
    margin = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, 40))
    wrong = [2, 5, 11, 17, 23, 31]
    found = chosen(view_of(make_run(images, wrong=wrong, margin=margin), images))["sure_and_wrong"]
    sure = [i for i in wrong if margin[i] >= np.quantile(margin, 0.25)]
    assert [shot.row for shot in found.shots] == sorted(sure, key=lambda i: -margin[i])
    assert not any(shot.correct for shot in found.shots)
    assert all(shot.true != shot.predicted for shot in found.shots)
    assert found.total == len(sure)


def test_unsure_images_are_those_with_the_smallest_margins(make_images, make_run):
    images = make_images(40, groups_of=1)
    found = chosen(view_of(make_run(images, margin=np.linspace(0.9, 0.1, 40)), images))["unsure"]
    assert [shot.row for shot in found.shots[:3]] == [39, 38, 37]
    assert found.total == 10


def test_sure_and_right_images_are_right_and_one_of_each_class(make_images, make_run):
    images = make_images(30)
    found = chosen(view_of(make_run(images, wrong=[29]), images))["sure_and_right"]
    assert all(shot.correct and shot.true == shot.predicted for shot in found.shots)
    assert sorted(shot.true for shot in found.shots) == ["bream", "cod", "dab"]


def test_only_this_run_right_and_wrong(make_images, make_run):
    images = make_images(30, groups_of=1)
    views = [
        view_of(make_run(images, "a", wrong=[1, 2, 3]), images),
        view_of(make_run(images, "b", wrong=[2, 3, 4]), images),
        view_of(make_run(images, "c", wrong=[3, 2, 5, 6]), images),
    ]

    def rows(view, name):
        peers = [other for other in views if other is not view]
        return {shot.row for shot in chosen(view, peers)[name].shots}

    assert [rows(view, "only_wrong") for view in views] == [{1}, {4}, {5, 6}]
    assert [rows(view, "only_right") for view in views] == [set(), set(), set()]
    right_alone = view_of(make_run(images, "d", wrong=[2]), images)
    peers = [view_of(make_run(images, n, wrong=[2, 7]), images) for n in "ef"]
    assert [shot.row for shot in chosen(right_alone, peers)["only_right"].shots] == [7]


def test_a_run_alone_is_not_compared(make_images, make_run):
    images = make_images(30)
    assert "only_right" not in chosen(view_of(make_run(images), images))


def test_of_each_group_one_image_is_shown_and_the_others_counted(make_images, make_run):
    images = make_images(40, groups_of=10)
    found = chosen(view_of(make_run(images, wrong=range(10, 20)), images))["sure_and_wrong"]
    assert [(shot.row, shot.more, shot.of) for shot in found.shots] == [(19, 9, "group")]
    assert found.total == 10


def test_first_of_each_keeps_the_order():
    assert first_of_each(np.array([7, 7, 2, 7, 2, 9])).tolist() == [0, 2, 5]


def test_a_view_finds_its_rows_in_a_larger_image_set(make_images, make_run):
    images = make_images(30)
    run = make_run(images.select(np.arange(10, 30, 3)))
    assert view_of(run, images).rows.tolist() == list(range(10, 30, 3))
    with pytest.raises(DataError, match="no longer in the data set"):
        _ = view_of(run, images.select(np.arange(20))).rows


def test_each_class_is_shown_by_the_image_that_scores_highest_for_it(make_images, make_run):
    images = make_images(30)
    found = typical_images(view_of(make_run(images), images))
    assert found == {"bream": 25, "cod": 27, "dab": 29}


def test_thumbnails_are_small_and_keep_their_shape(make_images):
    images = make_images(3)
    made = thumbnails(images, [2, 0, 2])
    assert list(made) == [0, 2]
    assert (made[2].width, made[2].height) == (22, 12)
    assert made[2].uri.startswith("data:image/jpeg;base64,")
