"""Augmentation recipes as pure functions of images and of uniform numbers, all but one of them twice differentiable.

The randomness comes in as numbers, a row an image, so that the same image in the same epoch is augmented alike on any number
of processes, after any resume and behind any loader. `augment` takes them to the images' device; its parts expect them there.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from taggant_lightning.data.resize import centre
from taggant_lightning.errors import TaggantError

Recipe = Literal["none", "simple", "three_augment", "resized_crop", "resized_three_augment", "cutout", "auto_augment"]
# Uniform numbers that one image needs.
NUMBERS: dict[str, int] = {
    "none": 0,
    "simple": 3,
    "three_augment": 8,
    "resized_crop": 5,
    "resized_three_augment": 10,
    "cutout": 5,
    "auto_augment": 5,
}
TRAINING_ONLY = ("auto_augment",)  # works on bytes, so that no derivative passes
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random resized crop


def check_recipe(recipe: str) -> str:
    """Return the recipe's name.

    Raises:
        TaggantError: If it is unknown.
    """
    if recipe not in get_args(Recipe):
        raise TaggantError(f"augment={recipe!r} is unknown; write one of {', '.join(get_args(Recipe))}")
    return recipe


def check_differentiable(recipe: str) -> str:
    """Return the recipe's name.

    Raises:
        TaggantError: If it is unknown, or derivatives do not pass through it.
    """
    if check_recipe(recipe) in TRAINING_ONLY:
        usable = ", ".join(name for name in get_args(Recipe) if name not in TRAINING_ONLY)
        raise TaggantError(
            f"augment={recipe!r} works on bytes, and crafting needs derivatives; write one of {usable} for "
            "TaggantSigning's own augment (the data may keep theirs)"
        )
    return recipe


def crop_flip(images: Tensor, u: Tensor, size: int | None = None) -> Tensor:
    """Take a crop at a random place and mirror half of the images.

    Args:
        images: (N, C, H, W) float or uint8: bytes are a quarter of the work, and come out as the same pixels.
        u: (N, 3) float in [0, 1): vertical place, horizontal place, mirror.
        size: Side of the crop; None keeps (H, W). Images of that side are shifted by up to an eighth of it (reflected border).

    Returns:
        (N, C, H, W), or (N, C, size, size).
    """
    tall, wide = images.shape[2:]
    height, width = (tall, wide) if size is None else (size, size)
    border = max(1, min(height, width) // 8) if (tall, wide) == (height, width) else 0
    down, across = (tall + 2 * border - height + 1, wide + 2 * border - width + 1)  # places
    # Few operations: on a GPU, a batch of small images costs what starting them costs.
    device = images.device
    drawn = (u * _numbers(device, down, across, 2)).long()
    rows = _rows(device, tall, height, border)[drawn[:, 0]]
    which = drawn[:, 1] + across * drawn[:, 2]
    if images.requires_grad:  # by index, whose derivative is deterministic on CUDA; gather's is not
        columns = _columns(device, wide, width, border, 1)[which]
        item = torch.arange(len(images), device=device)[:, None, None]
        return images[item, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    channels = images.shape[1]
    places = torch.add(_columns(device, wide, width, border, channels)[which][:, None], rows[:, :, None], alpha=wide * channels)
    taken = images.permute(0, 2, 3, 1).flatten(1).gather(1, places.flatten(1))
    return taken.view(-1, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _numbers(device: torch.device, *values: float) -> Tensor:
    """Return numbers as a tensor of a device, made once: to make it there at each step would wait for the device."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)


@lru_cache(maxsize=16)
def _rows(device: torch.device, side: int, length: int, border: int) -> Tensor:
    """Return the rows that a crop at each place takes, (places, length) int64, those beyond the border reflected."""
    with torch.inference_mode(False):
        places = torch.arange(side + 2 * border - length + 1, device=device)[:, None]
        return _reflected(places - border + torch.arange(length, device=device), side)


@lru_cache(maxsize=16)
def _columns(device: torch.device, side: int, length: int, border: int, channels: int) -> Tensor:
    """Return the same for columns of pixels that lie channels last, (2·places, length·channels): mirrored first."""
    with torch.inference_mode(False):
        rows = _rows(device, side, length, border)
        pixels = torch.cat([rows.flip(1), rows])[:, :, None] * channels
        return (pixels + torch.arange(channels, device=device)).flatten(1)


def _reflected(places: Tensor, side: int) -> Tensor:
    """Fold places beyond the border back, as reflecting padding does; that has no deterministic derivative on CUDA."""
    return ((side - 1) - ((side - 1) - places.abs()).abs()).clamp(min=0)  # an image of one pixel has no other to reflect


