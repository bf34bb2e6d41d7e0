"""The figures of an experiment, gathered from its nodes' folders into one file."""

import csv
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.provenance import provenance
from taggant_lightning.files import read_json
from taggant_lightning.sweeps.experiment import Experiment
from taggant_lightning.sweeps.graph import Graph, ancestors
from taggant_lightning.sweeps.running import finished, told

SCHEMA = 1
_OF_VERDICT = ("hits", "num_keys", "top_k", "num_classes")


def gather(experiment: Experiment, graph: Graph, command: str) -> dict[str, Any]:
    """Return the results of what is finished; a repeat that is not has no values.

    Args:
        experiment: The experiment.
        graph: Its graph.
        command: The command that makes them.
    """
    rows: dict[str, dict[str, Any]] = {}
    for cell in graph.cells:
        row = cell.row
        entry = rows.setdefault(row.name, {"row": row.name, "factor": row.factor, "published": row.published, "repeats": []})
        ready = all(finished(node) for node in cell.reported)
        values = {k: v for node in cell.reported for k, v in figures(node.folder).items()} if ready else {}
        nodes = {node.stage: node.hash[:12] for node in cell.reported}
        entry["repeats"].append({"seed": cell.seed, "values": values, "nodes": nodes})
    seconds = [told(node).get("seconds", 0.0) for node in graph.nodes.values()]
    return {
        "schema_version": SCHEMA,
        "experiment": experiment.name,
        "claim": experiment.claim,
        "title": experiment.title,
        "profile": experiment.profile,
        "shared_keys": experiment.shared_keys or _shares_keys(graph),
        "first_seed": experiment.first_seed,
        "repeats": experiment.repeats,
        "command": command,
        "hours": round(sum(seconds) / 3600, 3),
        "nodes": len(graph.nodes),
        "rows": list(rows.values()),
        "unfinished": [node.folder.name for node in graph.nodes.values() if not finished(node)],
        **provenance(),
        "commit": ", ".join(sorted(_commits(graph))) or provenance()["commit"],
    }


def _commits(graph: Graph) -> set[str]:
    """Return the commits that the commands ran at, which may be earlier than this one."""
    found = {told(node).get("commit") for node in graph.nodes.values()}
    records = [node.folder / "detection.json" for cell in graph.cells for node in cell.reported]
    found |= {read_json(path, what="detection")["provenance"]["commit"] for path in records if path.is_file()}
    return {str(commit) for commit in found if commit}


def _shares_keys(graph: Graph) -> bool:
    """Say whether two repeats of a row were asked the same keys, whatever their seeds are called."""
    asked: dict[str, list[str]] = {}
    for cell in graph.cells:
        drawn = [node.hash for node in ancestors(cell.reported) if node.words[:3] == ["taggant", "keys", "new"]]
        asked.setdefault(cell.row.name, []).extend(set(drawn))
    return any(len(set(drawn)) < len(drawn) for drawn in asked.values())


def figures(folder: Path) -> dict[str, Any]:
    """Return the figures of one finished node: of its verdict, of Lightning's test, and of `metrics.json`.

    Raises:
        TaggantError: If it left none, or a file is damaged.
    """
    found: dict[str, Any] = {}
    if (folder / "detection.json").is_file():
        detection = read_json(folder / "detection.json", what="detection")
        found |= {name: detection["details"][name] for name in _OF_VERDICT if name in detection["details"]}
        found["log10_p"] = detection["log10_p"]
    if (folder / "test" / "metrics.csv").is_file():
        with (folder / "test" / "metrics.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        found["accuracy"] = float(last["test/acc"])
    if (folder / "metrics.json").is_file():
        found |= read_json(folder / "metrics.json", what="metrics")
    if not found:
        raise TaggantError(
            f"{folder} holds no figures: no detection.json, test/metrics.csv or metrics.json; report another stage"
        )
    return found
