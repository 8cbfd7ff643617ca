"""A comparison of backbones: labels, what is refused, and which one to use."""

import dataclasses

import numpy as np
import pytest

from fishfeat.classify.statistics.significance import compare_pairs
from fishfeat.errors import DataError, SplitError
from fishfeat.records import BackboneSpec
from fishfeat.report.content.backbone_sentences import describe_choice, list_findings
from fishfeat.report.content.backbones import compare, label_backbones
from fishfeat.report.output.comparison_page import format_backbones, write_comparison


@pytest.fixture(scope="module")
def images(make_images):
    return make_images(120)


@pytest.fixture(scope="module")
def make_backbone_run(make_run):
    """A run of logreg on the features of a network that takes `ms` for each image."""

    def make(images, network, *, ms=10.0, device="cpu", source="timm", **fields):
        run = make_run(images, "logreg", **fields)
        provenance = dataclasses.replace(
            run.config.features.provenance,
            embed_seconds=ms * len(images) / 1000,
            n_embedded=len(images),
            device=device,
        )
        features = dataclasses.replace(
            run.config.features, backbone=BackboneSpec(source, network), provenance=provenance
        )
        return dataclasses.replace(run, config=dataclasses.replace(run.config, features=features))

    return make


@pytest.fixture(scope="module")
def runs(images, make_backbone_run):
    """`large` and `small` are nearly equal, `poor` is far behind."""
    return [
        make_backbone_run(images, "poor", ms=1.0, wrong=range(0, 70)),
        make_backbone_run(images, "large", ms=40.0, wrong=[0, 1, 2]),
        make_backbone_run(images, "small", ms=4.0, wrong=[1, 2, 80, 81]),
    ]


def test_a_label_is_as_long_as_is_needed():
    nano, timm = BackboneSpec("bundled", "nano"), BackboneSpec("timm", "resnet18")
    assert label_backbones([nano, timm]) == ["nano", "resnet18"]
    sizes = [dataclasses.replace(timm, img_size=size) for size in (None, 128)]
    assert label_backbones([nano, *sizes]) == [
        "nano",
        "resnet18, its own input size",
        "resnet18, 128 px",
    ]
    layers = [dataclasses.replace(timm, layer=layer) for layer in ("3", "last")]
    assert label_backbones(layers) == ["resnet18, layer 3", "resnet18, layer last"]


def test_random_weights_are_never_labelled_as_trained_ones():
    specs = [BackboneSpec("random", "resnet18"), BackboneSpec("timm", "resnet18")]
    assert label_backbones(specs) == ["random:resnet18", "resnet18"]


def test_networks_of_one_name_in_several_folders_are_distinguished():
    specs = [BackboneSpec("local-dir", "/a/net"), BackboneSpec("local-dir", "/b/net")]
    assert len(set(label_backbones(specs))) == 2


def test_the_evidence_is_that_of_the_leaderboard(images, runs):
    comparison = compare(runs, images)
    ranked = [backbone.run for backbone in comparison.backbones]
    assert [backbone.label for backbone in comparison.backbones] == ["large", "small", "poor"]
    expected = compare_pairs(
        [(ranked[0], ranked[1]), (ranked[0], ranked[2]), (ranked[1], ranked[2])],
        groups=images.groups,
    )
    assert list(comparison.pairs.values()) == expected


def test_images_that_one_backbone_alone_classifies_are_counted(images, runs):
    counts = {}
    for backbone in compare(runs, images).backbones:
        counts[backbone.label] = (backbone.only_correct.n_images, backbone.only_incorrect.n_images)
    # Wrong: large 0, 1, 2; small 1, 2, 80, 81; poor 0 to 69.
    assert counts == {"large": (0, 0), "small": (1, 2), "poor": (0, 67)}


def test_a_rival_that_is_faster_is_named_and_one_that_is_worse_is_not(images, runs):
    comparison = compare(runs, images)
    assert [rival.label for rival in comparison.rivals] == ["small"]
    assert comparison.faster_rival.label == "small"
    assert "10.0 times as fast" in describe_choice(comparison)


def test_times_of_two_devices_are_not_compared(images, runs, make_backbone_run):
    other = make_backbone_run(images, "small", ms=4.0, device="cuda:0", wrong=[1, 2, 80, 81])
    assert compare([*runs[:2], other], images).faster_rival is None


def test_a_backbone_that_failed_is_in_the_findings_and_in_the_table(images, runs):
    lost = BackboneSpec("timm", "gone")
    comparison = compare(runs, images, failed={lost: "no weights"})
    checks = [finding.check for finding in list_findings(comparison)]
    assert {"failed-backbone", "best-of-many"} <= set(checks)
    last = format_backbones(comparison).splitlines()[-1]
    assert last.startswith("gone,")
    assert last.endswith(",no weights")


def test_a_held_out_set_replaces_the_finding_of_the_choice(images, make_backbone_run, hold_out):
    held = hold_out(images, range(110, 120))
    held = dataclasses.replace(held, intervals={"accuracy": (0.8, 1.0)})
    rest = images.select(np.arange(110))
    pair = [make_backbone_run(rest, name, wrong=[3], holdout=held) for name in ("a", "b")]
    checks = {finding.check for finding in list_findings(compare(pair, images))}
    assert "best-of-many" not in checks


def test_a_single_backbone_is_compared_with_nothing(images, runs, tmp_path):
    comparison = compare(runs[:1], images)
    assert comparison.pairs == {}
    assert comparison.best.only_correct is None
    assert describe_choice(comparison) == ""
    assert write_comparison(comparison, tmp_path).is_file()


def test_runs_that_cannot_be_compared_are_refused(images, runs, make_backbone_run):
    with pytest.raises(SplitError, match="folds"):
        compare([*runs, make_backbone_run(images, "other", n_folds=4)], images)
    with pytest.raises(DataError, match="different features"):
        compare([*runs, runs[0]], images)
    svc = dataclasses.replace(runs[0], name="svc")
    with pytest.raises(DataError, match="one classifier"):
        compare([*runs, svc], images)
    with pytest.raises(DataError, match="one split"):
        compare([*runs, make_backbone_run(images, "random", split="random")], images)
    with pytest.raises(DataError):
        compare([], images)
