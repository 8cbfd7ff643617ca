"""A model as one ONNX file: from images of any size to probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import ModelError
from fishfeat.files import version
from fishfeat.models.model import Model
from fishfeat.models.onnx_files.graph import (
    IR_VERSION,
    OPSET,
    TREE_DOMAIN,
    TREE_OPSET,
    Graph,
    import_onnx,
)
from fishfeat.models.onnx_files.heads import add_scores
from fishfeat.models.onnx_files.resize import add_preprocess
from fishfeat.records import Float

if TYPE_CHECKING:
    from fishfeat.features.backbones import Backbone
    from fishfeat.features.preprocess import RGB

IMAGES, PROBABILITIES, LABEL, FEATURES = "images", "probabilities", "label", "features"
# Largest difference of a probability between the file and fishfeat.
TOLERANCE = 0.01
# Length of the difference of the features as a share of their length, where it is rounding.
_ROUNDING = 1e-4
# Protocol buffers, which ONNX files are, cannot be larger.
_MAX_BYTES = 2**31 - 1
_INPUT = (
    "uint8 (n, height, width, 3): n upright RGB images of one size, of any height and width; "
    "transparent pixels are white"
)


class Agreement(NamedTuple):
    """How an exported file agrees with fishfeat.

    Attributes
    ----------
    n_images, n_equal
        Number of images, and of those with the same label.
    difference
        Largest difference of a probability.
    """

    n_images: int
    n_equal: int
    difference: float


def make_onnx(model: Model, backbone: Backbone) -> bytes:
    """Make the content of the ONNX file of a model.

    Parameters
    ----------
    model
        A model. Of one that images may leave early, the file computes every image to the end.
    backbone
        Its backbone.

    Raises
    ------
    MissingExtraError
        onnx or onnxruntime is not installed.
    ModelError
        The backbone has other weights, cannot be converted, or is too large for one file.
    """
    from fishfeat.classify.convert import convert_estimator
    from fishfeat.models.onnx_files.network import add_network

    onnx = import_onnx()
    model.check_backbone(backbone.fingerprint)
    graph = Graph()
    pixels = add_preprocess(graph, IMAGES, backbone.preprocess)
    add_network(graph, pixels, backbone, FEATURES)
    scores = add_scores(graph, convert_estimator(model.pipeline), FEATURES, len(model.class_names))
    graph.add("ArgMax", scores, output=LABEL, axis=1, keepdims=0)
    graph.add("Cast", scores, output=PROBABILITIES, to=onnx.TensorProto.FLOAT)
    n_bytes = sum(len(constant.raw_data) for constant in graph.constants)
    content = _make_model(graph, model, backbone) if n_bytes <= _MAX_BYTES else None
    if content is None or content.ByteSize() > _MAX_BYTES:
        raise ModelError(
            f"{model.name} is too large for one ONNX file, which holds 2 GB. Use a model on a "
            "smaller backbone."
        )
    onnx.checker.check_model(content)
    data: bytes = content.SerializeToString()
    return data


def _make_model(graph: Graph, model: Model, backbone: Backbone) -> Any:
    onnx = import_onnx()
    helper, types = onnx.helper, onnx.TensorProto
    n_classes = len(model.class_names)
    inputs = [
        helper.make_tensor_value_info(
            IMAGES, types.UINT8, ["n", "height", "width", 3], doc_string=_INPUT
        )
    ]
    outputs = [
        helper.make_tensor_value_info(PROBABILITIES, types.FLOAT, ["n", n_classes]),
        helper.make_tensor_value_info(LABEL, types.INT64, ["n"]),
        helper.make_tensor_value_info(FEATURES, types.FLOAT, ["n", backbone.dim]),
    ]
    content = helper.make_model(
        helper.make_graph(graph.nodes, "fishfeat", inputs, outputs, graph.constants),
        opset_imports=[
            helper.make_opsetid("", OPSET),
            helper.make_opsetid(TREE_DOMAIN, TREE_OPSET),
        ],
        ir_version=IR_VERSION,
        producer_name="fishfeat",
        producer_version=version(),
        doc_string=f"{model.name}: an image becomes one of {n_classes} classes.",
    )
    helper.set_model_props(content, _describe(model, backbone))
    return content


def _describe(model: Model, backbone: Backbone) -> dict[str, str]:
    """What the file says of itself."""
    described = {
        "model": model.name,
        "model_sha256": model.sha256,
        "class_names": json.dumps(model.class_names.tolist(), ensure_ascii=False),
        "classifier": model.clf,
        "backbone": model.spec.describe(),
        "fingerprint": model.fingerprint,
        "fishfeat": version(),
        "input": _INPUT,
        # A JPEG may be decoded at a reduced size as long as both sides have as many pixels.
        "min_side": str(backbone.preprocess.min_side),
    }
    if model.spec.white is not None:
        described["white"] = f"{model.spec.white:g}"
    return described


# --- check ----------------------------------------------------------------------------------------


def check_onnx(
    content: bytes, model: Model, backbone: Backbone, images: Sequence[RGB]
) -> Agreement:
    """Compare an exported file with fishfeat's own answers.

    Parameters
    ----------
    content
        As `make_onnx` gives it.
    model, backbone
        What it was made of.
    images
        uint8 (height, width, 3) each.

    Raises
    ------
    ModelError
        A probability differs by more than 0.01, and not because a threshold of a tree lies within
        the rounding of a feature.
    """
    batches = [image[None] for image in images] + _draw_batches(backbone.preprocess.size)
    exported, vectors = _run_file(content, batches)
    own_vectors = _embed_batches(backbone, batches)
    own = _score_vectors(model, own_vectors)
    differences = np.abs(exported - own).max(axis=1)
    n_equal = int((exported.argmax(axis=1) == own.argmax(axis=1)).sum())
    agreement = Agreement(len(own), n_equal, float(differences.max()))
    is_same = differences <= TOLERANCE
    is_same |= _find_rounded(model, exported, vectors, own_vectors)
    if not is_same.all():
        raise ModelError(_explain_difference(model, agreement))
    return agreement


def _find_rounded(
    model: Model, exported: Float, vectors: NDArray[np.float32], own: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Images that differ because a threshold of a tree lies within the rounding of a feature.

    The runtimes of fishfeat differ from one another in the same way: the classifier gives the
    exported probabilities for the exported features, and these are the same but for rounding.
    """
    length = np.linalg.norm(own, axis=1)
    is_near = np.linalg.norm(vectors - own, axis=1) <= _ROUNDING * length
    is_equal = np.abs(exported - _score_vectors(model, vectors)).max(axis=1) <= TOLERANCE
    rounded: NDArray[np.bool_] = is_near & is_equal
    return rounded


