"""A backbone as the nodes of an ONNX graph."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from fishfeat.errors import ModelError
from fishfeat.features.backbones import Backbone
from fishfeat.features.tta import Transform, make_transforms
from fishfeat.models.onnx_files.graph import IR_VERSION, OPSET, Graph, import_onnx


def add_network(graph: Graph, pixels: str, backbone: Backbone, features: str) -> None:
    """Add the nodes from `pixels` uint8 (n, 3, *size) to `features` float32 (n, dim).

    Raises
    ------
    ModelError
        torch cannot convert the network.
    """
    size = backbone.preprocess.size
    images = torch.zeros(2, 3, *size, dtype=torch.uint8, device=backbone.device)
    transforms = make_transforms(backbone.spec.tta, backbone.preprocess.mean)
    try:
        network = _convert(_WithTransforms(backbone, transforms).eval(), images, pixels, features)
    except Exception as error:  # converters raise errors of any class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{backbone.spec.label} cannot be exported: torch does not convert it to ONNX "
            f"({reason}). Use a model on another backbone."
        ) from error
    assert network.ir_version <= IR_VERSION
    graph.nodes.extend(network.graph.node)
    graph.constants.extend(network.graph.initializer)


def _convert(module: nn.Module, images: Tensor, pixels: str, features: str) -> Any:
    """Convert a module to a model of ONNX."""
    with (
        TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),  # the converter prints what it cannot convert
        torch.inference_mode(),
    ):
        warnings.simplefilter("ignore")  # tracers warn about code of other packages
        path = Path(folder, "network.onnx")
        torch.onnx.export(
            module,
            (images,),
            path,
            dynamo=False,  # ten times as fast as the newer converter
            opset_version=OPSET,
            input_names=[pixels],
            output_names=[features],
            dynamic_axes={pixels: {0: "n"}, features: {0: "n"}},
        )
        return import_onnx().load(path)


class _WithTransforms(nn.Module):
    """The mean of the features over the transforms of test-time augmentation, in fp32."""

    def __init__(self, backbone: Backbone, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.backbone = backbone
        self.transforms = transforms

    def forward(self, images: Tensor) -> Tensor:
        vectors = [self.backbone(transform(images), "fp32") for transform in self.transforms]
        return vectors[0] if len(vectors) == 1 else torch.stack(vectors).mean(dim=0)
