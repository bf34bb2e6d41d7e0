"""Which exported query is which key: a secret table in the KeySet's folder, kept from one export to the next."""

import csv
from collections.abc import Sequence
from pathlib import Path

from taggant_lightning.files import write_secret

MAP = "queries.csv"


def read_map(folder: Path) -> dict[str, int | None]:
    """Read which key each exported query is, None for a decoy; empty where nothing was exported.

    Args:
        folder: Of the KeySet.
    """
    path = folder / MAP
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["query"]: int(row["key"]) if row["key"] else None for row in csv.DictReader(file)}


def write_map(folder: Path, pairs: Sequence[tuple[str, int | None]]) -> None:
    """Add exported queries to the map; those of earlier exports stay."""
    everything = sorted({**read_map(folder), **dict(pairs)}.items())
    rows = "".join(f"{name},{'' if key is None else key}\n" for name, key in everything)
    write_secret(folder / MAP, f"query,key\n{rows}".encode())
