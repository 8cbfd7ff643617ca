"""Make the weights of the backbone ``nano`` by distilling a larger network.

One command, run from the project's root, makes ``config.json`` and ``model.safetensors``::

    python tools/distill_nano.py --teacher ../shared/backbones/mobilenetv2_100.tf2_in1k \
        --photos ../shared/data/unlabelled-144 --out fishfeat/weights/nano

Three steps, no label anywhere:

1. *Crops*: random crops of every photograph, strongly squashed, recoloured and coarsened; each is
   stored small for the student, and the teacher's features of it at 224 px beside it.
2. *Prune*: a network of half the teacher's width takes its first weights from the teacher, layer
   by layer: the principal components of each stage, the hidden channels that matter most, and
   least squares for every 1 x 1 convolution.
3. *Distil*: the student learns to give the teacher's features for the same crops.

The seed stands in ``CropRecipe`` and ``TrainRecipe``; a run repeats up to the order in which
threads add numbers. Two processor cores need about an hour and a half; CUDA is used where there is
one. An interrupted run goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from timm.models._efficientnet_blocks import DepthwiseSeparableConv
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

log = logging.getLogger("distill_nano")

# Crops handled at once: so few that the teacher's maps stay in a processor's cache.
BLOCK = 8
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class CropRecipe:
    """Everything that decides which crops are made; a cache made by another recipe is not used."""

    seed: int = 20261120
    rounds: int = 5
    teacher_size: int = 224
    student_size: int = 144
    area: tuple[float, float] = (0.12, 1.0)
    max_ratio: float = 2.2
    coarse_side: tuple[int, int] = (28, 128)


# --------------------------------------------------------------------------------------------
# 1. crops


def cut(photo: Image.Image, recipe: CropRecipe, rng: np.random.Generator) -> Image.Image:
    """Return a random rectangle of the photograph, squashed to a square."""
    width, height = photo.size
    area = rng.uniform(*recipe.area) * width * height
    ratio = math.exp(rng.uniform(-1, 1) * math.log(recipe.max_ratio))
    w = min(width, math.sqrt(area * ratio))
    h = min(height, math.sqrt(area / ratio))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    # Half the crops are coarse: a fish in a video frame has 30 to 200 px.
    side = recipe.student_size if rng.random() < 0.5 else int(rng.integers(*recipe.coarse_side))
    box = (left, top, left + w, top + h)
    return photo.resize((side, side), Image.Resampling.BILINEAR, box=box)


def turn(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirror half the crops; lay one in five on its side, as a fish may hang in the water."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.2:
        image = image.transpose(Image.Transpose.ROTATE_90)
    return image


def recolour(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change light, contrast and colour of ``(side, side, 3)`` float pixels in [0, 1]."""
    grey = pixels.mean(axis=2, keepdims=True)
    if rng.random() < 0.4:
        pixels = grey + (pixels - grey) * rng.uniform(0.2, 1.6)
    if rng.random() < 0.4:
        pixels = (pixels - grey.mean()) * rng.uniform(0.4, 1.4) + grey.mean()
    if rng.random() < 0.4:
        pixels = pixels * np.exp(rng.normal(0, 0.2, 3))
    if rng.random() < 0.4:
        pixels = pixels * rng.uniform(0.6, 1.4)
    return pixels


