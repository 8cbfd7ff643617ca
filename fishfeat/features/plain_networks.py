"""A family of plain convolutional networks, to be trained from scratch.

Each is a sequence of blocks (convolutions, then a max-pool) and dense layers. Everything about them
is a setting, so one class serves for the small networks of a course as well as for VGG-16. timm
knows them by name, so they are built, saved and loaded like its own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
from timm.models import PretrainedCfg, build_model_with_cfg, register_model
from torch import Tensor, nn

from fishfeat.errors import BackboneError, did_you_mean


class Convolution(NamedTuple):
    """A convolution: its output channels, and the side of its kernel."""

    width: int
    kernel: int


@dataclass(frozen=True, kw_only=True)
class PlainShape:
    """The settings of a plain network.

    Attributes
    ----------
    widths
        Channels of the convolutions: '64+64-128+128' is two blocks of two. '2048/1' has a kernel of
        1 x 1.
    convolutions
        How often each convolution of `widths` is repeated.
    width_divisor
        Divides all widths and dense sizes.
    kernel, padding
        Side of the kernels, and rows of zeros around each input; those of another size than
        `kernel` keep the height and width.
    batch_norm
        Batch norm after every convolution.
    dropout
        Share of the channels that are dropped after each block.
    dense
        Sizes of the dense layers before the last one: '4096-4096-1000'; '' is none.
    dense_dropout
        Share of the values that are dropped after each dense layer.
    end
        What follows the last block: 'flatten' or 'max' (the largest value of each channel).
    """

    widths: str
    convolutions: int = 1
    width_divisor: int = 1
    kernel: int = 3
    padding: int = 1
    batch_norm: bool = False
    dropout: float = 0.0
    dense: str = ""
    dense_dropout: float = 0.0
    end: str = "flatten"

    def list_blocks(self) -> list[list[Convolution]]:
        """The convolutions of each block."""
        blocks = []
        for block in self.widths.split("-"):
            convolutions = []
            for text in block.split("+"):
                width, _, kernel = text.partition("/")
                one = Convolution(self._divide(int(width)), int(kernel or self.kernel))
                convolutions += [one] * self.convolutions
            blocks.append(convolutions)
        return blocks

    def list_dense(self) -> list[int]:
        """The sizes of the dense layers."""
        return [self._divide(int(size)) for size in filter(None, self.dense.split("-"))]

    def _divide(self, width: int) -> int:
        return max(1, width // self.width_divisor)


class Preset(NamedTuple):
    """A network of the family: its shape, and the side of its input in pixels."""

    shape: PlainShape
    img_size: int


PRESETS: Mapping[str, Preset] = {
    "lenet-b": Preset(
        PlainShape(widths="30-40-50-60", kernel=5, batch_norm=True, dense="800-200-80"), 128
    ),
    "cnn-c": Preset(PlainShape(widths="32-64-128-256", dense="1024"), 224),
    "vgg16-d": Preset(
        PlainShape(
            widths="64+64-128+128-256+256+256-512+512+512-512+512+512", dense="4096-4096-1000"
        ),
        128,
    ),
    # Hasanpour et al., Let's keep it simple, using simple architectures, arXiv 1608.06037.
    "simplenet": Preset(
        PlainShape(
            widths="64+128+128+128-128+128+256-256+256-512-2048/1+256/1-256",
            batch_norm=True,
            dropout=0.1,
            end="max",
        ),
        128,
    ),
}


class SeededDropout(nn.Dropout):
    """Dropout whose values depend on a seed alone, not on what other threads have drawn.

    Attributes
    ----------
    seed
        Set before each step of a training.
    """

    seed: int = 0

    def forward(self, x: Tensor) -> Tensor:
        """Set a share `p` of the values to 0 and scale the others; in evaluation keep all."""
        if not self.training or self.p == 0:
            return x
        generator = torch.Generator(device=x.device).manual_seed(self.seed)
        kept = torch.empty_like(self._select(x)).bernoulli_(1 - self.p, generator=generator)
        return x * kept / (1 - self.p)

    def _select(self, x: Tensor) -> Tensor:
        """What is dropped together: single values."""
        return x


class SeededChannelDropout(SeededDropout):
    """The same for whole channels of a feature map (n, channels, height, width)."""

    def _select(self, x: Tensor) -> Tensor:
        return x[:, :, :1, :1]


def seed_dropout(network: nn.Module, seed: int) -> None:
    """Give every dropout of a network a seed of its own."""
    for i, module in enumerate(network.modules()):
        if isinstance(module, SeededDropout):
            module.seed = (seed + i) % 2**63


class PlainNetwork(nn.Module):
    """Blocks of convolutions and max-pools, dense layers, and a linear classifier.

    Images float32 (n, in_chans, height, width) become logits (n, num_classes), or features
    (n, num_features) where `num_classes` is 0. Methods and attributes are those of timm's networks.

    Parameters
    ----------
    shape
        The settings.
    img_size
        Side of the input in pixels.
    num_classes, in_chans
        Classes, and channels of the input.

    Raises
    ------
    BackboneError
        The input is too small for the blocks.
    """

    def __init__(
        self, shape: PlainShape, *, img_size: int, num_classes: int = 1000, in_chans: int = 3
    ) -> None:
        super().__init__()
        blocks, width, side = [], in_chans, img_size
        shapes = shape.list_blocks()
        for i, convolutions in enumerate(shapes):
            # The largest value of each channel is the same with and without a pool before it.
            pools = shape.end == "flatten" or i + 1 < len(shapes)
            blocks.append(_make_block(width, convolutions, shape, pools=pools))
            width = convolutions[-1].width
            side = _measure_side(side, convolutions, shape) // (2 if pools else 1)
        if side < 1:
            raise BackboneError(
                f"img_size must be larger for the {len(blocks)} blocks of this network, each of "
                f"which halves the image; got {img_size}."
            )
        self.blocks = nn.Sequential(*blocks)
        self.end = _make_end(shape)
        dim = width if shape.end == "max" else width * side * side
        dense = []
        for size in shape.list_dense():
            dense.append(_make_dense(dim, size, shape.dense_dropout))
            dim = size
        self.dense = nn.Sequential(*dense)
        self.num_features = self.head_hidden_size = dim
        self.feature_info = [{"module": f"blocks.{i}"} for i in range(len(blocks))]
        self.reset_classifier(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """How timm groups the parameters: each block and each dense layer is a group."""
        del coarse
        return {"blocks": r"^blocks\.(\d+)", "dense": r"^dense\.(\d+)"}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear classifier; 0 classes remove it."""
        del global_pool
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (n, in_chans, height, width) become a feature map (n, channels, h, w)."""
        features: Tensor = self.blocks(x)
        return features

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int], *, intermediates_only: bool = True
    ) -> list[Tensor]:
        """The feature maps of some blocks, in ascending order."""
        del intermediates_only
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in indices:
                maps.append(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """A feature map becomes logits, or with `pre_logits` the features before them."""
        x = self.dense(self.end(x))
        logits: Tensor = x if pre_logits else self.head(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Images become logits, or features where there is no classifier."""
        return self.forward_head(self.forward_features(x))


