"""Weights from a hub: what is on this machine first, the network second, a clear word third."""

from __future__ import annotations

import contextlib
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TypeVar

from fishfeat.errors import BackboneError

T = TypeVar("T")
PROBE_SECONDS = 4.0


def fetch(name: str, build: Callable[[], T], *, url: str | None = None) -> T:
    """Build a network whose weights may have to be fetched.

    First with the hub's client offline, so that weights already on this machine load without a
    word to the network; only then is the hub asked, and only if it answers at all: the client on
    its own would retry for a minute.

    Parameters
    ----------
    name
        What the user asked for.
    build
        Makes the network, fetching what it needs.
    url
        Where the weights lie; None is the Hugging Face Hub.

    Raises
    ------
    BackboneError
        The weights are not on this machine and the network cannot be reached.
    """
    if url is None:
        with contextlib.suppress(OSError, ValueError), _quiet(), _offline():
            return build()
    if not reachable(url or _hub_endpoint()):
        raise BackboneError(unreachable_message(name))
    try:
        return build()
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"The weights of {name!r} cannot be fetched: {error}") from error


def unreachable_message(name: str) -> str:
    """What to do where the hub cannot be reached."""
    return (
        f"The weights of {name!r} are not on this machine and the network cannot be reached. "
        "--backbone nano is part of the package and needs no network. Otherwise fetch them once "
        "where there is a network (the same command does it) and bring the hub's cache folder "
        "along (~/.cache/huggingface, or HF_HOME), or bring a folder with "
        "config.json and model.safetensors and name it with --backbone local-dir:FOLDER."
    )


def reachable(url: str) -> bool:
    """Whether anything answers at `url` within `PROBE_SECONDS`; proxies are respected."""
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            answered.set()  # an error page is an answer
        except OSError:
            return
        answered.set()

    # In a thread: a name server that does not answer holds the caller longer than any timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def _hub_endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
