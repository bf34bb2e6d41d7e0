"""`taggant keys verify`: what a third party does with a revealed secret, revealed batches, or a claim."""

import argparse
from pathlib import Path
from typing import Any

from taggant_lightning.commands.answers import read_answers
from taggant_lightning.commands.asking_again import ask_again
from taggant_lightning.commands.given import read_secret, source_of
from taggant_lightning.errors import TaggantError, Unasked
from taggant_lightning.evidence.ledger import FILE, read_entries
from taggant_lightning.evidence.moments import date
from taggant_lightning.evidence.record import Detection
from taggant_lightning.files import read_json, sha256_file
from taggant_lightning.methods.taggants.header import check_header
from taggant_lightning.methods.taggants.keys import KeySet, redraw
from taggant_lightning.methods.taggants.reveal import Revealed, read_reveals
from taggant_lightning.outside import say
from taggant_lightning.verdict.claims import verify_claim
from taggant_lightning.verdict.findings import Evidence, Verification


def verify(arguments: argparse.Namespace) -> None:
    """Run `taggant keys verify`.

    Raises:
        TaggantError: If something does not follow from the secret or lead to the commitment, or a claim does not hold.
    """
    given = [arguments.directory is not None, arguments.secret_file is not None, bool(arguments.reveal)]
    if sum(given) != 1:
        raise TaggantError("name a KeySet's folder, or --secret-file with --header and --commitment, or --reveal")
    if arguments.reveal:
        revealed, said = _revealed(arguments)
    else:
        keys, said = _whole(arguments)
        revealed = Revealed.of(keys)
    said.append(f"commitment {revealed.commitment}")
    if arguments.claim is None:
        for line in said:
            say(line)
        return
    _claim(arguments, revealed, said, source_checked=arguments.source is not None and not arguments.reveal)


def _revealed(arguments: argparse.Namespace) -> tuple[Revealed, list[str]]:
    """Read revealed batches, and say what was checked of them."""
    revealed = read_reveals(arguments.reveal)
    if arguments.commitment and arguments.commitment.lower() != revealed.commitment:
        raise TaggantError(f"the revealed keys have the commitment {revealed.commitment} and not {arguments.commitment}")
    noise = revealed.header["derivation"]["source"] == "noise"
    what = f"{len(revealed.labels)} keys follow" if noise else f"the labels of {len(revealed.labels)} keys follow"
    said = [f"verified: {what} from the revealed secrets and lead to the commitment"]
    if not revealed.tied:
        said.append("not shown: that the batches' secrets were fixed together; format v1 ties them only in the whole secret")
    if revealed.guessable:
        said.append("these keys come from a secret that anybody can guess: no claim may rest on them")
    return revealed, said


def _whole(arguments: argparse.Namespace) -> tuple[KeySet, list[str]]:
    """Recompute a whole KeySet, and say what was checked of it."""
    keys = _from_secret(arguments) if arguments.directory is None else KeySet.load(arguments.directory)
    real = keys.header["derivation"]["source"] == "images"
    images = source_of(keys, arguments.source)
    keys.check(arguments.commitment, images)
    said = ["verified: labels follow from the secret" if real and images is None else "verified: keys follow from the secret"]
    if real and images is None:
        said.append("the images are real ones, held by the commitment alone; add --source DIR to recompute the choice")
    if arguments.commitment:
        said.append("verified: the commitment is that of these keys")
    return keys, said


