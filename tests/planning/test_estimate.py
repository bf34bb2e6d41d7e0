"""Teams of devices, what more of anything costs, rates, and what a plan refuses."""

import dataclasses

import pytest

from taggant_lightning.errors import TaggantError
from taggant_lightning.planning.building import build_model
from taggant_lightning.planning.counting import Work
from taggant_lightning.planning.devices import DEVICES, Rates, device_of
from taggant_lightning.planning.estimate import candidates, crafting_seconds, estimate, signing_of, teams
from taggant_lightning.planning.fitting import fit_rates, relative_errors
from taggant_lightning.planning.request import PRESETS, Request, parse_options, request_of
from taggant_lightning.planning.steps import Counts, count_model


@pytest.fixture(scope="module")
def counts() -> Counts:
    model = build_model("small_cnn", image_size=32, channels=3, num_classes=100, options={})
    return count_model(model, (3, 32, 32))


@pytest.mark.parametrize(
    ("keys", "devices", "waves"),
    [(10, 1, (10, 0)), (10, 3, (3, 3)), (10, 8, (1, 4)), (10, 10, (1, 0)), (10, 64, (0, 6)), (10, 7, (1, 2)), (3, 64, (0, 21))],
)
def test_keys_in_waves(keys: int, devices: int, waves: tuple[int, int]) -> None:
    assert teams(keys, devices) == waves


def test_a_team_has_no_device_without_an_image(counts: Counts) -> None:
    signing = signing_of(Request(num_keys=1, images_per_key=8))
    device = device_of("h100")
    alone, everyone = (crafting_seconds(counts, device, signing, 1, n) for n in (8, 500))
    assert everyone >= alone  # one image each in both; 500 devices of several nodes exchange no faster


def test_more_devices_are_never_slower_at_crafting_inside_a_node(counts: Counts) -> None:
    signing = signing_of(Request(num_keys=11, images_per_key=1000))
    seconds = [crafting_seconds(counts, device_of("a100"), signing, 11, n) for n in range(1, 9)]
    assert seconds == sorted(seconds, reverse=True)


@pytest.mark.parametrize("name", ["num_keys", "images_per_key", "steps", "restarts", "surrogates", "epochs", "images"])
def test_more_of_anything_costs_more(name: str, counts: Counts) -> None:
    base = Request(devices=(1, 4))
    more = dataclasses.replace(base, **{name: 2 * getattr(base, name)})
    for device in DEVICES.values():
        before, after = (estimate(r, counts, device) for r in (base, more))
        assert sum(after.flops.values()) >= sum(before.flops.values())
        for n in base.devices:
            assert dataclasses.astuple(after.hours[n])[1:4] != dataclasses.astuple(before.hours[n])[1:4]
            for stage in ("selection", "crafting", "training", "detection"):
                assert getattr(after.hours[n], stage) >= getattr(before.hours[n], stage)


def test_training_by_hand(counts: Counts) -> None:
    request = Request(images=1000, epochs=3, batch_size=64, devices=(1, 2), images_per_key=10)
    device = dataclasses.replace(device_of("h100"), training=Rates(0, 0, 0, 1e-12, 0), inside=1e9)
    figures = estimate(request, counts, device)
    steps = 3 * 16
    each = counts.training.of(64).moved * 1e-12
    assert figures.hours[1].training == pytest.approx(steps * each / 3600)
    exchange = 2 * 4 * counts.parameters / 2 / 1e9
    assert figures.hours[2].training == pytest.approx(steps * (counts.training.of(32).moved * 1e-12 + exchange) / 3600)
    assert figures.flops["training"] == pytest.approx(steps * counts.training.of(64).flops)
    assert figures.disk["dataset"] == 1000 * 3 * 32 * 32
    assert figures.disk["checkpoint"] == 12 * counts.parameters


def test_selection_counts_the_classes_that_keys_cover() -> None:
    assert candidates(Request(selection="random")) == 0
    assert candidates(Request(num_keys=1, images=10_000, num_classes=100)) == 100
    assert candidates(Request(num_keys=2, images=10_000, num_classes=2)) == 1.5 * 5000


def test_rates_are_recovered() -> None:
    rates = Rates(2e-11, 4e-11, 1e-11, 3e-10, 5e-6)
    works = [
        Work(1e9, 2e8, 3e7, 100),
        Work(0, 5e9, 2e8, 900),
        Work(0, 4e9, 0, 0, 5e8, 50),
        Work(0, 1e6, 9e9, 1e6, 1e6, 2000),
        Work(0, 1e9, 1e9, 1e9, 1e9, 9),
    ]
    seconds = [rates.seconds(work) for work in works]
    found = fit_rates(works, seconds)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(rates), rel=1e-6)
    assert max(map(abs, relative_errors(found, works, seconds))) < 1e-6
    with pytest.raises(ValueError, match="five or more"):
        fit_rates(works[:4], seconds[:4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0}, "images=0 must be at least 1"),
        ({"num_classes": 1}, "num-classes=1 must be at least 2"),
        ({"devices": ()}, r"devices=\[\] must be whole numbers from 1"),
        ({"devices": (1, 256)}, "batch-size=128 gives 256 devices less than an image each"),
        ({"num_keys": 1000}, "num-keys=1000 times images-per-key=100 is more than images=50000"),
        ({"selection": "hard"}, "selection='hard' is unknown; write one of gradient_norm, random"),
        ({"derivative": "none"}, "derivative='none' is unknown"),
    ],
)
def test_bad_requests(change: dict, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        request_of(None, change)


def test_bad_presets_devices_and_options() -> None:
    with pytest.raises(TaggantError, match="preset='mnist' is unknown; write one of cifar100-resnet18"):
        request_of("mnist", {})
    with pytest.raises(TaggantError, match="device='tpu' is unknown; write one of a100, h100, h200, cpu"):
        device_of("tpu")
    for text in ("[1]", "{", "patch"):
        with pytest.raises(TaggantError, match="is no JSON object"):
            parse_options(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "mine"}, "model_name='mine' is unknown"),
        ({"name": "mine", "options": {"a": 1}}, "model_name='mine' is unknown"),
        ({"options": {"depth": 3}}, "are for timm models, and small_cnn is not one"),
        (
            {"name": "vit_tiny_patch16_224", "options": {"nonsense": 3}},
            "'nonsense': 3} do not suit vit_tiny",
        ),
    ],
)
def test_bad_models(change: dict, message: str) -> None:
    wanted = {"name": "small_cnn", "image_size": 32, "channels": 3, "num_classes": 10, "options": {}}
    with pytest.raises(TaggantError, match=message):
        build_model(**{**wanted, **change})


def test_presets_are_requests_and_another_model_drops_their_options() -> None:
    for name in PRESETS:
        assert request_of(name, {}).devices == (1, 8, 64)
    assert request_of("cifar100-vit-tiny", {"model": "small_cnn"}).model_kwargs == {}
    assert request_of("cifar100-vit-tiny", {"epochs": 7}).epochs == 7
