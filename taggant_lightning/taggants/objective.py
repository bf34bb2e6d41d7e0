"""The objective of one key: alignment on one or several surrogates, minus the perceptual distance, and its derivative."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from taggant_lightning.data.augment import NUMBERS, augment
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.resize import fit
from taggant_lightning.streams import lattice, uniforms
from taggant_lightning.taggants.alignment import (
    RELATIVE_STEP,
    Chunk,
    alignment,
    alignment_by_difference,
    cosine,
    summed_gradient,
)
from taggant_lightning.taggants.perceptual import Perceptual
from taggant_lightning.taggants.perturbation import round_straight_through

log = logging.getLogger(__name__)

Derivative = Literal["auto", "exact", "difference"]
Combination = Literal["alternate", "mean"]
# `auto` takes differences where they share this much of the signs with double backward, on this many images of the key.
AGREEMENT, COMPARED_IMAGES = 0.99, 16


@dataclass(frozen=True)
class Surrogate:
    """A model with the parameters that gradients are taken of.

    Attributes:
        model: Maps (N, C, S, S) float in [0, 1] to logits; in evaluation mode.
        parameters: Leaf tensors that require grad.
    """

    model: nn.Module
    parameters: list[nn.Parameter]

    def key_gradient(self, image: Tensor, label: int) -> list[Tensor]:
        """Return ∇_θ of the cross-entropy of one key, image (1, C, S, S) float in [0, 1], without augmentation."""
        target = torch.tensor([label], device=image.device)
        return summed_gradient([lambda: F.cross_entropy(self.model(image), target)], self.parameters)


@dataclass
class SigningImages:
    """The signing images of one key, grouped by stored shape so that each group is one tensor.

    Attributes:
        ids: Source index of each image, group by group.
        pixels: One tensor a group, (n, C, H, W) uint8.
        label: Their common label, the key's.
    """

    ids: list[int]
    pixels: list[Tensor]
    label: int

    @property
    def images(self) -> list[Tensor]:
        """The same images as float in [0, 1], made when asked for: four times as large."""
        return [to_float(group.numpy()) for group in self.pixels]

    @classmethod
    def of(cls, ids: Sequence[int], arrays: Sequence[NDArray[np.uint8]], label: int) -> "SigningImages":
        """Group images (C, H, W) uint8 by shape, groups in order of first appearance."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, array in enumerate(arrays):
            groups.setdefault(array.shape, []).append(place)
        order = [place for places in groups.values() for place in places]
        pixels = [torch.from_numpy(np.stack([arrays[place] for place in places])) for places in groups.values()]
        return cls([int(ids[place]) for place in order], pixels, label)

    def parts(self, size: int) -> Iterator[tuple[int, slice, slice]]:
        """Cut into parts of at most `size` images of one shape: group, rows in the group, rows in `ids`."""
        offset = 0
        for group, pixels in enumerate(self.pixels):
            for start in range(0, len(pixels), size):
                stop = min(start + size, len(pixels))
                yield group, slice(start, stop), slice(offset + start, offset + stop)
            offset += len(pixels)


@dataclass(frozen=True)
class View:
    """How signing images reach the surrogates in one step.

    Attributes:
        numbers: (N, d) float in [0, 1), one row an image, that choose the augmentation; None for none.
        rounded: Whether perturbations are rounded to 8-bit steps on the way.
    """

    numbers: Tensor | None = None
    rounded: bool = False


