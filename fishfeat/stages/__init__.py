"""The commands' work, one file for each command: read the state, compute, commit.

A stage reads what is remembered of a data set once, computes without changing it, and commits once.
What a command is not told, it takes from the last time the same data set was used, and says so.
"""
