"""Make the weights of the backbone ``nano`` by distilling a larger network.

One command, run from the project's root, makes ``config.json`` and ``model.safetensors``::

    python tools/distill_nano.py --teacher ../shared/backbones/mobilenetv2_100.tf2_in1k \
        --photos ../shared/data/unlabelled-144 --out fishfeat/weights/nano

It has three steps and uses no labels:

1. *Crops*: random crops of every photograph are strongly squashed, recoloured and coarsened. Each
   crop is stored small for the student, together with the teacher's features of it at 224 px.
2. *Pruning*: a network of half the teacher's width gets its initial weights from the teacher, layer
   by layer: the principal components of each stage, the most important hidden channels, and least
   squares for every 1 x 1 convolution.
3. *Distillation*: the student learns to give the teacher's features for the same crops.

``CropRecipe`` and ``TrainRecipe`` hold the seed. Two runs differ only by the order in which threads
add numbers. Two processor cores need about an hour and a half. CUDA is used if it is available. An
interrupted run continues after its last epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from nano_crops import (
    CHECKPOINT,
    CropRecipe,
    best_device,
    load_teacher,
    make_cache,
    open_cache,
    to_input,
)
from nano_prune import prune
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

log = logging.getLogger("distill_nano")


@dataclass(frozen=True)
class TrainRecipe:
    """Every setting of the training."""

    seed: int = 20261120
    # Most epochs use small images at a constant rate, because they cost less. The last epochs use
    # the final size, and the rate falls to 0.
    steady_epochs: int = 5
    steady_size: int = 112
    final_epochs: int = 3
    final_size: int = 144
    # The maps of small batches stay in a processor's cache: a third faster than batches of 64.
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
    """Distance of the student's features to the teacher's: as they are, and as class scores."""

    def __init__(self, features: Tensor, classifier: nn.Module, recipe: TrainRecipe) -> None:
        super().__init__()
        self.classifier, self.recipe = classifier, recipe
        std, mean = torch.std_mean(features, dim=0)
        self.register_buffer("mean", mean)
        # A feature that is almost always 0 must not get a large weight.
        self.register_buffer("std", std.clamp(min=0.2 * float(std.median())))

    def parts(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared error of standardised features, and the logits' divergence."""
        error = ((student - teacher) / self.std).square().mean()
        t = self.recipe.temperature
        targets = F.log_softmax(self.classifier(teacher) / t, dim=1)
        outputs = F.log_softmax(self.classifier(student) / t, dim=1)
        return error, t * t * F.kl_div(outputs, targets, reduction="batchmean", log_target=True)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        error, divergence = self.parts(student, teacher)
        return error + self.recipe.logit_weight * divergence


def mirror_half(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror half of the images; the teacher's features hardly change, so the data are varied."""
    flip = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def parameter_groups(student: nn.Module, recipe: TrainRecipe) -> list[dict[str, object]]:
    """Decay the convolutions only: the scale of a batch norm need not be small."""
    parameters = list(student.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


class Training:
    """The student, the moving average of its weights (the result), and the optimizer."""

    def __init__(self, student: nn.Module, distance: Distance, recipe: TrainRecipe) -> None:
        self.student, self.distance, self.recipe = student, distance, recipe
        self.average = AveragedModel(
            student, multi_avg_fn=get_ema_multi_avg_fn(recipe.average_decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(parameter_groups(student, recipe))
        self.epoch = 0

    def run_epoch(self, cache: Cache) -> None:
        """Train on every training crop once, in a random order for each epoch."""
        rng = np.random.default_rng((self.recipe.seed, self.epoch))
        batch, size = self.recipe.batch, self.recipe.size(self.epoch)
        order = rng.permutation(cache.train_rows)
        steps, losses, began = len(order) // batch, [], time.monotonic()
        self.student.train()
        for step in range(steps):
            # With sorted rows the disk is read in one direction.
            rows = np.sort(order[step * batch : (step + 1) * batch])
            images, targets = cache.batch(rows, size, self.distance.mean.device)
            rate = self.recipe.rate(self.epoch * steps + step, steps)
            losses.append(self.step(mirror_half(images, rng), targets, rate))
            if step % 200 == 199:
                loss, spent = torch.stack(losses[-200:]).mean(), time.monotonic() - began
                log.info("epoch %d, %d of %d: %.4f, %.0f s", self.epoch, step, steps, loss, spent)
        self.epoch += 1

    def step(self, images: Tensor, targets: Tensor, rate: float) -> Tensor:
        """Train on one batch; return its loss."""
        loss = self.distance(self.student(images), targets)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.student)
        return loss.detach()

    def parts(self) -> dict[str, Any]:
        """Return the parts of a checkpoint, without the epoch."""
        return {"student": self.student, "average": self.average, "optimizer": self.optimizer}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        partial_path = path.with_suffix(".part")
        torch.save(state | {"epoch": self.epoch, "recipe": asdict(self.recipe)}, partial_path)
        # Renamed when it is complete: an interruption leaves the earlier checkpoint.
        partial_path.replace(path)

    def resume(self, path: Path) -> None:
        """Continue from the checkpoint of an interrupted run, if its recipe is the same."""
        if not path.is_file():
            return
        state = torch.load(path)
        if state["recipe"] != asdict(self.recipe):
            log.info("%s has another recipe: starting again", path)
            return
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.epoch = state["epoch"]
        log.info("continuing after epoch %d of %s", self.epoch, path)


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
    """Log the distance to the teacher on the held-out photographs."""
    network.eval()
    parts = []
    for rows in np.array_split(cache.held_out_rows, len(cache.held_out_rows) // 64):
        images, targets = cache.batch(rows, size, distance.mean.device)
        parts.append(torch.stack(distance.parts(network(images), targets)))
    error, divergence = torch.stack(parts).mean(0)
    log.info("held out, %d px: feature error %.4f, divergence %.4f", size, error, divergence)


ARCHITECTURE = "mobilenetv2_050"
MODEL_ARGS = {"pad_type": "same"}


def make_student(seed: int) -> nn.Module:
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
    (out / "config.json").write_text(json.dumps(make_config(student.num_features, size), indent=1))


def make_config(num_features: int, size: int) -> dict[str, object]:
    """Return timm's description of the network and of its images."""
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


def prune_student(teacher: nn.Module, cache: Cache, recipe: TrainRecipe) -> nn.Module:
    """Return the student with the weights pruned from the teacher."""
    device = next(teacher.parameters()).device
    rng = np.random.default_rng(recipe.seed)
    rows = np.sort(rng.choice(cache.train_rows, recipe.prune_images, replace=False))
    student = make_student(recipe.seed).to(device)
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

    student = prune_student(teacher, cache, recipe)
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
