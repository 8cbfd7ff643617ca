"""The folder of one data set in the cache: its state, tables, features, runs and models.

A commit writes its files into a temporary folder and renames that folder to `.commit`. From this
rename on the new state counts: readers prefer the files in `.commit`. Then the files are moved to
their places one by one. The next command that takes the lock finishes moves that a kill stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from fishfeat.errors import CacheError, DataError
from fishfeat.files import (
    read_json,
    safe_name,
    sweep,
    temporary_name,
    write_json,
    write_text,
    writing_to,
)
from fishfeat.records import BackboneSpec, ImageSet, Run
from fishfeat.records.near_duplicates import NearDuplicates, read_pairs, write_near_duplicates
from fishfeat.workspace.images_table import format_images, read_images
from fishfeat.workspace.locks import hold_lock
from fishfeat.workspace.runs import load_runs, save_run
from fishfeat.workspace.state import DatasetState

STATE = "dataset.json"
_IMAGES = "images.csv"
_NEAR_DUPLICATES = "near_duplicates.csv"
# A command waits so long for another one on the same data set.
_LOCK_SECONDS = 5.0
_Content = TypeVar("_Content")


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

    @property
    def place(self) -> str:
        """Folder or table that was listed; '' before the first listing."""
        return self.state.data or self.state.root

    def require_images(self) -> ImageSet:
        """The images; a `DataError` that says what to run where none are listed."""
        if self.images is None:
            raise DataError(
                f"No images are listed for {self.name!r} yet: run `fishfeat extract DATA` first."
            )
        return self.images

    def load_near_duplicates(self) -> NearDuplicates | None:
        """The near-duplicates that were verified; None where they were not searched for."""
        search = self.state.near_duplicates
        path = self.folder.near_duplicates_csv
        if search is None or not path.is_file():
            return None
        return NearDuplicates(search.n_images, search.n_compared, read_pairs(path))


@dataclass(frozen=True)
class DatasetFolder:
    """The folder of one data set: its images, features, runs, models and report.

    Attributes
    ----------
    folder
        Where it is; its name is the name of the data set.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.folder.name

    @property
    def images_csv(self) -> Path:
        """The table of the images."""
        return self._find(_IMAGES)

    @property
    def near_duplicates_csv(self) -> Path:
        """The table of the verified near-duplicates. Version 0.1.0 called it `copies.csv`."""
        path = self._find(_NEAR_DUPLICATES)
        earlier = self.folder / "copies.csv"
        return earlier if earlier.is_file() and not path.is_file() else path

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.folder / "report"

    @property
    def comparison(self) -> Path:
        """Folder of the comparison of backbones, with its own runs."""
        return self.folder / "comparison"

    @property
    def models(self) -> Path:
        """Folder of the saved models."""
        return self.folder / "models"

    def activation_files(self) -> list[Path]:
        """Every file of stored activations of the data set."""
        return sorted((self.folder / "activations").glob("*.h5"))

    def networks(self) -> list[Path]:
        """The folder of each tuned network."""
        return sorted(path.parent for path in self.folder.glob("networks/*/config.json"))

    def exists(self) -> bool:
        """Whether the data set has been listed before."""
        return self._find(STATE).is_file()

    def features_file(self, spec: BackboneSpec) -> Path:
        """The HDF5 file of the features that `spec` describes."""
        return self.folder / "features" / f"{safe_name(spec.label)}-{spec.key[:8]}.h5"

    def features_files(self) -> list[Path]:
        """Every feature file of the data set."""
        return sorted((self.folder / "features").glob("*.h5"))

    # --- state --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from changing the data set until the block ends.

        The lock file lies beside the folder, so that nothing is in the folder before a commit.

        Raises
        ------
        CacheError
            Another command holds the lock for several seconds, or the cache is read-only.
        """
        lock_file = self.folder.with_name(f".{self.name}.lock")
        with hold_lock(self.folder, lock_file=lock_file, seconds=_LOCK_SECONDS):
            # Killed processes leave temporary files.
            sweep([*self.folder.parent.glob(".*.tmp"), *self.folder.rglob(".*.tmp")])
            self._finish_commit()
            yield

    def read(self) -> Dataset:
        """The state and the images, as one commit left them.

        Raises
        ------
        CacheError
            A file is damaged, or a newer fishfeat wrote it.
        """
        return self._read_whole(self._read_dataset)

    def read_state(self) -> DatasetState:
        """The state alone; an empty one where nothing is remembered."""
        return self._read_whole(self._read_state)

    def _read_whole(self, read_files: Callable[[], _Content]) -> _Content:
        """Read files again until no commit happens between the first and the last of them."""
        while True:
            stamp = self._stamp()
            try:
                content = read_files()
            except FileNotFoundError:  # a commit moves it
                continue
            if self._stamp() == stamp:
                return content

    def _stamp(self) -> tuple[int, int, bool]:
        """Values that change with every commit."""
        is_pending = self._pending.is_dir()
        try:
            status = os.stat(self._find(STATE))
        except FileNotFoundError:
            return 0, 0, is_pending
        return status.st_ino, status.st_mtime_ns, is_pending

    def _read_dataset(self) -> Dataset:
        state = self._read_state()
        path = self.images_csv
        if not path.is_file():
            return Dataset(self, state)
        images = read_images(path, name=self.name, root=Path(state.root))
        images = dataclasses.replace(
            images, grouping=state.grouping, notes=state.notes, findings=state.findings
        )
        return Dataset(self, state, images)

    def _read_state(self) -> DatasetState:
        path = self._find(STATE)
        content = read_json(path) if path.is_file() else {}
        state = DatasetState.from_json(path, content)
        if self._journal.is_file():
            truncated = {**state.truncated, **self._read_journal()}
            state = dataclasses.replace(state, truncated=truncated)
        return state

    def _read_journal(self) -> dict[str, str]:
        truncated = read_json(self._journal).get("truncated")
        if not isinstance(truncated, dict):
            raise CacheError(
                f"{self._journal} cannot be read (no entry 'truncated'). Delete it and run "
                "`fishfeat extract DATA` again."
            )
        return truncated

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

        Raises
        ------
        CacheError
            The disk is full or the cache is read-only. Everything is as it was.
        """
        if images is None:
            images = before.images
        else:
            state = dataclasses.replace(
                state,
                root=str(images.root),
                grouping=images.grouping,
                notes=images.notes,
                findings=images.findings,
            )
        # A killed extraction noted truncated images that no file of the state names yet.
        has_journal = self._journal.is_file()
        is_new_table = images is not None and (
            has_journal
            or before.images is None
            or state.truncated != before.state.truncated
            or not _are_equal(images, before.images)
        )
        if is_new_table or near_duplicates is not None:
            with self._prepare_commit() as folder:
                if is_new_table and images is not None:
                    write_text(folder / _IMAGES, format_images(images, state.truncated))
                if near_duplicates is not None:
                    write_near_duplicates(folder / _NEAR_DUPLICATES, near_duplicates)
                write_json(folder / STATE, state.to_json())
            self._finish_commit()
        elif has_journal or state != before.state:
            write_json(self.folder / STATE, state.to_json())
        self._journal.unlink(missing_ok=True)
        return Dataset(self, state, images)

    @contextlib.contextmanager
    def _prepare_commit(self) -> Iterator[Path]:
        """A temporary folder that becomes `.commit` at the end of the block, or is removed."""
        folder = temporary_name(self._pending)
        shutil.rmtree(folder, ignore_errors=True)  # of a killed process with the same number
        try:
            with writing_to(self.folder / STATE):
                folder.mkdir(parents=True)
            yield folder
            os.rename(folder, self._pending)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _finish_commit(self) -> None:
        """Move the files of a commit to their places; the state last."""
        if not self._pending.is_dir():
            return
        with writing_to(self.folder / STATE):
            for name in (_IMAGES, _NEAR_DUPLICATES, STATE):
                if (self._pending / name).is_file():
                    os.replace(self._pending / name, self.folder / name)
        shutil.rmtree(self._pending, ignore_errors=True)

    @property
    def _pending(self) -> Path:
        """Folder of a commit whose files are not yet at their places."""
        return self.folder / ".commit"

    def _find(self, name: str) -> Path:
        """Where a file is: a commit that a kill stopped counts."""
        path = self._pending / name
        return path if path.is_file() else self.folder / name

    @property
    def _journal(self) -> Path:
        """File that holds what an extraction must not lose before its commit."""
        return self.folder / "truncated.json"

    def note_truncated(self, truncated: Mapping[str, str]) -> None:
        """Remember images whose files end too early, before their features are written.

        `truncated` is digest -> reason of every such image. The next commit moves it into the
        state, also after a kill.
        """
        write_json(self._journal, {"truncated": dict(truncated)})

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
    for column in (
        "keys",
        "labels",
        "groups",
        "group_name",
        "part",
        "digest",
        "mtime_ns",
        "values",
    ):
        values, others = getattr(a, column), getattr(b, column)
        if values is None or others is None:
            if values is not others:
                return False
        elif not np.array_equal(values, others):
            return False
    return True
