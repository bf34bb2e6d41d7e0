"""The evidence page: what it shows, as plain values, and its HTML.

By default everything on it is public: what is handed over here holds no key, no key label and no answer to a single key, but in
`Given.reveal`, for a batch that its owner has chosen to publish.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taggant_lightning.evidence.ledger import Use
from taggant_lightning.evidence.record import Detection
from taggant_lightning.outside import cleaned
from taggant_lightning.reporting import sentences
from taggant_lightning.reporting.check_commands import check_commands
from taggant_lightning.reporting.fresh_labels import LEVEL, Fresh
from taggant_lightning.statistics.fisher import fisher_log10_p
from taggant_lightning.statistics.multiple import holm_log10_p, twice_mean_log10_p

SHARED = "Models asked the same keys share the randomness of the labels, so their numbers are not independent."


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it.

    Attributes:
        source: A data URI.
        alt: What it shows, in words.
        file: Name of the same figure beside the page, without its ending.
    """

    source: str
    alt: str
    file: str


@dataclass(frozen=True)
class Model:
    """One tested model.

    Attributes:
        name: As the page calls it.
        file: The record's path as it was given.
        sha256: Of the record.
        detection: The record.
        use: Its entry in the ledger, or None where the ledger is not at hand or does not hold it.
        corrected_log10_p: After the corrections that could be made.
        checks: Name, mark (`holds`, `fails`, `unknown`, `note`) and a sentence of each thing that was looked at.
        words: What rests on the claimant's word all the same, each as a clause after "that".
        null: The exact null with the observed value.
        fresh: The same answers against fresh labels; None where answers are not at hand.
        fresh_figure: Its figure.
    """

    name: str
    file: str
    sha256: str
    detection: Detection
    use: int | None
    corrected_log10_p: float
    checks: Sequence[tuple[str, str, str]]
    words: Sequence[str]
    null: Shown
    fresh: Fresh | None = None
    fresh_figure: Shown | None = None


@dataclass(frozen=True)
class Given:
    """Everything that the page is made of.

    Attributes:
        models: One or more, of one commitment.
        header: Of the KeySet; None where it is not at hand, like the next four.
        uses: Of the keys, from the ledger.
        head: Hash of the ledger's last entry.
        watched: Trainings that an earlier version watched without counting its looks.
        spent: When each revealed batch was revealed.
        manifests: Name, SHA-256 and content of each release's manifest.
        published: The different commitments that they name.
        promised: Date of the promise of keys with a beacon, as given.
        beacon: Date of the beacon's value, as given.
        committed: Date of the commitment, as given.
        released: Date of the release, as given.
        timestamp: Where the commitment was published, as given.
        audit: Aggregates of the release's audit: bound, max_step, psnr, ssim, lpips.
        calibration: Rows of a calibration: name, kind, test, p, expected.
        reveal: Batch, file and keys (number, label, picture, answers) of a batch that is made public.
        all_names: Whether to name every suspect of the ledger.
        command: How the page was made.
        made_by: Version of this program.
    """

    models: Sequence[Model]
    header: dict[str, Any] | None = None
    uses: Sequence[Use] | None = None
    head: str | None = None
    watched: int = 0
    spent: dict[int, str] = field(default_factory=dict)
    manifests: Sequence[tuple[str, str, dict[str, Any]]] = ()
    published: Sequence[str] = ()
    promised: str | None = None
    beacon: str | None = None
    committed: str | None = None
    released: str | None = None
    timestamp: str | None = None
    audit: dict[str, Any] | None = None
    calibration: Sequence[dict[str, Any]] = ()
    reveal: dict[str, Any] | None = None
    all_names: bool = False
    command: str = ""
    made_by: str = ""


