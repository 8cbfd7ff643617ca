"""Draw the demo images as files: their names, their number, and each drawn once.

The set is built like *A Large Scale Fish Dataset* (Ulucan, Karakaya and Turkan, 2020): it has few
originals of each species, and many rotated and mirrored copies of each. The number of the original
is in the name of the file, so that a split can keep the copies of one original together.
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
"""To be raised when the same arguments give other images, so that old ones are replaced."""

_MARKER = ".fishfeat-demo.json"
_DRAWN_NAME = re.compile(r"[a-z-]+_\d{4,}-r\d{3}f?\.png(\.tmp)?")
# File managers leave these in folders that they show.
_IGNORED_NAMES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_MIN_SIDE, _MAX_COPIES = 16, 360


class Rotation(NamedTuple):
    """The change from an original to a copy: first rotated counter-clockwise, then mirrored."""

    degrees: int
    mirrored: bool

    @property
    def tag(self) -> str:
        """The rotation in the name of the file: 'r090f' is 90 degrees and mirrored."""
        return f"r{self.degrees:03d}{'f' if self.mirrored else ''}"


_FIRST_ROTATIONS = (
    Rotation(0, False),
    Rotation(180, False),
    Rotation(0, True),
    Rotation(180, True),
)


@dataclass(frozen=True)
class _Plan:
    """The arguments of one demo set, and the images that follow from them."""

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

    def copies(self, number: int, species: int) -> Iterator[tuple[str, Rotation]]:
        """Yield the path of every copy of an original, relative to the folder, and its rotation."""
        name = SPECIES[species].name
        for rotation in _choose_rotations(number, self.n_copies):
            yield f"{name}/{_make_slug(name)}_{number:04d}-{rotation.tag}.png", rotation

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
    """Draw the demo images, unless the folder has them already.

    An image is ``folder/<species>/<species-slug>_<original>-<rotation>.png``. The number of the
    original is unique in the whole set, and the first copy, ``r000``, is the original. Images of an
    earlier or interrupted call are replaced.

    Parameters
    ----------
    folder
        Folder to draw into: empty, missing, or drawn by an earlier call.
    n_originals
        Number of originals of each species.
    n_copies
        Number of images of each original, including the original; 1 to 360.
    seed
        Seed of the random numbers, at least 0. An original depends on the seed, its species and its
        number within the species. It does not depend on how many others there are.
    size
        Width and height of the images in pixels, at least 16 each.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        An argument is out of range, or the folder holds other files. They stay unchanged.

    References
    ----------
    O. Ulucan, D. Karakaya, M. Turkan, "A Large-Scale Dataset for Fish Segmentation and
    Classification", ASYU 2020, https://doi.org/10.1109/ASYU50717.2020.9259867
    """
    folder, plan = Path(folder), _Plan(n_originals, n_copies, seed, size)
    _check_arguments(plan)
    drawn = _list_drawn_files(folder)
    if _is_complete(folder, plan, drawn):
        return folder
    # Before the first image, so that a later call may replace the images of a killed one.
    _write_marker(folder, plan, complete=False)
    for path in drawn:
        path.unlink()
    for number, species, individual in plan.originals():
        _draw_original(folder, plan, number, species, individual)
    _remove_empty_folders(folder)
    _write_marker(folder, plan, complete=True)
    return folder


def _check_arguments(plan: _Plan) -> None:
    faults = []
    if plan.n_originals < 1:
        faults.append(f"n_originals must be at least 1; got {plan.n_originals}.")
    if not 1 <= plan.n_copies <= _MAX_COPIES:
        faults.append(f"n_copies must be 1 to {_MAX_COPIES}; got {plan.n_copies}.")
    if plan.seed < 0:
        faults.append(f"seed must be at least 0; got {plan.seed}.")
    if len(plan.size) != 2 or min(plan.size) < _MIN_SIDE:
        faults.append(
            f"size must be (width, height), each at least {_MIN_SIDE} pixels; got {plan.size}."
        )
    if faults:
        raise DataError(f"The demo images cannot be drawn: {' '.join(faults)}")


def _make_slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _choose_rotations(number: int, n_copies: int) -> list[Rotation]:
    """Choose distinct rotations for an original: none, then mirror images, then others."""
    rotations = dict.fromkeys(_FIRST_ROTATIONS)
    for k in range(4 * _MAX_COPIES):
        if k % 2:
            rotation = Rotation(90 * ((number + k) % 4), number % 2 == 1)
        else:
            # Multiples of the golden angle lie evenly on the circle, for any number of them.
            rotation = Rotation(int((number * 53 + k * 137.508) % 360), k % 4 == 2)
        rotations.setdefault(rotation)
    return list(rotations)[:n_copies]


# --- files ----------------------------------------------------------------------------------


def _make_marker_text(plan: _Plan, *, complete: bool) -> str:
    return json.dumps(asdict(plan) | {"complete": complete}) + "\n"


def _write_marker(folder: Path, plan: _Plan, *, complete: bool) -> None:
    write_text(folder / _MARKER, _make_marker_text(plan, complete=complete))


def _is_complete(folder: Path, plan: _Plan, drawn: list[Path]) -> bool:
    marker = folder / _MARKER
    marker_text = _make_marker_text(plan, complete=True)
    if not marker.is_file() or marker.read_bytes() != marker_text.encode():
        return False
    return {path.relative_to(folder).as_posix() for path in drawn} == set(plan.paths())


def _list_drawn_files(folder: Path) -> list[Path]:
    """List the images of an earlier call; raise `DataError` where the folder holds other files."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file. Use a new or empty folder for the demo images.")
    files = list(_walk_files(folder))
    has_marker = (folder / _MARKER).is_file()
    foreign = [path for path in files if not (has_marker and _is_drawn_file(folder, path))]
    if foreign:
        names = shortened([path.relative_to(folder).as_posix() for path in sorted(foreign)])
        raise DataError(
            f"{folder} holds files that the demo did not draw: {names}. Nothing was changed. Use "
            "a new or empty folder, or move these files away."
        )
    return files


