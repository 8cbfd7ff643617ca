"""The options that commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

# Typer reads these annotations when it builds the commands, hence Optional and not a bar.
Data = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(
        help="Folder of class folders, or CSV with path and label. "
        "Default: the data set last used, else the embedded images.",
        show_default=False,
    ),
]

_LABELS = "Labels (changing them embeds nothing again; '' forgets the last ones)"
Include = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Take only files that match this glob.", rich_help_panel=_LABELS),
]
Exclude = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Leave out files that match this glob.", rich_help_panel=_LABELS),
]
ClassPattern = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help=r"Regex that finds the class in the folder's name: 'boxes_(.+)_\d+'.",
        rich_help_panel=_LABELS,
    ),
]
Merge = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="FILE",
        help="CSV of two columns, class and what it is merged into.",
        rich_help_panel=_LABELS,
    ),
]
Only = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(metavar="CLASS", help="Keep only this class.", rich_help_panel=_LABELS),
]
Drop = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(metavar="CLASS", help="Leave this class out.", rich_help_panel=_LABELS),
]
GroupBy = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        metavar="RULE",
        help="What belongs together and is never split: pattern:REGEX, column[:NAME], folder:N, "
        "time:SECONDS (bursts), duplicates (near-duplicates), auto (what is found) or none; may be "
        "repeated, and what any rule joins is joined.",
        rich_help_panel=_LABELS,
    ),
]
GroupPattern = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="REGEX",
        help=r"Short for --group-by pattern:REGEX: 'fish_(\d+)_'.",
        rich_help_panel=_LABELS,
    ),
]

AllowTruncated = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        "--allow-truncated/--no-allow-truncated",
        help="Use images whose files end too soon as far as they go. Default: as the last time, "
        "else reject them.",
        show_default=False,
    ),
]

_BACKBONE = "Backbone"
BackboneName = Annotated[
    Optional[str],  # noqa: UP045
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
ImgSize = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(metavar="PIXELS", help="Side of the network's input.", rich_help_panel=_BACKBONE),
]
Resize = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="squash|pad|crop",
        help="How an image becomes square; squash keeps it whole. [default: squash]",
        rich_help_panel=_BACKBONE,
    ),
]
Pool = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="auto|avg|max|token",
        help="How features become one vector; auto is the network's own way. [default: auto]",
        rich_help_panel=_BACKBONE,
    ),
]
Layer = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        metavar="LAYER",
        help="last, head (the pretrained classifier's logits), a block's number, or all-blocks; "
        "may be repeated: each has a feature file of its own. [default: last]",
        rich_help_panel=_BACKBONE,
    ),
]
TTA = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--tta",
        metavar="none|flip|d4|rotate:N",
        help="Average over views: the mirror image, the eight turns and mirrors of a square, or N "
        "turns round the circle. [default: none]",
        rich_help_panel=_BACKBONE,
    ),
]
Precision = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="auto|fp32|bf16|fp16",
        help="Arithmetic in the network; auto is the fastest that agrees with fp32. "
        "[default: auto]",
        rich_help_panel=_BACKBONE,
    ),
]

# A number or a word: the library tells them apart, and says what is wrong.
Folds = Annotated[
    Any,
    typer.Option(
        parser=str,
        metavar="FOLDS|logo",
        help="Number of folds, or logo: each group is left out in turn.",
    ),
]

_MORE = "More than one fit"
Search = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="BUDGET",
        help="Search settings inside each training fold: 20 (trials) or 60s (seconds a fold).",
        rich_help_panel=_MORE,
    ),
]
Vote = Annotated[
    bool,
    typer.Option(
        "--vote",
        help="Add the mean of the classifiers' probabilities as one more.",
        rich_help_panel=_MORE,
    ),
]
Permute = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Score each classifier on N shufflings of the labels too: that must give chance.",
        rich_help_panel=_MORE,
    ),
]

Novelty = Annotated[
    bool,
    typer.Option(
        "--novelty",
        help="Also leave each class out in turn: would the classifiers that --clf names (else "
        "logreg) notice a species that they never saw?",
        rich_help_panel=_MORE,
    ),
]

_MACHINE = "Machine"
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.", rich_help_panel=_MACHINE)]
TreesDevice = Annotated[
    str,
    typer.Option(metavar="cpu|cuda", help="Where xgb grows its trees.", rich_help_panel=_MACHINE),
]
Runtime = Annotated[
    str,
    typer.Option(
        metavar="auto|eager|compile|openvino",
        help="How the network runs; auto tries what pays for so many images.",
        rich_help_panel=_MACHINE,
    ),
]
BatchSize = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Images at once; by default what fits.", rich_help_panel=_MACHINE),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Threads; by default one a core.", rich_help_panel=_MACHINE),
]
Jobs = Annotated[
    int, typer.Option(help="Folds at once; -1 is one a core.", rich_help_panel=_MACHINE)
]
Backend = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="dask|ray[:ADDRESS]",
        help="Spread the folds over a cluster's workers; without an address over local ones.",
        rich_help_panel=_MACHINE,
    ),
]
