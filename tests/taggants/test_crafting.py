"""Crafting one key: bounds, micro-batches, ragged shapes, rounds, restarts, the perceptual term."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from taggant_lightning.taggants.crafting import Settings, craft_key
from taggant_lightning.taggants.objective import SigningImages, Surrogate
from taggant_lightning.taggants.perceptual import Perceptual
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
    image_size=6,
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


@pytest.mark.parametrize("augment", ["none", "simple", "three_augment"])
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
