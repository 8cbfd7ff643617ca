import dataclasses
import json
import os
import re

import numpy as np
import pytest

from fishfeat.classify.validation.learning_curve import Curve, CurvePoint
from fishfeat.classify.validation.novelty import LeftOutClass, Novelty
from fishfeat.errors import DataError, SplitError
from fishfeat.records import Rejected
from fishfeat.records.near_duplicates import DuplicatePair
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.sentences import noticed, split_notes, worth_more
from fishfeat.report.output.page import write_report

HOSTILE = [
    "<script>alert(1)<.png",
    '"onload="x.png',
    "a'b&amp;{{ 7*7 }}.png",
    "line\nbreak.png",
    "turned\u202eround.png",
    "bytes\udcff\udc80.png",
]


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


def test_the_page_says_the_score_the_protocol_and_what_the_leak_is_worth(page):
    assert "svc, the best of 2 runs, names 93.3\N{NO-BREAK SPACE}%" in page.text
    assert "30 images of 3 classes in 15 groups" in page.text
    assert "Each of 30 images was scored only by classifiers trained without its own" in page.text
    assert "all images of one group kept in the same fold (15 groups)" in page.text
    assert "the difference of +3.3 points (+0.0 to +10.0) may be chance" in page.text
    assert "No groups are known" not in page.text


def test_png_files_and_the_page_lie_side_by_side(written):
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
    unsure = found["runs"][0]["images"]["unsure"]["shown"]
    assert {shot["path"] for shot in unsure} <= set(images.keys.tolist())


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


def test_near_copies_stand_on_the_page_with_the_evidence_weakest_first(
    make_images, make_run, tmp_path
):
    images = make_images()
    keys = images.keys.tolist()
    sure = DuplicatePair(keys[0], keys[1], "pixels", 50, 40, 0.9, 0.999)
    mirrored = DuplicatePair(
        keys[2], keys[3], "pixels", 9, 7, 0.5, 0.987, transform=(-1, 0, 9, 0, 1, 0)
    )
    gone = DuplicatePair(keys[0], "gone.png", "pixels")
    duplicates = (sure, mirrored, gone, DuplicatePair(keys[4], keys[5], "bytes"))
    page = write_report([make_run(images)], images, tmp_path, duplicates=duplicates).read_text()
    section = page[page.index('id="near-duplicates"') :]
    assert section.index("0.987") < section.index("0.999")
    assert "mirrored, turned by 0°" in section
    assert "2 pairs of images" in section
    assert "gone.png" not in page


def test_each_image_is_held_once(pond, page):
    stored = [attrs["id"] for tag, attrs in page.tags if tag == "image"]
    used = {attrs["href"][1:] for tag, attrs in page.tags if tag == "use"}
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
    assert "#lost" in page.attributes("href")
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


def test_unknown_groups_are_said(make_images, make_run, tmp_path, read_page):
    images = make_images(groups_of=None)
    page = read_page(write_report([make_run(images, split="random")], images, tmp_path))
    assert "No groups are known for these images" in page.text
    assert "single images dealt to the folds at random" in page.text
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["cautions"][0].startswith("No groups are known")
    assert found["n_groups"] is None


def test_known_groups_that_the_runs_ignored_are_said(make_images, make_run, tmp_path, read_page):
    images = make_images()
    page = read_page(write_report([make_run(images, split="random")], images, tmp_path))
    assert "Groups are known (15), yet these runs were split at random" in page.text


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
        assert plain["folds"] == [dict(fold) for fold in run.folds]
        assert np.trace(plain["confusion"]) / 30 == pytest.approx(run.metrics["accuracy"])
        recall = [row["recall"] for row in plain["per_class"]]
        assert np.mean(recall) == pytest.approx(run.metrics["balanced_accuracy"])
    assert found["leaderboard"][0]["leak"]["value"] == pytest.approx(1 / 30)
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
    assert (
        "6 further images, set apart as the test part of the data set, were scored once"
        in page.text
    )
    assert (
        "On 6 held-out images (3 groups), which had no part in choosing, svc names "
        "100.0\N{NO-BREAK SPACE}% rightly."
    ) in page.text
    tiles = page.text[: page.text.index("Protocol.")].split()
    assert tiles[-1] == "run1"
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["runs"][0]["holdout"]["n_groups"] == 3


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


