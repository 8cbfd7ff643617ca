"""The zoo: every way in which an image file is odd or broken, with what must come of it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms

from fishfeat.images.decode import TRUNCATED

HEIGHT, WIDTH = 32, 48
NO_IMAGE = "not an image in a supported format"


class Kind(NamedTuple):
    """A file (bytes, or what makes it at a path) and its pixels, or the reason against it.

    `off` is how far a channel may be from the pixels, on average.
    """

    name: str
    content: bytes | Callable[[bytes], None]
    expected: np.ndarray | str
    off: float = 0.0


class Zoo(NamedTuple):
    """`root` with every kind, a good image after each; by key its pixels, or its reason."""

    root: Path
    kinds: dict[str, Kind]
    good: dict[str, np.ndarray]


def scene(seed: int, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Four corners in colours of their own: no two seeds alike, none the same when turned."""
    colours = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    return colours.repeat(height // 2, 0).repeat(width // 2, 1)


def encoded(image: np.ndarray | Image.Image, fmt: str, **options) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, fmt, **options)
    return file.getvalue()


def jpeg(image: np.ndarray | Image.Image, **options) -> bytes:
    return encoded(image, "JPEG", **{"quality": 95, "subsampling": 0} | options)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(pixels: np.ndarray, depth: int, colour: int, *extra: bytes) -> bytes:
    """A PNG of any depth and colour type, which Pillow cannot write all."""
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, -1)
    packed = np.packbits(flat, axis=1) if depth == 1 else flat.astype(">u2" if depth > 8 else "u1")
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    return data[:33] + chunk(kind, content) + data[33:]