def _make_block(
    width: int, convolutions: list[Convolution], shape: PlainShape, *, pools: bool
) -> nn.Sequential:
    """Convolutions with ReLU, and a max-pool that halves height and width where the block pools."""
    layers: list[nn.Module] = []
    for convolution in convolutions:
        padding = _choose_padding(convolution, shape)
        layers.append(nn.Conv2d(width, convolution.width, convolution.kernel, padding=padding))
        if shape.batch_norm:
            layers.append(nn.BatchNorm2d(convolution.width))
        layers.append(nn.ReLU(inplace=True))  # saves memory
        width = convolution.width
    if pools:
        layers.append(nn.MaxPool2d(2))
    if shape.dropout:
        layers.append(SeededChannelDropout(shape.dropout))
    return nn.Sequential(*layers)


def _choose_padding(convolution: Convolution, shape: PlainShape) -> int:
    same = convolution.kernel == shape.kernel
    return shape.padding if same else (convolution.kernel - 1) // 2


def _measure_side(side: int, convolutions: list[Convolution], shape: PlainShape) -> int:
    """Side of the output of a block's convolutions in pixels."""
    for convolution in convolutions:
        side += 2 * _choose_padding(convolution, shape) - convolution.kernel + 1
    return side


def _make_end(shape: PlainShape) -> nn.Module:
    if shape.end == "max":
        return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return nn.Flatten()