def test_the_tile_counts_the_runs_that_the_headline_counts(page):
    assert "the best of 2 runs" in page.text
    assert page.text[: page.text.index("Protocol.")].split()[-1] == "runs2"


def test_what_the_search_chose_stands_with_the_run(make_images, make_run, tmp_path, read_page):
    images = make_images()
    plain = make_run(images)
    chosen = ({"estimator__C": 0.3, "prepare": "PCA 128"}, {}, {"prepare": "PCA 128"})
    other = ({"prepare": "PCA 128"}, {}, {"prepare": "PCA 128"})
    for n, params in enumerate((chosen, other)):
        folds = tuple(dict(f) | {"params": p} for f, p in zip(plain.folds, params, strict=True))
        run = dataclasses.replace(plain, folds=folds)
        text = read_page(write_report([run], images, tmp_path / str(n))).text
        assert "Settings that the search chose" in text
        assert "its usual settings in 1 of 3 folds" in text
        said = "C = 0.3, prepare = PCA 128 in 1 of 3 folds"
        assert (said in text) == (params is chosen)
        assert ("prepare = PCA 128 in 2 of 3 folds" in text) == (params is other)
    bare = read_page(write_report([plain], images, tmp_path / "bare")).text
    assert "search chose" not in bare


@pytest.mark.parametrize(("low", "leaks"), [(0.3, False), (0.4, True)])
def test_the_score_on_shuffled_labels_stands_with_the_run(
    low, leaks, make_images, make_run, tmp_path, read_page
):
    images = make_images()
    run = make_run(images)
    chance = {"chance": 1 / 3, "shuffled": [0.31, 0.45], "low": low}
    run = dataclasses.replace(run, config={**run.config, "chance": chance})
    text = read_page(write_report([run], images, tmp_path)).text
    assert "svc on shuffled labels: balanced accuracy 0.310 to 0.450, guessing 0.333: " in text
    assert ("ABOVE CHANCE: answers have leaked into training." in text) == leaks
    assert ("this does not tell whether siblings stand on both sides" in text) != leaks
    assert "no leak" not in text


def test_commands_in_sentences_are_code_and_nothing_else_is_markup(
    make_images, make_run, tmp_path, read_page
):
    images = make_images(notes=("`fishfeat extract --drop <b>NAME</b>` and <u>one</u> ` alone",))
    path = write_report([make_run(images)], images, tmp_path)
    assert "<code>fishfeat extract --drop &lt;b&gt;NAME&lt;/b&gt;</code> and" in path.read_text()
    page = read_page(path)
    assert not {"b", "u"} & {tag for tag, attrs in page.tags if not attrs}
    assert "` alone" in page.text


def test_how_groups_were_found_stands_among_the_notes(make_images, make_run, tmp_path, read_page):
    grouping = r"Images in whose paths `fish_(\d+)_` finds the same belong together."
    images = make_images(6, grouping=grouping)
    run = make_run(images, config={}, n_folds=2)
    assert split_notes([Standing("svc", run, None)], images) == [grouping]
    page = read_page(write_report([run], images, tmp_path))
    assert r"Images in whose paths fish_(\d+)_ finds the same" in page.text


def test_a_classifier_that_knows_nothing_is_said_to(make_images, make_run, tmp_path, read_page):
    images = make_images()

    def said(name, n_right):
        run = make_run(images, wrong=range(n_right, 30))
        return read_page(write_report([run], images, tmp_path / name)).text

    naming = "Always naming the largest class, bream, would name 33.3\N{NO-BREAK SPACE}% rightly"
    assert f"{naming}: svc is no better than that." in said("poor", 10)
    assert "Always naming" not in said("good", 28)