def _walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files and linked folders below the folder, except those that can be ignored."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in names + links:
            if name not in _IGNORED_NAMES and _MARKER not in name:
                yield Path(parent, name)


def _is_drawn_file(folder: Path, path: Path) -> bool:
    species, _, name = path.relative_to(folder).as_posix().partition("/")
    if not _DRAWN_NAME.fullmatch(name) or not name.startswith(f"{_make_slug(species)}_"):
        return False
    return path.is_file() and not path.is_symlink()


def _remove_empty_folders(folder: Path) -> None:
    """Remove empty folders, such as those of species that an earlier version drew."""
    for child in folder.iterdir():
        if child.is_dir() and not any(child.iterdir()):
            child.rmdir()


# --- images ---------------------------------------------------------------------------------


def _draw_original(folder: Path, plan: _Plan, number: int, species: int, individual: int) -> None:
    # With the spawn key an original depends on its species and number, not on the order.
    seeds = np.random.SeedSequence(plan.seed, spawn_key=(species, individual))
    scene = draw_scene(SPECIES[species], np.random.default_rng(seeds), size=plan.size)
    for name, rotation in plan.copies(number, species):
        _save(_cut_frame(scene, rotation, plan.size), folder / name)


def _cut_frame(scene: Image.Image, rotation: Rotation, size: tuple[int, int]) -> Image.Image:
    """Rotate the scene, mirror it, and cut the frame from its middle."""
    quarters, rest = divmod(rotation.degrees, 90)
    if rest:
        scene = scene.rotate(rotation.degrees, Image.Resampling.BICUBIC)
    elif quarters:
        scene = scene.transpose(_QUARTERS[quarters - 1])
    if rotation.mirrored:
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
