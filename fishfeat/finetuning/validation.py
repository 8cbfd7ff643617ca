"""A part of the training images that is not trained on: it shows how each epoch did."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import nn

from fishfeat.classify.estimators.calibration import inner_folds
from fishfeat.finetuning.inputs import Inputs
from fishfeat.finetuning.scoring import score_images
from fishfeat.records import Float, Int


class ValidationPart(NamedTuple):
    """Images that validate a training, and their classes: int64 (n,) each."""

    images: Int
    codes: Int


def split_validation(codes: Int, groups: Int | None, share: float, *, seed: int) -> tuple[Int, Int]:
    """Positions of the images to train on and of those that validate, int64 each.

    Whole groups validate. A class whose groups would all validate is trained on instead, and so is
    everything where no class has two groups.

    Parameters
    ----------
    codes
        int64 (n,): class of each training image.
    groups
        int64 (n,): group of each, or None.
    share
        Share of the images that validate, up to 0.5.
    seed
        Seed of the draw.
    """
    everything = np.arange(len(codes))
    folds = inner_folds(codes, groups, max(2, round(1 / share)), seed=seed)
    if not folds:
        return everything, everything[:0]
    train, validation = folds[0]
    is_trained = np.isin(codes[validation], codes[train])
    return np.setdiff1d(everything, validation[is_trained]), validation[is_trained]


class Validated(NamedTuple):
    """How a network did on images that were not trained on."""

    loss: float
    accuracy: float


def validate(network: nn.Module, inputs: Inputs, part: ValidationPart) -> Validated:
    """Mean negative log probability of the true classes, and share classified correctly."""
    logits = score_images(network, inputs, part.images)
    accuracy = float((logits.argmax(axis=1) == part.codes).mean())
    return Validated(measure_loss(logits, part.codes), accuracy)


def measure_loss(logits: Float, codes: Int) -> float:
    """Mean negative log probability of the true classes."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return float((log_sums - shifted[np.arange(len(codes)), codes]).mean())
