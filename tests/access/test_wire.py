"""Requests and answers of a service: the documented form, mappings, ties, and everything that is not an answer."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.access.journal import Reply
from taggant_lightning.access.png import png
from taggant_lightning.access.wire import FieldMapping, Unreadable, reply, request
from taggant_lightning.errors import TaggantError

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
PLAIN = FieldMapping()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_keeps_the_pixels(channels: int) -> None:
    with Image.open(io.BytesIO(png(IMAGE[:channels]))) as image:
        pixels = np.asarray(image)
    assert np.array_equal(pixels if channels == 1 else pixels.transpose(2, 0, 1), IMAGE[0] if channels == 1 else IMAGE)
    assert png(IMAGE) == png(IMAGE.copy())
    with pytest.raises(TaggantError, match="keys need 1 channel"):
        png(IMAGE[:2])


def test_requests() -> None:
    assert base64.b64decode(request(IMAGE, PLAIN)["image"]) == png(IMAGE)
    mapping = FieldMapping(
        image="instances.0.image.b64", extra={"model": "m", "instances": [{"k": 5}]}, image_format="data-url"
    )
    body = request(IMAGE, mapping)
    assert body["instances"][0]["k"] == 5
    assert body["instances"][0]["image"]["b64"].startswith("data:image/png;base64,iVBOR")
    assert mapping.extra == {"model": "m", "instances": [{"k": 5}]}
    assert request(IMAGE, FieldMapping(image="a.1.b"))["a"][0] is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"labels": [3, 1]}, Reply([3, 1])),
        ({"labels": ["cat", "dog"]}, Reply(["cat", "dog"])),
        ({"labels": []}, Reply([])),
        ({"scores": [0.1, 0.7, 0.1]}, Reply([1, 0, 2], [0.7, 0.1, 0.1])),
        ({"scores": {"10": 0.5, "9": 0.5, "1": 0.9}}, Reply(["1", "9", "10"], [0.9, 0.5, 0.5])),
        ({"labels": ["b", "a"], "scores": [0.5, 0.5]}, Reply(["a", "b"], [0.5, 0.5])),
        ({"labels": [10, 9], "scores": [1, 1]}, Reply([9, 10], [1.0, 1.0])),
        ({"scores": [0.1, float("nan")]}, Reply(None)),
        ({"refused": True}, Reply(None, refused=True)),
        ({"refused": False, "labels": [1]}, Reply([1])),
    ],
)
def test_answers(body: dict[str, Any], expected: Reply) -> None:
    assert reply(json.loads(json.dumps(body)), PLAIN) == expected


def test_answers_of_other_forms() -> None:
    listed = FieldMapping(labels="*.label", scores="*.score")
    assert reply([{"label": "cat", "score": 0.2}, {"label": "dog", "score": 0.8}], listed) == Reply(["dog", "cat"], [0.8, 0.2])
    nested = FieldMapping(labels="out.0.top.*.name", scores="")
    assert reply({"out": [{"top": [{"name": "x"}, {"name": "y"}]}]}, nested) == Reply(["x", "y"])
    blocked = FieldMapping(refused="error.code")
    assert reply({"error": {"code": "unsafe"}}, blocked).refused


@pytest.mark.parametrize(
    "body",
    [
        {}, [], "x", None, {"labels": 3}, {"labels": [1, 1]}, {"labels": [1, "1"]}, {"labels": [True]}, {"labels": [1.5]},
        {"scores": []}, {"scores": ["a"]}, {"labels": [1], "scores": [0.1, 0.2]}, {"scores": {"a": None}},
    ],
)  # fmt: skip
def test_what_is_no_answer(body: Any) -> None:
    with pytest.raises(Unreadable):
        reply(body, PLAIN)


def test_mapping_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "request: {image: inputs, extra: {top: 5}}\nanswer: {labels: '*.label', scores: '*.score'}\n"
        "headers: {Authorization: 'Bearer ${SERVICE_TOKEN}'}\n"
    )
    mapping = FieldMapping.load(path)
    assert (mapping.image, mapping.labels, mapping.extra) == ("inputs", "*.label", {"top": 5})
    with pytest.raises(TaggantError, match="the environment variable SERVICE_TOKEN of a header is not set"):
        mapping.expanded_headers()
    monkeypatch.setenv("SERVICE_TOKEN", "t0p")
    assert mapping.expanded_headers() == {"Authorization": "Bearer t0p"}
    (tmp_path / "m.json").write_text('{"image_format": "data-url"}')
    assert FieldMapping.load(tmp_path / "m.json").image_format == "data-url"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "is no object"),
        ("a: [", "is neither JSON nor YAML"),
        ("url: x", "has url; it takes request, answer"),
        ("answer: {label: x}", "answer has .*; it takes labels, refused, scores"),
        ("image_format: jpeg", "image_format='jpeg'; write one of base64, data-url"),
    ],
)
def test_wrong_mapping_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(TaggantError, match=message):
        FieldMapping.load(tmp_path / "m.yaml")
    with pytest.raises(TaggantError, match="cannot be read"):
        FieldMapping.load(tmp_path / "none.yaml")
