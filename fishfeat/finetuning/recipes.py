"""The recipe of a fine-tune: every setting of the training, with its type and default."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from fishfeat.errors import DataError, did_you_mean
from fishfeat.options import FinetuneOptions
from fishfeat.records import Parameter

log = logging.getLogger("fishfeat")
Optimizer = Literal["adamw", "adam", "sgd", "rmsprop"]
Schedule = Literal["cosine", "constant"]
ClassWeights = Literal["none", "balanced"]
HeadStart = Literal["random", "solved", "tempered"]
Kept = Literal["last", "best"]

# Transforms that can be computed once for each image and stored.
_STORED = re.compile(r"none|flip|d4|rotate:([2-9]|[1-9]\d)")
# Transforms that are drawn anew for each image and epoch.
DRAWN = ("light", "fish", "affine")
_TRAIN = re.compile(r"head|full|scratch|last:[1-9]\d*")
_SWEEP = re.compile(r"last:(\d{1,3})\.\.(\d{1,3})")
_TITLE = re.compile(r"([A-Za-z0-9][\w.+-]*)?")
_LAYER = re.compile(r"dense [1-9]\d*|dropout 0?\.\d+|dropout 0")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned.

    Attributes
    ----------
    title
        Name of the run. '' is made of what is trained: 'finetune-last4'.
    network
        Network to train instead of that of the features, as `BackboneOptions.backbone` takes it.
        From scratch the name of an architecture of timm or of a plain network with its settings:
        'cnn-c,batch_norm=true'. '' is the network of the features.
    train
        Which part is trained beside the head: 'last:K' (the last K blocks), 'head' (nothing else:
        logistic regression on the cached features), 'full' (all blocks) or 'scratch' (all blocks,
        from random weights).
    epochs
        Passes over the training images.
    lr, head_lr
        Largest learning rate of the trained blocks and of the head.
    augment
        Transforms of the training images. One of 'none', 'flip', 'd4' (rotations and mirror images
        of a square) or 'rotate:N' is stored for each image, so that the frozen blocks run once.
        'light' (mirror image, brightness, contrast and saturation), 'fish' (also small rotations
        and crops) and 'affine' (mirror image, rotations to 40 degrees, shifts and zoom to 20 %) are
        drawn anew in each epoch.
    tta
        Test-time augmentation when images are scored, as in `BackboneSpec`: the vectors of the
        transforms are averaged before the head.
    batch_size
        Images in one step of the optimiser.
    micro_batch
        Images that pass at a time; the gradients of a batch are summed. Small ones are quicker on a
        processor.
    optimizer
        'adamw', 'adam' (weight decay is added to the gradient), 'sgd' with momentum 0.9, or
        'rmsprop' (with the decay of 0.9 that Keras has).
    weight_decay
        Weight decay of the optimiser; biases and normalisation layers have none.
    layer_decay
        Each block has this many times the learning rate of the next one.
    schedule
        'cosine' lowers the rates to zero, 'constant' does not.
    warmup
        Share of the steps in which the rates grow from zero.
    label_smoothing
        Share of the target that all classes have in common.
    mixup, cutmix
        Parameter alpha of the two; 0 is off.
    ema
        Decay of the moving average of the weights for each step; 0 is off.
    class_weights
        'balanced' weights classes inversely to their number of training images.
    clip_grad
        Largest norm of the gradient; 0 is no limit.
    stages
        What is trained first and then, with the epochs of each: 'head:5,full:2'. '' is `train` for
        `epochs`.
    head
        Layers before the last linear one, such as 'dense 512, dropout 0.2'; '' is none.
    head_start
        Weights of the head before the training: 'random', 'solved' (logistic regression on the
        cached features) or 'tempered' (the same, with a calibrated confidence).
    select
        Select rate, number of epochs and share of the way from the first weights to the last on a
        grouped validation part of each training fold, then train on the whole fold.
    validation
        Share of the training groups of a fold that are not trained on. Loss and accuracy on them
        are noted after each epoch. 0 is none.
    keep
        Weights to keep: those of the 'last' epoch, or of the 'best', with the smallest loss on the
        validation part.
    patience
        Epochs without a smaller loss on the validation part after which a stage ends; 0 is off.
    """

    title: str = ""
    network: str = ""
    train: str = "last:4"
    epochs: int = 5
    lr: float = 3e-4
    head_lr: float = 3e-3
    augment: str = "flip"
    tta: str = "none"
    batch_size: int = 32
    micro_batch: int = 8
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    class_weights: ClassWeights = "none"
    clip_grad: float = 0.0
    stages: str = ""
    head: str = ""
    head_start: HeadStart = "random"
    select: bool = False
    validation: float = 0.0
    keep: Kept = "last"
    patience: int = 0

    def __post_init__(self) -> None:
        """Check each setting.

        Raises
        ------
        DataError
            A setting has a value that is not allowed.
        """
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _check_kind(name, kind, getattr(self, name)))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise DataError(f"{name} must be from {low:g} to {high:g}; got {value:g}.")
        check_train(self.train)
        if not _STORED.fullmatch(self.augment) and self.augment not in DRAWN:
            raise DataError(
                "augment must be none, flip, d4, rotate:N (N from 2 to 99), light, fish or affine; "
                f"got {self.augment!r}."
                f"{did_you_mean(self.augment, ('none', 'flip', 'd4', *DRAWN))}"
            )
        if not _STORED.fullmatch(self.tta):
            raise DataError(
                "tta must be none, flip, d4 or rotate:N (N from 2 to 99); got "
                f"{self.tta!r}.{did_you_mean(self.tta, ('none', 'flip', 'd4'))}"
            )
        if not _TITLE.fullmatch(self.title):
            raise DataError(
                "title must be letters, digits and . + - _, and start with a letter or digit; got "
                f"{self.title!r}."
            )
        self._check_validation()
        self.list_stages()
        self.list_head_layers()

    def _check_validation(self) -> None:
        """Raise a `DataError` where settings of the validation part do not fit each other."""
        if self.validation and self.select:
            raise DataError(
                "validation must be 0 where select is on: it has a validation part of its own."
            )
        if not self.validation and (self.keep == "best" or self.patience):
            raise DataError(
                "keep = best and patience need a validation part: validation must be a share, such "
                f"as 0.1; got keep = {self.keep}, patience = {self.patience}, validation = 0."
            )

    @property
    def is_drawn(self) -> bool:
        """Whether each epoch sees other inputs, so that no activations can be stored."""
        return self.augment in DRAWN or self.mixup > 0 or self.cutmix > 0

    @property
    def can_be_stored(self) -> bool:
        """Whether stored activations hold all inputs of training and scoring."""
        return not self.is_drawn and self.tta in ("none", self.augment)

    @property
    def is_solved(self) -> bool:
        """Whether nothing but a linear layer on cached features is trained: then it is solved."""
        has_more = bool(self.stages or self.head or self.network) or self.tta != "none"
        trains_epochs = has_more or self.is_drawn
        return self.train == "head" and not trains_epochs

    @property
    def name(self) -> str:
        """Name of a run: 'finetune-last4'."""
        if self.title:
            return self.title
        trained = "-".join(part.partition(":")[0] for part in self.stages.split(",") if part)
        words = ["finetune", trained or self.train.replace(":", ""), _label_network(self.network)]
        return "-".join(filter(None, words))

    def list_stages(self) -> tuple[Stage, ...]:
        """What is trained, in order, and for how many epochs.

        Raises
        ------
        DataError
            `stages` is not like 'head:5,full:2'.
        """
        if not self.stages:
            return (Stage(self.train, self.epochs),)
        stages = []
        for text in self.stages.split(","):
            train, _, epochs = text.strip().rpartition(":")
            if not epochs.isdecimal() or int(epochs) < 1 or train == "last":
                raise DataError(
                    "stages must be parts, each with its epochs, such as 'head:5,last:4:2'; got "
                    f"{text!r}."
                )
            check_train(train, "stages")
            stages.append(Stage(train, int(epochs)))
        return tuple(stages)

    def limit_epochs(self, n_epochs: int) -> Recipe:
        """The recipe with at most `n_epochs` epochs in each stage.

        Raises
        ------
        DataError
            `n_epochs` is less than 1.
        """
        if n_epochs < 1:
            raise DataError(f"max_epochs must be at least 1; got {n_epochs}.")
        parts = [(part.train, min(part.epochs, n_epochs)) for part in self.list_stages()]
        stages = ",".join(f"{train}:{epochs}" for train, epochs in parts) if self.stages else ""
        return dataclasses.replace(self, epochs=min(self.epochs, n_epochs), stages=stages)

    def list_head_layers(self) -> tuple[HeadLayer, ...]:
        """The layers before the last linear one.

        Raises
        ------
        DataError
            `head` is not like 'dense 512, dropout 0.2'.
        """
        layers = []
        for text in filter(None, (part.strip() for part in self.head.split(","))):
            if not _LAYER.fullmatch(text):
                raise DataError(
                    "head must be layers 'dense UNITS' and 'dropout SHARE', such as 'dense 512, "
                    f"dropout 0.2'; got {text!r}."
                )
            kind, _, size = text.partition(" ")
            layers.append(HeadLayer(kind, float(size)))
        return tuple(layers)

    def to_dict(self) -> dict[str, Parameter]:
        """Every setting by name, as JSON can hold it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Stage:
    """A part of the training: what is trained, and for how many epochs."""

    train: str
    epochs: int


@dataclass(frozen=True)
class HeadLayer:
    """A layer of the head: 'dense' with its units, or 'dropout' with its share."""

    kind: str
    size: float


_RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "lr": (0, 1e9),
    "head_lr": (0, 1e11),  # where lr alone is given, it is about ten times as large
    "batch_size": (1, 65_536),
    "micro_batch": (1, 65_536),
    "weight_decay": (0, 1e3),
    "layer_decay": (0.01, 1),
    "warmup": (0, 1),
    "label_smoothing": (0, 0.99),
    "mixup": (0, 100),
    "cutmix": (0, 100),
    "ema": (0, 0.999999),
    "clip_grad": (0, 1e9),
    "validation": (0, 0.5),
    "patience": (0, 10_000),
}


def measure_depth(train: str) -> int:
    """How many of the last blocks `train` trains; of all blocks a number that no network has."""
    if train == "head":
        return 0
    return int(train.partition(":")[2]) if train.startswith("last:") else 10**9


def _label_network(network: str) -> str:
    """A network's name as a part of the name of a run."""
    return re.sub(r"[^\w.+-]+", "-", os.path.basename(network.rstrip("/")))


