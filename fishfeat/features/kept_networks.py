"""Networks kept in the form that OpenVINO reads: they start without torch and timm.

A kept network is used only if the files that its weights came from have not changed, if its own
files are those that were written, and if it gives the vectors of the probe images again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import FishfeatError
from fishfeat.features import network_store as store
from fishfeat.features.openvino_networks import (
    RunArray,
    call_in_thread,
    compile_model,
    import_openvino,
    make_runner,
)
from fishfeat.features.preprocess import Preprocess
from fishfeat.features.runners import Runner
from fishfeat.features.specs import find_bundled_folder
from fishfeat.features.weight_files import digest_files, have_changed
from fishfeat.files import write_arrays
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import PreprocessParameters, RuntimeConfig

log = logging.getLogger("fishfeat")

# Smallest cosine to eager fp32 that the vector of any probe image may have.
AGREEMENT = 0.999
BATCH_SIZE = 4
PROBES = "probes.npz"
_MAX_BYTES = 400_000_000


class Contents(msgspec.Struct, frozen=True):
    """`network.json`.

    Attributes
    ----------
    spec, fingerprint, dim, n_parameters, preprocess
        Facts of the network, as in `Backbone`.
    batch_size
        Images in one batch.
    weight_files
        File that the weights came from -> SHA-256.
    files
        Other files of this folder -> SHA-256; the first is the network.
    vectors
        Processor and precision -> SHA-256 of the vectors that the probe images had there.
    dims
        Length of the vectors of each layer.
    seconds
        What one image took in eager fp32 where the network was converted; 0 if that is not known.
    """

    spec: str
    fingerprint: str
    dim: int
    n_parameters: int
    preprocess: PreprocessParameters
    batch_size: int
    weight_files: dict[str, str]
    files: dict[str, str]
    vectors: dict[str, str] = {}
    dims: list[int] = []
    seconds: float = 0.0


@dataclass(frozen=True)
class KeptNetwork:
    """A network in a folder, ready to be compiled; the other attributes are those of `Backbone`.

    Attributes
    ----------
    folder, contents
        Its folder and its `network.json`.
    spec
        The specification that it was asked for with.
    """

    folder: Path
    contents: Contents
    spec: BackboneSpec
    device: str = "cpu"

    @property
    def specs(self) -> tuple[BackboneSpec, ...]:
        """One specification: kept networks have one layer."""
        return (self.spec,)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.contents.dim

    @property
    def dims(self) -> tuple[int, ...]:
        """Length of the vectors of each layer."""
        return (self.dim,)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights and preprocessing."""
        return self.contents.fingerprint

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return self.contents.n_parameters

    @property
    def preprocess(self) -> Preprocess:
        """Fits an image to the network's input."""
        return Preprocess(**vars(self.contents.preprocess))

    def compile(self, config: RuntimeConfig, n_threads: int) -> RunArray | None:
        """Compile it and check it on the probe images; None, with the reason logged, if it fails.

        Its vectors must be those that they were on this processor, bit for bit. On another one they
        must match those of eager fp32.
        """
        try:
            check_files(self.folder, self.contents.files)
            path = self.folder / next(iter(self.contents.files))
            run = compile_model(path, config, n_threads)
            call_in_thread(self._check_vectors, make_runner(run, config))
        except Exception as error:  # OpenVINO raises errors of several classes
            log.info("The network kept in %s is not used: %s", self.folder, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(self.folder / store.NETWORK)
        return run

    def _check_vectors(self, runner: Runner) -> None:
        with np.load(self.folder / PROBES, allow_pickle=False) as probes:
            images, expected = probes["images"], probes["vectors"]
        vectors = run_probes(runner, images)
        place = f"{store.describe_processor()}, {runner.config.precision}"
        digest = hashlib.sha256(vectors.tobytes()).hexdigest()
        noted = self.contents.vectors.get(place)
        if noted == digest:
            return
        if noted is not None:
            raise ValueError("the probe images no longer have the same vectors")
        smallest = compute_cosines(vectors, expected).min()
        if not smallest >= AGREEMENT:
            raise ValueError(f"its vectors differ from eager fp32 (cosine {smallest:.4f})")
        if self.folder.parent == store.find_store():
            noted_vectors = {**self.contents.vectors, place: digest}
            _write_contents(
                self.folder, msgspec.structs.replace(self.contents, vectors=noted_vectors)
            )


def run_probes(runner: Runner, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed uint8 (n, height, width, 3): float32 (n, dim)."""
    size = runner.config.batch_size
    vectors = []
    for start in range(0, len(images), size):
        batch = list(images[start : start + size])
        vectors.append(runner.start(batch).wait()[: len(batch)])
    return np.concatenate(vectors)


def compute_cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine between each row of `a` and that of `b`, float64 (n,); -1 where it is undefined."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    defined: NDArray[np.float64] = np.nan_to_num(cosines, nan=-1)
    return defined


def draw_probes(size: tuple[int, int], n: int = BATCH_SIZE) -> NDArray[np.uint8]:
    """Draw images with coarse and fine structure: uint8 (n, *size, 3), always the same."""
    rng = np.random.default_rng(0)
    images = np.zeros((n, *size, 3))
    for cells in (3, 9, 27):
        grid = rng.uniform(-1, 1, (n, cells, cells, 3))
        rows, columns = (np.arange(side) * cells // side for side in size)
        images += grid[:, rows[:, None], columns] / cells**0.5
    images += rng.normal(0, 0.1, images.shape)
    return np.clip(127 + 100 * images, 0, 255).astype(np.uint8)


# --- find and keep ------------------------------------------------------------------------------


def can_be_kept(specs: Sequence[BackboneSpec]) -> bool:
    """Whether networks of these layers are kept: of one layer, without test-time augmentation."""
    return len(specs) == 1 and specs[0].tta == "none"


def is_too_large(n_parameters: int) -> bool:
    """Whether a network with this number of weights is not kept."""
    return 4 * n_parameters > _MAX_BYTES


def find_kept_network(spec: BackboneSpec, batch_size: int | None = None) -> KeptNetwork | None:
    """Find the network of a specification: one made on this machine, or one in the package.

    None where there is none, or where the files of its weights have changed.
    """
    batch_size = batch_size or BATCH_SIZE
    if not can_be_kept([spec]) or importlib.util.find_spec("openvino") is None:
        return None
    folders = [find_network_folder(spec, batch_size)]
    if spec.source == "bundled":
        folders.append(find_bundled_folder(spec.name) / "openvino")
    for folder in folders:
        contents = read_contents(folder)
        if contents is None or contents.batch_size != batch_size:
            continue
        if BackboneSpec.from_json(contents.spec) != drop_precision(spec):
            continue
        if have_changed(spec, contents.weight_files):
            log.info("The network in %s is not used: its weights are gone or have changed.", folder)
            continue
        return KeptNetwork(folder, contents, spec)
    return None


def find_network_folder(spec: BackboneSpec, batch_size: int) -> Path:
    """The folder of a network in the store; it need not exist."""
    return store.find_entry("openvino", drop_precision(spec).to_json(), batch_size)


def drop_precision(spec: BackboneSpec) -> BackboneSpec:
    """The network is kept in fp32; its precision is that of the compilation."""
    return dataclasses.replace(spec, precision="auto")


def keep_network(
    folder: Path, model: Any, contents: Contents, probes: Mapping[str, NDArray[Any]]
) -> KeptNetwork | None:
    """Write a network of OpenVINO to `folder`; None where that fails, with the reason logged.

    `probes` are `images` as `draw_probes` makes them and their `vectors` in eager fp32. The files
    of `contents` are filled in.
    """
    if is_too_large(contents.n_parameters):
        log.debug("The network is too large to be kept.")
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*"):
            with contextlib.suppress(OSError):
                path.unlink()
        # A name of its own: another process may write, or have opened, the one before.
        path = folder / f"{uuid.uuid4().hex[:12]}.xml"
        import_openvino().save_model(model, os.fspath(path), compress_to_fp16=False)
        write_arrays(folder / PROBES, probes)
        names = (path.name, path.with_suffix(".bin").name, PROBES)
        contents = msgspec.structs.replace(contents, files=digest_files(folder, names))
        _write_contents(folder, contents)
        store.prune_store()
    except (FishfeatError, OSError, RuntimeError) as error:
        log.info("The network cannot be kept for the next run in %s: %s", folder, error)
        return None
    return KeptNetwork(folder, contents, BackboneSpec.from_json(contents.spec))


def read_contents(folder: Path) -> Contents | None:
    """Read the `network.json` of a folder; None where there is none."""
    try:
        return msgspec.convert(store.read_entry(folder / store.NETWORK), Contents)
    except msgspec.ValidationError:
        return None


def _write_contents(folder: Path, contents: Contents) -> None:
    store.write_entry(folder / store.NETWORK, msgspec.to_builtins(contents))


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise a `ValueError` where the files are not those that were written."""
    if not files or digest_files(folder, files) != files:
        raise ValueError("its files are damaged")
