"""Networks that images leave early, in the form that OpenVINO reads: they start without torch.

Such a network is one graph with an output for each layer. It is cut at the layers where images may
leave, and each part is compiled alone. A part runs batches of one size, which it fills with the
images that are left: so an image has the same vectors bit for bit, also when others leave.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import threading
import time
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
from fishfeat.features.measured_runtimes import Measured, time_fastest
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
# Number, channels, height, width.
_MAP_DIMS = 4


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
            parts = self._compile(config, n_threads, use)
            call_in_thread(self._check_layers, self._make_runner(parts, config, _stay(use)), use)
        except Exception as error:  # OpenVINO raises errors of several classes
            reason = " ".join(str(error).split())[:200]
            log.info("The network kept in %s is not used: %s", self.folder, reason)
            return None
        with contextlib.suppress(OSError):
            os.utime(self.folder / store.NETWORK)
        return self._make_runner(parts, config, use)

    def measure(self, precision: str, n_threads: int, use: ExitUse) -> Measured | None:
        """Compile its parts, and measure them on the probe images; None where that fails."""
        config = RuntimeConfig("openvino", precision, CHUNK)
        start = time.perf_counter()
        try:
            parts = self._compile(config, n_threads, use)
            seconds = time.perf_counter() - start
            runner = self._make_runner(parts, config, _stay(use))
            cosines = call_in_thread(self._compare_layers, runner, use)
            rate = call_in_thread(self._measure_rate, runner)
        except Exception as error:  # OpenVINO raises errors of several classes
            log.debug("The precision %s was not measured: %s", precision, error)
            return None
        return Measured(config, rate, min(cosines.values()), seconds)

    def _compile(self, config: RuntimeConfig, n_threads: int, use: ExitUse) -> list[_Part]:
        check_files(self.folder, self.contents.files)
        path = self.folder / next(iter(self.contents.files))
        return _compile_parts(path, use.used, config, n_threads)

    def _make_runner(self, parts: Sequence[_Part], config: RuntimeConfig, use: ExitUse) -> Runner:
        starts = np.cumsum([0, *self.dims])
        columns = [slice(starts[number], starts[number + 1]) for number in use.used]

        def start(images: Sequence[RGB]) -> ComputedVectors:
            X = np.full((len(images), self.dim), np.nan, np.float32)
            passage = _Passage(parts, use, columns, X)
            for row, image in enumerate(images):
                passage.push(0, row, image)
            passage.finish()
            return ComputedVectors(X)

        return Runner(config, start)

    def _check_layers(self, runner: Runner, use: ExitUse) -> None:
        for layer, cosine in self._compare_layers(runner, use).items():
            if not cosine >= AGREEMENT:
                raise ValueError(f"its layer {layer} differs from eager fp32 (cosine {cosine:.4f})")

    def _compare_layers(self, runner: Runner, use: ExitUse) -> dict[str, float]:
        """The smallest cosine of each layer to eager fp32 over the probe images."""
        images, expected = self._read_probes()
        X = runner.start(list(images)).wait()
        starts = np.cumsum([0, *self.dims])
        cosines = {}
        for number in use.used:
            columns = slice(starts[number], starts[number + 1])
            smallest = compute_cosines(X[:, columns], expected[:, columns]).min()
            cosines[self.layers[number]] = float(smallest)
        return cosines

    def _measure_rate(self, runner: Runner) -> float:
        """Images per second of one thread."""
        images = list(self._read_probes()[0])
        return len(images) / time_fastest(lambda: runner.start(images).wait())

    def _read_probes(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        with np.load(self.folder / PROBES, allow_pickle=False) as probes:
            return probes["images"], probes["vectors"]


def _stay(use: ExitUse) -> ExitUse:
    """The same layers, and no image leaves early."""
    return use._replace(find_leaving=lambda number, vectors: np.zeros(len(vectors), bool))


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
        self._local = threading.local()  # a request and its input serve one thread at a time

    @property
    def buffer(self) -> Array:
        """The input of this thread (batch size, ...)."""
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
            self._local.buffer = self._local.request.get_input_tensor().data
        buffer: Array = self._local.buffer
        return buffer

    def run(self) -> list[Array]:
        """Run what is in the buffer; the outputs are valid until the next call of this thread."""
        request = self._local.request
        request.start_async()  # `infer` takes longer, because it looks at the inputs each time
        request.wait()
        return [request.get_output_tensor(i).data for i in range(len(self._compiled.outputs))]


class _Passage:
    """The way of some images through the parts: as soon as a part has a full batch, it runs.

    So activations go on while they are in the core's cache, and each is copied once.

    Parameters
    ----------
    parts, use
        The parts, and where images leave.
    columns
        Columns of X that are the vectors of each part.
    X
        float32 (n_images, dim): the vectors are written here.
    """

    def __init__(
        self,
        parts: Sequence[_Part],
        use: ExitUse,
        columns: Sequence[slice],
        X: NDArray[np.float32],
    ) -> None:
        self._parts, self._use, self._columns, self._X = parts, use, columns, X
        self._rows: list[list[int]] = [[] for _ in parts]

    def push(self, i: int, row: int, value: Array) -> None:
        """Give an image or its activations to part `i`."""
        self._parts[i].buffer[len(self._rows[i])] = value
        self._rows[i].append(row)
        if len(self._rows[i]) == BATCH_SIZE:
            self._run(i)

    def finish(self) -> None:
        """Run the batches that are not full."""
        for i in range(len(self._parts)):
            if self._rows[i]:
                self._parts[i].buffer[len(self._rows[i]) :] = 0
                self._run(i)

    def _run(self, i: int) -> None:
        rows, self._rows[i] = self._rows[i], []
        vectors, *activations = self._parts[i].run()
        vectors = vectors.reshape(BATCH_SIZE, -1)[: len(rows)]
        self._X[rows, self._columns[i]] = vectors
        if not activations:
            return
        is_leaving = self._use.find_leaving(self._use.used[i], vectors)
        for row, leaves, value in zip(rows, is_leaving, activations[0], strict=False):
            if not leaves:
                self.push(i + 1, row, value)


def _compile_parts(
    path: Path, used: Sequence[int], config: RuntimeConfig, n_threads: int
) -> list[_Part]:
    core = import_openvino().Core()
    settings = choose_settings(config, n_threads)
    # Pinned streams of different parts may wait for the same core while another one is idle.
    settings["ENABLE_CPU_PINNING"] = False
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
    return _put_channels_last(ov.Model(kept, inputs))


def _put_channels_last(model: Any) -> Any:
    """Let a part take and give images and feature maps with the channels last.

    OpenVINO computes in this order. In the other one all cuts of a MobileNetV2 together took a
    fifth of its time.
    """
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    if len(model.input(0).shape) == _MAP_DIMS:
        steps.input().tensor().set_layout(Layout("NHWC"))
        steps.input().model().set_layout(Layout("NCHW"))
    if len(model.outputs) > 1 and len(model.output(1).shape) == _MAP_DIMS:
        steps.output(1).model().set_layout(Layout("NCHW"))
        steps.output(1).tensor().set_layout(Layout("NHWC"))
    return steps.build()


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
        log.info("The network in %s is not used: its weights are gone or have changed.", folder)
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
