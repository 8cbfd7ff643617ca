"""The cache folder, and one subfolder of it for each data set."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fishfeat.errors import DataError
from fishfeat.files import read_json, safe_name, sweep, temporary_name, write_json, write_text
from fishfeat.records import BackboneSpec, ImageSet, Run
from fishfeat.records.near_duplicates import NearDuplicates, read_pairs, write_near_duplicates
from fishfeat.workspace.images_table import format_images, read_images
from fishfeat.workspace.locks import hold_lock
from fishfeat.workspace.runs import load_runs, save_run
from fishfeat.workspace.state import DatasetState

# The file that names the data set last used, so no data set can have this name.
_CURRENT = "current"
_STATE = "dataset.json"
_TABLES = ("images.csv", "near_duplicates.csv")
_LOCK_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """What is remembered of one data set, read at one moment.

    Attributes
    ----------
    folder
        Where it is.
    state
        Options, backbone, features and splits last used.
    images
        The images that were listed; None before the first listing.
    """

    folder: DatasetFolder
    state: DatasetState = field(default_factory=DatasetState)
    images: ImageSet | None = None

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.folder.name

    def require_images(self) -> ImageSet:
        """The images; a `DataError` that says what to run where none are listed."""
        if self.images is None:
            raise DataError(
                f"No images are listed for {self.name!r} yet: run `fishfeat extract DATA` first."
            )
        return self.images

    def load_near_duplicates(self) -> NearDuplicates | None:
        """The near-duplicates that were verified; None where they were not searched for."""
        search, path = self.state.near_duplicates, self.folder.near_duplicates_csv
        if search is None or not path.is_file():
            return None
        return NearDuplicates(search.n_images, search.n_compared, read_pairs(path))


@dataclass(frozen=True)
class DatasetFolder:
    """The folder of one data set: its images, features, runs, models and report."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.folder.name

    @property
    def images_csv(self) -> Path:
        """The table of the images."""
        return self._find("images.csv")

    @property
    def near_duplicates_csv(self) -> Path:
        """The table of the verified near-duplicates. Version 0.1.0 called it copies.csv."""
        path = self._find("near_duplicates.csv")
        earlier = self.folder / "copies.csv"
        return earlier if earlier.is_file() and not path.is_file() else path

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.folder / "report"

    @property
    def models(self) -> Path:
        """Folder of the saved models."""
        return self.folder / "models"

    def exists(self) -> bool:
        """Whether the data set has been listed before."""
        return self._find(_STATE).is_file()

    def features_file(self, spec: BackboneSpec) -> Path:
        """The HDF5 file of the features that `spec` describes."""
        return self.folder / "features" / f"{safe_name(spec.label)}-{spec.key[:8]}.h5"

    def features_files(self) -> list[Path]:
        """Every feature file of the data set."""
        return sorted((self.folder / "features").glob("*.h5"))

    # --- state --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from changing the state; they wait, then say who holds it."""
        with hold_lock(self.folder / "dataset", seconds=_LOCK_SECONDS):
            self._finish_commit()
            yield
        if not self.exists():  # nothing was committed: leave nothing behind
            with contextlib.suppress(OSError):
                (self.folder / "dataset.lock").unlink(missing_ok=True)
                self.folder.rmdir()

    def read(self) -> Dataset:
        """The state and the images, as one commit left them."""
        while True:
            moment = self._moment()
            with contextlib.suppress(FileNotFoundError):
                dataset = self._read()
                if self._moment() == moment:
                    return dataset

    def _read(self) -> Dataset:
        state = self.read_state()
        path = self.images_csv
        if not path.is_file():
            return Dataset(self, state)
        images = read_images(path, name=self.name, root=Path(state.root))
        images = dataclasses.replace(images, grouping=state.grouping, notes=state.notes)
        return Dataset(self, state, images)

    def read_state(self) -> DatasetState:
        """The state alone; an empty one where nothing is remembered."""
        path = self._find(_STATE)
        content = read_json(path) if path.is_file() else {}
        state = DatasetState.from_json(path, content)
        extra = self._journal()
        if extra.is_file():
            truncated = {**state.truncated, **read_json(extra)["truncated"]}
            state = dataclasses.replace(state, truncated=truncated)
        return state

    def _moment(self) -> tuple[int, int, bool]:
        """Changes with every commit."""
        pending = self._pending().is_dir()
        try:
            status = os.stat(self._find(_STATE))
        except FileNotFoundError:
            return 0, 0, pending
        return status.st_ino, status.st_mtime_ns, pending

    def commit(
        self,
        before: Dataset,
        state: DatasetState,
        *,
        images: ImageSet | None = None,
        near_duplicates: NearDuplicates | None = None,
    ) -> Dataset:
        """Replace the state and the tables that are given, all or nothing.

        What has not changed since `before` is not written. The caller holds the lock.
        """
        if images is not None:
            state = dataclasses.replace(
                state, root=str(images.root), grouping=images.grouping, notes=images.notes
            )
        is_new = images is not None and (
            before.images is None
            or state.truncated != before.state.truncated
            or not _are_equal(images, before.images)
        )
        if is_new or near_duplicates is not None:
            pending = temporary_name(self._pending())
            shutil.rmtree(pending, ignore_errors=True)
            if is_new and images is not None:
                write_text(pending / "images.csv", format_images(images, state.truncated))
            if near_duplicates is not None:
                write_near_duplicates(pending / "near_duplicates.csv", near_duplicates)
            write_json(pending / _STATE, state.to_json())
            os.rename(pending, self._pending())  # from here on the new state counts
            self._finish_commit()
        elif state != before.state:
            write_json(self.folder / _STATE, state.to_json())
        self._journal().unlink(missing_ok=True)
        return Dataset(self, state, before.images if images is None else images)

    def _pending(self) -> Path:
        """Folder of a commit whose files are not yet at their places."""
        return self.folder / ".commit"

    def _find(self, name: str) -> Path:
        """Where a file is: a commit that a kill interrupted counts."""
        pending = self._pending() / name
        return pending if pending.is_file() else self.folder / name

    def _finish_commit(self) -> None:
        """Move the files of a commit to their places; the state last."""
        pending = self._pending()
        if not pending.is_dir():
            return
        for name in (*_TABLES, _STATE):
            if (pending / name).is_file():
                os.replace(pending / name, self.folder / name)
        shutil.rmtree(pending, ignore_errors=True)

    def _journal(self) -> Path:
        return self.folder / "truncated.json"

    def note_truncated(self, truncated: Mapping[str, str]) -> None:
        """Remember images whose files end too early, before their features are written.

        `truncated` is digest -> reason of all that are known. A killed extraction leaves this file;
        the next commit moves it into the state.
        """
        write_json(self._journal(), {"truncated": dict(truncated)})

    # --- runs ---------------------------------------------------------------------------------

    def save_run(self, run: Run) -> Path:
        """Write a run, replacing an earlier run of the same classifier, features and folds."""
        return save_run(self.folder / "runs", run)

    def load_runs(self) -> list[Run]:
        """Every saved run, also those of earlier splits and features."""
        return load_runs(self.folder / "runs")


