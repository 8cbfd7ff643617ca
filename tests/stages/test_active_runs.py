"""A result holds for the images, labels and class names that it was made on, and for no others."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from fishfeat.errors import DataError, ModelError
from fishfeat.models.load import read_data_identity
from fishfeat.models.model import name_model
from fishfeat.records import BackboneSpec, Cost, Divergence, FoldTraining, Training
from fishfeat.stages import fit as fit_stage
from fishfeat.stages.active_runs import find_active_runs
from fishfeat.stages.extract import extract_data
from fishfeat.stages.inspect import inspect_data
from fishfeat.stages.predict import predict_images
from fishfeat.stages.report import report_data
from fishfeat.stages.saved_models import find_model
from fishfeat.workspace import Workspace
from fishfeat.workspace.runs import load_run

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The messages of the library."""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("fishfeat"), Handler()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


def list_runs(pond) -> list[str]:
    """Names of the runs on the page."""
    page = report_data(cache=pond.cache).page
    report = json.loads((page.parent / "report.json").read_text())
    return sorted({run["name"] for run in report["runs"]})


def relabel(pond) -> None:
    """Move two images of one animal to the other class; the folds stay the same."""
    for path in sorted((pond.data / "day_0" / "bass").glob("*.png"))[:1]:
        shutil.move(path, path.parent.parent / "bream" / path.name)


def write_list(pond, *, swapped: int = 0, names: dict[str, str] | None = None) -> Path:
    """A table of the images; the first `swapped` have the other label."""
    rows = ["path,label,group"]
    for i, path in enumerate(sorted(pond.data.rglob("*.png"), key=lambda path: path.name)):
        label = path.parent.name
        if i < swapped:
            label = {"bass": "bream", "bream": "bass"}[label]
        label = (names or {}).get(label, label)
        rows.append(f"{path},{label},{path.name.split('_')[1]}")
    table = pond.data.parent / "list.csv"
    table.write_text("\n".join(rows))
    return table


def overwrite(pond) -> None:
    path = sorted(pond.data.rglob("*.png"))[0]
    Image.new("RGB", (28, 20), "red").save(path)


CHANGES: dict[str, Callable[[object], Path]] = {
    "a label": lambda pond: write_list(pond, swapped=2),
    "a class name": lambda pond: write_list(pond, names={"bass": "sea bass"}),
    "a merge": lambda pond: write_list(pond, names={"bass": "bream"}),
    "the contents": lambda pond: overwrite(pond) or pond.data.parent / "list.csv",
    "a file": lambda pond: sorted(pond.data.rglob("*.png"))[0].unlink() or write_list(pond),
}


@pytest.mark.parametrize("change", CHANGES)
def test_scores_models_and_curves_of_other_data_are_refused(pond, change):
    table = write_list(pond)
    listed = pond._replace(data=table)
    listed.extract(group_by=("column",))
    listed.fit(clf=("centroid",), cv="logo")
    assert find_active_runs(listed.read("list")).findings == []
    CHANGES[change](pond)
    listed.extract(group_by=("column",))
    with pytest.raises(DataError, match="fishfeat fit"):
        report_data(cache=pond.cache)
    image = sorted(pond.data.rglob("*.png"))[1]
    with pytest.raises(ModelError, match="--model NAME") as caught:
        predict_images([image], cache=pond.cache)
    assert "centroid" in str(caught.value)


@pytest.mark.parametrize("extra", ["learning_curve", "novelty"])
def test_a_page_shows_only_what_is_of_the_labels_now(pond, said, extra):
    table = write_list(pond)
    rows = table.read_text().splitlines()
    rows = [
        rows[0],
        *(row.replace(",bass,", ",cod,") if i % 4 == 0 else row for i, row in enumerate(rows[1:])),
    ]
    table.write_text("\n".join(rows))
    listed = pond._replace(data=table)
    listed.extract(group_by=("column",))
    options = {"cv": "logo", extra: True}
    if extra == "novelty":
        options["cv"] = 2
    listed.fit(clf=("centroid",), **options)
    name = {"learning_curve": "learning_curves", "novelty": "novelty"}[extra]
    folder = pond.cache / "list" / "report"
    report_data(cache=pond.cache)
    assert len(json.loads((folder / "report.json").read_text())[name]) == 1
    swapped = {",cod,": ",bass,", ",bass,": ",cod,"}
    changed = [
        next((row.replace(a, b) for a, b in swapped.items() if a in row), row)
        if i in (1, 2)
        else row
        for i, row in enumerate(rows)
    ]
    table.write_text("\n".join(changed))
    listed.extract(group_by=("column",))
    listed.fit(clf=("knn",), cv=options["cv"])
    said.clear()
    assert list_runs(pond) == ["knn"]
    assert json.loads((folder / "report.json").read_text())[name] == []


