"""One line that says what is done, what runs, what is left, and how long that will take."""

import sys
import time
from datetime import timedelta
from statistics import median
from typing import TextIO

from taggant_lightning.sweeps.graph import Graph, Node


class Pace:
    """Tells the progress of a sweep: one line that is renewed on a terminal, whole lines elsewhere.

    Args:
        name: Of the experiment.
        jobs: Commands at a time.
        seconds: By stage, how long finished nodes took.
        stream: Where to write; None for standard error.
    """

    def __init__(self, name: str, jobs: int, seconds: dict[str, list[float]], stream: TextIO | None = None) -> None:
        self.name, self.jobs, self.seconds = name, jobs, seconds
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.interval = 1.0 if self.live else 30.0
        self.left: list[Node] = []
        self.running: dict[str, tuple[Node, float]] = {}
        self.done = self.failed = 0
        self._told, self._last = 0.0, ""

    def start(self, graph: Graph, found: list[Node]) -> None:
        """Begin, with nodes that are finished already."""
        hashes = {node.hash for node in found}
        self.left, self.done = [node for node in graph.nodes.values() if node.hash not in hashes], len(found)
        self.tell(now=True)

    def begin(self, node: Node) -> None:
        """Note that a node begins."""
        self.left.remove(node)
        self.running[node.hash] = (node, time.monotonic())

    def end(self, node: Node, *, failed: bool) -> None:
        """Note that a node ends."""
        _, begun = self.running.pop(node.hash)
        if failed:
            self.failed += 1
            self._write(f"taggant: failed {node.folder}", keep=True)
        else:
            self.done += 1
            self.seconds.setdefault(node.stage, []).append(time.monotonic() - begun)
        self.tell(now=True)

    def skip(self, node: Node) -> None:
        """Note that a node cannot run."""
        self.left.remove(node)

    def estimate(self) -> float | None:
        """Return the seconds that are left at the pace of each stage so far; None before anything has ended."""
        if not self.seconds:
            return None
        everything = median(s for times in self.seconds.values() for s in times)
        pace = {stage: median(times) for stage, times in self.seconds.items()}
        work = sum(pace.get(node.stage, everything) for node in self.left)
        now = time.monotonic()
        work += sum(max(0.0, pace.get(n.stage, everything) - (now - begun)) for n, begun in self.running.values())
        return work / self.jobs

    def tell(self, *, now: bool = False) -> None:
        """Write the line, if it is time or something has happened."""
        if not now and time.monotonic() - self._told < self.interval:
            return
        self._told = time.monotonic()
        left = self.estimate()
        words = [f"sweep={self.name}", f"done={self.done}", f"running={len(self.running)}", f"left={len(self.left)}"]
        words += [f"failed={self.failed}"] if self.failed else []
        unseen = {node.stage for node in self.left} - self.seconds.keys()  # stages that nothing is known of yet
        shown = "?" if left is None else f"{'>' if unseen else ''}{timedelta(seconds=round(left))}"
        words.append(f"time_left={shown}")
        self._write("taggant: " + " ".join(words), keep=False)

    def finish(self) -> None:
        """End the line."""
        if self.live:
            self.stream.write("\n")

    def _write(self, line: str, *, keep: bool) -> None:
        if self.live:
            self.stream.write(f"\r\033[K{line}" + ("\n" if keep else ""))
        elif line != self._last:
            self.stream.write(line + "\n")
        self._last = line
        self.stream.flush()
