"""The embedded image set: drawn by the project, so that everything can be tried offline.

Upwards from the bottom: `fields` (arithmetic), `body` (coordinates of an animal), `patterns`,
`anatomy` (what a species is), `creature` (painting it), `scenes`, `camera` (the photograph),
`species` (the table), `images` (the set as files).
"""

from fishfeat.demo.drawing import DEMO_GROUP_PATTERN, draw_demo

__all__ = ["DEMO_GROUP_PATTERN", "draw_demo"]
