"""Ten SIGKILLs over the whole pipeline, and a full disk: nothing is lost, and what comes out is what would have come out."""

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.release.signature import Signature
from tests.conftest import write_tiny

pytestmark = pytest.mark.slow
PROGRAM = [sys.executable, "-m", "taggant_lightning"]
KILLS = 10


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "x.npz", size=12, per_class=400)
    return tmp_path / "x.npz"


@pytest.fixture
def keys(tmp_path: Path) -> str:
    drawn = KeySet.draw(num_keys=6, num_classes=3, shape=(3, 12, 12), grid=4, secret=bytes(range(32)))
    return str(drawn.save(tmp_path / "keys"))


def stages(npz: Path, keys: str, root: Path) -> dict[str, list[str]]:
    """Return the commands from Alice's surrogate to the verdict on Bob; each goes on when it is run again."""
    data = ["--data.source", "npz", "--data.root", str(npz), "--data.batch_size", "16"]
    machine = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.enable_progress_bar", "false"]
    model = ["--model", "ImageClassifier", "--model.model_name", "small_cnn", *machine]
    signing = {"keys": keys, "out": str(root / "signature"), "images_per_key": "40", "steps": "40", "eps": "32/255"}
    signing |= {"after_epochs": "[2,3]"}
    callback = ["--trainer.callbacks+", "TaggantSigning"]
    callback += [word for name, value in signing.items() for word in (f"--trainer.callbacks.{name}", value)]
    (root / "data.yaml").write_text(f"data: {{class_path: ImageDataModule, init_args: {{source: npz, root: {npz}}}}}")
    release = ["--signature", str(root / "signature"), "--out", str(root / "release"), "--workers", "2"]
    bob = [*model, "--data", "SignedDataModule", "--data.release", str(root / "release"), *data]
    bob += [
        "--trainer.default_root_dir",
        str(root / "bob"),
        "--trainer.callbacks+",
        "KeyDetection",
        "--trainer.callbacks.keys",
        keys,
    ]
    alice = [*model, "--data", "ImageDataModule", *data, "--trainer.default_root_dir", str(root / "alice"), *callback]
    return {
        "alice": ["fit", *alice, "--trainer.max_epochs", "3", "--ckpt_path", "last"],
        "release": ["release", "--config", str(root / "data.yaml"), *release],
        "bob": ["fit", *bob, "--trainer.max_epochs", "4", "--ckpt_path", "last"],
        "verdict": ["test", *bob, "--ckpt_path", "last"],
    }


class Warm:
    """Runs commands one after the other in children of a warm process, and kills them."""

    def __init__(self, log: Path) -> None:
        words = [sys.executable, "-m", "tests.slow.warm"]
        self.log = log
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, words: list[str], kill_after: float = float("inf")) -> tuple[int, float]:
        """Return how a command ended (-9 for killed), and the seconds that it took."""
        began = time.monotonic()
        self.process.stdin.write(json.dumps([words, str(self.log)]) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        ready, _, _ = select.select([self.process.stdout], [], [], min(kill_after, 300))
        if not ready:
            os.kill(child, signal.SIGKILL)  # only itself: processes that it has started must end by themselves
        return int(self.process.stdout.readline()), time.monotonic() - began

    def finish(self, words: list[str]) -> float:
        """Run a command to its end, and return its seconds."""
        status, seconds = self(words)
        assert status == 0, self.log.read_text()[-2000:]
        return seconds


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Warm]:
    server = Warm(tmp_path / "log")
    yield server
    server.process.stdin.close()
    server.process.wait(timeout=60)


