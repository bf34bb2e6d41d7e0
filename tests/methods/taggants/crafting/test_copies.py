"""Signed images are not given away by their copies: equal ones are signed alike, near ones not at all."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest

from taggant_lightning import ImageClassifier, ImageDataModule, KeySet, TaggantSigning
from taggant_lightning.commands.release import publish
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.crafting.copies import signable
from taggant_lightning.release.signature import Signature
from tests.release.signed import sign


def quiet_trainer(callbacks: list[pl.Callback], max_epochs: int = 1) -> pl.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(max_epochs=max_epochs, accelerator="cpu", devices=1, callbacks=callbacks, **quiet)


def scene(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.integers(0, 256, (3, 4, 4))
    return np.clip(coarse.repeat(3, 1).repeat(3, 2) + rng.integers(-20, 20, (3, 12, 12)), 0, 255).astype(np.uint8)


def with_copies(path: Path) -> None:
    """Twelve images a class; 0 to 5 lie there again as 36.., 6 and 7 nearly, 8 in the test split, 9 in another class."""
    rng = np.random.default_rng(0)
    images, labels = [scene(rng) for _ in range(36)], [n // 12 for n in range(36)]
    near = [np.clip(images[n].astype(int) + rng.integers(-3, 4, (3, 12, 12)), 0, 255).astype(np.uint8) for n in (6, 7)]
    images += [*images[:6], *near, images[9]]
    labels += [0] * 8 + [2]
    test = [scene(rng) for _ in range(5)] + [images[8]]
    np.savez(
        path, train_x=np.stack(images), train_y=np.array(labels), test_x=np.stack(test), test_y=np.array([0, 1, 2, 0, 1, 2])
    )


@pytest.fixture
def data(tmp_path: Path) -> ImageDataModule:
    with_copies(tmp_path / "d.npz")
    return ImageDataModule("npz", root=str(tmp_path / "d.npz"))


def test_what_may_be_signed(data: ImageDataModule, caplog: pytest.LogCaptureFixture) -> None:
    found = signable(data, quiet_trainer([]))
    assert found.candidates.tolist() == [n for n in range(36) if n not in (6, 7, 8)]
    assert found.equal == {**{n: [36 + n] for n in range(6)}, 9: [44]}
    assert "duplicates: 7 training images are equal to an earlier one" in caplog.text
    assert "5 have a near copy, or one in the test split" in caplog.text


def test_rounds_of_signing_and_the_audit(data: ImageDataModule, tmp_path: Path) -> None:
    KeySet.draw(num_keys=3, num_classes=3, shape=(3, 12, 12), grid=4, top_k=1, secret=bytes(32)).save(tmp_path / "keys")
    options = {"images_per_key": 4, "min_images_per_key": 1, "steps": 2, "selection": "random", "snapshots": ()}
    made = []
    for name, rounds in (("one", [1]), ("two", [1, 2])):
        signing = TaggantSigning(str(tmp_path / "keys"), str(tmp_path / name), after_epochs=rounds, **options)
        model = ImageClassifier("small_mlp", num_classes=3, image_size=12)
        quiet_trainer([signing], max_epochs=2).fit(model, datamodule=data)
        made.append(Signature.load(tmp_path / name))
    assert made[0].indices.tolist() == made[1].indices.tolist()  # the second round crafted the same ones, each once
    assert not all(np.array_equal(a, b) for a, b in zip(made[0].steps, made[1].steps, strict=True))
    signed = dict(zip(made[1].indices.tolist(), made[1].steps, strict=True))
    assert not set(signed) & {6, 7, 8, 42, 43}
    pairs = {**{n: 36 + n for n in range(6)}, 9: 44}
    assert set(signed) & set(pairs)
    for one, other in pairs.items():
        assert (one in signed) == (other in signed)
        assert one not in signed or np.array_equal(signed[one], signed[other])
    assert publish(data, made[1], tmp_path / "release")["given_away"] == 0


@pytest.mark.parametrize(
    ("indices", "given_away"), [((0,), 1), ((6,), 1), ((8,), 1), ((9, 10), 1), ((10, 20), 0), ((1, 37), 2)]
)
def test_a_signature_that_copies_give_away(
    data: ImageDataModule, tmp_path: Path, indices: tuple[int, ...], given_away: int
) -> None:
    """One of two equal images, of two near ones, one that is in the test split or another class; both, by other steps."""
    report = publish(data, sign(data.train_source, indices), tmp_path / "release")
    assert report["given_away"] == given_away
    assert report["verdict"].startswith("Signed images can be found without the originals: ") == bool(given_away)


def test_too_few_images_without_copies(tmp_path: Path) -> None:
    with_copies(tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as arrays:
        content = dict(arrays)
    content["test_x"], content["test_y"] = content["train_x"], content["train_y"]  # the test split is the training split
    np.savez(tmp_path / "d.npz", **content)
    KeySet.draw(num_keys=1, num_classes=3, shape=(3, 12, 12), grid=4, top_k=1).save(tmp_path / "keys")
    signing = TaggantSigning(str(tmp_path / "keys"), str(tmp_path / "sig"))
    with pytest.raises(TaggantError, match="those with near copies do not count"):
        quiet_trainer([signing], max_epochs=1).fit(
            ImageClassifier("small_mlp", num_classes=3, image_size=12),
            datamodule=ImageDataModule("npz", root=str(tmp_path / "d.npz")),
        )
