"""The whole command: folds, groups, verdict, model, resume."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import fishfeat as ff
from fishfeat.classify.statistics.verdict import find_baseline
from fishfeat.finetuning import inputs, jobs
from fishfeat.finetuning.finetune import FinetuneRuntime, finetune
from fishfeat.finetuning.jobs import pair_folds
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.tuned_networks import read_trained_digests
from fishfeat.options import ExtractOptions, FinetuneOptions, FitOptions
from fishfeat.stages.extract import extract_data
from fishfeat.stages.finetune import finetune_all, finetune_data, list_network_blocks
from fishfeat.stages.fit import fit_data
from fishfeat.stages.info import describe_cache, prune_data, verify_cache
from fishfeat.stages.predict import predict_images

BACKBONE = "random:test_efficientnet"
QUICK = FinetuneOptions(train="last:2", epochs=1, jobs=2)


def extract(folder, cache, **options):
    group_by = options.pop("group_by", r"pattern:fish_(\d+)_")
    extract_data(
        folder,
        ExtractOptions(
            backbone=BACKBONE, img_size=32, group_by=group_by, runtime="eager", **options
        ),
        cache=cache,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory, draw_folder):
    """A fitted data set; tests copy it."""
    root = tmp_path_factory.mktemp("finetune")
    folder = draw_folder(root / "fish", classes=("bass", "bream", "carp"), n=12)
    extract(folder, root / "cache")
    fit_data(FitOptions(clf=("logreg",), cv=3, seed=2, test=0.25), cache=root / "cache")
    return root


@pytest.fixture(scope="module")
def tuned(made):
    return finetune_data(QUICK, cache=made / "cache")


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "cache" / "fish" / "finetune", ignore_errors=True)
    return tmp_path / "copy" / "cache"


@pytest.fixture(scope="module")
def ungrouped(tmp_path_factory, draw_folder):
    """The same images without groups, so that there are random folds alone: a third of the jobs."""
    root = tmp_path_factory.mktemp("ungrouped")
    folder = draw_folder(root / "fish", classes=("bass", "bream", "carp"), n=12)
    extract(folder, root / "cache", group_by="none")
    fit_data(FitOptions(clf=("logreg",), cv=2, seed=2, test=0.25), cache=root / "cache")
    return root


@pytest.fixture
def quick(ungrouped, tmp_path):
    shutil.copytree(ungrouped, tmp_path / "copy")
    return tmp_path / "copy" / "cache"


def test_folds_groups_and_held_out_images_are_those_of_the_fit(made, tuned):
    dataset = ff.Workspace(made / "cache").current.read()
    fitted = {run.split: run for run in dataset.folder.load_runs() if run.name == "logreg"}
    for run in tuned.runs[:2]:
        same = fitted[run.split]
        assert run.splits_digest == same.splits_digest
        assert np.array_equal(run.keys, same.keys)
        assert np.array_equal(run.fold, same.fold)
        assert run.kind == "finetune"
        assert np.allclose(run.scores.sum(axis=2), 1)
    assert [run.split for run in tuned.runs] == ["grouped", "random", "grouped"]
    assert len(tuned.runs[0].holdout.keys) == len(fitted["grouped"].holdout.keys) > 0


def test_the_mean_of_both_is_one_more_run(tuned):
    mean = tuned.runs[2]
    assert mean.config.members == ("logreg", "finetune-last2")
    expected = (tuned.baseline.scores + tuned.runs[0].scores) / 2
    assert np.allclose(mean.scores, expected)


def test_the_run_says_how_it_was_trained_and_what_it_cost(tuned):
    training = tuned.runs[0].config.training
    assert training.recipe["train"] == "last:2"
    assert len(training.blocks) == 2
    assert 0 < training.n_trained < training.n_parameters
    assert training.cut
    assert [len(fold.epochs) for fold in training.folds] == [1, 1, 1]
    n_rows = len(tuned.runs[0].keys)
    # three folds train on two thirds, three calibrations on one third
    assert training.cost.images_passed > 3 * n_rows
    assert training.cost.processor_seconds > 0
    assert training.cost.flops > 0
    assert not training.diverged


def test_the_saved_network_and_its_head_give_the_held_out_scores(made, tuned, tmp_path):
    run = tuned.runs[0]
    paths = [made / "fish" / key for key in run.holdout.keys]
    predictions = predict_images(paths, cache=made / "cache", model="finetune-last2")
    scores = np.array([p.scores for p in predictions.predictions])
    assert np.abs(scores - run.holdout.scores).max() < 1e-4
    images = ff.scan(made / "fish")
    spec = run.config.training.network
    features = ff.extract(images, spec, cache=tmp_path / "cache")
    model = ff.load_model(tuned.model)
    rows = np.searchsorted(features.keys, run.holdout.keys)
    again = model.pipeline.predict_proba(features.X[rows])
    assert np.abs(again - run.holdout.scores).max() < 1e-4


def test_a_tuned_network_is_not_scored_on_the_images_it_learnt(made, tuned, tmp_path):
    spec = tuned.runs[0].config.training.network
    n_learnt = len(read_trained_digests(spec))
    assert n_learnt == len(np.unique(tuned.features.digest[tuned.splits.rows]))
    options = ExtractOptions(backbone=f"local-dir:{spec.name}", img_size=32)
    extract_data(made / "fish", options, cache=tmp_path / "cache")
    with pytest.raises(ff.DataError, match=f"{n_learnt} of the {len(tuned.features)}"):
        fit_data(FitOptions(clf=("logreg",), cv=3), cache=tmp_path / "cache")
    with pytest.raises(ff.DataError, match="trained on"):
        finetune_data(QUICK, cache=tmp_path / "cache")


def test_a_tuned_network_whose_list_of_images_is_gone_is_not_used(tuned, tmp_path):
    spec = tuned.runs[0].config.training.network
    folder = shutil.copytree(spec.name, tmp_path / "network")
    (folder / "trained_on.json").unlink()
    with pytest.raises(ff.DataError, match=r"trained_on\.json"):
        read_trained_digests(dataclasses.replace(spec, name=str(folder)))


def test_no_fold_reads_an_image_of_a_group_that_it_scores(copied, monkeypatch):
    """Without stored activations every image that is trained on is read by its fold."""
    trained: dict[tuple[int, int], set[int]] = {}
    read = inputs.PlainImages.read_training

    def spy(self, images, draw, epoch):
        trained.setdefault((draw.repeat, draw.fold), set()).update(images.tolist())
        return read(self, images, draw, epoch)

    monkeypatch.setattr(inputs.PlainImages, "read_training", spy)
    options = dataclasses.replace(QUICK, augment="light")
    result = finetune_data(options, cache=copied)
    groups = result.features.groups
    for number, fold in enumerate(result.splits.repeats[0]):
        grouped = trained[0, number] & set(fold.train.tolist())
        assert grouped
        calibration = trained[0, result.splits.n_folds + pair_index(number)]
        assert set(groups[fold.test]).isdisjoint(groups[list(calibration)])
    held_out = set(groups[result.splits.holdout])
    for images in trained.values():
        assert held_out.isdisjoint(groups[list(images)])


def pair_index(number):
    """The first calibration of three folds that leaves a fold out."""
    return next(i for i, pair in enumerate(pair_folds(3)) if number in pair)


def test_the_jobs_train_on_no_group_that_they_score(tuned):
    splits, groups = tuned.splits, tuned.features.groups
    for job in jobs.plan_jobs([splits], seed=0):
        assert set(groups[job.train]).isdisjoint(groups[job.score]), job.name


@pytest.mark.parametrize("n_folds", [3, 4, 5, 10])
def test_every_fold_is_calibrated_by_another_one(n_folds):
    pairs = pair_folds(n_folds)
    assert {fold for pair in pairs for fold in pair} == set(range(n_folds))
    assert all(first != second for first, second in pairs)
    assert len(pairs) == -(-n_folds // 2)


def test_a_finished_run_is_not_trained_again(made, tuned, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr("fishfeat.finetuning.finetuner.Trainer", fail)
    again = finetune_data(QUICK, cache=made / "cache")
    assert np.array_equal(again.runs[0].scores, tuned.runs[0].scores)


def test_a_second_recipe_with_the_same_cut_runs_no_frozen_block(made, tuned, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("the frozen part ran")

    monkeypatch.setattr("fishfeat.finetuning.finetuner.fill_activations", fail)
    options = dataclasses.replace(QUICK, lr=1e-4)
    result = finetune_data(options, cache=made / "cache")
    assert result.runs[0].config.training.cut == tuned.runs[0].config.training.cut


def test_a_run_that_was_interrupted_ends_with_the_same_scores(copied, tuned, monkeypatch):
    """Whatever the number of jobs, which is two in the undisturbed run and one in this one."""
    count = jobs.Counter.count
    n_steps = []

    def interrupt(self, n):
        n_steps.append(n)
        if len(n_steps) == 6:
            raise KeyboardInterrupt
        return count(self, n)

    monkeypatch.setattr(jobs.Counter, "count", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune_data(dataclasses.replace(QUICK, jobs=1), cache=copied)
    result = finetune_data(dataclasses.replace(QUICK, jobs=1), cache=copied)
    assert np.array_equal(result.runs[0].scores, tuned.runs[0].scores)


def test_a_diverged_run_is_marked_scored_as_guessing_and_gives_no_model(quick):
    options = FinetuneOptions(train="last:2", epochs=3, lr=1e6)
    result = finetune_data(options, cache=quick)
    run = result.runs[0]
    assert result.model is None
    assert result.network is None
    diverged = run.config.training.diverged
    assert diverged
    number = diverged[0].fold
    fold = result.splits.repeats[0][number]
    rows = np.searchsorted(result.splits.rows, fold.test)
    shares = np.bincount(result.features.y[fold.train], minlength=3) / len(fold.train)
    assert np.allclose(run.scores[0, rows], shares)
    for path in (quick / "fish" / "runs").glob("finetune*/run.json"):
        json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))


def test_logreg_is_fitted_where_nothing_was(made, tmp_path):
    extract(made / "fish", tmp_path / "cache")
    result = finetune_data(FinetuneOptions(train="head"), cache=tmp_path / "cache")
    assert result.baseline.name == "logreg"
    assert result.splits.n_folds == 5


@pytest.mark.parametrize("augment", ["flip", "light"])
def test_a_truncated_image_that_has_features_is_trained_on(augment, tmp_path, draw_folder):
    """From stored activations, and from the images themselves."""
    folder = draw_folder(tmp_path / "fish", n=8)
    path = next((folder / "bass").glob("*.png"))
    path.write_bytes(path.read_bytes()[:-300])
    extract(folder, tmp_path / "cache", allow_truncated=True)
    fit_data(FitOptions(clf=("logreg",), cv=2), cache=tmp_path / "cache")
    result = finetune_data(dataclasses.replace(QUICK, augment=augment), cache=tmp_path / "cache")
    assert f"bass/{path.name}" in result.runs[0].keys


@pytest.mark.parametrize("img_size", [None, 48])
def test_other_weights_than_those_of_the_features_are_refused(img_size, copied, monkeypatch):
    monkeypatch.setattr("fishfeat.features.backbones.RANDOM_SEED", 1)
    with pytest.raises(ff.BackboneError, match="other weights"):
        finetune_data(dataclasses.replace(QUICK, img_size=img_size), cache=copied)


def test_the_folds_stay_as_they_were_asked_for_when_labels_change(made, tmp_path):
    shutil.copytree(made / "fish", tmp_path / "fish")
    extract(tmp_path / "fish", tmp_path / "cache")
    fit_data(FitOptions(clf=("logreg",), cv=3, seed=5), cache=tmp_path / "cache")
    path = next((tmp_path / "fish" / "bass").glob("*.png"))
    path.rename(tmp_path / "fish" / "carp" / path.name)
    extract(tmp_path / "fish", tmp_path / "cache")
    result = finetune_data(FinetuneOptions(train="head"), cache=tmp_path / "cache")
    assert (result.splits.n_folds, result.splits.seed) == (3, 5)


def test_the_head_alone_is_logistic_regression(copied, made, monkeypatch):
    """Its predictions and its scores; no image is opened."""
    monkeypatch.setattr("fishfeat.images.decode.decode", None)
    shutil.rmtree(copied.parent / "fish")
    result = finetune_data(FinetuneOptions(train="head"), cache=copied)
    run = result.runs[0]
    assert np.array_equal(run.predicted, result.baseline.predicted)
    assert np.abs(run.scores - result.baseline.scores).max() < 1e-5
    assert np.abs(run.holdout.scores - result.baseline.holdout.scores).max() < 1e-5
    assert result.network is None
    assert ff.load_model(result.model).spec == result.features.spec
    images = ff.Workspace(copied).current.read().require_images()
    solved = finetune(result.features, images, result.splits, Recipe(train="head"), cache=copied)
    assert np.array_equal(solved.scores, run.scores)
    with pytest.raises(ff.DataError, match="img_size has no effect"):
        finetune(
            result.features, images, result.splits, Recipe(train="head"), cache=copied, img_size=48
        )


def test_what_is_trained_lies_with_the_features_it_started_from(tmp_path, draw_folder):
    """Two folders of one name are two data sets of one cache."""
    spec = ff.make_spec(BACKBONE, img_size=32)
    for size in (24, 30):
        images = ff.scan(draw_folder(tmp_path / str(size) / "fish", size=size))
        features = ff.extract(images, spec, cache=tmp_path / "cache")
    assert features.dataset != images.name
    splits = ff.make_splits(features, ff.SplitOptions(cv=2))
    finetune(features, images, splits, Recipe(train="last:1", epochs=1), cache=tmp_path / "cache")
    assert (tmp_path / "cache" / features.dataset / "finetune").is_dir()
    assert not (tmp_path / "cache" / images.name / "finetune").exists()


def test_the_head_of_two_classes_is_logistic_regression(tmp_path, draw_folder):
    folder = draw_folder(tmp_path / "fish")
    extract(folder, tmp_path / "cache")
    options = FitOptions(clf=("logreg",), cv=2)
    fit_data(options, cache=tmp_path / "cache")
    result = finetune_data(FinetuneOptions(train="head"), cache=tmp_path / "cache")
    assert np.abs(result.runs[0].scores - result.baseline.scores).max() < 1e-5


def test_info_counts_checks_and_prunes_what_fine_tuning_keeps(copied, tuned):
    contents = describe_cache(copied).datasets[0]
    assert contents.finetuning_megabytes > 0.1
    check = verify_cache(copied)
    assert check.is_sound
    assert len(check.datasets[0].files) == 2
    assert [file.n_rows for file in prune_data(copied).files] == [0, 0]
    file = next((copied / "fish" / "activations").glob("*.h5"))
    file.write_bytes(file.read_bytes()[:100])
    assert not verify_cache(copied).is_sound


def test_missing_images_are_named_and_nothing_is_lost(quick):
    shutil.rmtree(quick / "fish" / "activations", ignore_errors=True)
    data = ff.Workspace(quick).current.read()
    images = dataclasses.replace(data.require_images(), root=quick / "gone")
    features = ff.extract(data.require_images(), data.state.spec, cache=quick)
    splits = ff.make_splits(features, ff.SplitOptions(cv=3))
    with pytest.raises(ff.DataError, match="cannot be read"):
        finetune(features, images, splits, Recipe(train="last:2", epochs=1), cache=quick)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(train="full", epochs=1),
        Recipe(train="scratch", epochs=1),
        Recipe(train="last:2", epochs=1, head="dense 8, dropout 0.2"),
        Recipe(train="head", epochs=1, head="dense 8, dropout 0.2"),
        Recipe(stages="head:1,last:1:1"),
        Recipe(train="last:1", epochs=1, augment="fish", mixup=0.2),
        Recipe(train="last:1", epochs=1, augment="d4", head_start="tempered"),
        Recipe(train="last:1", epochs=1, select=True),
    ],
    ids=lambda recipe: f"{recipe.name}-{recipe.augment}-{recipe.head_start}-{recipe.select}",
)
def test_every_recipe_trains(recipe, quick):
    data = ff.Workspace(quick).current.read()
    features = ff.extract(data.require_images(), data.state.spec, cache=quick)
    groups = data.require_images().groups
    features = dataclasses.replace(features, groups=groups)
    splits = ff.make_splits(features, ff.SplitOptions(cv=2))
    run = finetune(
        features,
        data.require_images(),
        splits,
        recipe,
        cache=quick,
        runtime=FinetuneRuntime(jobs=2),
    )
    assert run.scores.shape == (1, len(features), 3)
    assert not run.config.training.diverged
    assert all(fold.epochs for fold in run.config.training.folds)


def test_another_input_size_is_trained_and_saved(quick, made):
    options = dataclasses.replace(QUICK, img_size=48)
    result = finetune_data(options, cache=quick)
    assert result.runs[0].config.training.network.img_size == 48
    predict_images([made / "fish" / result.features.keys[0]], cache=quick, model=result.model.name)


def test_blocks_are_listed_from_the_output(made):
    rows = list_network_blocks(cache=made / "cache")
    assert rows[0].train == "last:1"
    assert rows[-1].train == "full"
    trained = [row.n_trained for row in rows]
    assert trained == sorted(trained)
    assert sum(row.n_parameters for row in rows) == trained[-1]
    assert rows[0].gigaflops < rows[-1].gigaflops


def test_the_blocks_of_a_named_network_are_its_own(made, tmp_path):
    options = FinetuneOptions(network=SMALL_CNN, train="scratch", img_size=32)
    rows = list_network_blocks(options, cache=made / "cache")
    assert [row.name.partition(".")[0] for row in rows] == ["dense", "blocks", "blocks"]
    recipe = tmp_path / "small.toml"
    recipe.write_text(f'network = "{SMALL_CNN}"\ntrain = "scratch"\n')
    in_recipe = FinetuneOptions(recipe=recipe, img_size=32)
    assert list_network_blocks(in_recipe, cache=made / "cache") == rows
    with pytest.raises(ff.BackboneError, match="pretrained"):
        list_network_blocks(FinetuneOptions(network=SMALL_CNN), cache=made / "cache")


@pytest.mark.parametrize(
    "options",
    [
        FinetuneOptions(jobs=0),
        FinetuneOptions(train="last:99"),
        FinetuneOptions(epochs=0),
        FinetuneOptions(lr=-1),
        FinetuneOptions(augment="much"),
        FinetuneOptions(train="head", img_size=48),
        FinetuneOptions(device="tpu"),
        FinetuneOptions(device="cuda:99"),
    ],
)
def test_a_wrong_option_is_refused(options, made):
    with pytest.raises(ff.FishfeatError):
        finetune_data(options, cache=made / "cache")


# --- other networks ---------------------------------------------------------------------------

SMALL_CNN = "cnn-c,widths=4-8,dense=6,batch_norm=true"


def test_a_network_from_scratch_is_trained_saved_and_predicts(quick):
    options = FinetuneOptions(train="scratch", network=SMALL_CNN, epochs=1, img_size=32, jobs=2)
    result = finetune_data(options, cache=quick)
    run = result.runs[0]
    assert run.name == "finetune-scratch-cnn-c-widths-4-8-dense-6-batch_norm-true"
    training = run.config.training
    assert training.n_trained == training.n_parameters == 3_531
    assert training.recipe["img_size"] == 32
    assert run.config.features.backbone.name == SMALL_CNN
    assert result.verdict.frozen.name == "logreg"
    paths = [quick.parent / "fish" / key for key in run.holdout.keys]
    predictions = predict_images(paths, cache=quick, model=run.name)
    scores = np.array([p.scores for p in predictions.predictions])
    assert np.abs(scores - run.holdout.scores).max() < 1e-4
    runs = ff.Workspace(quick).current.load_runs()
    assert find_baseline(run, runs).name == "logreg"


def test_another_pretrained_network_is_trained_on_the_same_folds(quick):
    network = finetune_data(QUICK, cache=quick).runs[0].config.training.network
    options = dataclasses.replace(QUICK, network=f"local-dir:{network.name}")
    with pytest.raises(ff.DataError, match="trained on"):
        finetune_data(options, cache=quick)
    with pytest.raises(ff.BackboneError, match="--train scratch"):
        finetune_data(dataclasses.replace(QUICK, network="cnn-c"), cache=quick)
    options = dataclasses.replace(QUICK, network="random:test_resnet", img_size=32)
    result = finetune_data(options, cache=quick)
    assert result.runs[0].name == "finetune-last2-random-test_resnet"
    assert result.runs[0].splits_digest == result.baseline.splits_digest


def test_a_sweep_has_a_result_for_each_number_of_blocks(quick):
    options = FinetuneOptions(sweep="last:0..2", epochs=1, augment="affine", jobs=2)
    results = finetune_all(options, cache=quick)
    trained = [len(result.runs[0].config.training.blocks) for result in results]
    assert trained == [0, 1, 2]
    n_trained = [result.runs[0].config.training.n_trained for result in results]
    assert n_trained == sorted(set(n_trained))
    assert results[0].runs[0].config.training.folds[0].epochs
    with pytest.raises(ff.DataError, match="sweep"):
        finetune_data(options, cache=quick)


def test_a_sweep_beyond_the_blocks_of_the_network_trains_nothing(copied):
    with pytest.raises(ff.DataError, match="last:99"):
        finetune_all(FinetuneOptions(sweep="last:0..99", epochs=1), cache=copied)
    assert not list((copied / "fish").glob("finetune/*"))


def test_a_validation_part_is_noted_and_a_stage_may_end_early(quick, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'train = "last:1"\nepochs = 12\nlr = 0.5\nhead_lr = 0.5\nvalidation = 0.25\n'
        'keep = "best"\npatience = 1\n'
    )
    progress = []
    result = finetune_data(
        FinetuneOptions(recipe=path, jobs=1),
        cache=quick,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    folds = result.runs[0].config.training.folds
    assert min(len(fold.epochs) for fold in folds) < 12
    assert all(epoch.validation_loss is not None for fold in folds for epoch in fold.epochs)
    done, total = progress[-1]
    assert done <= total < 12 * done


@pytest.mark.parametrize("augment", ["flip", "none"])
def test_test_time_augmentation_scores_as_the_saved_network_does(augment, quick, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(f'tta = "flip"\naugment = "{augment}"\ntrain = "last:1"\nepochs = 1\n')
    run = finetune_data(FinetuneOptions(recipe=path, jobs=2), cache=quick).runs[0]
    assert bool(run.config.training.cut) == (augment == "flip")
    assert run.config.training.network.tta == "flip"
    paths = [quick.parent / "fish" / key for key in run.holdout.keys]
    predictions = predict_images(paths, cache=quick, model=run.name)
    scores = np.array([p.scores for p in predictions.predictions])
    assert np.abs(scores - run.holdout.scores).max() < 1e-4