def mark_diverged(pond, name: str) -> None:
    """Make the saved runs of a classifier fine-tunes whose training diverged in a fold."""
    folder = pond.read().folder
    fold = FoldTraining(0, 0, (), Divergence(epoch=0, step=0, lr=1e6, last_loss=None))
    training = Training({}, (), 1, 1, Cost(1.0, 1.0, 1), folds=(fold,))
    for path in (pond.cache / "pond" / "runs").glob(f"{name}-*"):
        run = load_run(path)
        shutil.rmtree(path)
        config = dataclasses.replace(run.config, training=training)
        folder.save_run(dataclasses.replace(run, kind="finetune", config=config))


def test_a_diverged_network_predicts_only_where_it_is_named(pond):
    pond.extract()
    pond.fit(clf=("centroid", "knn"))
    best = find_model(pond.read()).name.partition("-")[0]
    (other,) = {"centroid", "knn"} - {best}
    mark_diverged(pond, best)
    assert {run.name for run in find_active_runs(pond.read()).runs} == {"centroid", "knn"}
    assert find_model(pond.read()).name.startswith(f"{other}-on-")
    assert find_model(pond.read(), best).name.startswith(f"{best}-on-")
    mark_diverged(pond, other)
    with pytest.raises(ModelError, match="--model"):
        find_model(pond.read())


def test_the_model_of_a_tuned_network_is_the_default_where_it_is_best(pond):
    pond.extract()
    fit = pond.fit()
    folder = pond.read().folder
    network = BackboneSpec("local-dir", "tuned")
    training = Training({}, (), 1, 1, Cost(1.0, 1.0, 1), network=network)
    (run,) = (run for run in fit.runs if run.split == "grouped")
    config = dataclasses.replace(run.config, training=training)
    metrics = {**run.metrics, "accuracy": 1.1}
    changes = {"name": "finetune-last1", "kind": "finetune"}
    folder.save_run(dataclasses.replace(run, config=config, metrics=metrics, **changes))
    assert find_model(pond.read()) == fit.models[0]
    model = folder.models / name_model("finetune-last1", network, balanced=False)
    shutil.copytree(fit.models[0], model)
    assert find_model(pond.read()) == model


def test_old_runs_beside_a_new_one_are_left_out_and_said_on_the_page(pond, said):
    table = write_list(pond)
    listed = pond._replace(data=table)
    listed.extract(group_by=("column",))
    listed.fit(clf=("centroid", "knn"), cv="logo")
    write_list(pond, swapped=2)
    listed.extract()
    fit = listed.fit(clf=("lda",), cv="logo")
    said.clear()
    assert list_runs(pond) == ["lda"]
    (told,) = [message for message in said if "used other labels" in message]
    assert "(centroid, knn)" in told
    report = json.loads((pond.cache / "list" / "report" / "report.json").read_text())
    assert "left-out-runs" in {finding["check"] for finding in report["findings"]}
    image = sorted(pond.data.rglob("*.png"))[0]
    assert predict_images([image], cache=pond.cache).model.startswith("lda-on-")
    said.clear()
    result = predict_images([image], cache=pond.cache, model="knn")
    assert any("knn" in message and "other labels (2 of 12" in message for message in said)
    assert result.class_names == ["bass", "bream"]
    data = fit.runs[0].config.splits.data
    assert data == read_data_identity(fit.models[0])
    # The labels as they were: the scores of that time hold again.
    write_list(pond)
    listed.extract()
    said.clear()
    assert "knn" in list_runs(pond)


def test_added_images_leave_the_scores_of_the_others_and_are_said(pond):
    pond.extract()
    pond.fit()
    assert find_active_runs(pond.read()).findings == []
    path = sorted(pond.data.rglob("*.png"))[0]
    Image.new("RGB", (28, 20), "blue").save(path.with_name("fish_9_99.png"))
    pond.extract()
    runs, (finding,) = find_active_runs(pond.read())
    assert {run.name for run in runs} == {"centroid"}
    assert finding.check == "images-not-scored"
    assert "1 of 13 images" in finding.message
    pond.fit()
    assert find_active_runs(pond.read()).findings == []


def test_a_renamed_file_is_another_image(pond):
    pond.extract()
    pond.fit()
    path = sorted(pond.data.rglob("*.png"))[0]
    path.rename(path.with_name("fish_0_00.png"))
    pond.extract()
    with pytest.raises(DataError, match="1 of 12"):
        report_data(cache=pond.cache)


def test_changed_held_out_images_are_other_data(pond):
    pond.extract()
    run = pond.fit(test=0.5, cv=2).runs[0]
    held = str(run.holdout.keys[0])
    Image.new("RGB", (28, 20), "blue").save(pond.data / held)
    pond.extract()
    with pytest.raises(DataError, match="contents"):
        report_data(cache=pond.cache)


# --- a fit that was stopped -------------------------------------------------------------------


def stop_before(clf: str) -> Callable[..., object]:
    """`_fit_classifier`, stopped by the user where the turn of a classifier comes."""
    original = fit_stage._fit_classifier

    def stop(job, name, fit):
        if name == clf:
            raise KeyboardInterrupt
        return original(job, name, fit)

    return stop


