"""Cut a network before its first trained block, so that the frozen part runs once for each image.

Any network is cut in the same way. Its frozen part is moved to torch's `meta` device, where tensors
have a shape and no values, and its own `forward` runs as ever. A hook replaces the input of the
first trained block by the activations that were stored. What the frozen part passes around this
block would be a tensor without values: then the network cannot be cut there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fishfeat.features.backbones import Backbone
from fishfeat.finetuning.blocks import (
    Block,
    list_blocks,
    list_modules,
    name_parameters,
    select_blocks,
)
from fishfeat.finetuning.networks import TrainedNetwork, make_head

# uint8 (n, 3, height, width) -> activations (n, ...).
RunFrozen = Callable[[Tensor], Tensor | None]
# Images in the batch that proves a cut.
_N_PROBES = 2
# Candidate granularities are probed before this many last blocks.
_PROBED = "last:2"


class Cut(NamedTuple):
    """Where a network is cut.

    Attributes
    ----------
    module
        Name of the first trained module, as in `network.named_modules()`.
    shape
        Shape of its input for one image.
    """

    module: str
    shape: tuple[int, ...]


class _Stop(Exception):
    """Ends a forward pass at the cut, and carries the inputs of the module there."""

    def __init__(self, inputs: list[Any]) -> None:
        super().__init__()
        self.inputs = inputs


def find_cut(
    network: TrainedNetwork, trained: Sequence[Block], size: tuple[int, int]
) -> Cut | None:
    """Find where a network can be cut before its trained blocks.

    The cut is proven: from the activations of a batch the rest of the network must compute the same
    logits, bit for bit, as the whole network from the images.

    Parameters
    ----------
    network, trained
        The network, and its blocks that learn.
    size
        Height and width of its input.

    Returns
    -------
    The cut, or None where the network has none: a trained module has several inputs, or frozen
    activations go around it.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_N_PROBES, 3, *size), dtype=torch.uint8, generator=generator)
    images = images.to(network.mean.device)
    for name in _list_candidates(network, trained, images):
        with torch.no_grad(), stop_before(network, name) as run_frozen:
            activations = run_frozen(images)
        if activations is None:
            continue
        cut = Cut(name, tuple(activations.shape[1:]))
        if _proves(network, cut, images, activations):
            return cut
    return None


def _list_candidates(
    network: TrainedNetwork, trained: Sequence[Block], images: Tensor
) -> list[str]:
    """Names of the trained modules that are called first, the outermost before those inside it."""
    modules = dict(list_modules(network.network, name_parameters(trained)))
    called: list[str] = []
    hooks = []
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(_make_recorder(called, name)))
    with torch.no_grad():
        network.embed(images)
    for hook in hooks:
        hook.remove()
    if not called:
        return []
    first = called[0]
    return [name for name in called if name == first or name.startswith(f"{first}.")][:4]


def _make_recorder(called: list[str], name: str) -> Callable[[nn.Module, Any], None]:
    def record(module: nn.Module, inputs: Any) -> None:
        called.append(name)

    return record


@contextlib.contextmanager
def stop_before(network: TrainedNetwork, module: str) -> Iterator[RunFrozen]:
    """Give the function that runs the frozen part: images become the input of a module.

    Several threads may call it. It gives None where the module takes anything but one tensor with a
    row for each image.
    """

    def stop(_: nn.Module, inputs: Any, keywords: Any) -> None:
        raise _Stop([*inputs, *keywords.values()])

    def run_frozen(images: Tensor) -> Tensor | None:
        try:
            network.embed(images)
        except _Stop as reached:
            first, *others = reached.inputs
            is_alone = not any(isinstance(x, Tensor) for x in others)
            if is_alone and isinstance(first, Tensor) and len(first) == len(images):
                return first
        return None

    hook = network.network.get_submodule(module).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        yield run_frozen
    finally:
        hook.remove()


