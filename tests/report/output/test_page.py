import dataclasses
import json
import os
import re

import numpy as np
import pytest

from fishfeat.checks import Finding
from fishfeat.errors import DataError, SplitError
from fishfeat.records import Chance, Rejected, RunConfig, SplitsInfo
from fishfeat.records.near_duplicates import DuplicatePair
from fishfeat.records.results import Curve, CurvePoint, LeftOutClass, Novelty
from fishfeat.report.content.check_findings import collect_findings
from fishfeat.report.content.comparison import compare_with_best, rank_runs
from fishfeat.report.content.contents import ReportContent
from fishfeat.report.content.sentences import describe_curve, describe_novelty
from fishfeat.report.findings.data_issues import find_data_issues
from fishfeat.report.output.page import write_report
from fishfeat.report.run_view import RunView

HOSTILE = [
    "<script>alert(1)<.png",
    '"onload="x.png',
    "a'b&amp;{{ 7*7 }}.png",
    "line\nbreak.png",
    "turned\u202eround.png",
    "bytes\udcff\udc80.png",
]


@pytest.fixture(autouse=True)
def draw_plots_where_marked(request):
    """Only tests that are marked `plots` draw plots, as does the page that all share."""
    if not request.node.get_closest_marker("plots"):
        request.getfixturevalue("no_plots")


@pytest.fixture(scope="module")
def pond(make_images, make_run):
    """Two runs on grouped folds and one of them on random folds."""
    images = make_images()
    runs = [
        make_run(images, "svc", wrong=[3, 20]),
        make_run(images, "rf", wrong=[3, 4, 28]),
        make_run(images, "svc", wrong=[3], split="random"),
    ]
    return images, runs


@pytest.fixture(scope="module")
def written(pond, tmp_path_factory):
    """The report of the pond; only to be read."""
    images, runs = pond
    return write_report(runs, images, tmp_path_factory.mktemp("pond") / "report")


@pytest.fixture(scope="module")
def page(written, read_page):
    return read_page(written)


def read_json(folder):
    return json.loads((folder / "report.json").read_text(encoding="ascii"))


def checks_of(folder):
    """Check -> message of the findings in report.json."""
    return {finding["check"]: finding["message"] for finding in read_json(folder)["findings"]}


def test_the_page_states_the_score_the_protocol_and_the_optimism(written, page):
    found = read_json(written.parent)
    gap = "\N{NO-BREAK SPACE}"
    assert found["headline"].startswith(
        f"svc, the best of 2 runs, classifies 93.3{gap}% of the images correctly"
    )
    assert "30 images of 3 classes in 15 groups" in page.text
    for sentence in (found["headline"], found["how_scored"], found["meaning"]):
        assert sentence in page.text
    assert "+3.3 points" in page.text
    assert "The difference is not significant." in page.text
    assert "no-groups" not in checks_of(written.parent)


def test_the_page_and_its_files_are_side_by_side(written):
    names = {path.name for path in written.parent.iterdir()}
    confusion = {f"confusion-{n}.png" for n in ("svc-grouped", "rf-grouped", "svc-random")}
    assert written.name == "index.html"
    plots = confusion | {"leaderboard.png", "class_counts.png"}
    assert names == plots | {"index.html", "report.json", "label_issues.csv", "folds.csv"}
    assert all((written.parent / n).read_bytes().startswith(b"\x89PNG") for n in confusion)


