"""`fishfeat motion` on the command line: exit codes and the JSON document."""

import json

import pytest
from typer.testing import CliRunner

from fishfeat_cli import main as cli


@pytest.fixture(scope="module")
def video(draw_video, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "reef.avi"
    draw_video(path, (lambda t: (40 + 5 * t, 60),), n_frames=8)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENCV_FFMPEG_LOGLEVEL", "-8")
    monkeypatch.setenv("OPENCV_LOG_LEVEL", "SILENT")
    return lambda *args: CliRunner().invoke(cli.app, [str(arg) for arg in args])


def test_a_video_becomes_a_folder_of_its_name(run, video, tmp_path):
    result = run("--json", "motion", video)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["table"] == "reef-motion/reef.csv"
    assert document["frame_images"] == "reef-motion/frames"
    assert (document["n_frames"], document["n_tracks"], document["n_crops"]) == (7, 1, 6)
    assert document["is_new"] is True
    assert document["findings"] == []
    assert len(list((tmp_path / "reef-motion" / "crops").iterdir())) == 6
    text = run("motion", video).stdout
    assert "6 crops" in text
    assert "fishfeat extract reef-motion/reef.csv" in text


def test_a_truncated_video_ends_with_code_3(run, video, tmp_path):
    (tmp_path / "cut.avi").write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    result = run("--json", "motion", "cut.avi", "--no-frame-images", "--out", "out")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert [finding["check"] for finding in document["findings"]] == ["truncated-video"]
    assert document["frame_images"] is None
    assert (tmp_path / "out" / "cut.csv").is_file()


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("no.mp4",), "no.mp4"),
        (("VIDEO", "--every", "0"), "--every must be"),
        (("VIDEO", "--threshold", "0"), "--threshold must be"),
        (("VIDEO", "--max-gap", "-1"), "--max-gap must be"),
    ],
)
def test_an_error_names_the_flag_and_writes_nothing(run, video, tmp_path, args, word):
    result = run("motion", *(video if arg == "VIDEO" else arg for arg in args))
    assert result.exit_code == 1
    assert word in result.stderr
    assert list(tmp_path.iterdir()) == []
