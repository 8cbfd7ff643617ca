"""What an engine needs to know of a network and of the runtime that runs it; loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fishfeat.features.preprocess import Preprocess
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import RuntimeConfig

RGB = NDArray[np.uint8]


class PendingVectors(Protocol):
    """Vectors of a batch that may still be computed or copied."""

    def wait(self) -> NDArray[np.float32]:
        """Wait until they are complete: float32 (n, dim)."""


class ComputedVectors(NamedTuple):
    """Vectors float32 (n, dim) of a batch, complete."""

    vectors: NDArray[np.float32]

    def wait(self) -> NDArray[np.float32]:
        """The vectors."""
        return self.vectors


class Runner(NamedTuple):
    """A network that is ready to run.

    Attributes
    ----------
    config
        How it runs.
    start
        Sends images uint8 (height, width, 3), at most `config.batch_size` of them, through the
        network. Further rows of the vectors belong to no image.
    """

    config: RuntimeConfig
    start: Callable[[Sequence[RGB]], PendingVectors]


class Network(Protocol):
    """Facts of a frozen network: `Backbone` has them, and so has a network kept on this machine.

    The attributes are those of `fishfeat.features.backbones.Backbone`.
    """

    @property
    def specs(self) -> tuple[BackboneSpec, ...]: ...
    @property
    def dims(self) -> tuple[int, ...]: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def device(self) -> object: ...
