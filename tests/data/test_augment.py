"""Augmentation: what it does, and that it can be differentiated twice."""

import pytest
import torch

from taggant_lightning.data.augment import (
    NUMBERS,
    augment,
    auto_augment,
    check_differentiable,
    crop_flip,
    cutout,
    resized_crop,
    three_augment,
)
from taggant_lightning.data.resize import fit
from taggant_lightning.errors import TaggantError
from taggant_lightning.streams import lattice, stream, uniforms


def test_crop_flip_against_a_loop() -> None:
    images, u = torch.rand(6, 3, 16, 16), torch.rand(6, 3)
    for image, numbers, result in zip(images, u, crop_flip(images, u), strict=True):
        padded = torch.nn.functional.pad(image[None], (2, 2, 2, 2), mode="reflect")[0]
        y, x = int(numbers[0] * 5), int(numbers[1] * 5)
        expected = padded[:, y : y + 16, x : x + 16]
        assert torch.equal(result, expected.flip(-1) if numbers[2] < 0.5 else expected)


@pytest.mark.parametrize("shape", [(16, 16), (9, 5), (3, 20)])
def test_blur_against_padding(shape: tuple[int, int]) -> None:
    images, u = torch.rand(4, 3, *shape, dtype=torch.float64), torch.full((4, 5), 0.5, dtype=torch.float64)
    u[:, 0], u[:, 1] = 0.9, torch.linspace(0, 1, 4)  # blur each, and leave the colours as they are
    radius = min(5, *(side - 1 for side in shape))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    for image, numbers, result in zip(images, u, three_augment(images, u), strict=True):
        line = torch.exp(-0.5 * (offsets / (0.08 + 0.92 * numbers[1])) ** 2)
        kernel = torch.outer(line, line) / line.sum() ** 2
        padded = torch.nn.functional.pad(image[:, None], (radius, radius, radius, radius), mode="reflect")
        torch.testing.assert_close(result, torch.nn.functional.conv2d(padded, kernel[None, None])[:, 0])


@pytest.mark.parametrize("recipe", [name for name in NUMBERS if name != "none"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (3, 2, 2)])
def test_images_of_a_pixel_or_two(recipe: str, shape: tuple[int, int, int]) -> None:
    found = augment(torch.rand(8, *shape), torch.rand(8, NUMBERS[recipe]), recipe, shape[-1])
    assert found.shape == (8, *shape)
    assert found.isfinite().all()


def test_a_smaller_crop_is_cut_out_at_any_place() -> None:
    images, u = torch.rand(8, 3, 11, 14), torch.rand(8, 3)
    for image, numbers, result in zip(images, u, crop_flip(images, u, 7), strict=True):
        y, x = int(numbers[0] * 5), int(numbers[1] * 8)
        expected = image[:, y : y + 7, x : x + 7]
        assert torch.equal(result, expected.flip(-1) if numbers[2] < 0.5 else expected)


def test_resized_crop_against_pixels_weighed_one_by_one() -> None:
    images, u, size = torch.rand(5, 2, 13, 10, dtype=torch.float64), torch.rand(5, 5, dtype=torch.float64), 6
    found = resized_crop(images, u, size)
    for image, numbers, result in zip(images, u.tolist(), found, strict=True):
        area, ratio = (0.08 + 0.92 * numbers[0]) * 130, (3 / 4) * (16 / 9) ** numbers[1]
        rows, columns = min((area / ratio) ** 0.5, 13), min((area * ratio) ** 0.5, 10)
        top, left = (13 - rows) * numbers[2], (10 - columns) * numbers[3]
        for i in range(size):
            for j in range(size):
                total, mass = torch.zeros(2, dtype=torch.float64), 0.0
                for y in range(13):
                    for x in range(10):
                        dy = abs(y + 0.5 - top - (i + 0.5) * rows / size) / max(1, rows / size)
                        dx = abs(x + 0.5 - left - (j + 0.5) * columns / size) / max(1, columns / size)
                        weight = max(0, 1 - dy) * max(0, 1 - dx)
                        total, mass = total + weight * image[:, y, x], mass + weight
                torch.testing.assert_close(result[:, i, size - 1 - j if numbers[4] < 0.5 else j], total / mass)


def test_resized_crop_of_everything_is_the_image() -> None:
    images = torch.rand(2, 3, 8, 8)
    u = torch.tensor([[1.0, 0.5, 0.3, 0.3, 0.9], [1.0, 0.5, 0.3, 0.3, 0.1]])
    found = resized_crop(images, u, 8)
    torch.testing.assert_close(found[0], images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], images[1].flip(-1), atol=1e-5, rtol=0)


RECIPES = ["simple", "three_augment", "resized_crop", "resized_three_augment", "cutout"]
EVERY = [*RECIPES, "auto_augment"]


@pytest.mark.parametrize("recipe", ["none", *EVERY])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [12, 9])
def test_recipes_keep_shape_and_range(recipe: str, channels: int, size: int) -> None:
    images = torch.rand(9, channels, 12, 12)
    result = augment(images, torch.rand(9, NUMBERS[recipe]), recipe, size)
    assert result.shape == (9, channels, size, size)
    assert 0 <= result.min() <= result.max() <= 1 + 1e-6
    cut = (12 - size) // 2
    assert torch.equal(result, images[:, :, cut : cut + size, cut : cut + size]) == (recipe == "none")


