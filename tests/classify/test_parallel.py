"""Folds and candidates on other machines' workers give what this machine gives."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from fishfeat.classify.parallel import n_lent, use_backend
from fishfeat.errors import DataError, MissingExtraError

# In a process of its own, as a cluster leaves threads and sockets behind.
PROGRAM = """
import os
import numpy as np
from fishfeat.classify.parallel import use_backend
from fishfeat.classify.validation import cross_validation as crossval
from fishfeat.classify.validation.search import Budget, Searched
from fishfeat.classify.validation.splits import make_splits
from fishfeat.records import BackboneSpec, Features

HERE, scored = os.getpid(), Searched._scored

def _scored(self, *args):
    assert os.getpid() != HERE, "a candidate was scored here"
    return scored(self, *args)

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
    splits = make_splits(features, n_splits=3)
    here = crossval.cross_validate(features, "svc", splits)
    budget = Budget(trials=6)
    searched = crossval.cross_validate(features, "logreg", splits, search=budget)
    with use_backend({backend!r}):
        there = crossval.cross_validate(features, "svc", splits)
        Searched._scored = _scored
        spread_out = crossval.cross_validate(features, "logreg", splits, search=budget)
        from joblib import Parallel, delayed
        pids = set(Parallel()(delayed(os.getpid)() for _ in range(8)))
    assert os.getpid() not in pids, "the work ran here"
    assert np.allclose(here.scores, there.scores, atol=1e-8)
    assert np.allclose(searched.scores, spread_out.scores, atol=1e-8)
    chosen = [[fold["params"] for fold in run.folds] for run in (searched, spread_out)]
    assert chosen[0] == chosen[1] and any(chosen[0]), chosen
    print("the same from", len(pids), "workers")
"""


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_workers_give_the_same_scores(backend: str, tmp_path) -> None:
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    script = tmp_path / "spread.py"
    script.write_text(PROGRAM.format(backend=backend))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert "the same from" in done.stdout, done.stderr[-3000:]


def test_without_a_backend_nothing_is_spread() -> None:
    with use_backend(None):
        assert n_lent() == 0


def test_an_unknown_backend_is_refused() -> None:
    with (
        pytest.raises(DataError, match=r"--backend takes dask, ray.*got 'dusk'.*mean dask"),
        use_backend("dusk"),
    ):
        pass


@pytest.mark.parametrize("backend", ["dask:tcp://nowhere:1", "ray"])
def test_a_missing_package_is_said_with_its_extra(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    name = backend.split(":")[0]
    with (
        pytest.raises(MissingExtraError, match=rf"pip install 'fishfeat\[{name}\]'"),
        use_backend(backend),
    ):
        pass