def test_ten_kills_over_the_whole_pipeline(npz: Path, keys: str, tmp_path: Path, warm: Warm) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for root in (whole, killed):
        root.mkdir()
    lasting = {name: warm.finish(words) for name, words in stages(npz, keys, whole).items()}
    chance = random.Random(20261124)  # which moments, no secret
    wanted = {"alice": 4, "release": 2, "bob": 3, "verdict": 1}
    struck, owed = dict.fromkeys(wanted, 0), 0
    for name, words in stages(npz, keys, killed).items():
        owed += wanted[name]
        while owed:
            status, _ = warm(words, chance.uniform(0, 2 / (1 + wanted[name])) * lasting[name])
            assert status in (0, -signal.SIGKILL), warm.log.read_text()[-2000:]
            if status == 0 and name != "verdict":
                break  # it was quicker than its kill, which the next stage gets
            struck[name] += status != 0
            owed -= status != 0
        warm.finish(words)
    assert sum(struck.values()) == KILLS
    print(lasting, struck)
    assert struck["alice"] >= 2

    a, b = Signature.load(whole / "signature"), Signature.load(killed / "signature")
    assert a.indices.tolist() == b.indices.tolist()
    assert all(np.array_equal(x, y) for x, y in zip(a.steps, b.steps, strict=True))
    files = [
        {p.relative_to(r).as_posix(): p.read_bytes() for p in r.rglob("*") if p.is_file()}
        for r in (whole / "release", killed / "release")
    ]
    assert files[0] == files[1]
    assert not list(killed.glob(".release*"))
    for who in ("alice", "bob"):
        states = [torch.load(r / who / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for r in (whole, killed)]
        assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    verdicts = []
    for root in (whole, killed):
        record = json.loads((root / "bob" / "detection.json").read_text())
        del record["provenance"]
        secret = json.loads((root / "bob" / "secret" / "detection.secret.json").read_text())
        del secret["provenance"]
        verdicts.append((record, secret))
    assert verdicts[0] == verdicts[1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 600 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)


def start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(words: list[str]) -> None:
    process = start(words)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()[-2000:]


def full(words: list[str]) -> str:
    """Run a command that fills the disk, and return the one sentence that it ends with."""
    process = start(words)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    lines = error.decode().replace("\r", "\n").strip().splitlines()
    assert "Traceback" not in error.decode()
    assert sum(line.startswith("taggant ") for line in lines) == 1
    return lines[-1]


def test_a_disk_that_is_full_while_signing(npz: Path, keys: str, tmp_path: Path, small_disk: Path) -> None:
    whole, root = tmp_path / "whole", tmp_path / "there"
    whole.mkdir()
    root.mkdir()
    finish(stages(npz, keys, whole)["alice"])
    words = stages(npz, keys, root)["alice"]
    words[words.index("--trainer.callbacks.out") + 1] = str(small_disk / "signature")
    sentence = full(words)
    assert sentence.startswith(f"taggant fit: no space left on the disk while writing {small_disk / 'signature'}")
    assert sentence.endswith("free some and run the same command again")
    assert not (small_disk / "signature" / "signature.json").exists()
    assert not list(small_disk.rglob("*.part"))
    enlarge(small_disk)
    finish(words)
    a, b = Signature.load(whole / "signature"), Signature.load(small_disk / "signature")
    assert a.indices.tolist() == b.indices.tolist()
    assert all(np.array_equal(x, y) for x, y in zip(a.steps, b.steps, strict=True))


@pytest.mark.parametrize("format", ["png", "zip", "npz", "parquet"])
def test_a_disk_that_is_full_while_releasing(format: str, tmp_path: Path, small_disk: Path) -> None:
    from taggant_lightning.data.sources import open_source
    from tests.release.signed import sign

    write_tiny(tmp_path / "x.npz", size=16, per_class=250)
    source = open_source("npz", str(tmp_path / "x.npz"), "train")
    sign(source).save(tmp_path / "signature")
    (tmp_path / "data.yaml").write_text(
        f"data: {{class_path: ImageDataModule, init_args: {{source: npz, root: {tmp_path / 'x.npz'}}}}}"
    )
    words = ["release", "--config", str(tmp_path / "data.yaml"), "--signature", str(tmp_path / "signature"), "--format", format]
    words += ["--workers", "2", "--out"]
    sentence = full([*words, str(small_disk / "release")])
    assert sentence.startswith("taggant release: no space left on the disk")
    assert not (small_disk / "release").exists()
    enlarge(small_disk)
    finish([*words, str(small_disk / "release")])
    finish([*words, str(tmp_path / "elsewhere")])
    files = [
        {p.relative_to(r).as_posix(): p.read_bytes() for p in r.rglob("*") if p.is_file()}
        for r in (small_disk / "release", tmp_path / "elsewhere")
    ]
    assert files[0] == files[1]
    assert sorted(p.name for p in small_disk.iterdir()) == ["release"]
    shutil.rmtree(small_disk / "release")
