"""The loop: it learns, it can be stopped and goes on, it notices what diverges."""

import math

import numpy as np
import pytest
import torch

from fishfeat.errors import CacheError
from fishfeat.features.plain_networks import SeededChannelDropout, SeededDropout, seed_dropout
from fishfeat.finetuning import checkpoints, training
from fishfeat.finetuning.blocks import list_blocks, select_blocks
from fishfeat.finetuning.checkpoints import CheckpointFile
from fishfeat.finetuning.cuts import CutNetwork, find_cut, stop_before
from fishfeat.finetuning.inputs import StoredActivations, draw_transforms
from fishfeat.finetuning.mixing import mix_images
from fishfeat.finetuning.optimisers import schedule_rate
from fishfeat.finetuning.randomness import Draw, draw_with
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.scoring import score_images
from fishfeat.finetuning.training import DivergedError, StoppedError, Task, Trainer
from fishfeat.finetuning.validation import (
    Validated,
    ValidationPart,
    measure_loss,
    split_validation,
)

from .conftest import (
    MemoryImages,
    digest_tensors,
    draw_images,
    make_learner,
    make_network,
    make_task,
    train,
)

QUICK = Recipe(epochs=2, batch_size=4, micro_batch=2)
# Images of the training that show how each epoch did.
PART = ValidationPart(np.arange(4), np.arange(4) % 2)


def weights_after(tiny, recipe, **options):
    network = make_network(tiny, "last:2")
    train(network, recipe, size=32, **options)
    return digest_tensors(network)


def test_twenty_images_are_learnt_in_sixty_steps(tiny):
    recipe = Recipe(epochs=20, batch_size=8, lr=1e-3, head_lr=1e-2)
    network = make_network(tiny, "last:2")
    trainer = train(network, recipe, n=20, size=32)
    assert 20 * math.ceil(20 / 8) == 60
    assert trainer.progress.epochs[-1].accuracy == 1.0
    logits = score_images(network, trainer.learner.inputs, np.arange(20))
    assert (logits.argmax(1) == np.arange(20) % 2).all()


def test_the_epochs_are_recorded(tiny):
    trainer = train(make_network(tiny, "last:2"), QUICK, size=32)
    assert len(trainer.progress.epochs) == 2
    first = trainer.progress.epochs[0]
    assert 0 < first.lr < QUICK.lr
    assert 0 <= first.accuracy <= 1
    assert first.loss > 0
    assert first.images_per_second > 0


def test_every_image_is_passed_once_in_each_epoch_in_another_order(tiny):
    network = make_network(tiny, "last:2")
    trainer = train(network, QUICK, n=9, size=32)
    passes = trainer.learner.inputs.passes
    assert sorted(passes[:9]) == sorted(passes[9:]) == list(range(9))
    assert passes[:9] != passes[9:]


def test_micro_batches_add_up_to_the_batch(tiny):
    losses = []
    for micro_batch in (1, 2, 4):
        recipe = Recipe(epochs=2, batch_size=4, micro_batch=micro_batch)
        trainer = train(make_network(tiny, "last:2"), recipe, size=32)
        losses.append([epoch.loss for epoch in trainer.progress.epochs])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema": 0.9, "optimizer": "sgd"},
        {"stages": "head:1,last:2:1"},
        {"optimizer": "rmsprop", "validation": 0.5, "keep": "best", "ema": 0.5},
        {"optimizer": "adam", "validation": 0.5, "stages": "head:1,last:2:1", "keep": "best"},
    ],
)
def test_a_training_that_was_stopped_ends_with_the_same_weights(settings, tiny, tmp_path):
    recipe = Recipe(epochs=2, batch_size=3, micro_batch=2, **settings)
    options = {"validation": PART} if recipe.validation else {}
    expected = weights_after(tiny, recipe, **options)
    for stop_after in (1, 3, 5):
        file = CheckpointFile(tmp_path / f"{stop_after}.safetensors")
        steps = []

        def stop(n, steps=steps, stop_after=stop_after):
            steps.append(n)
            return len(steps) != stop_after

        with pytest.raises(StoppedError):
            train(
                make_network(tiny, "last:2"), recipe, size=32, file=file, on_images=stop, **options
            )
        network = make_network(tiny, "last:2")
        trainer = train(network, recipe, size=32, file=file, **options)
        assert digest_tensors(network) == expected
        assert len(trainer.progress.epochs) == 2
        assert sum(steps) == sum([3, 3, 2, 3, 3, 2][:stop_after])


