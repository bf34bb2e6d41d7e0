"""The ledger beside a KeySet: every use of the keys, in a file that is only ever appended to.

Each entry carries the hash of the one before it, so that no entry can be changed or taken out without breaking what follows.
A tail that is cut off shows only against a hash that is known elsewhere; every Detection therefore carries the head.
"""

import fcntl
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger_fields import BYTES, check_entry
from taggant_lightning.files import canonical_json, given_path, sha256_hex
from taggant_lightning.outside.documents import parse_json, read_bounded

FILE = "ledger.jsonl"
# `use` asks a suspect, `result` is what came of it, `look` shows hits of a checkpoint without a verdict, `reveal` makes a batch
# public. `curve` is what earlier versions entered for all looks of a training together.
KINDS = ("use", "result", "look", "reveal", "curve")


@dataclass(frozen=True)
class Use:
    """One use of the keys against a model.

    Attributes:
        number: Of its entry, from 0.
        time: When it began, ISO 8601, UTC.
        suspect: Name the owner gave the model.
        batches: Batches that were asked.
        log10_p: What came of it; 0 where the use never came to an end, so that leaving off hides nothing.
        finished: Whether it came to an end.
        look: Whether hits were only shown; a look never comes to an end, and is counted as any use is.
    """

    number: int
    time: str
    suspect: str
    batches: tuple[int, ...]
    log10_p: float
    finished: bool
    look: bool = False


class Ledger:
    """The ledger of one KeySet.

    Args:
        folder: The KeySet's folder; the file is made at the first entry, mode 0600.
        commitment: The KeySet's commitment, which the first entry is chained to.
    """

    def __init__(self, folder: str | Path, commitment: str) -> None:
        self.path, self.commitment = given_path(folder, "keys") / FILE, commitment

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries.

        Raises:
            TaggantError: If the file is damaged or the chain of hashes is broken.
        """
        if not self.path.exists():
            return []
        return read_entries(self.path, self.commitment)

    def append(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Append an entry; several processes may do so at once.

        Args:
            kind: One of `KINDS`.
            facts: JSON values.

        Returns:
            The entry, with its number, time and hash.

        Raises:
            TaggantError: If the ledger is damaged or cannot be written.
        """
        with self._locked() as file:
            entries = read_entries(self.path, self.commitment)
            file.truncate(self.path.read_bytes().rfind(b"\n") + 1)  # what a kill has left of an entry never began
            entry = {"number": len(entries), "time": datetime.now(UTC).isoformat(timespec="seconds"), "kind": kind, **facts}
            entry["previous"] = entries[-1]["hash"] if entries else self.commitment
            entry["hash"] = sha256_hex(canonical_json(entry))
            try:
                check_entry(entry)  # what nobody could read again is not written
            except ValueError as error:
                raise TaggantError(f"ledger={self.path}: {error}; write a shorter name") from None
            file.write(canonical_json(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return entry

    @contextmanager
    def _locked(self) -> Iterator[Any]:
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise TaggantError(
                f"ledger={self.path} cannot be written ({error.strerror}); every use of the keys is recorded beside them, so "
                "their folder must be writable"
            ) from None
        with os.fdopen(handle, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def read_entries(path: Path, commitment: str) -> list[dict[str, Any]]:
    """Read a ledger and check its chain.

    Raises:
        TaggantError: If an entry is damaged, was changed, or is missing.
    """
    entries: list[dict[str, Any]] = []
    previous = commitment
    try:
        content = read_bounded(path, BYTES)
    except (OSError, ValueError) as error:
        raise TaggantError(f"ledger={path} cannot be read ({error}); name the ledger.jsonl of the KeySet's folder") from None
    lines = content.split(b"\n")[:-1]  # a last line without its end was being written when the program was killed
    for number, line in enumerate(lines):
        try:
            entry = parse_json(line)
            check_entry(entry)
            body = {name: value for name, value in entry.items() if name != "hash"}
            whole = entry["hash"] == sha256_hex(canonical_json(body)) and entry["previous"] == previous
            whole = whole and entry["number"] == number and _well_formed(entry)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            whole = False
        if not whole:
            raise TaggantError(
                f"ledger={path}: entry {number} was changed, or one before it is missing, or it belongs to other keys; restore "
                "the ledger from a copy"
            )
        entries.append(entry)
        previous = entry["hash"]
    return entries


def _well_formed(entry: dict[str, Any]) -> bool:
    """Return whether an entry has what its kind needs; a KeyError or TypeError says no as well."""
    kind = entry["kind"]
    datetime.fromisoformat(entry["time"])
    if kind in ("use", "look"):
        return isinstance(entry["suspect"], str) and all(type(batch) is int for batch in entry["batches"])
    if kind == "result":
        log10_p = entry["log10_p"]
        number = isinstance(log10_p, float | int) and not isinstance(log10_p, bool) and math.isfinite(log10_p) and log10_p <= 0
        return type(entry["use"]) is int and number and isinstance(entry["detection"], str)
    if kind == "reveal":
        return type(entry["batch"]) is int
    return kind in KINDS


def uses(entries: Sequence[dict[str, Any]]) -> list[Use]:
    """Return every use of the keys against a model, looks among them, in order."""
    results: dict[int, float] = {}
    for entry in entries:
        if entry["kind"] == "result":  # of several the weakest counts, so that nothing is gained by concluding again
            results[entry["use"]] = max(results.get(entry["use"], -math.inf), float(entry["log10_p"]))
    return [
        Use(
            number=e["number"],
            time=e["time"],
            suspect=e["suspect"],
            batches=tuple(e["batches"]),
            log10_p=results.get(e["number"], 0.0),
            finished=e["number"] in results,
            look=e["kind"] == "look",
        )
        for e in entries
        if e["kind"] in ("use", "look")
    ]


def revealed(entries: Sequence[dict[str, Any]]) -> dict[int, str]:
    """Return when each revealed batch was first revealed, ISO 8601, by its number."""
    found: dict[int, str] = {}
    for entry in entries:
        if entry["kind"] == "reveal":
            found.setdefault(int(entry["batch"]), str(entry["time"]))
    return found
