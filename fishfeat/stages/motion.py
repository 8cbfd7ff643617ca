"""`fishfeat motion`: images of what moves in a video, and crops of it as a data set."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fishfeat.checks import Finding
from fishfeat.errors import CacheError, DataError
from fishfeat.files import (
    format_csv,
    open_text,
    read_json,
    replace_at_end,
    safe_name,
    sweep,
    temporary_name,
    write_json,
    write_text,
    writing_to,
)
from fishfeat.options import MotionOptions
from fishfeat.records import OnProgress, PathLike
from fishfeat.video.drawing import crop_image, draw_arrows, draw_mask, show_through_mask
from fishfeat.video.files import VideoIdentity, identify_video
from fishfeat.video.frames import Video
from fishfeat.video.motion import FrameMotion, follow_motion
from fishfeat.video.tracks import Tracks
from fishfeat.workspace.locks import hold_lock

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("fishfeat")

COLUMNS = ("path", "label", "group", "frame", "seconds", "x", "y", "width", "height")
# The work is saved so often that a run that is stopped loses little.
_SECONDS_BETWEEN_SAVES = 5.0
# The camera moves where more than half of the frame does, in this share of the frames.
_MOVING_SHARE = 0.5
_MOVING_FRAMES = 0.1


class Motion(NamedTuple):
    """What `find_video_motion` found.

    Attributes
    ----------
    table
        CSV file with one row for each crop.
    frame_images
        Folder with the images of the frames; None where none were asked for.
    n_frames, n_tracks, n_crops
        Frames that were looked at, objects that were followed, and crops of them.
    findings
        Checks that the video does not pass.
    is_new
        False where everything was there already.
    """

    table: Path
    frame_images: Path | None
    n_frames: int
    n_tracks: int
    n_crops: int
    findings: list[Finding]
    is_new: bool

    @property
    def is_truncated(self) -> bool:
        """Whether the video ended too early."""
        return any(finding.check == "truncated-video" for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run has come, as `motion.json` has it.

    Attributes
    ----------
    video, options
        What it is of.
    tracks
        State of the tracking.
    n_frames, n_moving, n_crops
        Frames that were looked at, those in which more than half of the frame moves, and crops.
    n_bytes
        Length of the unfinished table.
    findings
        Checks that the whole video does not pass.
    """

    video: VideoIdentity
    options: MotionOptions
    tracks: Tracks = dataclasses.field(default_factory=Tracks)
    n_frames: int = 0
    n_moving: int = 0
    n_crops: int = 0
    n_bytes: int = 0
    findings: tuple[Finding, ...] = ()


class _Output:
    """The files of one run below a folder."""

    def __init__(self, folder: Path, video: Path) -> None:
        self.folder = folder
        self.name = safe_name(video.stem)
        self.table = folder / f"{self.name}.csv"
        self.unfinished = folder / f".{self.name}.unfinished.csv"
        self.state = folder / "motion.json"
        self.crops = folder / "crops"
        self.frame_images = folder / "frames"

    def write_frame_images(self, motion: FrameMotion) -> None:
        """The arrow field, the mask, and the frame seen through the mask."""
        frame = f"frame-{motion.frame:07d}"
        write_image(self.frame_images / f"{frame}-arrows.jpg", draw_arrows(motion))
        write_image(self.frame_images / f"{frame}-mask.png", draw_mask(motion))
        write_image(self.frame_images / f"{frame}-moving.jpg", show_through_mask(motion))

    def write_crops(self, motion: FrameMotion) -> list[tuple[object, ...]]:
        """One image for each object: the rows of the table."""
        rows: list[tuple[object, ...]] = []
        for sighting in motion.sightings:
            group = f"{self.name}-track-{sighting.track:04d}"
            path = self.crops / f"{group}-frame-{motion.frame:07d}.png"
            write_image(path, crop_image(motion.image, sighting.box))
            box = sighting.box
            place = (round(box.x), round(box.y), round(box.width), round(box.height))
            key = path.relative_to(self.folder).as_posix()
            rows.append((key, "", group, motion.frame, f"{motion.seconds:.3f}", *place))
        return rows


