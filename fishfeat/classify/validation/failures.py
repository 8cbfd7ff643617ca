"""Why a classifier cannot learn from some images."""

from __future__ import annotations

import re

import numpy as np
from sklearn.pipeline import Pipeline

from fishfeat.records import Int


def explain_failure(model: Pipeline, y: Int, error: ValueError) -> str:
    """The message of a library with the counts of the images.

    Only where there are hardly any images, more of them are what helps.

    Parameters
    ----------
    model
        The pipeline that could not be fitted.
    y
        int64 (n,): classes of the images.
    error
        What the library raised.
    """
    n_classes = len(np.unique(y))
    noun = "class" if n_classes == 1 else "classes"
    inner = getattr(model[-1], "estimator", model[-1])
    # np.int64(2) is 2 for a reader.
    reason = re.sub(r"np\.\w+\(([^)]*)\)", r"\1", str(error)).rstrip(".")
    message = (
        f"{type(inner).__name__} cannot learn from {len(y)} images of {n_classes} {noun}: {reason}."
    )
    if n_classes < 2 or len(y) <= n_classes:
        message += " Add images, or use another classifier with --clf."
    return message
