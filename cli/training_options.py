"""The options of the commands that train networks: `finetune` and `reproduce`.

As in `options`, types and defaults are those of the records.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .options import MACHINE

# --- fine-tune --------------------------------------------------------------------------------

Train = Annotated[
    str | None,
    typer.Option(
        metavar="last:K|head|full|scratch",
        help="What is trained: the last K blocks, the head alone, all blocks, or all blocks from "
        "random weights. [default: last:4]",
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images. [default: 5]")]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Largest learning rate of the trained blocks. [default: 0.0003]"),
]
Augment = Annotated[
    str | None,
    typer.Option(
        metavar="none|flip|d4|rotate:N|light|fish|affine",
        help="Transforms of the training images. The first four are stored once; the others are "
        "drawn anew in each epoch, which takes longer. [default: flip]",
    ),
]
Select = Annotated[
    bool,
    typer.Option(
        "--select",
        help="Select rate and number of epochs on a validation part of each training fold. Takes "
        "about four times as long.",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="All settings of the training: a name that --recipes lists, or a TOML file.",
    ),
]
Network = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Network to train instead of that of the features, as `extract --backbone` takes it. "
        "With --train scratch any architecture of timm, or cnn-c, lenet-b, simplenet, vgg16-d.",
    ),
]
MaxEpochs = Annotated[
    int | None,
    typer.Option(metavar="N", help="At most N epochs in each stage of a recipe: to try it."),
]
Sweep = Annotated[
    str | None,
    typer.Option(
        metavar="last:FIRST..LAST",
        help="Train once for each number of blocks: last:0..9 (0 is the head alone). The page "
        "draws the scores over the number of blocks.",
    ),
]
Recipes = Annotated[
    bool, typer.Option("--recipes", help="List the recipes that have a name, and stop.")
]
Blocks = Annotated[bool, typer.Option("--blocks", help="List the blocks of the network, and stop.")]
FoldJobs = Annotated[
    int,
    typer.Option(
        help="Folds trained at the same time; -1 is one for each core.", rich_help_panel=MACHINE
    ),
]

# --- reproduce ------------------------------------------------------------------------------

Networks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Pretrained network to fine-tune, where the reference compares several. May be "
        "repeated.",
    ),
]
MostBlocks = Annotated[
    int | None, typer.Option(metavar="N", help="Most blocks that a sweep trains. [default: 9]")
]
