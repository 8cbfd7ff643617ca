"""What moves in drawn videos, whose motion is known."""

import dataclasses
import math

import numpy as np
import pytest

import fishfeat as ff
from fishfeat.options import MotionOptions
from fishfeat.video.files import identify_video, is_cut_off
from fishfeat.video.motion import find_motion
from fishfeat.video.objects import Box


def swim(x: float, y: float, right: float, down: float = 0.0):
    """Places of an object that moves by (right, down) pixels a frame."""
    return lambda t: (x + right * t, y + down * t)


def list_numbers(motions, places) -> list[set[int]]:
    """Track numbers that were seen nearest to each object."""
    numbers: list[set[int]] = [set() for _ in places]
    for motion in motions:
        for sighting in motion.sightings:
            distances = [math.dist(sighting.box.centre, place(motion.frame)) for place in places]
            numbers[int(np.argmin(distances))].add(sighting.track)
    return numbers


def measure_overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


# --- flow and mask ---------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [(2, 0), (4, 1), (9, -2)])
def test_flow_and_mask_are_those_of_the_object(draw_video, tmp_path, speed):
    places = (swim(60, 60, *speed),)
    truth = draw_video(tmp_path / "a.avi", places, n_frames=4, size=(160, 240))
    motions = list(find_motion(tmp_path / "a.avi"))
    assert [motion.frame for motion in motions] == [0, 1, 2]
    for motion in motions[1:]:
        seen = truth[motion.frame, 0]
        errors = np.linalg.norm(motion.flow[seen] - np.array(speed), axis=1)
        assert np.median(errors) < 1
        assert measure_overlap(motion.mask, seen) >= 0.8


def test_the_flow_of_a_large_frame_is_in_its_own_pixels(draw_video, tmp_path):
    size = (400, 800)
    truth = draw_video(tmp_path / "a.avi", (swim(300, 200, 6),), n_frames=3, size=size)
    motion = list(find_motion(tmp_path / "a.avi"))[1]
    assert motion.flow.shape == (*size, 2)
    assert motion.mask.shape == size
    errors = np.linalg.norm(motion.flow[truth[1, 0]] - [6, 0], axis=1)
    assert np.median(errors) < 1


def test_erosion_and_threshold_make_the_mask_smaller(draw_video, tmp_path):
    draw_video(tmp_path / "a.avi", (swim(60, 60, 4),), n_frames=3)

    def count_pixels(**changes: float) -> int:
        return list(find_motion(tmp_path / "a.avi", MotionOptions(**changes)))[-1].mask.sum()

    assert count_pixels() > count_pixels(erosion=6) > 0
    assert count_pixels(threshold=6) == 0


@pytest.mark.parametrize("codec", ["MJPG", "mp4v"])
def test_noise_and_flicker_move_nothing(draw_video, tmp_path, codec):
    video = tmp_path / ("a.avi" if codec == "MJPG" else "a.mp4")
    draw_video(video, n_frames=5, noise=5, light=lambda t: 1 + 0.04 * (-1) ** t, codec=codec)
    motions = list(find_motion(video))
    assert len(motions) == 4
    assert sum(motion.mask.sum() for motion in motions) == 0
    assert all(not motion.sightings for motion in motions)


def test_an_object_is_found_before_a_background_that_shakes(draw_video, tmp_path):
    def shake(t: int) -> tuple[float, float]:
        return 1.5 * math.sin(2.0 * t), 1.5 * math.cos(3.0 * t)

    truth = draw_video(tmp_path / "a.avi", (swim(60, 60, 5),), n_frames=5, shake=shake)
    motions = list(find_motion(tmp_path / "a.avi"))
    overlaps = [measure_overlap(m.mask, truth[m.frame, 0]) for m in motions[1:]]
    assert np.median(overlaps) >= 0.7


def test_a_grey_video_of_odd_size_is_read(tmp_path):
    import cv2

    noise = np.random.default_rng(0).normal(size=(62, 98))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 25, (98, 62))
    for t in range(4):
        frame = texture.copy()
        frame[20:40, 20 + 3 * t : 50 + 3 * t] = texture[:20, :30]
        writer.write(np.repeat(frame[..., None], 3, axis=2).astype(np.uint8))
    writer.release()
    motions = list(find_motion(tmp_path / "a.avi"))
    assert [motion.image.shape for motion in motions] == [(62, 98, 3)] * 3
    assert all(motion.mask[25:35, 35:45].all() for motion in motions)


# --- tracks ----------------------------------------------------------------------------------

CROSSINGS = {
    "opposite": (swim(30, 57, 5), swim(170, 63, -5)),
    "at an angle": (swim(30, 25, 5, 2.5), swim(30, 95, 5, -2.5)),
    "turning back": (
        lambda t: (30 + 5 * min(t, 28 - t), 57),
        lambda t: (170 - 5 * min(t, 28 - t), 63),
    ),
}


@pytest.mark.parametrize("name", CROSSINGS)
def test_objects_that_meet_keep_their_tracks(draw_video, tmp_path, name):
    places = CROSSINGS[name]
    draw_video(tmp_path / "a.avi", places, n_frames=28)
    motions = list(find_motion(tmp_path / "a.avi"))
    first, second = list_numbers(motions, places)
    assert len(first) == len(second) == 1
    assert first | second == {1, 2}
    # While they are one in the mask, nothing is recorded.
    assert any(not motion.sightings for motion in motions[5:])
    assert len(motions[-1].sightings) == 2


