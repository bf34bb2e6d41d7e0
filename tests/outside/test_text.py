"""Texts from outside do nothing to what shows them."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taggant_lightning.outside import cell, cleaned, say, shown


@given(st.text(st.characters(), max_size=300))
def test_what_is_shown_is_one_line_that_does_nothing(text: str) -> None:
    found = shown(text)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in found)
    assert len(found.splitlines()) <= 1
    assert shown(found, None) == found
    found.encode()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\x1b[2J", r"a\x1b[2J"), ("a\nb\r", r"a\nb\r"), ("a\u202eb\u200b\u2066", r"a\u202eb\u200b\u2066"),
        ("\ud800", r"\ud800"), ("\x9b31m", r"\x9b31m"), ("\u3164\ufe0f\u2028", r"\u3164\ufe0f\u2028"),
        ("é 日本語 ümlaut ✓", "é 日本語 ümlaut ✓"), ("a" + "\u0301" * 50, "a\u0301\u0301"), ("a" + " " * 90 + "b", "a  b"),
    ],
)  # fmt: skip
def test_letters_stay_and_the_rest_is_escaped(text: str, found: str) -> None:
    assert shown(text) == found


def test_of_a_long_text_beginning_and_end_are_shown() -> None:
    found = shown("a" * 10**6 + "end", 50)
    assert len(found) == 50
    assert found.startswith("aaa")
    assert found.endswith("end")


def test_a_line_whatever_the_encoding() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("é\n\ud800", file=stream, flush=True)
    assert stream.buffer.getvalue() == b"\\xe9\\n\\ud800\n"


def test_a_page_keeps_the_line_ends_of_its_commands() -> None:
    assert cleaned({"a\x1b": ["x \\\n  y\x07", ("\u202e", 1)]}) == {r"a\x1b": ["x \\\n  y\\x07", (r"\u202e", 1)]}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "\n=1"])
def test_formulae(text: str) -> None:
    assert cell(text).startswith("'")


def test_no_formulae() -> None:
    assert [cell(value) for value in ("a=1", -1.5, None, "")] == ["a=1", -1.5, None, ""]
