"""Images that a program has in memory, such as the frames of a camera, read as files are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fishfeat.errors import DataError
from fishfeat.features.engines.loading import FileRead, Item, Reader


def name_arrays(images: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.uint8]]:
    """Give each image a name in place of a path, by its position: 'image 0', 'image 1', ...

    Raises
    ------
    DataError
        One is no uint8 array (height, width, 3).
    """
    named = {}
    for i, image in enumerate(images):
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise DataError(
                "images must be uint8 arrays (height, width, 3), red, green and blue; image "
                f"{i} is {pixels.dtype} {pixels.shape}."
            )
        named[f"image {i}"] = pixels
    return named


def read_arrays(named: Mapping[str, NDArray[np.uint8]]) -> Reader:
    """A reader of named images. It gives lossless files, which are decoded like any other."""

    def read(items: Sequence[Item]) -> FileRead:
        file = io.BytesIO()
        Image.fromarray(named[items[0].path]).save(file, "PNG", compress_level=0)
        return FileRead(items, file.getvalue())

    return Reader(read, works_in_processes=False)
