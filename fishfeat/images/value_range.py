"""Which values the pixels of images with more than 8 bits hold, and whether they fill their range.

fishfeat scales them to 8 bits. Where a camera stores 12 bits in a 16-bit file, the scaled image is
nearly black, and most of what is in it is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fishfeat.checks import Finding
from fishfeat.records import ImageSet
from fishfeat.workspace import NOT_MEASURED

CHECK = "value-range"
# Darker than this share of white throughout the data set, or in some images beside others.
_DARK, _DARK_BESIDE_OTHERS = 0.5, 0.125
_MIN_SHARE = 0.05
_FEW = 3


class ValueRange(NamedTuple):
    """The smallest and largest value of the pixels of one image.

    Attributes
    ----------
    kind
        How the file stores a value: '12-bit', '16-bit', '32-bit' or 'float'.
    low, high
        Smallest and largest value.
    """

    kind: str
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.kind} {self.low:.6g} {self.high:.6g}"

    @property
    def white(self) -> int:
        """The value that becomes white where nobody says which.

        32-bit integers hold 16-bit data, because Pillow opens 16-bit PNGs so. Floats run from 0 to
        1 or from 0 to 255.
        """
        if self.kind == "12-bit":
            return 4095
        if self.kind == "16-bit" or self.high > 255:
            return 65535
        return 255 if self.high > 1 else 1


def parse_range(text: str) -> ValueRange | None:
    """The range that `str` wrote; None for an image of 8 bits."""
    if text in ("", NOT_MEASURED):
        return None
    kind, low, high = text.split(" ")
    return ValueRange(kind, float(low), float(high))


def check_value_ranges(images: ImageSet, white: float | None = None) -> ImageSet:
    """The images with the findings about their value ranges; `white` is the value given for it."""
    others = tuple(finding for finding in images.findings if finding.check != CHECK)
    ranges = [] if images.values is None else list(map(parse_range, images.values.tolist()))
    labels = images.labels.tolist()
    findings = []
    for kind in sorted({found.kind for found in ranges if found}):
        rows = [i for i, found in enumerate(ranges) if found and found.kind == kind]
        of_kind = [found for found in ranges if found and found.kind == kind]
        noun = f"{kind} {'image' if len(rows) == 1 else 'images'}"
        if images.crop is not None:
            noun = f"{'box' if len(rows) == 1 else 'boxes'} in {kind} images"
        findings += _check_kind(of_kind, [labels[i] for i in rows], white, noun)
    return replace(images, findings=(*others, *findings))


def _check_kind(
    ranges: Sequence[ValueRange], labels: Sequence[str], white: float | None, noun: str
) -> list[Finding]:
    """Findings about images of one kind, with their labels; `noun` is what they are."""
    highs = np.array([found.high for found in ranges])
    lows = np.array([found.low for found in ranges])
    whites = np.full(len(ranges), white) if white else np.array([r.white for r in ranges])
    top, largest_white = float(highs.max()), float(whites.max())
    findings = []
    n_negative = int((lows < -0.01 * whites).sum())
    if n_negative:
        message = (
            f"{n_negative} of {len(ranges)} {noun} hold values below 0 (down to {lows.min():,g}), "
            "which become black."
        )
        findings.append(Finding(CHECK, message, "Scale the files so that black is 0."))
    n_beyond = int((highs > 1.01 * whites).sum())
    if n_beyond:
        effect = "become white" if white else "cannot be used"
        message = (
            f"{n_beyond} of {len(ranges)} {noun} hold values up to {top:,g}, above the "
            f"{largest_white:,g} of white: they {effect}."
        )
        findings.append(Finding(CHECK, message, _suggest(ranges[0].kind, top)))
    elif top <= _DARK * largest_white:
        effect = "nearly black" if top <= _DARK_BESIDE_OTHERS * largest_white else "dark"
        message = (
            f"{len(ranges)} {noun} hold values up to {top:,g} of {largest_white:,g}: they come out "
            f"{effect}."
        )
        findings.append(Finding(CHECK, message, _suggest(ranges[0].kind, top)))
    elif len(set(whites.tolist())) > 1:
        counts = Counter(whites.tolist())
        parts = [f"{n} from 0 to {value:,g}" for value, n in sorted(counts.items())]
        message = (
            f"{len(ranges)} {noun} are scaled by different ranges, by the largest value of each: "
            f"{', '.join(parts)}."
        )
        findings.append(Finding(CHECK, message, _suggest(ranges[0].kind, top)))
    else:
        findings += _check_dark_ones(ranges, labels, largest_white, noun)
    return findings


def _check_dark_ones(
    ranges: Sequence[ValueRange], labels: Sequence[str], white: float, noun: str
) -> list[Finding]:
    """Images that hold only small values where others fill the range."""
    dark = [i for i, found in enumerate(ranges) if found.high <= _DARK_BESIDE_OTHERS * white]
    if len(dark) < max(1, _MIN_SHARE * len(ranges)):
        return []
    top = max(ranges[i].high for i in dark)
    classes = sorted({labels[i] for i in dark} - {""})
    where = f" (of {', '.join(classes[:_FEW])}{', …' if len(classes) > _FEW else ''})"
    message = (
        f"{len(dark)} of {len(ranges)} {noun}{where if classes else ''} hold no "
        f"value above {top:,g}, while others reach {max(r.high for r in ranges):,g} of {white:,g}: "
        "they come out nearly black beside the others."
    )
    fix = "If they come from another camera, scale their files to the range of the others."
    return [Finding(CHECK, message, fix)]


def _suggest(kind: str, top: float) -> str:
    """The option that gives white, with the likely value for images that reach `top`."""
    if kind == "float" and top <= 2:
        return "If white is 1 in these files: `--white 1`."
    if kind == "float" and top <= 300:
        return "If white is 255 in these files: `--white 255`."
    n_bits = max(10, int(np.ceil(np.log2(top + 1))))
    n_bits += n_bits % 2  # of cameras: 10, 12 or 14
    if n_bits > 16:
        return "`--white VALUE` gives the value of white."
    fix = f"If they hold {n_bits}-bit data, `--white {2**n_bits - 1}` gives the value of white"
    if 2000 < top <= 12_000:
        fix += ". For reflectances it is `--white 10000`"
    return f"{fix}."
