"""A command that is killed or stopped leaves the state before it or the state after it."""

from __future__ import annotations

import pytest
import state

from fishfeat.stages import fit as fit_stage
from fishfeat.stages.inspect import inspect_data

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.parametrize("i", range(3))
def test_a_kill_leaves_the_state_before_or_after_and_the_next_command_works(tmp_path, capfd, i):
    tally = state.kill_command(state.COMMANDS[i], tmp_path, kills=2)
    assert (tally.kills, tally.command) == (2, state.COMMANDS[i].name)
    assert tally.before + tally.begun + tally.after == 2
    assert tally.finished > 0
    assert state.show([tally]) == 0


def test_the_tally_adds_up_the_harm(capfd):
    assert state.show([state.Tally("x", kills=9, torn=1, failed=2, different=3, leftovers=4)]) == 10


def stop(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["validate_and_fit", "make_all_splits", "wrap_pipeline"])
def test_stopping_fit_before_a_classifier_is_finished_leaves_the_groups(pond, monkeypatch, step):
    pond.extract()
    pond.fit()
    files = pond.read_files()
    monkeypatch.setattr(fit_stage, step, stop)
    with pytest.raises(KeyboardInterrupt):
        pond.fit(group_by=("folder:1",))
    assert pond.read_files() == files
    monkeypatch.undo()
    assert pond.fit().splits.digest == pond.read().state.splits[0]
    assert pond.read_files() == files


def test_stopping_fit_after_a_classifier_keeps_it_with_its_groups(pond, monkeypatch):
    pond.extract()
    fit_classifier = fit_stage._fit_classifier
    n_fits = 0

    def fit_once(*args: object):
        nonlocal n_fits
        n_fits += 1
        if n_fits > 1:
            raise KeyboardInterrupt
        return fit_classifier(*args)

    monkeypatch.setattr(fit_stage, "_fit_classifier", fit_once)
    with pytest.raises(KeyboardInterrupt):
        pond.fit(clf=("centroid", "knn"), group_by=("folder:1",))
    dataset = pond.read()
    runs = dataset.folder.load_runs()
    assert {run.name for run in runs} == {"centroid"}
    assert {run.splits_digest for run in runs} == set(dataset.state.splits)
    assert dataset.state.options.group_by == ("folder:1",)
    assert len(set(dataset.require_images().groups.tolist())) == 3


def test_groups_that_cannot_be_split_are_not_remembered(pond):
    from fishfeat.errors import SplitError

    pond.extract()
    files = pond.read_files()
    with pytest.raises(SplitError):
        pond.fit(cv=5, group_by=("folder:1",))
    assert pond.read_files() == files


def test_stopping_an_extraction_keeps_what_is_embedded(pond, monkeypatch, eager_commits):
    pond.extract()
    full = pond.read_files()
    monkeypatch.setattr("fishfeat.stages.extract.apply_groups", stop)
    with pytest.raises(KeyboardInterrupt):
        pond.extract(resize="pad")
    begun = pond.read().state
    assert (begun.spec.resize, begun.features) == ("pad", begun.features)
    # The features last used stay in use until the new ones are complete.
    assert begun.features.encode() in full["dataset.json"]
    monkeypatch.undo()
    assert pond.extract(resize="pad").n_new == 0


def test_stopping_inspect_leaves_the_state(pond, monkeypatch):
    inspect_data(pond.data, cache=pond.cache)
    files = pond.read_files()
    (pond.data / "day_0" / "bass" / "fish_0_0.png").unlink()
    monkeypatch.setattr("fishfeat.workspace.folders.write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        inspect_data(pond.data, cache=pond.cache)
    assert pond.read_files() == files
    assert not list((pond.cache / "pond").glob(".*"))
