"""How the result of `fishfeat motion` is shown."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from fishfeat.report.text import count

from .console import Console
from .render import describe_finding

if TYPE_CHECKING:
    from fishfeat.stages.motion import Motion


def show_motion(console: Console, motion: Motion) -> None:
    """What was found, where it is, and how to go on."""
    console.document(
        {
            "table": motion.table,
            "frame_images": motion.frame_images,
            "n_frames": motion.n_frames,
            "n_tracks": motion.n_tracks,
            "n_crops": motion.n_crops,
            "is_new": motion.is_new,
            "findings": [describe_finding(finding) for finding in motion.findings],
        }
    )
    crops = count(motion.n_crops, "crop")
    tracks = count(motion.n_tracks, "track")
    console.say(f"{count(motion.n_frames, 'frame')}: {crops} of {tracks}.")
    if motion.frame_images is not None:
        console.say(f"Images of the frames: {motion.frame_images}")
    console.say(f"The table: {motion.table}")
    if motion.n_crops:
        table = shlex.quote(str(motion.table))
        console.say(
            "Fill in its column label, then: "
            f"fishfeat extract {table} (or fishfeat predict {table})"
        )
