"""Where networks that are ready for a runtime are kept on this machine; loads no torch.

The store belongs to the user, not to a cache folder, because every data set shares it. Anything in
it can be deleted at any time. A fault of the store never stops a run: the network is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import sys
from functools import cache
from pathlib import Path

from fishfeat.errors import CacheError
from fishfeat.files import json_digest, read_json, versions, write_json

# Rises where a network that was kept before can no longer be used.
PROTOCOL = 1
NETWORK, MEASURED, LOADS = "network.json", "measured.json", "loads.json"
_MAX_BYTES = 2_000_000_000
_PACKAGES = ("fishfeat", "torch", "torchvision", "timm", "openvino")


def find_store() -> Path:
    """The folder of the store: `FISHFEAT_NETWORKS`, else in the user's folder for caches."""
    chosen = os.environ.get("FISHFEAT_NETWORKS")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "fishfeat", "networks")


def find_entry(*parts: object) -> Path:
    """The folder of what belongs to `parts`, for the installed versions; it need not exist."""
    key = json_digest([PROTOCOL, versions(*_PACKAGES), *parts])
    return find_store() / key[:20]


@cache
def describe_processor() -> str:
    """The processor of this machine: its name and a digest of what it can do."""
    name, flags = platform.processor() or platform.machine(), ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            field, _, value = line.partition(":")
            if field.strip() == "model name":
                name = value.strip()
            if field.strip() in ("flags", "Features"):
                flags = value.strip()
    return f"{name} {hashlib.sha256(flags.encode()).hexdigest()[:12]}"


def read_entry(path: Path) -> dict[str, object]:
    """Read a JSON file of the store; empty where it is missing, damaged or newer."""
    try:
        return dict(read_json(path))
    except (CacheError, OSError):
        return {}


def write_entry(path: Path, content: dict[str, object]) -> bool:
    """Write a JSON file of the store; whether it could be written."""
    try:
        write_json(path, content)
    except (CacheError, OSError):
        return False
    return True


def measure_store() -> tuple[int, int]:
    """Number of networks in the store, and its size in bytes."""
    store = find_store()
    n_networks = sum(1 for _ in store.glob(f"*/{NETWORK}"))
    return n_networks, sum(_measure_folder(path) for path in store.glob("*"))


def prune_store() -> None:
    """Remove the networks that were not used for longest, where the store is too large."""
    entries = sorted(find_store().glob(f"*/{NETWORK}"), key=_read_time)
    n_bytes = sum(_measure_folder(path.parent) for path in entries)
    for path in entries[:-1]:
        if n_bytes <= _MAX_BYTES:
            return
        n_bytes -= _measure_folder(path.parent)
        shutil.rmtree(path.parent, ignore_errors=True)


def _read_time(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _measure_folder(folder: Path) -> int:
    n_bytes = 0
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):
            n_bytes += path.stat().st_size
    return n_bytes
