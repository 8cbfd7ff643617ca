"""Convert a loaded network to OpenVINO's form, and keep it for later runs."""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from typing import Any
from weakref import WeakSet

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from fishfeat.features import network_store as store
from fishfeat.features.backbones import Backbone, compute_fingerprint
from fishfeat.features.kept_networks import (
    BATCH_SIZE,
    Contents,
    KeptNetwork,
    can_be_kept,
    draw_probes,
    find_kept_network,
    find_network_folder,
    is_too_large,
    keep_network,
)
from fishfeat.features.openvino_networks import RunArray, compile_model, import_openvino
from fishfeat.features.weight_files import (
    compute_digests,
    find_weight_files,
    were_written_since,
)
from fishfeat.records.provenance import RuntimeConfig

log = logging.getLogger("fishfeat")
_counted: WeakSet[Backbone] = WeakSet()


def prepare_openvino(backbone: Backbone, config: RuntimeConfig, n_threads: int) -> RunArray:
    """Take the network that is kept on this machine, or convert it and keep it.

    A network that is kept is always compiled from its file: then it gives the same vectors in the
    run that made it and in later ones, bit for bit.
    """
    kept = None
    if can_be_kept(backbone.specs):
        kept = find_kept_network(backbone.spec, config.batch_size)
    if kept is not None and kept.fingerprint == backbone.fingerprint:
        run = kept.compile(config, n_threads)
        if run is not None:
            return run
    model = convert_network(backbone, config.batch_size)
    kept = _keep(backbone, model, config.batch_size)
    run = None if kept is None else kept.compile(config, n_threads)
    return run or compile_model(model, config, n_threads)


def keep_if_loaded_before(backbone: Backbone) -> KeptNetwork | None:
    """Keep the network where an earlier run loaded it, too; None where it is not kept now.

    The conversion takes about as long as one start with torch. So a network that is used once is
    not converted, and a network that is used often starts slowly only twice. It is tried once. A
    loaded network that a program uses again and again counts once.
    """
    if backbone in _counted:
        return None
    _counted.add(backbone)
    if not can_be_kept(backbone.specs) or importlib.util.find_spec("openvino") is None:
        return None
    path = find_network_folder(backbone.spec, BATCH_SIZE) / store.LOADS
    n_loads = store.read_entry(path).get("loads", 0)
    if n_loads not in (0, 1) or not store.write_entry(path, {"loads": n_loads + 1}):
        return None
    if n_loads == 0 or is_too_large(backbone.n_parameters):
        return None
    try:
        kept = _keep(backbone, convert_network(backbone, BATCH_SIZE), BATCH_SIZE)
    except Exception as error:  # tracers raise errors of any class
        log.debug("The network is not kept: %s", " ".join(str(error).split())[:200])
        return None
    if kept is not None:
        log.info("The network was converted: later runs start sooner.")
    return kept


def convert_network(backbone: Backbone, batch_size: int) -> Any:
    """Convert the network to OpenVINO's form, for batches of exactly `batch_size` images.

    It is traced in fp32: OpenVINO lowers the precision where it compiles.
    """
    return convert_module(_InFullPrecision(backbone), backbone.preprocess.size, batch_size)


def convert_module(module: nn.Module, size: tuple[int, int], batch_size: int) -> Any:
    """Convert a module that takes images uint8 (batch_size, 3, *size).

    The trace is frozen first, which halves the time of the conversion. OpenVINO's own tracing takes
    four times as long.
    """
    ov = import_openvino()
    images = torch.zeros(batch_size, *size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns about code of other packages
        trace: Any = torch.jit.trace  # it has no types
        traced = trace(module.eval(), (images,), check_trace=False, strict=False)
        frozen = torch.jit.freeze(traced)
        return ov.convert_model(frozen, example_input=(images,), input=[tuple(images.shape)])


class _InFullPrecision(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.backbone(images, "fp32")
        return vectors


def _keep(backbone: Backbone, model: Any, batch_size: int) -> KeptNetwork | None:
    """Keep the network where it is known to be that of its weight files."""
    if not can_be_kept(backbone.specs):
        return None
    digests = find_weight_digests(backbone)
    if digests is None:
        return None
    folder = find_network_folder(backbone.spec, batch_size)
    start = time.perf_counter()
    probes = embed_probes(backbone)
    seconds = (time.perf_counter() - start) / len(probes["images"])
    contents = describe_network(backbone, batch_size, digests)
    return keep_network(folder, model, replace(contents, seconds=seconds), probes)


def find_weight_digests(backbone: Backbone) -> dict[str, str] | None:
    """File that the weights came from -> SHA-256; None where the network is not that of its files.

    Then it cannot be kept.
    """
    if backbone.loaded_at is None:
        return None
    if compute_fingerprint(backbone.network, backbone.preprocess) != backbone.fingerprint:
        return None  # somebody changed it after it was loaded
    try:
        names = find_weight_files(backbone)
        if names is None or were_written_since(backbone.spec, names, backbone.loaded_at):
            return None
        return compute_digests(backbone.spec, names)
    except OSError:
        return None


def describe_network(backbone: Backbone, batch_size: int, weight_files: dict[str, str]) -> Contents:
    """Describe a network as `network.json` does, without the files beside it."""
    return Contents(
        spec=backbone.spec.to_json(),
        fingerprint=backbone.fingerprint,
        dim=backbone.dim,
        dims=list(backbone.dims),
        n_parameters=backbone.n_parameters,
        preprocess=backbone.preprocess,
        batch_size=batch_size,
        weight_files=weight_files,
        files={},
    )


def embed_probes(backbone: Backbone) -> dict[str, Any]:
    """The probe images and their vectors in eager fp32."""
    images = draw_probes(backbone.preprocess.size)
    with torch.inference_mode():
        vectors = backbone(torch.from_numpy(images).permute(0, 3, 1, 2), "fp32")
    return {"images": images, "vectors": vectors.numpy()}
