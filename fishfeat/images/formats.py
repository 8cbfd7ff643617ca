"""Name what a file holds by its first bytes, and what to do with it."""

from __future__ import annotations

import io
from typing import NamedTuple

N_HEAD = 4096
"""Bytes that are enough to name a format."""


class FileFormat(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    name
        'a video', 'HEIC': what was found, for a sentence.
    advice
        What makes an image of it; '' for an image that fishfeat reads.
    is_image
        Whether a photograph can be had from it.
    """

    name: str
    advice: str = ""
    is_image: bool = False


HEIC = FileFormat(
    "HEIC",
    "install the package that reads it (`pip install 'fishfeat[heif]'`), or convert it to JPEG",
    is_image=True,
)
_AVIF = FileFormat("AVIF", "upgrade Pillow, or convert it to JPEG", is_image=True)
_JPEG2000 = FileFormat("JPEG 2000", "install a Pillow that reads it, or convert it", is_image=True)
_WEBP = FileFormat("WebP", "install a Pillow that reads it, or convert it", is_image=True)
_VIDEO = FileFormat("a video, not an image", "save frames of it as images")
_SOUND = FileFormat("a sound file, not an image", "leave it out")
_ARCHIVE = FileFormat("an archive, not an image", "unpack it")
_PAGE = FileFormat("a web page, not an image", "download the image itself")
_POINTER = FileFormat("a Git LFS pointer, not the image", "run `git lfs pull`")
_ANNEX = FileFormat("a git-annex pointer, not the image", "run `git annex get`")
_TABLE = FileFormat("a table, not an image", "save it as CSV, and give that file to fishfeat")
_PDF = FileFormat("a PDF, not an image", "export its images as PNG")
_OFFICE = FileFormat("an Office document, not an image", "save its images, or its table as CSV")
_PROGRAM = FileFormat("a program, not an image", "leave it out")
_ARRAY = FileFormat("an array, not an image", "save it as PNG or TIFF")
_ZEROS = FileFormat("zero bytes only: the copy failed", "copy the file again")
_SIDECAR = FileFormat("a macOS or Windows helper file, not an image", "leave it out")


def _raw(name: str) -> FileFormat:
    return FileFormat(f"{name} (camera RAW)", "convert it to JPEG, PNG or TIFF", is_image=True)


def _other(name: str) -> FileFormat:
    return FileFormat(name, "convert it to PNG, JPEG or TIFF", is_image=True)


# Images that fishfeat reads.
READABLE = {
    b"\xff\xd8\xff": FileFormat("JPEG", is_image=True),
    b"\x89PNG\r\n\x1a\n": FileFormat("PNG", is_image=True),
    b"GIF8": FileFormat("GIF", is_image=True),
    b"II*\0": FileFormat("TIFF", is_image=True),
    b"MM\0*": FileFormat("TIFF", is_image=True),
    b"II+\0": FileFormat("TIFF", is_image=True),
    b"MM\0+": FileFormat("TIFF", is_image=True),
    b"BM": FileFormat("BMP", is_image=True),
}
_STARTS = {
    b"version https://git-lfs.github.com/spec/": _POINTER,
    b"/annex/objects/": _ANNEX,
    b"%PDF": _PDF,
    b"%!PS": _other("PostScript"),
    b"\xc5\xd0\xd3\xc6": _other("PostScript"),
    b"Rar!": _ARCHIVE,
    b"7z\xbc\xaf\x27\x1c": _ARCHIVE,
    b"\x1f\x8b": _ARCHIVE,
    b"BZh": _ARCHIVE,
    b"\xfd7zXZ": _ARCHIVE,
    b"\x28\xb5\x2f\xfd": _ARCHIVE,
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": _OFFICE,
    b"FUJIFILMCCD-RAW": _raw("RAF"),
    b"IIRO": _raw("ORF"),
    b"IIRS": _raw("ORF"),
    b"MMOR": _raw("ORF"),
    b"IIU\0": _raw("RW2"),
    b"FOVb": _raw("X3F"),
    b"\0MRM": _raw("MRW"),
    b"\x1aE\xdf\xa3": _VIDEO,
    b"\0\0\x01\xba": _VIDEO,
    b"\0\0\x01\xb3": _VIDEO,
    b"FLV\x01": _VIDEO,
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": _VIDEO,
    b"ID3": _SOUND,
    b"OggS": _SOUND,
    b"fLaC": _SOUND,
    b"8BPS": _other("Photoshop"),
    b"gimp xcf": _other("GIMP"),
    b"\0\0\x01\0": _other("an icon"),
    b"\xff\x0a": _other("JPEG XL"),
    b"\0\0\0\x0cJXL ": _other("JPEG XL"),
    b"\0\0\0\x0cjP  ": _JPEG2000,
    b"\xff\x4f\xff\x51": _JPEG2000,
    b"II\xbc\x01": _other("JPEG XR"),
    b"\x76\x2f\x31\x01": _other("OpenEXR"),
    b"#?RADIANCE": _other("Radiance HDR"),
    b"DDS ": _other("DDS"),
    b"SIMPLE  =": _other("FITS"),
    b"qoif": _other("QOI"),
    b"BPG\xfb": _other("BPG"),
    b"FLIF": _other("FLIF"),
    b"AT&TFORM": _other("DjVu"),
    b"\x59\xa6\x6a\x95": _other("Sun raster"),
    b"\x01\xda": _other("SGI"),
    b"\x0a\x05\x01": _other("PCX"),
    b"\xd7\xcd\xc6\x9a": _other("WMF"),
    b"ZISRAWFILE": _other("CZI"),
    b"\xda\xce\xbe\x0a": _other("ND2"),
    b"\x89HDF": _ARRAY,
    b"\x93NUMPY": _ARRAY,
    b"MATLAB 5.0": _ARRAY,
    b"PAR1": _TABLE,
    b"ARROW1": _TABLE,
    b"SQLite format 3": FileFormat("a database, not an image", "export its table as CSV"),
    b"\0\x05\x16\x07": _SIDECAR,
    b"\0\x05\x16\0": _SIDECAR,
    b"book\0\0\0\0mark": _SIDECAR,
    b"L\0\0\0\x01\x14\x02\0": _SIDECAR,
    b"[InternetShortcut]": _SIDECAR,
    b"bplist00": _SIDECAR,
    b"\x7fELF": _PROGRAM,
    b"MZ": _PROGRAM,
}
# Brands of the container that HEIC, AVIF, CR3, MP4 and MOV share.
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), HEIC),
    **dict.fromkeys((b"avif", b"avis"), _AVIF),
    b"crx ": _raw("CR3"),
    b"jp2 ": _JPEG2000,
}
_GENERAL_BRANDS = (b"mif1", b"msf1", b"mif2")
_RIFF = {b"WEBP": _WEBP, b"AVI ": _VIDEO, b"WAVE": _SOUND}


def name_format(head: bytes) -> FileFormat | None:
    """The format of a file that begins with `head`; None where nothing is known of it."""
    if not head.strip(b"\0"):
        return _ZEROS if head else None
    if head[4:8] == b"ftyp":
        return _name_container(head)
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"PK\x03\x04":
        return _OFFICE if b"[Content_Types].xml" in head else _ARCHIVE
    if head[:4] in (b"II*\0", b"MM\0*"):
        return _raw("CR2") if head[8:10] == b"CR" else READABLE[head[:4]]
    if head[257:262] == b"ustar":
        return _ARCHIVE
    if head[128:132] == b"DICM":
        return _other("DICOM")
    for signature, file_format in (READABLE | _STARTS).items():
        if head.startswith(signature):
            return file_format
    return _name_text(head)


def _name_container(head: bytes) -> FileFormat:
    """Name a file by the brands that its first box lists."""
    size = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head)), 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    return HEIC if brands[0] in _GENERAL_BRANDS else _VIDEO


def _name_text(head: bytes) -> FileFormat | None:
    """Name a text: a page, a drawing, or what it begins with; None for other bytes."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="replace")
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")) or "<html" in start[:1000]:
        return _PAGE
    if "<svg" in start[:1000]:
        return _other("an SVG drawing")
    if start.startswith("data:image/"):
        return FileFormat("a data URI, not an image", "decode its Base64 text to an image file")
    if len(head) >= N_HEAD:
        text = text[:-4]  # the last letter may be cut
    is_text = text.isascii() or "\ufffd" not in text
    if not is_text or any(c < " " and c not in "\t\n\r\f" for c in text):
        return None
    first_words = " ".join(text.split())[:40]
    return FileFormat(f"a text, not an image (it begins with {first_words!r})", "replace the file")


def describe_tiff(data: bytes) -> str:
    """What a TIFF holds, such as '5 bands of 8-bit integers'; '' where its header is broken."""
    from PIL.TiffImagePlugin import COMPRESSION_INFO, ImageFileDirectory_v2

    width, height, bits, compression, bands, kind = 256, 257, 258, 259, 277, 339
    file = io.BytesIO(data)
    try:
        tags = ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])
        file.seek(tags.next)
        tags.load(file)
        if not {width, height, bits} <= set(tags):
            return ""
        if tags.get(compression, 1) not in COMPRESSION_INFO:
            return f"compression {tags[compression]}"
        n_bands = tags.get(bands, 1)
        n_bits = "/".join(map(str, sorted(set(tags[bits]))))
        values = {1: "integers", 2: "signed integers", 3: "floats", 5: "complex integers"}
        unit = values.get(tags.get(kind, (1,))[0], "complex numbers")
    except Exception:  # Pillow raises many types
        return ""
    return f"{n_bands} {'band' if n_bands == 1 else 'bands'} of {n_bits}-bit {unit}"


def describe_jpeg(data: bytes) -> str:
    """What a JPEG holds, such as '12 bits in 1 component'; '' where its header is broken."""
    start = 2
    while start + 10 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            n = data[start + 9]
            kind = {0xC3: "lossless, ", 0xF7: "JPEG-LS, "}.get(marker, "")
            return f"{kind}{data[start + 4]} bits in {n} component{'' if n == 1 else 's'}"
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return ""
