"""Class paths of earlier versions: where they stand, and what to write."""

from pathlib import Path

import pytest

from taggant_lightning.cli import main

OLD = "taggant_lightning.taggants.signing.TaggantSigning"


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.callbacks+", OLD],
        [f"--trainer.callbacks+={OLD}"],
        ["--config", "old.yaml"],
        ["--config=old.yaml"],
    ],
)
def test_a_class_that_moved(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(f"trainer:\n  callbacks+:\n    class_path: {OLD}\n")
    where = "old.yaml" if "old.yaml" in words[-1] else "the command line"
    assert main(["fit", "--model", "ImageClassifier", *words]) == 2
    said = f"class_path={OLD} in {where} is of an earlier version; write TaggantSigning, which is found by its name"
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.yaml"]


@pytest.mark.parametrize(
    "path",
    ["stealth.training.AdversarialClassifier", "data.signed.SignedDataModule", "models.distillation.Distillation"],
)
def test_others_that_moved(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model", f"taggant_lightning.{path}"]) == 2
    assert f"write {path.rpartition('.')[2]}," in capsys.readouterr().err
