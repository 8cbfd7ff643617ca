"""report.json is what its schema says, whatever the report holds."""

import copy
import json

import jsonschema
import msgspec
import numpy as np
import pytest

from fishfeat.records import Rejected, RunConfig
from fishfeat.records.results import Curve, CurvePoint, FeatureMap, LeftOutClass, Novelty
from fishfeat.report.content.contents import ReportContent
from fishfeat.report.output.comparison_records import ComparisonRecord
from fishfeat.report.output.page import write_report
from fishfeat.report.output.report_records import PROTOCOL, ReportRecord
from fishfeat.report.output.schema import COMPARISON_SCHEMA, SCHEMA, format_schema


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def full(make_images, make_run, hold_out, tmp_path_factory):
    """A report that has something of everything."""
    everything = make_images(66, rejected=(Rejected("a.png", "broken", "cod"),))
    digest = everything.digest.copy()
    digest[4] = digest[9]
    images = make_images(66, digest=digest, rejected=everything.rejected)
    rest = images.select(np.arange(60))
    sure = np.full(60, 0.9)
    held = hold_out(images, range(60, 66))
    runs = [
        make_run(rest, "svc", wrong=range(0, 40, 3), margin=sure, holdout=held, holdout_folds=held),
        make_run(rest, "rf", wrong=range(0, 50, 2), margin=sure),
        make_run(rest, "knn", wrong=range(0, 50, 4)),
        make_run(rest, "svc", wrong=[3], split="random"),
    ]
    points = tuple(CurvePoint(s, 30 * s, 10 * s, 0.7, 0.6, 0.8, 0.7) for s in (0.5, 1.0))
    curve = Curve("svc", False, 0, "grouped", "d", "nano", points, 0.0, -0.1, 0.1, 1.5)
    classes = tuple(LeftOutClass(n, 20, a, "cod") for n, a in (("bream", 0.9), ("dab", None)))
    novelty = Novelty("svc", False, 0, "grouped", "d", "nano", (*classes, *classes), 0.9, 2.5)
    xy = np.random.default_rng(0).normal(size=(66, 2))
    laid_out = FeatureMap(images.keys, xy, "pca", 0.4, "nano")
    folder = tmp_path_factory.mktemp("full")
    write_report(
        runs,
        images,
        folder,
        content=ReportContent(feature_map=laid_out, curves=[curve], novelty=[novelty]),
        group_matrix=True,
    )
    return folder


def test_a_full_report_follows_the_schema(validator, full):
    found = json.loads((full / "report.json").read_text())
    validator.validate(found)
    for name in (
        "label_issues",
        "exact_duplicates",
        "learning_curves",
        "novelty",
        "map",
        "rejected",
    ):
        assert found[name], name
    assert found["merges"]["steps"]
    assert found["comparisons"]
    (run,) = (run for run in found["runs"] if run["holdout_folds"])
    assert run["holdout"] == run["holdout_folds"]
    assert found["leaderboard"][1]["behind"]["p_holm"] <= 1
    assert {path.name for path in full.iterdir()} == {"index.html", "report.json", *found["files"]}


def test_a_bare_report_follows_the_schema(validator, make_images, make_run, tmp_path):
    images = make_images(6, groups_of=None)
    bare = make_run(
        images, config=RunConfig("svc"), intervals={}, folds=(), seconds={}, versions={}
    )
    write_report([bare], images, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    validator.validate(found)
    assert found["map"] is None
    assert found["learning_curves"] == found["novelty"] == []


def test_the_schema_refuses_what_is_missing_mistyped_or_unknown(validator, full):
    found = json.loads((full / "report.json").read_text())
    for spoil in (
        lambda d: d.pop("headline"),
        lambda d: d.update(extra=1),
        lambda d: d["leaderboard"][0].update(accuracy="93"),
        lambda d: d["runs"][0]["confusion"][0].append(-0.5),
        lambda d: d["runs"][0]["per_class"][0].pop("recall"),
        lambda d: d["label_issues"]["issues"][0].update(p_given=1.5),
    ):
        spoilt = copy.deepcopy(found)
        spoil(spoilt)
        assert not validator.is_valid(spoilt)


def test_the_schema_in_the_package_is_the_one_of_the_records():
    assert SCHEMA.read_text() == format_schema(), "python -m fishfeat.report.output.schema"
    compared = format_schema(ComparisonRecord, file="comparison")
    assert COMPARISON_SCHEMA.read_text() == compared


def test_the_records_read_what_was_written(full):
    record = msgspec.json.decode((full / "report.json").read_bytes(), type=ReportRecord)
    assert record.protocol == PROTOCOL == 2
    assert record.how_scored.startswith("Each of 60 images is scored only by classifiers trained")
    assert record.files
