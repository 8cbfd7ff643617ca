"""Networks that images leave early, in the form that OpenVINO reads: they start without torch.

Such a network is one graph with an output for each layer. It is cut at the layers where images may
leave, and each part is compiled alone. A part runs batches of one size, which it fills with the
images that are left: so an image has the same vectors bit for bit, whichever others leave.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.features import network_store as store
from fishfeat.features.kept_networks import (
    AGREEMENT,
    BATCH_SIZE,
    PROBES,
    Contents,
    KeptNetwork,
    check_files,
    compute_cosines,
    drop_precision,
    read_contents,
)
from fishfeat.features.openvino_networks import call_in_thread, choose_settings, import_openvino
from fishfeat.features.runners import RGB, ComputedVectors, Runner
from fishfeat.features.weight_files import have_changed
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import RuntimeConfig

log = logging.getLogger("fishfeat")
# Number of a layer and its vectors float32 (n, dim) -> which images leave there, bool (n,).
FindLeaving = Callable[[int, NDArray[np.float32]], NDArray[np.bool_]]
# Images that one thread takes at once; the more, the fewer rows of the last batches are empty.
CHUNK = 4 * BATCH_SIZE
Array = NDArray[Any]


class ExitUse(NamedTuple):
    """Where images may leave, and which do.

    Attributes
    ----------
    layers
        Names of all layers in order of depth.
    used
        Numbers of the layers where images may leave; the last one is that of the last layer.
    find_leaving
        Says which images leave a layer. At the last layer it is not asked.
    """

    layers: tuple[str, ...]
    used: tuple[int, ...]
    find_leaving: FindLeaving


@dataclass(frozen=True)
class KeptExits(KeptNetwork):
    """A network of several layers in a folder, ready to be compiled.

    Attributes
    ----------
    layers, layer_dims
        Names of the layers in order of depth, and the lengths of their vectors.
    """

    layers: tuple[str, ...] = ()
    layer_dims: tuple[int, ...] = ()

    @property
    def specs(self) -> tuple[BackboneSpec, ...]:
        """One specification for each layer."""
        return tuple(dataclasses.replace(self.spec, layer=layer) for layer in self.layers)

    @property
    def dims(self) -> tuple[int, ...]:
        """Length of the vectors of each layer."""
        return self.layer_dims

    def start(self, precision: str, n_threads: int, use: ExitUse) -> Runner | None:
        """Compile its parts and check them on the probe images; None, with the reason logged."""
        config = RuntimeConfig("openvino", precision, CHUNK)
        try:
            check_files(self.folder, self.contents.files)
            path = self.folder / next(iter(self.contents.files))
            parts = _compile_parts(path, use.used, config, n_threads)
            runner = self._make_runner(parts, config, use)
            never = use._replace(find_leaving=lambda number, vectors: np.zeros(len(vectors), bool))
            probes = self._make_runner(parts, config, never)
            call_in_thread(self._check_layers, probes, use.used)
        except Exception as error:  # OpenVINO raises errors of several classes
            reason = " ".join(str(error).split())[:200]
            log.info("The network kept in %s is not used: %s", self.folder, reason)
            return None
        with contextlib.suppress(OSError):
            os.utime(self.folder / store.NETWORK)
        return runner

    def _make_runner(self, parts: Sequence[_Part], config: RuntimeConfig, use: ExitUse) -> Runner:
        starts = np.cumsum([0, *self.dims])
        columns = [slice(starts[i], starts[i + 1]) for i in use.used]

        def start(images: Sequence[RGB]) -> ComputedVectors:
            X = np.full((len(images), self.dim), np.nan, np.float32)
            rows = np.arange(len(images))
            values: Array = np.stack(list(images)).transpose(0, 3, 1, 2)
            for number, part, layer_columns in zip(use.used, parts, columns, strict=True):
                vectors, outputs = part.run(values)
                X[rows, layer_columns] = vectors
                if outputs is None:
                    break
                stays = ~use.find_leaving(number, vectors)
                rows, values = rows[stays], outputs[stays]
                if not len(rows):
                    break
            return ComputedVectors(X)

        return Runner(config, start)

    def _check_layers(self, runner: Runner, used: Sequence[int]) -> None:
        with np.load(self.folder / PROBES, allow_pickle=False) as probes:
            images, expected = probes["images"], probes["vectors"]
        X = runner.start(list(images)).wait()
        starts = np.cumsum([0, *self.dims])
        for number in used:
            columns = slice(starts[number], starts[number + 1])
            smallest = compute_cosines(X[:, columns], expected[:, columns]).min()
            if not smallest >= AGREEMENT:
                raise ValueError(
                    f"its layer {self.layers[number]} differs from eager fp32 (cosine "
                    f"{smallest:.4f})"
                )


class _Part:
    """The layers from one exit to the next.

    Parameters
    ----------
    compiled
        A compiled network with one input. Its outputs are the vectors and, unless it is the last
        part, the activations that the next part takes.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._is_last = len(compiled.outputs) == 1
        self._local = threading.local()  # a request serves one thread at a time

    def run(self, values: Array) -> tuple[NDArray[np.float32], Array | None]:
        """Vectors (n, dim) and activations (n, ...) of images or activations (n, ...)."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        request = self._local.request
        vectors, activations = [], []
        for start in range(0, len(values), BATCH_SIZE):
            batch = values[start : start + BATCH_SIZE]
            n = len(batch)
            if n < BATCH_SIZE:
                empty = np.zeros((BATCH_SIZE - n, *batch.shape[1:]), batch.dtype)
                batch = np.concatenate([batch, empty])
            outputs = request.infer([np.ascontiguousarray(batch)], share_inputs=True)
            vectors.append(outputs[0].reshape(BATCH_SIZE, -1)[:n])
            if not self._is_last:
                activations.append(outputs[1][:n])
        if self._is_last:
            return np.concatenate(vectors), None
        return np.concatenate(vectors), np.concatenate(activations)


def _compile_parts(
    path: Path, used: Sequence[int], config: RuntimeConfig, n_threads: int
) -> list[_Part]:
    core = import_openvino().Core()
    settings = choose_settings(config, n_threads)
    parts = []
    for i, number in enumerate(used):
        model = _cut_model(core.read_model(os.fspath(path)), number, used[i - 1] if i else None)
        parts.append(_Part(call_in_thread(core.compile_model, model, "CPU", settings)))
    return parts


def _cut_model(model: Any, layer: int, before: int | None) -> Any:
    """The part of a network from the output of layer `before` (None: the images) to `layer`.

    The results of the network are the vectors of all layers, then the outputs of all but the last.
    OpenVINO refuses a part that also depends on something before its input.
    """
    ov = import_openvino()
    results = model.get_results()
    n_layers = (len(results) + 1) // 2
    inputs = model.get_parameters()
    if before is not None:
        output = results[n_layers + before].input_value(0)
        parameter = ov.opset13.parameter(output.get_shape(), output.get_element_type())
        for target in output.get_target_inputs():
            target.replace_source_output(parameter.output(0))
        inputs = [parameter]
    kept = [results[layer]]
    if layer < n_layers - 1:
        kept.append(results[n_layers + layer])
    return ov.Model(kept, inputs)


# --- find ---------------------------------------------------------------------------------------


def find_kept_exits(spec: BackboneSpec, layers: Sequence[str]) -> KeptExits | None:
    """Find the network of a specification with these layers that was made on this machine.

    None where there is none, or where the files of its weights have changed.
    """
    if importlib.util.find_spec("openvino") is None:
        return None
    folder = find_exits_folder(spec, layers)
    contents = read_contents(folder)
    if contents is None or BackboneSpec.from_json(contents.spec) != drop_precision(spec):
        return None
    if have_changed(spec, contents.weight_files):
        log.info("The network kept in %s is not used: its weights have changed.", folder)
        return None
    return wrap_contents(folder, contents, spec, layers)


def wrap_contents(
    folder: Path, contents: Contents, spec: BackboneSpec, layers: Sequence[str]
) -> KeptExits:
    """The network of a folder and its `network.json`."""
    dims = tuple(contents.dims)
    return KeptExits(folder, contents, spec, layers=tuple(layers), layer_dims=dims)


def find_exits_folder(spec: BackboneSpec, layers: Sequence[str]) -> Path:
    """The folder of a network in the store; it need not exist."""
    return store.find_entry(
        "openvino-exits", drop_precision(spec).to_json(), json.dumps(list(layers)), BATCH_SIZE
    )
