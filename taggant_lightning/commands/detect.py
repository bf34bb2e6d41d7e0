"""`taggant detect`: ask a model that is not ours, and reach the verdict by the one test that the keys fix."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.commands.given import MAP, numbers_of, parse_batches, read_map, source_of
from taggant_lightning.commands.run_directory import default_directory
from taggant_lightning.errors import TaggantError, Unavailable
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.evidence.moments import date
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import given_paths, sha256_file
from taggant_lightning.methods.taggants.batches import choose_batches
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.queries import plan_queries
from taggant_lightning.outside import say
from taggant_lightning.verdict.verdict import OpenUse, compare_with_decoys, conclude, ranks_of, verdict_line

if TYPE_CHECKING:
    from taggant_lightning.access.services.service import Service

MOST_PIXELS = 2048  # of a model's input: what no image classifier exceeds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taggant detect",
        description=__doc__,
        epilog="Writes detection.json (public) and secret/detection.secret.json, and an entry in the ledger beside the keys. A "
        "torch model is asked by `taggant test` with KeyDetection, a Python function by ask_function (docs/evidence.md).",
    )
    parser.add_argument("--keys", required=True, metavar="DIR", help="folder of the KeySet")
    way = parser.add_argument_group("how to ask (exactly one)")
    way.add_argument("--predictions", metavar="FILE", help="ranked labels that somebody collected: CSV, JSONL or parquet")
    way.add_argument("--onnx", metavar="FILE", help="an ONNX file (needs the extra onnx)")
    way.add_argument("--exported", metavar="FILE", help="a torch.export or TorchScript file; nothing in it is unpickled unseen")
    way.add_argument("--url", metavar="URL", help="an HTTP classification service (docs/services.md)")
    parser.add_argument("--out", metavar="DIR", help="new run directory (runs/TIME-detect); with --url the same one goes on")
    parser.add_argument("--suspect", metavar="NAME", help="the model's name in record and ledger (the file or address)")
    parser.add_argument("--first-seen", metavar="DATE", help="when the model was first seen, ISO 8601; goes into the record")
    parser.add_argument("--collected-by", metavar="NAME", help="for --predictions: who collected the answers")
    parser.add_argument("--collected-on", metavar="DATE", help="for --predictions: when they were collected, ISO 8601")
    parser.add_argument(
        "--labels", metavar="FILE", help="table of the model's labels and the owner's: CSV theirs,ours, or JSON"
    )
    parser.add_argument("--batches", metavar="B,B", help="numbers of the batches to ask (all that are still secret)")
    models = parser.add_argument_group("for --onnx and --exported")
    models.add_argument("--image-size", type=int, metavar="S", help="side that keys are resized to (their own)")
    models.add_argument("--mean", metavar="M,M,M", help="what the model wants subtracted from [0, 1] (nothing)")
    models.add_argument("--std", metavar="S,S,S", help="what the model wants divided by (nothing)")
    models.add_argument(
        "--layout", metavar="NCHW", help="NCHW or NHWC, where the file leaves open if channels come first or last"
    )
    models.add_argument(
        "--pass-timeout", type=float, metavar="S", help="seconds for up to 16 images, and one more for each MB of the file (10)"
    )
    service = parser.add_argument_group("for --url")
    service.add_argument("--mapping", metavar="FILE", help="names of the service's fields, JSON or YAML (docs/services.md)")
    service.add_argument("--decoys", type=int, default=1, metavar="D", help="decoys for each key (%(default)s)")
    service.add_argument("--source", metavar="DIR", help="for real-image keys: the folder they were chosen from")
    service.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for a whole exchange (%(default)g)")
    service.add_argument("--attempts", type=int, default=6, metavar="N", help="attempts for each query (%(default)s)")
    service.add_argument(
        "--backoff", type=float, default=0.5, metavar="S", help="seconds before a second attempt (%(default)g)"
    )
    service.add_argument("--concurrency", type=int, default=4, metavar="N", help="queries at a time (%(default)s)")
    service.add_argument("--rate", type=float, metavar="R", help="most requests a second (no limit)")
    service.add_argument(
        "--count-missing",
        action="store_true",
        help="conclude although the service is away: ask every query all the same; what it leaves without answer is a miss",
    )
    return parser


@dataclass(frozen=True)
class Said:
    """What came of asking.

    Attributes:
        answers: To the keys, numbered by their order; for a sequential test perhaps the first ones only.
        origin: What is known of the model and of the asking, for the record.
        notes: Sentences on answers that are no proper ones.
    """

    answers: list[Answer]
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()


def run(words: list[str]) -> None:
    """Run `taggant detect`."""
    arguments = _parser().parse_args(words[1:])
    given_paths(arguments, "keys", "predictions", "onnx", "exported", "out", "labels", "mapping", "source")
    ways = [way for way in ("predictions", "onnx", "exported", "url") if getattr(arguments, way) is not None]
    if len(ways) != 1:
        given = " and ".join(f"--{way}" for way in ways) or "none of them"
        raise TaggantError(f"{given} is given; write exactly one of --predictions, --onnx, --exported and --url")
    way = ways[0]
    keys = KeySet.load(arguments.keys)
    ledger = Ledger(arguments.keys, keys.commitment)
    batches = choose_batches(keys, ledger, parse_batches(arguments.batches))
    table = (
        LabelTable.same(keys.num_classes) if arguments.labels is None else LabelTable.load(arguments.labels, keys.num_classes)
    )
    folder = Path(arguments.out or default_directory("detect"))
    if (folder / "detection.json").exists():
        raise TaggantError(f"out={folder} holds a verdict already; name a new folder")
    say(f"taggant: run={folder}", flush=True)
    service = _service(arguments) if way == "url" else None
    # An address may hold a secret; the service shows what it may of it.
    suspect = arguments.suspect or (service.binding["url"] if service else Path(getattr(arguments, way)).name)
    if arguments.first_seen is not None:
        date(arguments.first_seen, "first-seen")
    about = {"first_seen": arguments.first_seen}
    use = OpenUse(
        ledger,
        suspect,
        batches,
        way,
        labels=_digest(arguments.labels),
        settings=_settings(arguments, service),
        identity=_identity(arguments, way, service),
    )
    use.take_up(folder)
    if way == "predictions":
        said = _from_predictions(arguments, keys, batches, table)
    elif service is not None:
        said = _from_service(arguments, service, keys, batches, table, folder, use)
    else:
        said = _from_file(arguments, way, keys, batches, table)
    detection = conclude(said.answers, keys, batches, use, {**about, **said.origin}, folder)
    for line in (*said.notes, *told(detection)):
        say(line)
    say(verdict_line(detection, folder), flush=True)


def _settings(arguments: argparse.Namespace, service: "Service | None") -> dict[str, Any]:
    """Return what shapes the queries or maps the answers; another value would be another use of the keys."""
    if service is not None:
        return {"service": service.binding["service"], "decoys": arguments.decoys}
    if arguments.predictions is not None:
        return {}
    scale = {name: numbers_of(getattr(arguments, name), name) for name in ("mean", "std")}
    return {"image_size": arguments.image_size, **scale, "layout": arguments.layout}


def _identity(arguments: argparse.Namespace, way: str, service: "Service | None") -> dict[str, Any]:
    """Return what tells which model was asked, and by whom."""
    if way != "predictions":
        for name in ("collected_by", "collected_on"):
            if getattr(arguments, name) is not None:
                option = name.replace("_", "-")
                raise TaggantError(f"--{option} is for --predictions; with --{way} this program asks the model itself, now")
        return {"url": service.binding["url"]} if service else {"file_sha256": _digest(getattr(arguments, way))}
    if arguments.collected_on is not None:
        date(arguments.collected_on, "collected-on")
    return {
        "file_sha256": _digest(arguments.predictions),
        "collected_by": arguments.collected_by,
        "collected_on": arguments.collected_on,
    }


def told(detection: Detection) -> list[str]:
    """Return the sentences that a person needs beside the figures."""
    from taggant_lightning.reporting.sentences import finding, meaning, shortcomings

    return [finding("The model", detection), *shortcomings(detection), *meaning().split("\n")]


def _digest(path: str | None) -> str | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise TaggantError(f"{path} is no file; check the path")
    return sha256_file(Path(path))


def _notes(misses: dict[str, int], unlisted: tuple[int, str], table: LabelTable) -> tuple[str, ...]:
    """Return the sentences on misses that the suspect's own doing brought about, and on labels that nobody knows."""
    notes = []
    if misses:
        kinds = ", ".join(f"{kind} ({number})" for kind, number in misses.items())
        notes.append(f"{sum(misses.values())} keys have no proper answer and are misses: {kinds}.")
    number, example = unlisted
    if number:
        whose = f"0..{table.num_classes - 1}, the owner's classes" if table.where is None else f"labels={table.where}"
        notes.append(
            f"{number} answers name labels that are not in {whose}, the first is {example}; each uses up its place and matches "
            "nothing. If the model has such classes, the table is at fault."
        )
    return tuple(notes)


