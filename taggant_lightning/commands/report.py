"""`taggant report`: one self-contained page on detections, for a judge, a reviewer or a lawyer to read and print."""

import argparse
import base64
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taggant_lightning.commands.report_inputs import Record, read_audit, read_calibration, read_object, read_records
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, revealed, uses
from taggant_lightning.evidence.moments import date
from taggant_lightning.files import given_paths, sha256_file, write_atomic, write_json
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.reveal import Revealed, reveal
from taggant_lightning.outside import say
from taggant_lightning.verdict.claim_history import published
from taggant_lightning.verdict.claims import verify_claim
from taggant_lightning.verdict.findings import Evidence, Finding

if TYPE_CHECKING:
    from taggant_lightning.reporting.evidence_figures import Picture
    from taggant_lightning.reporting.fresh_labels import Fresh
    from taggant_lightning.reporting.page import Model, Shown

PAGE = "report.html"
ANSWERS_SHOWN = 5  # first answers to a revealed key


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taggant report",
        description=__doc__,
        epilog="The page is public: it holds no key, no key label and no answer to a single key, except for a batch that "
        "--reveal publishes. Answers in secret/ beside a detection are scored against fresh labels; a distribution is told.",
    )
    parser.add_argument("detections", nargs="+", metavar="DETECTION", help="detection.json files (or their run directories)")
    parser.add_argument("--out", required=True, metavar="DIR", help="new folder for the page and its figures")
    parser.add_argument("--keys", metavar="DIR", help="folder of the KeySet: header, ledger, batches; its owner has it")
    parser.add_argument("--names", action="store_true", help="name all suspects of the ledger, not only those of this page")
    parser.add_argument(
        "--reveal",
        type=int,
        metavar="BATCH",
        help="publish this batch of keys, for good: it supports no claim against later models",
    )
    public = parser.add_argument_group("what is public already")
    public.add_argument("--manifest", action="append", metavar="FILE", help="manifest.json of a release; repeat for each")
    public.add_argument("--promised", metavar="DATE", help="with a beacon: when the promise was published")
    public.add_argument("--beacon", metavar="DATE", help="with a beacon: when its value was published")
    public.add_argument("--committed", metavar="DATE", help="when the commitment was published, by a public timestamp")
    public.add_argument("--released", metavar="DATE", help="when the release was published")
    public.add_argument("--timestamp", metavar="TEXT", help="where the commitment was published, and how to check that")
    more = parser.add_argument_group("what else the page shows")
    more.add_argument("--audit", metavar="FILE", help="audit.json in the Signature's folder: how visible signing is, no counts")
    more.add_argument("--calibration", metavar="FILE", help="results of experiments/calibration (JSON)")
    return parser


@dataclass(frozen=True)
class Drawn:
    """The figures of one model.

    Attributes:
        null: The exact null with the observed value.
        fresh: The answers against fresh labels, where they are at hand.
        fresh_figure: Its figure.
    """

    null: "Picture"
    fresh: "Fresh | None"
    fresh_figure: "Picture | None"


def run(words: list[str]) -> None:
    """Run `taggant report`."""
    arguments = _parser().parse_args(words[1:])
    given_paths(arguments, "detections", "out", "keys", "manifest", "audit", "calibration")
    out = Path(arguments.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TaggantError(f"out={out} exists and is not empty; name a new folder")
    for name, wanted in (("reveal", arguments.reveal is not None), ("names", arguments.names)):
        if wanted and arguments.keys is None:
            raise TaggantError(f"--{name} needs the keys; write --keys DIR with the KeySet's folder")
    records = read_records(arguments.detections)
    keys = None if arguments.keys is None else _keys(arguments.keys, records)
    ledger = None if keys is None else Ledger(arguments.keys, keys.commitment)
    read = {
        "manifests": [(_short(p), sha256_file(Path(p)), c) for p, c in _manifests(arguments.manifest or [])],
        "audit": None if arguments.audit is None else read_audit(arguments.audit),
        "calibration": [] if arguments.calibration is None else read_calibration(arguments.calibration, records[0].detection),
    }
    for name in ("promised", "beacon", "committed", "released"):
        if getattr(arguments, name) is not None:
            date(getattr(arguments, name), name)
    if ledger is not None:
        ledger.entries()  # a broken chain is told before anything is drawn or revealed
    figures = [_draw(record) for record in records]
    html = _html(arguments, records, keys, ledger, read, figures, None)  # whatever is wrong shows before a batch is spent
    batch = None
    if arguments.reveal is not None and keys is not None and ledger is not None:
        if keys.header["shape"][0] not in (1, 3):
            channels = keys.header["shape"][0]
            raise TaggantError(f"reveal={arguments.reveal}: keys with {channels} channels cannot be shown; keys need 1 or 3")
        batch = reveal(keys, arguments.reveal, ledger)
        html = _html(arguments, records, keys, ledger, read, figures, batch)
    _write(out, html, figures, batch)
    say(f"taggant: page={out / PAGE}")


def _keys(folder: str, records: Sequence[Record]) -> KeySet:
    keys = KeySet.load(folder)
    if keys.commitment != records[0].detection.commitment:
        raise TaggantError(
            f"keys={folder} have the commitment {keys.commitment}, and {records[0].path} belongs to "
            f"{records[0].detection.commitment}; name the KeySet that was asked"
        )
    return keys


def _manifests(paths: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, read_object(path, "manifest")) for path in paths]


