"""Fine-tuning on a GPU; on a machine without one everything here is skipped."""

import numpy as np
import pytest
import torch

from fishfeat.features.backbones import load_backbone
from fishfeat.features.specs import make_spec
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.scoring import score_images
from fishfeat.finetuning.training import Trainer
from fishfeat.options import ExtractOptions, FinetuneOptions, FitOptions
from fishfeat.stages.extract import extract_data
from fishfeat.stages.finetune import finetune_data
from fishfeat.stages.fit import fit_data
from fishfeat.stages.predict import predict_images

from .conftest import MemoryImages, draw_images, make_learner, make_network, make_task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class GpuImages(MemoryImages):
    def __init__(self, images):
        super().__init__(images.to("cuda"))


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": "balanced"},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"ema": 0.9},
        {"clip_grad": 1.0},
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"optimizer": "rmsprop"},
    ],
    ids=str,
)
def test_every_setting_learns_the_same_as_on_the_cpu(settings):
    recipe = Recipe(epochs=3, batch_size=8, micro_batch=8, lr=1e-3, **settings)
    losses = []
    for device, inputs in (("cpu", MemoryImages), ("cuda", GpuImages)):
        backbone = load_backbone(make_spec("random:test_resnet", img_size=32))
        network = make_network(backbone, "last:2").to(device)
        learner = make_learner(network, inputs(draw_images(16, 32)))
        trainer = Trainer(learner, make_task(16), recipe)
        trainer.train()
        losses.append([epoch.loss for epoch in trainer.progress.epochs])
        assert np.isfinite(score_images(network, learner.inputs, np.arange(16))).all()
    assert np.allclose(losses[0], losses[1], rtol=0.02)


@pytest.mark.parametrize("train", ["head", "last:2", "full", "scratch"])
def test_the_whole_command_runs_on_a_gpu(train, tmp_path, draw_folder):
    folder, cache = draw_folder(tmp_path / "fish", n=12), tmp_path / "cache"
    extract_data(
        folder,
        ExtractOptions(
            backbone="random:test_efficientnet",
            img_size=32,
            device="cuda",
            group_by=r"pattern:fish_(\d+)_",
        ),
        cache=cache,
    )
    fit_data(FitOptions(clf=("logreg",), cv=3, test=0.25), cache=cache)
    epochs = None if train == "head" else 2
    tuned = finetune_data(FinetuneOptions(train=train, epochs=epochs, device="cuda"), cache=cache)
    run = tuned.runs[0]
    assert run.config.device == ("cpu" if train == "head" else "cuda")  # a head alone is solved
    assert np.isfinite(run.scores).all()
    if train == "last:2":
        assert run.config.training.cut
    paths = [folder / key for key in run.holdout.keys]
    predictions = predict_images(paths, cache=cache, model=run.name).predictions
    scores = np.array([prediction.scores for prediction in predictions])
    assert np.abs(scores - run.holdout.scores).max() < 2e-3
