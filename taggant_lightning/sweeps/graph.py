"""The graph of an experiment: one node a command, found by the hash of its resolved configuration."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json, sha256_hex
from taggant_lightning.sweeps.experiment import Experiment
from taggant_lightning.sweeps.rows import Row
from taggant_lightning.sweeps.trees import Tree, merge

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)(?:\+(\d+))?\}")
PROGRAMS = ("taggant", "python")
Resolve = Callable[[list[str]], Any]


@dataclass(frozen=True)
class Node:
    """One command.

    Attributes:
        stage: Name of its stage.
        hash: SHA-256, in hexadecimal, of what its outcome follows from: its resolved configuration, and its parents' hashes.
        folder: Where it writes.
        words: The command.
        parents: Nodes whose folders it reads.
        resolved: What was hashed.
    """

    stage: str
    hash: str
    folder: Path
    words: list[str]
    parents: tuple["Node", ...]
    resolved: Any = field(repr=False)


@dataclass(frozen=True)
class Cell:
    """One repeat of one row.

    Attributes:
        row: The row.
        seed: Seed of the repeat.
        reported: Nodes whose figures are reported.
    """

    row: Row
    seed: int
    reported: tuple[Node, ...]


@dataclass(frozen=True)
class Graph:
    """All nodes of an experiment.

    Attributes:
        nodes: By hash, parents before children.
        cells: Rows × repeats.
    """

    nodes: dict[str, Node]
    cells: list[Cell]

    def rows_of(self) -> dict[str, list[str]]:
        """Return the names of the rows that need each node, by its hash."""
        needed: dict[str, list[str]] = {}
        for cell in self.cells:
            for node in ancestors(cell.reported):
                names = needed.setdefault(node.hash, [])
                if cell.row.name not in names:
                    names.append(cell.row.name)
        return needed


def build(experiment: Experiment, runs: Path, resolve: Resolve) -> Graph:
    """Build the graph.

    Args:
        experiment: The experiment.
        runs: Folder of the nodes' folders, one for all experiments: what they have in common runs once.
        resolve: Turns the words of a command, with `@…` in place of folders, into its whole configuration, JSON.

    Raises:
        TaggantError: If a row names what does not exist, or a command does not take its options.
    """
    nodes: dict[str, Node] = {}
    there = {path.name.rpartition("-")[2]: path for path in runs.iterdir()} if runs.is_dir() else {}
    cells: list[Cell] = []
    for row in experiment.rows:
        for seed in range(experiment.first_seed, experiment.first_seed + experiment.repeats):
            builder = _Builder(experiment, row, seed, (runs, there), resolve, nodes)
            report = row.changes.get("report", experiment.report)
            if not report:
                raise TaggantError(f"{experiment.name}: the row {row.name!r} reports no stage; write `report: [STAGE]`")
            cells.append(Cell(row, seed, tuple(builder.node(name) for name in report)))
    for number, cell in enumerate(cells):
        for other in cells[:number]:
            if cell.reported != other.reported:
                continue
            where = f"{experiment.name}: row {cell.row.name!r}"
            if cell.row is other.row:
                raise TaggantError(f"{where} has the same commands in two repeats; write {{seed}} into its stages")
            if cell.row.changes or other.row.changes:
                raise TaggantError(f"{where} has the same commands as row {other.row.name!r}: what it changes has no effect")
    return Graph(nodes, cells)


def ancestors(nodes: Iterable[Node]) -> list[Node]:
    """Return nodes and everything that they need, each once."""
    found: dict[str, Node] = {}
    for node in nodes:
        for each in (*ancestors(node.parents), node):
            found.setdefault(each.hash, each)
    return list(found.values())


class _Builder:
    """Makes the nodes of one row and repeat, as far as its reported stages need them."""

    def __init__(
        self,
        experiment: Experiment,
        row: Row,
        seed: int,
        places: tuple[Path, dict[str, Path]],
        resolve: Resolve,
        nodes: dict[str, Node],
    ) -> None:
        self.where = f"{experiment.name}: row {row.name!r}"
        self.stages = merge(experiment.stages, row.changes.get("stages", {}))
        self.values = {**merge(experiment.values, row.changes.get("values", {})), "seed": seed}
        (self.runs, self.there), self.resolve, self.nodes = places, resolve, nodes
        self.made: dict[str, Node] = {}
        self.open: list[str] = []  # stages that are being made, one for the other
        self.standing: list[str] = []  # values that are being looked up, one for the other

    def node(self, name: str) -> Node:
        """Return the node of a stage."""
        if name not in self.made:
            if name in self.open:
                raise TaggantError(f"{self.where}: stages need each other in a circle ({' → '.join([*self.open, name])})")
            self.open.append(name)
            self.made[name] = self._make(name)
            self.open.pop()
        return self.made[name]

    def _make(self, name: str) -> Node:
        words, parents = self._words(name)
        hidden = [_put(word, lambda n: f"@{'' if n == 'folder' else self.node(n).hash}") for word in words]
        resolved = {"stage": words[:2], "configuration": self.resolve(hidden)}
        digest = sha256_hex(canonical_json(resolved))
        if digest not in self.nodes:
            # Another experiment may know the same command by another name.
            folder = self.there.get(digest[:12], self.runs / f"{name}-{digest[:12]}")
            shown = [_put(word, lambda n: str(folder if n == "folder" else self.node(n).folder)) for word in words]
            self.nodes[digest] = Node(name, digest, folder, shown, parents, resolved)
        return self.nodes[digest]

    def _words(self, name: str) -> tuple[list[str], tuple[Node, ...]]:
        """Return the command, with the placeholders of folders left in it, and the nodes that it needs."""
        stage = self._stage(name)
        words = str(self._value(stage["run"])).split()
        if words[0] not in PROGRAMS:
            raise TaggantError(f"{self.where}: stage {name} has run={stage['run']!r}; begin it with {' or '.join(PROGRAMS)}")
        for file in stage.get("config", {}).values():
            words += [] if file is None else ["--config", str(self._value(file))]
        for option, given in stage.get("options", {}).items():
            value = self._value(given)
            if value is None:
                continue
            listed = value if isinstance(value, list) and words[0] == "python" else [value]
            for each in listed:
                words += [f"--{option}", each if isinstance(each, str) else json.dumps(each)]
        needed = [n for word in words for n, _ in PLACEHOLDER.findall(word) if n != "folder"]
        return words, tuple(self.node(n) for n in dict.fromkeys(needed))

    def _stage(self, name: str, below: tuple[str, ...] = ()) -> Tree:
        if name not in self.stages:
            raise TaggantError(f"{self.where}: the stage {name!r} does not exist; there are {', '.join(self.stages)}")
        if name in below:
            raise TaggantError(f"{self.where}: stages are like each other in a circle ({' → '.join([*below, name])})")
        stage: Tree = self.stages[name]
        if "like" in stage:
            stage = merge(self._stage(stage["like"], (*below, name)), {k: v for k, v in stage.items() if k != "like"})
        if "run" not in stage:
            raise TaggantError(f"{self.where}: the stage {name!r} has no `run`; write the command, such as taggant fit")
        return stage

    def _value(self, given: Any) -> Any:
        """Put values into their places; placeholders of stages and of the folder stay."""
        if isinstance(given, list):
            return [self._value(each) for each in given]
        if isinstance(given, dict):
            return {key: self._value(each) for key, each in given.items()}
        if not isinstance(given, str):
            return given
        whole = PLACEHOLDER.fullmatch(given)
        if whole and whole[1] in self.values and whole[2] is None:
            return self._of_profile(whole[1])

        def put(match: re.Match[str]) -> str:
            name, more = match[1], match[2]
            if name in self.values:
                value = self._of_profile(name)
                if more and not isinstance(value, int):
                    raise TaggantError(f"{self.where}: {match[0]} adds to {value!r}, which is no whole number")
                return str(value + int(more) if more else value)
            if name != "folder" and name not in self.stages:
                known = ", ".join(["folder", *self.values, *self.stages])
                raise TaggantError(f"{self.where}: {{{name}}} stands for nothing; write one of {known}")
            return match[0]

        return PLACEHOLDER.sub(put, given)

    def _of_profile(self, name: str) -> Any:
        """Return what a value's name stands for, which may have other names in it."""
        if name in self.standing:
            raise TaggantError(f"{self.where}: the value {name!r} stands for itself")
        self.standing.append(name)
        found = self._value(self.values[name])
        self.standing.pop()
        return found


def _put(word: str, stand_in: Callable[[str], str]) -> str:
    return PLACEHOLDER.sub(lambda match: stand_in(match[1]), word)
