"""From answers to the record: the KeySet's one test, what makes it exact or conservative, and an entry in the ledger."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger
from taggant_lightning.evidence.provenance import provenance
from taggant_lightning.evidence.record import MEANING, Detection, p_value
from taggant_lightning.files import read_json, sha256_hex, write_secret_json
from taggant_lightning.methods.taggants.batches import choices
from taggant_lightning.methods.taggants.hits import incomplete, key_ranks
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.statistics.tests import paid, validity


def ranks_of(answers: Sequence[Answer], keys: KeySet, batches: Sequence[int] | None = None) -> NDArray[np.int64]:
    """Return the ranks of the key labels.

    Args:
        answers: One for each key of the batches, numbered by the keys' order; for the sequential test perhaps only the first.
        keys: The keys.
        batches: Numbers of the batches; None for all.

    Raises:
        TaggantError: As `key_ranks`.
    """
    numbers = keys.numbers(batches)
    asked = numbers[: len(answers)] if keys.test.may_stop_early else numbers
    return key_ranks(answers, keys.labels[asked], keys.num_classes)


def looked_at(
    answers: Sequence[Answer], keys: KeySet, batches: Sequence[int] | None = None
) -> tuple[list[Answer], NDArray[np.int64]]:
    """Return the answers that the test looks at, in key order, and the ranks of their labels; a sequential test may stop."""
    ordered = sorted(answers, key=lambda a: a.query)
    ranks = ranks_of(ordered, keys, batches)
    count = keys.test.looked_at(ranks)
    return ordered[:count], ranks[:count]


def incomplete_answers(answers: Sequence[Answer], keys: KeySet) -> int:
    """Count answers that give the claimant less than the test assumes, refusals among them."""
    return incomplete(answers, keys.test.places)


def compare_with_decoys(
    keys: Sequence[Sequence[object] | None], decoys: Sequence[Sequence[object] | None]
) -> dict[str, int | bool]:
    """Find out whether a model answers everything alike, decoys included: the queries then do not reach it.

    Args:
        keys: Labels of the keys' answers, best first, in the model's own words; None where there is none.
        decoys: The same of the decoys.

    Returns:
        For the record's `checks`: how many usable answers were compared, and `one_answer`, whether they are all the same.
    """
    usable = [[tuple(labels) for labels in group if labels] for group in (keys, decoys)]
    compared = len(usable[0]) + len(usable[1])
    alike = all(usable) and compared > 2 and len({*usable[0], *usable[1]}) == 1
    return {"compared_with_decoys": compared if usable[1] else 0, "one_answer": alike}


def judge(
    ranks: NDArray[np.int64],
    keys: KeySet,
    origin: dict[str, Any] | None = None,
    *,
    batches: Sequence[int] | None = None,
    incomplete: int | None = None,
    refused: int = 0,
) -> Detection:
    """Test a model with the one test that the KeySet fixes.

    Args:
        ranks: (n,) int64, ranks of the key labels of the batches from 1; above C where label or answer is missing.
        keys: The keys.
        origin: What else is known of the model, for the record's provenance.
        batches: Numbers of the batches that were asked; None for all.
        incomplete: How many answers give less than the test assumes; None counts the ranks above C.
        refused: How many keys the model refused or never answered; they count against the claimant.

    Returns:
        The record.
    """
    numbers = keys.numbers(batches)
    outcome = keys.test.evaluate(ranks)
    lacking = int((ranks > keys.num_classes).sum()) if incomplete is None else incomplete
    ways = choices(keys.header)
    log10_p = paid(outcome.log10_p, ways)
    return Detection(
        method=keys.method,
        claim=MEANING,
        log10_p=log10_p,
        p_value=p_value(log10_p),
        validity=validity(keys.test, incomplete=lacking, ways=ways),
        commitment=keys.commitment,
        provenance={**provenance(), **(origin or {})},
        details={
            **outcome.details,
            "test": keys.test.description,
            "batches": sorted(range(len(keys.batches)) if batches is None else batches),
            "choices": ways,
            "keys_in_batches": len(numbers),
            "incomplete": lacking,
            "refused": refused,
            "demo_only": keys.demo_only,
        },
    )


def write_verdict(
    folder: Path, detection: Detection, ranks: NDArray[np.int64], ledger: Ledger, answers: Sequence[Answer] | None = None
) -> None:
    """Write the public record, the secret one, and the result into the ledger.

    Args:
        folder: Of the records.
        detection: The record; its provenance names the ledger's entry of this use.
        ranks: Ranks of the key labels.
        ledger: The KeySet's.
        answers: The rankings themselves, where they are at hand: whoever verifies a claim recomputes it from them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[str, Any] = {**asdict(detection), "ranks": ranks.tolist()}
    if answers is not None:
        shown["answers"] = [None if a.labels is None else list(a.labels) for a in answers]
    write_secret_json(folder / "secret" / "detection.secret.json", shown)
    # The result is entered first: a run that is cut off here is run again, and enters the same one once more.
    use = detection.provenance["ledger"]["entry"]
    ledger.append("result", use=use, log10_p=detection.log10_p, detection=sha256_hex(detection.to_bytes()))
    detection.save(folder / "detection.json")


