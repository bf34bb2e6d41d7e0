"""The signing benchmark's quick form: ours reaches the published loop's cosine sooner, at a better pace."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.mark.slow
def test_ours_is_faster_than_the_textbook_loop() -> None:
    command = [sys.executable, str(BENCHMARKS / "signing.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ours against the textbook loop") == 2
