"""`taggant sweep`: run an experiment, a grid over configuration keys with repeats, as a graph of commands."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from pkgutil import iter_modules

from taggant_lightning import commands
from taggant_lightning.commands.resolved import resolver
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import given_paths, write_atomic, write_json
from taggant_lightning.outside import say
from taggant_lightning.sweeps.batch import scripts
from taggant_lightning.sweeps.experiment import Experiment, read_experiment
from taggant_lightning.sweeps.graph import Graph, Node, build
from taggant_lightning.sweeps.pace import Pace
from taggant_lightning.sweeps.processes import Processes, interruptible
from taggant_lightning.sweeps.results import gather
from taggant_lightning.sweeps.running import FINISHED, LOG, Execute, expanded, facts, finished, run_graph, run_node, tail, told
from taggant_lightning.sweeps.tracking import logged

INTERRUPTED, REQUEUED = 130, 75


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taggant sweep",
        description="Run an experiment: rows that differ in some configuration keys, several repeats each, as a graph of "
        "commands. A command is known by the hash of its resolved configuration; what is finished is not run again, in this "
        "experiment or another, so an interrupted sweep goes on with the same command.",
        epilog="experiments/README.md tells what an experiment's YAML says. Run where its paths begin, in "
        "the repository. `taggant table FILE` makes tables and plots of the results.",
    )
    parser.add_argument("experiment", metavar="EXPERIMENT.yaml")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", action="store_true", help="run what is not finished, then write the results")
    what.add_argument(
        "--print", action="store_true", help="print what is not finished, one command a line, in an order that works"
    )
    what.add_argument("--slurm", metavar="DIR", help="write array scripts with dependencies, and submit.sh, into DIR")
    what.add_argument("--gather", action="store_true", help="write the results of what is finished, and run nothing")
    what.add_argument("--node", metavar="HASH", help="run one command; what the array scripts call")
    parser.add_argument(
        "--profile", default="cpu", metavar="P", help="scale: a name in experiments/profiles or a file (%(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="commands at a time; they share the cores (%(default)s)"
    )
    parser.add_argument(
        "--cold", action="store_true", help="start each command in an interpreter of its own, as --print shows them"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="repeats in place of the experiment's")
    parser.add_argument("--first-seed", type=int, metavar="S", help="seed of the first repeat in place of the experiment's")
    parser.add_argument("--rows", metavar="TEXT", help="only rows whose name contains the text")
    parser.add_argument("--runs", default="runs/sweeps", metavar="DIR", help="folder of all commands' outcomes (%(default)s)")
    parser.add_argument("--results", metavar="FILE", help="file for the results (RUNS/EXPERIMENT-PROFILE.json)")
    parser.add_argument(
        "--wandb",
        choices=["offline", "online"],
        help="log each fit and test that runs now to W&B: a group an experiment, tags by claim and row",
    )
    return parser


def run(words: list[str], execute: Execute | None = None) -> None:
    """Run `taggant sweep`.

    Args:
        words: The command line.
        execute: Runs one command in place of a process of its own.
    """
    arguments = _parser().parse_args(words[1:])
    given_paths(arguments, "experiment", "slurm", "runs", "results")
    if arguments.jobs < 1:
        raise TaggantError(f"jobs={arguments.jobs} must be at least 1")
    path, runs = Path(arguments.experiment), Path(arguments.runs)
    experiment = read_experiment(
        path, arguments.profile, repeats=arguments.repeats, first_seed=arguments.first_seed, rows=arguments.rows
    )
    here = arguments.run and execute is None
    # Begun before the graph is built, which takes as long as importing.
    processes = Processes(arguments.jobs, modules=imported_once() if here and not arguments.cold else ())
    try:
        graph = build(experiment, runs, resolver())
        if arguments.wandb is not None:
            graph = logged(graph, experiment, arguments.wandb)
        if arguments.print:
            _print(graph)
        elif arguments.slurm is not None:
            _slurm(experiment, graph, arguments)
        elif arguments.node is not None:
            _one(graph, arguments, execute)
        else:
            complete = True if arguments.gather else _run(experiment, graph, arguments.jobs, processes, execute)
            _results(experiment, graph, arguments)
            if not complete:
                raise SystemExit(1)
    except KeyboardInterrupt:
        say("taggant sweep: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    finally:
        processes.close()


def imported_once() -> list[str]:
    """Return the modules that commands would import one by one: all of ours, and timm, which comes with the first model."""
    return [*(f"{commands.__name__}.{module.name}" for module in iter_modules(commands.__path__)), "timm"]


def _print(graph: Graph) -> None:
    for node in graph.nodes.values():
        if not finished(node):
            say(f"{shlex.join(expanded(node))} && touch {shlex.quote(str(node.folder / FINISHED))}", limit=None)


def _say_end(node: Node) -> None:
    """Show the end of a command's log."""
    for line in tail(node.folder / LOG).split("\n"):
        say(line, file=sys.stderr)


