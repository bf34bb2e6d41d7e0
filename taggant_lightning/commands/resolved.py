"""What a command of an experiment comes to: its whole configuration, or its words and the files that they name."""

import contextlib
import io
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from taggant_lightning.commands.fragments import with_fragments
from taggant_lightning.errors import TaggantError
from taggant_lightning.files import read_yaml


def resolver() -> Any:
    """Return a function that turns a command's words into its whole configuration, defaults included.

    Raises:
        TaggantError: By the function, if a command does not take its options.
    """
    parse: list[Any] = []

    def resolve(words: list[str]) -> Any:
        words = with_fragments(words)
        if words[:1] != ["taggant"] or words[1] not in ("fit", "validate", "test", "predict"):
            _check(words)
            files = [Path(word) for before, word in pairwise(words) if before == "--config"]
            return {"words": words, "files": [_with_fragment(file) for file in files]}
        if not parse:
            print("taggant: resolving the configuration of each command", file=sys.stderr, flush=True)
            from taggant_lightning.commands.lightning_configuration import resolved_configuration

            parse.append(resolved_configuration())
        return parse[0](words[1:])

    return resolve


def _check(words: list[str]) -> None:
    """Have a command's own parser look at its words, before anything runs.

    Raises:
        TaggantError: If it does not take them.
    """
    if words[:2] not in (["taggant", "keys"], ["taggant", "inspect"]):
        return
    from taggant_lightning.commands.inspect import parser_of_inspect
    from taggant_lightning.commands.keys import parser_of_keys

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if words[1] == "keys":
                parser_of_keys().parse_args(words[2:])
            else:
                parser_of_inspect().parse_known_args(words[2:])
    except SystemExit:
        sentence = said.getvalue().strip().rpartition("error: ")[2]
        raise TaggantError(f"{sentence} (in: {' '.join(words)})") from None


def _with_fragment(path: Path) -> dict[str, Any]:
    """Return what a configuration says, with the fragment of `data` that it may name."""
    hint = "name a configuration, with paths from the folder that the sweep runs in"
    content = read_yaml(path, what="config", hint=hint)
    if isinstance(content.get("data"), str):
        content["data"] = read_yaml(path.parent / content["data"], what="data", hint=hint)
    return content