def test_hostile_names_are_shown_escaped(make_images, make_run, tmp_path, read_page):
    images = make_images(
        12, groups_of=None, names=HOSTILE, class_names=("<b>a</b>", "$x_", "c\ud800")
    )
    lost = Rejected("<img src=x>\n.png", "broken: <em>", '<a href="//x">')
    images = dataclasses.replace(images, rejected=(lost,), notes=("<u>note</u>",))
    run = make_run(images, "<svg>", wrong=range(12), split="random")
    page = read_page(write_report([run], images, tmp_path / "report", title="</title><script>"))
    scripts = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert scripts == ["application/json", "text/plain", None]
    assert not {"b>", "em", "u", "img"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "<script>alert(1)<.png" in page.text
    assert "line\\nbreak.png" in page.text
    assert "turned\\u202eround.png" in page.text
    assert "bytes\\xff\\x80.png" in page.text
    assert "a'b&amp;{{ 7*7 }}.png" in page.text


@pytest.mark.skipif(os.name == "nt", reason="bytes that are no text")
def test_report_json_keeps_names_that_are_no_utf8(make_images, make_run, tmp_path):
    images = make_images(12, groups_of=None, names=HOSTILE)
    write_report([make_run(images, wrong=range(12), split="random")], images, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text(encoding="ascii"))
    uncertain = found["runs"][0]["galleries"]["uncertain"]["shown"]
    assert {shot["path"] for shot in uncertain} <= set(images.keys.tolist())


@pytest.mark.plots
def test_same_input_gives_the_same_bytes(pond, written, tmp_path):
    images, runs = pond
    second = write_report(runs[::-1], images, tmp_path).parent
    for path in sorted(written.parent.iterdir()):
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_nothing_is_loaded_from_elsewhere(written, page):
    beside = {path.name for path in written.parent.iterdir()}
    for address in page.attributes("src") + page.attributes("href"):
        local = address.startswith(("data:image/", "#")) or address in beside
        assert local, address[:80]
    assert "default-src 'none'" in page.attributes("content")[0]
    assert not re.search(r"@import|url\(", written.read_text(encoding="utf-8"))


def test_links_and_images_point_at_something_on_the_page(page):
    wanted = {href[1:] for href in page.attributes("href") if href.startswith("#")}
    assert len(page.ids) == len(set(page.ids))
    assert wanted <= set(page.ids)


def test_the_cost_of_the_features_says_how_the_network_ran(written):
    assert "cpu, compile bf16" in written.read_text(encoding="utf-8")


def test_near_duplicates_are_shown_with_the_evidence_weakest_first(make_images, make_run, tmp_path):
    images = make_images()
    keys = images.keys.tolist()
    sure = DuplicatePair(keys[0], keys[1], "pixels", 50, 40, 0.9, 0.999)
    mirrored = DuplicatePair(
        keys[2], keys[3], "pixels", 9, 7, 0.5, 0.987, transform=(-1, 0, 9, 0, 1, 0)
    )
    gone = DuplicatePair(keys[0], "gone.png", "pixels")
    duplicates = (sure, mirrored, gone, DuplicatePair(keys[4], keys[5], "bytes"))
    content = ReportContent(near_duplicates=duplicates)
    page = write_report([make_run(images)], images, tmp_path, content=content).read_text()
    section = page[page.index('id="near-duplicates"') :]
    assert section.index("0.987") < section.index("0.999")
    assert "mirrored, rotated by 0°" in section
    assert "2 pairs of near-duplicates" in section
    assert "gone.png" not in page


def test_each_image_is_held_once(pond, page):
    stored = [attrs["id"] for tag, attrs in page.tags if tag == "image"]
    references = [attrs["href"][1:] for tag, attrs in page.tags if tag == "use"]
    used = {name for name in references if re.fullmatch(r"p\d+", name)}
    assert len(stored) == len(set(stored)) <= len(pond[0])
    assert used == set(stored)


def test_images_and_tables_are_named_for_screen_readers(page):
    drawn = [attrs for tag, attrs in page.tags if attrs.get("role") == "img"]
    assert drawn
    assert all(attrs["aria-label"] for attrs in drawn)
    assert all(attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "region")
    assert {"header", "main", "nav", "footer"} <= {tag for tag, _ in page.tags}
    assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
    n_tables = [tag for tag, _ in page.tags].count("table")
    assert [tag for tag, _ in page.tags].count("caption") == n_tables


def test_a_vanished_image_gets_a_tile_that_says_so(make_images, make_run, tmp_path, read_page):
    images = make_images()
    run = make_run(images, wrong=[20])
    images.path(25).unlink()
    images.path(20).write_bytes(b"no image")
    page = read_page(write_report([run], images, tmp_path))
    assert "fish_025.png (can no longer be read)" in page.attributes("aria-label")
    assert "fish_020.png (can no longer be read)" in page.attributes("aria-label")
    assert "#unreadable" in page.attributes("href")
    assert "p25" not in page.ids


def test_unreadable_files_are_named_with_their_reasons(pond, tmp_path, read_page):
    images, runs = pond
    lost = (Rejected("cod/half.png", "broken: image file is truncated", "cod"),)
    page = read_page(write_report(runs, dataclasses.replace(images, rejected=lost), tmp_path))
    assert "cod/half.png" in page.text
    assert "broken: image file is truncated" in page.text
    found = json.loads((tmp_path / "report.json").read_text())["rejected"]
    expected = {"path": "cod/half.png", "label": "cod"}
    assert found == [expected | {"reason": "broken: image file is truncated"}]


def test_unknown_groups_are_a_finding_at_the_top(make_images, make_run, tmp_path, read_page):
    images = make_images(groups_of=None)
    page = read_page(write_report([make_run(images, split="random")], images, tmp_path))
    found = read_json(tmp_path)
    assert found["findings"][0]["check"] == "no-groups"
    assert found["findings"][0]["severity"] == "warning"
    assert "--group-by" in found["findings"][0]["fix"]
    assert found["n_groups"] is None
    message = found["findings"][0]["message"]
    assert page.text.index(message) < page.text.index("Protocol.")
    assert page.text.count(message) == 1


def test_groups_that_the_runs_ignored_are_an_error(make_images, make_run, tmp_path, read_page):
    images = make_images()
    page = read_page(write_report([make_run(images, split="random")], images, tmp_path))
    found = read_json(tmp_path)["findings"][0]
    assert (found["check"], found["severity"]) == ("random-split-with-groups", "error")
    assert found["message"].startswith("15 groups")
    assert page.text.index(found["message"]) < page.text.index("Protocol.")


def test_report_json_holds_the_numbers_of_the_runs(pond, written):
    _, runs = pond
    found = json.loads((written.parent / "report.json").read_text())
    assert [(r["name"], r["split"]) for r in found["runs"]] == [
        ("svc", "grouped"),
        ("rf", "grouped"),
        ("svc", "random"),
    ]
    for plain, run in zip(found["runs"], runs, strict=True):
        assert plain["metrics"] == dict(run.metrics)
        assert plain["intervals"] == {k: list(v) for k, v in run.intervals.items()}
        assert plain["seconds"] == dict(run.seconds)
        for fold, original in zip(plain["folds"], run.folds, strict=True):
            assert fold["params"] is None
            metrics = fold.pop("metrics")
            assert metrics == dict(original.metrics)
            for name, value in fold.items():
                assert value == getattr(original, name), name
        assert np.trace(plain["confusion"]) / 30 == pytest.approx(run.metrics["accuracy"])
        recall = [row["recall"] for row in plain["per_class"]]
        assert np.mean(recall) == pytest.approx(run.metrics["balanced_accuracy"])
    assert found["leaderboard"][0]["optimism"]["value"] == pytest.approx(1 / 30)
    assert found["leaderboard"][1]["random"] is None
    assert (found["dataset"], found["n_images"], found["n_classes"]) == ("pond", 30, 3)
    assert found["classes"][0] == {"name": "bream", "n_images": 10, "n_groups": 5}
    assert found["cost"]["fit_seconds"] == 3.75
    assert found["cost"]["embed_seconds"] == 2.0


def test_held_out_scores_stand_in_the_leaderboard(
    make_images, make_run, hold_out, tmp_path, read_page
):
    images = make_images()
    rest = images.select(np.arange(24))
    run = make_run(rest, holdout=hold_out(images, range(24, 30)))
    page = read_page(write_report([run], images, tmp_path))
    assert "Held-out test" in page.text
    assert "n = 6" in page.text
    tiles = page.text[: page.text.index("Protocol.")].split()
    assert tiles[-1] == "run1"
    found = read_json(tmp_path)
    assert found["runs"][0]["holdout"]["n_groups"] == 3
    assert "6 further images (the test part of the data set)" in found["how_scored"]
    assert (
        "On 6 held-out images (3 groups), which did not influence the choice of the run, svc "
        "classifies 100.0\N{NO-BREAK SPACE}% correctly"
    ) in found["headline"]


def test_a_mean_is_scored_on_held_out_images_by_the_models_of_its_folds(
    make_images, make_run, hold_out, tmp_path
):
    images = make_images()
    rest = images.select(np.arange(24))
    held = hold_out(images, range(24, 30))
    ensemble = dataclasses.replace(make_run(rest, "ensemble"), holdout_folds=held)
    write_report([ensemble, make_run(rest, wrong=[1], holdout=held)], images, tmp_path)
    found = read_json(tmp_path)
    assert (
        "did not influence the choice of the run, the mean of the folds' models of ensemble "
        "classifies 100.0\N{NO-BREAK SPACE}% correctly"
    ) in found["headline"]
    assert "best-of-many" not in {finding["check"] for finding in found["findings"]}
    assert "6 further images (the test part of the data set) are scored once" in found["how_scored"]
    assert found["splits"]["n_test"] == 6
    assert len((tmp_path / "folds.csv").read_text().splitlines()) == 1 + 30


def test_the_classes_say_how_many_groups_the_folds_score(
    make_images, make_run, hold_out, tmp_path, read_page
):
    images = make_images()
    run = make_run(images.select(np.arange(24)), holdout=hold_out(images, range(24, 30)))
    text = "".join(read_page(write_report([run], images, tmp_path / "held")).text.split("\n"))
    assert "bream10 (8)5 (4)" in text
    assert "In brackets: how many of them the folds score" in text
    whole = read_page(write_report([make_run(images)], images, tmp_path / "whole")).text
    assert "bream105" in "".join(whole.split("\n"))
    assert "In brackets: how many" not in whole


def test_the_tile_and_the_headline_count_the_same_runs(page):
    assert "the best of 2 runs" in page.text
    assert page.text[: page.text.index("Protocol.")].split()[-1] == "runs2"


def test_the_settings_that_a_search_chose_are_shown_with_the_run(
    make_images, make_run, tmp_path, read_page
):
    images = make_images()
    plain = make_run(images)
    chosen = ({"estimator__C": 0.3, "prepare": "PCA 128"}, {}, {"prepare": "PCA 128"})
    other = ({"prepare": "PCA 128"}, {}, {"prepare": "PCA 128"})
    for n, params in enumerate((chosen, other)):
        folds = tuple(
            dataclasses.replace(fold, params=p) for fold, p in zip(plain.folds, params, strict=True)
        )
        run = dataclasses.replace(plain, folds=folds)
        text = read_page(write_report([run], images, tmp_path / str(n))).text
        assert "Settings that the search chose" in text
        assert "default settings in 1 of 3 folds" in text
        said = "C = 0.3, prepare = PCA 128 in 1 of 3 folds"
        assert (said in text) == (params is chosen)
        assert ("prepare = PCA 128 in 2 of 3 folds" in text) == (params is other)
    bare = read_page(write_report([plain], images, tmp_path / "bare")).text
    assert "search chose" not in bare


@pytest.mark.parametrize(("low", "leaks"), [(0.3, False), (0.4, True)])
def test_the_score_on_shuffled_labels_is_shown_with_the_run(
    low, leaks, make_images, make_run, tmp_path, read_page
):
    images = make_images()
    run = make_run(images)
    chance = Chance(1 / 3, (0.31, 0.45), low)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, chance=chance))
    text = read_page(write_report([run], images, tmp_path)).text
    assert "svc on shuffled labels: balanced accuracy 0.310 to 0.450; chance is 0.333" in text
    assert ("above-chance-on-shuffled-labels" in checks_of(tmp_path)) == leaks
    assert ("This is near chance" in text) != leaks


