"""What `taggant report` reads: records, answers, audits, calibrations, each checked before anything is written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taggant_lightning.commands.answers import Answers, read_answers
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.moments import date
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import read_json, sha256_file
from taggant_lightning.methods.base import find
from taggant_lightning.outside.documents import parse_json, read_bounded
from taggant_lightning.outside.fields import each, fields, number, text
from taggant_lightning.reporting.sentences import test_of
from taggant_lightning.statistics.tests import SignificanceTest, paid

VALIDITIES = ("exact", "conservative", "empirical")
_ROWS = each(fields({"p": number(0, 1), "name": text(200), "kind": text(200)}, more=text(200)), 10_000)
SECRET = Path("secret") / "detection.secret.json"


@dataclass(frozen=True)
class Record:
    """A record as it was read.

    Attributes:
        path: Of detection.json.
        sha256: Of the file.
        detection: Its content; its number follows from its hits.
        answers: The model's rankings in key order, None for a refusal; None where they are not at hand.
        ranks: Ranks of the key labels; None where they are not at hand.
    """

    path: Path
    sha256: str
    detection: Detection
    answers: list[list[int | None] | None] | None
    ranks: list[int] | None

    @property
    def unsupported(self) -> str | None:
        """What the record's number rests on that nothing at hand supports; None where it was computed from the ranks."""
        if self.ranks is not None:
            return None
        return f"without the answers {test_of(self.detection).words().unsupported}, and cannot be computed again"

    @property
    def name(self) -> str:
        """What the owner called the model, or else the run directory."""
        return str(self.detection.provenance.get("suspect") or self.path.resolve().parent.name)


def read_records(paths: list[str]) -> list[Record]:
    """Read records and what lies in the secret folders beside them.

    Args:
        paths: Each a detection.json, or the run directory that holds one.

    Raises:
        TaggantError: If one is missing, damaged, given twice, or does not follow from its own hits; or if they belong to
            different commitments.
    """
    records = [_record(Path(path) / "detection.json" if Path(path).is_dir() else Path(path)) for path in paths]
    first, seen = records[0], set[str]()
    for record in records:
        if record.detection.commitment != first.detection.commitment:
            raise TaggantError(
                f"detection={record.path} belongs to the commitment {record.detection.commitment} and {first.path} to "
                f"{first.detection.commitment}; make a page for each"
            )
        if record.sha256 in seen:
            raise TaggantError(f"detection={record.path} is given twice; name each record once")
        seen.add(record.sha256)
    return records


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """Read a JSON object that a person named.

    Raises:
        TaggantError: If it is no file, cannot be read, or is damaged.
    """
    if not Path(path).is_file():
        raise TaggantError(f"{what}={path} is no file; check the path")
    try:
        return read_json(Path(path), what=what)
    except OSError as error:
        raise TaggantError(f"{what}={path} cannot be read ({error.strerror}); check its permissions") from None


def read_audit(path: str) -> dict[str, Any]:
    """Read from a release's audit what may be public: how much signed images differ, never how many or which there are.

    Returns:
        bound and max_step in 8-bit steps, psnr, ssim and lpips as means over signed images; None for what was not measured.

    Raises:
        TaggantError: If the file is no audit.
    """
    stored = read_object(path, "audit")
    seen = stored.get("visibility")
    if not isinstance(seen, dict) or "max_step" not in stored:
        raise TaggantError(f"audit={path} is no audit of a release; name the audit.json in the Signature's folder")
    found = {
        "bound": stored.get("bound"),
        "max_step": stored["max_step"],
        "psnr": seen.get("psnr_mean"),
        "ssim": seen.get("ssim_mean"),
        "lpips": seen.get("lpips_mean"),
    }
    for name, value in found.items():
        if value is not None and not _number(value):
            raise TaggantError(f"audit={path}: {name}={value!r} is no number; make the audit again with `taggant release`")
    return found


def read_calibration(path: str, tested: Detection) -> list[dict[str, Any]]:
    """Read the controls of one test from what `benchmarks/calibration.py` wrote.

    Args:
        path: results.json of experiments/calibration.
        tested: A record; controls of other tests than its own are left out.

    Returns:
        Rows with name, kind (`real`, `odd` or `mistake`), test, p and expected.

    Raises:
        TaggantError: If the file is something else.
    """
    wanted = "the results.json that benchmarks/calibration.py wrote"
    own = test_of(tested).words().column
    try:
        stored = parse_json(read_bounded(Path(path)))
    except OSError as error:
        raise TaggantError(f"calibration={path} cannot be read ({error.strerror}); name {wanted}") from None
    except ValueError as error:
        raise TaggantError(f"calibration={path} is damaged ({error}); name {wanted}") from None
    try:
        rows = [
            {"name": name, "kind": kind, "test": own, "p": float(found[own]), "expected": "not small"}
            for kind, models in stored["controls"].items()
            for name, found in models.items()
        ]
        rows += [
            {"name": name, "kind": "mistake", "test": own, "p": float(found["mutant"]), "expected": "below 0.001"}
            for name, found in stored["mutants"].items()
            if found["test"] == own
        ]
        _ROWS(rows, "controls")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise TaggantError(f"calibration={path} holds something else than controls and mutants; name {wanted}") from None
    return rows


