"""W&B behind the commands of an experiment: one group an experiment, tags by claim, profile, stage and row."""

import importlib.util
import json
from dataclasses import replace
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.sweeps.experiment import Experiment
from taggant_lightning.sweeps.graph import Graph, Node

FEW = 3  # rows that a command may serve and still be tagged with them


def logged(graph: Graph, experiment: Experiment, where: str) -> Graph:
    """Return the graph with W&B behind each `fit` and `test`; hashes stay, as logging changes no outcome.

    Args:
        graph: The graph.
        experiment: Gives the group and the claim's tag.
        where: `offline` or `online`.

    Raises:
        TaggantError: If wandb is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise TaggantError(f"wandb={where} needs wandb; run pip install 'taggant-lightning[wandb]', or leave it out")
    needed, nodes = graph.rows_of(), dict[str, Node]()
    for node in graph.nodes.values():
        words = list(node.words)
        if words[0] == "taggant" and words[1] in ("fit", "test"):
            rows = needed[node.hash] if len(needed[node.hash]) <= FEW else []
            tags = [f"claim-{experiment.claim}", f"profile-{experiment.profile}", node.stage, *rows]
            settings: dict[str, Any] = {
                "project": "taggant", "group": experiment.name, "name": node.folder.name, "job_type": node.stage,
                "offline": where == "offline", "tags": [tag[:64] for tag in tags],
            }  # fmt: skip
            words += ["--trainer.logger", "lightning.pytorch.loggers.WandbLogger"]
            for name, value in settings.items():
                words += [f"--trainer.logger.{name}", value if isinstance(value, str) else json.dumps(value)]
        nodes[node.hash] = replace(node, words=words)
    return Graph(nodes, graph.cells)
