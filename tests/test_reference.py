"""Scores and features of real images with a pretrained backbone."""

import functools
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest

from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import make_splits
from fishfeat.features.backbones import load_backbone
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions, ScanOptions

ENGINE = EngineOptions(runtime="openvino" if find_spec("openvino") else "eager")


@pytest.fixture(scope="module")
def network(shared):
    return f"local-dir:{shared / 'backbones' / 'mobilenetv2_100.tf2_in1k'}"


@pytest.fixture(scope="module")
def images(shared):
    """All 1,002 images of fish4knowledge-mini."""
    rule = r"pattern:fish_(\d+)_"
    return scan(shared / "data" / "fish4knowledge-mini", ScanOptions(group_by=(rule,)))


@pytest.fixture(scope="module")
def fish(images, network, tmp_path_factory):
    """Every third image of them and their features."""
    third = images.select(np.arange(0, len(images), 3))
    cache = tmp_path_factory.mktemp("cache")
    return third, extract(third, load_backbone(network), cache=cache, engine=ENGINE)


@pytest.fixture(scope="module")
def score(fish) -> Callable[[str, str], float]:
    """Accuracy of a classifier on folds of a strategy, computed once."""
    _, features = fish

    @functools.cache
    def compute(clf, strategy):
        splits = make_splits(features, strategy=strategy)
        return cross_validate(features, clf, splits).metrics["accuracy"]

    return compute


def embed_with_timm(images, network) -> np.ndarray:
    """Embed in a plain loop over timm: squash, fp32, its own normalisation and pooling."""
    import timm
    import torch
    from PIL import Image
    from torchvision import transforms

    model = timm.create_model(network, pretrained=True, num_classes=0).eval()
    transform = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BILINEAR),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(images), 32):
            rows = range(start, min(start + 32, len(images)))
            batch = [transform(Image.open(images.path(i)).convert("RGB")) for i in rows]
            vectors.append(model(torch.stack(batch)).numpy())
    return np.concatenate(vectors)


def test_no_trajectory_crosses_species(images):
    assert len(images) == 1002
    assert len(np.unique(images.groups)) == 237
    species = images.labels
    assert len({*zip(images.groups.tolist(), species.tolist(), strict=True)}) == 237


def test_every_image_is_embedded(fish):
    images, features = fish
    assert len(images) == len(features) == 334


def test_vectors_agree_with_a_plain_loop(fish, network):
    images, features = fish
    assert np.array_equal(images.keys, features.keys)
    rows = np.arange(0, len(images), 16)
    ours, theirs = features.X[rows], embed_with_timm(images.select(rows), network)
    cosine = (ours * theirs).sum(axis=1)
    cosine /= np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert cosine.min() >= 0.9999


@pytest.mark.parametrize(("clf", "expected"), [("svc", 0.901), ("logreg", 0.937)])
def test_the_defaults_reach_the_accuracy_of_a_plain_loop(score, clf, expected):
    assert score(clf, "grouped") >= expected - 0.01


@pytest.mark.parametrize("clf", ["svc", "logreg"])
def test_random_splits_score_higher(score, clf):
    assert score(clf, "random") >= score(clf, "grouped") + 0.02


def test_the_layer_head_classifies_imagenet(shared, network, tmp_path):
    images = scan(shared / "data" / "imagenet-samples")
    images = images.select(np.arange(0, len(images), 2))
    backbone = load_backbone(make_spec(network, layer="head", resize="crop"))
    logits = extract(images, backbone, cache=tmp_path, engine=ENGINE)
    truth = logits.class_names[logits.y].astype(int)
    assert len(truth) == 50
    assert (logits.X.argmax(axis=1) == truth).sum() >= 40


def score_grouped(images, backbone, cache):
    """Accuracy of logistic regression on 5 grouped folds."""
    features = extract(images, backbone, cache=cache, engine=ENGINE)
    return cross_validate(features, "logreg", make_splits(features)).metrics["accuracy"]


def test_nano_beats_random_weights_on_fish_and_flowers(shared, images, tmp_path):
    flowers = scan(
        shared / "data" / "flowers-augmented", ScanOptions(group_by=(r"pattern:image_(\d+)-",))
    )
    fish, flowers = (each.select(np.arange(0, len(each), 5)) for each in (images, flowers))
    nano = load_backbone("nano")
    random = load_backbone(make_spec("random:resnet18", img_size=96))
    assert score_grouped(fish, nano, tmp_path) >= 0.90
    nano_error = 1 - score_grouped(flowers, nano, tmp_path)
    random_error = 1 - score_grouped(flowers, random, tmp_path)
    assert nano_error <= random_error / 2
