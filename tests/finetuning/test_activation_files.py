"""The activation file: what was counted stays, what is damaged or full is said."""

import h5py
import numpy as np
import pytest
import torch

from fishfeat.errors import CacheError
from fishfeat.finetuning.activation_checks import check_activations, prune_activations
from fishfeat.finetuning.activation_files import ActivationFile, find_missing, open_writer

DIGESTS = np.array([f"{i:064x}" for i in range(6)])
SHAPE = (3, 2)


def write(path, rows, *, key="k"):
    with open_writer(path, key, SHAPE, 2) as writer:
        for row in rows:
            activations = np.full((1, 2, *SHAPE), row, np.float32)
            activations[:, 1] += 0.5
            writer.append([DIGESTS[row]], [f"{row}.png"], activations, seconds=1.0)


def test_rows_are_read_by_image_and_transform(tmp_path):
    write(tmp_path / "a.h5", [4, 0, 2])
    file = ActivationFile(tmp_path / "a.h5", DIGESTS[[0, 2, 4]])
    read = file.read(np.array([2, 0]), np.array([0, 1]))
    file.close()
    assert read.dtype == torch.float32
    assert read.shape == (2, *SHAPE)
    assert read[:, 0, 0].tolist() == [4.0, 0.5]


def test_what_is_missing_is_found(tmp_path):
    path = tmp_path / "a.h5"
    assert find_missing(path, "k", DIGESTS).tolist() == DIGESTS.tolist()
    write(path, [1, 3])
    write(path, [5])
    assert find_missing(path, "k", DIGESTS).tolist() == DIGESTS[[0, 2, 4]].tolist()
    with h5py.File(path) as file:
        assert file.attrs["seconds"] == 3.0


def test_rows_that_were_not_counted_are_written_again(tmp_path):
    path = tmp_path / "a.h5"
    write(path, [0, 1])
    with h5py.File(path, "r+") as file:  # as a kill between the two flushes leaves it
        file.attrs["n_done"] = 1
    assert len(find_missing(path, "k", DIGESTS)) == 5
    write(path, [2])
    file = ActivationFile(path, DIGESTS[[0, 2]])
    assert file.read(np.array([1]), np.array([0]))[0, 0, 0] == 2.0
    file.close()


def test_activations_of_another_network_are_refused(tmp_path):
    write(tmp_path / "a.h5", [0])
    with pytest.raises(CacheError, match="another network"):
        find_missing(tmp_path / "a.h5", "other", DIGESTS)


def test_an_image_without_activations_is_an_error(tmp_path):
    write(tmp_path / "a.h5", [0])
    with pytest.raises(CacheError):
        ActivationFile(tmp_path / "a.h5", DIGESTS)


@pytest.mark.parametrize("n_bytes", [0, 8, 600, -1])
def test_a_truncated_file_is_refused(n_bytes, tmp_path):
    path = tmp_path / "a.h5"
    write(path, [0, 1, 2])
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(CacheError, match=r"a\.h5"):
        find_missing(path, "k", DIGESTS)


def test_a_full_disk_keeps_the_earlier_rows(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    write(path, [0, 1])

    def fail(file, n_bytes):
        raise OSError(28, "No space left on device")

    with open_writer(path, "k", SHAPE, 2) as writer:
        monkeypatch.setattr("fishfeat.finetuning.activation_files.reserve", fail)
        with pytest.raises(CacheError, match="2 images"):
            writer.append([DIGESTS[2]], ["2.png"], np.zeros((1, 2, *SHAPE), np.float32))
    assert len(find_missing(path, "k", DIGESTS)) == 4


def test_one_process_writes_at_a_time(tmp_path):
    with (
        open_writer(tmp_path / "a.h5", "k", SHAPE, 2),
        pytest.raises(CacheError),
        open_writer(tmp_path / "a.h5", "k", SHAPE, 2),
    ):
        pass


def test_a_sound_file_has_no_fault_and_a_broken_one_has(tmp_path):
    path = tmp_path / "a.h5"
    write(path, [0, 1])
    check = check_activations(path)
    assert (check.faults, check.n_rows) == ([], 2)
    with h5py.File(path, "r+") as file:
        file["activations"][1, 0, 0, 0] = np.inf
        file["digest"][1] = file["digest"][0]
    assert len(check_activations(path).faults) == 2
    path.write_bytes(path.read_bytes()[:100])
    assert len(check_activations(path).faults) == 1


def test_pruning_keeps_the_rows_that_are_named(tmp_path):
    path = tmp_path / "a.h5"
    write(path, [0, 1, 2])
    assert prune_activations(path, DIGESTS).n_rows == 0
    assert prune_activations(path, DIGESTS[[0, 2, 5]]).n_rows == 1
    assert find_missing(path, "k", DIGESTS[:3]).tolist() == DIGESTS[1:2].tolist()
    file = ActivationFile(path, DIGESTS[[2]])
    assert file.read(np.array([0]), np.array([1]))[0, 0, 0] == 2.5
    file.close()
    with h5py.File(path) as file:
        assert file.attrs["seconds"] == 3.0