def test_commands_in_sentences_are_code_and_nothing_else_is_markup(
    make_images, make_run, tmp_path, read_page
):
    images = make_images(notes=("`fishfeat extract --drop <b>NAME</b>` and <u>one</u> ` alone",))
    path = write_report([make_run(images)], images, tmp_path)
    assert "<code>fishfeat extract --drop &lt;b&gt;NAME&lt;/b&gt;</code> and" in path.read_text()
    page = read_page(path)
    assert not {"b", "u"} & {tag for tag, attrs in page.tags if not attrs}
    assert "` alone" in page.text


def test_how_groups_were_found_is_a_note(make_images, make_run, tmp_path, read_page):
    grouping = r"Images in whose paths `fish_(\d+)_` matches the same text are one group."
    images = make_images(6, grouping=grouping)
    run = make_run(images, config=RunConfig("svc"), n_folds=2)
    page = read_page(write_report([run], images, tmp_path))
    assert page.text.count(r"Images in whose paths fish_(\d+)_ matches") == 1


def test_notes_of_the_splits_are_findings(make_images, make_run, tmp_path, read_page):
    images = make_images()
    finding = Finding("few-groups-in-class", "dab has 2 groups and 3 folds.", "Add images.")
    splits = SplitsInfo("grouped", 0, n_folds=3, notes=(finding,))
    run = make_run(images, config=RunConfig("svc", splits=splits))
    page = read_page(write_report([run], images, tmp_path))
    assert checks_of(tmp_path)["few-groups-in-class"] == "dab has 2 groups and 3 folds."
    text = page.text.rsplit("Reproducibility", 1)[0]  # there is the whole configuration
    assert text.count("dab has 2 groups and 3 folds.") == 1


