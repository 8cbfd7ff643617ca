"""The options of the commands: flags and help. Types and defaults are those of the records.

A test compares every option with the record in `fishfeat.options` that it fills.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fishfeat import options

_LABELS = "Labels and groups (changing them embeds nothing again; '' forgets an option)"
_BACKBONE = "Backbone"
_EXTRAS = "More than one fit"
MACHINE = "Machine"

Data = Annotated[
    Path | None,
    typer.Argument(
        help="Folder of class folders, CSV with path and label, or annotation file. "
        "Default: the data set in use, else the demo images.",
        show_default=False,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of a data set, as `fishfeat info` lists them. Default: the one in use.",
        show_default=False,
    ),
]

# --- labels and groups ------------------------------------------------------------------------

Root = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the paths of a CSV or annotation file start, or the files lie. "
        "Default: its own folder.",
        rich_help_panel=_LABELS,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="ROLE=COLUMN,...",
        help="Names of a CSV's columns: path=image_id,label=species; also group, part and "
        "box=LEFT:TOP:RIGHT:BOTTOM.",
        rich_help_panel=_LABELS,
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Use only files that match.", rich_help_panel=_LABELS),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Leave out files that match.", rich_help_panel=_LABELS),
]
Source = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What DATA is: folder, table, or a kind of annotation file such as coco or yolo. "
        "Default: found from the data.",
        rich_help_panel=_LABELS,
    ),
]


def _parse_margin(text: str) -> options.BoxMargin:
    try:
        return float(text) if text else ""
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no number.") from error


BoxMargin = Annotated[
    float | None,
    typer.Option(
        parser=_parse_margin,
        metavar="SHARE",
        help="Around an annotated box, on each side, as a share of its size (default 0.1).",
        rich_help_panel=_LABELS,
    ),
]
BoxShape = Annotated[
    options.BoxShape | None,
    typer.Option(
        help="An annotated box as it is, or made square with more of the image. [default: tight]",
        rich_help_panel=_LABELS,
    ),
]
ClassPattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help=r"Finds the class in the name of the folder: 'boxes_(.+)_\d+'.",
        rich_help_panel=_LABELS,
    ),
]
Merge = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="CSV of two columns: class, and the class it becomes.",
        rich_help_panel=_LABELS,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASS", help="Keep only this class.", rich_help_panel=_LABELS),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASS", help="Leave this class out.", rich_help_panel=_LABELS),
]
GroupBy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="Related images, which are never split: pattern:REGEX, column[:NAME], folder:N, "
        "time:SECONDS (bursts), duplicates (near-duplicates), auto (what is found) or none. May be "
        "repeated: images that any rule relates are one group.",
        rich_help_panel=_LABELS,
    ),
]
AtMost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[CLASS=]N",
        help="Use at most N images of each class, or of one. May be repeated.",
        rich_help_panel=_LABELS,
    ),
]
AllowTruncated = Annotated[
    bool | None,
    typer.Option(
        "--allow-truncated/--no-allow-truncated",
        help="Use images whose files end too early as far as they can be decoded. Default: as the "
        "last time, else reject them.",
        show_default=False,
        rich_help_panel=_LABELS,
    ),
]

# --- backbone ---------------------------------------------------------------------------------

Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        "-b",
        metavar="NAME",
        help="nano (in the package), a timm name, torchvision:NAME, hf-hub:USER/MODEL, "
        "local-dir:FOLDER or random:NAME. "
        "Default: the one last used, else vit_small_patch14_reg4_dinov2.lvd142m at 224 px.",
        rich_help_panel=_BACKBONE,
    ),
]
ModelBackbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="Where the backbone of the model is now, such as local-dir:FOLDER. Its weights must "
        "be those that the model was fitted with. Default: as the model says.",
        show_default=False,
    ),
]
ImgSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", help="Side of the network's square input.", rich_help_panel=_BACKBONE
    ),
]
Resize = Annotated[
    options.Resize | None,
    typer.Option(
        help="How an image becomes square; squash keeps the whole image. [default: squash]",
        rich_help_panel=_BACKBONE,
    ),
]
Pool = Annotated[
    options.Pool | None,
    typer.Option(
        help="How a feature map becomes one vector; auto is the network's own. [default: auto]",
        rich_help_panel=_BACKBONE,
    ),
]
Layer = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER",
        help="last, head (logits of the pretrained classifier), the number of a block, or "
        "all-blocks. May be repeated: each layer has a feature file. [default: last]",
        rich_help_panel=_BACKBONE,
    ),
]
TTA = Annotated[
    str | None,
    typer.Option(
        metavar="none|flip|d4|rotate:N",
        help="Test-time augmentation: average over the mirror image, the eight rotations and "
        "mirror images of a square, or N rotations. [default: none]",
        rich_help_panel=_BACKBONE,
    ),
]
Precision = Annotated[
    options.Precision | None,
    typer.Option(
        help="Arithmetic in the network; auto is the fastest that matches fp32. [default: auto]",
        rich_help_panel=_BACKBONE,
    ),
]

White = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        help="Value of white in images of more than 8 bits: 4095 for 12-bit data in 16-bit files; "
        "0 is off. [default: the largest that the file can hold]",
        rich_help_panel=_BACKBONE,
    ),
]

# --- folds and classifiers --------------------------------------------------------------------

Classifiers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="logreg, svc, rf, xgb, linear-svc, knn, lda, centroid or dummy. May be repeated. "
        "[default: logreg, svc, rf, xgb]",
    ),
]
Folds = Annotated[
    Any,
    typer.Option(
        # A number or a word: the library tells them apart and says what is wrong.
        parser=str,
        metavar="FOLDS|logo",
        help="Number of folds, or logo: each group is left out in turn.",
    ),
]
Repeats = Annotated[int, typer.Option(min=1, help="How often the folds are drawn.")]
Seed = Annotated[
    int, typer.Option(min=0, max=options.MAX_SEED, help="Seed of folds and classifiers.")
]
Test = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Hold out this share and score it once; 0 holds out nothing. "
        "Default: the test part of the data set, where it has one.",
    ),
]
TestBy = Annotated[
    options.TestBy,
    typer.Option(
        help="How --test chooses: at random, or by name: of each class the last by file name."
    ),
]
Balanced = Annotated[
    bool,
    typer.Option("--balanced", help="Weight classes inversely to their number of images."),
]
Search = Annotated[
    str | None,
    typer.Option(
        metavar="BUDGET",
        help="Search settings inside each training fold: 20 (trials) or 60s (seconds a fit).",
        rich_help_panel=_EXTRAS,
    ),
]
Ensemble = Annotated[
    bool,
    typer.Option(
        "--ensemble",
        help="Add the soft-voting ensemble: the mean of the classifiers' probabilities.",
        rich_help_panel=_EXTRAS,
    ),
]
Permute = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Also score each classifier on N shufflings of the labels, which must give chance.",
        rich_help_panel=_EXTRAS,
    ),
]
LearningCurve = Annotated[
    bool,
    typer.Option(
        "--learning-curve",
        help="Also score the classifiers that --clf names (else logreg) on growing shares of the "
        "training groups: would more images help?",
        rich_help_panel=_EXTRAS,
    ),
]
Novelty = Annotated[
    bool,
    typer.Option(
        "--novelty",
        help="Also leave each class out in turn: are the classifiers that --clf names (else "
        "logreg) less confident on a species that was not in training?",
        rich_help_panel=_EXTRAS,
    ),
]
EarlyExit = Annotated[
    bool,
    typer.Option(
        "--early-exit",
        help="Also fit a linear probe on each extracted layer, so that an image can leave the "
        "network at the first layer that is confident enough.",
        rich_help_panel=_EXTRAS,
    ),
]
ExitLoss = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=0.999,
        metavar="SHARE",
        help="Accuracy that leaving early may cost on the inner folds, with one standard error.",
        rich_help_panel=_EXTRAS,
    ),
]

# --- machine ----------------------------------------------------------------------------------

Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", rich_help_panel=MACHINE)]
TreesDevice = Annotated[
    str,
    typer.Option(metavar="cpu|cuda", help="Where xgb grows its trees.", rich_help_panel=MACHINE),
]
Runtime = Annotated[
    options.Runtime,
    typer.Option(
        help="Inference runtime; auto measures those that pay for the number of images.",
        rich_help_panel=MACHINE,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images in one batch; by default what suits the device.",
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Threads; by default one for each core.", rich_help_panel=MACHINE),
]
Jobs = Annotated[
    int,
    typer.Option(help="Fits at the same time; -1 is one for each core.", rich_help_panel=MACHINE),
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="dask|ray[:ADDRESS]",
        help="Send the folds to the workers of a cluster; without an address to local ones.",
        rich_help_panel=MACHINE,
    ),
]

# --- compare ----------------------------------------------------------------------------------

Backbones = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        "-b",
        metavar="NAME",
        help="As for `fishfeat extract`. Repeat it for each network. Default: the one last used.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
ImgSizes = Annotated[
    list[int] | None,
    typer.Option(
        "--img-size",
        metavar="PIXELS",
        help="Side of the network's square input. Repeat it to compare sizes: every network at "
        "every size.",
        rich_help_panel=_BACKBONE,
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="LAYER",
        help="last, head, the number of a block, or all-blocks. Repeat it to compare layers: every "
        "network with every layer. [default: last]",
        rich_help_panel=_BACKBONE,
    ),
]
OneClassifier = Annotated[
    str, typer.Option("--clf", metavar="NAME", help="The classifier that scores all of them.")
]

# --- report -----------------------------------------------------------------------------------

MapMethod = Annotated[
    options.MapMethod | None,
    typer.Option(
        "--map",
        help="How the features are laid out on the map; umap needs the extra of that name. "
        "[default: pca]",
    ),
]
GroupMatrix = Annotated[
    bool,
    typer.Option(
        "--group-matrix",
        help="Also write the confusion matrices as CSV: counts and shares, by class and group.",
    ),
]

# --- motion -----------------------------------------------------------------------------------

Every = Annotated[int, typer.Option(metavar="N", help="Look at each N-th frame.")]
Threshold = Annotated[
    float,
    typer.Option(metavar="PIXELS", help="How far something must move from a frame to the next."),
]
Erosion = Annotated[
    int, typer.Option(metavar="PIXELS", help="How much the mask loses along its rim.")
]
MinArea = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Smallest area of an object. [default: 1/5000 of the frame, at least 64]",
    ),
]
MaxGap = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="How long an object may be out of sight until its track ends."
    ),
]
FrameImages = Annotated[
    bool,
    typer.Option(
        "--frame-images/--no-frame-images",
        help="Write images of flow, mask and moving parts for each frame, or the crops alone.",
    ),
]
