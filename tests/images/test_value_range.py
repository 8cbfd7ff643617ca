"""Images of more than 8 bits: their values are measured, and white can be given."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fishfeat.errors import DataError
from fishfeat.images.decode import UnreadableImage, decode, depends_on_white, measure, read_image
from fishfeat.images.scan import scan
from fishfeat.images.value_range import ValueRange, check_value_ranges, parse_range
from fishfeat.records import ImageSet
from fishfeat.workspace import NOT_MEASURED

GREY = np.linspace(0, 1, 64).reshape(8, 8)
COLOUR = np.dstack([GREY, GREY.T, GREY[::-1]])


def write(path: Path, values: np.ndarray) -> bytes:
    """An image of any depth: colours of 16 bits with OpenCV, all others with Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if values.ndim == 3:
        cv2.imwrite(str(path), np.ascontiguousarray(values[:, :, ::-1]))
    else:
        Image.fromarray(values).save(path)
    return path.read_bytes()


def scaled(top: float, dtype: str, shape: np.ndarray = GREY) -> np.ndarray:
    return (shape * top).astype(dtype)


def write_12_bits(path: Path) -> bytes:
    """A TIFF that packs two values into three bytes."""
    values = scaled(4095, "u2").ravel()
    a, b = values[0::2], values[1::2]
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype("u1").tobytes()
    tags = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 9 + 4)]
    tags += [(277, 1), (278, 8), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + packed)
    return path.read_bytes()


# --- measuring --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a.tif", scaled(3100, "u2"), "16-bit 0 3100"),
        ("a.png", scaled(3100, "u2"), "16-bit 0 3100"),
        ("a.tif", scaled(65535, "u2"), "16-bit 0 65535"),
        ("a.tif", scaled(9000, "i4"), "32-bit 0 9000"),
        ("a.tif", scaled(1.5, "f4"), "float 0 1.5"),
        ("a.tif", scaled(2, "f4") - 1, "float -1 1"),
        ("a.png", scaled(4095, "u2", COLOUR), "16-bit 0 4095"),
        ("a.tif", scaled(4095, "u2", COLOUR), "16-bit 0 4095"),
        ("a.png", scaled(255, "u1"), ""),
        ("a.png", scaled(255, "u1", COLOUR), ""),
        ("a.jpg", scaled(255, "u1"), ""),
    ],
)
def test_values_of_more_than_8_bits_are_measured(tmp_path, name, values, expected):
    found = measure(write(tmp_path / name, values))
    assert (found.width, found.height, found.values) == (8, 8, expected)


def test_a_transparent_image_is_measured_without_its_alpha(tmp_path):
    alpha = np.full((8, 8, 1), 65535, "u2")
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([scaled(4095, "u2", COLOUR), alpha]))
    assert measure((tmp_path / "a.png").read_bytes()).values == "16-bit 0 4095"


def test_what_cannot_be_decoded_is_measured_without_values(tmp_path):
    data = write(tmp_path / "a.tif", scaled(3100, "u2"))
    assert measure(data[:-50]).values == ""


def test_a_range_survives_its_text():
    for found in (ValueRange("16-bit", 0, 3100), ValueRange("float", -1, 1.5)):
        assert parse_range(str(found)) == found
    assert parse_range("") is parse_range(NOT_MEASURED) is None


# --- decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
@pytest.mark.parametrize(
    ("top", "dtype", "shape"),
    [(4095, "u2", GREY), (1023, "u2", GREY), (16383, "u2", GREY), (4095, "u2", COLOUR)],
)
def test_white_gives_all_levels(tmp_path, name, top, dtype, shape):
    rgb = decode(write(tmp_path / name, scaled(top, dtype, shape)), white=top)
    expected = shape if shape.ndim == 3 else np.dstack([shape] * 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - 255 * expected).max() <= 1


@pytest.mark.parametrize("top", [10_000, 1e6, 1.02])
def test_white_of_floats(tmp_path, top):
    data = write(tmp_path / "a.tif", scaled(top, "f4"))
    assert decode(data, white=top).max() == 255
    assert np.abs(decode(data, white=top)[:, :, 0] - 255 * GREY).max() <= 1


def test_values_above_white_become_white(tmp_path):
    data = write(tmp_path / "a.tif", scaled(4095, "u2"))
    assert (decode(data, white=1000)[-4:] == 255).all()


