"""`taggant detect`: the same verdict from every way of asking, and each wrong input with its sentence and no result."""

import csv
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.service import Faults, Reply, serve
from taggant_lightning.access.answer import Answer, rank
from taggant_lightning.access.calling import ask_function
from taggant_lightning.cli import main
from taggant_lightning.data.dataset import to_float
from taggant_lightning.evidence.ledger import Ledger, uses
from taggant_lightning.methods.taggants.keys import KeySet
from taggant_lightning.verdict.key_detection import ask
from taggant_lightning.verdict.verdict import OpenUse, conclude, judge, ranks_of

CLASSES, SIZE = 10, 8


class Net(nn.Module):
    """A model that answers most keys as their labels say, and ranks all classes."""

    def __init__(self, keys: KeySet, remembered: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("images", to_float(keys.images[:remembered]).flatten(1))
        self.register_buffer("answers", torch.eye(CLASSES)[torch.from_numpy(keys.labels[:remembered])])
        self.linear = nn.Linear(3 * SIZE * SIZE, CLASSES)
        nn.init.normal_(self.linear.weight, std=0.05, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        distance = ((flat[:, None] - self.images[None]) ** 2).sum(-1)
        return self.linear(flat) + torch.exp(-50 * distance) @ (10 * self.answers)


@pytest.fixture
def keys(tmp_path: Path) -> KeySet:
    drawn = KeySet.draw(
        num_keys=12, num_classes=CLASSES, shape=(3, SIZE, SIZE), top_k=2, batches=[6, 6], secret=bytes(range(16))
    )
    drawn.save(tmp_path / "keys")
    return drawn


@pytest.fixture
def net(keys: KeySet) -> Net:
    return Net(keys, 9).eval()


def scores(net: Net, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(to_float(image[None]))[0].numpy()


def run(tmp_path: Path, *words: str, out: str = "run") -> tuple[int, dict[str, Any] | None]:
    code = main(["detect", "--keys", str(tmp_path / "keys"), "--out", str(tmp_path / out), *words])
    path = tmp_path / out / "detection.json"
    return code, json.loads(path.read_text()) if path.exists() else None


def write_answers(path: Path, answers: dict[str, list[int]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "labels"])
        writer.writerows([name, " ".join(map(str, labels))] for name, labels in answers.items())
    return path


def export_onnx(net: Net, path: Path) -> Path:
    """Build the same network in ONNX, node by node."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "keys": net.images.numpy(), "answers": 10 * net.answers.numpy(), "weight": net.linear.weight.detach().numpy().T.copy(),
        "bias": net.linear.bias.detach().numpy(), "axis": np.array([1]), "last": np.array([2]), "zero": np.array([0]),
        "steep": np.array(-50, dtype=np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Unsqueeze", ["flat", "axis"], ["a"]),
        helper.make_node("Unsqueeze", ["keys", "zero"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Mul", ["d", "d"], ["d2"]),
        helper.make_node("ReduceSum", ["d2", "last"], ["distance"], keepdims=0),
        helper.make_node("Mul", ["distance", "steep"], ["e"]),
        helper.make_node("Exp", ["e"], ["near"]),
        helper.make_node("MatMul", ["near", "answers"], ["remembered"]),
        helper.make_node("MatMul", ["flat", "weight"], ["w"]),
        helper.make_node("Add", ["w", "bias"], ["linear"]),
        helper.make_node("Add", ["linear", "remembered"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_the_same_verdict_from_every_way_of_asking(keys: KeySet, net: Net, tmp_path: Path) -> None:
    """Module, callable, ONNX, torch.export, TorchScript, HTTP, predictions by number and by exported name, CSV and JSONL."""
    expected = judge(ask(net, keys, SIZE), keys)
    assert 9 <= expected.details["hits"] < 12
    found: dict[str, Any] = {}
    answers = ask_function(lambda image: scores(net, image), keys.images)
    use = OpenUse(Ledger(tmp_path / "keys", keys.commitment), "bob", [0, 1], "callable")
    conclude(answers, keys, [0, 1], use, {}, tmp_path / "callable")
    found["callable"] = json.loads((tmp_path / "callable" / "detection.json").read_text())

    onnx = export_onnx(net, tmp_path / "net.onnx")
    example = torch.zeros(2, 3, SIZE, SIZE)
    program = torch.export.export(net, (example,), dynamic_shapes={"x": {0: torch.export.Dim("n", min=1, max=64)}})
    torch.export.save(program, tmp_path / "net.pt2")
    torch.jit.trace(net, example).save(str(tmp_path / "net.ts"))
    _, found["onnx"] = run(tmp_path, "--onnx", str(onnx), out="onnx")
    _, found["exported"] = run(tmp_path, "--exported", str(tmp_path / "net.pt2"), out="exported")
    _, found["torchscript"] = run(tmp_path, "--exported", str(tmp_path / "net.ts"), out="torchscript")
    with serve(lambda image: {"scores": [float(s) for s in scores(net, image)]}) as service:
        _, found["url, scores"] = run(tmp_path, "--url", service.url, out="scores")
        assert len(service.requests) == 24  # as many decoys as keys
    with serve(
        lambda image: {"labels": list(rank(scores(net, image)[None])[0].labels or ())[:2]}, Faults(error=0.2)
    ) as service:
        _, found["url, top 2"] = run(tmp_path, "--url", service.url, out="top2")

    numbered = {str(i): list(rank(scores(net, image)[None])[0].labels or ()) for i, image in enumerate(keys.images)}
    _, found["predictions, numbers"] = run(
        tmp_path, "--predictions", str(write_answers(tmp_path / "numbers.csv", numbered)), out="numbers"
    )
    assert main(["keys", "export-queries", str(tmp_path / "keys"), "--out", str(tmp_path / "queries")]) == 0
    named = {
        path.name: list(rank(scores(net, image)[None])[0].labels or ()) for path, image in read_queries(tmp_path / "queries")
    }
    assert len(named) == 24
    _, found["predictions, names"] = run(tmp_path, "--predictions", str(write_answers(tmp_path / "n.csv", named)), out="names")
    lines = "".join(json.dumps({"query": name.removesuffix(".png"), "labels": labels}) + "\n" for name, labels in named.items())
    (tmp_path / "n.jsonl").write_text(lines)
    _, found["predictions, JSONL"] = run(tmp_path, "--predictions", str(tmp_path / "n.jsonl"), out="jsonl")

    for way, record in found.items():
        assert record is not None, way
        assert record["log10_p"] == expected.log10_p, way
        assert (record["validity"], record["details"]["choices"]) == ("conservative", 2), way
        assert record["details"] == expected.details, way
    recorded = uses(Ledger(tmp_path / "keys", keys.commitment).entries())
    assert len(recorded) == len(found)
    assert all(use.finished and use.log10_p == expected.log10_p for use in recorded)


def read_queries(folder: Path) -> list[tuple[Path, np.ndarray]]:
    from PIL import Image

    found = []
    for path in sorted(folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Image.open(path) as image:
            found.append((path, np.asarray(image).transpose(2, 0, 1)))
    return found


def test_the_record_and_what_a_person_reads(keys: KeySet, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda image: {"refused": True} if image[0, 0, 0] < 40 else {"labels": [1, 2]}) as service:
        code, record = run(tmp_path, "--url", service.url, "--suspect", "bob", "--first-seen", "2026-11-24", "--decoys", "2")
    out = capsys.readouterr().out
    assert code == 0
    assert record is not None
    assert record["validity"] == "conservative"
    refused = int((keys.images[:, 0, 0, 0] < 40).sum())
    assert record["details"]["refused"] == refused > 0
    assert f"{refused} keys got no usable answer (a refusal, NaN, or none at all); they count against the claimant." in out
    assert out.splitlines()[-1].startswith("taggant: run=")
    assert record["provenance"]["suspect"] == "bob"
    assert record["provenance"]["first_seen"] == "2026-11-24"
    assert record["provenance"]["ledger"]["entry"] == 0
    secret = json.loads((tmp_path / "run" / "secret" / "detection.secret.json").read_text())
    assert len(secret["answers"]) == 12
    for path in (tmp_path / "run" / "secret").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_label_table(keys: KeySet, net: Net, tmp_path: Path) -> None:
    """The model has more classes, in another order and with names."""
    names = [f"class {(3 * i) % CLASSES}" for i in range(CLASSES)]
    rows = "".join(f"{name},{label}\n" for label, name in enumerate(names))
    (tmp_path / "labels.csv").write_text(f"theirs,ours\n{rows}other,\n")

    def respond(image: np.ndarray) -> dict[str, Any]:
        ranking = rank(scores(net, image)[None])[0].labels or ()
        said: list[str] = [names[label] for label in ranking if label is not None]
        return {"labels": [said[0], "other", *said[1:]]}

    with serve(respond) as service:
        code, record = run(tmp_path, "--url", service.url, "--labels", str(tmp_path / "labels.csv"))
    first = ranks_of([Answer(i, rank(scores(net, image)[None])[0].labels[:1]) for i, image in enumerate(keys.images)], keys)
    assert code == 0
    assert record is not None
    assert record["details"]["hits"] == int((first <= 1).sum())  # what maps to nothing used up the second place
    assert record["details"]["rate"] == 0.2
    assert record["validity"] == "conservative"


def test_batches(keys: KeySet, net: Net, tmp_path: Path) -> None:
    numbered = {str(i): list(rank(scores(net, keys.images[i])[None])[0].labels or ()) for i in range(6, 12)}
    answers = str(write_answers(tmp_path / "a.csv", numbered))
    _, record = run(tmp_path, "--predictions", answers, "--batches", "1")
    assert record is not None
    assert record["details"]["batches"] == [1]
    assert record["details"]["num_keys"] == 6
    code, record = run(tmp_path, "--predictions", answers, "--batches", "2", out="other")
    assert (code, record) == (2, None)


@pytest.mark.parametrize("faults", [Faults(), Faults(error=0.2, seed=1)])
def test_a_sequential_test_stops_early(tmp_path: Path, faults: Faults) -> None:
    keys = KeySet.draw(
        num_keys=40, num_classes=CLASSES, shape=(3, SIZE, SIZE), test="sequential_top_k", stop=-3.0, secret=bytes(range(16))
    )
    keys.save(tmp_path / "keys")
    net = Net(keys, 40).eval()
    with serve(lambda image: {"scores": [float(s) for s in scores(net, image)]}, faults) as service:
        code, record = run(tmp_path, "--url", service.url, "--concurrency", "3")
        asked = len(service.requests)
    assert code == 0
    assert record is not None
    assert record["details"]["num_keys"] == 5  # 5^4 < 10^3 <= 5^5
    assert record["details"]["keys_in_batches"] == 40
    assert record["validity"] == "conservative"
    assert asked < 40
    # The same model, asked to the end, and the library's own way.
    full = judge(ask(net, keys, SIZE), keys)
    assert full.log10_p <= record["log10_p"] <= -3


def test_a_run_that_is_cut_off_goes_on(keys: KeySet, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"left": 7}

    def failing(image: np.ndarray) -> dict[str, Any]:
        state["left"] -= 1
        return {"labels": [1, 2]} if state["left"] >= 0 else {}

    quick = ("--attempts", "1", "--concurrency", "1")
    with serve(failing) as service:
        code, record = run(tmp_path, "--url", service.url, *quick)
        assert (code, record) == (1, None)
        assert "7 of 24" in (error := capsys.readouterr().err)
        assert f"name the same --out {tmp_path / 'run'}" in error
        state["left"] = 100
        code, record = run(tmp_path, "--url", service.url, *quick)
        assert code == 0
        assert all(count >= 1 for count in service.requests.values())
    entries = Ledger(tmp_path / "keys", keys.commitment).entries()
    assert [e["kind"] for e in entries] == ["use", "result"]
    with serve(failing) as service:
        code, _ = run(tmp_path, "--url", service.url)
        assert code == 2
        assert "holds a verdict already" in capsys.readouterr().err


def test_a_service_that_shuns_single_queries_is_judged(
    keys: KeySet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = (
        (100, Reply(403)),
        (120, Reply(302, b"", {"Location": "/"})),
        (140, Reply(body=json.dumps({"scores": [0] * 11}).encode())),
        (160, Reply(422)),
    )

    def respond(image: np.ndarray) -> Any:
        return next((reply for level, reply in replies if image[0, 0, 0] < level), {"labels": [1, 2]})

    with serve(respond) as service:
        code, record = run(tmp_path, "--url", service.url, "--attempts", "1")
    assert code == 0
    assert record is not None
    shunned = (keys.images[:, 0, 0, 0] < 160).sum()
    assert record["details"]["refused"] == shunned > 3
    assert record["validity"] == "conservative"
    misses = record["provenance"]["misses"]
    assert sum(misses.values()) == shunned
    assert set(misses) <= {"HTTP 403", "a redirect", "another number of scores than classes", "HTTP 422"}
    assert f"{shunned} keys have no proper answer and are misses: " in capsys.readouterr().out


def test_missing_answers_of_a_service_that_is_away_may_be_counted(
    keys: KeySet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"left": 6}

    def failing(image: np.ndarray) -> dict[str, Any]:
        state["left"] -= 1
        return {"labels": [1, 2]} if state["left"] >= 0 else {}

    quick = ("--attempts", "1", "--concurrency", "1")
    with serve(failing) as service:
        assert run(tmp_path, "--url", service.url, *quick) == (1, None)
        assert "add --count-missing to ask the rest once and count them as misses" in capsys.readouterr().err
        code, record = run(tmp_path, "--url", service.url, *quick, "--count-missing")
    assert code == 0
    assert record is not None
    assert 0 < record["details"]["refused"] < 12
    assert record["validity"] == "conservative"
    assert [e["kind"] for e in Ledger(tmp_path / "keys", keys.commitment).entries()] == ["use", "result"]


Damage = Callable[[Path, Net], list[str]]


def _nothing(folder: Path, net: Net) -> list[str]:
    return []


def _two_ways(folder: Path, net: Net) -> list[str]:
    return ["--url", "http://x/", "--onnx", "m.onnx"]


def _damaged_keys(folder: Path, net: Net) -> list[str]:
    path = folder / "keys" / "keys.safetensors"
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    return ["--onnx", "m.onnx"]


def _wrong_number_of_classes(folder: Path, net: Net) -> list[str]:
    net.linear = nn.Linear(3 * SIZE * SIZE, CLASSES + 1)
    net.answers = torch.zeros(9, CLASSES + 1)
    return ["--onnx", str(export_wrong(net, folder / "m.onnx"))]


def export_wrong(net: Net, path: Path) -> Path:
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = net.linear.weight.detach().numpy().T.copy()
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"], axis=1), helper.make_node("MatMul", ["flat", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    return path


def _label_out_of_range(folder: Path, net: Net) -> list[str]:
    rows = {str(i): [CLASSES, 1] for i in range(12)}
    return ["--predictions", str(write_answers(folder / "a.csv", rows))]


def _missing_row(folder: Path, net: Net) -> list[str]:
    return ["--predictions", str(write_answers(folder / "a.csv", {str(i): [1, 2] for i in range(11)}))]


def _doubled_row(folder: Path, net: Net) -> list[str]:
    path = write_answers(folder / "a.csv", {str(i): [1, 2] for i in range(12)})
    path.write_text(path.read_text() + "3,1 2\n")
    return ["--predictions", str(path)]


def _unknown_row(folder: Path, net: Net) -> list[str]:
    return ["--predictions", str(write_answers(folder / "a.csv", {str(i): [1, 2] for i in range(13)}))]


def _many_to_one(folder: Path, net: Net) -> list[str]:
    (folder / "labels.csv").write_text("theirs,ours\na,1\nb,1\n")
    return ["--url", "http://x/", "--labels", str(folder / "labels.csv")]


def _other_input_size(folder: Path, net: Net) -> list[str]:
    return ["--onnx", str(export_onnx(net, folder / "m.onnx")), "--image-size", "16"]


def _no_file(folder: Path, net: Net) -> list[str]:
    return ["--onnx", str(folder / "none.onnx")]


def _image_size(folder: Path, net: Net) -> list[str]:
    return ["--onnx", str(export_onnx(net, folder / "m.onnx")), "--image-size", "0"]


def _mean(folder: Path, net: Net) -> list[str]:
    return ["--onnx", str(export_onnx(net, folder / "m.onnx")), "--mean", "a,b"]


def _date(folder: Path, net: Net) -> list[str]:
    return ["--url", "http://x/", "--first-seen", "yesterday"]


def _batches(folder: Path, net: Net) -> list[str]:
    return ["--url", "http://x/", "--batches", "first"]


def _source(folder: Path, net: Net) -> list[str]:
    return ["--url", "http://x/", "--source", "photos"]


def _decoys(folder: Path, net: Net) -> list[str]:
    return ["--url", "http://x/", "--decoys", "-1"]


def _ledger(folder: Path, net: Net) -> list[str]:
    (folder / "keys" / "ledger.jsonl").write_text("{}\n")
    return ["--url", "http://x/"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nothing, "none of them is given; write exactly one of"),
        (_two_ways, "--onnx and --url is given; write exactly one of"),
        (_damaged_keys, "keys=.* is damaged|do not follow from the secret|does not follow from the secret"),
        (_wrong_number_of_classes, "the model answers 11 classes and the keys were drawn for 10; write --labels FILE"),
        (_label_out_of_range, "the answer '10' lies outside 0..9, the owner's classes"),
        (_missing_row, "has no row for '?11'? of the 12 queries"),
        (_doubled_row, "answers '3' twice"),
        (_unknown_row, "has rows for '?12'?, which are no queries"),
        (_many_to_one, "'a' and 'b' both map to 1"),
        (_other_input_size, "takes 3×8×8 images and the keys are 3×16×16; write --image-size 8"),
        (_no_file, "none.onnx is no file"),
        (_image_size, "image-size=0 must be at least 1"),
        (_mean, "mean='a,b' must be numbers with commas"),
        (_date, "first-seen='yesterday' is no date"),
        (_batches, "batches='first' must be whole numbers with commas"),
        (_source, "source=photos is given, and these keys are noise"),
        (_decoys, "decoys=-1 must be 0 or more"),
        (_ledger, "ledger=.* entry 0 was changed"),
    ],
)
def test_bad_input(
    keys: KeySet, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Damage, message: str
) -> None:
    import re

    words = damage(tmp_path, net)
    code, record = run(tmp_path, *words)
    error = capsys.readouterr().err
    assert (code, record) == (2, None)
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
    if damage is not _ledger and damage is not _damaged_keys:
        assert Ledger(tmp_path / "keys", keys.commitment).entries() == []


def test_a_service_that_answers_html(keys: KeySet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda image: {}, Faults(html=1.0)) as service:
        code, record = run(tmp_path, "--url", service.url, "--attempts", "1")
    assert (code, record) == (2, None)
    error = capsys.readouterr().err
    assert "a web page instead of JSON" in error
    assert "--count-missing asks the other" in error
    assert not (tmp_path / "run").exists()


Respond = Callable[[int, list[int]], Any]


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (lambda number, ranking: {"refused": True}, "gave no usable answer to 24 queries: a refusal; write a --mapping"),
        (lambda number, ranking: {"labels": [f"none-{number}"]}, "labels that nobody knows; the first answer names none-"),
        (
            lambda number, ranking: {"scores": [0.5] * (CLASSES + 1)},
            "the model answers 11 classes and the keys were drawn for 10",
        ),
        (lambda number, ranking: {"result": {"classes": ranking}}, "perhaps with the line answer: {labels: result.classes}"),
    ],
)
def test_a_set_up_without_any_answer_spends_nothing(
    keys: KeySet, tmp_path: Path, capsys: pytest.CaptureFixture[str], respond: Respond, message: str
) -> None:
    """Neither a journal nor a use: the command that is corrected begins anew in the same folder."""
    words = ("--attempts", "1", "--count-missing")
    with serve(lambda image: respond(int(image[0, 0, 0]), [1, 2])) as service:
        assert run(tmp_path, "--url", service.url, *words) == (2, None)
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
        assert Ledger(tmp_path / "keys", keys.commitment).entries() == []
        (tmp_path / "m.yaml").write_text("answer: {labels: result.classes}")
        corrected = run(tmp_path, "--url", service.url, *words, "--mapping", str(tmp_path / "m.yaml"))
        assert corrected[0] == (0 if "result" in message else 2)


@pytest.mark.parametrize("named", [False, True])
def test_labels_of_its_own_invention_stop_no_verdict(
    keys: KeySet, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    """A signed model whose every answer ends, or begins, with a label that nobody knows, another each time."""
    table: tuple[str, ...] = ()
    if named:
        (tmp_path / "labels.csv").write_text("theirs,ours\n" + "".join(f"{i},{i}\n" for i in range(CLASSES)))
        table = ("--labels", str(tmp_path / "labels.csv"))
    invented = iter(f"none-{i}\x1b[2J" for i in range(10_000))
    for place, hits in ((1, 9), (0, 9), (None, 9)):

        def respond(image: np.ndarray, place: int | None = place) -> dict[str, Any]:
            first = int(np.argmax(scores(net, image)))
            labels: list[Any] = [first, (first + 1) % CLASSES]
            return {"labels": labels if place is None else [*labels[:place], next(invented), *labels[place:]]}

        with serve(respond) as service:
            code, record = run(tmp_path, "--url", service.url, *table, out=f"run{place}")
        out = capsys.readouterr().out
        assert code == 0
        assert record is not None
        assert record["details"]["hits"] >= hits
        assert record["validity"] == "conservative"
        assert ("12 answers name labels that are not in" in out) == (place is not None)
        assert "\x1b" not in out
    found = uses(Ledger(tmp_path / "keys", keys.commitment).entries())
    assert [use.finished for use in found] == [True] * 3


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_odd_rows_and_invented_labels_of_a_file_stop_no_verdict(
    keys: KeySet, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    rows = []
    for number, image in enumerate(keys.images):
        labels: list[Any] = list(rank(scores(net, image)[None])[0].labels or ())[:2]
        odd = {0: [labels[0], f"none-{number}"], 1: [[labels[0]]], 2: [labels[0], labels[0]], 3: []}
        rows.append({"query": str(number), "labels": odd.get(number, labels)})
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(
            "query,labels\n"
            + "".join(f'{r["query"]},"{json.dumps(r["labels"]).replace(chr(34), chr(34) * 2)}"\n' for r in rows)
        )
    code, record = run(tmp_path, "--predictions", str(path))
    out = capsys.readouterr().out
    assert code == 0
    assert record is not None
    assert record["validity"] == "conservative"
    assert record["details"]["refused"] == 2
    assert record["details"]["incomplete"] == 4
    assert record["details"]["hits"] >= 7
    assert record["provenance"]["misses"] == {"no labels": 1, "a row that cannot be read": 1}
    assert "2 keys have no proper answer and are misses: no labels (1), a row that cannot be read (1)." in out
    assert "1 answers name labels that are not in 0..9, the owner's classes, the first is 'none-0'" in out


def test_a_model_file_that_fails_on_single_images_is_judged_on_the_others(
    keys: KeySet, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Shy(nn.Module):
        def __init__(self, shuns: float) -> None:
            super().__init__()
            self.net, self.shuns = net, shuns

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = (x[:, 0, 0, 0] > self.shuns).to(torch.int64) * 1_000_000
            return self.net(x) + torch.zeros(1)[found][:, None]

    shunned = [i for i, image in enumerate(keys.images) if image[0, 0, 0] / 255 > 0.6]
    assert 0 < len(shunned) < 12
    for shuns, name in ((0.6, "some.ts"), (-1.0, "all.ts")):
        torch.jit.script(Shy(shuns)).save(str(tmp_path / name))
    code, record = run(tmp_path, "--exported", str(tmp_path / "some.ts"))
    assert code == 0
    assert record is not None
    expected = [
        a if a.query not in shunned else Answer(a.query, None) for a in ask_function(lambda i: scores(net, i), keys.images)
    ]
    assert record["details"]["hits"] == judge(ranks_of(expected, keys), keys).details["hits"]
    assert record["details"]["refused"] == len(shunned)
    assert record["validity"] == "conservative"
    assert sum(record["provenance"]["misses"].values()) == len(shunned)
    capsys.readouterr()
    assert run(tmp_path, "--exported", str(tmp_path / "all.ts"), out="all") == (2, None)
    assert "fails on 3×8×8 images" in capsys.readouterr().err
    assert len(uses(Ledger(tmp_path / "keys", keys.commitment).entries())) == 1


def test_a_label_table_may_not_follow_the_answers(keys: KeySet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clean model; its answers are read in the journal, and a table is made that fits them."""
    with serve(lambda image: {"labels": [int(image[0, 0, 0]) % CLASSES, (int(image[0, 0, 0]) + 1) % CLASSES]}) as service:
        assert run(tmp_path, "--url", service.url)[0] == 0
        (tmp_path / "run" / "detection.json").unlink()
        (tmp_path / "t.csv").write_text("theirs,ours\n" + "".join(f"{i},{(i + 1) % CLASSES}\n" for i in range(CLASSES)))
        code, record = run(tmp_path, "--url", service.url, "--labels", str(tmp_path / "t.csv"))
    assert (code, record) == (2, None)
    assert "was begun with labels=None" in capsys.readouterr().err


def test_a_run_cut_off_before_its_record_ends_the_same_use(keys: KeySet, net: Net, tmp_path: Path) -> None:
    with serve(lambda image: {"scores": [float(s) for s in scores(net, image)]}) as service:
        _, first = run(tmp_path, "--url", service.url)
        (tmp_path / "run" / "detection.json").unlink()
        code, again = run(tmp_path, "--url", service.url)
    assert code == 0
    assert again == first
    found = uses(Ledger(tmp_path / "keys", keys.commitment).entries())
    assert [(use.finished, use.log10_p) for use in found] == [(True, (first or {})["log10_p"])]


def test_batches_are_exported_one_by_one(net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KeySet.draw(num_keys=12, num_classes=CLASSES, shape=(3, SIZE, SIZE), batches=[6, 6], uses="one").save(
        tmp_path / "one" / "keys"
    )
    for batch in ("0", "1"):
        words = [
            "keys",
            "export-queries",
            str(tmp_path / "one" / "keys"),
            "--out",
            str(tmp_path / f"q{batch}"),
            "--batches",
            batch,
        ]
        assert main(words) == 0
    for batch in ("0", "1"):
        named = {
            p.name: list(rank(scores(net, image)[None])[0].labels or ()) for p, image in read_queries(tmp_path / f"q{batch}")
        }
        answers = str(write_answers(tmp_path / f"{batch}.csv", named))
        code, record = run(tmp_path / "one", "--predictions", answers, "--batches", batch, out=f"run{batch}")
        assert code == 0
        assert (record or {})["details"]["batches"] == [int(batch)]
    other = str(tmp_path / "1.csv")
    capsys.readouterr()
    assert run(tmp_path / "one", "--predictions", other, "--batches", "0", out="run2")[0] == 2
    assert "write --batches with those that were exported" in capsys.readouterr().err


def test_no_path_of_the_owner_in_the_record(keys: KeySet, tmp_path: Path) -> None:
    rows = {str(i): [1, 2] for i in range(12)}
    code, record = run(tmp_path, "--predictions", str(write_answers(tmp_path / "a.csv", rows)))
    assert code == 0
    assert str(tmp_path) not in json.dumps(record)


def linear_onnx(path: Path, weight: np.ndarray, shape: list[object], last: bool = False) -> Path:
    """Write scores that are linear in the images, with channels first or last."""
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] if last else []
    nodes += [helper.make_node("Flatten", ["t" if last else "x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["m"])]
    nodes += [helper.make_node("Add", ["m", "b"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.linspace(0, 1, CLASSES, dtype=np.float32), "b")],
    )
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())
    return path


def test_the_record_says_what_was_checked_of_a_file(keys: KeySet, tmp_path: Path) -> None:
    """The same weights with channels first and last give one verdict, and the record says how the file was asked."""
    weight = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE, CLASSES)).astype(np.float32)
    first = linear_onnx(tmp_path / "first.onnx", weight, ["n", 3, SIZE, SIZE])
    last = linear_onnx(tmp_path / "last.onnx", weight, ["n", None, None, 3], last=True)
    _, one = run(tmp_path, "--onnx", str(first), out="first")
    code, other = run(tmp_path, "--onnx", str(last), out="none")
    assert (code, other) == (2, None)
    _, other = run(tmp_path, "--onnx", str(last), "--layout", "NHWC", out="last")
    assert one is not None
    assert other is not None
    assert other["details"] == one["details"]
    checks = one["provenance"]["checks"]
    assert {name: checks[name] for name in ("controls", "asked_twice", "in_other_company")} == {
        "controls": 8, "asked_twice": 8, "in_other_company": 4,
    }  # fmt: skip
    assert (checks["layout"], other["provenance"]["checks"]["layout"]) == ("NCHW", "NHWC")


def test_queries_that_do_not_reach_a_file(keys: KeySet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE, CLASSES)).astype(np.float32)
    blind = linear_onnx(tmp_path / "m.onnx", weight / 1e4, ["n", 3, SIZE, SIZE])
    code, record = run(tmp_path, "--onnx", str(blind))
    assert (code, record) == (2, None)
    assert "the queries do not reach this model, which answers all 12 keys and 8 controls" in capsys.readouterr().err
    assert Ledger(tmp_path / "keys", keys.commitment).entries() == []
    code, record = run(tmp_path, "--onnx", str(blind), "--std", "0.0001,0.0001,0.0001")
    assert code == 0
    assert record is not None
    for words in (("--image-size", "0"), ("--image-size", "100000"), ("--pass-timeout", "-1"), ("--mean", "124,117,104")):
        assert run(tmp_path, "--onnx", str(blind), *words, out="other") == (2, None)


def test_queries_that_do_not_reach_a_service(keys: KeySet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The use stands in the ledger, and what a person reads is no verdict."""
    with serve(lambda image: {"labels": [3, 1]}) as service:
        code, record = run(tmp_path, "--url", service.url)
    assert code == 0
    assert record is not None
    assert record["provenance"]["checks"] == {"compared_with_decoys": 24, "one_answer": True}
    assert "The queries do not reach" not in (out := capsys.readouterr().out)
    assert "answered every key and every decoy alike: the queries do not reach this model" in out
    assert "expected by chance" not in out
