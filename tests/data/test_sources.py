"""Sources: the same images from every layout, and every wrong input with its sentence."""

import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.data.sources import ArraySource, open_source
from taggant_lightning.errors import TaggantError

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 0, 1, 1, 2, 2])


def encoded(image: np.ndarray, suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    array = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    Image.fromarray(array).save(buffer, suffix, **({"lossless": True} if suffix == "WEBP" else {}))
    return buffer.getvalue()


def write_folder(root: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> None:
    for split in ("train", "test"):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / split / f"class{label}" / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(image))


def write_zip(root: Path) -> None:
    root.mkdir(exist_ok=True)
    for name, rows in (("train-0", [0, 2, 4]), ("train-1", [1, 3, 5]), ("test", range(6))):
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for i in rows:
                archive.writestr(f"class{LABELS[i]}/{i:03d}.webp", encoded(IMAGES[i], "WEBP"))


def test_every_layout_gives_the_same_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder")
    write_zip(tmp_path / "zip")
    channels_last = IMAGES.transpose(0, 2, 3, 1)
    np.savez(tmp_path / "a.npz", train_x=channels_last, train_y=LABELS, test_x=channels_last, test_y=LABELS)
    for name, root in (("imagefolder", "folder"), ("zip", "zip"), ("npz", "a.npz")):
        source = open_source(name, str(tmp_path / root), "train")
        assert len(source) == 6
        assert source.labels.tolist() == LABELS.tolist()
        assert all(np.array_equal(source.pixels(i), IMAGES[i]) for i in range(6))
        assert len(source.classes) == 3


def test_environment_variable_in_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_zip(tmp_path / "zip")
    monkeypatch.setenv("HERE", str(tmp_path))
    assert len(open_source("zip", "$HERE/zip", "test")) == 6


def test_zip_source_survives_a_copy_to_a_worker(tmp_path: Path) -> None:
    write_zip(tmp_path / "zip")
    source = open_source("zip", str(tmp_path / "zip"), "train")
    source.pixels(0)
    assert np.array_equal(pickle.loads(pickle.dumps(source)).pixels(3), IMAGES[3])


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_layout(tmp_path: Path, packed: bool) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    grey = RNG.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for split in ("train", "t10k"):
        for name, content in (
            ("images-idx3", struct.pack(">IIII", 2051, 5, 28, 28) + grey.tobytes()),
            ("labels-idx1", struct.pack(">II", 2049, 5) + bytes(range(5))),
        ):
            path = raw / f"{split}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    source = open_source("fashion_mnist", str(tmp_path), "train")
    assert np.array_equal(source.pixels(2)[0], grey[2])
    assert source.labels.tolist() == [0, 1, 2, 3, 4]
    assert source.classes[:2] == ["T-shirt/top", "Trouser"]
    path = next(raw.glob("train-images*"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(TaggantError, match="is damaged"):
        open_source("fashion_mnist", str(tmp_path), "train")
    path.unlink()
    with pytest.raises(TaggantError, match="does not exist, nor train-images-idx3-ubyte.gz"):
        open_source("fashion_mnist", str(tmp_path), "train")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's own reader checks digests of the real files, so a stand-in takes its place."""
    from torchvision import datasets

    class Standin:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            assert not download
            self.data, self.targets = IMAGES.transpose(0, 2, 3, 1), LABELS.tolist()
            self.classes = ["a", "b", "c"]

    monkeypatch.setattr(datasets, name.upper(), Standin)
    source = open_source(name, str(tmp_path), "test")
    assert np.array_equal(source.pixels(3), IMAGES[3])


def test_nested_folders_and_upper_case_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.JPEG", "a/z.png", "a-b/c.png", "a.png", "notes.txt"):
        path = tmp_path / "train" / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(IMAGES[0]))
    source = open_source("imagefolder", str(tmp_path), "train")
    paths = sorted(p for p in (tmp_path / "train").rglob("*") if p.is_file() and p.suffix != ".txt")
    assert list(source.names) == [p.relative_to(tmp_path / "train").as_posix() for p in paths]
    assert len(source) == 4


def test_imagenet_layout_and_class_order(tmp_path: Path) -> None:
    names = ["n01440764", *(f"n{1440764 + 13 * i:08d}" for i in range(1, 999)), "n15075141"]
    for split in ("train", "val"):
        for number, name in enumerate(reversed(names)):  # the file system's order does not matter
            (tmp_path / split / name).mkdir(parents=True)
            if number % 100 == 0:
                (tmp_path / split / name / f"{name}_1.JPEG").write_bytes(encoded(IMAGES[0]))
    source = open_source("imagenet", str(tmp_path), "test")
    assert source.classes == names
    assert source.labels.tolist() == [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    (tmp_path / "train" / "n01440764").rename(tmp_path / "n01440764")
    with pytest.raises(
        TaggantError, match="train has 999 class folders, and ImageNet-1k has 1000, n01440764 to n15075141; write"
    ):
        open_source("imagenet", str(tmp_path), "train")
    (tmp_path / "flat" / "val").mkdir(parents=True)
    with pytest.raises(TaggantError, match="its images lie there without folders, so move each into its class's"):
        open_source("imagenet", str(tmp_path / "flat"), "test")


def test_digits_are_split_once() -> None:
    train, test = open_source("digits", None, "train"), open_source("digits", None, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.pixels(0).shape == (1, 8, 8)
    assert train.fingerprint != test.fingerprint
    together = {i.tobytes() for s in (train, test) for i in s.images}
    assert len(together) == len({i.tobytes() for i in train.images} | {i.tobytes() for i in test.images})


def test_fingerprint_follows_content(tmp_path: Path) -> None:
    a, b = ArraySource(IMAGES, LABELS), ArraySource(IMAGES.copy(), LABELS.copy())
    changed = IMAGES.copy()
    changed[5, 0, 0, 0] ^= 1
    assert a.fingerprint == b.fingerprint
    assert ArraySource(changed, LABELS).fingerprint != a.fingerprint
    assert ArraySource(IMAGES, LABELS[::-1].copy()).fingerprint != a.fingerprint
    write_folder(tmp_path)
    before = open_source("imagefolder", str(tmp_path), "train").fingerprint
    (tmp_path / "train" / "class0" / "000.png").write_bytes(encoded(IMAGES[0]) + b"x")
    assert open_source("imagefolder", str(tmp_path), "train").fingerprint != before


def test_grey_files_keep_one_channel(tmp_path: Path) -> None:
    write_folder(tmp_path, IMAGES[:, :1])
    assert open_source("imagefolder", str(tmp_path), "train").pixels(1).shape == (1, 8, 8)


def test_corrupt_image_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    bad = tmp_path / "train" / "class1" / "002.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(TaggantError, match=r"a file that cannot be read as a picture: train/class1/002\.png \(.*; conv"):
        open_source("imagefolder", str(tmp_path), "train")
    bad.write_bytes(encoded(IMAGES[2])[:150])  # its header is whole
    source = open_source("imagefolder", str(tmp_path), "train")
    with pytest.raises(TaggantError, match=r"image .*class1/002\.png cannot be read .*; replace or remove it"):
        source.pixels(2)


def test_unknown_source() -> None:
    with pytest.raises(TaggantError, match="source='imagnet' is unknown; write one of digits, imagefolder"):
        open_source("imagnet", None, "train")


@pytest.mark.parametrize("name", ["imagefolder", "zip", "cifar10"])
def test_missing_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaggantError, match="root is not given"):
        open_source(name, None, "train")
    monkeypatch.delenv("TAGGANT_NOWHERE", raising=False)
    with pytest.raises(TaggantError, match=r"root=\$TAGGANT_NOWHERE/x is no folder, as that environment variable is not set"):
        open_source("zip", "$TAGGANT_NOWHERE/x", "train")
    with pytest.raises(TaggantError, match="root=.*nowhere is no folder"):
        open_source(name, str(tmp_path / "nowhere"), "train")
    with pytest.raises(TaggantError, match="has no folder|has no train|holds no cifar10"):
        open_source(name, str(tmp_path), "train")


def test_empty_class_folders(tmp_path: Path) -> None:
    (tmp_path / "train" / "class0").mkdir(parents=True)
    with pytest.raises(TaggantError, match="holds no image; expected one folder a class"):
        open_source("imagefolder", str(tmp_path), "train")


def test_npz_messages(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(TaggantError, match="is no file; source npz wants"):
        open_source("npz", str(path), "train")
    np.savez(path, train_x=IMAGES, train_y=LABELS)
    with pytest.raises(TaggantError, match="lacks test_x, test_y; it holds train_x, train_y"):
        open_source("npz", str(path), "test")
    np.savez(path, train_x=IMAGES, train_y=LABELS - 1)
    with pytest.raises(TaggantError, match=r"label -1 lies outside 0\.\.1"):
        open_source("npz", str(path), "train")
    np.savez(path, train_x=IMAGES.astype(np.float32), train_y=LABELS)
    with pytest.raises(TaggantError, match="images are float32"):
        open_source("npz", str(path), "train")
    np.savez(path, train_x=np.array([object()]), train_y=LABELS)
    with pytest.raises(TaggantError, match="train_x holds Python objects, which are not read"):
        open_source("npz", str(path), "train")
    path.write_bytes(b"no archive")
    with pytest.raises(TaggantError, match="is damaged"):
        open_source("npz", str(path), "train")


def test_damaged_zip(tmp_path: Path) -> None:
    (tmp_path / "train.zip").write_bytes(b"no archive")
    with pytest.raises(TaggantError, match=r"train\.zip is damaged"):
        open_source("zip", str(tmp_path), "train")


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (IMAGES, LABELS + 1, ["a", "b", "c"], r"label 3 lies outside 0\.\.2"),
        (IMAGES, LABELS[:5], None, "expected 6 integers"),
        (IMAGES, LABELS.astype(float), None, "labels are float64"),
        (IMAGES[:0], LABELS[:0], None, "holds no image"),
        (IMAGES[:, :2], LABELS, None, "with 1 or 3 channels"),
    ],
)
def test_wrong_arrays(images: np.ndarray, labels: np.ndarray, classes: list[str] | None, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        ArraySource(images, labels, classes)
