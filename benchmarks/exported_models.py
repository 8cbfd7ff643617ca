"""Export models as ONNX files, and compare their answers with fishfeat's own.

    python benchmarks/exported_models.py shared/data/fish4knowledge-mini \
        --images shared/data/imagenet-samples --python plain/bin/python

The program of `docs/export.md` classifies the images that the models were fitted on, and those of
`--images`, in batches of 1, 3 and 32. `--python` names a Python that needs no more than numpy,
Pillow and ONNX Runtime. The table says how many labels are equal, and how far a probability is off.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fishfeat as ff
from fishfeat.classify.estimators.registry import CLASSIFIERS
from fishfeat.models.fit import combine_models
from fishfeat.models.onnx_files.export import make_onnx

DOCS = Path(__file__).parents[1] / "docs" / "export.md"
BATCH_SIZES = (1, 3, 32)
ENSEMBLE = "ensemble"


def read_program() -> str:
    """The program in the docs."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return str(blocks[-1])


def classify(python: str, program: Path, model: Path, batch_size: int, paths: list[str]) -> tuple:
    """Run the program; the labels and the probabilities in the order of the paths."""
    command = [python, str(program), str(model), str(batch_size), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(done.stdout))}
    labels = np.array([rows[path][0] for path in paths])
    return labels, np.array([rows[path][1:] for path in paths]).astype(float)


def fit_models(features: ff.Features, names: list[str]) -> dict[str, ff.Model]:
    """Fit each classifier on all images, and make the ensemble of some of them."""
    members = ("logreg", "svc", "rf", "xgb")
    wanted = {*names, *(members if ENSEMBLE in names else ())} - {ENSEMBLE}
    models = {name: ff.fit_model(features, name) for name in wanted}
    if ENSEMBLE in names:
        models[ENSEMBLE] = combine_models([models[name] for name in members])
    return {name: models[name] for name in names}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of labelled images")
    parser.add_argument("--images", action="append", default=[], help="folder of more images")
    parser.add_argument("--backbone", default="nano")
    parser.add_argument("--clf", action="append", help="default: all, and the ensemble")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--cache", default="cache")
    args = parser.parse_args()

    names = args.clf or [*CLASSIFIERS, ENSEMBLE]
    images = ff.scan(args.data)
    backbone = ff.load_backbone(args.backbone)
    models = fit_models(ff.extract(images, backbone, cache=args.cache), names)
    folders = {args.data: [str(images.path(i)) for i in range(len(images))]}
    for folder in args.images:
        others = ff.scan(folder)
        folders[folder] = [str(others.path(i)) for i in range(len(others))]
    print(
        f"{'model':12} {'images':22} {'batch':>5} {'same label':>10} {'largest':>9} {'ms/image':>9}"
    )
    with tempfile.TemporaryDirectory() as name:
        program = Path(name, "classify.py")
        program.write_text(read_program())
        for clf, model in models.items():
            path = Path(name, f"{clf}.onnx")
            path.write_bytes(make_onnx(model, backbone))
            for folder, paths in folders.items():
                own = model.predict(paths, backbone=backbone)
                expected = np.array([p.scores for p in own])
                for batch_size in BATCH_SIZES:
                    start = time.perf_counter()
                    labels, proba = classify(args.python, program, path, batch_size, paths)
                    seconds = time.perf_counter() - start
                    same = (labels == np.array([p.label for p in own])).mean()
                    largest = np.abs(proba - expected).max()
                    print(
                        f"{clf:12} {Path(folder).name:22} {batch_size:5} {same:10.2%} "
                        f"{largest:9.5f} {1e3 * seconds / len(paths):9.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
