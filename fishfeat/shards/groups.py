"""Groups of the images of shards, each named by the path of the image alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from fishfeat.errors import DataError
from fishfeat.images.grouping.rules import name_by_folder, name_by_pattern, parse_rules
from fishfeat.images.labels import compile_pattern


def choose_rule(group_by: str | None) -> Callable[[str], str]:
    """The function that names the group of a path.

    Raises
    ------
    DataError
        The rule needs all images at once.
    """
    if not group_by:
        return lambda key: ""
    rule = parse_rules([group_by])[0]
    if rule.kind == "pattern":
        regex: re.Pattern[str] = compile_pattern(rule.value, parameter="group_by pattern:")
        return lambda key: name_by_pattern(regex, key)
    if rule.kind == "folder":
        return lambda key: name_by_folder(key, int(rule.value))
    raise DataError(
        f"group_by must be pattern:REGEX or folder:N for shards; got {group_by!r}. Other "
        "rules need all images at once: after `fishfeat merge`, `fishfeat fit --group-by` has them."
    )


def describe_rule(group_by: str | None) -> str:
    """What relates the images of a group, in a sentence; '' without a rule."""
    if not group_by:
        return ""
    kind, _, value = group_by.partition(":")
    if kind == "pattern":
        return f"Images whose paths match `{value}` with the same text are one group."
    return f"Images in the same outermost folders, {value} of them, are one group."