def test_the_unsure_are_for_a_person_only_where_they_are_worse(
    make_images, make_run, tmp_path, read_page
):
    images = make_images(80)
    first, last = range(0, 12), range(68, 80)  # margins rise from the first to the last

    def said(wrong, name):
        run = make_run(images, wrong=wrong)
        return read_page(write_report([run], images, tmp_path / name)).text

    assert "worth the eyes of a person" in said(first, "unsure")
    assert "worth the eyes of a person" not in said(last, "sure")
    assert "worth the eyes of a person" not in said([2, 40], "chance")


def test_one_suspect_is_one_and_its_two_numbers_are_named(
    make_images, make_run, tmp_path, read_page
):
    images = make_images(60)
    runs = [make_run(images, n, wrong=[7], margin=np.full(60, 0.9)) for n in ("svc", "rf")]
    text = read_page(write_report(runs, images, tmp_path)).text
    gap = "\N{NO-BREAK SPACE}"
    assert "gives 1 image another class than the given one" in text
    assert f"probability: given 3.3{gap}%, seems 93.3{gap}%; other runs that agree: 1 of 1" in text
    assert "for the 1 comparison made" in text
    assert not re.search(r"\b1 (images|comparisons|files|pairs|sets|groups|folds)\b", text)


def test_the_merge_file_is_said_to_lie_beside_the_page(make_images, make_run, tmp_path, read_page):
    images = make_images(90, groups_of=1)
    wrong = np.flatnonzero(images.y == 0)[:10]
    run = make_run(images, wrong=wrong, margin=np.full(90, 0.9))
    text = read_page(write_report([run], images, tmp_path)).text
    assert "--merge PATH, with the path of merges.csv, which lies beside this page" in text
    assert "--merge merges.csv" not in text


def test_the_list_of_near_copies_is_linked_where_it_lies(
    make_images, make_run, tmp_path, read_page
):
    images = make_images()
    keys = images.keys.tolist()
    pairs = [
        DuplicatePair(keys[a], keys[b], "pixels", 9, 7, 0.5, 0.99) for a, b in ((0, 1), (1, 2))
    ]
    run, folder = make_run(images), tmp_path / "report"
    page = read_page(write_report([run], images, folder, duplicates=pairs))
    assert "../near_duplicates.csv" not in page.attributes("href")
    assert "2 pairs of images, in 1 set:" in page.text
    assert "1 set joins images of several classes" in page.text
    (tmp_path / "near_duplicates.csv").write_text("path\n")
    page = read_page(write_report([run], images, folder, duplicates=pairs[:1]))
    assert "../near_duplicates.csv" in page.attributes("href")
    assert "1 pair of images, in 1 set:" in page.text
    assert "No set joins images of several classes" in page.text


def test_many_classes_show_the_matrix_as_a_image(make_images, make_run, tmp_path, read_page):
    images = make_images(70, class_names=[f"species {i:02}" for i in range(35)])
    page = read_page(write_report([make_run(images, wrong=[1, 2])], images, tmp_path))
    matrix = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [attrs["src"][:22] for attrs in matrix] == ["data:image/png;base64,"]
    assert "35 classes" in matrix[0]["alt"]


def test_sparse_records_are_enough(make_images, make_run, tmp_path):
    images = make_images(6)
    bare = make_run(images, config={}, intervals={}, folds=(), seconds={}, versions={})
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


