"""Imports that a command puts off until they are used, which most commands never do.

This changes what other packages import, so it is for the process of a command alone.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

# They are imported with scikit-learn, scipy and fishfeat, and take more than half of that time.
# Most runs of a command use nothing of them.
UNUSED = (
    *("scipy.stats", "scipy.interpolate", "scipy.integrate", "scipy.spatial.transform"),
    *("numpy.f2py", "numpy.testing", "pandas"),
    *("scipy.optimize._linprog", "scipy.optimize._milp", "scipy.optimize._shgo"),
    *("scipy.optimize._differentialevolution", "numpy.polynomial"),
    *("sklearn.decomposition", "sklearn.ensemble"),
)
# Packages that import a module when somebody asks them for it as an attribute.
_ASKING = ("numpy", "scipy")


class _PutOff:
    """A name of a module; the module is imported when the name is used."""

    def __init__(self, module: str, name: str) -> None:
        self._put_off = (module, name)

    def _import(self) -> Any:
        module, name = self._put_off
        _remove(module)
        return getattr(importlib.import_module(module), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._import()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._import(), name)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type]:
        return (self._import(),)  # a class is derived from it

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._import())


class _PutOffModule(ModuleType):
    """A module that is not imported: every public name of it is put off."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _PutOff(self.__name__, name)


@contextlib.contextmanager
def put_off(*names: str) -> Iterator[None]:
    """Inside, an import of these modules gives names that import the module when they are used.

    Afterwards an import gives the real module again.
    """
    for name in names:
        if name not in sys.modules and _exists(name):
            _insert(name)
    try:
        yield
    finally:
        for name in names:
            _remove(name)


def _exists(name: str) -> bool:
    """Whether a module is installed; the packages above it are not imported."""
    path, parents = None, name.split(".")
    for i in range(len(parents)):
        spec = PathFinder.find_spec(".".join(parents[: i + 1]), path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def _insert(name: str) -> None:
    sys.modules[name] = _PutOffModule(name)
    package, _, child = name.rpartition(".")
    if package in _ASKING:
        setattr(importlib.import_module(package), child, sys.modules[name])


def _remove(name: str) -> None:
    """Remove a module that is put off; the real one stays."""
    module = sys.modules.get(name)
    if isinstance(module, _PutOffModule):
        package, _, child = name.rpartition(".")
        names = vars(sys.modules[package]) if package in sys.modules else {}
        if names.get(child) is module:
            del names[child]
        del sys.modules[name]


def skip_chart_docstrings() -> None:
    """Let matplotlib list no properties in its docstrings, which is half of its import."""
    docstring = importlib.import_module("matplotlib._docstring")
    loader = getattr(docstring, "_ArtistKwdocLoader", None)
    if loader is not None:
        loader.__missing__ = lambda properties, name: ""