def submerge(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put blue-green haze over one crop in five, and camera noise over one in eight."""
    if rng.random() < 0.2:
        water = np.array([rng.uniform(0, 0.4), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9)])
        haze = rng.uniform(0.1, 0.6)
        pixels = pixels * (1 - haze) + water * haze
    if rng.random() < 0.125:
        pixels = pixels + rng.normal(0, rng.uniform(0, 0.06), pixels.shape)
    return pixels


def make_crop(photo: Image.Image, recipe: CropRecipe, rng: np.random.Generator) -> Image.Image:
    """Return one square crop; its side is how much detail it holds, not its final size."""
    crop = turn(cut(photo, recipe, rng), rng)
    pixels = np.asarray(crop, dtype=np.float32) / 255
    pixels = submerge(recolour(pixels, rng), rng)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def nth_crop(paths: list[Path], recipe: CropRecipe, index: int) -> Image.Image:
    """Return crop ``round * n_photos + i``: it is of photograph i, whoever makes it and when."""
    rng = np.random.default_rng((recipe.seed, index))
    with Image.open(paths[index % len(paths)]) as photo:
        return make_crop(photo.convert("RGB"), recipe, rng)


def as_tensor(crop: Image.Image, size: int) -> Tensor:
    """Return ``(3, size, size)`` uint8."""
    resized = crop.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def to_input(pixels: Tensor, device: torch.device) -> Tensor:
    """Return uint8 pictures as the networks' input in [-1, 1] (mean = std = 0.5)."""
    scaled = pixels.to(device).float() / 127.5 - 1
    return scaled.contiguous(memory_format=torch.channels_last)


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_teacher(folder: Path, device: torch.device) -> nn.Module:
    """Return the frozen teacher, with its classifier."""
    teacher = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return teacher.requires_grad_(False).to(device, memory_format=torch.channels_last)


def fold_norm(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it: the same vectors, in less time."""
    pairs = {"conv_stem": "bn1", "conv_head": "bn2", "conv_dw": "bn2", "conv_pwl": "bn3"}
    for module in network.modules():
        separable = isinstance(module, DepthwiseSeparableConv)
        names = {"conv_dw": "bn1", "conv_pw": "bn2"} if separable else {**pairs, "conv_pw": "bn1"}
        for conv, norm in names.items():
            if conv in module._modules:
                fold_pair(module, conv, norm)
    return network


def fold_pair(module: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = getattr(module, conv_name), getattr(module, norm_name)
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale, requires_grad=False)
    setattr(module, norm_name, norm.act)


class Filler:
    """Fills rows of a cache; each process that helps has its own, with its own teacher."""

    def __init__(self, teacher: Path, paths: list[Path], recipe: CropRecipe, folder: Path) -> None:
        # One thread each: processes that share no work never wait for one another.
        torch.set_num_threads(1)
        self.device = best_device()
        self.teacher = fold_norm(load_teacher(teacher, self.device))
        self.paths, self.recipe = paths, recipe
        self.crops, self.features = open_cache(folder, "r+")

    @torch.inference_mode()
    def fill(self, first: int) -> int:
        """Write ``BLOCK`` rows from the first; return how many there were."""
        rows = range(first, min(first + BLOCK, len(self.crops)))
        crops = [nth_crop(self.paths, self.recipe, row) for row in rows]
        large = torch.stack([as_tensor(c, self.recipe.teacher_size) for c in crops])
        small = [as_tensor(c, self.recipe.student_size).numpy() for c in crops]
        maps = self.teacher.forward_features(to_input(large, self.device))
        features = self.teacher.forward_head(maps, pre_logits=True)
        self.crops[rows.start : rows.stop] = np.stack(small)
        self.features[rows.start : rows.stop] = features.cpu().numpy()
        return len(rows)


# One for each process of the pool.
filler: Filler


def start_filler(*args: Any) -> None:
    global filler
    filler = Filler(*args)


def fill_block(first: int) -> int:
    return filler.fill(first)


def open_cache(folder: Path, mode: Literal["r", "r+"]) -> tuple[np.ndarray, np.ndarray]:
    """Return crops ``(n, 3, size, size)`` uint8 and teacher features ``(n, dim)`` float16."""
    names = ("crops.npy", "features.npy")
    crops, features = (np.load(folder / name, mmap_mode=mode) for name in names)
    return crops, features


def create_cache(folder: Path, n: int, size: int, dim: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, dtype, shape in (
        ("crops.npy", np.uint8, (n, 3, size, size)),
        ("features.npy", np.float16, (n, dim)),
    ):
        np.lib.format.open_memmap(folder / name, "w+", dtype, shape).flush()


def make_cache(teacher: Path, dim: int, paths: list[Path], recipe: CropRecipe, to: Path) -> None:
    """Write crops and teacher features, unless the folder holds them already."""
    stamp = json.dumps({"recipe": asdict(recipe), "photos": [p.name for p in paths]})
    done, n = to / "done.json", recipe.rounds * len(paths)
    if done.is_file() and done.read_text() == stamp:
        log.info("crops found in %s", to)
        return
    # What was learned from other crops must not be gone on with.
    for stale in (done, to / CHECKPOINT):
        stale.unlink(missing_ok=True)
    create_cache(to, n, recipe.student_size, dim)
    began, at = time.monotonic(), 0
    # Spawned, not forked: a forked process must not touch CUDA.
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), start_filler, (teacher, paths, recipe, to)) as pool:
        for count in pool.imap_unordered(fill_block, range(0, n, BLOCK)):
            at += count
            if at % (200 * BLOCK) == 0 or at == n:
                log.info("crops %d of %d, %.0f s", at, n, time.monotonic() - began)
    # Written last: an interrupted cache counts as none.
    done.write_text(stamp)


# --------------------------------------------------------------------------------------------
# 2. prune: the student's first weights, from the teacher's


@dataclass
class Prefix:
    """What teacher and student give for the same pictures, up to the block now being pruned."""

    teacher: Tensor
    student: Tensor


def rows(maps: Tensor) -> Tensor:
    """Return ``(n, channels, h, w)`` as ``(n * h * w, channels)``."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def fit_linear(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the ridge regression from maps x to maps y."""
    x, y = rows(x), rows(y)
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram = (x - mean_x).T @ (x - mean_x)
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), device=x.device)
    weight = torch.linalg.solve(gram + ridge, (x - mean_x).T @ (y - mean_y)).T
    return weight, mean_y - weight @ mean_x


