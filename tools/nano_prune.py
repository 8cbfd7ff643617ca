"""Step 2 of ``distill_nano.py``: the initial weights of the student, pruned from the teacher."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from nano_crops import fold_norm
from torch import Tensor, nn


@dataclass
class Prefix:
    """Outputs of teacher and student for the same images, before the block to prune."""

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


def find_principal_directions(outputs: list[Tensor], dim: int) -> tuple[Tensor, Tensor]:
    """Return mean ``(c,)`` and first principal directions ``(dim, c)`` of a stage's outputs."""
    x = torch.cat([rows(output) for output in outputs])
    mean = x.mean(0)
    _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return mean, vectors.flip(1).T[:dim]


def select_channels(hidden: Tensor, out_weight: Tensor, n: int) -> Tensor:
    """Return the n hidden channels that change the block's output most, in ascending order."""
    effect = rows(hidden).var(0) * out_weight.square().sum(0)
    return effect.topk(n).indices.sort().values


def prune_block(
    source: nn.Module, block: nn.Module, prefix: Prefix, target: Tensor, directions: Tensor
) -> Tensor:
    """Set one inverted residual to give ``target``; return the output that it gives."""
    wide = source.conv_pw(prefix.teacher)
    deep = source.bn2(source.conv_dw(source.bn1(wide)))
    keep = select_channels(
        deep, directions @ source.conv_pwl.weight.flatten(1), block.conv_dw.in_channels
    )
    x = install(
        block.conv_pw, block.bn1, *fit_linear(prefix.student, wide[:, keep]), prefix.student
    )
    del wide, deep
    x = install(block.conv_dw, block.bn2, source.conv_dw.weight[keep], source.conv_dw.bias[keep], x)
    rest = target - prefix.student if block.has_skip else target
    x = install(block.conv_pwl, block.bn3, *fit_linear(x, rest), x)
    return x + prefix.student if block.has_skip else x


def prune_stem(source: nn.Module, student: nn.Module, images: Tensor) -> Prefix:
    """Set the stem and the first block, which share their channels."""
    first, block = source.blocks[0][0], student.blocks[0][0]
    deep = first.bn1(first.conv_dw(source.bn1(source.conv_stem(images))))
    output = first.conv_pw(deep)
    mean, directions = find_principal_directions([output], block.conv_pw.out_channels)
    keep = select_channels(
        deep, directions @ first.conv_pw.weight.flatten(1), block.conv_dw.in_channels
    )
    stem = source.conv_stem
    x = install(student.conv_stem, student.bn1, stem.weight[keep], stem.bias[keep], images)
    x = install(block.conv_dw, block.bn1, first.conv_dw.weight[keep], first.conv_dw.bias[keep], x)
    target = project(output, mean, directions)
    return Prefix(output, install(block.conv_pw, block.bn2, *fit_linear(x, target), x))


def project(maps: Tensor, mean: Tensor, directions: Tensor) -> Tensor:
    """Project maps ``(n, c, h, w)`` on principal directions: ``(n, dim, h, w)``."""
    return torch.einsum("kc,nchw->nkhw", directions, maps - mean[:, None, None])


def prune_stage(source: nn.Module, stage: nn.Module, prefix: Prefix) -> Prefix:
    """Set all blocks of a stage, whose outputs add up and so share their directions."""
    outputs: list[Tensor] = []
    for block in source:
        outputs.append(block(outputs[-1] if outputs else prefix.teacher))
    mean, directions = find_principal_directions(outputs, stage[0].conv_pwl.out_channels)
    for old, new, output in zip(source, stage, outputs, strict=True):
        target = project(output, mean, directions)
        prefix = Prefix(output, prune_block(old, new, prefix, target, directions))
    return prefix


@torch.no_grad()
def prune(teacher: nn.Module, student: nn.Module, images: Tensor) -> None:
    """Give the student, same blocks at half the width, the weights that mimic the teacher best."""
    source = fold_norm(copy.deepcopy(teacher))
    prefix = prune_stem(source, student.eval(), images)
    for old, new in zip(source.blocks[1:], student.blocks[1:], strict=True):
        prefix = prune_stage(old, new, prefix)
    head = fit_linear(prefix.student, source.conv_head(prefix.teacher))
    install(student.conv_head, student.bn2, *head, prefix.student)
