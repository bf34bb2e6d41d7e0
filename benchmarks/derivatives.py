"""Ways to take the derivative of the alignment: CPU seconds a step, and agreement with double backward in float64.

python benchmarks/derivatives.py --json docs/results/derivatives.json
"""

import argparse
import copy
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import write_figures
from problems import Problem, untrained_problem
from rivals import Task
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from taggant_lightning.data.resize import fit
from taggant_lightning.gradients.alignment import (
    Chunk,
    alignment,
    alignment_by_difference,
    cosine,
    cosine_derivative,
    summed_gradient,
)
from taggant_lightning.methods.taggants.crafting.crafting import craft_key
from taggant_lightning.methods.taggants.crafting.objective import Surrogate

ROUNDS = 5


class Taken:
    """One model in one precision with one key's task, and every way to take the derivative.

    Args:
        model: In evaluation mode.
        task: The key.
        delta: (N, C, H, W) perturbation.
    """

    def __init__(self, model: nn.Module, task: Task, delta: Tensor) -> None:
        self.model, self.size, self.labels = model, task.size, task.labels
        self.parameters = list(model.parameters())
        dtype = self.parameters[0].dtype
        self.images, self.delta = task.images.to(dtype), delta.to(dtype).requires_grad_()
        self.target = Surrogate(model, self.parameters).key_gradient(task.key.to(dtype), task.label)

    def loss(self, rows: slice) -> Tensor:
        """Return the summed loss of some images."""
        batch = fit(self.images[rows] + self.delta[rows], self.size)
        return F.cross_entropy(self.model(batch), self.labels[rows], reduction="sum")

    def chunks(self, parts: int) -> list[Chunk]:
        """Return the images in parts."""
        size = -(-len(self.images) // parts)
        return [lambda i=i: self.loss(slice(i, i + size)) for i in range(0, len(self.images), size)]

    def exact(self, parts: int = 1) -> Tensor:
        """Double backward."""
        return alignment(self.chunks(parts), self.parameters, self.target, [self.delta])[1][0]

    def difference(self) -> Tensor:
        """Difference of first derivatives."""
        return alignment_by_difference(self.chunks(1), self.parameters, self.target, [self.delta])[1][0]

    def half(self) -> Tensor:
        """Double backward with bfloat16 matrix products."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.exact()

    def forward_over_reverse(self) -> Tensor:
        """Summed gradient first; then the change of the pixels' gradient along one direction, by forward mode."""
        total = summed_gradient(self.chunks(1), self.parameters)
        direction = cosine_derivative(total, self.target)
        names = [name for name, _ in self.model.named_parameters()]

        def pixels(parameters: dict[str, Tensor]) -> Tensor:
            def loss(delta: Tensor) -> Tensor:
                logits = functional_call(self.model, parameters, (fit(self.images + delta, self.size),))
                return F.cross_entropy(logits, self.labels, reduction="sum")

            return grad(loss)(self.delta.detach())

        point = dict(zip(names, (p.detach() for p in self.parameters), strict=True))
        with sdpa_kernel(SDPBackend.MATH):
            return jvp(pixels, (point,), (dict(zip(names, direction, strict=True)),))[1]

    def several_keys(self, count: int) -> Tensor:
        """Double backward for several keys at once (here the same one), by vmap."""
        point = {name: p.detach() for name, p in self.model.named_parameters()}

        def value(delta: Tensor) -> Tensor:
            def loss(parameters: dict[str, Tensor]) -> Tensor:
                logits = functional_call(self.model, parameters, (fit(self.images + delta, self.size),))
                return F.cross_entropy(logits, self.labels, reduction="sum")

            return cosine(list(grad(loss)(point).values()), self.target)

        with sdpa_kernel(SDPBackend.MATH):
            return vmap(grad(value))(self.delta.detach().expand(count, *self.delta.shape))[0]


WAYS: dict[str, Callable[[Taken], Tensor]] = {
    "double backward": Taken.exact,
    "double backward, 4 parts": lambda taken: taken.exact(4),
    "difference": Taken.difference,
    "forward over reverse": Taken.forward_over_reverse,
    "double backward, bf16": Taken.half,
    "double backward, 4 keys by vmap": lambda taken: taken.several_keys(4),
}


def compare(model: nn.Module, task: Task, delta: Tensor) -> list[dict[str, Any]]:
    """Measure every way at one perturbation; in turn, the fastest of some rounds."""
    wanted, taken, rows = Taken(copy.deepcopy(model).double(), task, delta).exact(), Taken(model, task, delta), []
    found: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            begun = time.process_time()
            found[name] = way(taken).detach().double()
            spent = (time.process_time() - begun) / (4 if "4 keys" in name else 1)
            seconds[name] = min(seconds.get(name, spent), spent)
    for name, value in found.items():
        error = float((value - wanted).norm() / wanted.norm())
        agreement = float((value.sign() == wanted.sign()).double().mean())
        rows.append({"way": name, "ms": 1e3 * seconds[name], "error": error, "signs": agreement})
        print("{way:<32} {ms:7.1f} ms a key, error {error:.1e}, {signs:.2%} of the signs".format(**rows[-1]), flush=True)
    return rows


def measure_trained(of: Problem) -> dict[str, list[dict[str, Any]]]:
    """Measure at the first, a middle and the last perturbation of key 0."""
    deltas, task, found = [torch.zeros_like(of.images[0].images[0])], of.task(0), {}
    craft_key(
        of.images[0], task.key, [of.surrogate], of.settings(), key=0, device=torch.device("cpu"),
        on_step=lambda _, d: deltas.append(d[0].detach().clone()),
    )  # fmt: skip
    for place, delta in (("start", deltas[0]), ("middle", deltas[len(deltas) // 2]), ("end", deltas[-1])):
        print(f"{of.model.arguments['model_name']}, {place}")
        found[place] = compare(of.model, task, delta)
    return found


def main() -> None:
    """Measure untrained models at a random perturbation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="small_cnn,small_vit,small_resnet,resnet18,vit_tiny")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    figures: dict[str, Any] = {"images": arguments.images}
    for name in arguments.models.split(","):
        of = untrained_problem(name, 1, arguments.images)
        shape = of.images[0].images[0].shape
        print(f"{name}, untrained")
        figures[name] = compare(of.model, of.task(0), torch.empty(shape).uniform_(-of.eps, of.eps))
    if arguments.json:
        write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
