"""Folds on the workers of a Dask or Ray cluster, through joblib's backends."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from joblib import parallel_config

from fishfeat.errors import DataError, MissingExtraError, did_you_mean

log = logging.getLogger("fishfeat")
# Each backend's packages.
BACKENDS = {"dask": ("dask", "distributed"), "ray": ("ray",)}
_spread: ContextVar[str] = ContextVar("spread", default="")


def is_spread() -> bool:
    """Whether folds run in other processes than this."""
    return bool(_spread.get())


@contextlib.contextmanager
def spread(backend: str | None) -> Iterator[None]:
    """Within it `cross_validate` sends each fold to a worker.

    Parameters
    ----------
    backend
        'dask' or 'ray' for workers on this machine, 'dask:ADDRESS' (tcp://host:8786) or
        'ray:ADDRESS' for a cluster that runs already; None for the threads of this process.
        Every worker needs the same fishfeat; scores are those of one machine up to rounding.

    Raises
    ------
    DataError
        The backend is not known.
    MissingExtraError
        Its package is not installed.
    """
    if not backend:
        yield
        return
    name, _, address = backend.partition(":")
    _check(name)
    opened = _dask(address) if name == "dask" else _ray(address)
    with opened as n_workers, parallel_config(name, n_jobs=n_workers):
        log.info("Folds run on %d workers (%s).", n_workers, backend)
        token = _spread.set(name)
        try:
            yield
        finally:
            _spread.reset(token)


def _check(name: str) -> None:
    if name not in BACKENDS:
        raise DataError(
            f"--backend takes dask, ray, dask:ADDRESS or ray:ADDRESS; got {name!r}."
            f"{did_you_mean(name, BACKENDS)}"
        )
    missing = [p for p in BACKENDS[name] if importlib.util.find_spec(p) is None]
    if missing:
        raise MissingExtraError(
            f"--backend {name} needs {' and '.join(missing)}: pip install 'fishfeat[{name}]'. "
            "Without --backend the folds run on the cores of this machine."
        )


@contextlib.contextmanager
def _dask(address: str) -> Iterator[int]:
    distributed: Any = importlib.import_module("distributed")
    options = {"address": address} if address else {"dashboard_address": None}
    with distributed.Client(**options, set_as_default=True) as client:
        yield max(1, sum(client.nthreads().values()))


@contextlib.contextmanager
def _ray(address: str) -> Iterator[int]:
    ray: Any = importlib.import_module("ray")
    register: Any = importlib.import_module("ray.util.joblib").register_ray
    ray.init(address=address or "local", ignore_reinit_error=True, log_to_driver=False)
    try:
        register()
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()
