"""Reads what W&B keeps of an offline run: a log in LevelDB's format, of protocol buffers."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK, PIECE = 7, 32768, 7


def records(path: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), HEADER, b""
    while place + PIECE <= len(data):
        if BLOCK - place % BLOCK < PIECE:  # a block's end too short for another piece
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + PIECE : place + PIECE + length]
        place += PIECE + length
        if kind in (1, 4):  # all of a record, or its last piece
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def read(path: Path) -> dict[str, Any]:
    """Return a run's id, group and tags, its config (nested), and its history: a dictionary a row.

    W&B writes in a process of its own, which a busy machine can hold up: an empty file is looked at again for a while.
    """
    deadline = time.monotonic() + 30
    while (found := _read(path))["id"] is None and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"id": None, "group": "", "tags": [], "config": {}, "history": []}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["id"], found["group"], found["tags"] = record.run.run_id, record.run.run_group, list(record.run.tags)
            _set(found["config"], record.run.config.update)
        elif kind == "config":
            _set(found["config"], record.config.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _set(row, record.history.item)
            found["history"].append(row)
    return found


def _set(values: dict[str, Any], items: Any) -> None:
    for item in items:
        values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
