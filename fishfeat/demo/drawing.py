"""The demo set as files: which images there are, under which names, drawn once.

It is built as *A Large Scale Fish Dataset* (Ulucan, Karakaya and Turkan, 2020) was: few originals
of each species, every one turned and flipped into many images. The number of the original is in
each file's name, for a split that keeps the copies of one original together.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fishfeat.demo.camera import SUPERSAMPLING, draw_scene
from fishfeat.demo.species import SPECIES
from fishfeat.errors import DataError, shortened
from fishfeat.files import write_text

DEMO_GROUP_PATTERN = r"_(\d+)-"
"""Finds the number of the original in an image's path."""

DRAWING_VERSION = 1
"""Raised whenever the same arguments give other images, so that old ones are drawn again."""

_MARKER = ".fishfeat-demo.json"
_OURS = re.compile(r"[a-z-]+_\d{4,}-r\d{3}f?\.png(\.tmp)?")
# Left by file managers that merely looked into the folder; nobody would miss a warning for them.
_HARMLESS = {".DS_Store", "Thumbs.db", "desktop.ini"}
_MIN_SIDE, _MAX_COPIES = 16, 360


class Turn(NamedTuple):
    """How a copy differs from its original: turned counter-clockwise, then mirrored."""

    degrees: int
    flipped: bool

    @property
    def tag(self) -> str:
        """The turn as it stands in the file's name."""
        return f"r{self.degrees:03d}{'f' if self.flipped else ''}"


_FIRST_TURNS = (Turn(0, False), Turn(180, False), Turn(0, True), Turn(180, True))


@dataclass(frozen=True)
class _Plan:
    """The arguments of one set, and all that follows from them."""

    n_originals: int
    n_copies: int
    seed: int
    size: tuple[int, int]
    drawing: int = DRAWING_VERSION

    def originals(self) -> Iterator[tuple[int, int, int]]:
        """Yield (number over the whole set, species, number within the species)."""
        for species in range(len(SPECIES)):
            for individual in range(self.n_originals):
                yield species * self.n_originals + individual, species, individual

    def copies(self, number: int, species: int) -> Iterator[tuple[str, Turn]]:
        """Yield the path of every copy of an original, relative to the folder, and its turn."""
        name = SPECIES[species].name
        for turn in _turns(number, self.n_copies):
            yield f"{name}/{_slug(name)}_{number:04d}-{turn.tag}.png", turn

    def paths(self) -> Iterator[str]:
        """Yield the path of every image, relative to the folder."""
        for number, species, _ in self.originals():
            yield from (path for path, _ in self.copies(number, species))


def draw_demo(
    folder: str | os.PathLike[str],
    *,
    n_originals: int = 12,
    n_copies: int = 6,
    seed: int = 0,
    size: tuple[int, int] = (160, 120),
) -> Path:
    """Draw the demo set, unless the folder holds it already.

    Images are ``folder/<species>/<species-slug>_<original>-<turn>.png``; the original's number is
    unique over the whole set and the first copy, ``r000``, is the original itself. Images that an
    earlier or interrupted call drew are replaced.

    Parameters
    ----------
    folder
        Where to draw; empty, missing, or drawn by this function before.
    n_originals
        Originals of each species.
    n_copies
        Images of each original, the untouched one included; 1 to 360.
    seed
        Not negative. An original is a function of the seed, its species and its number within the
        species, not of how many others there are.
    size
        Width and height of the images in pixels, at least 16 each.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        If an argument is out of range, or if the folder holds files that were not drawn here; they
        are left as they are.

    References
    ----------
    O. Ulucan, D. Karakaya, M. Turkan, "A Large-Scale Dataset for Fish Segmentation and
    Classification", ASYU 2020, https://doi.org/10.1109/ASYU50717.2020.9259867
    """
    folder, plan = Path(folder), _Plan(n_originals, n_copies, seed, size)
    _check_arguments(plan)
    drawn = _drawn_files(folder)
    if _is_complete(folder, plan, drawn):
        return folder
    # Before the first image, so that a killed run's images are known to be ours.
    _write_marker(folder, plan, complete=False)
    for path in drawn:
        path.unlink()
    for number, species, individual in plan.originals():
        _draw_original(folder, plan, number, species, individual)
    _remove_empty_folders(folder)
    _write_marker(folder, plan, complete=True)
    return folder