def _draw(record: Record) -> Drawn:
    from taggant_lightning.reporting.evidence_figures import fresh_figure, null_figure
    from taggant_lightning.reporting.fresh_labels import fresh_labels
    from taggant_lightning.reporting.sentences import test_of

    test, fresh = test_of(record.detection), None
    if record.answers is not None:
        try:
            fresh = fresh_labels(record.answers, test, test.num_classes)
        except (ValueError, IndexError, TypeError) as error:
            raise TaggantError(f"answers beside {record.path} are damaged ({error}); restore the file from a copy") from None
    return Drawn(null_figure(record.detection), fresh, None if fresh is None else fresh_figure(fresh, test))


def _html(
    arguments: argparse.Namespace,
    records: Sequence[Record],
    keys: KeySet | None,
    ledger: Ledger | None,
    read: dict[str, Any],
    figures: Sequence[Drawn],
    batch: dict[str, Any] | None,
) -> str:
    from taggant_lightning import __version__
    from taggant_lightning.reporting.page import Given, page, render

    entries = [] if ledger is None else ledger.entries()
    documents = [content for _, _, content in read["manifests"]]
    models = [
        _model(number, record, drawn, arguments, keys, entries, documents)
        for number, (record, drawn) in enumerate(zip(records, figures, strict=True), start=1)
    ]
    given = Given(
        models=models,
        header=None if keys is None else keys.header,
        uses=None if keys is None else uses(entries),
        head=None if keys is None else str(entries[-1]["hash"] if entries else keys.commitment),
        watched=sum(entry["kind"] == "curve" for entry in entries),
        spent=revealed(entries),
        published=published(documents),
        promised=arguments.promised,
        beacon=arguments.beacon,
        committed=arguments.committed,
        released=arguments.released,
        timestamp=arguments.timestamp,
        reveal=None if keys is None or batch is None else _shown_batch(batch, keys, records),
        all_names=arguments.names,
        command=_command(arguments),
        made_by=__version__,
        **read,
    )
    return render(page(given))


def _model(
    number: int,
    record: Record,
    drawn: Drawn,
    arguments: argparse.Namespace,
    keys: KeySet | None,
    entries: Sequence[dict[str, Any]],
    manifests: Sequence[dict[str, Any]],
) -> "Model":
    from taggant_lightning.reporting.page import Model

    findings = [] if record.unsupported is None else [Finding("number", None, record.unsupported)]
    use = None
    corrected = min(0.0, record.detection.log10_p + math.log10(max(1, len(published(manifests)))))
    if keys is not None:
        seen = record.detection.provenance.get("first_seen")
        evidence = Evidence(
            answers=record.answers,
            claim_sha256=record.sha256,
            manifests=manifests,
            promised=None if arguments.promised is None else date(arguments.promised, "promised"),
            beacon=None if arguments.beacon is None else date(arguments.beacon, "beacon"),
            committed=None if arguments.committed is None else date(arguments.committed, "committed"),
            released=None if arguments.released is None else date(arguments.released, "released"),
            first_seen=None if seen is None else date(str(seen), "first-seen"),
            ledger=entries,
        )
        verification = verify_claim(record.detection, Revealed.of(keys), evidence)
        findings, corrected = verification.findings, verification.corrected_log10_p
        if any(finding.name == "ledger" and finding.holds for finding in findings):
            use = int(record.detection.provenance["ledger"]["entry"])
    return Model(
        name=record.name,
        file=_short(str(record.path)),
        sha256=record.sha256,
        detection=record.detection,
        use=use,
        corrected_log10_p=corrected,
        checks=[(finding.name, finding.mark, finding.sentence) for finding in findings],
        words=[word for finding in findings for word in finding.word],
        null=_inline(drawn.null, f"null-{number}"),
        fresh=drawn.fresh,
        fresh_figure=None if drawn.fresh_figure is None else _inline(drawn.fresh_figure, f"fresh-{number}"),
    )