def find_video_motion(
    video: PathLike,
    options: MotionOptions | None = None,
    *,
    out: PathLike | None = None,
    on_progress: OnProgress | None = None,
) -> Motion:
    """Write images and crops of what moves in a video, and a table of the crops.

    A run that was stopped goes on where it was. A table that is there is never written again: a
    person may have filled in its labels.

    Parameters
    ----------
    video
        The file of the video.
    options
        None is the defaults.
    out
        The folder to write. None is the name of the video with '-motion', in the working folder.
    on_progress
        Called with (frames read, frames of the video).

    Raises
    ------
    DataError
        The video cannot be decoded, or the folder holds something else.
    CacheError
        The folder cannot be written, or another process writes it.
    """
    options, path = options or MotionOptions(), Path(video)
    with Video(path) as opened:
        folder = Path(f"{safe_name(path.stem)}-motion") if out is None else Path(out)
        output = _Output(folder, path)
        _check_folder(output)
        with writing_to(output.state, flag="--out FOLDER"):
            _probe_folder(folder)
            with hold_lock(output.state, lock_file=folder / ".motion.lock"):
                saved = _read_progress(output, Progress(identify_video(path), options))
                if output.table.exists():
                    log.info("%s is there already: nothing is written.", output.table)
                    return _describe(output, saved, is_new=False)
                done = _write_motion(opened, output, saved, on_progress)
        for finding in done.findings:
            log.log(finding.log_level, "%s", finding)
        return _describe(output, done, is_new=True)


def _describe(output: _Output, done: Progress, *, is_new: bool) -> Motion:
    frame_images = output.frame_images if done.options.frame_images else None
    return Motion(
        output.table,
        frame_images,
        done.n_frames,
        done.tracks.n_tracks,
        done.n_crops,
        list(done.findings),
        is_new,
    )


# --- what is there ------------------------------------------------------------------------------


def _check_folder(output: _Output) -> None:
    """Refuse a folder with files that are not of this command: none of them is replaced."""
    folder = output.folder
    for place in (folder, *folder.absolute().parents):
        if place.exists() and not place.is_dir():
            raise DataError(f"out {str(folder)!r}: {place} is a file. Name a folder with --out.")
    if not folder.is_dir() or output.state.exists():
        return
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if names:
        raise DataError(
            f"out {str(folder)!r} holds other files, such as {sorted(names)[0]!r}. Name a new "
            "folder with --out FOLDER."
        )


