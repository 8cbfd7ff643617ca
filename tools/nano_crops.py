"""Step 1 of ``distill_nano.py``: crops of the photographs, and the teacher's features of them."""

from __future__ import annotations

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
from PIL import Image
from timm.models._efficientnet_blocks import DepthwiseSeparableConv
from torch import Tensor, nn

log = logging.getLogger("distill_nano")

# Crops in one block: the teacher's maps of a small block stay in a processor's cache.
BLOCK = 8
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class CropRecipe:
    """Every setting of the crops; a cache of another recipe is not used."""

    seed: int = 20261120
    rounds: int = 5
    teacher_size: int = 224
    student_size: int = 144
    area: tuple[float, float] = (0.12, 1.0)
    max_ratio: float = 2.2
    coarse_side: tuple[int, int] = (28, 128)


def cut(photo: Image.Image, recipe: CropRecipe, rng: np.random.Generator) -> Image.Image:
    """Return a random rectangle of the photograph, squashed to a square."""
    width, height = photo.size
    area = rng.uniform(*recipe.area) * width * height
    ratio = math.exp(rng.uniform(-1, 1) * math.log(recipe.max_ratio))
    w = min(width, math.sqrt(area * ratio))
    h = min(height, math.sqrt(area / ratio))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    # Half of the crops are coarse, because a fish in a video frame has 30 to 200 px.
    side = recipe.student_size if rng.random() < 0.5 else int(rng.integers(*recipe.coarse_side))
    box = (left, top, left + w, top + h)
    return photo.resize((side, side), Image.Resampling.BILINEAR, box=box)


def turn(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirror half of the crops and rotate one in five by 90 degrees."""
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
    """Add blue-green haze to one crop in five, and camera noise to one in eight."""
    if rng.random() < 0.2:
        water = np.array([rng.uniform(0, 0.4), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9)])
        haze = rng.uniform(0.1, 0.6)
        pixels = pixels * (1 - haze) + water * haze
    if rng.random() < 0.125:
        pixels = pixels + rng.normal(0, rng.uniform(0, 0.06), pixels.shape)
    return pixels


def make_crop(photo: Image.Image, recipe: CropRecipe, rng: np.random.Generator) -> Image.Image:
    """Return one square crop; its side sets how much detail it holds, not its final size."""
    crop = turn(cut(photo, recipe, rng), rng)
    pixels = np.asarray(crop, dtype=np.float32) / 255
    pixels = submerge(recolour(pixels, rng), rng)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def nth_crop(paths: list[Path], recipe: CropRecipe, index: int) -> Image.Image:
    """Return crop ``round * n_photos + i``, of photograph i; it depends on nothing else."""
    rng = np.random.default_rng((recipe.seed, index))
    with Image.open(paths[index % len(paths)]) as photo:
        return make_crop(photo.convert("RGB"), recipe, rng)


def as_tensor(crop: Image.Image, size: int) -> Tensor:
    """Return ``(3, size, size)`` uint8."""
    resized = crop.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def to_input(pixels: Tensor, device: torch.device) -> Tensor:
    """Return uint8 images as the networks' input in [-1, 1] (mean = std = 0.5)."""
    scaled = pixels.to(device).float() / 127.5 - 1
    return scaled.contiguous(memory_format=torch.channels_last)


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_teacher(folder: Path, device: torch.device) -> nn.Module:
    """Return the frozen teacher, with its classifier."""
    teacher = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return teacher.requires_grad_(False).to(device, memory_format=torch.channels_last)


def fold_norm(network: nn.Module) -> nn.Module:
    """Fold each batch norm into its convolution: the same vectors in less time."""
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


class CacheFiller:
    """Fills rows of a cache; each process has its own filler with its own teacher."""

    def __init__(self, teacher: Path, paths: list[Path], recipe: CropRecipe, folder: Path) -> None:
        # One thread for each process: the processes share no work and do not wait.
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
filler: CacheFiller


def start_filler(*args: Any) -> None:
    global filler
    filler = CacheFiller(*args)


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
    stamp_file, n = to / "done.json", recipe.rounds * len(paths)
    if stamp_file.is_file() and stamp_file.read_text() == stamp:
        log.info("%s holds the crops already", to)
        return
    # Training on other crops must not continue with these.
    for stale in (stamp_file, to / CHECKPOINT):
        stale.unlink(missing_ok=True)
    create_cache(to, n, recipe.student_size, dim)
    began, n_done = time.monotonic(), 0
    # Spawned, not forked: a forked process must not touch CUDA.
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), start_filler, (teacher, paths, recipe, to)) as pool:
        for count in pool.imap_unordered(fill_block, range(0, n, BLOCK)):
            n_done += count
            if n_done % (200 * BLOCK) == 0 or n_done == n:
                log.info("crops %d of %d, %.0f s", n_done, n, time.monotonic() - began)
    # Written last: without it a cache does not count.
    stamp_file.write_text(stamp)