def _are_equal(a: ImageSet, b: ImageSet) -> bool:
    """Whether two image sets make the same table."""
    if a.root != b.root or a.rejected != b.rejected:
        return False
    for column in ("keys", "labels", "groups", "group_name", "part", "digest", "mtime_ns"):
        first, second = getattr(a, column), getattr(b, column)
        if (first is None) != (second is None):
            return False
        if first is not None and not np.array_equal(first, second):
            return False
    return True


class Workspace:
    """The cache folder: one subfolder for each data set, and a note of the one last used.

    Parameters
    ----------
    folder
        The cache folder; made when something is first written to it.
    """

    def __init__(self, folder: str | os.PathLike[str] = "cache") -> None:
        self.folder = Path(folder)

    def dataset(self, name: str) -> DatasetFolder:
        """The folder of the data set called `name`, which need not exist yet."""
        return DatasetFolder(self.folder / name)

    def datasets(self) -> list[DatasetFolder]:
        """Every data set that has been listed, by name."""
        return [DatasetFolder(path.parent) for path in sorted(self.folder.glob(f"*/{_STATE}"))]

    @property
    def current(self) -> DatasetFolder | None:
        """The data set last used, or None."""
        note = self.folder / _CURRENT
        name = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
        if not name or not self.dataset(name).exists():
            return None
        return self.dataset(name)

    def use(self, dataset: DatasetFolder) -> None:
        """Remember `dataset` as the one last used; remove what killed processes left in it."""
        sweep([*self.folder.glob(".*.tmp"), *dataset.folder.rglob(".*.tmp")])
        if self.current != dataset:
            write_text(self.folder / _CURRENT, dataset.name + "\n")

    @contextlib.contextmanager
    def open(self, name: str, root: Path) -> Iterator[Dataset]:
        """The data set of the images in `root`, locked until the block ends.

        Where two roots have one name, the second gets a name with a number. A data set whose root
        does not exist was moved: its folder is used, so that nothing is embedded again.
        """
        name = safe_name(name)
        if name.lower() == _CURRENT:
            name += "-images"
        suffix = hashlib.sha256(os.fsencode(root)).hexdigest()[:6]
        first, second = self.dataset(name), self.dataset(f"{name}-{suffix}")
        with first.lock():
            dataset = first.read()
            is_free = dataset.state.root in ("", str(root))
            if is_free or not os.path.exists(dataset.state.root):
                yield dataset
                return
        with second.lock():
            yield second.read()