def _from_predictions(arguments: argparse.Namespace, keys: KeySet, batches: Sequence[int], table: LabelTable) -> Said:
    """Read answers whose queries bear the names of `taggant keys export-queries`, or the keys' numbers."""
    from taggant_lightning.access.predictions import answers_of, misses, read_predictions

    digest = _digest(arguments.predictions)
    rows, what = read_predictions(Path(arguments.predictions)), f"predictions={arguments.predictions}"
    digest, numbers = _digest(arguments.predictions), keys.numbers(batches)
    names, wanted, decoys = read_map(Path(arguments.keys) / MAP), [str(number) for number in numbers], []
    if set(rows) & set(names):
        asked = {key: name for name, key in names.items() if key is not None}
        wanted = [asked.get(number, f"key {number}, which was not exported") for number in numbers]
        others = set(names) - set(wanted)  # decoys, and keys of other batches
        if not set(wanted) & set(rows):
            raise TaggantError(
                f"{what} answers no key of the batches {list(batches)}; write --batches with those that were exported"
            )
        decoys = [row.labels for name, row in rows.items() if name in names and names[name] is None]
        rows = {name: row for name, row in rows.items() if name not in others}
    answers, missed = answers_of(rows, wanted, table, what=what), misses(rows, wanted)
    odd = next((f"{row.odd}." for row in rows.values() if row.odd), None)
    notes = (*_notes(missed, table.unlisted(row.labels for row in rows.values()), table), *([odd] if odd else []))
    checks = compare_with_decoys([row.labels for row in rows.values()], decoys) if decoys else {}
    return Said(answers, {"file_sha256": digest, **_found(missed, checks)}, notes)


