"""What is sent to a suspect: the keys in their order, under neutral names, among decoys of the same kind.

Everything follows from the secret, so that the same keys go out among the same decoys each time: two who compare what they were
asked cannot tell keys from decoys by what both have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer, Query
from taggant_lightning.commitment.derivation import expand, uniform_below
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import canonical_json
from taggant_lightning.methods.taggants.keys import KeySet


@dataclass(frozen=True)
class Plan:
    """Queries in the order in which they are asked.

    Attributes:
        queries: Keys and decoys.
        keys: For each query the key's number, or None for a decoy. Keys come in ascending order.
    """

    queries: list[Query]
    keys: list[int | None]

    def of_keys(self, answers: Sequence[Answer]) -> list[Answer]:
        """Keep the answers to keys and number them by the keys' order in the plan.

        Args:
            answers: Numbered by the queries' places.
        """
        place = {query: position for position, query in enumerate(i for i, key in enumerate(self.keys) if key is not None)}
        return [Answer(place[a.query], a.labels, a.scores) for a in answers if a.query in place]


def plan_queries(
    keys: KeySet, batches: Sequence[int] | None = None, decoys: int = 1, source_images: NDArray[np.uint8] | None = None
) -> Plan:
    """Mix keys with decoys.

    Args:
        keys: The keys.
        batches: Numbers of the batches to ask; None for all.
        decoys: Decoys for each key, 0 or more.
        source_images: For keys that are real images: the images they were chosen from.

    Returns:
        The queries, batch after batch; within a batch keys and decoys lie in a secret order.

    Raises:
        TaggantError: If a batch does not exist, decoys is negative, or source images are needed and missing.
    """
    if decoys < 0:
        raise TaggantError(f"decoys={decoys} must be 0 or more: images without meaning for each key; 1 is usual")
    numbers = keys.numbers(batches)
    layers = [dict(zip(numbers, keys.decoys(layer, numbers, source_images), strict=True)) for layer in range(decoys)]
    asked = set(numbers)
    queries: list[Query] = []
    owners: list[int | None] = []
    for batch, members in enumerate(keys.batches):
        if members[0] not in asked:
            continue
        order = _slots(keys, batch, len(members) * (1 + decoys))
        is_key = [slot < len(members) for slot in order]
        in_order, others = iter(members), iter([(layer, key) for layer in range(decoys) for key in members])
        for key_comes in is_key:
            if key_comes:
                key = next(in_order)
                queries.append(Query(query_name(keys, key), keys.images[key]))
                owners.append(key)
            else:
                layer, key = next(others)
                queries.append(Query(query_name(keys, len(keys) * (1 + layer) + key), layers[layer][key]))
                owners.append(None)
    return Plan(queries, owners)


def query_name(keys: KeySet, position: int) -> str:
    """Return the neutral name of a key (positions 0..K−1) or a decoy (from K on): 16 hexadecimal digits."""
    return expand(keys.secret, "name", canonical_json(keys.header), position, 8).hex()


def _slots(keys: KeySet, batch: int, count: int) -> list[int]:
    """Return a secret permutation of `count` places of one batch, by a Fisher-Yates shuffle."""
    context = canonical_json([batch, keys.header])
    order = list(range(count))
    for i in range(count - 1):
        j = i + uniform_below(count - i, keys.secret, "slot", context, i)
        order[i], order[j] = order[j], order[i]
    return order
