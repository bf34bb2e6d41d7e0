"""Secrets that anybody can guess are told from drawn ones, whole or by what a reveal shows."""

import secrets

import pytest

from taggant_lightning.cli import main
from taggant_lightning.commitment.guessable import DEMO, DEMO_SEED, demo_secret, guessable, guessable_seed
from taggant_lightning.commitment.seeds import batch_seed

OPEN = [
    bytes(32), b"\xff" * 16, bytes(range(32)), bytes(range(200, 184, -1)), b"ab" * 16, b"correct horse battery staple",
    b"0123456789abcdef0123456789abcdef", (7).to_bytes(32, "big"), bytes(range(15)), b"",
    b"\x00\x01\x02\x03\xff\xfe\xfd\xfc" * 4,
    demo_secret(DEMO, 23), demo_secret(DEMO_SEED, 1999),
]  # fmt: skip


@pytest.mark.parametrize("secret", OPEN, ids=range(len(OPEN)))
def test_what_is_guessed(secret: bytes) -> None:
    assert guessable(secret)


def test_what_is_drawn_is_not() -> None:
    assert not any(guessable(secrets.token_bytes(size)) for size in (16, 20, 32, 64) for _ in range(500))


def test_seeds_of_open_secrets() -> None:
    """A reveal of format v2 shows a seed and no secret; those of the usual open secrets are known too."""
    for secret in (bytes(32), bytes(range(16)), demo_secret(DEMO, 23), demo_secret(DEMO_SEED, 7)):
        assert guessable_seed(batch_seed(secret, 3), 3)
        assert not guessable_seed(batch_seed(secret, 3), 2)
    assert not guessable_seed(secrets.token_bytes(32), 0)


def test_a_file_with_such_a_secret_is_refused(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret.hex").write_text(bytes(range(32)).hex())
    words = ["keys", "new", "--out", str(tmp_path / "k"), "--num-keys", "2", "--num-classes", "5", "--shape", "1,4,4"]
    assert main([*words, "--secret-file", str(tmp_path / "secret.hex")]) == 2
    assert "holds a secret that anybody can guess" in capsys.readouterr().err
    assert not (tmp_path / "k").exists()