def _found(missed: dict[str, int], checks: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says of misses and of what was checked, where there is something to say."""
    return {**({"misses": missed} if missed else {}), **({"checks": checks} if checks else {})}


def _from_file(arguments: argparse.Namespace, way: str, keys: KeySet, batches: Sequence[int], table: LabelTable) -> Said:
    """Ask a model in a file, in a process of its own: the keys at its input size, in key order."""
    from taggant_lightning.access.files.process import ask_file
    from taggant_lightning.data.dataset import to_float
    from taggant_lightning.data.resize import fit

    path = getattr(arguments, way)
    digest = _digest(path)
    images = to_float(keys.images[keys.numbers(batches)])
    if arguments.image_size is not None:
        if not 1 <= arguments.image_size <= MOST_PIXELS:
            raise TaggantError(
                f"image-size={arguments.image_size} must be at least 1 and at most {MOST_PIXELS}, the side of the model's input"
            )
        images = fit(images, arguments.image_size)
    scale = {"mean": numbers_of(arguments.mean, "mean"), "std": numbers_of(arguments.std, "std")}
    asked = ask_file(
        way,
        path,
        images.numpy(),
        **scale,
        layout=arguments.layout,
        classes=len(table.ours),
        patience=arguments.pass_timeout,
    )
    asked.check_reach(f"{way}={path}")
    answers = table.apply(asked.answers, asked.classes)
    failed = sum(answer.labels is None for answer in answers)
    missed = {"the file failed, or gave another number of scores or one that is no number": failed} if failed else {}
    unlisted = table.unlisted(a.labels for a in asked.answers) if table.where is not None else (0, "")
    return Said(answers, {"file_sha256": digest, **_found(missed, asked.checks)}, _notes(missed, unlisted, table))


def _service(arguments: argparse.Namespace) -> "Service":
    from taggant_lightning.access.services.service import Service

    return Service(
        arguments.url,
        mapping=arguments.mapping,
        timeout=arguments.timeout,
        attempts=arguments.attempts,
        concurrency=arguments.concurrency,
        rate=arguments.rate,
        backoff=arguments.backoff,
    )


def _from_service(
    arguments: argparse.Namespace,
    service: "Service",
    keys: KeySet,
    batches: Sequence[int],
    table: LabelTable,
    folder: Path,
    use: OpenUse,
) -> Said:
    """Ask a service, or go on asking it where a run of the same folder was cut off."""
    from tqdm.auto import tqdm

    from taggant_lightning.access.services.journal import Journal
    from taggant_lightning.access.services.recorded import lack_of, misses, recorded_answers

    plan = plan_queries(keys, batches, arguments.decoys, source_of(keys, arguments.source))
    about = {"commitment": keys.commitment, "batches": list(batches), "decoys": arguments.decoys}
    journal = Journal(folder / "secret" / "answers.jsonl", {**about, **service.binding})
    key_queries = [query for query, key in zip(plan.queries, plan.keys, strict=True) if key is not None]

    def answered() -> list[Answer]:
        """Return the answers to the first keys, up to the first that has none yet."""
        done = list(itertools.takewhile(lambda query: query.name in journal.answers, key_queries))
        return recorded_answers(journal, done, table)

    def stop() -> bool:
        """Enter the use with the first answer, and say whether a sequential test may stop."""
        if journal.answers:
            use.begin(folder)
        return keys.test.may_stop_early and keys.test.decided(ranks_of(answered(), keys, batches))

    with tqdm(total=len(plan.queries), desc="queries", unit="query", initial=len(journal.answers), leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        try:
            failures = service.ask(
                plan.queries,
                journal,
                lack=lack_of(table),
                count_missing=arguments.count_missing,
                progress=show,
                stop=stop,
            )
        except Unavailable as error:
            count = "" if arguments.count_missing else ", or add --count-missing to ask the rest once and count them as misses"
            raise Unavailable(f"{error}; name the same --out {folder}{count}") from None
    early = stop()
    answers = answered() if early else recorded_answers(journal, key_queries, table, unanswered=True)
    missed = misses(journal, key_queries[: len(answers)], table, failures)
    named = (journal.answers[q.name].labels for q in key_queries[: len(answers)] if q.name in journal.answers)
    words = {name: recorded.labels for name, recorded in journal.answers.items()}
    own = {query.name for query in key_queries}
    checks = compare_with_decoys([words[n] for n in words if n in own], [words[n] for n in words if n not in own])
    origin = {**service.binding, "decoys": arguments.decoys, **_found(missed, checks)}
    return Said(answers, origin, _notes(missed, table.unlisted(named), table))
