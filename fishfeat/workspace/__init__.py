"""Where things lie under the cache folder: one subfolder for each data set."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fishfeat.errors import CacheError, DataError
from fishfeat.files import (
    atomic,
    json_digest,
    open_text,
    read_json,
    safe_name,
    sweep,
    write_arrays,
    write_json,
    write_text,
)
from fishfeat.records import UNLABELLED, BackboneSpec, Holdout, ImageSet, Rejected, Run
from fishfeat.records.near_duplicates import NearDuplicates, read_pairs, write_near_duplicates

IMAGE_COLUMNS = [
    *("path", "label", "group", "part", "bytes", "mtime_ns", "digest", "width", "height"),
    *("status", "reason", "group_name"),
]

# Status of an image that is used though its file ends too soon.
TRUNCATED_STATUS = "half-read"
_HALF_READ_NOTE = "half read: the file ends too soon (--allow-truncated)."

# The file that names the data set last used, so no data set can have this name.
_NOTE = "current"


class Workspace:
    """The cache folder: one subfolder for each data set and a note of the one last used.

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
        found = sorted(self.folder.glob("*/dataset.json"))
        return [DatasetFolder(path.parent) for path in found]

    @property
    def current(self) -> DatasetFolder | None:
        """The data set last used, or None."""
        note = self.folder / _NOTE
        name = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
        dataset = self.dataset(name) if name else None
        return dataset if dataset and dataset.exists() else None

    def use(self, dataset: DatasetFolder) -> None:
        """Remember `dataset` as the one last used; sweep up what killed processes left in it."""
        sweep([*self.folder.glob(".*.tmp"), *dataset.folder.rglob(".*.tmp")])
        write_text(self.folder / _NOTE, dataset.name + "\n")

    def dataset_for(self, name: str, root: Path) -> DatasetFolder:
        """The folder for the images in `root`, made unique where two roots share a name.

        A data set whose root is gone was moved: its folder is taken over, so that nothing is
        embedded again.
        """
        name = safe_name(name)
        if name.lower() == _NOTE:
            name += "-images"
        dataset = self.dataset(name)
        known = dataset.state().get("root") if dataset.exists() else None
        if known in (None, str(root)) or not os.path.exists(str(known)):
            return dataset
        return self.dataset(f"{name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:6]}")