def _probe_folder(folder: Path) -> None:
    """Make the folder, and write into it: a place that cannot be written fails before the work."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = temporary_name(folder / "probe")
    probe.touch()
    probe.unlink()


def _read_progress(output: _Output, new: Progress) -> Progress:
    """What an earlier run of the same video and options has done; `new` where there was none."""
    if not output.state.exists():
        return new
    try:
        saved = msgspec.convert(read_json(output.state), Progress)
    except msgspec.ValidationError as error:
        raise CacheError(
            f"{output.state} is damaged ({error}). Name a new folder with --out FOLDER."
        ) from error
    if saved.video != new.video:
        what = "another video"
    elif saved.options != new.options:
        changed = [
            f"{field.name} {getattr(saved.options, field.name)}"
            for field in dataclasses.fields(MotionOptions)
            if getattr(saved.options, field.name) != getattr(new.options, field.name)
        ]
        what = f"this video with other options ({', '.join(changed)})"
    else:
        if output.table.exists() or _is_long_enough(output.unfinished, saved.n_bytes):
            return saved
        return new
    raise DataError(
        f"out {str(output.folder)!r} holds the motion of {what}. Its table may have labels, so it "
        "is not replaced: name a new folder with --out FOLDER."
    )


def _is_long_enough(path: Path, n_bytes: int) -> bool:
    return path.exists() and path.stat().st_size >= n_bytes


# --- the work -----------------------------------------------------------------------------------


def _write_motion(
    video: Video, output: _Output, done: Progress, on_progress: OnProgress | None
) -> Progress:
    """Go on from `done` to the end of the video, and write the table."""
    for folder in (output.folder, output.crops, output.frame_images):
        sweep(folder.glob(".*.tmp"))
    if done.n_frames:
        log.info("%s: goes on after frame %d.", output.folder, done.tracks.frame)
    with open(output.unfinished, "ab") as rows_file:
        rows_file.truncate(done.n_bytes)
        _save(output, done)  # from now on the crops are known to be of this command
        saved = time.monotonic()
        for motion, tracks in follow_motion(
            video, done.options, tracks=done.tracks, on_progress=on_progress
        ):
            if done.options.frame_images:
                output.write_frame_images(motion)
            rows = output.write_crops(motion)
            rows_file.write(_format_rows(rows))
            done = dataclasses.replace(
                done,
                tracks=tracks,
                n_frames=done.n_frames + 1,
                n_moving=done.n_moving + bool(motion.mask.mean() > _MOVING_SHARE),
                n_crops=done.n_crops + len(rows),
            )
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                rows_file.flush()
                os.fsync(rows_file.fileno())
                done = dataclasses.replace(done, n_bytes=rows_file.tell())
                _save(output, done)
                saved = time.monotonic()
        rows_file.flush()
        done = dataclasses.replace(
            done, n_bytes=rows_file.tell(), findings=(*video.check_length(), *_check_motion(done))
        )
    _save(output, done)
    _write_table(output)
    return done


def _format_rows(rows: list[tuple[object, ...]]) -> bytes:
    if not rows:
        return b""
    return format_csv(rows[0], rows[1:]).encode("utf-8", "surrogateescape")


def _save(output: _Output, done: Progress) -> None:
    write_json(output.state, msgspec.to_builtins(done))


def _check_motion(done: Progress) -> list[Finding]:
    """Checks of the whole video."""
    findings = []
    if done.n_moving > _MOVING_FRAMES * done.n_frames:
        message = (
            f"In {done.n_moving:,} of {done.n_frames:,} frames more than half of the frame moves: "
            "the camera moves, or the light changes."
        )
        fix = "Use a part of the video in which the camera stands still, or raise --threshold."
        findings.append(Finding("moving-camera", message, fix))
    if done.n_frames < 2:
        message = (
            "One frame was looked at, so the table has no rows: an animal has crops from its "
            "second frame on."
        )
        fix = "Lower --every, or give a longer video."
        findings.append(Finding("nothing-moves", message, fix))
    elif not done.n_crops:
        message = f"Nothing moves in {done.n_frames:,} frames, so the table has no rows."
        fix = "Lower --threshold or --min-area if there are slow or small animals."
        findings.append(Finding("nothing-moves", message, fix))
    return findings


def _write_table(output: _Output) -> None:
    """The table, sorted by track, in place of the unfinished one."""
    with open_text(output.unfinished) as file:
        lines = file.readlines()
    lines.sort(key=_find_place)
    write_text(output.table, format_csv(COLUMNS, ()) + "".join(lines))
    with contextlib.suppress(OSError):
        output.unfinished.unlink()


def _find_place(line: str) -> tuple[int, str, int]:
    """Track and frame of a row; names of videos hold no comma here."""
    _, _, group, frame, *_ = line.split(",")
    return len(group), group, int(frame)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, RGB or grey, whole or not at all."""
    import cv2

    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_written, data = cv2.imencode(path.suffix, image)
    if not is_written:
        raise DataError(f"{path}: an image of {image.shape} pixels cannot be written.")
    with replace_at_end(path) as temporary:
        temporary.write_bytes(data.tobytes())