def check_train(train: str, setting: str = "train") -> None:
    """Raise a `DataError` where `train`, a value of `setting`, names no part of a network."""
    if not _TRAIN.fullmatch(train):
        raise DataError(
            f"{setting} must be last:K (K a number of blocks), head, full or scratch; got "
            f"{train!r}. `fishfeat finetune --blocks` lists the blocks."
        )


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes"}


def _check_kind(name: str, kind: Any, value: Any) -> Any:
    """The value, as the type that the setting has; a `DataError` where it is of another one."""
    choices = get_args(kind)
    if choices and value not in choices:
        raise DataError(
            f"{name} must be one of {', '.join(choices)}; got {value!r}."
            f"{did_you_mean(str(value), choices)}"
        )
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not choices and type(value) is not kind:
        raise DataError(f"{name} must be {_KINDS[kind]}; got {value!r}.")
    if kind is float and value != value:
        raise DataError(f"{name} must be a number; got {value!r}.")
    return value


def make_recipes(options: FinetuneOptions) -> list[Recipe]:
    """The recipes of a sweep, the one that trains least first; without one a single recipe.

    Raises
    ------
    DataError
        There is no such recipe, or a setting is wrong.
    """
    if options.sweep is None:
        return [make_recipe(options)]
    recipe = make_recipe(dataclasses.replace(options, sweep=None, train="last:1"))
    recipes = []
    for train in parse_sweep(options.sweep, options.train):
        title = f"{recipe.title}-{train.replace(':', '')}" if recipe.title else ""
        part = dataclasses.replace(recipe, train=train, title=title)
        # A solved head has no epochs or rates: with all of them it is one and the same run.
        recipes.append(Recipe(train=train, title=title) if part.is_solved else part)
    return recipes


