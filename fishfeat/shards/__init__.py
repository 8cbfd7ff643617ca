"""Data sets in shards: images in folders or object storage, embedded by any number of machines.

A scan writes the list of the images in parts, the shards. Workers embed one shard after the other;
a shard is done when its small JSON file exists. So workers need not know of one another, and a
worker that dies costs no more than the shard it was at.
"""
