"""Near-duplicates are found whatever was done to them, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fishfeat.images.decode import read_image
from fishfeat.images.grouping.candidates import centre_features, find_nearest
from fishfeat.images.grouping.grey_images import (
    LONGEST_SIDE,
    GreyImage,
    make_grey_image,
    read_grey_image,
)
from fishfeat.images.grouping.local_features import detect_features, unit_descriptors
from fishfeat.images.grouping.near_duplicates import (
    find_near_duplicates,
    near_duplicate_groups,
)
from fishfeat.images.grouping.registration import RegistrationScore, register, score_registration
from fishfeat.images.grouping.words import assign_words, draw_vocabulary, make_word_vectors
from fishfeat.images.scan import scan
from fishfeat.options import ScanOptions
from fishfeat.records import ImageSet
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates


def photograph(seed: int, *, height: int = 150, width: int = 200) -> np.ndarray:
    """Something with as much to see as a photograph: blurred noise of several sizes."""
    rng = np.random.default_rng(seed)
    grey = np.zeros((height, width), np.float32)
    for sigma in (2, 5, 12):
        noise = rng.standard_normal((height, width)).astype(np.float32)
        grey += cv2.normalize(cv2.GaussianBlur(noise, (0, 0), sigma), None, -1, 1, cv2.NORM_MINMAX)
    grey = cv2.normalize(grey, None, 30, 220, cv2.NORM_MINMAX)
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


def turned(rgb: np.ndarray, degrees: float) -> np.ndarray:
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(rgb, matrix, (width, height))


def recompressed(rgb: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def brightened(rgb: np.ndarray, gain: float, offset: float) -> np.ndarray:
    return np.clip(rgb * gain + offset, 0, 255).astype(np.uint8)


COPIES = {
    "turned by 37 degrees": lambda rgb: turned(rgb, 37),
    "turned by 180 degrees": lambda rgb: turned(rgb, 180),
    "turned by 90 degrees": lambda rgb: np.rot90(rgb).copy(),
    "mirrored": lambda rgb: rgb[:, ::-1].copy(),
    "upside down": lambda rgb: rgb[::-1].copy(),
    "mirrored and turned": lambda rgb: turned(rgb[:, ::-1].copy(), 200),
    "cropped": lambda rgb: rgb[20:130, 40:190].copy(),
    "turned and cropped": lambda rgb: turned(rgb, 25)[25:125, 35:165].copy(),
    "half the size": lambda rgb: cv2.resize(rgb, None, fx=0.5, fy=0.5),
    "twice the size": lambda rgb: cv2.resize(rgb, None, fx=2, fy=2),
    "recompressed": lambda rgb: recompressed(rgb, 40),
    "brighter": lambda rgb: brightened(rgb, 1.4, 20),
    "darker": lambda rgb: brightened(rgb, 0.6, -10),
}


def write_images(folder: Path, images: dict[str, np.ndarray]) -> Path:
    for key, rgb in images.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / key), rgb[:, :, ::-1])
    return folder


def compare_images(a: GreyImage, b: GreyImage) -> RegistrationScore | None:
    registration = register(detect_features(a), detect_features(b))
    return None if registration is None else score_registration(a, b, registration)


def image_set(keys: list[str]) -> ImageSet:
    """Images that are only keys."""
    zeros = np.zeros(len(keys), np.int64)
    return ImageSet(
        name="fish",
        root=Path("/data/fish"),
        keys=np.array(keys, str),
        y=zeros,
        class_names=np.array(["fish"]),
        digest=np.array(keys, str),
        n_bytes=zeros,
        mtime_ns=zeros,
        width=zeros,
        height=zeros,
    )


def find_groups(folder: Path, **options) -> set[frozenset[str]]:
    """Groups of several images, as sets of keys."""
    images = scan(folder)
    groups: dict[str, set[str]] = {}
    for key, name in zip(
        images.keys.tolist(),
        near_duplicate_groups(images, find_near_duplicates(images, **options)),
        strict=True,
    ):
        if name:
            groups.setdefault(name, set()).add(key)
    return {frozenset(keys) for keys in groups.values()}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_recognised_whatever_was_done_to_it(change):
    original = photograph(4)
    for first, second in (
        (original, COPIES[change](original)),
        (COPIES[change](original), original),
    ):
        score = compare_images(make_grey_image(first), make_grey_image(second))
        assert score is not None
        assert score.is_duplicate, score


def test_different_images_are_no_copies():
    grey_images = [make_grey_image(photograph(seed)) for seed in range(6)]
    for i, a in enumerate(grey_images):
        for b in grey_images[:i]:
            score = compare_images(a, b)
            assert score is None or not score.is_duplicate


def test_two_animals_before_one_background_are_no_copies():
    reef, one, other = (photograph(seed) for seed in (1, 2, 3))
    with_one, with_other = reef.copy(), reef.copy()
    with_one[50:100, 60:130] = one[50:100, 60:130]
    with_other[50:100, 60:130] = other[50:100, 60:130]
    score = compare_images(make_grey_image(with_one), make_grey_image(with_other))
    assert score is not None
    assert score.n_inliers > 30, "the background does match; only the pixels tell them apart"
    assert not score.is_duplicate


def test_images_that_share_only_an_edge_are_no_copies():
    scene = photograph(4, height=150, width=400)
    left, right = make_grey_image(scene[:, :240].copy()), make_grey_image(scene[:, 170:].copy())
    score = compare_images(left, right)
    assert score is None or not score.is_duplicate


@pytest.mark.parametrize("rgb", [np.zeros((40, 40, 3), np.uint8), np.full((1, 1, 3), 9, np.uint8)])
def test_images_with_nothing_in_them_are_compared_without_an_error(rgb):
    assert compare_images(make_grey_image(rgb), make_grey_image(rgb)) is None


def test_the_transform_leads_from_the_copys_pixels_to_the_originals():
    original = photograph(5)
    crop = cv2.resize(original[20:130, 40:190], None, fx=0.5, fy=0.5)
    score = compare_images(make_grey_image(original), make_grey_image(crop))
    assert score.transform @ [0, 0, 1] == pytest.approx([40, 20], abs=1.5)
    assert score.transform @ [75, 55, 1] == pytest.approx([190, 130], abs=1.5)


def test_the_transform_counts_in_pixels_of_the_file_however_it_was_decoded(tmp_path):
    large = cv2.resize(photograph(3), (2400, 1800), interpolation=cv2.INTER_CUBIC)
    crop = large[300:1500, 400:2000]
    for name, rgb in (("large.jpg", large), ("crop.jpg", crop)):
        Image.fromarray(rgb).save(tmp_path / name, quality=92)
    a, b = read_grey_image(tmp_path / "large.jpg"), read_grey_image(tmp_path / "crop.jpg")
    score = compare_images(a, b)
    assert score is not None
    pixel = 2400 / LONGEST_SIDE
    assert score.transform @ [0, 0, 1] == pytest.approx([400, 300], abs=pixel)
    assert score.transform @ [1600, 1200, 1] == pytest.approx([2000, 1500], abs=pixel)


@pytest.mark.parametrize("change", ["mirrored", "upside down", "turned by 90 degrees"])
def test_a_mirrored_or_turned_image_has_the_same_descriptors(change):
    rgb = photograph(6)
    descriptors, other_descriptors, strange_descriptors = (
        unit_descriptors(detect_features(make_grey_image(image)).descriptors)
        for image in (rgb, COPIES[change](rgb), photograph(7))
    )
    assert np.median((descriptors @ other_descriptors.T).max(axis=1)) > 0.98
    assert np.median((descriptors @ strange_descriptors.T).max(axis=1)) < 0.95


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (9, 500), (30, 30)])
def test_images_of_any_size_have_features_or_none(size):
    rgb = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    features = detect_features(make_grey_image(rgb))
    assert features.descriptors.shape == (len(features.points), 128)
    assert features.descriptors.dtype == np.uint8


@pytest.mark.parametrize(
    ("transform", "mirrored", "scale", "degrees"),
    [
        ((1, 0, 0, 0, 1, 0), False, 1, 0),
        ((0, -2, 5, 2, 0, 5), False, 2, 90),
        ((-1, 0, 9, 0, 1, 0), True, 1, 0),
        ((0.5, 0, 0, 0, -0.5, 0), True, 0.5, 180),
    ],
)
def test_a_pair_says_how_one_was_turned(transform, mirrored, scale, degrees):
    pair = DuplicatePair("a", "b", "pixels", transform=transform)
    assert (pair.mirrored, pair.scale) == (mirrored, pytest.approx(scale))
    assert abs(pair.degrees) == pytest.approx(degrees)


def test_copies_are_grouped_through_one_another_and_strangers_stay_alone(tmp_path):
    originals = [photograph(seed) for seed in (11, 12)]
    images = {
        f"fish/{n}-{i:02d}.png": make(original)
        for n, original in enumerate(originals)
        for i, make in enumerate(COPIES.values())
    }
    alone = {f"fish/x{seed}.png": photograph(seed) for seed in range(20, 26)}
    groups = find_groups(write_images(tmp_path, images | alone))
    assert groups == {frozenset(k for k in images if f"/{n}-" in k) for n in (0, 1)}


def test_more_copies_than_neighbours_of_two_ends_of_a_photograph_are_one_set(tmp_path):
    """All neighbours of an image of one end show that end; only looking beyond finds the other."""
    wide = photograph(4, height=150, width=320)
    ends = {"left": wide[:, :200], "right": wide[:, 40:240]}
    images = {
        f"a/{end}{i}.png": brightened(rgb, 1 + i / 20, i)
        for end, rgb in ends.items()
        for i in range(6)
    }
    images |= {f"b/other{i}.png": photograph(20 + i) for i in range(12)}
    X = np.zeros((24, 16), np.float32)
    X[:6, 0], X[6:12, 0], X[6:12, 1] = 1, 0.9, 0.4  # the ends are alike, each is more like itself
    X[12:] = np.eye(12, 16, 2)
    assert find_groups(write_images(tmp_path, images), X=X, n_neighbours=2) == {
        frozenset(key for key in images if key.startswith("a/"))
    }


def test_neighbours_may_be_sought_outside_a_set():
    V = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 2]] + np.float32(0.1)
    V /= np.linalg.norm(V, axis=1, keepdims=True)
    index, cosine = find_nearest(V, k=2, rows=np.array([0]), set_of=np.array([7, 7, 7, 8, 9]))
    assert sorted(index[0].tolist()) == [3, 4]
    assert np.isfinite(cosine).all()


def test_few_images_share_words():
    """The vocabulary is drawn from the images themselves: not every feature becomes a word."""
    copies = [detect_features(make_grey_image(photograph(1))).descriptors]
    copies += [detect_features(make_grey_image(turned(photograph(1), 7))).descriptors]
    vocabulary = draw_vocabulary(copies)
    assert len(vocabulary) <= 1 + sum(map(len, copies)) // 8
    first, second = make_word_vectors(assign_words(copies, vocabulary), len(vocabulary))
    assert first @ second > 0.5


def test_an_image_takes_little_memory():
    image = make_grey_image(photograph(1, height=900, width=1200))
    features = detect_features(image)
    n_bytes = image.pixels.nbytes + image.valid_mask.nbytes
    n_bytes += features.points.nbytes + features.descriptors.nbytes
    assert n_bytes < 65_000, "100,000 images in 6.5 GB"


def test_two_looks_find_the_same(tmp_path):
    rgb = photograph(1)
    images = {f"fish/{i:02d}.png": make(rgb) for i, make in enumerate(COPIES.values())}
    images = scan(write_images(tmp_path, images))
    assert str(find_near_duplicates(images)) == str(find_near_duplicates(images))


def test_the_same_bytes_are_copies_without_a_look(tmp_path):
    for name in ("a", "b", "c"):
        write_images(tmp_path, {f"fish/{name}.png": np.full((9, 9, 3), 80, np.uint8)})
    duplicates = find_near_duplicates(scan(tmp_path))
    assert [(p.key, p.other, p.how) for p in duplicates.pairs] == [
        ("fish/a.png", "fish/b.png", "bytes"),
        ("fish/a.png", "fish/c.png", "bytes"),
    ]
    assert duplicates.n_compared == 0


def test_an_image_that_vanished_is_no_copy_and_no_error(tmp_path):
    rgb = photograph(1)
    images = scan(write_images(tmp_path, {f"fish/{n}.png": turned(rgb, 7 * n) for n in range(4)}))
    images.path(3).unlink()
    groups = near_duplicate_groups(images, find_near_duplicates(images))
    assert groups == ["fish/0.png"] * 3 + [""]


def test_features_give_the_cosine_of_the_evidence(tmp_path):
    rgb = photograph(1)
    images = scan(write_images(tmp_path, {f"fish/{n}.png": turned(rgb, 7 * n) for n in range(3)}))
    X = np.array([[1, 0, 0], [1, 0.1, 0], [0, 0, 1]], np.float32)
    V = dict(zip(images.keys.tolist(), centre_features(X), strict=True))
    pairs = find_near_duplicates(images, X).pairs
    assert len(pairs) >= 2
    assert [p.cosine for p in pairs] == pytest.approx([V[p.key] @ V[p.other] for p in pairs])
    assert all(np.isnan(p.cosine) for p in find_near_duplicates(images).pairs)


def test_every_pair_is_progress(tmp_path):
    images = scan(write_images(tmp_path, {f"fish/{n}.png": photograph(n) for n in range(5)}))
    seen: list[tuple[int, int]] = []
    find_near_duplicates(images, on_progress=lambda done, total: seen.append((done, total)))
    assert (5, 5) in seen
    assert all(done <= total for done, total in seen)


@given(st.integers(2, 40) | st.integers(600, 900), st.integers(1, 12), st.integers(0, 5))
def test_the_nearest_are_those_of_the_whole_matrix(n, k, seed):
    V = centre_features(np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32))
    index, cosine = find_nearest(V, k=k)
    whole = V @ V.T
    np.fill_diagonal(whole, -np.inf)
    k = min(k, n - 1)
    assert index.shape == cosine.shape == (n, k)
    np.testing.assert_allclose(cosine, np.sort(whole, axis=1)[:, ::-1][:, :k], atol=1e-5)
    assert not (index == np.arange(n)[:, None]).any()
    np.testing.assert_allclose(np.take_along_axis(whole, index, axis=1), cosine, atol=1e-5)


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_a_group_is_named_by_its_first_image(n, edges):
    images = image_set([f"fish/{i:02d}.png" for i in range(n)])
    keys = images.keys.tolist()
    pairs, is_connected = [], np.eye(n, dtype=bool)
    for i, j in edges:
        if max(i, j) < n and i != j:
            pairs.append(DuplicatePair(keys[i], keys[j], "pixels"))
            is_connected[i, j] = is_connected[j, i] = True
    for _ in range(n):
        is_connected = (is_connected.astype(int) @ is_connected.astype(int)) > 0
    expected = []
    for row in is_connected:
        expected.append(keys[np.flatnonzero(row)[0]] if row.sum() > 1 else "")
    assert near_duplicate_groups(images, NearDuplicates(n, 0, tuple(pairs))) == expected


def test_pairs_of_images_that_are_gone_count_for_nothing(tmp_path):
    images = scan(write_images(tmp_path, {f"fish/{n}.png": photograph(n) for n in range(2)}))
    duplicates = NearDuplicates(3, 2, (DuplicatePair("fish/0.png", "fish/9.png", "pixels"),))
    assert near_duplicate_groups(images, duplicates) == ["", ""]


# --- real images --------------------------------------------------------------------------


def test_real_photographs_turned_and_mirrored_are_found_again(shared, tmp_path):
    files = sorted((shared / "data" / "imagenet-samples").glob("*/*"))[3:9]
    images = {}
    for n, file in enumerate(files):
        rgb = read_image(file)
        for i, degrees in enumerate((0, 70, 200)):
            copy = turned(rgb[:, ::-1].copy() if i == 1 else rgb, degrees)
            images[f"x/{n}-{i}.jpg"] = copy
    groups = find_groups(write_images(tmp_path, images))
    assert groups == {frozenset(f"x/{n}-{i}.jpg" for i in range(3)) for n in range(6)}


def test_different_real_fish_are_not_merged(shared):
    fish = shared / "data" / "fish4knowledge-mini"
    images = scan(fish, ScanOptions(only=("Neoniphon sammara",)))
    images = images.select(np.arange(0, len(images), 3))
    duplicates = find_near_duplicates(images)
    assert duplicates.n_compared > 100
    trajectory = [(p.key.split("_")[1], p.other.split("_")[1]) for p in duplicates.pairs]
    assert all(one == other for one, other in trajectory)
