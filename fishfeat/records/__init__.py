"""The frozen records that flow between rooms: numpy inside, validated where they are made."""

from fishfeat.records.arrays import UNLABELLED, Float, Int, OnProgress, PathLike, Str
from fishfeat.records.backbone import SOURCES, TTAS, BackboneSpec
from fishfeat.records.features import Features
from fishfeat.records.identity import identify_data
from fishfeat.records.images import PARTS, ImageSet, Rejected, encode_labels
from fishfeat.records.provenance import Provenance, RuntimeConfig
from fishfeat.records.runs import (
    Chance,
    FeaturesInfo,
    FoldScore,
    Holdout,
    Parameter,
    Run,
    RunConfig,
    RunKind,
    SplitsInfo,
    SplitStrategy,
)
from fishfeat.records.splits import Fold, Splits

__all__ = [
    "PARTS",
    "SOURCES",
    "TTAS",
    "UNLABELLED",
    "BackboneSpec",
    "Chance",
    "Features",
    "FeaturesInfo",
    "Float",
    "Fold",
    "FoldScore",
    "Holdout",
    "ImageSet",
    "Int",
    "OnProgress",
    "Parameter",
    "PathLike",
    "Provenance",
    "Rejected",
    "Run",
    "RunConfig",
    "RunKind",
    "RuntimeConfig",
    "SplitStrategy",
    "Splits",
    "SplitsInfo",
    "Str",
    "encode_labels",
    "identify_data",
]
