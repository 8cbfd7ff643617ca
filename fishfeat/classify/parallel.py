"""Where fits run: in threads of this process, or on the workers of a cluster, through joblib."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from threadpoolctl import ThreadpoolController

from fishfeat.errors import DataError, MissingExtraError, did_you_mean
from fishfeat.records import OnProgress

log = logging.getLogger("fishfeat")
T = TypeVar("T")
# The packages that each backend needs.
BACKENDS = {"dask": ("dask", "distributed"), "ray": ("ray",)}
_pool: ContextVar[Parallel | None] = ContextVar("pool", default=None)


def n_workers() -> int:
    """Number of worker processes; 0 outside `use_backend`, and on a worker."""
    pool = _pool.get()
    return 0 if pool is None else pool.n_jobs


def check_jobs(jobs: int) -> None:
    """Raise a `DataError` where `jobs` is no number of fits at the same time."""
    if jobs == 0 or jobs < -1:
        raise DataError(
            f"jobs must be a number of fits at the same time, or -1 for one on each core; got "
            f"{jobs}."
        )


def run_jobs(
    jobs: list[Any], n_jobs: int, *, is_search: bool = False
) -> Generator[Any, None, None]:
    """Results of `joblib.delayed` calls in order, by threads of this process or by the workers.

    A search sends its candidates to the workers itself: there are more of them than folds.
    """
    check_jobs(n_jobs)
    if n_workers() and is_search:
        yield from run_in_turn(jobs)
    elif n_workers():
        yield from run_on_workers(jobs)
    else:
        with one_blas_thread():
            # Threads are enough: the heavy parts release the interpreter lock and copy nothing.
            yield from Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(jobs)


def count_results(results: Iterator[T], total: int, on_progress: OnProgress | None) -> Iterator[T]:
    """Pass `results` on and report how many there were."""
    for done, result in enumerate(results, start=1):
        if on_progress is not None:
            on_progress(done, total)
        yield result


def run_on_workers(jobs: Sequence[Any]) -> list[Any]:
    """Results of `joblib.delayed` calls in order, by the workers or, without any, in turn."""
    pool = _pool.get()
    if pool is None:
        return list(run_in_turn(jobs))
    results: list[Any] = pool(delayed(_run_with_one_thread)(*job) for job in jobs)
    return results


def run_in_turn(jobs: Sequence[Any]) -> Iterator[Any]:
    """Results of `joblib.delayed` calls, computed by this thread, one after the other."""
    for function, args, kwargs in jobs:
        yield function(*args, **kwargs)


def _run_with_one_thread(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function on a worker, which does not have the limits of this process."""
    with one_blas_thread():
        return function(*args, **kwargs)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Limit linear algebra to one thread: the folds already use all cores.

    With several BLAS threads in each fold, logistic regression was twenty times slower.
    """
    limits: AbstractContextManager[Any] = _find_thread_pools().limit(limits=1, user_api="blas")
    return limits


@functools.cache
def _find_thread_pools() -> ThreadpoolController:
    """The libraries of linear algebra; looking for them takes milliseconds in each fit."""
    import scipy.linalg  # noqa: F401  (it brings a library of its own)

    return ThreadpoolController()


@contextlib.contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Send each fold, or each candidate of a search, to a worker while the context is open.

    Parameters
    ----------
    backend
        'dask' or 'ray' for workers on this machine, 'dask:ADDRESS' (tcp://host:8786) or
        'ray:ADDRESS' for a cluster that already runs; None for the threads of this process. Every
        worker needs the same fishfeat. Scores are those of one machine up to rounding.

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
    _check_backend(name)
    cluster = _connect_dask(address) if name == "dask" else _connect_ray(address)
    # One pool for everything: Ray takes seconds to start its processes.
    with cluster as n, parallel_config(name, n_jobs=n), Parallel() as pool:
        log.info("Folds run on %d workers (%s).", n, backend)
        token = _pool.set(pool)
        try:
            yield
        finally:
            _pool.reset(token)


def _check_backend(name: str) -> None:
    if name not in BACKENDS:
        raise DataError(
            f"backend must be dask, ray, dask:ADDRESS or ray:ADDRESS; got {name!r}."
            f"{did_you_mean(name, BACKENDS)}"
        )
    missing = [package for package in BACKENDS[name] if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"backend {name!r} needs {' and '.join(missing)}: pip install 'fishfeat[{name}]'. "
            "Without --backend the folds run on the cores of this machine."
        )


@contextlib.contextmanager
def _connect_dask(address: str) -> Iterator[int]:
    distributed: Any = importlib.import_module("distributed")
    options = {"address": address} if address else {"dashboard_address": None}
    with distributed.Client(**options, set_as_default=True) as client:
        yield max(1, sum(client.nthreads().values()))


@contextlib.contextmanager
def _connect_ray(address: str) -> Iterator[int]:
    ray: Any = importlib.import_module("ray")
    register: Any = importlib.import_module("ray.util.joblib").register_ray
    # Ray prints what it sees of dying nodes where results are to be.
    with contextlib.redirect_stdout(sys.stderr):
        ray.init(address=address or "local", ignore_reinit_error=True, log_to_driver=False)
        try:
            register()
            yield max(1, int(ray.cluster_resources().get("CPU", 1)))
        finally:
            ray.shutdown()
