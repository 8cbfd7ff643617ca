"""`fishfeat motion`: files, what is never overwritten, and the way on to extract and predict."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

import fishfeat.stages.motion as stage
from fishfeat.errors import CacheError, DataError
from fishfeat.options import ExtractOptions, FitOptions, MotionOptions
from fishfeat.stages.extract import extract_data
from fishfeat.stages.fit import fit_data
from fishfeat.stages.motion import COLUMNS, find_video_motion
from fishfeat.stages.predict import predict_images
from fishfeat.video.files import VideoIdentity

TINY = ExtractOptions(
    backbone="random:test_resnet",
    img_size=32,
    runtime="eager",
    precision="fp32",
    device="cpu",
    workers=1,
)
CROPS_ONLY = MotionOptions(frame_images=False)


@pytest.fixture(scope="module")
def reef(draw_video, tmp_path_factory):
    """A video of two animals that swim one above the other."""
    video = tmp_path_factory.mktemp("video") / "reef.avi"
    places = (lambda t: (40 + 5 * t, 30), lambda t: (160 - 5 * t, 90))
    draw_video(video, places, n_frames=10)
    return video


@pytest.fixture(scope="module")
def truncated(reef):
    video = reef.with_name("cut.avi")
    video.write_bytes(reef.read_bytes()[: reef.stat().st_size * 2 // 3])
    return video


def read_table(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def list_files(folder) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_each_frame_has_three_images_and_each_sighting_a_crop(reef, tmp_path):
    motion = find_video_motion(reef, MotionOptions(every=2), out=tmp_path / "out")
    assert motion.is_new
    assert motion.findings == []
    assert (motion.n_frames, motion.n_tracks, motion.n_crops) == (5, 2, 8)
    names = sorted(path.name for path in motion.frame_images.iterdir())
    assert len(names) == 15
    assert names[3:6] == [
        "frame-0000002-arrows.jpg",
        "frame-0000002-mask.png",
        "frame-0000002-moving.jpg",
    ]
    mask = np.asarray(Image.open(motion.frame_images / "frame-0000002-mask.png"))
    assert set(np.unique(mask)) == {0, 255}
    frame = np.asarray(Image.open(motion.frame_images / "frame-0000002-moving.jpg")).astype(int)
    assert frame[mask == 0].mean() < 3 < frame[mask > 0].mean()


def test_the_table_has_a_row_for_each_crop(reef, tmp_path):
    motion = find_video_motion(reef, CROPS_ONLY, out=tmp_path / "out")
    assert motion.frame_images is None
    rows = read_table(motion.table)
    assert motion.table.name == "reef.csv"
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == motion.n_crops == 16
    assert [row["group"] for row in rows] == ["reef-track-0001"] * 8 + ["reef-track-0002"] * 8
    assert [int(row["frame"]) for row in rows[:8]] == list(range(1, 9))
    assert {row["label"] for row in rows} == {""}
    for row in rows:
        assert float(row["seconds"]) == pytest.approx(int(row["frame"]) / 25)
        with Image.open(motion.table.parent / row["path"]) as crop:
            assert crop.width >= int(row["width"])
            assert crop.height >= int(row["height"])


def test_labels_in_a_table_are_never_overwritten(reef, tmp_path):
    out = tmp_path / "out"
    table = find_video_motion(reef, CROPS_ONLY, out=out).table
    table.write_text(table.read_text().replace(",,reef-track-0001", ",bass,reef-track-0001"))
    before = list_files(out)
    again = find_video_motion(reef, CROPS_ONLY, out=out)
    assert not again.is_new
    assert (again.n_tracks, again.n_crops) == (2, 16)
    with pytest.raises(DataError, match=r"out .*threshold 1\.0"):
        find_video_motion(reef, dataclasses.replace(CROPS_ONLY, threshold=2.0), out=out)
    assert list_files(out) == before


def test_another_video_or_other_files_are_not_replaced(reef, truncated, tmp_path):
    out = tmp_path / "out"
    find_video_motion(reef, CROPS_ONLY, out=out)
    with pytest.raises(DataError, match="another video"):
        find_video_motion(truncated, CROPS_ONLY, out=out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    notes = tmp_path / "mine" / "notes.txt"
    for place in (tmp_path / "mine", notes, notes / "below"):
        with pytest.raises(DataError, match=r"^out "):
            find_video_motion(reef, CROPS_ONLY, out=place)
    assert list_files(tmp_path / "mine") == {"notes.txt": b"mine"}


def test_places_that_cannot_be_read_or_written_are_errors(draw_video, ours):
    video = ours / "a.avi"
    draw_video(video, n_frames=3, size=(64, 96))
    ours.chmod(0o500)
    with pytest.raises(CacheError, match="--out FOLDER"):
        find_video_motion(video, CROPS_ONLY, out=ours / "out")
    video.chmod(0)
    with pytest.raises(DataError, match=r"a\.avi cannot be read"):
        find_video_motion(video, CROPS_ONLY, out=ours / "out")


def test_a_run_that_was_stopped_before_it_saved_begins_again(reef, tmp_path):
    whole = find_video_motion(reef, CROPS_ONLY, out=tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done > 8:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        find_video_motion(reef, CROPS_ONLY, out=out, on_progress=stop)
    assert any((out / "crops").iterdir())
    find_video_motion(reef, CROPS_ONLY, out=out)
    assert list_files(out) == list_files(whole.table.parent)


@pytest.mark.parametrize("n_frames", [1, 8])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(reef, tmp_path, monkeypatch, n_frames):
    whole = find_video_motion(reef, CROPS_ONLY, out=tmp_path / "whole")
    monkeypatch.setattr(stage, "_SECONDS_BETWEEN_SAVES", 0.0)
    n_done = 0

    def stop(done: int, total: int) -> None:
        nonlocal n_done
        n_done += 1
        if n_done > n_frames:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        find_video_motion(reef, CROPS_ONLY, out=out, on_progress=stop)
    assert not (out / "reef.csv").exists()
    n_done = -100
    motion = find_video_motion(reef, CROPS_ONLY, out=out, on_progress=stop)
    assert n_done < -100 + 9 - n_frames + 2
    assert motion.is_new
    assert motion._replace(table=whole.table) == whole
    assert list_files(out) == list_files(whole.table.parent)


def test_a_truncated_video_gives_what_it_has(truncated, tmp_path):
    motion = find_video_motion(truncated, CROPS_ONLY, out=tmp_path / "out")
    assert motion.is_truncated
    assert [finding.check for finding in motion.findings] == ["truncated-video"]
    assert 0 < motion.n_crops < 16
    assert len(read_table(motion.table)) == motion.n_crops
    assert find_video_motion(truncated, CROPS_ONLY, out=tmp_path / "out").is_truncated


def test_a_video_without_motion_gives_an_empty_table(draw_video, tmp_path):
    draw_video(tmp_path / "still.avi", n_frames=4)
    motion = find_video_motion(tmp_path / "still.avi", CROPS_ONLY, out=tmp_path / "out")
    assert [finding.check for finding in motion.findings] == ["nothing-moves"]
    assert read_table(motion.table) == []


def test_a_single_frame_is_too_few_whatever_moves(draw_video, tmp_path):
    draw_video(tmp_path / "short.avi", n_frames=4)
    options = dataclasses.replace(CROPS_ONLY, every=100)
    motion = find_video_motion(tmp_path / "short.avi", options, out=tmp_path / "out")
    (finding,) = motion.findings
    assert (finding.check, motion.n_frames) == ("nothing-moves", 1)
    assert "--every" in finding.fix


def test_a_moving_camera_is_found(reef):
    done = stage.Progress(VideoIdentity(1, ""), CROPS_ONLY, n_frames=20, n_moving=3, n_crops=9)
    assert [finding.check for finding in stage._check_motion(done)] == ["moving-camera"]
    assert stage._check_motion(dataclasses.replace(done, n_moving=2)) == []


def test_the_table_is_a_data_set_with_tracks_as_groups(reef, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    table = find_video_motion(reef, CROPS_ONLY, out=out).table
    unlabelled = extract_data(table, TINY, cache=cache)
    assert unlabelled.dataset == "reef"
    assert len(unlabelled.features) == 16
    assert len(set(unlabelled.images.groups.tolist())) == 2
    # Each animal is seen in two tracks, so that a grouped split can be made.
    text = table.read_text().replace(",,reef-track-0001", ",bass,reef-track-0001")
    text = text.replace(",,reef-track-0002", ",bream,reef-track-0002")
    lines = text.splitlines()
    for i in (*range(5, 9), *range(13, 17)):
        lines[i] = lines[i].replace(",reef-track-000", ",reef-track-100")
    table.write_text("\n".join(lines) + "\n")
    labelled = extract_data(table, TINY, cache=cache)
    assert labelled.n_new == 0
    assert labelled.images.class_names.tolist() == ["bass", "bream"]
    fit = fit_data(FitOptions(clf=("centroid",), cv=2, jobs=1), cache=cache)
    assert fit.splits.strategy == "grouped"
    predictions = predict_images(table, cache=cache).predictions
    assert [p.path for p in predictions] == [str(out / row["path"]) for row in read_table(table)]
    assert {p.label for p in predictions} <= {"bass", "bream"}
    assert all(not p.reason for p in predictions)
