"""An exported model gives fishfeat's answers, without fishfeat and torch."""

from __future__ import annotations

import ast
import csv
import dataclasses
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.pipeline import make_pipeline

from fishfeat.classify.convert import convert_estimator
from fishfeat.classify.estimators.dense_head import DenseHead
from fishfeat.classify.estimators.early_exit import EarlyExitClassifier
from fishfeat.classify.estimators.ensemble import SoftVotingEnsemble
from fishfeat.classify.estimators.nystroem_rbf_svc import NystroemRBFSVC
from fishfeat.classify.estimators.registry import CLASSIFIERS, fit_pipeline, make_classifier
from fishfeat.classify.predictors.base import Predictor
from fishfeat.classify.predictors.probabilities import class_scores
from fishfeat.classify.predictors.trees import Forest, Trees
from fishfeat.classify.validation.search import PREPARATIONS, build_candidate
from fishfeat.errors import ModelError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.preprocess import Preprocess
from fishfeat.features.specs import make_spec
from fishfeat.features.tta import make_transforms
from fishfeat.finetuning.tuned_networks import save_network
from fishfeat.models.model import Model
from fishfeat.models.onnx_files import export as onnx_export
from fishfeat.models.onnx_files.export import check_onnx, make_onnx
from fishfeat.models.onnx_files.graph import IR_VERSION, OPSET, TREE_DOMAIN, TREE_OPSET, Graph
from fishfeat.models.onnx_files.heads import add_scores
from fishfeat.models.onnx_files.network import _convert, _WithTransforms
from fishfeat.models.onnx_files.resize import add_preprocess
from fishfeat.models.saved import ModelConfig
from fishfeat.options import ClassifierOptions
from fishfeat.records import FeaturesInfo

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
DOCS = Path(__file__).parents[2] / "docs" / "export.md"


def start(graph: Graph, given: tuple[str, int, list], output: str) -> Any:
    """A session of a graph with one input (name, type, shape) and one output."""
    helper = onnx.helper
    made = helper.make_graph(
        graph.nodes,
        "graph",
        [helper.make_tensor_value_info(*given)],
        [onnx.ValueInfoProto(name=output)],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(TREE_DOMAIN, TREE_OPSET)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


# --- resizing -----------------------------------------------------------------------------------


def draw_image(height: int, width: int) -> np.ndarray:
    """Blocks of colours with noise."""
    rng = np.random.default_rng(height * width)
    blocks = rng.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8)
    image = np.kron(blocks, np.ones((5, 5, 1), np.uint8))[:height, :width].astype(int)
    return np.clip(image + rng.integers(-40, 40, image.shape), 0, 255).astype(np.uint8)


KINDS = [(r, i) for r in ("squash", "pad", "crop") for i in ("bilinear", "bicubic")]


@pytest.mark.parametrize(
    ("resize", "interpolation"), [*KINDS, ("pad", "lanczos"), ("squash", "nearest")]
)
def test_resizing_has_the_same_bits(resize: str, interpolation: str) -> None:
    preprocess = Preprocess(
        (32, 24), resize, interpolation, 0.875, (0.485, 0.456, 0.406), (0.2,) * 3
    )
    graph = Graph()
    output = add_preprocess(graph, "images", preprocess)
    session = start(graph, ("images", onnx.TensorProto.UINT8, ["n", "h", "w", 3]), output)
    # Smaller, larger, both, the same size, very long, and a single pixel.
    sizes = [(20, 13), (75, 64), (60, 20), (20, 60), (33, 25), (32, 24), (1, 300), (300, 2), (1, 1)]
    for height, width in sizes:
        image = draw_image(height, width)
        (resized,) = session.run(None, {"images": image[None]})
        expected = preprocess(image)
        np.testing.assert_array_equal(resized[0].transpose(1, 2, 0), expected, f"{height} {width}")


# --- classifiers --------------------------------------------------------------------------------


