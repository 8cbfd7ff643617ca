"""report.json: the page's figures for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fishfeat.classify.projection import FeatureMap
from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.records import Holdout, ImageSet, Run
from fishfeat.report.content.comparison import Standing, entry, leak
from fishfeat.report.content.contents import Contents
from fishfeat.report.content.galleries import Gallery, View
from fishfeat.report.content.sentences import cautions, headline, meaning, n_groups, protocol
from fishfeat.report.content.tables import class_rows, class_scores, confusion_of, feature_costs
from fishfeat.report.findings.data_issues import LabelIssues
from fishfeat.report.output.charts import reliability

SCHEMA = Path(__file__).parents[1] / "report.schema.json"


def summary(contents: Contents, *, files: Sequence[str]) -> dict[str, Any]:
    """Everything on the page as plain numbers and names, as `report.schema.json` describes it.

    Parameters
    ----------
    contents
        What is told.
    files
        Names of the other files of the report.
    """
    standings, images, views = contents.standings, contents.images, contents.views
    best, found = standings[0].run, contents.found
    return {
        "dataset": images.name,
        "headline": headline(standings, images),
        "how_scored": protocol(best, images),
        "meaning": meaning(best, images),
        "cautions": cautions(standings, images),
        **_data_set(images),
        "splits": dict(entry(best.config, "splits", default={}))
        | {
            "strategy": best.split,
            "digest": best.splits_digest,
            "n_groups": n_groups(best, images),
        },
        "folds": [
            one._asdict() | {"classes": [of._asdict() for of in one.classes]}
            for one in contents.folds
        ],
        "ranked_by": RANKED_BY,
        "leaderboard": [_standing(standing, images, contents.far) for standing in standings],
        "comparisons": [
            {"better": a, "worse": b, **_evidence(one)} for (a, b), one in contents.pairs.items()
        ],
        "runs": [_run(view, contents.shown[view.slug]) for view in views],
        "label_issues": None if found.label_issues is None else _suspects(found.label_issues),
        "identical": [
            {"paths": one.keys, "labels": one.labels, "n_groups": one.n_groups}
            for one in found.repeats.sets
        ],
        "bursts": [
            {name: value for name, value in burst._asdict().items() if name != "rows"}
            for burst in found.bursts
        ],
        "merges": {
            "before": found.before,
            "steps": [step._asdict() for step in found.merges],
            "table": found.merge_table,
        },
        "learning_curves": [curve_entry(curve) for curve in contents.curves],
        "unknown": [found.as_dict() for found in contents.novelty],
        "map": _map(contents.feature_map),
        "cost": _cost(views),
        "files": list(files),
    }


def _evidence(one: Evidence) -> dict[str, Any]:
    return {**one._asdict(), "may_be_chance": not one.is_significant}


def _suspects(label_issues: LabelIssues) -> dict[str, Any]:
    listed = [
        {name: value for name, value in one._asdict().items() if name not in ("row", "more")}
        for one in label_issues.found
    ]
    return {"run": label_issues.label, "n_other_runs": label_issues.n_others, "found": listed}


def curve_entry(curve: Curve) -> dict[str, Any]:
    """A curve by the names of its fields."""
    return {**vars(curve), "points": [point._asdict() for point in curve.points]}


def _map(feature_map: FeatureMap | None) -> dict[str, Any] | None:
    if feature_map is None:
        return None
    return {
        "method": feature_map.method,
        "explained": feature_map.explained,
        "features": feature_map.features,
        "n_images": len(feature_map.keys),
    }


def _data_set(images: ImageSet) -> dict[str, Any]:
    classes = [
        {"name": row.name, "n_images": row.n_images, "n_groups": row.n_groups}
        for row in class_rows(images, {})
    ]
    return {
        "n_images": len(images),
        "n_unlabelled": int((images.y < 0).sum()),
        "n_classes": len(images.class_names),
        "n_groups": None if images.groups is None else len(np.unique(images.groups)),
        "classes": classes,
        "notes": list(images.notes),
        "rejected": [
            {"path": lost.key, "label": lost.label, "reason": lost.reason}
            for lost in images.rejected
        ],
    }


def _standing(standing: Standing, images: ImageSet, far: Mapping[str, Evidence]) -> dict[str, Any]:
    run, random, worth = standing.run, standing.random, leak(standing, images)
    return {
        "run": standing.label,
        RANKED_BY: run.metrics[RANKED_BY],
        "interval": run.intervals.get(RANKED_BY),
        "random": None if random is None else random.metrics[RANKED_BY],
        "leak": None if worth is None else worth._asdict(),
        "behind": _evidence(far[standing.label]) if standing.label in far else None,
    }


def _run(view: View, galleries: Sequence[Gallery]) -> dict[str, Any]:
    run = view.run
    return {
        "label": view.label,
        "name": run.name,
        "kind": run.kind,
        "split": run.split,
        "n_images": len(run.keys),
        "class_names": run.class_names,
        "metrics": run.metrics,
        "intervals": run.intervals,
        "std": run.std,
        "holdout": _holdout(run.holdout, view.images),
        "holdout_folds": _holdout(run.holdout_folds, view.images),
        "folds": run.folds,
        "confusion": confusion_of(view),
        "reliability": _reliability(run),
        "per_class": [score._asdict() for score in class_scores(view)],
        "images": {gallery.name: _images(gallery) for gallery in galleries},
        "seconds": run.seconds,
        "splits_digest": run.splits_digest,
        "config": run.config,
        "versions": run.versions,
    }


def _reliability(run: Run) -> dict[str, Any] | None:
    found = reliability(run)
    if found is None:
        return None
    return {"expected_error": found.error, "bins": [one._asdict() for one in found.bins]}


def _holdout(held: Holdout | None, images: ImageSet) -> dict[str, Any] | None:
    if held is None:
        return None
    counts = {"n_images": len(held.keys), "n_groups": n_groups(held, images)}
    return counts | {"metrics": held.metrics, "intervals": held.intervals}


def _images(gallery: Gallery) -> dict[str, Any]:
    shots = [
        {"path": s.key, "true": s.true, "predicted": s.predicted, "margin": s.margin}
        for s in gallery.shots
    ]
    return {"n_images": gallery.total, "shown": shots}


def _cost(views: Sequence[View]) -> dict[str, Any]:
    runs = [view.run for view in views]
    features = [cost._asdict() for cost in feature_costs(runs)]
    return {
        "features": features,
        "embed_seconds": sum(cost["embed_seconds"] or 0 for cost in features),
        "fit_seconds": sum(run.seconds.get("fit", 0) for run in runs),
        "predict_seconds": sum(run.seconds.get("predict", 0) for run in runs),
    }
