"""Page and report.json show fine-tuned networks with verdict, cost, curves and divergence."""

import dataclasses
import html
import json
import re
import tomllib

import jsonschema
import pytest

from fishfeat.records import Cost, Divergence, Epoch, FoldTraining
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.finetune_overview import find_sweeps, tabulate_networks
from fishfeat.report.content.finetuning import collect_finetunes
from fishfeat.report.output.page import write_report
from fishfeat.report.output.schema import SCHEMA
from fishfeat.report.output.training_charts import draw_predictions, draw_sweep, draw_training
from fishfeat.report.run_view import RunView

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture(scope="module")
def written(make_images, make_run, make_tuned_run, tmp_path_factory):
    """A network that is better, and one that diverged in a fold, beside their baseline."""
    images = make_images(60)
    runs = [
        make_tuned_run(images, wrong=range(24, 30)),
        make_tuned_run(images, "finetune-full", wrong=range(0, 60, 2), diverged=[1]),
        make_run(images, "logreg", wrong=range(0, 30, 2)),
        make_run(images, "logreg+finetune-last1", wrong=[1], kind="finetune"),
        make_tuned_run(images, wrong=[3], split="random", diverged=[0, 2]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fishfeat.report.output.page._draw_plots", lambda contents: {})
        return write_report(runs, images, tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module")
def report(written):
    text = (written.parent / "report.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    return json.loads(text)


def test_report_json_follows_the_schema(report):
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(report)


def test_report_json_has_verdicts_costs_and_divergence(report):
    by_run = {entry["tuned"]["run"]: entry for entry in report["finetuning"]}
    assert by_run.keys() == {"finetune-last1", "finetune-full"}
    assert by_run["finetune-full"]["outcome"] == "worse"
    assert by_run["finetune-full"]["n_diverged"] == 1
    assert by_run["finetune-full"]["evidence"]["value"] == pytest.approx(-15 / 60)
    cost = by_run["finetune-last1"]["tuned"]["cost"]
    assert cost == {
        "wall_seconds": 90.0,
        "processor_seconds": 170.0,
        "images_passed": 300,
        "flops": 1.9e12,
    }
    frozen = by_run["finetune-last1"]["frozen"]
    assert frozen["run"] == "logreg"
    # 2 s for 30 images, twice as many images here, and 1.75 s to fit and predict.
    assert frozen["cost"]["wall_seconds"] == pytest.approx(2 * 2 + 1.75)
    assert frozen["cost"]["flops"] is None


def test_report_json_has_the_curves(report):
    runs = {(run["name"], run["split"]): run for run in report["runs"]}
    training = runs["finetune-last1", "grouped"]["training"]
    assert [fold["fold"] for fold in training["folds"]] == [0, 1, 2]
    assert [epoch["loss"] for epoch in training["folds"][0]["epochs"]] == [1.2, 0.7]
    assert training["recipe"]["train"] == "last:1"
    diverged = runs["finetune-full", "grouped"]["training"]["folds"][1]
    assert diverged["divergence"] == {"epoch": 0, "step": 3, "lr": 1e6, "last_loss": 2.5}
    assert runs["logreg", "grouped"]["training"] is None
    assert runs["logreg+finetune-last1", "grouped"]["training"] is None
    # The configuration says what was chosen; what happened is in `training` alone.
    config = runs["finetune-full", "grouped"]["config"]
    assert config["recipe"]["train"] == "last:1"
    assert "training" not in config


def test_numbers_that_are_not_finite_are_null(make_images, make_run, make_tuned_run, tmp_path):
    images = make_images()
    tuned = make_tuned_run(images)
    nan = float("nan")
    training = tuned.config.training
    fold = FoldTraining(0, 0, (Epoch(1e-3, nan, nan, nan),), Divergence(1, 0, nan, nan))
    object.__setattr__(training, "folds", (fold,))
    object.__setattr__(training, "cost", Cost(1.0, None, 3, None))
    write_report([tuned, make_run(images, "logreg", wrong=[1])], images, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    (run,) = (run for run in found["runs"] if run["training"])
    assert run["training"]["folds"][0]["epochs"][0]["loss"] is None
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)


def test_findings_name_every_run_that_diverged_and_the_classes_that_lost(report):
    messages = [f["message"] for f in report["findings"] if f["check"] == "diverged-folds"]
    assert len(messages) == 2
    assert any(message.startswith("finetune-full: ") for message in messages)
    assert any("random split" in message and "2 of 3 folds" in message for message in messages)
    assert "classes-lost-recall" in {finding["check"] for finding in report["findings"]}


def test_the_page_shows_the_section_and_marks_the_diverged_run(written, report, read_page):
    page, text = read_page(written), written.read_text()
    assert "fine-tuning" in page.ids
    for entry in report["finetuning"]:
        assert entry["verdict"] in page.text
    marks = re.findall(r"✗ diverged in (\d of \d folds)", text)
    assert marks == ["1 of 3 folds"]
    section = text[text.index('id="fine-tuning"') : text.index('id="data"')]
    charts = re.findall(r'<svg class="chart training".*?</svg>', section, flags=re.S)
    assert len(charts) == 2 * 3  # loss, accuracy and rate of two networks
    for chart in charts:
        assert "<text" in chart
        assert "var(--accent)" in chart
        assert not re.search(r"#[0-9a-f]{6}|clip-path|nan", chart)
    assert len(set(page.ids)) == len(page.ids)
    for fact in ("2 min 50 s", "1,900", "layer4.0"):
        assert fact in section.replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_has_the_recipe_as_a_file(written):
    recipes = re.findall(r'<pre class="recipe">(.*?)</pre>', written.read_text(), flags=re.S)
    assert len(recipes) == 3  # of each network, on each split
    for recipe in recipes:
        settings = tomllib.loads(html.unescape(recipe))
        assert settings == {"train": "last:1", "epochs": 2, "lr": 3e-4, "mixup": 0.0}


def test_a_page_without_networks_has_no_section(make_images, make_run, tmp_path, read_page):
    images = make_images()
    page = read_page(write_report([make_run(images, "logreg", wrong=[1])], images, tmp_path))
    assert "fine-tuning" not in page.ids
    assert "recipe.toml" not in page.text


def test_each_fold_has_a_line_and_a_diverged_one_a_cross():
    epochs = tuple(Epoch(1e-4 / k, 1 / k, 0.5, 80.0) for k in (1, 2, 3))
    folds = [
        FoldTraining(0, 0, epochs),
        FoldTraining(1, 0, epochs[:1], Divergence(1, 2, 1e6, 1e9)),
        FoldTraining(1, 1, (), Divergence(0, 1, 1e6, 2.5)),
        FoldTraining(1, 2, (), Divergence(0, 0, 1e6, None)),
    ]
    charts = draw_training(folds, "training-x")
    # A fold that finished no epoch has no accuracy; one without a finite loss has none to show.
    assert [chart.count("<title>") for chart in charts] == [3, 2, 4]
    for chart in charts:
        assert "repeat 2, fold 1" in chart
        assert "diverged in epoch 2" in chart
        assert "var(--incorrect)" in chart
    assert draw_training(folds[2:], "training-x") == []
    assert len(draw_training([FoldTraining(0, 0, (Epoch(0.0, 0.0, 1.0, 80.0),))], "x")) == 3


# --- all networks ------------------------------------------------------------------------------


def make_views(images, runs):
    return [RunView(run.name, run.name, run, images) for run in runs]


def train_blocks(run, n_blocks, **epoch):
    """The run as one of a sweep, whose last epoch has other values."""
    training = run.config.training
    folds = []
    for fold in training.folds:
        epochs = (*fold.epochs[:-1], dataclasses.replace(fold.epochs[-1], **epoch))
        folds.append(dataclasses.replace(fold, epochs=epochs))
    training = dataclasses.replace(
        training,
        recipe={**training.recipe, "train": f"last:{n_blocks}" if n_blocks else "head"},
        blocks=tuple(f"block{k}" for k in range(n_blocks)),
        folds=tuple(folds),
    )
    return dataclasses.replace(run, config=dataclasses.replace(run.config, training=training))


@pytest.fixture(scope="module")
def swept(make_images, make_tuned_run):
    """Networks of 2, 0 and 1 trained blocks, and one from random weights; with its images."""
    images = make_images(60)
    runs = []
    for n_blocks, wrong in ((2, [0, 1]), (0, [0, 2, 3, 4]), (1, [0, 1, 2])):
        run = make_tuned_run(images, f"sweep-{n_blocks}", wrong=wrong)
        runs.append(
            train_blocks(run, n_blocks, validation_loss=0.5, validation_accuracy=0.75, loss=0.25)
        )
    scratch = make_tuned_run(images, "scratch", wrong=range(5, 60), recipe={"train": "scratch"})
    return images, [*runs, scratch]


def test_each_network_has_what_it_alone_gets_right(swept):
    images, runs = swept
    finetunes = collect_finetunes(make_views(images, runs))
    rows = tabulate_networks(finetunes, [Standing(run.name, run, runs[0]) for run in runs])
    by_label = {row.label: row for row in rows}
    assert [row.n_correct for row in rows] == [58, 56, 57, 5]
    # image 0 is right with the network from scratch alone, images 3 and 4 wrong with sweep-0 alone
    assert by_label["scratch"].n_only_correct == 1
    assert by_label["scratch"].n_only_incorrect == 55
    assert by_label["sweep-0"].n_only_incorrect == 2
    assert by_label["sweep-1"].n_only_incorrect == by_label["sweep-1"].n_only_correct == 0
    assert by_label["sweep-2"].validation_accuracy == 0.75
    assert by_label["sweep-2"].train_loss == 0.25
    assert by_label["scratch"].validation_loss is None
    assert by_label["scratch"].random == runs[0].metrics["accuracy"]
    assert tabulate_networks(finetunes[:1], []) == []


def test_a_sweep_is_the_networks_that_differ_in_their_trained_blocks(swept):
    images, runs = swept
    finetunes = collect_finetunes(make_views(images, runs))
    (sweep,) = find_sweeps(finetunes, tabulate_networks(finetunes, []))
    assert [row.n_blocks for row in sweep.rows] == [0, 1, 2]
    assert [row.label for row in sweep.rows] == ["sweep-0", "sweep-1", "sweep-2"]
    two = collect_finetunes(make_views(images, runs[1:]))
    assert find_sweeps(two, tabulate_networks(two, [])) == []
    charts = draw_sweep(sweep, "sweep-0")
    assert len(charts) == 2
    for chart in charts:
        assert all(word in chart for word in ("out of fold", "validation part", "training"))


def test_the_bars_count_correct_and_incorrect_images(swept):
    images, runs = swept
    rows = tabulate_networks(collect_finetunes(make_views(images, runs)), [])
    chart = draw_predictions(rows, "networks")
    for row in rows:
        assert f"{row.label}: {row.n_correct} correct, {row.n_incorrect} incorrect" in chart


def test_the_page_shows_all_networks_and_the_sweep(swept, tmp_path):
    images, runs = swept
    page = write_report(runs, images, tmp_path).read_text()
    assert "Only this correct" in page
    assert "Validation accuracy" in page
    assert "Accuracy, random" not in page
    assert page.count("Number of trained blocks") == 1


def test_files_of_a_run_with_a_very_long_name_can_be_written(make_images, make_run, tmp_path):
    images = make_images()
    run = make_run(images, f"finetune-scratch-vgg16-d-widths-{'512+' * 80}512")
    folder = write_report([run], images, tmp_path, group_matrix=True).parent
    assert list(folder.glob("confusion-finetune-scratch-*.csv"))
