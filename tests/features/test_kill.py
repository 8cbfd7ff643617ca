"""SIGKILL at random moments of the real command; `benchmarks/kill.py` sends 200."""

import kill


def test_a_run_killed_at_any_moment_loses_no_counted_row(tmp_path, capfd):
    tally = kill.kill_runs(
        tmp_path, kills=5, seed=0, network="random:test_resnet", n_images=100, batch_size=4
    )
    assert tally.kills == 5
    assert max(tally.progress) > 0
    assert kill.show([tally]) == 0
    assert max(tally.seconds_lost) < 5


def test_the_tally_adds_up_the_losses(tmp_path, capfd):
    tally = kill.Tally("x", kills=1, lost_rows=2, broken_files=1, seconds_lost=[1.0], progress=[0])
    assert kill.show([tally]) == 3
