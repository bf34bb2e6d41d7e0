"""`taggant detect`: ask a model that is not ours, and reach the verdict by the one test that the keys fix."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.commands.given import MAP, parse_batches, read_map, source_of
from taggant_lightning.commands.run_directory import default_directory
from taggant_lightning.errors import TaggantError, Unavailable
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import given_paths, sha256_file
from taggant_lightning.taggants.claims import date
from taggant_lightning.taggants.keys import KeySet
from taggant_lightning.taggants.primary import SEQUENTIAL, may_stop
from taggant_lightning.taggants.queries import plan_queries
from taggant_lightning.taggants.verdict import OpenUse, choose_batches, conclude, ranks_of, verdict_line

if TYPE_CHECKING:
    from taggant_lightning.access.services.service import Service


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
    parser.add_argument(
        "--labels", metavar="FILE", help="table of the model's labels and the owner's: CSV theirs,ours, or JSON"
    )
    parser.add_argument("--batches", metavar="B,B", help="numbers of the batches to ask (all that are still secret)")
    models = parser.add_argument_group("for --onnx and --exported")
    models.add_argument("--image-size", type=int, metavar="S", help="side that keys are resized to (their own)")
    models.add_argument("--mean", metavar="M,M,M", help="what the model wants subtracted from [0, 1] (nothing)")
    models.add_argument("--std", metavar="S,S,S", help="what the model wants divided by (nothing)")
    service = parser.add_argument_group("for --url")
    service.add_argument("--mapping", metavar="FILE", help="names of the service's fields, JSON or YAML (docs/services.md)")
    service.add_argument("--decoys", type=int, default=1, metavar="D", help="decoys for each key (%(default)s)")
    service.add_argument("--source", metavar="DIR", help="for real-image keys: the folder they were chosen from")
    service.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds to wait for an answer (%(default)g)")
    service.add_argument("--attempts", type=int, default=6, metavar="N", help="attempts for each query (%(default)s)")
    service.add_argument(
        "--backoff", type=float, default=0.5, metavar="S", help="seconds before a second attempt (%(default)g)"
    )
    service.add_argument("--concurrency", type=int, default=4, metavar="N", help="queries at a time (%(default)s)")
    service.add_argument("--rate", type=float, metavar="R", help="most requests a second (no limit)")
    service.add_argument(
        "--count-missing",
        action="store_true",
        help="conclude although the service left queries without answer: they are misses",
    )
    return parser


@dataclass(frozen=True)
class Said:
    """What came of asking.

    Attributes:
        answers: To the keys, numbered by their order; for a sequential test perhaps the first ones only.
        origin: What is known of the model and of the asking, for the record.
    """

    answers: list[Answer]
    origin: dict[str, Any]


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
    print(f"taggant: run={folder}", flush=True)
    service = _service(arguments) if way == "url" else None
    # An address may hold a secret; the service shows what it may of it.
    suspect = arguments.suspect or (service.binding["url"] if service else Path(getattr(arguments, way)).name)
    if arguments.first_seen is not None:
        date(arguments.first_seen, "first-seen")
    about = {"access": way, "first_seen": arguments.first_seen}
    use = OpenUse(ledger, suspect, batches, way, labels=_digest(arguments.labels))
    if way == "predictions":
        said = Said(_from_predictions(arguments, keys, batches, table), {"file_sha256": _digest(arguments.predictions)})
    elif service is not None:
        said = _from_service(arguments, service, keys, batches, table, folder, use)
    else:
        said = Said(_from_file(arguments, way, keys, batches, table), {"file_sha256": _digest(getattr(arguments, way))})
    detection = conclude(said.answers, keys, batches, use, {**about, **said.origin}, folder)
    for line in told(detection):
        print(line)
    print(verdict_line(detection, folder), flush=True)


def told(detection: Detection) -> list[str]:
    """Return the sentences that a person needs beside the figures."""
    from taggant_lightning.reporting.sentences import finding, meaning, shortcomings

    return [finding("The model", detection), *shortcomings(detection), meaning()]


def _digest(path: str | None) -> str | None:
    if path is None:
        return None
    if not Path(path).is_file():
        raise TaggantError(f"{path} is no file; check the path")
    return sha256_file(Path(path))


def _from_predictions(arguments: argparse.Namespace, keys: KeySet, batches: Sequence[int], table: LabelTable) -> list[Answer]:
    """Read answers whose queries bear the names of `taggant keys export-queries`, or the keys' numbers."""
    from taggant_lightning.access.predictions import answers_of, read_predictions

    rows, what = read_predictions(Path(arguments.predictions)), f"predictions={arguments.predictions}"
    numbers = keys.numbers(batches)
    names = read_map(Path(arguments.keys) / MAP)
    if set(rows) & set(names):
        asked = {key: name for name, key in names.items() if key is not None}
        wanted = [asked.get(number, f"key {number}, which was not exported") for number in numbers]
        others = set(names) - set(wanted)  # decoys, and keys of other batches
        if not set(wanted) & set(rows):
            raise TaggantError(
                f"{what} answers no key of the batches {list(batches)}; write --batches with those that were exported"
            )
        kept = {name: row for name, row in rows.items() if name not in others}
        return answers_of(kept, wanted, table, what=what)
    return answers_of(rows, [str(number) for number in numbers], table, what=what)


