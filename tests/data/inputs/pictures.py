"""Files in a class folder, one a kind."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

RNG = np.random.default_rng(11)
PHOTO = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (9, 12), dtype=np.uint8)


class Kind(NamedTuple):
    """One kind of input.

    Attributes:
        what: In words, as the table has it.
        becomes: What happens, as the table has it: `exact`, `converted: …` or `refused: …` or `left out`; for conversions and
            refusals, words of the line that is printed.
        make: Puts it into a class folder, under a name that begins with `x`.
        pixels: What is read, (C, H, W), or (H, W) for grey; None where nothing is, or where a decoder loses some of it.
    """

    what: str
    becomes: str
    make: Callable[[Path], Any]
    pixels: np.ndarray | None = None


def saved(array: np.ndarray, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(file, **options)
    return file.getvalue()


def put(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(data)


def picture(what: str, becomes: str, name: str, data: bytes, pixels: np.ndarray | None = None) -> Kind:
    return Kind(what, becomes, put(name, data), pixels)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(colour: int, channels: int) -> bytes:
    """A PNG of 16 bits a channel."""
    rows = b"".join(b"\0" + RNG.bytes(12 * channels * 2) for _ in range(9))
    header = struct.pack(">IIBBBBB", 12, 9, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def huge_png() -> bytes:
    """A PNG that states 60,000 × 60,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 16))) + chunk(b"IEND", b"")


