"""Damage the files of saved models at random: each must be refused, or answer as before.

    python benchmarks/damaged_models.py --n 5000

A model of each classifier is fitted on drawn vectors and saved. Each time a few bytes of
`model.json` or `arrays.safetensors` are changed, deleted or inserted, or a number of an array, or a
value of `model.json`, is replaced. Half of the time the digest in `model.json` is then made right
again, as somebody who means harm would do: then the answers may differ, but nothing else than a
`ModelError` may happen.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from fishfeat.classify.estimators.registry import CLASSIFIERS
from fishfeat.errors import ModelError
from fishfeat.models.fit import combine_models, fit_model
from fishfeat.models.load import load_model
from fishfeat.models.saved import ARRAYS, DESCRIPTION, _digest
from fishfeat.records import BackboneSpec, Features

VALUES = (0, 1, -1, 2**31, 2**63, -(2**63), 1e300, -0.5, None, True, "", "x", [], {}, [[]])


def draw_features(seed: int = 0) -> Features:
    """60 vectors of 12 columns in 3 classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 3
    X = (rng.normal(size=(60, 12)) + rng.normal(size=(3, 12))[y]).astype(np.float32)
    spec = BackboneSpec("random", "test_resnet")
    keys = np.array([f"{i}.png" for i in range(60)])
    return Features(X, keys, y, np.array(["bass", "bream", "cod"]), spec, "0" * 64)


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, delete or insert 1 to 8 bytes, half of the time near the beginning."""
    changed = bytearray(content)
    limit = len(changed) if rng.random() < 0.5 else min(len(changed), 1500)
    for _ in range(rng.integers(1, 9)):
        place = int(rng.integers(min(limit, len(changed))))
        kind = rng.integers(3)
        if kind == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del changed[place : place + int(rng.integers(1, 5))]
        else:
            changed[place:place] = rng.bytes(int(rng.integers(1, 5)))
    return bytes(changed)


def damage_value(document: Any, rng: np.random.Generator) -> None:
    """Replace one value of a JSON document."""
    places = []
    pending = [document]
    while pending:
        node = pending.pop()
        keys = node if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], dict | list):
                pending.append(node[key])
    node, key = places[rng.integers(len(places))]
    value = VALUES[rng.integers(len(VALUES))]
    if isinstance(node[key], int | float) and rng.random() < 0.5:
        value = node[key] + int(rng.integers(-3, 4))
    node[key] = value


def damage_number(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace one number of one array by another one, often by an extreme one."""
    arrays = safetensors.numpy.load(content)
    name = sorted(arrays)[rng.integers(len(arrays))]
    values = arrays[name].copy()
    limits = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
    numbers = (0, 1, -1, 2, limits.max, limits.min, len(values.ravel()))
    values.ravel()[rng.integers(values.size)] = numbers[rng.integers(len(numbers))]
    arrays[name] = values
    return safetensors.numpy.save(arrays)


def sign(folder: Path) -> None:
    """Make the digest in `model.json` right."""
    try:
        content = json.loads((folder / DESCRIPTION).read_bytes())
        content["sha256"] = _digest(content, (folder / ARRAYS).read_bytes())
        (folder / DESCRIPTION).write_text(json.dumps(content))
    except (ValueError, TypeError):
        pass


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of numbers that overflow in a model that was signed
    rng = np.random.default_rng(args.seed)
    features = draw_features()
    new = draw_features(1).X
    models = {clf: fit_model(features, clf) for clf in CLASSIFIERS}
    models["ensemble"] = combine_models([models["svc"], models["rf"], models["knn"]])
    outcomes: dict[bool, collections.Counter[str]] = {False: collections.Counter()}
    outcomes[True] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(args.n):
            model = list(models.values())[number % len(models)]
            if number < len(models) or number % len(models) == 0:
                saved = {}
            if model.clf not in saved:
                model.save(folder)
                files = {file: (folder / file).read_bytes() for file in (DESCRIPTION, ARRAYS)}
                saved[model.clf] = files, load_model(folder)._score_rows(new)
            files, expected = saved[model.clf]
            for file, content in files.items():
                (folder / file).write_bytes(content)
            share = rng.random()
            if share < 0.3:
                (folder / ARRAYS).write_bytes(damage_number(files[ARRAYS], rng))
            elif share < 0.6:
                document = json.loads(files[DESCRIPTION])
                damage_value(document, rng)
                (folder / DESCRIPTION).write_text(json.dumps(document))
            else:
                file = (DESCRIPTION, ARRAYS)[rng.integers(2)]
                (folder / file).write_bytes(damage_bytes(files[file], rng))
            is_signed = bool(rng.integers(2))
            if is_signed:
                sign(folder)
            outcomes[is_signed][judge(folder, new, expected)] += 1
    for is_signed, counts in outcomes.items():
        print("digest made right" if is_signed else "digest as it was", dict(counts))


def judge(folder: Path, new: Any, expected: Any) -> str:
    """What loading and predicting does."""
    try:
        model = load_model(folder)
        proba = model._score_rows(new)
        equal = np.array_equal(proba, expected)
        return "equal answers" if equal else "other answers"
    except ModelError:
        return "ModelError"
    except Exception as error:
        print(type(error).__name__, error)
        return type(error).__name__


if __name__ == "__main__":
    main()
