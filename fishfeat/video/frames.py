"""Read a video frame by frame: each n-th frame with the one before it and the one after it."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.checks import Finding
from fishfeat.errors import DataError, count_things
from fishfeat.records import PathLike
from fishfeat.video.files import is_cut_off

if TYPE_CHECKING:
    import numpy as np

# The number of frames that a file names is often an estimate.
_TOLERANCE = 0.02
_MIN_MISSING = 3


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes
    ----------
    index
        Number of the frame, from 0.
    seconds
        Its time from the start of the video.
    image
        uint8 (height, width, 3), blue, green, red, as OpenCV has it.
    """

    index: int
    seconds: float
    image: np.ndarray


class Neighbours(NamedTuple):
    """A frame between the one before it, which the first frame has not, and the next one."""

    before: Frame | None
    frame: Frame
    after: Frame


class Video:
    """A video that is read once, from its start; only three frames are in memory.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    path
        The file.
    n_frames
        Number of frames, as the file says; 0 where it does not say.
    n_read
        Frames that were decoded so far.
    size
        Width and height of a frame.

    Raises
    ------
    DataError
        There is no such file, or it is no video that can be decoded.
    """

    def __init__(self, path: PathLike) -> None:
        import cv2

        self.path = Path(path)
        _check_file(self.path)
        self._capture = cv2.VideoCapture(os.fspath(self.path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise DataError(_explain_unreadable(self.path))
        n_frames = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.n_frames = max(0, int(n_frames)) if math.isfinite(n_frames) else 0
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if math.isfinite(fps) and fps > 0 else 25.0
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.size = (width, height)
        self.n_read = 0
        self._seconds = 0.0
        if self.n_frames == 1:
            raise DataError(_explain_still(self.path, 1))

    def read_neighbours(self, *, every: int = 1, start: int = 0) -> Iterator[Neighbours]:
        """Each `every`-th frame from `start` on, with its neighbours.

        The last frame is left out: nothing comes after it.
        """
        wanted = {0, 1 % every, every - 1}
        window: deque[Frame] = deque(maxlen=3)
        while self._capture.grab():
            index = self.n_read
            self.n_read += 1
            self._seconds = self._read_time(index)
            if index < start - 1 or index % every not in wanted:
                continue
            is_decoded, image = self._capture.retrieve()
            if not is_decoded:
                break
            if window and window[-1].index != index - 1:
                window.clear()
            window.append(Frame(index, self._seconds, image))
            if len(window) < 2 or window[-2].index < start or window[-2].index % every:
                continue
            before = window[-3] if len(window) == 3 else None
            yield Neighbours(before, window[-2], window[-1])
        if self.n_read < 2:
            raise DataError(_explain_still(self.path, self.n_read))

    def _read_time(self, index: int) -> float:
        """Seconds of the last frame; they follow from its number where the file has no times."""
        import cv2

        seconds: float = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if not math.isfinite(seconds) or (index and seconds <= 0):
            return index / self._fps
        return seconds

    def check_length(self) -> list[Finding]:
        """Whether the video ended too early, once all of its frames were read."""
        n_missing = self.n_frames - self.n_read
        # The frame rate may be a guess, and with it the number of frames; the length is none.
        n_missing_by_time = self.n_frames - 1 - self._seconds * self._fps
        least = max(_MIN_MISSING, _TOLERANCE * self.n_frames)
        is_short = min(n_missing, n_missing_by_time) >= least
        if not is_short and not is_cut_off(self.path):
            return []
        message = f"{self.path} ends too early: "
        if n_missing > 0:
            message += f"{self.n_read:,} of {self.n_frames:,} frames can be read."
        else:
            message += f"{self.n_read:,} frames can be read, and the file is shorter than it says."
        fix = "What can be read was used. If the file was copied, copy it again."
        return [Finding("truncated-video", message, fix)]

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_file(path: Path) -> None:
    """Raise a `DataError` where there is no file, or it is text: the decoder would draw it."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except (FileNotFoundError, IsADirectoryError) as error:
        what = " is a folder" if path.is_dir() else ": no such file"
        raise DataError(f"{path}{what}. Give the file of one video.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if b"\0" not in head:
        raise DataError(_explain_unreadable(path))


def _explain_still(path: Path, n_frames: int) -> str:
    return (
        f"{path} has {count_things(n_frames, 'frame')} that can be decoded. Motion is what differs "
        "from one frame to the next: give a video."
    )


def _explain_unreadable(path: Path) -> str:
    if path.stat().st_size == 0:
        return f"{path} is empty (0 bytes). Copy the video again."
    if is_cut_off(path):
        return (
            f"{path} ends too early and cannot be read: the list of its frames, which a camera "
            "writes last, is missing. Copy the file again, or repair it with a tool such as "
            "untrunc."
        )
    return (
        f"{path} is no video that can be decoded. Give a video such as MP4, AVI, MOV, MKV or WebM."
    )
