"""Damage saved models at random: loading must refuse them, or they must not crash.

    python benchmarks/damage_models.py --damages 5000

Of each classifier, the ensemble and a search a model is saved. Half of the damages change bytes of
its two files: the model must be refused, or give the same answers. The other half change numbers of
its arrays and make the digest anew, as somebody might who wants to do harm: loading must refuse it,
or predicting must end with probabilities or an error of fishfeat. A crash ends this script.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.estimators.registry import CLASSIFIERS
from fishfeat.errors import ModelError
from fishfeat.models.fit import combine_models, fit_model
from fishfeat.models.load import load_model
from fishfeat.models.model import Model
from fishfeat.models.saved import ARRAYS, DESCRIPTION, read_saved, write_saved
from fishfeat.options import ClassifierOptions
from fishfeat.records import BackboneSpec, Features

_STRANGE = (-1, 0, 1, 2**31 - 1, -(2**31), 2**62, np.inf, -np.inf, np.nan, 1e308)


def draw_features() -> Features:
    """Vectors of 60 images of three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = (rng.normal(size=(60, 8)) + rng.normal(size=(3, 8))[y]).astype(np.float32)
    names, keys = np.array(["bass", "bream", "cod"]), np.array([f"{i}.png" for i in range(60)])
    return Features(X, keys, y, names, BackboneSpec("random", "test_resnet"), "0" * 64)


def fit_models(features: Features) -> dict[str, Model]:
    """A model of each classifier, of the ensemble and of a search."""
    models = {clf: fit_model(features, clf) for clf in CLASSIFIERS}
    models["ensemble"] = combine_models([models["logreg"], models["rf"]])
    models["search"] = fit_model(features, "svc", ClassifierOptions(search="3"))
    return models


def change_bytes(folder: Path, rng: np.random.Generator) -> None:
    """Change, remove or insert some bytes of one of the files."""
    path = folder / (DESCRIPTION, ARRAYS)[int(rng.integers(2))]
    content = bytearray(path.read_bytes())
    place, kind = int(rng.integers(len(content))), int(rng.integers(3))
    if kind == 0:
        content[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del content[place : place + int(rng.integers(1, 200))]
    else:
        content[place:place] = rng.bytes(int(rng.integers(1, 200)))
    path.write_bytes(content)


def change_numbers(folder: Path, rng: np.random.Generator) -> None:
    """Change a number, the shape or the type of an array, and make the digest anew."""
    saved, arrays = read_saved(folder)
    changed = {name: array.copy() for name, array in arrays.items()}
    name = sorted(changed)[int(rng.integers(len(changed)))]
    array, kind = changed[name], int(rng.integers(4))
    if kind < 2 and array.size:
        with np.errstate(all="ignore"):
            value = np.array(_STRANGE[int(rng.integers(len(_STRANGE)))]).astype(array.dtype)
        array.reshape(-1)[int(rng.integers(array.size))] = value
    elif kind == 2:
        changed[name] = array.reshape(-1)[: int(rng.integers(array.size + 1))]
    else:
        changed[name] = array.astype(np.float32 if array.dtype != np.float32 else np.int64)
    write_saved(folder, saved, changed)


def check(folder: Path, X: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """The probabilities of the model in a folder; None where it is refused."""
    try:
        return np.asarray(load_model(folder).pipeline.predict_proba(X))
    except ModelError:
        return None


def main() -> None:
    """Damage, load, predict and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--damages", type=int, default=5000)
    damages = parser.parse_args().damages
    features, rng = draw_features(), np.random.default_rng(1)
    models = fit_models(features)
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fishfeat-damage-") as name:
        for number in range(damages):
            clf = list(models)[number % len(models)]
            folder = models[clf].save(Path(name) / clf)
            expected = check(folder, features.X)
            assert expected is not None
            is_of_bytes = number // len(models) % 2 == 0
            (change_bytes if is_of_bytes else change_numbers)(folder, rng)
            found = check(folder, features.X)
            if found is None:
                tally["refused"] += 1
            elif np.array_equal(found, expected):
                tally["same answers"] += 1
            else:
                assert not is_of_bytes, f"{clf}: other answers after damage {number}"
                tally["other answers, digest made anew"] += 1
    print(f"{damages} damages: {dict(tally)}")


if __name__ == "__main__":
    main()
