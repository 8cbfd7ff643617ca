"""Measure the mask of what moves against a plain threshold on the flow, on drawn animals.

    python benchmarks/motion.py --frames 6

A drawn animal swims and bends before a drawn scene, so that its true mask is known. Plain is what
most people write: the length of the Farnebäck flow to the next frame, a threshold of 1 pixel, and
an erosion by 2 pixels. Both look at the same frames, in turns. IoU is the mean over frames and
species.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import cv2
import numpy as np

from fishfeat.demo.body import Pose
from fishfeat.demo.creature import paint_animal
from fishfeat.demo.scenes import open_water, reef, sand
from fishfeat.demo.species import SPECIES
from fishfeat.video.flow import find_movement
from fishfeat.video.frames import Frame, Neighbours

SIDE = 400
SPEEDS = (1.5, 3.0, 6.0, 12.0)
SCENES = {"reef": reef, "sand": sand, "open water": open_water}


def draw_frames(
    scene: str, species: int, *, speed: float, n: int
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames (uint8, BGR) and true masks of one animal."""
    background = SCENES[scene](np.random.default_rng(species), SIDE).rgb
    noise = np.random.default_rng(0)
    for t in range(n):
        pose = Pose(
            centre=(SIDE / 2 + speed * (t - n / 2), SIDE / 2),
            size=0.3 * SIDE,
            angle=0.0,
            mirrored=True,
            squeeze=1.0,
            curl=0.0,
            wave=0.02,
            phase=0.6 * t,
            depth=1.0,
        )
        animal = paint_animal(SPECIES[species], pose, gen=np.random.default_rng(species), side=SIDE)
        rgb = background * (1 - animal.alpha[..., None]) + animal.rgb
        rgb = 255 * rgb + noise.normal(0, 2, rgb.shape)
        image = np.clip(rgb, 0, 255).astype(np.uint8)[..., ::-1].copy()
        yield Frame(t, t / 25, image), animal.alpha > 0.5


def find_plain_mask(neighbours: Neighbours) -> np.ndarray:
    """A threshold on the length of the flow, and an erosion."""
    pair = (neighbours.frame.image, neighbours.after.image)
    grey, after = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in pair)
    flow = cv2.calcOpticalFlowFarneback(grey, after, None, 0.5, 5, 15, 3, 5, 1.2, 0)
    mask = (np.linalg.norm(flow, axis=2) > 1).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    return cv2.erode(mask, disc).astype(bool)


def find_mask(neighbours: Neighbours) -> np.ndarray:
    """The mask of fishfeat, with the defaults of `fishfeat motion`."""
    return find_movement(neighbours, threshold=1.0, erosion=2).mask


def measure_overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    return float((mask & truth).sum() / (mask | truth).sum())


def main() -> None:
    """Print the table and the ratio of the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=6)
    n_frames = parser.parse_args().frames
    seconds = {find_plain_mask: 0.0, find_mask: 0.0}
    print("| scene | pixels a frame | IoU, plain | IoU, fishfeat |\n|---|---|---|---|")
    for scene in SCENES:
        for speed in SPEEDS:
            overlaps: dict[object, list[float]] = {find: [] for find in seconds}
            for species in range(6):
                drawn = list(draw_frames(scene, species, speed=speed, n=n_frames))
                for i in range(1, n_frames - 1):
                    neighbours = Neighbours(*(frame for frame, _ in drawn[i - 1 : i + 2]))
                    for find in seconds:
                        start = time.process_time()
                        mask = find(neighbours)
                        seconds[find] += time.process_time() - start
                        overlaps[find].append(measure_overlap(mask, drawn[i][1]))
            plain, ours = (np.mean(overlaps[find]) for find in seconds)
            print(f"| {scene} | {speed} | {plain:.2f} | {ours:.2f} |", flush=True)
    print(f"\nprocessor time: {seconds[find_mask] / seconds[find_plain_mask]:.1f} times plain")


if __name__ == "__main__":
    main()
