"""A service that fails in every way: the rankings are those of asking directly, and each query is in the journal once."""

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
import torch

from benchmarks.service import Faults, Image8, digest, serve
from taggant_lightning.access.answer import Query
from taggant_lightning.access.journal import Journal
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.module import ask_module
from taggant_lightning.access.recorded import recorded_answers
from taggant_lightning.access.service import Service
from tests.conftest import TwoLayers

pytestmark = pytest.mark.slow
RUNS, QUERIES, CLASSES = 20, 40, 3
FAULTS = {"error": 0.1, "slow": 0.1, "drop": 0.1, "malformed": 0.1}
TIMEOUT = 0.5  # a loaded machine answers within it; slow answers do not
ROOT = Path(__file__).parent.parent.parent
# Another process, which only the address and the journal's name connect with this one.
SCRIPT = """
import sys
from taggant_lightning.access.journal import Journal
from taggant_lightning.access.service import Service
from tests.slow.test_service import TIMEOUT, queries

service = Service(sys.argv[1], timeout=TIMEOUT, attempts=8, backoff=0.01)
service.ask(queries(0), Journal(sys.argv[2], service.binding))
"""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Model:
    """A small network, asked as a tensor or as a service."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.module = TwoLayers(classes=CLASSES)

    def logits(self, image: Image8) -> list[float]:
        with torch.no_grad():
            return self.module(torch.from_numpy(image)[None].float() / 255)[0].tolist()

    def served(self, image: Image8) -> dict[str, Any]:
        return {"scores": self.logits(image)}


def queries(seed: int) -> list[Query]:
    rng = np.random.default_rng(seed)
    return [Query(f"q{i:03}", rng.integers(0, 256, (3, 6, 6), dtype=np.uint8)) for i in range(QUERIES)]


def directly(model: Model, asked: list[Query]) -> list[tuple[int | None, ...] | None]:
    images = torch.from_numpy(np.stack([q.image for q in asked])).float() / 255
    return [answer.labels for answer in ask_module(model.module, images)]


def in_journal(path: Path) -> Counter[str]:
    """Return how often each query is among the whole lines after the header."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    return Counter(json.loads(line)["query"] for line in whole.splitlines()[1:])


@pytest.mark.parametrize("seed", range(RUNS))
def test_faults_change_nothing(seed: int, tmp_path: Path) -> None:
    model, asked = Model(seed), queries(seed)
    with serve(model.served, Faults(**FAULTS, seed=seed, delay=2 * TIMEOUT)) as served:
        service = Service(served.url, timeout=TIMEOUT, attempts=8, concurrency=8, backoff=0.01)
        journal = Journal(tmp_path / "secret" / "answers.jsonl", service.binding)
        service.ask(asked, journal)
    assert in_journal(journal.path) == Counter(q.name for q in asked)
    assert sum(served.requests.values()) > QUERIES * 1.2  # there were failures
    answers = recorded_answers(journal, asked, LabelTable.same(CLASSES))
    assert [a.labels for a in answers] == directly(model, asked)


def test_killed_and_run_again(tmp_path: Path) -> None:
    model, asked = Model(0), queries(0)
    path = tmp_path / "secret" / "answers.jsonl"

    def slowly(image: Image8) -> dict[str, Any]:
        time.sleep(0.05)
        return model.served(image)

    with serve(slowly, Faults(**FAULTS, delay=2 * TIMEOUT)) as served:
        words = [sys.executable, "-c", SCRIPT, served.url, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(words, cwd=ROOT, env=environment)
        deadline = time.monotonic() + 120
        while not path.exists() or len(in_journal(path)) < QUERIES // 3:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        known = set(in_journal(path))
        assert 0 < len(known) < QUERIES
        with path.open("ab") as file:
            file.write(b'{"query": "q0')  # a line that the kill cut off
        before = served.requests.copy()
        subprocess.run(words, cwd=ROOT, env=environment, check=True, timeout=120)
    assert in_journal(path) == Counter(q.name for q in asked)
    names = {digest(q.image): q.name for q in asked}
    again = {names[name] for name, count in (served.requests - before).items() if count}
    assert not again & known
    journal = Journal(path, Service(served.url).binding)
    answers = recorded_answers(journal, asked, LabelTable.same(CLASSES))
    assert [a.labels for a in answers] == directly(model, asked)