def _record(path: Path) -> Record:
    if not path.is_file():
        raise TaggantError(f"detection={path} is no file; name a detection.json or the run directory that holds one")
    try:
        detection = Detection.load(path)
    except OSError as error:
        raise TaggantError(f"detection={path} cannot be read ({error.strerror}); check its permissions") from None
    _check(path, detection, None)
    secret = path.parent / SECRET
    stored = read_answers(secret) if secret.exists() else Answers(None, None, {})
    same = [stored.record.get(name) == getattr(detection, name) for name in ("commitment", "log10_p", "details")]
    if stored.record and not all(same):
        raise TaggantError(f"answers={secret} do not belong to {path}; put back the file that was written with it")
    answers, ranks = stored.answers, stored.ranks
    for what, found in (("answers", answers), ("ranks", ranks)):
        if found is not None and len(found) != detection.details["num_keys"]:
            raise TaggantError(f"answers={secret} are damaged: {what} must be a list, one for each key; restore a copy")
    if ranks is not None:
        _check(path, detection, ranks)
    return Record(path, sha256_file(path), detection, answers, ranks)


def _check(path: Path, record: Detection, ranks: list[int] | None) -> None:
    """Refuse a record that a page cannot show, or whose number is not that of its hits, or of its known ranks."""
    try:
        find(record.method)
    except TaggantError as error:
        raise TaggantError(f"detection={path}: {error}") from None
    try:
        d, provenance = record.details, record.provenance
        whole = isinstance(provenance, dict) and record.validity in VALIDITIES and _number(record.log10_p)
        whole = whole and len(bytes.fromhex(record.commitment)) == 32
        whole = whole and bool(d["batches"]) and all(type(batch) is int for batch in d["batches"])
        test = test_of(record)
        test.check_drawable(d["num_keys"])
        number = _recomputed(d, test, ranks)
        whole = whole and isinstance(provenance.get("ledger") or {}, dict)
        if provenance.get("first_seen") is not None:
            date(str(provenance["first_seen"]), "first_seen")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, TaggantError) as error:
        raise TaggantError(f"detection={path} is damaged ({error}); restore it from a copy") from None
    if not whole:
        raise TaggantError(f"detection={path} is damaged: a number, the commitment or the validity is invalid; restore a copy")
    if not math.isclose(number, record.log10_p, rel_tol=1e-9, abs_tol=1e-8):
        raise TaggantError(
            f"detection={path} says log10_p={record.log10_p}, and from its own hits it is {number:.4f}; the record was changed"
        )


def _recomputed(d: dict[str, Any], test: SignificanceTest, ranks: Sequence[int] | None) -> float:
    """Return log10 p from a record's own figures; from the ranks where they are at hand.

    A sequential test's number follows from nothing else than the ranks. Without them its own largest stake is taken, which
    must be one that its hits and misses can reach.

    Args:
        d: The record's details.
        test: Its test.
        ranks: Ranks of the key labels where they are at hand.

    Raises:
        ValueError: If figures contradict each other.
    """
    num_keys, ways = d["num_keys"], d.get("choices", 1)
    if not math.isclose(test.rate, d["rate"]) or d["top_k"] != test.top_k:
        raise ValueError(f"top_k={d['top_k']} and rate={d['rate']} are not those of the test")
    whole = d.get("keys_in_batches", num_keys) >= num_keys
    if not 0 <= d["hits"] <= num_keys or num_keys < 1 or not whole or type(ways) is not int or ways < 1:
        raise ValueError(f"hits={d['hits']}, num_keys={num_keys} and choices={ways} contradict each other")
    if ranks is None:
        return paid(test.recompute(d), ways)
    outcome = test.evaluate(np.asarray(ranks, dtype=np.int64))
    for name, value in outcome.details.items():
        if name in d and not math.isclose(value, d[name], rel_tol=1e-9, abs_tol=1e-9):
            raise ValueError(f"{name}={d[name]}, and the ranks beside the record give {value}")
    return paid(outcome.log10_p, ways)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
