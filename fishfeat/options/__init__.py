"""Every option that a user can set: one frozen record for each step, with types and defaults.

The command line, the stages and the library take these records. An option is declared here and
nowhere else; a test compares the command line with it. This module loads no numpy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from fishfeat.errors import DataError, check_number

Resize = Literal["squash", "pad", "crop"]
Pool = Literal["auto", "avg", "max", "token"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Runtime = Literal["auto", "eager", "compile", "openvino"]
MapMethod = Literal["pca", "umap"]
Strategy = Literal["auto", "grouped", "random"]
# '' forgets the margin that was given before.
BoxMargin = float | Literal[""]
BoxShape = Literal["tight", "square"]
TestBy = Literal["random", "name"]
RowFormat = Literal["csv", "jsonl"]
FileFormat = Literal["coco", "viame", "megadetector", "ecotaxa", "camtrap-dp"]
PredictionFormat = Literal["csv", "jsonl", "coco", "viame", "megadetector", "ecotaxa", "camtrap-dp"]
ExportFormat = Literal["csv", "parquet", "npz"]
ModelFormat = Literal["onnx"]


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The base of all records: a single text where several may stand is one text."""

    def __post_init__(self) -> None:
        """Make tuples of texts of text and lists; a `DataError` where an option is no text."""
        for option in fields(self):
            value = getattr(self, option.name)
            if "tuple[str" not in str(option.type) or value is None:
                continue
            texts = (value,) if isinstance(value, str) else value
            is_list = isinstance(texts, Iterable) and not isinstance(texts, Mapping)
            texts = tuple(texts) if is_list else (texts,)
            if not all(isinstance(text, str) for text in texts):
                raise DataError(
                    f"{option.name} must be a text or several texts, such as ('a', 'b'); got "
                    f"{value!r}."
                )
            object.__setattr__(self, option.name, texts)


@dataclass(frozen=True, kw_only=True)
class GroupingOptions(_Record):
    """Which images are related and must stay on one side of every split.

    Attributes
    ----------
    group_by
        Rules: 'pattern:REGEX', 'column', 'column:NAME', 'folder:N', 'time:SECONDS', 'duplicates',
        'auto' or 'none'. Images that any rule relates are one group. None is the rules last used
        on this data set, else the groups that a table brings.
    """

    group_by: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ScanOptions(GroupingOptions):
    """Which files are images of the data set, and which class each has.

    A command takes an option that is None as it was when the same data set was last listed; an
    empty option is off. In `fishfeat.scan` None and empty are the same.

    Attributes
    ----------
    root
        Folder that the paths of a table are relative to, and below which a path that is not there
        is looked for by its end. None is the table's own folder.
    columns
        Columns of a table that have other names: 'path=image_id,label=species', and likewise
        `group`, `part` and, for boxes in the images, `box=x0:y0:x1:y1` (left, top, right, bottom).
    source
        What the data are: 'folder', 'table', or a kind of annotation file, such as 'coco'. None
        finds it from the data themselves.
    box_margin
        What is added on each side of an annotated box, as a share of its width and height; it is
        real pixels of the image. None is 0.1.
    box_shape
        'tight' for the box as it is, or 'square', which lengthens the shorter side with real
        pixels. None is 'tight'.
    include, exclude
        Globs over the path or, without a slash, over each folder and file name. Mask folders
        ('<class> GT' beside '<class>') are left out unless `include` is given.
    class_pattern
        Regular expression that finds the class name in the folder's name.
    merge
        Class -> the class it becomes, as a mapping or a CSV file of two columns; applied after
        `class_pattern`.
    only, drop
        Class names, after `class_pattern` and `merge`, to keep or to leave out. Images without a
        label stay unless `only` is given.
    at_most
        Most images of each class ('100') or of one ('Trout=30'), drawn by their paths.
    allow_truncated
        Use images whose files end too early as far as they can be decoded. False rejects them.
    """

    root: str | os.PathLike[str] | None = None
    columns: str | None = None
    source: str | None = None
    box_margin: BoxMargin | None = None
    box_shape: BoxShape | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    class_pattern: str | None = None
    merge: str | os.PathLike[str] | Mapping[str, str] | None = None
    only: tuple[str, ...] | None = None
    drop: tuple[str, ...] | None = None
    at_most: tuple[str, ...] | None = None
    allow_truncated: bool | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(_Record):
    """How an image becomes features, for any backbone.

    Attributes
    ----------
    resize, pool, tta, precision
        As in `fishfeat.BackboneSpec`.
    white
        As in `fishfeat.BackboneSpec`; 0 is off.
    """

    resize: Resize | None = None
    pool: Pool | None = None
    tta: str | None = None
    precision: Precision | None = None
    white: float | None = None