def resized_crop(images: Tensor, u: Tensor, size: int) -> Tensor:
    """Take a crop of random area (8 to 100 %) and aspect ratio (3/4 to 4/3), scale it to a square, mirror half of the images.

    The random resized crop of ImageNet training, with a side that would be too long cut instead of drawn anew. Scaling
    is linear and antialiased; a matrix an image and direction, so that derivatives do not depend on the order of additions.

    Args:
        images: (N, C, H, W) float.
        u: (N, 5) float in [0, 1): area, aspect ratio, vertical place, horizontal place, mirror.
        size: Side of the result.

    Returns:
        (N, C, size, size).
    """
    u = u.to(images.dtype)
    height, width = images.shape[2:]
    area = (AREA[0] + (AREA[1] - AREA[0]) * u[:, 0]) * height * width
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * u[:, 1])
    rows, columns = (area / ratio).sqrt().clamp(max=height), (area * ratio).sqrt().clamp(max=width)
    down = _resampling((height - rows) * u[:, 2], rows, height, size)
    across = _resampling((width - columns) * u[:, 3], columns, width, size)
    across = torch.where(u[:, 4].view(-1, 1, 1) < 0.5, across.flip(1), across)
    return down[:, None] @ images @ across[:, None].transpose(2, 3)


def _resampling(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Return the weights (N, size, side) with which `size` points in start..start+length (N,) take up `side` pixels."""
    scale = (length / size).view(-1, 1, 1)
    places = torch.arange(size, device=start.device, dtype=start.dtype).view(1, -1, 1) + 0.5
    pixels = torch.arange(side, device=start.device, dtype=start.dtype) + 0.5
    distance = (pixels - (start.view(-1, 1, 1) + places * scale)).abs() / scale.clamp(min=1)
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None].expand_as(images)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own Gaussian of standard deviation sigma (N,), in pixels, kernel cut at 5 pixels.

    Two products with a matrix an image and direction, the reflected border folded in: a convolution of as many groups as
    images is slower by far, and the product's derivative is deterministic.
    """
    radius = min(5, images.shape[-1] - 1, images.shape[-2] - 1)
    tall, wide = images.shape[2:]
    offsets = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    down = _spread(kernel, radius, tall)
    across = down if tall == wide else _spread(kernel, radius, wide)
    return down[:, None] @ images @ across[:, None].transpose(2, 3)


def _spread(kernel: Tensor, radius: int, side: int) -> Tensor:
    """Return the weights (N, side, side) with which pixels along one direction take up neighbours, by kernels (N, taps)."""
    return (kernel @ _taps(kernel.device, kernel.dtype, radius, side)).view(len(kernel), side, side)


@lru_cache(maxsize=16)
def _taps(device: torch.device, dtype: torch.dtype, radius: int, side: int) -> Tensor:
    """Return 1 where a tap of the kernel at a pixel meets a neighbour, the border reflected, (taps, side·side)."""
    with torch.inference_mode(False):
        pixels = torch.arange(side, device=device)
        places = _reflected(pixels[:, None] + torch.arange(-radius, radius + 1, device=device), side)  # (side, taps)
        return (places.T[:, :, None] == pixels).to(dtype).flatten(1)


def three_augment(images: Tensor, u: Tensor) -> Tensor:
    """Take one of grey, solarise (above 0.5) and blur (σ 0.08 to 1 pixel), then jitter colours by 0.3.

    The 3-Augment of DeiT III (Touvron et al., 2022) without its crop.

    Args:
        images: (N, C, H, W) float in [0, 1].
        u: (N, 5) float in [0, 1): choice, σ, brightness, contrast, saturation.

    Returns:
        (N, C, H, W) in [0, 1].
    """
    u = u.to(images.dtype)
    choice = (u[:, 0] * 3).long().view(-1, 1, 1, 1)
    solarised = torch.where(images >= 0.5, 1 - images, images)
    blurred = _blur(images, 0.08 + 0.92 * u[:, 1])
    images = torch.where(choice == 0, _grey(images), torch.where(choice == 1, solarised, blurred))
    factors = (0.7 + 0.6 * u[:, 2:5]).view(-1, 3, 1, 1)
    images = (images * factors[:, 0:1]).clamp(0, 1)
    mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    images = (mean + (images - mean) * factors[:, 1:2]).clamp(0, 1)
    grey = _grey(images)
    return (grey + (images - grey) * factors[:, 2:3]).clamp(0, 1)


def cutout(images: Tensor, u: Tensor) -> Tensor:
    """Put a mid-grey square of half the side at a random place of each image; it may reach over the border.

    The grey is what normalisation in the model takes to about zero (DeVries & Taylor, 2017).

    Args:
        images: (N, C, H, W) float in [0, 1].
        u: (N, 2) float in [0, 1): vertical and horizontal place of the square's middle.

    Returns:
        (N, C, H, W) in [0, 1].
    """
    inside = []
    for axis, length in enumerate(images.shape[2:]):
        side = max(1, length // 2)
        start = (u[:, axis, None] * length).long() - side // 2
        places = torch.arange(length, device=images.device)
        inside.append((places >= start) & (places < start + side))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(square, 0.5, images)


def auto_augment(images: Tensor, u: Tensor) -> Tensor:
    """Change colours and geometry by AutoAugment's policy for CIFAR-10 (Cubuk et al., 2019), torchvision's, on bytes.

    Torchvision draws from torch's own generator on the CPU. So that an image's augmentation depends on its numbers alone, that
    generator is seeded by them for each image, and put back afterwards.

    Args:
        images: (N, C, H, W) float in [0, 1]; derivatives do not pass.
        u: (N, 2) float in [0, 1), the seed.

    Returns:
        (N, C, H, W) in [0, 1], multiples of 1/255.
    """
    from torchvision.transforms import v2

    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    stored = (images.detach() * 255).round().to(torch.uint8)
    words = (u.double() * 2**24).long().tolist()  # float32 has 24 bits below 1
    changed = []
    with torch.random.fork_rng(devices=[]):
        for image, (high, low) in zip(stored, words, strict=True):
            torch.default_generator.manual_seed((high << 24) + low)  # torch.manual_seed would touch the accelerators' as well
            changed.append(policy(image))
    return torch.stack(changed).to(images.dtype) / 255


# What each recipe does first, and how many numbers that takes; what it does then takes the rest.
_CROPS: dict[str, tuple[Callable[[Tensor, Tensor, int], Tensor], int]] = {
    "simple": (crop_flip, 3),
    "three_augment": (crop_flip, 3),
    "resized_crop": (resized_crop, 5),
    "resized_three_augment": (resized_crop, 5),
    "cutout": (crop_flip, 3),
    "auto_augment": (crop_flip, 3),
}
_THEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "three_augment": three_augment,
    "resized_three_augment": three_augment,
    "cutout": cutout,
    "auto_augment": auto_augment,
}


def augment(images: Tensor, u: Tensor, recipe: str, size: int) -> Tensor:
    """Apply a recipe.

    Args:
        images: (N, C, L, L) float in [0, 1].
        u: (N, NUMBERS[recipe]) float in [0, 1).
        recipe: `none` (the centre), `simple` (a crop and a flip), `three_augment`, or these two with a random resized crop:
            `resized_crop`, `resized_three_augment`; `cutout` (a crop, a flip and a grey square) or `auto_augment` (a crop, a
            flip and AutoAugment).
        size: Side S of the result, at most L.

    Returns:
        (N, C, S, S) float in [0, 1], differentiable with respect to `images` unless the recipe is one of `TRAINING_ONLY`.

    Raises:
        TaggantError: If the recipe is unknown.
    """
    if check_recipe(recipe) == "none":
        return centre(images, size)
    images, rest = _cropped(images, u, recipe, size)
    return _THEN[recipe](images, rest) if recipe in _THEN else images


def augment_bytes(images: Tensor, u: Tensor, recipe: str, size: int) -> Tensor:
    """Apply a recipe to bytes (N, C, L, L), as `augment` does, and return what a model takes: float, channels last."""
    if check_recipe(recipe) == "none":
        return channels_last(centre(images, size))
    images, rest = _cropped(images, u, recipe, size)
    return channels_last(_THEN[recipe](in_unit_range(images), rest) if recipe in _THEN else images)


def _cropped(images: Tensor, u: Tensor, recipe: str, size: int) -> tuple[Tensor, Tensor]:
    """Apply a recipe's crop, to bytes where it can; return the numbers that are left for what comes then."""
    crop, count = _CROPS[recipe]
    u = u.to(images.device, non_blocking=True)  # a copy that blocks would wait for all that a GPU still has to do
    return crop(images if crop is crop_flip else in_unit_range(images), u[:, :count], size), u[:, count:]


def in_unit_range(images: Tensor) -> Tensor:
    """Turn bytes into float32 in [0, 1], the same numbers on every device; float images stay as they are.

    The divisor is a tensor of the device: CUDA multiplies by the reciprocal of a number of the host, which is not the same.
    """
    return images if images.is_floating_point() else images / _full(images.device)


def channels_last(images: Tensor) -> Tensor:
    """Return float images in [0, 1] that lie channels last, which convolutions are faster on; bytes become that on the way."""
    if images.is_floating_point():
        return images.contiguous(memory_format=torch.channels_last)
    if images.is_contiguous(memory_format=torch.channels_last):
        return in_unit_range(images)
    laid = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    return torch.div(images, _full(images.device), out=laid)


def _full(device: torch.device) -> Tensor:
    return _numbers(device, 255.0)