def test_a_finished_classifier_counts_at_once(pond, monkeypatch, said):
    pond.extract()
    seen = []
    original = fit_stage._fit_classifier

    def look(job, clf, fit):
        if clf == "knn":  # as another process, or after a kill, sees the data set
            state = pond.read().state
            seen.append((state.unfinished, list_runs(pond)))
        return original(job, clf, fit)

    monkeypatch.setattr(fit_stage, "_fit_classifier", look)
    pond.fit(clf=("centroid", "knn", "lda"), ensemble=True)
    assert seen == [(("knn", "lda", "ensemble"), ["centroid"])]
    assert pond.read().state.unfinished == ()
    assert list_runs(pond) == ["centroid", "ensemble", "knn", "lda"]


def test_a_stopped_fit_is_said_and_what_is_finished_is_used(pond, monkeypatch, said):
    pond.extract()
    with monkeypatch.context() as patch:
        patch.setattr(fit_stage, "_fit_classifier", stop_before("knn"))
        with pytest.raises(KeyboardInterrupt):
            pond.fit(clf=("centroid", "knn", "lda"))
    said.clear()
    assert list_runs(pond) == ["centroid"]
    (told,) = [message for message in said if "stopped" in message]
    assert "knn, lda" in told
    image = sorted(pond.data.rglob("*.png"))[0]
    assert predict_images([image], cache=pond.cache).model.startswith("centroid-on-")
    pond.fit(clf=("knn", "lda"))
    said.clear()
    assert list_runs(pond) == ["centroid", "knn", "lda"]
    assert not [message for message in said if "stopped" in message]


@pytest.mark.parametrize("step", ["learning_curve", "average_runs", "find_map"])
def test_what_is_stopped_after_the_classifiers_takes_none_of_them(pond, monkeypatch, step):
    pond.extract()

    def stop(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_stage, step, stop)
        with pytest.raises(KeyboardInterrupt):
            pond.fit(clf=("centroid", "knn"), learning_curve=True, ensemble=True)
    expected = {"centroid", "knn"} | ({"ensemble"} if step == "find_map" else set())
    assert set(list_runs(pond)) == expected
    assert bool(pond.read().state.unfinished) == (step != "find_map")


# --- which data set is in use -----------------------------------------------------------------


@pytest.fixture
def other(tmp_path, draw_folder) -> Path:
    return draw_folder(tmp_path / "other", classes=("dab", "sole"), n=2)


def test_a_look_leaves_the_data_set_in_use(pond, other, said):
    pond.extract()
    pond.fit()
    files = pond.read_files()
    inspection = inspect_data(other, cache=pond.cache)
    assert inspection.dataset == "other"
    assert any("'pond' stays the data set in use" in message for message in said)
    assert Workspace(pond.cache).current.name == "pond"
    image = sorted(pond.data.rglob("*.png"))[0]
    assert predict_images([image], cache=pond.cache).dataset == "pond"
    assert report_data(cache=pond.cache).dataset == "pond"
    assert pond.fit().dataset == "pond"
    assert pond.read_files() == files


def test_a_look_with_options_leaves_an_extracted_data_set_as_it_is(pond):
    from fishfeat.options import ScanOptions

    pond.extract()
    pond.fit()
    files = pond.read_files()
    assert len(inspect_data(pond.data, ScanOptions(drop=("bass",)), cache=pond.cache).classes) == 1
    overwrite(pond)
    inspect_data(cache=pond.cache)
    assert pond.read_files() == files
    assert list_runs(pond) == ["centroid"]


def test_where_none_is_in_use_a_look_takes_one_into_use(pond, other):
    inspect_data(pond.data, cache=pond.cache)
    inspect_data(other, cache=pond.cache)
    assert Workspace(pond.cache).current.name == "pond"


def test_a_data_set_is_chosen_by_name(pond, other):
    pond.extract()
    pond.fit()
    pond._replace(data=other).extract(group_by=("none",))
    current = Workspace(pond.cache)
    assert current.current.name == "other"
    image = sorted(pond.data.rglob("*.png"))[0]
    with pytest.raises(ModelError, match="pond"):
        predict_images([image], cache=pond.cache)
    assert predict_images([image], cache=pond.cache, dataset="pond").dataset == "pond"
    assert report_data(cache=pond.cache, dataset="pond").dataset == "pond"
    assert current.current.name == "other"
    with pytest.raises(DataError, match="Did you mean pond"):
        report_data(cache=pond.cache, dataset="ponds")
    assert extract_data(cache=pond.cache, dataset="pond").n_new == 0
    assert current.current.name == "pond"


def test_the_groups_of_an_annotation_folder_come_back_after_another_rule(pond):
    paths = [path.relative_to(pond.data).as_posix() for path in sorted(pond.data.rglob("*.png"))]
    rows = [f"{path},{path.split('/')[1]},{path.split('_')[2]}" for path in paths]
    (pond.data / "metadata.csv").write_text("\n".join(["file_name,label,individual", *rows]))
    listed = pond.extract(group_by=None, source="metadata").images
    assert len(set(listed.groups.tolist())) == 6
    pond.fit(group_by=("none",))
    assert pond.read("pond").images.groups is None
    pond.fit(group_by=())
    images = pond.read("pond").images
    assert images.groups.tolist() == listed.groups.tolist()
    assert images.grouping == listed.grouping
