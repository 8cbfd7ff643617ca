import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fishfeat.errors import FishfeatError
from fishfeat.features.engines.loading import Item, Loader
from fishfeat.features.engines.processes import load_in_processes
from fishfeat.features.preprocess import Preprocess
from fishfeat.images.scan import scan

LOADER = Loader(
    Preprocess(
        size=(16, 24),
        resize="squash",
        interpolation="bilinear",
        crop_pct=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        white=None,
    )
)

# Loads images for ever; its argument is the folder.
LOADING = """
import sys
from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.processes import load_in_processes
from fishfeat.images.scan import scan
from test_processes import LOADER
images = scan(sys.argv[1])
items = [Item(str(images.path(i)), "") for i in range(len(images))] * 100_000
for image in load_in_processes(LOADER, items, 2, 8):
    print("loaded", flush=True)
"""


@pytest.fixture
def items(tmp_path, draw_folder):
    images = scan(draw_folder(tmp_path / "fish", n=40))
    return [Item(str(images.path(i)), str(images.digest[i])) for i in range(len(images))]


def test_processes_give_the_same_pixels_and_reasons_in_the_same_order(items, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    items[9:9] = [Item(str(tmp_path / "text.png"), ""), Item(str(tmp_path / "gone.png"), "")]
    items[50] = items[50]._replace(digest="0" * 64)
    expected = [LOADER.load(item) for item in items]
    batch: list = []
    for i, image in enumerate(load_in_processes(LOADER, items, 2, 8)):
        batch.append((image, expected[i]))
        if len(batch) < 8 and i + 1 < len(items):
            continue
        # The pixels of a whole batch are there at the same time.
        for given, wanted in batch:
            assert given.item == wanted.item
            assert given[2:] == wanted[2:]
            assert (given.pixels is None) == (wanted.pixels is None)
            if wanted.pixels is not None:
                assert np.array_equal(given.pixels, wanted.pixels)
        batch = []
    assert i + 1 == len(items) == 82
    assert sum(image.pixels is None for image in expected) == 3


def test_more_images_than_slots_use_each_slot_again(items):
    sums = [int(image.pixels.sum()) for image in load_in_processes(LOADER, items * 5, 2, 1)]
    expected = [int(LOADER.load(item).pixels.sum()) for item in items]
    assert sums == expected * 5
    assert len(set(expected)) > 40


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_process_that_is_ended_is_an_error(items):
    others = find_workers(os.getpid())  # of earlier tests
    loading = load_in_processes(LOADER, items * 500, 2, 8)
    next(loading)
    (worker, *_) = set(find_workers(os.getpid())) - set(others)
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(FishfeatError, match="ended from outside"):
        list(loading)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_kill_leaves_no_process_behind(items, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])
    }
    command = [sys.executable, "-c", LOADING, str(tmp_path / "fish")]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"loaded\n"
        workers = find_workers(process.pid)
        assert len(workers) == 2
        process.kill()
    end = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(is_alive, workers))


def find_workers(parent):
    """Processes that load images for another one."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                is_child = int(file.read().rpartition(")")[2].split()[1]) == parent
            with open(f"/proc/{name}/cmdline") as file:
                is_worker = "popen_loky" in file.read()
        except OSError:
            continue
        if is_child and is_worker:
            found.append(int(name))
    return found


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
