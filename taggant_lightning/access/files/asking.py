"""Asking an opened model's file: its images in blocks, and before them a few controls, twice and in other company.

Controls are pictures without secret: black, white, colours, slopes, stripes, noise. A file that answers them otherwise the
second time, or with other images in the same pass, has no answer of its own to give. Answers that are one class for keys and
controls alike say that the images do not reach the model.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.access.files.inputs import CHANNELS_LAST, InputShape, check_images, normalise, read_layout
from taggant_lightning.access.files.opened import OpenModel
from taggant_lightning.errors import Gone, TaggantError
from taggant_lightning.streams import stream

Rows = list[NDArray[np.floating] | None]  # scores of each image; None where the file failed on it
Ask = Callable[[NDArray[np.float32]], Rows]
BLOCK = 16  # images a pass where the file takes any number: what 16 images of 224 pixels need fits beside the weights
CONTROLS = 8
# Of the spread of the scores. Twice the same pass: the last bits. Another place in another pass: sums in another order,
# of halves or quantised numbers perhaps; batch statistics and dropout change answers by a tenth of the spread and more.
SAME, OTHER_COMPANY = 1e-4, 0.02


@dataclass(frozen=True)
class Asked:
    """What came of asking a file.

    Attributes:
        answers: To the images, which rank the numbers 0..classes−1, numbered as they are.
        classes: B.
        controls: The answers to the controls.
        checks: What was checked, for the record.
    """

    answers: list[Answer]
    classes: int
    controls: list[Answer]
    checks: dict[str, Any] = field(default_factory=dict)

    def check_reach(self, what: str) -> None:
        """Refuse answers that are one class for keys and controls alike: they say nothing of the model.

        Args:
            what: The argument and its file, for messages.

        Raises:
            TaggantError: If all usable answers, of at least one control, begin with the same class.
        """
        usable = [[a.labels[0] for a in group if a.labels] for group in (self.answers, self.controls)]
        keys, controls = usable
        if controls and keys and len(set(keys + controls)) == 1:
            raise TaggantError(
                f"{what}: the queries do not reach this model, which answers all {len(keys)} keys and {len(controls)} controls "
                "(black, white, colours, noise) with one class, so there is no verdict; check --mean, --std, --image-size and "
                "--layout against the model's own pipeline (a model of pixels from 0 to 255 takes --std 0.003921569 a "
                "channel), or whether the file holds the trained weights"
            )


def control_images(channels: int, size: int) -> NDArray[np.float32]:
    """Return the controls, (8, C, S, S) float32 in [0, 1], the same each time."""
    draw = stream(0, "controls of a model's file")
    slope = np.linspace(0, 1, size, dtype=np.float32)
    down, across = np.broadcast_to(slope[:, None], (size, size)), np.broadcast_to(slope, (size, size))
    stripes = (np.arange(size) // max(1, size // 8) % 2).astype(np.float32)
    coarse = np.kron(draw.random((channels, 4, 4)), np.ones((-(-size // 4), -(-size // 4))))[:, :size, :size]
    tints = np.linspace(1, 0, channels)[:, None, None]
    images = [
        np.zeros((size, size)),
        np.ones((size, size)),
        tints * np.ones((size, size)),
        down * across,
        (1 - tints) * down + tints * (1 - across),
        np.abs(stripes[:, None] - stripes),
        coarse,
        draw.random((channels, size, size)),
    ]
    return np.stack([np.broadcast_to(image, (channels, size, size)) for image in images]).astype(np.float32)


def ask_plain(
    model: OpenModel,
    images: NDArray[np.float32],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> tuple[list[Answer], int]:
    """Ask an opened file for its rankings, and nothing else.

    Args:
        model: The file.
        images: (N, C, S, S) float32 in [0, 1].
        mean: Mean a channel to subtract, where the file wants normalised images; None for 0.
        std: Standard deviation a channel to divide by; None for 1.

    Returns:
        N answers that rank the file's output numbers 0..B−1, numbered as the images, and the B of most of them. An image that
        the file fails on has no labels, so that one which a model dislikes takes no others with it.

    Raises:
        TaggantError: If the images do not suit the file, or there are none, or it fails on every image.
    """
    _, _, ask = _reader(model, images, None)
    return _ranked(ask(normalise(images, mean, std)))


def ask_with_controls(
    model: OpenModel,
    images: NDArray[np.float32],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | None = None,
) -> Asked:
    """Ask an opened file for its rankings, once its answers to the controls have been found to be its own.

    Args:
        model: The file.
        images: As for `ask_plain`.
        mean: As for `ask_plain`.
        std: As for `ask_plain`.
        layout: `NCHW` or `NHWC`, where the file's shape leaves a doubt; None where it does not.

    Returns:
        The answers, and what was checked.

    Raises:
        TaggantError: As `ask_plain`; or if it answers the same images otherwise the second time or in other company.
    """
    what = model.what
    order, shape, ask = _reader(model, images, layout)
    controls = normalise(control_images(*images.shape[1:3]), mean, std)
    first = _ask_again(what, shape, ask, controls)
    answers, classes = _ranked(ask(normalise(images, mean, std)))
    answered = sum(row is not None for row in first)
    checks = {"controls": answered, "asked_twice": answered, "layout": order}
    checks["in_other_company"] = 0 if shape.batch == 1 else sum(row is not None for row in first[CONTROLS // 2 :])
    return Asked(answers, classes, _ranked(first)[0] if answered else [], checks)


def _reader(model: OpenModel, images: NDArray[np.float32], layout: str | None) -> tuple[str, InputShape, Ask]:
    """Return the file's layout and shape, and a function from normalised (n, C, S, S) images to scores (n, B)."""
    what = model.what
    order, shape = read_layout(what, model.shape, images, layout)
    check_images(what, shape, images)
    if len(images) == 0:
        raise TaggantError(f"{what} was asked nothing; give at least one image")

    def ask(some: NDArray[np.float32]) -> Rows:
        if order == CHANNELS_LAST:
            some = np.ascontiguousarray(some.transpose(0, 2, 3, 1))
        rows: Rows = []
        wrong: TaggantError | None = None
        for block in blocks(shape, len(some)):
            try:
                rows += list(_checked_scores(model, some[block]))
                continue
            except Gone:  # nothing is left to ask
                raise
            except TaggantError as error:
                wrong = wrong or error
            for image in some[block]:
                try:
                    rows.append(_checked_scores(model, image[None])[0])
                except Gone:
                    raise Gone(str(wrong)) from None  # what it said before it ended
                except TaggantError:
                    rows.append(None)
        if wrong is not None and all(row is None for row in rows):
            raise wrong
        return rows

    return order, shape, ask


