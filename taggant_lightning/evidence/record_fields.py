"""What a record of a test may hold, whoever wrote it: types and ranges of every entry that something is computed from."""

from taggant_lightning.outside.fields import anything, each, fields, flag, matching, number, one_of, or_null, text, whole

# Far above use, and small enough to reckon with: of keys and of the owner's classes.
MOST_KEYS, MOST_CLASSES = 100_000, 1_000_000
SMALLEST_LOG10_P = -1e9
HEX = matching("[0-9a-f]{64}", "64 hexadecimal digits")
MOST_SETTING = 1000  # numbers in one setting of how a model was asked
BATCHES = each(whole(0, MOST_KEYS), MOST_KEYS)
LOG10_P = number(SMALLEST_LOG10_P, 0)
_KEYS = whole(0, MOST_KEYS)
_SCORE = number(0, 1e15)

_DETAILS = fields(
    {},
    {
        "hits": _KEYS,
        "num_keys": whole(1, MOST_KEYS),
        "keys_in_batches": whole(1, MOST_KEYS),
        "incomplete": _KEYS,
        "refused": _KEYS,
        "top_k": whole(1, MOST_CLASSES),
        "num_classes": whole(2, MOST_CLASSES),
        "rate": number(0, 1),
        "score": whole(0, 10**15),
        "score_expected": _SCORE,
        "score_highest": _SCORE,
        "largest_log10_stake": number(0, 1e9),
        "batches": BATCHES,
        "choices": whole(1, MOST_KEYS**2),
        "demo_only": flag,
        "test": fields({"name": text(100)}, {"unit": whole(1, 2**20)}, more=anything(20, 2)),
    },
    more=anything(),
)
_PROVENANCE = fields(
    {},
    {
        "versions": fields({}, more=text(200)),
        "ledger": or_null(fields({}, {"entry": whole(0, 10**9), "head": HEX}, more=anything())),
        "suspect": or_null(text()),
        "first_seen": or_null(text(100)),
        "labels": or_null(text(200)),
        "access": or_null(text(100)),
        "settings": or_null(fields({}, more=anything(MOST_SETTING, 2))),
        "identity": or_null(fields({}, more=or_null(text()))),
    },
    more=anything(),
)
RECORD = fields(
    {
        "method": text(100),
        "claim": text(),
        "log10_p": LOG10_P,
        "p_value": or_null(number(0, 1)),
        "validity": one_of("exact", "conservative", "empirical"),
        "commitment": HEX,
        "provenance": _PROVENANCE,
        "details": _DETAILS,
    },
    more=anything(),
)
