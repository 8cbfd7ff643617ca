import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import filelock
import h5py
import numpy as np
import pytest

from fishfeat.errors import CacheError, DataError
from fishfeat.features.cache import FeatureCache, open_writer, select_features
from fishfeat.features.specs import make_spec
from fishfeat.files import safe_name
from fishfeat.images.scan import scan
from fishfeat.options import ScanOptions

SPEC = make_spec("resnet18")
DIM = 7


def digest(i: int) -> str:
    return f"{i:064x}"


def vectors(start: int, n: int) -> np.ndarray:
    return (np.arange(start, start + n)[:, None] + np.arange(DIM) / 10).astype(np.float32)


def fill(path: Path, n: int, *, start: int = 0) -> None:
    with open_writer(path, SPEC, "f" * 64, DIM) as writer:
        names = [digest(i) for i in range(start, start + n)]
        writer.append(names, [f"a/{name}.png" for name in names], vectors(start, n), seconds=1.5)


def test_vectors_are_read_by_digest_in_any_order(tmp_path):
    path = tmp_path / "x.h5"
    fill(path, 5)
    fill(path, 4, start=5)
    cache = FeatureCache(path)
    digests = np.array([digest(i) for i in (8, 0, 3, 3)])
    assert np.array_equal(cache.read_vectors(digests), vectors(0, 9)[[8, 0, 3, 3]])
    assert cache.find_rows(np.array([digest(2), "nothing"])).tolist() == [2, -1]
    assert cache.provenance.embed_seconds == 3.0
    assert cache.provenance.n_embedded == 9


def test_paths_that_are_not_utf8_can_be_read_by_every_program(tmp_path):
    """The column promises UTF-8; fishfeat itself reads the names as they are."""
    names = ["caf\udce9.png", "鱼.png", "\udcff\udcfe.png", "plain.png"]
    with open_writer(tmp_path / "x.h5", SPEC, "f" * 64, DIM) as writer:
        writer.append([digest(i) for i in range(4)], names, vectors(0, 4), seconds=1.0)
    with h5py.File(tmp_path / "x.h5") as file:
        paths = file["path"].asstr()[:4].tolist()
    assert paths == ["caf\\xe9.png", "鱼.png", "\\xff\\xfe.png", "plain.png"]
    assert FeatureCache(tmp_path / "x.h5").read_paths() == names


def test_reading_missing_vectors_is_an_error_with_their_number(tmp_path):
    fill(tmp_path / "x.h5", 2)
    with pytest.raises(CacheError, match=r"no vectors for 1 of 2 images.*fishfeat extract"):
        FeatureCache(tmp_path / "x.h5").read_vectors(np.array([digest(0), digest(9)]))


def test_the_file_has_the_schema_that_the_readme_shows(tmp_path):
    fill(tmp_path / "x.h5", 3)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["features"].shape == (3, DIM)
        assert file["features"].dtype == np.float32
        assert file["digest"][0].decode() == digest(0)
        assert file["path"].asstr()[2] == f"a/{digest(2)}.png"
        assert file.attrs["n_done"] == 3
        assert json.loads(file.attrs["spec"])["name"] == "resnet18"
        assert json.loads(file.attrs["provenance"])["versions"]["h5py"]
        assert set(file.attrs) == {"protocol", "spec", "fingerprint", "provenance", "n_done"}


def test_rows_that_were_not_counted_are_ignored(tmp_path):
    path = tmp_path / "x.h5"
    fill(path, 3)
    with h5py.File(path, "r+") as file:  # as after a kill between the two flushes
        for name in ("features", "digest", "path"):
            file[name].resize(5, axis=0)
    assert FeatureCache(path).n_done == 3
    fill(path, 2, start=3)
    cache = FeatureCache(path)
    digests = np.array([digest(i) for i in range(5)])
    assert np.array_equal(cache.read_vectors(digests), vectors(0, 5))


