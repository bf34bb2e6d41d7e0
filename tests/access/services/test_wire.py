"""The JSON of services: requests, rankings, mappings and their messages."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.access.answer import rank
from taggant_lightning.access.png import png
from taggant_lightning.access.services.journal import Recorded
from taggant_lightning.access.services.mapping import load_mapping
from taggant_lightning.access.services.paths import MissingError, look_up, parse, put
from taggant_lightning.access.services.wire import MalformedError, Wire
from taggant_lightning.errors import TaggantError


def read(value: Any, wire: Wire | None = None) -> Recorded:
    return (wire or Wire()).read(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"labels": ["b", "a"]}, Recorded(("b", "a"))),
        ({"labels": [2, 0]}, Recorded((2, 0))),
        ({"labels": []}, Recorded(())),
        ({"labels": [], "scores": []}, Recorded(())),
        ({"scores": {}}, Recorded(())),
        ({"labels": ["b", "a"], "scores": [0.1, 0.9]}, Recorded(("a", "b"), (0.9, 0.1))),
        ({"labels": [10, 9], "scores": [0.5, 0.5]}, Recorded((9, 10), (0.5, 0.5))),
        ({"labels": ["10", "9"], "scores": [0.5, 0.5]}, Recorded(("9", "10"), (0.5, 0.5))),
        ({"labels": ["10", "9", "x"], "scores": [1, 1, 1]}, Recorded(("10", "9", "x"), (1.0, 1.0, 1.0))),
        ({"scores": [0.1, 0.6, 0.1, 0.2]}, Recorded((1, 3, 0, 2), (0.6, 0.2, 0.1, 0.1), classes=4)),
        ({"scores": {"b": 0.5, "c": 1, "a": 0.5}}, Recorded(("c", "a", "b"), (1.0, 0.5, 0.5))),
        ({"scores": [0.5, float("nan")]}, Recorded(None)),
        ({"scores": {"a": None, "b": 1}}, Recorded(None)),
        ({"scores": [float("-inf"), 0.5]}, Recorded((1, 0), None, classes=2)),
        ({"refused": True}, Recorded(None, refused=True)),
        ({"refused": False, "labels": [1]}, Recorded((1,))),
    ],
)
def test_answers(answer: dict, expected: Recorded) -> None:
    assert read(answer) == expected


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, "an answer without labels and scores"),
        ([], "an answer without labels and scores"),
        (7, "an answer without labels and scores"),
        ({"labels": None}, "an answer without labels and scores"),
        ({"refused": False}, "an answer without labels and scores"),
        ({"labels": [1, 1]}, "names a label twice"),
        ({"labels": [1, "1"]}, "names a label twice"),
        ({"labels": [1.5]}, "neither whole numbers nor text"),
        ({"labels": [True]}, "neither whole numbers nor text"),
        ({"labels": [None]}, "neither whole numbers nor text"),
        ({"labels": {"a": 1}}, "neither whole numbers nor text"),
        ({"labels": [1, 2], "scores": [1]}, "2 labels and 1 scores"),
        ({"labels": [1], "scores": ["1"]}, "scores are no list of numbers"),
        ({"labels": [1], "scores": {"1": 1}}, "scores are no list of numbers"),
        ({"scores": []}, "scores are no list of numbers"),
        ({"scores": [True]}, "scores are no list of numbers"),
        ({"scores": "high"}, "scores are no list of numbers"),
        ({"scores": [10**400]}, "beyond the range"),
    ],
)
def test_malformed_answers(answer: Any, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        read(answer)


@pytest.mark.parametrize("body", [b"", b'{"labels": [1', b"\xff\xfe{", b"[" * 200_000])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(MalformedError, match="malformed JSON"):
        Wire().read(body)


def test_a_plain_list_ranks_as_everywhere_else() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 4, 12) / 4  # many ties
        assert read({"scores": scores.tolist()}).labels == rank(scores[None])[0].labels


def test_request() -> None:
    assert json.loads(Wire().request(b"\x89PNG")) == {"image": base64.b64encode(b"\x89PNG").decode()}


def test_paths() -> None:
    value = {"a": [{"b": 1}, {"b": 2}], "0": {"c": [5]}}
    assert look_up(value, parse("a.*.b")) == [1, 2]
    assert look_up(value, parse("a.1.b")) == 2
    assert look_up(value, parse("0.c.0")) == 5
    for wrong in ("x", "a.2", "a.b", "a.*.c", "0.*", "0.c.0.d", "a.-1"):
        with pytest.raises(MissingError):
            look_up(value, parse(wrong))
    base = {"x": {"y": 1}, "l": [1]}
    assert put(base, parse("x.z"), 2) == {"x": {"y": 1, "z": 2}, "l": [1]}
    assert put(base, parse("l.1.image"), 2) == {"x": {"y": 1}, "l": [1, {"image": 2}]}
    assert put(base, parse("l.0"), 2) == {"x": {"y": 1}, "l": [2]}
    assert put({}, parse("instances.0.image"), 2) == {"instances": [{"image": 2}]}
    assert base == {"x": {"y": 1}, "l": [1]}
    for wrong in ("x.y.z", "l.2", "l.*", "l.x"):
        with pytest.raises(ValueError, match="."):
            put(base, parse(wrong), 2)


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[..., Wire]:
    def write(content: Any, environment: dict | None = None, name: str = "m.json") -> Wire:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return load_mapping(tmp_path / name, environment or {})

    return write


def test_mapping(mapped: Callable[..., Wire]) -> None:
    text = """
    request: {image: inputs.image, extra: {parameters: {top_k: 5}, inputs: {kind: png}}}
    answer: {labels: predictions.*.label, scores: predictions.*.score, refused: error.blocked}
    headers: {Authorization: "Bearer ${TOKEN}", X-Plain: "$5 {x}"}
    image_format: data-url
    """
    wire = mapped(text, {"TOKEN": "s3cret"}, "m.yaml")
    assert wire.headers == {"Authorization": "Bearer s3cret", "X-Plain": "$5 {x}"}
    assert "s3cret" not in repr(wire)
    body = json.loads(wire.request(b"x"))
    assert body == {"parameters": {"top_k": 5}, "inputs": {"kind": "png", "image": "data:image/png;base64,eA=="}}
    answer = {"predictions": [{"label": "a", "score": 0.2}, {"label": "b", "score": 0.8}]}
    assert read(answer, wire) == Recorded(("b", "a"), (0.8, 0.2))
    assert read({"predictions": []}, wire) == Recorded(())
    assert read({"error": {"blocked": "policy"}}, wire) == Recorded(None, refused=True)
    assert read({**answer, "error": {"blocked": False}}, wire).labels == ("b", "a")
    for wrong in ({"labels": [1]}, {"predictions": [{"label": "a"}]}, {"predictions": [{"score": 1}]}):
        with pytest.raises(MalformedError, match="an answer without"):
            read(wrong, wire)


def test_mapping_of_one_part(mapped: Callable[..., Wire]) -> None:
    assert mapped({}) == Wire()
    assert mapped({"answer": {"labels": "class"}}).read(b'{"class": "cat"}') == Recorded(("cat",))
    assert read([[{"label": "a"}, {"label": "b"}]], mapped({"answer": {"labels": "0.*.label"}})) == Recorded(("a", "b"))
    assert read({"p": {"a": 0.1, "b": 0.9}}, mapped({"answer": {"scores": "p"}})) == Recorded(("b", "a"), (0.9, 0.1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "mapping=.* is no JSON; correct its syntax"),
        ([], "holds no object; write request, answer and headers"),
        ({"anser": {}}, "anser is unknown; write one of request, answer, headers, image_format"),
        ({"answer": {"label": "x"}}, "answer.label is unknown; write one of labels, scores, refused"),
        ({"request": 3}, "request is no object"),
        ({"answer": {"refused": "x"}}, "answer has neither labels nor scores"),
        ({"answer": {"labels": "a..b"}}, "answer.labels='a..b' is no path .a step is empty.; write names"),
        ({"answer": {"labels": "*.a.*"}}, "it has more than one [*]"),
        ({"request": {"image": "a.*"}}, "request.image='a.[*]' does not go with request.extra"),
        (
            {"request": {"image": "a.b", "extra": {"a": 1}}},
            "does not go with request.extra .'b' lies in something that is no obj",
        ),
        ({"request": {"extra": [1]}}, "request.extra=.1. is no object"),
        ({"image_format": "jpeg"}, "image_format='jpeg' is unknown; write one of base64, data-url"),
        ({"headers": {"A B": "x"}}, "the header name 'A B' is not allowed"),
        ({"headers": {"A": 7}}, "the header A is no text; put it in quotes"),
        ({"headers": {"A": "${NOT_SET}"}}, "the header A names NOT_SET, which is not set; export NOT_SET first"),
        ({"headers": {"A": "${LINES}"}}, "the header A has a line break"),
    ],
)
def test_wrong_mappings(mapped: Callable[..., Wire], content: Any, message: str) -> None:
    with pytest.raises(TaggantError, match=message) as caught:
        mapped(content, {"LINES": "s3cret\n"})
    assert "s3cret" not in str(caught.value)


def test_wrong_mapping_files(tmp_path: Path, mapped: Callable[..., Wire]) -> None:
    with pytest.raises(TaggantError, match="cannot be read; name a JSON or YAML file"):
        load_mapping(tmp_path / "none.yaml")
    with pytest.raises(TaggantError, match="is no YAML; correct its syntax") as caught:
        mapped("headers: {Authorization: [s3cret", name="m.yaml")
    assert "s3cret" not in str(caught.value)


def test_png() -> None:
    rng = np.random.default_rng(0)
    for channels, mode in ((1, "L"), (3, "RGB")):
        image = rng.integers(0, 256, (channels, 5, 4), dtype=np.uint8)
        data = png(image)
        assert data == png(image.copy())
        with Image.open(io.BytesIO(data)) as opened:
            assert (opened.mode, opened.size, opened.info) == (mode, (4, 5), {})
            back = np.asarray(opened)
        assert np.array_equal(back if channels == 1 else back.transpose(2, 0, 1), image[0] if channels == 1 else image)
    with pytest.raises(TaggantError, match=r"shape \(4, 2, 2\) cannot travel as PNG"):
        png(np.zeros((4, 2, 2), np.uint8))
