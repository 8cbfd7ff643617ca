"""What the file of a video says about itself: whether it is the same, and whether it is whole."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SAMPLE = 1 << 20
# Types of the first box of an MP4 or MOV file.
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
# No file has more parts than this at its top level, unless it is no such file.
_MAX_PARTS = 100_000


@dataclass(frozen=True)
class VideoIdentity:
    """What tells one video from another, whatever the name of its file.

    Attributes
    ----------
    n_bytes
        Size of the file.
    digest
        SHA-256 of the first and the last megabyte: videos are too long to be read twice.
    """

    n_bytes: int
    digest: str


def identify_video(path: Path) -> VideoIdentity:
    """Size and digest of a video file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, n_bytes - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return VideoIdentity(n_bytes, digest.hexdigest())


def is_cut_off(path: Path) -> bool:
    """Whether an AVI, MP4 or MOV file is shorter than its own parts say; False for other files.

    Each part at the top level of such a file begins with its length.
    """
    with open(path, "rb") as file:
        n_bytes = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == b"RIFF":
            find_length = _read_chunk_length
        elif head[4:8] in _FIRST_BOXES:
            find_length = _read_box_length
        else:
            return False
        start = 0
        for _ in range(_MAX_PARTS):
            file.seek(start)
            length = find_length(file)
            if length == 0:
                return False
            start += length
            if start > n_bytes:
                return True
        return False


def _read_chunk_length(file: BinaryIO) -> int:
    """Length of a chunk of an AVI file with its head; 0 where it has none or does not say."""
    head = file.read(8)
    if len(head) < 8 or head[:4] != b"RIFF":
        return 0
    length = int.from_bytes(head[4:], "little")
    return length + 8 if length else 0


def _read_box_length(file: BinaryIO) -> int:
    """Length of a box of an MP4 file with its head; 0 where it goes to the end of the file."""
    head = file.read(16)
    if len(head) < 8 or not head[4:8].isalnum():
        return 0
    length = int.from_bytes(head[:4], "big")
    return int.from_bytes(head[8:16], "big") if length == 1 else length