@pytest.mark.parametrize("n_more", [0, 2, 2000])
def test_references_to_strings_that_never_reached_the_file_do_no_harm(tmp_path, n_more):
    """A kill during a flush may leave them behind the counted rows of `path`."""
    path, n_rows, stale = tmp_path / "x.h5", 5, struct.pack("<IQI", 9, 0x572C0, 4)
    fill(path, n_rows)
    with h5py.File(path, "r+") as file:
        column, rows = file["path"], file["path"].chunks[0]
        # The extent may reach the disk before the rows, or with them.
        column.resize(n_rows + n_more, axis=0)
        for start in range(0, n_rows + n_more, rows):
            kept = column.id.read_direct_chunk((0,))[1][: n_rows * len(stale)] if not start else b""
            column.id.write_direct_chunk((start,), kept + stale * (rows - len(kept) // len(stale)))
    fill(path, 1300, start=n_rows)
    cache = FeatureCache(path)
    assert cache.n_done == n_rows + 1300
    assert cache.read_paths() == [f"a/{digest(i)}.png" for i in range(n_rows + 1300)]


def test_other_weights_of_the_same_name_are_never_mixed(tmp_path):
    fill(tmp_path / "x.h5", 3)
    with (
        pytest.raises(CacheError, match=r"0{12}.*f{12}.*Move the file away"),
        open_writer(tmp_path / "x.h5", SPEC, "0" * 64, DIM),
    ):
        pass
    assert FeatureCache(tmp_path / "x.h5").n_done == 3


def test_another_specification_under_the_same_file_name_is_refused(tmp_path):
    fill(tmp_path / "x.h5", 3)
    with (
        pytest.raises(CacheError, match="another backbone"),
        open_writer(tmp_path / "x.h5", make_spec("resnet34"), "f" * 64, DIM),
    ):
        pass


def test_a_file_of_a_newer_protocol_is_refused_by_readers_and_writers(tmp_path):
    fill(tmp_path / "x.h5", 3)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["protocol"] = 99
    with pytest.raises(CacheError, match=r"newer fishfeat \(protocol 99"):
        FeatureCache(tmp_path / "x.h5")
    with pytest.raises(CacheError, match="newer fishfeat"):
        fill(tmp_path / "x.h5", 1, start=3)


def test_a_truncated_file_is_damaged_and_stays_unchanged(tmp_path):
    path = tmp_path / "x.h5"
    fill(path, 300)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CacheError, match=r"x\.h5 is damaged.*Move it away"):
        FeatureCache(path)
    with pytest.raises(CacheError, match="damaged"):
        fill(path, 1, start=300)
    assert path.read_bytes() == content[: len(content) // 2]


def test_a_second_writer_gets_an_error_with_the_process_that_writes(tmp_path):
    path = tmp_path / "x.h5"
    with open_writer(path, SPEC, "f" * 64, DIM):
        with pytest.raises(CacheError, match=f"being written by process {os.getpid()} on "):
            fill(path, 1)
        with pytest.raises(CacheError, match=f"being written by process {os.getpid()} on "):
            subprocess_reads(path)
    fill(path, 1)
    assert FeatureCache(path).n_done == 1


def subprocess_reads(path: Path) -> None:
    """Read in another process, because HDF5 locks between processes; raise its error."""
    code = f"from fishfeat.features.cache import *; FeatureCache(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CacheError(done.stderr)


def test_a_missing_file_is_an_error_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(CacheError, match=r"x\.h5 does not exist.*`fishfeat extract`"):
        FeatureCache(tmp_path / "x.h5")


def test_a_read_only_folder_is_an_error_with_the_option_that_fixes_it(ours):
    ours.chmod(0o500)
    with pytest.raises(CacheError, match=f"{ours} cannot be written to .*--cache DIR"):
        fill(ours / "x.h5", 1)


def test_a_read_only_file_can_be_read_and_is_named_if_it_must_grow(ours):
    fill(ours / "x.h5", 2)
    (ours / "x.h5").chmod(0o400)
    assert FeatureCache(ours / "x.h5").n_done == 2
    with pytest.raises(CacheError, match=r"x\.h5 cannot be written to .*--cache DIR"):
        fill(ours / "x.h5", 1, start=2)
    (ours / "x.h5").chmod(0)
    with pytest.raises(CacheError, match=r"x\.h5 cannot be read now: Permission denied"):
        FeatureCache(ours / "x.h5")


def test_the_note_of_a_killed_writer_is_ignored(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "x.h5"
    host = safe_name(socket.gethostname())
    (tmp_path / f".x.h5.writer.{gone.pid}@{host}.tmp").touch()
    with (
        filelock.FileLock(tmp_path / "x.h5.lock"),
        pytest.raises(CacheError, match="being written by another process"),
    ):
        fill(path, 1)


def test_a_file_without_its_counted_rows_is_damaged(tmp_path):
    fill(tmp_path / "x.h5", 3)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["digest"].resize(2, axis=0)
    with pytest.raises(CacheError, match=r"damaged.*3 rows are counted.*2"):
        FeatureCache(tmp_path / "x.h5")
    with pytest.raises(CacheError, match="damaged"):
        fill(tmp_path / "x.h5", 1, start=3)


def test_reserved_blocks_are_released(tmp_path):
    fill(tmp_path / "x.h5", 3)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file.id.get_filesize() == (tmp_path / "x.h5").stat().st_size < 400_000


def test_selected_features_have_the_labels_of_the_image_set_and_the_vectors_of_the_file(
    folder, tmp_path
):
    images = scan(folder, ScanOptions(group_by=(r"pattern:fish_(\d+)_",)))
    path = tmp_path / "x.h5"
    with open_writer(path, SPEC, "f" * 64, DIM) as writer:
        writer.append(images.digest[::-1].tolist(), images.keys.tolist(), vectors(0, len(images)))
    features = select_features(images, path)
    assert np.array_equal(features.X, vectors(0, len(images))[::-1])
    assert np.array_equal(features.y, images.y)
    assert np.array_equal(features.groups, images.groups)
    merged = select_features(
        scan(folder, ScanOptions(merge={"bass": "fish", "bream": "fish"})), path
    )
    assert merged.class_names.tolist() == ["fish"]


def test_a_file_of_other_images_is_an_error(folder, tmp_path):
    fill(tmp_path / "x.h5", 2)
    with pytest.raises(DataError, match="any of these 12 images"):
        select_features(scan(folder), tmp_path / "x.h5")


WRITER = """
import sys, numpy as np
from pathlib import Path
from fishfeat.features.cache import FeatureCache, open_writer
from fishfeat.features.specs import make_spec
path, dim = Path(sys.argv[1]), 7
spec = make_spec("resnet18")
start = FeatureCache(path).n_done if path.exists() else 0
with open_writer(path, spec, "f" * 64, dim) as writer:
    print("ready", flush=True)
    while True:
        rows = np.arange(start, start + 8)
        X = (rows[:, None] + np.arange(dim) / 10).astype(np.float32)
        writer.append([f"{i:064x}" for i in rows], [f"a/{i}" for i in rows], X)
        start += 8
"""


def test_a_file_killed_at_any_moment_opens_and_holds_every_counted_row(tmp_path):
    path = tmp_path / "x.h5"
    rng = np.random.default_rng()
    counted = [0]
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        cache = FeatureCache(path)
        digests = np.array([digest(i) for i in range(cache.n_done)], str)
        assert np.array_equal(cache.read_vectors(digests), vectors(0, cache.n_done))
        counted.append(cache.n_done)
    assert counted == sorted(counted)
    assert counted[-1] > 0
