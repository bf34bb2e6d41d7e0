"""`detect()`: a suspect and a KeySet go in, a Detection comes out; the one way to a verdict for everything that is asked."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taggant_lightning.access.labels import LabelTable
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.evidence.moments import date
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import digest_of, given_path
from taggant_lightning.methods.taggants.batches import choose_batches
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.verdict.suspects.base import Suspect, Task
from taggant_lightning.verdict.suspects.predictions import Predictions
from taggant_lightning.verdict.verdict import OpenUse, conclude

TABLES = (".csv", ".jsonl", ".parquet")


def suspect_of(model: Any) -> Suspect:
    """Return a suspect for what a person names: a module, a function, a file, an address.

    Args:
        model: A Suspect; a torch module, or a function (`access.calling.ask_function` says of what); the address of a service;
            a table of predictions (.csv, .jsonl, .parquet); an ONNX file (.onnx); or another file, of torch.export or
            TorchScript. What needs settings (a mean, a mapping) is made by its class in `verdict.suspects`.

    Raises:
        TaggantError: If it is none of them.
    """
    if isinstance(model, Suspect):
        return model
    if isinstance(model, str | Path):
        text, ending = str(model), Path(model).suffix.lower()
        if text.startswith(("http://", "https://")):
            from taggant_lightning.access.services.service import Service
            from taggant_lightning.verdict.suspects.service import Online

            return Online(Service(text))
        if ending in TABLES:
            return Predictions(given_path(model, "suspect"))
        from taggant_lightning.verdict.suspects.model_file import ModelFile

        return ModelFile("onnx" if ending == ".onnx" else "exported", given_path(model, "suspect"))
    if callable(model):
        from taggant_lightning.verdict.suspects.in_memory import Function, Module

        return Module(model) if hasattr(model, "state_dict") else Function(model)
    raise TaggantError(f"suspect={model!r} is no model; give a module, a function, a file or an address")


def detect(
    keys: str | Path,
    suspect: Any,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    batches: Sequence[int] | None = None,
    labels: str | Path | None = None,
    first_seen: str | None = None,
    told: Callable[[str], None] | None = None,
) -> Detection:
    """Ask a suspect the keys, and reach the verdict by the one test that they fix.

    The use is entered in the ledger beside the keys before an answer is looked at. Writes detection.json (public) and
    secret/detection.secret.json.

    Args:
        keys: Folder of the KeySet.
        suspect: What `suspect_of` takes.
        name: What the model is called in record and ledger; None for the file's, the address's or the function's name.
        out: Run directory; None for a new one below `runs`. With a service the same one goes on.
        batches: Numbers of the batches to ask; None for all that are still secret.
        labels: Table of the model's labels and the owner's; None where they are numbered alike.
        first_seen: When the model was first seen, ISO 8601; goes into the record.
        told: Called with a sentence on each kind of answer that is no proper one.

    Returns:
        The record.

    Raises:
        TaggantError: If an argument is wrong, or the suspect cannot be asked.
        Unavailable: If a service is away; the same call goes on.
    """
    folder_of_keys = given_path(keys, "keys")
    drawn = KeySet.load(folder_of_keys)
    ledger = Ledger(folder_of_keys, drawn.commitment)
    chosen = choose_batches(drawn, ledger, batches)
    table = LabelTable.same(drawn.num_classes) if labels is None else LabelTable.load(labels, drawn.num_classes)
    folder = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-detect" if out is None else given_path(out, "out")
    if (folder / "detection.json").exists():
        raise TaggantError(f"out={folder} holds a verdict already; name a new folder")
    asked = suspect_of(suspect)
    if first_seen is not None:
        date(first_seen, "first-seen")
    use = OpenUse(
        ledger,
        name or asked.name,
        chosen,
        asked.way,
        labels=None if labels is None else digest_of(labels),
        settings=asked.settings(),
        identity=asked.identity(),
    )
    use.resume(folder)
    said = asked.ask(Task(drawn, folder_of_keys, chosen, table, use, folder))
    detection = conclude(said.answers, drawn, chosen, use, {"first_seen": first_seen, **said.origin}, folder)
    if told is not None:
        for note in said.notes:
            told(note)
    return detection
