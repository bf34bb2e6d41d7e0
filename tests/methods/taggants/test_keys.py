"""KeySets: determinism, the stored vector, an independent derivation, and every wrong input with its sentence."""

import hashlib
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taggant_lightning.commitment import derivation, seeds
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.keys import KeySet, redraw

FILES = Path(__file__).parents[2] / "data_files"
VECTOR = json.loads((FILES / "commitment_v1.json").read_text())
VECTOR_2 = json.loads((FILES / "commitment_v2.json").read_text())


def field(*parts: bytes) -> bytes:
    """The length-prefixed joining of docs/commitment.md, written again."""
    return b"".join(len(p).to_bytes(8, "big") + p for p in parts)


def test_stored_vector() -> None:
    keys = redraw(VECTOR["header"], bytes.fromhex(VECTOR["secret"]))
    assert keys.header == VECTOR["header"]
    assert keys.labels.tolist() == VECTOR["labels"]
    assert [i.tobytes().hex() for i in keys.images] == VECTOR["images_hex"]
    assert keys.commitment == VECTOR["commitment"]


def test_stored_vector_from_the_document_alone() -> None:
    """docs/commitment.md is enough to recompute a KeySet of v1, with hashlib and nothing of ours."""
    header = json.dumps(VECTOR["header"], sort_keys=True, separators=(",", ":")).encode()
    secret = bytes.fromhex(VECTOR["secret"])

    def stream(purpose: bytes, index: int, length: int) -> bytes:
        message = field(b"taggant-lightning/derivation/v1", purpose, header, secret, index.to_bytes(8, "big"))
        return hashlib.shake_256(message).digest(length)

    leaves = []
    for i in range(3):
        words = [int.from_bytes(stream(b"label", i, 64)[j : j + 8], "big") for j in range(0, 64, 8)]
        label = next(w for w in words if w < 2**64 - 2**64 % 10) % 10
        assert label == VECTOR["labels"][i]
        grid = stream(b"grid", i, 4)
        image = bytes(grid[2 * (y // 2) + x // 2] for y in range(4) for x in range(4))
        assert image.hex() == VECTOR["images_hex"][i]
        shape = b"".join(n.to_bytes(8, "big") for n in (1, 4, 4))
        fields = field(
            b"taggant-lightning/commitment/v1/leaf",
            stream(b"salt", i, 32),
            i.to_bytes(8, "big"),
            label.to_bytes(8, "big"),
            shape,
            image,
        )
        leaves.append(hashlib.sha256(fields).digest())
    node = b"taggant-lightning/commitment/v1/node"
    root = hashlib.sha256(field(node, hashlib.sha256(field(node, *leaves[:2])).digest(), leaves[2])).digest()
    commitment = hashlib.sha256(field(b"taggant-lightning/commitment/v1/root", header, root)).hexdigest()
    assert commitment == VECTOR["commitment"]


@pytest.mark.parametrize("vector", VECTOR_2, ids=[v["header"]["statement"] for v in VECTOR_2])
def test_stored_vectors_of_v2_from_the_document_alone(vector: dict[str, Any]) -> None:
    """Batches, a beacon, floats and other alphabets: all of v2 again, with hashlib and nothing of ours."""
    shown, secret = vector["header"], bytes.fromhex(vector["secret"])
    keys = redraw(shown, secret)
    assert (keys.header, keys.commitment) == (shown, vector["commitment"])
    header = json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    number = lambda n: n.to_bytes(8, "big")  # noqa: E731

    def stream(of: bytes, purpose: bytes, context: bytes, index: int, length: int) -> bytes:
        message = field(b"taggant-lightning/derivation/v1", purpose, context, of, number(index))
        return hashlib.shake_256(message).digest(length)

    def root_of(tag: bytes, leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        pairs = [leaves[i : i + 2] for i in range(0, len(leaves), 2)]
        return root_of(tag, [hashlib.sha256(field(tag, *p)).digest() if len(p) == 2 else p[0] for p in pairs])

    node, sizes = b"taggant-lightning/commitment/v1/node", shown["batches"]
    seeds = [stream(secret, b"seed", b"taggant-lightning/keyset/v2", b, 32) for b in range(len(sizes))]
    digests = [hashlib.sha256(field(b"taggant-lightning/seed/v2", number(b), seed)).digest() for b, seed in enumerate(seeds)]
    assert root_of(node, digests).hex() == shown["seeds"]
    of_key = [stream(seeds[b], b"batch", header, b, 32) for b, size in enumerate(sizes) for _ in range(size)]
    classes, (channels, height, width), grid = shown["num_classes"], shown["shape"], shown["derivation"]["grid"]
    leaves = []
    for i, of in enumerate(of_key):
        words = [int.from_bytes(stream(of, b"label", header, i, 64)[j : j + 8], "big") for j in range(0, 64, 8)]
        label = next(w for w in words if w < 2**64 - 2**64 % classes) % classes
        noise = stream(of, b"grid", header, i, channels * grid * grid)
        image = bytes(
            noise[c * grid * grid + (y * grid // height) * grid + x * grid // width]
            for c in range(channels)
            for y in range(height)
            for x in range(width)
        )
        assert (label, image) == (vector["labels"][i], keys.images[i].tobytes())
        sides = b"".join(map(number, (channels, height, width)))
        parts = (stream(of, b"salt", header, i, 32), number(i), number(label), sides, image)
        leaves.append(hashlib.sha256(field(b"taggant-lightning/commitment/v1/leaf", *parts)).digest())
    root = root_of(node, leaves)
    commitment = hashlib.sha256(field(b"taggant-lightning/commitment/v1/root", header, root)).hexdigest()
    assert commitment == vector["commitment"]


def test_one_seed_exchanged_changes_every_key() -> None:
    """Batches cannot be tried one by one: whoever exchanges a seed draws all labels anew."""
    from taggant_lightning.commitment.beacon import secret_of_seed
    from taggant_lightning.methods.taggants.key_images import draw_label

    keys = KeySet.draw(num_keys=200, num_classes=50, shape=(1, 4, 4), batches=[100, 100], secret=bytes(range(16)))
    other = {**keys.header, "seeds": "00" * 32}  # as any other seed of the second batch would have it
    seed = seeds.batch_seed(keys.secret, 0)
    same = sum(draw_label(other, secret_of_seed(other, seed, 0), i) == keys.labels[i] for i in range(100))
    assert same < 15  # 2 of 100 are expected


def test_same_in_another_process() -> None:
    code = (
        "from taggant_lightning.methods.taggants.keys import KeySet;"
        "print(KeySet.draw(num_keys=5, num_classes=3, shape=(3, 6, 6), grid=3, secret=bytes(range(32))).commitment)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    again = KeySet.draw(num_keys=5, num_classes=3, shape=(3, 6, 6), grid=3, secret=bytes(range(32)))
    assert done.stdout.strip() == again.commitment


def test_secrets_differ_unless_given() -> None:
    a, b = (KeySet.draw(num_keys=5, num_classes=3, shape=(3, 6, 6)) for _ in range(2))
    assert a.commitment != b.commitment
    assert len(a.secret) == 32


@pytest.mark.parametrize("change", [{"num_classes": 4}, {"top_k": 2}, {"statement": "x"}, {"grid": 2}, {"num_keys": 6}])
def test_any_parameter_changes_the_commitment(keys: KeySet, change: dict[str, Any]) -> None:
    arguments = {"num_keys": 5, "num_classes": 3, "shape": (3, 6, 6), "grid": 3, "secret": bytes(range(32)), **change}
    assert KeySet.draw(**arguments).commitment != keys.commitment


def test_grid_is_enlarged_by_nearest_neighbour() -> None:
    keys = KeySet.draw(num_keys=1, num_classes=2, shape=(3, 8, 8), grid=4, secret=bytes(16))
    image = keys.images[0]
    assert np.array_equal(image, np.repeat(np.repeat(image[:, ::2, ::2], 2, axis=1), 2, axis=2))
    published = KeySet.draw(num_keys=1, num_classes=2, shape=(3, 224, 224), grid=64, secret=bytes(16)).images[0]
    row = [y * 64 // 224 for y in range(224)]
    first = [row.index(g) for g in range(64)]
    assert np.array_equal(published, published[:, first][:, row][:, :, first][:, :, row])


@pytest.mark.parametrize(
    ("shape", "grid"), [((1, 6, 6), 6), ((1, 8, 8), 8), ((3, 32, 32), 4), ((3, 224, 224), 28), ((3, 48, 64), 6), ((1, 9, 9), 4)]
)
def test_default_grid(shape: tuple[int, int, int], grid: int) -> None:
    keys = KeySet.draw(num_keys=1, num_classes=2, shape=shape)
    assert keys.header["derivation"]["grid"] == grid
    assert keys.images.shape == (1, *shape)


def test_labels_are_uniform_and_rejection_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are even, and words above the largest multiple of the bound are drawn again."""
    counts = np.bincount(
        [derivation.uniform_below(7, bytes([i % 256, i // 256]) * 8, "label", b"", 0) for i in range(7000)], minlength=7
    )
    assert ((counts - 1000) ** 2 / 1000).sum() < 25  # χ² with 6 degrees of freedom: one in 3,000 lies above

    words = iter([2**64 - 1, 2**64 - 2, 5])
    monkeypatch.setattr(derivation, "expand", lambda *_: b"".join(w.to_bytes(8, "big") for w in words))
    # 2^64 mod 10 is 6: the last six words must be rejected, so the third one decides.
    assert derivation.uniform_below(10, b"", "label", b"", 0) == 5


def test_all_words_rejected_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    high = (2**64 - 1).to_bytes(8, "big")
    monkeypatch.setattr(derivation, "expand", lambda *a: high * 8 if a[-1] == 64 else high * 8 + (3).to_bytes(8, "big") * 8)
    assert derivation.uniform_below(10, b"", "label", b"", 0) == 3


def test_labels_repeat_as_independent_draws_do() -> None:
    """Twenty labels of ten classes: distinct ones are impossible, and repeats must occur among five of ten as well."""
    repeats = sum(
        len(set(KeySet.draw(num_keys=5, num_classes=10, shape=(1, 2, 2), secret=bytes([i]) * 16).labels.tolist())) < 5
        for i in range(100)
    )
    assert 50 <= repeats <= 88  # 1 − 10·9·8·7·6/10^5 = 0.70; ±4.2 standard deviations


def test_save_and_load(keys: KeySet, tmp_path: Path) -> None:
    folder = keys.save(tmp_path / "keys")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    again = KeySet.load(folder)
    assert np.array_equal(again.images, keys.images)
    assert np.array_equal(again.labels, keys.labels)
    assert again.commitment == keys.commitment
    with pytest.raises(TaggantError, match="holds a KeySet already"):
        keys.save(folder)


def test_repr_tells_nothing_secret(keys: KeySet) -> None:
    assert keys.secret.hex() not in repr(keys)
    assert str(keys.labels.tolist()) not in repr(keys)


def test_readable_folder_is_refused(keys: KeySet, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(TaggantError, match="can be read by others; run `chmod 700"):
        keys.save(folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["keyset.json", "keys.safetensors", "secret.hex"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damaged_files_are_told(keys: KeySet, tmp_path: Path, name: str, damage: str) -> None:
    folder = keys.save(tmp_path / "keys")
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        place = len(content) - 5
        content[place] = ord("0") if content[place] != ord("0") else ord("1")
        path.write_bytes(content)
    with pytest.raises(TaggantError, match="damaged|does not exist|forged"):
        KeySet.load(folder)


def test_commitment_that_does_not_match(keys: KeySet) -> None:
    keys.check(keys.commitment.upper())
    with pytest.raises(TaggantError, match=f"commitment is {keys.commitment} and not 00"):
        keys.check("00" * 32)


def test_forged_label_is_found(keys: KeySet) -> None:
    forged = KeySet(keys.images, (keys.labels + 1) % 3, keys.header, keys.secret)
    with pytest.raises(TaggantError, match="key 0: its label does not follow"):
        forged.check()


def test_real_images_as_keys() -> None:
    source = np.random.default_rng(0).integers(0, 256, (9, 3, 6, 6), dtype=np.uint8)
    keys = KeySet.draw(num_keys=9, num_classes=3, shape=(3, 6, 6), source_images=source, secret=bytes(16))
    assert sorted(i.tobytes() for i in keys.images) == sorted(i.tobytes() for i in source)
    assert keys.header["derivation"]["source"] == "images"
    keys.check(keys.commitment, source)
    with pytest.raises(TaggantError, match="are not those that the keys were chosen from"):
        keys.check(None, source[:8])
    forged = KeySet(255 - keys.images, keys.labels, keys.header, keys.secret)
    with pytest.raises(TaggantError, match="key images are not those that the secret chooses"):
        forged.check(None, source)
    with pytest.raises(TaggantError, match="holds 9 images and 10 are needed"):
        KeySet.draw(num_keys=10, num_classes=3, shape=(3, 6, 6), source_images=source)


GOOD: dict[str, Any] = {"num_keys": 4, "num_classes": 3, "shape": (3, 6, 6)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_keys": 0}, "num_keys=0 must be at least 1"),
        ({"num_classes": 1}, "num_classes=1 must be at least 2"),
        ({"top_k": 4}, "top_k=4 must lie in 1..num_classes, and num_classes=3"),
        ({"top_k": 0}, "top_k=0 must lie in"),
        ({"shape": (3, 0, 6)}, "must be three positive numbers"),
        ({"grid": 7}, "grid=7 must lie in 1..6"),
        ({"batches": [3, 2]}, "must be positive sizes that add up to num_keys=4"),
        ({"secret": b"short"}, "the secret has 40 bits; use 128 or more"),
        ({"grid": 2, "source_images": np.zeros((9, 3, 6, 6), np.uint8)}, "exclude each other"),
        ({"source_images": np.zeros((9, 3, 5, 6), np.uint8)}, "source images are uint8"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        KeySet.draw(**{**GOOD, **change})
