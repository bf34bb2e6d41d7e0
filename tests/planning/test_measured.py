"""Measured steps in place of estimates: whose they are, how far they reach, what a plan says of them."""

import dataclasses
import json
from pathlib import Path

import pytest

from taggant_lightning.cli import main
from taggant_lightning.errors import TaggantError
from taggant_lightning.planning.building import build_model
from taggant_lightning.planning.devices import device_of
from taggant_lightning.planning.estimate import estimate
from taggant_lightning.planning.measured import FOLDER, Measured, measured
from taggant_lightning.planning.request import Request, request_of
from taggant_lightning.planning.stages import key_fixed
from taggant_lightning.planning.steps import Counts, count_model

SUBJECT = {"model": "x", "model_name": "small_cnn", "image_size": 32, "model_kwargs": None}
TRAINED = {**SUBJECT, "precision": "bf16-mixed", "batch": 128, "milliseconds": 1.0, "images_per_second": 128_000.0}
CRAFTED = {**SUBJECT, "derivative": "exact", "tf32_allowed": True, "images": 100, "micro_batch": 100, "milliseconds": 50.0}
H200 = device_of("h200")


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count_model(build_model("small_cnn", image_size=32, channels=3, num_classes=100, options={}), (3, 32, 32), "exact")


def write(folder: Path, training: list[dict], crafting: list[dict], hardware: str = "1 x NVIDIA H200") -> Path:
    content = {"training": training, "crafting": crafting, "versions": {"torch": "2.11.0"}, "commit": "c", "hardware": hardware}
    (folder / f"{len(list(folder.iterdir()))}.json").write_text(json.dumps(content))
    return folder


def test_only_the_same_model_size_and_device(tmp_path: Path) -> None:
    others = [
        {**TRAINED, "model_name": "resnet50"},
        {**TRAINED, "image_size": 64},
        {**TRAINED, "model_kwargs": {"depth": 2}},
        {"model": "x"},
    ]
    write(tmp_path, [TRAINED, *others], [CRAFTED])
    write(tmp_path, [{**TRAINED, "batch": 512}], [], hardware="8 x NVIDIA H100")
    request = Request()
    found = measured(request, H200, tmp_path)
    assert (found.training, found.crafting) == ([TRAINED], [CRAFTED])
    assert found.hardware == "1 x NVIDIA H200, torch 2.11.0"
    assert [row["batch"] for row in measured(request, device_of("h100"), tmp_path).training] == [512]
    assert measured(request, device_of("cpu"), tmp_path) == Measured()
    deep = dataclasses.replace(request, model_kwargs={"depth": 2})
    assert measured(deep, H200, tmp_path).training == [others[2]]


def test_the_nearest_batch_within_twice_or_half() -> None:
    rows = [TRAINED, {**TRAINED, "batch": 512, "images_per_second": 256_000.0}, {**TRAINED, "precision": "float32", "batch": 4}]
    found = Measured("", rows, [])
    assert found.training_seconds(128) == pytest.approx(0.001)
    assert found.training_seconds(200) == pytest.approx(200 / 128_000)
    assert found.training_seconds(300) == pytest.approx(300 / 256_000)
    assert found.training_seconds(1024) == pytest.approx(1024 / 256_000)
    assert [found.training_seconds(batch) for batch in (4, 63, 1025)] == [None] * 3


@pytest.mark.parametrize(
    ("images", "chunk", "derivative", "convolutional", "seconds"),
    [
        (100, 100, "exact", True, 0.05),
        (50, 256, "exact", True, 0.025),
        (100, 256, "exact", False, None),  # products are not in TF32 unless the user allows it
        (100, 32, "exact", True, 0.09),
        (100, 64, "exact", True, None),
        (100, 256, "difference", False, 0.07),
        (300, 300, "exact", True, None),
    ],
)
def test_a_crafting_step(images: int, chunk: int, derivative: str, convolutional: bool, seconds: float | None) -> None:
    rows = [
        CRAFTED,
        {**CRAFTED, "micro_batch": 32, "milliseconds": 90.0},
        {**CRAFTED, "derivative": "difference", "milliseconds": 70.0},
    ]
    found = Measured("", [], rows).crafting_seconds(images, chunk, derivative, convolutional=convolutional)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_hours_of_measured_steps(counts: Counts) -> None:
    request = Request(
        images=1280, epochs=3, device="h200", devices=(1, 8), derivative="exact", surrogates=2, steps=7, num_keys=8
    )
    known = Measured("", [TRAINED], [CRAFTED])
    figures, plain = estimate(request, counts, H200, known), estimate(request, counts, H200)
    assert figures.hours[1].training == pytest.approx(3 * 10 * 0.001 / 3600)
    assert figures.hours[1].measured == ("crafting", "training")
    from taggant_lightning.planning.estimate import signing_of

    fixed = H200.signing.seconds(key_fixed(counts, 100, signing_of(request)))
    assert figures.hours[1].crafting == pytest.approx(8 * (7 * 0.05 + fixed) / 3600)
    # Sixteen images each on eight devices were not measured; a key on each was.
    assert figures.hours[8].measured == ("crafting",)
    assert figures.hours[8].training == plain.hours[8].training
    assert plain.hours[1].measured == ()
    # Ten keys on eight devices: the last two are crafted by four devices each, on shares that were not measured.
    more = dataclasses.replace(request, num_keys=10)
    assert estimate(more, counts, H200, known).hours[8] == estimate(more, counts, H200).hours[8]


def test_what_is_shipped() -> None:
    assert [path.name for path in FOLDER.iterdir()] == ["h200.json"]
    for preset in ("cifar100-resnet18", "cifar100-vit-tiny", "imagenet-vit-s", "imagenet-resnet50"):
        request = request_of(preset, {"device": "h200"})
        found = measured(request, H200)
        assert found.training
        assert len(found.crafting) == 5
        assert measured(request, device_of("a100")) == Measured()
    assert found.training_seconds(256) == pytest.approx(256 / 4678)


@pytest.mark.slow
def test_a_plan_says_what_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "--preset",
        "cifar100-resnet18",
        "--derivative",
        "exact",
        "--images-per-key",
        "200",
        "--devices",
        "1",
        "64",
    ]
    assert main([*words, "--device", "h200", "--json", str(tmp_path / "plan.json")]) == 0
    shown = capsys.readouterr().out
    lines = [line.split()[-2:] for line in shown.splitlines() if line.startswith("    its steps")]
    assert lines == [["measured", "estimated"]] * 2
    assert "Measured: steps of crafting and training, on 1 x NVIDIA H200, torch 2.11.0" in shown
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["hours"]["1"]["measured"] == ["crafting", "training"]
    assert figures["hours"]["1"]["training"] == pytest.approx(200 * 391 * 128 / 19109.01 / 3600)
    assert main([*words, "--device", "a100"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("estimated") == 4
    assert "Measured:" not in shown


def test_files_of_another_form_and_without_rows(tmp_path: Path) -> None:
    write(tmp_path, [TRAINED], [CRAFTED])
    write(tmp_path, [{**TRAINED, "model_name": "other"}], [], hardware="8 x NVIDIA H200 NVL")
    assert measured(Request(), H200, tmp_path).hardware == "1 x NVIDIA H200, torch 2.11.0"  # not that of rows of other models
    (tmp_path / "9.json").write_text("{}")
    with pytest.raises(TaggantError, match="9.json lacks hardware, versions, training, crafting; put files of"):
        measured(Request(), H200, tmp_path)