@dataclass(frozen=True)
class DatasetFolder:
    """What is kept of one data set: the list of its images, features, runs, models, report."""

    folder: Path

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.folder.name

    @property
    def images_csv(self) -> Path:
        """The list of the images."""
        return self.folder / "images.csv"

    @property
    def near_duplicates_csv(self) -> Path:
        """The verified pairs of near-duplicates with their evidence."""
        return self.folder / "near_duplicates.csv"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.folder / "report"

    @property
    def models(self) -> Path:
        """Folder of the fitted models."""
        return self.folder / "models"

    def exists(self) -> bool:
        """Whether the data set has been listed before."""
        return self._state_file.is_file()

    @property
    def _state_file(self) -> Path:
        return self.folder / "dataset.json"

    def state(self) -> dict[str, Any]:
        """Root, grouping, features and splits last used; empty where nothing is known."""
        return read_json(self._state_file) if self.exists() else {}

    def update(self, **changes: Any) -> None:
        """Change entries of the state."""
        write_json(self._state_file, self.state() | changes)

    def features_file(self, spec: BackboneSpec) -> Path:
        """The HDF5 file of the vectors that `spec` describes."""
        return self.folder / "features" / f"{safe_name(spec.label)}-{spec.key[:8]}.h5"

    def features_files(self) -> list[Path]:
        """Every feature file of the data set."""
        return sorted((self.folder / "features").glob("*.h5"))

    def save_images(self, images: ImageSet) -> None:
        """Write `images.csv` and the state that belongs to it.

        Images that are known to be half read are written as such.
        """
        # The state first: a list without its root would be of no use.
        self.update(root=str(images.root), grouping=images.grouping, notes=images.notes)
        with atomic(self.images_csv) as file:
            writer = csv.writer(file)
            writer.writerow(IMAGE_COLUMNS)
            writer.writerows(_image_rows(images, self.truncated()))

    def load_images(self) -> ImageSet:
        """The image set that `save_images` wrote."""
        if not self.images_csv.is_file():
            raise DataError(
                f"No images are listed for {self.name!r} yet: run `fishfeat extract DATA` first."
            )
        state = self.state()
        try:
            with open_text(self.images_csv) as file:
                rows = list(csv.DictReader(file))
            images = _image_set(self.name, Path(state["root"]), rows)
        except (csv.Error, KeyError, TypeError, ValueError, DataError) as error:
            raise CacheError(
                f"{self.images_csv} cannot be read ({error!r}). Delete it and run "
                "`fishfeat extract DATA` again."
            ) from error
        grouping, notes = state.get("grouping", ""), tuple(state.get("notes", ()))
        return dataclasses.replace(images, grouping=grouping, notes=notes)

    def save_near_duplicates(self, duplicates: NearDuplicates, **noted: Any) -> None:
        """Write `near_duplicates.csv`; how many were looked at, and `noted`, go into the state."""
        write_near_duplicates(self.near_duplicates_csv, duplicates)
        counts = {"n_images": duplicates.n_images, "n_compared": duplicates.n_compared}
        self.update(near_duplicates=counts | {"n_pairs": len(duplicates.pairs)} | noted)

    def load_near_duplicates(self) -> NearDuplicates | None:
        """The copies that `save_near_duplicates` wrote; None where nobody looked for them."""
        noted = self.state().get("near_duplicates")
        if noted is None or not self.near_duplicates_csv.is_file():
            return None
        pairs = read_pairs(self.near_duplicates_csv)
        return NearDuplicates(noted["n_images"], noted["n_compared"], pairs)

    def truncated(self) -> dict[str, str]:
        """Digest -> reason of every image that was ever embedded though its file ends too soon.

        The feature files hold their vectors like any other.
        """
        known: dict[str, str] = self.state().get("truncated", {})
        return known

    def note_truncated(self, reasons: Mapping[str, str]) -> None:
        """Add images to `truncated`, before their vectors are written: none may be unknown."""
        if reasons:
            self.update(truncated=self.truncated() | dict(reasons))

    def settled(self, images: ImageSet, *, allow_truncated: bool) -> ImageSet:
        """`images` with the half-read images counted in a note, or rejected where not allowed."""
        truncated = self.truncated()
        if not allow_truncated:
            return images.reject(truncated)
        n = int(np.isin(images.digest, list(truncated)).sum())
        notes = [note for note in images.notes if not note.endswith(_HALF_READ_NOTE)]
        notes += [f"{n} {'images are' if n > 1 else 'image is'} {_HALF_READ_NOTE}"] if n else []
        return dataclasses.replace(images, notes=tuple(notes))

    def save_run(self, run: Run) -> Path:
        """Write a run to `runs/<name>-<split>-<key 8>/`, replacing the same run of before."""
        name = safe_name(f"{run.name}-{run.split}-{_identity(run)[:8]}")
        folder = self.folder / "runs" / name
        write_arrays(folder / "arrays.npz", run_arrays(run))
        plain = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in _ARRAYS}
        for name, held in _held_out(run).items():
            plain[name] = {"metrics": held.metrics, "intervals": held.intervals}
        write_json(folder / "run.json", plain)
        return folder

    def load_runs(self) -> list[Run]:
        """Every run that was kept, those of earlier splits and features too."""
        return [_load_run(path.parent) for path in sorted(self.folder.glob("runs/*/run.json"))]


def _identity(run: Run) -> str:
    """Digest of what makes two runs the same question, whatever parameters answered it."""
    config = run.config
    asked = [config.get(name) for name in ("clf", "balanced", "seed")]
    made = [config.get("features", {}).get(name) for name in ("backbone", "fingerprint")]
    return json_digest([run.name, run.kind, run.split, run.splits_digest, asked, made])


_ARRAYS = {"keys", "y", "class_names", "scores", "fold"}
_HELD = ("holdout", "holdout_folds")
_HELD_ARRAYS = ("keys", "y", "scores")


