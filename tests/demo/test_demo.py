"""The demo images: their names and pixels, and files that drawing leaves alone."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fishfeat.demo import DEMO_GROUP_PATTERN, draw_demo
from fishfeat.errors import DataError

SMALL = {"n_originals": 2, "n_copies": 3, "size": (24, 18)}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_demo(tmp_path_factory.mktemp("demo"), **SMALL)


def images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, np.int16)


def group(path: Path, folder: Path) -> int:
    return int(re.search(DEMO_GROUP_PATTERN, path.relative_to(folder).as_posix())[1])


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in images(folder)}


def times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in images(folder)}


def test_there_are_at_least_nine_species_each_with_all_its_copies(drawn):
    species = [p for p in drawn.iterdir() if p.is_dir()]
    assert len(species) >= 9
    assert {len(images(folder)) for folder in species} == {2 * 3}


def test_the_default_set_has_twelve_originals_of_six_copies_each():
    assert draw_demo.__kwdefaults__ == {
        "n_originals": 12,
        "n_copies": 6,
        "seed": 0,
        "size": (160, 120),
    }


def test_every_image_is_rgb_and_of_the_size_asked_for(drawn):
    for path in images(drawn):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (24, 18))


def test_names_tell_species_original_and_turn(drawn):
    for path in images(drawn):
        slug = path.parent.name.lower().replace(" ", "-")
        assert re.fullmatch(rf"{slug}_\d{{4}}-r\d{{3}}f?\.png", path.name)


def test_every_original_has_its_own_number_over_the_whole_set(drawn):
    members: dict[int, list[Path]] = {}
    for path in images(drawn):
        members.setdefault(group(path, drawn), []).append(path)
    assert sorted(members) == list(range(len(members)))
    for copies in members.values():
        assert len(copies) == 3
        assert len({path.parent for path in copies}) == 1


def test_each_original_is_there_untouched_and_its_copies_are_turned_from_it(tmp_path):
    folder = draw_demo(tmp_path / "demo", n_originals=1, n_copies=4, size=(32, 24))
    for original in sorted(folder.rglob("*-r000.png")):
        stem = original.name.removesuffix("-r000.png")
        half_turn = original.with_name(f"{stem}-r180.png")
        mirrored = original.with_name(f"{stem}-r000f.png")
        image = pixels(original)
        np.testing.assert_allclose(pixels(half_turn), image[::-1, ::-1], atol=2)
        np.testing.assert_allclose(pixels(mirrored), image[:, ::-1], atol=2)


def test_no_two_images_are_the_same(drawn):
    found = digests(drawn)
    assert len(set(found.values())) == len(found)


def test_turned_copies_have_no_empty_corners(tmp_path):
    folder = draw_demo(tmp_path / "demo", n_originals=1, n_copies=12, size=(40, 24))
    for path in images(folder):
        image = pixels(path)
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners.max(axis=1) > 0).all(), path.name


def test_the_same_seed_gives_the_same_bytes(drawn, tmp_path):
    assert digests(draw_demo(tmp_path / "again", **SMALL)) == digests(drawn)


def test_another_seed_gives_other_images(drawn, tmp_path):
    other = digests(draw_demo(tmp_path / "other", **SMALL, seed=1))
    assert not set(other.values()) & set(digests(drawn).values())


def test_an_original_does_not_depend_on_how_many_there_are(drawn, tmp_path):
    fewer = draw_demo(tmp_path / "fewer", n_originals=1, n_copies=1, size=(24, 18))
    for path in images(fewer):
        species = drawn / path.parent.name
        first = min(species.glob("*-r000.png"))
        assert path.read_bytes() == first.read_bytes()


def test_global_random_state_is_neither_used_nor_changed(drawn, tmp_path):
    np.random.seed(3)  # noqa: NPY002 - the legacy state is what must not be touched
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    again = draw_demo(tmp_path / "again", **SMALL)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert digests(again) == digests(drawn)


def test_drawing_again_draws_nothing(drawn):
    before = times(drawn)
    assert draw_demo(drawn, **SMALL) == drawn
    assert times(drawn) == before


@pytest.mark.parametrize("damage", ["image", "marker", "half"])
def test_an_incomplete_folder_is_drawn_again(drawn, tmp_path, damage):
    folder = Path(shutil.copytree(drawn, tmp_path / "demo"))
    first = images(folder)[0]
    marker = folder / ".fishfeat-demo.json"
    if damage == "marker":
        marker.write_text("{")
    elif damage == "half":
        first.rename(first.with_name(f"{first.name}.tmp"))
    else:
        first.unlink()
    draw_demo(folder, **SMALL)
    assert digests(folder) == digests(drawn)
    assert not list(folder.rglob("*.tmp"))


def test_a_killed_run_is_drawn_again(drawn, tmp_path, monkeypatch):
    calls = []

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return Image.new("RGB", (24, 18))

    with monkeypatch.context() as patch:
        patch.setattr("fishfeat.demo.drawing._cut_frame", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_demo(tmp_path / "demo", **SMALL)
    assert len(images(tmp_path / "demo")) == 4
    assert digests(draw_demo(tmp_path / "demo", **SMALL)) == digests(drawn)


def test_other_arguments_replace_the_images(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    draw_demo(tmp_path, n_originals=1, n_copies=2, size=(24, 32))
    assert {pixels(path).shape for path in images(tmp_path)} == {(32, 24, 3)}
    assert len({group(path, tmp_path) for path in images(tmp_path)}) * 2 == len(images(tmp_path))


@pytest.mark.parametrize(
    "foreign", ["holiday.png", "Rosy Duskbream/holiday.png", "Rosy Duskbream/notes/a.txt"]
)
@pytest.mark.parametrize("drawn_before", [False, True])
def test_a_folder_with_foreign_files_is_refused_and_untouched(tmp_path, foreign, drawn_before):
    if drawn_before:
        draw_demo(tmp_path, n_originals=1, n_copies=1, size=(16, 16))
    path = tmp_path / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(DataError, match=re.escape(foreign)):
        draw_demo(tmp_path, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_images_named_like_ours_are_foreign_where_nothing_was_drawn(tmp_path):
    path = tmp_path / "Rosy Duskbream" / "rosy-duskbream_0000-r000.png"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(DataError, match="did not draw"):
        draw_demo(tmp_path, **SMALL)
    assert path.read_bytes() == b"mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "demo"
    path.write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        draw_demo(path)
    assert path.read_text() == "mine"


def test_what_file_managers_leave_is_no_reason_to_refuse_or_to_draw(tmp_path):
    draw_demo(tmp_path, n_originals=1, n_copies=1, size=(16, 16))
    (tmp_path / ".DS_Store").write_bytes(b"")
    before = times(tmp_path)
    draw_demo(tmp_path, n_originals=1, n_copies=1, size=(16, 16))
    assert times(tmp_path) == before


def test_all_faulty_arguments_are_named_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        draw_demo(tmp_path / "demo", n_originals=0, n_copies=0, seed=-1, size=(4, 4))
    for name in ("n_originals", "n_copies", "seed", "size"):
        assert name in str(caught.value)
    assert not (tmp_path / "demo").exists()