def _make_dense(n_in: int, n_out: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(n_in, n_out), nn.ReLU()]
    if dropout:
        layers.append(SeededDropout(dropout))
    return nn.Sequential(*layers)


# --- names ------------------------------------------------------------------------------------


def split_settings(name: str) -> tuple[str, dict[str, Any]]:
    """Split 'cnn-c,convolutions=2' into the network and its settings.

    Raises
    ------
    BackboneError
        The network is not of this family, or has no such setting, or a value is wrong.
    """
    preset, *texts = name.split(",")
    if not texts:
        return preset, {}
    if preset not in PRESETS:
        raise BackboneError(
            f"{preset!r} has no settings; {', '.join(PRESETS)} have. Got {name!r}."
            f"{did_you_mean(preset, PRESETS)}"
        )
    return preset, dict(_parse_setting(text) for text in texts)


_WIDTH = r"[1-9]\d*(/[1-9]\d?)?"
_PATTERNS = {
    "widths": (rf"{_WIDTH}([+-]{_WIDTH})*", "numbers such as 64+64-128+128"),
    "dense": (r"([1-9]\d*(-[1-9]\d*)*)?", "numbers such as 4096-1000"),
    "end": ("flatten|max", "flatten or max"),
    "int": (r"\d{1,4}", "a whole number above 0"),
    "float": (r"0?\.\d+|0", "a share from 0 to 1"),
    "bool": ("true|false", "true or false"),
}


def _parse_setting(text: str) -> tuple[str, Any]:
    name, _, value = (part.strip() for part in text.partition("="))
    kinds = {field.name: str(field.type) for field in dataclasses.fields(PlainShape)}
    if name not in kinds:
        raise BackboneError(
            f"{name!r} is not a setting of a plain network.{did_you_mean(name, kinds)} Settings: "
            f"{', '.join(kinds)}."
        )
    kind = kinds[name]
    pattern, allowed = _PATTERNS.get(name) or _PATTERNS[kind]
    is_zero = kind == "int" and name != "padding" and value == "0"
    if not re.fullmatch(pattern, value) or is_zero:
        raise BackboneError(f"{name} must be {allowed}; got {text!r}.")
    convert = {"int": int, "float": float, "bool": lambda word: word == "true"}.get(kind, str)
    return name, convert(value)  # type: ignore[operator]


def register_plain_networks() -> None:
    """Make every network of the family known to timm."""
    for name, preset in PRESETS.items():
        if not timm.is_model(name):
            _register(name, preset)


def _register(name: str, preset: Preset) -> None:
    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return _build_network(name, preset, pretrained, arguments)

    build.__name__ = name
    register_model(build)


def _build_network(
    name: str, preset: Preset, pretrained: bool, arguments: dict[str, Any]
) -> nn.Module:
    """Build a network in timm's way, which also loads weights of a folder."""
    names = [setting.name for setting in dataclasses.fields(PlainShape)]
    settings = {key: arguments.pop(key) for key in names if key in arguments}
    shape = dataclasses.replace(preset.shape, **settings)
    side = arguments.pop("img_size", preset.img_size)
    given = arguments.pop("pretrained_cfg", None)
    config = PretrainedCfg(
        architecture=name,
        input_size=(3, side, side),
        crop_pct=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        first_conv="blocks.0.0",
        classifier="head",
    )
    network: nn.Module = build_model_with_cfg(
        partial(PlainNetwork, shape, img_size=side),
        name,
        pretrained,
        pretrained_cfg=given or config,
        **arguments,
    )
    return network