def draw_data(n_classes: int, dim: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors float32 (60, dim) and codes of classes with gaps."""
    rng = np.random.default_rng(seed)
    codes = np.arange(60) % n_classes
    centres = np.random.default_rng(9).normal(size=(n_classes, dim))
    return (rng.normal(size=(60, dim)) + centres[codes]).astype(np.float32), 2 * codes + 1


def make_small(clf: str, *, balanced: bool = False) -> Any:
    pipeline = make_classifier(clf, ClassifierOptions(balanced=balanced))
    if clf in ("rf", "xgb"):
        name = {"rf": "n_estimators", "xgb": "estimator__n_estimators"}[clf]
        pipeline[-1].set_params(**{name: 10})
    return pipeline


def assert_same(predictor: Predictor, seen: np.ndarray) -> None:
    """The nodes give the classifier's probabilities, whatever the number of rows."""
    dim = seen.shape[1]
    n_classes = int(predictor.classes_[-1]) + 2
    graph = Graph()
    output = add_scores(graph, predictor, "X", n_classes)
    session = start(graph, ("X", onnx.TensorProto.FLOAT, ["n", dim]), output)
    new = np.random.default_rng(1).normal(size=(40, dim)).astype(np.float32)
    for X in (new, new[:1], new[:3], seen):
        expected = np.zeros((len(X), n_classes))
        expected[:, predictor.classes_] = class_scores(predictor, X)
        (scores,) = session.run(None, {"X": X})
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("clf", CLASSIFIERS)
def test_every_classifier_is_the_same(clf: str, n_classes: int) -> None:
    X, y = draw_data(n_classes)
    pipeline = make_small(clf, balanced=n_classes == 3)
    assert_same(convert_estimator(fit_pipeline(pipeline, X, y, np.arange(60) // 6)), X)


@pytest.mark.parametrize("prepare", PREPARATIONS)
def test_every_preparation_of_a_search_is_the_same(prepare: str) -> None:
    X, y = draw_data(3, dim=300)
    params = {"prepare": prepare, "n_neighbors": 3, "weights": "uniform"}
    pipeline = build_candidate("knn", params, X, ClassifierOptions())
    assert_same(convert_estimator(pipeline.fit(X, y)), X)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_svc_for_many_images_is_the_same(n_classes: int) -> None:
    X, y = draw_data(n_classes)
    machine = NystroemRBFSVC(n_components=40).fit(X, y, groups=np.arange(60))
    assert_same(convert_estimator(machine), X)


def test_a_forest_on_directions_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fishfeat.classify.estimators.forest.MANY_IMAGES", 30)
    X, y = draw_data(3)
    pipeline = make_small("rf").fit(X, y)
    assert pipeline[-1].directions_ is not None
    assert_same(convert_estimator(pipeline), X)


def test_an_ensemble_is_the_same_where_a_member_lacks_a_class() -> None:
    X, y = draw_data(3)
    members = [make_small(clf).fit(X, y) for clf in ("lda", "rf", "dummy")]
    members.append(make_small("logreg").fit(X[y != 3], y[y != 3]))
    assert_same(convert_estimator(SoftVotingEnsemble.from_fitted(members)), X)


def test_a_classifier_of_one_class_is_certain() -> None:
    X, _ = draw_data(3)
    assert_same(convert_estimator(make_small("knn").fit(X, np.full(len(X), 2))), X)


@pytest.mark.parametrize("n_copies", [2, 3, 5])
def test_copies_with_other_labels_are_the_same_neighbours(n_copies: int) -> None:
    """Rounding does not choose which copies are among the neighbours."""
    X, y = draw_data(3)
    X = np.repeat(X[::n_copies], n_copies, axis=0)
    predictor = convert_estimator(make_small("knn").fit(X, y))
    assert_same(predictor, X)
    shuffled = np.random.default_rng(1).permutation(len(X))
    one_by_one = [predictor.predict_proba(X[i : i + 1])[0] for i in shuffled]
    np.testing.assert_allclose(one_by_one, predictor.predict_proba(X)[shuffled], atol=1e-6)


def test_the_head_of_a_tuned_network_is_the_same() -> None:
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(8, 24)), rng.normal(size=8)), (rng.normal(size=(3, 8)), np.ones(3))]
    assert_same(convert_estimator(DenseHead(layers, np.array([0, 2, 5]), 0.7)), draw_data(3)[0])


def test_of_early_exits_the_probe_of_the_last_layer_is_taken() -> None:
    X, y = draw_data(3)
    exits = EarlyExitClassifier(make_small("logreg"), (10, 14), (1.0, 3.0))
    predictor: Any = convert_estimator(exits.fit(X, y // 2, groups=np.arange(60)))
    graph = Graph()
    output = add_scores(graph, predictor, "X", 3)
    session = start(graph, ("X", onnx.TensorProto.FLOAT, ["n", 14]), output)
    (scores,) = session.run(None, {"X": np.ascontiguousarray(X[:, 10:])})
    expected, _ = predictor.score_reached(X[:, 10:], 3)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)


# --- whole models -------------------------------------------------------------------------------

CLASSES = np.array(["bass", "bream, wild", "cod"])


@pytest.fixture(scope="module")
def backbone() -> Any:
    return load_backbone(make_spec("random:test_resnet", img_size=32, tta="flip"))


@pytest.mark.parametrize("tta", ["d4", "rotate:3"])
def test_the_transforms_of_augmentation_are_converted(tta: str) -> None:
    class Columns(torch.nn.Module):
        """The means of the columns of each image stand for the features."""

        def forward(self, images: torch.Tensor, precision: str) -> torch.Tensor:
            return images.float().mean(dim=2).flatten(1)

    module = _WithTransforms(Columns(), make_transforms(tta, (0.5, 0.5, 0.5)))  # type: ignore[arg-type]
    images = torch.from_numpy(draw_image(16, 32).reshape(2, 16, 16, 3)).permute(0, 3, 1, 2)
    content = _convert(module, images, "pixels", "vectors").SerializeToString()
    (vectors,) = ort.InferenceSession(content).run(None, {"pixels": images.numpy()})
    np.testing.assert_allclose(vectors, module(images), rtol=1e-5)


@pytest.fixture(scope="module")
def model(backbone: Any) -> Model:
    """A model that is as sensitive to the features as those of real images."""
    X, y = draw_data(3, dim=backbone.dim)
    info = FeaturesInfo("pond", backbone.spec, backbone.fingerprint, backbone.dim)
    pipeline = make_small("logreg").fit(0.1 * X, y // 2)
    config = ModelConfig(balanced=False, seed=0, n_images=60, features=info)
    return Model("logreg", pipeline, CLASSES, backbone.spec, backbone.fingerprint, config)


@pytest.fixture(scope="module")
def content(model: Model, backbone: Any) -> bytes:
    return make_onnx(model, backbone)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of many kinds and sizes."""
    folder = tmp_path_factory.mktemp("kinds")
    colours = Image.fromarray(draw_image(40, 52))
    grey = colours.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[274] = 6  # orientation
    alpha = colours.copy()
    alpha.putalpha(grey)
    images = {
        "colours.png": colours,
        "more.png": colours.transpose(Image.Transpose.ROTATE_180),
        "grey.png": grey,
        "deep.png": deep,
        "alpha.png": alpha,
        "grey_alpha.png": alpha.convert("LA"),
        "palette.png": colours.quantize(20),
        "one_bit.png": grey.convert("1"),
        "palette.gif": colours.quantize(30),
        "cmyk.jpg": colours.convert("CMYK"),
        "small.webp": colours.resize((9, 7)),
        "long.bmp": colours.resize((300, 5)),
        "large.jpg": colours.resize((640, 400)),  # is halved while it is decoded
    }
    for name, image in images.items():
        image.save(folder / name)
    colours.save(folder / "turned.jpg", exif=exif)
    transparent = colours.quantize(20)
    transparent.save(folder / "transparent.png", transparency=3)
    return sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_program_of_the_guide_answers_as_fishfeat(
    batch_size: int,
    model: Model,
    backbone: Any,
    content: bytes,
    paths: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    if batch_size != 3:
        paths = paths[::4]
    (tmp_path / "fish.onnx").write_bytes(content)
    arguments = ["classify.py", str(tmp_path / "fish.onnx"), str(batch_size), *paths]
    monkeypatch.setattr(sys, "argv", arguments)
    exec(compile(program, "classify.py", "exec"), {})
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == len(paths)
    found = {row["path"]: row for row in rows}
    for prediction in model.predict(paths, backbone=backbone):
        assert prediction.scores is not None
        row = found[prediction.path]
        scores = [float(row[name]) for name in CLASSES.tolist()]
        np.testing.assert_allclose(scores, prediction.scores, atol=1e-4, err_msg=prediction.path)
        assert row["label"] == prediction.label


def test_the_program_of_the_guide_is_short_and_needs_neither_fishfeat_nor_torch() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    nodes = list(ast.walk(ast.parse(program)))
    modules = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    modules |= {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}
    assert modules == {"csv", "json", "sys", "numpy", "onnxruntime", "PIL"}
    assert len(program.splitlines()) <= 45


def test_a_file_says_what_it_is(content: bytes, model: Model, backbone: Any) -> None:
    made = onnx.load_from_string(content)
    about = {entry.key: entry.value for entry in made.metadata_props}
    assert json.loads(about["class_names"]) == CLASSES.tolist()
    assert about["model"] == model.name
    assert about["fingerprint"] == backbone.fingerprint
    assert about["min_side"] == "96"
    assert {"fishfeat", "model_sha256", "classifier", "backbone", "input"} <= about.keys()
    outputs = [output.name for output in made.graph.output]
    assert outputs == ["probabilities", "label", "features"]


def test_a_file_that_answers_otherwise_is_refused(
    content: bytes, model: Model, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreement = check_onnx(content, model, backbone, [])
    assert agreement.n_images == agreement.n_equal == 7
    assert agreement.difference < 1e-4
    other = DenseHead([(np.ones((3, backbone.dim)), np.arange(3.0))], np.arange(3), 1.0)
    changed = Model("other", other, CLASSES, backbone.spec, backbone.fingerprint, model.config)
    with pytest.raises(ModelError, match="not exported"):
        check_onnx(content, changed, backbone, [])
    monkeypatch.setattr(onnx_export, "_MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="2 GB"):
        make_onnx(model, backbone)


def test_a_tuned_network_is_exported_with_its_head(tmp_path: Path) -> None:
    source = load_backbone(make_spec("random:test_resnet", img_size=32))
    network = source.network.to(memory_format=torch.contiguous_format)
    folder = save_network(tmp_path / "tuned", network, source.spec, np.array(["0"]))
    backbone = load_backbone(make_spec(f"local-dir:{folder}", img_size=32))
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(8, backbone.dim)), np.ones(8)), (np.eye(3, 8), np.zeros(3))]
    config = ModelConfig(
        balanced=False,
        seed=0,
        n_images=1,
        features=FeaturesInfo("pond", backbone.spec, backbone.fingerprint, backbone.dim),
    )
    head = make_pipeline(DenseHead(layers, np.arange(3), 0.5))
    model = Model("finetune", head, CLASSES, backbone.spec, backbone.fingerprint, config)
    agreement = check_onnx(make_onnx(model, backbone), model, backbone, [draw_image(50, 40)])
    assert agreement.difference < 1e-4


def test_a_threshold_within_the_rounding_of_a_feature_is_no_other_answer(
    content: bytes, model: Model, backbone: Any
) -> None:
    image = draw_image(50, 40)
    _, vectors = onnx_export._run_file(content, [image[None]])
    own = onnx_export._embed_batches(backbone, [image[None]])
    column = int(np.abs(vectors - own).argmax())
    low, high = np.sort([vectors[0, column], own[0, column]])
    if low == high:
        pytest.skip("torch and ONNX Runtime round alike on this machine")
    node = np.array([0, 1, 2], np.int32)
    trees = Trees(
        roots=node[:1],
        left=np.array([1, 1, 2], np.int32),
        right=np.array([2, 1, 2], np.int32),
        column=np.array([column, 0, 0], np.int32),
        threshold=np.array([low, np.inf, np.inf], np.float32),
        n_columns=backbone.dim,
    )
    forest = Forest(np.arange(3), trees, np.array([0, 0, 1], np.int32), np.eye(3)[:2], 1.0)
    changed = dataclasses.replace(model, pipeline=forest)
    agreement = check_onnx(make_onnx(changed, backbone), changed, backbone, [image])
    assert agreement.n_equal < agreement.n_images
    assert agreement.difference > 0.5


def test_a_network_that_torch_does_not_convert_is_refused_by_name(
    model: Model, backbone: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **options: object) -> None:
        print("a long graph")
        raise RuntimeError("operator unknown")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(ModelError, match=r"test_resnet.*operator unknown"):
        make_onnx(model, backbone)
    assert capsys.readouterr().out == ""