def changed(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# From upright to stored, by EXIF orientation.
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


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    return np.ascontiguousarray(STORED[orientation](upright))


# --- right colours ----------------------------------------------------------------------------


def ink_kinds() -> Iterator[Kind]:
    rgb = scene(1)
    cmyk = jpeg(Image.fromarray(rgb).convert("CMYK"))
    at = cmyk.index(b"\xff\xee")
    bare = cmyk[:at] + cmyk[at + 2 + struct.unpack(">H", cmyk[at + 2 : at + 4])[0] :]
    yield Kind("cmyk.jpg", cmyk, rgb, 2)
    yield Kind("cmyk without Adobe's marker.jpg", bare, rgb, 2)
    yield Kind("cmyk, broken profile.jpg", jpeg_profile(cmyk, b"no profile"), rgb, 2)
    yield Kind("ycck.jpg", ycck(scene(2)), scene(2), 2)
    yield Kind("rgb stored as rgb.jpg", jpeg(scene(3), keep_rgb=True), scene(3), 2)
    yield Kind("cmyk.tif", encoded(Image.fromarray(rgb).convert("CMYK"), "TIFF"), rgb)
    red = np.full((HEIGHT, WIDTH, 3), (254, 0, 0), np.uint8)  # L 54.3, a 80.8, b 69.9 under D50
    lab = Image.new("LAB", (WIDTH, HEIGHT), (138, 209, 198))
    yield Kind("lab.tif", encoded(lab, "TIFF"), red, 6)


def ycck(rgb: np.ndarray) -> bytes:
    """Adobe's: CMY as YCbCr, everything inverted, and transform 2 in the marker."""
    ink = Image.fromarray(255 - rgb).convert("YCbCr")
    black = Image.new("L", ink.size, 255)  # no black, inverted
    planes = [plane.point(lambda v: 255 - v) for plane in (*ink.split(), black)]
    data = jpeg(Image.merge("CMYK", planes))
    at = data.index(b"Adobe")
    assert data[at + 11] == 0
    return changed(data, at + 11, b"\2")


def jpeg_profile(data: bytes, profile: bytes) -> bytes:
    content = b"ICC_PROFILE\0\1\1" + profile
    return data[:2] + b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content + data[2:]


def profile_kinds() -> Iterator[Kind]:
    usable = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    yield Kind("broken profile.jpg", jpeg_profile(jpeg(scene(4)), b"\0garbage" * 9), scene(4), 2)
    yield Kind("profile not applied.jpg", jpeg_profile(jpeg(scene(5)), usable), scene(5), 2)
    plain = encoded(scene(6), "PNG")
    yield Kind("broken profile.png", with_chunk(plain, b"iCCP", b"x\0\0no zlib"), scene(6))


def depth_kinds() -> Iterator[Kind]:
    rgb = scene(7)
    grey = rgb[..., :1].repeat(3, 2)
    deep = rgb.astype(np.uint16) * 257
    yield Kind("16-bit rgb.png", png(deep, 16, 2), rgb)
    yield Kind("16-bit grey.png", encoded(deep[..., 0], "PNG"), grey)
    yield Kind("16-bit grey.tif", encoded(deep[..., 0], "TIFF"), grey)
    yield Kind("32-bit grey.tif", encoded(deep[..., 0].astype(np.int32), "TIFF"), grey)
    yield Kind("float.tif", encoded((rgb[..., 0] / 255).astype(np.float32), "TIFF"), grey)
    yield Kind("8-bit grey.jpg", jpeg(rgb[..., 0]), grey, 2)
    bits = scene(8)[..., :1] > 127
    bits[0, 0] = ~bits[0, 0]
    yield Kind("1-bit.png", png(bits, 1, 0), (bits * np.uint8(255)).repeat(3, 2))
    wild = np.full((4, 4), 1e6, np.float32)
    white = "where white is 65535 at most; --white gives its value"
    yield Kind(
        "float beyond white.tif", encoded(wild, "TIFF"), f"broken: pixels up to 1e+06, {white}"
    )
    yield Kind("nan.tif", encoded(wild * np.nan, "TIFF"), "broken: some pixels are not finite")


def transparent_kinds() -> Iterator[Kind]:
    rgb = scene(9)
    on_white = rgb.copy()
    on_white[: HEIGHT // 2, : WIDTH // 2] = 255
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[: HEIGHT // 2, : WIDTH // 2] = 0
    rgba = Image.fromarray(np.concatenate([rgb, alpha], 2))
    yield Kind("rgba.png", encoded(rgba, "PNG"), on_white)
    yield Kind("rgba.webp", encoded(rgba, "WEBP", lossless=True), on_white)
    deep = np.concatenate([rgb, alpha], 2).astype(np.uint16) * 257
    yield Kind("16-bit rgba.png", png(deep, 16, 6), on_white)
    key = tuple(rgb[0, 0].tolist())
    yield Kind("rgb with a key.png", encoded(rgb, "PNG", transparency=key), on_white)
    palette = Image.fromarray(rgb).quantize(4)
    first = palette.getpixel((0, 0))
    yield Kind("palette with a key.png", encoded(palette, "PNG", transparency=first), on_white)
    yield Kind("palette with a key.gif", encoded(palette, "GIF", transparency=first), on_white)
    opaque = bytes(0 if i == first else 255 for i in range(4))
    yield Kind("palette with alphas.png", encoded(palette, "PNG", transparency=opaque), on_white)
    yield Kind("palette.png", encoded(palette, "PNG"), rgb)
    yield from transparent_grey_kinds(rgb[..., 0], alpha)


def transparent_grey_kinds(grey: np.ndarray, alpha: np.ndarray) -> Iterator[Kind]:
    on_white = np.where(alpha, grey[..., None], 255).astype(np.uint8).repeat(3, 2)
    both = np.dstack([grey, alpha])
    key = struct.pack(">H", int(grey[0, 0]) * 257)
    deep = grey.astype(np.uint16) * 257
    yield Kind("grey with alpha.png", encoded(Image.fromarray(both, "LA"), "PNG"), on_white)
    yield Kind("16-bit grey with alpha.png", png(both.astype(np.uint16) * 257, 16, 4), on_white)
    yield Kind("16-bit grey with a key.png", png(deep, 16, 0, chunk(b"tRNS", key)), on_white)
    key = struct.pack(">H", int(grey[0, 0]))
    yield Kind("grey with a key.png", png(grey, 8, 0, chunk(b"tRNS", key)), on_white)


# --- right way up -----------------------------------------------------------------------------


def turned_kinds() -> Iterator[Kind]:
    for turn in STORED:
        data = jpeg(stored(scene(10 + turn), turn), exif=exif(turn))
        yield Kind(f"orientation {turn}.jpg", data, scene(10 + turn), 2)
    for fmt, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = encoded(stored(scene(20), 6), fmt, exif=exif(6), **options)
        yield Kind(f"orientation 6.{fmt.lower()}", data, scene(20))
    garbage = b"II*\0\xff\xff\xff\xff" + bytes(range(256))
    yield Kind("garbage exif.png", encoded(scene(21), "PNG", exif=garbage), scene(21))
    data = jpeg(scene(22), exif=b"Exif\0\0" + garbage)
    yield Kind("garbage exif.jpg", data, scene(22), 2)
    # The orientation is fine, a tag after it points out of the file.
    tags = struct.pack("<HHHIHH", 2, 0x0112, 3, 1, 6, 0) + struct.pack(
        "<HHII", 0x8769, 4, 1, 1 << 30
    )
    half = b"II*\0\x08\0\0\0" + tags + b"\0\0\0\0"
    data = encoded(stored(scene(23), 6), "PNG", exif=half)
    yield Kind("orientation among garbage.png", data, scene(23))


# --- several images, odd shapes, odd names --------------------------------------------------


def frame_kinds() -> Iterator[Kind]:
    for fmt, name in (
        ("GIF", "animated.gif"),
        ("WEBP", "animated.webp"),
        ("PNG", "animated.png"),
        ("TIFF", "pages.tif"),
    ):
        first, second = (Image.fromarray(scene(seed)) for seed in (30, 31))
        options = {"lossless": True} if fmt == "WEBP" else {}
        data = encoded(first, fmt, save_all=True, append_images=[second], **options)
        yield Kind(name, data, scene(30))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    yield Kind("two views.jpg", data, scene(30), 2)


def shape_kinds() -> Iterator[Kind]:
    yield Kind("1 x 1.png", encoded(scene(40)[:1, :1], "PNG"), scene(40)[:1, :1])
    tall = np.ascontiguousarray(scene(41, height=20_000, width=2)[:, :1])
    wide = np.ascontiguousarray(scene(42, height=2, width=20_000)[:1])
    yield Kind("1 x 20,000.png", encoded(tall, "PNG"), tall)
    yield Kind("20,000 x 1.png", encoded(wide, "PNG"), wide)
    yield Kind("bmp.bmp", encoded(scene(43), "BMP"), scene(43))
    yield Kind("progressive.jpg", jpeg(scene(44), progressive=True), scene(44), 2)
    yield Kind("a jpeg called.png", jpeg(scene(45)), scene(45), 2)
    yield Kind("junk after the end.jpg", jpeg(scene(46)) + b"\0junk" * 99, scene(46), 2)
    yield Kind("end lost.png", encoded(scene(47), "PNG")[:-12], scene(47))
    # As a file over 100 KB that says it has 3.6 gigapixels.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    )
    yield Kind("bomb.png", bomb, "too large: more than 178 megapixels")


NAMES = (
    *(
        b"a space.png",
        b"a\nnew line.png",
        b"a\rreturn.png",
        b"\"quotes'.png",
        b"comma, semicolon;.png",
    ),
    *(
        "fish 🐟.png".encode(),
        b"not utf-8 \xff\xfe.png",
        b"latin \xe9.png",
        b"-dash.png",
        b"[red].png",
    ),
)


def named_kinds() -> Iterator[Kind]:
    for i, name in enumerate(NAMES):
        yield Kind(os.fsdecode(name), encoded(scene(50 + i), "PNG"), scene(50 + i))


# --- what cannot be read ----------------------------------------------------------------------


def textured() -> np.ndarray:
    """What compresses badly, so that a cut hits pixels."""
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def cut_kinds() -> Iterator[Kind]:
    data = jpeg(textured())
    yield Kind("cut in its magic.jpg", data[:2], NO_IMAGE)
    yield Kind("cut after its magic.jpg", data[:4], "broken: the JPEG header cannot be read")
    yield Kind("cut in the tables.jpg", data[:100], TRUNCATED)
    yield Kind("cut.jpg", cut(data, 0.6), TRUNCATED)
    yield Kind("end lost.jpg", data[:-2], TRUNCATED)
    yield Kind("zeros to the end.jpg", cut(data, 0.6).ljust(2 * len(data), b"\0"), TRUNCATED)
    thumbnail = Image.Exif()
    thumbnail[0x9286] = jpeg(scene(70))
    with_another = jpeg(textured(), exif=thumbnail)
    zeros = cut(with_another, 0.6).ljust(2 * len(with_another), b"\0")
    yield Kind("zeros behind a thumbnail.jpg", zeros, TRUNCATED)
    yield Kind("cut, progressive.jpg", cut(jpeg(textured(), progressive=True), 0.6), TRUNCATED)
    cmyk = jpeg(Image.fromarray(textured()).convert("CMYK"))
    yield Kind("cut, cmyk.jpg", cut(cmyk, 0.6), TRUNCATED)
    data = encoded(textured(), "PNG")
    yield Kind("cut in its magic.png", data[:5], NO_IMAGE)
    yield Kind("cut in the header.png", data[:20], TRUNCATED)
    yield Kind("cut before the pixels.png", data[:41], TRUNCATED)
    yield Kind("cut.png", cut(data, 0.6), TRUNCATED)
    yield Kind("end lost, and pixels.png", data[:-40], TRUNCATED)
    yield Kind("end lost, no pixels.png", data[:-20], textured())
    for fmt, reason in CUT.items():
        name = f"cut.{fmt.lower()}"
        yield Kind(name, cut(encoded(textured(), fmt), 0.6), reason)
    yield from cut_tiff_kinds()


CUT = {
    "GIF": TRUNCATED,
    "BMP": TRUNCATED,
    "PPM": TRUNCATED,
    "WEBP": "broken: could not create decoder object",
}


def cut_tiff_kinds() -> Iterator[Kind]:
    yield Kind("cut.tif", cut(encoded(textured(), "TIFF"), 0.6), TRUNCATED)
    # The directory of a compressed TIFF stands at its end.
    lzw = encoded(textured(), "TIFF", compression="tiff_lzw")
    yield Kind("cut, lzw.tif", cut(lzw, 0.6), "broken: the TIFF header cannot be read")
    damaged = changed(lzw, 300, b"\xff" * 200)
    yield Kind("damaged, lzw.tif", damaged, "broken: decoder error -2")
    inside = encoded(textured(), "TIFF", compression="jpeg")[:-20]
    yield Kind("cut, jpeg inside.tif", inside, "broken: decoder error -2")


def wrong_kinds() -> Iterator[Kind]:
    yield Kind("empty.jpg", b"", "empty file")
    yield Kind("text.jpg", b"this is no image\n", "a text, .*this is no image.*")
    yield Kind("not found.png", b"<html><body>404 Not Found</body></html>", "a web page, .*")
    yield Kind("vector.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing: .*")
    yield Kind("document.jpg", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "a PDF, .*")
    yield Kind("page.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript: .*")
    yield Kind("telephone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ".*HEIC.*")
    yield Kind("zeros.jpg", bytes(5000), "zero bytes only: .*")
    yield Kind("strange.jpg", b"\x9c\x01\x02\x03", NO_IMAGE)
    nothing = encoded(scene(60), "PNG")
    nothing = changed(nothing, 8, chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)))
    yield Kind("0 x 0.png", nothing, "broken: the PNG header cannot be read")
    data = encoded(textured(), "PNG")
    yield Kind("damaged.png", changed(data, 200, b"\xff" * 40), "broken: .*when reading image file")


def no_file_kinds() -> Iterator[Kind]:
    missing = "no such file or directory"
    yield Kind("x.jpg", os.mkdir, "is a directory")
    yield Kind("broken link.jpg", lambda path: os.symlink(b"nothing.jpg", path), missing)
    circle = "too many levels of symbolic links"
    yield Kind("circular link.jpg", lambda path: os.symlink(os.path.basename(path), path), circle)
    yield Kind("pipe.jpg", os.mkfifo, "a pipe, not a file")
    endless = "a device, not a file"
    yield Kind("endless.jpg", lambda path: os.symlink(b"/dev/zero", path), endless)
    yield Kind("no permission.png", encoded(scene(61), "PNG"), "permission denied")


def all_kinds() -> list[Kind]:
    makers = (
        *(ink_kinds, profile_kinds, depth_kinds, transparent_kinds, turned_kinds, frame_kinds),
        *(shape_kinds, named_kinds, cut_kinds, wrong_kinds, no_file_kinds),
    )
    return [kind for maker in makers for kind in maker()]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Every kind in two class folders, each followed by a good image in the order of keys."""
    root = tmp_path_factory.mktemp("data") / "zoo"
    kinds, good = {}, {}
    for i, kind in enumerate(all_kinds()):
        folder = f"{'left' if i % 2 else 'right'}"
        (root / folder).mkdir(parents=True, exist_ok=True)
        key, next_key = f"{folder}/{i:03} {kind.name}", f"{folder}/{i:03}~.png"
        path = os.fsencode(root / key)
        if isinstance(kind.content, bytes):
            with open(path, "wb") as file:
                file.write(kind.content)
        else:
            kind.content(path)
        kinds[key], good[next_key] = kind, scene(1000 + i)
        Image.fromarray(good[next_key]).save(root / next_key)
    (root / "again").mkdir()
    twin = next(iter(good))
    good["again/twin.png"] = good[twin]
    (root / "again" / "twin.png").write_bytes((root / twin).read_bytes())
    return Zoo(root, kinds, good)
