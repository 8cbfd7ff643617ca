"""`fishfeat models` lists what is saved, and what an earlier version saved is not used silently."""

import json

import pytest

from fishfeat.errors import ModelError
from fishfeat.models.saved import ARRAYS, DESCRIPTION
from fishfeat.stages.models import list_models
from fishfeat.stages.predict import predict_images
from fishfeat.stages.saved_models import find_model


def make_old(folder):
    """Leave of a model what version 0.1.0 saved of it."""
    content = json.loads((folder / DESCRIPTION).read_text())
    for name in ("classifier", "scores", "ece"):
        del content[name]
    (folder / DESCRIPTION).write_text(json.dumps(content))
    (folder / ARRAYS).unlink()
    (folder / "pipeline.joblib").write_bytes(b"anything")


def test_the_models_are_listed_with_their_scores_the_best_first(pond):
    pond.extract()
    fit = pond.fit(clf=("dummy", "centroid"))
    listed = list_models(cache=pond.cache)
    assert listed.dataset == "pond"
    assert {row.folder for row in listed.models} == set(fit.models)
    runs = {run.name: run for run in fit.runs if run.split == "grouped"}
    accuracies = []
    for row in listed.models:
        run = runs[row.name.partition("-on-")[0]]
        assert row.scores.metrics["accuracy"] == run.metrics["accuracy"]
        assert row.scores.intervals["accuracy"] == run.intervals["accuracy"]
        assert row.ece == run.metrics["ece"]
        assert (row.scores.n_groups, row.n_images, row.note) == (
            run.config.splits.n_groups,
            len(run.keys),
            "",
        )
        accuracies.append(row.scores.metrics["accuracy"])
    assert accuracies == sorted(accuracies, reverse=True)
    (default,) = (row for row in listed.models if row.is_default)
    assert default.folder == find_model(pond.read())


def test_a_best_model_of_an_earlier_version_is_an_error_with_the_ways_out(pond):
    pond.extract()
    pond.fit(clf=("dummy", "centroid"))
    best = find_model(pond.read())
    make_old(best)
    listed = {row.name: row for row in list_models(cache=pond.cache).models}
    assert "fishfeat fit --clf centroid" in listed[best.name].note
    assert listed[best.name].is_default
    (other,) = set(listed) - {best.name}
    image = next(pond.data.rglob("*.png"))
    with pytest.raises(ModelError) as caught:
        predict_images(image, cache=pond.cache)
    for text in (best.name, "fishfeat fit --clf centroid", f"--model NAME: {other}"):
        assert text in str(caught.value)
    assert predict_images(image, cache=pond.cache, model="dummy").model == other
    make_old(listed[other].folder)
    with pytest.raises(ModelError) as caught:
        predict_images(image, cache=pond.cache)
    assert "--model" not in str(caught.value)


def test_without_a_model_the_list_is_empty(pond):
    pond.extract()
    assert list_models(cache=pond.cache).models == ()
