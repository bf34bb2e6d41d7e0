"""Zip archives and .npz files, one a kind."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.inputs.pictures import PHOTO, Kind, saved

PNG = saved(PHOTO, format="PNG")
FLAT = ["ant/1.png", "ant/2.png", "bee/1.png"]
X = np.random.default_rng(5).integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)
Y = np.array([0, 1, 2, 2, 1, 0])
WORDS = np.array(["ant", "bee", "cow"])


def archive(path: Path, names: list[str], data: bytes = PNG, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as to:
        for name in names:
            to.writestr(name, b"" if name.endswith("/") else data)


def both(train: list[str], expected: list[str], **options: Any) -> Callable[[Path], list[str]]:
    """Make train.zip as said and an ordinary test.zip."""

    def make(root: Path) -> list[str]:
        archive(root / "train.zip", train, **options)
        archive(root / "test.zip", FLAT)
        return expected

    return make


def one(name: str, members: list[str]) -> Callable[[Path], list[str]]:
    def make(root: Path) -> list[str]:
        archive(root / name, members)
        return FLAT

    return make


def shards(root: Path) -> list[str]:
    archive(root / "train-0.zip", FLAT[:2])
    archive(root / "train-1.zip", FLAT[2:])
    return FLAT


def patched(*changes: tuple[bytes, int, int], cut: int | None = None, spoil: bool = False) -> Callable[[Path], list[str]]:
    """Make train.zip, and change bytes behind signatures, or cut it, or change its pixels."""

    def make(root: Path) -> list[str]:
        archive(root / "train.zip", FLAT)
        data = bytearray((root / "train.zip").read_bytes())
        for signature, offset, value in changes:
            at = 0
            while (at := data.find(signature, at)) >= 0:
                data[at + offset] = value
                at += 4
        if spoil:
            data[data.find(b"IDAT") + 12] ^= 0xFF
        (root / "train.zip").write_bytes(data[:cut])
        return FLAT

    return make


def a_link(root: Path) -> None:
    archive(root / "train.zip", FLAT)
    with zipfile.ZipFile(root / "train.zip", "a") as to:
        info = zipfile.ZipInfo("ant/3.png")
        info.external_attr = 0o120777 << 16
        to.writestr(info, "1.png")


def twice(root: Path) -> None:
    archive(root / "train-0.zip", FLAT)
    archive(root / "train-1.zip", FLAT[:1])


OUTSIDE = "refused: outside its folder"
ARCHIVES = [
    Kind("train.zip and test.zip, CLASS/IMAGE", "exact", both(FLAT, FLAT)),
    Kind("several archives a split, train-0.zip …", "exact", shards),
    Kind("deflated, bzip2 or LZMA", "exact", both(FLAT, FLAT, compression=zipfile.ZIP_LZMA)),
    Kind("train.zip with train/CLASS/IMAGE", "exact", both([f"train/{n}" for n in FLAT], FLAT)),
    Kind("folders below the class: CLASS/DAY/IMAGE", "exact", both(["ant/a/1.png", "ant/b/1.png", "bee/a/1.png"],
         ["ant/a/1.png", "ant/b/1.png", "bee/a/1.png"])),
    Kind("one archive with train/ and test/", "exact", one("p.zip", [f"{s}/{n}" for s in ("train", "test") for n in FLAT])),
    Kind("the same below one more folder", "exact", one("p.zip", [f"photos/{s}/{n}" for s in ("train", "val") for n in FLAT])),
    Kind("train.zip with train/ and test/, and no other", "exact",
         one("train.zip", [f"{s}/{n}" for s in ("train", "test") for n in FLAT])),
    Kind("the same beside a test.zip", "left out", both([f"{s}/{n}" for s in ("train", "test") for n in FLAT], FLAT)),
    Kind("names with backslashes, or ./ before them", "exact", both(["ant\\1.png", "./ant/2.png", "bee/1.png"], FLAT)),
    Kind("one folder above the classes that is no split's", "refused: which may be the classes",
         both([f"photos/{n}" for n in FLAT], FLAT)),
    Kind("entries for folders", "exact", both(["ant/", *FLAT], FLAT)),
    Kind("__MACOSX/, .DS_Store, notes", "left out", both([*FLAT, "__MACOSX/ant/._1.png", "ant/.DS_Store", "README.md"], FLAT)),
    Kind("an absolute name", OUTSIDE, both(["/ant/1.png"], FLAT)),
    Kind("a name with ..", OUTSIDE, both(["ant/../../1.png"], FLAT)),
    Kind("a name twice, in one archive or two", "refused: two files of one name", twice),
    Kind("a picture without a class folder", "refused: outside the class folders", both([*FLAT, "1.png"], FLAT)),
    Kind("a member that is no picture", "refused: no picture that is read", both(FLAT, FLAT, data=b"no picture")),
    Kind("a link", "refused: a link", a_link),
    Kind("Deflate64 (Windows Explorer)", "refused: compression 9", patched((b"PK\1\2", 10, 9), (b"PK\3\4", 8, 9))),
    Kind("a password", "refused: it has a password", patched((b"PK\1\2", 8, 1), (b"PK\3\4", 6, 1))),
    Kind("a checksum that is not its member's", "refused", patched(spoil=True)),
    Kind("cut short", "refused: is damaged", patched(cut=200)),
    Kind("a member of more than 512 MiB (zip bomb)", "refused: larger than 512 MiB", patched((b"PK\1\2", 27, 0x7F))),
]  # fmt: skip


def arrays(
    labels: Any = Y,
    images: np.ndarray = X,
    save: Callable[..., None] = np.savez,
    gives: Any = (Y, "012"),
    **more: Any,
) -> Callable[[Path], Any]:
    """Make an .npz file, and return the labels and classes that are to be read."""

    def make(path: Path) -> tuple[list[int], list[str]]:
        save(path, **{"train_x": images, "train_y": labels, "test_x": images, "test_y": labels, **more})
        return np.asarray(gives[0]).tolist(), list(gives[1])

    return make


def pickled(path: Path) -> None:
    np.savez(path, train_x=np.array([{"run": "code"}], dtype=object), train_y=Y, allow_pickle=True)


def not_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, X)


NCHW = X.transpose(0, 3, 1, 2)
NAMED = (Y, ["ant", "bee", "cow"])
BOTH = X[:, :3]
ARRAYS = [
    Kind("uint8 (N, H, W, 3)", "exact", arrays(), NCHW),
    Kind("uint8 (N, 3, H, W), compressed", "exact", arrays(images=NCHW, save=np.savez_compressed), NCHW),
    Kind("uint8 (N, H, W), grey", "exact", arrays(images=X[..., 0]), NCHW[:, :1]),
    Kind("grey in one split, colour in the other", "converted: get three channels", arrays(images=X[..., 0], test_x=X),
         np.repeat(NCHW[:, :1], 3, axis=1)),
    Kind("(N, 3, W, 3): two readings", "refused: layout='NHWC'", arrays(images=BOTH)),
    Kind("the same with an array layout='NHWC'", "exact", arrays(images=BOTH, layout=np.array("NHWC")),
         BOTH.transpose(0, 3, 1, 2)),
    Kind("floats from 0 to 1, or any", "refused: multiply by what makes 0..255", arrays(images=X / 255)),
    Kind("16 bit", "refused: in the range of your choice", arrays(images=X.astype(np.uint16) * 257)),
    Kind("(N, H, W, 4), or other channels", "refused: 1 or 3 channels", arrays(images=np.zeros((6, 7, 5, 4), np.uint8))),
    Kind("labels of any integer type, (N,) or (N, 1)", "exact", arrays(labels=Y[:, None].astype(np.uint8)), NCHW),
    Kind("labels as whole floats", "exact", arrays(labels=Y.astype(np.float32)), NCHW),
    Kind("labels as other floats, or NaN", "refused: not all are whole numbers", arrays(labels=Y + 0.5)),
    Kind("labels as words, text or bytes", "exact", arrays(labels=WORDS[Y].astype("S"), gives=NAMED), NCHW),
    Kind("words that are not among `classes`", "refused: not among the classes", arrays(labels=WORDS[Y], classes=WORDS[:2])),
    Kind("one-hot rows", "converted: one-hot", arrays(labels=np.eye(4)[Y], gives=(Y, "0123")), NCHW),
    Kind("rows that are not one-hot", "refused: not every row has one 1", arrays(labels=np.ones((6, 3)))),
    Kind("negative labels", "refused: lies outside", arrays(labels=Y - 1)),
    Kind("a label above a million", "refused: there are at most", arrays(labels=Y + 10**9)),
    Kind("other numbers of labels than of images", "refused: one an image", arrays(labels=Y[:5])),
    Kind("`classes` as text or bytes", "exact", arrays(classes=WORDS.astype("S"), gives=NAMED), NCHW),
    Kind("`classes` that hold a name twice", "refused: a name twice", arrays(classes=WORDS[[0, 0, 1]])),
    Kind("other arrays in the file", "converted: left out, other arrays", arrays(names_y=WORDS), NCHW),
    Kind("Python objects (pickles)", "refused: Python objects", pickled),
    Kind("one array (.npy)", "refused: is one array", not_npz),
    Kind("no archive", "refused: is damaged", lambda path: path.write_bytes(b"PK\3\4 and more") and None),
]  # fmt: skip