def page(given: Given) -> dict[str, Any]:
    """Return what the page shows: text, numbers as text, and figures.

    Args:
        given: What it is made of.

    Returns:
        A dict of plain values for the template; the same input gives the same one.
    """
    names = [model.name for model in given.models]
    return {
        "title": f"Was {names[0]} trained on the release?" if len(names) == 1 else "Which models were trained on the release?",
        "demo_only": any(m.detection.details.get("demo_only") for m in given.models),
        "meaning": sentences.meaning().replace("\n", " "),
        "models": [_model(number, model, given) for number, model in enumerate(given.models, start=1)],
        "several": len(names) > 1,
        "figure_says": sentences.test_of(given.models[0].detection).words().figure,
        "shared": SHARED,
        "combined": _combined(given.models),
        "lacking": _lacking(given),
        "commitment": _commitment(given),
        "checks": _grouped(
            ((name, mark, said), number)
            for number, model in enumerate(given.models, start=1)
            for name, mark, said in model.checks
        ),
        "words": _grouped(((word,), number) for number, model in enumerate(given.models, start=1) for word in model.words),
        "commands": check_commands([(m.file, m.detection) for m in given.models], _dates(given)),
        "ledger": _ledger(given),
        "fresh": [_fresh(model) for model in given.models if model.fresh is not None],
        "calibration": [_calibration_row(row) for row in given.calibration],
        "quality": _quality(given.audit),
        "origins": _grouped(
            ((name, value), number)
            for number, model in enumerate(given.models, start=1)
            for name, value in _flat(model.detection.provenance)
        ),
        "reveal": given.reveal,
        "records": [{"file": m.file, "sha256": m.sha256} for m in given.models],
        "command": given.command,
        "made_by": given.made_by,
    }


