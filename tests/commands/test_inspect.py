"""`taggant inspect`: what it writes with and without the owner's truth, what it keeps, its messages."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from taggant_lightning import ImageClassifier, ImageDataModule
from taggant_lightning.adversary.detectors import DETECTORS
from taggant_lightning.cli import main
from taggant_lightning.commands.read_data import read_data
from taggant_lightning.commands.release import publish
from taggant_lightning.models.classifier import CHECKPOINT_ENTRY
from taggant_lightning.release.signature import Signature
from tests.conftest import write_tiny
from tests.release.signed import sign

SIGNED = (1, 4, 7, 12, 30, 44)


@pytest.fixture
def setup(tmp_path: Path, tiny_npz: Path) -> list[str]:
    """Words that name tiny data and a model for them, which need not be a good one."""
    (tmp_path / "data.yaml").write_text(f"data:\n  source: npz\n  root: {tiny_npz}\n  image_size: 8\n")
    torch.manual_seed(0)
    model = ImageClassifier("small_cnn", num_classes=3, image_size=8, channels=3)
    checkpoint = {"state_dict": model.state_dict(), CHECKPOINT_ENTRY: model.arguments}
    torch.save(checkpoint, tmp_path / "bob.ckpt")
    return ["inspect", "--config", str(tmp_path / "data.yaml"), "--checkpoint", str(tmp_path / "bob.ckpt")]


@pytest.fixture
def signature(tmp_path: Path, tiny_npz: Path) -> str:
    """A Signature whose changes are gross."""
    source = ImageDataModule("npz", str(tiny_npz)).train_source
    return str(sign(source, SIGNED, bound=120).save(tmp_path / "signature"))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_without_truth(setup: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main([*setup, "--out", str(out), "--data.train_subset", "40"]) == 0
    found = rows(out)
    data = ImageDataModule("npz", str(tmp_path / "tiny.npz"), train_subset=40)
    assert [int(row["index"]) for row in found] == data.train_indices.tolist()
    assert [int(row["label"]) for row in found] == data.train_source.labels[data.train_indices].tolist()
    assert list(found[0]) == ["index", "label", *DETECTORS]
    assert [p.name for p in out.iterdir()] == ["scores.csv"]
    shown = capsys.readouterr().out
    assert "dbscan calls" in shown
    most = max(found, key=lambda row: float(row["knn"]))["index"]
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("knn ")] == [most]


def test_with_truth(setup: list[str], signature: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = [*setup, "--data", "SignedDataModule", "--data.signature", signature, "--truth", signature, "--out", str(out)]
    assert main(words) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {
        "signed_share", "dbscan_noise_found", "dbscan_noise_false_positives",
        *(f"{name}_{what}" for name in DETECTORS for what in ("auc", "found_at_1", "found_at_5")),
    }  # fmt: skip
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in metrics.values())
    assert metrics["signed_share"] == len(SIGNED) / 60
    scores = np.array([float(row["high_frequency"]) for row in rows(out)])
    signed = np.isin(np.arange(60), SIGNED)
    by_hand = (scores[signed][:, None] > scores[~signed]).mean()
    assert metrics["high_frequency_auc"] == pytest.approx(by_hand)
    assert metrics["high_frequency_auc"] > 0.95
    # Of 54 unsigned images 1 % is none and 5 % are two.
    assert metrics["high_frequency_found_at_1"] == (scores[signed] > scores[~signed].max()).mean()
    assert metrics["high_frequency_found_at_5"] == (scores[signed] > np.sort(scores[~signed])[-3]).mean()
    curves = json.loads((out / "roc.json").read_text())
    assert set(curves) == set(DETECTORS)
    assert len(curves["knn"]["found"]) == 100
    assert (out / "roc.png").stat().st_size > 1000
    shown = capsys.readouterr().out
    assert "found at 1 %" in shown
    assert "control" not in shown
    assert "most suspicious" not in shown


def test_only_changed_images_in_use_count(setup: list[str], tmp_path: Path) -> None:
    source = ImageDataModule("npz", str(tmp_path / "tiny.npz")).train_source
    in_use = ImageDataModule("npz", str(tmp_path / "tiny.npz"), train_subset=40).train_indices.tolist()
    absent = next(i for i in range(60) if i not in in_use)
    made = sign(source, tuple(sorted([absent, *in_use[:3]])), bound=120)
    made.steps[made.indices.tolist().index(in_use[0])][:] = 0  # came out unchanged
    folder = str(made.save(tmp_path / "signature"))
    words = [*setup, "--data", "SignedDataModule", "--data.signature", folder, "--data.train_subset", "40", "--truth", folder]
    assert main([*words, "--detectors", "loss_quantile", "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["signed_share"] == 2 / 40


def test_the_originals_are_the_control(
    setup: list[str], signature: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*setup, "--detectors", "high_frequency,loss_quantile", "--truth", signature, "--out", str(tmp_path / "out")]
    assert main(words) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0.1 < metrics["high_frequency_auc"] < 0.9
    assert "knn_auc" not in metrics
    assert "the control" in capsys.readouterr().out


def test_removal(setup: list[str], signature: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    signed = ["--data", "SignedDataModule", "--data.signature", signature, "--truth", signature]
    words = [*setup, *signed, "--detectors", "high_frequency", "--remove", "0.1", "--by", "high_frequency", "--out", str(out)]
    assert main(words) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["removed_signed"] == metrics["removed_precision"] > 0.8  # six are signed and six removed
    # As the help says: the same configuration, whatever subset it names, with the file in place of its source.
    again = ["--data.train_subset", "60", "--data.source", "npz", "--data.root", str(out / "kept.npz")]
    kept = read_data([setup[2]], [*again, "--data.train_subset", "null"])
    data = ImageDataModule("npz", str(tmp_path / "tiny.npz"), image_size=8)
    assert len(kept.train_source) == 54
    assert kept.num_classes == 3
    scores = np.array([float(row["high_frequency"]) for row in rows(out)])
    staying = np.sort(np.argsort(-scores, kind="stable")[6:])
    source = Signature.load(signature).apply(data.train_source)
    assert all((kept.train_source.pixels(place) == source.pixels(int(i))).all() for place, i in enumerate(staying))
    assert (kept.train_source.labels == source.labels[staying]).all()
    assert (kept.test_source.images == data.test_source.images).all()  # type: ignore[attr-defined]
    assert "removed by high_frequency: 6 of 60 images" in capsys.readouterr().out


def test_a_release_in_order_is_known_by_its_pixels(setup: list[str], signature: str, tmp_path: Path) -> None:
    """What was published as arrays, without any Signature in Bob's configuration."""
    data = ImageDataModule("npz", str(tmp_path / "tiny.npz"))
    source = Signature.load(signature).apply(data.train_source)
    images = np.stack([source.pixels(i) for i in range(60)])
    with np.load(tmp_path / "tiny.npz") as arrays:
        np.savez(tmp_path / "published.npz", **{**arrays, "train_x": images})
    words = [*setup, "--data.root", str(tmp_path / "published.npz"), "--truth", signature, "--out", str(tmp_path / "out")]
    assert main([*words, "--detectors", "high_frequency"]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["high_frequency_auc"] > 0.95


@pytest.mark.parametrize("subset", [60, 40])
def test_a_written_release(
    setup: list[str], signature: str, tmp_path: Path, subset: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ImageDataModule("npz", str(tmp_path / "tiny.npz"), train_subset=subset)
    own = Signature.load(signature)
    if subset < 60:
        own = sign(data.train_source, tuple(data.train_indices.tolist()[-3:]), bound=120)
    truth = str(own.save(tmp_path / "own"))
    publish(data, own, tmp_path / "release")
    words = [*setup, "--data", "SignedDataModule", "--data.release", str(tmp_path / "release"), "--truth", truth]
    done = main([*words, "--detectors", "high_frequency", "--out", str(tmp_path / "out")])
    if subset == 60:
        assert done == 0
        assert json.loads((tmp_path / "out" / "metrics.json").read_text())["high_frequency_auc"] > 0.95
    else:  # places in it are no indices of the source: the owner names her Signature instead
        assert done == 2
        assert "with --data SignedDataModule --data.signature DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--detectors", "knn,nose"], "detectors='nose' is unknown; write some of knn,dbscan"),
        (["--remove", "0.1"], "remove=0.1 and by=None: write both or none"),
        (["--by", "knn"], "remove=None and by=knn: write both or none"),
        (["--detectors", "knn", "--remove", "0.1", "--by", "dbscan"], "by=dbscan is not among detectors=knn"),
        (["--remove", "0.001", "--by", "knn"], "remove=0.001 of 60 images must remove at least one"),
        (["--remove", "2", "--by", "knn"], "remove=2.0 of 60 images must remove at least one and keep at least one"),
        (["--data.image_size", "12"], "image_size=12 of the data, and the model was trained with 8"),
        (["--device", "nothing"], "device=nothing cannot be used"),
        (["--checkpoint", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
        (["--truth", "nowhere"], "signature=nowhere is no folder"),
        (["--data.nose", "1"], "nose"),
    ],
)
def test_bad_input_writes_nothing(
    setup: list[str], tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*setup, "--out", str(tmp_path / "out"), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_truth_of_other_data(setup: list[str], signature: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path / "other.npz", seed=9)
    words = [*setup, "--truth", signature, "--out", str(tmp_path / "out")]
    assert main([*words, "--data.root", str(tmp_path / "other.npz")]) == 2
    said = capsys.readouterr().err
    assert "not those that the Signature changes" in said
    source = ImageDataModule("npz", str(tmp_path / "tiny.npz")).train_source
    own = sign(source, SIGNED, bound=120)
    with np.load(tmp_path / "tiny.npz") as arrays:
        images = arrays["train_x"].copy()
        images[4] = own.replace(1, images[4])
        np.savez(tmp_path / "half.npz", **{**arrays, "train_x": images})
    assert main([*words, "--data.root", str(tmp_path / "half.npz")]) == 2
    assert "1 of 6 images are signed in the data" in capsys.readouterr().err
    everything = str(sign(source, tuple(range(60)), bound=120).save(tmp_path / "everything"))
    assert main([*words, "--truth", everything]) == 2
    assert "60 of the 60 images in use are signed" in capsys.readouterr().err


def test_out_is_a_file(setup: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("kept")
    assert main([*setup, "--out", str(tmp_path / "out")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "kept"


def test_images_of_several_shapes_cannot_be_kept(setup: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(9):
        for split in ("train", "test"):
            folder = tmp_path / "images" / split / "abc"[number % 3]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (8, 8 + number % 2, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    words = [*setup, "--data.source", "imagefolder", "--data.root", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert main([*words, "--remove", "0.2", "--by", "knn"]) == 2
    assert "images of 2 shapes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in DETECTORS)
    assert "examples:" in shown
