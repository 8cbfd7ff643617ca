"""What a program gives wrongly is an error that says so, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fishfeat as ff


@pytest.fixture(scope="module")
def features() -> ff.Features:
    rng = np.random.default_rng(0)
    return ff.Features(
        X=rng.normal(size=(24, 4)).astype(np.float32),
        keys=np.array([f"{i:02}" for i in range(24)]),
        y=np.arange(24) % 2,
        class_names=np.array(["cod", "dab"]),
        spec=ff.BackboneSpec("random", "drawn"),
        fingerprint="0" * 64,
    )


Call = Callable[[ff.Features, ff.Splits], Any]
WRONG: dict[str, tuple[str, Call]] = {
    "no path": ("data must be", lambda f, s: ff.scan(None)),  # type: ignore[arg-type]
    "several paths": ("data must be", lambda f, s: ff.scan(["a"])),  # type: ignore[arg-type]
    "no scan options": ("options must be", lambda f, s: ff.scan(".", {})),  # type: ignore[arg-type]
    "no images": ("images must be", lambda f, s: ff.extract("data/fish")),  # type: ignore[arg-type]
    "no split options": ("options must be", lambda f, s: ff.make_splits(f, {"cv": 3})),  # type: ignore[arg-type]
    "options of splits": (
        "options must be",
        lambda f, s: ff.cross_validate(f, "knn", s, ff.SplitOptions()),  # type: ignore[arg-type]
    ),
    "no options": ("options must be", lambda f, s: ff.fit_model(f, "knn", {})),  # type: ignore[arg-type]
    "no jobs": ("jobs must be", lambda f, s: ff.cross_validate(f, "knn", s, jobs=0)),
    "a number to search": (
        "search must be",
        lambda f, s: ff.cross_validate(f, "knn", s, ff.ClassifierOptions(search=2)),  # type: ignore[arg-type]
    ),
    "one share": ("shares must be", lambda f, s: ff.learning_curve(f, "knn", s, shares=(0.5,))),
    "falling shares": (
        "shares must be",
        lambda f, s: ff.learning_curve(f, "knn", s, shares=(0.5, 0.2, 1.0)),
    ),
    "a size in words": ("img_size must be", lambda f, s: ff.make_spec("nano", img_size="224")),  # type: ignore[arg-type]
    "two sizes": ("img_size must be", lambda f, s: ff.make_spec("nano", img_size=(224, 224))),  # type: ignore[arg-type]
    "rows": ("rows must be", lambda f, s: ff.fit_model(f, "knn", rows=np.array([0, 99]))),
    "a network that is not loaded": (
        "backbone must be loaded",
        lambda f, s: ff.fit_model(f, "knn").predict("a.png", backbone="nano"),  # type: ignore[arg-type]
    ),
    "a single run": (
        "runs must be",
        lambda f, s: ff.write_report(ff.cross_validate(f, "dummy", s), None, "report"),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named(
    case: str, features: ff.Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message, call = WRONG[case]
    with pytest.raises(ff.FishfeatError, match=f"^{message}"):
        call(features, ff.make_splits(features, ff.SplitOptions(cv=2)))
    assert not list(tmp_path.iterdir())
