"""The committed measurements: fitted again here, they predict the points that the fit does not know."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from taggant_lightning.planning.building import build_model
from taggant_lightning.planning.counting import Work
from taggant_lightning.planning.devices import DEVICES
from taggant_lightning.planning.estimate import signing_memory
from taggant_lightning.planning.fitting import fit_rates, relative_errors
from taggant_lightning.planning.request import Request
from taggant_lightning.planning.steps import count_model

RESULTS = Path(__file__).parents[2] / "docs" / "results"
FIGURES = json.loads((RESULTS / "plan.json").read_text())
ALLOWED = 0.25
VIT = {"name": "vit_tiny_patch16_224", "options": {"patch_size": 4}}
RESNET = {"name": "cifar_resnet18", "options": {}}


def parts(held: bool) -> tuple[list[dict[str, Any]], list[Work], list[float]]:
    rows = [row for row in FIGURES["points"] if row["held"] is held]
    return rows, [Work(**row["work"]) for row in rows], [row["seconds"] for row in rows]


def test_the_fit_and_the_rates_in_the_package_are_those_of_the_measurements() -> None:
    _, works, seconds = parts(held=False)
    found = dataclasses.asdict(fit_rates(works, seconds))
    assert found == pytest.approx(FIGURES["rates"], rel=1e-6)
    assert dataclasses.asdict(DEVICES["cpu"].signing) == pytest.approx(found, rel=1e-2)
    assert DEVICES["cpu"].training == DEVICES["cpu"].signing


def test_points_held_back_are_other_sizes_other_models_and_other_numbers_of_keys() -> None:
    fitted, held = parts(held=False)[0], parts(held=True)[0]
    assert not {row["model"] for row in fitted} & {"vit_tiny", "resnet18"}
    assert {row["model"] for row in held} >= {"vit_tiny", "resnet18"}
    assert {row["size"] for row in held} - {row["size"] for row in fitted if row["model"].startswith("small")}
    assert {row["keys"] for row in held} - {row["keys"] for row in fitted} >= {2, 3, 4, 6}
    assert sum(row["unseen"] for row in held) == 10
    assert not any(row["unseen"] for row in fitted)


def test_points_held_back_are_predicted() -> None:
    _, works, seconds = parts(held=False)
    rates = fit_rates(works, seconds)
    rows, works, seconds = parts(held=True)
    errors = relative_errors(rates, works, seconds)
    wrong = [(row["stage"], row["model"], error) for row, error in zip(rows, errors, strict=True) if abs(error) > ALLOWED]
    assert not wrong


@pytest.mark.parametrize(("name", "model"), [("vit_tiny", VIT), ("resnet18", RESNET)])
def test_peak_memory_of_crafting_is_predicted(name: str, model: dict[str, Any]) -> None:
    """Measured by benchmarks/costs.py: peaks of one key against one surrogate, above a process that has crafted nothing."""
    measured = json.loads((RESULTS / f"signing_memory_{name}.json").read_text())["memory"]
    counts = count_model(build_model(image_size=32, channels=3, num_classes=100, **model), (3, 32, 32))
    for row in (r for r in measured if r["method"] == "ours"):
        request = Request(images_per_key=row["images"], num_keys=1, surrogates=1, device="cpu", devices=(1,))
        assert signing_memory(request, counts, 1) / 2**20 == pytest.approx(row["above_start_mib"], rel=ALLOWED)
