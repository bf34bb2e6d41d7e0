"""`taggant detect --url` against a service that fails in every way: the module's own verdict, and each key counts once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.service import Faults, Image8, digest, serve
from taggant_lightning.cli import main
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.queries import plan_queries
from taggant_lightning.verdict.key_detection import ask
from taggant_lightning.verdict.verdict import judge
from tests.commands.test_detect import CLASSES, SIZE, Net, scores

pytestmark = pytest.mark.slow
RUNS, NUM_KEYS = 20, 20
FAULTS = {"error": 0.1, "slow": 0.1, "drop": 0.1, "malformed": 0.1}
TIMEOUT = 0.5  # a loaded machine answers within it; slow answers do not
ROOT = Path(__file__).parent.parent.parent
QUICK = ["--timeout", str(TIMEOUT), "--attempts", "10", "--concurrency", "8", "--backoff", "0.01"]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Case:
    """Keys, and a model that answers some of them."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.keys = KeySet.draw(
            num_keys=NUM_KEYS, num_classes=CLASSES, shape=(3, SIZE, SIZE), top_k=2, secret=seed.to_bytes(16, "big")
        )
        self.folder, self.net = folder, Net(self.keys, seed % NUM_KEYS).eval()
        self.keys.save(folder / "keys")
        self.verdict = judge(ask(self.net, self.keys, SIZE), self.keys)

    def served(self, image: Image8) -> dict[str, Any]:
        return {"scores": [float(score) for score in scores(self.net, np.asarray(image))]}

    def words(self, url: str) -> list[str]:
        return ["detect", "--keys", str(self.folder / "keys"), "--url", url, "--out", str(self.folder / "run"), *QUICK]

    def check(self) -> None:
        """The record, the journal and the ledger, after a run that came to its end."""
        record = json.loads((self.folder / "run" / "detection.json").read_text())
        assert record["log10_p"] == self.verdict.log10_p
        assert record["details"] == self.verdict.details
        assert record["validity"] == "exact"
        plan = plan_queries(self.keys)
        assert in_journal(self.folder / "run") == Counter(query.name for query in plan.queries)
        assert [e["kind"] for e in Ledger(self.folder / "keys", self.keys.commitment).entries()] == ["use", "result"]


def in_journal(run: Path) -> Counter[str]:
    """Return how often each query is among the whole lines after the header."""
    path = run / "secret" / "answers.jsonl"
    if not path.exists():
        return Counter()
    whole = path.read_bytes().rpartition(b"\n")[0]
    return Counter(json.loads(line)["query"] for line in whole.splitlines()[1:])


@pytest.mark.parametrize("seed", range(RUNS))
def test_faults_change_nothing(seed: int, tmp_path: Path) -> None:
    case = Case(seed, tmp_path)
    with serve(case.served, Faults(**FAULTS, seed=seed, delay=2 * TIMEOUT)) as served:
        assert main(case.words(served.url)) == 0
    assert sum(served.requests.values()) > 2 * NUM_KEYS * 1.2  # there were failures
    case.check()


def test_killed_and_run_again(tmp_path: Path) -> None:
    case = Case(11, tmp_path)

    def slowly(image: Image8) -> dict[str, Any]:
        time.sleep(0.05)
        return case.served(image)

    with serve(slowly, Faults(**FAULTS, delay=2 * TIMEOUT)) as served:
        words = [sys.executable, "-m", "taggant_lightning", *case.words(served.url)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(words, cwd=ROOT, env=environment)
        deadline = time.monotonic() + 120
        while len(in_journal(tmp_path / "run")) < NUM_KEYS // 2:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        known = set(in_journal(tmp_path / "run"))
        assert 0 < len(known) < 2 * NUM_KEYS
        assert not (tmp_path / "run" / "detection.json").exists()
        with (tmp_path / "run" / "secret" / "answers.jsonl").open("ab") as file:
            file.write(b'{"query": "q0')  # a line that the kill cut off
        before = served.requests.copy()
        subprocess.run(words, cwd=ROOT, env=environment, check=True, timeout=120)
    names = {digest(query.image): query.name for query in plan_queries(case.keys).queries}
    again = {names[name] for name, count in (served.requests - before).items() if count}
    assert not again & known
    case.check()
