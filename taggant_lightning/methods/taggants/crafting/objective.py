"""The objective of one key: alignment on one or several surrogates, minus the perceptual distance, and its derivative."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from taggant_lightning.data.augment import NUMBERS, augment
from taggant_lightning.data.dataset import to_float
from taggant_lightning.data.resize import centre, fit
from taggant_lightning.gradients.alignment import (
    RELATIVE_STEP,
    Chunk,
    alignment,
    alignment_by_difference,
    cosine,
    flat,
    full_float32,
    summed_gradient,
)
from taggant_lightning.methods.taggants.crafting.perturbation import round_straight_through
from taggant_lightning.methods.taggants.crafting.team import Team
from taggant_lightning.models.perceptual import Perceptual
from taggant_lightning.streams import lattice, uniforms

log = logging.getLogger(__name__)

Derivative = Literal["auto", "exact", "difference"]
Combination = Literal["alternate", "mean"]
Precision = Literal["32-true", "bf16-mixed"]
# `auto` takes differences where they share this much of the signs with double backward, on this many images of the key.
AGREEMENT, COMPARED_IMAGES = 0.99, 16
MICRO_BATCH, MOST_ON_A_GPU = 32, 256  # images a chunk by default (docs/decisions.md)


# Images of one shape: their group, their rows in it, and their rows in `SigningImages.ids`.
Part: TypeAlias = tuple[int, slice, slice]


def chunk_size(side: int, kind: str) -> int:
    """Return how many images a chunk holds by default: on a GPU about as many pixels as 32 of 224×224, at most 256.

    Args:
        side: Side of the images that surrogates load, in pixels.
        kind: Of device, as torch names it: `cpu`, `cuda`, ….
    """
    if kind == "cpu":
        return MICRO_BATCH
    return min(MOST_ON_A_GPU, max(MICRO_BATCH, MICRO_BATCH * 224**2 // side**2))


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

    def share(self, place: int, size: int) -> tuple["SigningImages", list[slice]]:
        """Return one of `size` shares of about as many images each, and its rows of each group; a group may come out empty."""
        low, high = (len(self.ids) * n // size for n in (place, place + 1))
        rows, offset = [], 0
        for pixels in self.pixels:
            start, stop = (min(max(n - offset, 0), len(pixels)) for n in (low, high))
            rows.append(slice(start, stop))
            offset += len(pixels)
        return SigningImages(self.ids[low:high], [g[r] for g, r in zip(self.pixels, rows, strict=True)], self.label), rows

    def chunks(self, size: int) -> list[list[Part]]:
        """Cut into chunks of at most `size` images, each of parts of one shape: a pass takes images of any shapes together."""
        chunks: list[list[Part]] = []
        room, offset = 0, 0
        for group, pixels in enumerate(self.pixels):
            start = 0
            while start < len(pixels):
                if room == 0:
                    chunks.append([])
                    room = size
                stop = min(start + room, len(pixels))
                chunks[-1].append((group, slice(start, stop), slice(offset + start, offset + stop)))
                room, start = room - (stop - start), stop
            offset += len(pixels)
        return chunks

    def parts(self, size: int) -> list[Part]:
        """Return the parts of all chunks."""
        return [part for chunk in self.chunks(size) for part in chunk]


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
        load_size: Side that signing images are brought to before they are augmented.
        recipe: Augmentation of the signing images.
        micro_batch: Images a chunk.
        precision: `bf16-mixed` runs the passes over signing images in bfloat16 where that is safe; derivatives are exact then.
        derivative: `exact`, `difference`, or `auto`: differences where they agree with double backward.
        perceptual: LPIPS on `device`, or None.
        perceptual_weight: w.
        team: The processes that share the key; `images` are this one's.
    """

    def __init__(
        self,
        images: SigningImages,
        key_image: Tensor,
        surrogates: Sequence[Surrogate],
        device: torch.device,
        *,
        image_size: int,
        load_size: int,
        recipe: str,
        micro_batch: int,
        precision: Precision,
        derivative: Derivative,
        perceptual: Perceptual | None,
        perceptual_weight: float,
        team: Team,
    ) -> None:
        # float32, or float64 for a model in float64: half precision is too coarse for steps of a fraction of eps.
        self.dtype = torch.promote_types(torch.float32, surrogates[0].parameters[0].dtype)
        self.images, self.surrogates, self.device = images, surrogates, device
        self.image_size, self.load_size, self.recipe, self.micro_batch = image_size, load_size, recipe, micro_batch
        self.half, self.team = precision == "bf16-mixed", team
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.stored = [group.to(device) for group in images.pixels]
        self.labels = torch.full((len(images.ids),), images.label, device=device)
        self.targets = [[flat(s.key_gradient(key_image.to(device, self.dtype), images.label))] for s in surrogates]
        self._starts: dict[tuple[int, str], Tensor] = {}
        settled = {"exact": True, "difference": False, "auto": True if self.half else None}[derivative]
        self.exact: list[bool | None] = [settled for _ in surrogates]

    def view(self, seed: int, key: int, restart: int, step: int, *, rounded: bool) -> View:
        """Return how the images are seen in one step."""
        if self.recipe == "none":
            return View(None, rounded)
        purpose = f"craft-augment-{key}-{restart}"
        if (seed, purpose) not in self._starts:
            ids = torch.tensor(self.images.ids, dtype=torch.int64, device=self.device)
            self._starts[seed, purpose] = uniforms(seed, purpose, ids, NUMBERS[self.recipe])
        return View(lattice(self._starts[seed, purpose], step), rounded)

    def ascent(self, deltas: Sequence[Tensor], view: View, which: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Return the mean cosine on some surrogates, and the derivative of the objective, uphill. Nothing waits for the device.

        Args:
            deltas: Perturbations, one tensor a group.
            view: How the images are seen.
            which: Numbers of the surrogates to take the mean over.

        Returns:
            Mean cosine, a scalar tensor on the device, and one tensor a group.
        """
        values, rise = list[Tensor](), list[Tensor]()
        parts = self.images.parts(self.micro_batch)
        leaves = [deltas[group][rows].detach().requires_grad_() for group, rows, _ in parts]
        for number in which:
            surrogate, target = self.surrogates[number], self.targets[number]
            chunks = self._chunks(surrogate, leaves, view)
            take = alignment if self._takes_exact(number, deltas, view) else alignment_by_difference
            value, gradient = take(chunks, surrogate.parameters, target, leaves, self.team.add_up)
            values.append(value)
            # Put together when the graphs are gone, so that the peak does not hold it.
            pieces = [[delta.detach()[:0]] for delta in deltas]  # a process may hold no image of a group
            for (group, _, _), piece in zip(parts, gradient, strict=True):
                pieces[group].append(piece)
            wholes = [torch.cat(own) for own in pieces]
            rise = [a + b for a, b in zip(rise, wholes, strict=True)] if rise else wholes
        torch._foreach_div_(rise, len(which))
        if self.perceptual is not None and self.perceptual_weight > 0:
            torch._foreach_sub_(rise, self._perceptual_gradient(self.perceptual, deltas))
        return torch.stack(values).mean(), rise

    def original(self, group: int, rows: slice = slice(None)) -> Tensor:
        """Return images of a group as float in [0, 1], (n, C, H, W), on the device; they are kept as bytes."""
        return self.stored[group][rows].to(self.dtype) / 255

    def reached(self, stored: Sequence[Tensor]) -> float:
        """Return the mean over the surrogates of the cosine that perturbations reach without augmentation."""
        values, leaves = [], [stored[group][rows] for group, rows, _ in self.images.parts(self.micro_batch)]
        for surrogate, target in zip(self.surrogates, self.targets, strict=True):
            chunks = self._chunks(surrogate, leaves, View())
            values.append(float(cosine(summed_gradient(chunks, surrogate.parameters, self.team.add_up), target)))
        return float(np.mean(values))

    def _chunks(
        self, surrogate: Surrogate, deltas: Sequence[Tensor], view: View, chunks: Sequence[Sequence[Part]] | None = None
    ) -> list[Chunk]:
        """Return the losses of chunks of parts, by default all of them; `deltas` holds a tensor for each part."""
        left = iter(deltas)

        def chunk(parts: Sequence[Part]) -> Callable[[], Tensor]:
            own = [(next(left), *part) for part in parts]

            def loss() -> Tensor:
                loaded = []
                for delta, group, rows, _ in own:
                    seen = round_straight_through(delta) if view.rounded else delta
                    loaded.append(fit(self.original(group, rows) + seen, self.load_size))
                batch = torch.cat(loaded) if len(loaded) > 1 else loaded[0]
                places = slice(parts[0][2].start, parts[-1][2].stop)
                if view.numbers is None:
                    batch = centre(batch, self.image_size)
                else:
                    batch = augment(batch, view.numbers[places], self.recipe, self.image_size)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                    return F.cross_entropy(surrogate.model(batch), self.labels[places], reduction="sum")

            return loss

        return [chunk(parts) for parts in (self.images.chunks(self.micro_batch) if chunks is None else chunks)]

    def _takes_exact(self, number: int, deltas: Sequence[Tensor], view: View) -> bool:
        """Say which derivative a surrogate takes; compare both, once, on the leader's first images."""
        known = self.exact[number]
        if known is None:
            known = self.team.from_leader(self._compare(number, deltas, view) < AGREEMENT if self.team.leads else True)
            self.exact[number] = known
        return known

    def _compare(self, number: int, deltas: Sequence[Tensor], view: View) -> float:
        """Return the share of signs that both derivatives agree on, on some images; 0 where differences cannot be taken."""
        surrogate, target = self.surrogates[number], self.targets[number]
        if surrogate.parameters[0].dtype not in RELATIVE_STEP:
            return 0.0
        chunk = self.images.chunks(COMPARED_IMAGES)[0]
        leaves = [deltas[group][rows].detach().requires_grad_() for group, rows, _ in chunk]
        losses = self._chunks(surrogate, leaves, view, [chunk])
        with full_float32():  # TF32 alone may cost double backward more signs than AGREEMENT allows (docs/decisions.md)
            _, exact = alignment(losses, surrogate.parameters, target, leaves)
        _, difference = alignment_by_difference(losses, surrogate.parameters, target, leaves)
        same = [(a.sign() == b.sign()).flatten() for a, b in zip(exact, difference, strict=True)]
        agreement = float(torch.cat(same).float().mean())
        if agreement < AGREEMENT:
            kind = type(surrogate.model).__name__
            log.info("%s: differences share %.1f %% of the signs; taking double backward", kind, 100 * agreement)
        return agreement

    def _perceptual_gradient(self, perceptual: Perceptual, deltas: Sequence[Tensor]) -> list[Tensor]:
        """Return the derivative of w Σ LPIPS(x, x + δ) with respect to each group's δ."""
        total = [torch.zeros_like(d) for d in deltas]
        for group, rows, _ in self.images.parts(min(self.micro_batch, MICRO_BATCH)):  # at stored size, which may be large
            delta = deltas[group][rows].detach().requires_grad_()
            with torch.enable_grad():
                original = self.original(group, rows)
                distance = perceptual(original, original + delta).sum()
                (gradient,) = torch.autograd.grad(self.perceptual_weight * distance, delta)
            total[group][rows] = gradient
        return total
