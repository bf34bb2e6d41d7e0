"""What the signing engine is measured against: the published loop in the plainest way, and ART's gradient matching."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from taggant_lightning.data.augment import NUMBERS, augment
from taggant_lightning.data.resize import fit
from taggant_lightning.methods.taggants.crafting.descent import DEFAULT_LR, Momentum
from taggant_lightning.methods.taggants.crafting.perturbation import project
from taggant_lightning.streams import lattice, uniforms

Record = Callable[[Tensor], None]


@dataclass(frozen=True)
class Task:
    """One key to craft for.

    Attributes:
        model: Maps (N, C, S, S) in [0, 1] to logits; in evaluation mode.
        images: (N, C, H, W) float in [0, 1], the signing images.
        ids: Their numbers, which key the augmentation.
        label: Their class, and the key's.
        key: (1, C, S, S) float in [0, 1].
        size: S.
        eps: Bound, pixel fraction.
        recipe: Augmentation.
        seed: Of start and augmentation.
    """

    model: nn.Module
    images: Tensor
    ids: list[int]
    label: int
    key: Tensor
    size: int
    eps: float
    recipe: str
    seed: int

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return torch.full((len(self.images),), self.label)

    def numbers(self, step: int) -> Tensor:
        """Return the numbers of one step's augmentation, independent between steps."""
        return uniforms(self.seed, "rival-augment", torch.tensor(self.ids), NUMBERS[self.recipe], step)


def textbook(task: Task, record: Record, *, steps: int = 250, ours: bool = False) -> Tensor:
    """Craft by double backward over all parameters in float32, one graph over all images.

    Args:
        task: The key.
        record: Called with the perturbation after each step.
        steps: Number of steps.
        ours: Take our rule of steps and our augmentation numbers; else the published sign-Adam and step decays.

    Returns:
        (N, C, H, W) perturbation.
    """
    parameters = list(task.model.parameters())

    def gradient(batch: Tensor, labels: Tensor, graph: bool) -> Tensor:
        loss = F.cross_entropy(task.model(batch), labels)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=graph)])

    target = gradient(task.key, task.labels[:1], graph=False).detach()
    noise = torch.randn(task.images.shape, generator=torch.Generator().manual_seed(task.seed))
    start = torch.zeros_like(noise) if ours else project(noise * task.eps**0.5, task.images, task.eps)
    delta = start.requires_grad_()
    adam = torch.optim.Adam([delta])
    momentum = Momentum([delta], [task.images], task.eps, DEFAULT_LR["momentum"], "cosine", steps)
    for step in range(steps):
        numbers = lattice(task.numbers(0), step) if ours else task.numbers(step)
        with sdpa_kernel(SDPBackend.MATH):
            batch = augment(fit(task.images + delta, task.size), numbers, task.recipe, task.size)
            cosine = F.cosine_similarity(gradient(batch, task.labels, graph=True), target, dim=0)
            (rise,) = torch.autograd.grad(cosine, delta)
        if ours:
            momentum.step([rise], step)
        else:
            decays = sum(step >= int(steps // d) for d in (6.25, 2.667, 1.6, 1.142))
            adam.param_groups[0]["lr"] = 0.1 * 0.3**decays
            delta.grad = -rise.sign()
            adam.step()
            with torch.no_grad():
                delta.copy_(project(delta, task.images, task.eps))
        record(delta.detach())
    return delta.detach()


def gradient_matching(task: Task, record: Record) -> Tensor:
    """Craft with the gradient-matching attack of adversarial-robustness-toolbox, at its defaults but one restart.

    The key is its trigger; the signing images are its whole training set, all perturbed. Resize and augmentation are put
    into the model that it attacks; the key, a batch of one, is not augmented.

    Raises:
        ModuleNotFoundError: If adversarial-robustness-toolbox is not installed.
    """
    from art.attacks.poisoning import GradientMatchingAttack
    from art.estimators.classification import PyTorchClassifier

    class Seen(nn.Module):
        """The model behind resize and augmentation."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.step = task.model, 0

        def forward(self, images: Tensor) -> Tensor:
            batch = fit(images, task.size)
            if len(images) > 1:
                batch = augment(batch, task.numbers(self.step), task.recipe, task.size)
                self.step += 1
            logits: Tensor = self.model(batch)
            return logits

    class Recorded(GradientMatchingAttack):
        """Lets the perturbation be seen after each of its epochs."""

        def _initialize_poison(self, x_trigger, y_trigger, x_poison, y_poison):  # noqa: ANN001, ANN202  # as the toolbox calls it
            super()._initialize_poison(x_trigger, y_trigger, x_poison, y_poison)
            images, advance, noise = torch.from_numpy(x_poison), self.lr_schedule.step, self.backdoor_model.noise_embedding

            # It shuffles the images; put the perturbation back into their order.
            places = [(task.images == image).flatten(1).all(dim=1).nonzero()[0, 0] for image in images]

            def step() -> None:
                advance()
                delta = torch.empty_like(images)
                delta[places] = noise(images, torch.arange(len(images))).detach() - images
                record(delta)

            self.lr_schedule.step = step

    channels, height, width = task.images.shape[1:]
    classifier = PyTorchClassifier(
        Seen(), nn.CrossEntropyLoss(), (channels, height, width), nb_classes=1000, clip_values=(0.0, 1.0), device_type="cpu"
    )
    attack = Recorded(classifier, percent_poison=1.0, epsilon=task.eps, max_trials=1, batch_size=len(task.images), verbose=0)
    with sdpa_kernel(SDPBackend.MATH), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        poisoned, _ = attack.poison(task.key.numpy(), np.array([task.label]), task.images.numpy(), task.labels.numpy())
    return torch.from_numpy(poisoned) - task.images
