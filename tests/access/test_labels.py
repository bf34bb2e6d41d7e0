"""The label table: translation, both file formats, and every wrong table with its sentence."""

from pathlib import Path

import pytest

from taggant_lightning.access.answer import Answer
from taggant_lightning.access.labels import LabelTable
from taggant_lightning.errors import TaggantError


def test_translation_keeps_places(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("theirs,ours\ncat,2\ndog,\nbird,0\n")
    table = LabelTable.load(tmp_path / "t.csv", 3)
    assert table.translate(["dog", "bird", "cat"]) == (None, 0, 2)
    # Of its own invention, no label at all, and a class that was named before: each uses up its place.
    assert table.translate(["none-1f", None, "cat", "cat", "bird"]) == (None, None, 2, None, 0)
    assert table.unlisted([["cat"], None, ["none-\x1b[2J", "cat"], ["x"]]) == (2, r"'none-\x1b[2J'")
    (tmp_path / "t.json").write_text('{"0": 1, "1": null}')
    answers = [Answer(0, (1, 0), (0.9, 0.1)), Answer(1, None)]
    translated = LabelTable.load(tmp_path / "t.json", 3).apply(answers, 2)
    assert translated == [Answer(0, (None, 1), (0.9, 0.1)), Answer(1, None)]
    assert LabelTable.same(3).apply([Answer(0, (2, 0, 1))], 3) == [Answer(0, (2, 0, 1))]
    # One answer with a score too many; a table says what each output stands for.
    one_more = [Answer(0, (3, 2, 0, 1)), Answer(1, (2, 0, 1))]
    assert LabelTable.same(3).apply(one_more, 4) == [Answer(0, None), Answer(1, (2, 0, 1))]
    (tmp_path / "t.csv").write_text("theirs,ours\n0,0\n1,1\n2,2\n")
    assert LabelTable.load(tmp_path / "t.csv", 3).apply(one_more, 4)[0] == Answer(0, (None, 2, 0, 1))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "theirs,ours\na,1\nb,1\n", "'a' and 'b' both map to 1"),
        ("t.csv", "theirs,ours\na,3\n", "'a' maps to 3, and the owner's classes are 0..2"),
        ("t.csv", "theirs,ours\na,1\na,2\n", "lists 'a' twice"),
        ("t.json", '{"a": 1, "a": 2}', "lists 'a' twice"),
        ("t.json", "[1, 2]", "is no label table"),
        ("t.json", '{"a": 1.5}', "'1.5' is no class number"),
        ("t.json", "{" * 100_000, "more than 64 levels"),
        ("t.json", '{"a": %s}' % ("9" * 5_000), "a number of more than 100 digits"),
        ("t.csv", "theirs,ours\na," + "9" * 5_000, "is no class number"),
        ("t.csv", "theirs,ours\na,1,2\n", "row 2 has more cells than the header; quote a label that holds a comma"),
        ("t.csv", f"theirs,ours\n{'a' * 200_000},1\n", "field larger than field limit"),
        ("t.csv", "theirs,ours\na\x1b[2J,x\n", "^labels=[^\x1b]*$"),
        ("t.csv", "", "its columns are"),
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
    with pytest.raises(TaggantError, match="cannot be read"):
        LabelTable.load("/dev/zero", 3)
    with pytest.raises(TaggantError, match="answers 10 classes and the keys were drawn for 3; write --labels"):
        LabelTable.same(3).apply([Answer(0, tuple(range(10)))], 10)
