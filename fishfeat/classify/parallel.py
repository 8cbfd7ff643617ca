"""Where fits run: in threads here or on a cluster's workers, through joblib; on which device."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from fishfeat.errors import DataError, MissingExtraError, did_you_mean
from fishfeat.records import OnProgress

log = logging.getLogger("fishfeat")
T = TypeVar("T")
# Each backend's packages.
BACKENDS = {"dask": ("dask", "distributed"), "ray": ("ray",)}
_lent: ContextVar[Parallel | None] = ContextVar("lent", default=None)


def n_lent() -> int:
    """How many workers there are beside this process; 0 outside `use_backend`, and on a worker."""
    pool = _lent.get()
    return pool.n_jobs if pool else 0


def results_of(
    jobs: list[Any], n_jobs: int, *, searched: bool = False
) -> Generator[Any, None, None]:
    """What each delayed job gives, in order: by threads here, or by the workers that are lent.

    A search spreads its candidates, of which there are more than folds.
    """
    if n_lent():
        yield from in_turn(jobs) if searched else on_workers(jobs)
        return
    with one_blas_thread():
        # Threads: the heavy parts release the interpreter lock, and nothing is copied.
        yield from Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(jobs)


def counted(results: Iterator[T], total: int, on_progress: OnProgress | None) -> Iterator[T]:
    """Pass `results` on, and tell how many there were."""
    for done, result in enumerate(results, start=1):
        if on_progress is not None:
            on_progress(done, total)
        yield result


def on_workers(jobs: Sequence[Any]) -> list[Any]:
    """What each of the `joblib.delayed` calls gives, in order; by this process if none are lent."""
    pool = _lent.get()
    if pool is None:
        return list(in_turn(jobs))
    found: list[Any] = pool(delayed(_alone)(device_in_use(), *job) for job in jobs)
    return found


def in_turn(jobs: Sequence[Any]) -> Iterator[Any]:
    """What each of the `joblib.delayed` calls gives, computed here, one after the other."""
    return (function(*args, **kwargs) for function, args, kwargs in jobs)


def _alone(device: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call in a process of its own, which knows nothing of this one's limits."""
    with one_blas_thread(), on_device(device):
        return function(*args, **kwargs)


# No context variable: the threads that fit are not born within the context.
_device = ["cpu"]


def device_in_use() -> str:
    """Where boosted trees are grown now: 'cpu', 'cuda' or 'cuda:N'."""
    return _device[-1]


@contextlib.contextmanager
def on_device(device: str) -> Iterator[None]:
    """Within it boosted trees are grown on `device`: 'cpu', 'cuda' or 'cuda:N'.

    Raises
    ------
    DataError
        It is none of these.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise DataError(f"--device takes cpu, cuda or cuda:N; got {device!r}.")
    _device.append(device)
    try:
        yield
    finally:
        _device.pop()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep linear algebra to one thread: the folds already take the cores.

    Threads of folds times threads of BLAS made logistic regression twenty times slower.
    """
    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


@contextlib.contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Within it `cross_validate` sends each fold to a worker, or each candidate of a search.

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
    # One pool for everything: Ray takes seconds to start its processes.
    with opened as n, parallel_config(name, n_jobs=n), Parallel() as pool:
        log.info("Folds run on %d workers (%s).", n, backend)
        token = _lent.set(pool)
        try:
            yield
        finally:
            _lent.reset(token)


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
