"""Files are decoded to upright RGB in the correct colours, or rejected with a reason."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from fishfeat.errors import DataError
from fishfeat.images.decode import (
    TRUNCATED,
    TRUNCATED_AND_EMPTY,
    Size,
    TruncatedImage,
    UnreadableImage,
    decode,
    describe_reader,
    is_truncated_reason,
    read_bytes,
    read_image,
    read_size,
)

RED, GREEN, BLUE, YELLOW = (220, 20, 20), (20, 180, 30), (20, 30, 200), (230, 220, 10)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
NO_IMAGE = "not an image in a supported format"


def encoded(image, fmt="PNG", **options) -> bytes:
    file = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(file, fmt, **options)
    return file.getvalue()


def quadrants() -> np.ndarray:
    """32 by 48, each corner in a colour of its own."""
    upper = np.hstack([np.full((16, 24, 3), colour, np.uint8) for colour in (RED, GREEN)])
    lower = np.hstack([np.full((16, 24, 3), colour, np.uint8) for colour in (BLUE, YELLOW)])
    return np.vstack([upper, lower])


def noise(size=(40, 30)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values)


# What the first row and column of the file are in the upright image, as EXIF 2.3 has it.
STORED = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.swapaxes(0, 1),
    6: lambda u: u.swapaxes(0, 1)[::-1],
    7: lambda u: u.swapaxes(0, 1)[::-1, ::-1],
    8: lambda u: u.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_comes_out_upright(orientation, fmt):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    stored = np.ascontiguousarray(STORED[orientation](quadrants()))
    data = encoded(stored, fmt, exif=exif, **lossless.get(fmt, {}))
    upright = decode(data)
    assert upright.shape == (32, 48, 3)
    assert np.abs(upright.astype(int) - quadrants()).max() <= (6 if fmt == "JPEG" else 0)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_the_size_is_the_stored_one_whatever_the_orientation(fmt):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_size(encoded(quadrants(), fmt, exif=exif)) == Size(width=48, height=32)


def test_an_orientation_that_does_not_exist_changes_nothing():
    exif = Image.Exif()
    exif[0x0112] = 99
    assert np.array_equal(decode(encoded(quadrants(), exif=exif)), quadrants())


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, BLACK])
def test_a_cmyk_jpeg_keeps_its_colours(colour):
    data = encoded(Image.new("RGB", (16, 16), colour).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data).astype(int) - colour).max() <= 4


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(fmt):
    deep = np.array([[0, 100 * 257, 65535]], np.uint16)
    assert decode(encoded(deep, fmt))[0].tolist() == [[0] * 3, [100] * 3, [255] * 3]


def test_a_dark_sixteen_bit_image_stays_dark():
    assert decode(encoded(np.array([[0, 200]], np.uint16))).max() == 1


def test_thirty_two_bit_grey_is_read_as_sixteen_bits():
    deep = np.array([[0, 100 * 257, 65535]], np.int32)
    assert decode(encoded(deep, "TIFF"))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("full", [1, 255])
def test_float_images_run_from_0_to_1_or_to_255(full):
    values = np.array([[0, 0.2, 1]], np.float32) * full
    assert decode(encoded(values, "TIFF"))[0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_image_with_a_pixel_that_is_not_finite_is_rejected(bad):
    data = encoded(np.array([[0, bad, 128]], np.float32), "TIFF")
    with pytest.raises(UnreadableImage, match="broken: some pixels are not finite"):
        decode(data)


def test_one_bit_images_are_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode(encoded(image))[0].tolist() == [list(BLACK), list(WHITE)]


def test_grey_becomes_three_equal_channels():
    assert decode(encoded(np.array([[0, 7, 255]], np.uint8)))[0].tolist() == [
        [0] * 3,
        [7] * 3,
        [255] * 3,
    ]


def palette() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    return image


def test_a_palette_is_looked_up():
    assert decode(encoded(palette()))[0].tolist() == [list(RED), list(BLUE)]


@pytest.mark.parametrize("fmt", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_white(fmt):
    assert decode(encoded(palette(), fmt, transparency=1))[0].tolist() == [list(RED), list(WHITE)]


def test_transparency_is_laid_on_white_in_proportion():
    rgba = np.array([[[0, 0, 0, 0], [0, 0, 0, 51], [10, 20, 30, 255]]], np.uint8)
    assert decode(encoded(rgba))[0].tolist() == [[255] * 3, [204] * 3, [10, 20, 30]]


def test_grey_with_alpha_is_laid_on_white():
    grey = Image.merge("LA", [Image.new("L", (1, 1), 9), Image.new("L", (1, 1), 0)])
    assert decode(encoded(grey))[0, 0].tolist() == [255] * 3


def test_a_transparent_colour_key_is_white():
    data = encoded(Image.new("RGB", (1, 1), RED), transparency=RED)
    assert decode(data)[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_of_several_frames_is_taken(fmt):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE))
    lossless = {"lossless": True} if fmt == "WEBP" else {}
    data = encoded(first, fmt, save_all=True, append_images=[second], **lossless)
    with Image.open(io.BytesIO(data)) as check:
        assert check.n_frames == 2
    assert (decode(data) == RED).all()


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_contiguous_rgb_bytes(mode):
    fmt = "TIFF" if mode in ("CMYK", "I", "F", "YCbCr", "PA") else "PNG"
    rgb = decode(encoded(Image.new(mode, (5, 3)), fmt))
    assert (rgb.shape, rgb.dtype) == ((3, 5, 3), np.uint8)
    assert rgb.flags.c_contiguous


@pytest.mark.parametrize(("width", "height"), [(1, 1), (40_000, 1), (1, 40_000)])
def test_extreme_shapes_are_read(width, height):
    data = encoded(Image.new("RGB", (width, height), RED))
    assert read_size(data) == (width, height)
    assert decode(data).shape == (height, width, 3)
    assert (decode(data)[-1, -1] == RED).all()


# --- what cannot be used ----------------------------------------------------------------------


@pytest.mark.parametrize("read", [decode, read_size])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\xff\xd8", NO_IMAGE),
        (b"\x9c\x01\x02\x03", NO_IMAGE),
    ],
)
def test_what_is_no_image_is_rejected_with_the_reason(read, data, reason):
    with pytest.raises(UnreadableImage) as caught:
        read(data)
    assert str(caught.value) == reason


def box(*brands: bytes) -> bytes:
    """The first box of HEIC, AVIF, CR3, MP4 and MOV files."""
    content = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return (len(content) + 4).to_bytes(4, "big") + content + bytes(99)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"this is no image\n", ["a text", "this is no image"]),
        ("Zugriff verweigert: Köhler".encode(), ["a text", "Zugriff"]),
        (b"<!DOCTYPE html><title>404</title>", ["web page"]),
        (b"\n  <HTML>caf\xe9</HTML>", ["web page"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["git lfs pull"]),
        (b"/annex/objects/SHA256E-s1--0.jpg\n", ["git annex get"]),
        (bytes(1000), ["zero bytes"]),
        (box(b"heic", b"mif1"), ["HEIC"]),
        (box(b"mif1", b"miaf", b"heix"), ["HEIC"]),
        (box(b"crx ", b"isom"), ["CR3", "RAW"]),
        (box(b"mp42", b"isom"), ["a video"]),
        (box(b"qt  "), ["a video"]),
        (b"RIFF\0\0\0\0AVI LIST", ["a video"]),
        (b"\x1aE\xdf\xa3" + bytes(range(99)), ["a video"]),
        (b"PK\x03\x04\x14\0\0\0", ["an archive", "unpack"]),
        (b"\x1f\x8b\x08\0", ["an archive", "unpack"]),
        (b"%PDF-1.4\n%\xe2\xe3", ["a PDF"]),
        (b"FUJIFILMCCD-RAW 0201", ["RAF", "RAW"]),
        (b"8BPS\0\1", ["Photoshop"]),
        (b"<?xml version='1.0'?><svg xmlns=''/>", ["SVG"]),
        (bytes(128) + b"DICM\2\0", ["DICOM"]),
        (b"\x93NUMPY\1\0", ["an array"]),
        (b"\x89HDF\r\n\x1a\n", ["an array"]),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", ["macOS"]),
        (b"\xff\x0a\xfa\x7f", ["JPEG XL"]),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ["Office"]),
    ],
)
def test_the_reason_names_what_the_file_is(data, words):
    for read in (decode, read_size):
        with pytest.raises(UnreadableImage) as caught:
            read(data)
        assert [word for word in words if word not in str(caught.value)] == []


def tiff(bands: int, bits: int, kind: int, *, compression: int = 1) -> bytes:
    """A TIFF of 8 x 8 pixels, of any number and type of bands."""
    pixels = bytes(8 * 8 * bands * bits // 8)
    tags = [(256, 8), (257, 8), (259, compression), (262, 2 if bands == 3 else 1), (277, bands)]
    tags += [(278, 8), (279, len(pixels)), (284, 1)]
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    extra = struct.pack(f"<{2 * bands}H", *[bits] * bands, *[kind] * bands)
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.append(struct.pack("<HHII", 273, 4, 1, start + len(extra)))
    for tag, at in ((258, start), (339, start + 2 * bands)):
        value = (
            struct.pack("<I", at) if bands > 2 else extra[at - start :][: 2 * bands].ljust(4, b"\0")
        )
        entries.append(struct.pack("<HHI", tag, 3, bands) + value)
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + extra + pixels


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (tiff(5, 8, 1), "5 bands of 8-bit integers"),
        (tiff(3, 32, 3), "3 bands of 32-bit floats"),
        (tiff(8, 16, 1), "8 bands of 16-bit integers"),
        (tiff(1, 64, 3), "1 band of 64-bit floats"),
        (tiff(2, 16, 1), "2 bands of 16-bit integers"),
        (tiff(1, 8, 1, compression=34887), "compression 34887"),
    ],
)
def test_a_tiff_that_is_not_supported_is_not_called_broken(data, content):
    with pytest.raises(UnreadableImage) as caught:
        decode(data)
    assert content in str(caught.value)
    assert "broken" not in str(caught.value)


def test_a_jpeg_of_12_bits_is_not_called_broken():
    data = encoded(noise(), "JPEG")
    at = data.index(b"\xff\xc0")
    with pytest.raises(UnreadableImage, match="12 bits in 3 components"):
        decode(data[: at + 4] + b"\x0c" + data[at + 5 :])


def test_heic_is_read_where_its_package_is_installed():
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), RED)).save(file, quality=95)
    data = file.getvalue()
    assert read_size(data) == (64, 48)
    assert np.abs(decode(data).astype(int) - RED).max() < 12
    assert "pillow-heif" in describe_reader()
    with pytest.raises(UnreadableImage):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"])
def test_half_a_file_is_rejected_as_truncated(fmt):
    data = encoded(noise(), fmt)
    with pytest.raises(UnreadableImage, match=f"^{TRUNCATED}$"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("reason", "is_truncated"),
    [
        (TRUNCATED, True),
        ("truncated: the file ends before the picture does", True),  # of fishfeat 0.1.0
        (TRUNCATED_AND_EMPTY, False),
        ("empty file", False),
    ],
)
def test_a_reason_says_whether_a_part_of_the_file_may_be_readable(reason, is_truncated):
    assert is_truncated_reason(reason) == is_truncated


def pixels_or_reason(data: bytes) -> np.ndarray | str:
    try:
        return decode(data)
    except UnreadableImage as error:
        return str(error)


WHOLE = {fmt: encoded(noise(), fmt) for fmt in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")}


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10_000))
def test_a_file_cut_anywhere_is_rejected_or_whole(fmt, cut):
    data = WHOLE[fmt]
    found = pixels_or_reason(data[: cut % len(data)])
    assert found if isinstance(found, str) else np.array_equal(found, decode(data))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_png_with_any_byte_changed_is_rejected_or_the_same(place, change):
    data = bytearray(WHOLE["PNG"])
    data[place % len(data)] ^= change
    found = pixels_or_reason(bytes(data))
    assert found if isinstance(found, str) else np.array_equal(found, decode(WHOLE["PNG"]))


MAGIC = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"P5 3 2 255\n",
]


@given(st.sampled_from(MAGIC), st.binary(max_size=64))
def test_whatever_the_bytes_the_answer_is_an_image_or_a_reason(magic, rest):
    found = pixels_or_reason(magic + rest)
    if isinstance(found, str):
        assert found.strip()
        assert "\n" not in found
    else:
        assert (found.dtype, found.shape[2]) == (np.uint8, 3)


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


@pytest.mark.parametrize("read", [decode, read_size])
def test_an_image_that_would_fill_the_memory_is_rejected(read):
    with pytest.raises(UnreadableImage, match=r"^too large: more than 178 megapixels$"):
        read(png_header(60_000, 60_000) + b"\0\0\0\x04IDAT")


def test_a_hundred_megapixels_are_not_too_large():
    data = png_header(10_000, 10_000) + b"\0\0\0\0IDAT"
    assert read_size(data) == (10_000, 10_000)


def test_a_reason_is_an_error_of_the_data():
    assert issubclass(UnreadableImage, DataError)


# --- files ------------------------------------------------------------------------------------


def test_a_file_is_decoded_as_its_bytes_are(tmp_path):
    path = tmp_path / "Köhler 'x'\n🐟.png"
    path.write_bytes(WHOLE["PNG"])
    assert read_bytes(path) == WHOLE["PNG"]
    assert np.array_equal(read_image(str(path)), np.asarray(noise()))


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"f\xff.png")
    with open(path, "wb") as file:
        file.write(WHOLE["PNG"])
    assert np.array_equal(read_image(os.fsdecode(path)), np.asarray(noise()))


def test_the_suffix_does_not_matter(tmp_path):
    path = tmp_path / "png.jpg"
    path.write_bytes(WHOLE["PNG"])
    assert np.array_equal(read_image(path), np.asarray(noise()))


def test_what_cannot_be_opened_is_rejected_with_the_reason(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "broken.jpg").symlink_to("nothing.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    reasons = {}
    for name in ("none", "folder", "broken", "circle"):
        with pytest.raises(UnreadableImage) as caught:
            read_image(tmp_path / f"{name}.jpg")
        reasons[name] = str(caught.value)
    assert reasons == {
        "none": "no such file or directory",
        "folder": "is a directory",
        "broken": "no such file or directory",
        "circle": "too many levels of symbolic links",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_rejected_with_the_reason(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(WHOLE["PNG"])
    path.chmod(0)
    with pytest.raises(UnreadableImage, match="permission denied"):
        read_image(path)


# --- halved while it is decoded ---------------------------------------------------------------


def stripes(width, height, **options):
    """Smooth, so that halving and reducing come to the same."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    waves = [np.sin(x + y), np.cos(2 * x), np.sin(y)]
    rgb = np.stack([127 + 120 * wave for wave in waves], axis=2).astype(np.uint8)
    return encoded(Image.fromarray(rgb), "JPEG", quality=95, **options)


@pytest.mark.parametrize(
    ("min_side", "shape"),
    [(0, (600, 800)), (600, (600, 800)), (301, (600, 800)), (300, (300, 400)), (10, (75, 100))],
)
def test_a_large_jpeg_is_halved_as_long_as_both_sides_keep_what_is_needed(min_side, shape):
    rgb = decode(stripes(800, 600), min_side=min_side)
    assert rgb.shape == (*shape, 3)
    whole = Image.fromarray(decode(stripes(800, 600))).resize(shape[::-1], Image.Resampling.BOX)
    assert np.abs(rgb.astype(int) - np.asarray(whole)).max() <= 8


def test_a_halved_jpeg_stands_upright():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert decode(stripes(800, 600, exif=exif), min_side=100).shape == (200, 150, 3)


def test_what_is_cut_short_is_found_though_it_is_halved():
    data = stripes(800, 600)
    with pytest.raises(TruncatedImage):
        decode(data[: len(data) // 2], min_side=50)


def test_other_formats_are_not_halved():
    image = Image.fromarray(decode(stripes(160, 120)))
    assert decode(encoded(image, "PNG"), min_side=10).shape == (120, 160, 3)
