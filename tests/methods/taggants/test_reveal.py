"""Reveals: whole batches in order, checked against the commitment, and every forgery with its sentence."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taggant_lightning.cli import main
from taggant_lightning.commitment.merkle import merkle_path, merkle_root, root_from_path
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, revealed
from taggant_lightning.methods.taggants.batches import choose_batches
from taggant_lightning.methods.taggants.key_images import batch_secret
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.methods.taggants.reveal import read_reveals, reveal


@pytest.fixture
def keys(tmp_path: Path) -> KeySet:
    drawn = KeySet.draw(num_keys=7, num_classes=5, shape=(1, 4, 4), batches=[2, 4, 1], secret=bytes(range(16)))
    drawn.save(tmp_path / "keys")
    return drawn


@pytest.fixture
def ledger(keys: KeySet, tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "keys", keys.commitment)


def written(tmp_path: Path, value: Any, name: str = "reveal.json") -> Path:
    (tmp_path / name).write_text(json.dumps(value))
    return tmp_path / name


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 8, 13])
def test_paths_lead_to_the_root(count: int) -> None:
    leaves = [bytes([i]) * 32 for i in range(count)]
    for place, leaf in enumerate(leaves):
        assert root_from_path(leaf, merkle_path(leaves, place)) == merkle_root(leaves)


def test_batches_are_read_back_and_checked(keys: KeySet, ledger: Ledger, tmp_path: Path) -> None:
    files = [written(tmp_path, reveal(keys, batch, ledger), f"{batch}.json") for batch in range(2)]
    found = read_reveals(files)
    assert found.commitment == keys.commitment
    assert found.labels == {i: int(keys.labels[i]) for i in range(6)}
    assert all(np.array_equal(found.images[i], keys.images[i]) for i in range(6))
    assert list(revealed(ledger.entries())) == [0, 1]
    text = "".join(f.read_text() for f in files)
    assert keys.secret.hex() not in text
    assert batch_secret(keys.header, keys.secret, 2).hex() not in text
    assert base64.b64encode(keys.images[6].tobytes()).decode() not in text
    # A batch that was revealed before is not entered again.
    reveal(keys, 0, ledger)
    assert len(ledger.entries()) == 2


def test_what_a_reveal_of_v1_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Older keys are revealed, and read, as before; nothing ties several batches of them together, and that is told."""
    for sizes, beacon, tied in (([3], None, True), ([1, 2], None, False), ([1, 2], ("ab", "round 5"), True)):
        more = {"batches": sizes, "beacon": beacon, "secret": bytes(range(16)), "version": 1}
        keys = KeySet.draw(num_keys=3, num_classes=5, shape=(1, 4, 4), **more)
        keys.save(tmp_path / keys.commitment)
        shown = reveal(keys, 0, Ledger(tmp_path / keys.commitment, keys.commitment))
        assert shown["format"] == "taggant-lightning/reveal/v1"
        assert ("seed" in shown) == (beacon is not None)
        assert (shown["secret"] == keys.secret.hex()) == (len(sizes) == 1 and beacon is None)
        path = written(tmp_path, shown)
        assert read_reveals([path]).tied == tied
        capsys.readouterr()
        assert main(["keys", "verify", "--reveal", str(path)]) == 0
        assert ("not shown: that the batches' secrets were fixed together" in capsys.readouterr().out) == (not tied)


def test_a_reveal_of_another_version(keys: KeySet, ledger: Ledger, tmp_path: Path) -> None:
    shown = {**reveal(keys, 0, ledger), "format": "taggant-lightning/reveal/v1"}
    with pytest.raises(TaggantError, match=r"has the format 'taggant-lightning/reveal/v1', and its header '.*keyset/v2'"):
        read_reveals([written(tmp_path, shown)])


def test_seeds_chosen_one_by_one(keys: KeySet, ledger: Ledger, tmp_path: Path) -> None:
    """A seed that the header does not fix is found out, whatever keys and commitment are made to fit it."""
    shown = reveal(keys, 0, ledger)
    with pytest.raises(TaggantError, match="the batch's seed does not lead to the seeds of the header"):
        read_reveals([written(tmp_path, {**shown, "seed": "07" * 32})])
    later = reveal(keys, 1, ledger)
    swapped = {**shown, "seed": later["seed"], "seed_path": later["seed_path"]}
    with pytest.raises(TaggantError, match="the batch's seed does not lead to the seeds of the header"):
        read_reveals([written(tmp_path, swapped)])


