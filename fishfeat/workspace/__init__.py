"""Where things are under the cache folder, and the one owner of what is remembered.

A command reads the state of a data set once (`DatasetFolder.read`), computes, and commits once
(`DatasetFolder.commit`), under a lock that one command at a time holds. A commit replaces the state
and the tables that belong to it together: a process that is killed leaves all of the old or all of
the new.
"""

from fishfeat.workspace.cache_folder import Source, Workspace, is_in_place
from fishfeat.workspace.folders import Dataset, DatasetFolder
from fishfeat.workspace.images_table import IMAGE_COLUMNS, NOT_MEASURED, apply_truncated
from fishfeat.workspace.locks import hold_lock
from fishfeat.workspace.runs import collect_arrays
from fishfeat.workspace.state import (
    DatasetState,
    HintSearch,
    NearDuplicateSearch,
    SavedHint,
)

__all__ = [
    "IMAGE_COLUMNS",
    "NOT_MEASURED",
    "Dataset",
    "DatasetFolder",
    "DatasetState",
    "HintSearch",
    "NearDuplicateSearch",
    "SavedHint",
    "Source",
    "Workspace",
    "apply_truncated",
    "collect_arrays",
    "hold_lock",
    "is_in_place",
]
