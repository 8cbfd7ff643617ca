"""Import torch and timm while the images are listed: both take seconds, on a core of their own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from fishfeat.options import EngineOptions
from fishfeat.records import BackboneSpec
from fishfeat.workspace import DatasetFolder, Workspace


def start_imports(
    folder: DatasetFolder, specs: Sequence[BackboneSpec], engine: EngineOptions
) -> threading.Thread | None:
    """Start to import what loads a network, where it will be needed.

    It will be where no feature file of these specifications is in the cache, of this data set or
    of another one, and no network is kept that is ready to run.

    Returns
    -------
    threading.Thread or None
        The thread that imports; to be joined before anything else is imported. Python waits for it
        before it ends.
    """
    for spec in specs:
        name = folder.features_file(spec).name
        for other in [folder, *Workspace(folder.folder.parent).datasets()]:
            if (other.folder / "features" / name).exists():
                return None
    from fishfeat.features.ready_networks import find_startable

    if len(specs) == 1 and find_startable(specs[0], engine) is not None:
        return None
    thread = threading.Thread(target=_import_backbones)
    thread.start()
    return thread


def _import_backbones() -> None:
    with contextlib.suppress(Exception):  # the import that needs it raises the same error
        import fishfeat.features.autotune  # noqa: F401
