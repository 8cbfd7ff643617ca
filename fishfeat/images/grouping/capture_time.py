"""When and with which camera an image was taken, as its EXIF data say."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import NamedTuple

from PIL import ExifTags, Image

from fishfeat.records import ImageSet, Int

_WHEN = "%Y:%m:%d %H:%M:%S"


class Capture(NamedTuple):
    """Seconds since 1970 (as the camera's clock ran) and the camera: maker, model and serial."""

    seconds: float
    camera: str


def read_capture(path: str | os.PathLike[str]) -> Capture | None:
    """What the EXIF data of one file say; None where they name no time or cannot be read."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            values = dict(exif) | dict(exif.get_ifd(ExifTags.IFD.Exif))
    except Exception:  # Pillow raises whatever its parsers meet
        return None
    tags = {ExifTags.TAGS.get(n, ""): str(v).strip("\0 ") for n, v in values.items()}
    # DateTime may be that of the last change; some telephones write no other.
    names = ("DateTimeOriginal", "DateTimeDigitized", "DateTime")
    times = (_seconds(tags.get(name, "")) for name in names)
    seconds = next((found for found in times if found is not None), None)
    if seconds is None:
        return None
    fraction = tags.get("SubsecTimeOriginal", "")
    camera = [tags.get(name, "") for name in ("Make", "Model", "BodySerialNumber")]
    exact = seconds + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0)
    return Capture(exact, " ".join(filter(None, camera)))


def _shown(seconds: float) -> str:
    return str(datetime(1970, 1, 1) + timedelta(seconds=seconds))


def _seconds(text: str) -> float | None:
    try:
        return (datetime.strptime(text, _WHEN) - datetime(1970, 1, 1)).total_seconds()
    except ValueError:  # '0000:00:00 00:00:00' where the clock was never set
        return None


def read_captures(images: ImageSet, rows: Int) -> list[Capture | None]:
    """`read_capture` of the images `rows`, int64 (n,); only their headers are read."""
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(read_capture, [images.path(i) for i in rows.tolist()]))


def bursts(captures: list[Capture | None], seconds: float) -> list[str]:
    """The burst of each image, '' without a time: no more than `seconds` from shot to shot."""
    names = [""] * len(captures)
    timed = [(found.camera, found.seconds, i) for i, found in enumerate(captures) if found]
    before: tuple[str, float] | None = None
    name = ""
    for camera, when, i in sorted(timed):
        if before is None or before[0] != camera or when - before[1] > seconds:
            name = f"{camera or 'camera'} {_shown(when)}"
        names[i] = name
        before = (camera, when)
    return names