def parse_sweep(sweep: str, train: str | None = None) -> list[str]:
    """'last:0..2' -> 'head', 'last:1', 'last:2'.

    Raises
    ------
    DataError
        It is of another form, or `train` is given too.
    """
    found = _SWEEP.fullmatch(sweep)
    first, last = (int(number) for number in found.groups()) if found else (1, 0)
    if train is not None or first > last:
        other = f"sweep {sweep!r} with train {train!r}" if train else repr(sweep)
        raise DataError(
            "sweep must be last:FIRST..LAST, such as last:0..9 (0 is the head alone), and takes "
            f"the place of train; got {other}."
        )
    return [f"last:{n}" if n else "head" for n in range(first, last + 1)]


def make_recipe(options: FinetuneOptions) -> Recipe:
    """The recipe that is named, with what the other options change.

    Raises
    ------
    DataError
        There is no such recipe, or a setting is wrong.
    """
    settings: dict[str, Any] = {}
    if options.recipe is not None:
        settings = _read_settings(options.recipe)
    for name in ("network", "train", "epochs", "lr", "augment"):
        value = getattr(options, name)
        if value is not None:
            settings[name] = value
    if options.network and settings.get("title"):
        settings["title"] += f"-{_label_network(options.network)}"
    has_other_stages = options.train is not None or options.epochs is not None
    if has_other_stages and settings.pop("stages", None):
        log.info("The stages of the recipe are not trained: train and epochs replace them.")
    if options.lr is not None and "head_lr" not in settings:
        settings["head_lr"] = _HEAD_RATIO * options.lr
    if options.select:
        settings["select"] = True
    recipe = Recipe(**settings)
    if options.max_epochs is not None:
        recipe = recipe.limit_epochs(options.max_epochs)
    if recipe.is_solved:
        _check_unused(options)
    return recipe


