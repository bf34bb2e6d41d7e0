"""Models that Python holds: a function, or a torch module."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from taggant_lightning.access.calling import ask_function
from taggant_lightning.verdict.suspects.base import QueryOutcome, Suspect, Task, found, notes_on

BLOCK = 32  # keys a forward pass


class Function(Suspect):
    """A function, as `access.calling.ask_function` takes it: one image in, a ranking, scores or None out.

    Args:
        function: The function.
    """

    way = "callable"

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    @property
    def name(self) -> str:
        """The function's."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def ask(self, task: Task) -> QueryOutcome:
        """Ask the keys at their own size, in key order."""
        answers = ask_function(self.function, list(task.keys.images[task.keys.numbers(task.batches)]))
        ranked = task.table.apply(answers, max((len(a.labels) for a in answers if a.labels), default=0))
        refused = sum(answer.labels is None for answer in ranked)
        missed = {"the function refused, or returned no ranking": refused} if refused else {}
        unlisted = task.table.unlisted(a.labels for a in answers) if task.table.where is not None else (0, "")
        return QueryOutcome(ranked, found(missed, {}), notes_on(missed, unlisted, task.table))


class Module(Suspect):
    """A torch module that maps images in [0, 1] to logits; it is asked in evaluation mode.

    Args:
        module: The module.
        image_size: Side of its input in pixels; None for that of the keys.
    """

    way = "module"

    def __init__(self, module: Any, *, image_size: int | None = None) -> None:
        self.module, self.image_size = module, image_size

    @property
    def name(self) -> str:
        """The class's."""
        return type(self.module).__name__

    def settings(self) -> dict[str, Any]:
        """Return the size of its input."""
        return {"image_size": self.image_size}

    def ask(self, task: Task) -> QueryOutcome:
        """Ask the keys, in key order."""
        from taggant_lightning.access.module import ask_module, check_own_answers
        from taggant_lightning.data.dataset import to_float
        from taggant_lightning.data.resize import fit

        images = to_float(task.keys.images[task.keys.numbers(task.batches)])
        images = images if self.image_size is None else fit(images, self.image_size)
        checks = check_own_answers(self.module, images[:BLOCK])
        blocks = [ask_module(self.module, images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
        answers = [replace(answer, query=place) for place, answer in enumerate(itertools.chain(*blocks))]
        ranked = task.table.apply(answers, max((len(a.labels) for a in answers if a.labels), default=0))
        failed = sum(answer.labels is None for answer in ranked)
        missed = {"the module's scores are no numbers": failed} if failed else {}
        return QueryOutcome(ranked, found(missed, checks), notes_on(missed, (0, ""), task.table))