def test_a_network_from_scratch_goes_on_with_its_measured_statistics(tiny, tmp_path):
    recipe = Recipe(epochs=2, batch_size=4, micro_batch=4)
    expected = make_network(tiny, "full", is_scratch=True)
    train(expected, recipe, size=32)
    file = CheckpointFile(tmp_path / "checkpoint.safetensors")
    steps = []
    with pytest.raises(StoppedError):
        train(
            make_network(tiny, "full", is_scratch=True),
            recipe,
            size=32,
            file=file,
            on_images=lambda n: steps.append(n) or len(steps) < 3,
        )
    network = make_network(tiny, "full", is_scratch=True)
    start = digest_tensors(network)
    train(network, recipe, size=32, file=file)
    digests = digest_tensors(network)
    assert digests == digest_tensors(expected)
    statistics = [name for name in digests if "running_mean" in name]
    assert all(digests[name] != start[name] for name in statistics)


def test_each_epoch_is_validated_as_its_weights_are_scored(tiny):
    network = make_network(tiny, "last:2")
    trainer = train(network, QUICK, size=32, validation=PART)
    last = trainer.progress.epochs[-1]
    logits = score_images(network, trainer.learner.inputs, PART.images)
    assert last.validation_loss == measure_loss(logits, PART.codes)
    assert last.validation_accuracy == (logits.argmax(1) == PART.codes).mean()
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(PART.codes)
    )
    assert last.validation_loss == pytest.approx(float(expected))


def set_losses(monkeypatch, losses):
    """Let the validation part have these losses, epoch by epoch."""
    given = iter(losses)
    monkeypatch.setattr(training, "validate", lambda *_: Validated(next(given), 0.5))


@pytest.mark.parametrize("losses", [[3, 1, 2, 4], [2, 3, math.nan, 4], [4, 3, 2, 1]])
@pytest.mark.parametrize("is_scratch", [False, True])
def test_the_best_epoch_is_kept(losses, is_scratch, tiny, monkeypatch):
    digests = {}
    for keep in ("last", "best"):
        set_losses(monkeypatch, losses)
        recipe = Recipe(epochs=4, batch_size=4, validation=0.5, keep=keep)
        network = make_network(tiny, "last:2", is_scratch=is_scratch)
        at_end = []
        trainer = train(
            network,
            recipe,
            size=32,
            validation=PART,
            on_epoch=lambda i, epoch, at=at_end, of=network: at.append(digest_tensors(of)),
        )
        best = losses.index(min(loss for loss in losses if loss == loss))
        assert digest_tensors(network) == at_end[best if keep == "best" else -1]
        assert [e.validation_loss for e in trainer.progress.epochs] == pytest.approx(
            losses, nan_ok=True
        )
        digests[keep] = at_end[-1]
    assert digests["last"] == digests["best"]  # training does not depend on what is kept


@pytest.mark.parametrize(("patience", "n_epochs"), [(1, 2), (2, 6), (3, 7), (0, 8)])
def test_patience_ends_a_stage(patience, n_epochs, tiny, monkeypatch):
    set_losses(monkeypatch, [5, 6, 4, 3, 4, 5, 5, 1])
    recipe = Recipe(epochs=8, batch_size=4, validation=0.5, patience=patience)
    trainer = train(make_network(tiny, "last:1"), recipe, size=32, validation=PART)
    assert len(trainer.progress.epochs) == n_epochs


def test_the_validation_part_has_groups_of_its_own_and_no_class_is_lost():
    codes = np.repeat([0, 1, 2], [20, 20, 2])
    groups = np.repeat(np.arange(11), [4] * 10 + [2])
    for seed in range(5):
        train_rows, rest = split_validation(codes, groups, 0.2, seed=seed)
        assert sorted([*train_rows, *rest]) == list(range(42))
        assert not np.intersect1d(groups[train_rows], groups[rest]).size
        assert set(codes[train_rows]) == {0, 1, 2}
        assert 4 <= len(rest) <= 12
    alone = np.arange(3)
    train_rows, rest = split_validation(alone, alone, 0.2, seed=0)
    assert len(train_rows) == 3
    assert not len(rest)


