"""The commands' work: each stage finds its input in the workspace and leaves its output there.

What a command is not told, it takes from the last time the same data set was used, and says so.
"""