def _claim(arguments: argparse.Namespace, revealed: Revealed, said: list[str], source_checked: bool) -> None:
    """Check a claim; the first line says no more than the list of what was checked."""
    claim = Detection.load(Path(arguments.claim))
    ledger = arguments.ledger
    if ledger is None and arguments.directory is not None and (Path(arguments.directory) / FILE).exists():
        ledger = Path(arguments.directory) / FILE
    if ledger is not None and not Path(ledger).is_file():
        raise TaggantError(f"ledger={ledger} is no file; name the ledger.jsonl of the KeySet's folder")
    if not 0 < arguments.level <= 1:
        raise TaggantError(f"level={arguments.level} must lie in (0, 1]; 0.001 is usual")
    asked = ask_again(arguments, claim, revealed)
    manifests = [read_json(Path(path), what="manifest") for path in arguments.manifest or ()]
    heads = [*(arguments.head or ()), *(str(m["ledger_head"]) for m in manifests if m.get("ledger_head"))]
    evidence = Evidence(
        claim_sha256=sha256_file(Path(arguments.claim)),
        source_checked=source_checked,
        asked=asked,
        answers=None if arguments.answers is None else _answers(Path(arguments.answers)),
        manifests=manifests,
        promised=None if arguments.promised is None else date(arguments.promised, "promised"),
        beacon=None if arguments.beacon is None else date(arguments.beacon, "beacon"),
        committed=None if arguments.committed is None else date(arguments.committed, "committed"),
        released=None if arguments.released is None else date(arguments.released, "released"),
        first_seen=None if arguments.first_seen is None else date(arguments.first_seen, "first-seen"),
        ledger=None if ledger is None else _entries(Path(ledger), revealed.commitment, heads),
        heads=heads,
        level=arguments.level,
    )
    found = verify_claim(claim, revealed, evidence)
    for line in (first_line(found), *said, *lines(found)):
        say(line)
    if not found.holds:
        failing = [f"{f.name} ({f.sentence})" for f in found.findings if f.holds is not True]
        raise TaggantError(f"claim={arguments.claim} does not verify: {'; '.join(failing)}")
    if not found.asked:
        raise Unasked(
            f"claim={arguments.claim}: the model was not asked, so the answers rest on the claimant's word; add --ask with "
            "--onnx, --exported, --url or --predictions of your own"
        )


def first_line(found: Verification) -> str:
    """Say what was checked, and no more than that."""
    number = f"corrected log10 p = {found.corrected_log10_p:.2f}"
    if any(finding.holds is False for finding in found.findings):
        return f"the claim FAILS: {', '.join(f.name for f in found.findings if f.holds is False)}"
    if not found.holds:
        return f"the claim is not verified; unknown: {', '.join(f.name for f in found.findings if f.holds is None)}"
    if not found.asked:
        return f"nothing speaks against the claim, but its answers are the claimant's word: {number} if they are true (--ask)"
    return f"the claim verifies, the model asked again: {number}"


def lines(found: Verification) -> list[str]:
    """Return what was looked at, a line each, in two lists: what was checked, and what rests on the claimant's word."""
    checked = [f for f in found.findings if not f.note]
    marks = {"fails": "FAILS"}
    said = [f"{marks.get(f.mark, f.mark):<8} {f.name}: {f.sentence}" for f in checked]
    notes = [f"{'note':<8} {f.name}: {f.sentence}" for f in found.findings if f.note]
    words = [f"- that {clause}" for clause in found.words]
    return ["checked:", *said, "rests on the claimant's word:", *notes, *words]


def _entries(path: Path, commitment: str, heads: list[str]) -> list[dict[str, Any]]:
    """Read a ledger, in which every head that was published must occur."""
    entries = read_entries(path, commitment)
    known = {commitment, *(entry["hash"] for entry in entries)}  # that of an empty ledger is the commitment
    for head in heads:
        if head.lower() not in known:
            raise TaggantError(
                f"ledger={path} does not hold the published head {head}: its end was cut off, or it was written anew"
            )
    return entries


def _answers(path: Path) -> list[list[int | None] | None]:
    found = read_answers(path).answers
    if found is None:
        raise TaggantError(f"answers={path} holds no rankings; name the detection.secret.json that `taggant detect` wrote")
    return found


def _from_secret(arguments: argparse.Namespace) -> KeySet:
    if arguments.commitment is None:
        raise TaggantError("--secret-file needs --commitment HEX, the one that was published")
    path = Path(arguments.header or Path(arguments.secret_file).parent / "keyset.json")
    if not path.is_file():
        raise TaggantError(f"header={path} does not exist; write --header FILE with the published header of the KeySet")
    header = read_json(path, what="header")
    header = header.get("header", header)
    try:
        check_header(header)
    except TaggantError as error:
        raise TaggantError(f"header={path}: {error}; take the `header` of keyset.json") from None
    if header["derivation"]["source"] != "noise":
        raise TaggantError("keys chosen from real images cannot be recomputed from the secret alone; verify their folder")
    keys = redraw(header, read_secret(Path(arguments.secret_file)))
    if keys.header != header:
        raise TaggantError(f"header={path}: its seeds do not follow from the secret; take the `header` of keyset.json")
    return keys
