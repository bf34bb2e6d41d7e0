"""The demo's plumbing, made small; tests/slow/test_demo.py runs it as it is."""

import json
from pathlib import Path

import pytest

from taggant_lightning.cli import main

SMALL = ["--num-keys", "3", "--images-per-key", "2", "--steps", "2", "--epochs", "2", "--eps-steps", "8"]


def test_small_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    shown = capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["signing"]["images_signed"] == 6
    assert result["signing"]["max_step"] <= 8
    assert result["signed"]["num_keys"] == result["clean"]["num_keys"] == 3
    assert "Bob trained on the release" in shown
    assert "the probability, at most, of so many hits" in shown
    assert {"result.json", "signed_images.png", "key_hits.png", "release", "secret"} <= {p.name for p in out.iterdir()}
    assert main(["demo", "--out", str(out)]) == 2
    assert "holds a demo already; remove it or name a new folder" in capsys.readouterr().err


def test_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "exists and holds no finished demo; remove it or name a new folder" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "new"), "--eps-steps", "300"]) == 2
    assert "must lie strictly between 0 and 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