def test_checkpoints_are_written_when_they_are_due(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    file = CheckpointFile(tmp_path / "checkpoint.safetensors")
    train(make_network(tiny, "last:2"), QUICK, size=32, file=file)
    assert len(file.read().progress.epochs) == 1
    assert file.read().progress.step == 2


@pytest.mark.parametrize("n_bytes", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_refused(n_bytes, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)
    file = CheckpointFile(tmp_path / "checkpoint.safetensors")
    train(make_network(tiny, "last:2"), QUICK, size=32, file=file)
    file.path.write_bytes(file.path.read_bytes()[:n_bytes])
    with pytest.raises(CacheError, match=r"checkpoint\.safetensors"):
        file.read()


def test_a_rate_of_a_million_diverges_before_the_step(tiny):
    recipe = Recipe(epochs=3, batch_size=4, lr=1e6, head_lr=1e7, warmup=0.0)
    network = make_network(tiny, "full")
    with pytest.raises(DivergedError) as caught:
        train(network, recipe, size=32)
    divergence = caught.value.divergence
    assert (divergence.epoch, divergence.step) > (0, 0)
    assert divergence.lr > 1e5
    assert math.isfinite(divergence.last_loss)
    assert all(torch.isfinite(p).all() for p in network.list_trained().values())


def test_a_gradient_that_is_not_finite_stops_before_the_step(tiny):
    network = make_network(tiny, "last:2")
    parameter = network.head[-1].bias
    parameter.register_hook(lambda gradient: gradient * math.inf)
    before = digest_tensors(network)
    with pytest.raises(DivergedError):
        train(network, QUICK, size=32)
    assert digest_tensors(network) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adam"},
        {"optimizer": "rmsprop"},
        {"weight_decay": 1.0},
        {"schedule": "constant"},
        {"warmup": 0.5},
        {"label_smoothing": 0.0},
        {"mixup": 0.5},
        {"cutmix": 0.5},
        {"ema": 0.5},
        {"class_weights": "balanced"},
        {"clip_grad": 0.01},
    ],
)
def test_a_setting_changes_the_weights(settings, tiny):
    task = Task(np.arange(8), np.array([0, 0, 0, 0, 0, 0, 1, 1]), 2, Draw(0, 0, 0))
    digests = []
    for recipe in (QUICK, Recipe(epochs=2, batch_size=4, micro_batch=2, **settings)):
        network = make_network(tiny, "last:2")
        inputs = MemoryImages(draw_images(8, 32))
        Trainer(make_learner(network, inputs), task, recipe).train()
        digests.append(digest_tensors(network))
    assert digests[0] != digests[1]


def test_layer_decay_slows_the_deeper_blocks(tiny):
    moved = {}
    for decay in (1.0, 0.1):
        network = make_network(tiny, "last:2")
        before = {k: v.detach().clone() for k, v in network.list_trained().items()}
        inputs = MemoryImages(draw_images(8, 32))
        learner = make_learner(network, inputs)
        blocks = list_blocks(tiny.network)
        deep = {f"network.{name}" for name in blocks[-2].parameters}
        learner = learner._replace(depths={k: int(k in deep) for k in learner.depths})
        recipe = Recipe(epochs=1, batch_size=8, layer_decay=decay, weight_decay=0.0)
        Trainer(learner, make_task(8), recipe).train()
        moved[decay] = {}
        for name, value in network.list_trained().items():
            moved[decay][name] = float((value.detach() - before[name]).abs().max())
    for name, distance in moved[1.0].items():
        factor = 0.1 if name in deep else 1.0
        assert moved[0.1][name] == pytest.approx(distance * factor, rel=0.01, abs=1e-7)


def test_what_is_drawn_is_the_same_whatever_runs_beside():
    with draw_with(3):
        first = torch.rand(4)
    torch.rand(7)
    with draw_with(3):
        assert torch.equal(torch.rand(4), first)
    network = torch.nn.Sequential(SeededDropout(0.5), SeededChannelDropout(0.5))
    ones = torch.ones(64, 8, 4, 4)
    seed_dropout(network, 5)
    dropped = network(ones)
    torch.rand(7)
    assert torch.equal(network(ones), dropped)
    assert dropped.mean() == pytest.approx(1, abs=0.2)
    by_channel = network[1](ones).flatten(2)
    assert torch.equal(by_channel.amin(2), by_channel.amax(2))
    assert set(by_channel.unique().tolist()) == {0.0, 2.0}
    seed_dropout(network, 6)
    assert not torch.equal(network(ones), dropped)
    assert torch.equal(network.eval()(ones), ones)


