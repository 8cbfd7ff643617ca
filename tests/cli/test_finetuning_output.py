"""The console shows both arms, the verdict and what went wrong; --json says the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.classify.statistics.verdict import Verdict, judge_finetune
from fishfeat.records import (
    BackboneSpec,
    Cost,
    Divergence,
    Epoch,
    FeaturesInfo,
    FoldScore,
    FoldTraining,
    Provenance,
    Run,
    RunConfig,
    Training,
)
from fishfeat.report.content.sentences import describe_verdict
from fishfeat_cli.console import Console
from fishfeat_cli.render_finetuning import show_finetunings

N = 60
Y = np.arange(N) // 2 % 3
GROUPS = np.arange(N) // 2


class Result(NamedTuple):
    """What the command gives."""

    runs: tuple[Run, ...]
    baseline: Run
    random_baseline: Run | None
    verdict: Verdict
    model: Path | None = None
    network: Path | None = None


def make_run(name: str, n_wrong: int, *, split: str = "grouped", training=None) -> Run:
    predicted = Y.copy()
    predicted[:n_wrong] = (Y[:n_wrong] + 1) % 3
    scores = np.eye(3)[predicted]
    fold = GROUPS % 3
    folds = tuple(
        FoldScore(0, k, 40, 20, 3, 1.0, 0.5, evaluate(Y[fold == k], scores[fold == k]))
        for k in range(3)
    )
    provenance = Provenance(embed_seconds=3.0, n_embedded=N)
    features = FeaturesInfo("pond", BackboneSpec("random", "tiny"), "ab" * 32, 8, provenance)
    return Run(
        name=name,
        kind="classical" if name == "logreg" else "finetune",
        split=split,
        keys=np.array([f"{i:02}.png" for i in range(N)]),
        y=Y,
        class_names=np.array(["bass", "bream", "cod"]),
        scores=scores[None],
        fold=fold[None],
        metrics=evaluate(Y, scores),
        intervals={"accuracy": (0.5, 1.0)},
        folds=folds,
        seconds={"fit": 3.0, "predict": 1.5},
        splits_digest=split,
        config=RunConfig(name, features=features, training=training),
        versions={},
    )


TRAINING = Training(
    recipe={"train": "last:1"},
    blocks=("layer4",),
    n_trained=1,
    n_parameters=2,
    cost=Cost(90.0, 170.0, 5 * N, 1.9e12),
    folds=tuple(FoldTraining(0, k, (Epoch(1e-3, 1.0, 0.5, 80.0),)) for k in range(3)),
)
DIVERGED = dataclasses.replace(
    TRAINING,
    folds=(*TRAINING.folds[:2], FoldTraining(0, 2, (), Divergence(0, 3, 1e6, float("nan")))),
)


@pytest.fixture
def show(capsys):
    """What the console prints for a network with so many mistakes, as text and as JSON."""

    def show(n_wrong: int, training: Training = TRAINING, **fields: object) -> tuple[str, dict]:
        tuned = make_run("finetune-last1", n_wrong, training=training)
        random = make_run("finetune-last1", 1, split="random", training=training)
        mean = make_run("logreg+finetune-last1", 3)
        baseline = make_run("logreg", 20)
        on_random = make_run("logreg", 5, split="random")
        verdict = judge_finetune(tuned, baseline, groups=GROUPS)
        result = Result((tuned, random, mean), baseline, on_random, verdict, **fields)
        show_finetunings(Console(), [result])
        text = capsys.readouterr().out
        show_finetunings(Console(as_json=True), [result])
        document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert document["finetuning"]["verdict"] == describe_verdict(verdict)
        return text, document

    return show


def test_both_arms_are_shown_with_verdict_and_cost(show):
    text, document = show(2, model=Path("cache/model"))
    rows = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert rows == ["finetune-last1", "logreg+finetune-last1", "logreg"]
    logreg = next(line for line in text.splitlines() if line.startswith("│ logreg "))
    assert all(score in logreg for score in ("0.667", "0.917", "+0.250"))
    assert document["finetuning"]["verdict"] in text
    for fact in ("90.0 s", "2 min 50 s", "7.50 s", "1,900", "cache/model"):
        assert fact in text.replace("\N{NO-BREAK SPACE}", " ")
    assert document["finetuning"]["outcome"] == "better"
    assert [run["split"] for run in document["runs"]] == ["grouped", "random", "grouped"]
    assert document["runs"][0]["training"]["folds"][1]["epochs"][0]["loss"] == 1.0
    assert document["runs"][2]["training"] is None
    assert document["baseline"]["clf"] == "logreg"
    assert (document["model"], document["network"]) == ("cache/model", None)
    assert document["findings"] == []


def test_divergence_and_lost_classes_are_shown(show):
    text, document = show(40, DIVERGED)
    assert document["finetuning"]["outcome"] == "worse"
    checks = [finding["check"] for finding in document["findings"]]
    assert checks == ["diverged-folds", "diverged-folds", "classes-lost-recall"]
    for finding in document["findings"]:
        assert finding["message"] in text
    divergence = document["runs"][0]["training"]["folds"][2]["divergence"]
    assert divergence == {"epoch": 0, "step": 3, "lr": 1e6, "last_loss": None}
