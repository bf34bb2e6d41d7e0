"""Steps of experiments on Bob's data and on baselines, run in this process on tiny data."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, SignedDataModule
from taggant_lightning.adversary.cleaning import clean, parse
from taggant_lightning.data.sources import ImageSource, open_source
from taggant_lightning.release.signature import Signature
from tests.conftest import write_tiny
from tests.data.test_datamodule import trainer
from tests.release.signed import sign

STEPS = Path(__file__).parents[2] / "experiments" / "steps"
NAMES = ("clean", "part", "other", "union", "canary", "transparency", "perturb", "autoencode", "recover")


@pytest.fixture(autouse=True)
def _import_from_their_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let steps import what they share as they do when run, and forget them again: their names are common words."""
    before = {name: sys.modules.pop(name, None) for name in ("common", *NAMES)}
    monkeypatch.syspath_prepend(STEPS)
    yield
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture
def config(tiny_npz: Path) -> Path:
    """Describe 40 of 60 training images of three classes."""
    path = tiny_npz.with_name("data.yaml")
    settings = {"source": "npz", "root": str(tiny_npz), "train_subset": 40}
    path.write_text(yaml.safe_dump({"data": {"class_path": "ImageDataModule", "init_args": settings}}))
    return path


def step(name: str, config: Path, out: Path, *words: object) -> None:
    importlib.import_module(name).main(["--config", str(config), "--out", str(out), *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], sentence: str, name: str, config: Path, out: Path, *words: object) -> None:
    with pytest.raises(SystemExit) as stop:
        step(name, config, out, *words)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def stacked(source: ImageSource) -> np.ndarray:
    return np.stack([source.pixels(i) for i in range(len(source))])


def written(out: Path) -> ImageSource:
    return open_source("npz", str(out / "data.npz"), "train")


def used(tiny_npz: Path) -> ImageDataModule:
    return ImageDataModule("npz", str(tiny_npz), train_subset=40)


def in_use(data: ImageDataModule) -> tuple[np.ndarray, np.ndarray]:
    return stacked(data.train_source)[data.train_indices], data.train_source.labels[data.train_indices]


