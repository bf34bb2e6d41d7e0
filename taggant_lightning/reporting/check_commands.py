"""The exact commands with which a reader checks an evidence page."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from taggant_lightning.evidence.record import Detection


def check_commands(records: Sequence[tuple[str, Detection]], dates: Mapping[str, str | None]) -> list[str]:
    """Return a command for each record that verifies the claim from revealed batches, and one for the release's files.

    Args:
        records: Path and content of each detection.json; the commands name files as they are handed over.
        dates: By the option of `keys verify`; a word in capitals stands for what was not given.
    """
    commands = []
    for path, record in records:
        reveals = [word for batch in record.details["batches"] for word in ("--reveal", f"reveal-{batch}.json")]
        seen = str(record.provenance.get("first_seen") or "DATE")
        words = [*reveals, "--claim", Path(path).name, "--answers", "detection.secret.json", "--ledger", "ledger.jsonl"]
        given = [word for name, value in {**dates, "first-seen": seen}.items() for word in (f"--{name}", value or "DATE")]
        commands.append(on_lines(["taggant", "keys", "verify", *words, "--manifest", "manifest.json", *given]))
    return [*dict.fromkeys(commands), "sha256sum --check SHA256SUMS   # in the release's folder: every published file"]


def on_lines(words: Sequence[str]) -> str:
    """Return a command as a shell reads it, each option on a line of its own, so that no page breaks one in two."""
    return " ".join(f"\\\n    {word}" if word.startswith("--") else shlex.quote(word) for word in words)
