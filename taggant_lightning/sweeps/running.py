"""Run a graph: several nodes at a time, each once, whatever stops the run in between."""

import fcntl
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.provenance import provenance
from taggant_lightning.files import write_json
from taggant_lightning.sweeps.graph import Graph, Node
from taggant_lightning.sweeps.pace import Pace

FINISHED, LOG, NODE, LOCK = "finished.json", "log.txt", "node.json", "lock"
STOPPED, POLL = -15, 0.2  # exit status of a command that was stopped; seconds between two looks at a lock
Execute = Callable[[list[str], Path, int], int]


def finished(node: Node) -> bool:
    """Say whether a node has run to its end."""
    return (node.folder / FINISHED).is_file()


def told(node: Node) -> dict[str, Any]:
    """Return what is known of a finished node: `seconds` and `commit`; nothing where a shell ran it and did not say."""
    text = (node.folder / FINISHED).read_text() if finished(node) else ""
    found: dict[str, Any] = json.loads(text) if text.strip() else {}
    return found


@dataclass
class Outcome:
    """What a run of a graph came to.

    Attributes:
        ran: Nodes that ran to their end now.
        found: Nodes that had been finished before.
        failed: Nodes whose command failed, with its exit status.
        skipped: Nodes that need a failed one.
    """

    ran: list[Node] = field(default_factory=list)
    found: list[Node] = field(default_factory=list)
    failed: list[tuple[Node, int]] = field(default_factory=list)
    skipped: list[Node] = field(default_factory=list)


def run_graph(graph: Graph, execute: Execute, *, jobs: int, pace: Pace) -> Outcome:
    """Run what is not finished; a failed node stops those that need it and no others.

    Args:
        graph: The graph.
        execute: Runs a command: words, file for its output, descriptor of the node's lock, which the command's process keeps
            open; returns the exit status.
        jobs: Commands at a time.
        pace: Is told what begins and ends.
    """
    outcome = Outcome(found=[node for node in graph.nodes.values() if finished(node)])
    done = {node.hash for node in outcome.found}
    bad: set[str] = set()
    waiting = [node for node in graph.nodes.values() if node.hash not in done]
    running: dict[Future[int], Node] = {}
    pace.start(graph, outcome.found)
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            for node in list(waiting):
                needs = {parent.hash for parent in node.parents}
                if needs & bad:
                    waiting.remove(node)
                    bad.add(node.hash)
                    outcome.skipped.append(node)
                    pace.skip(node)
                elif needs <= done and len(running) < jobs:
                    waiting.remove(node)
                    running[pool.submit(_run_safely, node, execute)] = node
                    pace.begin(node)
            ended, _ = wait(running, timeout=pace.interval, return_when=FIRST_COMPLETED)
            for future in ended:
                node, status = running.pop(future), future.result()
                if status:
                    bad.add(node.hash)
                    outcome.failed.append((node, status))
                else:
                    done.add(node.hash)
                    outcome.ran.append(node)
                pace.end(node, failed=bool(status))
            pace.tell()
    return outcome


def _run_safely(node: Node, execute: Execute) -> int:
    """Run one node; what goes wrong beside its command is told in its log, and the others go on."""
    try:
        return run_node(node, execute)
    except Exception:
        if node.folder.is_dir():
            with (node.folder / LOG).open("a") as log:
                traceback.print_exc(file=log)
        else:
            traceback.print_exc()
        return 1


def run_node(node: Node, execute: Execute) -> int:
    """Run one node, unless another process has finished it in the meantime.

    Whoever runs a node holds its lock, and so does the command's own process: a sweep that was killed and begun again waits
    for a command that the first one left behind.

    Returns:
        The command's exit status, 0 where it was finished already.

    Raises:
        TaggantError: If a node that it needs is not finished.
    """
    for parent in node.parents:
        if not finished(parent):
            raise TaggantError(f"{node.folder.name} needs {parent.folder.name}, which is not finished; run that first")
    node.folder.mkdir(parents=True, exist_ok=True)
    with (node.folder / LOCK).open("w") as lock:
        while not _locked(lock):
            if getattr(execute, "stopped", False):
                return STOPPED
            time.sleep(POLL)
        if finished(node):
            return 0
        words = prepare(node)
        write_json(node.folder / NODE, {"stage": node.stage, "hash": node.hash, "command": words, "resolved": node.resolved})
        begun = time.monotonic()
        status = execute(words, node.folder / LOG, lock.fileno())
        if status == 0:
            facts_of_run = {"seconds": round(time.monotonic() - begun, 2), "commit": provenance()["commit"]}
            write_json(node.folder / FINISHED, facts_of_run)
        return status


def _locked(lock: IO[str]) -> bool:
    """Take a lock if it is free, so that who waits for it can be stopped."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def prepare(node: Node) -> list[str]:
    """Clear what an attempt has left, and return the command; a training goes on from its last checkpoint instead."""
    words = expanded(node)
    if words[:2] == ["taggant", "fit"]:
        last = node.folder / "checkpoints" / "last.ckpt"
        return [*words, "--ckpt_path", str(last)] if last.is_file() else words
    for path in node.folder.iterdir():
        if path.name not in (LOCK, LOG):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return words


def expanded(node: Node) -> list[str]:
    """Return a command with environment variables such as $TAGGANT_DATA in place; the hash knows their names only."""
    return [os.path.expandvars(word) for word in node.words]


def program(words: list[str]) -> list[str]:
    """Return the words that start a command in a process of its own, by the interpreter that runs this."""
    return [sys.executable, "-m", "taggant_lightning", *words[1:]] if words[0] == "taggant" else [sys.executable, *words[1:]]


def threads(jobs: int) -> dict[str, str]:
    """Return the environment for commands that share this machine's cores: the same number of threads each."""
    cores = len(os.sched_getaffinity(0))
    return {"OMP_NUM_THREADS": str(max(1, cores // jobs)), **os.environ}


def tail(path: Path, lines: int = 8) -> str:
    """Return the last lines of a log."""
    if not path.is_file():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").rstrip().splitlines()[-lines:])


def facts(outcome: Outcome) -> dict[str, Any]:
    """Return how many nodes ran, were found, failed and were skipped."""
    return {name: len(getattr(outcome, name)) for name in ("ran", "found", "failed", "skipped")}
