"""Nulls where the whole pipeline really ran."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.control import control

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_bobs_that_owe_nothing_hit_as_the_binomial_says(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "nulls.py"), "--bobs", "24", "--json", str(tmp_path / "n.json")]
    subprocess.run(command, check=True, cwd=ROOT)
    found = json.loads((tmp_path / "n.json").read_text())
    hits = [row["hits"] for row in found["rows"]]
    assert sum(row["data"] != "clean" for row in found["rows"]) == 12
    assert control(hits, found["num_keys"], found["rate"], bins=6) > 1e-3
    # The control has power on these Bobs: two hits more each, or none at all, would show.
    assert control([0] * len(hits), found["num_keys"], found["rate"], bins=6) < 1e-3
    assert control([h + 2 for h in hits], found["num_keys"], found["rate"], bins=6) < 1e-3