def _from_file(
    arguments: argparse.Namespace, way: str, keys: KeySet, batches: Sequence[int], table: LabelTable
) -> list[Answer]:
    """Ask a model in a file: the keys at its input size, in key order."""
    from taggant_lightning.data.dataset import to_float
    from taggant_lightning.data.resize import fit

    path = getattr(arguments, way)
    _digest(path)
    images = to_float(keys.images[keys.numbers(batches)])
    if arguments.image_size is not None:
        if arguments.image_size < 1:
            raise TaggantError(f"image-size={arguments.image_size} must be at least 1")
        images = fit(images, arguments.image_size)
    scale = {"mean": numbers_of(arguments.mean, "mean"), "std": numbers_of(arguments.std, "std")}
    if way == "onnx":
        from taggant_lightning.access.files.onnx import ask_onnx as ask
    else:
        from taggant_lightning.access.files.exported import ask_exported as ask
    answers, count = ask(path, images.numpy(), **scale)
    return table.apply(answers, count)


def numbers_of(text: str | None, name: str) -> list[float] | None:
    """Read numbers with commas; None for None.

    Raises:
        TaggantError: If a part is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise TaggantError(
            f"{name}={text!r} must be numbers with commas, one a channel, for instance 0.485,0.456,0.406"
        ) from None


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
    from taggant_lightning.access.services.recorded import recorded_answers

    plan = plan_queries(keys, batches, arguments.decoys, source_of(keys, arguments.source))
    about = {"commitment": keys.commitment, "batches": list(batches), "decoys": arguments.decoys}
    journal = Journal(folder / "secret" / "answers.jsonl", {**about, **service.binding})
    use.take_up(folder)
    key_queries = [query for query, key in zip(plan.queries, plan.keys, strict=True) if key is not None]
    sequential = keys.test["name"] == SEQUENTIAL

    def answered() -> list[Answer]:
        """Return the answers to the first keys, up to the first that has none yet."""
        done = list(itertools.takewhile(lambda query: query.name in journal.answers, key_queries))
        return recorded_answers(journal, done, table)

    def stop() -> bool:
        """Enter the use with the first answer, and say whether a sequential test may stop."""
        if journal.answers:
            use.begin(folder)
        return sequential and may_stop(keys.test, ranks_of(answered(), keys, batches), keys.num_classes)

    with tqdm(total=len(plan.queries), desc="queries", unit="query", initial=len(journal.answers), leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        try:
            service.ask(plan.queries, journal, progress=show, stop=stop)
        except Unavailable as error:
            if not arguments.count_missing:
                raise Unavailable(
                    f"{error}; name the same --out {folder}, or add --count-missing to count them as misses"
                ) from None
    early = sequential and stop()
    answers = answered() if early else recorded_answers(journal, key_queries, table, unanswered=True)
    if journal.answers and all(recorded.refused for recorded in journal.answers.values()):
        status = next(iter(journal.answers.values())).status
        print(f"the service refused every query (HTTP {status}): is the mapping of its fields right? (docs/services.md)")
    return Said(answers, {**service.binding, "decoys": arguments.decoys})