def test_tracks_are_kept_where_only_some_frames_are_looked_at(draw_video, tmp_path):
    places = CROSSINGS["opposite"]
    draw_video(tmp_path / "a.avi", places, n_frames=28)
    motions = list(find_motion(tmp_path / "a.avi", MotionOptions(every=3)))
    assert [motion.frame for motion in motions] == list(range(0, 27, 3))
    first, second = list_numbers(motions, places)
    assert len(first) == len(second) == 1
    assert first | second == {1, 2}


@pytest.mark.parametrize(("max_gap", "n_tracks"), [(1.0, 1), (0.2, 2)])
def test_a_track_ends_when_its_object_is_out_of_sight_for_too_long(
    draw_video, tmp_path, max_gap, n_tracks
):
    def rest(t: int) -> tuple[float, float]:
        return 40 + 3 * (min(t, 6) + max(0, t - 16)), 60

    draw_video(tmp_path / "a.avi", (rest,), n_frames=22)
    motions = find_motion(tmp_path / "a.avi", MotionOptions(max_gap=max_gap))
    assert len({s.track for motion in motions for s in motion.sightings}) == n_tracks


def test_small_objects_are_left_out(draw_video, tmp_path):
    draw_video(tmp_path / "a.avi", (swim(60, 60, 4),), n_frames=5)
    seen = list(find_motion(tmp_path / "a.avi"))
    assert [len(motion.sightings) for motion in seen] == [0, 1, 1, 1]
    none = list(find_motion(tmp_path / "a.avi", MotionOptions(min_area=2000)))
    assert sum(len(motion.sightings) for motion in none) == 0


def test_a_box_is_around_its_object(draw_video, tmp_path):
    truth = draw_video(tmp_path / "a.avi", (swim(60, 60, 4),), n_frames=4)
    motion = list(find_motion(tmp_path / "a.avi"))[-1]
    rows, columns = np.nonzero(truth[motion.frame, 0])
    box = motion.sightings[0].box
    expected = Box(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert np.allclose(dataclasses.astuple(box), dataclasses.astuple(expected), atol=6)


# --- files -----------------------------------------------------------------------------------


def test_a_truncated_video_gives_what_it_has(draw_video, tmp_path, caplog):
    whole, cut = tmp_path / "a.avi", tmp_path / "b.avi"
    draw_video(whole, (swim(60, 60, 4),), n_frames=12)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    caplog.set_level("WARNING", logger="fishfeat")
    motions = list(find_motion(cut))
    assert 4 <= len(motions) < 11
    assert motions[-1].sightings
    assert "of 12 frames" in caplog.text
    assert is_cut_off(cut)
    assert not is_cut_off(whole)
    assert identify_video(cut) != identify_video(whole)


@pytest.mark.parametrize("codec", ["MJPG", "mp4v"])
def test_a_whole_video_is_not_cut_off(draw_video, tmp_path, codec, caplog):
    video = tmp_path / ("a.avi" if codec == "MJPG" else "a.mp4")
    draw_video(video, n_frames=3, codec=codec)
    caplog.set_level("WARNING", logger="fishfeat")
    list(find_motion(video))
    assert not is_cut_off(video)
    assert caplog.text == ""


def test_a_frame_rate_that_is_guessed_cuts_nothing_off(draw_video, tmp_path, caplog):
    video = tmp_path / "a.ts"
    draw_video(video, n_frames=30, codec="mp4v", fps=12.5, size=(64, 96))
    caplog.set_level("WARNING", logger="fishfeat")
    motion = list(find_motion(video, MotionOptions(every=10)))[-1]
    assert motion.seconds == pytest.approx(motion.frame / 12.5, abs=0.1)
    assert caplog.text == ""


def test_a_video_whose_index_is_missing_says_so(draw_video, tmp_path):
    draw_video(tmp_path / "a.mp4", n_frames=12, codec="mp4v")
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(ff.DataError, match="ends too early"):
        find_motion(tmp_path / "b.mp4")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", b"some text\n"), ("a.mp4", b"\x00\x01\x02" * 100), ("b.mp4", b"")],
)
def test_a_file_that_is_no_video_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ff.DataError, match=name):
        find_motion(tmp_path / name)


def test_an_image_is_no_video(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ff.DataError, match="1 frame "):
        list(find_motion(tmp_path / "a.png"))


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    for path in (tmp_path / "no.mp4", tmp_path):
        with pytest.raises(ff.DataError, match=path.name):
            find_motion(path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("every", 0), ("every", 1.5), ("every", True), ("threshold", 0), ("threshold", -1.0)),
        *(("threshold", math.nan), ("threshold", "1"), ("erosion", -1), ("min_area", 0)),
        *(("max_gap", -0.1), ("max_gap", math.inf)),
    ],
)
def test_a_number_out_of_range_is_an_error_that_names_the_option(option, value):
    with pytest.raises(ff.DataError, match=f"^{option} must be"):
        MotionOptions(**{option: value})