def _check_arguments(plan: _Plan) -> None:
    allowed = {
        f"n_originals must be at least 1, got {plan.n_originals}": plan.n_originals >= 1,
        f"n_copies must be 1 to {_MAX_COPIES}, got {plan.n_copies}": (
            1 <= plan.n_copies <= _MAX_COPIES
        ),
        f"seed must not be negative, got {plan.seed}": plan.seed >= 0,
        f"size must be (width, height), each at least {_MIN_SIDE} pixels, got {plan.size}": (
            len(plan.size) == 2 and min(plan.size) >= _MIN_SIDE
        ),
    }
    faults = [message for message, ok in allowed.items() if not ok]
    if faults:
        raise DataError(f"The demo set cannot be drawn: {'; '.join(faults)}.")


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _turns(number: int, n_copies: int) -> list[Turn]:
    """Choose distinct turns for an original: the untouched one, its mirror images, then others."""
    turns = dict.fromkeys(_FIRST_TURNS)
    for k in range(4 * _MAX_COPIES):
        if k % 2:
            turn = Turn(90 * ((number + k) % 4), number % 2 == 1)
        else:
            # Multiples of the golden angle never crowd, however many are asked for.
            turn = Turn(int((number * 53 + k * 137.508) % 360), k % 4 == 2)
        turns.setdefault(turn)
    return list(turns)[:n_copies]


# --- files ----------------------------------------------------------------------------------------


def _marker_text(plan: _Plan, *, complete: bool) -> str:
    return json.dumps(asdict(plan) | {"complete": complete}) + "\n"


def _write_marker(folder: Path, plan: _Plan, *, complete: bool) -> None:
    write_text(folder / _MARKER, _marker_text(plan, complete=complete))


def _is_complete(folder: Path, plan: _Plan, drawn: list[Path]) -> bool:
    marker = folder / _MARKER
    if not marker.is_file() or marker.read_bytes() != _marker_text(plan, complete=True).encode():
        return False
    return {path.relative_to(folder).as_posix() for path in drawn} == set(plan.paths())


def _drawn_files(folder: Path) -> list[Path]:
    """Return the images that an earlier call left, refusing a folder with anything else."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file. Name a new or empty folder for the demo images.")
    files = list(_files(folder))
    known = (folder / _MARKER).is_file()
    foreign = [path for path in files if not (known and _is_ours(folder, path))]
    if foreign:
        names = shortened([path.relative_to(folder).as_posix() for path in sorted(foreign)])
        raise DataError(
            f"{folder} holds files that the demo did not draw: {names}. Nothing was changed. Name "
            "a new or empty folder, or move these files away."
        )
    return files


def _files(folder: Path) -> Iterator[Path]:
    """Yield what stands in the folder, linked folders included, but for what may be ignored."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in names + links:
            if name not in _HARMLESS and _MARKER not in name:
                yield Path(parent, name)


def _is_ours(folder: Path, path: Path) -> bool:
    species, _, name = path.relative_to(folder).as_posix().partition("/")
    ours = bool(_OURS.fullmatch(name)) and name.startswith(f"{_slug(species)}_")
    return ours and path.is_file() and not path.is_symlink()


def _remove_empty_folders(folder: Path) -> None:
    """Remove the folders of species that an older version drew."""
    for child in folder.iterdir():
        if child.is_dir() and not any(child.iterdir()):
            child.rmdir()


# --- images -------------------------------------------------------------------------------------


def _draw_original(folder: Path, plan: _Plan, number: int, species: int, individual: int) -> None:
    # The spawn key makes every original a function of its own place, whatever the order.
    seeds = np.random.SeedSequence(plan.seed, spawn_key=(species, individual))
    scene = draw_scene(SPECIES[species], np.random.default_rng(seeds), size=plan.size)
    for name, turn in plan.copies(number, species):
        _save(_framed(scene, turn, plan.size), folder / name)


def _framed(scene: Image.Image, turn: Turn, size: tuple[int, int]) -> Image.Image:
    """Turn the scene, mirror it, and cut the frame from its middle."""
    quarters, rest = divmod(turn.degrees, 90)
    if rest:
        scene = scene.rotate(turn.degrees, Image.Resampling.BICUBIC)
    elif quarters:
        scene = scene.transpose(_QUARTERS[quarters - 1])
    if turn.flipped:
        scene = scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    half_width, half_height = (n * SUPERSAMPLING // 2 for n in size)
    middle = scene.width // 2
    box = (middle - half_width, middle - half_height, middle + half_width, middle + half_height)
    return scene.resize(size, Image.Resampling.LANCZOS, box=box)


_QUARTERS = (
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    image.save(temporary, "PNG", compress_level=4)
    os.replace(temporary, path)
