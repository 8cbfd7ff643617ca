"""The frozen records that flow between rooms: numpy inside, validated where they are made."""

from fishfeat.records.arrays import UNLABELLED, Float, Int, OnProgress, Parameter, PathLike, Str
from fishfeat.records.backbone import SOURCES, TTAS, BackboneSpec
from fishfeat.records.early_exit import EarlyExit, ExitLayer, ExitPoint, LayerCost
from fishfeat.records.features import Features
from fishfeat.records.identity import identify_data
from fishfeat.records.images import PARTS, ImageSet, Rejected, encode_labels
from fishfeat.records.provenance import Provenance, RuntimeConfig
from fishfeat.records.runs import (
    Chance,
    FeaturesInfo,
    FoldScore,
    Holdout,
    Run,
    RunConfig,
    RunKind,
    SplitsInfo,
    SplitStrategy,
)
from fishfeat.records.splits import Fold, Splits
from fishfeat.records.training import Cost, Divergence, Epoch, FoldTraining, Training

__all__ = [
    "PARTS",
    "SOURCES",
    "TTAS",
    "UNLABELLED",
    "BackboneSpec",
    "Chance",
    "Cost",
    "Divergence",
    "EarlyExit",
    "Epoch",
    "ExitLayer",
    "ExitPoint",
    "Features",
    "FeaturesInfo",
    "Float",
    "Fold",
    "FoldScore",
    "FoldTraining",
    "Holdout",
    "ImageSet",
    "Int",
    "LayerCost",
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
    "Training",
    "encode_labels",
    "identify_data",
]