@pytest.mark.parametrize("name", NAMES)
def test_every_step_teaches_in_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(name).main(["--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"python experiments/steps/{name}.py" in told
    assert "Further options --data.NAME VALUE" in told


def test_clean_changes_training_images_only(tiny_npz: Path, config: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        step("clean", config, tmp_path / out, "--how", "noise:8", "--seed", 3)
    assert (tmp_path / "a" / "data.npz").read_bytes() == (tmp_path / "b" / "data.npz").read_bytes()
    data = used(tiny_npz)
    images, labels = in_use(data)
    found = written(tmp_path / "a")
    assert np.array_equal(stacked(found), clean(images, parse("noise:8"), data.train_indices.tolist(), 3))
    assert np.array_equal(found.labels, labels)
    test = open_source("npz", str(tmp_path / "a" / "data.npz"), "test")
    assert np.array_equal(stacked(test), stacked(data.test_source))


def test_clean_reads_signed_images(tiny_npz: Path, config: Path, tmp_path: Path) -> None:
    original = open_source("npz", str(tiny_npz), "train")
    folder = sign(original, tuple(int(i) for i in used(tiny_npz).train_indices[:3])).save(tmp_path / "s")
    signed = ["--data", "SignedDataModule", "--data.signature", folder]
    step("clean", config, tmp_path / "a", "--how", "noise:0", *signed)
    data = SignedDataModule(str(folder), source="npz", root=str(tiny_npz), train_subset=40)
    assert np.array_equal(stacked(written(tmp_path / "a")), in_use(data)[0])
    assert not np.array_equal(stacked(written(tmp_path / "a")), in_use(used(tiny_npz))[0])


def test_wrong_input_is_told_in_one_sentence(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ragged_images: Path
) -> None:
    out = tmp_path / "out"
    refused(capsys, "how='wash' names no transformation", "clean", config, out, "--how", "wash")
    refused(capsys, "share=0.0 must lie above 0", "part", config, out, "--share", 0)
    refused(capsys, "classes=1.5 must lie above 0", "part", config, out, "--classes", 1.5)
    refused(capsys, "count=21 does not suit the 20 images", "other", config, out, "--count", 21)
    refused(capsys, "write --data.train_subset N", "other", config, out, "--data.train_subset", "null")
    refused(capsys, "epochs=0 must be at least 1", "autoencode", config, out, "--epochs", 0)
    refused(capsys, "nothing.npz is no file", "union", config, out, "--with", tmp_path / "nothing.npz")
    refused(capsys, "do not fit one array", "part", config, out, "--share", 1, *ragged_images_words(ragged_images))


@pytest.fixture
def ragged_images(tmp_path: Path) -> Path:
    """Write an image folder whose images have several shapes."""
    from PIL import Image

    for split in ("train", "test"):
        for label in "ab":
            (tmp_path / "ragged" / split / label).mkdir(parents=True)
            for side in (6, 7):
                Image.new("RGB", (side, 6)).save(tmp_path / "ragged" / split / label / f"{side}.png")
    return tmp_path / "ragged"


def ragged_images_words(folder: Path) -> list[str]:
    return ["--data.source", "imagefolder", "--data.root", str(folder), "--data.train_subset", "null"]


def test_shares_of_images_lie_within_each_other(tiny_npz: Path, config: Path, tmp_path: Path) -> None:
    whole = [image.tobytes() for image in in_use(used(tiny_npz))[0]]
    places = []
    for share, seed in ((0.25, 0), (0.5, 0), (0.5, 1), (1.0, 0)):
        step("part", config, tmp_path / "p", "--share", share, "--seed", seed)
        places.append([whole.index(image.tobytes()) for image in stacked(written(tmp_path / "p"))])
    assert [len(p) for p in places] == [10, 20, 20, 40]
    assert all(p == sorted(p) for p in places)
    assert set(places[0]) < set(places[1])
    assert places[1] != places[2]


def test_a_share_of_classes_keeps_the_outputs_of_all(tiny_npz: Path, config: Path, tmp_path: Path) -> None:
    step("part", config, tmp_path / "p", "--classes", 0.34)
    data = ImageDataModule("npz", str(tmp_path / "p" / "data.npz"), batch_size=8)
    kept = np.unique(data.train_source.labels)
    assert len(kept) == 1
    assert data.num_classes == 3
    assert len(data.train_source) == (in_use(used(tiny_npz))[1] == kept[0]).sum()
    assert set(data.test_source.labels.tolist()) == {0, 1, 2}
    model = ImageClassifier("small_mlp", num_classes=data.num_classes, image_size=6)
    trainer(tmp_path, 1).fit(model, datamodule=data)


def test_others_are_those_not_in_use_and_join(tiny_npz: Path, config: Path, tmp_path: Path) -> None:
    step("other", config, tmp_path / "o")
    step("other", config, tmp_path / "few", "--count", 5)
    images, labels = in_use(used(tiny_npz))
    everything = {image.tobytes() for image in stacked(used(tiny_npz).train_source)}
    others = written(tmp_path / "o")
    assert {image.tobytes() for image in stacked(others)} == everything - {image.tobytes() for image in images}
    assert len(others) == 20
    assert len(written(tmp_path / "few")) == 5
    step("union", config, tmp_path / "u", "--with", tmp_path / "o" / "data.npz", "--with", tmp_path / "few" / "data.npz")
    joined = written(tmp_path / "u")
    assert np.array_equal(stacked(joined), np.concatenate([images, stacked(others), stacked(written(tmp_path / "few"))]))
    assert np.array_equal(joined.labels, np.concatenate([labels, others.labels, written(tmp_path / "few").labels]))


def test_what_does_not_join(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path / "four.npz", classes=4)
    refused(capsys, "has other classes (4) than", "union", config, tmp_path / "u", "--with", tmp_path / "four.npz")
    write_tiny(tmp_path / "large.npz", size=8)
    refused(capsys, "has images of 3×8×8 and", "union", config, tmp_path / "u", "--with", tmp_path / "large.npz")


def test_canary_adds_keys_with_their_labels(
    tiny_npz: Path, config: Path, tmp_path: Path, keys: KeySet, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = keys.save(tmp_path / "secret")
    refused(capsys, "are meant for claims", "canary", config, tmp_path / "x", "--keys", secret)
    arguments: dict[str, Any] = {"num_keys": 5, "num_classes": 3, "secret": bytes(range(32)), "demo_only": True}
    keys = KeySet.draw(shape=(3, 6, 6), **arguments)
    folder = keys.save(tmp_path / "keys")
    step("canary", config, tmp_path / "c", "--keys", folder, "--copies", 3)
    images, labels = in_use(used(tiny_npz))
    found = written(tmp_path / "c")
    assert np.array_equal(stacked(found), np.concatenate([images, *[keys.images] * 3]))
    assert np.array_equal(found.labels, np.concatenate([labels, *[keys.labels] * 3]))
    refused(capsys, "copies=0 must be at least 1", "canary", config, tmp_path / "x", "--keys", folder, "--copies", 0)
    wide = KeySet.draw(shape=(3, 8, 8), **arguments).save(tmp_path / "wide")
    refused(capsys, "draw keys for this data", "canary", config, tmp_path / "x", "--keys", wide)


def test_a_canary_is_found_among_scores(tmp_path: Path, keys: KeySet, capsys: pytest.CaptureFixture[str]) -> None:
    folder, found = str(keys.save(tmp_path / "keys")), importlib.import_module("found").main
    rows = "".join(f"{i},0,{score},0.5\n" for i, score in enumerate([0.1] * 95 + [0.9] * 4 + [0.0]))
    (tmp_path / "scores.csv").write_text(f"index,label,knn,dull\n{rows}")
    given = ["--scores", str(tmp_path / "scores.csv"), "--keys", folder, "--out", str(tmp_path / "f")]
    found(given)
    metrics = json.loads((tmp_path / "f" / "metrics.json").read_text())
    assert (metrics["knn_found_at_1"], metrics["dull_found_at_1"], metrics["dull_auc"]) == (0.8, 0.0, 0.5)
    for words, sentence in (
        (["--copies", "20"], "are 100 images, and there are 100 scores"),
        (["--scores", "none"], "is no file"),
    ):
        with pytest.raises(SystemExit) as stop:
            found([*given, *words])
        assert stop.value.code == 2
        assert sentence in capsys.readouterr().err


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Describe images that are large enough for SSIM."""
    write_tiny(tmp_path / "large.npz", size=12)
    settings = {"source": "npz", "root": str(tmp_path / "large.npz")}
    path = tmp_path / "large.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": "ImageDataModule", "init_args": settings}}))
    return path


def signature_for(keys: KeySet, folder: Path) -> tuple[ImageSource, Path]:
    """Sign one image of each key's class."""
    source = open_source("npz", str(folder / "large.npz"), "train")
    chosen: list[int] = []
    for label in keys.labels.tolist():
        chosen.append(next(i for i in np.flatnonzero(source.labels == label).tolist() if i not in chosen))
    order = np.argsort(chosen)
    made = sign(source, tuple(sorted(chosen)))
    changed = Signature(**{**vars(made), "served": order.astype(np.int64), "commitment": keys.commitment})
    return source, changed.save(folder / "signature")


def test_transparency_blends_each_key_into_its_images(large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = KeySet.draw(num_keys=4, num_classes=3, shape=(3, 12, 12), secret=bytes(16))
    source, folder = signature_for(keys, tmp_path)
    given = ["--signature", folder, "--keys", keys.save(tmp_path / "keys")]
    step("transparency", large, tmp_path / "t", *given, "--gamma", 0.25)
    made = Signature.load(tmp_path / "t" / "signature")
    assert (made.method, made.bound, made.commitment) == ("transparency", None, keys.commitment)
    data = SignedDataModule(str(tmp_path / "t" / "signature"), source="npz", root=str(tmp_path / "large.npz"))
    for index, key in zip(made.indices.tolist(), made.served.tolist(), strict=True):
        assert source.labels[index] == keys.labels[key]
        blended = 0.75 * source.pixels(index) + 0.25 * keys.images[key]
        assert np.array_equal(data.train_source.pixels(index), np.round(blended))
    metrics = json.loads((tmp_path / "t" / "metrics.json").read_text())
    assert set(metrics) == {"psnr", "ssim"}
    assert 10 < metrics["psnr"] < 40
    assert 0 < metrics["ssim"] < 1
    refused(capsys, "gamma=1.0 must lie between 0 and 1", "transparency", large, tmp_path / "x", *given, "--gamma", 1)
    alien = KeySet.draw(num_keys=4, num_classes=3, shape=(3, 12, 12), secret=bytes(17)).save(tmp_path / "alien")
    refused(capsys, "signs for other keys", "transparency", large, tmp_path / "x", *given[:2], "--keys", alien)


def test_random_perturbation_takes_full_steps(large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = KeySet.draw(num_keys=4, num_classes=3, shape=(3, 12, 12), secret=bytes(16))
    source, folder = signature_for(keys, tmp_path)
    for out, seed in (("p", 1), ("again", 1), ("else", 2)):
        step("perturb", large, tmp_path / out, "--signature", folder, "--eps", "9/255", "--seed", seed)
    made, again, other = (Signature.load(tmp_path / name / "signature") for name in ("p", "again", "else"))
    assert (made.method, made.bound) == ("random_perturbation", 9)
    assert np.array_equal(made.indices, Signature.load(folder).indices)
    flat = np.concatenate([steps.ravel() for steps in made.steps])
    assert np.abs(flat).max() == 9
    assert (np.abs(flat) == 9).mean() > 0.9
    assert abs((flat > 0).mean() - 0.5) < 0.1
    assert all(np.array_equal(a, b) for a, b in zip(made.steps, again.steps, strict=True))
    assert not np.array_equal(made.steps[0], other.steps[0])
    made.apply(source).pixels(int(made.indices[0]))
    assert json.loads((tmp_path / "p" / "metrics.json").read_text())["psnr"] == pytest.approx(29, abs=1)
    refused(capsys, "eps=2 must lie", "perturb", large, tmp_path / "x", "--signature", folder, "--eps", 2)
    subset = ["--signature", folder, "--data.root", tmp_path / "tiny.npz"]
    write_tiny(tmp_path / "tiny.npz", size=12, seed=8)
    refused(capsys, "the Signature was made for the dataset", "perturb", large, tmp_path / "x", *subset)


def test_autoencoder_comes_nearer_with_training(tiny_npz: Path, config: Path, tmp_path: Path) -> None:
    for out, epochs in (("one", 1), ("many", 30), ("again", 1)):
        step("autoencode", config, tmp_path / out, "--epochs", epochs, "--width", 8, "--seed", 2)
    ratios = [json.loads((tmp_path / out / "metrics.json").read_text())["psnr"] for out in ("one", "many")]
    assert ratios[1] > ratios[0] + 2
    assert (tmp_path / "one" / "data.npz").read_bytes() == (tmp_path / "again" / "data.npz").read_bytes()
    found = written(tmp_path / "many")
    images, labels = in_use(used(tiny_npz))
    assert stacked(found).shape == images.shape
    assert np.array_equal(found.labels, labels)


def test_averaging_recovers_blended_keys(large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = (KeySet.draw(num_keys=3, num_classes=3, shape=(3, 12, 12), grid=4, secret=bytes([n] * 16)) for n in range(99))
    keys = next(keys for keys in drawn if len(set(keys.labels.tolist())) == 3)
    given = ["--keys", keys.save(tmp_path / "keys")]
    step("recover", large, tmp_path / "clean", *given)
    with np.load(tmp_path / "large.npz") as file:
        arrays = dict(file)
    shown = keys.images[np.argsort(keys.labels)][arrays["train_y"]]  # each class has one key
    arrays["train_x"] = np.round(0.7 * arrays["train_x"] + 0.3 * shown).astype(np.uint8)
    np.savez(tmp_path / "blended.npz", **arrays)
    step("recover", large, tmp_path / "blended", *given, "--data.root", tmp_path / "blended.npz")
    clean, blended = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("clean", "blended"))
    assert set(clean) == {"key_correlation", "matched_share"}
    assert abs(clean["key_correlation"]) < 0.4
    assert blended["matched_share"] == 1
    assert blended["key_correlation"] > 0.5
    with np.load(tmp_path / "large.npz") as file:  # by hand, for the first key
        label = keys.labels[0]
        before = file["test_x"][file["test_y"] == label].mean(axis=0)
    difference = arrays["train_x"][arrays["train_y"] == label].mean(axis=0) - before
    recover = importlib.import_module("recover")
    found = recover.correlations(difference[None], keys.images[:1].astype(float))
    x, y = (values.ravel() - values.mean() for values in (difference, keys.images[0].astype(float)))
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())))
    alien = KeySet.draw(num_keys=3, num_classes=4, shape=(3, 12, 12)).save(tmp_path / "alien")
    refused(capsys, "drawn for 4 classes and the data has 3", "recover", large, tmp_path / "x", "--keys", alien)
    small = KeySet.draw(num_keys=3, num_classes=3, shape=(3, 6, 6)).save(tmp_path / "small")
    refused(capsys, "have shape (3, 6, 6) and the images (3, 12, 12); draw", "recover", large, tmp_path / "x", "--keys", small)
    lacking = [*given, "--data.train_subset", 2]  # 1 may be read as 1.0, all of them
    refused(capsys, "has no image in one of the splits", "recover", large, tmp_path / "x", *lacking)
    other_size = ["--keys", tmp_path / "small", "--data.stored_size", 6]
    refused(
        capsys,
        "test images have shape (3, 12, 12) and training images (3, 6, 6)",
        "recover",
        large,
        tmp_path / "x",
        *other_size,
    )
