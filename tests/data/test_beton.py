"""The FFCV backend beside the plain one: the same pixels in the same order, after a resume and in inference mode too."""

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from taggant_lightning import ImageDataModule, SignedDataModule
from taggant_lightning.cli import main
from taggant_lightning.commands.release import publish
from taggant_lightning.errors import TaggantError
from tests.conftest import write_tiny
from tests.data.test_datamodule import Recorder, StopAfter, model, trainer
from tests.release.signed import sign

BROKEN = "import sys; sys.modules['ffcv'] = None\n"


@pytest.fixture
def ragged(tmp_path: Path) -> Path:
    """Write photographs of several sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("test", 3)):
        for name in ("a", "b"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (14 + i, 20 - i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.png")
    return tmp_path / "photos"


def test_missing_ffcv_is_told_in_one_sentence(tiny_npz: Path) -> None:
    words = ["fit", "--data", "ImageDataModule", "--data.source", "npz", "--data.root", str(tiny_npz), "--data.backend", "ffcv"]
    words += ["--model", "ImageClassifier", "--model.model_name", "small_mlp", "--trainer.accelerator", "cpu"]
    code = BROKEN + f"from taggant_lightning.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tiny_npz.parent, timeout=120)
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("taggant fit:")]
    assert len(told) == 1
    assert "pkg-config, libturbojpeg0-dev and libopencv-dev" in told[0]
    assert "--data.backend torch" in told[0]


def test_unknown_backend() -> None:
    with pytest.raises(TaggantError, match="backend='dali' is unknown; write one of torch, ffcv"):
        ImageDataModule(backend="dali")


class TestWithFfcv:
    """What needs the package."""

    @pytest.fixture(autouse=True)
    def _need_ffcv(self) -> None:
        pytest.importorskip("ffcv", reason="the extra ffcv is not installed")

    @pytest.mark.parametrize("which", ["npz", "photographs", "grey", "signed", "release"])
    def test_same_pixels_in_the_same_order(self, which: str, tiny_npz: Path, ragged: Path, tmp_path: Path) -> None:
        options = {
            "npz": {"source": "npz", "root": str(tiny_npz), "train_subset": 50},
            "photographs": {"source": "imagefolder", "root": str(ragged), "image_size": 8, "load_size": 12},
            "grey": {"source": "npz", "root": str(tmp_path / "grey.npz")},
            "signed": {"source": "npz", "root": str(tiny_npz), "signature": str(tmp_path / "signature")},
            "release": {"source": "npz", "root": str(tiny_npz), "release": str(tmp_path / "release")},
        }[which]
        kind = ImageDataModule
        if which == "grey":
            write_tiny(tmp_path / "grey.npz", channels=1)
        if which in ("signed", "release"):
            original = ImageDataModule("npz", str(tiny_npz))
            signature, kind = sign(original.train_source, (3, 8, 20)), SignedDataModule
            signature.save(tmp_path / "signature")
            if which == "release":
                publish(original, signature, tmp_path / "release")
        plain = kind(batch_size=8, seed=3, **options)
        fast = kind(batch_size=8, seed=3, backend="ffcv", beton=str(tmp_path / "beton"), **options)
        fast.prepare_data()
        fast.setup("fit")
        for name in ("train_dataloader", "val_dataloader"):
            pairs = list(zip(getattr(plain, name)(), getattr(fast, name)(), strict=True))
            assert len(pairs) == len(getattr(fast, name)())
            for a, b in pairs:
                assert [t.dtype for t in a] == [t.dtype for t in b]
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    def test_resumed_equals_uninterrupted_and_plain(self, tiny_npz: Path, tmp_path: Path) -> None:
        """And a test in Lightning's inference mode ends, and torch keeps its number of threads."""

        def data(backend: str = "ffcv") -> ImageDataModule:
            places = {"root": str(tiny_npz), "backend": backend, "beton": str(tmp_path / "b")}
            return ImageDataModule("npz", **places, batch_size=16, augment="simple", seed=5, num_workers=2)

        runs = {}
        threads = torch.get_num_threads()
        for backend in ("torch", "ffcv"):
            recorder, straight = Recorder(), model(data(backend))
            whole = trainer(tmp_path / backend, 3, recorder)
            whole.fit(straight, datamodule=data(backend))
            runs[backend] = (recorder.batches, straight, whole.test(straight, datamodule=data(backend), verbose=False))
        assert torch.get_num_threads() == threads
        assert runs["torch"][2] == runs["ffcv"][2]
        pairs = zip(runs["torch"][0], runs["ffcv"][0], strict=True)
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)

        saving = pl.callbacks.ModelCheckpoint(tmp_path / "ckpt", every_n_epochs=1, save_top_k=-1)
        trainer(tmp_path / "half", 3, saving, StopAfter(1)).fit(model(data()), datamodule=data())
        resumed = model(data())
        second = Recorder()
        checkpoint = next((tmp_path / "ckpt").glob("*.ckpt"))
        trainer(tmp_path / "half", 3, second).fit(resumed, datamodule=data(), ckpt_path=checkpoint, weights_only=True)
        assert len(second.batches) == 8
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), runs["torch"][1].parameters(), strict=True))

    def test_an_epoch_may_be_left_early(self, tiny_npz: Path, tmp_path: Path) -> None:
        data = ImageDataModule("npz", str(tiny_npz), batch_size=12, backend="ffcv", beton=str(tmp_path / "b"))
        data.prepare_data()
        before = threading.active_count()
        for taken in (1, 2, 5):
            batches = iter(data.train_dataloader())
            for _ in range(taken):
                next(batches)
            time.sleep(0.3)  # FFCV's thread has all it can hold, and waits
            batches.close()
            assert threading.active_count() <= before  # a thread of an earlier test may have ended meanwhile

    def test_files_are_named_by_content_and_written_whole(
        self, tiny_npz: Path, ragged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def data(**changes: object) -> ImageDataModule:
            settings = {
                "source": "imagefolder",
                "root": str(ragged),
                "image_size": 8,
                "backend": "ffcv",
                "beton": str(tmp_path / "b"),
            }
            return ImageDataModule(**{**settings, **changes})

        data().prepare_data()
        written = sorted(p.name for p in (tmp_path / "b").iterdir())
        assert [name.split("-")[0] for name in written] == ["test", "train"]
        before = {p: p.stat().st_mtime_ns for p in (tmp_path / "b").iterdir()}
        data().prepare_data()
        assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "b").iterdir()}
        data(image_size=9).prepare_data()
        data(train_subset=5).prepare_data()
        assert len(list((tmp_path / "b").iterdir())) == 5  # the test split is the same for the last
        with pytest.raises(TaggantError, match=r"is missing; call prepare_data\(\) first"):
            data(image_size=10).train_dataloader()

        victim = sorted((ragged / "train" / "a").iterdir())[3]
        victim.write_bytes(victim.read_bytes()[:60])
        with pytest.raises(TaggantError, match=r"3\.png cannot be read .*; no \.beton file was written"):
            data(image_size=11).prepare_data()
        room = type("Usage", (), {"free": 100})
        monkeypatch.setattr("taggant_lightning.data.beton.shutil.disk_usage", lambda _: room)
        with pytest.raises(OSError) as full:
            data(image_size=12).prepare_data()
        assert full.value.errno == errno.ENOSPC
        assert not list((tmp_path / "b").glob("*.part"))

    def test_the_command_line_trains_and_tests(self, tiny_npz: Path, tmp_path: Path) -> None:
        words = ["--data", "ImageDataModule", "--data.source", "npz", "--data.root", str(tiny_npz), "--data.backend", "ffcv"]
        words += ["--data.beton", str(tmp_path / "b"), "--model", "ImageClassifier", "--model.model_name", "small_mlp"]
        words += [
            "--trainer.accelerator",
            "cpu",
            "--trainer.max_epochs",
            "1",
            "--trainer.default_root_dir",
            str(tmp_path / "run"),
        ]
        assert main(["fit", *words]) == 0
        assert main(["test", *words, "--ckpt_path", "last"]) == 0

    def test_convert_makes_what_training_finds(
        self, tiny_npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "data.yaml"
        config.write_text(f"data:\n  class_path: ImageDataModule\n  init_args:\n    source: npz\n    root: {tiny_npz}\n")
        assert main(["convert", "--config", str(config), "--out", str(tmp_path / "b"), "--workers", "2"]) == 0
        told = capsys.readouterr().out.splitlines()
        assert {line.split("=")[1].split()[0] for line in told[:2]} == {str(p) for p in (tmp_path / "b").iterdir()}
        monkeypatch.setattr("ffcv.writer.DatasetWriter", None)  # nothing is written again
        data = ImageDataModule("npz", str(tiny_npz), backend="ffcv", beton=str(tmp_path / "b"))
        data.prepare_data()
        assert sum(len(labels) for _, labels, _ in data.train_dataloader()) == 60
        assert main(["convert", "--config", str(config), "--workers", "0"]) == 2