def test_images_of_8_bits_take_no_notice_of_white(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        for shape in (GREY, COLOUR):
            data = write(tmp_path / name, scaled(255, "u1", shape))
            assert np.array_equal(decode(data, white=4095), decode(data))


def test_files_that_fill_16_bits_are_as_before(tmp_path):
    data = write(tmp_path / "a.tif", scaled(65535, "u2"))
    assert np.array_equal(decode(data), decode(data, white=65535))
    assert np.abs(decode(data)[:, :, 0] - 255 * GREY).max() <= 1


def test_packed_12_bits_are_scaled_by_their_own_range(tmp_path):
    data = write_12_bits(tmp_path / "a.tif")
    assert measure(data).values == "12-bit 0 4095"
    assert np.abs(decode(data)[:, :, 0] - 255 * GREY).max() <= 1


def test_deep_colours_keep_transparency_and_orientation(tmp_path):
    alpha = np.full((8, 8, 1), 65535, "u2")
    alpha[:4] = 0
    pixels = np.dstack([scaled(4095, "u2", COLOUR[:, :, ::-1]), alpha])
    data = cv2.imencode(".png", pixels)[1].tobytes()
    rgb = decode(data, white=4095)
    assert (rgb[:4] == 255).all()
    assert np.abs(rgb[4:] - 255 * COLOUR[4:]).max() <= 1
    turn = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 3, 0, 0)
    chunk = b"eXIf" + turn
    chunk = struct.pack(">I", len(turn)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert np.array_equal(decode(data[:33] + chunk + data[33:], white=4095), rgb[::-1, ::-1])


def test_an_image_above_white_is_tried_again_with_another_white(tmp_path):
    path = tmp_path / "data/a/1.tif"
    write(path, scaled(1e5, "f4"))
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert depends_on_white(str(caught.value))
    images = scan(tmp_path / "data")
    rejected = images.reject({images.digest[0]: str(caught.value)}, reader="x")
    assert len(scan(tmp_path / "data", known=rejected)) == 1
    assert isinstance(caught.value, DataError)


# --- the data set -----------------------------------------------------------------------------


def told(tmp_path, *arrays: np.ndarray, white: float | None = None) -> list[str]:
    for i, values in enumerate(arrays):
        write(tmp_path / f"data/{'ab'[i % 2]}/{i}.tif", values)
    images = check_value_ranges(scan(tmp_path / "data"), white)
    return [str(f) for f in images.findings if f.check == "value-range"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([scaled(3100, "u2")] * 3, ["3 16-bit images", "3,100 of 65,535", "--white 4095"]),
        ([scaled(1000, "u2")], ["1 16-bit image", "--white 1023"]),
        ([scaled(16000, "u2")], ["--white 16383"]),
        ([scaled(9998, "f4")] * 2, ["2 float images", "--white 10000"]),
        ([scaled(1.02, "f4")], ["--white 1`"]),
        ([scaled(0.9, "f4"), scaled(200, "f4")], ["1 from 0 to 1", "1 from 0 to 255"]),
        ([scaled(4095, "i4")], ["32-bit", "--white 4095"]),
        ([scaled(2, "f4") - 1], ["below 0", "down to -1"]),
        ([scaled(1e5, "f4")], ["above the 65,535", "cannot be used"]),
        ([scaled(65535, "u2"), scaled(4000, "u2")], ["1 of 2", "(of b)", "above 4,000", "65,535"]),
        ([scaled(3000, "u2", COLOUR)], ["16-bit", "--white 4095"]),
    ],
)
def test_a_range_that_is_not_filled_is_said_with_numbers(tmp_path, arrays, words):
    (message,) = told(tmp_path, *arrays)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    "arrays",
    [
        [scaled(65535, "u2")],
        [scaled(60000, "u2"), scaled(30000, "u2")],
        [scaled(1, "f4")],
        [scaled(255, "f4")],
        [scaled(255, "u1")],
    ],
)
def test_a_range_that_is_filled_is_not_said(tmp_path, arrays):
    assert told(tmp_path, *arrays) == []


def test_with_white_only_what_does_not_fit_it_is_said(tmp_path):
    dark = [scaled(3100, "u2")]
    assert told(tmp_path, *dark, white=4095) == []
    assert "become white" in told(tmp_path, *dark, white=1023)[0]


def test_a_second_scan_knows_the_values_without_reading(tmp_path, monkeypatch):
    write(tmp_path / "a/1.tif", scaled(3100, "u2"))
    before = scan(tmp_path)
    monkeypatch.setattr("fishfeat.images.scan.read_bytes", None)
    after = scan(tmp_path, known=before)
    assert after.values.tolist() == ["16-bit 0 3100"]
    assert after.findings == before.findings


def test_what_an_earlier_version_did_not_measure_is_measured(tmp_path):
    write(tmp_path / "a/1.tif", scaled(3100, "u2"))
    images = scan(tmp_path)
    known = ImageSet(**{**vars(images), "values": np.array([NOT_MEASURED])})
    assert scan(tmp_path, known=known).values.tolist() == ["16-bit 0 3100"]