class OpenUse:
    """One use of the keys in the ledger, entered before an answer is looked at: none is seen without an entry.

    Args:
        ledger: The KeySet's.
        suspect: The model's name.
        batches: Numbers of the batches that are asked.
        access: How the model is asked, in a word.
        labels: SHA-256 of the label table, or None: a table that follows the answers could be made to fit them.
        settings: All else that shapes a query or maps an answer, JSON values: another setting is another use.
        identity: Which model it is: digests of its files, its address, who collected the answers and when; JSON values.
    """

    def __init__(
        self,
        ledger: Ledger,
        suspect: str,
        batches: Sequence[int],
        access: str,
        labels: str | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.ledger, self.suspect = ledger, suspect
        # What stands in the ledger and in the record alike.
        self.facts = {"access": access, "labels": labels, "settings": dict(settings or {}), "identity": dict(identity or {})}
        self._entered = {"suspect": suspect, "batches": sorted(batches), **self.facts}
        self.entry: dict[str, Any] | None = None
        self._run: str | None = None

    def begin(self, folder: Path) -> dict[str, Any]:
        """Enter the use, once; the run directory remembers the entry for a run that goes on."""
        if self.entry is None:
            if self._run is None:
                self._run = secrets.token_hex(8)
                write_secret_json(folder / "secret" / "use.json", {"run": self._run})
            self.entry = self.ledger.append("use", run=self._run, **self._entered)
        return self.entry

    def resume(self, folder: Path) -> None:
        """Go on with the entry of a run that was cut off."""
        remembered = folder / "secret" / "use.json"
        if remembered.exists():
            self._run = str(read_json(remembered, what="use")["run"])
            self.entry = next((e for e in self.ledger.entries() if e.get("run") == self._run), None)
            for name, value in self._entered.items():
                if self.entry is not None and self.entry.get(name) != value:
                    raise TaggantError(
                        f"out={folder} was begun with {name}={self.entry.get(name)}, and this run has {value}; it stands in "
                        "the ledger, so go on as it was begun, or name a new folder, which is another use"
                    )


def conclude(
    answers: Sequence[Answer], keys: KeySet, batches: Sequence[int], use: OpenUse, about: dict[str, Any], folder: Path
) -> Detection:
    """Enter the use, test, and write record and ledger: nothing is known of the answers before the entry.

    Args:
        answers: One for each key of the batches, numbered by the keys' order; for a sequential test perhaps only the first.
        keys: The keys.
        batches: Numbers of the batches that were asked.
        use: This use of the keys.
        about: What is known of the model, for the record's provenance.
        folder: Run directory.

    Returns:
        The record.
    """
    entry = use.begin(folder)
    if entry["batches"] != sorted(batches):
        raise TaggantError(
            f"batches={sorted(batches)} are concluded on, and batches={entry['batches']} were asked; take all of them"
        )
    answers, ranks = looked_at(answers, keys, batches)
    lacking, refused = incomplete_answers(answers, keys), sum(a.labels is None for a in answers)
    origin = {
        "suspect": use.suspect,
        **use.facts,
        **about,
        "ledger": {"entry": entry["number"], "head": entry["hash"]},
    }
    detection = judge(ranks, keys, origin, batches=batches, incomplete=lacking, refused=refused)
    write_verdict(folder, detection, ranks, use.ledger, answers)
    return detection


def verdict_line(detection: Detection, folder: Path) -> str:
    """Return the last line of a test: the run's folder, hits and log10 p."""
    d = detection.details
    return (
        f"taggant: run={folder} hits={d['hits']}/{d['num_keys']} top_k={d['top_k']} rate={d['rate']:g} "
        f"log10_p={detection.log10_p:.2f} record={folder / 'detection.json'}"
    )
