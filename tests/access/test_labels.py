"""The label table: translation, both file formats, and every wrong table with its sentence."""

from pathlib import Path

import pytest

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.errors import TaggantError


def test_translation_keeps_places(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("theirs,ours\ncat,2\ndog,\nbird,0\n")
    table = LabelTable.load(tmp_path / "t.csv", 3)
    assert table.translate(["dog", "bird", "cat"], "q") == (None, 0, 2)
    (tmp_path / "t.json").write_text('{"0": 1, "1": null}')
    answers = [Answer(0, (1, 0), (0.9, 0.1)), Answer(1, None)]
    translated = LabelTable.load(tmp_path / "t.json", 3).apply(answers, 2)
    assert translated == [Answer(0, (None, 1), (0.9, 0.1)), Answer(1, None)]
    assert LabelTable.same(3).apply([Answer(0, (2, 0, 1))], 3) == [Answer(0, (2, 0, 1))]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "theirs,ours\na,1\nb,1\n", "'a' and 'b' both map to 1"),
        ("t.csv", "theirs,ours\na,3\n", "'a' maps to 3, and the owner's classes are 0..2"),
        ("t.csv", "theirs,ours\na,1\na,2\n", "lists 'a' twice"),
        ("t.json", '{"a": 1, "a": 2}', "lists 'a' twice"),
        ("t.json", "[1, 2]", "is no label table"),
        ("t.json", '{"a": 1.5}', "1.5 is no class number"),
        ("t.csv", "from,to\na,1\n", r"its columns are \['from', 'to'\]"),
        ("t.csv", "theirs,ours\na,x\n", "is no label table"),
    ],
)
def test_wrong_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TaggantError, match=message):
        LabelTable.load(tmp_path / name, 3)


def test_wrong_answers(tmp_path: Path) -> None:
    with pytest.raises(TaggantError, match="cannot be read"):
        LabelTable.load(tmp_path / "none.csv", 3)
    with pytest.raises(TaggantError, match=r"query q7: the answer 'cat' lies outside 0..2"):
        LabelTable.same(3).translate(["cat"], "q7")
    with pytest.raises(TaggantError, match="does not list the answer 'cat'; add a row"):
        LabelTable({"a": 0}, 3, "t.csv").translate(["cat"], "q7")
    with pytest.raises(TaggantError, match="answers 10 classes and the keys were drawn for 3; write --labels"):
        LabelTable.same(3).apply([], 10)
