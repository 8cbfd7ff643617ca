"""How the result of `fishfeat finetune` is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fishfeat.checks import Finding
from fishfeat.classify.statistics.verdict import Verdict
from fishfeat.files import JsonObject
from fishfeat.records import Cost, Run
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content.finetuning import check_divergence, check_lost_recall
from fishfeat.report.content.run_sentences import describe_holdout
from fishfeat.report.content.sentences import describe_costs, describe_verdict
from fishfeat.report.text import count, duration, gigaflops, integer

from .console import Console
from .render import (
    GROUPED_AND_RANDOM,
    describe_finding,
    describe_run,
    format_score,
    show_holdout_scores,
)

if TYPE_CHECKING:  # it loads torch
    from fishfeat.finetuning.description import BlockRow


class FinetuneResult(Protocol):
    """What a fine-tune gives."""

    @property
    def runs(self) -> Sequence[Run]:
        """The tuned network, on grouped and on random folds; the mean with the baseline."""

    @property
    def baseline(self) -> Run:
        """The classifier on frozen features, on the same folds."""

    @property
    def random_baseline(self) -> Run | None:
        """The same on random folds; None where those of `baseline` are random."""

    @property
    def verdict(self) -> Verdict:
        """Whether the tuned network is worth its cost."""

    @property
    def model(self) -> Path | None:
        """The saved model; None where none was saved."""

    @property
    def network(self) -> Path | None:
        """The folder of the tuned network; None where none was saved."""


def show_finetunings(console: Console, results: Sequence[FinetuneResult]) -> None:
    """Each result of a sweep, or the only one."""
    if len(results) == 1:
        console.document(describe_finetuning(results[0]))
    else:
        console.document({"sweep": [describe_finetuning(result) for result in results]})
    for result in results:
        _show_finetuning(console, result)
    if len(results) > 1:
        _show_sweep(console, results)


def _show_sweep(console: Console, results: Sequence[FinetuneResult]) -> None:
    """One row for each number of trained blocks."""
    rows = []
    for result in results:
        run = result.runs[0]
        training = run.config.training
        blocks = "–" if training is None else str(len(training.blocks))
        trained = "–" if training is None else f"{training.n_trained:,}"
        accuracy, interval = format_score(run.metrics, run.intervals)
        rows.append([run.name, blocks, trained, accuracy, interval])
    columns = ("run", "trained blocks", "trained parameters", "accuracy", "95 %")
    console.table("Sweep", columns, rows)


def show_recipes(console: Console) -> None:
    """The recipes that have a name, each with its first line."""
    from fishfeat.finetuning.recipes import describe_recipes

    described = describe_recipes()
    console.document({"recipes": described})
    rows = [[name, description] for name, description in described.items()]
    console.table("Recipes for `fishfeat finetune --recipe NAME`", ("name", "what it trains"), rows)


def _show_finetuning(console: Console, result: FinetuneResult) -> None:
    """Both sides of the comparison, the verdict, its cost, and what was found."""
    _show_arms(console, result)
    console.say(describe_verdict(result.verdict))
    costs = describe_costs(result.verdict)
    if costs:
        console.say(costs)
    for finding in _list_findings(result):
        console.say(str(finding))
    if result.baseline.split == "grouped":
        console.say(GROUPED_AND_RANDOM)
    if result.network is not None:
        console.say(f"The tuned network: {result.network}")
    if result.model is not None:
        console.say(f"The model: {result.model}")


def show_blocks(console: Console, rows: Sequence[BlockRow]) -> None:
    """The blocks of a network, the last one first."""
    console.document({"blocks": [row._asdict() for row in rows]})
    cells = []
    for row in rows:
        parameters = f"{row.n_trained:,}"
        cells.append(
            [row.train, row.name, f"{row.n_parameters:,}", parameters, f"{row.gigaflops:.2f}"]
        )
    columns = ("--train", "first block", "its parameters", "trained", "GFLOPs an image")
    console.table("Blocks, from the output to the input", columns, cells)


def describe_finetuning(result: FinetuneResult) -> JsonObject:
    """The document of a fine-tune; verdict and training are as in report.json."""
    import msgspec

    from fishfeat.report.output.report_json import build_finetuning

    verdict = result.verdict
    record = build_finetuning(verdict, tuned=verdict.tuned.name, frozen=verdict.frozen.name)
    features = result.baseline.config.features
    return {
        "dataset": None if features is None else features.dataset,
        "features": None if features is None else features.description,
        "n_images": len(result.baseline.keys),
        "finetuning": msgspec.to_builtins(record),
        "runs": [_describe_tuned_run(run) for run in result.runs],
        "baseline": describe_run(result.baseline),
        "findings": [describe_finding(finding) for finding in _list_findings(result)],
        "model": result.model,
        "network": result.network,
    }


def _describe_tuned_run(run: Run) -> JsonObject:
    """A run with how its networks were trained."""
    import msgspec

    from fishfeat.report.output.report_json import build_training

    return {**describe_run(run), "training": msgspec.to_builtins(build_training(run))}


def _list_findings(result: FinetuneResult) -> list[Finding]:
    findings = []
    for run in result.runs:
        findings += check_divergence(f"{run.name}, {run.split} split", run)
    return [*findings, *check_lost_recall(result.verdict)]


def _show_arms(console: Console, result: FinetuneResult) -> None:
    """One row for each run on the folds of the baseline, best first."""
    baseline, verdict = result.baseline, result.verdict
    random = {run.name: run for run in result.runs if run.split != baseline.split}
    if result.random_baseline is not None:
        random[baseline.name] = result.random_baseline
    ranked = [baseline, *(run for run in result.runs if run.split == baseline.split)]
    ranked.sort(key=lambda run: -run.metrics[RANKED_BY])
    costs = {verdict.tuned.name: verdict.tuned.cost, verdict.frozen.name: verdict.frozen.cost}
    columns = ["run", f"{baseline.split} accuracy", "95 %"]
    if random:
        columns += ["random accuracy", "optimism"]
    over = "std over groups" if baseline.leaves_groups_out else "std over folds"
    columns += ["balanced", "macro F1", over]
    columns += ["time", "processor time", "images passed", "GFLOPs"]
    rows = []
    for run in ranked:
        row = [run.name, *format_score(run.metrics, run.intervals)]
        if random:
            row += _compare_with_random(run, random.get(run.name))
        row += [f"{run.metrics['balanced_accuracy']:.3f}", f"{run.metrics['macro_f1']:.3f}"]
        row += [f"{run.std[RANKED_BY]:.3f}", *_format_cost(costs.get(run.name))]
        rows.append(row)
    n_images = count(len(baseline.keys), "image")
    console.table(f"{n_images} out of fold", columns, rows)
    if baseline.holdout is not None:
        show_holdout_scores(console, count(len(baseline.holdout.keys), "image"), ranked)
        console.say(describe_holdout(ranked[0], ranked[0].name, None))


def _compare_with_random(run: Run, random: Run | None) -> tuple[str, str]:
    if random is None:
        return "–", "–"
    score = random.metrics[RANKED_BY]
    return f"{score:.3f}", f"{score - run.metrics[RANKED_BY]:+.3f}"


def _format_cost(cost: Cost | None) -> tuple[str, str, str, str]:
    if cost is None:
        return "–", "–", "–", "–"
    return (
        duration(cost.wall_seconds),
        duration(cost.processor_seconds),
        integer(cost.images_passed),
        gigaflops(cost.flops),
    )