def _inline(picture: "Picture", file: str) -> "Shown":
    from taggant_lightning.reporting.page import Shown

    return Shown(_uri("image/svg+xml", picture.svg), picture.alt, file)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _shown_batch(batch: dict[str, Any], keys: KeySet, records: Sequence[Record]) -> dict[str, Any]:
    """Return the keys of a batch that is being published, with what each model answered."""
    from taggant_lightning.access.png import png

    shown = []
    for number in keys.numbers([batch["batch"]]):
        answers = [text for record in records if (text := _answer(record, keys, number)) is not None]
        picture = _uri("image/png", png(keys.images[number]))
        shown.append({"number": number, "label": int(keys.labels[number]), "picture": picture, "answers": answers})
    return {"batch": batch["batch"], "file": f"reveal-{batch['batch']}.json", "keys": shown}


def _answer(record: Record, keys: KeySet, number: int) -> str | None:
    """Say what a model answered to a key; None where that is not at hand or it was not asked."""
    asked = keys.numbers(record.detection.details["batches"])[: record.detection.details["num_keys"]]
    if number not in asked:
        return None
    place = asked.index(number)
    if record.answers is not None:
        answer = record.answers[place]
        if answer is None:
            return f"{record.name}: refused"
        labels = ", ".join("–" if label is None else str(label) for label in answer[:ANSWERS_SHOWN])
        rank = answer.index(label) + 1 if (label := int(keys.labels[number])) in answer else None
        told = "label not named" if rank is None else f"label at rank {rank}"
        return f"{record.name}: {told} ({labels}{' …' if len(answer) > ANSWERS_SHOWN else ''})"
    if record.ranks is not None:
        rank = record.ranks[place]
        return f"{record.name}: " + (f"label at rank {rank}" if rank <= keys.num_classes else "label not named")
    return None


def _command(arguments: argparse.Namespace) -> str:
    """Return the command that made the page; where secret folders lie is nobody's business."""
    from taggant_lightning.reporting.check_commands import on_lines

    words = ["taggant", "report", *(_short(path) for path in arguments.detections), "--out", "PAGE"]
    words += ["--keys", "KEYS"] if arguments.keys is not None else []
    words += ["--names"] if arguments.names else []
    words += ["--reveal", str(arguments.reveal)] if arguments.reveal is not None else []
    words += [word for path in arguments.manifest or [] for word in ("--manifest", _short(path))]
    for name in ("promised", "beacon", "committed", "released", "timestamp"):
        words += [f"--{name}", getattr(arguments, name)] if getattr(arguments, name) is not None else []
    words += ["--audit", "AUDIT"] if arguments.audit is not None else []
    words += ["--calibration", _short(arguments.calibration)] if arguments.calibration is not None else []
    return on_lines(words)


def _short(path: str) -> str:
    """Return a file with its folder: enough to find it, without the owner's directories."""
    return "/".join(Path(path).resolve().parts[-2:])


def _write(out: Path, html: str, figures: Sequence[Drawn], batch: dict[str, Any] | None) -> None:
    """Write everything into a folder beside, and move it into place as a whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    try:
        folder.chmod(0o755)
        for number, drawn in enumerate(figures, start=1):
            for name, picture in (("null", drawn.null), ("fresh", drawn.fresh_figure)):
                if picture is not None:
                    write_atomic(folder / f"{name}-{number}.svg", picture.svg)
                    write_atomic(folder / f"{name}-{number}.png", picture.png)
        if batch is not None:
            write_json(folder / f"reveal-{batch['batch']}.json", batch)
        write_atomic(folder / PAGE, html.encode())
        folder.replace(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
