"""Workers of a cluster give the scores of this machine."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from joblib import delayed

from fishfeat.classify.parallel import (
    BACKENDS,
    count_results,
    n_workers,
    run_in_turn,
    run_jobs,
    run_on_workers,
    use_backend,
)
from fishfeat.errors import DataError, MissingExtraError

# A program of its own, because a cluster leaves threads and sockets behind.
PROGRAM = """
import os
import numpy as np
from fishfeat.classify.parallel import use_backend
from joblib import Parallel, delayed
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.search import Searched
from fishfeat.classify.validation.splits import make_splits
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import BackboneSpec, Features

DRIVER = os.getpid()
original = Searched._score_candidate

# The name is that of the method: a worker looks it up.
def _score_candidate(self, *args):
    assert os.getpid() != DRIVER, "the driver scored a candidate"
    return original(self, *args)

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(24), 4)
    y = groups % 3
    X = (np.eye(3, 12)[y] * 2 + rng.normal(size=(96, 12))).astype(np.float32)
    keys = np.array([f"{{i:03}}.png" for i in range(96)])
    names = np.array(["bass", "bream", "cod"])
    spec = BackboneSpec("random", "x")
    features = Features(X=X, keys=keys, y=y, class_names=names, spec=spec,
                        fingerprint="0" * 64, groups=groups)
    splits = make_splits(features, SplitOptions(cv=3))
    search = ClassifierOptions(search="6")
    local = cross_validate(features, "svc", splits)
    local_search = cross_validate(features, "logreg", splits, search)
    with use_backend({backend!r}):
        remote = cross_validate(features, "svc", splits)
        Searched._score_candidate = _score_candidate
        remote_search = cross_validate(features, "logreg", splits, search)
        pids = set(Parallel()(delayed(os.getpid)() for _ in range(8)))
    assert DRIVER not in pids, "the driver did the work"
    assert np.allclose(local.scores, remote.scores, atol=1e-8)
    assert np.allclose(local_search.scores, remote_search.scores, atol=1e-8)
    local_params = [fold.params for fold in local_search.folds]
    remote_params = [fold.params for fold in remote_search.folds]
    assert local_params == remote_params and any(local_params), (local_params, remote_params)
    print("equal scores from", len(pids), "workers")
"""


@pytest.mark.parametrize("backend", ["dask"])  # Ray: tests/shards/test_ray.py
def test_workers_give_the_same_scores(backend: str, tmp_path: Path) -> None:
    for package in BACKENDS[backend]:
        pytest.importorskip(package)
    script = tmp_path / "workers.py"
    script.write_text(PROGRAM.format(backend=backend))
    process = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert "equal scores from" in process.stdout, process.stderr[-3000:]


def test_without_a_backend_there_are_no_workers() -> None:
    with use_backend(None):
        assert n_workers() == 0


def test_results_are_in_the_order_of_the_jobs() -> None:
    jobs = [delayed(pow)(i, 2) for i in range(20)]
    assert list(run_jobs(jobs, 2)) == [i * i for i in range(20)]
    assert run_on_workers(jobs) == [i * i for i in range(20)]
    assert list(run_in_turn(jobs)) == [i * i for i in range(20)]


def test_results_are_counted() -> None:
    calls: list[tuple[int, int]] = []
    results = count_results(iter("ab"), 2, lambda done, total: calls.append((done, total)))
    assert list(results) == ["a", "b"]
    assert calls == [(1, 2), (2, 2)]


def test_a_wrong_backend_is_refused() -> None:
    with (
        pytest.raises(DataError, match=r"backend must be dask, ray.*got 'dusk'.*mean dask"),
        use_backend("dusk"),
    ):
        pass


@pytest.mark.parametrize("backend", ["dask:tcp://nowhere:1", "ray"])
def test_the_error_for_a_missing_package_names_its_extra(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    name = backend.split(":")[0]
    with (
        pytest.raises(MissingExtraError, match=rf"pip install 'fishfeat\[{name}\]'"),
        use_backend(backend),
    ):
        pass
