"""The demo as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "taggant_lightning", "demo", "--out", str(out), "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads((out / "result.json").read_text())
    assert set(result) >= {"schema_version", "signed", "clean", "signing"}
    for name in ("signed", "clean"):
        assert set(result[name]) == {"hits", "num_keys", "top_k", "num_classes", "log10_p", "val_acc"}
        record = json.loads((out / f"bob-{name}" / "detection.json").read_text())
        assert record["log10_p"] == result[name]["log10_p"]
        assert record["details"]["demo_only"] is True
    assert set(result["signing"]) >= {"images_signed", "fraction", "eps", "mean_cosine", "seconds"}
    assert result["signed"]["log10_p"] <= -5
    assert result["clean"]["log10_p"] >= -2
    assert result["signing"]["fraction"] <= 0.2
    assert result["signing"]["eps"] <= 64 / 255
    for picture in ("signed_images.png", "key_hits.png"):
        assert (out / picture).stat().st_size > 5000
    assert "the probability, at most, of so many hits" in done.stdout
    assert "plainly visible" in done.stdout
    assert not re.search(r"invisible|imperceptible", done.stdout)
    assert "Traceback" not in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "holds a demo already; remove it or name a new folder" in again.stderr
