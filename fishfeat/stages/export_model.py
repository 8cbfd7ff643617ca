"""`fishfeat export model`: a saved model as a file that other programs run."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fishfeat.errors import DataError
from fishfeat.files import check_out, replace_at_end, writing_to
from fishfeat.images.decode import UnreadableImage, read_image
from fishfeat.models.onnx_files.export import check_onnx, make_onnx
from fishfeat.models.onnx_files.graph import import_onnx
from fishfeat.options import ModelFormat
from fishfeat.records import ImageSet, PathLike
from fishfeat.stages.saved_models import choose_model, load_backbone_of

if TYPE_CHECKING:
    from fishfeat.features.preprocess import RGB, Preprocess

log = logging.getLogger("fishfeat")
MODEL_FORMATS: tuple[ModelFormat, ...] = ("onnx",)
# Images of the data set that the file is checked on.
_N_IMAGES = 32


class ExportedModel(NamedTuple):
    """What was written, and how it agrees with fishfeat.

    Attributes
    ----------
    path, model, class_names
        The file, the name of the model, and its classes.
    n_images, n_equal
        Number of images that it was checked on, and of those with the same label.
    difference
        Largest difference of a probability.
    """

    path: Path
    model: str
    class_names: list[str]
    n_images: int
    n_equal: int
    difference: float


def export_model(
    to: ModelFormat = "onnx",
    *,
    model: str | None = None,
    backbone: str | None = None,
    out: PathLike | None = None,
    cache: PathLike = "cache",
    dataset: str | None = None,
) -> ExportedModel:
    """Write a saved model as one file, from images of any size to probabilities.

    The file is checked against fishfeat's own answers before it is written.

    Parameters
    ----------
    to
        'onnx'.
    model, backbone
        As in `PredictOptions`.
    out
        The file, which is replaced. None is 'MODEL.onnx' in the working folder.
    cache
        The cache folder.
    dataset
        Name of the data set; None is the one in use. A model named by its folder needs none.

    Raises
    ------
    DataError
        There is no such format, or `out` is no file.
    MissingExtraError
        onnx or onnxruntime is not installed.
    ModelError
        There is no such model, it cannot be converted, or the file would give other answers.
    BackboneError
        The backbone of the model cannot be loaded.
    """
    if to not in MODEL_FORMATS:
        raise DataError(f"to must be one of {', '.join(MODEL_FORMATS)}; got {to!r}.")
    import_onnx()
    current, loaded, name = choose_model(model, cache=cache, dataset=dataset)
    path = Path(f"{name}.{to}" if out is None else out)
    check_out(path)
    if loaded.config.layers:
        log.info("The file computes every image to the last layer: none leaves early.")
    network = load_backbone_of(loaded, current, backbone)
    content = make_onnx(loaded, network)
    images = [] if current is None else _read_images(current.require_images(), network.preprocess)
    if not images:
        log.info("There is no image of a data set to read: the file is checked on drawn ones.")
    agreement = check_onnx(content, loaded, network, images)
    with writing_to(path, flag="--out FILE"), replace_at_end(path) as temporary:
        temporary.write_bytes(content)
    return ExportedModel(path, name, loaded.class_names.tolist(), *agreement)


def _read_images(images: ImageSet, preprocess: Preprocess) -> list[RGB]:
    """Read some images that are spread over the data set; those that are gone are left out."""
    rows = np.unique(np.linspace(0, len(images) - 1, _N_IMAGES).astype(np.int64))
    pixels = []
    for path in dict.fromkeys(images.path(int(row)) for row in rows):
        with contextlib.suppress(UnreadableImage):
            pixels.append(read_image(path, min_side=preprocess.min_side, white=preprocess.white))
    return pixels
