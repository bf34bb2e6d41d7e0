"""`taggant keys verify --ask`: a third party asks the model the revealed keys herself, with what the claim's record names."""

import argparse
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer, Query
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.commands.given import numbers_of
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import sha256_file
from taggant_lightning.methods.taggants.reveal import Revealed
from taggant_lightning.verdict import claim_checks
from taggant_lightning.verdict.findings import Asked

WAYS = ("onnx", "exported", "url", "predictions")
SHAPING = ("image_size", "mean", "std", "layout")


def add_options(group: Any) -> None:
    """Add the options of asking again to a parser or a group."""
    group.add_argument("--ask", action="store_true", help="ask the model the claim's keys again, in one of these ways:")
    group.add_argument("--onnx", metavar="FILE", help="an ONNX file")
    group.add_argument("--exported", metavar="FILE", help="a torch.export or TorchScript file")
    group.add_argument("--url", metavar="URL", help="an HTTP classification service (docs/services.md)")
    group.add_argument("--predictions", metavar="FILE", help="answers that you collected: query (a key's number) and labels")
    group.add_argument("--labels", metavar="FILE", help="the label table that the claim's record names")
    group.add_argument("--mapping", metavar="FILE", help="names of the service's fields")
    group.add_argument("--image-size", type=int, metavar="S", help="in place of the record's")
    group.add_argument("--mean", metavar="M,M,M", help="in place of the record's")
    group.add_argument("--std", metavar="S,S,S", help="in place of the record's")
    group.add_argument("--layout", metavar="NCHW", help="in place of the record's")


def ask_again(arguments: argparse.Namespace, claim: Detection, keys: Revealed) -> Asked | None:
    """Ask the model of a claim again; None where that is not wanted.

    Raises:
        TaggantError: If not exactly one way is given, keys are not revealed, or the label table is not the claim's.
    """
    ways = [way for way in WAYS if getattr(arguments, way) is not None]
    if not arguments.ask:
        if ways:
            raise TaggantError(f"--{ways[0]} says how to ask the model again; add --ask")
        return None
    if len(ways) != 1:
        given = " and ".join(f"--{way}" for way in ways) or "none of them"
        raise TaggantError(f"--ask: {given} is given; write exactly one of {', '.join(f'--{way}' for way in WAYS)}")
    numbers = claim_checks.numbers_of(claim, keys)
    if numbers is None or not set(numbers) <= set(keys.images):
        raise TaggantError("--ask: the keys of the claim's batches are not revealed, so the model cannot be asked them")
    table = _table(arguments.labels, claim, keys.header["num_classes"])
    way = ways[0]
    if way == "predictions":
        path = Path(arguments.predictions)
        return Asked(_rankings(_from_rows(path, numbers, table)), {}, _recorded(claim))
    images = np.stack([keys.images[number] for number in numbers])
    if way == "url":
        return _from_url(arguments, images, table, claim)
    return _from_file(arguments, way, images, table, claim)


def _recorded(claim: Detection) -> dict[str, Any]:
    return dict(claim.provenance.get("settings") or {})


def _rankings(answers: Sequence[Answer]) -> list[tuple[int | None, ...] | None]:
    return [answer.labels for answer in sorted(answers, key=lambda answer: answer.query)]


def _table(path: str | None, claim: Detection, num_classes: int) -> LabelTable:
    """Return the label table of the claim; another would be another claim."""
    named = claim.provenance.get("labels")
    if path is None:
        if named is not None:
            raise TaggantError(f"--ask: the claim used a label table (SHA-256 {named}); write --labels FILE with it")
        return LabelTable.same(num_classes)
    table = LabelTable.load(path, num_classes)
    if sha256_file(Path(path)) != named:
        raise TaggantError(f"labels={path} is not the table that the claim names (SHA-256 {named}); ask the claimant for that")
    return table


def _from_rows(path: Path, numbers: Sequence[int], table: LabelTable) -> list[Answer]:
    from taggant_lightning.access.predictions import answers_of, read_predictions

    names = [str(number) for number in numbers]
    rows = {name: row for name, row in read_predictions(path).items() if name in set(names)}
    return answers_of(rows, names, table, what=f"predictions={path}")


def _from_file(
    arguments: argparse.Namespace, way: str, images: NDArray[np.uint8], table: LabelTable, claim: Detection
) -> Asked:
    from taggant_lightning.access.files.process import ask_file
    from taggant_lightning.data.dataset import to_float
    from taggant_lightning.data.resize import fit

    path = Path(getattr(arguments, way))
    given: dict[str, Any] = {name: numbers_of(getattr(arguments, name), name) for name in ("mean", "std")}
    given |= {"image_size": arguments.image_size, "layout": arguments.layout}
    recorded = _recorded(claim)
    settings = {name: recorded.get(name) if given[name] is None else given[name] for name in SHAPING}
    shown = to_float(images) if settings["image_size"] is None else fit(to_float(images), settings["image_size"])
    asked = ask_file(
        way,
        path,
        shown.numpy(),
        mean=settings["mean"],
        std=settings["std"],
        layout=settings["layout"],
        classes=len(table.ours),
    )
    answers = table.apply(asked.answers, asked.classes)
    return Asked(_rankings(answers), {"file_sha256": sha256_file(path)}, settings)


def _from_url(arguments: argparse.Namespace, images: NDArray[np.uint8], table: LabelTable, claim: Detection) -> Asked:
    from taggant_lightning.access.services.journal import Journal
    from taggant_lightning.access.services.recorded import lack_of, recorded_answers
    from taggant_lightning.access.services.service import Service

    service = Service(arguments.url, mapping=arguments.mapping)
    queries = [Query(secrets.token_hex(8), image) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "secret" / "answers.jsonl", service.binding)
        service.ask(queries, journal, lack=lack_of(table))
        answers = recorded_answers(journal, queries, table, unanswered=True)
    settings = {**_recorded(claim), "service": service.binding["service"]}
    return Asked(_rankings(answers), {"url": service.binding["url"]}, settings)
