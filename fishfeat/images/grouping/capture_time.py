"""Capture times: when and with which camera an image was taken, by its EXIF data."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import NamedTuple

from PIL import ExifTags, Image

from fishfeat.records import ImageSet, Int, PathLike

_EPOCH = datetime(1970, 1, 1)
_FORMAT = "%Y:%m:%d %H:%M:%S"
# DateTime may be the time of the last change, but some telephones write no other.
_TIME_TAGS = ("DateTimeOriginal", "DateTimeDigitized", "DateTime")
_CAMERA_TAGS = ("Make", "Model", "BodySerialNumber")


class Capture(NamedTuple):
    """One shot.

    Attributes
    ----------
    seconds
        Seconds since 1970 by the camera's clock.
    camera
        Maker, model and serial number, as far as they are known.
    """

    seconds: float
    camera: str


def read_capture(path: PathLike) -> Capture | None:
    """Read the EXIF data of one file; None where they have no time or cannot be read."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            values = dict(exif) | dict(exif.get_ifd(ExifTags.IFD.Exif))
    except Exception:  # Pillow raises many types
        return None
    tags = {ExifTags.TAGS.get(n, ""): str(v).strip("\0 ") for n, v in values.items()}
    seconds = _read_seconds(tags)
    if seconds is None:
        return None
    fraction = tags.get("SubsecTimeOriginal", "")
    if fraction.isdecimal():
        seconds += float(f"0.{fraction}")
    camera = " ".join(tags[name] for name in _CAMERA_TAGS if tags.get(name))
    return Capture(seconds, camera)


def _read_seconds(tags: dict[str, str]) -> float | None:
    """The first of the time tags that holds a time, in seconds since 1970."""
    for name in _TIME_TAGS:
        try:
            time = datetime.strptime(tags.get(name, ""), _FORMAT)
        except ValueError:  # '0000:00:00 00:00:00' where the clock was never set
            continue
        return (time - _EPOCH).total_seconds()
    return None


def read_captures(images: ImageSet, rows: Int) -> list[Capture | None]:
    """Apply `read_capture` to the images `rows`, int64 (n,); only file headers are read."""
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(read_capture, [images.path(i) for i in rows.tolist()]))


def name_bursts(captures: list[Capture | None], seconds: float) -> list[str]:
    """Name the burst of each image; '' for an image without a capture time.

    A burst is a series of shots of one camera with at most `seconds` between one shot and the next.
    """
    names = [""] * len(captures)
    shots = [(shot.camera, shot.seconds, i) for i, shot in enumerate(captures) if shot]
    burst_name, last_camera, last_time = "", "", -float("inf")
    for camera, time, i in sorted(shots):
        if camera != last_camera or time - last_time > seconds:
            burst_name = f"{camera or 'camera'} {_EPOCH + timedelta(seconds=time)}"
        names[i] = burst_name
        last_camera, last_time = camera, time
    return names
