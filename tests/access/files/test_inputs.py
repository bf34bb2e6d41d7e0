"""The order of dimensions and the scale of numbers: read where there is no doubt, asked for where there is one."""

import numpy as np
import pytest

from taggant_lightning.access.files.asking import OpenModel, ask_with_controls
from taggant_lightning.access.files.inputs import InputShape, normalise, read_layout
from taggant_lightning.errors import TaggantError

FIRST, LAST, ASKED = "NCHW", "NHWC", None


@pytest.mark.parametrize(
    ("shape", "keys", "wanted"),
    [
        (InputShape(None, 3, 8, 8), (3, 8), FIRST),
        (InputShape(1, 3, None, None), (3, 8), FIRST),
        (InputShape(None, 3, None, None), (3, 3), FIRST),
        (InputShape(None, None, 8, 8), (3, 8), FIRST),  # as NHWC it would take 8 channels
        (InputShape(None, 1, 28, 28), (1, 28), FIRST),
        (InputShape(None, 6, 6, 6), (3, 6), FIRST),  # neither; the message on channels follows
        (InputShape(None, None, None, 3), (3, 8), ASKED),
        (InputShape(None, None, None, None), (3, 8), ASKED),
        (InputShape(None, None, None, 1), (1, 8), ASKED),
        (InputShape(None, 224, 224, 3), (3, 224), ASKED),
        (InputShape(None, 28, 28, 1), (1, 28), ASKED),
        (InputShape(None, 3, 3, 3), (3, 3), ASKED),
        (InputShape(None, 3, None, 3), (3, 8), ASKED),
        (InputShape(None, 1, 1, 1), (1, 1), ASKED),
        (InputShape(declared=False), (3, 8), FIRST),
        (InputShape(declared=False), (3, 3), ASKED),
        (InputShape(declared=False, channels_last=True), (3, 8), ASKED),
    ],
)
def test_layouts(shape: InputShape, keys: tuple[int, int], wanted: str | None) -> None:
    images = np.zeros((2, keys[0], keys[1], keys[1]), dtype=np.float32)
    if wanted is not ASKED:
        assert read_layout("onnx=m", shape, images, None) == (wanted, shape)
    else:
        with pytest.raises(TaggantError, match="write --layout NHWC .* or --layout NCHW"):
            read_layout("onnx=m", shape, images, None)
    assert read_layout("onnx=m", shape, images, FIRST) == (FIRST, shape)
    layout, named = read_layout("onnx=m", shape, images, LAST)
    assert (layout, named) == (LAST, InputShape(shape.batch, shape.width, shape.channels, shape.height))
    with pytest.raises(TaggantError, match="layout='CHW' is no order of dimensions"):
        read_layout("onnx=m", shape, images, "CHW")


def test_channels_last_is_asked_in_its_own_order() -> None:
    images = np.random.default_rng(0).random((5, 3, 4, 4), dtype=np.float32)

    def forward(block: np.ndarray) -> np.ndarray:
        assert block.shape[1:] == (4, 4, 3)
        return block.reshape(len(block), -1)

    model = OpenModel("onnx=m", InputShape(None, None, None, 3), forward)
    asked = ask_with_controls(model, images, layout=LAST)
    for answer, image in zip(asked.answers, images, strict=True):
        assert answer.labels == tuple(np.argsort(-image.transpose(1, 2, 0).ravel(), kind="stable").tolist())
    assert asked.checks["layout"] == LAST
    with pytest.raises(TaggantError, match="takes 3×8×8 images and the keys are 3×4×4; write --image-size 8"):
        ask_with_controls(OpenModel("onnx=m", InputShape(None, 8, 8, 3), forward), images, layout=LAST)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([123.675, 116.28, 103.53], None, r"mean=\[123.675, .*lies beyond 1.*write --mean 0.485,0.456,0.406"),
        (None, [58.395, 57.12, 57.375], r"std=\[58.395, .*write --std 0.229,0.224,0.225"),
        ([0.5, 0.5, 127.5], [0.5, 0.5, 0.5], "lies beyond 1"),
        ([1.001, 0, 0], None, "lies beyond 1"),
        ([-0.485, 0.456, 0.406], None, "lies below 0"),
        (None, [1e-9, 1, 1], "lies below 1e-06"),
        (None, [0, 1, 1], "must hold finite numbers above 0"),
        ([float("inf"), 0, 0], None, "must hold finite numbers"),
        ([0.5], None, "has 1 numbers and the images have 3 channels"),
    ],
)
def test_other_scales(mean: list[float] | None, std: list[float] | None, message: str) -> None:
    with pytest.raises(TaggantError, match=message):
        normalise(np.zeros((1, 3, 2, 2), dtype=np.float32), mean, std)


def test_scales_in_use() -> None:
    images = np.random.default_rng(0).random((2, 3, 2, 2), dtype=np.float32)
    for mean, std in (([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), ([0.5] * 3, [0.5] * 3), ([0, 0, 1], [1 / 255] * 3)):
        by_hand = (images - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        np.testing.assert_allclose(normalise(images, mean, std), by_hand, rtol=1e-5, atol=1e-5)