def test_transforms_are_drawn_for_each_image_and_epoch():
    draw = Draw(0, 0, 1)
    first, second = (draw_transforms(draw, epoch, 2, 1000) for epoch in (0, 1))
    assert 400 < first.sum() < 600
    assert 400 < (first != second).sum() < 600
    assert np.array_equal(first, draw_transforms(draw, 0, 2, 1000))
    assert not np.array_equal(first, draw_transforms(Draw(0, 0, 2), 0, 2, 1000))


def test_rates_grow_and_fall():
    rates = [schedule_rate(step, 100, Recipe(warmup=0.1)) for step in range(100)]
    assert rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01
    assert schedule_rate(50, 100, Recipe(schedule="constant")) == 1.0


@pytest.mark.parametrize("alphas", [{"mixup": 0.4, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_mixed_targets_have_the_share_of_the_mixed_pixels(alphas):
    images = torch.stack([torch.full((3, 10, 10), float(i)) for i in range(4)])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mixed, targets = mix_images(images, torch.eye(4), rng, **alphas)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        values = targets @ torch.arange(4.0)
        assert torch.allclose(mixed.mean((1, 2, 3)), values, atol=1e-5)


def test_stored_activations_train_as_the_images_do(tiny, tmp_path):
    """The same losses and the same logits, bit for bit."""
    images = draw_images(24, 32, n_classes=3)
    recipe = Recipe(epochs=8, batch_size=8, lr=1e-3)
    plain = make_network(tiny, "last:2", n_classes=3)
    cached = make_network(tiny, "last:2", n_classes=3)
    blocks = select_blocks(list_blocks(tiny.network), "last:2")
    cut = find_cut(cached, blocks, (32, 32))
    with torch.no_grad(), stop_before(cached, cut.module) as run_frozen:
        stored = MemoryImages(run_frozen(images))
    rest = CutNetwork(cached, cut, (32, 32))
    losses, predicted = [], []
    for network, learning, inputs in (
        (plain, plain, MemoryImages(images)),
        (cached, rest, stored),
    ):
        learner = make_learner(network, inputs, learning=learning)
        trainer = Trainer(learner, make_task(24, 3), recipe)
        trainer.train()
        losses.append([epoch.loss for epoch in trainer.progress.epochs])
        predicted.append(score_images(learning, inputs, np.arange(24)))
    assert losses[1] == losses[0]
    assert np.array_equal(predicted[0], predicted[1])


def test_shuffled_labels_cannot_be_learnt_for_other_images(tiny):
    """Half of the images are scored by a network that learnt the labels of the other half."""
    rng = np.random.default_rng(0)
    images, codes = draw_images(120, 32), rng.integers(0, 2, 120)
    network = make_network(tiny, "last:2")
    task = Task(np.arange(60), codes[:60], 2, Draw(0, 0, 0))
    inputs = MemoryImages(images)
    Trainer(make_learner(network, inputs), task, Recipe(epochs=3)).train()
    logits = score_images(network, inputs, np.arange(60, 120))
    assert abs((logits.argmax(1) == codes[60:]).mean() - 0.5) < 0.15


def test_scores_do_not_depend_on_what_is_scored_beside(tiny):
    network = make_network(tiny, "last:2")
    inputs = MemoryImages(draw_images(20, 32))
    together = score_images(network, inputs, np.arange(20))
    assert np.array_equal(score_images(network, inputs, np.array([3])), together[3:4])
    assert np.array_equal(score_images(network, inputs, np.arange(7, 20)), together[7:])


def test_nothing_to_score_gives_no_rows(tiny):
    network = make_network(tiny, "last:2")
    inputs = MemoryImages(draw_images(2, 32))
    assert len(score_images(network, inputs, np.arange(0))) == 0


def test_the_stored_inputs_are_the_drawn_transforms():
    class File:
        n_images, n_transforms = 5, 2

        def read(self, images, transforms):
            return torch.from_numpy(np.stack([images, transforms], 1))

    draw = Draw(0, 0, 0)
    images = np.array([4, 1])
    read = StoredActivations(File()).read_training(images, draw, 3)
    assert read[:, 1].tolist() == draw_transforms(draw, 3, 2, 5)[images].tolist()
    assert StoredActivations(File()).read_plain(images)[:, 1].tolist() == [0, 0]
