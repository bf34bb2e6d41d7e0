"""`detect()`: what may be named as a suspect, and that everything in memory comes to the verdict of the command line."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taggant_lightning import KeySet, detect
from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.evidence.ledger import Ledger, uses
from taggant_lightning.evidence.record import Detection
from taggant_lightning.verdict.detecting import suspect_of
from taggant_lightning.verdict.suspects.in_memory import Function, Module
from taggant_lightning.verdict.suspects.model_file import ModelFile
from taggant_lightning.verdict.suspects.predictions import Predictions
from taggant_lightning.verdict.suspects.service import Online
from tests.conftest import TwoLayers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return KeySet.draw(num_keys=8, num_classes=3, shape=(3, 6, 6), grid=3, top_k=1).save(tmp_path / "keys")


def test_what_may_be_named(tmp_path: Path) -> None:
    assert isinstance(suspect_of("https://models.example/classify"), Online)
    assert isinstance(suspect_of(tmp_path / "answers.csv"), Predictions)
    assert [suspect_of(name).way for name in ("m.onnx", Path("m.ONNX"), "m.pt2", "m.pt")] == ["onnx"] * 2 + ["exported"] * 2
    assert isinstance(suspect_of(TwoLayers()), Module)
    assert isinstance(suspect_of(lambda image: None), Function)
    own = ModelFile("onnx", "m.onnx")
    assert suspect_of(own) is own
    with pytest.raises(TaggantError, match="suspect=3 is no model; give a module, a function, a file or an address"):
        suspect_of(3)


def test_module_function_and_table_come_to_one_verdict(folder: Path, tmp_path: Path, capsys: Any) -> None:
    keys, model = KeySet.load(folder), TwoLayers().eval()

    def scores(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(image)[None] / 255)[0].numpy()

    by_module = detect(folder, model, out=tmp_path / "module")
    by_function = detect(folder, scores, name="theirs", out=tmp_path / "function", first_seen="2026-11-20")
    with (tmp_path / "answers.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["query", "labels"])
        for number, image in enumerate(keys.images):
            table.writerow([number, " ".join(map(str, np.argsort(-scores(image), kind="stable")))])
    by_table = detect(folder, tmp_path / "answers.csv", out=tmp_path / "table")
    words = [
        "detect",
        "--keys",
        str(folder),
        "--predictions",
        str(tmp_path / "answers.csv"),
        "--out",
        str(tmp_path / "command"),
    ]
    assert main([*words, "--out", str(tmp_path / "command")]) == 0
    by_command = Detection.load(tmp_path / "command" / "detection.json")
    for record in (by_function, by_table, by_command):
        assert (record.details, record.log10_p) == (by_module.details, by_module.log10_p)
    assert by_module == Detection.load(tmp_path / "module" / "detection.json")
    assert (by_function.provenance["suspect"], by_function.provenance["first_seen"]) == ("theirs", "2026-11-20")
    assert [use.suspect for use in uses(Ledger(folder, keys.commitment).entries())] == [
        *["TwoLayers", "theirs", "answers.csv", "answers.csv"]
    ]
    assert not model.training
    with pytest.raises(TaggantError, match="holds a verdict already; name a new folder"):
        detect(folder, model, out=tmp_path / "module")


def test_what_a_function_leaves_out_is_told_and_counts_against_the_claimant(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    answers = iter([[0, 1, 2]] * 5 + [None] * 3)
    record = detect(folder, lambda _: next(answers), out=tmp_path / "run", told=said.append)
    assert (record.validity, record.details["refused"]) == ("conservative", 3)
    assert record.provenance["misses"] == {"the function refused, or returned no ranking": 3}
    assert said == ["3 keys have no proper answer and are misses: the function refused, or returned no ranking (3)."]


def test_a_label_table_in_memory(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("theirs,ours\n0,2\n1,1\n2,\n")
    record = detect(folder, lambda _: [0, 1, 2], out=tmp_path / "run", labels=tmp_path / "labels.csv")
    labels = KeySet.load(folder).labels
    assert record.details["hits"] == int((labels == 2).sum())


def test_a_module_that_answers_at_random_is_refused(folder: Path, tmp_path: Path) -> None:
    class Random(TwoLayers):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(x), 3)

    with pytest.raises(TaggantError, match="the module answers the same images otherwise when asked again"):
        detect(folder, Random(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "detection.json").exists()


def test_a_module_in_training_mode_is_asked_in_evaluation_mode(folder: Path, tmp_path: Path) -> None:
    model = torch.nn.Sequential(TwoLayers(), torch.nn.Dropout(0.5)).train()
    detect(folder, model, out=tmp_path / "run")
    assert model.training