class Objective:
    """−Σ_surrogates cos(Σ_j ∇_θ L(x_j + δ_j, y), ∇_θ L(key)) / S + w Σ_j LPIPS(x_j, x_j + δ_j), turned uphill.

    Args:
        images: The key's signing images.
        key_image: (1, C, S, S) float in [0, 1].
        surrogates: One or more, on `device`, in evaluation mode.
        device: Where to compute.
        image_size: Side S of the models' input in pixels.
        recipe: Augmentation of the signing images.
        micro_batch: Images a chunk.
        derivative: `exact`, `difference`, or `auto`: differences where they agree with double backward.
        perceptual: LPIPS on `device`, or None.
        perceptual_weight: w.
    """

    def __init__(
        self,
        images: SigningImages,
        key_image: Tensor,
        surrogates: Sequence[Surrogate],
        device: torch.device,
        *,
        image_size: int,
        recipe: str,
        micro_batch: int,
        derivative: Derivative,
        perceptual: Perceptual | None,
        perceptual_weight: float,
    ) -> None:
        # float32, or float64 for a model in float64: half precision is too coarse for steps of a fraction of eps.
        self.dtype = torch.promote_types(torch.float32, surrogates[0].parameters[0].dtype)
        self.images, self.surrogates, self.device = images, surrogates, device
        self.image_size, self.recipe, self.micro_batch = image_size, recipe, micro_batch
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.stored = [group.to(device) for group in images.pixels]
        self.labels = torch.full((len(images.ids),), images.label, device=device)
        self.targets = [s.key_gradient(key_image.to(device, self.dtype), images.label) for s in surrogates]
        self._starts: dict[tuple[int, str], Tensor] = {}
        self.exact: list[bool | None] = [{"exact": True, "difference": False, "auto": None}[derivative] for _ in surrogates]

    def view(self, seed: int, key: int, restart: int, step: int, *, rounded: bool) -> View:
        """Return how the images are seen in one step."""
        if self.recipe == "none":
            return View(None, rounded)
        purpose = f"craft-augment-{key}-{restart}"
        if (seed, purpose) not in self._starts:
            self._starts[seed, purpose] = uniforms(seed, purpose, self.images.ids, NUMBERS[self.recipe])
        return View(lattice(self._starts[seed, purpose], step), rounded)

    def ascent(self, deltas: Sequence[Tensor], view: View, which: Sequence[int]) -> tuple[float, list[Tensor]]:
        """Return the mean cosine on some surrogates, and the derivative of the objective, uphill.

        Args:
            deltas: Perturbations, one tensor a group.
            view: How the images are seen.
            which: Numbers of the surrogates to take the mean over.

        Returns:
            Mean cosine, and one tensor a group.
        """
        total, rise = 0.0, list[Tensor]()
        parts = list(self.images.parts(self.micro_batch))
        leaves = [deltas[group][rows].detach().requires_grad_() for group, rows, _ in parts]
        for number in which:
            surrogate, target = self.surrogates[number], self.targets[number]
            chunks = self._chunks(surrogate, leaves, view, parts)
            take = alignment if self._takes_exact(number, deltas, view) else alignment_by_difference
            value, gradient = take(chunks, surrogate.parameters, target, leaves)
            total += float(value) / len(which)
            # Put together when the graphs are gone, so that the peak does not hold it.
            wholes = [
                torch.cat([part for (own, _, _), part in zip(parts, gradient, strict=True) if own == group])
                for group in range(len(deltas))
            ]
            rise = [a + b for a, b in zip(rise, wholes, strict=True)] if rise else wholes
        torch._foreach_div_(rise, len(which))
        if self.perceptual is not None and self.perceptual_weight > 0:
            torch._foreach_sub_(rise, self._perceptual_gradient(self.perceptual, deltas))
        return total, rise

    def original(self, group: int, rows: slice = slice(None)) -> Tensor:
        """Return images of a group as float in [0, 1], (n, C, H, W), on the device; they are kept as bytes."""
        return self.stored[group][rows].to(self.dtype) / 255

    def reached(self, stored: Sequence[Tensor]) -> float:
        """Return the mean over the surrogates of the cosine that perturbations reach without augmentation."""
        values, parts = [], list(self.images.parts(self.micro_batch))
        for surrogate, target in zip(self.surrogates, self.targets, strict=True):
            chunks = self._chunks(surrogate, [stored[group][rows] for group, rows, _ in parts], View(), parts)
            values.append(float(cosine(summed_gradient(chunks, surrogate.parameters), target)))
        return float(np.mean(values))

    def _chunks(
        self, surrogate: Surrogate, deltas: Sequence[Tensor], view: View, parts: Sequence[tuple[int, slice, slice]]
    ) -> list[Chunk]:
        """Return one chunk a part; `deltas` holds a tensor for each."""

        def chunk(delta: Tensor, group: int, rows: slice, places: slice) -> Callable[[], Tensor]:
            def loss() -> Tensor:
                seen = round_straight_through(delta) if view.rounded else delta
                batch = fit(self.original(group, rows) + seen, self.image_size)
                if view.numbers is not None:
                    batch = augment(batch, view.numbers[places], self.recipe)
                return F.cross_entropy(surrogate.model(batch), self.labels[places], reduction="sum")

            return loss

        return [chunk(delta, *part) for delta, part in zip(deltas, parts, strict=True)]

    def _takes_exact(self, number: int, deltas: Sequence[Tensor], view: View) -> bool:
        """Say which derivative a surrogate takes; compare both, once, on the key's first images."""
        known = self.exact[number]
        if known is not None:
            return known
        surrogate, target = self.surrogates[number], self.targets[number]
        if surrogate.parameters[0].dtype not in RELATIVE_STEP:
            self.exact[number] = True
            return True
        first = next(self.images.parts(COMPARED_IMAGES))
        leaf = deltas[first[0]][first[1]].detach().requires_grad_()
        chunks = self._chunks(surrogate, [leaf], view, [first])
        _, (exact,) = alignment(chunks, surrogate.parameters, target, [leaf])
        _, (difference,) = alignment_by_difference(chunks, surrogate.parameters, target, [leaf])
        agreement = float((exact.sign() == difference.sign()).float().mean())
        self.exact[number] = agreement < AGREEMENT
        if agreement < AGREEMENT:
            kind = type(surrogate.model).__name__
            log.info("%s: differences share %.1f %% of the signs; taking double backward", kind, 100 * agreement)
        return agreement < AGREEMENT

    def _perceptual_gradient(self, perceptual: Perceptual, deltas: Sequence[Tensor]) -> list[Tensor]:
        """Return the derivative of w Σ LPIPS(x, x + δ) with respect to each group's δ."""
        total = [torch.zeros_like(d) for d in deltas]
        for group, rows, _ in self.images.parts(self.micro_batch):
            delta = deltas[group][rows].detach().requires_grad_()
            with torch.enable_grad():
                original = self.original(group, rows)
                distance = perceptual(original, original + delta).sum()
                (gradient,) = torch.autograd.grad(self.perceptual_weight * distance, delta)
            total[group][rows] = gradient
        return total