def test_findings_are_sorted_by_severity_and_shown_with_title_and_fix(
    make_images, make_run, tmp_path, read_page
):
    images = make_images(90, groups_of=None, rejected=(Rejected("a.png", "broken", "cod"),))
    images.digest[4] = images.digest[9]
    y = images.y.copy()
    y[4] = (y[9] + 1) % 3
    images = dataclasses.replace(images, y=y)
    run = make_run(images, split="random", wrong=range(0, 60, 2), margin=np.full(90, 0.9))
    page = read_page(write_report([run, make_run(images, "rf", split="random")], images, tmp_path))
    findings = read_json(tmp_path)["findings"]
    checks = {finding["check"] for finding in findings}
    assert {"no-groups", "unreadable-files", "contradicting-duplicates", "best-of-many"} <= checks
    severities = [finding["severity"] for finding in findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    for finding in findings:
        assert finding["message"] in page.text
        assert finding["fix"].replace("`", "") in page.text


def collect_checks(runs, images):
    """Check -> message of the findings of some runs, without writing a page."""
    standings = rank_runs(runs)
    views = [RunView(label, label, run, images) for label, run, _ in standings]
    evidence = compare_with_best(standings, images)
    findings = collect_findings(views, standings, evidence, find_data_issues(views))
    return {finding.check: finding.message for finding in findings}


def test_what_was_noted_while_fitting_is_found_once_for_all_runs_with_it(make_images, make_run):
    images = make_images()
    note = Finding("no-inner-folds", "Two folds have too few groups.", "Add groups.")
    runs = []
    for name in ("svc", "rf"):
        run = make_run(images, name=name)
        config = dataclasses.replace(run.config, notes=(note,))
        runs.append(dataclasses.replace(run, config=config))
    message = collect_checks(runs, images)["no-inner-folds"]
    assert note.message in message
    assert "svc" in message
    assert "rf" in message
    assert "no-inner-folds" not in collect_checks([make_run(images)], images)


def test_a_classifier_that_knows_nothing_is_found(make_images, make_run):
    images = make_images()
    poor = collect_checks([make_run(images, wrong=range(10, 30))], images)
    assert "bream" in poor["not-better-than-majority"]
    assert "33.3\N{NO-BREAK SPACE}%" in poor["not-better-than-majority"]
    good = collect_checks([make_run(images, wrong=range(28, 30))], images)
    assert "not-better-than-majority" not in good


def test_uncertain_images_are_found_only_where_they_are_less_accurate(make_images, make_run):
    images = make_images(80)
    # Margins rise from the first image to the last.
    for wrong, is_found in ((range(0, 12), True), (range(68, 80), False), ([2, 40], False)):
        checks = collect_checks([make_run(images, wrong=wrong)], images)
        assert ("uncertain-images" in checks) == is_found


def test_low_recall_and_few_groups_name_the_classes(make_images, make_run):
    images = make_images(60)
    wrong = np.flatnonzero(images.y == 1)[:10]
    checks = collect_checks([make_run(images, wrong=wrong)], images)
    assert checks["low-recall"] == "cod (10 of 20 images) has low recall."
    assert "few-groups" not in checks
    few = make_images(12)
    message = collect_checks([make_run(few)], few)["few-groups"]
    assert message == "bream (2 groups), cod (2 groups) and dab (2 groups) have few groups."


def test_rare_classes_that_score_lower_are_said_with_the_difference(make_images, make_run):
    y = np.repeat([0, 1, 2], [40, 16, 4])
    images = make_images(60, y=y)
    wrong = np.flatnonzero(y == 2)[1:]
    message = collect_checks([make_run(images, wrong=wrong)], images)["rare-classes-score-lower"]
    assert "4 to 40 images" in message
    assert "20.0 points less" in message  # accuracy 57 of 60, recalls 1, 1 and 1/4
    equal = make_images(60)
    missed = np.flatnonzero(equal.y == 1)[:10]
    assert "rare-classes-score-lower" not in collect_checks([make_run(equal, wrong=missed)], equal)


def test_one_label_issue_is_singular_and_shows_two_probabilities(
    make_images, make_run, tmp_path, read_page
):
    images = make_images(60)
    runs = [make_run(images, n, wrong=[7], margin=np.full(60, 0.9)) for n in ("svc", "rf")]
    text = read_page(write_report(runs, images, tmp_path)).text
    gap = "\N{NO-BREAK SPACE}"
    assert "gives 1 image another class" in text
    probabilities = f"probability: given 3.3{gap}%, predicted 93.3{gap}%"
    assert f"{probabilities}; other runs that agree: 1 of 1" in text
    assert not re.search(r"\b1 (images|comparisons|files|pairs|sets|groups|folds)\b", text)


def test_the_merge_command_says_that_its_path_is_to_be_given(
    make_images, make_run, tmp_path, read_page
):
    images = make_images(90, groups_of=1)
    wrong = np.flatnonzero(images.y == 0)[:10]
    run = make_run(images, wrong=wrong, margin=np.full(90, 0.9))
    text = read_page(write_report([run], images, tmp_path)).text
    assert "fishfeat extract --merge PATH" in text
    assert "--merge merges.csv" not in text


def test_the_list_of_near_duplicates_is_linked_where_it_exists(
    make_images, make_run, tmp_path, read_page
):
    images = make_images()
    keys = images.keys.tolist()
    pairs = [
        DuplicatePair(keys[a], keys[b], "pixels", 9, 7, 0.5, 0.99) for a, b in ((0, 1), (1, 2))
    ]
    run, folder = make_run(images), tmp_path / "report"
    content = ReportContent(near_duplicates=pairs)
    page = read_page(write_report([run], images, folder, content=content))
    assert "../near_duplicates.csv" not in page.attributes("href")
    assert "2 pairs of near-duplicates in 1 set." in page.text
    assert checks_of(folder)["near-duplicates-across-classes"].startswith("1 set")
    (tmp_path / "near_duplicates.csv").write_text("path\n")
    content = ReportContent(near_duplicates=pairs[:1])
    page = read_page(write_report([run], images, folder, content=content))
    assert "../near_duplicates.csv" in page.attributes("href")
    assert "1 pair of near-duplicates in 1 set." in page.text
    assert "near-duplicates-across-classes" not in checks_of(folder)


def test_a_matrix_of_many_classes_is_a_small_closed_table(make_images, make_run, tmp_path):
    names = [f"species {i:02}" for i in range(35)]
    images = make_images(70, class_names=names)
    path = write_report([make_run(images, wrong=[1, 2])], images, tmp_path)
    html = path.read_text()
    assert "<img" not in html
    matrix = html[html.index('<details class="more matrix">') :]
    matrix = matrix[matrix.index("<tbody>") : matrix.index("</tbody>")]
    assert matrix.count("data-column") == 37
    for row in matrix.split("</tr>")[:-1]:
        n_empty = sum(map(int, re.findall(r'colspan="(\d+)"', row)))
        assert n_empty + row.count("data-column") == 35


def test_charts_are_text_without_clipping_and_follow_the_page(written, page):
    html = written.read_text()
    charts = re.findall(r'<svg class="chart .*?</svg>', html, flags=re.S)
    assert len(charts) == 1 + 3  # the leaderboard, and the reliability of each run
    for chart in charts:
        assert "<text" in chart
        assert "var(--accent)" in chart
        assert not re.search(r"#[0-9a-f]{6}|clip-path|<style|<metadata", chart)
        assert len(chart) < 20_000
    assert "svc: 93.3 %" in html


def test_sparse_records_are_enough(make_images, make_run, tmp_path):
    images = make_images(6)
    bare = make_run(
        images, config=RunConfig("svc"), intervals={}, folds=(), seconds={}, versions={}
    )
    assert write_report([bare], images, tmp_path).is_file()


def test_unlabelled_images_are_counted(make_images, make_run, tmp_path, read_page):
    images = make_images()
    y = images.y.copy()
    y[-4:] = -1
    images = dataclasses.replace(images, y=y)
    page = read_page(write_report([make_run(images.select(y >= 0))], images, tmp_path))
    assert "4 of them without a label" in page.text


def test_runs_on_images_that_are_gone_are_refused(make_images, make_run, tmp_path):
    images = make_images()
    run = make_run(images)
    with pytest.raises(DataError, match=r"scored 2 images that are no longer in the data set"):
        write_report([run], images.select(np.arange(28)), tmp_path)


def test_images_of_a_class_that_no_run_has_are_refused(make_images, make_run, tmp_path):
    images = make_images()
    run = make_run(images)
    more = dataclasses.replace(images, class_names=np.append(images.class_names, "zander"))
    with pytest.raises(DataError, match=r"other classes than the images \('zander'\)"):
        write_report([run], more, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_page_of_somebody_else_is_not_replaced(make_images, make_run, tmp_path):
    images = make_images()
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(DataError, match=r"index\.html that is not of fishfeat"):
        write_report([make_run(images)], images, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_runs_whose_splits_differ_are_refused_and_nothing_is_written(
    make_images, make_run, tmp_path
):
    images = make_images()
    runs = [make_run(images, "svc"), make_run(images, "rf", n_folds=5)]
    with pytest.raises(SplitError, match=r"'svc'.*'rf'"):
        write_report(runs, images, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.plots
def test_files_of_an_earlier_report_are_removed_and_no_others(make_images, make_run, tmp_path):
    images = make_images(60)
    write_report([make_run(images, wrong=[7], margin=np.full(60, 0.9))], images, tmp_path)
    (tmp_path / "mine.csv").write_text("keep")
    assert (tmp_path / "label_issues.csv").is_file()
    write_report([make_run(images, "rf")], images, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "label_issues.csv" not in names
    assert "confusion-svc-grouped.png" not in names
    assert {"mine.csv", "confusion-rf-grouped.png"} <= names


def test_files_of_earlier_versions_are_removed(make_images, make_run, tmp_path):
    names = ["suspects.csv", "identical.csv", "folds.csv", ".."]
    for name in names[:3]:
        (tmp_path / name).write_text("old")
    (tmp_path / "report.json").write_text(json.dumps({"protocol": 1, "files": names}))
    images = make_images()
    write_report([make_run(images)], images, tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert not {"suspects.csv", "identical.csv"} & files
    assert (tmp_path / "folds.csv").read_text() != "old"


def test_runs_that_are_not_significantly_worse_are_marked(make_images, make_run, tmp_path):
    images = make_images(120)
    runs = [
        make_run(images, "best"),
        make_run(images, "near", wrong=[3]),
        make_run(images, "far", wrong=range(0, 90)),
    ]
    page = write_report(runs, images, tmp_path)
    found = read_json(tmp_path)
    behind = {standing["run"]: standing["behind"] for standing in found["leaderboard"]}
    assert behind["best"] is None
    assert (behind["near"]["significant"], behind["far"]["significant"]) == (False, True)
    assert page.read_text(encoding="utf-8").count("<small>≈ best</small>") == 1
    assert checks_of(tmp_path)["not-significant"] == (
        "near is not significantly different from best on these images."
    )


def test_the_page_says_what_the_score_estimates(written, make_images, make_run, tmp_path):
    assert "Report this figure." in read_json(written.parent)["meaning"]
    images = make_images(groups_of=None)
    write_report([make_run(images, split="random")], images, tmp_path)
    assert "Expect a lower accuracy on new animals." in read_json(tmp_path)["meaning"]


def test_many_folds_are_summarized_on_the_page(make_images, make_run, tmp_path, read_page):
    images = make_images(60)
    for n_folds, rows in ((20, "Each fold of each repeat"), (21, "the largest of 21 folds")):
        run = make_run(images, split="random", n_folds=n_folds)
        text = read_page(write_report([run], images, tmp_path / str(n_folds))).text
        assert rows in text
    found = json.loads((tmp_path / "21" / "report.json").read_text())
    assert len(found["runs"][0]["folds"]) == 21


@pytest.mark.parametrize(
    ("gain", "low", "high", "verdict"),
    [
        (0.03, 0.01, 0.05, "would probably help"),
        (0.001, -0.004, 0.006, "would hardly help"),
        (0.02, -0.02, 0.06, "do not show"),
    ],
)
def test_a_learning_curve_says_whether_more_images_would_help(gain, low, high, verdict):
    points = tuple(CurvePoint(s, 60 * s, 20 * s, 0.7, 0.6, 0.8, 0.7) for s in (0.5, 1.0))
    curve = Curve("lda", False, 0, "grouped", "d", "nano", points, gain, low, high, 1.0)
    text = describe_curve(curve)
    assert verdict in text
    assert text.startswith("From 10 to 20 images per class (mean), the accuracy of lda changes by")


def make_novelty(*auroc):
    rows = (LeftOutClass(f"fish {i}", 9, value, "cod") for i, value in enumerate(auroc))
    measured = [value for value in auroc if value is not None]
    mean = np.mean(measured) if measured else None
    return Novelty("lda", False, 0, "grouped", "d", "nano", tuple(rows), mean, 1.0)


@pytest.mark.parametrize(
    ("auroc", "facts"),
    [
        ((0.95, 0.99, 0.9), ("mostly detects", "95 of 100", "mean over 3", "90 for fish 2")),
        ((0.95, 0.5, 0.8), ("does not reliably detect",)),
        ((0.5, 0.5, 0.6), ("rarely detects",)),
        ((0.9, None, 0.9), ("mean over 2 species",)),
        ((None, None, None), ("do not show",)),
    ],
)
def test_novelty_detection_is_described(auroc, facts):
    text = describe_novelty(make_novelty(*auroc))
    assert all(fact in text for fact in facts)


def test_species_left_out_have_a_table(make_images, make_run, tmp_path, read_page):
    images = make_images()
    novelty = make_novelty(0.9, None, 0.875)
    content = ReportContent(novelty=[novelty])
    text = read_page(write_report([make_run(images)], images, tmp_path, content=content)).text
    section = text[text.index("Would it detect an unknown species?") :].replace("\n", "")
    assert describe_novelty(novelty) in section
    assert "fish 2987.5" in section
    assert "fish 19–cod" in section


# --- repeats ------------------------------------------------------------------------------------


def test_every_figure_of_repeats_is_their_mean(make_images, make_run, tmp_path):
    """The matrix, the counts, the class scores and the merges agree with the accuracy."""
    images = make_images(60)
    repeats = [make_run(images, wrong=wrong) for wrong in (range(9), range(3, 14), range(30, 34))]
    scores = np.concatenate([run.scores for run in repeats])
    names = repeats[0].metrics
    metrics = {name: float(np.mean([run.metrics[name] for run in repeats])) for name in names}
    fold = np.concatenate([run.fold for run in repeats])
    run = make_run(images, scores=scores, fold=fold, metrics=metrics)
    page = write_report([run], images, tmp_path)
    report = json.loads((page.parent / "report.json").read_text())
    (shown,) = report["runs"]
    matrix = np.array(shown["confusion"])
    assert matrix.sum() == pytest.approx(len(images))
    assert np.trace(matrix) / matrix.sum() == pytest.approx(metrics["accuracy"])
    assert report["merges"]["accuracy_before"] == pytest.approx(metrics["accuracy"])
    recalls = [row["recall"] for row in shown["per_class"]]
    assert np.mean(recalls) == pytest.approx(metrics["macro_recall"])
    assert np.mean([row["f1"] for row in shown["per_class"]]) == pytest.approx(metrics["macro_f1"])
    assert shown["reliability"]["expected_error"] == pytest.approx(metrics["ece"])
    assert "8.0 of 60 incorrect" in text_of(page) or "8 of 60 incorrect" in text_of(page)


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text()))
