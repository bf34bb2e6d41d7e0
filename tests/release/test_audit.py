"""The audit finds each planted leak, and says in words what an honest release still tells."""

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.data.sources import ArraySource, folder_source
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import sha256_file, sha256_hex
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.release.audit import DIFFERENCING, audit_release, verdict
from taggant_lightning.release.documents import HASHES, MANIFEST, Manifest, documents, hash_list
from taggant_lightning.release.encoding import encode
from taggant_lightning.release.layout import Layout
from taggant_lightning.release.layouts import make_layout
from taggant_lightning.release.reading import read_manifest
from taggant_lightning.release.signature import OverlaySource, Signature
from taggant_lightning.release.writing import make_uniform, write_release
from tests.release.signed import sign
from tests.release.test_traces import photographs

SIGNED = (1, 4, 7)


class Released:
    """A release with everything that an audit needs."""

    def __init__(self, source: Any, out: Path, format: str = "png", signature: Signature | None = None) -> None:
        self.overlay = (signature or sign(source, SIGNED)).apply(source)
        indices = np.arange(len(source))
        self.layout: Layout = make_layout(format, self.overlay, indices, came_from="npz")
        facts: dict[str, Any] = {
            "source": {"fingerprint": source.fingerprint},
            "commitment": "ab" * 32,
            "statement": "",
            "license": "",
        }
        self.manifest = Manifest(
            self.layout.name, self.layout.codec, source.classes, self.layout.folders, len(indices), hashes="", **facts
        )
        self.folder = out
        self.first = write_release(self.layout, self.manifest, out, check=self.audit)

    def audit(self, folder: Path | None = None) -> dict[str, Any]:
        return audit_release(folder or self.folder, self.layout, self.manifest)

    def file(self, place: int) -> Path:
        return self.folder / "train" / self.layout.member(place)

    def follow_suit(self) -> None:
        """Make list of hashes, manifest, documents and times fit the files, as one who plants a leak with care would."""
        stored, files = read_manifest(self.folder)
        files = [(name, sha256_file(self.folder / name)) for name, _ in files]
        stored = replace(stored, hashes=sha256_hex(hash_list(files)))
        for name, data in documents(stored, files).items():
            (self.folder / name).write_bytes(data)
        make_uniform(self.folder)


def noise_source(count: int = 12, side: int = 16) -> ArraySource:
    rng = np.random.default_rng(4)
    return ArraySource(rng.integers(20, 235, (count, 3, side, side), dtype=np.uint8), np.arange(count) % 3, ["a", "b", "c"])


def other_encoder(r: Released) -> None:
    Image.open(r.file(4)).save(r.file(4), compress_level=9)


def metadata(r: Released) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "signed")
    Image.open(r.file(4)).save(r.file(4), compress_level=6, pnginfo=info)


def time(r: Released) -> None:
    r.follow_suit()
    os.utime(r.file(4), (1, 1))


def nanosecond(r: Released) -> None:
    r.follow_suit()
    status = r.file(4).stat()
    os.utime(r.file(4), ns=(status.st_atime_ns, status.st_mtime_ns + 1000))


def one_nanosecond(r: Released) -> None:
    r.follow_suit()
    os.utime(r.file(4), ns=(0, 946684800 * 10**9 + 1))


def owner(r: Released) -> None:
    r.follow_suit()
    os.chown(r.file(4), 1234, -1)


def group(r: Released) -> None:
    r.follow_suit()
    os.chown(r.file(4), -1, 1234)


def hard_link(r: Released) -> None:
    os.link(r.file(4), r.folder.parent / "beside.png")


def attribute(r: Released) -> None:
    os.setxattr(r.file(4), "user.comment", b"signed")
    make_uniform(r.folder)


def attribute_of_the_release(r: Released) -> None:
    os.setxattr(r.folder, "user.comment", b"1 4 7")
    make_uniform(r.folder)


def position(r: Released) -> None:
    a, b = r.file(4), r.file(10)  # of one class
    a_bytes, b_bytes = a.read_bytes(), b.read_bytes()
    a.write_bytes(b_bytes)
    b.write_bytes(a_bytes)


def beyond_the_bound(r: Released) -> None:
    far = r.overlay.pixels(4).astype(int)
    before = int(r.overlay.original.pixels(4)[0, 0, 0])
    far[0, 0, 0] = before + (6 if before < 128 else -6)
    r.file(4).write_bytes(encode(far.astype(np.uint8), "png"))


def undone(r: Released) -> None:
    r.file(4).write_bytes(encode(r.overlay.original.pixels(4), "png"))


