"""A full disk loses nothing, and the message states what is needed."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from fishfeat.errors import CacheError
from fishfeat.features import storage
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache, open_writer
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions
from fishfeat.workspace import Workspace

SPEC = make_spec("resnet18")
DIM = 512
BATCH = 50


class Disk(NamedTuple):
    """A folder on a small disk, and a function that enlarges the disk."""

    folder: Path
    enlarge: Callable[[], None]


def mount(*args: object) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["mount", *map(str, args)], capture_output=True).returncode == 0
    return False


@pytest.fixture
def tmpfs(tmp_path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=3m", "tmpfs", folder):
        pytest.skip("mounting is not permitted")
    try:
        yield Disk(folder, lambda: mount("-o", "remount,size=30m", folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def limited(tmp_path) -> Iterator[Disk]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def enlarge() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, before[1]))
    try:
        yield Disk(tmp_path, enlarge)
    finally:
        enlarge()


@pytest.fixture(params=["tmpfs", "limited"])
def small_disk(request) -> Disk:
    return request.getfixturevalue(request.param)


def append(writer, start: int) -> None:
    rows = np.arange(start, start + BATCH)
    X = np.repeat(rows[:, None], DIM, axis=1).astype(np.float32)
    writer.append([f"{i:064x}" for i in rows], [f"a/{i}.png" for i in rows], X)


def keep_appending(path: Path, counted: list[int]) -> None:
    with open_writer(path, SPEC, "f" * 64, DIM, n_new=5000) as writer:
        while True:
            append(writer, sum(counted))
            counted.append(BATCH)


def fill_up(path: Path) -> int:
    """Append until the disk is full; return the number of rows that count."""
    counted: list[int] = []
    with pytest.raises(CacheError) as caught:
        keep_appending(path, counted)
    n, message = sum(counted), str(caught.value)
    assert message.startswith(f"{path} cannot grow: ")
    assert f"The {n} images in it are safe; {5000 - n} more need about " in message
    assert "--cache DIR" in message
    return n


def assert_holds(path: Path, n: int) -> None:
    cache = FeatureCache(path)
    assert cache.n_done == n
    vectors = cache.read_vectors(np.array([f"{i:064x}" for i in range(n)]))
    assert np.array_equal(vectors, np.repeat(np.arange(n)[:, None], DIM, axis=1))


def test_a_full_disk_loses_nothing_and_the_run_continues_on_an_enlarged_disk(small_disk, caplog):
    path = small_disk.folder / "x.h5"
    n = fill_up(path)
    assert n > 0
    assert_holds(path, n)
    with pytest.raises(CacheError, match="cannot grow"):  # still full
        keep_appending(path, [n])
    assert_holds(path, n)
    small_disk.enlarge()
    with open_writer(path, SPEC, "f" * 64, DIM) as writer:
        for start in range(n, n + 10 * BATCH, BATCH):
            append(writer, start)
    assert_holds(path, n + 10 * BATCH)


def test_a_disk_that_is_too_small_is_reported_before_the_first_image(tmpfs, caplog):
    with open_writer(tmpfs.folder / "x.h5", SPEC, "f" * 64, DIM, n_new=5000):
        pass
    assert "x.h5 needs about 11.3 MB for 5000 images" in caplog.text


def test_a_disk_too_full_for_an_empty_file_keeps_no_partial_file(tmpfs):
    ballast = tmpfs.folder / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(CacheError, match=r"No space left on device .*--cache DIR"):
        open_writer(tmpfs.folder / "x.h5", SPEC, "f" * 64, DIM).__enter__()
    assert {path.name for path in tmpfs.folder.iterdir()} <= {"ballast", "x.h5.lock"}


@pytest.mark.usefixtures("eager_commits")
def test_an_extraction_continues_after_the_disk_was_full(tmpfs, draw_folder, tmp_path):
    backbone = load_backbone(make_spec("random:test_resnet", img_size=32))
    images, engine = scan(draw_folder(tmp_path / "fish", n=40)), EngineOptions(batch_size=4)
    undisturbed = extract(images, backbone, cache=tmp_path / "whole", engine=engine)
    ballast = tmpfs.folder / "ballast"

    def fill(done: int, total: int) -> None:
        if done == 20:
            with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    with pytest.raises(CacheError, match=r"The \d+ images in it are safe; \d+ more need about 1"):
        extract(images, backbone, cache=tmpfs.folder, engine=engine, on_progress=fill)
    ballast.unlink()
    path = Workspace(tmpfs.folder).dataset("fish").features_file(backbone.spec)
    assert 20 <= FeatureCache(path).n_done < 80
    resumed = extract(images, backbone, cache=tmpfs.folder, engine=engine)
    assert np.array_equal(resumed.X, undisturbed.X)


def test_a_read_only_disk_is_an_error_with_the_option_that_fixes_it(tmpfs):
    path = tmpfs.folder / "x.h5"
    with open_writer(path, SPEC, "f" * 64, DIM) as writer:
        append(writer, 0)
    assert mount("-o", "remount,ro", tmpfs.folder)
    assert_holds(path, BATCH)
    with pytest.raises(CacheError, match=r"cannot be written to \(Read-only.*--cache DIR"):
        open_writer(path, SPEC, "f" * 64, DIM).__enter__()


def test_without_reservation_the_free_space_is_checked(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "no")

    path = tmp_path / "x.h5"
    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    with open_writer(path, SPEC, "f" * 64, DIM) as writer:
        append(writer, 0)
        usage = storage.shutil.disk_usage(path.parent)._replace(free=1000)
        monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(CacheError, match="No space left"):
            append(writer, BATCH)
    assert_holds(path, BATCH)


# --- faults of the place ----------------------------------------------------------------------


@pytest.fixture
def features_file(tmp_path) -> Path:
    path = tmp_path / "x.h5"
    with open_writer(path, SPEC, "f" * 64, DIM) as writer:
        append(writer, 0)
    return path


def fail_to_open(monkeypatch, code: int, *, only_with_locks: bool = False) -> None:
    """Opening an HDF5 file fails with an error of the system."""
    real = h5py.File

    def open_or_fail(name, mode="r", **options):
        if options.get("driver") or (only_with_locks and options.get("locking") is False):
            return real(name, mode, **options)
        raise OSError(code, f"Unable to open file ({os.strerror(code)})")

    monkeypatch.setattr(h5py, "File", open_or_fail)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES])
def test_a_fault_of_the_place_is_not_called_damage(features_file, monkeypatch, code):
    fail_to_open(monkeypatch, code)
    with pytest.raises(CacheError) as caught:
        FeatureCache(features_file)
    assert str(features_file) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert "damaged" not in str(caught.value)
    monkeypatch.undo()
    assert FeatureCache(features_file).n_done == BATCH


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_place_without_file_locks_is_read_and_written(features_file, monkeypatch, code):
    fail_to_open(monkeypatch, code, only_with_locks=True)
    with open_writer(features_file, SPEC, "f" * 64, DIM) as writer:
        append(writer, BATCH)
    assert FeatureCache(features_file).n_done == 2 * BATCH
    # HDF5_USE_FILE_LOCKING overrules the argument.
    monkeypatch.undo()
    fail_to_open(monkeypatch, code)
    with pytest.raises(CacheError, match="HDF5_USE_FILE_LOCKING=FALSE") as caught:
        FeatureCache(features_file)
    assert "damaged" not in str(caught.value)


def test_a_file_that_is_written_in_a_place_without_locks_is_in_use(features_file, monkeypatch):
    fail_to_open(monkeypatch, errno.ENOLCK, only_with_locks=True)
    held = features_file.with_name(".x.h5.held.lock")
    held.touch()
    with pytest.raises(CacheError) as caught:
        FeatureCache(features_file)
    assert str(held) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_faults_of_the_contents_are_damage(features_file, content):
    content = features_file.read_bytes()[:3000] if content is None else content
    features_file.write_bytes(content)
    with pytest.raises(CacheError, match="damaged"):
        FeatureCache(features_file)


def test_a_table_that_cannot_be_read_now_is_not_to_be_deleted(tmp_path, monkeypatch):
    from fishfeat.files import read_json, write_json

    write_json(tmp_path / "dataset.json", {})

    def fail(path, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(CacheError, match="cannot be read now") as caught:
        read_json(tmp_path / "dataset.json")
    assert "Delete" not in str(caught.value)
