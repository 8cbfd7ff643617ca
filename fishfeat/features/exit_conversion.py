"""Convert a network that images leave early to OpenVINO's form, and keep it for later runs."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

from torch import Tensor, nn

from fishfeat.features.backbones import Backbone
from fishfeat.features.conversion import (
    convert_module,
    describe_network,
    embed_probes,
    find_weight_digests,
)
from fishfeat.features.exits import add_hooks, embed_whole, list_exits
from fishfeat.features.kept_exits import KeptExits, find_exits_folder, wrap_contents
from fishfeat.features.kept_networks import BATCH_SIZE, keep_network
from fishfeat.features.pooling import pool_output

log = logging.getLogger("fishfeat")


def convert_exits(backbone: Backbone) -> KeptExits | None:
    """Convert a loaded network and keep it; None where that is impossible, with the reason logged.

    `backbone` has the layers in order of depth.
    """
    if importlib.util.find_spec("openvino") is None:
        return None
    digests = find_weight_digests(backbone)
    if digests is None:
        return None
    layers = [spec.layer for spec in backbone.specs]
    try:
        model = convert_module(_AllOutputs(backbone), backbone.preprocess.size, BATCH_SIZE)
    except Exception as error:  # tracers raise errors of any class
        log.info("OpenVINO cannot run this network: %s", " ".join(str(error).split())[:200])
        return None
    contents = describe_network(backbone, BATCH_SIZE, digests)
    folder = find_exits_folder(backbone.spec, layers)
    kept = keep_network(folder, model, contents, embed_probes(backbone))
    return None if kept is None else wrap_contents(folder, kept.contents, backbone.spec, layers)


class _AllOutputs(nn.Module):
    """A network whose outputs are the vectors of all layers, then the outputs of all but the last.

    The images are uint8 (n, 3, height, width).
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self._exits = list_exits(backbone)

    def forward(self, images: Tensor) -> Any:
        backbone, outputs = self.backbone, {}

        def note(number: int, output: Tensor) -> Tensor:
            outputs[number] = output
            return output

        hooks = add_hooks(backbone.network, self._exits, note)
        try:
            final = embed_whole(backbone, images, "fp32")
        finally:
            for hook in hooks:
                hook.remove()
        vectors = []
        for number, place in enumerate(self._exits):
            if number in outputs:
                pooled = pool_output(outputs[number], backbone.network, place.spec.pool)
                vectors.append(pooled.flatten(1).float())
            else:
                vectors.append(final.flatten(1).float())
        return (*vectors, *(outputs[number] for number in range(len(self._exits) - 1)))