def another_image_changed(r: Released) -> None:
    r.file(3).write_bytes(encode(r.overlay.pixels(3) ^ 1, "png"))


def another_shape(r: Released) -> None:
    r.file(3).write_bytes(encode(r.overlay.pixels(3)[:, :-1], "png"))


def key_file(r: Released) -> None:
    keys = KeySet.draw(num_keys=2, num_classes=3, shape=(3, 16, 16), secret=bytes(16))
    keys.save(r.folder.parent / "keys")
    shutil.copy(r.folder.parent / "keys" / "keys.safetensors", r.folder / "train" / "a")


def permission(r: Released) -> None:
    r.follow_suit()
    r.file(4).chmod(0o600)


def link(r: Released) -> None:
    (r.folder / "more.png").symlink_to(r.file(4))


def changed_hash(r: Released) -> None:
    r.file(4).write_bytes(r.file(1).read_bytes())
    make_uniform(r.folder)


def missing(r: Released) -> None:
    r.file(4).unlink()
    make_uniform(r.folder)


def text_in_the_card(r: Released) -> None:
    with (r.folder / "README.md").open("a") as file:
        file.write("images 1, 4 and 7 are signed\n")
    make_uniform(r.folder)


def other_commitment(r: Released) -> None:
    stored = json.loads((r.folder / MANIFEST).read_text())
    (r.folder / MANIFEST).write_text(json.dumps({**stored, "commitment": "cd" * 32}))


def empty_class_folder(r: Released) -> None:
    (r.folder / "train" / "zz").mkdir()


def other_order(r: Released) -> None:
    """Readers take the order of images from the list of hashes: here the signed ones come first."""
    stored, files = read_manifest(r.folder)
    first = [files[i] for i in SIGNED]
    files = first + [entry for entry in files if entry not in first]
    stored = replace(stored, hashes=sha256_hex(hash_list(files)))
    for name, data in documents(stored, files).items():
        (r.folder / name).write_bytes(data)
    make_uniform(r.folder)


CAREFUL = {other_encoder, metadata, position, beyond_the_bound, undone, another_image_changed, another_shape, key_file, link}
LEAKS: dict[Callable[[Released], None], str] = {
    other_encoder: "1 of 12 images with bytes that the release's encoder does not make",
    metadata: "1 of 12 images with bytes that the release's encoder does not make",
    time: "modification times differ",
    nanosecond: "modification times differ",
    one_nanosecond: "modification times differ",
    owner: "owners of files or folders differ",
    group: "owners of files or folders differ",
    hard_link: r"files have further names \(hard links\)",
    attribute: "files have extended attributes",
    attribute_of_the_release: "folders have extended attributes",
    position: "2 of 12 images with pixels that the Signature does not make",
    beyond_the_bound: "an image differs by 6 steps and the bound is 5",
    undone: "1 of 12 images with pixels that the Signature does not make",
    another_image_changed: "1 of 12 images with pixels that the Signature does not make",
    another_shape: "1 of 12 images with another shape than the original",
    key_file: r"1 file not part of it \(train/a/keys.safetensors\)",
    permission: "permissions of files differ",
    link: r"1 file not part of it \(more.png\)",
    changed_hash: "1 file other than the hash says",
    missing: "is missing",
    text_in_the_card: "README.md says something else than it should",
    other_commitment: "the manifest's commitment is not that of the signed dataset",
    empty_class_folder: "there are other folders than there should be",
    other_order: "the list of hashes names other files than it should, or in another order",
}


@pytest.mark.parametrize("plant", LEAKS, ids=lambda plant: plant.__name__)
def test_planted_leaks(plant: Callable[[Released], None], tmp_path: Path) -> None:
    released = Released(noise_source(), tmp_path / "r")
    assert released.audit() == released.first
    try:
        plant(released)
    except OSError as error:  # only root gives files away, and not every file system has attributes
        pytest.skip(f"cannot be planted here: {error}")
    if plant in CAREFUL:
        released.follow_suit()
    with pytest.raises(TaggantError, match=LEAKS[plant]) as found:
        released.audit()
    assert "00000004" not in str(found.value).replace("00000004.png is missing", "")  # which images are signed stays secret


def swap_label_npz(folder: Path) -> None:
    with np.load(folder / "data.npz") as arrays:
        content = dict(arrays)
    content["train_y"][[4, 5]] = content["train_y"][[5, 4]]
    np.savez(folder / "data.npz", **content)


def swap_label_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (path,) = (folder / "data").iterdir()
    table = pq.read_table(path)
    labels = table["label"].to_pylist()
    labels[4], labels[5] = labels[5], labels[4]
    changed = table.set_column(1, table.schema.field("label"), pa.array(labels, pa.int64()))
    pq.write_table(changed, path, compression="none", row_group_size=64, use_dictionary=False)


