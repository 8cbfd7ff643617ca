"""Traits of a species: outline, fins, colours, marks and habitats. Lengths are in body lengths."""

from __future__ import annotations

from dataclasses import dataclass

from fishfeat.demo.body import Outline
from fishfeat.demo.noise_fields import Colour
from fishfeat.demo.patterns import Pattern


@dataclass(frozen=True, slots=True)
class Fin:
    """A fin on the edge of the body; `rise` and `fall` shape its outline."""

    start: float
    end: float
    height: float
    below: bool = False
    sweep: float = 0.6
    rise: float = 0.6
    fall: float = 0.6
    rays: int = 14
    comb: float = 0.0  # 1: only the rays remain, like the legs of a prawn


@dataclass(frozen=True, slots=True)
class Tail:
    """A tail fin; `fork` above 0 makes its end concave, below 0 convex."""

    length: float = 0.24
    spread: float = 0.2
    fork: float = 0.5
    flare: float = 1.0


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a species. Individuals vary them."""

    back: Colour
    flank: Colour
    belly: Colour
    fin: Colour
    tail: Colour
    iris: Colour = (214, 186, 92)


@dataclass(frozen=True, slots=True)
class Species:
    """Traits that all individuals of one species share."""

    name: str
    outline: Outline
    palette: Palette
    patterns: tuple[tuple[Colour, Pattern], ...] = ()
    fins: tuple[Fin, ...] = ()
    tail: Tail | None = Tail()
    pectoral: float = 0.13
    eyes: tuple[tuple[float, float], ...] = ((0.12, -0.03),)
    eye_radius: float = 0.03
    length: float = 0.56  # of the frame's width
    curl: float = 0.0  # bend of the whole spine, in radians
    wave: float = 0.0
    scales: float = 0.0  # size of one scale; 0 draws none
    flatness: float = 1.0
    gloss: float = 0.35
    gills: bool = True
    whip: float = 0.0  # length of a ray's tail
    feelers: float = 0.0
    habitats: tuple[int, ...] = (3, 3, 3, 3, 3)  # weights of open water, reef, sand, ice, deck
    light: tuple[float, float, float] = (1.0, 1.0, 1.0)  # RGB factors of its usual light
