"""Weights from a hub: from this machine if they are there, else from the network."""

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

    The first attempt keeps the client of the hub offline, so that weights on this machine load
    without a request. The second asks the hub, but only if the hub answers: the client retries for
    a minute where it does not.

    Parameters
    ----------
    name
        Name of the backbone, for messages.
    build
        Makes the network and fetches the weights that it needs.
    url
        URL of the weights; None is the Hugging Face Hub.

    Raises
    ------
    BackboneError
        The weights are not on this machine and the network cannot be reached.
    """
    if url is None:
        with contextlib.suppress(OSError, ValueError), _silence_loggers(), _set_hub_offline():
            return build()
    if not is_reachable(url or _hub_endpoint()):
        raise BackboneError(make_unreachable_message(name))
    try:
        return build()
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"The weights of {name!r} cannot be fetched: {error}") from error


def make_unreachable_message(name: str) -> str:
    """Say what to do where the hub cannot be reached."""
    return (
        f"The weights of {name!r} are not on this machine and the network cannot be reached. "
        "The backbone `nano` ships in the package and needs no network. For other backbones run "
        "the same command once on a machine with a network and copy the hub's cache folder from "
        "there (~/.cache/huggingface, or HF_HOME), or copy a folder with config.json and "
        "model.safetensors and name it `local-dir:FOLDER`."
    )


def is_reachable(url: str) -> bool:
    """Whether a server answers at `url` within `PROBE_SECONDS`; proxies are respected."""
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

    # In a thread: a name server that does not answer blocks the caller longer than any timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


def _hub_endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@contextlib.contextmanager
def _set_hub_offline() -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _silence_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
