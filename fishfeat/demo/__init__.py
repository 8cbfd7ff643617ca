"""The demo images: fishfeat draws them, so that everything can be tried offline.

Modules, lowest first: `noise_fields` (arithmetic on arrays), `body` (coordinates of an animal),
`patterns` (marks on its skin), `anatomy` (traits of a species), `creature` (paints an animal),
`scenes` (backgrounds), `camera` (the photograph), `species` (the table), `drawing` (the files).
"""

from fishfeat.demo.drawing import DEMO_GROUP_PATTERN, draw_demo

__all__ = ["DEMO_GROUP_PATTERN", "draw_demo"]