def run_arrays(run: Run) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a run by name, those of its held-out test set prefixed 'holdout_'."""
    arrays = {name: getattr(run, name) for name in _ARRAYS}
    for prefix, held in _held_out(run).items():
        arrays |= {f"{prefix}_{name}": getattr(held, name) for name in _HELD_ARRAYS}
    return arrays


def _held_out(run: Run) -> dict[str, Holdout]:
    """The scores of the held-out test set that there are, by the name of their field."""
    found = {name: getattr(run, name) for name in _HELD}
    return {name: held for name, held in found.items() if held is not None}


def _load_run(folder: Path) -> Run:
    try:
        plain = read_json(folder / "run.json")
        with np.load(folder / "arrays.npz", allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise CacheError(f"{folder} cannot be read ({error}). Delete it and fit again.") from error
    # Runs of before know nothing of the folds' models.
    told = {name: plain.pop(name) for name in _HELD if plain.get(name)}
    held = {n: {a: arrays.pop(f"{n}_{a}") for a in _HELD_ARRAYS} for n in told}
    for scored in (plain, *told.values()):
        scored["intervals"] = {name: tuple(ends) for name, ends in scored["intervals"].items()}
    plain["folds"] = tuple(plain["folds"])
    known = {name: plain[name] for name in plain if name not in ("protocol", "fishfeat")}
    return Run(**known | {n: Holdout(**held[n], **told[n]) for n in told}, **arrays)


def _image_rows(images: ImageSet, truncated: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    """Rows in the order of `IMAGE_COLUMNS`; Python's own values, as numpy's take long to write."""
    blank = [""] * len(images)
    digests = images.digest.tolist()
    yield from zip(
        images.keys.tolist(),
        images.labels.tolist(),
        blank if images.groups is None else images.groups.tolist(),
        blank if images.part is None else images.part.tolist(),
        images.n_bytes.tolist(),
        images.mtime_ns.tolist(),
        digests,
        images.width.tolist(),
        images.height.tolist(),
        (TRUNCATED_STATUS if digest in truncated else "ok" for digest in digests),
        (truncated.get(digest, "") for digest in digests),
        blank if images.group_name is None else images.group_name.tolist(),
        strict=True,
    )
    for lost in images.rejected:
        size = (lost.n_bytes, lost.mtime_ns, lost.digest, "", "")
        yield (lost.key, lost.label, "", "", *size, "rejected", lost.reason, "")


def _image_set(name: str, root: Path, rows: list[dict[str, str]]) -> ImageSet:
    ok = [row for row in rows if row["status"] in ("ok", TRUNCATED_STATUS)]
    lost = [row for row in rows if row["status"] == "rejected"]
    if len(ok) + len(lost) < len(rows):
        raise ValueError(f"a row is neither ok nor {TRUNCATED_STATUS} nor rejected")
    labels = np.array([row["label"] for row in ok], str)
    class_names, y = encode_labels(labels)
    texts = ("path", "digest", "part", "group", "group_name")
    column = {c: np.array([row[c] for row in ok], str) for c in texts}
    number = {c: np.array([row[c] for row in ok], np.int64) for c in _NUMBERS}
    return ImageSet(
        name=name,
        root=root,
        keys=column["path"],
        y=y,
        class_names=class_names,
        digest=column["digest"],
        n_bytes=number["bytes"],
        mtime_ns=number["mtime_ns"],
        width=number["width"],
        height=number["height"],
        groups=column["group"].astype(np.int64) if all(column["group"]) and len(ok) else None,
        group_name=column["group_name"] if any(column["group_name"]) else None,
        part=column["part"] if any(column["part"]) else None,
        rejected=tuple(map(_rejected, lost)),
    )


_NUMBERS = ("bytes", "mtime_ns", "width", "height")


def _rejected(row: Mapping[str, str]) -> Rejected:
    return Rejected(
        row["path"],
        row["reason"],
        row["label"],
        int(row["bytes"]),
        int(row["mtime_ns"]),
        row["digest"],
    )


def encode_labels(labels: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Sorted class names str (n_classes,) and int64 (n_images,) codes; '' becomes -1."""
    class_names = np.unique(labels[labels != ""]) if len(labels) else np.empty(0, str)
    y = np.searchsorted(class_names, labels).astype(np.int64)
    return class_names.astype(str), np.where(labels == "", UNLABELLED, y)