def test_runs_whose_splits_differ_are_refused_and_nothing_is_written(
    make_images, make_run, tmp_path
):
    images = make_images()
    runs = [make_run(images, "svc"), make_run(images, "rf", n_folds=5)]
    with pytest.raises(SplitError, match=r"'svc'.*'rf'"):
        write_report(runs, images, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_what_an_earlier_report_left_is_taken_away_and_nothing_else(
    make_images, make_run, tmp_path
):
    images = make_images(60)
    write_report([make_run(images, wrong=[7], margin=np.full(60, 0.9))], images, tmp_path)
    (tmp_path / "mine.csv").write_text("keep")
    assert (tmp_path / "label_issues.csv").is_file()
    write_report([make_run(images, "rf")], images, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "label_issues.csv" not in names
    assert "confusion-svc-grouped.png" not in names
    assert {"mine.csv", "confusion-rf-grouped.png"} <= names


def test_who_is_behind_is_marked_once_and_the_tests_stand_beside(make_images, make_run, tmp_path):
    images = make_images(120)
    runs = [
        make_run(images, "best"),
        make_run(images, "near", wrong=[3]),
        make_run(images, "far", wrong=range(0, 90)),
    ]
    page = write_report(runs, images, tmp_path)
    found = {
        s["run"]: s["behind"]
        for s in json.loads((tmp_path / "report.json").read_text())["leaderboard"]
    }
    assert found["best"] is None
    assert (found["near"]["may_be_chance"], found["far"]["may_be_chance"]) == (True, False)
    html = page.read_text(encoding="utf-8")
    assert html.count("<small>≈ best</small>") == 1
    assert "near cannot be told apart from best" in html


def test_the_page_says_what_the_score_means(pond, page, make_images, make_run, tmp_path, read_page):
    assert "what to expect of images of new groups, such as a fish never seen before" in page.text
    images = make_images(groups_of=None)
    other = read_page(write_report([make_run(images, split="random")], images, tmp_path))
    assert "of animals never seen before expect less" in other.text


def test_many_folds_are_summed_up_on_the_page(make_images, make_run, tmp_path, read_page):
    images = make_images(60)
    for n_folds, rows in ((20, "Each fold of each repeat"), (21, "the largest of 21 folds")):
        run = make_run(images, split="random", n_folds=n_folds)
        text = read_page(write_report([run], images, tmp_path / str(n_folds))).text
        assert rows in text
    found = json.loads((tmp_path / "21" / "report.json").read_text())
    assert len(found["runs"][0]["folds"]) == 21


def test_a_learning_curve_says_whether_more_images_would_help():
    def verdict(gain, low, high):
        points = tuple(CurvePoint(s, 60 * s, 20 * s, 0.7, 0.6, 0.8, 0.7) for s in (0.5, 1.0))
        return worth_more(
            Curve("lda", False, 0, "grouped", "d", "nano", points, gain, low, high, 1.0)
        )

    assert "would probably help" in verdict(0.03, 0.01, 0.05)
    assert "would hardly help" in verdict(0.001, -0.004, 0.006)
    assert "cannot be told" in verdict(0.02, -0.02, 0.06)
    assert verdict(0.03, 0.01, 0.05).startswith(
        "From 10 to 20 images a class, on average, lda gained"
    )


def strangers(*auroc):
    rows = (LeftOutClass(f"fish {i}", 9, one, "cod") for i, one in enumerate(auroc))
    known = [one for one in auroc if one is not None]
    mean = np.mean(known) if known else None
    return Novelty("lda", False, 0, "grouped", "d", "nano", tuple(rows), mean, 1.0)


def test_it_is_said_whether_a_species_never_seen_would_be_noticed():
    said = noticed(strangers(0.95, 0.99, 0.9))
    assert said.startswith("A species that it never saw is mostly noticed by lda: ")
    assert "in 95 of 100 pairs (chance: 50; mean over 3 species), least for fish 2 (90)" in said
    assert " is not reliably noticed " in noticed(strangers(0.95, 0.5, 0.8))
    assert " is hardly noticed " in noticed(strangers(0.5, 0.5, 0.6))
    assert "mean over 2 species" in noticed(strangers(0.9, None, 0.9))
    assert "cannot be told" in noticed(strangers(None, None, None))


def test_species_left_out_stand_in_a_table_of_their_own(make_images, make_run, tmp_path, read_page):
    images = make_images()
    found = strangers(0.9, None, 0.875)
    text = read_page(write_report([make_run(images)], images, tmp_path, novelty=[found])).text
    section = text[text.index("Would it notice a species that it never saw?") :]
    assert noticed(found) in section
    assert "fish 2987.5" in section.replace("\n", "")
    assert "fish 19–cod" in section.replace("\n", "")
