"""What an engine says of each shard."""

from __future__ import annotations

from typing import NamedTuple

from fishfeat.shards.results import ShardResult


class Outcome(NamedTuple):
    """A shard that a worker has left.

    Attributes
    ----------
    number
        Number of the shard.
    result
        What it became; None where it is not done.
    reason
        Why it is not done.
    """

    number: int
    result: ShardResult | None
    reason: str = ""
