"""Curves for TensorBoard."""

import importlib.util

import pytest

from fishfeat.finetuning.events import write_events
from fishfeat.records import Epoch

EPOCH = Epoch(lr=1e-3, loss=0.5, accuracy=0.75, images_per_second=10.0)


def test_nothing_is_written_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    write_events(tmp_path / "events", 1, EPOCH)
    assert not (tmp_path / "events").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_is_written(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_events(tmp_path, 1, EPOCH)
    write_events(tmp_path, 2, EPOCH)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("accuracy")] == [(1, 0.75), (2, 0.75)]
    assert set(events.Tags()["scalars"]) == {"loss", "accuracy", "lr", "images_per_second"}
