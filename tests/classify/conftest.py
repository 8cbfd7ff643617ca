"""Synthetic features whose classes, groups and noise are as strong as a test needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fishfeat.records import BackboneSpec, Features

NAMES = ("bass", "bream", "cod", "dab", "eel", "gar", "hake", "ide")
SPEC = BackboneSpec("random", "test_resnet")


@pytest.fixture(scope="session")
def make_features() -> Callable[..., Features]:
    """`make_features(counts, group_of=..., class_effect=..., group_effect=..., **fields)`.

    `counts` are the groups of each class, `group_of` the images of each group. A row is the sum
    of a vector of its class, one of its group and noise, and rows stand in random order. Values
    are multiples of 1/1024, so that small shifts and powers of two change no digit of them.
    """

    def make(
        counts: Sequence[int] = (6, 6, 6),
        *,
        group_of: int = 4,
        dim: int = 12,
        class_effect: float = 1.0,
        group_effect: float = 0.0,
        noise: float = 1.0,
        seed: int = 0,
        **fields: Any,
    ) -> Features:
        rng = np.random.default_rng(seed)
        class_of_group = np.repeat(np.arange(len(counts)), counts)
        groups = rng.permutation(np.repeat(np.arange(len(class_of_group)), group_of))
        y = class_of_group[groups]
        X = class_effect * rng.normal(size=(len(counts), dim))[y]
        X += group_effect * rng.normal(size=(len(class_of_group), dim))[groups]
        X += noise * rng.normal(size=X.shape)
        given: dict[str, Any] = {
            "X": (np.round(X * 1024) / 1024).astype(np.float32),
            "keys": np.array([f"{i:04}.jpg" for i in range(len(y))], str),
            "y": y.astype(np.int64),
            "class_names": np.array(NAMES[: len(counts)]),
            "spec": SPEC,
            "fingerprint": "f" * 64,
            "dataset": "pond",
            "groups": groups.astype(np.int64),
            "grouping": "by name",
        }
        return Features(**given | fields)

    return make


@pytest.fixture(scope="session")
def leaky(make_features: Callable[..., Features]) -> Features:
    """Four classes whose groups differ more than the classes do: what leaks is rewarded."""
    return make_features((15,) * 4, class_effect=0.4, group_effect=1.5, noise=0.3, dim=20)
