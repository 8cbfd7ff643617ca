"""report.json: the page's figures for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fishfeat.classify.metrics import RANKED_BY
from fishfeat.records import ImageSet, Run
from fishfeat.report.compare import Standing, entry, leak
from fishfeat.report.gallery import Gallery, View
from fishfeat.report.story import cautions, headline, n_groups, protocol
from fishfeat.report.tables import class_rows, class_scores, confusion_of, feature_costs


def summary(
    standings: Sequence[Standing],
    views: Sequence[View],
    images: ImageSet,
    *,
    shown: Mapping[str, Sequence[Gallery]],
    files: Sequence[str],
) -> dict[str, Any]:
    """Everything on the page as plain numbers and names.

    Parameters
    ----------
    standings
        The leaderboard, best first.
    views
        Every run, in the order of the page.
    shown
        The galleries of each run by its slug.
    files
        Names of the other files of the report.
    """
    best = standings[0].run
    return {
        "dataset": images.name,
        "headline": headline(standings, images),
        "protocol": protocol(best, images),
        "cautions": cautions(standings, images),
        **_data_set(images),
        "splits": dict(entry(best.config, "splits", default={}))
        | {
            "strategy": best.split,
            "digest": best.splits_digest,
            "n_groups": n_groups(best, images),
        },
        "ranked_by": RANKED_BY,
        "leaderboard": [_standing(standing, images) for standing in standings],
        "runs": [_run(view, shown[view.slug]) for view in views],
        "cost": _cost(views),
        "files": list(files),
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


def _standing(standing: Standing, images: ImageSet) -> dict[str, Any]:
    run, random, worth = standing.run, standing.random, leak(standing, images)
    return {
        "run": standing.label,
        RANKED_BY: run.metrics[RANKED_BY],
        "interval": run.intervals.get(RANKED_BY),
        "random": None if random is None else random.metrics[RANKED_BY],
        "leak": None if worth is None else worth._asdict(),
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
        "spread": run.spread,
        "holdout": _holdout(run),
        "folds": run.folds,
        "confusion": confusion_of(view),
        "per_class": [score._asdict() for score in class_scores(view)],
        "pictures": {gallery.name: _pictures(gallery) for gallery in galleries},
        "seconds": run.seconds,
        "splits_digest": run.splits_digest,
        "config": run.config,
        "versions": run.versions,
    }


def _holdout(run: Run) -> dict[str, Any] | None:
    if run.holdout is None:
        return None
    held = run.holdout
    return {"n_images": len(held.keys), "metrics": held.metrics, "intervals": held.intervals}


def _pictures(gallery: Gallery) -> dict[str, Any]:
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