@dataclass(frozen=True, kw_only=True)
class BackboneOptions(FeatureOptions):
    """What to change in the backbone that was last used on a data set.

    With a `backbone`, options that are None have the defaults of `fishfeat.BackboneSpec`, except
    `white`, which is of the images; without one, those of the backbone last used.

    Attributes
    ----------
    backbone
        Name as `fishfeat.make_spec` takes it. None is the backbone last used on the data set, else
        the default.
    img_size
        As in `fishfeat.BackboneSpec`.
    layer
        Layers to embed in one pass, each into a feature file of its own. 'all-blocks' is every
        block.
    """

    backbone: str | None = None
    img_size: int | None = None
    layer: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class EngineOptions(_Record):
    """How a network runs. It changes features by rounding only.

    Attributes
    ----------
    runtime
        Inference runtime: 'eager', 'compile' (torch.compile), 'openvino', or 'auto', which measures
        those that can pay for the number of images and uses the fastest whose features match fp32.
    batch_size
        Images in one batch. None is what suits the device.
    workers
        Threads that decode, and on a CPU also run the network. None is one for each core.
    device
        'cpu', 'cuda', 'mps' or 'auto'.
    """

    runtime: Runtime = "auto"
    batch_size: int | None = None
    workers: int | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(ScanOptions, BackboneOptions, EngineOptions):
    """Options of `fishfeat extract`."""


# Every classifier takes seeds up to this one, and repeats add to it.
MAX_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class SeedOptions(_Record):
    """The seed, which folds and classifiers share.

    Attributes
    ----------
    seed
        Seed of the folds and of the classifiers, from 0 to 2,147,483,647.
    """

    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class SplitOptions(SeedOptions):
    """Which images train and which are scored.

    Attributes
    ----------
    cv
        Number of folds, or 'logo': each group is left out in turn.
    repeats
        How often the folds are drawn, with seeds `seed`, `seed` + 1, ...
    test
        Share of the images to hold out and score once (whole groups, stratified). 0 holds out none.
        None is the test part of the data set, where it has one.
    test_by
        How these images are chosen: 'random', or 'name' (of each class the last by file name).
    """

    cv: int | str = 5
    repeats: int = 1
    test: float | None = None
    test_by: TestBy = "random"


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(SeedOptions):
    """How a classifier is fitted.

    Attributes
    ----------
    balanced
        Weight classes inversely to their number of images.
    search
        Budget of a search for settings inside each training fold: '20' (trials) or '60s' (seconds a
        fit). None searches nothing.
    device
        Where xgb grows its trees: 'cpu', 'cuda' or 'cuda:N'.
    """

    balanced: bool = False
    search: str | None = None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(_Record):
    """Where fits run.

    Attributes
    ----------
    jobs
        Fits at the same time. -1 is one for each core.
    backend
        'dask' or 'ray' for worker processes on this machine; 'dask:ADDRESS' or 'ray:ADDRESS' for a
        cluster. None is the threads of this process.
    """

    jobs: int = -1
    backend: str | None = None


@dataclass(frozen=True, kw_only=True)
class FitOptions(SplitOptions, ClassifierOptions, WorkerOptions, GroupingOptions):
    """Options of `fishfeat fit`.

    Attributes
    ----------
    clf
        Names of classifiers. Empty is logreg, svc, rf and xgb.
    ensemble
        Add the soft-voting ensemble: the mean of the classifiers' probabilities.
    permute
        How often to score each classifier on shuffled labels, which must give chance.
    learning_curve
        Also score the classifiers that `clf` names (else logreg) on growing shares of the training
        groups.
    novelty
        Also leave each class out in turn: are the classifiers that `clf` names (else logreg) less
        confident on a species that was not in training?
    early_exit
        Also fit a linear probe on each extracted layer of the network, so that an image can leave
        at the first layer that is confident enough.
    exit_loss
        Accuracy that leaving early may cost on inner folds, with one standard error of it.
    """

    clf: tuple[str, ...] = ()
    ensemble: bool = False
    permute: int = 0
    learning_curve: bool = False
    novelty: bool = False
    early_exit: bool = False
    exit_loss: float = 0.005


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(_Record):
    """Options of `fishfeat finetune`; what is None is as the recipe has it.

    Attributes
    ----------
    train, epochs, lr, augment
        As in `fishfeat.Recipe`. With another `lr` the rate of the head changes by the same factor.
        `train` and `epochs` replace the stages of a recipe.
    select
        As in `fishfeat.Recipe`.
    recipe
        Name of a recipe, or TOML file with the settings of `fishfeat.Recipe`. None is the default
        recipe.
    network
        As in `fishfeat.Recipe`.
    max_epochs
        Largest number of epochs of each stage: to try a recipe.
    sweep
        Train several: 'last:0..9' trains the head alone, then the last block, up to the last nine.
    img_size
        Side of the network's input in pixels. None is that of the features, or with `network` its
        own.
    device
        'cpu', 'cuda', 'mps' or 'auto'.
    jobs
        Folds that are trained at the same time, each by one core. -1 is one for each core.
    """

    train: str | None = None
    epochs: int | None = None
    lr: float | None = None
    augment: str | None = None
    select: bool = False
    recipe: str | os.PathLike[str] | None = None
    network: str | None = None
    max_epochs: int | None = None
    sweep: str | None = None
    img_size: int | None = None
    device: str = "auto"
    jobs: int = -1


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ScanOptions, FeatureOptions, EngineOptions, SplitOptions):
    """Options of `fishfeat compare`: each backbone at each input size with each layer.

    Attributes
    ----------
    backbone
        Names as `fishfeat.make_spec` takes them. Empty is the backbone last used on the data set,
        else the default.
    img_size
        Sides of the network's input in pixels. Empty is the network's own, or the one last used.
    layer
        Layers. 'all-blocks' is every block. Empty is the last layer, or the one last used.
    clf
        Name of the classifier that scores all of them.
    jobs
        Fits at the same time. -1 is one for each core.
    """

    backbone: tuple[str, ...] = ()
    img_size: tuple[int, ...] = ()
    layer: tuple[str, ...] = ()
    clf: str = "logreg"
    jobs: int = -1

    def __post_init__(self) -> None:
        """Make a tuple of a single size."""
        super().__post_init__()
        if isinstance(self.img_size, int):
            object.__setattr__(self, "img_size", (self.img_size,))


