"""The wheel alone, in an environment of its own and from an empty folder, and the demo as a user runs it from there."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_alone(tmp_path: Path) -> None:
    source, out, empty = tmp_path / "source", tmp_path / "out", tmp_path / "empty"
    for name in ("taggant_lightning", "conf"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    out.mkdir()
    empty.mkdir()
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python, taggant = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "taggant"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    # What it depends on is borrowed; a path in a .pth brings packages, and no editable install, which is a .pth itself.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(*words: object, status: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(list(map(str, words)), cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if status == 0 else done.stderr

    assert run(python, "-c", "import taggant_lightning; print(taggant_lightning.__file__)").startswith(str(site))
    check_demo(empty / "told", run(taggant, "demo", "--out", "told", "--seed", "3"))
    said = run(taggant, "demo", "--out", "told", "--seed", "3", status=2)
    assert "holds a demo already; remove it or name a new folder" in said
    fragments = ["--config", "data/digits", "--config", "model/small_mlp", "--config", "trainer/cpu"]
    run(taggant, "fit", *fragments, "--trainer.max_epochs", "1", "--trainer.default_root_dir", "run")
    assert (empty / "run" / "checkpoints" / "last.ckpt").is_file()


def check_demo(out: Path, said: str) -> None:
    """The story that the demo tells, and its figures."""
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
    assert "the probability, at most, of so many hits" in said
    assert "plainly visible" in said
    assert not re.search(r"invisible|imperceptible", said)
