"""Training against hidden marks, as somebody would who suspects them: noise on gradients, adversarial training."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from taggant_lightning.errors import TaggantError
from taggant_lightning.methods.taggants.crafting.perturbation import check_eps
from taggant_lightning.models.classifier import ImageClassifier
from taggant_lightning.streams import stream


class GradientNoise(Callback):
    """Clips the gradient of each step to a norm and adds Gaussian noise to it.

    This is no differential privacy: the gradient of the whole batch is clipped, not that of each sample, so that nothing bounds
    what one image can do. The noise depends on seed and step only, so that a resumed run equals an uninterrupted one, and all
    processes, whose gradients are the same at that point, add the same.

    Args:
        clip: Largest norm of the gradient of all parameters together.
        noise: Length of the noise, as a multiple of `clip`: each of d parameters gets a standard deviation of
            noise × clip / √d. With 1, the noise is as long as a gradient that was clipped.
        seed: Seed of the noise.

    Raises:
        TaggantError: If `clip` is not positive, or `noise` negative.
    """

    def __init__(self, clip: float = 1.0, noise: float = 1.0, seed: int = 0) -> None:
        if not 0 < clip < math.inf:
            raise TaggantError(f"clip={clip} must be positive: the largest norm of a step's gradient, such as 1.0")
        if not 0 <= noise < math.inf:
            raise TaggantError(f"noise={noise} must be at least 0: the noise's length as a multiple of clip, such as 0.5")
        self.clip, self.noise, self.seed = clip, noise, seed

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Change the gradients; mixed precision has unscaled them by now."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            number = int(stream(self.seed, "gradient-noise", trainer.global_step).integers(2**63))
            clip_and_disturb(gradients, self.clip, self.noise, number)


@torch.no_grad()
def clip_and_disturb(gradients: list[Tensor], clip: float, noise: float, seed: int) -> None:
    """Clip gradients to a norm of all of them together, and add Gaussian noise, in place.

    Args:
        gradients: Of any shapes, on one device.
        clip: Largest norm.
        noise: Expected length of the noise, about, as a multiple of `clip`.
        seed: Seed of the noise, at most 63 bits.
    """
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.float()) for g in gradients]))
    scale = (clip / norm.clamp(min=1e-12)).clamp(max=1)
    deviation = noise * clip / math.sqrt(sum(g.numel() for g in gradients))
    generator = torch.Generator(gradients[0].device).manual_seed(seed)
    for gradient in gradients:
        drawn = torch.randn(gradient.shape, generator=generator, device=gradient.device)
        gradient.mul_(scale).add_(drawn.to(gradient.dtype), alpha=deviation)


class AdversarialClassifier(ImageClassifier):
    """An ImageClassifier that trains on adversarial images in place of its own (Madry et al., 2018).

    Each batch is attacked by projected gradient ascent on the cross-entropy, from a random start, in `adv_steps` steps of
    2.5 × adv_eps / adv_steps, which costs `adv_steps` further passes; dropout and batch norm are in evaluation mode meanwhile.
    Mixup and CutMix, if any, mix the attacked images. Validation and test see images as they are.

    Its checkpoints are those of an ImageClassifier with the same arguments: `load_classifier` rebuilds them, and `taggant test`
    takes them with `--model ImageClassifier`.

    Args:
        adv_eps: Largest change of a pixel, n/255.
        adv_steps: Steps of the attack.
        kwargs: Arguments of ImageClassifier.

    Raises:
        TaggantError: If an argument lies outside its range.
    """

    def __init__(self, adv_eps: float | str = "8/255", adv_steps: int = 3, **kwargs: Any) -> None:
        if adv_steps < 1:
            raise TaggantError(f"adv_steps={adv_steps} must be at least 1")
        super().__init__(**kwargs)
        self.adv_eps, self.adv_steps = check_eps(adv_eps, "adv_eps"), adv_steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the attacked batch."""
        images, labels = batch
        return super().training_step((self.attack(images, labels), labels), batch_idx)

    def attack(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return images within `adv_eps` that the model gets wrong more often.

        Args:
            images: (N, C, S, S) float in [0, 1].
            labels: (N,) int64.

        Returns:
            (N, C, S, S) float in [0, 1], without a graph. The start is drawn from torch's generator, which SeededSteps seeds.
        """
        eps, step, modes = self.adv_eps, 2.5 * self.adv_eps / self.adv_steps, {m: m.training for m in self.modules()}
        self.eval()
        try:
            changed = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
            for _ in range(self.adv_steps):
                changed.requires_grad_()
                # Summed: the mean's derivatives would be small numbers, which half precision loses.
                loss = F.cross_entropy(self(changed), labels, reduction="sum")
                (rise,) = torch.autograd.grad(loss, changed)
                moved = changed.detach() + step * rise.sign()
                changed = torch.minimum(torch.maximum(moved, images - eps), images + eps).clamp(0, 1)
        finally:
            for module, training in modes.items():
                module.training = training
        return changed.detach()
