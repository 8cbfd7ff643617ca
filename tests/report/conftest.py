"""Small image sets with real files and runs with chosen mistakes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.records import (
    BackboneSpec,
    Cost,
    Divergence,
    Epoch,
    FeaturesInfo,
    FoldScore,
    FoldTraining,
    Holdout,
    ImageSet,
    Run,
    RunConfig,
    SplitsInfo,
    Training,
)
from fishfeat.records.provenance import Provenance, RuntimeConfig, RuntimeRecord

VOID = {"meta", "br", "img", "link", "hr", "input"}
CLASS_NAMES = ("bream", "cod", "dab")


class Page(HTMLParser):
    """A page taken apart; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.ids: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.text += data

    def attributes(self, name: str) -> list[str]:
        """Every value of the attribute `name`."""
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="session")
def read_page() -> Callable[[Path], Page]:
    return lambda path: Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def make_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ImageSet]:
    """`make_images(n=..., groups_of=..., names=..., class_names=..., **fields)`."""

    def make(
        n: int = 30,
        *,
        groups_of: int | None = 2,
        names: Sequence[str] = (),
        class_names: Sequence[str] = CLASS_NAMES,
        **fields: Any,
    ) -> ImageSet:
        root = tmp_path_factory.mktemp("images")
        keys = np.array(sorted([*names, *(f"fish_{i:03}.png" for i in range(n - len(names)))]))
        for i, key in enumerate(keys):
            Image.new("RGB", (20 + i % 5, 12), (i * 7 % 256, 90, 160)).save(root / str(key))
        y = np.arange(n) // (groups_of or 1) % len(class_names)
        zeros = np.zeros(n, np.int64)
        given: dict[str, Any] = {
            "name": "pond",
            "root": root,
            "keys": keys,
            "y": y.astype(np.int64),
            "class_names": np.array(class_names),
            "digest": np.array(
                [
                    hashlib.sha256(str(key).encode("utf-8", "surrogatepass")).hexdigest()
                    for key in keys
                ]
            ),
            "n_bytes": zeros + 100,
            "mtime_ns": zeros,
            "width": 20 + np.arange(n) % 5,
            "height": zeros + 12,
            "groups": None if groups_of is None else np.arange(n) // groups_of,
        }
        return ImageSet(**given | fields)

    return make


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """`make_run(images, name=..., wrong=rows, margin=..., **fields)`: right but for `wrong`."""

    def make(
        images: ImageSet,
        name: str = "svc",
        *,
        wrong: Sequence[int] = (),
        margin: np.ndarray[Any, Any] | None = None,
        split: str = "grouped",
        n_folds: int = 3,
        **fields: Any,
    ) -> Run:
        n, n_classes = len(images), len(images.class_names)
        predicted = images.y.copy()
        predicted[list(wrong)] = (predicted[list(wrong)] + 1) % n_classes
        sure = np.linspace(0.2, 0.9, n) if margin is None else margin
        scores = np.repeat(((1 - sure) / n_classes)[:, None], n_classes, axis=1)
        scores[np.arange(n), predicted] += sure
        unit = images.groups if images.groups is not None and split == "grouped" else np.arange(n)
        fold = np.unique(unit, return_inverse=True)[1] % n_folds
        metrics = evaluate(images.y, scores)
        given: dict[str, Any] = {
            "name": name,
            "kind": "classical",
            "split": split,
            "keys": images.keys,
            "y": images.y,
            "class_names": images.class_names,
            "scores": scores[None],
            "fold": fold[None].astype(np.int64),
            "metrics": metrics,
            "intervals": {"balanced_accuracy": (metrics["balanced_accuracy"] - 0.02, 1.0)},
            "folds": tuple(_fold(images, scores, fold, k) for k in range(n_folds)),
            "seconds": {"fit": 1.25, "predict": 0.5},
            "splits_digest": _digest(fold, split),
            "config": _config(name, split),
            "versions": {"scikit-learn": "1.9.1"},
        }
        return Run(**given | fields)

    return make


@pytest.fixture(scope="session")
def make_tuned_run(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """`make_tuned_run(images, diverged=folds, recipe=..., **as_make_run)`: a fine-tune."""

    def make(
        images: ImageSet,
        name: str = "finetune-last1",
        *,
        diverged: Sequence[int] = (),
        recipe: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Run:
        run = make_run(images, name, kind="finetune", **fields)
        folds = [_train_fold(k, has_diverged=k in diverged) for k in range(run.n_folds)]
        training = Training(
            recipe={"train": "last:1", "epochs": 2, "lr": 3e-4, "mixup": 0.0, **(recipe or {})},
            blocks=("layer4.0",),
            n_trained=10,
            n_parameters=1234,
            cost=Cost(90.0, 170.0, 5 * len(images), 1.9e12),
            cut="layer4.0",
            folds=tuple(folds),
        )
        return dataclasses.replace(run, config=dataclasses.replace(run.config, training=training))

    return make


def _train_fold(k: int, *, has_diverged: bool) -> FoldTraining:
    if has_diverged:
        return FoldTraining(0, k, (), Divergence(epoch=0, step=3, lr=1e6, last_loss=2.5))
    return FoldTraining(0, k, (Epoch(3e-4, 1.2, 0.5, 80.0), Epoch(1e-4, 0.7, 0.9, 81.0)))


@pytest.fixture(scope="session")
def hold_out() -> Callable[[ImageSet, Sequence[int]], Holdout]:
    """A held-out test set of the images `rows`, all recognised."""

    def make(images: ImageSet, rows: Sequence[int]) -> Holdout:
        y = images.y[list(rows)]
        scores = np.eye(len(images.class_names))[y]
        metrics = evaluate(y, scores)
        return Holdout(images.keys[list(rows)], y, scores, metrics, {"balanced_accuracy": (0.8, 1)})

    return make


def _digest(fold: np.ndarray[Any, Any], split: str) -> str:
    return hashlib.sha256(split.encode() + fold.tobytes()).hexdigest()


def _fold(images: ImageSet, scores: Any, fold: Any, k: int) -> FoldScore:
    test = fold == k
    return FoldScore(
        repeat=0,
        fold=k,
        n_train=int((~test).sum()),
        n_test=int(test.sum()),
        n_classes_train=3,
        seconds_fit=0.4,
        seconds_predict=0.1,
        metrics=evaluate(images.y[test], scores[test]),
    )


def _config(name: str, split: Literal["grouped", "random"]) -> RunConfig:
    provenance = Provenance(
        n_parameters=1234,
        embed_seconds=2.0,
        n_embedded=30,
        device="cpu",
        runtimes=(RuntimeRecord(RuntimeConfig("compile", "bf16", 8)),),
    )
    return RunConfig(
        clf=name,
        params={"C": 10},
        features=FeaturesInfo(
            dataset="pond",
            backbone=BackboneSpec("timm", "tiny", img_size=64),
            fingerprint="ab" * 32,
            dim=8,
            provenance=provenance,
        ),
        splits=SplitsInfo(strategy=split, seed=0, n_folds=3),
    )