def swap_label_zip(folder: Path) -> None:
    (path,) = folder.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    members[4][0].filename = "c/00000004.png"
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members:
            archive.writestr(info, data)


@pytest.mark.parametrize(
    ("format", "swap", "message"),
    [
        ("npz", swap_label_npz, "2 of 12 images with another label"),
        ("parquet", swap_label_parquet, "2 of 12 images with another label"),
        ("zip", swap_label_zip, "holds other names, or in another order"),
    ],
)
def test_a_swapped_label(format: str, swap: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    released = Released(noise_source(), tmp_path / "r", format)
    swap(tmp_path / "r")
    released.follow_suit()
    with pytest.raises(TaggantError, match=message):
        released.audit()


def test_a_label_swapped_by_moving_a_file(tmp_path: Path) -> None:
    released = Released(noise_source(), tmp_path / "r")
    there = released.folder / "train" / "c" / "00000004.png"
    released.file(4).rename(there)
    stored, files = read_manifest(released.folder)
    files = [(name.replace("b/00000004", "c/00000004"), digest) for name, digest in files]
    stored = replace(stored, hashes=sha256_hex(hash_list(files)))
    for name, data in documents(stored, files).items():
        (released.folder / name).write_bytes(data)
    make_uniform(released.folder)
    with pytest.raises(TaggantError, match=r"train/b/00000004.png is missing"):
        released.audit()


def test_times_in_an_archive(tmp_path: Path) -> None:
    released = Released(noise_source(), tmp_path / "r", "zip")
    (path,) = (tmp_path / "r").glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    members[4][0].date_time = (2026, 1, 1, 0, 0, 0)
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members:
            archive.writestr(info, data)
    released.follow_suit()
    with pytest.raises(TaggantError, match="12 of 12 images with more or less around them than packing them makes"):
        released.audit()


def comment_in_zip(folder: Path) -> None:
    (path,) = folder.glob("*.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"1 4 7"


def column_in_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (path,) = (folder / "data").iterdir()
    table = pq.read_table(path)
    more = table.append_column("signed", pa.array([i in SIGNED for i in range(12)]))
    pq.write_table(more, path, compression="none", row_group_size=64, use_dictionary=False)


def rows_gone_from_parquet(folder: Path) -> None:
    import pyarrow.parquet as pq

    (path,) = (folder / "data").iterdir()
    pq.write_table(pq.read_table(path).slice(0, 11), path)


def member_in_npz(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data.npz", "a") as archive:
        archive.writestr("signed.npy", b"1 4 7")


def gap_in_npz(folder: Path) -> None:
    """Bytes between the last member and the directory, which readers skip."""
    raw = (folder / "data.npz").read_bytes()
    end = raw.rfind(b"PK\x05\x06")
    (start,) = struct.unpack("<I", raw[end + 16 : end + 20])
    moved = raw[start : end + 16] + struct.pack("<I", start + 5) + raw[end + 20 :]
    (folder / "data.npz").write_bytes(raw[:start] + b"1 4 7" + moved)


def rewritten(folder: Path, change: Callable[[zipfile.ZipInfo], bytes]) -> None:
    """Write the archive again; `change` may change a member's entry, and returns what is to follow its data."""
    path = folder / "data.npz"
    with zipfile.ZipFile(path) as archive:
        members = [(zipfile.ZipInfo(info.filename, info.date_time), archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in members:
            info.external_attr = 0o600 << 16
            archive.writestr(info, data + change(info))


def extra_field_in_npz(folder: Path) -> None:
    def change(info: zipfile.ZipInfo) -> bytes:
        info.extra = struct.pack("<HH", 0x4747, 5) + b"1 4 7"
        return b""

    rewritten(folder, change)


def attributes_in_npz(folder: Path) -> None:
    def change(info: zipfile.ZipInfo) -> bytes:
        info.external_attr, info.create_system = 147 << 16, 7
        return b""

    rewritten(folder, change)


def behind_an_array(folder: Path) -> None:
    rewritten(folder, lambda info: b"1 4 7" if info.filename == "train_y.npy" else b"")


def before_the_archive(folder: Path) -> None:
    (folder / "data.npz").write_bytes(b"1 4 7" + (folder / "data.npz").read_bytes())


def comment_in_npz(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data.npz", "a") as archive:
        archive.comment = b"1 4 7"


@pytest.mark.parametrize(
    ("format", "plant", "message"),
    [
        ("zip", comment_in_zip, "more or less around them than packing them makes"),
        ("parquet", column_in_parquet, "more or less around them than packing them makes"),
        ("parquet", rows_gone_from_parquet, "holds 11 images"),
        ("npz", gap_in_npz, "more or less around them than packing them makes"),
        ("npz", extra_field_in_npz, "more or less around them than packing them makes"),
        ("npz", attributes_in_npz, "more or less around them than packing them makes"),
        ("npz", behind_an_array, "more or less around them than packing them makes"),
        ("npz", before_the_archive, "missing or damaged|more or less around them"),
        ("npz", member_in_npz, "more or less around them than packing them makes"),
        ("npz", comment_in_npz, "more or less around them than packing them makes"),
    ],
)
def test_what_is_hidden_in_a_container(format: str, plant: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    released = Released(noise_source(), tmp_path / "r", format)
    plant(tmp_path / "r")
    released.follow_suit()
    with pytest.raises(TaggantError, match=message):
        released.audit()


def jpeg_folder(root: Path) -> Any:
    """A source of decoded JPEG files."""
    for number, pixels in enumerate(photographs(None)):
        path = root / "train" / f"{number % 3}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path, quality=85)
    return folder_source(root / "train")


def test_signed_images_without_the_lattice_among_images_that_have_it(tmp_path: Path) -> None:
    source = jpeg_folder(tmp_path / "in")
    released = Released(source, tmp_path / "r", signature=sign(source, tuple(range(0, len(source), 4)), bound=8))
    traces = released.first["traces"]
    assert traces["small_coefficients"]["auc"] < 0.1
    assert traces["jpeg_lattice"]["auc"] < 0.2
    for trace in ("small_coefficients", "jpeg_lattice"):
        assert abs(traces[trace]["auc_of_originals"] - 0.5) < 0.2
    assert "Signed images can be found without the originals" in released.first["verdict"]
    assert "the JPEG lattice (AUC 0." in released.first["verdict"]
    assert released.first["warning"] == DIFFERENCING


def test_report_of_an_honest_release(tmp_path: Path) -> None:
    """On noise no measure can tell; the report says so, and gives bound, counts and visibility."""
    source = noise_source(count=60)
    released = Released(source, tmp_path / "r", signature=sign(source, tuple(range(0, 60, 3)), bound=3))
    report = released.first
    assert (report["num_images"], report["num_changed"], report["max_step"], report["bound"]) == (60, 20, 3, 3)
    assert 35 < report["visibility"]["psnr_min"] <= report["visibility"]["psnr_mean"] < 50
    assert report["visibility"]["ssim_mean"] > 0.99
    assert report["verdict"].startswith("Nothing measured here tells signed images from others (largest AUC 0.")
    json.dumps(report, allow_nan=False)


def test_verdicts() -> None:
    def trace(auc: float, p_value: float = 1e-9) -> dict[str, float]:
        return {"auc": auc, "p_value": p_value, "auc_of_originals": 0.5, "share_signed_in_top_percent": 0.0}

    nothing = {"file_bytes": trace(0.5), "high_frequency_energy": trace(0.6, 0.2), "jpeg_lattice": trace(0.5)}
    assert verdict(nothing) == "Nothing measured here tells signed images from others (largest AUC 0.60)."
    assert verdict({**nothing, "file_bytes": trace(0.7)}) == (
        "A reader without the originals can narrow the search for signed images, by file size (AUC 0.70, originals 0.50)."
    )
    assert verdict({**nothing, "jpeg_lattice": trace(0.02)}).startswith("Signed images can be found")
    assert verdict({**nothing, "jpeg_lattice": trace(1.0, 0.08)}) == (
        "Too few images are signed to judge by the JPEG lattice, which may tell all of them."
    )


def test_documents_are_made_again_and_compared(tmp_path: Path) -> None:
    """A list of hashes that names a file twice, or a release of another dataset, is no release of this one."""
    released = Released(noise_source(), tmp_path / "r")
    stored, files = read_manifest(released.folder)
    files.append(files[0])
    stored = replace(stored, hashes=sha256_hex(hash_list(files)))
    for name, data in documents(stored, files).items():
        (released.folder / name).write_bytes(data)
    assert (released.folder / HASHES).read_bytes().count(b"\n") == 13
    make_uniform(released.folder)
    with pytest.raises(TaggantError, match="the list of hashes names other files than it should"):
        released.audit()


def test_an_overlay_is_wanted() -> None:
    layout = make_layout("png", noise_source(), np.arange(12), came_from="npz")
    with pytest.raises(TypeError, match="an audit compares a signed source with its release"):
        audit_release(Path(), layout, None)  # type: ignore[arg-type]
    assert not isinstance(layout.source, OverlaySource)
