"""Save what a fine-tune gives: the tuned network as a backbone, its head as a classifier."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from fishfeat.classify.estimators.dense_head import DenseHead
from fishfeat.features.backbones import load_backbone
from fishfeat.files import safe_name
from fishfeat.finetuning.finetune import Tuned
from fishfeat.finetuning.tuned_networks import save_network
from fishfeat.records import FeaturesInfo, Int


class SavedNetwork(NamedTuple):
    """A tuned network that was saved.

    Attributes
    ----------
    classifier
        Its head.
    backbone
        The features that the head classifies.
    network
        Folder of the tuned network; None where the backbone was not changed.
    """

    classifier: DenseHead
    backbone: FeaturesInfo
    network: Path | None


def save_tuned(tuned: Tuned, folder: Path, rows: Int) -> SavedNetwork:
    """Save the tuned network of all rows.

    Parameters
    ----------
    tuned
        What a fine-tune gave; its final training did not diverge.
    folder
        Folder of the data set.
    rows
        int64 (n,): rows that the network was trained on.
    """
    finetuner, source = tuned.finetuner, tuned.finetuner.source
    network = finetuner.rebuild(tuned.final_job, tuned.final, tuned.work)
    network.cpu().to(memory_format=torch.contiguous_format)
    layers = []
    for module in network.head.modules():
        if isinstance(module, nn.Linear):
            weight, bias = module.weight.detach(), module.bias.detach()
            layers.append((weight.double().numpy(), bias.double().numpy()))
    classifier = DenseHead(layers, tuned.final.classes, tuned.inverse_temperature)
    features = source.features
    if not finetuner.blocks:
        return SavedNetwork(classifier, finetuner.describe_features(), None)
    assert features.digest is not None
    name = safe_name(f"{source.spec.label}-{source.recipe.name}-{tuned.work.folder.name[:8]}")
    path = save_network(
        Path(os.path.abspath(folder)) / "networks" / name,
        network.network,
        finetuner.backbone.spec,
        features.digest[rows],
    )
    backbone = load_backbone(
        dataclasses.replace(source.spec, source="local-dir", name=str(path), tta=source.recipe.tta)
    )
    info = FeaturesInfo(
        dataset=features.dataset,
        backbone=backbone.spec,
        fingerprint=backbone.fingerprint,
        dim=backbone.dim,
    )
    return SavedNetwork(classifier, info, path)