def check_img_size(recipe: Recipe, img_size: int | None) -> None:
    """Raise a `DataError` where a solved head is given an input size, which it does not have."""
    if recipe.is_solved and img_size is not None:
        raise DataError(
            "img_size has no effect where only the head is trained: it is solved on the cached "
            "features. Use `fishfeat extract --img-size` and `fishfeat fit`, or another --train."
        )


def _check_unused(options: FinetuneOptions) -> None:
    """Raise a `DataError` where an option is given that a solved head does not have."""
    for name in ("epochs", "max_epochs", "lr", "augment", "select"):
        if getattr(options, name) not in (None, False):
            raise DataError(
                f"{name} has no effect where only the head is trained: it is solved, not trained "
                f"in epochs. Leave {name} out, or use another --train."
            )


# The recipes in the package.
_NAMED = Path(__file__).parent / "named_recipes"
# The head starts from random weights, and learns at this many times the rate of the blocks.
_HEAD_RATIO = Recipe.head_lr / Recipe.lr


def list_recipes() -> list[str]:
    """The names of the recipes in the package."""
    return sorted(path.stem for path in _NAMED.glob("*.toml"))


def describe_recipes() -> dict[str, str]:
    """The recipes in the package: name -> what it trains."""
    described = {}
    for name in list_recipes():
        first_line = (_NAMED / f"{name}.toml").read_text(encoding="utf-8").partition("\n")[0]
        described[name] = first_line.removeprefix("# ")
    return described


def _find_recipe(recipe: str | os.PathLike[str]) -> Path:
    """The file of a recipe; a name in the package comes before a file of that name."""
    named = _NAMED / f"{os.fspath(recipe)}.toml"
    return named if os.fspath(recipe) in list_recipes() else Path(recipe)


def _read_settings(recipe: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of a recipe that is named or in a TOML file."""
    path = _find_recipe(recipe)
    try:
        text = path.read_text(encoding="utf-8")
        settings = tomllib.loads(text)
    except OSError as error:
        raise DataError(
            f"recipe must be a TOML file or one of {', '.join(list_recipes())}; "
            f"{os.fspath(recipe)!r} cannot be read ({error.strerror})."
            f"{did_you_mean(os.fspath(recipe), list_recipes())}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a TOML file: {error}.") from error
    names = [setting.name for setting in dataclasses.fields(Recipe)]
    for name in settings:
        if name not in names:
            raise DataError(
                f"{path}: {name!r} is not a setting of a recipe.{did_you_mean(name, names)} "
                f"Settings: {', '.join(names)}."
            )
    try:
        Recipe(**settings)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return settings