class CutNetwork(nn.Module):
    """The rest of a network behind a cut: stored activations become logits.

    Parameters
    ----------
    network
        The whole network; its trained parameters and its head are shared with this one.
    cut
        Where it is cut.
    size
        Height and width of the images.
    """

    def __init__(self, network: TrainedNetwork, cut: Cut, size: tuple[int, int]) -> None:
        super().__init__()
        self.whole = network
        self._rest = _copy_without_frozen(network)
        self._size = size
        self._activations: Tensor | None = None
        module = self._rest.network.get_submodule(cut.module)
        module.register_forward_pre_hook(self._inject, with_kwargs=True)
        _remember_shapes(self._rest.network, cut)

    @property
    def head(self) -> nn.Module:
        """The head of the whole network."""
        return self.whole.head

    def embed(self, activations: Tensor) -> Tensor:
        """Embed from the input of the cut module (n, ...): float32 (n, dim)."""
        self._activations = activations
        images = torch.empty(len(activations), 3, *self._size, device="meta")
        try:
            return self._rest.embed_normalised(images)
        finally:
            self._activations = None

    def forward(self, activations: Tensor) -> Tensor:
        """Classify from the input of the cut module: logits (n, n_classes)."""
        logits: Tensor = self.whole.head(self.embed(activations))
        return logits

    def _inject(self, module: nn.Module, inputs: Any, keywords: Any) -> Any:
        return (self._activations, *inputs[1:]), keywords


def _copy_without_frozen(network: TrainedNetwork) -> TrainedNetwork:
    """A copy that shares what is trained; what is frozen has no values.

    Buffers of trained modules (the statistics of batch norm) keep their values.
    """
    # A deep copy takes what is in the memo as it is: so the trained parameters are shared, and the
    # frozen ones are never copied.
    memo: dict[int, Any] = {}
    learns = {name for name, value in network.network.named_parameters() if value.requires_grad}
    trained = {id(module) for _, module in list_modules(network.network, learns)}
    for parameter in network.parameters():
        if parameter.requires_grad:
            memo[id(parameter)] = parameter
        else:
            memo[id(parameter)] = nn.Parameter(parameter.to("meta"), requires_grad=False)
    for module in network.modules():
        if id(module) in trained:
            continue
        for buffer in module._buffers.values():
            if buffer is not None:
                memo[id(buffer)] = buffer.to("meta")
    return network.copy_with(memo)


def _remember_shapes(network: nn.Module, cut: Cut) -> None:
    """Let each module before the cut compute the shape of its output once for each batch size.

    Shapes on the `meta` device take as long as the arithmetic of a small network.
    """
    for name, module in network.named_modules():
        leads_to_cut = not name or f"{cut.module}.".startswith(f"{name}.")
        if not leads_to_cut and not name.startswith(f"{cut.module}."):
            module.forward = _Remembered(module.forward)


class _Remembered:
    """A function of tensors that is called once for each shape of tensors without values."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._outputs: dict[Any, Any] = {}

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        if keywords or not all(isinstance(x, Tensor) and x.is_meta for x in inputs):
            return self._forward(*inputs, **keywords)
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key not in self._outputs:
            self._outputs[key] = self._forward(*inputs)
        return self._outputs[key]


def _proves(network: TrainedNetwork, cut: Cut, images: Tensor, activations: Tensor) -> bool:
    """Whether the rest of the network computes the same logits as the whole network."""
    try:
        with torch.no_grad():
            expected = network(images)
            computed = CutNetwork(network, cut, (images.shape[2], images.shape[3]))(activations)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return False  # a tensor without values met one with values
    return computed.device == expected.device and torch.equal(computed, expected)


def must_be_coarse(backbone: Backbone) -> bool:
    """Whether the blocks of a network must be its stages, since it cannot be cut before the others.

    In DenseNet each block takes the outputs of all earlier ones.
    """
    blocks = list_blocks(backbone.network)
    if len(blocks) < 3:
        return False
    last = select_blocks(blocks, _PROBED)
    head = make_head(backbone.dim, 2, (), torch.Generator().manual_seed(0))
    network = TrainedNetwork(backbone, head.to(backbone.device), last)
    return find_cut(network, last, backbone.preprocess.size) is None
