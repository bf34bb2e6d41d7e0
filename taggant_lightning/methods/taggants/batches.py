"""Which batches of keys a use may ask, and what the choice among them costs.

Whoever holds the keys can ask a model all of them, look, and conclude on the batches that suit. No record shows that she did
not, so the choices that the commitment leaves open are counted, and multiply every p-value.
"""

from collections.abc import Sequence
from typing import Any

from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, revealed
from taggant_lightning.methods.taggants.header import is_first_version
from taggant_lightning.methods.taggants.keys import KeySet


def choices(header: dict[str, Any]) -> int:
    """Return in how many ways the batches of a use can be chosen, from 1.

    By format v2 a use asks all batches from some batch on (those that are still secret), or one batch: as many ways as there
    are batches. Format v1 fixes nothing: any run of batches.
    """
    count = len(header["batches"])
    return count * (count + 1) // 2 if is_first_version(header) else count


def admissible(header: dict[str, Any], batches: Sequence[int]) -> bool:
    """Return whether a use may ask these batches, ascending."""
    count, chosen = len(header["batches"]), list(batches)
    if not chosen or chosen != list(range(chosen[0], chosen[0] + len(chosen))) or chosen[0] < 0 or chosen[-1] >= count:
        return False
    if is_first_version(header):
        return True
    return len(chosen) == 1 if header["uses"] == "one" else chosen[-1] == count - 1


def choose_batches(keys: KeySet, ledger: Ledger, wanted: Sequence[int] | None = None) -> list[int]:
    """Return the batches to ask: those wanted, or what the commitment has fixed for a use, of those that are still secret.

    Raises:
        TaggantError: If a batch does not exist, has been revealed, or is none that a use may ask, or if none is left.
    """
    spent = revealed(ledger.entries())
    if wanted is None:
        secret = [batch for batch in range(len(keys.batches)) if batch not in spent]
        if not secret:
            raise TaggantError(
                "all batches of these keys have been revealed, and anybody may have trained on them; draw new keys"
            )
        return secret[:1] if keys.header.get("uses") == "one" else secret
    keys.numbers(wanted)
    chosen = sorted(wanted)
    for batch in chosen:
        if batch in spent:
            raise TaggantError(f"batches={chosen}: batch {batch} was revealed on {spent[batch]}; ask one that is still secret")
    if not admissible(keys.header, chosen):
        asks = "batches that follow one another"
        if not is_first_version(keys.header):
            asks = "one batch" if keys.header["uses"] == "one" else "all batches that are still secret"
        raise TaggantError(f"batches={chosen}: a use of these keys asks {asks}, as committed; leave --batches out for that")
    return chosen
