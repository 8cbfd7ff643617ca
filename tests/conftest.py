"""Material that several rooms' tests share."""

from __future__ import annotations

import codecs
import functools
import gc
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

# The suite runs in one process for each core: more threads only wait for one another. It is set
# before anything loads OpenMP. The second is the number of cores that joblib sees.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

import numpy as np
import pytest
import typer.testing
from hypothesis import settings
from PIL import Image

# A busy machine is no fault of the code: no example is refused for being slow. Each run tries other
# examples, so that fewer of them in one run are enough.
settings.register_profile("fishfeat", deadline=None, max_examples=25)
settings.load_profile("fishfeat")

# The garbage collector looks through the modules of torch again and again: a tenth of the time.
gc.set_threshold(100_000, 50, 100)

# Some tests fork. A fork has none of the threads that networks of OpenVINO need to end, so that it
# crashes where it collects one; what was made before the fork is not collected there.
os.register_at_fork(before=gc.freeze, after_in_parent=gc.unfreeze)

# A process of a user makes the commands once, and so do the tests: it is half of a short command.
typer.testing._get_command = functools.cache(typer.testing._get_command)

# The files that take longest go first: then both processes end at the same time.
LONG = (
    *(
        "test_ray.py",
        "test_finetune.py",
        "test_reference.py",
        "test_commands.py",
        "test_contracts.py",
    ),
    *("test_active_runs.py", "test_training.py", "test_interrupts.py", "test_cross_validation.py"),
    *("test_browser.py", "test_page.py", "test_runtimes.py", "test_parallel.py"),
    *("test_calibration.py", "test_splits.py", "test_kept_networks.py", "test_architecture.py"),
    *("test_search.py", "test_reproduce.py", "test_truncated.py", "test_networks.py"),
    *("test_bucket.py", "test_extract_shards.py", "test_onnx_files.py", "test_autotune.py"),
)
# Networks that tests outside of a test function keep, as fixtures of a module do.
_NETWORKS = tempfile.TemporaryDirectory(prefix="fishfeat-networks-")
os.environ["FISHFEAT_NETWORKS"] = _NETWORKS.name
SHARED = Path(os.environ.get("FISHFEAT_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files that take longest to the front."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Leave out of each collection what is there before the first test."""
    _look_for_no_data_frames()
    gc.collect()
    gc.freeze()


def _look_for_no_data_frames() -> None:
    """Let scikit-learn ask of no array whether it is a data frame: a twentieth of the time."""
    validation = sys.modules.get("sklearn.utils.validation")
    is_frame = getattr(validation, "_nw_into_df_or_series", None)
    if is_frame is not None:
        validation._nw_into_df_or_series = lambda x: not isinstance(x, np.ndarray) and is_frame(x)


@pytest.fixture(autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of kept networks: empty for each test, and never that of the user."""
    folder = tmp_path_factory.getbasetemp() / "networks" / uuid.uuid4().hex
    monkeypatch.setenv("FISHFEAT_NETWORKS", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights; the test is skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real images at {SHARED} (set FISHFEAT_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def draw_folder() -> Callable[..., Path]:
    """Draw a folder of class folders: coloured noise, each class with a hue of its own."""

    def draw(
        root: Path, *, classes: tuple[str, ...] = ("bass", "bream"), n: int = 6, size: int = 24
    ) -> Path:
        rng = np.random.default_rng(0)
        for c, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            for i in range(n):
                rgb = rng.integers(0, 90, (size, size + 8, 3), dtype=np.uint8)
                rgb[..., c % 3] += 120
                Image.fromarray(rgb).save(root / name / f"fish_{c}{i // 2}_{i}.png")
        return root

    return draw


Place = Callable[[int], tuple[float, float]]
_SHADES = ((0, 180), (100, 255))


@pytest.fixture(scope="session")
def draw_video() -> Callable[..., np.ndarray]:
    """Write a video of textured ellipses that move before a still, textured background.

    Each place is a function from the frame to the centre of one ellipse. The result is where each
    of them is seen: bool (n_frames, n_objects, height, width).
    """
    import cv2

    def draw_texture(seed: int, size: tuple[int, int], low: int, high: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=(*size, 3)).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), 2)
        noise = (noise - noise.min()) / (noise.max() - noise.min())
        return low + (high - low) * noise

    def draw(
        path: Path,
        places: tuple[Place, ...] = (),
        *,
        n_frames: int = 20,
        size: tuple[int, int] = (120, 200),
        noise: float = 2.0,
        light: Callable[[int], float] = lambda t: 1.0,
        shake: Place = lambda t: (0.0, 0.0),
        codec: str = "MJPG",
        fps: float = 25,
    ) -> np.ndarray:
        rng = np.random.default_rng(0)
        background = draw_texture(1, size, 60, 160)
        textures = [draw_texture(2 + i, (60, 100), *_SHADES[i % 2]) for i in range(len(places))]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size[::-1])
        rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
        truth = np.zeros((n_frames, len(places), *size), bool)
        for t in range(n_frames):
            frame = background
            for i, (texture, place) in enumerate(zip(textures, places, strict=True)):
                x, y = map(np.float32, place(t))
                radius = np.hypot((columns - x) / 22, (rows - y) / 12)
                alpha = np.clip((1 - radius) * 12 + 0.5, 0, 1)[..., None]
                skin = cv2.remap(
                    texture, columns - x + 50, rows - y + 30, cv2.INTER_LINEAR, None, 2
                )
                frame = frame * (1 - alpha) + skin * alpha
                truth[t, :i] &= alpha[..., 0] <= 0.5
                truth[t, i] = alpha[..., 0] > 0.5
            right, down = shake(t)
            matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
            frame = cv2.warpAffine(frame, matrix, size[::-1], borderMode=cv2.BORDER_REFLECT)
            frame = frame * light(t) + noise * rng.normal(size=frame.shape)
            writer.write(np.clip(frame, 0, 255).astype(np.uint8))
        writer.release()
        return truth

    return draw


@pytest.fixture
def folder(tmp_path: Path, draw_folder: Callable[..., Path]) -> Path:
    """Two classes of six small images in three pairs each."""
    return draw_folder(tmp_path / "fish")


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report draws no PNG files, which take half of its time; tests/report looks at them."""
    monkeypatch.setattr("fishfeat.report.output.page._draw_plots", lambda contents: {})


@pytest.fixture
def no_pictures(no_plots: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has no charts either, which take half of the rest; tests/report looks at them."""
    from fishfeat.report.output import charts, html

    leaderboard = charts.LeaderboardChart(html.Markup(), b"")
    monkeypatch.setattr(charts, "draw_leaderboard", lambda standings: leaderboard)
    monkeypatch.setattr(html, "draw_reliability", lambda *args, **options: html.Markup())


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near-duplicates that nobody asked for are not looked for, which takes half of `extract`."""
    monkeypatch.setattr(
        "fishfeat.images.grouping.hints.find_near_duplicate_hint", lambda images, X: None
    )


@pytest.fixture
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forests and boosting grow 12 trees where no other number is given."""
    from fishfeat.classify.estimators.boosting import BoostedTrees
    from fishfeat.classify.estimators.forest import CalibratedForest

    for estimator in (BoostedTrees, CalibratedForest):
        monkeypatch.setitem(estimator.__init__.__kwdefaults__, "n_estimators", 12)


@pytest.fixture
def eager_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch is written by itself, as on a machine that takes a second for one."""
    monkeypatch.setattr("fishfeat.features.layer_files.COMMIT_SECONDS", 0.0)


@pytest.fixture
def ours() -> Iterator[Path]:
    """A folder of a user whom permissions bind: root becomes nobody for the length of the test."""
    folder, root = Path(tempfile.mkdtemp()), os.geteuid() == 0
    if root:
        codecs.lookup("utf-8-sig")  # nobody may not read the modules of root's Python
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)
