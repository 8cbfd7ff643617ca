"""Find what moves in a video, frame by frame, and follow it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fishfeat.options import MotionOptions
from fishfeat.records import OnProgress, PathLike
from fishfeat.video.flow import find_movement
from fishfeat.video.frames import Video
from fishfeat.video.objects import list_objects, smallest_area
from fishfeat.video.tracks import Sighting, Tracks, follow_objects

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("fishfeat")


@dataclass(frozen=True)
class FrameMotion:
    """What moves in one frame of a video.

    Attributes
    ----------
    frame
        Number of the frame, from 0.
    seconds
        Its time from the start of the video.
    image
        The frame: uint8 (height, width, 3), red, green, blue.
    flow
        float32 (height, width, 2): pixels to the right and down until the next frame.
    mask
        bool (height, width): what moves.
    sightings
        The objects whose tracks are known, by track number.
    """

    frame: int
    seconds: float
    image: np.ndarray
    flow: np.ndarray
    mask: np.ndarray
    sightings: tuple[Sighting, ...]


def find_motion(
    video: PathLike,
    options: MotionOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Iterator[FrameMotion]:
    """Find what moves in each n-th frame of a video from a fixed camera; nothing is written.

    The memory does not grow with the length of the video. A video that ends too early gives the
    frames that it has, and a warning in the log.

    Parameters
    ----------
    video
        The file of the video.
    options
        None is the defaults. `frame_images` changes nothing here.
    on_progress
        Called with (frames read, frames of the video).

    Raises
    ------
    DataError
        There is no such file, or it is no video that can be decoded.
    """
    return _yield_motion(Video(video), options or MotionOptions(), on_progress)


def _yield_motion(
    video: Video, options: MotionOptions, on_progress: OnProgress | None
) -> Iterator[FrameMotion]:
    with video:
        for motion, _ in follow_motion(video, options, on_progress=on_progress):
            yield motion
        for finding in video.check_length():
            log.log(finding.log_level, "%s", finding)


def follow_motion(
    video: Video,
    options: MotionOptions,
    *,
    tracks: Tracks | None = None,
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[FrameMotion, Tracks]]:
    """What moves in each frame, and the state of the tracking after it.

    Parameters
    ----------
    video
        A video of which no frame was read yet.
    options
        As of `find_motion`.
    tracks
        A state with which to go on; frames that it has seen are left out.
    on_progress
        Called with (frames read, frames of the video).
    """
    import cv2

    min_area = options.min_area or smallest_area(video.size)
    state = tracks or Tracks()
    for neighbours in video.read_neighbours(every=options.every, start=state.frame + 1):
        frame = neighbours.frame
        movement = find_movement(neighbours, threshold=options.threshold, erosion=options.erosion)
        state, sightings = follow_objects(
            state,
            list_objects(frame.image, movement, min_area=min_area),
            frame=frame.index,
            seconds=frame.seconds,
            max_gap=options.max_gap,
        )
        image = cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB)
        yield (
            FrameMotion(
                frame.index, frame.seconds, image, movement.flow, movement.mask, tuple(sightings)
            ),
            state,
        )
        if on_progress is not None:
            on_progress(video.n_read, max(video.n_read, video.n_frames))
