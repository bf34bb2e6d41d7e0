"""Crafting one key: bounds, micro-batches, ragged shapes, rounds, restarts, the perceptual term."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from taggant_lightning.methods.taggants.crafting.crafting import Settings, craft_key
from taggant_lightning.methods.taggants.crafting.objective import SigningImages, Surrogate
from taggant_lightning.models.perceptual import Perceptual
from tests.conftest import TwoLayers

SETTINGS = Settings(
    eps=16 / 255,
    steps=12,
    optimizer="sign_adam",
    lr=0.25,
    schedule="cosine",
    init="uniform",
    restarts=1,
    derivative="exact",
    ensemble="mean",
    micro_batch=100,
    precision="32-true",
    image_size=6,
    load_size=6,
    augment="none",
    perceptual_weight=0.0,
    seed=3,
)
CPU = torch.device("cpu")


def images(shapes: list[tuple[int, int, int]] | None = None) -> SigningImages:
    rng = np.random.default_rng(0)
    shapes = shapes or [(3, 6, 6)] * 5
    return SigningImages.of(range(10, 10 + len(shapes)), [rng.integers(0, 256, s, dtype=np.uint8) for s in shapes], label=1)


def surrogate(seed: int = 0) -> Surrogate:
    torch.manual_seed(seed)
    model = TwoLayers().eval()
    return Surrogate(model, list(model.parameters()))


KEY = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(9))


def test_cosine_rises_and_bounds_hold() -> None:
    start = craft_key(images(), KEY, [surrogate()], replace(SETTINGS, steps=1, lr=1e-9), key=0, device=CPU)
    seen: list[float] = []
    crafted = craft_key(
        images(), KEY, [surrogate()], SETTINGS, key=0, device=CPU, on_step=lambda cosine, deltas: seen.append(cosine)
    )
    assert 1 - crafted.cosine < 0.8 * (1 - start.cosine)
    assert len(seen) == 12
    for steps, pixels in zip(crafted.steps, images().pixels, strict=True):
        assert steps.abs().max() <= 16
        assert 0 <= (pixels + steps).min() <= (pixels + steps).max() <= 255


def test_surrogate_is_left_as_it_was() -> None:
    s = surrogate()
    before = [p.clone() for p in s.parameters]
    state = torch.get_rng_state()
    craft_key(images(), KEY, [s], replace(SETTINGS, augment="simple"), key=0, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(before, s.parameters, strict=True))
    assert all(p.grad is None for p in s.parameters)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("augment", ["none", "simple", "three_augment", "resized_crop"])
def test_micro_batches_equal_the_whole(augment: str) -> None:
    s = surrogate()
    s.model.double()
    runs = [
        craft_key(images(), KEY, [s], replace(SETTINGS, micro_batch=size, augment=augment), key=0, device=CPU)
        for size in (1, 2, 100)
    ]
    for other in runs[1:]:
        equal = np.mean([(a == b).float().mean().item() for a, b in zip(runs[0].steps, other.steps, strict=True)])
        assert equal > 0.99
        assert other.cosine == pytest.approx(runs[0].cosine, abs=1e-2)


def test_ragged_images_keep_their_shapes_and_order() -> None:
    shapes = [(3, 6, 6), (3, 9, 7), (3, 6, 6), (3, 12, 8)]
    ragged = images(shapes)
    assert ragged.ids == [10, 12, 11, 13]
    crafted = craft_key(ragged, KEY, [surrogate()], replace(SETTINGS, micro_batch=2), key=0, device=CPU)
    assert [tuple(s.shape) for s in crafted.steps] == [(2, 3, 6, 6), (1, 3, 9, 7), (1, 3, 12, 8)]
    assert all(s.abs().max() > 0 for s in crafted.steps)


def test_a_pass_takes_images_of_all_shapes_together() -> None:
    ragged = images([(3, 6 + i, 7) for i in range(5)])
    sizes: list[int] = []
    s = surrogate()
    s.model.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    crafted = craft_key(ragged, KEY, [s], replace(SETTINGS, micro_batch=3, steps=1), key=0, device=CPU)
    # The key; sum and derivative by chunks of three and two; the score at the end.
    assert sizes == [1, 3, 2, 3, 2, 3, 2]
    whole = craft_key(ragged, KEY, [surrogate()], replace(SETTINGS, micro_batch=9, steps=1), key=0, device=CPU)
    assert all((a - b).abs().max() <= 1 for a, b in zip(crafted.steps, whole.steps, strict=True))


@pytest.mark.parametrize("augment", ["none", "simple", "resized_crop"])
def test_the_surrogate_sees_a_cut_out_of_the_loaded_image(augment: str) -> None:
    seen: list[torch.Tensor] = []
    s = surrogate()
    s.model.register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    settings = replace(SETTINGS, load_size=9, augment=augment, init="zero", steps=1)
    crafted = craft_key(images([(3, 12, 9), (3, 9, 15)]), KEY, [s], settings, key=0, device=CPU)
    assert {tuple(batch.shape[1:]) for batch in seen} == {(3, 6, 6)}
    centre = images([(3, 12, 9), (3, 9, 15)]).images[0][0, :, 2:8, 1:7]
    assert torch.allclose(seen[1][0], centre) == (augment == "none")
    assert all(step.abs().max() > 0 for step in crafted.steps)


def test_bf16_passes_craft_nearly_the_same() -> None:
    full = craft_key(images(), KEY, [surrogate()], SETTINGS, key=0, device=CPU)
    half = craft_key(images(), KEY, [surrogate()], replace(SETTINGS, precision="bf16-mixed"), key=0, device=CPU)
    assert half.cosine == pytest.approx(full.cosine, abs=0.02)
    assert not torch.equal(half.deltas[0], full.deltas[0])
    assert half.deltas[0].dtype == torch.float32


def test_later_round_starts_from_the_earlier_one() -> None:
    first = craft_key(images(), KEY, [surrogate()], SETTINGS, key=0, device=CPU)
    still = replace(SETTINGS, steps=1, lr=1e-9)
    again = craft_key(images(), KEY, [surrogate()], still, key=0, device=CPU, start=first.deltas)
    assert torch.equal(again.steps[0], first.steps[0])


def test_restarts_keep_the_best() -> None:
    one = craft_key(images(), KEY, [surrogate()], replace(SETTINGS, steps=3), key=0, device=CPU)
    several = craft_key(images(), KEY, [surrogate()], replace(SETTINGS, steps=3, restarts=4), key=0, device=CPU)
    assert several.cosine >= one.cosine
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        craft_key(images(), KEY, [surrogate()], replace(SETTINGS, restarts=0), key=0, device=CPU)


def test_several_surrogates_share_the_objective() -> None:
    both = craft_key(images(), KEY, [surrogate(0), surrogate(1)], SETTINGS, key=0, device=CPU)
    alone = craft_key(images(), KEY, [surrogate(0)], SETTINGS, key=0, device=CPU)
    assert not torch.equal(both.steps[0], alone.steps[0])
    other = craft_key(images(), KEY, [surrogate(1)], SETTINGS, key=0, device=CPU)
    assert not torch.equal(both.steps[0], other.steps[0])
    # The cosine of two surrogates is the mean of both, here checked by scoring the stored steps on each.
    still = replace(SETTINGS, steps=1, lr=1e-9)
    stored = [s.float() / 255 for s in both.steps]
    scores = [craft_key(images(), KEY, [surrogate(i)], still, key=0, device=CPU, start=stored).cosine for i in (0, 1)]
    assert both.cosine == pytest.approx(np.mean(scores), abs=1e-5)


def test_keys_and_seeds_have_their_own_randomness() -> None:
    a, b, c = (
        craft_key(images(), KEY, [surrogate()], replace(SETTINGS, seed=seed), key=key, device=CPU)
        for seed, key in ((0, 0), (0, 1), (1, 0))
    )
    assert not torch.equal(a.deltas[0], b.deltas[0])
    assert not torch.equal(a.deltas[0], c.deltas[0])


def test_perceptual_term_lowers_the_distance() -> None:
    torch.manual_seed(0)
    perceptual = Perceptual("squeeze", "random")
    settings = replace(SETTINGS, steps=6)

    def distance(weight: float) -> float:
        crafted = craft_key(
            images(), KEY, [surrogate()], replace(settings, perceptual_weight=weight), key=0, device=CPU, perceptual=perceptual
        )
        original = images().images[0]
        return perceptual(original, original + crafted.steps[0].float() / 255).sum().item()

    assert distance(1e3) < distance(0.0)