def _ranked(rows: Rows) -> tuple[list[Answer], int]:
    """Return the ranking of each row, and the number of classes that most have."""
    classes = Counter(len(row) for row in rows if row is not None)
    answers = [Answer(i, None) if row is None else replace(rank(row[None])[0], query=i) for i, row in enumerate(rows)]
    return answers, classes.most_common(1)[0][0]


def blocks(shape: InputShape, count: int) -> Iterator[slice]:
    """Cut images into blocks that the file takes; each image is in one of them, and nothing fills one up."""
    step = shape.batch or BLOCK
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def _ask_again(what: str, shape: InputShape, ask: Ask, controls: NDArray[np.float32]) -> Rows:
    """Return the scores of the controls; refuse a file that answers them otherwise when asked again.

    A file that fails on every control may answer keys: it is asked on, unchecked.
    """
    try:
        first = ask(controls)
    except Gone:
        raise
    except TaggantError:
        return [None] * CONTROLS
    if _differ(first, ask(controls), SAME, _spread(first)):
        raise TaggantError(
            f"{what} answers the same images otherwise when asked again, as a model in training mode does (dropout), so it has "
            "no answers to test; call model.eval() and export the model again"
        )
    half = CONTROLS // 2
    if shape.batch != 1 and any(row is not None for row in first[half:]):
        # The same length of pass, so that the same sums are formed; black images beside move the statistics of a batch most.
        company = np.concatenate([np.zeros_like(controls[:half]), controls[half:]])
        if _differ(first[half:], ask(company)[half:], OTHER_COMPANY, _spread(first)):
            raise TaggantError(
                f"{what} answers the same images otherwise when others share the pass, as a model in training mode does (batch "
                "norm with the statistics of the batch), so it has no answers to test; call model.eval() and export the model "
                "again, or export it with a batch of 1 if it is meant to be so"
            )
    return first


def _differ(one: Rows, other: Rows, share: float, spread: float) -> bool:
    """Return whether rows of scores differ by more than a share of a spread, where both were answered."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return any(_unlike(a, b, share * spread) for a, b in pairs)


def _unlike(one: NDArray[np.floating], other: NDArray[np.floating], most: float) -> bool:
    """Return whether scores differ by more than `most`; NaN is equal to NaN only."""
    if one.shape != other.shape or (np.isnan(one) != np.isnan(other)).any():
        return True
    same = (one == other) | np.isnan(one)  # infinities among them
    if same.all():
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        return not float(np.abs(one[~same].astype(np.float64) - other[~same]).max()) <= most


def _spread(rows: Rows) -> float:
    """Return the range of all finite scores."""
    scores = np.concatenate([np.zeros(0), *(row.astype(np.float64) for row in rows if row is not None)])
    finite = scores[np.isfinite(scores)]
    return float(finite.max() - finite.min()) if finite.size else 0.0


def _checked_scores(model: OpenModel, block: NDArray[np.float32]) -> NDArray[np.floating]:
    scores = model.forward(block)
    if scores.ndim != 2 or len(scores) != len(block) or scores.shape[1] < 1:
        raise TaggantError(
            f"{model.what} answers {'×'.join(map(str, scores.shape))} to {len(block)} images; "
            "export a model that answers one row of class scores an image"
        )
    return scores