def _run(experiment: Experiment, graph: Graph, jobs: int, processes: Processes, execute: Execute | None) -> bool:
    seconds: dict[str, list[float]] = {}
    for node in graph.nodes.values():
        if (taken := told(node).get("seconds")) is not None:
            seconds.setdefault(node.stage, []).append(taken)
    pace = Pace(experiment.name, jobs, seconds)
    try:
        with interruptible(processes):
            outcome = run_graph(graph, execute or processes, jobs=jobs, pace=pace)
    finally:
        pace.finish()
    needed = graph.rows_of()
    for node, status in outcome.failed:
        say(file=sys.stderr)
        needing = ", ".join(needed[node.hash])
        say(f"taggant sweep: {node.folder} failed (exit {status}); needed by {needing}", file=sys.stderr)
        _say_end(node)
        say(f"the whole log: {node.folder / LOG}", file=sys.stderr)
    say("taggant: " + " ".join(f"{name}={count}" for name, count in facts(outcome).items()), flush=True)
    return not outcome.failed


def _results(experiment: Experiment, graph: Graph, arguments: argparse.Namespace) -> None:
    # A part of an experiment must not take the place of the whole.
    part = "" if arguments.rows is arguments.repeats is arguments.first_seed is None else "-part"
    path = Path(arguments.results or f"{arguments.runs}/{experiment.name}-{experiment.profile}{part}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    results = gather(experiment, graph, shlex.join(["taggant", *_sweep_words(arguments), "--run"]))
    write_json(path, results)
    unfinished = f" unfinished={len(results['unfinished'])}" if results["unfinished"] else ""
    say(f"taggant: results={path}{unfinished}", flush=True)


def _sweep_words(arguments: argparse.Namespace) -> list[str]:
    """Return the words that name the same graph, without the folder of its outcomes."""
    words = ["sweep", arguments.experiment]
    words += [] if arguments.profile == "cpu" else ["--profile", arguments.profile]
    for name in ("repeats", "first_seed", "rows"):
        value = getattr(arguments, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return words


def _slurm(experiment: Experiment, graph: Graph, arguments: argparse.Namespace) -> None:
    folder = Path(arguments.slurm).resolve()
    if any(letter.isspace() for letter in str(folder)):
        raise TaggantError(f"slurm={folder} has a space in it, which #SBATCH lines cannot hold; name another folder")
    if folder.exists() and any(folder.iterdir()):
        raise TaggantError(
            f"slurm={folder} is not empty; name a new folder, as jobs of an earlier submission may read its lists"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sweep = [sys.executable, "-m", "taggant_lightning", *_sweep_words(arguments), "--runs", str(Path(arguments.runs).resolve())]
    sweep += [] if arguments.wandb is None else ["--wandb", arguments.wandb]
    if arguments.results is not None:
        sweep += ["--results", str(Path(arguments.results).resolve())]
    for name, text in scripts(experiment, graph, sweep, folder, Path.cwd()).items():
        write_atomic(folder / name, text.encode(), mode=0o755 if name.endswith(".sh") else 0o644)
    say(f"taggant: {sum(not finished(n) for n in graph.nodes.values())} commands; submit them with {folder / 'submit.sh'}")


def _one(graph: Graph, arguments: argparse.Namespace, execute: Execute | None) -> None:
    found = [node for node in graph.nodes.values() if node.hash.startswith(arguments.node)]
    if len(found) != 1:
        raise TaggantError(f"node={arguments.node} names {len(found)} commands of the experiment; its YAML may have changed")
    processes = Processes(1, _launcher(found[0]))
    with interruptible(processes):
        status = run_node(found[0], execute or processes)
    if status:
        _say_end(found[0])
        raise SystemExit(REQUEUED if status == REQUEUED else 1)


def _launcher(node: Node) -> tuple[str, ...]:
    """Return `srun` for a training that SLURM gave several tasks."""
    lightning = node.words[0] == "taggant" and node.words[1] in ("fit", "validate", "test", "predict")
    return ("srun",) if lightning and int(os.environ.get("SLURM_NTASKS", "1")) > 1 else ()
