"""The JSON of services: requests, rankings, mappings and their messages."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taggant_lightning.access.answer import rank
from taggant_lightning.access.png import png
from taggant_lightning.access.services.forms import suggestion
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
        ({"labels": ["crane", "crane", "a"]}, Recorded(("crane", "crane", "a"))),
        ({"labels": [1, None, True, 1.5, {"a": 1}, "x" * 2_000]}, Recorded((1, None, None, None, None, None))),
        ({"labels": ["b", None], "scores": [0.1, 0.9]}, Recorded((None, "b"), (0.9, 0.1))),
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
        ({"scores": [10**400]}, "JSON with a number of more than 100 digits"),
        ({"note": [[[[1]]], "a"] * 200_000}, "JSON with more than 500,000 values"),
        ([1, 2, 3], "an answer without labels and scores"),  # labels, or scores
        ({"label": "cat", "score": 0.5}, "an answer without labels and scores"),
        ({"predictions": [{"probabilities": {"cat": 0.5}}]}, "an answer without labels and scores"),
    ],
)
def test_malformed_answers(answer: Any, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        read(answer)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"cat": 0.2, "dog": 0.8}, Recorded(("dog", "cat"), (0.8, 0.2))),  # TorchServe
        ([{"label": "a", "score": 0.2}, {"label": "b", "score": 0.8}], Recorded(("b", "a"), (0.8, 0.2))),  # Hugging Face
        ([[{"label": "a", "score": 0.2}, {"label": "b", "score": 0.8}]], Recorded(("b", "a"), (0.8, 0.2))),
        ({"predictions": [[0.1, 0.9]]}, Recorded((1, 0), (0.9, 0.1), classes=2)),  # TensorFlow Serving
        ({"outputs": [[0.1, 0.9]]}, Recorded((1, 0), (0.9, 0.1), classes=2)),
        ({"predictions": [{"cat": 0.2, "dog": 0.8}]}, Recorded(("dog", "cat"), (0.8, 0.2))),
        ({"predictions": ["cat", "dog"]}, Recorded(("cat", "dog"))),
        ([0.1, 0, 0.9], Recorded((2, 0, 1), (0.9, 0.1, 0.0), classes=3)),
        (["cat", "dog"], Recorded(("cat", "dog"))),
        ("cat", Recorded(("cat",))),
    ],
)
def test_common_forms_need_no_mapping(answer: Any, expected: Recorded) -> None:
    assert read(answer) == expected
    with pytest.raises(MalformedError, match="an answer without"):  # a mapping that says something else is taken at its word
        read(answer, replace(Wire(), either=False))


def test_an_object_that_names_two_classes_alike() -> None:
    """JSON's usual reader keeps the last of two equal names, and so might lose the place of the first."""
    body = b'{"crane": 0.5, "cat": 0.3, "crane": 0.2}'
    assert Wire().read(body) == Recorded(("crane", "cat", "crane"), (0.5, 0.3, 0.2))
    assert Wire().read(b'{"scores": ' + body + b"}") == Recorded(("crane", "cat", "crane"), (0.5, 0.3, 0.2))


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"result": {"classes": ["a", "b"]}}, "answer: {labels: result.classes}"),
        ({"result": [{"name": "a", "p": 0.5}]}, 'answer: {labels: "result.*.name", scores: "result.*.p"}'),
        ({"predictions": [{"probabilities": {"cat": 0.5, "dog": 0.5}}]}, "answer: {scores: predictions.0.probabilities}"),
        ({"data": {"logits": [1.5, 2, 3]}}, "answer: {scores: data.logits}"),
        ({"data": {"classes": [3, 1, 2]}}, "answer: {labels: data.classes}"),
        ({"data": {"one_hot": [0, 1, 0]}}, None),
        ({"label": "cat", "score": 0.5}, "answer: {labels: label}"),
        ({"ok": True, "id.x": [1, 2], "\x1b[2J": [1, 2]}, None),
        (7, None),
    ],
)
def test_the_mapping_that_a_message_proposes_reads_the_answer(
    answer: Any, line: str | None, mapped: Callable[..., Wire]
) -> None:
    assert suggestion(answer) == line
    if line is not None:
        assert read(answer, mapped(line, name="m.yaml")).labels


@pytest.mark.parametrize("levels", [65, 200_000])
def test_depth_is_bounded(levels: int) -> None:
    with pytest.raises(MalformedError, match="JSON with more than 64 levels"):
        Wire().read(b'{"labels": [1], "note": ' + b"[" * levels + b"]" * levels + b"}")
    brackets = json.dumps({"labels": ["[" * levels, '"[' * 9, "\\" * 5 + "["]}).encode()  # within strings they are text
    assert len(Wire().read(brackets).labels or ()) == 3


@pytest.mark.parametrize("body", [b"", b'{"labels": [1', b"\xff\xfe{", b"{" * 64])
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
    several = {"predictions": [{"label": "a", "score": 0.5}, {"note": 1}]}
    assert read(several, wire) == Recorded(None)  # an element without a score
    assert read(several, mapped({"answer": {"labels": "predictions.*.label"}})) == Recorded(("a", None))
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
        ({"answer": {"labels": "a." * 40 + "a"}}, "it has more than 32 steps"),
        ({"answer": {"labels": [1]}}, "it is neither text nor a number"),
        ({"request": {"extra": {"a": float("nan")}}}, "does not go with request.extra"),
        ({"\x1b[2J": 1}, "^mapping=[^\x1b]* is unknown"),
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
    with pytest.raises(TaggantError, match="cannot be read"):
        load_mapping("/dev/zero")
    for name in ("m.json", "m.yaml"):
        with pytest.raises(TaggantError, match="is larger than 64 KiB"):
            mapped(" " * 2**16 + "{}", name=name)
    bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) if i else '1'}]\n" for i in range(12))
    for text in (f"request: {{extra: {{}}}}\nx:\n  {bomb.replace(chr(10), chr(10) + '  ')}", "request: &a {extra: {b: *a}}"):
        with pytest.raises(TaggantError, match="holds more than 10,000 values, or 32 levels|is no YAML"):
            mapped(text, name="m.yaml")
    for text in ("a: !!timestamp x", "a: !!int x", "a: !!float ", "? {a: 1}\n: 1", "a: 2001-99-99", "a: \x00", "!!set {a}"):
        with pytest.raises(TaggantError, match="mapping="):
            mapped(text, name="m.yaml")
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