def test_order(keys: KeySet, ledger: Ledger) -> None:
    with pytest.raises(TaggantError, match="reveal=1: batch 0 is still secret, and batches are revealed in order"):
        reveal(keys, 1, ledger)
    with pytest.raises(TaggantError, match=r"batches=\[3\] must name different batches of 0..2"):
        reveal(keys, 3, ledger)
    assert ledger.entries() == []
    assert choose_batches(keys, ledger) == [0, 1, 2]
    assert choose_batches(keys, ledger, [2, 1]) == [1, 2]
    for some in ([0, 2], [0, 1], [1]):
        with pytest.raises(TaggantError, match="a use of these keys asks all batches that are still secret, as committed"):
            choose_batches(keys, ledger, some)
    one = KeySet(keys.images, keys.labels, {**keys.header, "uses": "one"}, keys.secret)
    assert choose_batches(one, ledger) == [0]
    assert choose_batches(one, ledger, [2]) == [2]
    with pytest.raises(TaggantError, match=r"batches=\[1, 2\]: a use of these keys asks one batch, as committed"):
        choose_batches(one, ledger, [1, 2])
    older = KeySet(keys.images, keys.labels, {**keys.header, "format": "taggant-lightning/keyset/v1"}, keys.secret)
    assert choose_batches(older, ledger, [0, 1]) == [0, 1]
    with pytest.raises(TaggantError, match="asks batches that follow one another"):
        choose_batches(older, ledger, [0, 2])
    assert ledger.entries() == []
    reveal(keys, 0, ledger)
    assert choose_batches(keys, ledger) == [1, 2]
    with pytest.raises(TaggantError, match="batch 0 was revealed on .*; ask one that is still secret"):
        choose_batches(keys, ledger, [0, 1])
    reveal(keys, 1, ledger)
    reveal(keys, 2, ledger)
    with pytest.raises(TaggantError, match="all batches of these keys have been revealed"):
        choose_batches(keys, ledger)


def _other_label(stored: dict[str, Any]) -> None:
    stored["keys"][1]["label"] = (stored["keys"][1]["label"] + 1) % 5


def _other_image(stored: dict[str, Any]) -> None:
    stored["keys"][0]["image"] = base64.b64encode(bytes(16)).decode()


def _other_node(stored: dict[str, Any]) -> None:
    stored["keys"][0]["path"][0][1] = "00" * 32


def _other_header(stored: dict[str, Any]) -> None:
    stored["header"]["statement"] = "another dataset"


def _other_test(stored: dict[str, Any]) -> None:
    stored["header"]["test"]["top_k"] = 3


def _subset(stored: dict[str, Any]) -> None:
    del stored["keys"][0]


def _twice(stored: dict[str, Any]) -> None:
    stored["keys"].append(stored["keys"][0])


def _truncated(stored: dict[str, Any]) -> None:
    stored["keys"][0]["image"] = "AAAA"


def _upper_case(stored: dict[str, Any]) -> None:
    stored["keys"][0]["salt"] = stored["keys"][0]["salt"].upper()


def _blanks(stored: dict[str, Any]) -> None:
    stored["seed"] = stored["seed"][:2] + " " + stored["seed"][2:]


def _no_secret(stored: dict[str, Any]) -> None:
    del stored["seed"]


def _format(stored: dict[str, Any]) -> None:
    stored["format"] = "x"


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (_other_label, "does not follow from the batch's secret"),
        (_other_image, "does not follow from the batch's secret"),
        (_other_node, "does not lead to the commitment"),
        (_other_header, "does not follow from the batch's secret"),
        (_other_test, "does not follow from the batch's secret"),
        (_subset, "and not the whole batch 0"),
        (_twice, "and not the whole batch 0"),
        (_truncated, "is damaged"),
        (_no_secret, "is damaged"),
        (_upper_case, "is damaged"),
        (_blanks, "is damaged"),
        (_format, "has the format 'x'"),
    ],
)
def test_forgeries(keys: KeySet, ledger: Ledger, tmp_path: Path, forge: Callable[[dict[str, Any]], None], message: str) -> None:
    stored = json.loads(json.dumps(reveal(keys, 0, ledger)))
    forge(stored)
    with pytest.raises(TaggantError, match=message):
        read_reveals([written(tmp_path, stored)])


def test_a_tree_with_several_leaves_for_one_key(keys: KeySet, ledger: Ledger, tmp_path: Path) -> None:
    """A claimant who commits to many candidates for a key, and later reveals the one that fits, is found out by the path."""
    from taggant_lightning.commitment.merkle import commitment, leaf
    from taggant_lightning.methods.taggants.key_images import draw_label, draw_salt, key_secrets, noise_image

    header = keys.header
    of_batch = key_secrets(header, keys.secret)
    other = of_batch[0]  # the batch's own key 0 once more, at a place of its own beyond the first K
    leaves = keys.leaves()
    spare = leaf(0, noise_image(header, other, 0), draw_label(header, other, 0), draw_salt(header, other, 0))
    forged = commitment(header, [*leaves, spare])
    stored = json.loads(json.dumps(reveal(keys, 0, ledger)))
    stored["commitment"] = forged
    stored["keys"] = [
        {
            "number": 0,
            "image": base64.b64encode(noise_image(header, other, 0).tobytes()).decode(),
            "label": draw_label(header, other, 0),
            "salt": draw_salt(header, other, 0).hex(),
            "path": [[side, node.hex()] for side, node in merkle_path([*leaves, spare], 7)],
        }
    ]
    with pytest.raises(TaggantError, match="key 0 does not lead to the commitment"):
        read_reveals([written(tmp_path, stored)])


def test_reveals_of_different_keys(keys: KeySet, ledger: Ledger, tmp_path: Path) -> None:
    other = KeySet.draw(num_keys=2, num_classes=5, shape=(1, 4, 4), secret=bytes(16))
    other.save(tmp_path / "other")
    files = [
        written(tmp_path, reveal(keys, 0, ledger), "a.json"),
        written(tmp_path, reveal(other, 0, Ledger(tmp_path / "other", other.commitment)), "b.json"),
    ]
    with pytest.raises(TaggantError, match="b.json belongs to the commitment"):
        read_reveals(files)