@pytest.mark.parametrize("recipe", EVERY)
def test_recipes_treat_each_image_alone(recipe: str) -> None:
    images, u = torch.rand(5, 3, 12, 12), torch.rand(5, NUMBERS[recipe])
    whole = augment(images, u, recipe, 12)
    for i in range(5):
        torch.testing.assert_close(augment(images[i : i + 1], u[i : i + 1], recipe, 12)[0], whole[i])


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_differentiable(recipe: str) -> None:
    torch.manual_seed(0)
    images = (0.1 + 0.3 * torch.rand(3, 3, 8, 8, dtype=torch.float64)).requires_grad_()  # away from the kinks at 0, 0.5 and 1
    u = torch.rand(3, NUMBERS[recipe])
    assert torch.autograd.gradcheck(lambda x: augment(x, u, recipe, 8), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: augment(x, u, recipe, 8) ** 2, images, fast_mode=True)


def test_cutout_against_a_loop() -> None:
    images = torch.rand(20, 3, 8, 7)
    u = torch.rand(20, 2)
    u[0], u[1] = torch.tensor([0.0, 0.0]), torch.tensor([1 - 2**-24, 1 - 2**-24])
    for image, numbers, result in zip(images, u, cutout(images, u), strict=True):
        top, left = int(numbers[0] * 8) - 2, int(numbers[1] * 7) - 1
        expected = image.clone()
        expected[:, max(0, top) : top + 4, max(0, left) : left + 3] = 0.5
        assert torch.equal(result, expected)


def test_auto_augment_follows_its_numbers_and_leaves_the_generator_alone() -> None:
    images, u = torch.randint(0, 256, (12, 3, 10, 10)) / 255, torch.rand(12, 2)
    torch.manual_seed(1)
    first = auto_augment(images, u)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(99)
    assert torch.equal(auto_augment(images, u), first)
    assert torch.equal((first * 255).round() / 255, first)
    assert not torch.equal(auto_augment(images, torch.rand(12, 2)), first)
    assert (first != images).flatten(1).any(dim=1).sum() >= 6


def test_what_crafting_cannot_use() -> None:
    assert [check_differentiable(recipe) for recipe in RECIPES] == RECIPES
    with pytest.raises(
        TaggantError, match="augment='auto_augment' works on bytes, and crafting needs derivatives; write one of none"
    ):
        check_differentiable("auto_augment")
    with pytest.raises(TaggantError, match="augment='strong' is unknown"):
        check_differentiable("strong")


def test_unknown_recipe() -> None:
    with pytest.raises(TaggantError, match="augment='strong' is unknown; write one of none, simple, three_augment"):
        augment(torch.rand(1, 3, 8, 8), torch.rand(1, 3), "strong", 8)


def test_fit_resizes_crops_and_passes_gradients() -> None:
    images = torch.rand(2, 3, 20, 30, dtype=torch.float64, requires_grad=True)
    result = fit(images, 10)
    assert result.shape == (2, 3, 10, 10)
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.autograd.gradcheck(lambda x: fit(x, 10), images, fast_mode=True)
    same = torch.rand(1, 3, 10, 10)
    assert fit(same, 10) is same
    assert torch.equal(fit(same[..., :8, :], 8), same[..., :8, 1:9])
    constant = torch.full((1, 1, 7, 9), 0.25)
    torch.testing.assert_close(fit(constant, 16), torch.full((1, 1, 16, 16), 0.25))


def test_streams_are_keyed_and_independent_of_company() -> None:
    alone = uniforms(1, "a", torch.tensor([7]), 4, 3)
    together = uniforms(1, "a", torch.tensor([2, 7, 9]), 4, 3)
    assert torch.equal(alone[0], together[1])
    assert not torch.equal(uniforms(1, "a", torch.tensor([7]), 4, 4), alone)
    assert not torch.equal(uniforms(1, "b", torch.tensor([7]), 4, 3), alone)
    assert not torch.equal(uniforms(2, "a", torch.tensor([7]), 4, 3), alone)
    long = stream(0, "x", 1).random(5000)
    assert not set(long[:4000]) & set(stream(0, "x", 2).random(4000))
    assert uniforms(0, "a", torch.arange(0), 3).shape == (0, 3)
    with pytest.raises(ValueError, match="at most three"):
        stream(0, "x", 1, 2, 3, 4)


def test_lattice_is_uniform_and_settles_sooner() -> None:
    ids = torch.arange(400)
    starts = uniforms(1, "a", ids, 3)
    steps = torch.stack([lattice(starts, position) for position in range(100)])
    assert steps.shape == (100, 400, 3)
    assert 0 <= steps.min() <= steps.max() < 1
    # At one position the numbers of different items are uniform: each tenth holds about a tenth.
    counts = torch.histc(steps[17].flatten(), 10, 0, 1)
    assert (counts - 120).abs().max() < 4 * 120**0.5
    assert torch.equal(lattice(starts[[7, 3]], 5), steps[5, [7, 3]])
    assert torch.equal(lattice(starts, 0), starts)
    # Over as many positions as crafting has steps, each number's mean lies nearer to a half than that of independent draws.
    independent = torch.stack([uniforms(1, "a", ids, 3, position) for position in range(100)])
    assert (steps.mean(dim=0).std(dim=0) < 0.7 * independent.mean(dim=0).std(dim=0)).all()
    assert steps.mean(dim=0).std() < 0.5 * independent.mean(dim=0).std()
