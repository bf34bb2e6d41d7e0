"""Predictions files: what is written is read, ties know no file order, and one sentence for each doubtful file."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taggant_lightning.access import parquet_file, predictions
from taggant_lightning.access.answer import Answer
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.access.predictions import (
    WHOLE,
    Row,
    answers_of,
    misses,
    query_name,
    read_predictions,
    write_predictions,
)
from taggant_lightning.errors import TaggantError


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write records in the format that the suffix names."""
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return path


def cells(path: Path, text: str) -> dict[str, Row]:
    path.write_text(text)
    return read_predictions(path)


RANKINGS = st.none() | st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True).map(tuple)
LABELS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1).filter(lambda t: not t.startswith("["))


@given(rankings=st.lists(RANKINGS, min_size=1), named=st.booleans())
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read(rankings: list[tuple[int, ...] | None], named: bool, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("p") / "predictions.csv"
    answers = [Answer(i, labels) for i, labels in enumerate(rankings)]
    names = [f"q{i:04}" if named else str(i) for i in range(len(answers))]
    write_predictions(path, answers, names if named else None)
    assert answers_of(read_predictions(path), names, LabelTable.same(5)) == answers


RECORD = st.dictionaries(LABELS, st.sampled_from([-1.5, 0.0, 0.25, 1e30]), max_size=6)


@given(records=st.lists(RECORD, min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_every_format_says_the_same(records: list[dict[str, float]], tmp_path_factory: Any) -> None:
    formats_agree(records, tmp_path_factory.mktemp("p"), [".csv", ".jsonl"])


@given(records=st.lists(RECORD, min_size=20, max_size=60))
@settings(max_examples=2, deadline=None)  # a parquet file is read by a process of its own, which takes a second to start
def test_parquet_says_the_same(records: list[dict[str, float]], tmp_path_factory: Any) -> None:
    formats_agree(records, tmp_path_factory.mktemp("p"), [".jsonl", *([".parquet"] if find_spec("pyarrow") else [])])


def formats_agree(records: list[dict[str, float]], folder: Path, suffixes: list[str]) -> None:
    rows = [{"query": str(i), "labels": list(r), "scores": list(r.values())} for i, r in enumerate(records)]
    read = [read_predictions(write(folder / f"p{suffix}", rows)) for suffix in suffixes]
    assert all(r == read[0] for r in read)
    for i, record in enumerate(records):
        wanted = tuple(sorted(record, key=lambda label: (-record[label], label))) or None
        if not all(WHOLE.fullmatch(label) for label in record):
            assert read[0][str(i)].labels == wanted


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_scores_rank_and_ties_know_no_order(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"query": "out/q1.png", "labels": ["10", "9", "2"], "scores": [0.5, 0.5, 0.75]},
        {"query": "q2", "labels": ["10", "9", "b"], "scores": [0.5, 0.5, 0.5]},
        {"query": "q3", "labels": [], "scores": []},
        {"query": "q4", "labels": ["1", "0"], "scores": [0.5, float("nan")]},
    ]
    read = read_predictions(write(tmp_path / f"p{suffix}", rows))
    assert read == {
        "q1": Row(("2", "9", "10"), (0.75, 0.5, 0.5)),
        "q2": Row(("10", "9", "b"), (0.5, 0.5, 0.5)),
        "q3": Row(None),
        "q4": Row(None),  # a NaN is no answer
    }


def test_cells_of_csv(tmp_path: Path) -> None:
    text = '\ufeffquery,labels\r\n0007.png,3 1  2\r\n\r\n0008,"[""tabby cat"", 4]"\r\n"a\\b\\9.JPG",\r\n'
    read = cells(tmp_path / "p.csv", text)
    assert read == {"0007": Row(("3", "1", "2")), "0008": Row(("tabby cat", "4")), "9": Row(None)}
    read = cells(tmp_path / "p.csv", "query,labels,scores\n1,3 1,\n2,3 1,0.25 0.5\n")
    assert read == {"1": Row(("3", "1")), "2": Row(("1", "3"), (0.5, 0.25))}


def test_records_of_jsonl(tmp_path: Path) -> None:
    text = '{"query": 7, "labels": [3, 1.0, "x"]}\n\n{"query": "8", "labels": null}\n'
    text += '{"query": "9", "labels": "4 5", "scores": null}'
    read = cells(tmp_path / "p.jsonl", text)
    assert read == {"7": Row(("3", "1", "x")), "8": Row(None), "9": Row(("4", "5"))}


def test_names_of_queries() -> None:
    for identity, name in (
        ("a/b/7.png", "7"),
        ("7", "7"),
        ("0.5", "0.5"),
        ("C:\\x\\7.JPEG", "7"),
        (" 7.png ", "7"),
        ("7.txt", "7.txt"),
    ):
        assert query_name(identity) == name


def test_answers_are_numbered_by_name_and_translated(tmp_path: Path) -> None:
    read = cells(tmp_path / "p.csv", "query,labels,scores\nb.png,cat dog,1 2\na,,\nc,fox,1\n")
    table = LabelTable({"cat": 2, "dog": 0, "fox": None}, 3, "labels.csv")
    assert answers_of(read, ["q/a.png", "b", "c.png"], table) == [
        Answer(0, None),
        Answer(1, (0, 2), (2.0, 1.0)),
        Answer(2, (None,), (1.0,)),
    ]
    assert answers_of(read, ["a", "b", "c"], LabelTable({"cat": 2}, 3, "labels.csv"))[1] == Answer(1, (None, 2), (2.0, 1.0))
    with pytest.raises(TaggantError, match="labels=labels.csv lists no label of any answer, such as 'cat'"):
        answers_of(read, ["a", "b", "c"], LabelTable({"CAT": 2}, 3, "labels.csv"))
    with pytest.raises(TaggantError, match="the answer 'cat' lies outside 0..2, the owner's classes; write --labels"):
        answers_of(read, ["a", "b", "c"], LabelTable.same(3))
    from_one = cells(tmp_path / "one.csv", "query,labels\n0,1 2\n1,3 1\n")
    with pytest.raises(TaggantError, match="'3' lies outside 0..2, .* and none is 0: are they counted from 1"):
        answers_of(from_one, ["0", "1"], LabelTable.same(3))
    assert answers_of(from_one, ["0", "1"], LabelTable.same(4))[1] == Answer(1, (3, 1))
    with pytest.raises(TaggantError, match="predictions=p has no row for 'd', 'e', 'f' and 1 more of the 7 queries"):
        answers_of(read, ["a", "b", "c", "d", "e", "f", "g"], table, what="predictions=p")
    with pytest.raises(TaggantError, match="has rows for 'b', 'c', which are no queries of these keys"):
        answers_of(read, ["a"], table)


def test_rows_that_cannot_be_read_are_misses(tmp_path: Path) -> None:
    """A suspect can make each of them with one answer; the others count as before."""
    text = 'query,labels,scores\n1,2 3,0.5\n2,2 2,0.5 0.25\n3,"[true, 1]",\n4,,\n5,1 0,high low\n6,"[1",\n'
    read = cells(tmp_path / "p.csv", text)
    assert {name: row.labels for name, row in read.items()} == {
        "1": None, "2": ("2", "2"), "3": (None, "1"), "4": None, "5": None, "6": None,
    }  # fmt: skip
    assert read["1"].odd == "row 1, query '1': 2 labels and 1 scores; write one score a label, or none"
    assert [name for name, row in read.items() if row.odd] == ["1", "5", "6"]
    assert misses(read, list(read)) == {"no labels": 1, "a row that cannot be read": 3}
    answers = answers_of(read, list(read), LabelTable.same(4))
    assert [a.labels for a in answers] == [None, (2, None), (None, 1), None, None, None]


def test_what_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.parquet", [{"query": "0", "labels": ["1"] * 5_000}])
    assert read_predictions(path)["0"].labels == ("1",) * 5_000
    monkeypatch.setattr(parquet_file, "VALUES", 1_000)
    with pytest.raises(TaggantError, match="unpacks to more than is read"):
        read_predictions(path)
    monkeypatch.setattr(predictions, "LARGEST", 10)
    with pytest.raises(TaggantError, match="has more than 0 MiB"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write the columns query,labels"),
        ("query,labels\n", "holds no row"),
        ("id,labels\n1,2\n", "has the columns 'id,labels'; write query,labels"),
        ("query,labels,score\n1,2,3\n", "has the columns 'query,labels,score'"),
        ("query,labels,labels\n1,2,3\n", "has the columns"),
        ("query,labels\n1,2,3\n", "row 1 has 3 cells and the header 2"),
        ("query,labels\n1,2\na/1.png,3\n", "answers '1' twice, in rows 1 and 2"),
        ("query,labels,scores\n1,2 3,0.5\n", "row 1, query '1': 2 labels and 1 scores"),
        ("query,labels,scores\n1,,0.5\n", "0 labels and 1 scores"),
        ("query,labels,scores\n1,2 3,0.5 high\n", "the score 'high' is no number"),
        ("query,labels\n,2\n", "row 1: '' names no query"),
        ('query,labels\n1,"[1, 2"\n', "labels '\\[1, 2' is no JSON list"),
        ('query,labels\n1,"[[1]]"\n', "the label \\[1\\] is neither a number"),
        ('query,labels\n1,"[true]"\n', "the label True is neither"),
        ('query,labels,scores\n1,2,"[true]"\n', "the score 'True' is no number"),
        ('query,labels\n1,"2\n', "is no CSV"),
    ],
)
def test_doubtful_csv(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match=message) as error:
        cells(tmp_path / "p.csv", text)
    assert f"predictions={tmp_path / 'p.csv'}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "row 1 is empty"),
        ("\n[1]", "row 2 is no JSON object"),
        ('{"query": ', "row 1 is no JSON object"),
        ('{"query": "1", "labels": [1], "confidence": 1}', "row 1 has the columns 'query,labels,confidence'"),
        ('{"query": "1", "labels": 5}', "labels is 5; write a list"),
        ('{"query": null, "labels": []}', "row 1: 'None' names no query"),
    ],
)
def test_doubtful_jsonl(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match=message):
        cells(tmp_path / "p.jsonl", text)


def test_doubtful_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (
        ("p.txt", "ends in '.txt'; write .csv"),
        ("p", "ends in 'nothing'"),
        ("p.csv", "is no file; write .csv"),
    ):
        with pytest.raises(TaggantError, match=message):
            read_predictions(tmp_path / name)
    for name, message in (("p.csv", "is no CSV"), ("p.jsonl", "is no text"), ("p.parquet", "is no parquet file")):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(TaggantError, match=message):
            read_predictions(tmp_path / name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TaggantError, match=r"needs pyarrow; run pip install 'taggant-lightning\[parquet\]'"):
        read_predictions(tmp_path / "p.parquet")
