"""A folder of labelled images becomes an honest classifier.

The names below are loaded when they are first used: importing the package loads neither torch nor
scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fishfeat.classify.projection import feature_map
    from fishfeat.classify.validation.cross_validation import cross_validate
    from fishfeat.classify.validation.learning_curve import learning_curve
    from fishfeat.classify.validation.splits import make_splits
    from fishfeat.features.backbones import load_backbone
    from fishfeat.features.extract import extract
    from fishfeat.features.specs import make_spec
    from fishfeat.images.grouping.near_duplicates import find_near_duplicates
    from fishfeat.images.grouping.rules import group_images
    from fishfeat.images.scan import scan
    from fishfeat.models import fit_model, load_model
    from fishfeat.report.output.page import write_report

_HOME = {
    "cross_validate": "fishfeat.classify.validation.cross_validation",
    "extract": "fishfeat.features.extract",
    "feature_map": "fishfeat.classify.projection",
    "find_near_duplicates": "fishfeat.images.grouping.near_duplicates",
    "fit_model": "fishfeat.models",
    "group_images": "fishfeat.images.grouping.rules",
    "learning_curve": "fishfeat.classify.validation.learning_curve",
    "load_backbone": "fishfeat.features.backbones",
    "load_model": "fishfeat.models",
    "make_spec": "fishfeat.features.specs",
    "make_splits": "fishfeat.classify.validation.splits",
    "scan": "fishfeat.images.scan",
    "write_report": "fishfeat.report.output.page",
}

__all__ = [
    "cross_validate",
    "extract",
    "feature_map",
    "find_near_duplicates",
    "fit_model",
    "group_images",
    "learning_curve",
    "load_backbone",
    "load_model",
    "make_spec",
    "make_splits",
    "scan",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fishfeat' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
