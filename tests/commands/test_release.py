"""`taggant release` as others use it: the same Bob from every format, several owners, a common size, its messages."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, SignedDataModule, TaggantSigning
from taggant_lightning.cli import main
from taggant_lightning.commands.release import complete, publish, summary
from taggant_lightning.errors import TaggantError
from taggant_lightning.models.seeding import SeededSteps
from taggant_lightning.release.signature import Signature
from taggant_lightning.verdict.key_detection import ask
from tests.conftest import write_tiny
from tests.data.test_datamodule import trainer
from tests.release.signed import sign, with_additions
from tests.release.test_traces import photographs

QUICK: dict[str, Any] = {"images_per_key": 3, "min_images_per_key": 1, "eps": "32/255", "steps": 3, "snapshots": []}


def fit(data: ImageDataModule, run: Path, *callbacks: pl.Callback, epochs: int = 1) -> ImageClassifier:
    pl.seed_everything(3, verbose=False)
    model = ImageClassifier("small_cnn", num_classes=data.num_classes, image_size=data.image_size, channels=data.channels)
    trainer(run, epochs, SeededSteps(), *callbacks).fit(model, datamodule=data)
    return model.eval()


def owner(number: int, data: ImageDataModule, tmp: Path, seed: int) -> tuple[KeySet, str]:
    """Draw keys and sign."""
    keys = KeySet.draw(num_keys=3, num_classes=3, shape=(3, 8, 8), secret=bytes([number] * 16))
    signing = TaggantSigning(str(keys.save(tmp / f"keys-{number}")), str(tmp / f"signature-{number}"), seed=seed, **QUICK)
    fit(data, tmp / f"run-{number}", signing)
    return keys, str(tmp / f"signature-{number}")


@pytest.fixture
def npz(tmp_path: Path) -> str:
    write_tiny(tmp_path / "x.npz", size=8, per_class=40)
    return str(tmp_path / "x.npz")


@pytest.mark.parametrize("subset", [None, 90])
def test_a_bob_trained_on_any_format_is_the_bob_of_the_overlay(npz: str, tmp_path: Path, subset: int | None) -> None:
    data = ImageDataModule("npz", npz, train_subset=subset)
    keys, signature = owner(1, data, tmp_path, 0)
    same: dict[str, Any] = {"source": "npz", "root": npz, "augment": "simple"}
    overlay = fit(SignedDataModule(signature=signature, train_subset=subset, **same), tmp_path / "overlay", epochs=2)
    ranks = ask(overlay, keys, 8)
    clean = fit(ImageDataModule(train_subset=subset, **same), tmp_path / "clean", epochs=2)
    assert not torch.equal(next(clean.parameters()), next(overlay.parameters()))
    for format in ("png", "webp", "npz", "zip", "parquet", "source"):
        publish(data, Signature.load(signature), tmp_path / format, format=format)
        bob = fit(SignedDataModule(release=str(tmp_path / format), **same), tmp_path / f"bob-{format}", epochs=2)
        assert all(torch.equal(p, q) for p, q in zip(bob.parameters(), overlay.parameters(), strict=True))
        assert np.array_equal(ask(bob, keys, 8), ranks)


@pytest.mark.parametrize("subset", [None, 90])
def test_additions_are_published_and_audited(npz: str, tmp_path: Path, subset: int | None) -> None:
    data = ImageDataModule("npz", npz, train_subset=subset)
    used, source = data.train_indices[:3], data.train_source
    additions = with_additions(source, source.pixels(0).shape).additions
    signature = replace(sign(source, tuple(used.tolist())), additions=additions)
    signature.save(tmp_path / "signature")
    report = publish(data, signature, tmp_path / "r")
    assert (report["num_images"], report["num_changed"], report["num_added"]) == ((subset or 120) + 3, 3, 3)
    assert complete(data, report).endswith("of the source's 120 training images are released, and 3 that were added")
    memory = SignedDataModule(signature=str(tmp_path / "signature"), source="npz", root=npz, train_subset=subset)
    read = SignedDataModule(release=str(tmp_path / "r"), source="npz", root=npz)
    everything = range(report["num_images"])
    left, right = (data.train_data.batch(everything) for data in (memory, read))
    assert torch.equal(left[0], right[0])
    assert torch.equal(left[1], right[1])


def test_a_release_of_another_owner_is_signed_again(npz: str, tmp_path: Path) -> None:
    first, signature = owner(1, ImageDataModule("npz", npz), tmp_path, 0)
    publish(ImageDataModule("npz", npz), Signature.load(signature), tmp_path / "first", statement="the first owner's")
    between = SignedDataModule(release=str(tmp_path / "first"), source="npz", root=npz)
    second, other = owner(2, between, tmp_path, 1)
    with pytest.raises(TaggantError, match="format=source is the layout of original data, and these are a release"):
        publish(between, Signature.load(other), tmp_path / "second", format="source")
    report = publish(between, Signature.load(other), tmp_path / "second", format="zip")
    assert report["num_changed"] <= 9
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("first", "second")]
    assert [m["commitment"] for m in manifests] == [first.commitment, second.commitment]
    from taggant_lightning.files import sha256_file

    assert manifests[1]["source"]["release"] == sha256_file(tmp_path / "first" / "manifest.json")
    assert "release" not in manifests[0]["source"]
    for keys, manifest in zip((first, second), manifests, strict=True):
        keys.check(manifest["commitment"])
        with pytest.raises(TaggantError, match="the keys' commitment is"):
            keys.check(manifests[manifests[0] is manifest]["commitment"])
    # The second owner signed what the first one released: both marks are in the pixels.
    twice = SignedDataModule(release=str(tmp_path / "second"), source="npz", root=npz).train_source
    overlay = Signature.load(other).apply(between.train_source)
    assert all(np.array_equal(twice.pixels(i), overlay.pixels(i)) for i in range(120))
    with pytest.raises(TaggantError, match="the Signature was made for the dataset"):
        Signature.load(other).apply(ImageDataModule("npz", npz).train_source)


def test_two_signatures_on_one_source(npz: str, tmp_path: Path) -> None:
    source = ImageDataModule("npz", npz).train_source
    folders = []
    for number, indices in enumerate(((1, 4, 7), (2, 5), (5, 9))):
        folders.append(str(sign(source, indices).save(tmp_path / f"signature-{number}")))
    both = SignedDataModule(signature=folders[:2], source="npz", root=npz).train_source
    for i in range(12):
        expected = {**dict.fromkeys((1, 4, 7), folders[0]), **dict.fromkeys((2, 5), folders[1])}.get(i)
        alone = source if expected is None else Signature.load(expected).apply(source)
        assert np.array_equal(both.pixels(i), alone.pixels(i))
    with pytest.raises(TaggantError, match="the data carry a Signature already, and a release names one commitment"):
        publish(SignedDataModule(signature=folders[0], source="npz", root=npz), Signature.load(folders[1]), tmp_path / "r")
    assert SignedDataModule(signature=folders[1::-1], source="npz", root=npz).train_source.fingerprint != both.fingerprint
    with pytest.raises(
        TaggantError, match="1 images are signed by two of the Signatures; release the first, and sign that release"
    ):
        _ = SignedDataModule(signature=folders, source="npz", root=npz).train_source


def jpegs(root: Path) -> str:
    for number, pixels in enumerate(photographs(None)):
        path = root / "train" / f"{number % 3}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path, quality=85)
    return str(root)


def test_a_common_size_takes_the_lattice_away(tmp_path: Path) -> None:
    """Small perturbations, so that nothing but the lattice can tell: at the stored size it does, after a common resize not."""
    root, found = jpegs(tmp_path / "in"), {}
    for size in (None, 48):
        data = ImageDataModule("imagefolder", root, stored_size=size)
        signature = sign(data.train_source, tuple(range(0, len(data.train_source), 4)), bound=2)
        report = publish(data, signature, tmp_path / f"release-{size}", format="source")
        found[size] = report["traces"]["small_coefficients"]["auc"]
        shapes = {data.train_source.pixels(i).shape for i in range(5)}
        assert shapes == {(3, 64, 64) if size is None else (3, 48, 48)}
        released = SignedDataModule(release=str(tmp_path / f"release-{size}"), source="imagefolder", root=root).train_source
        assert np.array_equal(released.pixels(4), signature.apply(data.train_source).pixels(4))
    assert found[None] < 0.25
    assert abs(found[48] - 0.5) < 0.2
    with pytest.raises(TaggantError, match="stored_size=0 must be at least 1 pixel"):
        ImageDataModule("imagefolder", root, stored_size=0)


def test_the_command(npz: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ImageDataModule("npz", npz).train_source
    signature = str(sign(source, tuple(range(0, 100, 5))).save(tmp_path / "signature"))
    (tmp_path / "data.yaml").write_text(f"data: {{class_path: ImageDataModule, init_args: {{source: npz, root: {npz}}}}}")
    words = ["release", "--config", str(tmp_path / "data.yaml"), "--signature", signature, "--out", str(tmp_path / "r")]
    assert main([*words, "--format", "parquet", "--license", "cc0-1.0", "--statement", "words", "--workers", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == "120 of the source's 120 training images are released"
    assert shown[0].startswith("120 images in ")
    assert shown[-1].startswith("Whoever holds the originals finds every signed image by subtraction")
    report = json.loads((tmp_path / "signature" / "audit.json").read_text())
    assert report["num_images"] == 120
    assert (tmp_path / "signature" / "audit.json").stat().st_mode & 0o777 == 0o600
    assert "license: cc0-1.0" in (tmp_path / "r" / "README.md").read_text()
    audit = [*words, "--format", "parquet", "--license", "cc0-1.0", "--statement", "words", "--audit-only"]
    assert main(audit) == 0
    (tmp_path / "r" / "more.txt").write_text("no part of it")
    assert main(audit) == 2
    error = capsys.readouterr().err
    assert "must not be published: 1 file not part of it (more.txt); remove what does not belong" in error
    assert error.count("\n") == 1
    assert main([*words, "--workers", "0"]) == 2
    assert "workers=0 must be at least 1" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "none"), "--audit-only"]) == 2
    assert "is no folder; write the one that `taggant release --out` made" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "other"), "--lpips-weights", "none"]) == 2
    assert "perceptual_weights=none is no file" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert len(summary({**report, "visibility": dict.fromkeys(report["visibility"])}, "r")) == 3


def test_a_full_disk_is_told_in_one_sentence(
    npz: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    words = ["keys", "new", "--num-keys", "4", "--num-classes", "3", "--shape", "3,6,6", "--out", str(tmp_path / "keys")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error == (
        f"taggant keys: no space left on the disk while writing {tmp_path / 'keys' / 'secret.hex'}; free some and run the same "
        "command again\n"
    )
    assert not list((tmp_path / "keys").iterdir())
    monkeypatch.undo()
    assert main(words) == 0
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(PermissionError(1, "not allowed")))
    capsys.readouterr()
    assert main([*words[:-1], str(tmp_path / "more")]) == 2
    assert capsys.readouterr().err == (
        f"taggant keys: '{tmp_path / 'more' / 'secret.hex'}' cannot be read or written (Operation not permitted); name another "
        "path, or change its permissions\n"
    )
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert main([*words[:-1], str(tmp_path / "third")]) == 1
    assert "(Input/output error); mend that and run the same command again" in capsys.readouterr().err
