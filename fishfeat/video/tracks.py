"""Follow objects from frame to frame: each gets a track number that it keeps.

Objects are assigned to tracks all at once, at the lowest cost in sum (`linear_sum_assignment` of
scipy): by where they should be (the position, moved by the velocity), by the overlap of the boxes,
by size and by colour. Where objects meet, the mask has one part for all of them. Their tracks go on
at their velocities, and nothing is recorded, until the objects part again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fishfeat.video.objects import Box, MovingObject

# An object may be this far from where it is expected, in lengths of the object.
_MAX_DISTANCE = 1.5
# Its area may change by this factor between two frames.
_MAX_GROWTH = 4.0
_WEIGHT_OVERLAP = 1.0
_WEIGHT_SIZE = 0.5
_WEIGHT_COLOUR = 2.0
# A costlier object is another one, unless the track met others and nobody knows where it is.
_MAX_COST = 2.5
_TOO_EXPENSIVE = 1e6
# Objects that met are expected to part again within this many times the longest gap.
_MEETING = 5.0
# Share of a track's box inside an object of another track, from which on the two have met.
_INSIDE = 0.5
_STILL_INSIDE = 0.25
# How fast a velocity follows what is measured, which jumps where a fin is not in the mask.
_NEW = 0.3


@dataclass(frozen=True)
class Track:
    """What is known of an object that is followed.

    Attributes
    ----------
    number
        Track number, from 1; 0 as long as it was seen once only, as noise mostly is.
    box
        Where it is, or should be.
    velocity
        Pixels a frame to the right and down.
    area
        Pixels in the mask.
    histogram
        Share of its pixels in each colour.
    seen
        Seconds at which it was last seen on its own.
    located
        Seconds at which it was last seen on its own or with another object.
    met
        Whether it is hidden in, or one with, another object.
    """

    number: int
    box: Box
    velocity: tuple[float, float]
    area: float
    histogram: tuple[float, ...]
    seen: float
    located: float
    met: bool = False


@dataclass(frozen=True)
class Sighting:
    """An object on its track, in one frame.

    Attributes
    ----------
    track
        Track number, from 1.
    box
        Where the object is: whole pixels (x, y, width, height) inside the frame.
    """

    track: int
    box: Box


@dataclass(frozen=True)
class Tracks:
    """The state of the tracking between two frames.

    Attributes
    ----------
    tracks
        The objects that are followed now.
    n_tracks
        Track numbers given so far.
    frame
        Number of the frame that was looked at last; -1 before the first.
    """

    tracks: tuple[Track, ...] = ()
    n_tracks: int = 0
    frame: int = -1


def follow_objects(
    state: Tracks, objects: Sequence[MovingObject], *, frame: int, seconds: float, max_gap: float
) -> tuple[Tracks, list[Sighting]]:
    """Assign the objects of a frame to tracks: the new state, and what was seen.

    Parameters
    ----------
    state
        After the frame that was looked at before.
    objects
        Objects of this frame.
    frame, seconds
        Number and time of this frame.
    max_gap
        Seconds after which a track of an object that is not seen ends.
    """
    n_steps = frame - state.frame
    expected = [_move(track, n_steps) for track in state.tracks]
    object_of = _assign(expected, objects)
    meetings = _find_meetings(expected, objects, object_of)
    tracks, sightings = [], []
    n_tracks = state.n_tracks
    for i, track in enumerate(expected):
        if i in meetings:
            track = _stay_inside(track, objects[meetings[i]].box, seconds)
            if seconds - track.seen <= _MEETING * max_gap:
                tracks.append(track)
        elif i in object_of:
            if not track.number:
                n_tracks += 1
                track = replace(track, number=n_tracks)
            earlier = state.tracks[i].box
            found = objects[object_of[i]]
            tracks.append(_update(track, found, earlier, n_steps=n_steps, seconds=seconds))
            sightings.append(Sighting(track.number, found.box))
        elif track.number and seconds - track.located <= max_gap:
            tracks.append(replace(track, met=False))
    taken = {*object_of.values(), *meetings.values()}
    for j, found in enumerate(objects):
        if j not in taken:
            tracks.append(_start(found, seconds))
    sightings.sort(key=lambda sighting: sighting.track)
    return Tracks(tuple(tracks), n_tracks, frame), sightings


def _start(found: MovingObject, seconds: float) -> Track:
    return Track(0, found.box, found.velocity, found.area, found.histogram, seconds, seconds)


def _move(track: Track, n_steps: int) -> Track:
    right, down = track.velocity
    return replace(track, box=track.box.shift(right * n_steps, down * n_steps))


def _assign(tracks: Sequence[Track], objects: Sequence[MovingObject]) -> dict[int, int]:
    """Track -> object, by their places in the two lists, at the lowest cost in sum."""
    if not tracks or not objects:
        return {}
    from scipy.optimize import linear_sum_assignment

    costs = np.array([[_find_cost(track, other) for other in objects] for track in tracks])
    rows, columns = linear_sum_assignment(costs)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {i: j for i, j in pairs if costs[i, j] < _TOO_EXPENSIVE}


def _find_cost(track: Track, found: MovingObject) -> float:
    """How little an object looks like the one expected: about 0 to 5; or too much."""
    length = max(track.box.width, track.box.height, found.box.width, found.box.height)
    distance = math.dist(track.box.centre, found.box.centre) / length
    growth = max(track.area / found.area, found.area / track.area)
    if distance > _MAX_DISTANCE or (growth > _MAX_GROWTH and not track.met):
        return _TOO_EXPENSIVE
    overlap = track.box.overlap(found.box)
    union = track.box.area + found.box.area - overlap
    cost = distance + _WEIGHT_OVERLAP * (1 - overlap / union) + _WEIGHT_SIZE * math.log(growth)
    cost += _WEIGHT_COLOUR * _compare_colours(track.histogram, found.histogram)
    return cost if cost <= _MAX_COST or track.met else _TOO_EXPENSIVE


def _compare_colours(first: Sequence[float], second: Sequence[float]) -> float:
    """Hellinger distance of two histograms, 0 to 1."""
    similarity = sum(math.sqrt(a * b) for a, b in zip(first, second, strict=True))
    return math.sqrt(max(0.0, 1 - similarity))


def _find_meetings(
    tracks: Sequence[Track], objects: Sequence[MovingObject], object_of: dict[int, int]
) -> dict[int, int]:
    """Track -> object, for tracks that share one object with another track.

    A track that has no object of its own is in the object that covers the place where it should be.
    """
    tracks_in: dict[int, list[int]] = {}
    for i, track in enumerate(tracks):
        j = object_of.get(i, -1)
        if j < 0 and objects:
            shares = [track.box.overlap(found.box) / track.box.area for found in objects]
            best = shares.index(max(shares))
            j = best if shares[best] >= (_STILL_INSIDE if track.met else _INSIDE) else -1
        if j >= 0 and track.number:
            tracks_in.setdefault(j, []).append(i)
    return {i: j for j, members in tracks_in.items() if len(members) > 1 for i in members}


def _stay_inside(track: Track, box: Box, seconds: float) -> Track:
    """The track moved into the box of the objects that met."""
    right = _find_way(track.box.x, track.box.width, box.x, box.width)
    down = _find_way(track.box.y, track.box.height, box.y, box.height)
    return replace(track, box=track.box.shift(right, down), located=seconds, met=True)


def _find_way(start: float, length: float, outer_start: float, outer_length: float) -> float:
    """How far a line must move to lie inside another one; a longer one gets its middle."""
    room = outer_length - length
    if room <= 0:
        return outer_start + room / 2 - start
    return min(max(start, outer_start), outer_start + room) - start


def _update(
    track: Track, found: MovingObject, earlier: Box, *, n_steps: int, seconds: float
) -> Track:
    """The track after its object was seen."""
    (x, y), (old_x, old_y) = found.box.centre, earlier.centre
    moved = ((x - old_x) / n_steps, (y - old_y) / n_steps)
    velocity = found.velocity
    if track.number and not track.met:
        velocity = (
            (1 - _NEW) * track.velocity[0] + _NEW * moved[0],
            (1 - _NEW) * track.velocity[1] + _NEW * moved[1],
        )
    histogram = tuple(
        0.8 * a + 0.2 * b for a, b in zip(track.histogram, found.histogram, strict=True)
    )
    return replace(
        _start(found, seconds), number=track.number, velocity=velocity, histogram=histogram
    )
