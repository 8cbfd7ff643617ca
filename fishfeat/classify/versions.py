"""Saved classifiers and the versions of scikit-learn and XGBoost that they need."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping

from fishfeat.errors import ModelError
from fishfeat.files import versions

PACKAGES = ("scikit-learn", "xgboost")


def find_other_versions(saved: Mapping[str, str], *, is_boosted: bool) -> dict[str, str]:
    """Packages whose installed version is not the one that a model was fitted with.

    Parameters
    ----------
    saved
        Package -> version that the model was fitted with.
    is_boosted
        Whether the model holds trees of XGBoost.

    Returns
    -------
    Package -> version that the model was fitted with.
    """
    needed = PACKAGES if is_boosted else PACKAGES[:1]
    installed = versions(*needed)
    others = {}
    for package in needed:
        if package in saved and saved[package] != installed.get(package):
            others[package] = saved[package]
    return others


def explain_versions(fitted_with: Mapping[str, str], model: str) -> tuple[str, str]:
    """Say which versions fitted the model and which are installed, and the two ways out."""
    installed = versions(*fitted_with)
    before = " and ".join(f"{package} {version}" for package, version in fitted_with.items())
    here = " and ".join(f"{package} {installed.get(package, 'missing')}" for package in fitted_with)
    pins = " ".join(f"{package}=={version}" for package, version in fitted_with.items())
    return (
        f"{model} was fitted with {before}; installed is {here}.",
        f"Run `pip install {pins}`, or run `fishfeat fit` again.",
    )


@contextlib.contextmanager
def guard_versions(fitted_with: Mapping[str, str], model: str) -> Iterator[None]:
    """Say that other versions are the reason, where a model of other versions fails.

    Where all versions are the same, nothing changes. With others, what the packages warn of is not
    shown: fishfeat warns once, when the model has predicted.

    Parameters
    ----------
    fitted_with
        As `find_other_versions` gives it.
    model
        What the message calls the model.

    Raises
    ------
    ModelError
        Anything failed, and versions differ.
    """
    if not fitted_with:
        yield
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # a missing attribute, a changed signature, anything
        message, fix = explain_versions(fitted_with, model)
        raise ModelError(f"{message} It does not work ({error}). {fix}") from error