def install(conv: nn.Module, norm: nn.Module, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Make ``norm(conv(x)) = weight * x + bias`` and return it after the activation.

    The batch norm gets the statistics of x, so that training starts where the fit ended.
    """
    conv.weight.data = weight.reshape(conv.weight.shape).contiguous()
    raw = conv(x)
    norm.running_var, norm.running_mean = torch.var_mean(rows(raw), dim=0)
    norm.weight.data = torch.sqrt(norm.running_var + norm.eps)
    norm.bias.data = norm.running_mean + bias
    return norm(raw)


def principal(outputs: list[Tensor], dim: int) -> tuple[Tensor, Tensor]:
    """Return mean ``(c,)`` and first principal directions ``(dim, c)`` of a stage's outputs."""
    x = torch.cat([rows(each) for each in outputs])
    mean = x.mean(0)
    _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return mean, vectors.flip(1).T[:dim]


def weightiest(hidden: Tensor, out_weight: Tensor, n: int) -> Tensor:
    """Return the n hidden channels that move the block's output most, in order."""
    moved = rows(hidden).var(0) * out_weight.square().sum(0)
    return moved.topk(n).indices.sort().values


def prune_block(
    source: nn.Module, block: nn.Module, at: Prefix, target: Tensor, turn_to: Tensor
) -> Tensor:
    """Set one inverted residual; return what it now gives. ``target`` is wanted of it."""
    wide = source.conv_pw(at.teacher)
    deep = source.bn2(source.conv_dw(source.bn1(wide)))
    keep = weightiest(deep, turn_to @ source.conv_pwl.weight.flatten(1), block.conv_dw.in_channels)
    x = install(block.conv_pw, block.bn1, *fit_linear(at.student, wide[:, keep]), at.student)
    del wide, deep
    x = install(block.conv_dw, block.bn2, source.conv_dw.weight[keep], source.conv_dw.bias[keep], x)
    rest = target - at.student if block.has_skip else target
    x = install(block.conv_pwl, block.bn3, *fit_linear(x, rest), x)
    return x + at.student if block.has_skip else x


def prune_stem(source: nn.Module, student: nn.Module, images: Tensor) -> Prefix:
    """Set the stem and the first block, which share their channels."""
    first, block = source.blocks[0][0], student.blocks[0][0]
    deep = first.bn1(first.conv_dw(source.bn1(source.conv_stem(images))))
    output = first.conv_pw(deep)
    mean, directions = principal([output], block.conv_pw.out_channels)
    keep = weightiest(deep, directions @ first.conv_pw.weight.flatten(1), block.conv_dw.in_channels)
    stem = source.conv_stem
    x = install(student.conv_stem, student.bn1, stem.weight[keep], stem.bias[keep], images)
    x = install(block.conv_dw, block.bn1, first.conv_dw.weight[keep], first.conv_dw.bias[keep], x)
    target = turned(output, mean, directions)
    return Prefix(output, install(block.conv_pw, block.bn2, *fit_linear(x, target), x))


def turned(maps: Tensor, mean: Tensor, directions: Tensor) -> Tensor:
    """Return maps ``(n, c, h, w)`` in principal directions: ``(n, dim, h, w)``."""
    return torch.einsum("kc,nchw->nkhw", directions, maps - mean[:, None, None])


def prune_stage(source: nn.Module, stage: nn.Module, at: Prefix) -> Prefix:
    """Set all blocks of a stage, whose outputs add up and so share their directions."""
    outputs: list[Tensor] = []
    for block in source:
        outputs.append(block(outputs[-1] if outputs else at.teacher))
    mean, directions = principal(outputs, stage[0].conv_pwl.out_channels)
    for old, new, output in zip(source, stage, outputs, strict=True):
        target = turned(output, mean, directions)
        at = Prefix(output, prune_block(old, new, at, target, directions))
    return at


@torch.no_grad()
def prune(teacher: nn.Module, student: nn.Module, images: Tensor) -> None:
    """Give the student, same blocks at half the width, the weights that mimic the teacher best."""
    source = fold_norm(copy.deepcopy(teacher))
    at = prune_stem(source, student.eval(), images)
    for old, new in zip(source.blocks[1:], student.blocks[1:], strict=True):
        at = prune_stage(old, new, at)
    head = fit_linear(at.student, source.conv_head(at.teacher))
    install(student.conv_head, student.bn2, *head, at.student)


# --------------------------------------------------------------------------------------------
# 3. distil


@dataclass(frozen=True)
class TrainRecipe:
    """Everything that decides how the student learns."""

    seed: int = 20261120
    # Most epochs on small pictures at a constant rate, as they cost less; the last ones at the
    # final size, while the rate falls to 0.
    steady_epochs: int = 5
    steady_size: int = 112
    final_epochs: int = 3
    final_size: int = 144
    # Small batches: their maps stay in a processor's cache, a third faster than batches of 64.
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.02
    warmup_steps: int = 500
    average_decay: float = 0.999
    temperature: float = 2.0
    logit_weight: float = 0.5
    held_out_every: int = 23
    prune_images: int = 384

    @property
    def epochs(self) -> int:
        return self.steady_epochs + self.final_epochs

    def size(self, epoch: int) -> int:
        return self.steady_size if epoch < self.steady_epochs else self.final_size

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate: a linear start, a plateau, then half a cosine to 0."""
        past = step / steps_per_epoch - self.steady_epochs
        fall = 0.5 * (1 + math.cos(math.pi * max(past, 0) / self.final_epochs))
        return self.lr * fall * min(1, (step + 1) / self.warmup_steps)


class Cache:
    """Crops and teacher features on disk, split by photograph into training and held-out rows."""

    def __init__(self, folder: Path, n_photos: int, held_out_every: int) -> None:
        self.folder = folder
        self.crops, self.features = open_cache(folder, "r")
        held_out = np.arange(len(self.crops)) % n_photos % held_out_every == 0
        self.train_rows, self.held_out_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def batch(self, rows: np.ndarray, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return images ``(n, 3, size, size)`` and the teacher's features ``(n, dim)``."""
        images = to_input(torch.from_numpy(self.crops[rows]), device)
        if size != images.shape[-1]:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
        return images, torch.from_numpy(self.features[rows]).to(device).float()


class Distance(nn.Module):
    """How far the student's features are from the teacher's, alone and through its classifier."""

    def __init__(self, features: Tensor, classifier: nn.Module, recipe: TrainRecipe) -> None:
        super().__init__()
        self.classifier, self.recipe = classifier, recipe
        std, mean = torch.std_mean(features, dim=0)
        self.register_buffer("mean", mean)
        # A feature that is almost always 0 must not outweigh the others.
        self.register_buffer("std", std.clamp(min=0.2 * float(std.median())))

    def parts(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared error of standardised features, and the logits' divergence."""
        error = ((student - teacher) / self.std).square().mean()
        t = self.recipe.temperature
        wanted = F.log_softmax(self.classifier(teacher) / t, dim=1)
        given = F.log_softmax(self.classifier(student) / t, dim=1)
        return error, t * t * F.kl_div(given, wanted, reduction="batchmean", log_target=True)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        error, divergence = self.parts(student, teacher)
        return error + self.recipe.logit_weight * divergence


def mirrored(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror half the pictures: the teacher's features hardly change, the student sees more."""
    flip = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def parameter_groups(student: nn.Module, recipe: TrainRecipe) -> list[dict[str, object]]:
    """Decay the convolutions only: a batch norm's scale is not a size to keep small."""
    parameters = list(student.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


class Training:
    """The student, the moving average of its weights, which does better, and the optimizer."""

    def __init__(self, student: nn.Module, distance: Distance, recipe: TrainRecipe) -> None:
        self.student, self.distance, self.recipe = student, distance, recipe
        self.average = AveragedModel(
            student, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(parameter_groups(student, recipe))
        self.epoch = 0

    def run_epoch(self, cache: Cache) -> None:
        """See every training crop once, in an order of the epoch's own."""
        rng = np.random.default_rng((self.recipe.seed, self.epoch))
        batch, size = self.recipe.batch, self.recipe.size(self.epoch)
        order = rng.permutation(cache.train_rows)
        steps, losses, began = len(order) // batch, [], time.monotonic()
        self.student.train()
        for step in range(steps):
            # Sorted rows read the disk in one direction.
            chosen = np.sort(order[step * batch : (step + 1) * batch])
            images, wanted = cache.batch(chosen, size, self.distance.mean.device)
            rate = self.recipe.rate(self.epoch * steps + step, steps)
            losses.append(self.step(mirrored(images, rng), wanted, rate))
            if step % 200 == 199:
                loss, spent = torch.stack(losses[-200:]).mean(), time.monotonic() - began
                log.info("epoch %d, %d of %d: %.4f, %.0f s", self.epoch, step, steps, loss, spent)
        self.epoch += 1

    def step(self, images: Tensor, wanted: Tensor, rate: float) -> Tensor:
        """Learn from one batch; return its loss."""
        loss = self.distance(self.student(images), wanted)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.student)
        return loss.detach()

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the epoch."""
        return {"student": self.student, "average": self.average, "optimizer": self.optimizer}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        part = path.with_suffix(".part")
        torch.save(state | {"epoch": self.epoch, "recipe": asdict(self.recipe)}, part)
        # Renamed when whole: an interruption leaves the checkpoint before.
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of an interrupted run, if it is of the same recipe."""
        if not path.is_file():
            return
        state = torch.load(path)
        if state["recipe"] != asdict(self.recipe):
            log.info("%s is of another recipe: starting anew", path)
            return
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.epoch = state["epoch"]
        log.info("going on after epoch %d of %s", self.epoch, path)


def distil(student: nn.Module, distance: Distance, cache: Cache, recipe: TrainRecipe) -> nn.Module:
    """Train the student; return its moving average."""
    training = Training(student, distance, recipe)
    training.resume(cache.folder / CHECKPOINT)
    while training.epoch < recipe.epochs:
        training.run_epoch(cache)
        training.save(cache.folder / CHECKPOINT)
        log_held_out(training.average.module, distance, cache, recipe.final_size)
    return training.average.module.eval()


@torch.inference_mode()
def log_held_out(network: nn.Module, distance: Distance, cache: Cache, size: int) -> None:
    """Log how well the teacher is met on photographs that were not trained on."""
    network.eval()
    parts = []
    for rows in np.array_split(cache.held_out_rows, len(cache.held_out_rows) // 64):
        images, wanted = cache.batch(rows, size, distance.mean.device)
        parts.append(torch.stack(distance.parts(network(images), wanted)))
    error, divergence = torch.stack(parts).mean(0)
    log.info("held out, %d px: feature error %.4f, divergence %.4f", size, error, divergence)


# --------------------------------------------------------------------------------------------
# the whole


ARCHITECTURE = "mobilenetv2_050"
MODEL_ARGS = {"pad_type": "same"}


def new_student(seed: int) -> nn.Module:
    """Return timm's network of half the teacher's width, without a classifier."""
    torch.manual_seed(seed)
    return timm.create_model(ARCHITECTURE, num_classes=0, **MODEL_ARGS)


def save(student: nn.Module, size: int, out: Path) -> None:
    """Write a folder that timm loads as ``local-dir:``."""
    # Convolutions in float16; batch norms, a 20th of the bytes, keep their range in float32.
    weights = {
        name: (value.half() if value.ndim > 1 else value).cpu().contiguous()
        for name, value in student.state_dict().items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config(student.num_features, size), indent=1))


def config(num_features: int, size: int) -> dict[str, object]:
    """Return timm's description of the network and of its pictures."""
    pretrained_cfg = {
        "input_size": [3, size, size],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 0,
        "pool_size": [math.ceil(size / 32)] * 2,
        "first_conv": "conv_stem",
        "classifier": "classifier",
    }
    return {
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": num_features,
        "model_args": MODEL_ARGS,
        "pretrained_cfg": pretrained_cfg,
    }


def first_student(teacher: nn.Module, cache: Cache, recipe: TrainRecipe) -> nn.Module:
    """Return the student as pruned from the teacher."""
    device = next(teacher.parameters()).device
    rng = np.random.default_rng(recipe.seed)
    rows = np.sort(rng.choice(cache.train_rows, recipe.prune_images, replace=False))
    student = new_student(recipe.seed).to(device)
    prune(teacher, student, cache.batch(rows, recipe.final_size, device)[0])
    return student.to(memory_format=torch.channels_last)


def make_nano(teacher_folder: Path, photos: Path, cache_folder: Path, out: Path) -> None:
    """Make the weights and write them to ``out``."""
    crop_recipe, recipe = CropRecipe(), TrainRecipe()
    log.info("%s\n%s", crop_recipe, recipe)
    paths = sorted(photos.glob("*.jpg"))
    teacher = load_teacher(teacher_folder, best_device())
    make_cache(teacher_folder, teacher.num_features, paths, crop_recipe, cache_folder)
    cache = Cache(cache_folder, len(paths), recipe.held_out_every)

    student = first_student(teacher, cache, recipe)
    features = torch.from_numpy(np.array(cache.features[: len(paths)])).float()
    distance = Distance(features, teacher.classifier, recipe).to(best_device())
    log_held_out(student, distance, cache, recipe.final_size)
    save(distil(student, distance, cache, recipe), recipe.final_size, out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the weights of the backbone nano.")
    shared = Path("../shared")
    parser.add_argument(
        "--teacher", type=Path, default=shared / "backbones/mobilenetv2_100.tf2_in1k"
    )
    parser.add_argument("--photos", type=Path, default=shared / "data/unlabelled-144")
    parser.add_argument("--out", type=Path, default=Path("fishfeat/weights/nano"))
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(".cache/distill-nano"),
        help="crops, 4 GB, and checkpoints",
    )
    return parser.parse_args()


def main() -> None:
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    began = time.monotonic()
    make_nano(args.teacher, args.photos, args.cache, args.out)
    log.info("wrote %s in %.2f hours", args.out, (time.monotonic() - began) / 3600)


if __name__ == "__main__":
    main()