def _explain_difference(model: Model, agreement: Agreement) -> str:
    fix = "Use another model."
    if model.spec.precision not in ("auto", "fp32"):
        fix = (
            f"Its features are of {model.spec.precision}, and the file computes in fp32. Run "
            "`fishfeat extract --precision fp32` and `fishfeat fit` again."
        )
    return (
        f"{model.name} was not exported: the ONNX file gives other answers than fishfeat. Of "
        f"{agreement.n_images} images, {agreement.n_images - agreement.n_equal} have another "
        f"label, and a probability differs by up to {agreement.difference:.3f}, where {TOLERANCE} "
        f"is allowed. {fix}"
    )


def _draw_batches(size: tuple[int, int]) -> list[RGB]:
    """Images smaller and larger than the input, of other aspect ratios, and a batch of three."""
    from fishfeat.features.kept_networks import draw_probes

    high, wide = size
    sides = [(high // 2 + 1, 2 * wide + 3), (3 * high, wide // 3 + 1), (2 * high, 2 * wide), (1, 1)]
    batches = [draw_probes(side, 1) for side in sides]
    return [*batches, draw_probes((high + 1, wide - 1), 3)]


def _run_file(content: bytes, batches: Sequence[RGB]) -> tuple[Float, NDArray[np.float32]]:
    """The probabilities float64 (n, n_classes) and the features float32 (n, dim)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that wait for one another would take the cores from torch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [PROBABILITIES, FEATURES]
    outputs = [session.run(names, {IMAGES: batch}) for batch in batches]
    scores, vectors = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
    return scores.astype(np.float64), vectors


def _embed_batches(backbone: Backbone, batches: Sequence[RGB]) -> NDArray[np.float32]:
    from fishfeat.features.runtimes import make_runtime_config, prepare_runner

    config = make_runtime_config(backbone, "eager")
    runner = prepare_runner(backbone, config)
    pixels = [backbone.preprocess(image) for batch in batches for image in batch]
    vectors = []
    for start in range(0, len(pixels), config.batch_size):
        part = pixels[start : start + config.batch_size]
        vectors.append(runner.start(part).wait()[: len(part)])
    return np.concatenate(vectors)


def _score_vectors(model: Model, vectors: NDArray[np.float32]) -> Float:
    predictions = model.predict_vectors(vectors)
    return np.stack([p.scores for p in predictions if p.scores is not None])