@dataclass(frozen=True, kw_only=True)
class ReportOptions(_Record):
    """Options of `fishfeat report`.

    Attributes
    ----------
    map_method
        How the features are laid out on the map: 'pca' or 'umap'. None is 'pca', or no map where
        the features cannot be read.
    group_matrix
        Also write each run's confusion matrix as CSV files, by class and by group.
    """

    map_method: MapMethod | None = None
    group_matrix: bool = False


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(GroupingOptions):
    """Options of `fishfeat reproduce`; what is None is as the reference has it.

    Attributes
    ----------
    backbone
        The frozen network.
    network
        Pretrained networks to fine-tune, where the reference compares several.
    img_size
        Side of the input of its own networks in pixels.
    max_epochs
        Largest number of epochs of each stage.
    cv
        Number of folds.
    most_blocks
        Largest number of blocks that a sweep trains.
    """

    backbone: str | None = None
    network: tuple[str, ...] | None = None
    img_size: int | None = None
    max_epochs: int | None = None
    cv: int | str = 5
    most_blocks: int | None = None


@dataclass(frozen=True, kw_only=True)
class PredictOptions(_Record):
    """Options of `fishfeat predict`.

    Attributes
    ----------
    model, backbone
        A saved model by its name or its folder, None for the best one; and the place of its
        backbone where that has moved.
    root, columns
        Of tables and annotation files, as in `ScanOptions`.
    early_exit
        Let each image leave the network at the first layer that is confident enough.
    only
        Predicted labels whose images are kept; empty keeps all.
    format
        'csv' or 'jsonl' for rows. 'coco', 'viame', 'megadetector', 'ecotaxa' or 'camtrap-dp' for a
        copy of an annotation file of this kind with its labels. None is as the name of the output
        file ends, else 'csv'.
    """

    model: str | None = None
    backbone: str | None = None
    root: str | os.PathLike[str] | None = None
    columns: str | None = None
    early_exit: bool = False
    only: tuple[str, ...] = ()
    format: PredictionFormat | None = None


@dataclass(frozen=True, kw_only=True)
class MotionOptions(_Record):
    """Options of `fishfeat motion`. Pixels are those of the video's own frames.

    Attributes
    ----------
    every
        Look at each n-th frame. The flow is always that to the very next frame.
    threshold
        What moves by more pixels from one frame to the next is in the mask.
    erosion
        Pixels that the mask loses along its rim.
    min_area
        Smallest area of an object in the mask, in pixels. None is 1/5000 of the frame, at least 64.
    max_gap
        Seconds for which an object may be out of sight until its track ends.
    frame_images
        Write images of flow, mask and moving parts for each frame that is looked at.
    """

    every: int = 1
    threshold: float = 1.0
    erosion: int = 2
    min_area: int | None = None
    max_gap: float = 1.0
    frame_images: bool = True

    def __post_init__(self) -> None:
        """Check the numbers; a `DataError` where one is out of its range."""
        super().__post_init__()
        for name, low, high, is_whole in _MOTION_RANGES:
            if name != "min_area" or self.min_area is not None:
                check_number(name, getattr(self, name), low, high, is_whole=is_whole)


# Option of `MotionOptions`, its smallest and largest value, and whether it is a whole number.
_MOTION_RANGES = (
    ("every", 1, 100_000, True),
    ("threshold", 0.1, 1000, False),
    ("erosion", 0, 100, True),
    ("min_area", 1, 100_000_000, True),
    ("max_gap", 0, 3600, False),
)
