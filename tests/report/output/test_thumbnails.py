import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from fishfeat.report.output.page_data import as_script, thumb_lines
from fishfeat.report.output.thumbnails import most_wanted, small_thumbnails


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_each_thumbnail_is_of_its_own_image(make_images):
    images = make_images(12)
    found = small_thumbnails(images, range(12))
    assert found.all_held
    for row, text in found.encoded.items():
        red = np.asarray(opened(text).convert("RGB"))[..., 0].mean()
        assert red == pytest.approx(row * 7 % 256, abs=12)


def test_no_side_is_longer_than_the_longest(make_images):
    images = make_images(3)
    Image.new("RGB", (900, 300)).save(images.path(1))
    found = small_thumbnails(images, range(3))
    assert opened(found.encoded[1]).size == (found.side, round(found.side / 3))


def test_the_budget_is_kept_and_the_first_come_first(make_images):
    images = make_images(30)
    order = np.random.default_rng(0).permutation(30).tolist()
    whole = small_thumbnails(images, order)
    sizes = [len(base64.b64decode(whole.encoded[row])) for row in order]
    part = small_thumbnails(images, order, budget=sum(sizes[:7]))
    assert list(part.encoded) == order[:7]
    assert not part.all_held


def test_a_image_that_is_gone_has_an_empty_thumbnail(make_images):
    images = make_images(3)
    images.path(1).unlink()
    found = small_thumbnails(images, range(3))
    assert [bool(found.encoded[row]) for row in range(3)] == [True, False, True]
    assert thumb_lines(found, 3).split("\n") == [found.encoded[0], "", found.encoded[2]]


def test_every_image_is_wanted_once_and_rare_classes_early(make_images):
    y = np.array([0] * 50 + [1] * 5 + [2] * 5)
    rows = most_wanted(make_images(60, y=y), [59, 3, 59])
    assert rows[:2] == [59, 3]
    assert sorted(rows) == list(range(60))
    assert np.bincount(y[rows[2:16]]).min() >= 4


def test_nothing_in_the_data_ends_the_script_element():
    hostile = {"keys": ["</script><script>alert(1)</script>", "<!--", "a\u2028b", "&amp;"]}
    text = as_script(hostile)
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text) == hostile