def turned(tag: int, fmt: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return saved(PHOTO, format=fmt, exif=exif)


def several(fmt: str) -> bytes:
    frames = [Image.fromarray(f) for f in (PHOTO, PHOTO[::-1].copy(), PHOTO[:, ::-1].copy())]
    file = io.BytesIO()
    frames[0].save(file, format=fmt, save_all=True, append_images=frames[1:])
    return file.getvalue()


def swapped_profile() -> bytes:
    """sRGB's profile with red and green exchanged: one that changes colours, made of nothing but Pillow's own."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = range(132, 132 + 12 * struct.unpack(">I", data[128:132])[0], 12)
    at = {bytes(data[i : i + 4]): i for i in entries}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


RGBA = np.concatenate([PHOTO, RNG.integers(0, 256, (9, 12, 1), dtype=np.uint8)], axis=2)
BILEVEL = (GREY > 127).astype(np.uint8) * 255
PALETTE = Image.fromarray(PHOTO).quantize(16)
DEEP = "refused: more than 8 bits a channel"
NONE = "refused: no picture that is read"


def palette(**options: Any) -> bytes:
    file = io.BytesIO()
    PALETTE.save(file, **options)
    return file.getvalue()


def ppm(maxval: int, kind: bytes = b"P6") -> bytes:
    width = 1 if maxval < 256 else 2
    size = 9 * 12 * (3 if kind == b"P6" else 1) * width
    body = bytes(min(maxval, 255) // 2 if i % width else 0 for i in range(size))
    return kind + b"\n12 9\n%d\n" % maxval + body


def dangling(folder: Path) -> None:
    (folder / "x.png").symlink_to("/annex/objects/there")


def to_itself(folder: Path) -> None:
    (folder / "x.png").symlink_to("x.png")


def circle(folder: Path) -> None:
    (folder / "x").symlink_to(folder)


def linked(folder: Path) -> None:
    aside = folder.parents[2] / "aside"
    aside.mkdir()
    (aside / "x.png").write_bytes(saved(PHOTO, format="PNG"))
    (folder / "x").symlink_to(aside)


def nested(folder: Path) -> None:
    (folder / "x" / "deeper").mkdir(parents=True)
    (folder / "x" / "deeper" / "1.png").write_bytes(saved(PHOTO, format="PNG"))


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "x.png")


def hidden_folder(folder: Path) -> None:
    (folder / ".x_checkpoints").mkdir()
    (folder / ".x_checkpoints" / "a.png").write_bytes(saved(PHOTO, format="PNG"))


def at_the_top(folder: Path) -> None:
    (folder.parent / "x.png").write_bytes(saved(PHOTO, format="PNG"))


def notes_at_the_top(folder: Path) -> None:
    (folder.parent / "x.bin").write_bytes(b"weights")


FILES = [
    picture("PNG, RGB", "exact", "x.png", saved(PHOTO, format="PNG"), PHOTO),
    picture("PNG, named .jpg", "exact", "x.jpg", saved(PHOTO, format="PNG"), PHOTO),
    picture("PNG without a suffix", "exact", "x", saved(PHOTO, format="PNG"), PHOTO),
    picture("PNG, grey, among colour", "converted: grey and get three channels", "x.png", saved(GREY, format="PNG"), GREY),
    picture("PNG, 1 bit", "converted: of 1 bit", "x.png", saved(BILEVEL, "1", format="PNG"), BILEVEL),
    picture("PNG, palette", "converted: with a palette", "x.png", palette(format="PNG"), np.asarray(PALETTE.convert("RGB"))),
    picture("PNG, palette with a transparent colour", "converted: lose their transparency", "x.png",
            palette(format="PNG", transparency=3), np.asarray(PALETTE.convert("RGB"))),
    picture("PNG, RGBA", "converted: lose their transparency", "x.png", saved(RGBA, format="PNG"), PHOTO),
    picture("PNG, grey with alpha", "converted: lose their transparency", "x.png", saved(GREY, "LA", format="PNG"), GREY),
    picture("PNG, 16 bit grey", DEEP, "x.png", deep_png(0, 1)),
    picture("PNG, 16 bit RGB", DEEP, "x.png", deep_png(2, 3)),
    picture("PNG, 16 bit RGBA", DEEP, "x.png", deep_png(6, 4)),
    picture("PNG, animated", "refused: several pictures", "x.png", several("PNG")),
    picture("PNG, 3.6 gigapixels in a few bytes", "refused: pixels", "x.png", huge_png()),
    picture("PNG, cut within its header", "refused", "x.png", saved(PHOTO, format="PNG")[:40]),
    picture("PNG with EXIF orientation 6", "converted: turned upright", "x.png", turned(6, "PNG"), np.rot90(PHOTO, 3)),
    picture("PNG with sRGB's profile", "exact", "x.png", saved(PHOTO, format="PNG", icc_profile=srgb()), PHOTO),
    picture("PNG with another colour profile", "converted: from their colour profile", "x.png",
            saved(PHOTO, format="PNG", icc_profile=swapped_profile())),
    picture("PNG with a damaged profile", "exact", "x.png", saved(PHOTO, format="PNG", icc_profile=b"no profile"), PHOTO),
    picture("JPEG, named .jfif", "exact", "x.jfif", saved(PHOTO, format="JPEG")),
    picture("JPEG, named .jpe", "exact", "x.jpe", saved(PHOTO, format="JPEG")),
    picture("JPEG, progressive", "exact", "x.JPEG", saved(PHOTO, format="JPEG", progressive=True)),
    picture("JPEG, CMYK", "converted: in CMYK", "x.jpg", saved(PHOTO, "CMYK", format="JPEG")),
    picture("JPEG with EXIF orientation 2", "converted: turned upright", "x.jpg", turned(2, "JPEG")),
    picture("JPEG with previews behind it (MPO)", "exact", "x.jpg", several("MPO")),
    picture("JPEG of no bytes", NONE, "x.jpg", b""),
    picture("WebP, lossless", "exact", "x.webp", saved(PHOTO, format="WEBP", lossless=True), PHOTO),
    picture("WebP, animated", "refused: several pictures", "x.webp", several("WEBP")),
    picture("GIF", "converted: with a palette", "x.gif", palette(format="GIF"), np.asarray(PALETTE.convert("RGB"))),
    picture("GIF, animated", "refused: several pictures", "x.gif", several("GIF")),
    picture("AVIF", "exact", "x.avif", saved(PHOTO, format="AVIF", quality=100)),
    picture("BMP", "exact", "x.bmp", saved(PHOTO, format="BMP"), PHOTO),
    picture("PPM", "exact", "x.ppm", saved(PHOTO, format="PPM"), PHOTO),
    picture("PGM, 16 bit", DEEP, "x.pgm", ppm(65535, b"P5")),
    picture("PPM, 16 bit", DEEP, "x.ppm", ppm(65535)),
    picture("PFM, floats", DEEP, "x.pfm", saved(GREY.astype(np.float32) / 255, format="PPM")),
    picture("TIFF, RGB, uncompressed", "exact", "x.tif", saved(PHOTO, format="TIFF"), PHOTO),
    picture("TIFF, LZW", "exact", "x.tiff", saved(PHOTO, format="TIFF", compression="tiff_lzw"), PHOTO),
    picture("TIFF with orientation 3", "converted: turned upright", "x.tif",
            saved(PHOTO, format="TIFF", tiffinfo={274: 3}), PHOTO[::-1, ::-1]),
    picture("TIFF, 16 bit grey", DEEP, "x.tif", saved(GREY.astype(np.uint16) * 257, format="TIFF")),
    picture("TIFF, floats", DEEP, "x.tif", saved(GREY.astype(np.float32) / 255, format="TIFF")),
    picture("TIFF, 32 bit integers", DEEP, "x.tif", saved(GREY.astype(np.int32), format="TIFF")),
    picture("TIFF, CIELAB", "refused: pixels of mode LAB", "x.tif",
            saved(PHOTO, "LAB", format="TIFF")),
    picture("TIFF, several pages", "refused: several pictures", "x.tif", several("TIFF")),
    picture("EPS, named .png", NONE, "x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"),
    picture("SVG", NONE, "x.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    picture("JPEG 2000", NONE, "x.jp2", saved(PHOTO, format="JPEG2000")),
    picture("ICO", NONE, "x.ico", saved(PHOTO, format="ICO")),
    picture("TGA", NONE, "x.tga", saved(PHOTO, format="TGA")),
    picture("a git-lfs pointer, named .png", NONE, "x.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    picture("any other file, such as a film", NONE, "x.mp4", b"\0\0\0 ftypisom"),
    picture("a text beside the pictures (.txt, .json, .csv …)", "left out", "x.txt", b"boxes"),
    picture("Thumbs.db, desktop.ini", "left out", "Thumbs.db", b"\xd0\xcf\x11\xe0"),
    picture("a hidden file (.DS_Store, ._x.png)", "left out", "._x.png", saved(PHOTO, format="PNG")),
    Kind("a hidden folder (.ipynb_checkpoints)", "left out", hidden_folder),
    Kind("a folder within the class folder", "exact", nested, PHOTO),
    Kind("a link to a folder elsewhere", "exact", linked, PHOTO),
    Kind("a dangling link (git-annex, DVC, a mount that is not there)", "refused: a dangling link", dangling),
    Kind("a link to itself", "refused", to_itself),
    Kind("a link to a folder that it lies in", "refused: a link to a folder that it lies in", circle),
    Kind("a pipe or device", "refused: no plain file", pipe),
    Kind("a picture beside the class folders", "refused: outside the class folders", at_the_top),
    Kind("another file beside the class folders", "left out", notes_at_the_top),
]  # fmt: skip
