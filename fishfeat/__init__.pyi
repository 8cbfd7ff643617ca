from .checks import CHECKS, Check, Finding
from .classify.projection import feature_map
from .classify.statistics.verdict import Verdict, judge_finetune
from .classify.validation.cross_validation import cross_validate, run_from_scores
from .classify.validation.ensemble import average_runs
from .classify.validation.fold_fits import FoldFit
from .classify.validation.learning_curve import learning_curve
from .classify.validation.novelty import leave_one_class_out
from .classify.validation.permutation import score_shuffled_labels
from .classify.validation.splits import make_splits
from .errors import (
    BackboneError,
    CacheError,
    DataError,
    FishfeatError,
    MissingExtraError,
    ModelError,
    SplitError,
    StorageError,
)
from .features.backbones import Backbone, load_backbone
from .features.extract import extract
from .features.specs import make_spec
from .finetuning.finetune import FinetuneRuntime, finetune
from .finetuning.recipes import Recipe
from .images.grouping.hints import GroupingHint, find_hints
from .images.grouping.near_duplicates import find_near_duplicates
from .images.grouping.rules import group_images
from .images.scan import scan
from .models.fit import fit_model
from .models.load import load_model
from .models.model import Model, Prediction
from .options import (
    BackboneOptions,
    ClassifierOptions,
    CompareOptions,
    EngineOptions,
    ExtractOptions,
    FeatureOptions,
    FinetuneOptions,
    FitOptions,
    GroupingOptions,
    MotionOptions,
    PredictOptions,
    ReportOptions,
    ReproduceOptions,
    ScanOptions,
    SeedOptions,
    SplitOptions,
    WorkerOptions,
)
from .records import (
    BackboneSpec,
    Chance,
    Cost,
    Divergence,
    Epoch,
    Features,
    FeaturesInfo,
    Fold,
    FoldScore,
    FoldTraining,
    Holdout,
    ImageSet,
    Provenance,
    Rejected,
    Run,
    RunConfig,
    Splits,
    SplitsInfo,
    Training,
)
from .records.near_duplicates import DuplicatePair, NearDuplicates
from .records.results import Curve, FeatureMap, Novelty
from .report.content.backbones import ComparedBackbone, Comparison, FailedBackbone, compare
from .report.output.comparison_page import write_comparison
from .report.output.page import write_report
from .video.motion import FrameMotion, find_motion
from .video.objects import Box
from .video.tracks import Sighting
from .workspace import Dataset, DatasetFolder, DatasetState, Workspace

__all__ = [
    "CHECKS",
    "Backbone",
    "BackboneError",
    "BackboneOptions",
    "BackboneSpec",
    "Box",
    "CacheError",
    "Chance",
    "Check",
    "ClassifierOptions",
    "CompareOptions",
    "ComparedBackbone",
    "Comparison",
    "Cost",
    "Curve",
    "DataError",
    "Dataset",
    "DatasetFolder",
    "DatasetState",
    "Divergence",
    "DuplicatePair",
    "EngineOptions",
    "Epoch",
    "ExtractOptions",
    "FailedBackbone",
    "FeatureMap",
    "FeatureOptions",
    "Features",
    "FeaturesInfo",
    "Finding",
    "FinetuneOptions",
    "FinetuneRuntime",
    "FishfeatError",
    "FitOptions",
    "Fold",
    "FoldFit",
    "FoldScore",
    "FoldTraining",
    "FrameMotion",
    "GroupingHint",
    "GroupingOptions",
    "Holdout",
    "ImageSet",
    "MissingExtraError",
    "Model",
    "ModelError",
    "MotionOptions",
    "NearDuplicates",
    "Novelty",
    "PredictOptions",
    "Prediction",
    "Provenance",
    "Recipe",
    "Rejected",
    "ReportOptions",
    "ReproduceOptions",
    "Run",
    "RunConfig",
    "ScanOptions",
    "SeedOptions",
    "Sighting",
    "SplitError",
    "SplitOptions",
    "Splits",
    "SplitsInfo",
    "StorageError",
    "Training",
    "Verdict",
    "WorkerOptions",
    "Workspace",
    "average_runs",
    "compare",
    "cross_validate",
    "extract",
    "feature_map",
    "find_hints",
    "find_motion",
    "find_near_duplicates",
    "finetune",
    "fit_model",
    "group_images",
    "judge_finetune",
    "learning_curve",
    "leave_one_class_out",
    "load_backbone",
    "load_model",
    "make_spec",
    "make_splits",
    "run_from_scores",
    "scan",
    "score_shuffled_labels",
    "write_comparison",
    "write_report",
]
