"""SLURM: one array job a level of the graph, each after the one before, and a job that gathers the results."""

import shlex
from pathlib import Path

from taggant_lightning.sweeps.experiment import Experiment
from taggant_lightning.sweeps.graph import Graph, Node
from taggant_lightning.sweeps.running import finished


def levels(graph: Graph) -> list[list[Node]]:
    """Return what is not finished, by how many unfinished nodes have to run before."""
    depth: dict[str, int] = {}
    found: dict[int, list[Node]] = {}
    for node in graph.nodes.values():
        if finished(node):
            continue
        depth[node.hash] = 1 + max((depth[p.hash] for p in node.parents if p.hash in depth), default=-1)
        found.setdefault(depth[node.hash], []).append(node)
    return [found[number] for number in sorted(found)]


def scripts(experiment: Experiment, graph: Graph, sweep: list[str], folder: Path, directory: Path) -> dict[str, str]:
    """Return the files of a submission, by name.

    A level waits for the level before, however that ended: one failed command must not hold up the others, and a command
    whose own parents are not finished ends at once with a sentence.

    Args:
        experiment: The experiment.
        graph: Its graph.
        sweep: The words of `taggant sweep EXPERIMENT …` without what is to be done.
        folder: Where the files will lie, absolute.
        directory: Folder to run in, absolute: paths of the configuration are relative to it.
    """
    files: dict[str, str] = {}
    lines = ["#!/usr/bin/env bash", "# Submit all levels; each waits for the one before.", "set -euo pipefail"]
    after = ""
    for number, nodes in enumerate(levels(graph)):
        name = f"level-{number}"
        files[f"{name}.txt"] = "".join(f"{node.hash[:12]}\n" for node in nodes)
        pick = f'$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(folder / name))}.txt)'
        array = [f"#SBATCH --array=1-{len(nodes)}"]
        files[f"{name}.sbatch"] = _script(experiment, name, array, folder, directory, f'{shlex.join(sweep)} --node "{pick}"')
        lines.append(f"job=$(sbatch --parsable {after}{shlex.quote(str(folder / name))}.sbatch)")
        lines.append(f'echo "{name}: $job, {len(nodes)} commands"')
        after = '--dependency="afterany:${job%%;*}" '
    files["results.sbatch"] = _script(experiment, "results", [], folder, directory, f"{shlex.join(sweep)} --gather")
    lines.append(f"sbatch {after}{shlex.quote(str(folder / 'results.sbatch'))}")
    files["submit.sh"] = "\n".join(lines) + "\n"
    return files


def _script(experiment: Experiment, name: str, extra: list[str], folder: Path, directory: Path, command: str) -> str:
    output = folder / (f"{name}-%a.log" if extra else f"{name}.log")
    head = [
        "#!/usr/bin/env bash",
        f"#SBATCH --job-name={'-'.join(experiment.name.split())}-{name}",
        f"#SBATCH --output={output}",
        *extra,
    ]
    # What the profile asks for is for trainings; gathering the results takes a core and a minute.
    head += [f"#SBATCH {line}" for line in experiment.slurm] if extra else ["#SBATCH --time=0:30:00"]
    return "\n".join([*head, "set -euo pipefail", f"cd {shlex.quote(str(directory))}", command]) + "\n"
