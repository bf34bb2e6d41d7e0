"""Quick forms of benchmarks: that of signing holds a claim, the others show that the scripts still run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.mark.slow
def test_ours_is_faster_than_the_textbook_loop() -> None:
    command = [sys.executable, str(BENCHMARKS / "signing.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ours against the textbook loop") == 2


def run(script: str, *words: str) -> str:
    """Run a benchmark as its command says, from the repository's root."""
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, str(BENCHMARKS / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_calibration_quickly(tmp_path: Path) -> None:
    run("calibration.py", "--quick", "--keysets", "60", "--out", str(tmp_path))
    found = json.loads((tmp_path / "results.json").read_text())
    assert len(found["controls"]["real"]) == 5
    assert len(found["controls"]["odd"]) == 10


needs_cifar = pytest.mark.skipif("TAGGANT_DATA" not in os.environ, reason="TAGGANT_DATA names no folder with CIFAR-100")


@pytest.mark.slow
@needs_cifar
def test_evasion_quickly(tmp_path: Path) -> None:
    small = ["--epochs", "1", "--steps", "2", "--images-per-key", "2", "--train-subset", "1500", "--copies", "100"]
    out = run("evasion.py", "--worlds", "0-0", "--kinds", "grid 4;blend of 2", *small, "--json", str(tmp_path / "e.json"))
    rows = json.loads((tmp_path / "e.json").read_text())["rows"]
    assert [row["keys"] for row in rows] == ["grid 4", "blend of 2"]
    assert "| knows the method |" in out


@pytest.mark.slow
@needs_cifar
def test_grinding_quickly(tmp_path: Path) -> None:
    run(
        "grinding.py", "--secrets", "400", "--others", "1", "--epochs", "1", "--served", "2", "--json", str(tmp_path / "g.json")
    )
    found = json.loads((tmp_path / "g.json").read_text())
    assert sum(found["hits"].values()) == 400
    assert found["served"] == {"queries": 20, "different_rankings": 0}
    assert not any(claim.get("verifies") for claim in found["claims"])


@pytest.mark.slow
def test_forgery_quickly(tmp_path: Path) -> None:
    """No attack verifies, and the corrected p-values of the freest claimant are valid in a few worlds."""
    run("forgery.py", "--worlds", "20", "--json", str(tmp_path / "f.json"))
    found = json.loads((tmp_path / "f.json").read_text())
    assert len(found["attacks"]) == 10
    assert not any(row["verification"] == "verifies" for row in found["attacks"])
    asked = [row["verification"] for row in found["attacks"] if "the verifier asks" in row["attack"]]
    assert asked == ["does not verify: significance"] * 2
    assert all(row["log10_p_of_excess"] > -3 for row in found["freest"])


@pytest.mark.slow
def test_power_from_stored_ranks(tmp_path: Path) -> None:
    ranks = BENCHMARKS.parent / "experiments" / "power" / "ranks.json"
    run("power.py", "--from", str(ranks), "--draws", "5", "--json", str(tmp_path / "p.json"))
    tests = json.loads((tmp_path / "p.json").read_text())["tests"]
    of_ten = {name: next(r for r in rows["signed"] if r["keys"] == 10) for name, rows in tests.items()}
    assert of_ten["rank score"]["median_log10_p"] < of_ten["binomial, top 10"]["median_log10_p"] < -3