def render(shown: dict[str, Any]) -> str:
    """Return the HTML of what `page` returned; everything in it is escaped, and shown without effect."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["powers"] = powers
    return environment.get_template("page.html.j2").render(cleaned(shown))


def powers(text: str) -> list[tuple[str, str]]:
    """Split a text at its powers of ten, written `10^-16.2`: pairs of plain text and the exponent after it, or none."""
    parts = re.split(r"(?<=10)\^(-?[0-9]+(?:\.[0-9]+)?)", text)
    return [(plain, exponent.replace("-", "−")) for plain, exponent in zip(parts[::2], [*parts[1::2], ""], strict=True)]


def two_decimals(log10_p: float) -> str:
    """Return a log10 p with two decimals, as `taggant detect` and `taggant keys verify` print it; never −0.00."""
    return f"{round(log10_p, 2) + 0.0:.2f}"


def _model(number: int, model: Model, given: Given) -> dict[str, Any]:
    d = model.detection.details
    corrected = model.corrected_log10_p if model.use is not None or len(given.published) > 1 else None
    return {
        "number": number,
        "name": model.name,
        "finding": sentences.finding(model.name, model.detection),
        "p": sentences.upper_bound(model.detection.log10_p),
        "corrected": None if corrected is None else sentences.upper_bound(corrected),
        "correction": _correction(model, given),
        "strength": "No verdict."
        if sentences.one_answer(model.detection)
        else sentences.strength(model.detection.log10_p if corrected is None else corrected),
        "failing": ", ".join(
            name for name, mark, _ in model.checks if mark == "fails" and name not in ("significance", "secret")
        ),
        "shortcomings": sentences.shortcomings(model.detection),
        "access": model.detection.provenance.get("access", "not told"),
        "test": sentences.test_of(model.detection).words().summary,
        "hits": f"{d['hits']} of {d['num_keys']}",
        "score": f"{d['score']:,}" if "score" in d else None,
        "log10_p": two_decimals(model.detection.log10_p),
        "corrected_log10_p": None if corrected is None else two_decimals(corrected),
        "validity": model.detection.validity,
        "batches": ", ".join(map(str, d["batches"])),
        "null": model.null,
    }


def _correction(model: Model, given: Given) -> str:
    """Say what a corrected number is corrected for."""
    several = f"{len(given.published)} commitments published for this dataset" if len(given.published) > 1 else None
    parts: list[str] = []
    lack: str | None = None
    if given.uses is None:
        lack = "the ledger is not at hand: other uses of the keys are unknown"
    elif model.use is None:
        lack = "the ledger does not hold this record: other uses are not corrected for"
    else:
        count = len(given.uses)
        parts.append(f"{count} use{'' if count == 1 else 's'} of these keys (Holm)")
    parts += [several] if several else []
    said = f"corrected for {' and '.join(parts)}" if parts else ""
    return "; ".join(part for part in (said, lack) if part)


def _combined(models: Sequence[Model]) -> dict[str, Any] | None:
    """Combine several models' numbers: Fisher's as a summary, twice the mean as a p-value."""
    if len(models) < 2:
        return None
    values = [model.detection.log10_p for model in models]
    batches = [model.detection.details["batches"] for model in models]
    fisher, mean = fisher_log10_p(values), twice_mean_log10_p(values)
    return {
        "shared_keys": len({batch for some in batches for batch in some}) < sum(map(len, batches)),
        "fisher": sentences.upper_bound(fisher),
        "fisher_log10_p": two_decimals(fisher),
        "mean": sentences.upper_bound(mean),
        "mean_log10_p": two_decimals(mean),
    }


def _lacking(given: Given) -> list[str]:
    """Say what would make the page stronger and was not given."""
    lines = []
    if given.header is None:
        lines.append(
            "It was made from public records alone. Keys and ledger were not at hand: nothing was checked against the keys, "
            "and other uses of them are unknown."
        )
    if not given.manifests:
        lines.append("No manifest of a release: that the release names this commitment, and no other, is not shown.")
    if given.committed is None or given.released is None:
        lines.append("No dates of the commitment and the release: that the keys were fixed before the release is not shown.")
    without = [m.name for m in given.models if not m.detection.provenance.get("first_seen")]
    if without:
        lines.append(f"When the model was first seen is not told ({', '.join(without)}).")
    return lines


def _commitment(given: Given) -> dict[str, Any]:
    first = given.models[0].detection
    header = given.header or {}
    d = first.details
    facts = [
        ("dataset", header.get("statement") or None),
        ("test", sentences.test_of(first).words().summary),
        ("test, in the header", ", ".join(f"{name} = {value}" for name, value in d["test"].items())),
        ("keys", header.get("num_keys")),
        ("classes", d["num_classes"]),
        ("chance of one hit", f"{d['top_k']} of {d['num_classes']} = {d['rate']:g}" if "score" not in d else None),
        ("batches, in keys", ", ".join(map(str, header["batches"])) if header else None),
        ("image shape", " × ".join(map(str, header["shape"])) if header else None),
        ("key images from", ", ".join(f"{n}: {v}" for n, v in header["derivation"].items()) if header else None),
        ("published", given.committed),
        ("where, and how to check it", given.timestamp),
        ("dataset released", given.released),
    ]
    count = len(header["batches"]) if header else 0
    return {
        "hex": first.commitment,
        "facts": [(name, str(value)) for name, value in facts if value is not None],
        "batches": [(batch, _time(given.spent.get(batch, ""))) for batch in range(count)],
        "secret": ", ".join(str(batch) for batch in range(count) if batch not in given.spent),
        "manifests": [_manifest(name, digest, content) for name, digest, content in given.manifests],
        "published": list(given.published),
        "named": first.commitment in given.published,
    }


def _time(text: str) -> str:
    """Return a time of the ledger, which is ISO 8601 in UTC, as people write it."""
    return text.replace("T", " ").replace("+00:00", " UTC")


def _manifest(name: str, digest: str, content: dict[str, Any]) -> dict[str, str]:
    said = {key: str(content.get(key) or "none") for key in ("statement", "hashes")}
    return {"name": name, "sha256": digest, **said}


def _ledger(given: Given) -> dict[str, Any] | None:
    if given.uses is None:
        return None
    named = {model.use: model.name for model in given.models if model.use is not None}
    adjusted = holm_log10_p([use.log10_p for use in given.uses])
    return {
        "rows": [
            {
                "time": _time(use.time),
                "suspect": named.get(use.number, use.suspect if given.all_names else "another model"),
                "batches": ", ".join(map(str, use.batches)),
                "log10_p": two_decimals(use.log10_p) if use.finished else "a look" if use.look else "not finished",
                "adjusted": two_decimals(value),
                "here": use.number in named,
            }
            for use, value in zip(given.uses, adjusted, strict=True)
        ],
        "head": given.head,
        "watched": given.watched,
    }


def _fresh(model: Model) -> dict[str, Any]:
    fresh = model.fresh
    if fresh is None:
        return {}
    said = (
        f"The answers of {model.name} were scored against {len(fresh.values):,} fresh draws of labels. "
        f"{100 * fresh.share:.1f} % of the draws reach p ≤ {LEVEL:g}; the exact null says {100 * fresh.exact:.1f} %."
    )
    if fresh.fit is not None:
        verdict = "the draws follow the exact null" if fresh.fit >= 1e-3 else "the draws do NOT follow the exact null"
        said += f" Goodness of fit: p = {fresh.fit:.2g}; {verdict}."
    elif fresh.incomplete:
        said += f" {fresh.incomplete} answers are incomplete, so that the null is only an upper bound on hits."
    return {"said": said, "figure": model.fresh_figure}


def _dates(given: "Given") -> dict[str, str | None]:
    """Return the dates that `keys verify` wants; those of a beacon only where the keys have one."""
    beacon = {"promised": given.promised, "beacon": given.beacon} if (given.header or {}).get("beacon") else {}
    return {**beacon, "committed": given.committed, "released": given.released}


def _calibration_row(row: dict[str, Any]) -> dict[str, str]:
    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)

    return {name: text(row.get(name)) for name in ("name", "kind", "test", "p", "expected")}


def _quality(audit: dict[str, Any] | None) -> dict[str, Any] | None:
    if audit is None:
        return None
    psnr, step = audit.get("psnr"), audit.get("max_step")
    facts = [
        ("bound", f"{audit['bound']}/255" if audit.get("bound") is not None else "none declared"),
        ("largest step, read back from the files", f"{step}/255" if step is not None else None),
        ("PSNR, mean", f"{psnr:.1f} dB" if psnr is not None else None),
        ("SSIM, mean", f"{audit['ssim']:.4f}" if audit.get("ssim") is not None else None),
        ("LPIPS, mean", f"{audit['lpips']:.4f}" if audit.get("lpips") is not None else None),
    ]
    told = None if psnr is None or step is None else sentences.visibility(int(step), float(psnr))
    return {"facts": [fact for fact in facts if fact[1] is not None], "said": told}


def _flat(value: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Return names and texts of a nested record, leaving out what is not known; the ledger has a section of its own."""
    found: list[tuple[str, str]] = []
    for name, content in value.items():
        if not before and name == "ledger":
            found += [("ledger entry", str(content.get("entry"))), ("ledger head then", str(content.get("head")))]
        elif name == "versions":
            found.append((name, ", ".join(f"{package} {version}" for package, version in content.items())))
        elif isinstance(content, dict):
            found += _flat(content, f"{before}{name} ")
        elif content is not None:
            found.append((f"{before}{name}".replace("_", " "), str(content)))
    return found


def _grouped(rows: Iterable[tuple[tuple[str, ...], int]]) -> list[dict[str, Any]]:
    """Put equal rows of several models into one, with the numbers of the models, names kept together in order of appearance."""
    models: dict[tuple[str, ...], list[int]] = {}
    for row, number in rows:
        models.setdefault(row, []).append(number)
    names = list(dict.fromkeys(row[0] for row in models))
    ordered = sorted(models.items(), key=lambda item: names.index(item[0][0]))
    return [{"cells": row, "models": ", ".join(map(str, numbers))} for row, numbers in ordered]
