"""Damaged and hostile data through every reader: images or one sentence, in bounded time and memory, and no file elsewhere."""

import io
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from taggant_lightning.data.sources import ArraySource, ImageSource, open_source
from taggant_lightning.errors import TaggantError
from taggant_lightning.release.reading import open_release
from tests.data.inputs.archives import FLAT, X, Y
from tests.data.inputs.pictures import FILES, PHOTO, put, saved

Factory = pytest.TempPathFactory
SECONDS = 5
MEMORY = 1 << 30  # bytes that a reader may take beside what the process has
ONCE = settings(max_examples=60, deadline=None, database=None, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
PICTURES = [saved(PHOTO, format=fmt) for fmt in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")]


@st.composite
def damaged(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """Some bytes of a good file changed, cut off, doubled, or replaced by large numbers."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        what = draw(st.sampled_from(["byte", "number", "cut", "twice", "insert"]))
        if what == "byte":
            data[at] = draw(st.integers(0, 255))
        elif what == "number":
            number = draw(st.sampled_from([0, 2**16, 2**31 - 1, 2**32 - 1]))
            data[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", number)
        elif what == "cut":
            del data[at:]
        elif what == "twice":
            data[at:at] = data[at : at + 40]
        else:
            data[at:at] = draw(st.binary(max_size=20))
    return bytes(data)


@contextmanager
def bounded(root: Path) -> Iterator[None]:
    """Hold what is read within to time, memory, and its folder."""
    before = {p for p in root.parent.rglob("*") if root not in (p, *p.parents)}
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, hard))
    began = time.monotonic()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - began < SECONDS
    assert {p for p in root.parent.rglob("*") if root not in (p, *p.parents)} == before


def read(name: str, root: Path) -> None:
    """Read all of a source: images that are what a source promises, or one sentence."""
    told(lambda: open_source(name, str(root), "train"))


def told(opened: Callable[[], ImageSource]) -> None:
    sentence = ""
    try:
        judge(opened())
    except TaggantError as error:
        sentence = str(error)
    assert "\n" not in sentence


def judge(source: ImageSource) -> None:
    channels = {len(source.pixels(i)) for i in range(len(source))}
    assert channels <= {1} or channels <= {3}
    assert all(source.pixels(i).dtype == np.uint8 and source.pixels(i).ndim == 3 for i in range(len(source)))
    assert source.labels.min() >= 0
    assert source.labels.max() < len(source.classes)


@ONCE
@given(data=damaged(PICTURES), other=st.sampled_from(PICTURES))
def test_image_folder(data: bytes, other: bytes, tmp_path_factory: Factory) -> None:
    root = tmp_path_factory.mktemp("f") / "data"
    (root / "train" / "ant").mkdir(parents=True)
    put("a", other)(root / "train" / "ant")
    put("b.png", data)(root / "train" / "ant")
    with bounded(root):
        read("imagefolder", root)


def archive(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as to:
        for name, data in zip(FLAT, PICTURES, strict=False):
            to.writestr(name, data)
    return file.getvalue()


NAMES = st.text(alphabet=st.sampled_from("ab/.\\:\0\n\ud800é train"), max_size=20)


@ONCE
@given(data=damaged([archive(zipfile.ZIP_STORED), archive(zipfile.ZIP_DEFLATED)]))
def test_damaged_zip(data: bytes, tmp_path_factory: Factory) -> None:
    root = tmp_path_factory.mktemp("z") / "data"
    root.mkdir()
    put("train.zip", data)(root)
    with bounded(root):
        read("zip", root)


@ONCE
@given(names=st.lists(NAMES, max_size=5))
def test_names_in_a_zip(names: list[str], tmp_path_factory: Factory) -> None:
    root = tmp_path_factory.mktemp("n") / "data"
    root.mkdir()
    with zipfile.ZipFile(root / "train.zip", "w") as to:
        for name in names:
            try:
                to.writestr(zipfile.ZipInfo(name or "x"), PICTURES[0])
            except UnicodeEncodeError:  # no zip holds it
                continue
    with bounded(root):
        read("zip", root)


def arrays(**more: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{"train_x": X, "train_y": Y, "test_x": X, "test_y": Y, **more})  # type: ignore[arg-type]
    return file.getvalue()


@ONCE
@given(data=damaged([arrays(), arrays(classes=np.array(["a", "b", "c"]), layout=np.array("NHWC"))]))
def test_damaged_npz(data: bytes, tmp_path_factory: Factory) -> None:
    root = tmp_path_factory.mktemp("a") / "data"
    root.mkdir()
    put("d.npz", data)(root)
    with bounded(root):
        read("npz", root / "d.npz")


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 6]), max_size=4).map(tuple)
KINDS = st.sampled_from(["u1", "i8", "f4", "?", "U2", "S2", "c8", "M8[s]", "u8", "f2", "V3"])


@ONCE
@given(x=st.tuples(SHAPES, KINDS), y=st.tuples(SHAPES, KINDS), z=st.tuples(SHAPES, KINDS), fill=st.integers(-2, 3))
def test_arrays_of_any_shape(x: tuple, y: tuple, z: tuple, fill: int, tmp_path_factory: Factory) -> None:
    root = tmp_path_factory.mktemp("s") / "data"
    root.mkdir()
    made = {}
    for name, (shape, kind) in (("train_x", x), ("train_y", y), ("classes", z), ("test_y", y)):
        array = np.zeros(shape, kind)
        if array.dtype.kind in "iufU":
            array[...] = np.array(abs(fill) if array.dtype.kind == "u" else fill).astype(array.dtype)
        made[name] = array
    np.savez(root / "d.npz", **made)
    with bounded(root):
        read("npz", root / "d.npz")


@pytest.fixture(scope="module")
def release(tmp_path_factory: Factory) -> Path:
    pytest.importorskip("pyarrow")
    from taggant_lightning.release.documents import Manifest
    from taggant_lightning.release.layouts import make_layout
    from taggant_lightning.release.writing import write_release

    source = ArraySource(np.ascontiguousarray(X.transpose(0, 3, 1, 2)), Y)
    layout = make_layout("parquet", source, np.arange(6), came_from="npz")
    folder = tmp_path_factory.mktemp("r") / "release"
    manifest = Manifest(
        layout="parquet", codec="png", classes=source.classes, folders=layout.folders, num_images=6, source={}, commitment=None,
        statement="", license="", hashes="",
    )  # fmt: skip
    write_release(layout, manifest, folder, check=lambda part: None)
    return folder


@ONCE
@given(draw=st.data())
def test_damaged_parquet_release(draw: st.DataObject, release: Path, tmp_path_factory: Factory) -> None:
    root = tmp_path_factory.mktemp("p") / "data"
    (root / "data").mkdir(parents=True)
    for file in release.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            put(file.relative_to(release).as_posix(), draw.draw(damaged([data])) if file.suffix == ".parquet" else data)(root)
    with bounded(root):
        told(lambda: open_release(root))


@pytest.fixture(scope="module")
def beton(tmp_path_factory: Factory) -> bytes:
    pytest.importorskip("ffcv")
    from taggant_lightning.data.beton import convert
    from taggant_lightning.data.dataset import ResizedImages

    file = tmp_path_factory.mktemp("b") / "d.beton"
    source = ArraySource(np.ascontiguousarray(X[:, :5].transpose(0, 3, 1, 2)), Y)
    convert(ResizedImages(source, np.arange(6), 5), file)
    return file.read_bytes()


@ONCE
@given(draw=st.data())
def test_no_pointer_of_a_damaged_beton_file_is_followed(draw: st.DataObject, beton: bytes, tmp_path_factory: Factory) -> None:
    """FFCV reads wherever a pointer leads: what is let through has the pointers, sizes and types of the file as written."""
    from ffcv.fields import NDArrayField
    from ffcv.reader import Reader

    from taggant_lightning.data.beton_check import check_beton

    file = tmp_path_factory.mktemp("b") / "d.beton"
    file.write_bytes(beton)
    shape = (3, 5, 5)
    arguments = NDArrayField(np.dtype(np.uint8), shape).to_binary()["f0"]
    check_beton(file, 6, 75, arguments)
    good = Reader(str(file))
    near = (0, 24 + 2 * 1041 + 6 * 16)  # header, fields and rows; the rest is pixels, and a table at the end
    at = draw.draw(st.one_of(st.integers(*near), st.integers(len(beton) - 6 * 24, len(beton) - 1)))
    data = bytearray(beton)
    data[at] ^= draw.draw(st.integers(1, 255))
    file.write_bytes(data[: draw.draw(st.sampled_from([None, at, -1, -24]))])
    try:
        check_beton(file, 6, 75, arguments)
    except TaggantError:
        return
    read = Reader(str(file))
    assert set(read.metadata["f0"].tolist()) == set(good.metadata["f0"].tolist())
    assert {(a["ptr"], a["size"]) for a in read.alloc_table} == {(a["ptr"], a["size"]) for a in good.alloc_table}
    assert read.handlers["image"].shape == good.handlers["image"].shape


def test_every_picture_of_the_table_is_opened_by_one_function() -> None:
    """`Image.open` stands in one module: no other reader has Pillow's other decoders in reach."""
    package = Path("taggant_lightning")
    users = [path.as_posix() for path in package.rglob("*.py") if "Image.open(" in path.read_text()]
    assert users == ["taggant_lightning/data/pictures.py"]
    assert len(FILES) >= 60
    assert Image.MAX_IMAGE_PIXELS is not None
