"""`taggant detect`: ask a model that is not ours, and reach the verdict by the one test that the keys fix."""

import argparse
from pathlib import Path

from taggant_lightning.commands.given import numbers_of, parse_batches, source_of
from taggant_lightning.commands.run_directory import default_directory
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import given_paths
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.outside import say
from taggant_lightning.verdict.detecting import detect
from taggant_lightning.verdict.suspects.base import Suspect
from taggant_lightning.verdict.suspects.predictions import Predictions
from taggant_lightning.verdict.verdict import verdict_line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taggant detect",
        description=__doc__,
        epilog="Writes detection.json (public) and secret/detection.secret.json, and an entry in the ledger beside the keys. A "
        "torch model is asked by `taggant test` with KeyDetection, or like a Python function by taggant_lightning.detect "
        "(docs/evidence.md).",
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


def run(words: list[str]) -> None:
    """Run `taggant detect`."""
    arguments = _parser().parse_args(words[1:])
    given_paths(arguments, "keys", "predictions", "onnx", "exported", "out", "labels", "mapping", "source")
    ways = [way for way in ("predictions", "onnx", "exported", "url") if getattr(arguments, way) is not None]
    if len(ways) != 1:
        given = " and ".join(f"--{way}" for way in ways) or "none of them"
        raise TaggantError(f"{given} is given; write exactly one of --predictions, --onnx, --exported and --url")
    suspect = _suspect(arguments, ways[0])
    folder = Path(arguments.out or default_directory("detect"))
    say(f"taggant: run={folder}", flush=True)
    detection = detect(
        arguments.keys,
        suspect,
        name=arguments.suspect,
        out=folder,
        batches=parse_batches(arguments.batches),
        labels=arguments.labels,
        first_seen=arguments.first_seen,
        told=say,
    )
    for line in told(detection):
        say(line)
    say(verdict_line(detection, folder), flush=True)


def _suspect(arguments: argparse.Namespace, way: str) -> Suspect:
    """Return the suspect that a command line describes."""
    if way == "predictions":
        return Predictions(arguments.predictions, collected_by=arguments.collected_by, collected_on=arguments.collected_on)
    for name in ("collected_by", "collected_on"):
        if getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise TaggantError(f"--{option} is for --predictions; with --{way} this program asks the model itself, now")
    if way == "url":
        return _online(arguments)
    from taggant_lightning.verdict.suspects.model_file import ModelFile

    return ModelFile(
        "onnx" if way == "onnx" else "exported",
        getattr(arguments, way),
        image_size=arguments.image_size,
        mean=numbers_of(arguments.mean, "mean"),
        std=numbers_of(arguments.std, "std"),
        layout=arguments.layout,
        patience=arguments.pass_timeout,
    )


def _online(arguments: argparse.Namespace) -> Suspect:
    from taggant_lightning.access.services.service import Service
    from taggant_lightning.verdict.suspects.service import Online

    service = Service(
        arguments.url,
        mapping=arguments.mapping,
        timeout=arguments.timeout,
        attempts=arguments.attempts,
        concurrency=arguments.concurrency,
        rate=arguments.rate,
        backoff=arguments.backoff,
    )
    source = None if arguments.source is None else source_of(KeySet.load(arguments.keys), arguments.source)
    return Online(service, decoys=arguments.decoys, source_images=source, count_missing=arguments.count_missing)


def told(detection: Detection) -> list[str]:
    """Return the sentences that a person needs beside the figures."""
    from taggant_lightning.reporting.sentences import finding, meaning, shortcomings

    return [finding("The model", detection), *shortcomings(detection), *meaning().split("\n")]
