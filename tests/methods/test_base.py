"""Methods are found by name; one of another package goes the whole way without an edit anywhere else."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from taggant_lightning import KeySet, SignedDataModule
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.base import OWN, find, installed
from taggant_lightning.methods.taggants.method import DataTaggants

DATA = "data:\n  class_path: ImageDataModule\n  init_args: {source: npz, root: ROOT, image_size: 6}\n"


def install(folder: Path, name: str, target: str) -> None:
    """Write what pip leaves of a package that registers a method."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[taggant_lightning.methods]\n{name} = {target}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    return folder


def test_our_own() -> None:
    assert isinstance(find("data_taggants"), DataTaggants)
    assert [point.name for point in OWN] == ["data_taggants"]
    with pytest.raises(TaggantError, match="data taggants are crafted while a surrogate trains: taggant fit"):
        find("data_taggants").craft(None, None, None, seed=0)  # type: ignore[arg-type]


def test_methods_that_cannot_be_used(site: Path) -> None:
    with pytest.raises(TaggantError, match="method='nothing' is not installed; there are data_taggants"):
        find("nothing")
    install(site, "broken", "there.is.none:Method")
    install(site, "stranger", "pathlib:Path")
    install(site, "data_taggants", "pathlib:Path")  # ours come first
    assert set(installed()) == {"data_taggants", "broken", "stranger"}
    with pytest.raises(TaggantError, match="method=broken: its package cannot be used"):
        find("broken")
    with pytest.raises(TaggantError, match="method=stranger: its entry point names PosixPath, which is no method"):
        find("stranger")
    assert isinstance(find("data_taggants"), DataTaggants)


def test_names_of_methods_in_keys() -> None:
    more = {"num_keys": 2, "num_classes": 3, "shape": (3, 6, 6), "secret": bytes(16)}
    plain, toy = KeySet.draw(**more), KeySet.draw(**more, method="toy_canary")
    assert "method" not in plain.header
    assert (plain.method, toy.method) == ("data_taggants", "toy_canary")
    assert plain.commitment != toy.commitment
    for wrong in ("", "Toy", "a b", "_x"):
        with pytest.raises(TaggantError, match="must be a name of lower-case letters"):
            KeySet.draw(**more, method=wrong)


def test_a_method_of_another_package(
    site: Path, tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys, signing, release, a model that learnt it by heart, verdict, page and claim; `toy.py` is all that it brings."""
    install(site, "toy_canary", "tests.methods.toy:Toy")
    monkeypatch.chdir(tmp_path)
    Path("data.yaml").write_text(DATA.replace("ROOT", str(tiny_npz)))
    new = ["keys", "new", "--out", "keys", "--num-keys", "20", "--num-classes", "3", "--shape", "3,6,6"]
    assert main([*new, "--method", "toys"]) == 2
    assert "method='toys' is not installed; there are data_taggants, toy_canary" in capsys.readouterr().err
    assert main([*new, "--method", "toy_canary"]) == 0
    sign = ["sign", "--keys", "keys", "--config", "data.yaml", "--out", "signature"]
    assert main(sign) == 0
    assert "0 images replaced and 60 added" in capsys.readouterr().out
    assert main(sign) == 2
    assert "out=signature holds a Signature already" in capsys.readouterr().err
    assert main(["release", "--config", "data.yaml", "--signature", "signature", "--out", "release"]) == 0
    assert "and 60 that were added" in capsys.readouterr().out
    manifest = json.loads(Path("release/manifest.json").read_text())
    keys = KeySet.load("keys")
    assert manifest["commitment"] == keys.commitment

    # A model that knows the release by heart.
    released = SignedDataModule(release="release", source="npz", root=str(tiny_npz)).train_source
    known = {released.pixels(i).tobytes(): int(released.labels[i]) for i in range(len(released))}
    with Path("answers.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["query", "labels"])
        for number, image in enumerate(keys.images):
            first = known[image.tobytes()]
            table.writerow([number, " ".join(map(str, (first, *(c for c in range(3) if c != first))))])
    detect = ["detect", "--keys", "keys", "--predictions", "answers.csv", "--out", "verdict", "--collected-on", "2026-11-20"]
    assert main([*detect, "--first-seen", "2026-11-20"]) == 0
    record = json.loads(Path("verdict/detection.json").read_text())
    assert (record["method"], record["validity"], record["details"]["hits"]) == ("toy_canary", "exact", 20)
    assert np.isclose(record["log10_p"], 20 * np.log10(1 / 3))

    assert main(["report", "verdict", "--keys", "keys", "--out", "page"]) == 0
    capsys.readouterr()
    claim = [
        "--claim",
        "verdict/detection.json",
        "--answers",
        "verdict/secret/detection.secret.json",
        "--first-seen",
        "2026-11-20",
    ]
    dates = ["--manifest", "release/manifest.json", "--committed", "2026-11-01", "--released", "2026-11-02"]
    assert main(["keys", "verify", "keys", *claim, *dates]) == 3  # nothing speaks against it, and nobody asked the model
    record["method"] = "data_taggants"
    Path("verdict/detection.json").write_text(json.dumps(record))
    assert main(["keys", "verify", "keys", *claim, *dates]) == 2
    assert "method, meaning or p-value of the record were changed" in capsys.readouterr().out


def test_keys_of_another_method_are_not_signed_with_by_a_surrogate(tiny_npz: Path, tmp_path: Path) -> None:
    from taggant_lightning import TaggantSigning

    more = {"num_keys": 2, "num_classes": 3, "shape": (3, 6, 6), "secret": bytes(16)}
    folder = KeySet.draw(**more, method="toy_canary").save(tmp_path / "keys")
    with pytest.raises(TaggantError, match="are of the method toy_canary; mark with them by `taggant sign`"):
        _ = TaggantSigning(str(folder), str(tmp_path / "out")).keyset
