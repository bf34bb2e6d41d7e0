"""What the version wrote that knew one method: keys, Signature, releases in each layout, ledger, verdict, claim."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from taggant_lightning import ImageDataModule, KeySet
from taggant_lightning.cli import main
from taggant_lightning.evidence.ledger import Ledger, uses
from taggant_lightning.evidence.record import Detection
from taggant_lightning.release.reading import open_release
from taggant_lightning.release.signature import Signature

FILES = Path(__file__).parent / "data_files" / "before_methods.zip"
COMMITMENT = "791549ad57a8d11a52f64aa833226a1d5ccaeddb21220eb5eae7956063185a5a"
FORMATS = ("png", "webp", "npz", "zip", "parquet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with zipfile.ZipFile(FILES) as archive:
        archive.extractall(tmp_path)
    for name in ("keys", "signature", "verdict/secret"):  # an archive keeps no rights
        (tmp_path / name).chmod(0o700)
        for path in (tmp_path / name).iterdir():
            path.chmod(0o600)
    for path in tmp_path.glob("release-*/**/*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_keys_ledger_and_signature(folder: Path) -> None:
    keys, signature = KeySet.load("keys"), Signature.load("signature")
    assert keys.commitment == COMMITMENT == signature.commitment
    assert (keys.method, signature.method, signature.additions) == ("data_taggants", "data_taggants", [])
    assert [use.suspect for use in uses(Ledger("keys", keys.commitment).entries())] == ["bob"]
    source = ImageDataModule("npz", "data.npz").train_source
    assert len(signature.apply(source).changed_indices) == len(signature) == 12


@pytest.mark.parametrize("format", FORMATS)
def test_releases(format: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = Signature.load("signature").apply(ImageDataModule("npz", "data.npz").train_source)
    released = open_release(folder / f"release-{format}")
    assert released.labels.tolist() == overlay.labels.tolist()
    assert all(np.array_equal(released.pixels(i), overlay.pixels(i)) for i in range(len(overlay)))


def test_a_verdict_and_a_claim(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Detection.load(folder / "verdict" / "detection.json")
    assert (record.method, record.details["hits"], record.commitment) == ("data_taggants", 6, COMMITMENT)
    claim = ["--claim", "verdict/detection.json", "--answers", "verdict/secret/detection.secret.json", "--level", "0.05"]
    dates = ["--committed", "2026-11-01", "--released", "2026-11-02", "--first-seen", "2026-11-20"]
    assert main(["keys", "verify", "keys", *claim, "--manifest", "release-png/manifest.json", *dates]) == 3
    assert "FAILS" not in capsys.readouterr().out
    assert main(["report", "verdict", "--keys", "keys", "--out", "page"]) == 0
    assert main(["detect", "--keys", "keys", "--predictions", "answers.csv", "--out", "again"]) == 0
    again = Detection.load(folder / "again" / "detection.json")
    assert (again.details, again.log10_p) == (record.details, record.log10_p)
