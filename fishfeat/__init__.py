"""A folder of labelled images becomes a classifier, with an honest estimate of its accuracy.

A public name is loaded when it is first used. Importing the package loads neither torch nor
scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fishfeat.checks import CHECKS, Check, Finding
    from fishfeat.classify.projection import FeatureMap, feature_map
    from fishfeat.classify.validation.cross_validation import cross_validate
    from fishfeat.classify.validation.learning_curve import Curve, learning_curve
    from fishfeat.classify.validation.novelty import Novelty
    from fishfeat.classify.validation.splits import make_splits
    from fishfeat.errors import (
        BackboneError,
        CacheError,
        DataError,
        FishfeatError,
        MissingExtraError,
        ModelError,
        SplitError,
    )
    from fishfeat.features.backbones import Backbone, load_backbone
    from fishfeat.features.extract import extract
    from fishfeat.features.specs import make_spec
    from fishfeat.images.grouping.near_duplicates import find_near_duplicates
    from fishfeat.images.grouping.rules import group_images
    from fishfeat.images.scan import scan
    from fishfeat.models import Model, Prediction, fit_model, load_model
    from fishfeat.options import (
        BackboneOptions,
        ClassifierOptions,
        EngineOptions,
        ExtractOptions,
        FitOptions,
        GroupingOptions,
        ReportOptions,
        ScanOptions,
        SeedOptions,
        SplitOptions,
        WorkerOptions,
    )
    from fishfeat.records import (
        BackboneSpec,
        Features,
        Fold,
        Holdout,
        ImageSet,
        Rejected,
        Run,
        Splits,
    )
    from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates
    from fishfeat.report.output.page import write_report

# Public name -> the module that defines it.
_HOME = {
    "Backbone": "fishfeat.features.backbones",
    "BackboneError": "fishfeat.errors",
    "BackboneOptions": "fishfeat.options",
    "BackboneSpec": "fishfeat.records",
    "CHECKS": "fishfeat.checks",
    "CacheError": "fishfeat.errors",
    "Check": "fishfeat.checks",
    "ClassifierOptions": "fishfeat.options",
    "Curve": "fishfeat.classify.validation.learning_curve",
    "DataError": "fishfeat.errors",
    "DuplicatePair": "fishfeat.records.near_duplicates",
    "EngineOptions": "fishfeat.options",
    "ExtractOptions": "fishfeat.options",
    "FeatureMap": "fishfeat.classify.projection",
    "Features": "fishfeat.records",
    "Finding": "fishfeat.checks",
    "FishfeatError": "fishfeat.errors",
    "FitOptions": "fishfeat.options",
    "Fold": "fishfeat.records",
    "GroupingOptions": "fishfeat.options",
    "Holdout": "fishfeat.records",
    "ImageSet": "fishfeat.records",
    "MissingExtraError": "fishfeat.errors",
    "Model": "fishfeat.models",
    "ModelError": "fishfeat.errors",
    "NearDuplicates": "fishfeat.records.near_duplicates",
    "Novelty": "fishfeat.classify.validation.novelty",
    "Prediction": "fishfeat.models",
    "Rejected": "fishfeat.records",
    "ReportOptions": "fishfeat.options",
    "Run": "fishfeat.records",
    "ScanOptions": "fishfeat.options",
    "SeedOptions": "fishfeat.options",
    "SplitError": "fishfeat.errors",
    "SplitOptions": "fishfeat.options",
    "Splits": "fishfeat.records",
    "WorkerOptions": "fishfeat.options",
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
    "CHECKS",
    "Backbone",
    "BackboneError",
    "BackboneOptions",
    "BackboneSpec",
    "CacheError",
    "Check",
    "ClassifierOptions",
    "Curve",
    "DataError",
    "DuplicatePair",
    "EngineOptions",
    "ExtractOptions",
    "FeatureMap",
    "Features",
    "Finding",
    "FishfeatError",
    "FitOptions",
    "Fold",
    "GroupingOptions",
    "Holdout",
    "ImageSet",
    "MissingExtraError",
    "Model",
    "ModelError",
    "NearDuplicates",
    "Novelty",
    "Prediction",
    "Rejected",
    "ReportOptions",
    "Run",
    "ScanOptions",
    "SeedOptions",
    "SplitError",
    "SplitOptions",
    "Splits",
    "WorkerOptions",
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
