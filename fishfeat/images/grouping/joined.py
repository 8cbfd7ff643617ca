"""What is connected with what: the one union-find of grouping."""

from __future__ import annotations


class Joined:
    """Sets of rows that grow together.

    Parameters
    ----------
    n
        Number of rows, each a set of its own at first.
    """

    def __init__(self, n: int) -> None:
        self._above = list(range(n))

    def root(self, i: int) -> int:
        """The smallest row of the set that row `i` is in."""
        above = self._above
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one set of those of `i` and `j`."""
        a, b = sorted((self.root(i), self.root(j)))
        self._above[b] = a
