import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from fishfeat.report.output import thumbnails
from fishfeat.report.output.page import write_report
from fishfeat.report.output.page_data import format_script_json, format_thumbnail_lines
from fishfeat.report.output.thumbnails import make_thumbnails, order_rows


def opened(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_each_thumbnail_is_of_its_own_image(make_images):
    images = make_images(12)
    found = make_thumbnails(images, range(12)).small
    assert found.is_complete
    for row, text in found.encoded.items():
        red = np.asarray(opened(text).convert("RGB"))[..., 0].mean()
        assert red == pytest.approx(row * 7 % 256, abs=12)


def test_no_side_is_longer_than_the_longest(make_images):
    images = make_images(3)
    Image.new("RGB", (900, 300)).save(images.path(1))
    found = make_thumbnails(images, range(3)).small
    assert opened(found.encoded[1]).size == (found.side, round(found.side / 3))


def test_the_budget_is_kept_and_the_first_come_first(make_images):
    images = make_images(30)
    order = np.random.default_rng(0).permutation(30).tolist()
    whole = make_thumbnails(images, order).small
    sizes = [len(base64.b64decode(whole.encoded[row])) for row in order]
    part = make_thumbnails(images, order, budget=sum(sizes[:7])).small
    assert list(part.encoded) == order[:7]
    assert not part.is_complete


def test_an_image_that_is_gone_has_an_empty_thumbnail(make_images):
    images = make_images(3)
    images.path(1).unlink()
    found = make_thumbnails(images, range(3)).small
    assert [bool(found.encoded[row]) for row in range(3)] == [True, False, True]
    assert format_thumbnail_lines(found, 3).split("\n") == [found.encoded[0], "", found.encoded[2]]


def test_every_image_is_wanted_once_and_rare_classes_early(make_images):
    y = np.array([0] * 50 + [1] * 5 + [2] * 5)
    rows = order_rows(make_images(60, y=y), [59, 3, 59])
    assert rows[:2] == [59, 3]
    assert sorted(rows) == list(range(60))
    assert np.bincount(y[rows[2:16]]).min() >= 4


def test_nothing_in_the_data_ends_the_script_element():
    hostile = {"keys": ["</script><script>alert(1)</script>", "<!--", "a\u2028b", "&amp;"]}
    text = format_script_json(hostile)
    assert not set("<>&") & set(text)
    assert text.isascii()
    assert json.loads(text) == hostile


def test_large_thumbnails_are_small_jpegs_and_keep_their_shape(make_images):
    images = make_images(3)
    large = make_thumbnails(images, range(3), large_rows={0, 2}).large
    assert sorted(large) == [0, 2]
    assert (large[2].width, large[2].height) == (22, 12)
    assert large[2].uri.startswith("data:image/jpeg;base64,")


def test_a_large_thumbnail_is_made_even_when_the_budget_is_spent(make_images):
    images = make_images(200)
    made = make_thumbnails(images, range(200), large_rows={3, 199}, budget=300)
    assert len(made.small.encoded) < 10
    assert sorted(made.large) == [3, 199]


def test_a_report_decodes_each_image_once(make_images, make_run, tmp_path, monkeypatch):
    images = make_images()
    n_decoded = dict.fromkeys(map(images.path, range(30)), 0)
    read_bytes = thumbnails.read_bytes

    def count_image(path):
        n_decoded[path] += 1
        return read_bytes(path)

    monkeypatch.setattr(thumbnails, "read_bytes", count_image)
    write_report([make_run(images, wrong=[3, 20])], images, tmp_path)
    assert set(n_decoded.values()) == {1}
