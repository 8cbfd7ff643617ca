"""A Ray cluster embeds shards while its actors and nodes die, and then fits on the same cluster."""

import dataclasses
import json
import os
import signal
import threading

import numpy as np
import pytest
from kill_shards import kill_node, list_actors, start_cluster

from fishfeat.errors import DataError
from fishfeat.options import FitOptions
from fishfeat.options.shards import ShardOptions, ShardScanOptions
from fishfeat.shards.engines import ray_cluster
from fishfeat.stages.fit import fit_data
from fishfeat.stages.shards import extract_shard_data, merge_data, scan_data

from .conftest import GROUPS, TINY
from .test_extract_shards import read_all

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(2) as started:
        yield started


# It starts without torch, so that an actor is there in a second.
NANO = {"backbone": "nano", "runtime": "openvino"}


def ray_options(cluster, **changes) -> ShardOptions:
    return ShardOptions(**NANO | changes, engine="ray", address=cluster.address)


def test_actors_and_nodes_die_and_the_features_are_those_of_one_machine(
    cluster, pictures, tmp_path, monkeypatch, capsys
):
    shards, out = tmp_path / "shards", tmp_path / "out"
    scan_data(pictures, shards, ShardScanOptions(rows=2, group_by=GROUPS))
    extract_shard_data(shards, tmp_path / "here", ShardOptions(**NANO))
    taken = []
    take = ray_cluster._Actors._take

    def take_and_kill(self, future, number):
        taken.append(number)
        if len(taken) == 1:
            os.kill(list_actors()[0], signal.SIGKILL)
        if len(taken) == 4:
            kill_node(cluster)
        return take(self, future, number)

    monkeypatch.setattr(ray_cluster._Actors, "_take", take_and_kill)
    done = extract_shard_data(shards, out, ray_options(cluster))
    assert (done.unfinished, done.n_new) == ({}, 12)
    assert len(taken) > 12  # some shards were given again
    (keys, X), (expected, Y) = read_all(out), read_all(tmp_path / "here")
    assert keys == expected
    assert X.tobytes() == Y.tobytes()
    assert capsys.readouterr().out == ""
    merge_data(out, cache=tmp_path / "cache")
    cluster.wait_for_nodes(timeout=120)  # until the dead node counts as dead
    options = FitOptions(clf=("logreg",), cv=2, backend=f"ray:{cluster.address}")
    runs = fit_data(options, cache=tmp_path / "cache").runs
    here = fit_data(dataclasses.replace(options, backend=None), cache=tmp_path / "cache").runs
    for run, expected_run in zip(runs, here, strict=True):
        np.testing.assert_allclose(run.scores, expected_run.scores, atol=1e-9)


def test_an_error_of_the_user_ends_the_command(cluster, shards, tmp_path):
    extract_shard_data(shards, tmp_path, ShardOptions(**NANO, shard="1/5"))
    path = tmp_path / "job.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["fingerprint"], "0" * 64))
    with pytest.raises(DataError, match="weights"):  # as a worker finds
        extract_shard_data(shards, tmp_path, ray_options(cluster))


def test_a_shard_that_kills_its_workers_is_given_up(cluster, shards, tmp_path, monkeypatch):
    def kill_again_and_again():
        while not over.wait(0.05):
            for pid in list_actors():
                os.kill(pid, signal.SIGKILL)

    over = threading.Event()
    monkeypatch.setattr(ray_cluster, "_MOST_DEATHS", 1)
    threading.Thread(target=kill_again_and_again).start()
    try:
        done = extract_shard_data(shards, tmp_path, ray_options(cluster, shard="1/5"))
    finally:
        over.set()
    assert list(done.unfinished) == [0]
    assert "died" in done.unfinished[0]


def test_an_address_is_for_ray(shards, tmp_path):
    with pytest.raises(DataError, match="address"):
        extract_shard_data(shards, tmp_path, ShardOptions(**TINY, address="127.0.0.1:1"))
